//! The one task that changes the topology: it folds every input in, publishes the next snapshot, keeps one probe for each
//! node that lives somewhere, and says what is still missing before the gateway is ready.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc, watch};
use tokio::task::{AbortHandle, JoinError, JoinSet};
use tokio::time::sleep;
use tracing::field::display;
use tracing::{debug, error, info, warn};

use crate::config;
use crate::label::Label;
use crate::metrics::Metrics;
use crate::readiness::{Pending, Readiness};
use crate::topology::diff::{Change, diff};
use crate::topology::input::{Input, Notice};
use crate::topology::state::State;
use crate::topology::{Node, NodeId, NodeState, Path, Topology};

use super::changes::Wakes;
use super::clock::Clock;
use super::own_login::OwnLogin;
use super::probe::Probe;
use super::state_file::StateFile;
use super::store::Store;
use crate::proxy::current::Current;
use crate::proxy::dial::{DialFailure, Dialer, Target};

/// Longest sleep when nothing is due: then what could not be written is tried again.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);
/// Inputs that wait.
const QUEUE: usize = 1024;
/// What clients' rows tell of nodes; more is lost, and told again by the next row.
const OBSERVATIONS: usize = 64;
/// Before a probe is begun anew that has ended.
const PROBE_AGAIN: Duration = Duration::from_secs(1);

/// What everyone else has of the writer.
pub struct Ends {
    pub inputs: mpsc::Sender<Input>,
    pub observations: mpsc::Sender<Input>,
    pub topology: watch::Receiver<Arc<Topology>>,
}

/// Who folds, and what it needs for it.
pub struct Writer {
    state: State,
    inputs: mpsc::Receiver<Input>,
    topology: watch::Sender<Arc<Topology>>,
    missing: Missing,
    probes: Probes,
    metrics: Arc<Metrics>,
    store: Option<Store>,
    /// What attached nodes say of themselves in clients' rows: heard when there is nothing else to hear.
    observations: mpsc::Receiver<Input>,
    clock: Clock,
}

impl Writer {
    /// A writer that nothing has reached yet, and the two ends for everyone else.
    pub fn new(
        state: State,
        probes: impl FnOnce(mpsc::Sender<Input>, watch::Receiver<Arc<Topology>>) -> Probes,
        metrics: Arc<Metrics>,
        readiness: &Readiness,
        state_file: Option<StateFile>,
    ) -> (Self, Ends) {
        let (sender, inputs) = mpsc::channel(QUEUE);
        let (topology, receiver) = watch::channel(Arc::new(state.topology().clone()));
        let probes = probes(sender.clone(), receiver.clone());
        let missing = Missing::new(readiness, &state);
        let store = state_file.map(Store::new);
        let (observed, observations) = mpsc::channel(OBSERVATIONS);
        let clock = Clock::new();
        let writer = Self { state, inputs, topology, missing, probes, metrics, store, observations, clock };
        (writer, Ends { inputs: sender, observations: observed, topology: receiver })
    }

    /// Folds for ever; the probes end with it.
    pub async fn run(mut self) {
        while let Some(input) = self.next().await {
            self.fold(input).await;
        }
    }

    /// What is to be folded next: life and death first, what clients' rows tell only when there is none of that. `None` when nobody
    /// is left to tell anything.
    async fn next(&mut self) -> Option<Input> {
        loop {
            let now = self.clock.now();
            let due = self.state.deadline().map(|at| at.duration_since(now).unwrap_or_default());
            tokio::select! {
                biased;
                input = self.inputs.recv() => return input,
                Some(ended) = self.probes.tasks.join_next() => self.probes.ended(ended),
                Some(input) = self.observations.recv() => return Some(input),
                kept = settled(&mut self.store) => if kept {
                    // What has changed meanwhile is written next.
                    return Some(Input::Tick);
                },
                () = sleep(due.unwrap_or(LONGEST_SLEEP).min(LONGEST_SLEEP)) => return Some(Input::Tick),
            }
        }
    }

    async fn fold(&mut self, input: Input) {
        let next = self.state.apply(input, self.clock.now());
        for notice in self.state.take_notices() {
            match &notice {
                // The probe has said it, with more detail.
                Notice::Died { .. } => debug!("{notice}"),
                Notice::Refused { id, .. } => {
                    self.metrics.node(&id.0).dial_failed(DialFailure::Identity);
                    warn!("{notice}");
                }
                _ => warn!("{notice}"),
            }
        }
        for id in self.state.take_questions() {
            self.probes.ask(&id);
        }
        if let Some(store) = &mut self.store {
            store.save(self.state.claims()).await;
        }
        if let Some(next) = next {
            let next = Arc::new(next);
            self.announce(&next);
            self.topology.send_replace(Arc::clone(&next));
            self.probes.follow(&next, Duration::ZERO);
        }
        self.missing.update(&self.state);
    }

    /// The log and the numbers of a new snapshot.
    fn announce(&self, next: &Topology) {
        for change in diff(&self.topology.borrow(), next) {
            match change {
                Change::Appeared(node) => {
                    let metrics = self.metrics.node(&node.id.0);
                    metrics.port.set(i64::from(node.port));
                    metrics.set_state(node.state);
                    info!(node = %node.id, port = node.port, address = %node.address, "the node has a port");
                }
                Change::StateChanged { node, from } => {
                    self.metrics.node(&node.id.0).set_state(node.state);
                    let (from, to) = (from.label(), node.state.label());
                    info!(node = %node.id, port = node.port, address = %node.address, from, to, "the node's state changed");
                }
                Change::AddressChanged { node, from } => {
                    info!(node = %node.id, port = node.port, %from, to = %node.address, "the node moved and keeps its port");
                }
                // Said as a notice.
                Change::Replaced { .. } => {}
                Change::Forgotten(node) => {
                    self.metrics.forget_node(&node.id.0);
                    info!(node = %node.id, port = node.port, "the quarantine is over: another node may have the port when no other is left");
                }
                Change::PathChanged { path, moved } => {
                    if moved {
                        self.metrics.advertised_changes.inc();
                    }
                    say_what_is_told(&path);
                }
            }
        }
        self.metrics.topology_generation.set(i64::try_from(next.generation).unwrap_or(i64::MAX));
    }
}

/// See [`Store::settled`]; for ever where there is no file.
async fn settled(store: &mut Option<Store>) -> bool {
    match store {
        Some(store) => store.settled().await,
        None => std::future::pending().await,
    }
}

/// A probe of one address.
pub struct Running {
    address: SocketAddr,
    task: AbortHandle,
    /// Wakes it to look again at once.
    question: Arc<Notify>,
}

/// One probe for each node that lives somewhere.
pub struct Probes {
    pub dialer: Current<Dialer>,
    pub settings: Current<config::Probe>,
    pub login: OwnLogin,
    pub inputs: mpsc::Sender<Input>,
    pub topology: watch::Receiver<Arc<Topology>>,
    pub metrics: Arc<Metrics>,
    pub readiness: Readiness,
    pub wakes: Wakes,
    pub running: HashMap<NodeId, Running>,
    /// Ends them all when dropped.
    pub tasks: JoinSet<()>,
}

impl Probes {
    /// Ends probes and starts others, `after` a while, until there is one for each address of `topology`.
    fn follow(&mut self, topology: &Topology, after: Duration) {
        let lives = |node: &&Arc<Node>| node.state != NodeState::Gone && node.present;
        self.running.retain(|id, Running { address, task, .. }| {
            let keep = topology.node_by_id(id).filter(lives).is_some_and(|node| node.address == *address);
            if !keep {
                task.abort();
            }
            // One that has ended by itself is begun anew.
            keep && !task.is_finished()
        });
        for node in topology.nodes.iter().filter(lives) {
            if !self.running.contains_key(&node.id) {
                let probe = self.probe(node);
                let question = Arc::clone(&probe.question);
                let task = self.tasks.spawn(probe.run(after));
                self.running.insert(node.id.clone(), Running { address: node.address, task, question });
            }
        }
    }

    /// Whether the node is alive and who it is, as soon as its probe can say.
    fn ask(&self, id: &NodeId) {
        if let Some(probe) = self.running.get(id) {
            probe.question.notify_one();
        }
    }

    /// One that was told to end is nobody's loss. Without one that panicked its node would be what it was for ever: it is begun
    /// anew, and the others go on.
    fn ended(&mut self, ended: Result<(), JoinError>) {
        let Err(panicked) = ended else { return };
        if panicked.is_panic() {
            error!(%panicked, "a probe has ended; it is begun anew");
            self.metrics.task_ended("probe");
            let topology = Arc::clone(&self.topology.borrow());
            self.follow(&topology, PROBE_AGAIN);
        }
    }

    fn probe(&self, node: &Node) -> Probe {
        let id = &node.id;
        Probe {
            id: id.clone(),
            target: Target { address: node.address, host: node.host_name() },
            dialer: self.dialer.clone(),
            settings: self.settings.clone(),
            login: self.login.clone(),
            inputs: self.inputs.clone(),
            topology: self.topology.clone(),
            metrics: self.metrics.node(&id.0),
            wakes: self.wakes.clone(),
            readiness: self.readiness.clone(),
            question: Arc::default(),
        }
    }
}

/// A line for each address that clients of a path are told, and for each that is not known yet.
fn say_what_is_told(path: &Path) {
    let name = &*path.name;
    if path.is_of_pods() {
        return info!(path = name, "clients are told the nodes' own addresses");
    }
    for line in path.told() {
        let (ipv4, ipv6) = (line.advertised.ipv4.map(display), line.advertised.ipv6.map(display));
        // A path of one address for all ports has no more to say of them.
        let ports = (line.first > 0).then(|| format!("{}-{}", line.first, line.last));
        let dialled = ports.as_ref().and(line.dialled);
        if line.advertised.is_known() {
            info!(path = name, ports, ipv4, ipv6, dialled, "clients are told this address");
        } else {
            info!(path = name, ports, "what clients dial is not known yet");
        }
    }
}

/// What is still missing before the gateway is ready, by name. Once nothing is, nothing ever is again.
struct Missing {
    readiness: Option<Readiness>,
    pending: HashMap<String, Pending>,
}

impl Missing {
    fn new(readiness: &Readiness, state: &State) -> Self {
        let mut missing = Self { readiness: Some(readiness.clone()), pending: HashMap::new() };
        missing.update(state);
        missing
    }

    fn update(&mut self, state: &State) {
        let Some(readiness) = &self.readiness else { return };
        let mut names = HashSet::new();
        if !state.is_discovered() {
            names.insert("discovery".to_owned());
        }
        if !state.topology().paths.are_known() {
            names.insert("advertised address".to_owned());
        }
        names.extend(state.unprobed().map(|id| format!("first probe of {id}")));
        for name in &names {
            self.pending.entry(name.clone()).or_insert_with(|| readiness.pending(name));
        }
        self.pending.retain(|name, _| names.contains(name));
        if names.is_empty() {
            self.readiness = None;
        }
    }
}

#[cfg(test)]
mod tests;
