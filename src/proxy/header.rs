//! The PROXY protocol's header, versions 1 and 2: whom a load balancer brings.
//!
//! Exactly the header's bytes are taken from the socket: what comes after them belongs to TLS or CQL. A header is looked at once for
//! each byte, however it is cut.
//! (<https://www.haproxy.org/download/2.9/doc/proxy-protocol.txt>)

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};

use ppp::{HeaderResult, v1, v2};
use thiserror::Error;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// Longest line of version 1, with its end (§2.1).
const LONGEST_LINE: usize = 107;
/// Longest header of version 2. §2.2 asks for 216 bytes of addresses and some values; the longest that load balancers are known to
/// send are a certificate's subject and a few dozen bytes of the cloud's.
const LONGEST: usize = 2048;
/// Longest text that is kept of one.
const LONGEST_TEXT: usize = 256;
/// Bytes asked for at once.
const WINDOW: usize = 256;

const LINE: &[u8] = b"PROXY ";
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// The TLV that says by which name the client dialled (§2.2.2).
const AUTHORITY: u8 = 0x02;
/// Which private endpoint a client came through: Amazon's ("Proxy protocol", Network Load Balancer guide), Microsoft's ("Getting
/// connection information using TCP Proxy v2", Private Link service) and Google's ("Get client connection information", Private
/// Service Connect).
const AWS: u8 = 0xEA;
const AZURE: u8 = 0xEE;
const GCP: u8 = 0xE0;
/// What follows the first two is one of several things; this is the endpoint's identity in both.
const ENDPOINT: u8 = 1;

/// Whom the load balancer brings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Brought {
    /// `None` where it does not know, or brings nobody.
    pub client: Option<SocketAddr>,
    /// It looks by itself whether the gateway is there.
    pub is_local: bool,
    pub via: Via,
}

/// How the client came to the load balancer. Nobody but the load balancer vouches for it: for logs, never a label of metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Via {
    pub endpoint: Option<Endpoint>,
    /// By which name the client dialled.
    pub authority: Option<Box<str>>,
}

impl Via {
    pub fn is_empty(&self) -> bool {
        self.endpoint.is_none() && self.authority.is_none()
    }
}

impl fmt::Display for Via {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.endpoint, &self.authority) {
            (Some(endpoint), Some(authority)) => write!(f, "{endpoint} {authority}"),
            (Some(endpoint), None) => endpoint.fmt(f),
            (None, authority) => f.write_str(authority.as_deref().unwrap_or_default()),
        }
    }
}

/// The cloud's private endpoint that a client came through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    Aws(Box<str>),
    Azure(u32),
    Gcp(u64),
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Aws(id) => f.write_str(id),
            Self::Azure(id) => write!(f, "azure-link-{id}"),
            Self::Gcp(id) => write!(f, "gcp-psc-{id}"),
        }
    }
}

/// Why there is no header.
#[derive(Debug, Error)]
pub enum HeaderError {
    /// Something else came first; nothing was taken of it.
    #[error("no PROXY header came first")]
    Absent,
    #[error("the PROXY header is longer than {LONGEST} bytes")]
    TooLong,
    #[error("the PROXY header is malformed: {0}")]
    Malformed(String),
    #[error(transparent)]
    Socket(#[from] io::Error),
    #[error("it ended before a PROXY header had come")]
    Ended,
}

/// Takes the header from the socket.
///
/// # Errors
/// See [`HeaderError`].
pub async fn read(client: &mut TcpStream) -> Result<Brought, HeaderError> {
    let mut taken = Vec::new();
    loop {
        let old = taken.len();
        taken.resize(old + WINDOW, 0);
        let seen = old + client.peek(taken.get_mut(old..).unwrap_or_default()).await?;
        taken.truncate(seen);
        if seen == old {
            return Err(HeaderError::Ended);
        }
        let (len, is_whole) = match extent(&taken, old) {
            Extent::Absent if old == 0 => return Err(HeaderError::Absent),
            Extent::Absent => return Err(HeaderError::Malformed("it ends in its signature".to_owned())),
            Extent::TooLong => return Err(HeaderError::TooLong),
            Extent::Whole(len) => (len, true),
            Extent::More => (seen, false),
        };
        taken.truncate(len);
        client.read_exact(taken.get_mut(old..).unwrap_or_default()).await?;
        if is_whole {
            return parse(&taken);
        }
    }
}

/// How far a header goes that begins with these bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    Absent,
    More,
    Whole(usize),
    TooLong,
}

/// `looked`: so many of them were looked at before.
pub fn extent(bytes: &[u8], looked: usize) -> Extent {
    if begins(bytes, SIGNATURE) {
        let Some([.., high, low]) = bytes.first_chunk::<16>() else { return Extent::More };
        return match 16 + usize::from(u16::from_be_bytes([*high, *low])) {
            LONGEST.. => Extent::TooLong,
            len if bytes.len() < len => Extent::More,
            len => Extent::Whole(len),
        };
    }
    if !begins(bytes, LINE) {
        return Extent::Absent;
    }
    let from = looked.saturating_sub(1);
    let line = bytes.get(from..bytes.len().min(LONGEST_LINE)).unwrap_or_default();
    match line.windows(2).position(|pair| pair == b"\r\n") {
        Some(at) => Extent::Whole(from + at + 2),
        None if bytes.len() >= LONGEST_LINE => Extent::TooLong,
        None => Extent::More,
    }
}

/// As far as there are bytes.
fn begins(bytes: &[u8], with: &[u8]) -> bool {
    bytes.iter().zip(with).all(|(byte, expected)| byte == expected)
}

/// What a whole header says.
///
/// # Errors
/// What is wrong with it.
pub fn parse(header: &[u8]) -> Result<Brought, HeaderError> {
    let malformed = |error: &dyn fmt::Display| HeaderError::Malformed(error.to_string());
    match HeaderResult::parse(header) {
        HeaderResult::V1(Ok(header)) => {
            let client = match header.addresses {
                v1::Addresses::Tcp4(of) => Some((IpAddr::from(of.source_address), of.source_port)),
                v1::Addresses::Tcp6(of) => Some((IpAddr::from(of.source_address), of.source_port)),
                v1::Addresses::Unknown => None,
            };
            Ok(Brought { client: client.map(SocketAddr::from), ..Brought::default() })
        }
        HeaderResult::V2(Ok(header)) => {
            if header.command == v2::Command::Local {
                // Whatever addresses it has count for nothing (§2.2).
                return Ok(Brought { is_local: true, ..Brought::default() });
            }
            let client = match header.addresses {
                _ if header.protocol != v2::Protocol::Stream => None,
                v2::Addresses::IPv4(of) => Some((IpAddr::from(of.source_address), of.source_port)),
                v2::Addresses::IPv6(of) => Some((IpAddr::from(of.source_address), of.source_port)),
                v2::Addresses::Unspecified | v2::Addresses::Unix(_) => None,
            };
            let mut brought = Brought { client: client.map(SocketAddr::from), ..Brought::default() };
            for tlv in header.tlvs() {
                let tlv = tlv.map_err(|error| malformed(&error))?;
                brought.via.note(tlv.kind, &tlv.value);
            }
            Ok(brought)
        }
        HeaderResult::V1(Err(error)) => Err(malformed(&error)),
        HeaderResult::V2(Err(error)) => Err(malformed(&error)),
    }
}

impl Via {
    fn note(&mut self, kind: u8, value: &[u8]) {
        let endpoint = match (kind, value.split_first()) {
            (AUTHORITY, _) => {
                self.authority = text(value);
                None
            }
            (AWS, Some((&ENDPOINT, id))) => text(id).map(Endpoint::Aws),
            (AZURE, Some((&ENDPOINT, id))) => id.try_into().ok().map(u32::from_le_bytes).map(Endpoint::Azure),
            (GCP, _) => value.try_into().ok().map(u64::from_be_bytes).map(Endpoint::Gcp),
            _ => None,
        };
        self.endpoint = endpoint.or(self.endpoint.take());
    }
}

/// What may stand in a log.
fn text(bytes: &[u8]) -> Option<Box<str>> {
    let text = std::str::from_utf8(bytes.get(..bytes.len().min(LONGEST_TEXT))?).ok()?;
    (!text.is_empty() && text.chars().all(|c| c.is_ascii_graphic())).then(|| text.into())
}
