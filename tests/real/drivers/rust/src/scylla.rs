//! The scylla driver: no host listener (the state is compared every 200 ms), endpoints come from the rows.
mod lines;
mod tls;

use lines::say;
use scylla::client::execution_profile::ExecutionProfile;
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use scylla::client::{Compression, PoolSize};
use scylla::errors::{BrokenConnectionErrorKind, ExecutionError, RequestAttemptError};
use scylla::policies::load_balancing::{DefaultPolicy, NodeIdentifier, SingleTargetLoadBalancingPolicy};
use scylla::policies::retry::FallthroughRetryPolicy;
use scylla::statement::prepared::PreparedStatement;
use scylla::statement::{Consistency, Statement};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::Duration;

#[tokio::main]
async fn main() {
    let options = lines::options();
    let policy = DefaultPolicy::builder().prefer_datacenter("dc1".into()).token_aware(true).enable_shuffling_replicas(false).build();
    let mut profile = ExecutionProfile::builder().load_balancing_policy(policy).consistency(Consistency::One);
    if options["retries"] == false {
        profile = profile.retry_policy(Arc::new(FallthroughRetryPolicy::new()));
    }
    let mut builder = SessionBuilder::new().known_nodes(lines::contacts(&options)).default_execution_profile_handle(profile.build().into_handle());
    builder = match options["compression"].as_str() {
        Some("lz4") => builder.compression(Some(Compression::Lz4)),
        Some("snappy") => builder.compression(Some(Compression::Snappy)),
        _ => builder,
    };
    if let (Some(user), Some(password)) = (options["username"].as_str(), options["password"].as_str()) {
        builder = builder.user(user, password);
    }
    if let Some(pool) = options["pool"].as_u64().and_then(|pool| std::num::NonZeroUsize::new(pool as usize)) {
        builder = builder.pool_size(PoolSize::PerHost(pool));
    }
    builder = builder.tls_context(tls::config(&options));
    let session = Arc::new(builder.build().await.expect("a session"));
    say(json!({"event": "ready", "driver": "scylla", "protocol": "v4", "compression": options["compression"]}));
    tokio::spawn(watch(session.clone()));
    let one = session.prepare("SELECT v FROM k1.t WHERE k = ?").await.expect("prepared");
    let going = Arc::new(AtomicBool::new(false));
    let mut load = None;
    let mut commands = lines::commands();
    while let Ok(Some(line)) = commands.next_line().await {
        let (command, argument) = line.split_once(' ').unwrap_or((&line, ""));
        let state = session.get_cluster_state();
        match command {
            "nodes" => {
                let nodes: Vec<_> = state.get_nodes_info().iter().map(|n| json!({
                    "host_id": n.host_id.to_string(), "address": n.address.ip().to_string(), "port": n.address.port(),
                    "dc": n.datacenter, "rack": n.rack, "up": n.is_connected(),
                    "tokens": state.replica_locator().ring().iter().filter(|(_, o)| o.host_id == n.host_id)
                        .map(|(t, _)| t.value().to_string()).collect::<Vec<_>>(),
                })).collect();
                say(json!({"reply": "nodes", "control": null, "nodes": nodes}));
            }
            "pin" => {
                let mut pinned = Vec::new();
                for node in state.get_nodes_info() {
                    let mut statement = Statement::new("SELECT host_id FROM system.local");
                    statement.set_load_balancing_policy(Some(SingleTargetLoadBalancingPolicy::new(NodeIdentifier::Node(node.clone()), None)));
                    let says = match session.query_unpaged(statement, ()).await {
                        Ok(result) => match result.into_rows_result().map(|r| r.single_row::<(uuid::Uuid,)>()) {
                            Ok(Ok((id,))) => id.to_string(),
                            other => format!("{:?}", other.map(|_| ())),
                        },
                        Err(error) => error.to_string(),
                    };
                    pinned.push(json!({"host_id": node.host_id.to_string(), "says": says}));
                }
                say(json!({"reply": "pin", "pinned": pinned}));
            }
            "keys" => {
                let mut keys = Vec::new();
                for k in 0..300i32 {
                    let replicas: Vec<_> = state.get_endpoints("k1", "t", &(k,)).unwrap_or_default().iter()
                        .map(|(n, _)| n.host_id.to_string()).collect();
                    let coordinator = session.execute_unpaged(&one, (k,)).await
                        .map_or_else(|e| e.to_string(), |r| r.request_coordinator().node().host_id.to_string());
                    keys.push(json!([k, replicas, coordinator]));
                }
                say(json!({"reply": "keys", "keys": keys}));
            }
            "start" => {
                going.store(true, Ordering::SeqCst);
                // What comes after the reply may be the death of a node.
                let mut three = session.prepare("SELECT v FROM k3.t WHERE k = ?").await.expect("prepared");
                three.set_is_idempotent(true);
                load = Some(tokio::spawn(read(session.clone(), three, going.clone())));
                say(json!({"reply": "start"}));
            }
            "stop" => {
                going.store(false, Ordering::SeqCst);
                if let Some(load) = load.take() {
                    say(load.await.expect("the load ends"));
                }
            }
            "ddl" => {
                let done = session.query_unpaged(format!("CREATE TABLE k3.{argument} (k int PRIMARY KEY)"), ()).await;
                let agreed = session.await_schema_agreement().await;
                say(json!({"reply": "ddl", "agreed": agreed.is_ok(), "error": done.err().map(|e| e.to_string())}));
            }
            "tables" => say(tables(&session, argument).await),
            _ => break,
        }
    }
}

async fn tables(session: &Session, argument: &str) -> serde_json::Value {
    let (name, count) = argument.split_once(',').unwrap_or((argument, "1"));
    let (mut ok, mut failed, mut first, mut times) = (0u64, 0u64, None, Vec::new());
    for i in 0..count.parse().unwrap_or(1) {
        let begun = std::time::Instant::now();
        let made = session.query_unpaged(format!("CREATE TABLE k3.{name}_{i} (k int PRIMARY KEY)"), ()).await.map(|_| ());
        times.push(begun.elapsed().as_secs_f64() * 1000.0);
        let mut write = Statement::new(format!("INSERT INTO k3.{name}_{i} (k) VALUES (1)"));
        write.set_consistency(Consistency::All);
        write.set_retry_policy(Some(Arc::new(FallthroughRetryPolicy::new())));
        let used = match made {
            Ok(()) => session.query_unpaged(write, ()).await.map(|_| ()),
            failed => failed,
        };
        match used {
            Ok(()) => ok += 1,
            Err(error) => {
                failed += 1;
                first.get_or_insert(error.to_string());
            }
        }
        let _ = session.query_unpaged(format!("DROP TABLE IF EXISTS k3.{name}_{i}"), ()).await;
    }
    times.sort_by(f64::total_cmp);
    let slowest = times.last().copied().unwrap_or_default();
    json!({"reply": "tables", "ok": ok, "failed": failed, "first": first, "p50": times.get(times.len() / 2), "slowest": slowest})
}

async fn watch(session: Arc<Session>) {
    let mut before = BTreeMap::new();
    loop {
        let now: BTreeMap<_, _> = session.get_cluster_state().get_nodes_info().iter()
            .map(|n| (format!("{}:{}", n.address.ip(), n.address.port()), n.is_connected())).collect();
        for (address, up) in &now {
            match before.get(address) {
                None => say(json!({"event": "add", "address": address})),
                Some(was) if was != up => say(json!({"event": if *up { "up" } else { "down" }, "address": address})),
                _ => {}
            }
        }
        for address in before.keys().filter(|a| !now.contains_key(*a)) {
            say(json!({"event": "remove", "address": address}));
        }
        before = now;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// It was given to a connection of which the driver knew already that it had ended: what was written has that connection's own error.
fn is_unsent(error: &ExecutionError) -> bool {
    let ExecutionError::LastAttemptError(RequestAttemptError::BrokenConnectionError(broken)) = error else { return false };
    matches!(broken.downcast_ref(), Some(BrokenConnectionErrorKind::ChannelError))
}

async fn read(session: Arc<Session>, three: PreparedStatement, going: Arc<AtomicBool>) -> serde_json::Value {
    let (mut ok, mut errors, mut unsent, mut first, mut coordinators) = (0u64, 0u64, 0u64, None, BTreeMap::<String, u64>::new());
    let mut k = 0i32;
    while going.load(Ordering::SeqCst) {
        k = (k + 1) % 300;
        match session.execute_unpaged(&three, (k,)).await {
            Ok(result) => {
                ok += 1;
                *coordinators.entry(result.request_coordinator().node().host_id.to_string()).or_default() += 1;
            }
            Err(error) => {
                errors += 1;
                unsent += u64::from(is_unsent(&error));
                first.get_or_insert(error.to_string());
            }
        }
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    json!({"reply": "stop", "ok": ok, "errors": errors, "unsent": unsent, "first": first, "coordinators": coordinators})
}
