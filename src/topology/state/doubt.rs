//! What is not confirmed of a node, and who stays as it is in spite of it. Part of the fold.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;

use super::super::canonical;
use super::super::input::{Found, Listed};
use super::super::{NodeId, NodeState};
use super::State;

impl State {
    /// The one rule of doubt: what is not confirmed moves and withdraws nobody who is up where it is known to live; unless another
    /// node is listed there, for then that one answers. Who has left, after that.
    pub(super) fn keep_the_doubted(&mut self, found: &[Found]) -> BTreeSet<NodeId> {
        let mut kept = BTreeSet::new();
        if found.iter().any(|node| !node.confirmed) {
            let here = found.iter().filter(|node| node.listed == Listed::Here && node.confirmed);
            let here: HashMap<SocketAddr, &NodeId> = here.map(|node| (canonical(node.address), &node.id)).collect();
            let stay = found.iter().filter(|node| !node.confirmed && self.is_kept(node, &here));
            kept.extend(stay.map(|node| &node.id));
        }
        self.records.values_mut().for_each(|record| record.kept = kept.contains(&record.id));
        let left = found.iter().filter(|node| node.listed == Listed::Left && !kept.contains(&node.id));
        left.map(|node| node.id.clone()).collect()
    }

    fn is_kept(&self, node: &Found, here: &HashMap<SocketAddr, &NodeId>) -> bool {
        let Some(record) = self.records.get(&node.id) else { return false };
        let address = canonical(record.address);
        // One that was there before may be old news itself.
        let came_later = |other: &NodeId| {
            let before = self.records.get(other).filter(|other| !other.left && canonical(other.address) == address);
            *other != node.id && before.is_none_or(|other| other.claimed > record.claimed)
        };
        let is_said = node.listed == Listed::Here && canonical(node.address) == address;
        record.state == NodeState::Up && !is_said && !here.get(&address).is_some_and(|other| came_later(other))
    }
}
