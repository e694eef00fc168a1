//! Which port a pod's node has: the first port of its StatefulSet's range plus its ordinal, so that every replica of the
//! gateway, before and after a restart, computes the same and stores nothing. A port that is pinned is that pod's alone. Where
//! several StatefulSets share the ports it is what the replicas have agreed on, and while the API has not answered since the start,
//! what an earlier process knew. Nothing here moves a node that has a port: [`PortMap`](crate::topology::ports::PortMap) does not let it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch as latest;

use crate::config::kubernetes::{Kubernetes, StatefulSet};
use crate::topology::input::Placement;
use crate::topology::ports::{DEFAULT_QUARANTINE, PortError, PortRange};
use crate::topology::{NodeId, NodeState, Topology};

use super::agreed_ports::{Known, Wanted, publish};
use super::fold::Member;
use super::ledger::agreement::Unplaced;
use super::ledger::{self, Ledger};

/// The configuration key of pins.
pub const PINS: &str = "discovery.kubernetes.pins";

/// Whoever chooses ports for the pods of one Service.
pub struct Placements {
    config: Kubernetes,
    range: PortRange,
    /// Where no ranges are configured: who is there, and what was agreed.
    agreed: Option<(latest::Sender<Wanted>, latest::Receiver<Known>)>,
    /// Ports that an earlier process knew: they count until the API has told who is there.
    saved: HashMap<NodeId, u16>,
}

impl Placements {
    pub fn new(
        config: Kubernetes,
        range: PortRange,
        agreed: Option<(latest::Sender<Wanted>, latest::Receiver<Known>)>,
    ) -> Self {
        Self { config, range, agreed, saved: HashMap::new() }
    }

    /// Another configuration, and whom to agree with by it. What an earlier process knew stays.
    pub fn replace(&mut self, config: Kubernetes, agreed: Option<(latest::Sender<Wanted>, latest::Receiver<Known>)>) {
        (self.config, self.agreed) = (config, agreed);
    }

    /// What was agreed, where anything has to be.
    pub fn known(&self) -> Option<latest::Receiver<Known>> {
        self.agreed.as_ref().map(|(_, known)| known.clone())
    }

    /// What an earlier process knew; nothing once the API has answered.
    pub fn remember(&mut self, saved: HashMap<NodeId, u16>) {
        self.saved = saved;
    }

    /// The port of each of these, in their order, and why it is another one than its ordinal's, or its pin. Whoever agrees on ports
    /// is told who is there.
    pub fn choose(&self, members: &[(&NodeId, &Member)], topology: &Topology) -> Vec<(Placement, Option<Arc<str>>)> {
        let by_ordinal = |(id, member): &(&NodeId, &Member)| by_ordinal(id, member, &self.config, &self.range);
        let by_ordinal: Vec<Placement> = members.iter().map(by_ordinal).collect();
        let known = self.agreed.as_ref().map(|(wanted, known)| {
            publish(wanted, who_is_there(members, &by_ordinal, topology));
            (wanted.borrow(), known.borrow())
        });
        let (asked, ledger) = match known.as_ref().map(|(wanted, known)| (wanted, &**known)) {
            None => (None, None),
            Some((wanted, known @ Known::Ordinals(ledger))) => {
                (Some(known).filter(|_| !ledger.follows_ordinals(&wanted.present, &self.range)), Some(&**ledger))
            }
            Some((_, known @ Known::Agreed(agreed))) => (Some(known), Some(&agreed.ledger)),
            Some((_, known @ Known::Nothing(_))) => (Some(known), None),
        };
        let choose = |((id, _), by_ordinal): (&(&NodeId, &Member), Placement)| {
            let placement = self.saved(id).unwrap_or_else(|| match asked {
                Some(known) => agreed(id, known, topology),
                None => by_ordinal.clone(),
            });
            let why = self.why(id, &by_ordinal, &placement, ledger);
            (placement, why)
        };
        members.iter().zip(by_ordinal).map(choose).collect()
    }

    fn saved(&self, id: &NodeId) -> Option<Placement> {
        let port = self.saved.get(id)?;
        let pin = self.config.pins.get(&*id.0).filter(|pin| self.saved.values().all(|saved| saved != *pin));
        Some(Placement::Chosen(*pin.unwrap_or(port)))
    }

    fn why(
        &self,
        id: &NodeId,
        by_ordinal: &Placement,
        placement: &Placement,
        ledger: Option<&Ledger>,
    ) -> Option<Arc<str>> {
        let Placement::Chosen(port) = placement else { return None };
        let pinned = self.config.pins.contains_key(&*id.0);
        why(*port, by_ordinal, pinned, ledger, DEFAULT_QUARANTINE).map(Arc::from)
    }
}

/// Who is there and who has left, for whoever agrees on ports.
fn who_is_there(members: &[(&NodeId, &Member)], by_ordinal: &[Placement], topology: &Topology) -> Wanted {
    let present = members.iter().zip(by_ordinal).map(|((id, member), by_ordinal)| ledger::Member {
        id: NodeId::clone(id),
        stateful_set: Arc::clone(&member.stateful_set),
        ordinal: member.ordinal,
        prefers: match by_ordinal {
            Placement::Chosen(port) => Some(*port),
            _ => None,
        },
    });
    let gone = topology.nodes.iter().filter(|node| node.state == NodeState::Gone).map(|node| node.id.clone());
    Wanted { present: present.collect(), gone: gone.collect() }
}

/// What the replicas have agreed on for this node. Whoever has a port keeps it while others wait.
fn agreed(id: &NodeId, known: &Known, topology: &Topology) -> Placement {
    let why: Arc<str> = match known {
        Known::Ordinals(_) => "the ledger is being asked".into(),
        Known::Nothing(why) => Arc::clone(why),
        Known::Agreed(agreed) => match (agreed.ports.get(id), agreed.unplaced.get(id)) {
            (Some(port), _) => return Placement::Chosen(*port),
            (None, Some(Unplaced::Port(error))) => return Placement::Withheld(error.clone()),
            (None, Some(Unplaced::Store(error))) => error.to_string().into(),
            (None, None) => "the ledger is being asked".into(),
        },
    };
    let has = topology.node_by_id(id).filter(|node| node.state != NodeState::Gone).map(|node| node.port);
    let (key, node) = ("discovery.kubernetes.ledger", id.clone());
    has.map_or(Placement::Withheld(PortError::NotAgreed { key, node, why }), Placement::Chosen)
}

/// The port of one pod where ranges are configured, or where its StatefulSet is the only one.
pub fn by_ordinal(id: &NodeId, member: &Member, config: &Kubernetes, range: &PortRange) -> Placement {
    if let Some(port) = config.pins.get(&*id.0) {
        return Placement::Chosen(*port);
    }
    let placement = unpinned(id, member, config, range);
    let Placement::Chosen(port) = placement else { return placement };
    match config.pins.iter().find(|(_, pinned)| **pinned == port) {
        Some((owner, _)) => {
            Placement::Withheld(PortError::Pinned { key: PINS, port, node: id.clone(), owner: NodeId::new(owner) })
        }
        None => placement,
    }
}

/// Why a pod's node has `port` where its ordinal, or its pin, would give it another one; `None` where it has that one, or is of no
/// StatefulSet. `ledger` is what is known of the ports of all, `quarantine` how long each stays with a node that left.
fn why(
    port: u16,
    by_ordinal: &Placement,
    pinned: bool,
    ledger: Option<&Ledger>,
    quarantine: Duration,
) -> Option<String> {
    let expected = match by_ordinal {
        Placement::Chosen(expected) if *expected == port => return None,
        Placement::Chosen(expected) => *expected,
        Placement::Withheld(PortError::BeyondRange { ordinal, first, last, .. }) => {
            return Some(format!("ordinal {ordinal} is outside of ports {first}-{last}: the ledger says {port}"));
        }
        Placement::Withheld(PortError::Pinned { port: expected, owner, .. }) => {
            return Some(format!("{expected}, its ordinal's, is pinned to {owner}: the ledger says {port}"));
        }
        Placement::Withheld(PortError::NoOrdinal { .. }) => return None,
        Placement::Withheld(_) | Placement::Assigned => return Some(format!("the ledger says {port}")),
    };
    let whose = if pinned { "its pin" } else { "its ordinal's" };
    let holder = ledger.and_then(|ledger| ledger.entries().iter().find(|(_, claim)| claim.port == expected));
    let Some((holder, claim)) = holder else { return Some(format!("the ledger says {port}, not {expected}, {whose}")) };
    let until = claim.ends(quarantine).and_then(|end| Timestamp::try_from(end).ok());
    Some(match (claim.left, until) {
        (None, _) => format!("{expected}, {whose}, is held by {holder}"),
        (Some(_), Some(until)) => {
            format!("{expected}, {whose}, is {holder}'s, which has left, and no other's before {until:.0}")
        }
        (Some(_), None) => format!("{expected}, {whose}, is {holder}'s, which has left"),
    })
}

fn unpinned(id: &NodeId, member: &Member, config: &Kubernetes, range: &PortRange) -> Placement {
    let (node, ordinal) = (id.clone(), member.ordinal);
    if member.stateful_set.is_empty() {
        return Placement::Withheld(PortError::NoOrdinal { key: "discovery.kubernetes.statefulSets", node });
    }
    if config.stateful_sets.is_empty() {
        let first_ordinal = config.first_ordinal;
        return match position(ordinal, first_ordinal).and_then(|position| range.iter().nth(position)) {
            Some(port) => Placement::Chosen(port),
            None => {
                let (first, last) = (range.first(), range.last());
                Placement::Withheld(PortError::BeyondRange { key: "listen", node, ordinal, first_ordinal, first, last })
            }
        };
    }
    let key = "discovery.kubernetes.statefulSets";
    let Some(set) = config.stateful_sets.iter().find(|set| *set.name == *member.stateful_set) else {
        let stateful_set = Arc::clone(&member.stateful_set);
        return Placement::Withheld(PortError::NoRange { key, node, stateful_set });
    };
    let StatefulSet { ports, first_ordinal, .. } = set;
    let port = position(ordinal, *first_ordinal).and_then(|position| (ports.first..=ports.last).nth(position));
    port.map_or_else(
        || {
            let (first_ordinal, first, last) = (*first_ordinal, ports.first, ports.last);
            Placement::Withheld(PortError::BeyondRange { key, node, ordinal, first_ordinal, first, last })
        },
        Placement::Chosen,
    )
}

fn position(ordinal: u32, first_ordinal: u32) -> Option<usize> {
    usize::try_from(ordinal.checked_sub(first_ordinal)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::kubernetes::Ports;
    use crate::topology::input::Listed;

    fn check(pod: &str, config: &str, expected: Result<u16, &str>) {
        let (set, ordinal) = pod.rsplit_once('-').unwrap();
        let member = Member {
            stateful_set: set.into(),
            ordinal: ordinal.parse().unwrap(),
            address: "10.1.0.1:9042".parse().unwrap(),
            listed: Listed::Here,
            confirmed: true,
            leaving: false,
            hostname: None,
            zone: None,
        };
        let config: Kubernetes = serde_saphyr::from_str(&format!("service: cassandra\n{config}")).unwrap();
        let range = PortRange::new(9042, 9051).unwrap();
        match (by_ordinal(&NodeId::new(pod), &member, &config, &range), expected) {
            (Placement::Chosen(port), Ok(expected)) => assert_eq!(port, expected, "{pod}"),
            (Placement::Withheld(error), Err(text)) => assert_eq!(error.to_string(), text),
            (found, expected) => panic!("{pod}: {found:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn the_port_is_the_first_one_and_the_ordinal() {
        check("cassandra-0", "", Ok(9042));
        check("cassandra-9", "", Ok(9051));
        check("cassandra-12", "first_ordinal: 10", Ok(9044));
        let beyond = "of cassandra-10 is outside of its ports 9042-9051, whose first is ordinal 0's";
        check("cassandra-10", "", Err(&format!("listen: ordinal 10 {beyond}")));
        check(
            "cassandra-1",
            "first_ordinal: 2",
            Err("listen: ordinal 1 of cassandra-1 is outside of its ports 9042-9051, whose first is ordinal 2's"),
        );
    }

    #[test]
    fn a_pin_comes_before_the_ordinal_and_is_that_pods_alone() {
        let pins = "pins: {cassandra-2: 9047}\n";
        check("cassandra-2", pins, Ok(9047));
        check("cassandra-3", pins, Ok(9045));
        let whose = "by its ordinal, has none";
        let taken = format!("{PINS}: port 9047 is cassandra-2's, and cassandra-5, whose it would be {whose}");
        check("cassandra-5", pins, Err(&taken));
        let racks = "statefulSets: [{name: a, ports: 9042-9043}]\npins: {a-1: 9050, c-0: 9051}\n";
        check("a-1", racks, Ok(9050));
        check("c-0", racks, Ok(9051));
        check("a-0", racks, Ok(9042));
    }

    #[test]
    fn a_port_that_is_not_the_ordinals_has_a_reason() {
        let text = r#"{"version": 1, "nodes": {"a-0": {"port": 9042}, "a-1": {"port": 9043, "left": "2026-01-31T12:00:00Z"}}}"#;
        let ledger = Ledger::parse("gate/ports", &[("ports.json".to_owned(), text.to_owned())].into()).unwrap();
        let said = |port: u16, by_ordinal: Placement, pinned: bool| {
            why(port, &by_ordinal, pinned, Some(&ledger), Duration::from_secs(86_400))
        };
        assert_eq!(said(9043, Placement::Chosen(9043), false), None);
        for (expected, text) in [
            (9042, "9042, its ordinal's, is held by a-0"),
            (9043, "9043, its ordinal's, is a-1's, which has left, and no other's before 2026-02-01T12:00:00Z"),
            (9044, "the ledger says 9051, not 9044, its ordinal's"),
        ] {
            assert_eq!(said(9051, Placement::Chosen(expected), false).as_deref(), Some(text));
        }
        assert_eq!(said(9051, Placement::Chosen(9042), true).as_deref(), Some("9042, its pin, is held by a-0"));
        let (key, node, owner) = ("listen", NodeId::new("b-9"), NodeId::new("c-0"));
        let (first, last) = (9042, 9046);
        let beyond = PortError::BeyondRange { key, node: node.clone(), ordinal: 9, first_ordinal: 0, first, last };
        let beyond = said(9045, Placement::Withheld(beyond), false);
        assert_eq!(beyond.as_deref(), Some("ordinal 9 is outside of ports 9042-9046: the ledger says 9045"));
        let pinned = PortError::Pinned { key, port: 9044, node: node.clone(), owner };
        let pinned = said(9045, Placement::Withheld(pinned), false);
        assert_eq!(pinned.as_deref(), Some("9044, its ordinal's, is pinned to c-0: the ledger says 9045"));
        assert_eq!(said(9045, Placement::Withheld(PortError::NoOrdinal { key, node }), false), None);
    }

    #[test]
    fn racks_have_ranges_of_their_own() {
        let racks =
            "statefulSets:\n  - {name: a, ports: 9042-9043}\n  - {name: b, ports: 9044-9045, first_ordinal: 5}\n";
        check("a-1", racks, Ok(9043));
        check("b-5", racks, Ok(9044));
        let key = "discovery.kubernetes.statefulSets";
        check("c-0", racks, Err(&format!("{key}: c is not among them, and its pod c-0 has no port")));
        let beyond = format!("{key}: ordinal 2 of a-2 is outside of its ports 9042-9043, whose first is ordinal 0's");
        check("a-2", racks, Err(&beyond));
        assert_eq!("9042-9043".parse(), Ok(Ports { first: 9042, last: 9043 }));
    }
}
