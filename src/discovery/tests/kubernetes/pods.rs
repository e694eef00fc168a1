//! Pods that come, move and go, while the API does what it should.

use super::*;
use crate::topology::{HiddenReason, Mapped, NodeId};

#[tokio::test]
async fn nodes_are_found_and_have_ports_by_ordinal() {
    let scene = Scene::of([50, 1], 3).await;
    let mut running = scene.start("dial: address");
    for (ordinal, port) in (0..3).zip(9042..) {
        let node = running.until_state(port, NodeState::Up).await;
        assert_eq!((&*node.id.0, node.address), (&*format!("cassandra-{ordinal}"), scene.address(ordinal)));
        assert_eq!(node.host, None);
    }
    running.until_ready().await;
    for resource in ["endpointslices", "pods", "service"] {
        running.until_watching(resource, true).await;
    }
}

#[tokio::test]
async fn several_slices_and_pages_are_one_service() {
    let scene = Scene::without_slices([50, 2], 4).await;
    scene.api.set_page(1);
    for (name, pods) in [("cassandra-a", &[1, 3][..]), ("cassandra-b", &[0]), ("cassandra-c", &[2])] {
        scene.api.put(Kind::Slices, name, scene.slice(pods));
    }
    let running = scene.started(QUICK).await;
    let lives = running.lives();
    assert_eq!(
        lives.iter().map(|life| life.1).collect::<Vec<_>>(),
        (0..4).map(|n| scene.address(n)).collect::<Vec<_>>()
    );
    // Slices are recreated under new names, and a pod is in two of them for a while.
    scene.api.put(Kind::Slices, "cassandra-d", scene.slice(&[1, 2]));
    scene.api.delete(Kind::Slices, "cassandra-c");
    scene.api.put(Kind::Slices, "cassandra-a", scene.slice(&[3]));
    settled(&scene, &running).await;
    assert_eq!(running.lives(), lives);
}

/// Waits until all that was written before has been folded in: by what cannot be overlooked after it.
async fn settled(scene: &Scene, running: &Running) {
    let stranger = json!({"addressType": "IPv4", "ports": null, "endpoints": [{"addresses": ["192.0.2.1"], "hostname": "stranger"}]});
    scene.api.put(Kind::Slices, "stranger", stranger);
    let hidden = || running.handle.topology.borrow().hidden.clone();
    until(|| !hidden().is_empty(), || "the stranger is hidden".to_owned()).await;
}

#[tokio::test]
async fn a_pod_back_with_a_new_address_keeps_its_port_and_nobody_keeps_the_old_one() {
    let mut scene = Scene::of([50, 3], 2).await;
    let mut running = scene.started(QUICK).await;
    let (other, before) = (running.node(9042), running.node(9043));
    // The kubelet's last act, and the endpointslice controller after it.
    scene.nodes[1] = None;
    scene.api.delete(Kind::Pods, "cassandra-1");
    scene.api.put(Kind::Slices, "cassandra-x1", scene.slice(&[0]));
    // Its probe may notice before the API does.
    let away = |topology: &Topology| topology.node_at_port(9043).is_some_and(|node| !node.present);
    let topology = running.until("9043 is away", away).await;
    let down = topology.node_at_port(9043).unwrap();
    assert!(down.state == NodeState::Down && down.incarnation > before.incarnation);
    let moved = SocketAddr::from(([127, 50, 3, 102], 9742));
    scene.ring.facts.lock().members[1].address = moved;
    let _node = FakeNode::start(&scene.ring, moved).await;
    scene.api.put(Kind::Pods, "cassandra-1", pod("u1b", moved));
    let after = running.until_state(9043, NodeState::Up).await;
    assert_eq!((after.address, after.host_id, &after.id), (moved, before.host_id, &before.id));
    assert!(after.incarnation > down.incarnation);
    let pods = [(0, "u0".to_owned(), scene.address(0)), (1, "u1b".to_owned(), moved)];
    scene.api.put(Kind::Slices, "cassandra-x1", slice(&pods));
    settled(&scene, &running).await;
    assert_eq!(running.node(9043).incarnation, after.incarnation);
    assert_eq!((running.node(9042).since, running.node(9042).incarnation), (other.since, other.incarnation));
    assert!(matches!(running.handle.topology.borrow().map_native(before.address), Mapped::Former(_)));
}

#[tokio::test]
async fn a_port_that_is_not_the_ordinals_says_why() {
    let scene = Scene::of([53, 42], 2).await;
    let left = jiff::Timestamp::now() - jiff::SignedDuration::from_hours(1);
    let nodes = json!({"cassandra-1": {"port": 9049}, "former-1": {"port": 9043, "left": left.to_string()}});
    scene.api.hold_ledger(&json!({"version": 1, "nodes": nodes}).to_string());
    let mut running = scene.start("dial: address");
    assert_eq!(running.until_state(9042, NodeState::Up).await.port_why, None);
    let node = running.until_state(9049, NodeState::Up).await;
    let until = left + jiff::SignedDuration::from_hours(24);
    let expected = format!("9043, its ordinal's, is former-1's, which has left, and no other's before {until:.0}");
    assert_eq!(node.port_why.as_deref(), Some(&*expected));
}

#[tokio::test]
async fn an_endpoint_where_nobody_is_to_be_dialled_is_hidden() {
    let scene = Scene::of([53, 40], 2).await;
    let second = scene.address(1);
    let config = |allow: &str| {
        let keys = "kubernetes: {service: cassandra, namespace: db, dial: address}";
        config(&format!("probe: {{interval: 50ms, silence: 10s}}\ndiscovery: {{{allow}{keys}}}\n"))
    };
    let first = scene.address(0).ip();
    let mut running = scene.start_by(Names::system(), QUICK, &config(&format!("allow: [{first}], ")));
    running.until_state(9042, NodeState::Up).await;
    let hidden = |topology: &Topology| {
        topology.hidden.iter().any(|hidden| (hidden.address, hidden.reason) == (Some(second), HiddenReason::NotAllowed))
    };
    running.until("hidden", hidden).await;
    running.until_ready().await;
    assert_eq!((running.node(9043).state, running.node(9043).present), (NodeState::Pending, false));
    assert_eq!(scene.nodes[1].as_ref().unwrap().connected(), []);
    // By default no pod has such an address.
    let mut running = scene.start_by(Names::system(), QUICK, &config(""));
    running.until("hidden", hidden).await;
    assert!(running.handle.topology.borrow().nodes.iter().all(|node| !node.present));
}

#[tokio::test]
async fn a_pod_that_moves_where_nobody_is_to_be_dialled_is_down_and_the_reason_is_told() {
    let mut scene = Scene::of([53, 41], 2).await;
    let [first, second, there] = [0, 1, 8].map(|ordinal| scene.address(ordinal));
    let keys = "kubernetes: {service: cassandra, namespace: db, dial: address}";
    let allow = format!("allow: [{}, {}]", first.ip(), second.ip());
    let config = config(&format!("probe: {{interval: 50ms, silence: 10s}}\ndiscovery: {{{allow}, {keys}}}\n"));
    let mut running = scene.start_by(Names::system(), QUICK, &config);
    for port in [9042, 9043] {
        running.until_state(port, NodeState::Up).await;
    }
    scene.move_pod(there).await;
    scene.say_moved(there);
    let said = |topology: &Topology| {
        let hidden = topology.hidden.iter().map(|hidden| (hidden.id.clone(), hidden.address, hidden.reason));
        let why = (Some(NodeId::new("cassandra-1")), Some(there), HiddenReason::NotAllowed);
        hidden.eq([why]) && topology.node_at_port(9043).is_some_and(|node| node.state == NodeState::Down)
    };
    running.until("down, and why", said).await;
    // Told again with all that is told of the others.
    scene.nodes[0] = None;
    running.until_state(9042, NodeState::Down).await;
    assert!(said(&running.handle.topology.borrow()));
    scene.join_at(second).await;
    scene.say_moved(second);
    running.until_state(9043, NodeState::Up).await;
    running.until("no reason any longer", |topology| topology.hidden.is_empty()).await;
}

/// Dual-stack pods, and Cassandra listens on IPv6 alone.
#[tokio::test]
async fn a_node_is_found_at_the_family_at_which_it_answers() {
    let listening: SocketAddr = "[::1]:9743".parse().unwrap();
    if std::net::TcpListener::bind(("::1", 0)).is_err() {
        eprintln!("skipped: this machine has no ::1");
        return;
    }
    let scene = Scene::without_slices([50, 9], 0).await;
    let cassandra = ring(&[listening]);
    let _node = FakeNode::start(&cassandra, listening).await;
    let deaf = scene.address(0);
    for (name, address, family) in [("cassandra-v4", deaf, "IPv4"), ("cassandra-v6", listening, "IPv6")] {
        let mut slice = slice(&[(0, "u0".to_owned(), address)]);
        slice["addressType"] = json!(family);
        slice["ports"][0]["port"] = json!(listening.port());
        scene.api.put(Kind::Slices, name, slice);
    }
    let mut running = scene.start("dial: address");
    let node = running.until_state(9042, NodeState::Up).await;
    assert_eq!((&*node.id.0, node.address), ("cassandra-0", listening));
    // Where a family is configured the other one is not tried.
    let mut running = scene.start("dial: address, family: ipv4");
    let node =
        running.until("9042 is dead", |of| of.node_at_port(9042).is_some()).await.node_at_port(9042).unwrap().clone();
    assert_eq!(node.address.ip(), deaf.ip());
    let mut running = scene.start("dial: address, family: ipv6");
    assert_eq!(running.until_state(9042, NodeState::Up).await.address, listening);
}

/// A global Service: the other cluster's slices come first by name, with nodes that answer.
#[tokio::test]
async fn a_pod_of_another_cluster_takes_no_port() {
    for (part, pods) in [(10, true), (11, false)] {
        let scene = Scene::of([50, part], 2).await;
        if !pods {
            scene.api.break_with(Kind::Pods, Verb::List, crate::discovery::tests::fake_api::Fault::Forbidden);
        }
        let over_there: Vec<_> = (50..52).map(|n| scene.address(n)).collect();
        let other_ring = ring(&over_there);
        let _nodes =
            [FakeNode::start(&other_ring, over_there[0]).await, FakeNode::start(&other_ring, over_there[1]).await];
        let mirrored = |address| {
            let mut slice = slice(&[(0, "x0".to_owned(), address)]);
            slice["metadata"]["labels"]["endpointslice.kubernetes.io/managed-by"] = json!("mesh.example.com");
            slice["metadata"]["labels"]["multicluster.kubernetes.io/source-cluster"] = json!("west");
            slice
        };
        scene.api.put(Kind::Slices, "a-west", mirrored(over_there[0]));
        let mut running = scene.started(QUICK).await;
        let lives = running.lives();
        assert_eq!(lives.iter().map(|life| life.1).collect::<Vec<_>>(), [scene.address(0), scene.address(1)]);
        scene.api.put(Kind::Slices, "a-west", mirrored(over_there[1]));
        let shown = |topology: &Topology, at: SocketAddr| {
            topology.hidden.iter().any(|hidden| hidden.address.is_some_and(|address| address.ip() == at.ip()))
        };
        running.until("the other cluster's pod is hidden", |topology| shown(topology, over_there[1])).await;
        assert_eq!(running.lives(), lives);
        scene.api.put(Kind::Slices, "cassandra-x1", scene.slice(&[1]));
        let away = |topology: &Topology| topology.node_at_port(9042).is_some_and(|node| !node.present);
        // Where its Pod is seen to be there it is not away.
        if !pods {
            running.until("9042 is away", away).await;
        }
        scene.api.put(Kind::Slices, "a-west", mirrored(over_there[0]));
        scene.api.put(Kind::Slices, "cassandra-x1", scene.slice(&[0, 1]));
        assert_eq!(running.until_state(9042, NodeState::Up).await.address, scene.address(0));
    }
}

#[tokio::test]
async fn a_pinned_pod_has_its_port_and_nobody_else_has_it() {
    let scene = Scene::of([50, 12], 3).await;
    let mut running = scene.start("dial: address, pins: {cassandra-1: 9050, cassandra-0: 9044}");
    for (port, ordinal) in [(9044, 0), (9050, 1)] {
        assert_eq!(running.until_state(port, NodeState::Up).await.address, scene.address(ordinal));
    }
    // By its ordinal it would be 9044's.
    let hidden = |topology: &Topology| topology.hidden.iter().any(|of| of.id == Some(NodeId::new("cassandra-2")));
    let topology = running.until("cassandra-2 is hidden", hidden).await;
    assert_eq!(topology.nodes.iter().map(|node| node.port).collect::<Vec<_>>(), [9044, 9050]);
}

/// Ranges and pins are taken while it runs; whoever has a port keeps it, and is up all the time.
#[tokio::test]
async fn ports_that_are_given_later_are_taken_by_those_who_have_none() {
    let scene = Scene::of([39, 1], 2).await;
    let narrow = "dial: address, statefulSets: [{name: cassandra, ports: 9042-9042}]";
    let from = in_kubernetes(narrow);
    let mut running = scene.start(narrow);
    running.until_state(9042, NodeState::Up).await;
    let waits =
        |topology: &Topology| topology.hidden.iter().any(|hidden| hidden.id == Some(NodeId::new("cassandra-1")));
    running.until("the second one has no port", waits).await;
    let pinned = in_kubernetes(&format!("{narrow}, pins: {{cassandra-1: 9047}}"));
    let wide = in_kubernetes("dial: address, statefulSets: [{name: cassandra, ports: 9044-9048}]");
    let mut topology = running.handle.topology.clone();
    let up = |topology: &Arc<Topology>| topology.node_at_port(9047).is_some_and(|node| node.state == NodeState::Up);
    running
        .while_up(9042, async {
            running.change(&from, &pinned).await;
            timeout(DEADLINE, topology.wait_for(up)).await.unwrap().unwrap();
        })
        .await;
    // What would move both moves nobody.
    running
        .while_up(
            9042,
            running.while_up(9047, async {
                running.change(&pinned, &wide).await;
                let said =
                    |topology: &Arc<Topology>| topology.node_at_port(9042).is_some_and(|node| node.port_why.is_some());
                timeout(DEADLINE, topology.wait_for(said)).await.unwrap().unwrap();
            }),
        )
        .await;
}

/// The same where the ledger says who has which port.
#[tokio::test]
async fn a_pin_that_is_given_later_counts_where_the_ledger_decides() {
    let scene = Scene::of([39, 2], 2).await;
    let beyond = "dial: address, first_ordinal: 1";
    let from = in_kubernetes(beyond);
    let mut running = scene.start(beyond);
    let first = running.until_state(9042, NodeState::Up).await;
    assert_eq!(first.id, NodeId::new("cassandra-1"));
    let to = in_kubernetes(&format!("{beyond}, pins: {{cassandra-0: 9050}}"));
    let mut topology = running.handle.topology.clone();
    running
        .while_up(9042, async {
            running.change(&from, &to).await;
            let up =
                |topology: &Arc<Topology>| topology.node_at_port(9050).is_some_and(|node| node.state == NodeState::Up);
            timeout(DEADLINE, topology.wait_for(up)).await.unwrap().unwrap();
        })
        .await;
}
