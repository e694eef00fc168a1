//! Facts about the cluster, and what clients may be told of them. Pure: no async, no socket, no clock.
//!
//! One writer (`topology::state`) folds what discovery, probes and passing rows say into the next [`Topology`];
//! everyone else holds an immutable snapshot. A snapshot answers three questions: which node is behind a port, which node
//! does a row or an event speak of, and may a client be told that it is there.

pub mod cordons;
pub mod diff;
pub mod input;
pub mod node;
pub mod paths;
pub mod ports;
mod record;
pub mod sightings;
pub mod state;
mod unserved;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::label::label_set;
pub use node::{HostId, Node, NodeId, NodeState};
pub use paths::{Advertised, Family, Path, Paths};
use unserved::Membership;
pub use unserved::Unserved;

/// Which node a native address:port belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mapped<'a> {
    /// The node's present address.
    Current(&'a Node),
    /// An address that a known node has left; the node lives elsewhere. Nothing about this address may reach a client.
    Former(&'a Node),
    /// The last address of a node that is gone: its DOWN and REMOVED_NODE still carry what clients know.
    Gone(&'a Node),
    Unknown,
}

/// A node, or the row of one, that clients are not shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hidden {
    /// Where discovery knows it; of a row that passed, only the row is known.
    pub id: Option<NodeId>,
    pub host_id: Option<HostId>,
    pub address: Option<SocketAddr>,
    pub reason: HiddenReason,
}

label_set! {
    /// Why a node is not shown.
    #[derive(PartialOrd, Ord)]
    pub enum HiddenReason {
        /// The node has no port as the range is full, or nobody knows whose row it is.
        NoPort = "no_port",
        /// The node has a port but no dial through it has succeeded yet.
        NotAnnounced = "not_announced",
        /// It has an address that is not to be dialled (`discovery.allow`); where it had another one, it is down for that reason.
        NotAllowed = "not_allowed",
        /// One node alone tells of it, or of its address.
        NotConfirmed = "not_confirmed",
        /// Its pod is not of the StatefulSet that owns the others of that name, or is made by hand beside StatefulSets' pods.
        NotOwned = "not_owned",
        /// A name or a value of its row is longer than any that means something.
        TooLong = "too_long",
        /// The node is listed by a DNS name that never had an address.
        NotResolved = "not_resolved",
        /// The address that clients dial for its port is not known yet.
        NotAdvertised = "not_advertised",
        /// Clients would dial the same for its port as for an earlier one.
        SameEndpoint = "same_endpoint",
        /// The row of a node of a data center of which no node is served.
        Remote = "remote",
        /// A row of a data center that is served, of a node that discovery does not know: gone from the cluster, or not listed.
        Ghost = "ghost",
    }
}

/// One immutable picture of the cluster.
#[derive(Clone, Debug, Default)]
pub struct Topology {
    /// Grows by one with every published change.
    pub generation: u64,
    /// What clients dial.
    pub paths: Arc<Paths>,
    /// Every node that has a port, those in quarantine (`NodeState::Gone`) included; by port.
    pub nodes: Arc<[Arc<Node>]>,
    pub hidden: Vec<Hidden>,
    by_port: HashMap<u16, usize>,
    by_id: HashMap<NodeId, usize>,
    by_host_id: HashMap<HostId, usize>,
    by_native: HashMap<SocketAddr, usize>,
    /// The only native address of an IP; `None` where there are several.
    native_of_ip: HashMap<IpAddr, Option<SocketAddr>>,
    former: HashMap<SocketAddr, usize>,
    former_of_ip: HashMap<IpAddr, Option<SocketAddr>>,
    membership: Membership,
}

impl Topology {
    /// A picture of `nodes`, each with a port, an id and (where known) a host_id of its own; of two that share one, the later
    /// in the list is the one found. No former addresses, nothing hidden.
    pub fn new(generation: u64, paths: impl Into<Arc<Paths>>, nodes: impl IntoIterator<Item = Node>) -> Self {
        let mut nodes: Vec<Arc<Node>> = nodes.into_iter().map(Arc::new).collect();
        nodes.sort_by_key(|node| node.port);
        let mut topology = Self { generation, paths: paths.into(), ..Self::default() };
        for (index, node) in nodes.iter().enumerate() {
            topology.by_port.insert(node.port, index);
            topology.by_id.insert(node.id.clone(), index);
            if let Some(host_id) = node.host_id.filter(|_| node.state != NodeState::Gone) {
                topology.by_host_id.insert(host_id, index);
            }
        }
        for (index, node) in nodes.iter().enumerate() {
            if let (Some(host_id), NodeState::Gone) = (node.host_id, node.state) {
                topology.by_host_id.entry(host_id).or_insert(index);
            }
            let address = canonical(node.native_address());
            if node.state == NodeState::Gone {
                topology.former.insert(address, index);
                continue;
            }
            // Two nodes can be listed at one address while DNS catches up: the one that answers there is meant.
            let before = topology.by_native.get(&address).and_then(|&i| nodes.get(i));
            if before.is_none_or(|before| before.state != NodeState::Up) {
                topology.by_native.insert(address, index);
            }
        }
        topology.membership = Membership::of(nodes.iter().map(|node| &**node));
        topology.nodes = nodes.into();
        topology.native_of_ip = only_of_each_ip(&topology.by_native);
        topology.former_of_ip = only_of_each_ip(&topology.former);
        topology
    }

    /// The same picture; a node that is as it was `before` is the same value, so that whoever looks for changes finds what has
    /// not changed at a glance.
    pub fn sharing(mut self, before: &Self) -> Self {
        let share =
            |node: &Arc<Node>| before.node_at_port(node.port).filter(|&known| known == node).unwrap_or(node).clone();
        self.nodes = self.nodes.iter().map(share).collect();
        self
    }

    /// The same picture with addresses that nodes have left; one named twice belongs to the last that left it.
    pub fn with_former(mut self, former: impl IntoIterator<Item = (SocketAddr, NodeId)>) -> Self {
        for (address, id) in former {
            if let Some(&index) = self.by_id.get(&id) {
                self.former.insert(canonical(address), index);
            }
        }
        self.former_of_ip = only_of_each_ip(&self.former);
        self
    }

    /// The same nodes, told otherwise.
    #[cfg(test)]
    pub fn with_paths(self, paths: &Arc<Paths>) -> Self {
        Self { paths: Arc::clone(paths), ..self }
    }

    /// The same picture with the rows that clients are not shown.
    pub fn with_hidden(mut self, hidden: Vec<Hidden>) -> Self {
        self.membership = self.membership.with_hidden(&hidden);
        self.hidden = hidden;
        self
    }

    /// The node that a port of the external address stands for, in whatever state.
    pub fn node_at_port(&self, port: u16) -> Option<&Arc<Node>> {
        self.at(self.by_port.get(&port))
    }

    pub fn node_by_id(&self, id: &NodeId) -> Option<&Arc<Node>> {
        self.at(self.by_id.get(id))
    }

    /// Each port, and which life of its node it stands for: connections of an earlier one are to be closed.
    pub fn lives(&self) -> impl Iterator<Item = (u16, u64)> + '_ {
        self.nodes.iter().map(|node| (node.port, node.incarnation))
    }

    /// Of the nodes that are up and are being ended: their ports and lives.
    pub fn leaving(&self) -> impl Iterator<Item = (u16, u64)> + '_ {
        let leaving = self.nodes.iter().filter(|node| node.leaving && node.state == NodeState::Up);
        leaving.map(|node| (node.port, node.incarnation))
    }

    /// The node known by this `system.local.host_id`; a node that is gone only when no other has it now.
    pub fn node_by_host_id(&self, host_id: HostId) -> Option<&Arc<Node>> {
        self.at(self.by_host_id.get(&host_id))
    }

    /// Whose native address:port this is or was (rows of `peers_v2` and `local`, events). A node that lives there now is
    /// meant before any that has left. IPv4-mapped IPv6 counts as IPv4.
    pub fn map_native(&self, address: SocketAddr) -> Mapped<'_> {
        let address = canonical(address);
        if let Some(node) = self.at(self.by_native.get(&address)) {
            return Mapped::Current(node);
        }
        match self.at(self.former.get(&address)) {
            Some(node) if node.state == NodeState::Gone => Mapped::Gone(node),
            Some(node) => Mapped::Former(node),
            None => Mapped::Unknown,
        }
    }

    /// The same for an address without a port (rows of `system.peers`): `Unknown` too when two nodes share the address.
    pub fn map_native_ip(&self, address: IpAddr) -> Mapped<'_> {
        let address = address.to_canonical();
        let of_ip = self.native_of_ip.get(&address).or_else(|| self.former_of_ip.get(&address));
        of_ip.copied().flatten().map_or(Mapped::Unknown, |native| self.map_native(native))
    }

    /// True for the IP of a native address that must not reach a client: a present, a former or a gone one.
    pub fn is_internal(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.native_of_ip.contains_key(&address) || self.former_of_ip.contains_key(&address)
    }

    /// Whether a node is up, and lives there.
    pub fn is_up_at(&self, id: &NodeId, address: SocketAddr) -> bool {
        self.node_by_id(id).is_some_and(|node| node.state == NodeState::Up && node.address == address)
    }

    /// What a row's node is that is none of the served ones, by its host_id, its data center and its addresses. `None` where that
    /// cannot be told, and where the row may be that of a served node, in whatever state.
    pub fn unserved(&self, host_id: HostId, data_center: &str, addresses: &[IpAddr]) -> Option<Unserved> {
        if self.by_host_id.contains_key(&host_id) || addresses.iter().any(|&address| self.is_internal(address)) {
            return None;
        }
        self.membership.unserved(host_id, data_center, addresses)
    }

    fn at(&self, index: Option<&usize>) -> Option<&Arc<Node>> {
        index.and_then(|&index| self.nodes.get(index))
    }

    /// True when a reader could tell the two apart, the generation aside.
    pub fn differs_from(&self, other: &Self) -> bool {
        self.paths != other.paths
            || self.nodes != other.nodes
            || self.hidden != other.hidden
            || self.former != other.former
    }
}

/// Whether clients are shown the node whose row this is. One that lives where it is not to be dialled is down for that reason, which
/// stays until it is up, or lives elsewhere.
fn is_shown(topology: &Topology, hidden: &Hidden) -> bool {
    let refused = hidden.reason == HiddenReason::NotAllowed;
    if let Some(node) = hidden.id.as_ref().filter(|_| refused).and_then(|id| topology.node_by_id(id)) {
        return node.state == NodeState::Up || hidden.address != Some(node.address);
    }
    let by_host_id = hidden.host_id.and_then(|host_id| topology.node_by_host_id(host_id)).map(|node| &**node);
    let by_address = || match hidden.address.map(|address| topology.map_native(address)) {
        Some(Mapped::Current(node)) => Some(node),
        _ => None,
    };
    let is_shown = |node: &Node| if refused { node.state == NodeState::Up } else { node.is_announced() };
    by_host_id.or_else(by_address).is_some_and(is_shown)
}

/// IPv4-mapped IPv6 as IPv4, scope and flow left out, so that one node has one key.
pub fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

fn only_of_each_ip(addresses: &HashMap<SocketAddr, usize>) -> HashMap<IpAddr, Option<SocketAddr>> {
    let mut only = HashMap::new();
    for &address in addresses.keys() {
        only.entry(address.ip()).and_modify(|before| *before = None).or_insert(Some(address));
    }
    only
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reused_address_belongs_to_the_node_that_lives_there() {
        let old = "10.0.0.1:9042".parse().unwrap();
        let a = Node { address: "10.0.0.9:9042".parse().unwrap(), ..Node::example("a", 9042, "10.0.0.9:9042") };
        let b = Node::example("b", 9043, "10.0.0.1:9042");
        let topology = Topology::new(1, Advertised::default(), [a, b]).with_former([(old, NodeId::new("a"))]);
        assert!(matches!(topology.map_native(old), Mapped::Current(node) if node.port == 9043));
    }

    #[test]
    fn addresses_map_to_present_former_and_gone_nodes() {
        let gone = Node { state: NodeState::Gone, ..Node::example("c", 9044, "10.0.0.3:9042") };
        let nodes = [Node::example("a", 9042, "10.0.0.1:9042"), gone];
        let topology = Topology::new(1, Advertised::default(), nodes)
            .with_former([("10.0.0.7:9042".parse().unwrap(), NodeId::new("a"))]);
        let port = |address: &str| match topology.map_native(address.parse().unwrap()) {
            Mapped::Current(node) => ("current", node.port),
            Mapped::Former(node) => ("former", node.port),
            Mapped::Gone(node) => ("gone", node.port),
            Mapped::Unknown => ("unknown", 0),
        };
        assert_eq!(port("10.0.0.1:9042"), ("current", 9042));
        assert_eq!(port("[::ffff:10.0.0.1]:9042"), ("current", 9042));
        assert_eq!(port("10.0.0.1:9043"), ("unknown", 0));
        assert_eq!(port("10.0.0.7:9042"), ("former", 9042));
        assert_eq!(port("10.0.0.3:9042"), ("gone", 9044));
        assert!(
            matches!(topology.map_native_ip("10.0.0.1".parse().unwrap()), Mapped::Current(node) if node.port == 9042)
        );
        for internal in ["10.0.0.1", "::ffff:10.0.0.1", "10.0.0.7", "10.0.0.3"] {
            assert!(topology.is_internal(internal.parse().unwrap()), "{internal}");
        }
        assert!(!topology.is_internal("10.0.0.4".parse().unwrap()));
    }

    #[test]
    fn an_address_shared_by_two_ports_is_unknown_without_its_port() {
        let nodes = [Node::example("a", 9042, "10.0.0.1:9042"), Node::example("b", 9043, "10.0.0.1:9043")];
        let topology = Topology::new(1, Advertised::default(), nodes);
        assert_eq!(topology.map_native_ip("10.0.0.1".parse().unwrap()), Mapped::Unknown);
    }
}
