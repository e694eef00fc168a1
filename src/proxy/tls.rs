//! TLS on both sides, from PEM files: [`ClientAcceptor`] for those who dial the gateway, [`NodeConnector`] towards the nodes.
//!
//! The only module that knows rustls. The provider (aws-lc-rs) is passed explicitly, never taken from the process, so that no
//! dependency can change what is spoken. TLS 1.2 and 1.3; no ALPN, because CQL names none. Whatever fails says so: a
//! connection that should be encrypted is never plain instead.

pub mod acceptor;
pub mod client_auth;
pub mod connector;
pub mod files;
pub mod hello;
pub mod pem;
pub mod shown;
pub mod verify;

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs;
use rustls::{CipherSuite, SupportedProtocolVersion};

use super::current::Current;

pub use acceptor::ClientAcceptor;
pub use connector::NodeConnector;
pub use pem::TlsError;

/// The older one first, as in a range.
const VERSIONS: &[&SupportedProtocolVersion] = &[&rustls::version::TLS12, &rustls::version::TLS13];
/// Cipher suites in a line: scanners offer hundreds.
const MOST_SUITES: usize = 24;

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// What the gateway speaks, in words.
fn ours() -> String {
    format!("TLS 1.2 and 1.3 with {}", words(provider().cipher_suites.iter().map(|of| of.suite())))
}

fn words(suites: impl Iterator<Item = CipherSuite>) -> String {
    let word = |suite: CipherSuite| suite.as_str().map_or(format!("{:#06x}", u16::from(suite)), str::to_owned);
    suites.take(MOST_SUITES).map(word).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests;
