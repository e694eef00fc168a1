//! Connecting to a node, as the gateway does for itself: TCP, then TLS where nodes speak it.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::metrics::DialFailure;
use crate::proxy::tls::NodeConnector;

/// A connection to a node, encrypted or not.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

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
}

impl DialError {
    pub fn label(&self) -> DialFailure {
        match self {
            Self::Connect { kind, .. } => DialFailure::of(&io::Error::from(*kind)),
            Self::Timeout { .. } => DialFailure::Timeout,
            Self::Tls { .. } => DialFailure::Tls,
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
    /// Connects within the deadline, TLS included.
    pub async fn dial(&self, target: &Target) -> Result<Box<dyn Stream>, DialError> {
        let (address, after) = (target.address, self.deadline);
        match timeout(after, self.connect(target)).await {
            Ok(connected) => connected,
            Err(_) => Err(DialError::Timeout { address, after }),
        }
    }

    async fn connect(&self, target: &Target) -> Result<Box<dyn Stream>, DialError> {
        let address = target.address;
        let stream =
            TcpStream::connect(address).await.map_err(|error| DialError::Connect { address, kind: error.kind() })?;
        let _ = stream.set_nodelay(true);
        let Some(tls) = &self.tls else { return Ok(Box::new(stream)) };
        match tls.connect(stream, &target.host).await {
            Ok(stream) => Ok(Box::new(stream)),
            Err(error) => Err(DialError::Tls { address, text: error.to_string() }),
        }
    }
}
