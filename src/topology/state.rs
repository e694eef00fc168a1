//! The only writer of the topology: folds what was learned into the next snapshot. Pure; the time comes with each input.
//!
//! Facts are kept for each node (`Record`); after every input its state is concluded anew from all of them, so that the
//! order in which news arrive matters as little as possible. A node is `Up` only while it answers at its present address
//! and nothing contradicts that it is the node it should be. Two nodes never have one host_id, nor one port.

mod doubt;
mod identity;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::config::External;
use crate::config::advertise;

use super::input::{Found, Identity, Input, Listed, Notice, Observation, Placement};
use super::paths::{Learned, Paths};
use super::ports::{Claim, Claims, DEFAULT_QUARANTINE, PortError, PortMap, PortRange};
use super::record::Record;
use super::{Hidden, HiddenReason, HostId, NodeId, NodeState, Topology, canonical, is_shown};

/// Hidden rows kept for `/topology`: enough to see what is wrong, too few to matter.
const MAX_HIDDEN: usize = 64;
/// A hidden row that was not seen for this long is no longer listed.
const HIDDEN_FOR: Duration = Duration::from_secs(600);
/// Former addresses kept for each port of the range; an event about an older one counts as unknown.
const FORMER_PER_PORT: usize = 8;

/// The two waits of the topology.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// How long the port of a node that left stays its own.
    pub quarantine: Duration,
    /// From a node's first `Up` until it is `settled`. Cassandra's own NEW_NODE comes within a second of the open port, and a
    /// new row reaches the other nodes' `peers` in about as long; five leave room.
    pub grace: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { quarantine: DEFAULT_QUARANTINE, grace: Duration::from_secs(5) }
    }
}

/// All that is known, and the last snapshot made of it.
#[derive(Clone, Debug)]
pub struct State {
    options: Options,
    ports: PortMap,
    /// When the last input came.
    looked: SystemTime,
    records: BTreeMap<NodeId, Record>,
    /// The last set that discovery gave; `None` until the first.
    found: Option<Vec<Found>>,
    /// Nodes of that set without a port, and why.
    unplaced: BTreeMap<NodeId, (SocketAddr, Option<HostId>, PortError)>,
    /// Nodes that exist and have no address, and so no place in that set.
    unresolved: BTreeSet<NodeId>,
    cluster_name: Option<Arc<str>>,
    /// Addresses that nodes have left, oldest first.
    former: Vec<(SocketAddr, NodeId)>,
    hidden: Vec<(Hidden, SystemTime)>,
    /// What clients are to be told, as the configuration has it, and what is known of the addresses in it.
    plan: Arc<[advertise::Path]>,
    learned: BTreeMap<External, Learned>,
    paths: Arc<Paths>,
    notices: Vec<Notice>,
    /// Nodes that are up and are to be asked again at once.
    questions: BTreeSet<NodeId>,
    /// Inputs so far: says which of two claims to an address is newer.
    inputs: u64,
    /// Lives of nodes so far: no two lives, whichever node's, share an incarnation.
    lives: u64,
    published: Topology,
}

impl State {
    pub fn new(range: PortRange, options: Options) -> Self {
        Self {
            options,
            ports: PortMap::new(range, options.quarantine),
            looked: SystemTime::UNIX_EPOCH,
            records: BTreeMap::new(),
            found: None,
            unplaced: BTreeMap::new(),
            unresolved: BTreeSet::new(),
            cluster_name: None,
            former: Vec::new(),
            hidden: Vec::new(),
            plan: Arc::default(),
            learned: BTreeMap::new(),
            paths: Arc::default(),
            notices: Vec::new(),
            questions: BTreeSet::new(),
            inputs: 0,
            lives: 0,
            published: Topology::default(),
        }
    }

    /// Takes a port over from an earlier run, before the first input. A node that left in the future, by a clock that was ahead
    /// then, leaves now: its quarantine is not the longer for it.
    pub fn restore(&mut self, id: NodeId, claim: Claim, now: SystemTime) -> Result<(), PortError> {
        self.ports.restore(id, Claim { left: claim.left.map(|left| left.min(now)), ..claim })
    }

    /// Folds one input in. `Some` with the next generation when a reader could see a difference.
    pub fn apply(&mut self, input: Input, now: SystemTime) -> Option<Topology> {
        self.inputs += 1;
        self.expire(now);
        match input {
            Input::Nodes(found) => {
                self.found = Some(found);
                self.place(now);
            }
            Input::Unresolved(id) => _ = self.unresolved.insert(id),
            Input::Alive { id, address, identity } => {
                if let Some(record) = self.present(&id, address) {
                    record.answers = Some(true);
                    record.probed = true;
                    self.learn(&id, &identity);
                }
            }
            Input::Dead { id, address, reason } => {
                if let Some(record) = self.present(&id, address) {
                    let news = record.answers.replace(false) != Some(false);
                    record.probed = true;
                    record.verified = false;
                    if news {
                        self.notices.push(Notice::Died { id, address, reason });
                    }
                }
            }
            Input::Observed(Observation { port, incarnation, identity }) => {
                if let Some(id) = self.living(port, incarnation) {
                    self.learn(&id, &identity);
                }
            }
            Input::Doubted { port, incarnation } => self.questions.extend(self.living(port, incarnation)),
            Input::Paths(plan) => {
                self.plan = plan;
                self.lead();
            }
            Input::External(external, learned) => {
                self.learned.insert(external, learned);
                self.lead();
            }
            Input::Hidden(hidden) => self.hide(hidden, now),
            Input::Tick => {}
        }
        self.conclude(now);
        // Whoever stayed only because it was up goes with that.
        if self.records.values().any(|record| record.kept && record.state != NodeState::Up) {
            self.place(now);
            self.conclude(now);
        }
        self.publish()
    }

    /// When `Input::Tick` would change something, if nothing else happens before.
    pub fn deadline(&self) -> Option<SystemTime> {
        let settling = self.records.values().filter(|record| !record.settled && !record.left);
        let settles = settling.filter_map(|record| record.announced).map(|at| at + self.options.grace);
        let fades = self.hidden.iter().map(|(_, seen)| *seen + HIDDEN_FOR);
        settles.chain(fades).chain(self.ports.deadline(self.looked)).min()
    }

    /// Looks up anew what clients dial.
    fn lead(&mut self) {
        let named = |external: &External| {
            self.plan.iter().flat_map(advertise::Path::parts).any(|part| part.external == *external)
        };
        // What was known before the plan is kept for it.
        if !self.plan.is_empty() {
            self.learned.retain(|external, _| named(external));
        }
        let paths = Paths::of(&self.plan, &self.learned, &self.paths);
        if paths != *self.paths {
            self.paths = Arc::new(paths);
        }
    }

    /// The last snapshot; generation 0 and empty before the first change.
    pub fn topology(&self) -> &Topology {
        &self.published
    }

    /// True once discovery has given a set of nodes.
    pub fn is_discovered(&self) -> bool {
        self.found.is_some()
    }

    /// Nodes that no probe has answered for yet, either way.
    pub fn unprobed(&self) -> impl Iterator<Item = &NodeId> {
        self.records.values().filter(|record| !record.probed && !record.left && record.present).map(|record| &record.id)
    }

    /// Who has which port, quarantines included: what a state file keeps.
    pub fn claims(&self) -> &Claims {
        self.ports.claims()
    }

    /// What the log should say about the inputs since the last call.
    pub fn take_notices(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.notices)
    }

    /// Nodes whose probes should look again at once, since the last call: somebody says what they contradict.
    pub fn take_questions(&mut self) -> BTreeSet<NodeId> {
        std::mem::take(&mut self.questions)
    }

    /// The node behind a port in that life.
    fn living(&self, port: u16, incarnation: u64) -> Option<NodeId> {
        let mut records = self.records.values();
        records.find(|r| r.port == port && r.incarnation == incarnation && !r.left).map(|record| record.id.clone())
    }

    /// The record of a node that lives at `address` now; late news of another address are nobody's.
    fn present(&mut self, id: &NodeId, address: SocketAddr) -> Option<&mut Record> {
        let record = self.records.get_mut(id)?;
        (!record.left && record.present && canonical(record.address) == canonical(address)).then_some(record)
    }

    /// Gives every node that was found a port and a record, and lets go of those that were not. In the order of ids, so that
    /// ports depend on nothing but the set.
    fn place(&mut self, now: SystemTime) {
        let mut found = self.found.take().unwrap_or_default();
        found.sort_by(|a, b| a.id.cmp(&b.id));
        found.dedup_by(|a, b| a.id == b.id);
        let left = self.keep_the_doubted(&found);
        let missing = |id: &NodeId| left.contains(id) || found.binary_search_by(|node| node.id.cmp(id)).is_err();
        self.unresolved.retain(missing);
        let gone: Vec<NodeId> = self.ports.claims().keys().filter(|id| missing(id)).cloned().collect();
        for id in gone {
            self.ports.release(&id, now);
            if let Some(record) = self.records.get_mut(&id).filter(|record| !record.left) {
                record.left = true;
                record.outlived = true;
                let address = record.native_address();
                self.leave(address, id);
            }
        }
        let unplaced = std::mem::take(&mut self.unplaced);
        // Ports that the user chose go first: an assigned one must not take them.
        let stays = found.iter().filter(|node| !left.contains(&node.id));
        let (assigned, chosen): (Vec<&Found>, Vec<&Found>) =
            stays.partition(|node| node.placement == Placement::Assigned);
        for node in chosen.into_iter().chain(assigned) {
            let port = match &node.placement {
                Placement::Assigned => self.ports.assign(&node.id, None, now),
                Placement::Chosen(port) => self.ports.assign(&node.id, Some(*port), now),
                Placement::Withheld(error) => Err(error.clone()),
            };
            match port {
                Ok(port) => self.place_one(node, port, node.port_why.clone(), now),
                Err(error) => {
                    // Whoever has a port keeps it, whatever was wanted, and is followed there.
                    let claim = self.ports.claims().get(&node.id).copied().filter(|claim| claim.left.is_none());
                    if unplaced.get(&node.id).is_none_or(|(_, _, before)| *before != error) {
                        let (id, error) = (node.id.clone(), error.clone());
                        self.notices.push(match claim {
                            Some(_) => Notice::KeepsPort { id, error },
                            None => Notice::NoPort { id, error },
                        });
                    }
                    let why = error.to_string().into();
                    self.unplaced.insert(node.id.clone(), (node.address, node.host_id, error));
                    if let Some(Claim { port, .. }) = claim {
                        self.place_one(node, port, Some(why), now);
                    }
                }
            }
        }
        self.found = Some(found);
    }

    fn place_one(&mut self, node: &Found, port: u16, port_why: Option<Arc<str>>, now: SystemTime) {
        let claimed = self.inputs;
        let Some(record) = self.records.get_mut(&node.id) else {
            self.records.insert(node.id.clone(), Record { port_why, ..Record::new(node, port, claimed, now) });
            return;
        };
        if record.left {
            *record = Record { incarnation: record.incarnation, port_why, ..Record::new(node, port, claimed, now) };
            return;
        }
        if record.pinned != node.host_id {
            record.pinned = node.host_id;
            if let Some(address) = record.forget_identity() {
                self.leave(address, node.id.clone());
            }
        }
        let Some(record) = self.records.get_mut(&node.id) else { return };
        record.host.clone_from(&node.host);
        record.port_why = port_why;
        record.leaving = node.leaving;
        let place = Identity { data_center: node.data_center.clone(), rack: node.rack.clone(), ..Identity::default() };
        record.learn_place(&place);
        if record.kept {
            return;
        }
        record.set_present(node.listed == Listed::Here);
        if record.address != node.address
            && let Some(address) = record.move_to(node.address, claimed)
        {
            self.leave(address, node.id.clone());
        }
    }

    /// `address` was the node's and is no longer.
    fn leave(&mut self, address: SocketAddr, id: NodeId) {
        let address = canonical(address);
        self.former.retain(|(former, _)| *former != address);
        self.former.push((address, id));
        let limit = self.ports.range().count() * FORMER_PER_PORT;
        let surplus = self.former.len().saturating_sub(limit);
        self.former.drain(..surplus);
    }

    fn hide(&mut self, hidden: Hidden, now: SystemTime) {
        // Its place stays, so that the same news twice is no news.
        if let Some((_, seen)) = self.hidden.iter_mut().find(|(before, _)| *before == hidden) {
            *seen = now;
            return;
        }
        // Those that are there stay, or more of them than there is room for would be news for ever.
        if self.hidden.len() < MAX_HIDDEN {
            self.hidden.push((hidden, now));
        }
    }

    /// Lets go of what time has ended.
    fn expire(&mut self, now: SystemTime) {
        let (ports, before) = (&self.ports, self.records.len());
        self.records.retain(|id, record| !(record.left && ports.is_over(id, now)));
        if self.records.len() < before {
            let records = &self.records;
            self.former.retain(|(_, owner)| records.contains_key(owner));
        }
        let has_ended = self.ports.deadline(self.looked).is_some_and(|end| end <= now);
        self.looked = now;
        if has_ended && !self.unplaced.is_empty() {
            self.place(now);
        }
        self.hidden.retain(|(_, seen)| *seen + HIDDEN_FOR > now);
    }

    /// Every node's state anew, from the facts.
    fn conclude(&mut self, now: SystemTime) {
        self.name_the_cluster();
        self.settle_disputes();
        let claims = self.claims_to_addresses();
        let contradictions: Vec<_> = self.records.values().map(|record| self.contradiction(record, &claims)).collect();
        for (record, contradiction) in self.records.values_mut().zip(contradictions) {
            if contradiction != record.contradiction {
                if let (Some(why), Some(true)) = (&contradiction, record.answers) {
                    let (id, address, why) = (record.id.clone(), record.address, why.clone());
                    self.notices.push(Notice::Refused { id, address, why });
                }
                record.contradiction = contradiction;
            }
            let state = record.concluded();
            if std::mem::take(&mut record.outlived) || (record.state == NodeState::Up && state != NodeState::Up) {
                self.lives += 1;
                record.incarnation = self.lives;
            }
            if state != record.state || (state == NodeState::Up && record.announced.is_none()) {
                record.since = now;
            }
            record.state = state;
            if state == NodeState::Up {
                record.announced.get_or_insert(now);
            }
            record.settled |= record.announced.is_some_and(|at| at + self.options.grace <= now);
        }
    }

    fn publish(&mut self) -> Option<Topology> {
        let nodes = self.records.values().map(Record::to_node);
        let next = Topology::new(self.published.generation + 1, Arc::clone(&self.paths), nodes)
            .with_former(self.former.iter().cloned())
            .sharing(&self.published);
        self.hidden.retain(|(hidden, _)| !is_shown(&next, hidden));
        let unresolved = self.unresolved.iter().map(|id| Hidden {
            id: Some(id.clone()),
            host_id: None,
            address: None,
            reason: HiddenReason::NotResolved,
        });
        let has_port = |id: &NodeId| self.records.get(id).is_some_and(|record| !record.left);
        let unplaced = self.unplaced.iter().filter(|(id, _)| !has_port(id));
        let unplaced = unplaced.map(|(id, (address, host_id, _))| Hidden {
            id: Some(id.clone()),
            host_id: *host_id,
            address: Some(*address),
            reason: HiddenReason::NoPort,
        });
        let mut hidden: Vec<Hidden> = unresolved.chain(unplaced).take(MAX_HIDDEN).collect();
        for (seen, _) in &self.hidden {
            let listed = |other: &Hidden| (other.host_id, other.address) == (seen.host_id, seen.address);
            if hidden.len() < MAX_HIDDEN && !hidden.iter().any(listed) {
                hidden.push(seen.clone());
            }
        }
        let next = next.with_hidden(hidden);
        if !next.differs_from(&self.published) {
            return None;
        }
        self.published = next.clone();
        Some(next)
    }
}

#[cfg(test)]
mod tests;
