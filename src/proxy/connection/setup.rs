//! What is waited for until a connection is established: TLS, the first frame, the dial, the handshake.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::metrics::NodeMetrics;
use crate::proxy::came::Came;
use crate::proxy::connections::{Order, Place};
use crate::proxy::dial::{DialFailure, Target};
use crate::proxy::relay::{ending, last_words};
use crate::proxy::settings::Settings;
use crate::proxy::shared::{Shared, ordered};
use crate::proxy::stages::{Full, Stage};
use crate::proxy::stream::Stream;
use crate::proxy::tls::acceptor::{Failed, client_of};
use crate::proxy::tls::connector::Face;
use crate::proxy::tls::shown::Shown;
use crate::proxy::{Closed, Refused, Why};
use crate::rewrite::handshake::{Handshake, Next, Refusal, Settled, bad_credentials};
use crate::topology::{Family, Node, NodeState};

/// Bytes asked of a socket at once while a connection is set up.
const READ: usize = 4096;

/// Why a connection was not established.
pub(super) struct NotEstablished {
    pub(super) reason: Refused,
    pub(super) closed: Closed,
    /// The client gets a reset, so that its driver tries the next node at once.
    pub(super) resets: bool,
}

impl NotEstablished {
    pub(super) fn new(reason: Refused, closed: Closed) -> Self {
        Self { reason, closed, resets: false }
    }

    pub(super) fn reset(reason: Refused, closed: Closed) -> Self {
        Self { reason, closed, resets: true }
    }

    pub(super) fn client_ended(why: Why) -> Self {
        Self::new(Refused::ClientEnded, Closed::client(why))
    }

    pub(super) fn setup_deadline() -> Self {
        Self::new(Refused::SetupDeadline, Closed::gateway(Refused::SetupDeadline))
    }

    pub(super) fn ordered(order: Order) -> Self {
        let (reason, closed) = ordered(order);
        Self::reset(reason, closed)
    }

    pub(super) fn no_place(full: Full, shared: &Shared) -> Self {
        let reason = shared.count_full(full);
        Self::reset(reason, Closed::gateway(reason))
    }
}

/// One side during the handshake: its stream and what was read of it and not used.
pub(super) struct Side {
    pub(super) stream: Stream,
    pub(super) read: Vec<u8>,
}

impl Side {
    pub(super) fn new(stream: Stream) -> Self {
        Self { stream, read: Vec::new() }
    }

    /// Reads what there is; `false` at the end.
    pub(super) async fn read_more(&mut self) -> io::Result<bool> {
        self.read.reserve(READ);
        Ok(self.stream.read_buf(&mut self.read).await? > 0)
    }

    pub(super) async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }
}

/// A connection that is being set up. What it is about outlives what it waits for.
pub(super) struct Setup<'a> {
    /// There is one once TLS, if any, is spoken.
    pub(super) client: Option<Side>,
    pub(super) node: &'a Node,
    pub(super) peer: SocketAddr,
    pub(super) place: Place,
    pub(super) metrics: &'a Arc<NodeMetrics>,
    pub(super) shared: &'a Arc<Shared>,
    pub(super) settings: &'a Settings,
}

/// What the setup came to.
pub(super) struct Ready {
    pub(super) node: Side,
    pub(super) settled: Settled,
    pub(super) family: Family,
    /// Whom the client's certificate names.
    pub(super) certificate: Option<Box<str>>,
}

impl Setup<'_> {
    pub(super) async fn run(&mut self, client: TcpStream, came: Came) -> Result<Ready, NotEstablished> {
        let family = client.local_addr().map_err(|_| NotEstablished::client_ended(Why::Gone))?.ip().into();
        let (stream, shown) = self.accept(client, came).await?;
        self.move_to(Stage::Setup)?;
        let client = self.client.insert(Side::new(stream));
        let mut handshake = Handshake::new(self.settings.drain.graceful_disconnect);
        let first = first_frame(client, &mut handshake, self.settings.drain.linger).await?;
        self.place.could_be_established().map_err(|full| NotEstablished::no_place(full, self.shared))?;
        let certificate = shown.as_ref().map(|shown| shown.name().into_boxed_str());
        let face = self.face(shown, &first).await?;
        let mut node = Side::new(Box::pin(self.dial(face)).await?);
        node.write(&first)
            .await
            .map_err(|error| NotEstablished::reset(Refused::DialFailed, Closed::node(ending(&error))))?;
        let settled = self.negotiate(&mut node, &mut handshake).await?;
        Ok(Ready { node, settled, family, certificate })
    }

    pub(super) fn move_to(&mut self, stage: Stage) -> Result<(), NotEstablished> {
        self.place.move_to(stage).map_err(|full| NotEstablished::no_place(full, self.shared))
    }

    /// The client's stream, and what its certificate says.
    pub(super) async fn accept(
        &mut self,
        client: TcpStream,
        came: Came,
    ) -> Result<(Stream, Option<Shown>), NotEstablished> {
        let shared = self.shared;
        let settings = self.settings;
        let Some(acceptor) = &settings.client_tls else { return Ok((Stream::Plain(client), None)) };
        if settings.allows_plain && came != Came::Tls {
            return Ok((Stream::Plain(client), None));
        }
        self.move_to(Stage::Tls)?;
        // What a handshake takes, whoever speaks no TLS, or has spoken it, does not keep.
        match Box::pin(acceptor.accept(client, &shared.handshakes)).await {
            Ok(tls) => {
                let shown = client_of(&tls);
                Ok((Stream::Tls(Box::new(tls.into())), shown))
            }
            // What is no TLS, or none that suits, the gateway ends; else the client left.
            Err(Failed { error, tcp }) => Err(match ending(&error) {
                why @ Why::Tls => {
                    let reason = shared.cannot_speak_tls(self.node.port, self.peer, &error);
                    if let Some(tcp) = tcp {
                        last_words(&mut Stream::Plain(tcp), settings.drain.linger).await;
                    }
                    NotEstablished::new(reason, Closed::gateway(why))
                }
                why => NotEstablished::new(Refused::Tls, Closed::client(why)),
            }),
        }
    }

    /// As whom the client's node is dialled. Who is nobody there is told so.
    async fn face(&mut self, shown: Option<Shown>, first: &[u8]) -> Result<Option<Face>, NotEstablished> {
        let Some(tls) = &self.settings.dialer.tls else { return Ok(None) };
        if let Some(face) = tls.of_client(shown.as_ref()) {
            return Ok(Some(face));
        }
        self.shared.has_no_identity(self.node.port, self.peer, shown.as_ref().map(Shown::name).as_deref());
        if let Some(client) = &mut self.client {
            let reply = bad_credentials(first, "cqlgate: no identity at the nodes for this client's certificate");
            say_last(client, &reply, self.settings.drain.linger).await;
        }
        Err(NotEstablished::new(Refused::NoIdentity, Closed::gateway(Refused::NoIdentity)))
    }

    /// Connects to the node where it lives now. A failure resets the client at once, so that its driver tries the next node.
    pub(super) async fn dial(&self, face: Option<Face>) -> Result<Stream, NotEstablished> {
        let (node, shared) = (self.node, self.shared);
        let began = Instant::now();
        let target = Target { address: node.address, host: node.host_name() };
        let failure = match self.settings.dialer.dial_as(&target, face).await {
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
            Err(error) => error.failure(),
        };
        self.metrics.dial_failed(failure);
        Err(NotEstablished::reset(Refused::DialFailed, Closed::gateway(failure)))
    }
}

/// The client's first frame, whole.
pub(super) async fn first_frame(
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
pub(super) fn end_of(read: &io::Result<bool>) -> Why {
    read.as_ref().map_or_else(ending, |_| Why::Eof)
}

impl Setup<'_> {
    /// Passes whole frames both ways until the node establishes the connection.
    pub(super) async fn negotiate(
        &mut self,
        node: &mut Side,
        handshake: &mut Handshake,
    ) -> Result<Settled, NotEstablished> {
        loop {
            let Some(client) = &mut self.client else { return Err(NotEstablished::client_ended(Why::Gone)) };
            if handshake.reads_client() && !client.read.is_empty() {
                match handshake.client(&client.read) {
                    Next::Forward(len) => {
                        let sent = node.write(client.read.get(..len).unwrap_or_default()).await;
                        client.read.drain(..len);
                        if sent.is_ok() {
                            continue;
                        }
                    }
                    Next::Refuse { why, reply } => {
                        return Err(refuse(client, why, &reply, self.settings.drain.linger).await);
                    }
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
                    Next::Refuse { why, reply } => {
                        return Err(refuse(client, why, &reply, self.settings.drain.linger).await);
                    }
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
                        last_words(&mut client.stream, self.settings.drain.linger).await;
                        return Err(NotEstablished::new(Refused::DialFailed, Closed::node(end_of(&ended))));
                    }
                },
            }
        }
    }
}

pub(super) async fn forward(
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

pub(super) async fn refuse(client: &mut Side, why: Refusal, reply: &[u8], linger: Duration) -> NotEstablished {
    if !reply.is_empty() {
        say_last(client, reply, linger).await;
    }
    NotEstablished::new(why.into(), Closed::gateway(why))
}

/// Says why the client has to go, and has it read that.
async fn say_last(client: &mut Side, reply: &[u8], linger: Duration) {
    if client.write(reply).await.is_ok() {
        last_words(&mut client.stream, linger).await;
    }
}
