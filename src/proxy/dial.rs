//! The one room in which a node is dialled, for clients, probes and discovery: TCP, then TLS where nodes speak it.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::stream::{Stream, set_node_options};
use super::tls::NodeConnector;
use super::tls::connector::{Face, refuses_certificate};
use crate::label::label_set;

/// Whom to dial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub address: SocketAddr,
    /// What the user called the host: the name that its certificate carries, unless the configuration says another.
    pub host: Arc<str>,
}

impl Target {
    /// A target that is known by its address alone.
    pub fn at(address: SocketAddr) -> Self {
        Self { address, host: address.ip().to_string().into() }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

/// Why there is no connection.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DialError {
    #[error("{address}: {kind}")]
    Connect { address: SocketAddr, kind: io::ErrorKind },
    #[error("{address}: not connected within {after:?}")]
    Timeout { address: SocketAddr, after: Duration },
    #[error("{address}: TLS: {text}")]
    Tls { address: SocketAddr, text: String },
    #[error("{address}: TLS: {text}: the node was shown tls.nodes.certificate, or none where that is absent")]
    Certificate { address: SocketAddr, text: String },
}

impl DialError {
    pub fn failure(&self) -> DialFailure {
        match self {
            Self::Connect { kind, .. } => DialFailure::of(&io::Error::from(*kind)),
            Self::Timeout { .. } => DialFailure::Timeout,
            Self::Tls { .. } | Self::Certificate { .. } => DialFailure::Tls,
        }
    }
}

label_set! {
    /// Why a node could not be dialled, or a contact point not be asked.
    pub enum DialFailure {
        Refused = "refused",
        Reset = "reset",
        Timeout = "timeout",
        Unreachable = "unreachable",
        Tls = "tls",
        /// A name that could not be resolved.
        Dns = "dns",
        /// Somebody answers, but it is not the node that it should be.
        Identity = "identity",
        /// Somebody answers, but wants another login than the gateway has.
        Login = "login",
        Other = "other",
    }
}

impl DialFailure {
    /// The label for an operating system's error while connecting.
    pub fn of(error: &io::Error) -> Self {
        use io::ErrorKind;
        match error.kind() {
            ErrorKind::ConnectionRefused => Self::Refused,
            ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted | ErrorKind::UnexpectedEof => Self::Reset,
            ErrorKind::TimedOut => Self::Timeout,
            ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable | ErrorKind::AddrNotAvailable => {
                Self::Unreachable
            }
            ErrorKind::InvalidData => Self::Tls,
            _ => Self::Other,
        }
    }
}

/// How nodes are dialled.
#[derive(Clone)]
pub struct Dialer {
    /// For TCP and TLS together.
    pub deadline: Duration,
    pub tls: Option<NodeConnector>,
}

impl Dialer {
    /// Connects within the deadline, TLS included, in the gateway's own name.
    pub async fn dial(&self, target: &Target) -> Result<Stream, DialError> {
        self.dial_as(target, self.tls.as_ref().map(NodeConnector::own)).await
    }

    /// The same as whom the face shows; plain where there is none.
    pub async fn dial_as(&self, target: &Target, face: Option<Face>) -> Result<Stream, DialError> {
        let (address, after) = (target.address, self.deadline);
        match timeout(after, connect(target, face)).await {
            Ok(connected) => connected,
            Err(_) => Err(DialError::Timeout { address, after }),
        }
    }
}

async fn connect(target: &Target, face: Option<Face>) -> Result<Stream, DialError> {
    let address = target.address;
    let stream =
        TcpStream::connect(address).await.map_err(|error| DialError::Connect { address, kind: error.kind() })?;
    set_node_options(&stream);
    let Some(face) = face else { return Ok(Stream::Plain(stream)) };
    match face.connect(stream, &target.host).await {
        Ok(stream) => Ok(Stream::Tls(Box::new(stream.into()))),
        Err(error) if refuses_certificate(&error) => Err(DialError::Certificate { address, text: error.to_string() }),
        Err(error) => Err(DialError::Tls { address, text: error.to_string() }),
    }
}
