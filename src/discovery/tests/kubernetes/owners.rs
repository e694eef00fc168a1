//! Pods that somebody made, and to whom the gateway's password goes.

use super::super::fake_api::Fault;
use super::super::node::Collector;
use super::super::plain_password::{guarded, probe, until_asked_in_vain};
use super::*;
use crate::cql::frame::Opcode;
use crate::topology::{HiddenReason, NodeId};

const KEYS: &str =
    "discovery: {allow: [127.0.0.0/8], kubernetes: {service: cassandra, namespace: db, dial: address}}\n";

/// A pod with the Service's labels that no StatefulSet owns.
fn made_up(uid: &str, address: SocketAddr) -> Value {
    let mut pod = pod(uid, address);
    pod["metadata"].as_object_mut().unwrap().remove("ownerReferences");
    pod
}

/// Two pods of a cluster with passwords.
async fn with_passwords(net: [u8; 2]) -> Scene {
    let mut scene = Scene::without_slices(net, 0).await;
    scene.ring = guarded(&[scene.address(0), scene.address(1)]);
    for n in 0..2 {
        scene.nodes.push(Some(FakeNode::start(&scene.ring, scene.address(n)).await));
        scene.api.put(Kind::Pods, &format!("cassandra-{n}"), pod(&format!("u{n}"), scene.address(n)));
    }
    scene.api.put(Kind::Slices, "cassandra-x1", scene.slice(&[0, 1]));
    scene
}

impl Running {
    async fn until_known(&mut self, port: u16) {
        let known = |topology: &Topology| topology.node_at_port(port).is_some_and(|node| node.host_id.is_some());
        self.until(&format!("{port} has said who it is"), known).await;
    }
}

#[tokio::test]
async fn a_pod_that_somebody_made_is_hidden_and_sent_no_password() {
    let scene = with_passwords([54, 1]).await;
    let collector = Collector::start(scene.address(7)).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut running = scene.start_by(Names::system(), QUICK, &config(&(probe(&file, "") + KEYS)));
    running.until_known(9042).await;
    running.until_known(9043).await;
    running.until_ready().await;
    assert_eq!(running.readiness.degradations(), []);
    scene.api.put(Kind::Pods, "cassandra-7", made_up("u7", scene.address(7)));
    // As the controller does, after the Pod.
    scene.api.put(Kind::Slices, "cassandra-x1", scene.slice(&[0, 1, 7]));
    let hidden = |topology: &Topology| {
        let it = topology.hidden.iter().find(|hidden| hidden.id == Some(NodeId::new("cassandra-7")));
        it.is_some_and(|it| (it.address, it.reason) == (Some(scene.address(7)), HiddenReason::NotOwned))
    };
    let topology = running.until("it is hidden", hidden).await;
    let is_up = |topology: &Topology| topology.nodes.iter().any(|node| &*node.id.0 == "cassandra-7" && node.present);
    assert!(!is_up(&topology));
    assert_eq!(collector.seen(Opcode::AUTH_RESPONSE), 0);
}

/// The slices show it first, or the Pods of the set cannot be told from it: it may be dialled, and gets nothing.
#[tokio::test]
async fn a_pod_that_nobody_is_known_to_own_is_sent_no_password() {
    let mut scene = with_passwords([54, 2]).await;
    scene.nodes.clear();
    let collector = Collector::start(scene.address(7)).await;
    scene.api.put(Kind::Slices, "cassandra-x1", scene.slice(&[7]));
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut running = scene.start_by(Names::system(), QUICK, &config(&(probe(&file, "") + KEYS)));
    running.until_state(9049, NodeState::Up).await;
    until_asked_in_vain(&collector).await;
    running.until_withheld("probe.plain_password: listed", 1).await;
}

/// Pods and slices are watched apart.
#[tokio::test]
async fn pods_that_are_listed_a_moment_after_their_endpoints_are_logged_in_to_at_once() {
    let scene = with_passwords([54, 4]).await;
    scene.api.break_with(Kind::Pods, Verb::List, Fault::Unavailable);
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut running = scene.start_by(Names::system(), QUICK, &config(&(probe(&file, "") + KEYS)));
    let asked = |n: usize| !scene.nodes[n].as_ref().unwrap().connected().is_empty();
    until(|| asked(0) && asked(1), || "nobody was dialled".to_owned()).await;
    scene.api.mend();
    running.until_known(9042).await;
    running.until_known(9043).await;
    assert_eq!(running.metric("cqlgate_dial_failures_total{node=\"cassandra-0\",reason=\"login\"}"), 0.0);
}

#[tokio::test]
async fn without_the_right_to_watch_pods_nobody_is_sent_the_password_until_it_is_there() {
    let scene = with_passwords([54, 3]).await;
    scene.api.break_with(Kind::Pods, Verb::List, Fault::Forbidden);
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut running = scene.start_by(Names::system(), QUICK, &config(&(probe(&file, "") + KEYS)));
    for port in [9042, 9043] {
        assert_eq!(running.until_state(port, NodeState::Up).await.host_id, None);
    }
    running.until_ready().await;
    running.until_withheld("probe.plain_password: listed", 2).await;
    scene.api.mend();
    running.until_known(9042).await;
    running.until_known(9043).await;
    running.until_withheld("probe.plain_password: listed", 0).await;
    let mut running = scene.start_by(
        Names::system(),
        QUICK,
        &config(&(probe(&file, "plain_password: always, ") + &KEYS.replace("dial:", "watch_pods: false, dial:"))),
    );
    running.until_known(9042).await;
}
