//! Where nodes come from, and whether they live: `nodes:` (a fixed list) or `contact_points:` (ask the cluster); the
//! Kubernetes watch will be a third, beside them.
//!
//! ```text
//!   fixed / contact_points ── Input::Nodes ──┐
//!   probe (one for each node) ── Alive, Dead ┤
//!   advertised ── Input::Advertised ─────────┼──▶ writer: topology::state ──▶ watch<Arc<Topology>>
//!   relays ── Observed, Hidden ──────────────┘        └─ starts and ends the probes
//! ```
//!
//! Everything here only reports; what it means is concluded in `topology::state`, which the writer alone owns.

mod advertised;
mod backoff;
mod client;
mod dial;
mod fixed;
mod identity;
mod probe;
mod resolve;
mod writer;

use std::collections::HashMap;
use std::sync::Arc;

use thiserror::Error;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

use crate::config::{Config, Discovery};
use crate::metrics::Metrics;
use crate::proxy::tls::NodeConnector;
use crate::readiness::Readiness;
use crate::topology::input::Input;
use crate::topology::ports::PortRange;
use crate::topology::state::{Options, State};
use crate::topology::{NodeId, Topology};

use dial::Dialer;
use fixed::Fixed;
use resolve::Names;
use writer::{Probes, Writer};

/// Why discovery cannot begin.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DiscoveryError {
    #[error("discovery.contact_points: not yet")]
    ContactPoints,
}

/// What the rest of the gateway holds of discovery.
pub struct Handle {
    /// The present picture; the first one is empty.
    pub topology: watch::Receiver<Arc<Topology>>,
    /// For what relays see: `Input::Observed` and `Input::Hidden`, by `try_send`. When it is full the news is dropped.
    pub observations: mpsc::Sender<Input>,
    /// Discovery and probes end when this is dropped.
    pub running: AbortOnDropHandle<()>,
}

/// Starts discovery on the current runtime. `ports` are those that are bound: the configured range or, where that is of
/// port 0, those that the system chose, and a listed node's port is its position among them.
pub fn spawn(
    config: &Config,
    ports: PortRange,
    metrics: Arc<Metrics>,
    node_tls: Option<NodeConnector>,
    readiness: &Readiness,
) -> Result<Handle, DiscoveryError> {
    let Discovery::Nodes(nodes) = &config.discovery else { return Err(DiscoveryError::ContactPoints) };
    let fixed = Fixed::new(nodes, ports.clone(), config.listen.first == 0);
    let hosts = nodes.iter().map(|node| (NodeId::new(&node.name), Arc::from(node.address.host.as_str()))).collect();
    let state = State::new(ports, Options::default());
    let probes = |inputs, topology| Probes {
        dialer: Dialer { deadline: config.timeouts.dial, tls: node_tls },
        settings: config.probe.clone(),
        inputs,
        topology,
        metrics: Arc::clone(&metrics),
        hosts,
        wakes: fixed.wakes(),
        running: HashMap::new(),
        tasks: JoinSet::new(),
    };
    let (writer, inputs, topology) = Writer::new(state, probes, Arc::clone(&metrics), readiness);
    let mut sources = JoinSet::new();
    sources.spawn(advertised::run(config.advertise.clone(), Names::System, inputs.clone()));
    sources.spawn(fixed.run(Names::System, inputs.clone()));
    let running = AbortOnDropHandle::new(tokio::spawn(async move {
        writer.run().await;
        drop(sources);
    }));
    Ok(Handle { topology, observations: inputs, running })
}

#[cfg(test)]
mod tests;
