//! TLS with those who dial the gateway.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::ready;

use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::server::{Acceptor, NoServerSessionStorage};
use rustls::{CipherSuite, ServerConfig, SupportedProtocolVersion};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_rustls::{LazyConfigAcceptor, server};
use tokio_util::sync::PollSemaphore;

use super::shown::Shown;
use super::{Current, TlsError, VERSIONS, client_auth, ours, pem, provider, words};
use crate::config::ClientTls;

/// Bytes in records that may wait for a client that does not read: one record's worth.
const RECORDS: usize = 16 * 1024;

/// Answers TLS handshakes of clients.
#[derive(Clone)]
pub struct ClientAcceptor(pub(super) Current<ServerConfig>);

impl ClientAcceptor {
    /// Reads the certificate and the key, and by what clients are verified.
    ///
    /// # Errors
    /// Names the file and what is wrong with it.
    pub fn from_config(tls: &ClientTls) -> Result<Self, TlsError> {
        Self::with_versions(tls, VERSIONS)
    }

    pub(super) fn with_versions(
        tls: &ClientTls,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Result<Self, TlsError> {
        Ok(Self(Current::new(server_config(tls, versions)?)))
    }

    /// Reads the files anew, for whoever comes from now on.
    ///
    /// # Errors
    /// As [`Self::from_config`]; then everything stays as it is.
    pub fn reload(&self, tls: &ClientTls) -> Result<(), TlsError> {
        self.0.set(server_config(tls, VERSIONS)?);
        Ok(())
    }

    /// Completes the handshake; the caller owns the deadline. What costs a core's time takes a turn; who is silent has none.
    ///
    /// # Errors
    /// `InvalidData` when the client speaks no TLS, refuses ours or shows no certificate that is accepted, else the socket's own. The
    /// socket comes with it, so that the alert is not lost to a reset.
    pub async fn accept(&self, tcp: TcpStream, turns: &Arc<Semaphore>) -> Result<server::TlsStream<TcpStream>, Failed> {
        let hello = {
            let lazy = LazyConfigAcceptor::new(Acceptor::default(), tcp);
            tokio::pin!(lazy);
            match lazy.as_mut().await {
                Ok(hello) => hello,
                Err(error) => return Err(Failed { error, tcp: lazy.take_io() }),
            }
        };
        let offered: Vec<CipherSuite> = hello.client_hello().cipher_suites().to_vec();
        let limited = |tls: &mut rustls::ServerConnection| tls.set_buffer_limit(Some(RECORDS));
        let mut handshake = hello.into_stream_with(self.0.get(), limited).into_fallible();
        let mut turns = PollSemaphore::new(Arc::clone(turns));
        poll_fn(|cx| {
            let _turn = ready!(turns.poll_acquire(cx));
            Pin::new(&mut handshake).poll(cx)
        })
        .await
        .map_err(|(error, tcp)| Failed { error: with_suites(error, &offered), tcp: Some(tcp) })
    }
}

/// Why there is no TLS with a client.
#[derive(Debug)]
pub struct Failed {
    pub error: io::Error,
    /// Where the client may still read an alert.
    pub tcp: Option<TcpStream>,
}

impl From<Failed> for io::Error {
    fn from(failed: Failed) -> Self {
        failed.error
    }
}

/// What the client's certificate says, where it showed one.
pub fn client_of(stream: &server::TlsStream<TcpStream>) -> Option<Shown> {
    Shown::of(stream.get_ref().1.peer_certificates()?.first()?)
}

/// Where client and gateway have nothing in common: what each of them has.
fn with_suites(error: io::Error, offered: &[CipherSuite]) -> io::Error {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
    if !matches!(cause, Some(rustls::Error::PeerIncompatible(_))) {
        return error;
    }
    let theirs = words(offered.iter().copied());
    io::Error::new(error.kind(), format!("{error}; the client offers {theirs}; the gateway {}", ours()))
}

fn server_config(tls: &ClientTls, versions: &[&'static SupportedProtocolVersion]) -> Result<ServerConfig, TlsError> {
    let provider = provider();
    let certified = pem::read_certified_key(&provider, &tls.certificate, &tls.key)?;
    let verifier = client_auth::verifier(&tls.client_auth, Arc::clone(&provider))?;
    let builder = ServerConfig::builder_with_provider(provider).with_protocol_versions(versions)?;
    let Some(verifier) = verifier else {
        let mut config = builder.with_no_client_auth().with_cert_resolver(certified);
        // Stateless tickets: a thousand clients that come back at once resume, and the gateway keeps nothing for them.
        config.ticketer = Ticketer::new()?;
        return Ok(config);
    };
    let mut config = builder.with_client_cert_verifier(verifier).with_cert_resolver(certified);
    // Who resumes is not verified again: its certificate, or a list of what is revoked, might have ended meanwhile.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}
