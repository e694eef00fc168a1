//! `nodes:` and the probes.

use std::io::Write;
use std::time::Instant;

use uuid::Uuid;

use super::node::{Collector, FakeNode, member, ring, self_signed};
use super::*;
use crate::cql::frame::{Opcode, Version};
use crate::proxy::tls::ClientAcceptor;
use crate::topology::HostId;

const PROBE: &str = "probe: {interval: 50ms, silence: 10s}\n";

fn nodes(addresses: &[SocketAddr]) -> String {
    let nodes: Vec<String> =
        addresses.iter().enumerate().map(|(n, address)| format!("{{name: n{n}, address: \"{address}\"}}")).collect();
    format!("{PROBE}discovery: {{nodes: [{}]}}\n", nodes.join(", "))
}

fn host_id(n: u128) -> Option<HostId> {
    Some(HostId(Uuid::from_u128(n)))
}

#[tokio::test]
async fn a_node_that_answers_is_up_with_what_it_says_of_itself() {
    let here = address("127.31.1.1:9742");
    let ring = ring(&[here]);
    let _node = FakeNode::start(&ring, here).await;
    let mut running = start(&nodes(&[here]));
    let node = running.until_state(9042, NodeState::Up).await;
    assert_eq!((node.host_id, node.native, node.address), (host_id(1), Some(here), here));
    assert_eq!((node.data_center.as_deref(), node.rack.as_deref()), (Some("dc1"), Some("rack1")));
    running.until_ready().await;
    let text = running.metrics.render().unwrap();
    assert!(text.contains("cqlgate_node_state{node=\"n0\",state=\"up\"} 1"), "{text}");
    assert!(text.contains("cqlgate_node_port{node=\"n0\"} 9042"), "{text}");
}

#[tokio::test]
async fn dead_at_once_when_refused_and_up_when_its_port_opens_again() {
    let here = address("127.31.2.1:9742");
    let ring = ring(&[here]);
    let node = FakeNode::start(&ring, here).await;
    let mut running = start(&nodes(&[here]).replace("10s", "60s"));
    let before = running.until_state(9042, NodeState::Up).await;
    drop(node);
    running.until_state(9042, NodeState::Down).await;
    let node = FakeNode::start(&ring, here).await;
    let opened = Instant::now();
    let after = running.until_state(9042, NodeState::Up).await;
    assert!(opened.elapsed() < Duration::from_secs(5), "{:?}", opened.elapsed());
    assert!(after.incarnation > before.incarnation);
    drop(node);
    running.until_state(9042, NodeState::Down).await;
    assert!(running.readiness.is_ready());
    assert!(running.metrics.render().unwrap().contains("cqlgate_dial_failures_total{node=\"n0\",reason=\"refused\"}"));
}

#[tokio::test]
async fn a_lost_probe_connection_alone_is_not_death() {
    let here = address("127.31.14.1:9742");
    let ring = ring(&[here]);
    let node = FakeNode::start(&ring, here).await;
    let mut running = start(&nodes(&[here]));
    let before = running.until_state(9042, NodeState::Up).await;
    let metrics = Arc::clone(&running.metrics);
    let probes = || metrics.node("n0").probe_seconds.get_sample_count();
    for _ in 0..3 {
        // One that is lost before it is established is another matter.
        let seen = probes();
        until(|| probes() > seen, || format!("{} probes", probes())).await;
        let connected = node.connected().len();
        node.drop_connections();
        until(|| node.connected().len() > connected, || format!("{connected} connections")).await;
    }
    let seen = probes();
    until(|| probes() >= seen + 3, || format!("{} probes", probes())).await;
    assert_eq!(running.node(9042), before);
}

#[tokio::test]
async fn dead_when_silent_and_up_when_it_speaks_again() {
    let here = address("127.31.3.1:9742");
    let ring = ring(&[here]);
    let node = FakeNode::start(&ring, here).await;
    let mut running = start(&nodes(&[here]).replace("10s", "300ms"));
    running.until_state(9042, NodeState::Up).await;
    let fell_silent = Instant::now();
    node.silence(true);
    running.until_state(9042, NodeState::Down).await;
    assert!(fell_silent.elapsed() >= Duration::from_millis(300));
    node.silence(false);
    running.until_state(9042, NodeState::Up).await;
}

#[tokio::test]
async fn ready_although_a_listed_node_is_dead() {
    let (here, nowhere) = (address("127.31.4.1:9742"), address("127.31.4.2:9742"));
    let ring = ring(&[here]);
    let _node = FakeNode::start(&ring, here).await;
    let mut running = start(&nodes(&[here, nowhere]));
    running.until_state(9042, NodeState::Up).await;
    running.until_ready().await;
    assert_eq!(running.node(9043).state, NodeState::Pending);
}

#[tokio::test]
async fn a_node_of_another_cluster_is_never_up() {
    let addresses = ["127.31.5.1:9742", "127.31.5.2:9742", "127.31.5.3:9742"].map(address);
    let ring = ring(&addresses);
    ring.facts.lock().members[1].cluster_name = Some("another".to_owned());
    let mut started = Vec::new();
    for address in addresses {
        started.push(FakeNode::start(&ring, address).await);
    }
    let mut running = start(&nodes(&addresses));
    running.until_state(9042, NodeState::Up).await;
    running.until_state(9044, NodeState::Up).await;
    running.until_ready().await;
    assert_eq!(running.node(9043).state, NodeState::Pending);
    assert!(running.metrics.render().unwrap().contains("reason=\"identity\"} 1"));
    // What speaks against it ends without its connection ending.
    ring.facts.lock().members[1].cluster_name = None;
    running.until_state(9043, NodeState::Up).await;
}

#[tokio::test]
async fn a_host_id_of_another_node_is_never_up() {
    let addresses = ["127.31.6.1:9742", "127.31.6.2:9742"].map(address);
    let ring = ring(&addresses);
    // Both names lead to one node: two listeners answer for one member.
    ring.facts.lock().members[1].host_id = Uuid::from_u128(1);
    let _first = FakeNode::start(&ring, addresses[0]).await;
    let _second = FakeNode::start(&ring, addresses[1]).await;
    let running = start(&nodes(&addresses));
    running.until_metric("reason=\"identity\"} 1").await;
    running.until_ready().await;
    let up = |topology: &Topology| topology.nodes.iter().filter(|node| node.state == NodeState::Up).count();
    assert_eq!(up(&running.handle.topology.borrow()), 1);
}

#[tokio::test]
async fn a_login_without_credentials_leaves_the_node_up_and_nameless() {
    let here = address("127.31.7.1:9742");
    let mut ring = ring(&[here]);
    ring.login = Some(("cqlgate".to_owned(), "secret".to_owned()));
    let _node = FakeNode::start(&ring, here).await;
    let mut running = start(&nodes(&[here]));
    let node = running.until_state(9042, NodeState::Up).await;
    assert_eq!(node.host_id, None);
    running.until_ready().await;
}

#[tokio::test]
async fn who_is_nobody_at_a_node_says_so_and_serves_it() {
    for (here, asks) in [("127.31.7.2:9742", true), ("127.31.7.3:9742", false)] {
        let here = address(here);
        let node = Collector::knowing_nobody(here, asks).await;
        let mut running = start(&nodes(&[here]));
        assert_eq!(running.until_state(9042, NodeState::Up).await.host_id, None);
        running.until_ready().await;
        let said = running.readiness.degradations();
        assert!(said.len() == 1 && said[0].0.ends_with("tls.nodes.certificate (0x0100): nobody"), "{said:?}");
        assert_eq!(node.seen(Opcode::AUTH_RESPONSE) > 0, asks);
    }
}

#[tokio::test]
async fn dead_when_its_native_transport_stops_with_or_without_a_login() {
    for (here, login) in [("127.31.15.1:9742", true), ("127.31.15.2:9742", false)] {
        let here = address(here);
        let mut ring = ring(&[here]);
        ring.login = login.then(|| ("cqlgate".to_owned(), "secret".to_owned()));
        let node = FakeNode::start(&ring, here).await;
        let mut running = start(&nodes(&[here]));
        running.until_state(9042, NodeState::Up).await;
        node.disable_binary();
        running.until_state(9042, NodeState::Down).await;
    }
}

#[tokio::test]
async fn a_refused_login_costs_no_more_than_having_none_and_is_tried_again() {
    let here = address("127.31.8.1:9742");
    let mut ring = ring(&[here]);
    ring.login = Some(("cqlgate".to_owned(), "secret".to_owned()));
    let _node = FakeNode::start(&ring, here).await;
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"wrong\n").unwrap();
    let login = format!("username: cqlgate, password_file: {}, interval", file.path().display());
    let mut running = start(&nodes(&[here]).replace("interval", &login));
    running.until_ready().await;
    assert_eq!(running.until_state(9042, NodeState::Up).await.host_id, None);
    let said: Vec<_> = running.readiness.degradations();
    assert!(said.len() == 1 && said[0].0.starts_with("login as probe.username refused (0x0100): "), "{said:?}");
    std::fs::write(file.path(), "secret\n").unwrap();
    let says_who_it_is =
        |topology: &Topology| topology.node_at_port(9042).is_some_and(|node| node.host_id == host_id(1));
    running.until("it says who it is", says_who_it_is).await;
    assert_eq!(running.readiness.degradations(), []);
}

#[tokio::test]
async fn a_node_that_refuses_v4_is_asked_in_v3() {
    let here = address("127.31.9.1:9742");
    let ring = ring(&[here]);
    ring.facts.lock().newest = Version::V3;
    let node = FakeNode::start(&ring, here).await;
    assert_eq!(start(&nodes(&[here])).until_state(9042, NodeState::Up).await.host_id, host_id(1));
    assert_eq!(node.connected(), [Version::V3]);
}

#[tokio::test]
async fn a_replaced_node_is_another_life_on_the_same_port() {
    let here = address("127.31.10.1:9742");
    let ring = ring(&[here]);
    let node = FakeNode::start(&ring, here).await;
    let mut running = start(&nodes(&[here]));
    let before = running.until_state(9042, NodeState::Up).await;
    drop(node);
    running.until_state(9042, NodeState::Down).await;
    ring.facts.lock().members[0] = member(2, here);
    let _node = FakeNode::start(&ring, here).await;
    let after = running.until_state(9042, NodeState::Up).await;
    assert_eq!(after.host_id, host_id(2));
    assert!(after.incarnation > before.incarnation);
}

#[tokio::test]
async fn what_does_not_speak_cql_is_dead() {
    let here = address("127.31.11.1:9742");
    let listener = tokio::net::TcpListener::bind(here).await.unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    let running = start(&nodes(&[here]));
    running.until_ready().await;
    assert_eq!(running.node(9042).state, NodeState::Pending);
}

#[tokio::test]
async fn nodes_are_probed_over_tls_by_a_certificate_that_is_trusted() {
    let addresses = ["127.31.13.1:9742", "127.31.13.2:9742"].map(address);
    let ring = ring(&addresses);
    let directory = tempfile::tempdir().unwrap();
    let mut started = Vec::new();
    for (address, name) in addresses.into_iter().zip(["trusted", "stranger"]) {
        let tls = self_signed(directory.path(), name, &address.ip().to_string());
        let acceptor = ClientAcceptor::from_config(&tls).unwrap();
        started.push(FakeNode::start_tls(&ring, address, acceptor).await);
    }
    let ca = directory.path().join("trusted.crt");
    let mut running = start(&format!("tls: {{nodes: {{ca: {}}}}}\n{}", ca.display(), nodes(&addresses)));
    assert_eq!(running.until_state(9042, NodeState::Up).await.host_id, host_id(1));
    running.until_metric("cqlgate_dial_failures_total{node=\"n1\",reason=\"tls\"}").await;
    assert_eq!(running.node(9043).state, NodeState::Pending);
}
