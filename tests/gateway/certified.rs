//! Clients with certificates, and without TLS beside those with it. In each test somebody may, and somebody may not.

use std::io;
use std::path::PathBuf;

use cqlgate::config::{AuthMode, ClientAuth};
use cqlgate::cql::frame::Opcode;
use cqlgate::cql::message::error_code;
use cqlgate::demo::node::Options;
use cqlgate::topology::NodeState;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use crate::V4;
use crate::certificates::Authority;
use crate::client::{Client, PATIENCE, error};
use crate::gate::Gate;

type Pair = (PathBuf, PathBuf);

/// What clients see, and of whom they must be.
fn clients(servers: &Authority, clients: &Authority, auth: &str) -> String {
    let tls = servers.server(&["127.0.0.1"]);
    let (certificate, key, ca) = (tls.certificate, tls.key, clients.ca());
    format!("  clients: {{certificate: {certificate:?}, key: {key:?}, client_auth: {{ca: {ca:?}, {auth}}}\n")
}

async fn connect(gate: &Gate, servers: &Authority, shown: Option<&Pair>) -> io::Result<Client<TlsStream<TcpStream>>> {
    let tcp = TcpStream::connect(gate.port(0)).await?;
    let name = rustls::pki_types::ServerName::from(gate.port(0).ip());
    let tls = timeout(PATIENCE, servers.connector_of(shown).connect(name, tcp)).await.unwrap()?;
    Ok(Client::over(tls, V4))
}

/// What a client is answered to its STARTUP, if it is.
async fn startup(gate: &Gate, servers: &Authority, shown: Option<&Pair>) -> io::Result<(Opcode, Vec<u8>)> {
    connect(gate, servers, shown).await?.startup(&[]).await
}

async fn is_served(gate: &Gate, servers: &Authority, shown: Option<&Pair>) -> bool {
    matches!(startup(gate, servers, shown).await, Ok((Opcode::READY, _)))
}

#[tokio::test]
async fn who_shows_a_certificate_that_is_listed_gets_in_and_others_are_told_apart() {
    let (servers, ours, strangers) = (Authority::new(), Authority::new(), Authority::new());
    let yaml = format!("tls:\n{}", clients(&servers, &ours, "mode: required, allow: ['CN:app-*']}"));
    let gate = Gate::start_with(Options::loopback(1, 0), &yaml).await;
    assert!(is_served(&gate, &servers, Some(&ours.client("app-1"))).await);
    assert!(!is_served(&gate, &servers, None).await);
    assert!(!is_served(&gate, &servers, Some(&ours.client("other"))).await);
    assert!(!is_served(&gate, &servers, Some(&strangers.client("app-1"))).await);
    for reason in ["absent", "not_allowed", "unknown_issuer"] {
        gate.until_counted(&format!("cqlgate_client_certificates_refused_total{{reason=\"{reason}\"}}"), 1).await;
    }
    gate.until_counted("cqlgate_connections_refused_total{reason=\"client_certificate\"}", 3).await;
}

#[tokio::test]
async fn who_is_refused_for_its_certificate_is_told_whatever_it_has_sent_by_then() {
    let (servers, ours) = (Authority::new(), Authority::new());
    let yaml = format!("tls:\n{}", clients(&servers, &ours, "mode: required}"));
    let gate = Gate::start_with(Options::loopback(1, 0), &yaml).await;
    let requests = vec![0; 100_000];
    for _ in 0..20 {
        let mut client = connect(&gate, &servers, None).await.unwrap();
        let _ = client.stream.write_all(&requests).await;
        let error = client.stream.read(&mut [0]).await.unwrap_err();
        assert!(error.to_string().contains("CertificateRequired"), "{error}");
        // And no reset behind it, which some systems let overtake what was said.
        assert_eq!(client.stream.get_mut().0.read(&mut [0]).await.unwrap(), 0);
    }
    assert!(is_served(&gate, &servers, Some(&ours.client("app"))).await);
}

#[tokio::test]
async fn with_plain_allowed_both_are_served_at_one_port_and_what_is_neither_is_not() {
    let servers = Authority::new();
    let tls = servers.server(&["127.0.0.1"]);
    let yaml =
        format!("tls: {{clients: {{certificate: {:?}, key: {:?}, plain: allowed}}}}\n", tls.certificate, tls.key);
    let gate = Gate::start_with(Options::loopback(1, 0), &yaml).await;
    assert!(is_served(&gate, &servers, None).await);
    let mut plain = Client::dial(gate.port(0), V4).await.unwrap();
    assert_eq!(plain.startup(&[]).await.unwrap().0, Opcode::READY);
    // TLS that does not suit is no plain text.
    assert!(!is_served(&gate, &Authority::new(), None).await);
    gate.until_counted("cqlgate_connections_refused_total{reason=\"tls\"}", 1).await;
}

/// A node that knows the gateway and one role by their certificates, behind a gateway that maps `app` to that role, `other` to one
/// that the node does not know, and nobody else.
async fn mapped(servers: &Authority, ours: &Authority, nodes: &Authority, auth: &str) -> Gate {
    mapped_where(&["CN:gateway", "CN:role"], servers, ours, nodes, auth).await
}

/// The same, where the node knows these.
async fn mapped_where(known: &[&str], servers: &Authority, ours: &Authority, nodes: &Authority, auth: &str) -> Gate {
    let mut tls = nodes.server(&["127.0.0.11"]);
    let known = known.iter().map(|name| name.parse().unwrap()).collect();
    tls.client_auth =
        ClientAuth { mode: AuthMode::Required, ca: Some(nodes.ca()), allow: Some(known), ..ClientAuth::default() };
    let (own, role, unknown) = (nodes.client("gateway"), nodes.client("role"), nodes.client("unknown"));
    let identity = |client: &str, (certificate, key): &Pair| {
        format!("{{client: 'CN:{client}', certificate: {certificate:?}, key: {key:?}}}")
    };
    let yaml = format!(
        "tls:\n{}  nodes: {{ca: {:?}, certificate: {:?}, key: {:?}, identities: [{}, {}]}}\n",
        clients(servers, ours, auth),
        nodes.ca(),
        own.0,
        own.1,
        identity("app", &role),
        identity("other", &unknown),
    );
    let options = Options { tls: Some(tls), ..Options::loopback(1, 0) };
    Gate::start_with(options, &yaml).await
}

#[tokio::test]
async fn a_client_is_at_the_nodes_who_its_certificate_says_and_nobody_without_one() {
    let (servers, ours, nodes) = (Authority::new(), Authority::new(), Authority::new());
    let gate = mapped(&servers, &ours, &nodes, "mode: optional}").await;
    // The gateway's own certificate is known: its probe says that the node is up.
    assert_eq!(gate.state(0), NodeState::Up);
    assert!(is_served(&gate, &servers, Some(&ours.client("app"))).await);
    let dialled = "cqlgate_dial_seconds_count{node=\"node-0\"}";
    gate.until_counted(dialled, 1).await;
    for shown in [None, Some(ours.client("stranger")), Some(ours.client("gateway"))] {
        let (opcode, body) = startup(&gate, &servers, shown.as_ref()).await.unwrap();
        assert_eq!(opcode, Opcode::ERROR);
        assert_eq!(error(&body).0, error_code::BAD_CREDENTIALS, "{shown:?}");
    }
    gate.until_counted("cqlgate_client_certificates_refused_total{reason=\"no_identity\"}", 3).await;
    gate.until_counted("cqlgate_connections_refused_total{reason=\"no_identity\"}", 3).await;
    let text = gate.metrics.render().unwrap();
    assert!(text.lines().any(|line| line == format!("{dialled} 1")), "nobody else was dialled");
    // Whom the node does not know, it refuses, though it knows the gateway.
    assert!(!is_served(&gate, &servers, Some(&ours.client("other"))).await);
    assert!(is_served(&gate, &servers, Some(&ours.client("app"))).await);
}

#[tokio::test]
async fn a_node_that_refuses_the_gateways_own_certificate_serves_clients_that_have_theirs_and_is_named() {
    let (servers, ours, nodes) = (Authority::new(), Authority::new(), Authority::new());
    let gate = mapped_where(&["CN:role"], &servers, &ours, &nodes, "mode: optional}").await;
    assert_eq!(gate.state(0), NodeState::Up);
    let why = "the node was shown tls.nodes.certificate, or none where that is absent";
    gate.until_said("/readyz", 200, why).await;
    gate.until_counted("cqlgate_dial_failures_total{node=\"node-0\",reason=\"tls\"}", 1).await;
    assert!(is_served(&gate, &servers, Some(&ours.client("app"))).await);
    assert!(!is_served(&gate, &servers, Some(&ours.client("other"))).await);
    // One that is there no more is dead, though the last that it said is that.
    gate.cluster.stop(0).await;
    gate.until_state(0, NodeState::Down).await;
}

#[tokio::test]
async fn a_node_that_takes_nobody_without_a_certificate_is_not_up_where_there_is_none_and_why_is_said() {
    let nodes = Authority::new();
    let mut tls = nodes.server(&["127.0.0.11"]);
    tls.client_auth = ClientAuth { mode: AuthMode::Required, ca: Some(nodes.ca()), ..ClientAuth::default() };
    let options = Options { tls: Some(tls), ..Options::loopback(1, 0) };
    let gate = Gate::start_in_vain(options, &format!("tls: {{nodes: {{ca: {:?}}}}}\n", nodes.ca())).await;
    gate.until_said("/readyz", 200, "ready\ndegraded, by 1 nodes: OPTIONS: received fatal alert: CertificateRequired")
        .await;
    gate.until_counted("cqlgate_dial_failures_total{node=\"node-0\",reason=\"tls\"}", 1).await;
    assert_eq!(gate.state(0), NodeState::Pending, "a dial through its port would not succeed");
}

#[tokio::test]
async fn plain_clients_are_nobody_where_certificates_say_who_somebody_is() {
    let (servers, ours, nodes) = (Authority::new(), Authority::new(), Authority::new());
    let gate = mapped(&servers, &ours, &nodes, "mode: optional}, plain: allowed").await;
    let mut plain = Client::dial(gate.port(0), V4).await.unwrap();
    let (opcode, body) = plain.startup(&[]).await.unwrap();
    assert_eq!((opcode, error(&body).0), (Opcode::ERROR, error_code::BAD_CREDENTIALS));
    assert!(is_served(&gate, &servers, Some(&ours.client("app"))).await);
}
