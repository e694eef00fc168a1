//! What changed between two snapshots, one line for each fact: for the log and the numbers.
//!
//! Events for clients are not made from this: each control connection compares the snapshot with what it was told. Nor are
//! connections closed by it: see [`Topology::lives`].

use std::net::SocketAddr;
use std::sync::Arc;

use super::{HostId, Node, NodeState, Path, Topology};

/// One change; the node is the newer value unless said otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A node has a port that had none.
    Appeared(Arc<Node>),
    /// The address that the gateway dials is another one.
    AddressChanged {
        node: Arc<Node>,
        from: SocketAddr,
    },
    /// Another Cassandra node lives under the same identity.
    Replaced {
        node: Arc<Node>,
        from: HostId,
    },
    StateChanged {
        node: Arc<Node>,
        from: NodeState,
    },
    /// Its quarantine is over: nobody stands behind the port, and another node may have it (the older value).
    Forgotten(Arc<Node>),
    /// Clients of a path are told something else; `moved` where somebody was told what holds no more.
    PathChanged {
        path: Arc<Path>,
        moved: bool,
    },
}

/// Everything that changed from `old` to `new`, by port.
pub fn diff(old: &Topology, new: &Topology) -> Vec<Change> {
    let mut changes = Vec::new();
    for path in new.paths.iter() {
        let before = old.paths.named(&path.name);
        if before != Some(path) {
            let moved = before.is_some_and(|before| path.has_moved(before));
            changes.push(Change::PathChanged { path: path.clone(), moved });
        }
    }
    let forgotten = old.nodes.iter().filter(|node| new.node_by_id(&node.id).is_none());
    changes.extend(forgotten.cloned().map(Change::Forgotten));
    for node in &*new.nodes {
        let Some(before) = old.node_by_id(&node.id) else {
            changes.push(Change::Appeared(node.clone()));
            continue;
        };
        if before.address != node.address {
            changes.push(Change::AddressChanged { node: node.clone(), from: before.address });
        }
        if let (Some(from), Some(to)) = (before.host_id, node.host_id)
            && from != to
        {
            changes.push(Change::Replaced { node: node.clone(), from });
        }
        if before.state != node.state {
            changes.push(Change::StateChanged { node: node.clone(), from: before.state });
        }
    }
    changes
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn topology(nodes: Vec<Node>) -> Topology {
        Topology::new(1, super::super::Advertised::default(), nodes)
    }

    #[test]
    fn nothing_changes_between_equal_snapshots() {
        let one = topology(vec![Node::example("a", 9042, "10.0.0.1:9042")]);
        assert_eq!(diff(&one, &one.clone()), vec![]);
    }

    #[test]
    fn every_fact_is_one_change() {
        let a = Node::example("a", 9042, "10.0.0.1:9042");
        let gone = Node { state: NodeState::Gone, ..Node::example("x", 9049, "10.0.0.9:9042") };
        let moved = Node {
            address: "10.0.0.7:9042".parse().unwrap(),
            host_id: Some(HostId(Uuid::from_u128(7))),
            state: NodeState::Down,
            incarnation: 2,
            ..a.clone()
        };
        let b = Node::example("b", 9043, "10.0.0.2:9042");
        let (old, new) = (topology(vec![a.clone(), gone.clone()]), topology(vec![moved.clone(), b.clone()]));
        let moved = Arc::new(moved);
        assert_eq!(
            diff(&old, &new),
            vec![
                Change::Forgotten(Arc::new(gone)),
                Change::AddressChanged { node: moved.clone(), from: a.address },
                Change::Replaced { node: moved.clone(), from: a.host_id.unwrap() },
                Change::StateChanged { node: moved, from: NodeState::Up },
                Change::Appeared(Arc::new(b)),
            ]
        );
    }
}
