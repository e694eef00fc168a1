//! 0.1.0's ledger.

pub mod agreement;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use thiserror::Error;

use crate::topology::NodeId;
use crate::topology::ports::{Claim, PortError, PortRange};

use super::claims::{self, Claims};

pub const KEY: &str = "ports.json";
const MAX_LEN: usize = 1024 * 1024;
const CONFIG_KEY: &str = "discovery.kubernetes.ledger";

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

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub id: NodeId,
    pub stateful_set: Arc<str>,
    pub ordinal: u32,
    pub prefers: Option<u16>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    pub present: Vec<Member>,
    pub gone: Vec<NodeId>,
    pub seen: BTreeMap<NodeId, SystemTime>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    pub range: PortRange,
    pub quarantine: Duration,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    entries: Claims,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settled {
    pub ledger: Ledger,
    pub changed: bool,
    pub unplaced: BTreeMap<NodeId, PortError>,
}

impl Ledger {
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

    pub fn first_of<'a>(&self, present: &'a [Member]) -> Option<&'a Arc<str>> {
        let mut counts: BTreeMap<&Arc<str>, usize> = BTreeMap::new();
        for member in present {
            let port = self.entries.get(&member.id).map(|claim| claim.port);
            *counts.entry(&member.stateful_set).or_default() += usize::from(port.is_some() && port == member.prefers);
        }
        counts.into_iter().rev().max_by_key(|(_, count)| *count).map(|(set, _)| set)
    }

    fn is_of(&self, set: &str) -> bool {
        self.entries.keys().all(|id| id.0.rsplit_once('-').is_some_and(|(of, _)| of == set))
    }

    fn is_void(&self, present: &[Member], range: &PortRange) -> bool {
        let outside = |member: &Member| self.entries.get(&member.id).is_some_and(|claim| !range.contains(claim.port));
        present.iter().any(outside) && only_set(present).is_some_and(|set| self.is_of(set))
    }

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
        for id in ledger.over(terms.quarantine, now) {
            ledger.entries.remove(&id);
        }
        let new = members.values().filter(|member| !ledger.entries.contains_key(&member.id)).copied().collect();
        let mut unplaced = ledger.place(new, &terms.range);
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

    pub fn deadline(&self, quarantine: Duration) -> Option<SystemTime> {
        self.entries.values().filter_map(|claim| claim.left?.checked_add(quarantine)).min()
    }

    fn leave<'a>(&mut self, gone: impl Iterator<Item = &'a NodeId>, now: SystemTime) {
        for id in gone {
            if let Some(claim) = self.entries.get_mut(id) {
                claim.left.get_or_insert(now);
            }
        }
    }

    fn over(&self, quarantine: Duration, now: SystemTime) -> Vec<NodeId> {
        let end = |claim: &Claim| claim.left.and_then(|left| left.checked_add(quarantine));
        let over = self.entries.iter().filter(|(_, claim)| end(claim).is_some_and(|end| end <= now));
        over.map(|(id, _)| id.clone()).collect()
    }

    fn place(&mut self, mut new: Vec<&Member>, range: &PortRange) -> BTreeMap<NodeId, PortError> {
        let mut free: BTreeSet<u16> = range.iter().collect();
        for claim in self.entries.values() {
            free.remove(&claim.port);
        }
        new.sort_by(|a, b| (&a.stateful_set, a.ordinal, &a.id).cmp(&(&b.stateful_set, b.ordinal, &b.id)));
        let mut others = Vec::new();
        for member in new {
            match member.prefers.filter(|port| free.remove(port)) {
                Some(port) => self.give(member, port),
                None => others.push(member),
            }
        }
        let mut refused = Vec::new();
        for member in others {
            match free.pop_last() {
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
        self.entries.insert(member.id.clone(), Claim { port, left: None });
    }
}

pub fn only_set(members: &[Member]) -> Option<&Arc<str>> {
    let (first, others) = members.split_first()?;
    others.iter().all(|other| other.stateful_set == first.stateful_set).then_some(&first.stateful_set)
}
