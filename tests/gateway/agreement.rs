//! Changes of the schema, told to clients that see one node for many: when all nodes have them, late, or without a wait.

use std::collections::BTreeSet;
use std::io;
use std::time::{Duration, Instant};

use cqlgate::cql::frame::Opcode;
use cqlgate::cql::message::{Event, encode_plain_auth_response, request};
use cqlgate::cql::primitives::Writer;
use cqlgate::demo::node::Options;
use tokio::io::AsyncWriteExt;

use crate::client::{Client, DIALECTS, Dialect, PATIENCE};
use crate::gate::Gate;
use crate::{V4, client};

const OF_ONE: &str = "DataStax Node.js Driver for Apache Cassandra";
const OF_ALL: &str = "Apache Cassandra Java Driver";
const SELECT: &str = "SELECT * FROM demo.kv";

async fn connect(gate: &Gate, index: usize, driver: &str, dialect: Dialect) -> Client {
    Client::connect_as(gate.port(index), dialect, &[("DRIVER_NAME", driver)]).await
}

fn create(table: &str) -> String {
    format!("CREATE TABLE demo.{table} (k text PRIMARY KEY, v text)")
}

/// Sends a statement, of which the answer may come later than others.
async fn send(client: &mut Client, dialect: Dialect, text: &str) -> i16 {
    client.send(Opcode::QUERY, &request::encode_query(dialect.0, text)).await.unwrap()
}

/// The next answer is that of `stream`, and a RESULT of kind Schema_change.
async fn told(client: &mut Client, stream: i16) {
    let (header, body) = client.receive().await.unwrap();
    assert_eq!((header.stream, header.opcode), (stream, Opcode::RESULT));
    assert_eq!(body[..4], [0, 0, 0, 5]);
}

/// Writes to the new table; an ERROR fails the test.
async fn is_used(client: &mut Client, table: &str) {
    let (opcode, body) = client.query(&format!("INSERT INTO demo.{table} (k, v) VALUES ('a', 'b')")).await.unwrap();
    assert_eq!(opcode, Opcode::RESULT, "{:?}", client::error(&body));
}

fn counted(outcome: &str) -> String {
    format!("cqlgate_schema_changes_told_total{{outcome=\"{outcome}\"}}")
}

#[tokio::test]
async fn a_new_table_is_told_when_all_nodes_have_it_and_others_go_on_meanwhile() {
    let gate = Gate::start_with(Options::loopback(3, 0), "views: {schema_agreement: 20s}\n").await;
    for (at, dialect) in DIALECTS.into_iter().enumerate() {
        gate.cluster.node(1).lag_behind(true);
        let mut first = connect(&gate, 0, OF_ONE, dialect).await;
        let mut second = connect(&gate, 2, OF_ONE, dialect).await;
        let mut of_all = connect(&gate, 0, OF_ALL, dialect).await;
        let asked = send(&mut first, dialect, &create(&format!("a{at}"))).await;
        let prepared = second.prepare(&create(&format!("b{at}"))).await;
        // Their answers are not what comes next.
        for _ in 0..3 {
            let select = send(&mut first, dialect, SELECT).await;
            assert_eq!(first.receive().await.unwrap().0.stream, select, "{dialect:?}");
        }
        let executed = second.send(Opcode::EXECUTE, &execute(&prepared)).await.unwrap();
        let select = send(&mut second, dialect, SELECT).await;
        assert_eq!(second.receive().await.unwrap().0.stream, select, "{dialect:?}");
        // Whoever sees all nodes asks them by itself, and is told at once.
        let (opcode, _) = of_all.query(&create(&format!("c{at}"))).await.unwrap();
        assert_eq!(opcode, Opcode::RESULT);
        let (opcode, body) = of_all.query(&format!("INSERT INTO demo.c{at} (k, v) VALUES ('a', 'b')")).await.unwrap();
        assert_eq!(opcode, Opcode::ERROR, "{dialect:?}: {body:?}");
        gate.cluster.node(1).lag_behind(false);
        told(&mut first, asked).await;
        is_used(&mut first, &format!("a{at}")).await;
        told(&mut second, executed).await;
        is_used(&mut second, &format!("b{at}")).await;
        gate.until_counted(&counted("agreed"), 2 * (1 + at as u64)).await;
    }
    for outcome in ["late", "unknown", "no_room", "ended"] {
        assert!(!gate.metrics.render().unwrap().contains(&counted(outcome)), "{outcome}");
    }
}

/// The body of an EXECUTE without values.
fn execute((id, metadata_id): &(Vec<u8>, Option<Vec<u8>>)) -> Vec<u8> {
    let mut body = Vec::new();
    let mut writer = Writer::new(&mut body);
    writer.short_bytes(id);
    match metadata_id {
        Some(metadata_id) => writer.short_bytes(metadata_id).u16(1).i32(0),
        None => writer.u16(1).u8(0),
    };
    body
}

#[tokio::test]
async fn a_node_that_never_agrees_makes_it_late_and_no_wait_is_one_too() {
    for (wait, outcome) in [("300ms", Some("late")), ("0s", None)] {
        let gate = Gate::start_with(Options::loopback(3, 0), &format!("views: {{schema_agreement: {wait}}}\n")).await;
        gate.cluster.node(1).lag_behind(true);
        for dialect in DIALECTS {
            let mut client = connect(&gate, 0, OF_ONE, dialect).await;
            let began = Instant::now();
            let asked = send(&mut client, dialect, &create(&format!("t{}", client_number()))).await;
            told(&mut client, asked).await;
            assert_eq!(began.elapsed() >= Duration::from_millis(300), outcome.is_some(), "{:?}", began.elapsed());
        }
        match outcome {
            Some(outcome) => gate.until_counted(&counted(outcome), DIALECTS.len() as u64).await,
            None => assert!(!gate.metrics.render().unwrap().contains("schema_changes_told_total{")),
        }
    }
}

/// Another one each time.
fn client_number() -> u32 {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    NUMBER.fetch_add(1, Ordering::Relaxed)
}

#[tokio::test]
async fn a_node_that_answers_nothing_is_waited_for_until_it_is_dead() {
    let gate = Gate::start_with(Options::loopback(3, 0), "views: {schema_agreement: 20s}\n").await;
    gate.cluster.node(1).lag_behind(true);
    gate.cluster.node(1).silence(true);
    let mut client = connect(&gate, 0, OF_ONE, V4).await;
    let asked = send(&mut client, V4, &create("t")).await;
    told(&mut client, asked).await;
    assert_eq!(gate.state(1), cqlgate::topology::NodeState::Down);
    gate.until_counted(&counted("agreed"), 1).await;
}

#[tokio::test]
async fn an_event_waits_as_an_answer_does() {
    let gate = Gate::start_with(Options::loopback(3, 0), "views: {schema_agreement: 20s}\n").await;
    let mut body = Vec::new();
    let writer = &mut Writer::new(&mut body);
    writer.string("SCHEMA_CHANGE").string("CREATED").string("TABLE").string("demo").string("t");
    for dialect in DIALECTS {
        let mut control = connect(&gate, 0, OF_ONE, dialect).await;
        let mut of_all = connect(&gate, 0, OF_ALL, dialect).await;
        control.register().await;
        of_all.register().await;
        gate.cluster.node(1).lag_behind(true);
        let mut other = connect(&gate, 0, OF_ALL, V4).await;
        assert_eq!(other.query(&create(&format!("e{}", client_number()))).await.unwrap().0, Opcode::RESULT);
        gate.cluster.node(0).push(&Event::Schema { body: &body });
        assert!(of_all.event().await.starts_with("Schema"), "{dialect:?}");
        for _ in 0..3 {
            control.rows(SELECT).await;
        }
        gate.cluster.node(1).lag_behind(false);
        assert!(control.event().await.starts_with("Schema"), "{dialect:?}");
    }
}

#[tokio::test]
async fn a_drain_and_the_end_of_the_node_lose_no_answer() {
    for dialect in [V4, DIALECTS[7]] {
        let gate = Gate::start_with(Options::loopback(3, 0), "drain: {spread: 0s, deadline: 10s}\n").await;
        gate.cluster.node(1).lag_behind(true);
        let mut of_drained = connect(&gate, 0, OF_ONE, dialect).await;
        let mut of_killed = connect(&gate, 2, OF_ONE, dialect).await;
        let asked = send(&mut of_killed, dialect, &create("a")).await;
        of_killed.rows_behind(dialect).await;
        gate.cluster.node(2).kill().await;
        told(&mut of_killed, asked).await;
        assert_eq!(of_killed.end().await, io::ErrorKind::UnexpectedEof);
        let asked = send(&mut of_drained, dialect, &create("b")).await;
        of_drained.rows_behind(dialect).await;
        let Gate { cluster: _cluster, running, metrics } = gate;
        let draining = tokio::spawn(running.drain());
        told(&mut of_drained, asked).await;
        assert_eq!(of_drained.end().await, io::ErrorKind::UnexpectedEof, "{dialect:?}");
        tokio::time::timeout(PATIENCE, draining).await.unwrap().unwrap();
        assert!(metrics.render().unwrap().contains(&format!("{} 2\n", counted("ended"))));
    }
}

impl Client {
    /// An answer that comes behind the one that is kept: that one is kept by now.
    async fn rows_behind(&mut self, dialect: Dialect) {
        let select = send(self, dialect, SELECT).await;
        assert_eq!(self.receive().await.unwrap().0.stream, select);
    }
}

#[tokio::test]
async fn ten_thousand_changes_of_one_client_are_all_told_and_another_client_has_its_own() {
    let gate = Gate::start_with(Options::loopback(3, 0), "views: {schema_agreement: 1s}\n").await;
    gate.cluster.node(1).lag_behind(true);
    let mut flood = connect(&gate, 0, OF_ONE, V4).await;
    let mut bytes = Vec::new();
    for stream in 0..10_000 {
        let query = request::encode_query(V4.0, &create(&format!("t{stream}")));
        bytes.extend(flood.encode(stream, Opcode::QUERY, &query));
    }
    let mut other = connect(&gate, 2, OF_ONE, V4).await;
    let (began, asked) = (Instant::now(), send(&mut other, V4, &create("other")).await);
    flood.stream.write_all(&bytes).await.unwrap();
    let mut streams = BTreeSet::new();
    for _ in 0..10_000 {
        let (header, body) = flood.receive().await.unwrap();
        assert_eq!(header.opcode, Opcode::RESULT, "{:?}", client::error(&body));
        assert!(streams.insert(header.stream), "told twice");
    }
    told(&mut other, asked).await;
    assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
    gate.until_counted(&counted("no_room"), 1).await;
    is_used_late(&mut flood, &gate).await;
}

/// The connection goes on as ever.
async fn is_used_late(client: &mut Client, gate: &Gate) {
    gate.cluster.node(1).lag_behind(false);
    is_used(client, "t9999").await;
}

/// A gateway with or without a login of its own, before nodes that ask for one, and a client that has logged in.
async fn before_strict_nodes(login: Option<&std::path::Path>) -> (Gate, Client) {
    let credentials = Some(("ann".to_owned(), "secret".to_owned()));
    let gate = Gate::start_changed(Options { credentials, ..Options::loopback(3, 0) }, "", |config| {
        config.probe.username = login.map(|_| "ann".to_owned());
        config.probe.password_file = login.map(Into::into);
    })
    .await;
    let mut client = Client::dial(gate.port(0), V4).await.unwrap();
    assert_eq!(client.startup(&[("DRIVER_NAME", OF_ONE)]).await.unwrap().0, Opcode::AUTHENTICATE);
    let token = encode_plain_auth_response("ann", "secret");
    assert_eq!(client.ask(Opcode::AUTH_RESPONSE, &token).await.unwrap().0, Opcode::AUTH_SUCCESS);
    (gate, client)
}

#[tokio::test]
async fn where_nodes_ask_for_a_login_it_is_the_gateways_that_tells_and_without_one_nobody_waits() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "secret").unwrap();
    let (gate, mut client) = before_strict_nodes(Some(file.path())).await;
    gate.cluster.node(1).lag_behind(true);
    let asked = send(&mut client, V4, &create("t")).await;
    client.rows_behind(V4).await;
    gate.cluster.node(1).lag_behind(false);
    told(&mut client, asked).await;
    is_used(&mut client, "t").await;
    gate.until_counted(&counted("agreed"), 1).await;
    let (gate, mut client) = before_strict_nodes(None).await;
    gate.cluster.node(1).lag_behind(true);
    let began = Instant::now();
    for table in ["a", "b", "c"] {
        let asked = send(&mut client, V4, &create(table)).await;
        told(&mut client, asked).await;
    }
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    gate.until_counted(&counted("unknown"), 3).await;
}
