//! One node as clients may know it: its identity, its port, where it lives now.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use uuid::Uuid;

use crate::label::label_set;

/// By what a port is kept: the listed name, the pod's name, or (contact points) the host_id as text. Never an address.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub Arc<str>);

impl NodeId {
    pub fn new(name: &str) -> Self {
        Self(Arc::from(name))
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// `system.local.host_id`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostId(pub Uuid);

impl fmt::Display for HostId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.as_hyphenated())
    }
}

label_set! {
    /// What is known of a node's life.
    pub enum NodeState {
        /// Exists, has a port, was never reached (or not since its identity changed). Not told to clients.
        Pending = "pending",
        /// A dial through its port succeeds, as far as the last probe knows.
        Up = "up",
        /// Was up; now dead (refused, reset, silent too long, or its pod is gone for the moment). Its row stays.
        Down = "down",
        /// Has left the cluster. Its port is in quarantine, its last address a tombstone.
        Gone = "gone",
    }
}

/// One node with a port. A node never changes in place: the next snapshot holds a new value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    pub id: NodeId,
    /// The port of the external address that stands for this node, and for no other before a quarantine ends.
    pub port: u16,
    /// Why it is another one than the node's ordinal, or a pin, would give it; `None` where it is that one, or nothing gives one.
    pub port_why: Option<Arc<str>>,
    /// Where the gateway dials it.
    pub address: SocketAddr,
    /// The name that its certificate carries, where it is not the address (Kubernetes: the pod's DNS name).
    pub host: Option<Arc<str>>,
    /// False while nothing of the cluster lives at `address`: it is not to be dialled.
    pub present: bool,
    /// What the node's rows and events call it (`rpc_address`/`native_address` and port); unlike `address` where the node
    /// advertises another one. `None` until learned: then `address` stands for it.
    pub native: Option<SocketAddr>,
    pub host_id: Option<HostId>,
    pub data_center: Option<Arc<str>>,
    pub rack: Option<Arc<str>>,
    pub state: NodeState,
    /// When `state` was entered.
    pub since: SystemTime,
    /// Told of long enough (`Options::grace`) for every node of the cluster to show its row: a NEW_NODE that the gateway makes
    /// itself waits for this.
    pub settled: bool,
    /// It is being ended, and answers still.
    pub leaving: bool,
    /// Grows whenever connections to the former life must be closed: address or host_id changed, or it went down.
    pub incarnation: u64,
}

impl Node {
    /// The address:port by which the node's own rows and events name it.
    pub fn native_address(&self) -> SocketAddr {
        self.native.unwrap_or(self.address)
    }

    /// The name to verify when the node is dialled with TLS.
    pub fn host_name(&self) -> Arc<str> {
        self.host.clone().unwrap_or_else(|| self.address.ip().to_string().into())
    }

    /// True when clients have been, or may be, told that this node exists.
    pub fn is_announced(&self) -> bool {
        matches!(self.state, NodeState::Up | NodeState::Down)
    }

    /// A node that has answered at `address` for long enough to be settled, in its first life; nothing else is known of it.
    pub fn answering(id: &str, port: u16, address: SocketAddr) -> Self {
        Self {
            id: NodeId::new(id),
            port,
            port_why: None,
            address,
            host: None,
            present: true,
            native: None,
            host_id: None,
            data_center: None,
            rack: None,
            state: NodeState::Up,
            since: SystemTime::UNIX_EPOCH,
            settled: true,
            leaving: false,
            incarnation: 1,
        }
    }

    /// The same with a host_id made from the port.
    #[cfg(test)]
    pub fn example(id: &str, port: u16, address: &str) -> Self {
        let host_id = Some(HostId(Uuid::from_u128(u128::from(port))));
        Self { host_id, ..Self::answering(id, port, address.parse().unwrap()) }
    }
}
