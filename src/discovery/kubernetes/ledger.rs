//! Who has which port where several StatefulSets share the listening ports and no ranges are configured: their ordinals
//! repeat, so a port cannot follow from the ordinal alone, and what one replica of the gateway chooses the others must know.
//!
//! A [`Ledger`] is a value. [`Ledger::settle`] makes the next one of it and of what a replica sees; [`agreement`] stores it by
//! compare-and-swap. Nothing here moves a port from an identity that has one, and nothing is forgotten: a port is given to
//! another only where no other is left, or where it is the other's by its ordinal or its pin, and never before the quarantine
//! has ended. A replica sees late, and may see what is over: so absence alone changes nothing, only the explicit word that a
//! node is gone starts a quarantine, and the sight of the node ends it.
//!
//! One StatefulSet alone needs no ledger, its ports follow from its ordinals ([`Ledger::follows_ordinals`]); that they do is
//! written all the same, so that whoever begins to look when there is a second one knows whose they are.

pub mod agreement;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use thiserror::Error;

use crate::discovery::claims;
use crate::topology::NodeId;
use crate::topology::ports::{Claim, Claims, PortError, PortRange, next_end, over};

use super::placement::PINS;

/// The key of the ConfigMap's data that holds the ledger.
pub const KEY: &str = "ports.json";
/// Longest text, in bytes: what a ConfigMap may hold in sum, as
/// <https://kubernetes.io/docs/concepts/configuration/configmap/> says. Some 13,000 nodes.
const MAX_LEN: usize = 1024 * 1024;
/// The configuration key that errors name.
const CONFIG_KEY: &str = "discovery.kubernetes.ledger";

/// Why a ledger cannot be used; it is never overwritten then. `config_map` is namespace/name.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum LedgerError {
    #[error("ConfigMap {config_map}, key {KEY}: {have} bytes, expected at most {MAX_LEN}")]
    TooLong { config_map: String, have: usize },
    #[error(
        "ConfigMap {config_map}, key {KEY}: {text}; expected {{\"version\": 1, \"nodes\": {{NAME: {{\"port\": PORT}}}}}}; \
         repair it, or remove the key to have ports given anew"
    )]
    Malformed { config_map: String, text: String },
    #[error("ConfigMap {config_map}, key {KEY}: port {port} belongs to {first} and to {second}, expected one of them")]
    Shared { config_map: String, port: u16, first: NodeId, second: NodeId },
}

/// A pod that exists, be it alive or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The pod's name.
    pub id: NodeId,
    /// Empty where it is known by its host_id.
    pub stateful_set: Arc<str>,
    pub ordinal: u32,
    /// The port that it gets if it has none and nobody holds that one: first port + ordinal - first ordinal, for the pods of
    /// one StatefulSet only, the one that had these ports while it was alone, else the first by name.
    pub prefers: Option<u16>,
}

/// What one replica sees.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// Who is there.
    pub present: Vec<Member>,
    /// Who has been found to be gone, and has not been reported so far.
    pub gone: Vec<NodeId>,
    /// When this replica last saw them there.
    pub seen: BTreeMap<NodeId, SystemTime>,
}

/// On which terms ports are given. The same for every replica, or they hide each other's nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// The ports that are bound.
    pub range: PortRange,
    /// How long a port stays with a node that is gone. What the replicas see, and their clocks, may differ by a quarter of it.
    pub quarantine: Duration,
    /// Ports that the user gave, each to one node.
    pub pins: BTreeMap<NodeId, u16>,
}

/// Identity → port. No port is there twice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    entries: Claims,
}

/// What a ledger becomes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settled {
    pub ledger: Ledger,
    /// False where the ledger was right already.
    pub changed: bool,
    /// Present members without a port that can be used, and why.
    pub unplaced: BTreeMap<NodeId, PortError>,
}

impl Ledger {
    /// The ledger in the `data` of the ConfigMap `config_map` (namespace/name); empty where the key is absent.
    pub fn parse(config_map: &str, data: &BTreeMap<String, String>) -> Result<Self, LedgerError> {
        let config_map = || config_map.to_owned();
        let Some(text) = data.get(KEY) else { return Ok(Self::default()) };
        if text.len() > MAX_LEN {
            return Err(LedgerError::TooLong { config_map: config_map(), have: text.len() });
        }
        let entries = claims::parse(text).map_err(|text| LedgerError::Malformed { config_map: config_map(), text })?;
        let mut owners: BTreeMap<u16, &NodeId> = BTreeMap::new();
        for (second, claim) in &entries {
            if let Some(first) = owners.insert(claim.port, second) {
                let (first, second) = (first.clone(), second.clone());
                return Err(LedgerError::Shared { config_map: config_map(), port: claim.port, first, second });
            }
        }
        Ok(Self { entries })
    }

    /// What the key of the ConfigMap `config_map` shall hold.
    pub fn encode(&self, config_map: &str) -> Result<BTreeMap<String, String>, LedgerError> {
        let config_map = || config_map.to_owned();
        let malformed =
            |error: serde_json::Error| LedgerError::Malformed { config_map: config_map(), text: error.to_string() };
        let text = claims::encode(&self.entries).map_err(malformed)?;
        if text.len() > MAX_LEN {
            return Err(LedgerError::TooLong { config_map: config_map(), have: text.len() });
        }
        Ok(BTreeMap::from([(KEY.to_owned(), text)]))
    }

    pub fn entries(&self) -> &Claims {
        &self.entries
    }

    /// True where each of these has the port that it prefers and nobody need be asked: they are of one StatefulSet, and the
    /// ledger speaks of no other and says nothing else.
    pub fn follows_ordinals(&self, present: &[Member], range: &PortRange) -> bool {
        let Some(set) = only_set(present) else { return present.is_empty() };
        if !self.is_of(set) || self.is_void(present, range) {
            return self.is_of(set);
        }
        let owned: BTreeSet<u16> = self.entries.values().map(|claim| claim.port).collect();
        present.iter().all(|member| match self.entries.get(&member.id) {
            Some(claim) => Some(claim.port) == member.prefers,
            None => member.prefers.is_none_or(|port| !owned.contains(&port)),
        })
    }

    /// The StatefulSet of `present` most of whose pods have the ports of their ordinals: the one that was alone once; else
    /// the first by name. Here everyone prefers the port of its ordinal.
    pub fn first_of<'a>(&self, present: &'a [Member]) -> Option<&'a Arc<str>> {
        let mut counts: BTreeMap<&Arc<str>, usize> = BTreeMap::new();
        for member in present {
            let port = self.entries.get(&member.id).map(|claim| claim.port);
            *counts.entry(&member.stateful_set).or_default() += usize::from(port.is_some() && port == member.prefers);
        }
        counts.into_iter().rev().max_by_key(|(_, count)| *count).map(|(set, _)| set)
    }

    /// It speaks of pods of this StatefulSet alone.
    fn is_of(&self, set: &str) -> bool {
        self.entries.keys().all(|id| id.0.rsplit_once('-').is_some_and(|(of, _)| of == set))
    }

    /// One StatefulSet has the ports of a range that is no longer the one that is bound: it has those of its ordinals in the new
    /// one, as it would have without a ledger.
    fn is_void(&self, present: &[Member], range: &PortRange) -> bool {
        let outside = |member: &Member| self.entries.get(&member.id).is_some_and(|claim| !range.contains(claim.port));
        present.iter().any(outside) && only_set(present).is_some_and(|set| self.is_of(set))
    }

    /// The ledger after a look at the cluster: whoever is present is there and has a port, a quarantine begins for whoever is
    /// gone (and not present), and those that are over end. Members that are neither stay as they are. A quarantine counts
    /// from the last sight of the node that whoever writes has had: the store may not have been told of it.
    pub fn settle(&self, view: &View, terms: &Terms, now: SystemTime) -> Settled {
        let members: BTreeMap<&NodeId, &Member> = view.present.iter().map(|member| (&member.id, member)).collect();
        let mut ledger = if self.is_void(&view.present, &terms.range) { Self::default() } else { self.clone() };
        for (id, claim) in &mut ledger.entries {
            claim.left = match claim.left {
                Some(left) if !members.contains_key(id) => Some(view.seen.get(id).map_or(left, |seen| left.max(*seen))),
                _ => None,
            };
        }
        ledger.leave(view.gone.iter().filter(|id| !members.contains_key(id)), now);
        let refused = ledger.pin(&members, terms, now);
        let new = |id: &NodeId| !ledger.entries.contains_key(id) && !refused.contains_key(id);
        let new = members.values().filter(|member| new(&member.id)).copied().collect();
        let mut unplaced = ledger.place(new, terms, now);
        unplaced.extend(refused);
        let (first, last) = (terms.range.first(), terms.range.last());
        for (id, claim) in ledger.entries.iter().filter(|(id, _)| members.contains_key(id)) {
            let port = claim.port;
            if !terms.range.contains(port) {
                let node = id.clone();
                unplaced.insert(id.clone(), PortError::OutsideRange { key: CONFIG_KEY, port, node, first, last });
            }
        }
        let changed = ledger != *self;
        Settled { ledger, changed, unplaced }
    }

    /// When the next quarantine ends after `now`: then to settle again may find a port.
    pub fn deadline(&self, quarantine: Duration, now: SystemTime) -> Option<SystemTime> {
        next_end(&self.entries, quarantine, now)
    }

    fn leave<'a>(&mut self, gone: impl Iterator<Item = &'a NodeId>, now: SystemTime) {
        for id in gone {
            if let Some(claim) = self.entries.get_mut(id) {
                claim.leave(now);
            }
        }
    }

    /// Gives members the ports that are pinned to them, also in place of others that they have. A port that another one holds,
    /// or has left not long ago, stays where it is: then the pin is refused, and why.
    fn pin(
        &mut self,
        members: &BTreeMap<&NodeId, &Member>,
        terms: &Terms,
        now: SystemTime,
    ) -> BTreeMap<NodeId, PortError> {
        loop {
            let mut refused = BTreeMap::new();
            let before = self.entries.clone();
            for (id, &port) in terms.pins.iter().filter(|(id, _)| members.contains_key(id)) {
                match self.entries.iter().find(|(_, claim)| claim.port == port) {
                    Some((holder, _)) if holder == id => {}
                    Some((holder, claim)) if !claim.is_over(terms.quarantine, now) => {
                        let (first, second) = (holder.clone(), id.clone());
                        refused.insert(id.clone(), PortError::Overlap { key: PINS, port, first, second });
                    }
                    former => {
                        let former = former.map(|(former, _)| former.clone());
                        former.and_then(|former| self.entries.remove(&former));
                        self.entries.insert(id.clone(), Claim { port, left: None });
                    }
                }
            }
            // One that has moved may have made room for another.
            if self.entries == before {
                return refused;
            }
        }
    }

    /// Gives ports to members that have none: first to each the port that it prefers, then to the others from the end of the
    /// range downward, so that the two directions meet last; when all have been had, that of whoever left longest ago. In the order
    /// of StatefulSets and ordinals, so that the choice depends on nothing but the ledger and who is there.
    fn place(&mut self, mut new: Vec<&Member>, terms: &Terms, now: SystemTime) -> BTreeMap<NodeId, PortError> {
        let range = &terms.range;
        let taken = self.entries.values().map(|claim| &claim.port).chain(terms.pins.values());
        let taken: BTreeSet<&u16> = taken.collect();
        let mut free: BTreeSet<u16> = range.iter().filter(|port| !taken.contains(port)).collect();
        let pinned = |port: &u16| terms.pins.values().any(|pin| pin == port);
        let over = over(&self.entries, terms.quarantine, now).into_iter();
        let mut had: VecDeque<u16> =
            over.map(|(_, port)| port).filter(|port| range.contains(*port) && !pinned(port)).collect();
        new.sort_by(|a, b| (&a.stateful_set, a.ordinal, &a.id).cmp(&(&b.stateful_set, b.ordinal, &b.id)));
        let mut others = Vec::new();
        for member in new {
            match member.prefers.filter(|port| free.remove(port) || take(&mut had, *port)) {
                Some(port) => self.give(member, port),
                None => others.push(member),
            }
        }
        let mut refused = Vec::new();
        for member in others {
            // Who is of no StatefulSet takes nobody's ordinal.
            let port = if member.stateful_set.is_empty() { free.pop_first() } else { free.pop_last() };
            match port.or_else(|| had.pop_front()) {
                Some(port) => self.give(member, port),
                None => refused.push(&member.id),
            }
        }
        let quarantined = self.entries.values().filter(|claim| claim.left.is_some()).count();
        let need = self.entries.len() - quarantined + refused.len();
        let (first, last, have) = (range.first(), range.last(), range.count());
        let error = PortError::TooSmall { key: "listen", first, last, have, need, quarantined };
        refused.into_iter().map(|id| (id.clone(), error.clone())).collect()
    }

    fn give(&mut self, member: &Member, port: u16) {
        self.entries.retain(|_, claim| claim.port != port);
        self.entries.insert(member.id.clone(), Claim { port, left: None });
    }
}

/// True where `port` was among them.
fn take(ports: &mut VecDeque<u16>, port: u16) -> bool {
    let at = ports.iter().position(|of| *of == port);
    at.and_then(|at| ports.remove(at)).is_some()
}

/// The StatefulSet of all of these; `None` where they are of several, or of none, or nobody.
pub fn only_set(members: &[Member]) -> Option<&Arc<str>> {
    let (first, others) = members.split_first()?;
    if first.stateful_set.is_empty() {
        return None;
    }
    others.iter().all(|other| other.stateful_set == first.stateful_set).then_some(&first.stateful_set)
}

#[cfg(test)]
mod tests;
