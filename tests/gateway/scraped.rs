//! `/metrics` of a gateway that has seen some traffic, read by a parser that is not ours.

use std::collections::{BTreeMap, BTreeSet};

use cqlgate::cql::frame::Opcode;
use cqlgate::demo::node::Options;
use prometheus_parse::{Scrape, Value};
use tokio::io::AsyncWriteExt;

use crate::V4;
use crate::client::Client;
use crate::families::{FAMILIES, PROCESS};
use crate::gate::Gate;

/// What leaves a series in every family that a gateway with a fixed list has.
async fn traffic(gate: &Gate) {
    let driver = [("DRIVER_NAME", "Apache Cassandra Java Driver"), ("DRIVER_VERSION", "4.19.3")];
    let mut client = Client::connect_as(gate.port(0), V4, &driver).await;
    client.rows("SELECT * FROM system.local").await;
    client.rows("SELECT * FROM system.peers_v2").await;
    // Ports that belong to nobody are refused.
    assert_eq!(client.query("SELECT native_port FROM system.peers_v2").await.unwrap().0, Opcode::ERROR);
    client.register().await;
    gate.cluster.stop(2).await;
    assert_eq!(client.event().await, format!("DOWN {}", gate.port(2)));
    gate.until_counted("cqlgate_dial_failures_total{node=\"node-2\",reason=\"refused\"}", 1).await;
    let _ = Client::dial(gate.port(2), V4).await.unwrap().startup(&[]).await;
    let mut of_one = Client::connect_as(gate.port(0), V4, &[("DRIVER_NAME", "Apache Cassandra Node.js Driver")]).await;
    assert_eq!(of_one.rows("SELECT * FROM system.peers").await.len(), 0);
    for client in [&mut client, &mut of_one] {
        client.stream.shutdown().await.unwrap();
        client.end().await;
    }
    gate.until_counted("cqlgate_connections_closed_total{by=\"client\",node=\"node-0\",why=\"eof\"}", 2).await;
}

#[tokio::test]
async fn every_family_is_scraped_from_a_gateway_that_runs() {
    let gate = Gate::start_with(Options::loopback(3, 0), "").await;
    traffic(&gate).await;
    let (status, text) = gate.get("/metrics").await;
    assert_eq!(status, 200);
    let scrape = Scrape::parse(text.lines().map(|line| Ok(line.to_owned()))).unwrap();
    let types: BTreeMap<&str, &str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect();
    for (name, kind, labels) in FAMILIES.iter().chain(PROCESS) {
        assert_eq!(types.get(name), Some(kind), "{name}");
        let sample = scrape.samples.iter().find(|sample| sample.metric == *name);
        let sample = sample.unwrap_or_else(|| panic!("{name} has no series"));
        let is = match &sample.value {
            Value::Counter(_) => "counter",
            Value::Gauge(_) => "gauge",
            Value::Histogram(_) => "histogram",
            _ => "another",
        };
        assert_eq!(is, *kind, "{name}");
        let found: BTreeSet<&str> = sample.labels.keys().map(String::as_str).collect();
        assert_eq!(found, labels.iter().copied().collect(), "{name}");
    }
    // What it counted is what happened.
    let value = |name: &str, label: (&str, &str)| {
        let of =
            |sample: &&prometheus_parse::Sample| sample.metric == name && sample.labels.get(label.0) == Some(label.1);
        match scrape.samples.iter().find(of).map(|sample| &sample.value) {
            Some(Value::Counter(value) | Value::Gauge(value)) => *value,
            other => panic!("{name} {label:?}: {other:?}"),
        }
    };
    assert_eq!(value("cqlgate_connections_opened_total", ("node", "node-0")), 2.0);
    assert_eq!(value("cqlgate_rewrites_total", ("table", "local")), 1.0);
    assert_eq!(value("cqlgate_rows_hidden_total", ("reason", "view")), 2.0);
    assert_eq!(value("cqlgate_requests_refused_total", ("reason", "internal_address")), 1.0);
    assert_eq!(value("cqlgate_connections_refused_total", ("reason", "no_live_node")), 1.0);
    assert_eq!(value("cqlgate_driver_connections_opened_total", ("driver", "java-4")), 1.0);
    assert_eq!(value("cqlgate_node_port", ("node", "node-1")), f64::from(gate.port(1).port()));
    assert_eq!(value("cqlgate_lifecycle_state", ("state", "running")), 1.0);
}
