//! Services whose endpoints are written by hand, and Services without any.

use std::collections::BTreeMap;

use super::*;

/// One endpoint with every address, as operators write their contact points: no pod, no hostname.
fn by_hand(addresses: &[SocketAddr]) -> Value {
    let addresses: Vec<_> = addresses.iter().map(|address| address.ip()).collect();
    json!({"addressType": "IPv4", "endpoints": [{"addresses": addresses, "conditions": {"ready": true}}],
        "metadata": {"namespace": "db", "labels": {"kubernetes.io/service-name": "cassandra"}},
        "ports": [{"name": "native", "port": 9742, "protocol": "TCP"}]})
}

async fn without_selector(net: [u8; 2], nodes: u8) -> Scene {
    let mut scene = Scene::without_slices(net, 0).await;
    scene.api.put(Kind::Service, "cassandra", json!({"spec": {"clusterIP": "10.0.0.1"}}));
    scene.ring = ring(&(0..nodes).map(|n| scene.address(n)).collect::<Vec<_>>());
    scene
}

fn placed(topology: &Topology) -> Vec<(u16, SocketAddr, String)> {
    let up = topology.nodes.iter().filter(|node| node.state == NodeState::Up);
    up.map(|node| (node.port, node.address, node.id.to_string())).collect()
}

#[tokio::test]
async fn addresses_without_pods_are_nodes_by_their_host_ids_and_replicas_agree_on_ports() {
    let scene = without_selector([50, 20], 3).await;
    let addresses: Vec<SocketAddr> = (0..3).map(|n| scene.address(n)).collect();
    let mut nodes = BTreeMap::new();
    for &address in &addresses {
        nodes.insert(address, FakeNode::start(&scene.ring, address).await);
    }
    scene.api.put(Kind::Slices, "contact-points", by_hand(&addresses));
    let (mut one, mut other) = (scene.start(""), scene.start(""));
    let three = |topology: &Topology| placed(topology).len() == 3;
    let first = placed(&*one.until("three nodes are up", three).await);
    assert_eq!(placed(&*other.until("three nodes are up", three).await), first);
    assert_eq!(first.iter().map(|node| node.0).collect::<Vec<_>>(), [9042, 9043, 9044]);
    let mut found: Vec<SocketAddr> = first.iter().map(|node| node.1).collect();
    found.sort();
    assert_eq!(found, addresses);
    assert!(first.iter().all(|node| uuid::Uuid::parse_str(&node.2).is_ok()), "{first:?}");
    one.until_ready().await;
    // A node moves to another address: its host_id keeps the port. The slice is written anew, in another order.
    let (port, before, id) = first[1].clone();
    let moved = scene.address(100);
    let which = addresses.iter().position(|address| *address == before).unwrap();
    drop(nodes.remove(&before));
    scene.ring.facts.lock().members[which].address = moved;
    let _node = FakeNode::start(&scene.ring, moved).await;
    let rest = addresses.iter().copied().filter(|address| *address != before);
    scene.api.put(Kind::Slices, "contact-points", by_hand(&[moved].into_iter().chain(rest).collect::<Vec<_>>()));
    for running in [&mut one, &mut other] {
        let there = |topology: &Topology| placed(topology).contains(&(port, moved, id.clone()));
        running.until("the node is at its new address", there).await;
    }
    // A replica that starts now, while another node is dead, has the same ports.
    let (_, dead, dead_id) = first[0].clone();
    drop(nodes.remove(&dead));
    let mut third = scene.start("");
    let two = |topology: &Topology| placed(topology).len() == 2;
    let after = placed(&*third.until("two nodes are up", two).await);
    assert!(after.iter().all(|node| node.2 != dead_id && first.iter().any(|of| (of.0, &of.2) == (node.0, &node.2))));
    nodes.insert(dead, FakeNode::start(&scene.ring, dead).await);
    let third = placed(&*third.until("three nodes are up", three).await);
    assert!(third.iter().any(|node| (node.0, &node.2) == (first[0].0, &dead_id)), "{third:?}");
}

#[tokio::test]
async fn another_node_at_an_address_is_another_node() {
    let scene = without_selector([50, 21], 1).await;
    let address = scene.address(0);
    let node = FakeNode::start(&scene.ring, address).await;
    scene.api.put(Kind::Slices, "contact-points", by_hand(&[address]));
    let mut running = scene.start("");
    let first = running.until_state(9042, NodeState::Up).await;
    drop(node);
    scene.ring.facts.lock().members[0].host_id = uuid::Uuid::from_u128(77);
    let _node = FakeNode::start(&scene.ring, address).await;
    let second = running.until_state(9043, NodeState::Up).await;
    assert_eq!((second.address, second.host_id.map(|id| id.0)), (address, Some(uuid::Uuid::from_u128(77))));
    assert!(running.node(9042).id == first.id && running.node(9042).state == NodeState::Down);
}

#[tokio::test]
async fn a_service_that_yields_no_node_is_not_ready_and_says_why() {
    let mut scene = without_selector([50, 22], 1).await;
    let address = scene.address(0);
    let running = scene.start("");
    running
        .until_pending(&["discovery", "discovery: no node: Service cassandra in namespace db has no endpoints"])
        .await;
    scene.ring.login = Some(("gate".to_owned(), "secret".to_owned()));
    let _node = FakeNode::start(&scene.ring, address).await;
    scene.api.put(Kind::Slices, "contact-points", by_hand(&[address]));
    let why = format!(
        "discovery: no node: {}: the endpoint names no pod, and who it is is not known: the node asks for a",
        address.ip()
    );
    let said = || running.readiness.pending_names();
    until(|| said().iter().any(|line| line.starts_with(&why)), || format!("{:?}", said())).await;
    assert!(!running.readiness.is_ready());
    let mut slice = by_hand(&[address]);
    slice["endpoints"][0]["hostname"] = json!("web-7d4b9c-x2x");
    scene.api.put(Kind::Slices, "contact-points", slice);
    let why =
        format!("discovery: no node: {}: pod web-7d4b9c-x2x has no ordinal: it is not of a StatefulSet", address.ip());
    running.until_pending(&["discovery", &why]).await;
}
