//! The simulated node: small, and honest. It answers what real nodes were seen to answer, and refuses the rest.
//!
//! A [`Cluster`] is a few [`Node`]s on loopback addresses that tell of each other in `system.local`, `system.peers` and
//! `system.peers_v2`, have the schema tables of a real node (`captured/`), share the rows of one table `demo.kv (k text
//! PRIMARY KEY, v text)`, and speak v3, v4 and v5 with LZ4 and Snappy, over TLS where they have a certificate. `cqlgate demo`
//! shows it; tests drive it by verbs that make it stop, fall silent, move, or answer wrongly. It must never be taken for a database: rows are in memory only.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{broadcast, watch};
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::connection;
use super::fault::Faults;
use super::shared::{Pushed, Shared};
use crate::config::ClientTls;
use crate::cql::compression::Compression;
use crate::cql::frame::{Opcode, Version};
use crate::cql::message::event::{Event, NodeChange};
use crate::proxy::tls::ClientAcceptor;

pub(crate) use super::cluster::Facts;
pub use super::cluster::Member;
pub use super::fault::Fault;

/// Arrivals that a slow listener may be behind; older ones are dropped.
const ARRIVALS: usize = 1024;

/// Pushed events that a slow connection may be behind.
const EVENTS: usize = 256;

/// What to start.
#[derive(Clone, Debug)]
pub struct Options {
    /// One for each node. Distinct IPs: `system.peers` has no port. Port 0 is chosen by the system.
    pub addresses: Vec<SocketAddr>,
    /// Name and password, when clients must log in.
    pub credentials: Option<(String, String)>,
    /// The certificate of every node, when clients must come over TLS.
    pub tls: Option<ClientTls>,
}

impl Options {
    /// `count` nodes on 127.0.0.11, .12 …, all at `port`.
    pub fn loopback(count: u8, port: u16) -> Self {
        let address = |n| SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 11 + n)), port);
        Self { addresses: (0..count).map(address).collect(), credentials: None, tls: None }
    }
}

/// Something that a node saw.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// The node's place in [`Cluster::nodes`].
    pub node: usize,
    /// Unique in the process.
    pub connection: u64,
    pub seen: Seen,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    Connected {
        driver: Option<String>,
        driver_version: Option<String>,
        protocol: Version,
        compression: Option<Compression>,
    },
    Registered(Vec<String>),
    /// QUERY, PREPARE or EXECUTE.
    Statement {
        text: String,
        opcode: Opcode,
    },
    Closed,
}

/// Some nodes that know each other. Dropping it ends them all.
#[derive(Debug)]
pub struct Cluster {
    nodes: Vec<Node>,
    arrivals: broadcast::Sender<Arrival>,
}

impl Cluster {
    /// Starts every node; all are up when it returns.
    ///
    /// # Errors
    /// When an address cannot be bound, or the certificate cannot be used.
    pub async fn start(options: Options) -> io::Result<Self> {
        let tls = options.tls.as_ref().map(ClientAcceptor::from_config).transpose().map_err(io::Error::other)?;
        let arrivals = broadcast::Sender::new(ARRIVALS);
        let mut listeners = Vec::new();
        for address in options.addresses {
            listeners.push(TcpListener::bind(address).await?);
        }
        // Even parts of the ring: each node owns a token, the first the least.
        let part = (1_i128 << 64) / i128::try_from(listeners.len().max(1)).unwrap_or(1);
        let mut members = Vec::new();
        for (index, listener) in listeners.iter().enumerate() {
            let token = i128::from(i64::MIN) + part * i128::try_from(index).unwrap_or_default();
            members.push(Member {
                host_id: Uuid::from_u128(0xcafe_0000_0000_4000_8000_0000_0000_0001 + index as u128),
                address: listener.local_addr()?,
                data_center: "dc1".to_owned(),
                rack: format!("r{}", index + 1),
                token: i64::try_from(token).unwrap_or(i64::MAX),
                member: true,
                cluster_name: None,
                blind_to: Vec::new(),
            });
        }
        let facts = Facts::new(members);
        let nodes: Vec<Node> = (0..listeners.len())
            .map(|index| Node::new(index, facts.clone(), options.credentials.clone(), tls.clone(), arrivals.clone()))
            .collect();
        for (node, listener) in nodes.iter().zip(listeners) {
            node.accept(listener);
        }
        Ok(Self { nodes, arrivals })
    }

    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// # Panics
    /// When there are fewer nodes: a test's mistake.
    #[allow(clippy::indexing_slicing)]
    pub fn node(&self, index: usize) -> &Node {
        &self.nodes[index]
    }

    /// What arrives at any node from now on.
    pub fn arrivals(&self) -> broadcast::Receiver<Arrival> {
        self.arrivals.subscribe()
    }

    /// Pushes an event about a node to the clients of all others, as gossip would.
    fn announce(&self, index: usize, change: NodeChange, address: SocketAddr) {
        for node in self.nodes.iter().filter(|node| node.shared.index != index) {
            node.push(&Event::Node { change, address });
        }
    }

    /// As SIGTERM does: its own clients and all others' hear DOWN, then it resets its connections and refuses new ones.
    pub async fn stop(&self, index: usize) {
        let node = self.node(index);
        node.push(&Event::Node { change: NodeChange::Down, address: node.address() });
        self.announce(index, NodeChange::Down, node.address());
        node.kill().await;
    }

    /// The node again, at the same address: all others' clients hear UP.
    ///
    /// # Errors
    /// When the address is taken.
    pub async fn start_again(&self, index: usize) -> io::Result<()> {
        self.node(index).listen(self.node(index).address()).await?;
        self.announce(index, NodeChange::Up, self.node(index).address());
        Ok(())
    }

    /// The stopped node again with the same host_id and another address: NEW_NODE and UP, and no word of the former one.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub async fn start_at(&self, index: usize, address: SocketAddr) -> io::Result<()> {
        let node = self.node(index);
        node.listen(address).await?;
        self.announce(index, NodeChange::NewNode, node.address());
        self.announce(index, NodeChange::Up, node.address());
        Ok(())
    }

    /// As `nodetool decommission` does: its row goes, all others' clients hear REMOVED_NODE.
    pub async fn decommission(&self, index: usize) {
        let node = self.node(index);
        node.change(|member| member.member = false);
        node.push(&Event::Node { change: NodeChange::RemovedNode, address: node.address() });
        self.announce(index, NodeChange::RemovedNode, node.address());
        node.kill().await;
    }
}

/// One node and the verbs of its life.
#[derive(Debug)]
pub struct Node {
    shared: Arc<Shared>,
    running: Mutex<Option<Running>>,
}

#[derive(Debug)]
struct Running {
    connections: TaskTracker,
    accepting: JoinHandle<()>,
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(running) = self.take_running() {
            running.accepting.abort();
            // For those too that are accepted just now.
            self.shared.stop().cancel();
        }
    }
}

impl Node {
    /// Member `index` of the cluster, which does not listen yet.
    pub(crate) fn new(
        index: usize,
        facts: Facts,
        credentials: Option<(String, String)>,
        tls: Option<ClientAcceptor>,
        arrivals: broadcast::Sender<Arrival>,
    ) -> Self {
        let shared = Shared {
            index,
            facts,
            faults: Faults::default(),
            credentials,
            tls,
            arrivals,
            pushed: broadcast::Sender::new(EVENTS),
            silent: watch::Sender::new(false),
            disabled: watch::Sender::new(false),
            stop: Mutex::default(),
            prepared: Mutex::default(),
        };
        Self { shared: Arc::new(shared), running: Mutex::new(None) }
    }

    fn take_running(&self) -> Option<Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    pub(crate) fn accept(&self, listener: TcpListener) {
        let connections = TaskTracker::new();
        let accepting = tokio::spawn({
            let (shared, connections) = (self.shared.clone(), connections.clone());
            async move {
                // A failed accept is that one connection's.
                loop {
                    if let Ok((stream, _)) = listener.accept().await {
                        connections.spawn(connection::serve(shared.clone(), stream, shared.stop()));
                    }
                }
            }
        });
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) = Some(Running { connections, accepting });
    }

    async fn listen(&self, address: SocketAddr) -> io::Result<()> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        self.change(|member| member.address = address);
        self.shared.silent.send_replace(false);
        self.shared.disabled.send_replace(false);
        self.shared.prepared_set().clear();
        self.accept(listener);
        Ok(())
    }

    fn change(&self, change: impl FnOnce(&mut Member)) {
        if let Some(member) = self.shared.facts.lock().members.get_mut(self.shared.index) {
            change(member);
        }
    }

    /// Its identity as rows show it.
    ///
    /// # Panics
    /// Never: a node is a member of its cluster.
    #[allow(clippy::indexing_slicing)]
    pub fn member(&self) -> Member {
        self.shared.facts.lock().members[self.shared.index].clone()
    }

    /// Where it listens, or listened last.
    pub fn address(&self) -> SocketAddr {
        self.member().address
    }

    /// As SIGKILL does: connections are reset, new ones refused, and nobody says a word. All is done when it returns.
    pub async fn kill(&self) {
        if let Some(running) = self.take_running() {
            running.accepting.abort();
            let _ = running.accepting.await;
            self.shared.reset_connections();
            running.connections.close();
            running.connections.wait().await;
        }
    }

    /// Resets every connection and goes on listening.
    pub fn drop_connections(&self) {
        self.shared.reset_connections();
    }

    /// As `nodetool disablebinary` does: stops listening and closes the connections that have sent STARTUP, and no others.
    pub fn disable_binary(&self) {
        if let Some(running) = &*self.running.lock().unwrap_or_else(PoisonError::into_inner) {
            running.accepting.abort();
        }
        self.shared.disabled.send_replace(true);
    }

    /// As SIGSTOP does: connections stay and new ones are accepted, but nothing is read or answered. False: it goes on.
    pub fn silence(&self, silent: bool) {
        self.shared.silent.send_replace(silent);
    }

    /// Waits so long before each answer; `None`: not at all.
    pub fn delay(&self, delay: Option<Duration>) {
        self.shared.faults.set_delay(delay);
    }

    /// Does `fault` at the next statement on `demo.kv`; several are done one after the other.
    pub fn plan(&self, fault: Fault) {
        self.shared.faults.add(fault);
    }

    /// Writes an EVENT to its clients that registered for the type.
    pub fn push(&self, event: &Event<'_>) {
        let pushed = Pushed { event_type: event.event_type().to_owned(), body: event.encode().into() };
        // No client may be there.
        let _ = self.shared.pushed.send(pushed);
    }

    /// Another node's data at this address: as after a replacement.
    pub fn set_host_id(&self, host_id: Uuid) {
        self.change(|member| member.host_id = host_id);
    }

    /// Does not apply the changes of the schema that other nodes make. False: it does, those too that it has missed.
    pub fn lag_behind(&self, lags: bool) {
        self.shared.facts.lock().schema.set_lags(self.shared.index, lags);
    }

    /// Forgets all prepared statements: the next EXECUTE is answered UNPREPARED.
    pub fn forget_prepared(&self) {
        self.shared.prepared_set().clear();
    }
}
