//! What each part of the gateway makes of another configuration that was taken.

use std::fs;
use std::time::Duration;

use cqlgate::cql::frame::Opcode;
use cqlgate::demo::node::Options;
use tokio::time::timeout;

use crate::certificates::Authority;
use crate::client::Client;
use crate::gate::{self, Gate};
use crate::{V4, secured};

fn all(_: usize) -> bool {
    true
}

fn connections(count: u32) -> String {
    format!("limits: {{connections: {count}, connections_per_source: {count}, connections_per_node: {count}}}\n")
}

async fn is_served(gate: &Gate) -> bool {
    Client::dial(gate.port(0), V4).await.unwrap().startup(&[]).await.is_ok_and(|(opcode, _)| opcode == Opcode::READY)
}

#[tokio::test]
async fn limits_count_for_whoever_comes_and_end_nobody() {
    let gate = Gate::start_with(Options::loopback(1, 0), &connections(2)).await;
    let mut inside = [Client::connect(gate.port(0), V4).await, Client::connect(gate.port(0), V4).await];
    assert!(!is_served(&gate).await);
    gate.reload(&gate.config(all, &connections(3))).await;
    assert!(is_served(&gate).await);
    gate.reload(&gate.config(all, &connections(1))).await;
    assert!(!is_served(&gate).await);
    for client in &mut inside {
        assert_eq!(client.query("SELECT * FROM demo.kv").await.unwrap().0, Opcode::RESULT);
    }
}

#[tokio::test]
async fn certificates_that_another_configuration_names_are_followed_from_then_on() {
    let (old, new) = (Authority::new(), Authority::new());
    let tls = old.server(&["127.0.0.1"]);
    let gate = Gate::start_with(Options::loopback(1, 0), "").await;
    let yaml = format!("tls: {{clients: {{certificate: {:?}, key: {:?}}}}}\n", tls.certificate, tls.key);
    gate.reload(&gate.config(all, &yaml)).await;
    assert!(secured::connect(&gate, 0, &old).await.is_ok());
    let next = new.server(&["127.0.0.1"]);
    fs::copy(next.certificate, tls.certificate).unwrap();
    fs::copy(next.key, tls.key).unwrap();
    gate.until_counted("cqlgate_tls_reloads_total{outcome=\"taken\",side=\"clients\"}", 1).await;
    assert!(secured::connect(&gate, 0, &new).await.is_ok());
    assert!(secured::connect(&gate, 0, &old).await.is_err());
}

#[tokio::test]
async fn the_log_has_another_level_and_one_set_by_hand_stays_until_the_file_names_another() {
    let gate = Gate::start_with(Options::loopback(1, 0), "").await;
    let level = gate::log_level();
    let before = level.get();
    gate.reload(&gate.config(all, "log: {level: error}\n")).await;
    assert_eq!(level.get(), "error");
    level.set(&before).unwrap();
    gate.reload(&gate.config(all, "log: {level: error}\naccess: {deny: [192.0.2.1]}\n")).await;
    assert_eq!(level.get(), before);
}

#[tokio::test]
async fn nodes_are_looked_at_as_often_as_the_new_configuration_says() {
    let yaml = |interval: &str| format!("probe: {{interval: {interval}, silence: 10m}}\n");
    let gate = Gate::start_with(Options::loopback(1, 0), &yaml("50ms")).await;
    let looks = || {
        let text = gate.metrics.render().unwrap();
        let count = text.lines().find_map(|line| line.strip_prefix("cqlgate_probe_seconds_count{node=\"node-0\"} "));
        count.map_or(0, |count| count.parse::<u64>().unwrap())
    };
    let more = async |than: u64| {
        while looks() <= than {
            tokio::task::yield_now().await;
        }
    };
    gate.reload(&gate.config(all, &yaml("5m"))).await;
    // The one that was due already is the last.
    let last = looks() + 1;
    assert!(timeout(20 * Duration::from_millis(50), more(last)).await.is_err());
}
