//! `contact_points:` against a ring.

use std::time::Instant;

use uuid::Uuid;

use super::node::{FakeNode, Ring, ring};
use super::*;
use crate::cql::message::NodeChange;
use crate::topology::{HiddenReason, Mapped};

const PROBE: &str = "probe: {interval: 50ms, silence: 2s}\n";

fn contact(points: &[SocketAddr]) -> String {
    let points: Vec<String> = points.iter().map(|point| format!("\"{point}\"")).collect();
    format!("{PROBE}discovery: {{contact_points: [{}]}}\n", points.join(", "))
}

/// Addresses `127.32.<test>.1` and following.
fn addresses<const N: usize>(test: u8) -> [SocketAddr; N] {
    std::array::from_fn(|n| address(&format!("127.32.{test}.{}:9742", n + 1)))
}

async fn start_nodes(ring: &Ring, addresses: &[SocketAddr]) -> Vec<FakeNode> {
    let mut nodes = Vec::new();
    for &address in addresses {
        nodes.push(FakeNode::start(ring, address).await);
    }
    nodes
}

fn id(n: u128) -> String {
    Uuid::from_u128(n).to_string()
}

#[tokio::test]
async fn a_ring_is_found_from_one_contact_point() {
    for (test, peers_v2) in [(1, true), (2, false)] {
        let addresses: [SocketAddr; 3] = addresses(test);
        let ring = ring(&addresses);
        ring.facts.lock().peers_v2 = peers_v2;
        let _nodes = start_nodes(&ring, &addresses).await;
        let mut running = start(&contact(&addresses[1..2]));
        for (n, port) in (0..3).zip(9042..) {
            let node = running.until_state(port, NodeState::Up).await;
            assert_eq!((&*node.id.0, node.address), (&*id(n + 1), addresses[n as usize]));
        }
        running.until_ready().await;
    }
}

#[tokio::test]
async fn an_event_brings_a_new_node_and_takes_one_that_left() {
    let addresses: [SocketAddr; 4] = addresses(3);
    let ring = ring(&addresses);
    ring.facts.lock().members[3].member = false;
    let mut nodes = start_nodes(&ring, &addresses).await;
    let mut running = start(&contact(&addresses[..1]));
    running.until_state(9044, NodeState::Up).await;
    ring.facts.lock().members[3].member = true;
    nodes[0].send_event(NodeChange::NewNode, addresses[3]);
    running.until_state(9045, NodeState::Up).await;
    ring.facts.lock().members[1].member = false;
    nodes.remove(1);
    nodes[0].send_event(NodeChange::RemovedNode, addresses[1]);
    let gone = running.until_state(9043, NodeState::Gone).await;
    assert_eq!(&*gone.id.0, &*id(2));
    let topology = Arc::clone(&running.handle.topology.borrow());
    assert!(matches!(topology.map_native(addresses[1]), Mapped::Gone(node) if node.port == 9043));
}

#[tokio::test]
async fn a_node_that_sees_no_peers_is_not_believed() {
    let addresses: [SocketAddr; 3] = addresses(4);
    let ring = ring(&addresses);
    let nodes = start_nodes(&ring, &addresses).await;
    let mut running = start(&contact(&addresses[..1]));
    for port in 9042..9045 {
        running.until_state(port, NodeState::Up).await;
    }
    ring.facts.lock().members[0].blind_to = vec![Uuid::from_u128(2)];
    let before = running.metrics.discovery_relists.get();
    nodes[0].send_event(NodeChange::Up, addresses[0]);
    let read = || running.metrics.discovery_relists.get();
    until(|| read() >= before + 2, || format!("{} readings", read())).await;
    assert_eq!(running.node(9043).state, NodeState::Up);
}

#[tokio::test]
async fn a_node_keeps_its_port_at_a_new_address() {
    let addresses: [SocketAddr; 4] = addresses(5);
    let ring = ring(&addresses[..3]);
    let mut nodes = start_nodes(&ring, &addresses[..3]).await;
    let mut running = start(&contact(&addresses[..1]));
    let before = running.until_state(9044, NodeState::Up).await;
    nodes.pop();
    running.until_state(9044, NodeState::Down).await;
    ring.facts.lock().members[2].address = addresses[3];
    let _moved = FakeNode::start(&ring, addresses[3]).await;
    // The event's own address is not what counts.
    nodes[0].send_event(NodeChange::NewNode, addresses[2]);
    let after = running.until_state(9044, NodeState::Up).await;
    assert_eq!((&after.id, after.address, after.host_id), (&before.id, addresses[3], before.host_id));
    assert!(after.incarnation > before.incarnation);
    let topology = Arc::clone(&running.handle.topology.borrow());
    assert!(matches!(topology.map_native(addresses[2]), Mapped::Former(node) if node.port == 9044));
}

#[tokio::test]
async fn another_node_tells_when_the_first_one_dies() {
    let addresses: [SocketAddr; 4] = addresses(6);
    let ring = ring(&addresses);
    ring.facts.lock().members[3].member = false;
    let mut nodes = start_nodes(&ring, &addresses).await;
    let mut running = start(&contact(&addresses[..1]));
    for port in 9042..9045 {
        running.until_state(port, NodeState::Up).await;
    }
    // Without an event the first one would not be asked again for long.
    ring.facts.lock().members[3].member = true;
    let died = Instant::now();
    nodes.remove(0);
    running.until_state(9042, NodeState::Down).await;
    running.until_state(9045, NodeState::Up).await;
    assert!(died.elapsed() < Duration::from_secs(15), "{:?}", died.elapsed());
    assert_eq!(running.node(9042).state, NodeState::Down);
}

#[tokio::test]
async fn a_login_is_needed_and_said() {
    let [here] = addresses(7);
    let mut ring = ring(&[here]);
    ring.login = Some(("cqlgate".to_owned(), "secret".to_owned()));
    let _node = FakeNode::start(&ring, here).await;
    let without = start(&contact(&[here]));
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "secret").unwrap();
    let login = format!("username: cqlgate, password_file: {}, interval", file.path().display());
    let mut with = start(&contact(&[here]).replace("interval", &login));
    with.until_state(9042, NodeState::Up).await;
    with.until_ready().await;
    let needed = format!(
        "discovery: {here}: the node asks for a login (PasswordAuthenticator): give the gateway one with probe.username and \
         probe.password_file"
    );
    without.until_pending(&["discovery", &needed]).await;
    without.until_metric("cqlgate_contact_point_failures_total{reason=\"login\"} 1").await;
}

#[tokio::test]
async fn contact_points_that_fail_are_named_and_counted_until_one_answers() {
    let addresses: [SocketAddr; 2] = addresses(11);
    let mut running = start(&contact(&addresses));
    let refused = addresses.map(|address| format!("discovery: {address}: connection refused"));
    running.until_pending(&["discovery", &refused[0], &refused[1]]).await;
    running.until_metric("cqlgate_contact_point_failures_total{reason=\"refused\"}").await;
    let ring = ring(&addresses);
    let node = FakeNode::start(&ring, addresses[1]).await;
    running.until_ready().await;
    // What fails later is no longer pending.
    drop(node);
    running.until_state(9043, NodeState::Down).await;
    assert!(running.readiness.is_ready());
}

#[tokio::test]
async fn a_node_beyond_the_last_port_is_hidden() {
    let addresses: [SocketAddr; 3] = addresses(8);
    let ring = ring(&addresses);
    let _nodes = start_nodes(&ring, &addresses).await;
    let mut config = config(&contact(&addresses[..1]));
    config.listen.last = 9043;
    let mut running = start_with(&config);
    running.until_state(9043, NodeState::Up).await;
    let hidden = running.handle.topology.borrow().hidden.clone();
    assert_eq!(hidden.len(), 1);
    assert_eq!((hidden[0].address, hidden[0].reason), (Some(addresses[2]), HiddenReason::NoPort));
}

/// Waits until this row is hidden for this reason.
async fn until_hidden(running: &mut Running, address: SocketAddr, reason: HiddenReason) {
    let hidden = |topology: &Topology| {
        topology.hidden.iter().any(|hidden| hidden.address == Some(address) && hidden.reason == reason)
    };
    running.until(&format!("{address} {reason:?}"), hidden).await;
}

/// One node among contact points tells of a third one at `third`, where somebody listens; it is never dialled.
async fn check_not_dialled(test: u8, keys: &str, third: SocketAddr) {
    let [first, second]: [SocketAddr; 2] = addresses(test);
    let ring = ring(&[first, second, third]);
    let _nodes = start_nodes(&ring, &[first, second]).await;
    let listener = tokio::net::TcpListener::bind(third).await.ok();
    let mut running = start(&contact(&[first]).replace("contact_points", &format!("{keys}contact_points")));
    until_hidden(&mut running, third, HiddenReason::NotAllowed).await;
    running.until_state(9043, NodeState::Up).await;
    running.until_ready().await;
    assert_eq!(running.handle.topology.borrow().nodes.len(), 2);
    if let Some(listener) = listener {
        let dialled = timeout(Duration::from_millis(300), listener.accept()).await;
        assert!(dialled.is_err(), "{third} was dialled: {dialled:?}");
    }
}

#[tokio::test]
async fn rows_that_name_what_is_not_to_be_dialled_are_refused() {
    // Contact points are loopback addresses, and so may others be.
    check_not_dialled(12, "", address("169.254.169.254:80")).await;
    // The gateway's own port for clients, and its admin port.
    check_not_dialled(13, "", address("127.0.0.1:9051")).await;
    check_not_dialled(14, "", address("127.0.0.1:9180")).await;
    check_not_dialled(15, "", address("203.0.113.10:9042")).await;
    check_not_dialled(16, "allow: [127.32.16.2], ", address("127.32.16.9:9742")).await;
}

#[tokio::test]
async fn a_node_of_which_one_node_alone_tells_is_not_dialled() {
    let addresses: [SocketAddr; 4] = addresses(17);
    let ring = ring(&addresses);
    let invented = Uuid::from_u128(4);
    {
        let mut facts = ring.facts.lock();
        facts.members[3].member = false;
        facts.members[1].blind_to = vec![invented];
        facts.members[2].blind_to = vec![invented];
    }
    let nodes = start_nodes(&ring, &addresses).await;
    let mut running = start(&contact(&addresses[..1]));
    for port in 9042..9045 {
        running.until_state(port, NodeState::Up).await;
    }
    ring.facts.lock().members[3].member = true;
    nodes[0].send_event(NodeChange::NewNode, addresses[3]);
    until_hidden(&mut running, addresses[3], HiddenReason::NotConfirmed).await;
    assert_eq!((running.handle.topology.borrow().nodes.len(), nodes[3].connected()), (3, Vec::new()));
    ring.facts.lock().members[2].blind_to.clear();
    ring.facts.lock().members[1].blind_to.clear();
    running.until_state(9045, NodeState::Up).await;
}

#[tokio::test]
async fn of_two_contact_points_both_must_tell_of_a_node_before_it_is_dialled() {
    let addresses: [SocketAddr; 3] = addresses(19);
    let ring = ring(&addresses);
    ring.facts.lock().members[1].blind_to = vec![Uuid::from_u128(3)];
    let nodes = start_nodes(&ring, &addresses).await;
    let mut running = start(&contact(&addresses[..2]));
    until_hidden(&mut running, addresses[2], HiddenReason::NotConfirmed).await;
    running.until_state(9043, NodeState::Up).await;
    running.until_ready().await;
    assert_eq!((running.handle.topology.borrow().nodes.len(), nodes[2].connected()), (2, Vec::new()));
    ring.facts.lock().members[1].blind_to.clear();
    running.until_state(9044, NodeState::Up).await;
}

#[tokio::test]
async fn a_contact_point_that_does_not_answer_is_not_waited_for_long() {
    let addresses: [SocketAddr; 3] = addresses(20);
    let ring = ring(&addresses);
    let nodes = start_nodes(&ring, &addresses[..2]).await;
    // It is dialled, and nobody says a word.
    let _silent = tokio::net::TcpListener::bind(addresses[2]).await.unwrap();
    let mut running = start(&contact(&[addresses[0], addresses[2]]).replace("silence: 2s", "silence: 60s"));
    running.until_state(9043, NodeState::Up).await;
    assert!(!nodes[1].connected().is_empty());
}

#[tokio::test]
async fn a_row_with_a_name_that_is_too_long_is_refused() {
    let addresses: [SocketAddr; 3] = addresses(18);
    let ring = ring(&addresses);
    ring.facts.lock().members[1].rack = "r".repeat(256);
    ring.facts.lock().members[2].rack = "r".repeat(257);
    let _nodes = start_nodes(&ring, &addresses).await;
    let mut running = start(&contact(&addresses[..1]));
    until_hidden(&mut running, addresses[2], HiddenReason::TooLong).await;
    assert_eq!(running.until_state(9043, NodeState::Up).await.rack.as_deref().map(str::len), Some(256));
    assert_eq!(running.handle.topology.borrow().nodes.len(), 2);
    // Nor is it taken at its own word.
    let listed = format!(
        "{PROBE}discovery: {{nodes: [{{name: a, address: '{}'}}, {{name: b, address: '{}'}}]}}\n",
        addresses[2], addresses[1]
    );
    let mut running = start(&listed);
    running.until_state(9043, NodeState::Up).await;
    running.until_ready().await;
    assert_eq!((running.node(9042).state, running.node(9042).rack.clone()), (NodeState::Pending, None));
}

#[tokio::test]
async fn ports_are_the_same_after_a_restart_with_a_state_file() {
    let addresses: [SocketAddr; 3] = addresses(9);
    let ring = ring(&addresses);
    ring.facts.lock().members[0].member = false;
    let nodes = start_nodes(&ring, &addresses).await;
    let directory = tempfile::tempdir().unwrap();
    let state_file = format!("state_file: {}/ports.json, contact_points", directory.path().display());
    let text = contact(&addresses[1..2]).replace("contact_points", &state_file);
    let ports = |running: &Running| -> Vec<(u16, Arc<str>)> {
        running.handle.topology.borrow().nodes.iter().map(|node| (node.port, Arc::clone(&node.id.0))).collect()
    };
    let mut running = start(&text);
    running.until_state(9043, NodeState::Up).await;
    ring.facts.lock().members[0].member = true;
    nodes[1].send_event(NodeChange::NewNode, addresses[0]);
    running.until_state(9044, NodeState::Up).await;
    let before = ports(&running);
    drop(running);
    let mut running = start(&text);
    running.until_state(9044, NodeState::Up).await;
    assert_eq!(ports(&running), before);
    // Without the file they would follow the order of the host_ids.
    let mut forgetful = start(&contact(&addresses[1..2]));
    forgetful.until_state(9044, NodeState::Up).await;
    assert_ne!(ports(&forgetful), before);
}

#[tokio::test]
async fn a_bad_state_file_stops_the_start() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let state_file = format!("state_file: {}, contact_points", file.path().display());
    let text = contact(&addresses::<1>(10)).replace("contact_points", &state_file);
    let refused = |contents: &str| {
        std::fs::write(file.path(), contents).unwrap();
        let ports = PortRange::new(9042, 9043).unwrap();
        spawn_with(Names::system(), None, &config(&text), ports, Metrics::new(), None, &Readiness::new())
            .err()
            .unwrap()
            .to_string()
    };
    assert!(refused("not json").starts_with("discovery.state_file /"));
    let beyond = "{\"version\": 1, \"nodes\": {\"a\": {\"port\": 1}}}";
    assert_eq!(refused(beyond), "discovery.state_file: port 1 of a is outside of the listening ports 9042-9043");
}
