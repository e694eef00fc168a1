//! Two gateways behind one balancer, replaced one after the other while clients ask.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cqlgate::cql::frame::Opcode;
use cqlgate::cql::message::request;
use cqlgate::demo::node::Options;
use cqlgate::gateway::Running;
use cqlgate::metrics::Metrics;
use cqlgate::topology::NodeState;
use futures_util::future::join_all;
use tokio::time::{sleep, timeout};

use crate::V4;
use crate::client::{Client, PATIENCE};
use crate::gate::{self, Gate};

/// Requests that a client has on their way.
const IN_FLIGHT: usize = 4;

/// What a balancer sends connections to: the gateways' admin and node addresses. Like a balancer it asks for their readiness.
#[derive(Default)]
struct Balancer(Mutex<Vec<(SocketAddr, SocketAddr)>>);

impl Balancer {
    async fn choose(&self, turn: usize) -> SocketAddr {
        for n in turn.. {
            let (admin, port) = {
                let behind = self.0.lock().unwrap();
                behind[n % behind.len()]
            };
            if gate::ask(admin, "/readyz").await.is_ok_and(|(status, _)| status == 200) {
                return port;
            }
        }
        unreachable!()
    }
}

/// Asks, and dials again where the connection ended between two frames; how often it dialled.
async fn load(balancer: &Balancer, turn: usize, answered: &AtomicUsize, over: &AtomicBool) -> usize {
    let ask = request::encode_query(V4.0, "SELECT * FROM demo.kv");
    let mut dialled = 0;
    while !over.load(Relaxed) {
        let mut client = Client::connect(balancer.choose(turn + dialled).await, V4).await;
        dialled += 1;
        for _ in 0..IN_FLIGHT {
            let _ = client.send(Opcode::QUERY, &ask).await;
        }
        let mut waiting = IN_FLIGHT;
        while waiting > 0 {
            match client.receive().await {
                Ok((header, _)) => assert_eq!(header.opcode, Opcode::RESULT),
                Err(error) => {
                    // What is not answered was not taken, and may be asked again.
                    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
                    assert!(client.received().is_empty());
                    break;
                }
            }
            answered.fetch_add(1, Relaxed);
            waiting -= 1;
            if !over.load(Relaxed) {
                let _ = client.send(Opcode::QUERY, &ask).await;
                waiting += 1;
            }
        }
    }
    dialled
}

#[tokio::test]
async fn two_gateways_are_replaced_one_by_one_and_every_request_that_was_taken_is_answered() {
    const YAML: &str = "drain: {delay: 500ms, spread: 0s, deadline: 20s}\n";
    let Gate { cluster, running, metrics } = Gate::start_with(Options::loopback(1, 0), YAML).await;
    // So slow that there is always something on its way.
    cluster.node(0).delay(Some(Duration::from_millis(5)));
    let balancer = Balancer::default();
    let (answered, over) = (AtomicUsize::new(0), AtomicBool::new(false));
    let mut all = vec![metrics];
    let goes_in = async |running: &Running, all: &mut Vec<Arc<Metrics>>, metrics| {
        let mut topology = running.topology.clone();
        let is_up = topology.wait_for(|topology| topology.nodes.iter().any(|node| node.state == NodeState::Up));
        let port = timeout(PATIENCE, is_up).await.unwrap().unwrap().nodes[0].port;
        balancer.0.lock().unwrap().push((running.admin, ([127, 0, 0, 1], port).into()));
        all.extend(metrics);
    };
    let (second, more) = Gate::beside(&cluster, YAML).await;
    goes_in(&running, &mut all, None).await;
    goes_in(&second, &mut all, Some(more)).await;
    let mut stay = Vec::new();
    let rolls = async {
        for old in [running, second] {
            let goes_on_from = answered.load(Relaxed);
            while answered.load(Relaxed) < goes_on_from + 50 {
                sleep(Duration::from_millis(1)).await;
            }
            let (new, more) = Gate::beside(&cluster, YAML).await;
            goes_in(&new, &mut all, Some(more)).await;
            let admin = old.admin;
            old.drain().await;
            balancer.0.lock().unwrap().retain(|behind| behind.0 != admin);
            stay.push(new);
        }
        over.store(true, Relaxed);
    };
    let loads = join_all((0..6).map(|turn| load(&balancer, turn, &answered, &over)));
    let (dialled, ()) = timeout(PATIENCE, async { tokio::join!(loads, rolls) }).await.unwrap();
    assert!(dialled.iter().sum::<usize>() >= 12, "each gateway had clients: {dialled:?}");
    let taken: u64 = all.iter().map(|metrics| metrics.node("node-0").requests.get()).sum();
    assert_eq!(answered.load(Relaxed) as u64, taken);
}
