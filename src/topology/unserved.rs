//! Nodes of the cluster that this gateway does not serve: what tells them from those that it does.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::{Hidden, HiddenReason, HostId, Node, NodeState};
use crate::label::label_set;

label_set! {
    /// A node of the cluster that this gateway does not serve.
    pub enum Unserved {
        /// Of a data center of which no node is served.
        Remote = "remote",
        /// Of a data center that is served; discovery knows nothing of it.
        Ghost = "ghost",
    }
}

impl From<Unserved> for HiddenReason {
    fn from(unserved: Unserved) -> Self {
        match unserved {
            Unserved::Remote => Self::Remote,
            Unserved::Ghost => Self::Ghost,
        }
    }
}

/// What a topology knows of who is served, looked up for each row of nobody's.
#[derive(Clone, Debug, Default)]
pub(super) struct Membership {
    /// Of every node that has a port.
    data_centers: HashSet<Arc<str>>,
    /// Where the gateway dials nodes, which may be elsewhere than rows say.
    dialled: HashSet<IpAddr>,
    /// A node has a port, or waits for one, and nobody knows its host_id: any row of its data center may be its own.
    is_incomplete: bool,
    hidden_ids: HashMap<HostId, HiddenReason>,
    hidden_addresses: HashMap<IpAddr, HiddenReason>,
}

impl Membership {
    pub(super) fn of<'a>(nodes: impl Iterator<Item = &'a Node>) -> Self {
        let mut membership = Self::default();
        for node in nodes {
            membership.data_centers.extend(node.data_center.clone());
            membership.dialled.insert(node.address.ip().to_canonical());
            membership.is_incomplete |= node.host_id.is_none() && node.state != NodeState::Gone;
        }
        membership
    }

    pub(super) fn with_hidden(mut self, hidden: &[Hidden]) -> Self {
        for node in hidden {
            // The last one counts unless an earlier one says more than that nobody dials it.
            let stricter = |known: &mut HiddenReason| {
                if may_be_remote(*known) {
                    *known = node.reason;
                }
            };
            if let Some(host_id) = node.host_id {
                self.hidden_ids.entry(host_id).and_modify(stricter).or_insert(node.reason);
            } else {
                self.is_incomplete = true;
            }
            if let Some(address) = node.address {
                let address = address.ip().to_canonical();
                self.hidden_addresses.entry(address).and_modify(stricter).or_insert(node.reason);
            }
        }
        self
    }

    /// What the node is that a row speaks of with this host_id, this data center and these addresses; `None` where it cannot be
    /// told, and of a node that discovery knows to belong here. The host_id and the addresses are none by which rows call a served node.
    pub(super) fn unserved(&self, host_id: HostId, data_center: &str, addresses: &[IpAddr]) -> Option<Unserved> {
        if self.data_centers.is_empty()
            || addresses.iter().any(|address| self.dialled.contains(&address.to_canonical()))
        {
            return None;
        }
        let of_address = |address: &IpAddr| self.hidden_addresses.get(&address.to_canonical());
        let mut hidden = self.hidden_ids.get(&host_id).into_iter().chain(addresses.iter().filter_map(of_address));
        if !self.data_centers.contains(data_center) {
            return hidden.all(|reason| may_be_remote(*reason)).then_some(Unserved::Remote);
        }
        (!self.is_incomplete && hidden.next().is_none()).then_some(Unserved::Ghost)
    }
}

/// Discovery found this node and does not serve it, for no doubt about what is said of it.
fn may_be_remote(reason: HiddenReason) -> bool {
    matches!(reason, HiddenReason::NoPort | HiddenReason::NotAllowed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::NodeId;

    fn host_id(number: u128) -> HostId {
        HostId(uuid::Uuid::from_u128(number))
    }

    fn node(id: &str, data_center: Option<&str>, host_id: Option<HostId>) -> Node {
        Node { data_center: data_center.map(Arc::from), host_id, ..Node::example(id, 9042, "10.0.0.1:9042") }
    }

    fn hidden(number: Option<u128>, address: Option<&str>, reason: HiddenReason) -> Hidden {
        let address = address.map(|address| address.parse().unwrap());
        Hidden { id: Some(NodeId::new("h")), host_id: number.map(host_id), address, reason }
    }

    #[track_caller]
    fn check(membership: &Membership, of: (u128, &str, &str), expected: Option<Unserved>) {
        let (id, data_center, address) = of;
        let addresses = [address.parse().unwrap()];
        assert_eq!(membership.unserved(host_id(id), data_center, &addresses), expected, "{of:?}");
    }

    #[test]
    fn data_centers_tell_remote_nodes_from_ghosts() {
        let membership = Membership::of([node("a", Some("dc1"), Some(host_id(1)))].iter());
        check(&membership, (7, "dc2", "10.0.0.7"), Some(Unserved::Remote));
        check(&membership, (7, "dc1", "10.0.0.7"), Some(Unserved::Ghost));
        check(&membership, (7, "DC1", "10.0.0.7"), Some(Unserved::Remote));
    }

    #[test]
    fn an_address_that_the_gateway_dials_is_that_of_a_served_node() {
        let native = Some("10.9.9.9:9042".parse().unwrap());
        let node = Node { native, ..node("a", Some("dc1"), Some(host_id(1))) };
        let membership = Membership::of([node].iter());
        check(&membership, (7, "dc2", "10.0.0.1"), None);
        check(&membership, (7, "dc1", "::ffff:10.0.0.1"), None);
    }

    #[test]
    fn where_no_data_center_is_known_nothing_is_told() {
        let membership = Membership::of([node("a", None, Some(host_id(1)))].iter());
        check(&membership, (7, "dc2", "10.0.0.7"), None);
    }

    #[test]
    fn a_node_without_a_host_id_may_be_any_ghost() {
        let known = node("a", Some("dc1"), Some(host_id(1)));
        let membership = Membership::of([known.clone(), node("b", None, None)].iter());
        check(&membership, (7, "dc1", "10.0.0.7"), None);
        check(&membership, (7, "dc2", "10.0.0.7"), Some(Unserved::Remote));
        let unresolved = [hidden(None, None, HiddenReason::NotResolved)];
        check(&Membership::of([known].iter()).with_hidden(&unresolved), (7, "dc1", "10.0.0.7"), None);
        let gone = Node { state: NodeState::Gone, ..node("c", Some("dc1"), None) };
        check(&Membership::of([gone].iter()), (7, "dc1", "10.0.0.7"), Some(Unserved::Ghost));
    }

    #[test]
    fn what_discovery_hides_is_no_ghost_and_remote_only_when_nobody_doubts_it() {
        let membership = |reason| {
            let hidden = [hidden(Some(7), Some("10.0.0.7:9042"), reason)];
            Membership::of([node("a", Some("dc1"), Some(host_id(1)))].iter()).with_hidden(&hidden)
        };
        for (reason, remote) in [
            (HiddenReason::NotAllowed, Some(Unserved::Remote)),
            (HiddenReason::NoPort, Some(Unserved::Remote)),
            (HiddenReason::NotConfirmed, None),
            (HiddenReason::TooLong, None),
        ] {
            for of in [(7, "10.0.0.8"), (8, "10.0.0.7"), (8, "::ffff:10.0.0.7")] {
                check(&membership(reason), (of.0, "dc1", of.1), None);
                check(&membership(reason), (of.0, "dc2", of.1), remote);
            }
        }
        let doubted = [
            hidden(Some(7), None, HiddenReason::NotAllowed),
            hidden(Some(7), None, HiddenReason::NotConfirmed),
            hidden(Some(7), None, HiddenReason::NotAllowed),
        ];
        let membership = Membership::of([node("a", Some("dc1"), Some(host_id(1)))].iter()).with_hidden(&doubted);
        check(&membership, (7, "dc2", "10.0.0.9"), None);
    }
}
