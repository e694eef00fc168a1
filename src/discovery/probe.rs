//! The gateway's own connection to one node: is it alive, and who is it?
//!
//! OPTIONS at every interval needs no login, so that a node that hangs, or whose address leads nowhere, is known as dead
//! whatever its authentication. Each new connection asks the node who it is, where it can be asked, before the node is
//! called alive: an address may have changed its owner since the last one. A refused or reset connection is tried once
//! more at once, to tell a hiccup from death.
//!
//! Never decides whether a node is up: it reports what it saw, and `topology::state` concludes.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{debug, info, warn};

use crate::config;
use crate::metrics::NodeMetrics;
use crate::readiness::{Degraded, Readiness};
use crate::topology::input::{DeadReason, Identity, Input};
use crate::topology::{NodeId, NodeState, Topology};

use super::backoff::Backoff;
use super::changes::Wakes;
use super::client::{Client, ClientError, LOGIN_AGAIN};
use super::identity::read_local;
use super::own_login::{Login, OwnLogin, Terms};
use crate::proxy::current::Current;
use crate::proxy::dial::{DialError, Dialer, Target};
use crate::proxy::tls::NodeConnector;

/// Dials are given up after this when a connection was lost (where the address went with the node, nobody refuses) and while a
/// node is down, so that the next one finds a port that has just opened: the system itself repeats a lost SYN only after 1, 3
/// and 7 seconds. Every fourth to a dead node has the whole deadline.
const SHORT_DIAL: Duration = Duration::from_secs(1);

/// A node of which others say that it is down, or somebody else, has this long to say otherwise; and it is not asked more often.
const QUESTION: Duration = Duration::from_secs(1);

/// After a login of ours was refused, so many intervals pass before the next one.
const LOGIN_INTERVALS: u32 = 15;

/// The probe of one node at one address; it ends only when it is aborted.
pub struct Probe {
    pub id: NodeId,
    pub target: Target,
    pub dialer: Current<Dialer>,
    pub settings: Current<config::Probe>,
    pub login: OwnLogin,
    pub inputs: mpsc::Sender<Input>,
    pub topology: watch::Receiver<Arc<Topology>>,
    pub metrics: Arc<NodeMetrics>,
    /// Woken when a dial fails: the node's name may have another address by now.
    pub wakes: Wakes,
    pub readiness: Readiness,
    /// Woken when somebody says of the node what its last answer contradicts.
    pub question: Arc<Notify>,
}

/// A connection, and what could be asked on it.
struct Connected {
    client: Client,
    identity: Identity,
    /// STARTUP is done: questions about identity can be asked again.
    started: bool,
    /// A second connection that was asked for a login and gives none, where `client` has not begun: a node whose native
    /// transport is stopped (SIGTERM, `nodetool disablebinary`) closes only connections that have sent STARTUP, and goes on
    /// answering OPTIONS on the others.
    waiting: Option<Client>,
    /// Why the node did not say who it is although there is a login: asked again after a while.
    refused: Option<ClientError>,
}

#[derive(Default)]
struct Memory {
    /// The node has said who it is, at this address, to this probe.
    verified: bool,
    /// What was said last of a dead node, so that it is not said each second.
    dead: Option<ClientError>,
    /// The last connection was established and has ended; nothing was dialled since.
    lost: bool,
    /// That a login is needed was said.
    login_said: bool,
    /// Whether somebody vouches for it was waited for.
    waited: bool,
    /// The last login was refused.
    degraded: Option<Degraded>,
}

impl Probe {
    /// For ever, from `after` on.
    pub async fn run(self, after: Duration) {
        sleep(after).await;
        let mut backoff = Backoff::default();
        let mut memory = Memory::default();
        loop {
            sleep(backoff.next_wait()).await;
            let changes = self.login.changes();
            // What a connection takes to begin is kept no longer than that.
            match Box::pin(self.connect(&backoff, &mut memory)).await {
                Ok(mut connected) => {
                    if memory.dead.take().is_some() {
                        info!(node = %self.id, address = %self.target, "the node answers again");
                    }
                    self.tell_alive(connected.identity.clone()).await;
                    let since = Instant::now();
                    let error = self.watch(&mut connected, changes).await;
                    memory.lost = true;
                    if since.elapsed() >= self.settings.get().interval {
                        backoff.reset();
                    }
                    debug!(node = %self.id, %error, "probe connection ended");
                    if matches!(error, ClientError::Silent { .. }) {
                        Box::pin(self.tell_dead(error, &mut memory)).await;
                    }
                }
                // It cannot be asked anything; clients that are somebody there are served all the same.
                Err(error) if error.is_refused_certificate() && self.shows_others() => {
                    self.login_failed(&error, &mut memory);
                    memory.dead = None;
                    self.tell_alive(Identity::default()).await;
                    backoff.reset();
                    sleep(LOGIN_AGAIN).await;
                }
                Err(error) => {
                    if error.is_refused_certificate() {
                        self.degrade(&error, &mut memory);
                    }
                    let wait = if error.is_login() { LOGIN_AGAIN } else { Duration::ZERO };
                    Box::pin(self.tell_dead(error, &mut memory)).await;
                    sleep(wait).await;
                }
            }
        }
    }

    /// Dials, and asks who the node is unless it wants a login that the gateway does not have.
    async fn connect(&self, backoff: &Backoff, memory: &mut Memory) -> Result<Connected, ClientError> {
        let mut dialer = Dialer::clone(&self.dialer.get());
        if std::mem::take(&mut memory.lost) || (memory.dead.is_some() && !backoff.dials().is_multiple_of(4)) {
            dialer.deadline = dialer.deadline.min(SHORT_DIAL);
        }
        let mut client = self.open(&dialer).await?;
        let asked = match client.start(&self.login.of(self.target.address)).await {
            Ok(()) => read_local(&mut client, self.target.address).await,
            Err(error) => Err(error),
        };
        match asked {
            Ok(identity) => {
                memory.verified = true;
                memory.degraded = None;
                Ok(Connected { client, identity, started: true, waiting: None, refused: None })
            }
            Err(error @ ClientError::LoginNeeded { .. }) => {
                if !std::mem::replace(&mut memory.login_said, true) {
                    info!(node = %self.id, "{error}; until then nodes are known by their clients' rows");
                }
                memory.degraded = None;
                let connected = self.connect_unnamed(&dialer, client).await?;
                Ok(Connected { refused: Some(error), ..connected })
            }
            Err(error @ ClientError::LoginWithheld { .. }) => {
                if !std::mem::replace(&mut memory.waited, true) && self.login.vouched_soon(self.target.address).await {
                    return Box::pin(self.connect(backoff, memory)).await;
                }
                self.login_failed(&error, memory);
                let connected = self.connect_unnamed(&dialer, client).await?;
                Ok(Connected { refused: Some(error), ..connected })
            }
            // Clients that are somebody there are served all the same.
            Err(error @ ClientError::Nobody { .. }) => {
                self.login_failed(&error, memory);
                let connected = self.connect_unnamed(&dialer, client).await?;
                Ok(Connected { refused: Some(error), ..connected })
            }
            // A login of ours that fails must not cost more than having none: clients log in as themselves.
            Err(error)
                if error.is_refused_login() || memory.verified && matches!(error, ClientError::Refused { .. }) =>
            {
                self.login_failed(&error, memory);
                let mut waiting = self.open(&dialer).await?;
                match waiting.start(&Login::Absent).await {
                    Ok(()) | Err(ClientError::LoginNeeded { .. }) => {
                        let connected = self.connect_unnamed(&dialer, waiting).await?;
                        Ok(Connected { refused: Some(error), ..connected })
                    }
                    Err(error) => Err(error),
                }
            }
            Err(error) => Err(error),
        }
    }

    /// Whether clients show nodes other certificates than the gateway's own.
    fn shows_others(&self) -> bool {
        self.dialer.get().tls.as_ref().is_some_and(NodeConnector::has_identities)
    }

    fn login_failed(&self, error: &ClientError, memory: &mut Memory) {
        if memory.degraded.is_none() {
            warn!(node = %self.id, %error, "the node answers, and does not say who it is");
        }
        self.degrade(error, memory);
    }

    fn degrade(&self, error: &ClientError, memory: &mut Memory) {
        self.metrics.dial_failed(error.failure());
        memory.degraded = Some(self.readiness.degraded(&error.to_string()));
    }

    /// A connection that has begun a login takes nothing but the login: OPTIONS need another one.
    async fn connect_unnamed(&self, dialer: &Dialer, waiting: Client) -> Result<Connected, ClientError> {
        let client = self.open(dialer).await?;
        let identity = Identity::default();
        Ok(Connected { client, identity, started: false, waiting: Some(waiting), refused: None })
    }

    async fn open(&self, dialer: &Dialer) -> Result<Client, ClientError> {
        let started = Instant::now();
        let client = Client::open(dialer, &self.target, self.settings.get().silence).await?;
        self.metrics.probe_seconds.observe(started.elapsed().as_secs_f64());
        Ok(client)
    }

    /// Asks OPTIONS at every interval until the connection fails; says how.
    async fn watch(&self, connected: &mut Connected, mut changes: watch::Receiver<Terms>) -> ClientError {
        let login_again = Instant::now() + LOGIN_INTERVALS * self.settings.get().interval;
        let mut asked = Instant::now();
        loop {
            // One that was withheld is given as soon as somebody vouches for the node.
            let withheld = matches!(connected.refused, Some(ClientError::LoginWithheld { .. }));
            let absent = matches!(connected.refused, Some(ClientError::LoginNeeded { .. }));
            let waits = withheld || absent;
            if let Some(refused) = connected.refused.take_if(|_| !waits && Instant::now() >= login_again) {
                return refused;
            }
            let mut questioned = false;
            tokio::select! {
                () = sleep(self.settings.get().interval) => {}
                () = self.question.notified() => {
                    questioned = true;
                    sleep_until(asked + QUESTION).await;
                }
                event = connected.client.event() => match event {
                    Ok(()) => continue,
                    Err(error) => return error,
                },
                error = lost(&mut connected.waiting) => return error,
                // Whoever did not say who it is may do so by another login.
                Ok(()) = changes.changed() => match connected.refused.take() {
                    Some(refused) => return refused,
                    None => continue,
                },
                () = self.login.vouched(self.target.address), if withheld => {
                    if let Some(refused) = connected.refused.take() {
                        return refused;
                    }
                }
            }
            asked = Instant::now();
            // Something speaks against it: perhaps no longer, perhaps it is true.
            let ask = Box::pin(self.ask(connected, questioned || !self.is_up()));
            let answered = match questioned {
                true => timeout(QUESTION.min(self.settings.get().silence), ask).await,
                false => Ok(ask.await),
            };
            match answered {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return error,
                Err(_) => return ClientError::Silent { doing: "a question", after: QUESTION },
            }
        }
    }

    /// Whether the node answers, and who it is where that is asked.
    async fn ask(&self, connected: &mut Connected, who: bool) -> Result<(), ClientError> {
        let began = Instant::now();
        connected.client.options().await?;
        self.metrics.probe_seconds.observe(began.elapsed().as_secs_f64());
        if who {
            if connected.started {
                connected.identity = read_local(&mut connected.client, self.target.address).await?;
            }
            self.tell_alive(connected.identity.clone()).await;
        }
        Ok(())
    }

    fn is_up(&self) -> bool {
        self.topology.borrow().node_by_id(&self.id).is_some_and(|node| node.state == NodeState::Up)
    }

    async fn tell_alive(&self, identity: Identity) {
        let input = Input::Alive { id: self.id.clone(), address: self.target.address, identity };
        let _ = self.inputs.send(input).await;
    }

    async fn tell_dead(&self, error: ClientError, memory: &mut Memory) {
        if let ClientError::Dial(error) = &error {
            if !matches!(error, DialError::Certificate { .. }) {
                self.metrics.dial_failed(error.failure());
            }
            if let Some(lookup) = self.wakes.get().get(&self.id) {
                lookup.notify_one();
            }
        }
        if memory.dead.as_ref() == Some(&error) {
            return;
        }
        let reason = dead_reason(&error);
        if memory.dead.as_ref().is_none_or(|before| dead_reason(before) != reason) {
            warn!(node = %self.id, address = %self.target, %error, "the node is dead");
        }
        memory.dead = Some(error);
        let _ = self.inputs.send(Input::Dead { id: self.id.clone(), address: self.target.address, reason }).await;
    }
}

/// Waits until a connection on which nothing is expected ends; for ever where there is none.
async fn lost(connection: &mut Option<Client>) -> ClientError {
    let Some(client) = connection else { return std::future::pending().await };
    loop {
        if let Err(error) = client.event().await {
            return error;
        }
    }
}

fn dead_reason(error: &ClientError) -> DeadReason {
    match error {
        ClientError::Dial(DialError::Connect { kind, .. }) => match kind {
            io::ErrorKind::ConnectionRefused => DeadReason::Refused,
            io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted => DeadReason::Reset,
            _ => DeadReason::Unreachable,
        },
        ClientError::Dial(DialError::Timeout { .. }) => DeadReason::Unreachable,
        ClientError::Dial(DialError::Tls { .. } | DialError::Certificate { .. }) | ClientError::Certificate { .. } => {
            DeadReason::Tls
        }
        ClientError::Lost { .. } => DeadReason::Reset,
        ClientError::Silent { .. } => DeadReason::Silent,
        ClientError::Malformed { .. } | ClientError::Unexpected { .. } | ClientError::Refused { .. } => {
            DeadReason::Protocol
        }
        ClientError::LoginNeeded { .. }
        | ClientError::Nobody { .. }
        | ClientError::LoginRefused { .. }
        | ClientError::PasswordFile { .. }
        | ClientError::LoginWithheld { .. } => DeadReason::Login,
    }
}
