//! One connection until it is established: whom a load balancer brings, the first byte, TLS, the first frame, the dial, the handshake, each in a room of its
//! own ([`super::stages`]) and all under one deadline. Then a relay takes over, in a task of its own, so that what the setup
//! needed is freed.
//!
//! Whoever says nothing costs a socket and a task of some hundred bytes. CQL is client-first: a node is dialled only after the
//! client has said something that looks like CQL, so that probes and scanners never reach a node. An order to close is heard
//! at once, whatever is waited for.

mod brought;
mod setup;

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};

use super::came::{self, Came};
use super::connections::{Order, Place};
use super::gate::Arrival;
use super::header::Via;
use super::relay::{Relay, ending};
use super::settings::Settings;
use super::shared::Shared;
use super::stream::{reset_on_close, set_client_options};
use super::{Closed, ClosedBy, Refused, Why};
use crate::label::Label;
use crate::metrics::{NodeMetrics, OpenMetrics};
use crate::rewrite::handshake::Settled;
use crate::rewrite::view::{self, DriverFamily, Newcomer};
use crate::rewrite::{Client, Conversation};
use crate::topology::{Family, Node};
use setup::{NotEstablished, Ready, Setup, Side};

/// Who a client is.
#[derive(Debug)]
pub(super) struct Who {
    /// Where it has come from: what the load balancer in front says, or the socket.
    pub peer: SocketAddr,
    /// What else was said of it.
    pub via: Option<Box<Via>>,
    /// Whom its certificate names.
    pub certificate: Option<Box<str>>,
}

/// A connection from accept to close.
pub async fn run(
    mut client: TcpStream,
    peer: SocketAddr,
    arrival: Arrival,
    node: Arc<Node>,
    mut place: Place,
    shared: Arc<Shared>,
    settings: Arc<Settings>,
) {
    let began = Instant::now();
    let deadline = began + settings.timeouts.setup;
    let mut who = Who { peer, via: None, certificate: None };
    let came = match arrival {
        Arrival::Direct => first_bytes(&client, &place, deadline).await,
        Arrival::Brought => {
            match Box::pin(brought::receive(&mut client, &mut who, &mut place, &shared, &settings, deadline)).await {
                Ok(()) => first_bytes(&client, &place, deadline).await,
                Err(refused) => Err(refused),
            }
        }
    };
    let refused = match came {
        Ok(came) => {
            shared.came(&settings, node.port, who.peer, came);
            if came != Came::ProxyHeader {
                // Only now is there anything on the heap.
                return Box::pin(spoken(client, came, who, node, place, (shared, settings), began)).await;
            }
            NotEstablished::new(Refused::ProxyHeader, Closed::gateway(Refused::ProxyHeader))
        }
        Err(refused) => refused,
    };
    reset_on_close(&client);
    shared.refused(node.port, who.peer, refused.reason, refused.closed);
}

/// Waits until the client says something: what it begins with.
async fn first_bytes(client: &TcpStream, place: &Place, deadline: Instant) -> Result<Came, NotEstablished> {
    let mut bytes = [0; came::ENOUGH];
    tokio::select! {
        // Whoever has spoken is heard, be it that a drain has begun.
        biased;
        // Being told that a socket is readable does not make it so.
        peeked = client.peek(&mut bytes) => match peeked {
            Ok(0) => Err(NotEstablished::client_ended(Why::Eof)),
            Ok(len) => Ok(Came::of(bytes.get(..len).unwrap_or_default())),
            Err(error) => Err(NotEstablished::client_ended(ending(&error))),
        },
        // A drain too: nothing is lost.
        order = place.handle().ordered(|order| matches!(order, Order::Farewell | Order::Drain) || order.is_now()) => {
            Err(NotEstablished::ordered(order))
        }
        () = sleep_until(deadline) => Err(NotEstablished::setup_deadline()),
    }
}

async fn spoken(
    client: TcpStream,
    came: Came,
    mut who: Who,
    node: Arc<Node>,
    place: Place,
    (shared, settings): (Arc<Shared>, Arc<Settings>),
    began: Instant,
) {
    let metrics = shared.metrics.node(&node.id.0);
    set_client_options(&client, settings.timeouts.dead_peer);
    let handle = Arc::clone(place.handle());
    let mut setup = Setup {
        client: None,
        node: &node,
        peer: who.peer,
        place,
        metrics: &metrics,
        shared: &shared,
        settings: &settings,
    };
    let established = tokio::select! {
        established = setup.run(client, came) => established,
        order = handle.ordered(Order::is_now) => Err(NotEstablished::ordered(order)),
        () = sleep_until(began + settings.timeouts.setup) => Err(NotEstablished::setup_deadline()),
    };
    let Setup { client, place, .. } = setup;
    let established = match (established, client) {
        (Ok(mut ready), Some(client)) => {
            who.certificate = ready.certificate.take();
            let path = Arc::clone(settings.paths.of(who.peer.ip(), who.via.as_deref()));
            ready.relay(client, place, &node, &metrics, path, (&shared, settings))
        }
        (Ok(_), None) => return,
        (Err(refused), client) => {
            if let Some(client) = client.filter(|_| refused.resets) {
                client.stream.reset_on_close();
            }
            shared.refused(node.port, who.peer, refused.reason, refused.closed);
            return;
        }
    };
    metrics.handshake_seconds.observe(began.elapsed().as_secs_f64());
    let tasks = shared.tasks.clone();
    tasks.spawn(relayed(established, who, node.port, metrics, began));
}

/// The relay's whole life: counted when it begins and when it ends, also by a panic.
pub(super) async fn relayed(established: Established, who: Who, port: u16, metrics: Arc<NodeMetrics>, began: Instant) {
    let Established { relay, driver, path } = established;
    metrics.opened.inc();
    let open = Open { metrics, driver, path };
    let closed = relay.await;
    open.metrics.closed(closed.by, closed.why);
    let Who { peer, via, certificate } = who;
    let (by, why, via) = (closed.by.label(), closed.why.label(), via.map(tracing::field::display));
    tracing::info!(port, %peer, via, certificate, by, why, seconds = began.elapsed().as_secs(), "connection closed");
}

/// The gauges of one open connection.
struct Open {
    metrics: Arc<NodeMetrics>,
    driver: OpenMetrics,
    path: OpenMetrics,
}

impl Drop for Open {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.metrics.closed(ClosedBy::Gateway, Why::Panic);
        }
        self.metrics.open.dec();
        self.driver.open.dec();
        self.path.open.dec();
    }
}

pub(super) struct Established {
    /// On the heap: a task's future would hold it twice, once as an argument and once while it is awaited.
    pub relay: Box<Relay>,
    pub driver: OpenMetrics,
    pub path: OpenMetrics,
}

impl Ready {
    /// The relay of the connection, counted from now on.
    fn relay(
        self,
        client: Side,
        place: Place,
        node: &Node,
        metrics: &Arc<NodeMetrics>,
        path: Arc<str>,
        (shared, settings): (&Arc<Shared>, Arc<Settings>),
    ) -> Established {
        let Self { node: dialled, settled, family, certificate: _ } = self;
        let of_path = shared.metrics.path(&path);
        let described = describe(&settled, node, (path, family), shared, &settings);
        let tells_late = described.view.hides_nodes() && !settings.views.schema_agreement.is_zero();
        let conversation = Conversation::new(described, Arc::clone(&settings.surroundings)).offering(settled.offer);
        let conversation = if tells_late { conversation.telling_schema_changes_late() } else { conversation };
        let driver =
            shared.metrics.driver(DriverFamily::of(settled.driver_name.as_deref()), settled.driver_version.as_deref());
        for of in [&driver, &of_path] {
            of.opened.inc();
            of.open.inc();
        }
        metrics.open.inc();
        let relay = Relay::new(
            (client.stream, client.read),
            (dialled.stream, dialled.read),
            conversation,
            place,
            node.port,
            Arc::clone(metrics),
            (Arc::clone(shared), settings),
        );
        Established { relay: Box::new(relay), driver, path: of_path }
    }
}

/// Who is talking, from what the handshake settled.
fn describe(
    settled: &Settled,
    node: &Node,
    (path, family): (Arc<str>, Family),
    shared: &Shared,
    settings: &Settings,
) -> Client {
    let newcomer = Newcomer {
        driver_name: settled.driver_name.as_deref(),
        driver_version: settled.driver_version.as_deref(),
        application_name: settled.application_name.as_deref(),
        port: node.port,
    };
    let topology = shared.topology.borrow().clone();
    let shape = topology.paths.named(&path).map(|path| path.shape(family, node.port, &topology)).unwrap_or_default();
    Client {
        session: settled.session,
        view: view::select(newcomer, &settings.views, shape),
        attached: node.port,
        path,
        family,
        injection: DriverFamily::of(newcomer.driver_name).injection(),
        logged_in: !settled.authenticates,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes of the future that a function of seven arguments returns.
    fn size_of_future<A, B, C, D, E, F, G, Returned>(_: impl FnOnce(A, B, C, D, E, F, G) -> Returned) -> usize {
        size_of::<Returned>()
    }

    #[test]
    fn whoever_has_said_little_costs_little() {
        let size = size_of_future(spoken);
        // Not the handshake of TLS, nor the dial: with either in it, it is twice that.
        assert!(size <= 3072, "{size} bytes");
    }
}
