//! One line for each connection's end: who closed it, and why.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use cqlgate::demo::node::Options;
use cqlgate::topology::NodeState;
use serde_json::Value;
use tokio::io::AsyncWriteExt;

use super::V4;
use super::client::{Client, PATIENCE};
use super::gate::Gate;

/// Lines of JSON.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Lines {
    /// The lines about this client's end, once there are any: level, who, why.
    async fn about(&self, client: &str) -> Vec<[String; 3]> {
        let of_client = || -> Vec<[String; 3]> {
            let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
            let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
            let of_client = lines.filter(|line| line["peer"] == client && line["by"].is_string());
            of_client.map(|line| ["level", "by", "why"].map(|key| line[key].as_str().unwrap().to_owned())).collect()
        };
        let some = async {
            while of_client().is_empty() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, some).await.unwrap();
        of_client()
    }
}

#[tokio::test]
async fn every_connections_end_is_one_line() {
    let gate = Gate::start_with(Options::loopback(2, 0), "timeouts: {setup: 3s}\n").await;
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_max_level(tracing::Level::DEBUG)
        .with_writer(move || writer.clone())
        .finish();
    // Of this thread, in which the gateway runs too.
    let _guard = tracing::subscriber::set_default(subscriber);
    let dead = gate.port(1);
    gate.cluster.node(1).kill().await;
    gate.until(|topology| topology.node_at_port(dead.port()).unwrap().state == NodeState::Down).await;
    let check = async |client: Client, level: &str, by: &str, why: &str| {
        let peer = client.stream.local_addr().unwrap().to_string();
        let said = lines.about(&peer).await;
        assert_eq!(said, [[level, by, why].map(str::to_owned)]);
        drop(client);
    };

    let mut client = Client::connect(gate.port(0), V4).await;
    client.stream.shutdown().await.unwrap();
    check(client, "INFO", "client", "eof").await;

    let mut client = Client::dial(gate.port(0), V4).await.unwrap();
    client.stream.shutdown().await.unwrap();
    check(client, "DEBUG", "client", "eof").await;

    let mut client = Client::dial(gate.port(0), V4).await.unwrap();
    client.stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    check(client, "DEBUG", "gateway", "not_cql").await;

    let client = Client::dial(gate.port(0), V4).await.unwrap();
    check(client, "DEBUG", "gateway", "setup_deadline").await;

    let client = Client::dial(dead, V4).await.unwrap();
    check(client, "DEBUG", "gateway", "no_live_node").await;
}
