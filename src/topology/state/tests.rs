//! The rules of the fold, by table: a story in, the nodes and what became of addresses out.
//!
//! A story's lines: `nodes a=.1 b=.2` (all that discovery sees; `a:9050=.1` gives a port, `H1=.1` names a node by its
//! host_id; `a=.1?` is not confirmed, `a=.1-` is away, `a=.1x` has left), `a alive .1 H1` (a probe was answered; `-` it could not ask; `H1@other` another cluster), `a dead .1`,
//! `a row H1` (a passing local row; `H1.9`: with that native address), `a stale-row H1` (of a former life), `a unresolved`,
//! `a doubted` (a node says that it is down), `wait 5`.
//! A node: `a up .1 H1`; `a!`: its connections are closed by the story's last line.

mod doubt;
mod places;

use proptest::prelude::*;
use uuid::Uuid;

use super::super::input::DeadReason;
use super::*;
use crate::topology::Mapped;

struct World {
    state: State,
    now: SystemTime,
    before: Topology,
    notices: Vec<String>,
    /// Who is to be asked again after the last line.
    asked: Vec<String>,
}

fn address(text: &str) -> SocketAddr {
    format!("10.0.0{text}:9042").parse().unwrap()
}

fn host_id(text: &str) -> Option<HostId> {
    let number = text.strip_prefix('H')?.parse().ok()?;
    Some(HostId(Uuid::from_u128(number)))
}

fn identity(text: &str) -> Identity {
    if text == "-" {
        return Identity::default();
    }
    let (id, cluster) = text.split_once('@').unwrap_or((text, "c"));
    let (id, native) = id.split_once('.').map_or((id, None), |(id, last)| (id, Some(address(&format!(".{last}")))));
    Identity { cluster_name: Some(cluster.into()), host_id: host_id(id), native, ..Identity::default() }
}

fn found(text: &str) -> Found {
    let (name, at) = text.split_once('=').unwrap();
    let (at, confirmed) = at.strip_suffix('?').map_or((at, true), |at| (at, false));
    let (at, listed) = match at.trim_end_matches(['-', 'x']) {
        bare if bare == at => (at, Listed::Here),
        bare => (bare, if at.ends_with('x') { Listed::Left } else { Listed::Away }),
    };
    let (name, port) = name.split_once(':').map_or((name, None), |(name, port)| (name, Some(port.parse().unwrap())));
    let (id, address, host_id) = (NodeId::new(name), address(at), host_id(name));
    Found {
        id,
        address,
        host: None,
        listed,
        confirmed,
        leaving: false,
        placement: port.map_or(Placement::Assigned, Placement::Chosen),
        port_why: None,
        host_id,
        data_center: None,
        rack: None,
    }
}

impl World {
    fn new() -> Self {
        let options = Options { quarantine: Duration::from_secs(100), grace: Duration::from_secs(5) };
        Self {
            state: State::new(PortRange::new(9042, 9045).unwrap(), options),
            now: SystemTime::UNIX_EPOCH,
            before: Topology::default(),
            notices: Vec::new(),
            asked: Vec::new(),
        }
    }

    /// Time passes only where the story says `wait`.
    fn tell(&mut self, story: &str) {
        for line in story.lines().map(str::trim).filter(|line| !line.is_empty()) {
            self.line(line);
        }
    }

    fn line(&mut self, line: &str) -> Option<Topology> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let input = match words[..] {
            ["nodes", ref nodes @ ..] => Input::Nodes(nodes.iter().map(|text| found(text)).collect()),
            [id, "unresolved"] => Input::Unresolved(NodeId::new(id)),
            ["wait", seconds] => {
                self.now += Duration::from_secs(seconds.parse().unwrap());
                Input::Tick
            }
            [id, "alive", at, who] => {
                Input::Alive { id: NodeId::new(id), address: address(at), identity: identity(who) }
            }
            [id, "dead", at] => Input::Dead { id: NodeId::new(id), address: address(at), reason: DeadReason::Refused },
            [id, "doubted"] => {
                let node = self.state.topology().node_by_id(&NodeId::new(id)).unwrap();
                Input::Doubted { port: node.port, incarnation: node.incarnation }
            }
            [id, row @ ("row" | "stale-row"), who] => {
                let node = self.state.topology().node_by_id(&NodeId::new(id)).unwrap();
                let incarnation = node.incarnation - u64::from(row == "stale-row");
                Input::Observed(Observation { port: node.port, incarnation, identity: identity(who) })
            }
            _ => panic!("no such line: {line}"),
        };
        self.before = self.state.topology().clone();
        let next = self.state.apply(input, self.now);
        self.notices.extend(self.state.take_notices().iter().map(Notice::to_string));
        self.asked = self.state.take_questions().iter().map(NodeId::to_string).collect();
        next
    }

    fn nodes(&self) -> String {
        // What stands for connections: one to each port, as of the snapshot before.
        let connected: BTreeMap<u16, u64> = self.before.lives().collect();
        let lives = self.state.topology().lives();
        let stale = lives.filter(|(port, life)| connected.get(port).is_some_and(|connected| connected < life));
        let closed: Vec<u16> = stale.map(|(port, _)| port).collect();
        let line = |node: &Arc<super::super::Node>| {
            let mark = if closed.contains(&node.port) { "!" } else { "" };
            let who = node.host_id.map_or("-".into(), |host_id| format!("H{}", host_id.0.as_u128()));
            let state = format!("{:?}", node.state).to_lowercase();
            format!("{}{mark} {state} {} {who}", node.id, last_of(node.address))
        };
        self.state.topology().nodes.iter().map(line).collect::<Vec<_>>().join(", ")
    }

    fn maps(&self, at: &str) -> String {
        match self.state.topology().map_native(address(at)) {
            Mapped::Current(node) => format!("current {}", node.id),
            Mapped::Former(node) => format!("former {}", node.id),
            Mapped::Gone(node) => format!("gone {}", node.id),
            Mapped::Unknown => "unknown".into(),
        }
    }
}

fn last_of(address: SocketAddr) -> String {
    let ip = address.ip().to_string();
    format!(".{}", ip.rsplit('.').next().unwrap())
}

/// Two nodes that are up, then `story`.
fn told(story: &str) -> World {
    let mut world = World::new();
    world.tell("nodes a=.1 b=.2\n a alive .1 H1\n b alive .2 H2");
    world.tell(story);
    world
}

fn check(story: &str, nodes: &str, addresses: &[(&str, &str)]) {
    let world = told(story);
    assert_eq!(world.nodes(), nodes, "after {story}");
    for (at, expected) in addresses {
        assert_eq!(world.maps(at), *expected, "{at} after {story}");
    }
}

#[test]
fn a_node_is_up_only_after_a_probe_was_answered() {
    let mut world = World::new();
    world.tell("nodes a=.1 b=.2");
    assert_eq!(world.nodes(), "a pending .1 -, b pending .2 -");
    assert_eq!(world.state.unprobed().count(), 2);
    world.tell("a alive .1 - \n b dead .2");
    assert_eq!(world.nodes(), "a up .1 -, b pending .2 -");
    assert_eq!(world.state.unprobed().count(), 0);
}

#[test]
fn a_dead_node_keeps_row_and_port_and_its_connections_are_closed_once() {
    check("a dead .1", "a! down .1 H1, b up .2 H2", &[(".1", "current a")]);
    check("a dead .1 \n a dead .1", "a down .1 H1, b up .2 H2", &[]);
    check("a dead .1 \n a alive .1 H1", "a up .1 H1, b up .2 H2", &[]);
}

#[test]
fn news_of_an_address_that_a_node_has_left_are_nobodys() {
    check("nodes a=.7 b=.2 \n a alive .7 H1 \n a dead .1", "a up .7 H1, b up .2 H2", &[]);
    check("nodes a=.7 b=.2 \n a alive .1 H1", "a down .7 H1, b up .2 H2", &[]);
}

#[test]
fn keeps_port_and_is_down_until_verified_at_a_new_address() {
    check("nodes a=.7 b=.2", "a! down .7 H1, b up .2 H2", &[(".1", "former a"), (".7", "current a")]);
    check("nodes a=.7 b=.2 \n a alive .7 H1", "a up .7 H1, b up .2 H2", &[(".1", "former a")]);
    check(
        "nodes a=.7 b=.2 \n nodes a=.1 b=.2",
        "a! down .1 H1, b up .2 H2",
        &[(".1", "current a"), (".7", "former a")],
    );
}

#[test]
fn a_reused_address_maps_to_the_new_node_at_once() {
    check("nodes a=.7 b=.1", "a! down .7 H1, b! down .1 H2", &[(".1", "current b"), (".2", "former b")]);
    // The last that left an address is the one that late events are about.
    check("nodes a=.7 b=.1 \n nodes a=.7 b=.8", "a down .7 H1, b! down .8 H2", &[(".1", "former b")]);
}

#[test]
fn two_listed_nodes_swap_addresses() {
    check("nodes a=.2 b=.1", "a! down .2 H1, b! down .1 H2", &[(".1", "current b"), (".2", "current a")]);
    check("nodes a=.2 b=.1 \n a alive .2 H1 \n b alive .1 H2", "a up .2 H1, b up .1 H2", &[(".1", "current b")]);
    // DNS tells of one after the other.
    check(
        "nodes a=.2 b=.2 \n a alive .2 H2 \n nodes a=.2 b=.1 \n b alive .1 H2 \n a alive .2 H1",
        "a up .2 H1, b up .1 H2",
        &[(".1", "current b"), (".2", "current a")],
    );
}

#[test]
fn two_nodes_swap_under_fixed_addresses() {
    let swapped = "a up .1 H2, b up .2 H1";
    check("a alive .1 H2", "a! down .1 H1, b up .2 H2", &[]);
    check("a alive .1 H2 \n b alive .2 H1", "a! up .1 H2, b! up .2 H1", &[]);
    check("a dead .1 \n b dead .2 \n b alive .2 H1 \n a alive .1 H2", swapped, &[]);
}

#[test]
fn another_host_id_under_the_same_name_is_a_replacement_without_quarantine() {
    check("a alive .1 H9", "a! up .1 H9, b up .2 H2", &[]);
    check("a dead .1 \n nodes a=.7 b=.2 \n a alive .7 H9", "a! up .7 H9, b up .2 H2", &[(".1", "former a")]);
    let world = told("wait 5 \n a alive .1 H9");
    assert_eq!(world.state.topology().node_by_host_id(host_id("H1").unwrap()), None);
    assert!(!world.state.topology().node_at_port(9042).unwrap().settled);
    assert!(world.notices.iter().any(|notice| notice.starts_with("a was replaced")), "{:?}", world.notices);
}

#[test]
fn what_leaves_is_gone_and_leaves_a_tombstone() {
    check("nodes b=.2", "a! gone .1 H1, b up .2 H2", &[(".1", "gone a")]);
    check("nodes b=.2 \n a alive .1 H1", "a gone .1 H1, b up .2 H2", &[]);
    check("nodes b=.2 \n nodes b=.1", "a gone .1 H1, b! down .1 H2", &[(".1", "current b")]);
    check("nodes a=.7 b=.1 \n nodes a=.7", "a down .7 H1, b! gone .1 H2", &[(".1", "gone b")]);
    check("nodes b=.2 \n wait 100", "b up .2 H2", &[(".1", "unknown")]);
}

#[test]
fn a_node_of_another_cluster_is_never_up() {
    check("a alive .1 H9@other", "a! down .1 H1, b up .2 H2", &[]);
    check("nodes a=.1 b=.2 c=.3 \n c alive .3 H3@other", "a up .1 H1, b up .2 H2, c pending .3 -", &[]);
    check("a alive .1 H9@other \n nodes a=.7 b=.2 \n a alive .7 -", "a up .7 H1, b up .2 H2", &[]);
    let world = told("a alive .1 H9@other");
    let said = "a answers at 10.0.0.1:9042 but is not used: it belongs to cluster \"other\", the other nodes to \"c\"";
    assert!(world.notices.iter().any(|notice| notice == said), "{:?}", world.notices);
}

#[test]
fn the_clusters_name_is_what_most_nodes_say_whoever_answered_first() {
    let mut world = World::new();
    world.tell("nodes a=.1 b=.2 c=.3 \n a alive .1 H1@other \n b alive .2 H2");
    assert_eq!(world.nodes(), "a up .1 H1, b pending .2 -, c pending .3 -");
    world.tell("c alive .3 H3");
    assert_eq!(world.nodes(), "a! down .1 H1, b up .2 H2, c up .3 H3");
}

#[test]
fn two_nodes_never_have_one_host_id() {
    // The one that is up keeps it while it says so itself; it is asked each time that somebody else does.
    check("a alive .1 H2", "a! down .1 H1, b up .2 H2", &[]);
    assert_eq!(told("a alive .1 H2").asked, ["b"]);
    check("a alive .1 H2 \n b alive .2 H2", "a down .1 H1, b up .2 H2", &[]);
    assert_eq!(told("a alive .1 H2 \n b alive .2 H2 \n a alive .1 H2").asked, ["b"]);
    check("a alive .1 H2 \n b alive .2 H2 \n a alive .1 H1", "a up .1 H1, b up .2 H2", &[]);
    // Another has it that answers with it once the owner does not answer any more, says something else or has left.
    check("a alive .1 H2 \n b dead .2", "a! up .1 H2, b! pending .2 -", &[]);
    check("a alive .1 H2 \n b alive .2 H3", "a! up .1 H2, b! up .2 H3", &[]);
    check("a alive .1 H2 \n nodes a=.1", "a! up .1 H2, b! gone .2 H2", &[]);
    check("b dead .2 \n a alive .1 H2", "a! up .1 H2, b! pending .2 -", &[]);
    // ... and keeps it then.
    check("b dead .2 \n a alive .1 H2 \n b alive .2 H2", "a up .1 H2, b pending .2 -", &[]);
    check("b dead .2 \n a alive .1 H2 \n b alive .2 H2 \n nodes b=.2", "a! gone .1 H2, b up .2 H2", &[]);
    // One that has stopped answering takes nothing.
    check("a alive .1 H2 \n a dead .1 \n b dead .2", "a down .1 H1, b! down .2 H2", &[]);
    // Two names at one address are one node: the first keeps it.
    check("nodes a=.1 b=.1 \n b alive .1 H1", "a up .1 H1, b down .1 H2", &[(".1", "current a")]);
    check("nodes a=.1 b=.1 \n b alive .1 H1 \n nodes a=.1 b=.5 \n b alive .5 -", "a up .1 H1, b up .5 H2", &[]);
}

#[test]
fn the_later_listed_of_two_at_one_address_is_meant_where_nothing_tells() {
    let mut world = World::new();
    world.tell("nodes a=.1 b=.2 \n a alive .1 - \n b alive .2 - \n nodes a=.2 b=.2 \n a alive .2 -");
    assert_eq!(world.nodes(), "a up .2 -, b down .2 -");
    assert_eq!(world.maps(".2"), "current a");
    world.tell("nodes a=.2 b=.1 \n b alive .1 -");
    assert_eq!(world.nodes(), "a up .2 -, b up .1 -");
}

#[test]
fn an_address_that_was_given_again_is_the_later_ones_whoever_is_asked_first() {
    check("nodes a=.1 b=.2 c=.1 \n a alive .1 H3", "a! down .1 H1, b up .2 H2, c pending .1 -", &[]);
    let right = "a down .1 H1, b up .2 H2, c up .1 H3";
    check("nodes a=.1 b=.2 c=.1 \n a alive .1 H3 \n c alive .1 H3", right, &[(".1", "current c")]);
    check("nodes a=.1 b=.2 c=.1 \n c alive .1 H3 \n a alive .1 H3", "a! down .1 H1, b up .2 H2, c up .1 H3", &[]);
}

#[test]
fn a_node_named_by_its_host_id_accepts_no_other() {
    let mut world = World::new();
    world.tell("nodes H1=.1 H2=.2 \n H1 alive .1 H1 \n H2 alive .2 H1");
    assert_eq!(world.nodes(), "H1 up .1 H1, H2 pending .2 H2");
    world.tell("nodes H1=.1 H2=.2 x=.3 \n x alive .3 H2");
    assert_eq!(world.nodes(), "H1 up .1 H1, H2 pending .2 H2, x pending .3 -");
    world.tell("nodes H1=.1 H2=.2 \n wait 100");
    // The address of a dead node is another node's now, and discovery has not said so yet.
    world.tell("H1 dead .1 \n H1 alive .1 H2");
    assert_eq!(world.nodes(), "H1 down .1 H1, H2 pending .2 H2");
    world.tell("nodes H1=.7 H2=.1 \n H2 alive .1 H2 \n H1 alive .7 H1");
    assert_eq!(world.nodes(), "H1 up .7 H1, H2 up .1 H2");
}

#[test]
fn an_answer_after_death_is_nobodys_until_it_says_who() {
    // Listed there later, and the former node's connection has ended: the newcomer is meant, whoever lived there.
    check("nodes a=.1 b=.1 \n a dead .1 \n a alive .1 -", "a down .1 H1, b down .1 H2", &[]);
    check("nodes a=.1 b=.1 \n a dead .1 \n a alive .1 H1", "a up .1 H1, b down .1 H2", &[]);
}

#[test]
fn passing_rows_teach_what_a_probe_could_not_ask() {
    let mut world = World::new();
    world.tell("nodes a=.1 \n a alive .1 - \n a row H1.9");
    assert_eq!(world.nodes(), "a up .1 H1");
    assert_eq!(world.maps(".9"), "current a");
    world.tell("a stale-row H5");
    assert_eq!(world.nodes(), "a up .1 H1");
    world.tell("a row H5");
    assert_eq!(world.nodes(), "a! up .1 H5");
}

#[test]
fn a_native_address_that_changes_becomes_former() {
    check("a row H1.9 \n a row H1.8", "a up .1 H1, b up .2 H2", &[(".8", "current a"), (".9", "former a")]);
    check("a row H1.1 \n nodes a=.7 b=.2", "a! down .7 H1, b up .2 H2", &[(".7", "current a"), (".1", "former a")]);
    check("a row H1.9 \n a row H5", "a! up .1 H5, b up .2 H2", &[(".9", "former a")]);
    // It advertises another address than the dialled one, and goes on to do so.
    check("a row H1.9 \n nodes a=.7 b=.2", "a! down .7 H1, b up .2 H2", &[(".9", "current a"), (".7", "unknown")]);
}

#[test]
fn the_same_news_twice_is_one_generation() {
    let mut world = told("");
    let generation = world.state.topology().generation;
    for line in ["nodes b=.2 a=.1", "a alive .1 H1", "a row H1", "wait 0"] {
        assert!(world.line(line).is_none(), "{line}");
    }
    assert_eq!(world.state.topology().generation, generation);
    assert_eq!(world.line("a dead .1").unwrap().generation, generation + 1);
}

#[test]
fn settles_once_and_says_when_to_look_again() {
    let mut world = told("");
    let settled = |world: &World| world.state.topology().node_at_port(9042).unwrap().settled;
    assert_eq!((settled(&world), world.state.deadline()), (false, Some(world.now + Duration::from_secs(5))));
    world.tell("wait 4");
    assert!(!settled(&world));
    world.tell("wait 1");
    assert_eq!((settled(&world), world.state.deadline()), (true, None));
    world.tell("a dead .1 \n a alive .1 H1");
    assert!(settled(&world));
    world.tell("nodes b=.2");
    assert_eq!(world.state.deadline(), Some(world.now + Duration::from_secs(100)));
}

#[test]
fn since_tells_when_the_state_was_entered() {
    let mut world = told("wait 30 \n a alive .1 H1");
    let since = |world: &World| world.state.topology().node_at_port(9042).unwrap().since;
    assert_eq!(since(&world), SystemTime::UNIX_EPOCH);
    world.tell("a dead .1 \n wait 30 \n a dead .1");
    assert_eq!(since(&world), SystemTime::UNIX_EPOCH + Duration::from_secs(30));
}

/// The node of a client's control connection may be cut off from the others.
#[test]
fn a_node_that_is_called_down_is_asked_and_stays_what_its_answer_says() {
    let world = told("b doubted");
    assert_eq!((world.nodes().as_str(), &world.asked[..]), ("a up .1 H1, b up .2 H2", &["b".to_owned()][..]));
    check("b doubted \n b dead .2", "a up .1 H1, b! down .2 H2", &[]);
    assert_eq!(told("nodes a=.1 \n b doubted").asked, [""; 0]);
}

fn any_line() -> impl Strategy<Value = String> {
    let name = || prop::sample::select(vec!["a", "b", "c", "d", "e", "f"]);
    let at = || 1u8..5;
    let who = prop_oneof![1 => Just("-".to_owned()), 8 => (1u8..5).prop_map(|n| format!("H{n}"))];
    let listed = prop::collection::vec((name(), at()), 0..6);
    prop_oneof![
        2 => listed.prop_map(|nodes| {
            let nodes: Vec<String> = nodes.iter().map(|(name, at)| format!("{name}=.{at}")).collect();
            format!("nodes {}", nodes.join(" "))
        }),
        6 => (name(), at(), who).prop_map(|(name, at, who)| format!("{name} alive .{at} {who}")),
        2 => (name(), at()).prop_map(|(name, at)| format!("{name} dead .{at}")),
        1 => (0u8..60).prop_map(|seconds| format!("wait {seconds}")),
    ]
}

proptest! {
    #[test]
    fn whatever_happens_ports_and_identities_are_one_nodes(story in prop::collection::vec(any_line(), 1..60)) {
        let mut world = World::new();
        let mut lives = BTreeMap::new();
        for line in &story {
            let before = world.state.topology().generation;
            let next = world.line(line);
            prop_assert_eq!(world.state.topology().generation, before + u64::from(next.is_some()));
            let mut seen = (Vec::new(), Vec::new());
            for node in &*world.state.topology().nodes {
                prop_assert!(!seen.0.contains(&node.port));
                seen.0.push(node.port);
                if let Some(host_id) = node.host_id.filter(|_| node.state != NodeState::Gone) {
                    prop_assert!(!seen.1.contains(&host_id), "two nodes have {}", host_id);
                    seen.1.push(host_id);
                }
                // A life is one node's, at one port and one address.
                let life = (node.id.clone(), node.port, node.address);
                prop_assert_eq!(lives.entry(node.incarnation).or_insert_with(|| life.clone()), &life);
                prop_assert!(node.native_address() == address(&last_of(node.address)));
                if node.state == NodeState::Up {
                    prop_assert!(matches!(
                        world.state.topology().map_native(node.address),
                        Mapped::Current(at) if at.state == NodeState::Up
                    ));
                }
            }
        }
    }
}
