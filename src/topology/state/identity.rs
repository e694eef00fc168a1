//! Who a node is: what it says of itself is believed, disputed, or taken for another node's. Part of the fold.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;

use super::super::canonical;
use super::super::input::{Contradiction, Identity, Notice};
use super::super::record::Record;
use super::super::{HostId, NodeId, NodeState};
use super::State;

/// Address → when it was claimed, as the number of the input, and by whom.
pub(super) type Addresses = HashMap<SocketAddr, (u64, NodeId)>;

impl State {
    /// What a node said of itself, to a probe or to a client.
    pub(super) fn learn(&mut self, id: &NodeId, identity: &Identity) {
        let Some(record) = self.records.get_mut(id) else { return };
        if let Some(cluster_name) = &identity.cluster_name {
            record.cluster_name = Some(cluster_name.clone());
            record.disbelieved = None;
            self.cluster_name = self.name_of_most();
            if self.cluster_name.as_ref() != Some(cluster_name) {
                if let Some(record) = self.records.get_mut(id) {
                    record.disbelieved = Some(identity.clone());
                }
                return;
            }
        }
        if let Some(host_id) = identity.host_id
            && !self.claim(id, host_id)
        {
            return;
        }
        let Some(record) = self.records.get_mut(id) else { return };
        record.learn_place(identity);
        let native = identity.native.filter(|native| !native.ip().is_unspecified() && native.port() != 0);
        if let Some(native) = native
            && let Some(before) = record.learn_native(canonical(native))
        {
            self.leave(before, id.clone());
        }
    }

    /// The node says that `host_id` is its own: true when that is accepted.
    fn claim(&mut self, id: &NodeId, host_id: HostId) -> bool {
        let owner = self.owner(host_id, id);
        let owner = owner.map(|o| (o.id.clone(), o.address, o.concluded() == NodeState::Up, o.pinned.is_some()));
        let is_anothers = self.records.get(id).is_some_and(|record| self.lives_another_at(record, host_id));
        let Some(record) = self.records.get_mut(id) else { return false };
        if is_anothers || record.pinned.is_some_and(|pinned| pinned != host_id) {
            record.disputed = Some(host_id);
            record.verified &= !is_anothers;
            return false;
        }
        if let Some((owner, address, is_up, is_pinned)) = owner {
            // At one address lives one node: the newcomer is listed twice. And one that is up keeps what is its own for as long as
            // it says so: it is asked, and anyone who may be dialled could say the same.
            let elsewhere = canonical(address) != canonical(record.address);
            if is_pinned || is_up || !elsewhere {
                record.disputed = Some(host_id);
                if is_up && elsewhere {
                    self.questions.insert(owner);
                }
                return false;
            }
            if let Some(loser) = self.records.get_mut(&owner) {
                // Its answer was about another one, unless it says who it is now.
                loser.answers = loser.answers.filter(|_| loser.disputed.is_some());
                if let Some(address) = loser.forget_identity() {
                    self.leave(address, owner.clone());
                }
            }
            self.notices.push(Notice::HostIdTaken { host_id, by: id.clone(), from: owner });
        }
        let Some(record) = self.records.get_mut(id) else { return false };
        if let Some(from) = record.host_id.filter(|&from| from != host_id) {
            let address = record.forget_identity();
            self.notices.push(Notice::Replaced { id: id.clone(), from, to: host_id });
            if let Some(address) = address {
                self.leave(address, id.clone());
            }
        }
        let Some(record) = self.records.get_mut(id) else { return false };
        record.host_id = Some(host_id);
        record.verified = true;
        record.disputed = None;
        true
    }

    /// A node that was listed at the same address later is the one that says something new there: an address that was given again
    /// before its last owner was known to be gone.
    fn lives_another_at(&self, record: &Record, host_id: HostId) -> bool {
        let is_news = record.host_id.is_some_and(|known| known != host_id);
        let later = |other: &Record| {
            !other.left && other.claimed > record.claimed && canonical(other.address) == canonical(record.address)
        };
        is_news && self.records.values().any(later)
    }

    /// Settles the cluster's name, and believes those who were not believed only because of it.
    pub(super) fn name_the_cluster(&mut self) {
        self.cluster_name = self.name_of_most();
        let believed = |record: &mut Record| {
            let says = record.disbelieved.as_ref()?.cluster_name.as_ref();
            (says == self.cluster_name.as_ref()).then(|| record.disbelieved.take()).flatten()
        };
        let believed: Vec<(NodeId, Identity)> =
            self.records.values_mut().filter_map(|record| Some((record.id.clone(), believed(record)?))).collect();
        for (id, identity) in believed {
            self.learn(&id, &identity);
        }
    }

    /// A host_id that a node was refused is its own once nobody else has it, or the one that has it is dead while it answers.
    pub(super) fn settle_disputes(&mut self) {
        let disputed = self.records.values().filter(|record| !record.left);
        let disputed = disputed.filter_map(|r| Some((r.id.clone(), r.disputed?, r.present && r.answers == Some(true))));
        for (id, host_id, answers) in disputed.collect::<Vec<_>>() {
            let is_dead = |owner: &Record| !owner.present || owner.answers == Some(false);
            if self.owner(host_id, &id).is_none_or(|owner| answers && is_dead(owner)) {
                self.claim(&id, host_id);
            }
        }
    }

    /// The node, other than `id`, that has this host_id.
    fn owner(&self, host_id: HostId, id: &NodeId) -> Option<&Record> {
        self.records.values().find(|r| r.id != *id && !r.left && r.host_id == Some(host_id))
    }

    /// The cluster's name is what most nodes say; the name known before, when it has as many.
    fn name_of_most(&self) -> Option<Arc<str>> {
        let mut votes: BTreeMap<&Arc<str>, usize> = BTreeMap::new();
        for name in self.records.values().filter(|r| !r.left).filter_map(|r| r.cluster_name.as_ref()) {
            *votes.entry(name).or_default() += 1;
        }
        let most = votes.values().copied().max();
        let known = self.cluster_name.as_ref();
        match most {
            None => known.cloned(),
            Some(most) if known.is_some_and(|name| votes.get(name) == Some(&most)) => known.cloned(),
            Some(most) => votes.iter().find(|&(_, count)| *count == most).map(|(name, _)| Arc::clone(name)),
        }
    }

    /// Who claims each address, the latest of several.
    pub(super) fn claims_to_addresses(&self) -> Addresses {
        let mut claims = Addresses::new();
        for record in self.records.values().filter(|record| !record.left) {
            let claim = claims.entry(canonical(record.address)).or_insert((record.claimed, record.id.clone()));
            if record.claimed > claim.0 {
                *claim = (record.claimed, record.id.clone());
            }
        }
        claims
    }

    /// Why a node that answers is not up, if there is a reason.
    pub(super) fn contradiction(&self, record: &Record, claims: &Addresses) -> Option<Contradiction> {
        if record.left {
            return None;
        }
        if let (Some(expected), Some(found)) = (&self.cluster_name, &record.cluster_name)
            && expected != found
        {
            return Some(Contradiction::WrongCluster { expected: expected.clone(), found: found.clone() });
        }
        if let Some(found) = record.disputed {
            if let Some(expected) = record.pinned {
                return Some(Contradiction::WrongHostId { expected, found });
            }
            if let Some(owner) = self.owner(found, &record.id) {
                return Some(Contradiction::HostIdOf { host_id: found, owner: owner.id.clone() });
            }
        }
        let latest = claims.get(&canonical(record.address)).filter(|_| !record.verified);
        let later = latest.filter(|(claimed, _)| *claimed > record.claimed);
        later.map(|(_, owner)| Contradiction::AddressOf { owner: owner.clone() })
    }
}
