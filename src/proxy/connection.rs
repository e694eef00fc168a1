//! One connection until it is established: the first byte, TLS, the first frame, the dial, the handshake, each in a room of its
//! own ([`super::stages`]) and all under one deadline. Then a relay takes over, in a task of its own, so that what the setup
//! needed is freed.
//!
//! Whoever says nothing costs a socket and a task of some hundred bytes. CQL is client-first: a node is dialled only after the
//! client has said something that looks like CQL, so that probes and scanners never reach a node. An order to close is heard
//! at once, whatever is waited for.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};

use super::Closed;
use super::connections::{Order, Place};
use super::dial::{DialError, Target};
use super::relay::{Relay, ending, last_words};
use super::shared::{Shared, ordered, refused};
use super::stages::{Full, Stage};
use super::stream::{Stream, reset_on_close, set_options};
use crate::metrics::{DialFailure, DriverMetrics, NodeMetrics, Refused};
use crate::rewrite::handshake::{Handshake, Next, Refusal, Settled};
use crate::rewrite::view::{self, DriverFamily};
use crate::rewrite::{Client, Conversation};
use crate::topology::{Node, NodeState};

/// Bytes asked of a socket at once while a connection is set up.
const READ: usize = 4096;

/// A connection from accept to close.
pub async fn run(client: TcpStream, peer: SocketAddr, node: Arc<Node>, place: Place, shared: Arc<Shared>) {
    let began = Instant::now();
    let deadline = began + shared.timeouts.setup;
    if let Err(refused) = first_byte(&client, &place, deadline).await {
        reset_on_close(&client);
        shared.refused(node.port, peer, refused.reason, refused.closed);
        return;
    }
    // Only now is there anything on the heap.
    Box::pin(spoken(client, peer, node, place, shared, began)).await;
}

/// Waits until the client says something.
async fn first_byte(client: &TcpStream, place: &Place, deadline: Instant) -> Result<(), NotEstablished> {
    let mut byte = [0];
    tokio::select! {
        // Being told that a socket is readable does not make it so.
        peeked = client.peek(&mut byte) => match peeked {
            Ok(1..) => Ok(()),
            Ok(0) => Err(NotEstablished::client_ended("eof")),
            Err(error) => Err(NotEstablished::client_ended(ending(&error))),
        },
        // A drain too: nothing is lost.
        order = place.handle().ordered(|order| order != Order::Continue && order != Order::Readdress) => {
            Err(NotEstablished::ordered(order))
        }
        () = sleep_until(deadline) => Err(NotEstablished::setup_deadline()),
    }
}

async fn spoken(
    client: TcpStream,
    peer: SocketAddr,
    node: Arc<Node>,
    place: Place,
    shared: Arc<Shared>,
    began: Instant,
) {
    let metrics = shared.metrics.node(&node.id.0);
    set_options(&client);
    let handle = Arc::clone(place.handle());
    let mut setup = Setup { client: None, node: &node, place, metrics: &metrics, shared: &shared };
    let established = tokio::select! {
        established = setup.run(client) => established,
        order = handle.ordered(Order::is_now) => Err(NotEstablished::ordered(order)),
        () = sleep_until(began + shared.timeouts.setup) => Err(NotEstablished::setup_deadline()),
    };
    let Setup { client, place, .. } = setup;
    let established = match (established, client) {
        (Ok(established), Some(client)) => established.relay(client, place, &node, &metrics, &shared),
        (Ok(_), None) => return,
        (Err(refused), client) => {
            if let Some(client) = client.filter(|_| refused.resets) {
                client.stream.reset_on_close();
            }
            shared.refused(node.port, peer, refused.reason, refused.closed);
            return;
        }
    };
    metrics.handshake_seconds.observe(began.elapsed().as_secs_f64());
    let tasks = shared.tasks.clone();
    tasks.spawn(relayed(established, peer, node.port, metrics, began));
}

/// The relay's whole life: counted when it begins and when it ends, also by a panic.
async fn relayed(established: Established, peer: SocketAddr, port: u16, metrics: Arc<NodeMetrics>, began: Instant) {
    let Established { relay, driver } = established;
    metrics.opened.inc();
    let open = Open { metrics, driver };
    let closed = relay.await;
    open.metrics.closed(closed.by, closed.why);
    tracing::info!(port, %peer, by = closed.by.as_str(), why = closed.why, seconds = began.elapsed().as_secs(), "connection closed");
}

/// The gauges of one open connection.
struct Open {
    metrics: Arc<NodeMetrics>,
    driver: DriverMetrics,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.metrics.open.dec();
        self.driver.open.dec();
    }
}

struct Established {
    /// On the heap: a task's future would hold it twice, once as an argument and once while it is awaited.
    relay: Box<Relay>,
    driver: DriverMetrics,
}

/// Why a connection was not established.
struct NotEstablished {
    reason: Refused,
    closed: Closed,
    /// The client gets a reset, so that its driver tries the next node at once.
    resets: bool,
}

impl NotEstablished {
    fn new(reason: Refused, closed: Closed) -> Self {
        Self { reason, closed, resets: false }
    }

    fn reset(reason: Refused, closed: Closed) -> Self {
        Self { reason, closed, resets: true }
    }

    fn client_ended(why: &'static str) -> Self {
        Self::new(Refused::ClientEnded, Closed::client(why))
    }

    fn setup_deadline() -> Self {
        Self::new(Refused::SetupDeadline, Closed::gateway(Refused::SetupDeadline.as_str()))
    }

    fn ordered(order: Order) -> Self {
        let (reason, closed) = ordered(order);
        Self::reset(reason, closed)
    }

    fn no_place(full: Full, shared: &Shared) -> Self {
        if let Full::Room(stage) | Full::Source(stage) = full {
            shared.metrics.stage_full(stage, matches!(full, Full::Source(_)));
        }
        let reason = refused(full);
        Self::reset(reason, Closed::gateway(reason.as_str()))
    }
}

/// One side during the handshake: its stream and what was read of it and not used.
struct Side {
    stream: Stream,
    read: Vec<u8>,
}

impl Side {
    fn new(stream: Stream) -> Self {
        Self { stream, read: Vec::new() }
    }

    /// Reads what there is; `false` at the end.
    async fn read_more(&mut self) -> io::Result<bool> {
        self.read.reserve(READ);
        Ok(self.stream.read_buf(&mut self.read).await? > 0)
    }

    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }
}

/// A connection that is being set up. What it is about outlives what it waits for.
struct Setup<'a> {
    /// There is one once TLS, if any, is spoken.
    client: Option<Side>,
    node: &'a Node,
    place: Place,
    metrics: &'a Arc<NodeMetrics>,
    shared: &'a Arc<Shared>,
}

/// What the setup came to.
struct Ready {
    node: Side,
    settled: Settled,
    family: std::net::IpAddr,
}

impl Setup<'_> {
    async fn run(&mut self, client: TcpStream) -> Result<Ready, NotEstablished> {
        let family = client.local_addr().map_err(|_| NotEstablished::client_ended("gone"))?.ip();
        let stream = self.accept(client).await?;
        self.move_to(Stage::Setup)?;
        let client = self.client.insert(Side::new(stream));
        let mut handshake = Handshake::default();
        let first = first_frame(client, &mut handshake, self.shared.linger).await?;
        self.place.could_be_established().map_err(|full| NotEstablished::no_place(full, self.shared))?;
        let mut node = Side::new(self.dial().await?);
        node.write(&first)
            .await
            .map_err(|error| NotEstablished::reset(Refused::DialFailed, Closed::node(ending(&error))))?;
        let settled = self.negotiate(&mut node, &mut handshake).await?;
        Ok(Ready { node, settled, family })
    }

    fn move_to(&mut self, stage: Stage) -> Result<(), NotEstablished> {
        self.place.move_to(stage).map_err(|full| NotEstablished::no_place(full, self.shared))
    }

    async fn accept(&mut self, client: TcpStream) -> Result<Stream, NotEstablished> {
        let shared = self.shared;
        let Some(acceptor) = &shared.client_tls else { return Ok(Stream::Plain(client)) };
        self.move_to(Stage::Tls)?;
        match acceptor.accept(client, &shared.handshakes).await {
            Ok(tls) => Ok(Stream::Tls(Box::new(tls.into()))),
            Err(error) => {
                let why = ending(&error);
                // What is no TLS, or none that suits, the gateway ends; else the client left.
                let is_tls = error.kind() == io::ErrorKind::InvalidData;
                let closed = if is_tls { Closed::gateway(why) } else { Closed::client(why) };
                Err(NotEstablished::new(Refused::Tls, closed))
            }
        }
    }

    /// Connects to the node where it lives now. A failure resets the client at once, so that its driver tries the next node.
    async fn dial(&self) -> Result<Stream, NotEstablished> {
        let (node, shared) = (self.node, self.shared);
        let began = Instant::now();
        let target = Target { address: node.address, host: node.host_name() };
        let failure = match shared.dialer.dial(&target).await {
            Ok(stream) => {
                self.metrics.dial_seconds.observe(began.elapsed().as_secs_f64());
                let lives = shared
                    .topology
                    .borrow()
                    .node_at_port(node.port)
                    .is_some_and(|now| now.state == NodeState::Up && now.incarnation == node.incarnation);
                if lives {
                    return Ok(stream);
                }
                DialFailure::Identity
            }
            Err(error) => DialError::label(&error),
        };
        self.metrics.dial_failed(failure);
        Err(NotEstablished::reset(Refused::DialFailed, Closed::gateway(failure.as_str())))
    }
}

/// The client's first frame, whole.
async fn first_frame(
    client: &mut Side,
    handshake: &mut Handshake,
    linger: Duration,
) -> Result<Vec<u8>, NotEstablished> {
    loop {
        match handshake.client(&client.read) {
            Next::Forward(len) => {
                let rest = client.read.split_off(len);
                return Ok(std::mem::replace(&mut client.read, rest));
            }
            Next::Refuse { why, reply } => return Err(refuse(client, why, &reply, linger).await),
            _ => {}
        }
        match client.read_more().await {
            Ok(true) => {}
            ended => return Err(NotEstablished::client_ended(end_of(&ended))),
        }
    }
}

/// How a side ended of which a read brought nothing.
fn end_of(read: &io::Result<bool>) -> &'static str {
    read.as_ref().map_or_else(ending, |_| "eof")
}

impl Setup<'_> {
    /// Passes whole frames both ways until the node establishes the connection.
    async fn negotiate(&mut self, node: &mut Side, handshake: &mut Handshake) -> Result<Settled, NotEstablished> {
        loop {
            let Some(client) = &mut self.client else { return Err(NotEstablished::client_ended("gone")) };
            if handshake.reads_client() && !client.read.is_empty() {
                match handshake.client(&client.read) {
                    Next::Forward(len) => {
                        let sent = node.write(client.read.get(..len).unwrap_or_default()).await;
                        client.read.drain(..len);
                        if sent.is_ok() {
                            continue;
                        }
                    }
                    Next::Refuse { why, reply } => return Err(refuse(client, why, &reply, self.shared.linger).await),
                    _ => {}
                }
            }
            if !node.read.is_empty() {
                match handshake.node(&node.read) {
                    Next::Forward(len) => {
                        forward(client, node, len, None).await?;
                        continue;
                    }
                    Next::Replace(len, bytes) => {
                        forward(client, node, len, Some(bytes)).await?;
                        continue;
                    }
                    Next::Established(len, settled) => {
                        // Before the client hears that it may go on.
                        let stage = if settled.authenticates { Stage::Login } else { Stage::Established };
                        self.place.move_to(stage).map_err(|full| NotEstablished::no_place(full, self.shared))?;
                        forward(client, node, len, None).await?;
                        return Ok(settled);
                    }
                    Next::Refuse { why, reply } => return Err(refuse(client, why, &reply, self.shared.linger).await),
                    Next::Wait { .. } => {}
                }
            }
            let reads_client = handshake.reads_client();
            tokio::select! {
                read = client.read_more(), if reads_client => match read {
                    Ok(true) => {}
                    ended => return Err(NotEstablished::client_ended(end_of(&ended))),
                },
                read = node.read_more() => match read {
                    Ok(true) => {}
                    ended => {
                        last_words(&mut client.stream, self.shared.linger).await;
                        return Err(NotEstablished::new(Refused::DialFailed, Closed::node(end_of(&ended))));
                    }
                },
            }
        }
    }
}

async fn forward(
    client: &mut Side,
    node: &mut Side,
    len: usize,
    instead: Option<Vec<u8>>,
) -> Result<(), NotEstablished> {
    let bytes = instead.as_deref().or(node.read.get(..len)).unwrap_or_default();
    let sent = client.write(bytes).await;
    node.read.drain(..len);
    sent.map_err(|error| NotEstablished::client_ended(ending(&error)))
}

async fn refuse(client: &mut Side, why: Refusal, reply: &[u8], linger: Duration) -> NotEstablished {
    if !reply.is_empty() && client.write(reply).await.is_ok() {
        last_words(&mut client.stream, linger).await;
    }
    let (reason, why) = match why {
        Refusal::NotCql => (Refused::NotCql, "not_cql"),
        Refusal::FrameTooLong => (Refused::FrameTooLong, "frame_too_long"),
        Refusal::Unsupported => (Refused::UnsupportedVersion, "unsupported_version"),
        Refusal::WrongDirection => (Refused::NotCql, "wrong_direction"),
    };
    NotEstablished::new(reason, Closed::gateway(why))
}

impl Ready {
    /// The relay of the connection, counted from now on.
    fn relay(
        self,
        client: Side,
        place: Place,
        node: &Node,
        metrics: &Arc<NodeMetrics>,
        shared: &Arc<Shared>,
    ) -> Established {
        let Self { node: dialled, settled, family } = self;
        let conversation =
            Conversation::new(describe(&settled, node, family, shared), Arc::clone(&shared.surroundings));
        let driver = shared
            .metrics
            .driver(DriverFamily::label(settled.driver_name.as_deref()), settled.driver_version.as_deref());
        driver.opened.inc();
        driver.open.inc();
        metrics.open.inc();
        let relay = Relay::new(
            (client.stream, client.read),
            (dialled.stream, dialled.read),
            conversation,
            place,
            node.port,
            Arc::clone(metrics),
            Arc::clone(shared),
        );
        Established { relay: Box::new(relay), driver }
    }
}

/// Who is talking, from what the handshake settled.
fn describe(settled: &Settled, node: &Node, family: std::net::IpAddr, shared: &Shared) -> Client {
    let driver_name = settled.driver_name.as_deref();
    Client {
        session: settled.session,
        view: view::select(driver_name, &shared.views),
        attached: node.port,
        family,
        injection: DriverFamily::of(driver_name).injection(),
        logged_in: !settled.authenticates,
    }
}
