//! The demo's node as discovery meets it: a ring whose members listen, or do not, at addresses of a test's choice.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::broadcast;
use uuid::Uuid;

use crate::cql::frame::Version;
use crate::cql::message::{Event, NodeChange};
use crate::demo::node::{Arrival, Facts, Member, Node, Seen};
use crate::proxy::tls::ClientAcceptor;

/// What all nodes of a test share. A node answers by what is here at that moment.
pub struct Ring {
    pub facts: Facts,
    /// `Some`: nodes that start from now on need a login, with this user and password.
    pub login: Option<(String, String)>,
}

pub fn ring(addresses: &[SocketAddr]) -> Ring {
    let members = addresses.iter().zip(1u128..).map(|(&address, n)| member(n, address));
    Ring { facts: Facts::new(members.collect()), login: None }
}

pub fn member(n: u128, address: SocketAddr) -> Member {
    Member {
        host_id: Uuid::from_u128(n),
        address,
        data_center: "dc1".to_owned(),
        rack: "rack1".to_owned(),
        token: n as i64,
        member: true,
        cluster_name: None,
        blind_to: Vec::new(),
    }
}

/// A listening member of a ring; dropping it closes the port and every connection.
pub struct FakeNode {
    node: Node,
    arrivals: Mutex<(broadcast::Receiver<Arrival>, Vec<Version>)>,
}

impl FakeNode {
    pub async fn start(ring: &Ring, address: SocketAddr) -> Self {
        Self::listen(ring, address, None).await
    }

    pub async fn start_tls(ring: &Ring, address: SocketAddr, tls: ClientAcceptor) -> Self {
        Self::listen(ring, address, Some(tls)).await
    }

    async fn listen(ring: &Ring, address: SocketAddr, tls: Option<ClientAcceptor>) -> Self {
        let index = ring.facts.lock().members.iter().position(|member| member.address == address).unwrap();
        let (seen, arrivals) = broadcast::channel(1024);
        let node = Node::new(index, ring.facts.clone(), ring.login.clone(), tls, seen);
        node.accept(bind(address).await);
        Self { node, arrivals: Mutex::new((arrivals, Vec::new())) }
    }

    /// The versions of the STARTUPs since the start, one for each connection.
    pub fn connected(&self) -> Vec<Version> {
        let (arrivals, versions) = &mut *self.arrivals.lock().unwrap();
        while let Ok(arrival) = arrivals.try_recv() {
            versions.extend(match arrival.seen {
                Seen::Connected { protocol, .. } => Some(protocol),
                _ => None,
            });
        }
        versions.clone()
    }

    /// Sends an EVENT to whoever registered.
    pub fn send_event(&self, change: NodeChange, address: SocketAddr) {
        self.node.push(&Event::Node { change, address });
    }
}

/// And the verbs of its life.
impl std::ops::Deref for FakeNode {
    type Target = Node;

    fn deref(&self) -> &Node {
        &self.node
    }
}

/// The address may still be held by the node that was dropped a moment ago.
async fn bind(address: SocketAddr) -> TcpListener {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(5);
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => return listener,
            Err(error) => assert!(tokio::time::Instant::now() < deadline, "{address}: {error}"),
        }
        tokio::task::yield_now().await;
    }
}
