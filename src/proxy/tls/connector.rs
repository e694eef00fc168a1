//! TLS towards the nodes, in the gateway's own name or in that of a client.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::{AlertDescription, ClientConfig};
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, TlsStream, client};

use super::shown::Shown;
use super::{Current, TlsError, VERSIONS, ours, pem, provider, verify};
use crate::config::identity::Pattern;
use crate::config::{Identity, NodeTls};

/// Dials nodes over TLS.
#[derive(Clone)]
pub struct NodeConnector(Current<Faces>);

struct Faces {
    own: Face,
    /// In the order of the file.
    of_clients: Vec<(Pattern, Face)>,
}

/// As whom a node is dialled: with which certificate, or none.
#[derive(Clone)]
pub struct Face {
    config: Arc<ClientConfig>,
    server_name: Option<ServerName<'static>>,
}

impl NodeConnector {
    /// Reads the CAs and the certificates that are shown to nodes, with their keys.
    ///
    /// # Errors
    /// Names the file and what is wrong with it, or the key that is missing.
    pub fn from_config(tls: &NodeTls) -> Result<Self, TlsError> {
        Ok(Self(Current::new(faces(tls)?)))
    }

    /// Reads the files anew, for whoever is dialled from now on.
    ///
    /// # Errors
    /// As [`Self::from_config`]; then everything stays as it is.
    pub fn reload(&self, tls: &NodeTls) -> Result<(), TlsError> {
        self.0.set(faces(tls)?);
        Ok(())
    }

    /// What nodes are shown of the gateway itself.
    pub fn own(&self) -> Face {
        self.0.get().own.clone()
    }

    /// Whether nodes are shown something else in the name of clients.
    pub fn has_identities(&self) -> bool {
        !self.0.get().of_clients.is_empty()
    }

    /// What nodes are shown in the name of a client that has shown this; None where it has no identity there and all have to have one.
    pub fn of_client(&self, shown: Option<&Shown>) -> Option<Face> {
        let faces = self.0.get();
        if faces.of_clients.is_empty() {
            return Some(faces.own.clone());
        }
        let shown = shown?;
        faces.of_clients.iter().find(|(pattern, _)| shown.is_meant_by(pattern)).map(|(_, face)| face.clone())
    }
}

impl Face {
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
        TlsConnector::from(Arc::clone(&self.config)).connect(name, tcp).await.map_err(with_suites)
    }
}

/// What is spoken on a connection that this module made, and with whom.
pub fn spoken(stream: &TlsStream<TcpStream>) -> String {
    let (_, tls) = stream.get_ref();
    let version = match tls.protocol_version() {
        Some(rustls::ProtocolVersion::TLSv1_2) => "TLS 1.2",
        _ => "TLS 1.3",
    };
    let suite =
        tls.negotiated_cipher_suite().map(|suite| suite.suite()).and_then(|suite| suite.as_str()).unwrap_or_default();
    let shown = tls.peer_certificates().and_then(|chain| Shown::of(chain.first()?));
    let names = shown.map(|shown| shown.all_names()).unwrap_or_default();
    format!("{version}, {suite}, certificate of {names}")
}

/// Where node and gateway have nothing in common, the node does not say what it has (RFC 8446 §6.2).
fn with_suites(error: io::Error) -> io::Error {
    use AlertDescription::{HandshakeFailure, InsufficientSecurity, ProtocolVersion};
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
    match cause {
        Some(rustls::Error::AlertReceived(HandshakeFailure | InsufficientSecurity | ProtocolVersion)) => {}
        _ => return error,
    }
    io::Error::new(error.kind(), format!("{error}: no common suite or version; the gateway offers {}", ours()))
}

/// Whether a node says that it does not take the certificate that it was shown, or requires one (RFC 8446 §6.2).
pub fn refuses_certificate(error: &io::Error) -> bool {
    use AlertDescription::{
        AccessDenied, BadCertificate, CertificateExpired, CertificateRequired, CertificateRevoked, CertificateUnknown,
        UnknownCA, UnsupportedCertificate,
    };
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
    let Some(rustls::Error::AlertReceived(alert)) = cause else { return false };
    matches!(
        alert,
        AccessDenied
            | BadCertificate
            | CertificateExpired
            | CertificateRequired
            | CertificateRevoked
            | CertificateUnknown
            | UnknownCA
            | UnsupportedCertificate
    )
}

fn faces(tls: &NodeTls) -> Result<Faces, TlsError> {
    let verifier = Arc::new(verify::Nodes::new(tls, &provider())?);
    // In place of the dialled host, for every node.
    let server_name = tls.server_name.as_deref().map(parse_name).transpose()?;
    let face = |pair: Option<(&PathBuf, &PathBuf)>| {
        let provider = provider();
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(VERSIONS)?;
        let builder = builder.dangerous().with_custom_certificate_verifier(Arc::clone(&verifier) as _);
        let config = match pair {
            Some((certificate, key)) => {
                builder.with_client_cert_resolver(pem::read_certified_key(&provider, certificate, key)?)
            }
            None => builder.with_no_client_auth(),
        };
        Ok::<_, TlsError>((config, server_name.clone()))
    };
    let own = match (&tls.certificate, &tls.key) {
        (Some(certificate), Some(key)) => face(Some((certificate, key)))?,
        (None, None) => face(None)?,
        _ => return Err(TlsError::HalfPair),
    };
    let of_client = |identity: &Identity| {
        let (mut config, server_name) = face(Some((&identity.certificate, &identity.key)))?;
        // A session that is resumed is that of who began it.
        config.resumption = Resumption::disabled();
        Ok((identity.client.clone(), Face { config: Arc::new(config), server_name }))
    };
    let of_clients = tls.identities.iter().map(of_client).collect::<Result<_, TlsError>>()?;
    let (config, server_name) = own;
    Ok(Faces { own: Face { config: Arc::new(config), server_name }, of_clients })
}

fn parse_name(host: &str) -> Result<ServerName<'static>, TlsError> {
    ServerName::try_from(host.to_owned()).map_err(|_| TlsError::Name { name: host.to_owned() })
}

#[cfg(test)]
mod tests;
