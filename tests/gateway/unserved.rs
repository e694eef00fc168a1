//! A node that is not listed, of a data center that is served: hidden, or shown at its own address.

use super::*;

/// What a client on the port of node 0 is told of the others: by rows, and by the events that node 0 sends of node 2.
async fn told_of_others(gate: &Gate) -> (BTreeSet<SocketAddr>, Vec<String>) {
    let mut client = Client::connect(gate.port(0), V4).await;
    client.register().await;
    let (_, peers) = told(&mut client).await;
    let (node, address) = (gate.cluster.node(0), gate.cluster.node(2).address());
    for change in [NodeChange::Down, NodeChange::Up, NodeChange::RemovedNode] {
        node.push(&Event::Node { change, address });
    }
    node.push(&Event::Schema { body: &schema_change() });
    let mut events = Vec::new();
    loop {
        let event = client.event().await;
        if event.starts_with("Schema") {
            return (peers, events);
        }
        events.push(event);
    }
}

#[tokio::test]
async fn a_node_that_is_not_listed_is_hidden_and_counted_by_its_reason() {
    let gate = Gate::start_without(2, Options::loopback(3, 0), "").await;
    assert_eq!(told_of_others(&gate).await, (BTreeSet::from([gate.port(1)]), vec![]));
    gate.until_counted("cqlgate_rows_hidden_total{reason=\"ghost\"}", 1).await;
    gate.until_said("/topology", 200, "\"reason\":\"ghost\"}],\"kept\":[]").await;
}

#[tokio::test]
async fn a_node_that_is_not_listed_is_shown_at_its_own_address_where_ghosts_are_kept() {
    let gate = Gate::start_without(2, Options::loopback(3, 0), "unserved: {ghosts: keep}\n").await;
    let own = gate.cluster.node(2).address();
    let (peers, events) = told_of_others(&gate).await;
    assert_eq!(peers, BTreeSet::from([gate.port(1), own]));
    assert_eq!(events, [format!("DOWN {own}"), format!("UP {own}"), format!("REMOVED_NODE {own}")]);
    gate.until_counted("cqlgate_rows_kept_total{reason=\"ghost\"}", 1).await;
    gate.until_said("/topology", 200, "\"hidden\":[],\"kept\":[{").await;
}
