//! Every limit on a socket: what reaches it is closed in time, and nothing else is.

use std::io;
use std::time::{Duration, Instant};

use cqlgate::config::Config;
use cqlgate::cql::frame::Opcode;
use cqlgate::cql::message::{encode_startup, request};
use cqlgate::demo::node::Options;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::V4;
use crate::certificates::Authority;
use crate::client::{Client, PATIENCE};
use crate::gate::{self, Gate};
use crate::secured;

/// A node that is silent counts as alive for longer than any test lasts.
pub fn patient(config: &mut Config) {
    config.probe.silence = 10 * PATIENCE;
}

/// Closed or reset within the test's patience.
async fn check_is_closed(client: &mut Client) -> io::ErrorKind {
    let kind = client.end().await;
    assert_ne!(kind, io::ErrorKind::TimedOut, "still open");
    kind
}

#[tokio::test]
async fn whoever_says_nothing_or_half_a_startup_is_closed_at_the_setup_deadline() {
    let gate = Gate::start_with(Options::loopback(1, 0), "timeouts: {setup: 2s}\n").await;
    let mut silent = Client::dial(gate.port(0), V4).await.unwrap();
    let mut half = Client::dial(gate.port(0), V4).await.unwrap();
    let startup = half.encode(1, Opcode::STARTUP, &encode_startup(&[("CQL_VERSION", "3.0.0")]));
    half.stream.write_all(&startup[..startup.len() / 2]).await.unwrap();
    let mut established = Client::connect(gate.port(0), V4).await;
    check_is_closed(&mut half).await;
    check_is_closed(&mut silent).await;
    gate.until_counted("cqlgate_connections_refused_total{reason=\"setup_deadline\"}", 2).await;
    // An established connection has no such deadline.
    assert_eq!(established.query("SELECT * FROM demo.kv").await.unwrap().0, Opcode::RESULT);
}

#[tokio::test]
async fn whoever_begins_no_tls_is_closed_at_the_setup_deadline() {
    let authority = Authority::new();
    let yaml = format!("timeouts: {{setup: 2s}}\n{}", secured::yaml(Some(&authority), None));
    let gate = Gate::start_with(Options::loopback(1, 0), &yaml).await;
    check_is_closed(&mut Client::dial(gate.port(0), V4).await.unwrap()).await;
    gate.until_counted("cqlgate_connections_refused_total{reason=\"setup_deadline\"}", 1).await;
}

#[tokio::test]
async fn a_node_that_accepts_and_never_answers_is_given_up_at_the_dial_timeout() {
    let authority = Authority::new();
    // Without the dial's own timeout the client would wait for longer than the test does.
    let yaml = format!("timeouts: {{dial: 300ms, setup: 60s}}\n{}", secured::yaml(None, Some(&authority)));
    let gate = Gate::start_changed(secured::nodes(&authority), &yaml, patient).await;
    gate.cluster.node(1).silence(true);
    let mut client = Client::dial(gate.port(1), V4).await.unwrap();
    let refused = client.startup(&[]).await.unwrap_err().kind();
    assert_eq!(refused, io::ErrorKind::ConnectionReset, "a reset, so that its driver tries the next node at once");
    gate.until_counted("cqlgate_dial_failures_total{node=\"node-1\",reason=\"timeout\"}", 1).await;
    gate.until_counted("cqlgate_connections_refused_total{reason=\"dial_failed\"}", 1).await;
    Client::connect(gate.port(0), V4).await;
}

#[tokio::test]
async fn a_half_closed_connection_gets_its_answer_and_is_closed_when_there_is_none() {
    let gate = Gate::start_changed(Options::loopback(1, 0), "timeouts: {half_closed: 1s}\n", patient).await;
    let ask = request::encode_query(V4.0, "SELECT * FROM demo.kv");
    let mut answered = Client::connect(gate.port(0), V4).await;
    let mut waiting = Client::connect(gate.port(0), V4).await;
    answered.send(Opcode::QUERY, &ask).await.unwrap();
    answered.stream.shutdown().await.unwrap();
    assert_eq!(answered.receive().await.unwrap().0.opcode, Opcode::RESULT);
    check_is_closed(&mut answered).await;
    gate.cluster.node(0).silence(true);
    waiting.send(Opcode::QUERY, &ask).await.unwrap();
    waiting.stream.shutdown().await.unwrap();
    check_is_closed(&mut waiting).await;
    let closed = "cqlgate_connections_closed_total{by=\"client\",node=\"node-0\",why=\"half_closed_timeout\"}";
    gate.until_counted(closed, 1).await;
}

#[tokio::test]
async fn connections_over_a_limit_are_reset_and_places_come_back() {
    let yaml = "limits: {connections: 3, connections_per_source: 3, connections_per_node: 2}\n";
    let gate = Gate::start_with(Options::loopback(2, 0), yaml).await;
    let (first, second) = (gate.port(0), gate.port(1));
    let leaver = Client::connect(first, V4).await;
    let _stays = Client::connect(first, V4).await;
    let refused = |port| async move { Client::dial(port, V4).await.unwrap().startup(&[]).await.unwrap_err().kind() };
    assert_ne!(refused(first).await, io::ErrorKind::TimedOut);
    gate.until_counted("cqlgate_connections_refused_total{reason=\"node_connection_limit\"}", 1).await;
    // Another node has places of its own, as long as there are any in all.
    let _other = Client::connect(second, V4).await;
    assert_ne!(refused(second).await, io::ErrorKind::TimedOut);
    gate.until_counted("cqlgate_connections_refused_total{reason=\"connection_limit\"}", 1).await;
    drop(leaver);
    let again = async {
        while Client::dial(second, V4).await.unwrap().startup(&[]).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, again).await.expect("a place comes back");
}

#[tokio::test]
async fn drain_accepts_during_its_delay_and_closes_what_is_left_at_its_deadline() {
    // The delay must outlast what the test does in it.
    let yaml = "drain: {delay: 3s, spread: 0s, deadline: 500ms}\n";
    let gate = Gate::start_changed(Options::loopback(1, 0), yaml, patient).await;
    gate.until_said("/readyz", 200, "ready").await;
    let port = gate.port(0);
    let mut busy = Client::connect(port, V4).await;
    let Gate { cluster, running, metrics } = gate;
    let admin = running.admin;
    let (began, draining) = (Instant::now(), tokio::spawn(running.drain()));
    let not_ready = async {
        while gate::get(admin, "/readyz").await.0 != 503 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(2), not_ready).await.expect("/readyz says so at once");
    let mut late = Client::connect(port, V4).await;
    assert_eq!(late.query("SELECT * FROM demo.kv").await.unwrap().0, Opcode::RESULT);
    // A request that is never answered keeps its connection until the deadline, and no longer.
    cluster.node(0).silence(true);
    busy.send(Opcode::QUERY, &request::encode_query(V4.0, "SELECT * FROM demo.kv")).await.unwrap();
    assert_eq!(late.end().await, io::ErrorKind::UnexpectedEof, "between two frames, with nothing in flight");
    assert!(began.elapsed() >= Duration::from_secs(3), "closed within the delay");
    assert_eq!(check_is_closed(&mut busy).await, io::ErrorKind::ConnectionReset);
    tokio::time::timeout(PATIENCE, draining).await.unwrap().unwrap();
    assert!(TcpStream::connect(port).await.is_err());
    let text = metrics.render().unwrap();
    assert!(text.contains("by=\"gateway\",node=\"node-0\",why=\"drain_deadline\"}"), "{text}");
}
