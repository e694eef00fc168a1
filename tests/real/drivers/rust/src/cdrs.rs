//! cdrs-tokio. It neither tells a coordinator nor pins a statement: our load balancing strategy wraps the driver's own,
//! remembers the first node of the last plan, and can put one node alone into a plan.
mod lines;
mod tls;

use cassandra_protocol::authenticators::{NoneAuthenticatorProvider, SaslAuthenticatorProvider, StaticPasswordAuthenticatorProvider};
use cassandra_protocol::compression::Compression;
use cassandra_protocol::consistency::Consistency;
use cassandra_protocol::frame::events::{ServerEvent, StatusChangeType, TopologyChangeType};
use cassandra_protocol::frame::Version;
use cassandra_protocol::types::IntoRustByName;
use cdrs_tokio::cluster::session::{RustlsSessionBuilder, Session, SessionBuilder, TcpSessionBuilder};
use cdrs_tokio::cluster::topology::NodeState;
use cdrs_tokio::cluster::{ClusterMetadata, ConnectionManager, Murmur3Token, NodeAddress, NodeRustlsConfigBuilder, NodeTcpConfigBuilder};
use cdrs_tokio::load_balancing::node_distance_evaluator::TopologyAwareNodeDistanceEvaluator;
use cdrs_tokio::load_balancing::{LoadBalancingStrategy, QueryPlan, Request, TopologyAwareLoadBalancingStrategy};
use cdrs_tokio::query_values;
use cdrs_tokio::statement::StatementParamsBuilder;
use cdrs_tokio::transport::CdrsTransport;
use lines::say;
use rustls::pki_types::ServerName;
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

#[derive(Default)]
struct Plans {
    pin: Mutex<Option<String>>,
    first: Mutex<Option<String>>,
}

struct Recorder<T: CdrsTransport, CM: ConnectionManager<T>> {
    inner: TopologyAwareLoadBalancingStrategy<T, CM>,
    plans: Arc<Plans>,
}

impl<T: CdrsTransport, CM: ConnectionManager<T>> LoadBalancingStrategy<T, CM> for Recorder<T, CM> {
    fn query_plan(&self, request: Option<Request>, cluster: &ClusterMetadata<T, CM>) -> QueryPlan<T, CM> {
        let id = |node: &cdrs_tokio::cluster::topology::Node<T, CM>| node.host_id().map(|id| id.to_string());
        // Without a request the plan is for a control connection.
        let asked = request.is_some();
        let plan = self.inner.query_plan(request, cluster);
        if !asked {
            return plan;
        }
        if let Some(pin) = self.plans.pin.lock().unwrap().clone() {
            return QueryPlan::new(cluster.nodes().values().filter(|n| id(n).as_ref() == Some(&pin)).cloned().collect());
        }
        *self.plans.first.lock().unwrap() = plan.nodes.first().and_then(|n| id(n));
        plan
    }
}

#[tokio::main]
async fn main() {
    let options = lines::options();
    let version = if options["version"] == 5 { Version::V5 } else if options["version"] == 3 { Version::V3 } else { Version::V4 };
    let compression = match options["compression"].as_str() {
        Some("lz4") => Compression::Lz4,
        Some("snappy") => Compression::Snappy,
        _ => Compression::None,
    };
    let authenticator: Arc<dyn SaslAuthenticatorProvider + Send + Sync> = match options["username"].as_str() {
        Some(name) => Arc::new(StaticPasswordAuthenticatorProvider::new(name, options["password"].as_str().unwrap_or_default())),
        None => Arc::new(NoneAuthenticatorProvider),
    };
    let contacts: Vec<NodeAddress> = lines::contacts(&options).into_iter().map(NodeAddress::from).collect();
    let evaluator = Box::new(TopologyAwareNodeDistanceEvaluator::new("dc1".into()));
    let plans = Arc::new(Plans::default());
    let ready = json!({"event": "ready", "driver": "cdrs-tokio", "protocol": version.to_string(), "compression": options["compression"]});
    if let Some(tls) = tls::config(&options) {
        let name = options["contacts"][0].as_str().and_then(|c| c.split(':').next()).unwrap_or_default().to_owned();
        let config = NodeRustlsConfigBuilder::new(ServerName::try_from(name).expect("a name"), tls)
            .with_contact_points(contacts).with_version(version).with_authenticator_provider(authenticator).build().await.expect("addresses");
        let policy = Recorder { inner: TopologyAwareLoadBalancingStrategy::new(None, true), plans: plans.clone() };
        let session = RustlsSessionBuilder::new(policy, config).with_compression(compression).with_node_distance_evaluator(evaluator)
            .build().await.expect("a session");
        say(ready);
        serve(Arc::new(session), plans).await;
    } else {
        let config = NodeTcpConfigBuilder::new()
            .with_contact_points(contacts).with_version(version).with_authenticator_provider(authenticator).build().await.expect("addresses");
        let policy = Recorder { inner: TopologyAwareLoadBalancingStrategy::new(None, true), plans: plans.clone() };
        let session = TcpSessionBuilder::new(policy, config).with_compression(compression).with_node_distance_evaluator(evaluator)
            .build().await.expect("a session");
        say(ready);
        serve(Arc::new(session), plans).await;
    }
}

type Counts = (u64, u64, Option<String>, BTreeMap<String, u64>);

async fn serve<T, CM, LB>(session: Arc<Session<T, CM, LB>>, plans: Arc<Plans>)
where
    T: CdrsTransport + 'static,
    CM: ConnectionManager<T> + Send + Sync + 'static,
    LB: LoadBalancingStrategy<T, CM> + Send + Sync + 'static,
{
    let mut events = session.create_event_receiver();
    tokio::spawn(async move {
        while let Ok(event) = events.recv().await {
            let (what, address) = match event {
                ServerEvent::TopologyChange(c) => (if c.change_type == TopologyChangeType::NewNode { "add" } else { "remove" }, c.addr),
                ServerEvent::StatusChange(c) => (if c.change_type == StatusChangeType::Up { "up" } else { "down" }, c.addr),
                _ => continue,
            };
            say(json!({"event": what, "address": address.to_string()}));
        }
    });
    let going = Arc::new(AtomicBool::new(false));
    let mut load: Option<tokio::task::JoinHandle<Counts>> = None;
    let mut commands = lines::commands();
    while let Ok(Some(line)) = commands.next_line().await {
        let (command, argument) = line.split_once(' ').unwrap_or((&line, ""));
        match command {
            "nodes" => {
                let nodes: Vec<_> = session.cluster_metadata().nodes().values().map(|n| json!({
                    "host_id": n.host_id().map(|id| id.to_string()), "address": n.broadcast_rpc_address().ip().to_string(),
                    "port": n.broadcast_rpc_address().port(), "dc": n.datacenter(), "rack": n.rack(), "up": n.state() == NodeState::Up,
                    "tokens": n.tokens().iter().map(|t| t.value.to_string()).collect::<Vec<_>>(),
                })).collect();
                say(json!({"reply": "nodes", "control": null, "nodes": nodes}));
            }
            "pin" => {
                let ids: Vec<String> = session.cluster_metadata().nodes().values().filter_map(|n| Some(n.host_id()?.to_string())).collect();
                let mut pinned = Vec::new();
                for id in ids {
                    *plans.pin.lock().unwrap() = Some(id.clone());
                    let says = match session.query("SELECT host_id FROM system.local").await {
                        Ok(envelope) => envelope.response_body().ok().and_then(|b| b.into_rows()).and_then(|rows| {
                            let found: Option<uuid::Uuid> = rows.first()?.get_by_name("host_id").ok()?;
                            Some(found?.to_string())
                        }).unwrap_or_default(),
                        Err(error) => error.to_string(),
                    };
                    pinned.push(json!({"host_id": id, "says": says}));
                }
                *plans.pin.lock().unwrap() = None;
                say(json!({"reply": "pin", "pinned": pinned}));
            }
            "keys" => {
                let statement = match session.prepare("SELECT v FROM k1.t WHERE k = ?").await {
                    Ok(statement) => statement,
                    Err(error) => {
                        say(json!({"reply": "keys", "keys": [[0, [], error.to_string()]]}));
                        continue;
                    }
                };
                let mut keys = Vec::new();
                for k in 0..300i32 {
                    let metadata = session.cluster_metadata();
                    let token = Murmur3Token::generate(&k.to_be_bytes());
                    let replicas: Vec<_> = metadata.token_map().nodes_for_token_capped(token, 1)
                        .filter_map(|n| Some(n.host_id()?.to_string())).collect();
                    // v3 does not say which values are the key: the program does.
                    let params = StatementParamsBuilder::new().with_values(query_values!(k)).with_keyspace("k1".into())
                        .with_routing_key(vec![k.into()]).build();
                    let outcome = session.exec_with_params(&statement, &params).await;
                    let first = plans.first.lock().unwrap().clone();
                    keys.push(json!([k, replicas, outcome.map_or_else(|e| Some(e.to_string()), |_| first)]));
                }
                say(json!({"reply": "keys", "keys": keys}));
            }
            "start" => {
                going.store(true, Ordering::SeqCst);
                load = Some(tokio::spawn(read(session.clone(), plans.clone(), going.clone())));
                say(json!({"reply": "start"}));
            }
            "stop" => {
                going.store(false, Ordering::SeqCst);
                if let Some(Ok((ok, errors, first, coordinators))) = match load.take() { Some(l) => Some(l.await), None => None } {
                    say(json!({"reply": "stop", "ok": ok, "errors": errors, "first": first, "coordinators": coordinators}));
                }
            }
            "ddl" => {
                let done = session.query(format!("CREATE TABLE k3.{argument} (k int PRIMARY KEY)")).await;
                // The driver has no agreement check: until the new table is usable through three nodes in a row.
                let (mut used, mut last) = (0, done.err());
                for _ in 0..100 {
                    match session.query(format!("SELECT k FROM k3.{argument}")).await {
                        Ok(_) => used += 1,
                        Err(error) => (used, last) = (0, Some(error)),
                    }
                    if used == 3 {
                        last = None;
                        break;
                    }
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                say(json!({"reply": "ddl", "agreed": null, "error": last.map(|e| e.to_string())}));
            }
            _ => break,
        }
    }
}

async fn read<T, CM, LB>(session: Arc<Session<T, CM, LB>>, plans: Arc<Plans>, going: Arc<AtomicBool>) -> Counts
where
    T: CdrsTransport + 'static,
    CM: ConnectionManager<T> + Send + Sync + 'static,
    LB: LoadBalancingStrategy<T, CM> + Send + Sync + 'static,
{
    let mut counts: Counts = Default::default();
    let mut k = 0i32;
    let statement = loop {
        match session.prepare("SELECT v FROM k3.t WHERE k = ?").await {
            Ok(statement) => break statement,
            Err(error) => {
                counts.1 += 1;
                counts.2.get_or_insert(error.to_string());
                if !going.load(Ordering::SeqCst) {
                    return counts;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    };
    while going.load(Ordering::SeqCst) {
        k = (k + 1) % 300;
        let params = StatementParamsBuilder::new().idempotent(true).with_consistency(Consistency::One).with_values(query_values!(k)).build();
        match session.exec_with_params(&statement, &params).await {
            Ok(_) => {
                counts.0 += 1;
                if let Some(id) = plans.first.lock().unwrap().clone() {
                    *counts.3.entry(id).or_default() += 1;
                }
            }
            Err(error) => {
                counts.1 += 1;
                counts.2.get_or_insert(error.to_string());
            }
        }
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    counts
}
