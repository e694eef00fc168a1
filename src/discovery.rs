//! Where nodes come from, and whether they live: `nodes:` (a fixed list), `contact_points:` (ask the cluster), `dns:` (a headless
//! Service's SRV records) or `kubernetes:` (watch the pods behind it).
//!
//! ```text
//!   fixed / contact_points / dns / kubernetes ┐ Input::Nodes
//!   probe (one for each node) ── Alive, Dead ┤
//!   advertised ── Input::Advertised ─────────┼──▶ writer: topology::state ──▶ watch<Arc<Topology>>
//!   relays ── Observed, heard last ──────────┘        └─ starts and ends the probes
//! ```
//!
//! `allow` says which addresses of those that rows, slices and DNS name are dialled at all, `own_login` which of them are sent the
//! gateway's password; `refusals` why others are not.
//!
//! A question goes the other way: where somebody says what a node's last answer contradicts (another node has its host_id, a third one
//! calls it down), the state has the writer ask its probe at once, and nothing is concluded before.
//!
//! Sources say what is listed and whether that is confirmed ([`Found`](crate::topology::input::Found)): one list, one row or one DNS
//! answer may be old, or wrong. Whoever is up where it is known to live stays there until it is. That rule is the state's alone.
//!
//! Everything here only reports; what it means is concluded in `topology::state`, which the writer alone owns.

mod advertised;
mod allow;
mod backoff;
mod claims;
mod client;
mod clock;
mod contact_points;
mod dns;
pub mod examine;
mod fixed;
mod identity;
mod kubernetes;
mod own_login;
mod probe;
mod refusals;
mod replace_file;
mod resolve;
mod ring;
mod state_file;
mod store;
mod writer;

use std::collections::HashMap;
use std::sync::Arc;

use thiserror::Error;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

use crate::config::{Advertise, Config, Discovery};
use crate::metrics::Metrics;
use crate::proxy::tls::NodeConnector;
use crate::readiness::Readiness;
use crate::topology::Topology;
use crate::topology::input::Input;
use crate::topology::ports::{PortError, PortRange};
use crate::topology::state::{Options, State};

/// The pure part of `kubernetes`: what is measured by itself.
#[doc(hidden)]
pub use kubernetes::{Endpoint, Fold, Origin, Seen, Slice};
pub use state_file::StateFileError;

use crate::proxy::dial::Dialer;
use allow::Allow;
use clock::Clock;
use contact_points::ContactPoints;
use dns::Dns;
use fixed::Fixed;
use kubernetes::{Cluster, ClusterError, follow_load_balancer};
use own_login::OwnLogin;
use resolve::Names;
use state_file::StateFile;
use writer::{Ends, Probes, Writer};

/// Why discovery cannot begin.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DiscoveryError {
    #[error(transparent)]
    StateFile(#[from] StateFileError),
    #[error(transparent)]
    Kubernetes(#[from] ClusterError),
    #[error(transparent)]
    Port(#[from] PortError),
}

/// What the rest of the gateway holds of discovery.
pub struct Handle {
    /// The present picture; the first one is empty.
    pub topology: watch::Receiver<Arc<Topology>>,
    /// For what relays see of attached nodes (`Input::Observed`), by `try_send`. When it is full the news is dropped.
    pub observations: mpsc::Sender<Input>,
    /// Discovery and probes end when this is dropped.
    pub running: AbortOnDropHandle<()>,
}

/// Starts discovery on the current runtime. `ports` are those that are bound: the configured range or, where that is of
/// port 0, those that the system chose, and a listed node's port is its position among them.
pub async fn spawn(
    config: &Config,
    ports: PortRange,
    metrics: Arc<Metrics>,
    node_tls: Option<NodeConnector>,
    readiness: &Readiness,
) -> Result<Handle, DiscoveryError> {
    let in_kubernetes =
        matches!(config.discovery, Discovery::Kubernetes(_)) || matches!(config.advertise, Advertise::Service(_));
    let cluster = if in_kubernetes { Some(Cluster::connect().await?) } else { None };
    spawn_with(Names::system(), cluster, config, ports, metrics, node_tls, readiness)
}

/// `cluster` is there where the configuration needs it.
fn spawn_with(
    names: Names,
    cluster: Option<Cluster>,
    config: &Config,
    ports: PortRange,
    metrics: Arc<Metrics>,
    node_tls: Option<NodeConnector>,
    readiness: &Readiness,
) -> Result<Handle, DiscoveryError> {
    let dialer = Dialer { deadline: config.timeouts.dial, tls: node_tls };
    let (mut fixed, mut contact_points, mut kubernetes, mut dns, mut state_file) = (None, None, None, None, None);
    let mut wakes = HashMap::new();
    match &config.discovery {
        Discovery::Nodes(nodes) => {
            let list = Fixed::new(nodes, ports.clone(), config.listen.first == 0);
            wakes = list.wakes();
            fixed = Some(list);
        }
        Discovery::ContactPoints(points) => {
            state_file = points.state_file.as_deref().map(StateFile::open).transpose()?;
            contact_points = Some(points.addresses.clone());
        }
        Discovery::Dns(name) => dns = Some(name.clone()),
        Discovery::Kubernetes(config) => kubernetes = cluster.clone().map(|cluster| (cluster, config.clone())),
    }
    let (allow, login) = (Allow::new(config, ports.clone()), OwnLogin::new(config));
    let mut state = State::new(ports.clone(), Options::default());
    let now = Clock::new().now();
    for (id, claim) in state_file.iter().flat_map(|file| file.claims()) {
        state.restore(id.clone(), *claim, now)?;
    }
    let probes = |inputs, topology| Probes {
        dialer: dialer.clone(),
        settings: config.probe.clone(),
        login: login.clone(),
        inputs,
        topology,
        metrics: Arc::clone(&metrics),
        readiness: readiness.clone(),
        wakes,
        running: HashMap::new(),
        tasks: JoinSet::new(),
    };
    let (writer, ends) = Writer::new(state, probes, Arc::clone(&metrics), readiness, state_file);
    let Ends { inputs, observations, topology } = ends;
    let mut sources = JoinSet::new();
    match (&config.advertise, cluster) {
        (Advertise::Service(service), Some(cluster)) => sources.spawn(follow_load_balancer(
            cluster,
            service.clone(),
            names.clone(),
            inputs.clone(),
            topology.clone(),
            Arc::clone(&metrics),
            readiness.clone(),
        )),
        (advertise, _) => sources.spawn(advertised::run(advertise.clone(), names.clone(), inputs.clone())),
    };
    if let Some(fixed) = fixed {
        sources.spawn(fixed.run(names.clone(), login.clone(), inputs.clone(), Arc::clone(&metrics)));
    }
    if let Some((cluster, of_kubernetes)) = kubernetes {
        sources.spawn(kubernetes::Source::run(kubernetes::Parts {
            cluster,
            config: of_kubernetes,
            range: ports.clone(),
            allow: allow.clone(),
            names: names.clone(),
            dialer: dialer.clone(),
            login: login.clone(),
            patience: config.probe.silence,
            inputs: inputs.clone(),
            topology: topology.clone(),
            metrics: Arc::clone(&metrics),
            readiness: readiness.clone(),
        }));
    }
    if let Some(name) = dns {
        let source = Dns {
            name,
            names: names.clone(),
            range: ports,
            allow: allow.clone(),
            login: login.clone(),
            inputs: inputs.clone(),
            topology: topology.clone(),
            metrics: Arc::clone(&metrics),
            readiness: readiness.clone(),
        };
        sources.spawn(source.run());
    }
    if let Some(points) = contact_points {
        let source = ContactPoints {
            points,
            names,
            dialer,
            allow,
            login,
            patience: config.probe.silence,
            inputs: inputs.clone(),
            topology: topology.clone(),
            metrics: Arc::clone(&metrics),
            readiness: readiness.clone(),
        };
        sources.spawn(source.run());
    }
    let running = AbortOnDropHandle::new(tokio::spawn(async move {
        tokio::select! {
            () = writer.run() => {}
            () = first_end(sources) => {}
        }
    }));
    Ok(Handle { topology, observations, running })
}

/// Until one of them ends, by a panic or otherwise: without it the gateway would be blind, and say that nothing changes.
async fn first_end(mut sources: JoinSet<()>) {
    match sources.join_next().await {
        Some(Err(panicked)) => tracing::error!(%panicked, "discovery has ended"),
        Some(Ok(())) => tracing::error!("a source of discovery has ended"),
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
