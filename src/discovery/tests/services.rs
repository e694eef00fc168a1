//! `dns:`, with a scripted name server.

use super::dns::NameServer;
use super::node::{FakeNode, ring};
use super::*;
use crate::topology::{HiddenReason, NodeId};

const TEXT: &str = "probe: {interval: 50ms}\ndiscovery: {dns: c.db.svc.test., allow: [127.34.0.0/16]}\n";
const SERVICE: &str = "_cql._tcp.c.db.svc.test";

#[tokio::test]
async fn targets_are_nodes_by_their_names_and_ports_by_their_ordinals() {
    let [zero, two, moved] = ["127.34.1.1:9742", "127.34.1.2:9742", "127.34.1.3:9742"].map(address);
    let ring = ring(&[zero, two]);
    let (_zero, second) = (FakeNode::start(&ring, zero).await, FakeNode::start(&ring, two).await);
    let server = NameServer::start().await;
    server.set("c-0.c.db.svc.test", &[[127, 34, 1, 1]]);
    server.set("c-2.c.db.svc.test", &[[127, 34, 1, 2]]);
    let both = [("c-2.c.db.svc.test", 9742), ("c-0.c.db.svc.test", 9742)];
    server.serve(SERVICE, &both);
    let mut running = start_by(server.names.clone(), &config(TEXT));
    let first = running.until_state(9042, NodeState::Up).await;
    assert_eq!((&*first.id.0, first.address, first.host.as_deref()), ("c-0", zero, Some("c-0.c.db.svc.test")));
    let before = running.until_state(9044, NodeState::Up).await;
    assert_eq!((&*before.id.0, before.address), ("c-2", two));
    running.until_ready().await;

    // A pod that is not ready has no record, and its node answers.
    server.serve(SERVICE, &both[1..]);
    let asked = server.asked(SERVICE);
    until(|| server.asked(SERVICE) > asked + 1, || "not asked again".to_owned()).await;
    assert_eq!(running.node(9044).state, NodeState::Up);

    // It dies, and comes back elsewhere.
    drop(second);
    running.until_state(9044, NodeState::Down).await;
    ring.facts.lock().members[1].address = moved;
    let _moved = FakeNode::start(&ring, moved).await;
    server.set("c-2.c.db.svc.test", &[[127, 34, 1, 3]]);
    server.serve(SERVICE, &both);
    let after = running.until_state(9044, NodeState::Up).await;
    assert_eq!((after.address, after.host_id), (moved, before.host_id));
}

#[tokio::test]
async fn without_records_it_is_not_ready_and_says_why() {
    let server = NameServer::start().await;
    let running = start_by(server.names.clone(), &config(TEXT));
    running.until_pending(&["discovery", &format!("discovery: {SERVICE}: Non-Existent Domain")]).await;
    // The name of cass-operator's port.
    server.set("c-0.c.db.svc.test", &[[127, 34, 2, 1]]);
    server.serve("_native._tcp.c.db.svc.test", &[("c-0.c.db.svc.test", 9742)]);
    running.until_ready().await;
    assert_eq!(running.node(9042).address, address("127.34.2.1:9742"));
}

#[tokio::test]
async fn a_target_without_an_ordinal_or_beyond_the_ports_is_hidden() {
    let server = NameServer::start().await;
    for name in ["c-0.c.db.svc.test", "c-99.c.db.svc.test", "10-1-2-3.c.db.svc.test"] {
        server.set(name, &[[127, 34, 3, 1]]);
    }
    server.serve(
        SERVICE,
        &["c-0.c.db.svc.test", "c-99.c.db.svc.test", "10-1-2-3.c.db.svc.test"].map(|name| (name, 9742)),
    );
    let mut running = start_by(server.names.clone(), &config(TEXT));
    let topology = running.until("the first", |topology| topology.node_at_port(9042).is_some()).await;
    let hidden: Vec<_> = topology.hidden.iter().map(|hidden| (hidden.id.clone(), hidden.reason)).collect();
    assert_eq!((topology.nodes.len(), hidden), (1, vec![(Some(NodeId::new("c-99")), HiddenReason::NoPort)]));
}

#[tokio::test]
async fn a_target_that_leads_where_no_node_may_live_is_hidden_and_not_dialled() {
    let server = NameServer::start().await;
    server.set("c-0.c.db.svc.test", &[[127, 35, 4, 1]]);
    server.serve(SERVICE, &[("c-0.c.db.svc.test", 9742)]);
    let mut running = start_by(server.names.clone(), &config(TEXT));
    let refused = |topology: &Topology| topology.hidden.iter().any(|hidden| hidden.reason == HiddenReason::NotAllowed);
    let topology = running.until("refused", refused).await;
    assert!(!topology.node_at_port(9042).unwrap().present);
}
