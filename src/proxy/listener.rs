//! One listening socket for each port of the range, all bound before anything is announced, for the life of the process.
//!
//! A port with no live node behind it accepts and resets at once: a driver's back-off works only if a dead node refuses.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::connection;
use super::descriptors;
use super::gate::Arrival;
use super::shared::Shared;
use super::stages::{Source, Stage};
use super::stream::reset_on_close;
use super::{Closed, Refused};
use crate::config::Listen;
use crate::topology::NodeState;

/// A burst of reconnecting drivers waits here rather than being refused by the kernel.
const BACKLOG: i32 = 4096;
/// When accepting fails otherwise, it pauses instead of spinning.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

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

    /// Accepts until `stop`; then what the kernel has queued by then, which it would reset when the socket closes.
    pub async fn run(self, shared: Arc<Shared>, stop: CancellationToken) {
        loop {
            let accepted = tokio::select! {
                accepted = self.socket.accept() => accepted,
                () = stop.cancelled() => return self.empty_queue(&shared),
            };
            match accepted {
                Ok((client, peer)) => self.accepted(client, peer, &shared),
                Err(error) if is_transient(&error) => {}
                Err(error) if descriptors::is_exhausted(&error) => {
                    shared.metrics.descriptors_exhausted.inc();
                    if let Some(times) = shared.reserve.exhausted(Instant::now()) {
                        tracing::warn!(port = self.port, %error, times, "no file descriptors are left: connections are reset");
                    }
                    if !shared.reserve.reset_next(&self.socket) {
                        shared.connections.make_room(Stage::Accepted);
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                }
                Err(error) => {
                    tracing::warn!(port = self.port, %error, "cannot accept; pausing");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Takes whom the kernel has accepted already. No more than the queue can hold: who goes on dialling keeps no drain from its end.
    fn empty_queue(&self, shared: &Arc<Shared>) {
        let socket = SockRef::from(&self.socket);
        for _ in 0..=BACKLOG {
            // The runtime may not have heard of them yet; the kernel knows.
            let (client, peer) = match socket.accept() {
                Ok((client, peer)) => (client, peer),
                Err(error) if is_transient(&error) => continue,
                Err(_) => return,
            };
            let client = client.set_nonblocking(true).and_then(|()| TcpStream::from_std(client.into()));
            if let (Ok(client), Some(peer)) = (client, peer.as_socket()) {
                self.accepted(client, peer, shared);
            }
        }
    }

    fn accepted(&self, client: TcpStream, peer: SocketAddr, shared: &Arc<Shared>) {
        if !shared.memory.takes_connections() {
            reset_on_close(&client);
            shared.refused(self.port, peer, Refused::Memory, Closed::gateway(Refused::Memory));
            return;
        }
        let settings = shared.settings.get();
        let arrival = match settings.gate.receive(self.port, peer.ip()) {
            Ok(arrival) => arrival,
            Err(refused) => {
                reset_on_close(&client);
                shared.refused(self.port, peer, refused, Closed::gateway(refused));
                return;
            }
        };
        let topology = Arc::clone(&shared.topology.borrow());
        let node = topology.node_at_port(self.port).filter(|node| node.state == NodeState::Up);
        let Some(node) = node.cloned() else {
            reset_on_close(&client);
            shared.refused(self.port, peer, Refused::NoLiveNode, Closed::gateway(Refused::NoLiveNode));
            return;
        };
        if shared.cordons.has(&node.id) {
            reset_on_close(&client);
            shared.refused(self.port, peer, Refused::Cordoned, Closed::gateway(Refused::Cordoned));
            return;
        }
        let source = Source::of(peer.ip());
        if arrival == Arrival::Direct && shared.logins.keeps_out(&settings.logins, source, Instant::now()) {
            reset_on_close(&client);
            shared.refused(self.port, peer, Refused::KeptOut, Closed::gateway(Refused::KeptOut));
            return;
        }
        match shared.connections.enter(self.port, node.incarnation, source) {
            Ok(place) => {
                let connection = connection::run(client, peer, arrival, node, place, Arc::clone(shared), settings);
                shared.tasks.spawn(connection);
            }
            Err(full) => {
                reset_on_close(&client);
                shared.found_no_place(self.port, peer, full);
            }
        }
    }
}

/// The peer gave up before it was accepted: nothing is wrong here.
fn is_transient(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    ) || error.raw_os_error() == Some(rustix::io::Errno::PROTO.raw_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::Errno;

    #[test]
    fn a_client_that_went_while_it_waited_is_no_reason_to_pause() {
        let says = |errno: Errno| is_transient(&io::Error::from_raw_os_error(errno.raw_os_error()));
        for errno in [Errno::CONNABORTED, Errno::PROTO, Errno::CONNRESET, Errno::INTR] {
            assert!(says(errno), "{errno}");
        }
        for errno in [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM, Errno::INVAL] {
            assert!(!says(errno), "{errno}");
        }
    }
}
