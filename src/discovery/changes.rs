//! Another configuration while discovery runs. Nothing begins at the beginning: the writer of the topology, who has which port, what
//! probes and sources know stay, and only what they go by is another. Whoever has a port keeps it, whatever the new list would give it.
//!
//! Left as they are: the kind of discovery, the state file, and of `kubernetes` all but who has which port, because another Service or
//! another way to look at it would make everybody a stranger for a while.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, watch};

use super::advertised;
use super::allow::Allow;
use super::fixed::Fixed;
use super::kubernetes::Cluster;
use super::own_login::OwnLogin;
use super::sources::{Common, Replace};
use super::{ADVERTISED, DiscoveryError, NODES};
use crate::config::advertise::Path;
use crate::config::kubernetes::Kubernetes;
use crate::config::{self, Config, Discovery, HostPort};
use crate::proxy::current::Current;
use crate::proxy::dial::Dialer;
use crate::proxy::tls::NodeConnector;
use crate::readiness::Readiness;
use crate::topology::NodeId;
use crate::topology::ports::PortRange;

/// Whom to wake when a named node cannot be dialled.
pub type Wakes = Current<HashMap<NodeId, Arc<Notify>>>;

/// What sources and probes go by from the next dial or look on; clones share it.
#[derive(Clone)]
pub struct Terms {
    pub dialer: Current<Dialer>,
    pub probe: Current<config::Probe>,
    pub login: OwnLogin,
    pub allow: Allow,
    pub wakes: Wakes,
    pub points: Current<Vec<HostPort>>,
    pub dns: Current<String>,
    pub kubernetes: watch::Sender<Option<Kubernetes>>,
}

/// Changes what discovery goes by.
pub struct Changes {
    pub(super) terms: Terms,
    pub(super) replace: Replace,
    pub(super) common: Common,
    /// Once somebody has needed it.
    pub(super) cluster: Mutex<Option<Cluster>>,
    pub(super) range: PortRange,
    /// The listen ports were chosen by the system.
    pub(super) positions: bool,
}

impl Changes {
    /// What may be missing for this configuration: to be asked before anything is taken.
    ///
    /// # Errors
    /// There is no way to the Kubernetes API, and `advertise` needs one.
    pub async fn prepare(&self, config: &Config) -> Result<(), DiscoveryError> {
        if config.asks_kubernetes_of_addresses() && self.cluster().is_none() {
            let connected = Cluster::connect().await?;
            *self.cluster() = Some(connected);
        }
        Ok(())
    }

    /// Goes by `to` from now on. Never fails, and takes nobody away who is in both; to be called on discovery's own runtime.
    pub async fn take(&self, from: &Config, to: &Config, node_tls: Option<NodeConnector>) {
        let terms = &self.terms;
        terms.dialer.set(Dialer { deadline: to.timeouts.dial, tls: node_tls });
        terms.probe.set(to.probe.clone());
        terms.allow.change(to);
        terms.login.change(to);
        if from.paths != to.paths {
            self.advertise(&to.paths).await;
        }
        if from.discovery == to.discovery {
            return;
        }
        match &to.discovery {
            Discovery::Nodes(nodes) => {
                let Common { names, inputs, topology, metrics } = self.common.clone();
                let list = Fixed::new(nodes, self.range.clone(), self.positions).knowing(&topology.borrow());
                terms.wakes.set(list.wakes());
                self.replace.with(NODES, list.run(names, terms.login.clone(), inputs, metrics)).await;
            }
            Discovery::ContactPoints(points) => terms.points.set(points.addresses.clone()),
            Discovery::Dns(name) => terms.dns.set(name.clone()),
            Discovery::Kubernetes(kubernetes) => _ = terms.kubernetes.send_replace(Some(kubernetes.clone())),
        }
    }

    fn cluster(&self) -> MutexGuard<'_, Option<Cluster>> {
        self.cluster.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The address of before stays until the new one is known.
    async fn advertise(&self, paths: &[Path]) {
        let cluster = self.cluster().clone();
        // Nobody waits for it: an address is known.
        let source = advertised::source(&self.common, paths, cluster.as_ref(), Readiness::new());
        self.replace.with(ADVERTISED, source).await;
    }
}
