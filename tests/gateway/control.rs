//! Those who decide have threads that nothing of clients runs on, and everything ends with the gateway.

use std::sync::{Arc, Barrier, mpsc};

use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};
use tokio::time::{sleep, timeout};

use cqlgate::demo::node::{Arrival, Seen};

use super::*;

const WORKERS: usize = 2;

/// Takes every worker of `data`, until what is returned is dropped.
fn occupy(data: &Runtime) -> Vec<mpsc::Sender<()>> {
    let all = Arc::new(Barrier::new(WORKERS + 1));
    let occupied = |_| {
        let (release, released) = mpsc::channel();
        let all = Arc::clone(&all);
        data.spawn(async move {
            all.wait();
            let _ = released.recv();
        });
        release
    };
    let held = (0..WORKERS).map(occupied).collect();
    all.wait();
    held
}

/// Nodes and relays share workers here, so nodes are silent when those are taken.
#[test]
fn deaths_are_found_and_shown_while_clients_take_every_worker() {
    let data = Builder::new_multi_thread().worker_threads(WORKERS).enable_all().build().unwrap();
    let here = Builder::new_current_thread().enable_all().build().unwrap();
    let gate = data.block_on(Gate::start());
    let held = occupy(&data);
    here.block_on(async {
        gate.until(|topology| topology.nodes.iter().all(|node| node.state == NodeState::Down)).await;
        gate.until_said("/topology", 200, "\"state\":\"down\"").await;
        gate.until_said("/livez", 200, "ok").await;
    });
    drop(held);
    here.block_on(gate.until(|topology| topology.nodes.iter().all(|node| node.state == NodeState::Up)));
}

#[tokio::test]
async fn a_gateway_that_is_dropped_has_no_clients_and_no_ports() {
    let gate = Gate::start().await;
    let (port, admin) = (gate.port(0), gate.running.admin);
    let mut client = Client::connect(port, V4).await;
    client.rows("SELECT * FROM system.local").await;
    let Gate { running, cluster: _cluster, metrics: _metrics } = gate;
    drop(running);
    let mut rest = Vec::new();
    let _ = timeout(PATIENCE, client.stream.read_to_end(&mut rest)).await.expect("its connection is closed");
    assert!(rest.is_empty());
    for address in [port, admin] {
        let free = async {
            while TcpStream::connect(address).await.is_ok() {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, free).await.expect("nobody listens");
    }
}

/// The node of a control connection may be cut off from the others, and calls them down.
#[tokio::test]
async fn a_node_that_others_call_down_is_asked_at_once_and_told_down_only_when_it_does_not_answer() {
    // By itself the gateway would ask again after a minute.
    let gate = Gate::start_changed(Options::loopback(3, 0), "", |config| {
        (config.probe.interval, config.probe.silence) = (Duration::from_secs(60), Duration::from_secs(60));
    })
    .await;
    let mut client = Client::connect(gate.port(0), V4).await;
    client.register().await;
    let address = gate.cluster.node(2).address();
    let mut arrivals = gate.cluster.arrivals();
    gate.cluster.node(0).push(&Event::Node { change: NodeChange::Down, address });
    gate.cluster.node(0).push(&Event::Schema { body: &schema_change() });
    assert!(client.event().await.starts_with("Schema"));
    let asked = async {
        while !matches!(arrivals.recv().await.unwrap(), Arrival { node: 2, seen: Seen::Statement { .. }, .. }) {}
    };
    timeout(Duration::from_secs(5), asked).await.expect("it is asked");
    assert_eq!(gate.state(2), NodeState::Up);
    gate.cluster.node(2).silence(true);
    gate.cluster.node(0).push(&Event::Node { change: NodeChange::Down, address });
    assert_eq!(timeout(Duration::from_secs(5), client.event()).await.unwrap(), format!("DOWN {}", gate.port(2)));
    gate.cluster.node(2).silence(false);
    assert_eq!(client.event().await, format!("UP {}", gate.port(2)));
}
