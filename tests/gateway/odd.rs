//! What is odd and must hurt nobody.

use std::net::TcpListener;
use std::path::Path;

use cqlgate::config::Config;
use cqlgate::cql::frame::Opcode;
use cqlgate::cql::message::request;
use cqlgate::demo::node::Options;
use cqlgate::gateway;
use cqlgate::metrics::Metrics;
use socket2::SockRef;
use std::time::Duration;

use crate::V4;
use crate::client::Client;
use crate::gate::{self, Gate};

#[tokio::test]
async fn the_node_answers_what_comes_before_a_startup() {
    let gate = Gate::start_with(Options::loopback(1, 0), "").await;
    let mut client = Client::dial(gate.port(0), V4).await.unwrap();
    let early = client.ask(Opcode::QUERY, &request::encode_query(V4.0, "SELECT * FROM demo.kv")).await.unwrap();
    assert_eq!(early.0, Opcode::ERROR);
}

#[tokio::test]
async fn a_client_that_resets_with_requests_in_flight_leaves_nothing_behind() {
    let gate = Gate::start_with(Options::loopback(1, 0), "").await;
    let mut other = Client::connect(gate.port(0), V4).await;
    let mut clients = Vec::new();
    for _ in 0..10 {
        clients.push(Client::connect(gate.port(0), V4).await);
    }
    gate.cluster.node(0).silence(true);
    for mut client in clients {
        for _ in 0..1000 {
            client.send(Opcode::QUERY, &request::encode_query(V4.0, "SELECT * FROM demo.kv")).await.unwrap();
        }
        SockRef::from(&client.stream).set_linger(Some(Duration::ZERO)).unwrap();
    }
    gate.cluster.node(0).silence(false);
    gate.until_counted("cqlgate_connections_closed_total{by=\"client\",node=\"node-0\",why=\"reset\"}", 10).await;
    assert_eq!(gate.running.connections(), 1);
    assert_eq!(other.query("SELECT * FROM demo.kv").await.unwrap().0, Opcode::RESULT);
}

#[tokio::test]
async fn a_port_that_is_taken_stops_the_start_and_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let text = format!(
        "listen: 127.0.0.1:{port}\nadvertise: 127.0.0.1\nadmin: 127.0.0.1:0\n\
         discovery: {{nodes: [{{name: a, address: 127.0.0.1}}]}}\n"
    );
    let config = Config::parse("test", &text, Path::new("")).unwrap().config;
    let Err(error) = gateway::start(config, Metrics::new(), gate::log_level()).await else { panic!("it starts") };
    let said = format!("{error:#}");
    assert!(said.contains(&format!("cannot bind 127.0.0.1:{port}")), "{said}");
}
