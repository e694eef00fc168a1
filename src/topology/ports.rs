//! Who has which port of the external address. Pure: the time comes from the caller.
//!
//! A port is kept by identity: the same node always has the same port, also when it comes back after years, for nothing is
//! forgotten. Another node has it only where no other port is left, then that of whoever left longest ago, and never before a
//! quarantine has ended, because drivers remember `host_id → address:port` for as long as they live and would take the newcomer
//! for the node that they knew. Nothing here moves a port from a node that has one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use thiserror::Error;

use super::NodeId;

/// How long the port of a node that left is given to nobody else. A day outlives the sessions of nightly batch jobs, which
/// are the clients that may not have read `peers` since the node left; the node itself gets its port back at any time.
pub const DEFAULT_QUARANTINE: Duration = Duration::from_secs(24 * 60 * 60);

/// Why a port cannot be given; each names the configuration key that decides it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PortError {
    #[error("{key}: ports {first}-{last} go beyond 65535")]
    BeyondLastPort { key: &'static str, first: u32, last: u32 },
    #[error("{key}: the first port {first} comes after the last port {last}")]
    Reversed { key: &'static str, first: u32, last: u32 },
    #[error("{key}: ports {first}-{last} are {have}, too few for {need} nodes ({quarantined} in quarantine)")]
    TooSmall { key: &'static str, first: u16, last: u16, have: usize, need: usize, quarantined: usize },
    #[error("{key}: port {port} of {second} is already the port of {first}")]
    Overlap { key: &'static str, port: u16, first: NodeId, second: NodeId },
    #[error("{key}: port {port} of {node} is outside of the listening ports {first}-{last}")]
    OutsideRange { key: &'static str, port: u16, node: NodeId, first: u16, last: u16 },
    #[error("{key}: {stateful_set} is not among them, and its pod {node} has no port")]
    NoRange { key: &'static str, node: NodeId, stateful_set: Arc<str> },
    #[error("{key}: {node} is of no StatefulSet, and has a port only by the ledger, or where it is pinned to one")]
    NoOrdinal { key: &'static str, node: NodeId },
    #[error(
        "{key}: ordinal {ordinal} of {node} is outside of its ports {first}-{last}, whose first is ordinal {first_ordinal}'s"
    )]
    BeyondRange { key: &'static str, node: NodeId, ordinal: u32, first_ordinal: u32, first: u16, last: u16 },
    #[error("{key}: port {port} is {owner}'s, and {node}, whose it would be by its ordinal, has none")]
    Pinned { key: &'static str, port: u16, node: NodeId, owner: NodeId },
    #[error("{key}: {node} has no port until the replicas of the gateway have agreed on one: {why}")]
    NotAgreed { key: &'static str, node: NodeId, why: Arc<str> },
    #[error("{key}: {node} has port {has} and cannot be given port {wants}")]
    Moved { key: &'static str, node: NodeId, has: u16, wants: u16 },
}

/// The ports that are bound: consecutive ones, or (tests) those that the system chose. Ascending, at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortRange {
    ports: Vec<u16>,
}

impl PortRange {
    /// `first..=last`; numbers are wider than a port so that the error can name what the user wrote.
    pub fn new(first: u32, last: u32) -> Result<Self, PortError> {
        if first > last {
            return Err(PortError::Reversed { key: "listen", first, last });
        }
        let beyond = PortError::BeyondLastPort { key: "listen", first, last };
        let (Ok(first), Ok(last)) = (u16::try_from(first), u16::try_from(last)) else { return Err(beyond) };
        Ok(Self { ports: (first..=last).collect() })
    }

    /// The ports that the system chose for sockets bound to port 0; `None` when there are none.
    pub fn of_bound(mut ports: Vec<u16>) -> Option<Self> {
        ports.sort_unstable();
        ports.dedup();
        (!ports.is_empty()).then_some(Self { ports })
    }

    pub fn contains(&self, port: u16) -> bool {
        self.ports.binary_search(&port).is_ok()
    }

    pub fn first(&self) -> u16 {
        self.ports.first().copied().unwrap_or_default()
    }

    pub fn last(&self) -> u16 {
        self.ports.last().copied().unwrap_or_default()
    }

    pub fn iter(&self) -> impl Iterator<Item = u16> + '_ {
        self.ports.iter().copied()
    }

    pub fn count(&self) -> usize {
        self.ports.len()
    }
}

/// One node's hold on a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    pub port: u16,
    /// When the node left; `None` while it is there.
    pub left: Option<SystemTime>,
}

/// Who has which port.
pub type Claims = BTreeMap<NodeId, Claim>;

/// The one rule of quarantine: nobody else has the port of a node that left before `quarantine` has passed since. Whoever keeps claims
/// goes by it, be it one process or the ledger of several.
impl Claim {
    /// The node has left: its quarantine begins, if it has not begun already.
    pub fn leave(&mut self, now: SystemTime) {
        self.left.get_or_insert(now);
    }

    /// When the quarantine ends; `None` while the node is there. A time beyond what the clock can tell (a damaged state file) never
    /// comes.
    pub fn ends(&self, quarantine: Duration) -> Option<SystemTime> {
        self.left?.checked_add(quarantine)
    }

    /// Another node may have the port.
    pub fn is_over(&self, quarantine: Duration, now: SystemTime) -> bool {
        self.ends(quarantine).is_some_and(|end| end <= now)
    }
}

/// Whose port another node may have, whoever left longest ago first.
pub fn over(claims: &Claims, quarantine: Duration, now: SystemTime) -> Vec<(&NodeId, u16)> {
    let mut over: Vec<_> = claims.iter().filter(|(_, claim)| claim.is_over(quarantine, now)).collect();
    over.sort_by_key(|(_, claim)| (claim.left, claim.port));
    over.into_iter().map(|(id, claim)| (id, claim.port)).collect()
}

/// When the next quarantine ends after `now`.
pub fn next_end(claims: &Claims, quarantine: Duration, now: SystemTime) -> Option<SystemTime> {
    claims.values().filter_map(|claim| claim.ends(quarantine)).filter(|end| *end > now).min()
}

/// Node → port.
#[derive(Clone, Debug)]
pub struct PortMap {
    range: PortRange,
    quarantine: Duration,
    claims: Claims,
    /// The same by port.
    owners: BTreeMap<u16, NodeId>,
}

impl PortMap {
    pub fn new(range: PortRange, quarantine: Duration) -> Self {
        Self { range, quarantine, claims: BTreeMap::new(), owners: BTreeMap::new() }
    }

    /// The node's port: the one it has, or had; else `explicit`; else the lowest that nobody has or had; else that of whoever left
    /// longest ago.
    pub fn assign(&mut self, id: &NodeId, explicit: Option<u16>, now: SystemTime) -> Result<u16, PortError> {
        let (first, last) = (self.range.first(), self.range.last());
        if let Some(claim) = self.claims.get_mut(id) {
            if let Some(wants) = explicit.filter(|&wants| wants != claim.port) {
                return Err(PortError::Moved { key: "discovery", node: id.clone(), has: claim.port, wants });
            }
            claim.left = None;
            return Ok(claim.port);
        }
        let port = match explicit {
            Some(port) if !self.range.contains(port) => {
                return Err(PortError::OutsideRange { key: "discovery", port, node: id.clone(), first, last });
            }
            Some(port) => match self.owners.get(&port) {
                Some(owner) if !self.is_over(owner, now) => {
                    let (first, second) = (owner.clone(), id.clone());
                    return Err(PortError::Overlap { key: "discovery", port, first, second });
                }
                _ => port,
            },
            None => {
                let never_had = self.range.iter().find(|port| !self.owners.contains_key(port));
                let left = || over(&self.claims, self.quarantine, now).first().map(|(_, port)| *port);
                never_had.or_else(left).ok_or_else(|| {
                    let quarantined = self.claims.values().filter(|claim| claim.left.is_some()).count();
                    let need = self.claims.len() - quarantined + 1;
                    PortError::TooSmall { key: "listen", first, last, have: self.range.count(), need, quarantined }
                })?
            }
        };
        if let Some(former) = self.owners.get(&port) {
            self.claims.remove(former);
        }
        self.claims.insert(id.clone(), Claim { port, left: None });
        self.owners.insert(port, id.clone());
        Ok(port)
    }

    pub fn release(&mut self, id: &NodeId, now: SystemTime) {
        if let Some(claim) = self.claims.get_mut(id) {
            claim.leave(now);
        }
    }

    /// Takes a claim over from an earlier run (the state file).
    pub fn restore(&mut self, id: NodeId, claim: Claim) -> Result<(), PortError> {
        let port = claim.port;
        if !self.range.contains(port) {
            let (first, last) = (self.range.first(), self.range.last());
            return Err(PortError::OutsideRange { key: "discovery.state_file", port, node: id, first, last });
        }
        if let Some(owner) = self.owners.get(&port).filter(|&owner| *owner != id) {
            return Err(PortError::Overlap { key: "discovery.state_file", port, first: owner.clone(), second: id });
        }
        self.owners.insert(port, id.clone());
        if let Some(before) = self.claims.insert(id, claim).filter(|before| before.port != port) {
            self.owners.remove(&before.port);
        }
        Ok(())
    }

    /// Another node may have this one's port, or has it.
    pub fn is_over(&self, id: &NodeId, now: SystemTime) -> bool {
        self.claims.get(id).is_none_or(|claim| claim.is_over(self.quarantine, now))
    }

    /// When the next quarantine ends after `now`.
    pub fn deadline(&self, now: SystemTime) -> Option<SystemTime> {
        next_end(&self.claims, self.quarantine, now)
    }

    pub fn claims(&self) -> &Claims {
        &self.claims
    }

    pub fn range(&self) -> &PortRange {
        &self.range
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, HashMap};

    use proptest::prelude::*;

    use super::*;

    fn map(first: u32, last: u32) -> PortMap {
        PortMap::new(PortRange::new(first, last).unwrap(), Duration::from_secs(100))
    }

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn check_error(result: Result<impl std::fmt::Debug, PortError>, expected: &str) {
        assert_eq!(result.unwrap_err().to_string(), expected);
    }

    #[test]
    fn errors_name_the_key_and_the_numbers() {
        check_error(PortRange::new(65000, 70000), "listen: ports 65000-70000 go beyond 65535");
        check_error(PortRange::new(9050, 9042), "listen: the first port 9050 comes after the last port 9042");
        let mut ports = map(9042, 9043);
        ports.assign(&NodeId::new("a"), Some(9042), at(0)).unwrap();
        check_error(
            ports.assign(&NodeId::new("b"), Some(9042), at(0)),
            "discovery: port 9042 of b is already the port of a",
        );
        check_error(
            ports.assign(&NodeId::new("b"), Some(9999), at(0)),
            "discovery: port 9999 of b is outside of the listening ports 9042-9043",
        );
        check_error(
            ports.assign(&NodeId::new("a"), Some(9043), at(0)),
            "discovery: a has port 9042 and cannot be given port 9043",
        );
        ports.assign(&NodeId::new("b"), None, at(0)).unwrap();
        ports.release(&NodeId::new("b"), at(1));
        check_error(
            ports.assign(&NodeId::new("c"), None, at(100)),
            "listen: ports 9042-9043 are 2, too few for 2 nodes (1 in quarantine)",
        );
    }

    #[test]
    fn a_port_in_quarantine_returns_to_its_own_node_only() {
        let mut ports = map(9042, 9042);
        let (a, b) = (NodeId::new("a"), NodeId::new("b"));
        assert_eq!(ports.assign(&a, None, at(0)), Ok(9042));
        ports.release(&a, at(10));
        assert!(ports.assign(&b, None, at(11)).is_err());
        assert_eq!(ports.assign(&a, None, at(12)), Ok(9042));
        ports.release(&a, at(20));
        ports.release(&a, at(90));
        assert_eq!(ports.deadline(at(90)), Some(at(120)));
        assert!(!ports.is_over(&a, at(119)) && ports.assign(&b, None, at(119)).is_err());
        assert!(ports.is_over(&a, at(120)));
        assert_eq!(ports.deadline(at(120)), None);
        assert_eq!(ports.assign(&b, None, at(120)), Ok(9042));
        assert!(ports.assign(&a, None, at(120)).is_err());
    }

    #[test]
    fn a_port_is_given_again_only_where_no_other_is_left_and_then_that_of_whoever_left_first() {
        let mut ports = map(9042, 9045);
        let [a, b, c, d, e, f] = ["a", "b", "c", "d", "e", "f"].map(NodeId::new);
        for (id, port) in [(&a, 9042), (&b, 9043), (&c, 9044)] {
            assert_eq!(ports.assign(id, None, at(0)), Ok(port));
        }
        ports.release(&b, at(1));
        ports.release(&a, at(2));
        assert_eq!(ports.assign(&d, None, at(1000)), Ok(9045));
        // Years later it is who it was.
        assert_eq!(ports.assign(&a, None, at(100_000_000)), Ok(9042));
        ports.release(&a, at(100_000_001));
        assert_eq!(ports.assign(&e, None, at(100_001_000)), Ok(9043));
        assert_eq!(ports.assign(&f, Some(9042), at(100_001_000)), Ok(9042));
        assert!(ports.assign(&b, None, at(100_001_000)).is_err());
    }

    #[test]
    fn claims_of_an_earlier_run_are_kept() {
        let mut ports = map(9042, 9044);
        ports.restore(NodeId::new("b"), Claim { port: 9042, left: None }).unwrap();
        assert_eq!(ports.assign(&NodeId::new("a"), None, at(0)), Ok(9043));
        assert_eq!(ports.assign(&NodeId::new("b"), None, at(0)), Ok(9042));
        check_error(
            ports.restore(NodeId::new("c"), Claim { port: 9042, left: None }),
            "discovery.state_file: port 9042 of c is already the port of b",
        );
        check_error(
            ports.restore(NodeId::new("c"), Claim { port: 1, left: None }),
            "discovery.state_file: port 1 of c is outside of the listening ports 9042-9044",
        );
    }

    #[derive(Clone, Debug)]
    enum Act {
        Assign(u8, Option<u16>),
        Release(u8),
    }

    fn act() -> impl Strategy<Value = Act> {
        let node = 0u8..12;
        prop_oneof![
            (node.clone(), prop::option::weighted(0.2, 9040u16..9052)).prop_map(|(n, p)| Act::Assign(n, p)),
            node.prop_map(Act::Release),
        ]
    }

    proptest! {
        #[test]
        fn ports_are_unique_in_range_and_never_move(acts in prop::collection::vec(act(), 1..200)) {
            let mut ports = map(9042, 9049);
            let mut known: HashMap<NodeId, u16> = HashMap::new();
            let mut left: HashMap<NodeId, SystemTime> = HashMap::new();
            for (second, act) in (0u64..).zip(acts) {
                let now = at(second * 7);
                match act {
                    Act::Assign(n, explicit) => {
                        let id = NodeId::new(&format!("n{n}"));
                        if let Ok(port) = ports.assign(&id, explicit, now) {
                            let holder = known.iter().find(|(other, at)| **other != id && **at == port);
                            if let Some(former) = holder.map(|(former, _)| former.clone()) {
                                let gone = left.get(&former).map(|at| now.duration_since(*at).unwrap());
                                prop_assert!(gone.is_some_and(|gone| gone >= Duration::from_secs(100)));
                                known.remove(&former);
                            }
                            left.remove(&id);
                            prop_assert_eq!(*known.entry(id).or_insert(port), port);
                        }
                    }
                    Act::Release(n) => {
                        let id = NodeId::new(&format!("n{n}"));
                        ports.release(&id, now);
                        left.entry(id).or_insert(now);
                    }
                }
                let held: BTreeSet<u16> = ports.claims().values().map(|claim| claim.port).collect();
                prop_assert_eq!(held.len(), ports.claims().len());
                prop_assert!(ports.owners.keys().eq(&held));
                prop_assert!(held.iter().all(|&port| ports.range().contains(port)));
                for (id, port) in &known {
                    prop_assert_eq!(ports.claims().get(id).map(|claim| claim.port), Some(*port));
                }
            }
        }
    }
}
