//! Builds everything, in the order that makes it true before it is said: certificates are read, every port of the range is
//! bound, discovery begins, and only then does anything accept. The one module that knows everyone.

mod ages;
pub mod control;
mod leaving;
pub mod reload;
mod settings;
mod stagger;
pub mod tasks;
pub mod watchdog;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context;
use tokio::runtime;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use crate::config::{Config, Drain};
use crate::disk::Disk;
use crate::label::{LabelSet, label_set};
use crate::metrics::Metrics;
use crate::proxy::came::Seldom;
use crate::proxy::connections::{Connections, Handle, Order};
use crate::proxy::current::Current;
use crate::proxy::dead_peer;
use crate::proxy::descriptors::Reserve;
use crate::proxy::hold::HoldBudget;
use crate::proxy::listener;
use crate::proxy::logins::Logins;
use crate::proxy::memory::{self, Watched};
use crate::proxy::shared::Shared;
use crate::proxy::stages::Stage;
use crate::proxy::tls::files::{self, Followed};
use crate::readiness::Readiness;
use crate::telemetry::LogLevel;
use crate::topology::cordons::Cordons;
use crate::topology::ports::PortRange;
use crate::topology::{Path, Topology};
use crate::{admin, discovery};
use control::Control;
use leaving::Leaving;
use reload::{InForce, Reloads};
use settings::Making;
use stagger::stagger;
use tasks::Tasks;
use watchdog::Liveness;

/// How often the gauges that nobody else sets are set.
const GAUGES: Duration = Duration::from_secs(1);

/// What a drained connection itself may take: a second for a moment with nothing in flight, and as much for the last answer.
const LAST: Duration = Duration::from_secs(2);

/// A gateway that accepts connections. Dropping it stops everything, its clients' connections too, and waits for nothing.
pub struct Running {
    /// Where clients connect: one address for each port of the range.
    pub addresses: Vec<SocketAddr>,
    pub admin: SocketAddr,
    /// What clients are told now.
    pub topology: watch::Receiver<Arc<Topology>>,
    pub readiness: Readiness,
    shared: Arc<Shared>,
    accepting: CancellationToken,
    listening: TaskTracker,
    /// The name of a task that has ended and must not.
    ended: oneshot::Receiver<&'static str>,
    /// Before all that it watches: their end is no news any more.
    _supervised: AbortOnDropHandle<()>,
    reloads: Arc<Reloads>,
    _admin: admin::Running,
    _control: Control,
}

label_set! {
    /// Phases of the process.
    pub enum Lifecycle { Starting = "starting", Running = "running", Draining = "draining", Stopping = "stopping", }
}

/// Starts a gateway: listeners and relays on the current runtime, those who decide on a thread of their own.
///
/// # Errors
/// Says which key could not be followed: a port that is taken, a file that cannot be read.
pub async fn start(config: Config, metrics: Arc<Metrics>, log_level: LogLevel) -> anyhow::Result<Running> {
    metrics.set_lifecycle(Lifecycle::Starting);
    metrics.show_stages::<Stage>();
    let (client_files, client_tls) =
        config.tls.clients.as_ref().map(Followed::clients).transpose().context("tls.clients")?.unzip();
    let (node_files, node_tls) =
        config.tls.nodes.as_ref().map(Followed::nodes).transpose().context("tls.nodes")?.unzip();
    let files: Vec<Followed> = client_files.into_iter().chain(node_files).collect();
    files.iter().for_each(|files| files.tell_ends(&metrics));
    let listeners = listener::bind_all(config.listen)?;
    let readiness = Readiness::new();
    let ports =
        PortRange::of_bound(listeners.iter().map(|listener| listener.port).collect()).context("listen: no port")?;
    let control = Control::start().context("no thread for discovery")?;
    let found = {
        let (config, metrics, node_tls) = (config.clone(), Arc::clone(&metrics), node_tls.clone());
        let readiness = readiness.clone();
        control.run(async move { discovery::spawn(&config, ports, metrics, node_tls, &readiness).await }).await??
    };
    let (topology, running) = (found.topology, found.running);
    let connections = Connections::new(&config.limits);
    let cordons: Arc<Cordons> = Arc::default();
    let making = Making { topology: topology.clone(), statements: Arc::default() };
    let shared = Arc::new(Shared {
        settings: Current::new(making.with(&config, client_tls.clone(), node_tls.clone())),
        topology: topology.clone(),
        connections: Arc::clone(&connections),
        budget: HoldBudget::new(usize::try_from(config.limits.held_total).unwrap_or(usize::MAX)),
        logins: Logins::default(),
        agreement: found.agreement,
        cordons: Arc::clone(&cordons),
        refusals: Seldom::default(),
        unexpected: Seldom::default(),
        memory: Arc::default(),
        metrics: Arc::clone(&metrics),
        observations: found.observations,
        sightings: Arc::default(),
        kept: Arc::default(),
        handshakes: Arc::new(Semaphore::new(cores())),
        reserve: Reserve::new(readiness.clone()),
        tasks: TaskTracker::new(),
    });
    let watched = Watched::find(config.limits.memory);
    if let Some(watched) = &watched {
        tracing::info!(limit = watched.limit(), "memory is watched");
    }
    let memory = {
        let (memory, budget, connections) = (&shared.memory, &shared.budget, &shared.connections);
        memory::Follower::start(
            watched,
            Arc::clone(memory),
            Arc::clone(budget),
            Arc::clone(connections),
            Arc::clone(&metrics),
        )
    };
    let memory = Arc::new(memory.context("limits.memory: no thread to watch it")?);
    let accepting = CancellationToken::new();
    let listening = TaskTracker::new();
    let mut addresses = Vec::with_capacity(listeners.len());
    let mut tasks = Tasks::default();
    for listener in listeners {
        addresses.push(listener.local_addr()?);
        let listens = listening.track_future(listener.run(Arc::clone(&shared), accepting.clone()));
        let stops = accepting.clone();
        tasks.spawn("listener", &runtime::Handle::current(), async move {
            listens.await;
            // When it was told to stop, its end is none of the gateway's.
            if stops.is_cancelled() {
                std::future::pending::<()>().await;
            }
        });
    }
    let disk = Disk::start().context("no thread to look at files")?;
    let apart = control.handle();
    let (tell_files, other_files) = mpsc::channel(1);
    tasks.spawn("topology follower", apart, follow_topology(Arc::clone(&shared)));
    tasks.spawn("ages", apart, ages::end_old(Arc::clone(&shared)));
    tasks.spawn("dead peers", apart, dead_peer::watch(Arc::clone(&shared)));
    tasks.spawn("certificates", apart, files::follow(files, other_files, disk.clone(), Arc::clone(&metrics)));
    tasks.spawn("gauges", apart, set_gauges(Arc::clone(&shared), readiness.clone()));
    tasks.spawn("discovery", apart, async move { drop(running.await) });
    let liveness = Arc::new(Liveness::default());
    let watched = watchdog::watch(
        runtime::Handle::current(),
        watchdog::Limits::default(),
        Arc::clone(&liveness),
        Arc::clone(&metrics),
    );
    tasks.spawn("watchdog", apart, watched);
    tasks.spawn("memory", apart, memory.ended().cancelled_owned());
    let parts = admin::Parts {
        topology: topology.clone(),
        metrics: Arc::clone(&metrics),
        readiness: readiness.clone(),
        log_level: log_level.clone(),
        sightings: Arc::clone(&shared.sightings),
        kept: Arc::clone(&shared.kept),
        cordons,
        connections: Box::new(move |port| connections.of_port(port)),
        complaint: Box::new(move || liveness.complaint()),
    };
    let admin = admin::start(config.admin, parts).with_context(|| format!("admin: cannot bind {}", config.admin))?;
    tasks.spawn("admin", apart, admin.ended.clone().cancelled_owned());
    let (tell, ended) = oneshot::channel();
    let first_end = tasks.first_end(Arc::clone(&metrics));
    let supervised = AbortOnDropHandle::new(apart.spawn(async move {
        let _ = tell.send(first_end.await);
    }));
    let reloads = Arc::new(Reloads {
        shared: Arc::clone(&shared),
        making,
        memory,
        changes: Arc::new(found.changes),
        control: apart.clone(),
        disk,
        files: tell_files,
        log_level,
        metrics: Arc::clone(&metrics),
        readiness: readiness.clone(),
        in_force: tokio::sync::Mutex::new(InForce { config, client_tls, node_tls }),
        refused: Mutex::default(),
        leading: Mutex::default(),
    });
    metrics.config_in_force();
    metrics.set_lifecycle(Lifecycle::Running);
    Ok(Running {
        addresses,
        admin: admin.local_addr,
        topology,
        readiness,
        shared,
        accepting,
        listening,
        ended,
        _supervised: supervised,
        reloads,
        _admin: admin,
        _control: control,
    })
}

impl Running {
    /// The way to another configuration.
    pub fn reloads(&self) -> Arc<Reloads> {
        Arc::clone(&self.reloads)
    }

    /// Established client connections.
    pub fn connections(&self) -> usize {
        self.shared.connections.established()
    }

    /// Waits until something that the gateway is made of has ended, and says its name: then there is nothing to do but to stop.
    pub async fn broken(&mut self) -> &'static str {
        match (&mut self.ended).await {
            Ok(name) => name,
            Err(_) => "supervisor",
        }
    }

    /// Stops without losing a request: not ready, still accepting for a while; then no new connections, and the open ones
    /// closed between two frames, spread over time so that drivers do not all come back at once; what is left at the
    /// deadline is reset.
    pub async fn drain(self) {
        let Drain { delay, spread, deadline, linger, graceful_disconnect } = self.shared.settings.get().drain;
        let metrics = &self.shared.metrics;
        metrics.set_lifecycle(Lifecycle::Draining);
        self.readiness.drain();
        let end = Instant::now() + delay + deadline;
        tracing::info!(connections = self.connections(), "draining");
        sleep(delay).await;
        self.accepting.cancel();
        self.listening.close();
        self.shared.tasks.close();
        let drained = async {
            // Whoever is accepted is accepted by now: nobody enters while the others are told.
            self.listening.wait().await;
            if graceful_disconnect {
                // What is told now leaves by itself; what does not is drained after all, as late as the deadline allows.
                let again = end.checked_sub(spread + linger + LAST).unwrap_or(end);
                stagger(self.shared.connections.all(), spread, Order::Farewell).await;
                let _ = timeout_at(again, self.shared.tasks.wait()).await;
            }
            stagger(self.shared.connections.all(), spread, Order::Drain).await;
            self.shared.tasks.wait().await;
        };
        if timeout_at(end, drained).await.is_err() {
            let left = self.shared.connections.all();
            tracing::warn!(connections = left.len(), "drain deadline passed; closing what is left");
            left.iter().for_each(|handle| handle.give(Order::Deadline));
            let _ = timeout_at(Instant::now() + Duration::from_secs(1), self.shared.tasks.wait()).await;
        }
        metrics.set_lifecycle(Lifecycle::Stopping);
        tracing::info!("drained");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.accepting.cancel();
        self.shared.connections.all().iter().for_each(|handle| handle.give(Order::Deadline));
    }
}

/// Closes connections to nodes that are dead or somebody else, and lets control connections read again when the advertised
/// address changes.
async fn follow_topology(shared: Arc<Shared>) {
    let mut changes = shared.topology.clone();
    let mut paths = Arc::clone(&changes.borrow().paths);
    // A newer change tells everybody that an older one would still have told.
    let mut _telling = None;
    let mut leaving = Leaving::default();
    while changes.changed().await.is_ok() {
        let topology = changes.borrow_and_update().clone();
        if shared.settings.get().drain.graceful_disconnect {
            leaving.tell(&topology, &shared.connections);
        }
        for (port, life) in topology.lives() {
            shared.connections.close_before(port, life);
        }
        let before = std::mem::replace(&mut paths, Arc::clone(&topology.paths));
        if Arc::ptr_eq(&before, &paths) {
            continue;
        }
        let has_moved = |path: &&Arc<Path>| paths.named(&path.name).is_none_or(|now| now.has_moved(path));
        let moved: HashSet<_> = before.iter().filter(has_moved).map(|path| Arc::clone(&path.name)).collect();
        if !moved.is_empty() {
            let is_led_over = |handle: &Handle| handle.control().is_some_and(|path| moved.contains(path));
            _telling = Some(lead_over(&shared, is_led_over));
        }
    }
}

/// Control connections that are to read rows again, each in its time; until what is returned is dropped.
fn lead_over(shared: &Shared, whom: impl Fn(&Handle) -> bool) -> AbortOnDropHandle<()> {
    let led = shared.connections.all().into_iter().filter(|handle| whom(handle)).collect();
    let spread = shared.settings.get().drain.spread;
    AbortOnDropHandle::new(tokio::spawn(stagger(led, spread, Order::Readdress)))
}

async fn set_gauges(shared: Arc<Shared>, readiness: Readiness) {
    let mut ticks = tokio::time::interval(GAUGES);
    loop {
        ticks.tick().await;
        shared.metrics.held_bytes.set(i64::try_from(shared.budget.held()).unwrap_or(i64::MAX));
        shared.metrics.hold_waiting.set(i64::try_from(shared.budget.waiting()).unwrap_or(i64::MAX));
        shared.metrics.ready.set(i64::from(readiness.is_ready()));
        for stage in Stage::ALL {
            shared.metrics.set_stage(*stage, shared.connections.taken(*stage));
        }
        shared.reserve.recover(Instant::now());
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
