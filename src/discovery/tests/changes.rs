//! Another configuration while discovery runs: whoever stays stays up, at its port, in the same life.

use super::dns::NameServer;
use super::node::{FakeNode, ring};
use super::*;
use crate::cql::message::NodeChange;
use crate::topology::NodeId;

const PROBE: &str = "probe: {interval: 50ms, silence: 10s}\n";

impl Running {
    pub(super) async fn change(&self, from: &Config, to: &Config) {
        self.handle.changes.prepare(to).await.unwrap();
        self.handle.changes.take(from, to, None).await;
    }

    /// Does `what` while the node behind `port` stays up without a break.
    pub(super) async fn while_up<T>(&self, port: u16, what: impl Future<Output = T>) -> T {
        let mut topology = self.handle.topology.clone();
        let life = topology.borrow().node_at_port(port).unwrap().incarnation;
        let withdrawn = |topology: &Arc<Topology>| {
            !topology.node_at_port(port).is_some_and(|node| node.state == NodeState::Up && node.incarnation == life)
        };
        tokio::select! {
            done = what => done,
            _ = topology.wait_for(withdrawn) => panic!("the node at {port} was withdrawn"),
        }
    }
}

#[tokio::test]
async fn a_listed_name_that_does_not_resolve_just_then_keeps_its_node() {
    let [first, second] = ["127.37.1.1:9742", "127.37.1.2:9742"].map(address);
    let ring = ring(&[first, second]);
    let (_first, _second) = (FakeNode::start(&ring, first).await, FakeNode::start(&ring, second).await);
    let server = NameServer::start().await;
    server.set("n0.test", &[[127, 37, 1, 1]]);
    let one = "{name: n0, address: \"n0.test:9742\"}";
    let from = config(&format!("{PROBE}discovery: {{nodes: [{one}]}}\n"));
    let to = config(&format!("{PROBE}discovery: {{nodes: [{one}, {{name: n1, address: \"{second}\"}}]}}\n"));
    let mut running = start_by(server.names.clone(), &from);
    running.until_state(9042, NodeState::Up).await;
    // From now on it says nothing of that name.
    server.set("n0.test", &[]);
    let mut topology = running.handle.topology.clone();
    running
        .while_up(9042, async {
            running.change(&from, &to).await;
            let added =
                |topology: &Arc<Topology>| topology.node_at_port(9043).is_some_and(|n| n.state == NodeState::Up);
            timeout(DEADLINE, topology.wait_for(added)).await.unwrap().unwrap();
        })
        .await;
    assert_eq!(running.node(9042).id, NodeId::new("n0"));
}

#[tokio::test]
async fn a_node_that_is_listed_at_another_place_keeps_its_port_until_the_next_start() {
    let addresses = ["127.37.2.1:9742", "127.37.2.2:9742", "127.37.2.3:9742"].map(address);
    let ring = ring(&addresses);
    let mut nodes = Vec::new();
    for at in addresses {
        nodes.push(FakeNode::start(&ring, at).await);
    }
    let list = |which: &[usize]| {
        let entries: Vec<_> = which.iter().map(|n| format!("{{name: n{n}, address: \"{}\"}}", addresses[*n])).collect();
        config(&format!("{PROBE}discovery: {{nodes: [{}]}}\n", entries.join(", ")))
    };
    let (from, to) = (list(&[0, 1]), list(&[1, 2]));
    let mut running = start_with(&from);
    running.until_state(9042, NodeState::Up).await;
    running.until_state(9043, NodeState::Up).await;
    let mut topology = running.handle.topology.clone();
    running
        .while_up(9043, async {
            running.change(&from, &to).await;
            let left =
                |topology: &Arc<Topology>| topology.node_at_port(9042).is_some_and(|n| n.state == NodeState::Gone);
            timeout(DEADLINE, topology.wait_for(left)).await.unwrap().unwrap();
        })
        .await;
    // The place of n2 is the port of n1: it waits.
    let wanted = |topology: &Topology| topology.hidden.iter().any(|hidden| hidden.id == Some(NodeId::new("n2")));
    running.until("n2 has no port", wanted).await;
    assert_eq!(running.node(9043).id, NodeId::new("n1"));
    // Back in its place, by another change.
    running.change(&to, &list(&[0, 1, 2])).await;
    running.until_state(9042, NodeState::Up).await;
    running.until_state(9044, NodeState::Up).await;
}

#[tokio::test]
async fn other_contact_points_are_asked_from_the_next_time_on() {
    let [here, nobody] = ["127.37.3.1:9742", "127.37.3.9:9742"].map(address);
    let ring = ring(&[here]);
    let _node = FakeNode::start(&ring, here).await;
    let points = |at: SocketAddr| config(&format!("{PROBE}discovery: {{contact_points: [\"{at}\"]}}\n"));
    let (from, to) = (points(nobody), points(here));
    let mut running = start_with(&from);
    running.until_metric("cqlgate_contact_point_failures_total{reason=\"refused\"}").await;
    running.change(&from, &to).await;
    running.until_state(9042, NodeState::Up).await;
    running.until_ready().await;
}

#[tokio::test]
async fn another_service_by_its_dns_name_is_asked_and_nodes_of_both_stay() {
    let zero = address("127.37.4.1:9742");
    let ring = ring(&[zero]);
    let _zero = FakeNode::start(&ring, zero).await;
    let server = NameServer::start().await;
    server.set("c-0.c.test", &[[127, 37, 4, 1]]);
    server.serve("_cql._tcp.c.test", &[("c-0.c.test", 9742)]);
    let of = |name: &str| config(&format!("{PROBE}discovery: {{dns: {name}, allow: [127.37.0.0/16]}}\n"));
    let (from, to) = (of("c.test"), of("d.test"));
    let mut running = start_by(server.names.clone(), &from);
    running.until_state(9042, NodeState::Up).await;
    running
        .while_up(9042, async {
            running.change(&from, &to).await;
            let asked = || server.asked("_cql._tcp.d.test");
            until(|| asked() > 1, || "the other name is not asked for".to_owned()).await;
            server.serve("_cql._tcp.d.test", &[("c-0.c.test", 9742)]);
            let before = asked();
            until(|| asked() > before + 1, || "not asked again".to_owned()).await;
        })
        .await;
}

#[tokio::test]
async fn networks_that_are_allowed_later_are_dialled_then() {
    let [here, there] = ["127.37.5.1:9742", "127.37.6.1:9742"].map(address);
    let ring = ring(&[here, there]);
    let (asked, _there) = (FakeNode::start(&ring, here).await, FakeNode::start(&ring, there).await);
    let allow =
        |networks: &str| config(&format!("{PROBE}discovery: {{contact_points: [\"{here}\"], allow: [{networks}]}}\n"));
    let (from, to) = (allow("127.37.5.0/24"), allow("127.37.0.0/16"));
    let mut running = start_with(&from);
    running.until_state(9042, NodeState::Up).await;
    let hidden = |topology: &Topology| topology.hidden.iter().any(|hidden| hidden.address == Some(there));
    running.until("the other one is hidden", hidden).await;
    running.change(&from, &to).await;
    // An event has the tables read again, as time would.
    let mut looks = interval(Duration::from_millis(200));
    let added = async {
        while running.handle.topology.borrow().node_at_port(9043).is_none_or(|node| node.state != NodeState::Up) {
            looks.tick().await;
            asked.send_event(NodeChange::NewNode, there);
        }
    };
    timeout(DEADLINE, added).await.unwrap();
}
