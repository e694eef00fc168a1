//! Who belongs to the cluster, as one node tells it; and who may be let go when a node no longer tells of it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::topology::input::{Found, Identity, Listed, Placement};
use crate::topology::{HiddenReason, HostId, NodeId};

use super::allow::NotAllowed;
use super::client::{Client, ClientError};
use super::identity::{read_local, read_peers};
use super::refusals::Refused;

/// One node's view of the cluster, itself included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ring {
    pub cluster_name: Option<Arc<str>>,
    /// Who told it.
    pub own: Option<HostId>,
    pub nodes: BTreeMap<HostId, Found>,
    /// Rows that are no nodes to this gateway.
    pub refused: Vec<Refused>,
}

impl Ring {
    /// Asks the node behind `client`, which was dialled at `dialled`; `allowed` says which addresses may be.
    pub async fn read(
        client: &mut Client,
        dialled: SocketAddr,
        allowed: impl Fn(SocketAddr) -> Result<(), NotAllowed>,
    ) -> Result<Self, ClientError> {
        let mut local = read_local(client, dialled).await?;
        // It answers where it was dialled, whatever it calls itself.
        local.native = local.native.filter(|native| allowed(*native).is_ok()).or(Some(dialled));
        let peers = read_peers(client, dialled).await?;
        Ok(Self::of(local, peers, allowed))
    }

    /// Of two rows with one host_id the first counts; a row without host_id or native address is not a node yet (drivers
    /// leave it out as well, see apache/cassandra-java-driver `DefaultTopologyMonitor.isPeerValid`).
    fn of(local: Identity, peers: Vec<Identity>, allowed: impl Fn(SocketAddr) -> Result<(), NotAllowed>) -> Self {
        let cluster_name = local.cluster_name.clone();
        let (mut nodes, mut refused) = (BTreeMap::new(), Vec::new());
        let (own, here) = (local.host_id, local.native);
        for row in std::iter::once(local).chain(peers) {
            let mut refuse = |reason, why| {
                refused.push(Refused { id: None, host_id: row.host_id, address: row.native, reason, why });
            };
            if let Some((column, length)) = row.too_long() {
                refuse(HiddenReason::TooLong, format!("its {column} has {length} bytes"));
                continue;
            }
            if let Some(Err(why)) = row.native.filter(|native| here != Some(*native)).map(&allowed) {
                refuse(HiddenReason::NotAllowed, why.to_string());
                continue;
            }
            let (Some(host_id), Some(address)) = (row.host_id, row.native) else { continue };
            nodes.entry(host_id).or_insert_with(|| Found {
                host: None,
                listed: Listed::Here,
                confirmed: true,
                leaving: false,
                id: NodeId::new(&host_id.to_string()),
                address,
                placement: Placement::Assigned,
                port_why: None,
                host_id: Some(host_id),
                data_center: row.data_center,
                rack: row.rack,
            });
        }
        Self { cluster_name, own, nodes, refused }
    }
}

/// The nodes that discovery tells of, and what of it is confirmed. A node whose row is missing is not gone before that is:
/// Cassandra opens its port before it knows all its peers, and a node that starts shows few of them. Nor does one node alone
/// decide who is new, and where another lives: its rows may be wrong, or meant to be.
#[derive(Clone, Debug, Default)]
pub struct Members {
    nodes: BTreeMap<HostId, Found>,
    /// Who is new, by the last view, and whom no other node has named yet.
    claims: BTreeMap<HostId, Found>,
    /// Missing in the last view of the same node: how often by now.
    missing: BTreeMap<HostId, u32>,
}

impl Members {
    /// Takes a view over; the answer is who is in doubt: those of whom it does not tell, who are new, or who are elsewhere than
    /// before. Of itself alone it is believed.
    pub fn merge(&mut self, ring: &Ring) -> Vec<HostId> {
        self.claims.clear();
        for (host_id, found) in &ring.nodes {
            let confirmed = match self.nodes.get(host_id) {
                Some(known) => known.confirmed && known.address == found.address,
                None if ring.own == Some(*host_id) => true,
                None => {
                    self.claims.insert(*host_id, found.clone());
                    continue;
                }
            };
            self.nodes.insert(*host_id, Found { confirmed, ..found.clone() });
        }
        let missing: Vec<HostId> = self.nodes.keys().filter(|id| !ring.nodes.contains_key(id)).copied().collect();
        self.missing.retain(|id, _| missing.contains(id));
        for id in &missing {
            *self.missing.entry(*id).or_default() += 1;
        }
        let moved = self.moved().map(|(id, _)| *id);
        missing.iter().copied().chain(moved).chain(self.claims.keys().copied()).collect()
    }

    /// A second node was asked as well: who is missing there too has left, and what it says too is so.
    pub fn confirm(&mut self, ring: &Ring) {
        let says = |id: &HostId, claim: &Found| ring.nodes.get(id).is_some_and(|found| found.address == claim.address);
        let claims = std::mem::take(&mut self.claims);
        let (confirmed, others): (BTreeMap<_, _>, BTreeMap<_, _>) =
            claims.into_iter().partition(|(id, claim)| says(id, claim));
        self.nodes.extend(confirmed);
        self.claims = others;
        for (id, moved) in self.nodes.iter_mut().filter(|(_, found)| !found.confirmed) {
            moved.confirmed = says(id, moved);
        }
        let left: Vec<HostId> = self.missing.keys().filter(|id| !ring.nodes.contains_key(id)).copied().collect();
        self.let_go(left);
    }

    /// There was no other node to ask: who is new is believed.
    pub fn confirm_alone(&mut self) {
        self.nodes.append(&mut self.claims);
    }

    /// Another node tells from now on: what its predecessor did not say does not count.
    pub fn change_teller(&mut self) {
        self.missing.clear();
    }

    /// Something is not confirmed.
    pub fn in_doubt(&self) -> bool {
        !self.missing.is_empty() || !self.claims.is_empty() || self.moved().next().is_some()
    }

    /// What one node says and no other: who is new or elsewhere, and where.
    pub fn claims(&self) -> impl Iterator<Item = &Found> {
        self.claims.values().chain(self.moved().map(|(_, found)| found))
    }

    /// Who is there; who was missing twice in a row has left, by one node's word alone.
    pub fn found(&self) -> Vec<Found> {
        let told = |(id, found): (&HostId, &Found)| match self.missing.get(id) {
            Some(times) if *times >= 2 => Found { listed: Listed::Left, confirmed: false, ..found.clone() },
            _ => found.clone(),
        };
        self.nodes.iter().map(told).collect()
    }

    /// Those who have left by that word, and who are `gone` by now, need no other.
    pub fn forget(&mut self, gone: impl Fn(HostId) -> bool) {
        let left = self.missing.iter().filter(|&(id, times)| *times >= 2 && gone(*id)).map(|(id, _)| *id);
        let left: Vec<HostId> = left.collect();
        self.let_go(left);
    }

    fn moved(&self) -> impl Iterator<Item = (&HostId, &Found)> {
        self.nodes.iter().filter(|(_, found)| !found.confirmed)
    }

    fn let_go(&mut self, left: Vec<HostId>) {
        for id in left {
            self.nodes.remove(&id);
            self.missing.remove(&id);
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn id(n: u128) -> HostId {
        HostId(Uuid::from_u128(n))
    }

    fn row(n: u128, address: &str) -> Identity {
        Identity { host_id: Some(id(n)), native: Some(address.parse().unwrap()), ..Identity::default() }
    }

    fn ring(nodes: &[u128]) -> Ring {
        let rows: Vec<Identity> = nodes.iter().map(|&n| row(n, "10.0.0.1:9042")).collect();
        Ring::of(rows[0].clone(), rows[1..].to_vec(), |_| Ok(()))
    }

    fn check(members: &Members, expected: &[u128]) {
        let ids: Vec<HostId> = members.found().iter().filter_map(|found| found.host_id).collect();
        assert_eq!(ids, expected.iter().map(|&n| id(n)).collect::<Vec<_>>());
    }

    #[test]
    fn rows_without_identity_or_address_are_no_nodes() {
        let nameless = Identity { host_id: None, ..row(2, "10.0.0.2:9042") };
        let homeless = Identity { native: None, ..row(3, "10.0.0.3:9042") };
        let twice = row(1, "10.0.0.9:9042");
        let ring = Ring::of(row(1, "10.0.0.1:9042"), vec![nameless, homeless, twice], |_| Ok(()));
        assert_eq!(ring.nodes.len(), 1);
        assert_eq!(ring.nodes[&id(1)].address, "10.0.0.1:9042".parse().unwrap());
        assert_eq!(ring.nodes[&id(1)].id, NodeId::new("00000000-0000-0000-0000-000000000001"));
    }

    #[test]
    fn a_node_leaves_when_a_second_node_does_not_know_it_either() {
        let mut members = Members::default();
        members.merge(&ring(&[1, 2, 3, 4]));
        members.confirm_alone();
        assert_eq!(members.merge(&ring(&[1])), [id(2), id(3), id(4)]);
        members.confirm(&ring(&[2, 1, 3]));
        check(&members, &[1, 2, 3]);
        assert!(members.in_doubt());
        members.merge(&ring(&[1, 2, 3]));
        assert!(!members.in_doubt());
    }

    #[test]
    fn a_node_at_a_refused_address_stays_where_another_node_knows_it() {
        let mut members = Members::default();
        members.merge(&ring(&[1, 2]));
        members.confirm_alone();
        let allowed = |address: SocketAddr| match address.port() {
            9042 => Ok(()),
            _ => Err(NotAllowed::NotListed),
        };
        let moved = Ring::of(row(1, "10.0.0.1:9042"), vec![row(2, "10.0.0.1:22")], allowed);
        assert_eq!(moved.refused.len(), 1);
        assert_eq!(members.merge(&moved), [id(2)]);
        members.confirm(&ring(&[1, 2]));
        check(&members, &[1, 2]);
        assert!(members.found().iter().all(|found| found.address.port() == 9042));
    }

    /// A view in which node 1 says that another one lives at `address`.
    fn told(n: u128, address: &str) -> Ring {
        Ring::of(row(1, "10.0.0.1:9042"), vec![row(n, address)], |_| Ok(()))
    }

    #[test]
    fn where_a_node_lives_is_confirmed_by_another_one() {
        let (here, there) = ("10.0.0.2:9042", "10.9.9.9:9042");
        for (second, confirmed) in [(told(2, here), false), (told(3, there), false), (told(2, there), true)] {
            let mut members = Members::default();
            members.merge(&told(2, here));
            members.confirm_alone();
            assert_eq!(members.merge(&told(2, there)), [id(2)]);
            members.confirm(&second);
            let found = members.found();
            let moved = found.iter().find(|found| found.host_id == Some(id(2))).unwrap();
            assert_eq!((moved.address.to_string().as_str(), moved.confirmed), (there, confirmed), "{second:?}");
            assert_eq!((members.in_doubt(), members.claims().count()), (!confirmed, usize::from(!confirmed)));
            // Said again it is not the truer, and taken back it is no claim any more.
            members.merge(&told(2, there));
            assert_eq!(members.in_doubt(), !confirmed);
        }
    }

    #[test]
    fn who_is_new_is_not_decided_by_one_node_where_there_is_another() {
        let mut members = Members::default();
        // A node is believed of itself.
        assert_eq!(members.merge(&ring(&[1, 2])), [id(2)]);
        check(&members, &[1]);
        members.confirm(&ring(&[2, 1]));
        check(&members, &[1, 2]);
        assert_eq!(members.merge(&ring(&[1, 2, 3])), [id(3)]);
        check(&members, &[1, 2]);
        members.confirm(&ring(&[2, 1]));
        check(&members, &[1, 2]);
        assert!(members.in_doubt() && members.claims().count() == 1);
        members.merge(&ring(&[1, 2, 3]));
        members.confirm(&ring(&[2, 1, 3]));
        check(&members, &[1, 2, 3]);
        members.merge(&ring(&[1, 2, 3, 4]));
        members.confirm_alone();
        check(&members, &[1, 2, 3, 4]);
        assert!(!members.in_doubt());
    }

    #[test]
    fn on_one_nodes_word_alone_they_leave_the_second_time_and_unconfirmed() {
        let mut members = Members::default();
        members.merge(&ring(&[1, 2, 3]));
        members.confirm_alone();
        let left = |members: &Members| {
            let left = members.found().into_iter().filter(|found| found.listed == Listed::Left);
            left.map(|found| (found.host_id.unwrap(), found.confirmed)).collect::<Vec<_>>()
        };
        members.merge(&ring(&[1]));
        members.confirm_alone();
        assert_eq!(left(&members), []);
        members.change_teller();
        members.merge(&ring(&[1]));
        assert_eq!(left(&members), []);
        members.merge(&ring(&[1]));
        assert_eq!(left(&members), [(id(2), false), (id(3), false)]);
        members.forget(|gone| gone == id(2));
        check(&members, &[1, 3]);
        members.merge(&ring(&[1, 3]));
        assert!(!members.in_doubt());
        assert_eq!(left(&members), []);
    }
}
