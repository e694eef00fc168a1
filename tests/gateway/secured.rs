//! TLS on either side: whoever dials verifies whom it reached, and the relay in between is the same.

use std::collections::BTreeSet;
use std::io;

use cqlgate::cql::frame::Opcode;
use cqlgate::cql::message::request;
use cqlgate::demo::node::{Fault, Options};
use cqlgate::topology::NodeState;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::certificates::Authority;
use crate::client::{Client, DIALECTS, Dialect, PATIENCE, rows};
use crate::gate::Gate;
use crate::limits::patient;
use crate::{V4, told};

/// Three nodes that want TLS.
pub fn nodes(authority: &Authority) -> Options {
    let tls = Some(authority.server(&["127.0.0.11", "127.0.0.12", "127.0.0.13"]));
    Options { tls, ..Options::loopback(3, 0) }
}

/// Keys for clients that come over TLS, and for nodes that want it from one who trusts `trusted`.
pub fn yaml(clients: Option<&Authority>, nodes: Option<&Authority>) -> String {
    let mut text = "tls:\n".to_owned();
    if let Some(authority) = clients {
        let tls = authority.server(&["127.0.0.1"]);
        text += &format!("  clients: {{certificate: {:?}, key: {:?}}}\n", tls.certificate, tls.key);
    }
    if let Some(trusted) = nodes {
        text += &format!("  nodes: {{ca: {:?}}}\n", trusted.ca());
    }
    text
}

pub async fn connect(gate: &Gate, index: usize, trusted: &Authority) -> io::Result<TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(gate.port(index)).await?;
    tcp.set_nodelay(true)?;
    let name = rustls::pki_types::ServerName::from(gate.port(index).ip());
    tokio::time::timeout(PATIENCE, trusted.connector().connect(name, tcp)).await?
}

async fn client(gate: &Gate, index: usize, trusted: &Authority, dialect: Dialect) -> Client<TlsStream<TcpStream>> {
    let mut client = Client::over(connect(gate, index, trusted).await.unwrap(), dialect);
    assert_eq!(client.startup(&[]).await.unwrap().0, Opcode::READY);
    client
}

#[tokio::test]
async fn rows_and_events_are_rewritten_over_tls_on_both_sides() {
    let (external, internal) = (Authority::new(), Authority::new());
    let gate = Gate::start_with(nodes(&internal), &yaml(Some(&external), Some(&internal))).await;
    for dialect in DIALECTS {
        let mut client = client(&gate, 1, &external, dialect).await;
        let (own, peers) = told(&mut client).await;
        assert_eq!((own, peers), (gate.port(1), BTreeSet::from([gate.port(0), gate.port(2)])), "{dialect:?}");
        // Many TLS records each way.
        let insert = client.prepare("INSERT INTO demo.kv (k, v) VALUES (?, ?)").await;
        let value = "x".repeat(400_000);
        client.execute(&insert, &["key", &value], false).await.unwrap();
        let (_, body) = client.query("SELECT v FROM demo.kv WHERE k = 'key'").await.unwrap();
        assert_eq!(rows(&body)[0]["v"], value.as_bytes(), "{dialect:?}");
        client.register().await;
        gate.cluster.stop(2).await;
        assert_eq!(client.event().await, format!("DOWN {}", gate.port(2)), "{dialect:?}");
        gate.until_state(2, NodeState::Down).await;
        gate.cluster.start_again(2).await.unwrap();
        assert_eq!(client.event().await, format!("UP {}", gate.port(2)), "{dialect:?}");
    }
}

#[tokio::test]
async fn a_client_that_trusts_another_ca_or_speaks_no_tls_gets_nowhere() {
    let authority = Authority::new();
    let gate = Gate::start_with(Options::loopback(1, 0), &yaml(Some(&authority), None)).await;
    let stranger = connect(&gate, 0, &Authority::new()).await.unwrap_err();
    assert_eq!(stranger.kind(), io::ErrorKind::InvalidData, "{stranger}");
    let mut plain = Client::dial(gate.port(0), V4).await.unwrap();
    assert_ne!(plain.startup(&[]).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    gate.until_counted("cqlgate_connections_refused_total{reason=\"tls\"}", 2).await;
    client(&gate, 0, &authority, V4).await;
}

#[tokio::test]
async fn a_node_with_another_cas_certificate_is_never_up_and_tls_is_named() {
    let (internal, stranger) = (Authority::new(), Authority::new());
    let gate = Gate::start_in_vain(nodes(&internal), &yaml(None, Some(&stranger))).await;
    for node in ["node-0", "node-1", "node-2"] {
        gate.until_counted(&format!("cqlgate_dial_failures_total{{node=\"{node}\",reason=\"tls\"}}"), 1).await;
    }
    // The gateway is ready all the same: it knows of each node what there is to know.
    gate.until_said("/readyz", 200, "ready").await;
    assert_eq!(gate.state(0), NodeState::Pending);
    let mut client = Client::dial(gate.port(0), V4).await.unwrap();
    let refused = client.startup(&[]).await.unwrap_err().kind();
    assert_ne!(refused, io::ErrorKind::TimedOut);
}

#[tokio::test]
async fn whoever_is_cut_off_without_a_close_notify_has_not_ended() {
    let authority = Authority::new();
    let limits = format!("timeouts: {{half_closed: 5m}}\n{}", yaml(Some(&authority), None));
    let gate = Gate::start_changed(Options::loopback(1, 0), &limits, patient).await;
    let ask = request::encode_query(V4.0, "SELECT * FROM demo.kv");
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(client(&gate, 0, &authority, V4).await);
    }
    let [mut ended, mut cut, mut cut_within] = clients.try_into().ok().unwrap();
    // One that says that it ends is answered.
    ended.send(Opcode::QUERY, &ask).await.unwrap();
    ended.stream.shutdown().await.unwrap();
    assert_eq!(ended.receive().await.unwrap().0.opcode, Opcode::RESULT);
    // Of another one nobody knows whether it said all, in a frame or between two: it is not waited for.
    gate.cluster.node(0).silence(true);
    let frame = cut.encode(1, Opcode::QUERY, &ask);
    for (client, bytes) in [(&mut cut, &frame[..]), (&mut cut_within, &frame[..12])] {
        client.stream.write_all(bytes).await.unwrap();
        client.stream.flush().await.unwrap();
        client.stream.get_mut().0.shutdown().await.unwrap();
        assert_eq!(client.end().await, io::ErrorKind::ConnectionReset, "{} bytes", bytes.len());
    }
}

#[tokio::test]
async fn a_response_cut_in_the_middle_over_tls_is_no_clean_end() {
    let (external, internal) = (Authority::new(), Authority::new());
    let gate = Gate::start_with(nodes(&internal), &yaml(Some(&external), Some(&internal))).await;
    let mut client = client(&gate, 0, &external, V4).await;
    gate.cluster.node(0).plan(Fault::CutResponse { after: 20 });
    assert_eq!(client.query("SELECT * FROM demo.kv").await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
}
