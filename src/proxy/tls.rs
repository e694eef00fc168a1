//! TLS on both sides, from PEM files: [`ClientAcceptor`] for those who dial the gateway, [`NodeConnector`] towards the nodes.
//!
//! The only module that knows rustls. The provider (aws-lc-rs) is passed explicitly, never taken from the process, so that no
//! dependency can change what is spoken. TLS 1.2 and 1.3; no ALPN, because CQL names none. Whatever fails says so: a
//! connection that should be encrypted is never plain instead.

pub mod files;
pub mod pem;
pub mod verify;

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::task::ready;

use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{self, Ticketer};
use rustls::server::Acceptor;
use rustls::{CipherSuite, ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion};
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_rustls::{LazyConfigAcceptor, TlsConnector, client, server};
use tokio_util::sync::PollSemaphore;

use crate::config::{ClientTls, NodeTls, Verify};

pub use pem::TlsError;

/// The older one first, as in a range.
const VERSIONS: &[&SupportedProtocolVersion] = &[&rustls::version::TLS12, &rustls::version::TLS13];
/// Cipher suites in a line: scanners offer hundreds.
const MOST_SUITES: usize = 24;
/// Bytes in records that may wait for a client that does not read: one record's worth.
const RECORDS: usize = 16 * 1024;

/// What handshakes go by from now on; clones share it.
struct Current<T>(Arc<RwLock<Arc<T>>>);

impl<T> Current<T> {
    fn new(config: T) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(config))))
    }

    fn get(&self) -> Arc<T> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn set(&self, config: T) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
    }
}

impl<T> Clone for Current<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

/// Answers TLS handshakes of clients.
#[derive(Clone)]
pub struct ClientAcceptor(Current<ServerConfig>);

impl ClientAcceptor {
    /// Reads the certificate and the key; clients need no certificate of their own.
    ///
    /// # Errors
    /// Names the file and what is wrong with it.
    pub fn from_config(tls: &ClientTls) -> Result<Self, TlsError> {
        Self::with_versions(tls, VERSIONS)
    }

    fn with_versions(tls: &ClientTls, versions: &[&'static SupportedProtocolVersion]) -> Result<Self, TlsError> {
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
    /// `InvalidData` when the client speaks no TLS or refuses ours, else the socket's own.
    pub async fn accept(&self, tcp: TcpStream, turns: &Arc<Semaphore>) -> io::Result<server::TlsStream<TcpStream>> {
        let hello = LazyConfigAcceptor::new(Acceptor::default(), tcp).await?;
        let offered: Vec<CipherSuite> = hello.client_hello().cipher_suites().to_vec();
        let limited = |tls: &mut rustls::ServerConnection| tls.set_buffer_limit(Some(RECORDS));
        let mut handshake = hello.into_stream_with(self.0.get(), limited);
        let mut turns = PollSemaphore::new(Arc::clone(turns));
        poll_fn(|cx| {
            let _turn = ready!(turns.poll_acquire(cx));
            Pin::new(&mut handshake).poll(cx)
        })
        .await
        .map_err(|error| with_suites(error, &offered))
    }
}

/// Where client and gateway have nothing in common: what each of them has.
fn with_suites(error: io::Error, offered: &[CipherSuite]) -> io::Error {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
    if !matches!(cause, Some(rustls::Error::PeerIncompatible(_))) {
        return error;
    }
    let words = |suites: &mut dyn Iterator<Item = CipherSuite>| {
        let word = |suite: CipherSuite| suite.as_str().map_or(format!("{:#06x}", u16::from(suite)), str::to_owned);
        suites.take(MOST_SUITES).map(word).collect::<Vec<_>>().join(", ")
    };
    let (theirs, ours) =
        (words(&mut offered.iter().copied()), words(&mut provider().cipher_suites.iter().map(|of| of.suite())));
    io::Error::new(
        error.kind(),
        format!("{error}; the client offers {theirs}; the gateway TLS 1.2 and 1.3 with {ours}"),
    )
}

fn server_config(tls: &ClientTls, versions: &[&'static SupportedProtocolVersion]) -> Result<ServerConfig, TlsError> {
    let provider = provider();
    let certified = pem::read_certified_key(&provider, &tls.certificate, &tls.key)?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)?
        .with_no_client_auth()
        .with_cert_resolver(certified);
    // Stateless tickets: a thousand clients that come back at once resume, and the gateway keeps nothing for them.
    config.ticketer = Ticketer::new()?;
    Ok(config)
}

/// Dials nodes over TLS.
#[derive(Clone)]
pub struct NodeConnector {
    config: Current<ClientConfig>,
    /// In place of the dialled host, for every node.
    server_name: Option<ServerName<'static>>,
}

impl NodeConnector {
    /// Reads the CAs and, where given, the gateway's own certificate and key.
    ///
    /// # Errors
    /// Names the file and what is wrong with it, or the key that is missing.
    pub fn from_config(tls: &NodeTls) -> Result<Self, TlsError> {
        let config = Current::new(client_config(tls)?);
        let server_name = tls.server_name.as_deref().map(parse_name).transpose()?;
        Ok(Self { config, server_name })
    }

    /// Reads the files anew, for whoever is dialled from now on.
    ///
    /// # Errors
    /// As [`Self::from_config`]; then everything stays as it is.
    pub fn reload(&self, tls: &NodeTls) -> Result<(), TlsError> {
        self.config.set(client_config(tls)?);
        Ok(())
    }

    /// Completes the handshake with the node dialled as `host`, a name or an address without brackets; the caller owns the
    /// deadline.
    ///
    /// # Errors
    /// `InvalidInput` when `host` is neither; `InvalidData` when the node speaks no TLS, refuses ours or its certificate is not
    /// accepted; else the socket's own.
    pub async fn connect(&self, tcp: TcpStream, host: &str) -> io::Result<client::TlsStream<TcpStream>> {
        let name = match &self.server_name {
            Some(name) => name.clone(),
            None => parse_name(host).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?,
        };
        TlsConnector::from(self.config.get()).connect(name, tcp).await
    }
}

fn client_config(tls: &NodeTls) -> Result<ClientConfig, TlsError> {
    let provider = provider();
    let roots = match (&tls.ca, tls.verify) {
        (_, Verify::Off) => RootCertStore::empty(),
        (Some(ca), _) => pem::read_roots(ca)?,
        (None, _) => return Err(TlsError::CaMissing),
    };
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(VERSIONS)?;
    let builder = match tls.verify {
        Verify::Full => builder.with_root_certificates(roots),
        Verify::Ca => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verify::Nameless::chain_only(roots, Arc::clone(&provider)))),
        Verify::Off => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verify::Nameless::nothing(Arc::clone(&provider)))),
    };
    Ok(match (&tls.certificate, &tls.key) {
        (Some(certificate), Some(key)) => {
            builder.with_client_cert_resolver(pem::read_certified_key(&provider, certificate, key)?)
        }
        (None, None) => builder.with_no_client_auth(),
        _ => return Err(TlsError::HalfPair),
    })
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

fn parse_name(host: &str) -> Result<ServerName<'static>, TlsError> {
    ServerName::try_from(host.to_owned()).map_err(|_| TlsError::Name { name: host.to_owned() })
}

#[cfg(test)]
mod tests;
