//! Where nodes come from, and whether they live: `nodes:` (a fixed list), `contact_points:` (ask the cluster), `dns:` (a headless
//! Service's SRV records) or `kubernetes:` (watch the pods behind it).
//!
//! ```text
//!   fixed / contact_points / dns / kubernetes ┐ Input::Nodes
//!   probe (one for each node) ── Alive, Dead ┤
//!   advertised ── Input::{Paths, External} ──┼──▶ writer: topology::state ──▶ watch<Arc<Topology>>
//!   relays ── Observed, heard last ──────────┘        └─ starts and ends the probes
//! ```
//!
//! `allow` says which addresses of those that rows, slices and DNS name are dialled at all, `own_login` which of them are sent the
//! gateway's password; `refusals` why others are not.
//!
//! `schema` asks nodes for others: whether they have the same schema, while a client's answer waits for it.
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
pub mod backoff;
mod changes;
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
mod schema;
mod sources;
mod state_file;
mod store;
mod writer;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use thiserror::Error;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

use crate::config::{Config, Discovery};
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

use crate::proxy::agreement::Agreement;
use crate::proxy::current::Current;
use crate::proxy::dial::Dialer;
use allow::Allow;
pub use changes::Changes;
use changes::Terms;
use clock::Clock;
use contact_points::ContactPoints;
use dns::Dns;
use fixed::Fixed;
use kubernetes::{Cluster, ClusterError};
use own_login::OwnLogin;
use resolve::Names;
use schema::Asker;
use sources::{Common, Sources};
use state_file::StateFile;
use writer::{Ends, Probes, Writer};

/// The sources by their names: of nodes, and of the address that clients are told.
const NODES: &str = "nodes";
const ADVERTISED: &str = "advertised address";

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
    /// Whether all nodes have the same schema.
    pub agreement: Arc<Agreement>,
    /// Puts another configuration in force.
    pub changes: Changes,
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
    let in_kubernetes = matches!(config.discovery, Discovery::Kubernetes(_)) || config.asks_kubernetes_of_addresses();
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
    let terms = Terms {
        dialer: Current::new(Dialer { deadline: config.timeouts.dial, tls: node_tls }),
        probe: Current::new(config.probe.clone()),
        login: OwnLogin::new(config),
        allow: Allow::new(config, ports.clone()),
        wakes: Current::new(HashMap::new()),
        points: Current::new(Vec::new()),
        dns: Current::new(String::new()),
        kubernetes: watch::Sender::new(None),
    };
    let state_file = match &config.discovery {
        Discovery::ContactPoints(points) => points.state_file.as_deref().map(StateFile::open).transpose()?,
        _ => None,
    };
    let mut state = State::new(ports.clone(), Options::default());
    let now = Clock::new().now();
    for (id, claim) in state_file.iter().flat_map(|file| file.claims()) {
        state.restore(id.clone(), *claim, now)?;
    }
    let probes = |inputs, topology| Probes {
        dialer: terms.dialer.clone(),
        settings: terms.probe.clone(),
        login: terms.login.clone(),
        inputs,
        topology,
        metrics: Arc::clone(&metrics),
        readiness: readiness.clone(),
        wakes: terms.wakes.clone(),
        running: HashMap::new(),
        tasks: JoinSet::new(),
    };
    let (writer, ends) = Writer::new(state, probes, Arc::clone(&metrics), readiness, state_file);
    let Ends { inputs, observations, topology } = ends;
    let mut sources = Sources::default();
    let common = Common {
        names: names.clone(),
        inputs: inputs.clone(),
        topology: topology.clone(),
        metrics: Arc::clone(&metrics),
    };
    sources.begin(ADVERTISED, advertised::source(&common, &config.paths, cluster.as_ref(), readiness.clone()));
    let positions = config.listen.first == 0;
    match &config.discovery {
        Discovery::Nodes(nodes) => {
            let list = Fixed::new(nodes, ports.clone(), positions);
            terms.wakes.set(list.wakes());
            sources.begin(NODES, list.run(names.clone(), terms.login.clone(), inputs.clone(), Arc::clone(&metrics)));
        }
        Discovery::ContactPoints(points) => {
            terms.points.set(points.addresses.clone());
            let source = ContactPoints {
                points: terms.points.clone(),
                names: names.clone(),
                dialer: terms.dialer.clone(),
                allow: terms.allow.clone(),
                login: terms.login.clone(),
                probe: terms.probe.clone(),
                inputs: inputs.clone(),
                topology: topology.clone(),
                metrics: Arc::clone(&metrics),
                readiness: readiness.clone(),
            };
            sources.begin(NODES, source.run());
        }
        Discovery::Dns(name) => {
            terms.dns.set(name.clone());
            let source = Dns {
                name: terms.dns.clone(),
                names: names.clone(),
                range: ports.clone(),
                allow: terms.allow.clone(),
                login: terms.login.clone(),
                inputs: inputs.clone(),
                topology: topology.clone(),
                metrics: Arc::clone(&metrics),
                readiness: readiness.clone(),
            };
            sources.begin(NODES, source.run());
        }
        Discovery::Kubernetes(of_kubernetes) => {
            terms.kubernetes.send_replace(Some(of_kubernetes.clone()));
            if let Some(cluster) = &cluster {
                let parts = kubernetes::Parts {
                    cluster: cluster.clone(),
                    config: of_kubernetes.clone(),
                    changes: terms.kubernetes.subscribe(),
                    range: ports.clone(),
                    allow: terms.allow.clone(),
                    names: names.clone(),
                    dialer: terms.dialer.clone(),
                    login: terms.login.clone(),
                    probe: terms.probe.clone(),
                    inputs: inputs.clone(),
                    topology: topology.clone(),
                    metrics: Arc::clone(&metrics),
                    readiness: readiness.clone(),
                };
                sources.begin(NODES, kubernetes::Source::run(parts));
            }
        }
    }
    let (sources, replace) = sources.run();
    let agreement: Arc<Agreement> = Arc::default();
    let asker = Asker {
        agreement: Arc::clone(&agreement),
        topology: topology.clone(),
        dialer: terms.dialer.clone(),
        login: terms.login.clone(),
    };
    let running = AbortOnDropHandle::new(tokio::spawn(async move {
        tokio::select! {
            () = writer.run() => {}
            () = sources => {}
            () = asker.run() => {}
        }
    }));
    let changes = Changes { terms, replace, common, cluster: Mutex::new(cluster), range: ports, positions };
    Ok(Handle { topology, observations, agreement, changes, running })
}

#[cfg(test)]
mod tests;
