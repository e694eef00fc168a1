//! One listening socket for each port of the range, all bound before anything is announced, for the life of the process.
//!
//! A port with no live node behind it accepts and resets at once: a driver's back-off works only if a dead node refuses.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Closed;
use super::connection;
use super::connections::{Connections, Full};
use super::hold::HoldBudget;
use super::stream::reset_on_close;
use super::tls::{ClientAcceptor, NodeConnector};
use crate::config::{Listen, Timeouts, Views};
use crate::metrics::{Metrics, Refused};
use crate::rewrite::Surroundings;
use crate::topology::input::Input;
use crate::topology::{NodeState, Topology};

/// A burst of reconnecting drivers waits here rather than being refused by the kernel.
const BACKLOG: i32 = 4096;
/// When file descriptors run out, accepting pauses instead of spinning.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What all connections of the gateway share.
pub struct Shared {
    pub topology: watch::Receiver<Arc<Topology>>,
    pub surroundings: Arc<Surroundings>,
    pub connections: Arc<Connections>,
    pub budget: Arc<HoldBudget>,
    pub timeouts: Timeouts,
    pub views: Views,
    pub metrics: Arc<Metrics>,
    /// Facts about nodes that passing rows tell.
    pub observations: mpsc::Sender<Input>,
    pub client_tls: Option<ClientAcceptor>,
    pub node_tls: Option<NodeConnector>,
    /// TLS handshakes at the same time: each costs a core about a millisecond, and relays must not starve.
    pub handshakes: Semaphore,
    /// The tasks of all connections.
    pub tasks: TaskTracker,
}

/// A bound socket of the range.
pub struct Listener {
    pub port: u16,
    socket: TcpListener,
}

/// Binds every port of the range, or none. An error names the address.
pub fn bind_all(listen: Listen) -> io::Result<Vec<Listener>> {
    let chosen = listen.first == 0;
    (listen.first..=listen.last)
        .map(|port| if chosen { 0 } else { port })
        .map(|port| bind(SocketAddr::new(listen.address, port)))
        .collect()
}

fn bind(address: SocketAddr) -> io::Result<Listener> {
    let bound = || -> io::Result<Listener> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        if address.is_ipv6() {
            socket.set_only_v6(false)?;
        }
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        let socket = TcpListener::from_std(socket.into())?;
        Ok(Listener { port: socket.local_addr()?.port(), socket })
    };
    bound().map_err(|error| io::Error::new(error.kind(), format!("listen: cannot bind {address}: {error}")))
}

impl Listener {
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Accepts until `stop`; then what the kernel has queued is reset by the close of the socket.
    pub async fn run(self, shared: Arc<Shared>, stop: CancellationToken) {
        loop {
            let accepted = tokio::select! {
                accepted = self.socket.accept() => accepted,
                () = stop.cancelled() => return,
            };
            match accepted {
                Ok((client, peer)) => self.accepted(client, peer, &shared),
                Err(error) if is_transient(&error) => {}
                Err(error) => {
                    tracing::warn!(port = self.port, %error, "cannot accept; pausing");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn accepted(&self, client: TcpStream, peer: SocketAddr, shared: &Arc<Shared>) {
        let topology = Arc::clone(&shared.topology.borrow());
        let node = topology.node_at_port(self.port).filter(|node| node.state == NodeState::Up);
        let Some(node) = node.cloned() else {
            reset_on_close(&client);
            shared.refused(self.port, peer, Refused::NoLiveNode, Closed::gateway(Refused::NoLiveNode.as_str()));
            return;
        };
        match shared.connections.enter(self.port, node.incarnation) {
            Ok(place) => {
                let setup = connection::run(client, peer, node, place, Arc::clone(shared));
                shared.tasks.spawn(setup);
            }
            Err(full) => {
                let reason = match full {
                    Full::InAll => Refused::ConnectionLimit,
                    Full::ForNode => Refused::NodeConnectionLimit,
                };
                reset_on_close(&client);
                shared.refused(self.port, peer, reason, Closed::gateway(full.as_str()));
            }
        }
    }
}

impl Shared {
    /// The line and the count of a connection that was never relayed.
    pub fn refused(&self, port: u16, peer: SocketAddr, reason: Refused, closed: Closed) {
        let (by, why) = (closed.by.as_str(), closed.why);
        tracing::debug!(port, %peer, by, why, reason = reason.as_str(), "connection ended before it was established");
        self.metrics.connection_refused(reason);
    }
}

/// The peer gave up before it was accepted: nothing is wrong here.
fn is_transient(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    )
}
