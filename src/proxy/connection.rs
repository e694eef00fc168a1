//! The setup of one connection, under one deadline: TLS, the first frame, the dial, the handshake. Then a relay takes over,
//! in a task of its own, so that what the setup needed is freed.
//!
//! CQL is client-first: a node is dialled only after the client has said something that looks like CQL, so that probes and
//! scanners never reach a node.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::Closed;
use super::connections::{Order, Place};
use super::listener::Shared;
use super::relay::{Relay, ending};
use super::stream::{Stream, reset_on_close, set_options};
use crate::metrics::{DialFailure, NodeMetrics, Refused};
use crate::rewrite::Conversation;
use crate::rewrite::conversation::Client;
use crate::rewrite::handshake::{Handshake, Next, Refusal, Settled};
use crate::rewrite::view::{self, DriverFamily};
use crate::topology::{Node, NodeState};

/// Bytes asked of a socket at once while a connection is set up.
const READ: usize = 4096;

/// A connection from accept to close.
pub async fn run(client: TcpStream, peer: SocketAddr, node: Arc<Node>, place: Place, shared: Arc<Shared>) {
    let began = Instant::now();
    let metrics = shared.metrics.node(&node.id.0);
    set_options(&client);
    let setup = Box::pin(timeout(shared.timeouts.setup, set_up(client, &node, place, &metrics, &shared)));
    let relay = match setup.await {
        Ok(Ok(relay)) => relay,
        Ok(Err(refused)) => {
            shared.refused(node.port, peer, refused.reason, refused.closed);
            return;
        }
        Err(_) => {
            shared.refused(node.port, peer, Refused::SetupDeadline, Closed::gateway("setup_deadline"));
            return;
        }
    };
    metrics.handshake_seconds.observe(began.elapsed().as_secs_f64());
    let tasks = shared.tasks.clone();
    tasks.spawn(relayed(relay, peer, node.port, metrics, began));
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
    driver: crate::metrics::DriverMetrics,
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
    driver: crate::metrics::DriverMetrics,
}

/// Why a connection was not established.
struct NotEstablished {
    reason: Refused,
    closed: Closed,
}

impl NotEstablished {
    fn new(reason: Refused, closed: Closed) -> Self {
        Self { reason, closed }
    }

    fn client_ended(why: &'static str) -> Self {
        Self::new(Refused::ClientEnded, Closed::client(why))
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

async fn set_up(
    client: TcpStream,
    node: &Node,
    place: Place,
    metrics: &Arc<NodeMetrics>,
    shared: &Arc<Shared>,
) -> Result<Established, NotEstablished> {
    let family = client.local_addr().map_err(|_| NotEstablished::client_ended("gone"))?.ip();
    let mut client = Side::new(accept(client, shared).await?);
    let mut handshake = Handshake::default();
    let first = first_frame(&mut client, &mut handshake).await?;
    let mut dialled = Side::new(dial(&client, node, metrics, shared).await?);
    dialled.write(&first).await.map_err(|error| refuse_client(&client, ending(&error)))?;
    let settled = negotiate(&mut client, &mut dialled, &mut handshake, &place).await?;
    let conversation = Conversation::new(describe(&settled, node, family, shared), Arc::clone(&shared.surroundings));
    let driver =
        shared.metrics.driver(DriverFamily::label(settled.driver_name.as_deref()), settled.driver_version.as_deref());
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
    Ok(Established { relay: Box::new(relay), driver })
}

async fn accept(client: TcpStream, shared: &Shared) -> Result<Stream, NotEstablished> {
    let Some(acceptor) = &shared.client_tls else { return Ok(Stream::Plain(client)) };
    let _turn = shared.handshakes.acquire().await;
    match acceptor.accept(client).await {
        Ok(tls) => Ok(Stream::Tls(Box::new(tls.into()))),
        Err(error) => {
            let why = ending(&error);
            // What is no TLS, or none that suits, the gateway ends; else the client left.
            let closed = if why == "tls" { Closed::gateway(why) } else { Closed::client(why) };
            Err(NotEstablished::new(Refused::Tls, closed))
        }
    }
}

/// The client's first frame, whole.
async fn first_frame(client: &mut Side, handshake: &mut Handshake) -> Result<Vec<u8>, NotEstablished> {
    loop {
        match handshake.client(&client.read) {
            Next::Forward(len) => {
                let rest = client.read.split_off(len);
                return Ok(std::mem::replace(&mut client.read, rest));
            }
            Next::Refuse { why, reply } => return Err(refuse(client, why, &reply).await),
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

/// Connects to the node where it lives now. A failure resets the client at once, so that its driver tries the next node.
async fn dial(client: &Side, node: &Node, metrics: &NodeMetrics, shared: &Shared) -> Result<Stream, NotEstablished> {
    let began = Instant::now();
    let connected = async {
        let tcp = TcpStream::connect(node.address).await?;
        set_options(&tcp);
        match &shared.node_tls {
            None => Ok(Stream::Plain(tcp)),
            Some(connector) => {
                connector.connect(tcp, &node.host_name()).await.map(|tls| Stream::Tls(Box::new(tls.into())))
            }
        }
    };
    let failure = match timeout(shared.timeouts.dial, connected).await {
        Ok(Ok(stream)) => {
            metrics.dial_seconds.observe(began.elapsed().as_secs_f64());
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
        Ok(Err(error)) => DialFailure::of(&error),
        Err(_) => DialFailure::Timeout,
    };
    metrics.dial_failed(failure);
    client.stream.reset_on_close();
    Err(NotEstablished::new(Refused::DialFailed, Closed::gateway(failure.as_str())))
}

/// Passes whole frames both ways until the node establishes the connection.
async fn negotiate(
    client: &mut Side,
    node: &mut Side,
    handshake: &mut Handshake,
    place: &Place,
) -> Result<Settled, NotEstablished> {
    loop {
        if place.handle().order() > Order::Readdress {
            client.stream.reset_on_close();
            return Err(NotEstablished::new(Refused::NoLiveNode, Closed::gateway("node_gone")));
        }
        if handshake.reads_client() && !client.read.is_empty() {
            match handshake.client(&client.read) {
                Next::Forward(len) => {
                    let sent = node.write(client.read.get(..len).unwrap_or_default()).await;
                    client.read.drain(..len);
                    if sent.is_ok() {
                        continue;
                    }
                }
                Next::Refuse { why, reply } => return Err(refuse(client, why, &reply).await),
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
                    forward(client, node, len, None).await?;
                    return Ok(settled);
                }
                Next::Refuse { why, reply } => return Err(refuse(client, why, &reply).await),
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
                    finish(client).await;
                    return Err(NotEstablished::new(Refused::DialFailed, Closed::node(end_of(&ended))));
                }
            },
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

/// Ends the client's connection so that what it was sent last arrives: input that is still on its way is read and thrown
/// away for a moment, because closing over it would make the kernel destroy what the client has not read.
async fn finish(client: &mut Side) {
    let _ = client.stream.shutdown().await;
    let discard = async {
        for _ in 0..256 {
            client.read.clear();
            if !matches!(client.read_more().await, Ok(true)) {
                return;
            }
        }
    };
    tokio::select! {
        () = discard => {}
        () = sleep(std::time::Duration::from_secs(1)) => {}
    }
}

async fn refuse(client: &mut Side, why: Refusal, reply: &[u8]) -> NotEstablished {
    if !reply.is_empty() && client.write(reply).await.is_ok() {
        finish(client).await;
    }
    let (reason, why) = match why {
        Refusal::NotCql => (Refused::NotCql, "not_cql"),
        Refusal::FrameTooLong => (Refused::FrameTooLong, "frame_too_long"),
        Refusal::Unsupported => (Refused::UnsupportedVersion, "unsupported_version"),
        Refusal::WrongDirection => (Refused::NotCql, "wrong_direction"),
    };
    NotEstablished::new(reason, Closed::gateway(why))
}

fn refuse_client(client: &Side, why: &'static str) -> NotEstablished {
    reset_on_close(client.stream.tcp());
    NotEstablished::new(Refused::DialFailed, Closed::node(why))
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
        logged_in: true,
    }
}
