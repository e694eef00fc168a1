//! Who has no place: hidden rows, ports that cannot be had, and claims of earlier runs.

use super::*;

#[test]
fn hidden_rows_are_few_and_go_when_the_node_is_shown() {
    let mut world = told("");
    let row = |last: u32| Hidden {
        id: None,
        host_id: None,
        address: Some(address(&format!(".{last}"))),
        reason: HiddenReason::NotAnnounced,
    };
    for last in 0..200 {
        world.state.apply(Input::Hidden(row(last)), world.now);
    }
    assert_eq!(world.state.topology().hidden.len(), MAX_HIDDEN);
    world.tell("nodes a=.1 b=.2 c=.9");
    assert!(world.state.topology().hidden.contains(&row(9)));
    world.tell("c alive .9 H3");
    assert!(!world.state.topology().hidden.contains(&row(9)));
    world.tell("wait 600");
    assert_eq!(world.state.topology().hidden, vec![]);
}

#[test]
fn a_node_without_an_address_is_hidden_until_it_has_one() {
    let hidden = |story: &str| {
        let hidden = told(story).state.topology().hidden.clone();
        hidden
            .into_iter()
            .map(|hidden| (hidden.id.unwrap().to_string(), hidden.address, hidden.reason))
            .collect::<Vec<_>>()
    };
    let unresolved = ("c".to_owned(), None, HiddenReason::NotResolved);
    assert_eq!(hidden("c unresolved"), std::slice::from_ref(&unresolved));
    assert_eq!(hidden("c unresolved \n c unresolved \n nodes a=.1 b=.2 \n wait 1000"), [unresolved]);
    assert_eq!(hidden("c unresolved \n nodes a=.1 b=.2 \n nodes a=.1 b=.2 c=.3"), []);
}

#[test]
fn a_node_without_a_port_and_its_row_are_one() {
    let mut world = told("nodes a=.1 b=.2 c=.3 d=.4 e=.5");
    let row = Hidden { id: None, host_id: None, address: Some(address(".5")), reason: HiddenReason::NoPort };
    world.state.apply(Input::Hidden(row.clone()), world.now);
    assert_eq!(world.state.topology().hidden, [Hidden { id: Some(NodeId::new("e")), ..row }]);
}

#[test]
fn claims_of_an_earlier_run_hold_and_those_of_lost_nodes_enter_quarantine() {
    let mut world = World::new();
    for (name, port) in [("b", 9042), ("x", 9043)] {
        world.state.restore(NodeId::new(name), Claim { port, left: None }, world.now).unwrap();
    }
    world.tell("nodes a=.1 b=.2");
    let topology = world.state.topology();
    assert_eq!(topology.node_at_port(9042).unwrap().id, NodeId::new("b"));
    assert_eq!(topology.node_at_port(9044).unwrap().id, NodeId::new("a"));
    assert_eq!(world.state.claims()[&NodeId::new("x")], Claim { port: 9043, left: Some(world.now) });
}

#[test]
fn rows_that_are_hidden_again_are_no_news() {
    let mut world = told("nodes a=.1 b=.2");
    let row = |n: u8| Hidden {
        id: None,
        host_id: None,
        address: Some(([10, 9, 9, n], 9042).into()),
        reason: HiddenReason::NoPort,
    };
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(3600);
    for n in 0..3 {
        assert!(world.state.apply(Input::Hidden(row(n)), now).is_some(), "{n}");
    }
    for n in [0, 1, 2, 1, 0] {
        assert_eq!(world.state.apply(Input::Hidden(row(n)), now).map(|next| next.generation), None, "{n}");
    }
}

#[test]
fn more_strangers_than_there_is_room_for_are_news_once() {
    let mut world = told("");
    let row = |n: u8| Hidden {
        id: None,
        host_id: None,
        address: Some(([10, 9, 9, n], 9042).into()),
        reason: HiddenReason::NoPort,
    };
    let count = u8::try_from(MAX_HIDDEN).unwrap() + 8;
    for n in 0..count {
        world.state.apply(Input::Hidden(row(n)), world.now);
    }
    for n in (0..count).chain(0..count) {
        assert_eq!(world.state.apply(Input::Hidden(row(n)), world.now).map(|next| next.generation), None, "{n}");
    }
}

#[test]
fn a_node_whose_chosen_port_is_another_keeps_its_own_and_is_followed() {
    let mut world = told("nodes a:9044=.7 b=.2");
    assert_eq!(world.nodes(), "a! down .7 H1, b up .2 H2");
    assert_eq!(
        world.notices,
        ["a keeps the port that it has: discovery: a has port 9042 and cannot be given port 9044"]
    );
    world.tell("a alive .7 H1\n nodes a:9044=.7 b=.2");
    assert_eq!(world.nodes(), "a up .7 H1, b up .2 H2");
    assert_eq!(world.state.topology().node_by_id(&NodeId::new("a")).unwrap().port, 9042);
    assert_eq!((world.state.topology().hidden.len(), world.notices.len()), (0, 1));
}

#[test]
fn a_quarantine_that_began_in_the_future_begins_now() {
    let mut world = World::new();
    world.now += Duration::from_secs(86_400);
    let left = Some(world.now + Duration::from_secs(86_400));
    world.state.restore(NodeId::new("a"), Claim { port: 9042, left }, world.now).unwrap();
    world.tell("nodes b=.2 c=.3 d=.4 e=.5\n wait 99");
    assert!(world.state.topology().node_at_port(9042).is_none());
    world.tell("wait 1");
    assert_eq!(world.state.topology().node_at_port(9042).unwrap().id, NodeId::new("e"));
}

#[test]
fn a_node_that_comes_back_after_its_quarantine_has_its_port_unless_no_other_was_left() {
    let mut world = told("nodes b=.2 \n wait 100");
    assert_eq!(world.nodes(), "b up .2 H2");
    world.tell("nodes b=.2 c=.3 \n wait 1000 \n nodes a=.5 b=.2 c=.3");
    assert_eq!(world.nodes(), "a pending .5 -, b up .2 H2, c pending .3 -");
    world.tell("nodes b=.2 c=.3 \n wait 100 \n nodes b=.2 c=.3 d=.4 e=.6 \n nodes a=.5 b=.2 c=.3 d=.4 e=.6");
    assert_eq!(world.nodes(), "e pending .6 -, b up .2 H2, c pending .3 -, d pending .4 -");
}

#[test]
fn a_port_in_quarantine_is_its_own_nodes() {
    let back = "nodes b=.2 \n nodes a=.5 b=.2 \n a alive .5 H1";
    check(back, "a up .5 H1, b up .2 H2", &[]);
    assert_eq!(told(back).state.topology().node_at_port(9042).unwrap().id, NodeId::new("a"));
    let world = told("nodes b=.2 c=.3 d=.4 e=.5");
    assert_eq!(world.nodes(), "a! gone .1 H1, b up .2 H2, c pending .3 -, d pending .4 -");
    let hidden = &world.state.topology().hidden;
    assert_eq!((hidden.len(), hidden[0].address, hidden[0].reason), (1, Some(address(".5")), HiddenReason::NoPort));
    assert_eq!(
        world.notices,
        ["e has no port and is hidden from clients: listen: ports 9042-9045 are 4, too few for 4 nodes \
          (1 in quarantine)"]
    );
    let world = told("nodes b=.2 c=.3 d=.4 e=.5 \n wait 100");
    assert_eq!(world.nodes(), "e! pending .5 -, b up .2 H2, c pending .3 -, d pending .4 -");
    assert_eq!(world.state.topology().hidden, vec![]);
}

#[test]
fn ports_that_the_user_chose_are_never_assigned_to_others() {
    let mut world = World::new();
    world.tell("nodes a=.1 z:9042=.2");
    let topology = world.state.topology();
    assert_eq!(topology.node_at_port(9042).unwrap().id, NodeId::new("z"));
    assert_eq!(topology.node_at_port(9043).unwrap().id, NodeId::new("a"));
}

#[test]
fn a_node_that_keeps_another_port_than_was_wanted_says_why_until_it_is_wanted() {
    let mut world = World::new();
    let why = |world: &World| world.state.topology().node_at_port(9042).unwrap().port_why.clone();
    world.tell("nodes a:9042=.1");
    assert_eq!(why(&world), None);
    world.tell("nodes a:9043=.1");
    assert_eq!(why(&world).as_deref(), Some("discovery: a has port 9042 and cannot be given port 9043"));
    world.tell("nodes a:9042=.1");
    assert_eq!(why(&world), None);
}
