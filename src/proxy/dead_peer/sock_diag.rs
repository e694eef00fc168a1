//! What the kernel knows of one TCP connection: `sock_diag(7)`, which is what `ss` asks, over a netlink socket.
//!
//! `TCP_INFO` says the same, and no safe call brings it. Numbers in netlink are the machine's, addresses and ports the network's.

use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr};
use std::sync::LazyLock;

use socket2::{Domain, Protocol, Socket, Type};

/// `linux/netlink.h`, `linux/sock_diag.h`, `linux/inet_diag.h`.
const AF_NETLINK: i32 = 16;
const NETLINK_SOCK_DIAG: i32 = 4;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 1;
const IPPROTO_TCP: u8 = 6;
const INET_DIAG_INFO: u16 = 2;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// Of a netlink message, of `inet_diag_req_v2`, and of `inet_diag_msg`, in bytes.
const HEADER: usize = 16;
const REQUEST: usize = 56;
const MESSAGE: usize = 72;
/// `idiag_wqueue` in `inet_diag_msg`; `tcpi_bytes_acked`, `tcpi_segs_out` and `tcpi_segs_in` in `tcp_info` (`linux/tcp.h`).
const WQUEUE: usize = 60;
const BYTES_ACKED: usize = 120;
const SEGS_OUT: usize = 136;
const SEGS_IN: usize = 140;

/// What a connection has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpState {
    /// Bytes that the peer has not acknowledged, sent or not.
    pub queued: u32,
    /// Bytes that it has, so far.
    pub acked: u64,
    /// Segments that came and went so far: probes and whatever was sent again, too.
    pub segments_in: u32,
    pub segments_out: u32,
}

/// Whether the kernel answers such questions; not where a sandbox keeps them from it, nor on another system.
pub static ANSWERS: LazyLock<bool> = LazyLock::new(|| {
    let nobody = SocketAddr::from(([127, 0, 0, 1], 0));
    SockDiag::open().and_then(|mut diag| diag.ask(nobody, nobody)).is_ok()
});

/// A socket to ask with.
#[derive(Debug)]
pub struct SockDiag(Socket);

impl SockDiag {
    /// # Errors
    /// The system's: it has no such sockets, or lets nobody have one.
    pub fn open() -> io::Result<Self> {
        let socket = Socket::new(Domain::from(AF_NETLINK), Type::DGRAM, Some(Protocol::from(NETLINK_SOCK_DIAG)))?;
        socket.set_nonblocking(true)?;
        Ok(Self(socket))
    }

    /// What is known of the connection between these two; `None` where there is none. Takes some microseconds.
    ///
    /// # Errors
    /// The kernel does not answer such questions.
    pub fn ask(&mut self, local: SocketAddr, peer: SocketAddr) -> io::Result<Option<TcpState>> {
        self.0.send(&request(local, peer))?;
        let mut answer = [0; 1024];
        let length = (&self.0).read(&mut answer)?;
        parse(answer.get(..length).unwrap_or_default())
    }
}

fn request(local: SocketAddr, peer: SocketAddr) -> Vec<u8> {
    let (local, peer) = (canonical(local), canonical(peer));
    let mut bytes = Vec::with_capacity(HEADER + REQUEST);
    bytes.extend(((HEADER + REQUEST) as u32).to_ne_bytes());
    bytes.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    bytes.extend(NLM_F_REQUEST.to_ne_bytes());
    bytes.extend([0; 8]);
    let family = if local.is_ipv4() { AF_INET } else { AF_INET6 };
    bytes.extend([family, IPPROTO_TCP, 1 << (INET_DIAG_INFO - 1), 0]);
    // In whatever state it is.
    bytes.extend(u32::MAX.to_ne_bytes());
    bytes.extend(local.port().to_be_bytes());
    bytes.extend(peer.port().to_be_bytes());
    bytes.extend(octets(local.ip()));
    bytes.extend(octets(peer.ip()));
    // A link-local address is one of an interface.
    let interface = if let SocketAddr::V6(local) = local { local.scope_id() } else { 0 };
    bytes.extend(interface.to_ne_bytes());
    // No cookie.
    bytes.extend([0xff; 8]);
    bytes
}

/// An IPv4 connection of an IPv6 socket is known by its IPv4 addresses.
fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        ip @ IpAddr::V4(_) => SocketAddr::new(ip, address.port()),
        IpAddr::V6(_) => address,
    }
}

fn octets(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => {
            let mut octets = [0; 16];
            octets.iter_mut().zip(ip.octets()).for_each(|(to, from)| *to = from);
            octets
        }
        IpAddr::V6(ip) => ip.octets(),
    }
}

fn parse(answer: &[u8]) -> io::Result<Option<TcpState>> {
    let short = || io::Error::new(io::ErrorKind::InvalidData, "sock_diag: the answer is shorter than it says");
    match u16_at(answer, 4).ok_or_else(short)? {
        SOCK_DIAG_BY_FAMILY => {}
        NLMSG_ERROR => {
            let error = io::Error::from_raw_os_error(-(u32_at(answer, HEADER).ok_or_else(short)? as i32));
            return if error.kind() == io::ErrorKind::NotFound { Ok(None) } else { Err(error) };
        }
        other => {
            let text = format!("sock_diag: message {other} in place of {SOCK_DIAG_BY_FAMILY}");
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
    }
    let queued = u32_at(answer, HEADER + WQUEUE).ok_or_else(short)?;
    let mut rest = answer.get(HEADER + MESSAGE..).ok_or_else(short)?;
    loop {
        // An attribute: its length, its type, itself, padded to four bytes.
        let length = usize::from(u16_at(rest, 0).ok_or_else(short)?);
        let attribute = rest.get(4..length).ok_or_else(short)?;
        if u16_at(rest, 2) == Some(INET_DIAG_INFO) {
            let acked = attribute.get(BYTES_ACKED..).and_then(<[u8]>::first_chunk).ok_or_else(short)?;
            return Ok(Some(TcpState {
                queued,
                acked: u64::from_ne_bytes(*acked),
                segments_in: u32_at(attribute, SEGS_IN).ok_or_else(short)?,
                segments_out: u32_at(attribute, SEGS_OUT).ok_or_else(short)?,
            }));
        }
        rest = rest.get(length.next_multiple_of(4)..).ok_or_else(short)?;
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|bytes| u16::from_ne_bytes(*bytes))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};

    /// Sends a little to a peer that listens at `at` and reads it, then more than it has room for.
    fn check(at: &str, dial: &str) {
        let listener = TcpListener::bind(at).unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut peer = TcpStream::connect((dial, port)).unwrap();
        let mut near = listener.accept().unwrap().0;
        let (local, far) = (near.local_addr().unwrap(), near.peer_addr().unwrap());
        let mut diag = SockDiag::open().unwrap();
        let mut ask = || diag.ask(local, far).unwrap().unwrap();
        near.write_all(b"hello").unwrap();
        peer.read_exact(&mut [0; 5]).unwrap();
        let mut state = ask();
        while state.queued > 0 {
            state = ask();
        }
        assert!(state.acked >= 5 && state.segments_in >= 2 && state.segments_out >= 1, "{state:?}");
        near.set_nonblocking(true).unwrap();
        while near.write(&[0; 65536]).is_ok() {}
        let full = ask();
        assert!(full.queued > 0 && full.segments_out > state.segments_out, "{full:?}");
        drop((near, peer));
        assert_eq!(diag.ask(SocketAddr::from(([127, 0, 0, 1], 1)), far).unwrap(), None);
    }

    #[test]
    fn the_kernel_tells_what_a_peer_has_not_taken_in_both_families_and_in_one_mapped_to_the_other() {
        assert!(*ANSWERS);
        check("127.0.0.1:0", "127.0.0.1");
        check("[::1]:0", "::1");
        check("[::]:0", "127.0.0.1");
    }

    #[test]
    fn an_answer_that_ends_early_is_an_error() {
        let mut whole = vec![0; HEADER + MESSAGE + 4 + 144];
        whole[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
        whole[HEADER + MESSAGE..][..2].copy_from_slice(&148u16.to_ne_bytes());
        whole[HEADER + MESSAGE + 2..][..2].copy_from_slice(&INET_DIAG_INFO.to_ne_bytes());
        assert!(parse(&whole).unwrap().is_some());
        for length in 0..whole.len() {
            assert!(parse(&whole[..length]).is_err(), "{length}");
        }
        // An attribute of no length would be read for ever.
        whole[HEADER + MESSAGE..][..4].fill(0);
        assert!(parse(&whole).is_err());
    }
}
