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
mod contact_points;
mod dial;
mod fixed;
mod identity;
mod probe;
mod resolve;
mod ring;
mod state_file;
mod writer;

use std::collections::HashMap;
use std::sync::Arc;

use thiserror::Error;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

use crate::config::{Config, Discovery, ListedNode};
use crate::metrics::Metrics;
use crate::proxy::tls::NodeConnector;
use crate::readiness::Readiness;
use crate::topology::input::Input;
use crate::topology::ports::{PortError, PortRange};
use crate::topology::state::{Options, State};
use crate::topology::{NodeId, Topology};

pub use state_file::StateFileError;

use contact_points::ContactPoints;
use dial::Dialer;
use fixed::Fixed;
use resolve::Names;
use state_file::StateFile;
use writer::{Probes, Writer};

/// Why discovery cannot begin.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DiscoveryError {
    #[error(transparent)]
    StateFile(#[from] StateFileError),
    #[error(transparent)]
    Port(#[from] PortError),
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
    spawn_with(Names::System, config, ports, metrics, node_tls, readiness)
}

fn spawn_with(
    names: Names,
    config: &Config,
    ports: PortRange,
    metrics: Arc<Metrics>,
    node_tls: Option<NodeConnector>,
    readiness: &Readiness,
) -> Result<Handle, DiscoveryError> {
    let dialer = Dialer { deadline: config.timeouts.dial, tls: node_tls };
    let (mut fixed, mut contact_points, mut state_file) = (None, None, None);
    let (mut hosts, mut wakes) = (HashMap::new(), HashMap::new());
    match &config.discovery {
        Discovery::Nodes(nodes) => {
            let list = Fixed::new(nodes, ports.clone(), config.listen.first == 0);
            let host = |node: &ListedNode| (NodeId::new(&node.name), Arc::from(node.address.host.as_str()));
            hosts = nodes.iter().map(host).collect();
            wakes = list.wakes();
            fixed = Some(list);
        }
        Discovery::ContactPoints(points) => {
            state_file = points.state_file.as_deref().map(StateFile::open).transpose()?;
            contact_points = Some(points.addresses.clone());
        }
    }
    let mut state = State::new(ports, Options::default());
    for (id, claim) in state_file.iter().flat_map(|file| file.claims()) {
        state.restore(id.clone(), *claim)?;
    }
    let probes = |inputs, topology| Probes {
        dialer: dialer.clone(),
        settings: config.probe.clone(),
        inputs,
        topology,
        metrics: Arc::clone(&metrics),
        hosts,
        wakes,
        running: HashMap::new(),
        tasks: JoinSet::new(),
    };
    let (writer, inputs, topology) = Writer::new(state, probes, Arc::clone(&metrics), readiness, state_file);
    let mut sources = JoinSet::new();
    sources.spawn(advertised::run(config.advertise.clone(), names.clone(), inputs.clone()));
    if let Some(fixed) = fixed {
        sources.spawn(fixed.run(names.clone(), inputs.clone(), Arc::clone(&metrics)));
    }
    if let Some(points) = contact_points {
        let source = ContactPoints {
            points,
            names,
            dialer,
            credentials: config.probe.credentials.clone(),
            patience: config.probe.silence,
            inputs: inputs.clone(),
            topology: topology.clone(),
            metrics: Arc::clone(&metrics),
            readiness: readiness.clone(),
        };
        sources.spawn(source.run());
    }
    let running = AbortOnDropHandle::new(tokio::spawn(async move {
        writer.run().await;
        drop(sources);
    }));
    Ok(Handle { topology, observations: inputs, running })
}

#[cfg(test)]
mod tests;
