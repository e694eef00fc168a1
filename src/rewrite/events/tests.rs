//! Sequences of events as real nodes send them (Apache Cassandra 5.0.9, 4.1.10), and what a client is told.

use super::*;
use crate::topology::{Advertised, NodeId};
use NodeChange::{Down, NewNode, RemovedNode, Up};

fn node(port: u16, address: &str, state: NodeState, incarnation: u64) -> Node {
    Node { state, incarnation, ..Node::example(&format!("cassandra-{}", port - 9042), port, address) }
}

fn three(third: Node) -> Topology {
    let nodes =
        [node(9042, "10.77.0.11:9042", NodeState::Up, 1), node(9043, "10.77.0.12:9042", NodeState::Up, 1), third];
    Topology::new(1, Advertised::default(), nodes)
}

fn up() -> Topology {
    three(node(9044, "10.77.0.13:9042", NodeState::Up, 1))
}

fn down() -> Topology {
    three(node(9044, "10.77.0.13:9042", NodeState::Down, 2))
}

/// Who is told of every node.
struct OneAddress;

impl ToldAs for OneAddress {
    fn told_as(&self, node: &Node, _: &Paths) -> Option<SocketAddr> {
        Some(SocketAddr::new("203.0.113.10".parse().unwrap(), node.port))
    }
}

/// Who is told of no node.
struct Nobody;

impl ToldAs for Nobody {
    fn told_as(&self, _: &Node, _: &Paths) -> Option<SocketAddr> {
        None
    }
}

/// What happens, in order.
#[expect(clippy::large_enum_variant, reason = "a few values in a test")]
enum Then {
    /// The node that the client is connected to sends this of an address.
    Event(NodeChange, &'static str),
    /// The gateway knows this now.
    Knows(Topology),
}

/// A client that registered when `first` was known is told `expected` (changes of port 9044 or 9045, all others fail).
fn check(first: &Topology, then: Vec<Then>, expected: &[NodeChange]) {
    let mut announcer = Announcer::default();
    let types = RegisteredTypes { status_change: true, topology_change: true, ..Default::default() };
    announcer.begin(first);
    let mut topology = first.clone();
    // The relay asks as soon as the registration is in force.
    let mut told = announcer.on_topology(types, first, &OneAddress);
    for step in then {
        match step {
            Then::Event(change, address) => {
                let event = Event::Node { change, address: address.parse().unwrap() };
                if let Outcome::Tell(events) = announcer.on_event(&event, types, &topology, &OneAddress) {
                    told.extend(events);
                }
            }
            Then::Knows(now) => {
                told.extend(announcer.on_topology(types, &now, &OneAddress));
                topology = now;
            }
        }
    }
    for (_, address) in &told {
        assert!(matches!(address.port(), 9044 | 9045), "told of {address}");
    }
    let changes: Vec<_> = told.into_iter().map(|(change, _)| change).collect();
    assert_eq!(changes, expected);
}

use Then::{Event as Says, Knows};

const OLD: &str = "10.77.0.13:9042";
const NEW: &str = "10.77.0.23:9042";

#[test]
fn a_node_stopped_and_started_again() {
    check(&up(), vec![Says(Down, OLD), Knows(down()), Knows(up()), Says(Up, OLD)], &[Down, Up]);
}

#[test]
fn a_node_killed_is_down_when_the_gateway_knows_and_not_again_when_the_failure_detector_does() {
    check(&up(), vec![Knows(down()), Says(Down, OLD), Knows(up()), Says(Up, OLD)], &[Down, Up]);
}

/// Its rows are those of a node that is up.
#[test]
fn who_registers_is_told_of_a_node_that_is_down_once() {
    check(&down(), vec![], &[Down]);
    check(&down(), vec![Says(Down, OLD), Knows(down())], &[Down]);
    check(&down(), vec![Knows(up())], &[Down, Up]);
}

#[test]
fn up_is_held_until_a_dial_would_succeed() {
    check(&down(), vec![Says(Up, OLD)], &[Down]);
    check(&down(), vec![Says(Up, OLD), Knows(up())], &[Down, Up]);
}

#[test]
fn a_node_that_others_call_down_is_down_when_the_gateway_finds_it_so() {
    check(&up(), vec![Says(Down, OLD), Knows(up()), Says(Up, OLD)], &[]);
    check(&up(), vec![Says(Down, OLD), Knows(down()), Says(Down, OLD), Knows(up()), Says(Up, OLD)], &[Down, Up]);
    let mut announcer = Announcer::default();
    let types = RegisteredTypes { status_change: true, topology_change: true, ..Default::default() };
    let event = Event::Node { change: Down, address: OLD.parse().unwrap() };
    let outcome = announcer.on_event(&event, types, &up(), &OneAddress);
    assert_eq!(outcome, Outcome::Doubted { port: 9044, incarnation: 1 });
}

#[test]
fn a_node_at_a_new_address_is_the_same_node() {
    let moved =
        || three(node(9044, NEW, NodeState::Up, 3)).with_former([(OLD.parse().unwrap(), NodeId::new("cassandra-2"))]);
    check(&up(), vec![Says(Down, OLD), Knows(down()), Says(NewNode, NEW), Says(Up, NEW), Knows(moved())], &[Down, Up]);
    check(&up(), vec![Knows(down()), Knows(moved()), Says(NewNode, NEW), Says(Up, NEW)], &[Down, Up]);
    check(&up(), vec![Knows(moved()), Says(NewNode, NEW), Says(Up, NEW)], &[Down, Up]);
}

#[test]
fn nothing_about_a_former_address_passes() {
    let moved =
        || three(node(9044, NEW, NodeState::Up, 1)).with_former([(OLD.parse().unwrap(), NodeId::new("cassandra-2"))]);
    check(&moved(), vec![Says(Down, OLD), Says(RemovedNode, OLD), Says(NewNode, OLD), Says(Up, OLD)], &[]);
}

#[test]
fn a_new_node_is_told_once_it_is_known_and_up() {
    let four = |state| {
        let nodes = up().nodes.iter().map(|node| Node::clone(node)).collect::<Vec<_>>();
        let fourth = Node { settled: false, ..node(9045, "10.77.0.14:9042", state, 1) };
        Topology::new(2, Advertised::default(), nodes.into_iter().chain([fourth]))
    };
    let new = "10.77.0.14:9042";
    check(&up(), vec![Says(NewNode, new), Says(Up, new)], &[]);
    check(&up(), vec![Says(NewNode, new), Says(Up, new), Knows(four(NodeState::Pending))], &[]);
    let seen = vec![Says(NewNode, new), Says(Up, new), Knows(four(NodeState::Pending)), Knows(four(NodeState::Up))];
    check(&up(), seen, &[NewNode, Up]);
    check(&up(), vec![Knows(four(NodeState::Up)), Says(NewNode, new), Says(Up, new)], &[NewNode, Up]);
}

#[test]
fn the_gateway_tells_of_a_new_node_by_itself_only_when_rows_have_had_time_to_show_it() {
    let four = |settled| {
        let nodes = up().nodes.iter().map(|node| Node::clone(node)).collect::<Vec<_>>();
        let fourth = Node { settled, ..node(9045, "10.77.0.14:9042", NodeState::Up, 1) };
        Topology::new(2, Advertised::default(), nodes.into_iter().chain([fourth]))
    };
    check(&up(), vec![Knows(four(false))], &[]);
    check(&up(), vec![Knows(four(false)), Knows(four(true))], &[NewNode, Up]);
}

#[test]
fn a_node_that_leaves_is_removed_once() {
    let gone = || three(node(9044, OLD, NodeState::Gone, 2));
    check(&up(), vec![Says(RemovedNode, OLD), Knows(gone()), Says(Down, OLD)], &[RemovedNode]);
    check(&up(), vec![Knows(gone()), Says(RemovedNode, OLD), Says(Down, OLD)], &[RemovedNode]);
    check(&up(), vec![Says(Down, OLD), Says(RemovedNode, OLD), Knows(gone())], &[RemovedNode]);
}

#[test]
fn a_removed_node_that_still_answers_is_not_announced_again() {
    check(&up(), vec![Says(RemovedNode, OLD), Knows(up())], &[RemovedNode]);
}

#[test]
fn a_replaced_node_is_removed_and_new_on_the_same_port() {
    let replaced = |state| {
        let host_id = Some(HostId(uuid::Uuid::from_u128(7)));
        three(Node { host_id, ..node(9044, NEW, state, 5) })
    };
    let then = vec![Knows(down()), Knows(replaced(NodeState::Up)), Says(NewNode, NEW), Says(Up, NEW)];
    check(&up(), then, &[Down, RemovedNode, NewNode, Up]);
}

#[test]
fn the_same_state_is_never_told_twice() {
    check(&up(), vec![Says(Up, OLD), Says(NewNode, OLD), Says(Up, OLD)], &[]);
    check(&up(), vec![Says(Down, OLD), Says(Down, OLD), Knows(down()), Says(Down, OLD)], &[Down]);
}

#[test]
fn only_registered_types_are_told() {
    let mut announcer = Announcer::default();
    let types = RegisteredTypes { status_change: false, topology_change: true, ..Default::default() };
    announcer.begin(&up());
    assert_eq!(announcer.on_topology(types, &down(), &OneAddress), []);
}

#[test]
fn a_client_is_not_told_of_nodes_that_its_view_hides() {
    let mut announcer = Announcer::default();
    let types = RegisteredTypes { status_change: true, topology_change: true, ..Default::default() };
    announcer.begin(&up());
    let event = Event::Node { change: Down, address: OLD.parse().unwrap() };
    assert_eq!(announcer.on_event(&event, types, &up(), &Nobody), Outcome::Swallowed);
    assert_eq!(announcer.on_topology(types, &down(), &Nobody), []);
}

#[test]
fn unknown_addresses_are_held_up_to_a_bound() {
    let mut announcer = Announcer::default();
    for n in 0..1000_u16 {
        let address = SocketAddr::new("10.0.0.1".parse().unwrap(), n);
        let outcome =
            announcer.on_event(&Event::Node { change: NewNode, address }, RegisteredTypes::default(), &up(), &Nobody);
        assert_eq!(outcome, Outcome::Held);
    }
    assert_eq!(announcer.unknown.len(), MAX_UNKNOWN);
}

/// A client of the only path.
struct OfThePath;

impl ToldAs for OfThePath {
    fn told_as(&self, node: &Node, paths: &Paths) -> Option<SocketAddr> {
        paths.last()?.endpoint(node, crate::topology::Family::Ipv4)
    }
}

#[test]
fn a_node_is_new_to_clients_when_it_is_known_what_they_dial_for_it() {
    use crate::config::External;
    use crate::config::advertise::{DialledPort, Part, Path, Told as What};

    let given = External::ip([203, 0, 113, 10].into());
    let service = External::Service("b".to_owned());
    let parts = vec![
        Part::new(9042, 9043, given, DialledPort::Listened),
        Part::new(9044, 9044, service.clone(), DialledPort::Only(9042)),
    ];
    let plan = [Path::new("p", What::Ports(parts))];
    let pending = Arc::new(Paths::of(&plan, &BTreeMap::new(), &Paths::default()));
    let advertised = Advertised { ipv4: Some([203, 0, 113, 11].into()), ipv6: None };
    let learned = crate::topology::paths::Learned { advertised, ports: BTreeMap::new() };
    let known = Arc::new(Paths::of(&plan, &BTreeMap::from([(service, learned)]), &pending));

    let mut announcer = Announcer::default();
    let types = RegisteredTypes { status_change: true, topology_change: true, ..Default::default() };
    let before = up().with_paths(&pending);
    announcer.begin(&before);
    assert_eq!(announcer.on_topology(types, &before, &OfThePath), []);
    let event = Event::Node { change: Down, address: OLD.parse().unwrap() };
    assert_eq!(announcer.on_event(&event, types, &down().with_paths(&pending), &OfThePath), Outcome::Swallowed);
    let at: SocketAddr = "203.0.113.11:9042".parse().unwrap();
    assert_eq!(announcer.on_topology(types, &up().with_paths(&known), &OfThePath), [(NewNode, at), (Up, at)]);
    assert_eq!(announcer.on_topology(types, &down().with_paths(&known), &OfThePath), [(Down, at)]);
}
