//! Plain TCP or TLS, as one type: an enum, so that the relay is one shape and pays no virtual call per read.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;

use super::dead_peer::client_user_timeout;

/// Middleboxes forget silent connections after 240 to 350 s; drivers heartbeat every 30 s. Keepalive finds vanished peers.
const KEEPALIVE: TcpKeepalive =
    TcpKeepalive::new().with_time(Duration::from_secs(60)).with_interval(Duration::from_secs(10)).with_retries(3);
/// Bytes written to a node that stay unacknowledged this long end the connection, or that it does not read: nodes always do.
const NODE_USER_TIMEOUT: Duration = Duration::from_secs(30);

/// One side of a connection.
pub enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    pub fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(tls) => tls.get_ref().0,
        }
    }

    /// Bytes have come that nobody has read: the runtime hears of them some time later, on a machine with much to do by milliseconds.
    pub fn has_unread(&self) -> bool {
        SockRef::from(self.tcp()).peek(&mut [MaybeUninit::uninit()]).is_ok_and(|bytes| bytes > 0)
    }

    /// Makes the close that follows a reset: the peer sees at once that nothing more is to be expected.
    pub fn reset_on_close(&self) {
        reset_on_close(self.tcp());
    }
}

/// Sets what a node's socket has. An option that the system refuses is not worth a connection.
pub fn set_node_options(tcp: &TcpStream) {
    set_options(tcp, Some(NODE_USER_TIMEOUT));
}

/// The same for a client's, which may pause (see `dead_peer`).
pub fn set_client_options(tcp: &TcpStream, dead_peer: Duration) {
    set_options(tcp, client_user_timeout(dead_peer));
}

fn set_options(tcp: &TcpStream, user_timeout: Option<Duration>) {
    let _ = tcp.set_nodelay(true);
    let socket = SockRef::from(tcp);
    let _ = socket.set_tcp_keepalive(&KEEPALIVE);
    #[cfg(target_os = "linux")]
    let _ = socket.set_tcp_user_timeout(user_timeout);
    #[cfg(not(target_os = "linux"))]
    let _ = user_timeout;
}

/// See [`Stream::reset_on_close`].
pub fn reset_on_close(tcp: &TcpStream) {
    let _ = SockRef::from(tcp).set_linger(Some(Duration::ZERO));
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Self::Tls(tls) => Pin::new(tls).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write(cx, buf),
            Self::Tls(tls) => Pin::new(tls).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Self::Tls(tls) => Pin::new(tls).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    /// `socket(7)`, `tcp(7)`: SO_KEEPALIVE, TCP_KEEPIDLE, TCP_USER_TIMEOUT.
    #[tokio::test]
    async fn the_kernel_asks_after_silent_peers_and_gives_up_deaf_nodes_but_no_client_that_pauses() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let tcp = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let socket = SockRef::from(&tcp);
        let options = || {
            assert!(tcp.nodelay().unwrap() && socket.keepalive().unwrap());
            (socket.tcp_keepalive_time().unwrap().as_secs(), socket.tcp_user_timeout().unwrap())
        };
        set_node_options(&tcp);
        assert_eq!(options(), (60, Some(Duration::from_secs(30))));
        set_client_options(&tcp, Duration::from_secs(300));
        assert_eq!(options(), (60, None));
    }
}
