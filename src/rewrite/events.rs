//! One truth about nodes for one control connection.
//!
//! What a node says of another in an EVENT, and what the gateway knows of it, meet here. A client is told of a node only by
//! the address:port that rows show for it; that it is up only while a dial through that port would succeed; and never the
//! same state twice in a row. Nobody's raw address ever passes, but that of a node which is not served here, to a client that was
//! told it in a row (`unserved` in the configuration).

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use super::exchange::Client;
use super::kept_nodes::KeptNodes;
use super::registration::RegisteredTypes;
use crate::cql::message::{Event, NodeChange};
use crate::topology::{HostId, Mapped, Node, NodeState, Paths, Topology};

/// Addresses of which a node spoke before the topology knew them, per connection.
const MAX_UNKNOWN: usize = 64;

/// What this client was told of one node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Told {
    present: bool,
    up: bool,
    /// The gateway saw for itself that the node is down; then its own look also says when it is up again.
    seen_down: bool,
    /// The node this client is connected to has spoken of it as new: its rows show it.
    spoken_of: bool,
    /// Removed by a node's word; it is new again only by a node's word, or in another life.
    removed: bool,
    incarnation: u64,
    host_id: Option<HostId>,
}

/// What became of a node's event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// These are told, in this order.
    Tell(Vec<(NodeChange, SocketAddr)>),
    /// Kept until the node is announced.
    Held,
    /// It calls a node down of which the gateway knows that it is up: told when the gateway finds it dead.
    Doubted {
        port: u16,
        incarnation: u64,
    },
    Swallowed,
}

/// What one control connection was told.
#[derive(Debug, Default)]
pub struct Announcer {
    /// The topology that the client was last brought up to.
    known: Option<Known>,
    /// What it was told of a port's node, where that is something else than what rows said when `known` was new.
    told: BTreeMap<u16, Told>,
    unknown: Vec<SocketAddr>,
    /// Where the client was told that nodes are which this gateway does not serve; of a client that was told of one.
    kept: Option<Box<KeptNodes>>,
}

/// What rows said when the client was last brought up to what is known.
#[derive(Debug)]
struct Known {
    /// By port.
    nodes: Arc<[Arc<Node>]>,
    paths: Arc<Paths>,
}

impl Known {
    fn of(topology: &Topology) -> Self {
        Self { nodes: Arc::clone(&topology.nodes), paths: Arc::clone(&topology.paths) }
    }

    fn at_port(&self, port: u16) -> Option<&Arc<Node>> {
        self.nodes.binary_search_by_key(&port, |node| node.port).ok().and_then(|index| self.nodes.get(index))
    }
}

/// Where a client dials a node, or is told that it does; `None` for one that it is not told of.
pub trait ToldAs {
    fn told_as(&self, node: &Node, paths: &Paths) -> Option<SocketAddr>;
}

impl ToldAs for Client {
    fn told_as(&self, node: &Node, paths: &Paths) -> Option<SocketAddr> {
        let path = paths.named(&self.path).filter(|_| self.view.tells_of(node, self.attached))?;
        path.endpoint(node, self.family)
    }
}

impl Announcer {
    /// The client registers. What it can read in rows now counts as told; but rows do not say which node is down, and it may have
    /// read them while a node was still up: that one is told down with the first news.
    pub fn begin(&mut self, topology: &Topology) {
        if self.known.is_some() {
            return;
        }
        self.known = Some(Known::of(topology));
        let is_down = |node: &&Arc<Node>| node.is_announced() && node.state == NodeState::Down;
        self.told = topology.nodes.iter().filter(is_down).map(|node| (node.port, Told::taken_for_up(node))).collect();
    }

    /// What the client is told when its node sends `event`, which names an address.
    pub fn on_event(
        &mut self,
        event: &Event<'_>,
        types: RegisteredTypes,
        topology: &Topology,
        client: &impl ToldAs,
    ) -> Outcome {
        let told_as = |node: &Node| client.told_as(node, &topology.paths);
        let &Event::Node { change, address } = event else { return Outcome::Swallowed };
        match topology.map_native(address) {
            Mapped::Current(node) => match told_as(node) {
                Some(_) if change == NodeChange::Down && node.state == NodeState::Up => {
                    Outcome::Doubted { port: node.port, incarnation: node.incarnation }
                }
                Some(as_address) => outcome(self.on_change(change, node, client), types, as_address),
                None => Outcome::Swallowed,
            },
            Mapped::Gone(node) if matches!(change, NodeChange::Down | NodeChange::RemovedNode) => match told_as(node) {
                Some(as_address) => outcome(self.on_change(change, node, client), types, as_address),
                None => Outcome::Swallowed,
            },
            Mapped::Former(_) => Outcome::Swallowed,
            Mapped::Unknown if self.was_kept(address, topology) => outcome(Some(vec![change]), types, address),
            Mapped::Gone(_) | Mapped::Unknown => match change {
                NodeChange::Up | NodeChange::NewNode => self.hold(address),
                NodeChange::Down | NodeChange::RemovedNode | NodeChange::MovedNode => {
                    self.unknown.retain(|&held| held != address);
                    Outcome::Swallowed
                }
            },
        }
    }

    /// The client reads rows, as they are, of nodes that this gateway does not serve: where they are, with port 0 where a row
    /// names none.
    pub fn kept(&mut self, addresses: impl Iterator<Item = SocketAddr>) {
        let mut addresses = addresses.peekable();
        if addresses.peek().is_some() {
            self.kept.get_or_insert_default().add(addresses);
        }
    }

    /// Whether the client knows the node at this address from a row that was kept. An address that a served node has come to since
    /// is that node's.
    fn was_kept(&self, address: SocketAddr, topology: &Topology) -> bool {
        self.kept.as_ref().is_some_and(|kept| kept.has(address)) && !topology.is_internal(address.ip())
    }

    fn hold(&mut self, address: SocketAddr) -> Outcome {
        if !self.unknown.contains(&address) {
            if self.unknown.len() >= MAX_UNKNOWN {
                self.unknown.remove(0);
            }
            self.unknown.push(address);
        }
        Outcome::Held
    }

    /// The changes that a client is told which asked for all; `None` when the node's word is kept until the node is announced.
    fn on_change(&mut self, change: NodeChange, node: &Node, client: &impl ToldAs) -> Option<Vec<NodeChange>> {
        let told = told_of(&mut self.told, self.known.as_ref(), node.port, client);
        let is_up = node.state == NodeState::Up;
        let mut changes = Vec::new();
        match change {
            NodeChange::NewNode | NodeChange::Up if !is_up => {
                told.spoken_of = true;
                return None;
            }
            NodeChange::NewNode if !told.present => {
                told.present = true;
                changes.push(change);
            }
            NodeChange::Up if !told.up => {
                if !told.present {
                    changes.push(NodeChange::NewNode);
                }
                (told.present, told.up) = (true, true);
                changes.push(change);
            }
            NodeChange::Down if told.present && told.up => {
                told.up = false;
                changes.push(change);
            }
            NodeChange::RemovedNode if told.present => {
                *told = Told { removed: true, ..Told::default() };
                changes.push(change);
            }
            NodeChange::MovedNode if told.present => changes.push(change),
            _ => {}
        }
        if !matches!(change, NodeChange::RemovedNode) {
            told.removed &= !told.present;
        }
        told.incarnation = node.incarnation;
        told.host_id = node.host_id.or(told.host_id);
        Some(changes)
    }

    /// What the client is told because the topology changed: what the gateway knows first, and what was held.
    pub fn on_topology(
        &mut self,
        types: RegisteredTypes,
        topology: &Topology,
        client: &impl ToldAs,
    ) -> Vec<(NodeChange, SocketAddr)> {
        self.unknown.retain(|&address| match topology.map_native(address) {
            Mapped::Current(node) => {
                told_of(&mut self.told, self.known.as_ref(), node.port, client).spoken_of = true;
                false
            }
            Mapped::Former(_) => false,
            Mapped::Gone(_) | Mapped::Unknown => true,
        });
        let known = self.known.replace(Known::of(topology));
        let same_paths = known.as_ref().is_some_and(|known| Arc::ptr_eq(&known.paths, &topology.paths));
        let said = std::mem::take(&mut self.told);
        let mut events = Vec::new();
        for node in &*topology.nodes {
            let before = known.as_ref().and_then(|known| known.at_port(node.port));
            let mut told = match (said.get(&node.port), before) {
                (Some(told), _) => *told,
                (None, Some(before)) if before == node && same_paths => continue,
                (None, _) => by_rows(known.as_ref(), node.port, client),
            };
            let Some(as_address) = client.told_as(node, &topology.paths) else { continue };
            let changes = told.catch_up(node).into_iter().filter(|&change| types.has(change));
            events.extend(changes.map(|change| (change, as_address)));
            if told != Told::by_rows(node) {
                self.told.insert(node.port, told);
            }
        }
        events
    }
}

/// What of these changes a client is told that registered for `types`.
fn outcome(changes: Option<Vec<NodeChange>>, types: RegisteredTypes, as_address: SocketAddr) -> Outcome {
    let Some(changes) = changes else { return Outcome::Held };
    let told: Vec<_> =
        changes.into_iter().filter(|&change| types.has(change)).map(|change| (change, as_address)).collect();
    if told.is_empty() { Outcome::Swallowed } else { Outcome::Tell(told) }
}

/// What the client was told of the node of `port`, to be changed.
fn told_of<'a>(
    told: &'a mut BTreeMap<u16, Told>,
    known: Option<&Known>,
    port: u16,
    client: &impl ToldAs,
) -> &'a mut Told {
    told.entry(port).or_insert_with(|| by_rows(known, port, client))
}

/// What rows said of the node of `port`.
fn by_rows(known: Option<&Known>, port: u16, client: &impl ToldAs) -> Told {
    let node = known.and_then(|known| Some((known.at_port(port)?, &known.paths)));
    let shown = node.filter(|(node, paths)| client.told_as(node, paths).is_some());
    shown.map(|(node, _)| Told::by_rows(node)).unwrap_or_default()
}

impl Told {
    /// What a client knows of a node that reads its rows, and was told nothing else.
    fn by_rows(node: &Node) -> Self {
        Self {
            present: node.is_announced(),
            up: node.state == NodeState::Up,
            seen_down: node.state == NodeState::Down,
            incarnation: node.incarnation,
            host_id: node.host_id,
            ..Self::default()
        }
    }

    /// What a client takes a node for whose row it read and of which it heard nothing.
    fn taken_for_up(node: &Node) -> Self {
        Self { up: true, ..Self::by_rows(node) }
    }

    /// The changes that bring the client from what it was told to what the gateway knows.
    fn catch_up(&mut self, node: &Node) -> Vec<NodeChange> {
        let mut changes = Vec::new();
        let replaced = matches!((self.host_id, node.host_id), (Some(told), Some(now)) if told != now);
        if replaced && self.present {
            changes.push(NodeChange::RemovedNode);
            *self = Self { spoken_of: true, ..Self::default() };
        }
        let lives_anew = node.incarnation > self.incarnation;
        match node.state {
            NodeState::Up if !self.present => {
                let may_return = !self.removed || lives_anew || self.spoken_of;
                if may_return && (self.spoken_of || node.settled) {
                    changes.extend([NodeChange::NewNode, NodeChange::Up]);
                    *self = Self { present: true, up: true, ..Self::default() };
                } else if self.removed {
                    return changes;
                }
            }
            NodeState::Up if self.up && lives_anew => changes.extend([NodeChange::Down, NodeChange::Up]),
            NodeState::Up if !self.up && (self.seen_down || self.spoken_of || lives_anew) => {
                changes.push(NodeChange::Up);
                (self.up, self.seen_down, self.spoken_of) = (true, false, false);
            }
            NodeState::Up => {}
            NodeState::Down | NodeState::Pending => {
                if self.present && self.up {
                    changes.push(NodeChange::Down);
                }
                (self.up, self.seen_down) = (false, self.present);
            }
            NodeState::Gone => {
                if self.present {
                    changes.push(NodeChange::RemovedNode);
                }
                *self = Self::default();
            }
        }
        self.incarnation = node.incarnation;
        self.host_id = node.host_id.or(self.host_id);
        changes
    }
}

#[cfg(test)]
mod tests;
