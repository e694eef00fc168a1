//! `contact_points:`, ask a running cluster who belongs to it.
//!
//! One control connection, to a node that is up or else to a contact point, registered for the cluster's events. An event
//! only says *look again*: its address is never trusted (Cassandra 4.1 announces its own old address after a change). What is
//! true is in `system.local` and `peers_v2`, read at each event, every [`RELIST`] and on each new connection; of what they say
//! about nodes that are known, and about new ones, another node is asked. Over plain TCP only the contact points themselves are
//! logged in to, unless `probe.plain_password` says otherwise: nodes that rows tell of are asked where they want no login.

mod failures;

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use thiserror::Error;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{debug, info};

use crate::config::{self, HostPort};
use crate::cql::message::event::{STATUS_CHANGE, TOPOLOGY_CHANGE};
use crate::metrics::Metrics;
use crate::readiness::Readiness;
use crate::topology::input::Input;
use crate::topology::{HiddenReason, HostId, NodeState, Topology};

use super::allow::Allow;
use super::backoff::{Backoff, jittered};
use super::client::{Client, ClientError, LOGIN_AGAIN};
use super::own_login::OwnLogin;
use super::refusals::{Refused, Said};
use super::resolve::{Addresses, Names};
use super::ring::{Members, Ring};
use crate::proxy::current::Current;
use crate::proxy::dial::{DialFailure, Dialer, Target};
use failures::Failures;

/// Between two readings when nothing is heard.
const RELIST: Duration = Duration::from_secs(30);
/// From an event to the reading: several come together, and rows follow events by milliseconds.
const SETTLE: Duration = Duration::from_millis(100);
/// After an event, and when someone is in doubt, the tables are read again this soon, and never more often; a doubt that stays
/// doubles the wait.
const AGAIN: Duration = Duration::from_secs(1);
/// How many other nodes are asked about someone who is in doubt.
const SECOND_OPINIONS: usize = 3;
/// So long other contact points have for it while no node is up.
const OPINION: Duration = Duration::from_secs(2);

/// Why a control connection ended.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
enum ControlError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("it belongs to cluster {found:?}, not to {expected:?}")]
    WrongCluster { expected: Arc<str>, found: Arc<str> },
    #[error("the node is down")]
    Down,
    #[error("the gateway stops")]
    Stopped,
}

impl ControlError {
    fn failure(&self) -> DialFailure {
        match self {
            Self::Client(error) => error.failure(),
            Self::WrongCluster { .. } => DialFailure::Identity,
            Self::Down | Self::Stopped => DialFailure::Other,
        }
    }
}

/// The source; it runs until it is aborted.
pub struct ContactPoints {
    pub points: Current<Vec<HostPort>>,
    pub names: Names,
    pub dialer: Current<Dialer>,
    pub allow: Allow,
    pub login: OwnLogin,
    /// Its silence is how long an answer may take.
    pub probe: Current<config::Probe>,
    pub inputs: mpsc::Sender<Input>,
    pub topology: watch::Receiver<Arc<Topology>>,
    pub metrics: Arc<Metrics>,
    /// Says which contact points failed, until one has answered.
    pub readiness: Readiness,
}

/// What is kept from one control connection to the next.
struct Memory {
    members: Members,
    /// Of the first node that answered. A contact point of another cluster is never believed.
    cluster_name: Option<Arc<str>>,
    failures: Failures,
    refused: Said,
    /// Where the contact points were when they were last looked up.
    points: Vec<Target>,
    /// Readings in a row that left a doubt.
    doubtful: u32,
    /// The control connection that was tried last has stood.
    stood: bool,
}

impl ContactPoints {
    pub async fn run(self) {
        let failures = Failures::new(self.readiness.clone());
        let mut memory = Memory {
            members: Members::default(),
            cluster_name: None,
            failures,
            refused: Said::default(),
            points: Vec::new(),
            doubtful: 0,
            stood: false,
        };
        let mut backoff = Backoff::default();
        loop {
            sleep(backoff.next_wait()).await;
            // Nodes that are up need no DNS, which may be away together with the node that was asked last.
            let up = self.up();
            let held = match self.follow_any(&up, &mut memory, |_| {}).await {
                Ok(false) => {
                    let mut points = self.resolve(&mut memory).await;
                    points.retain(|point| up.iter().all(|known| known.address != point.address));
                    self.follow_any(&points, &mut memory, |why| self.metrics.contact_point_failed(why)).await
                }
                other => other,
            };
            match held {
                Ok(true) => backoff.reset(),
                Ok(false) => {}
                Err(ControlError::Client(error)) if error.is_login() => sleep(LOGIN_AGAIN).await,
                Err(_) => return,
            }
        }
    }

    /// Follows the first target that can be followed, to its end: true when it held for a while. An error is one that ends the
    /// round: a refused login, or the gateway's end. `count` is told of each target that told nothing.
    async fn follow_any(
        &self,
        targets: &[Target],
        memory: &mut Memory,
        count: impl Fn(DialFailure),
    ) -> Result<bool, ControlError> {
        for target in targets {
            let started = Instant::now();
            let error = match self.follow(target, memory).await {
                Ok(never) => match never {},
                Err(error) => error,
            };
            if error == ControlError::Stopped {
                return Err(error);
            }
            let withheld = matches!(&error, ControlError::Client(ClientError::LoginWithheld { .. }));
            if withheld && memory.points.iter().all(|point| point.address != target.address) {
                debug!(node = %target, %error, "no control connection to this node");
                continue;
            }
            memory.failures.note(&target.to_string(), &error.to_string());
            if !std::mem::take(&mut memory.stood) {
                count(error.failure());
            }
            if matches!(&error, ControlError::Client(error) if error.is_login()) {
                return Err(error);
            }
            if started.elapsed() > AGAIN && !memory.members.found().is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn up(&self) -> Vec<Target> {
        let topology = Arc::clone(&self.topology.borrow());
        let up = topology.nodes.iter().filter(|node| node.state == NodeState::Up);
        let mut up: Vec<Target> = up.map(|node| Target::at(node.address)).collect();
        // Those that may be logged in to first.
        up.sort_by_key(|target| !self.login.is_sent(target.address));
        up
    }

    /// The contact points, each name with all its addresses.
    async fn resolve(&self, memory: &mut Memory) -> Vec<Target> {
        let (mut targets, mut unknown) = (Vec::new(), false);
        for point in self.points.get().iter() {
            let ips: Vec<IpAddr> = match point.host.parse() {
                Ok(ip) => vec![ip],
                Err(_) => match self.names.lookup(&point.host, &Addresses::default()).await {
                    Ok((found, _)) => {
                        memory.failures.forget(&point.host);
                        found.ips().collect()
                    }
                    Err(error) => {
                        memory.failures.note(&point.host, &error.to_string());
                        self.metrics.contact_point_failed(DialFailure::Dns);
                        unknown = true;
                        Vec::new()
                    }
                },
            };
            let target = |ip| Target { address: SocketAddr::new(ip, point.port), host: point.host.as_str().into() };
            targets.extend(ips.into_iter().map(target));
        }
        self.allow.name(targets.iter().map(|target| target.address.ip()));
        let addresses = targets.iter().map(|target| target.address);
        // What the names led to before still counts while one of them leads nowhere.
        if unknown {
            self.login.vouch_also(addresses)
        } else {
            self.login.vouch(addresses)
        }
        memory.points.clone_from(&targets);
        targets
    }

    /// A contact point that is known by its name may have moved to an address that rows tell of: it is logged in to there.
    async fn look_up_again(&self, ring: &Ring) {
        if ring.nodes.values().all(|node| self.login.is_sent(node.address)) {
            return;
        }
        let look_up = async {
            for point in self.points.get().iter().filter(|point| point.host.parse::<IpAddr>().is_err()) {
                let Ok((found, _)) = self.names.lookup(&point.host, &Addresses::default()).await else { continue };
                self.login.vouch_also(found.ips().map(|ip| SocketAddr::new(ip, point.port)));
            }
        };
        // Whoever is not found now is looked for at the next reading.
        _ = timeout(OPINION, look_up).await;
    }

    /// A control connection from its beginning to its end.
    async fn follow(&self, target: &Target, memory: &mut Memory) -> Result<Infallible, ControlError> {
        let mut control = self.open(target).await?;
        control.register(&[TOPOLOGY_CHANGE, STATUS_CHANGE]).await?;
        memory.members.change_teller();
        let mut event_seen = false;
        loop {
            let read = Instant::now();
            self.read(&mut control, target, memory).await?;
            if !std::mem::replace(&mut memory.stood, true) {
                memory.failures.end();
                let cluster = memory.cluster_name.as_deref().unwrap_or("unknown");
                info!(node = %target, cluster, "control connection established");
            }
            let wait = match memory.doubtful.checked_sub(1) {
                _ if std::mem::take(&mut event_seen) => AGAIN,
                Some(doublings) => AGAIN.saturating_mul(2u32.saturating_pow(doublings)).min(RELIST),
                None => jittered(RELIST),
            };
            tokio::select! {
                event = control.event() => {
                    event?;
                    event_seen = true;
                    sleep(SETTLE).await;
                    sleep_until(read + AGAIN).await;
                }
                () = sleep(wait) => {}
                () = self.down(target.address) => return Err(ControlError::Down),
            }
        }
    }

    async fn open(&self, target: &Target) -> Result<Client, ControlError> {
        let mut client = Client::open(&self.dialer.get(), target, self.probe.get().silence).await?;
        client.start(&self.login.of(target.address)).await?;
        Ok(client)
    }

    /// Reads the tables, asks others about who is in doubt, and tells.
    async fn read(&self, control: &mut Client, target: &Target, memory: &mut Memory) -> Result<(), ControlError> {
        let ring = self.ask(control, target.address).await?;
        self.metrics.discovery_relists.inc();
        self.look_up_again(&ring).await;
        memory.check_cluster(&ring)?;
        let doubted = memory.members.merge(&ring);
        if !doubted.is_empty() {
            match self.second_opinion(&doubted, &ring, target, memory).await {
                Some(second) => memory.members.confirm(&second),
                None => memory.members.confirm_alone(),
            }
        }
        let topology = Arc::clone(&self.topology.borrow());
        memory.members.forget(|id| topology.node_by_host_id(id).is_none_or(|node| node.state == NodeState::Gone));
        memory.doubtful = if memory.members.in_doubt() { memory.doubtful.saturating_add(1) } else { 0 };
        self.metrics.discovery_heard();
        self.inputs.send(Input::Nodes(memory.members.found())).await.map_err(|_| ControlError::Stopped)?;
        let claimed = memory.members.claims().map(|claim| Refused {
            id: None,
            host_id: claim.host_id,
            address: Some(claim.address),
            reason: HiddenReason::NotConfirmed,
            why: format!("{target} alone says that it is there"),
        });
        let refused = ring.refused.into_iter().chain(claimed).collect();
        for hidden in memory.refused.take_over(refused) {
            self.inputs.send(Input::Hidden(hidden)).await.map_err(|_| ControlError::Stopped)?;
        }
        Ok(())
    }

    async fn ask(&self, client: &mut Client, dialled: SocketAddr) -> Result<Ring, ClientError> {
        let paths = Arc::clone(&self.topology.borrow().paths);
        Ring::read(client, dialled, |address| self.allow.check(address, &paths)).await
    }

    /// The view of another node that is up and not itself in question, or else of another contact point.
    async fn second_opinion(&self, doubted: &[HostId], ring: &Ring, target: &Target, memory: &Memory) -> Option<Ring> {
        let topology = Arc::clone(&self.topology.borrow());
        let others = topology.nodes.iter().filter(|node| {
            let in_question = node.host_id.is_none_or(|id| doubted.contains(&id) || !ring.nodes.contains_key(&id));
            node.state == NodeState::Up && node.address != target.address && !in_question
        });
        let (sent, unsent): (Vec<_>, Vec<_>) = others.partition(|node| self.login.is_sent(node.address));
        for other in sent.into_iter().chain(unsent).take(SECOND_OPINIONS) {
            if let Some(second) = self.opinion_of(&Target::at(other.address), ring).await {
                return Some(second);
            }
        }
        // Nobody has answered a probe yet. Contact points may be dead, and nobody waits for that one after the other.
        let points = memory.points.iter().filter(|point| point.address != target.address).take(SECOND_OPINIONS);
        let mut asked: FuturesUnordered<_> = points.map(|point| self.opinion_of(point, ring)).collect();
        let answered = async {
            while let Some(answer) = asked.next().await {
                if answer.is_some() {
                    return answer;
                }
            }
            None
        };
        timeout(OPINION, answered).await.unwrap_or_default()
    }

    /// The view of `other`, where it is another node of the same cluster.
    async fn opinion_of(&self, other: &Target, ring: &Ring) -> Option<Ring> {
        let asked = async {
            let mut client = self.open(other).await?;
            Ok::<_, ControlError>(self.ask(&mut client, other.address).await?)
        };
        match asked.await {
            Ok(second) if second.cluster_name == ring.cluster_name && second.own != ring.own => Some(second),
            Ok(_) => None,
            Err(error) => {
                debug!(node = %other, %error, "no second opinion from this node");
                None
            }
        }
    }

    /// Waits until probes say that the node at `address` is down: sooner than a silent connection would tell.
    async fn down(&self, address: SocketAddr) {
        let down = |topology: &Arc<Topology>| {
            topology.nodes.iter().any(|node| node.address == address && node.state == NodeState::Down)
        };
        if self.topology.clone().wait_for(down).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl Memory {
    fn check_cluster(&mut self, ring: &Ring) -> Result<(), ControlError> {
        let Some(found) = &ring.cluster_name else { return Ok(()) };
        let expected = self.cluster_name.get_or_insert_with(|| Arc::clone(found));
        if expected == found {
            return Ok(());
        }
        Err(ControlError::WrongCluster { expected: Arc::clone(expected), found: Arc::clone(found) })
    }
}
