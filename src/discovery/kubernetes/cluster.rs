//! The way to the Kubernetes API: a kubeconfig, or in a pod the ServiceAccount's token and CA. Nothing is asked yet.

use std::time::Duration;

use kube::{Client, Config};
use thiserror::Error;

use super::timing::Timing;

/// TCP and TLS to the API server.
const CONNECT: Duration = Duration::from_secs(5);

/// Why there is no way to the API; only where it is looked for, never because it is away.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ClusterError {
    #[error("the Kubernetes API: neither a kubeconfig (KUBECONFIG, ~/.kube/config) nor a pod's ServiceAccount: {text}")]
    NoCredentials { text: String },
    #[error("the Kubernetes API: {text}")]
    Unusable { text: String },
}

/// A client, and the namespace that is the gateway's own.
#[derive(Clone)]
pub struct Cluster {
    pub client: Client,
    pub namespace: String,
    pub timing: Timing,
}

impl Cluster {
    /// Finds credentials as `kubectl` and pods do. The token and the CA are read again when they are rotated.
    pub async fn connect() -> Result<Self, ClusterError> {
        Self::new(Config::infer().await.map_err(|error| ClusterError::NoCredentials { text: error.to_string() })?)
    }

    pub fn new(mut config: Config) -> Result<Self, ClusterError> {
        config.connect_timeout = Some(CONNECT);
        // Failures are counted and waited for in one place, the watch; hidden repetitions would hide a storm.
        config.default_retry = false;
        let namespace = config.default_namespace.clone();
        let client = Client::try_from(config).map_err(|error| ClusterError::Unusable { text: error.to_string() })?;
        Ok(Self { client, namespace, timing: Timing::default() })
    }
}
