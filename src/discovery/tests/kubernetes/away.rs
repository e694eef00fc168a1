//! While the API is away, refuses, or has nothing to say: what is served, what clients are told, and what `/readyz` says.

use std::time::SystemTime;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use super::super::dns::NameServer;
use super::super::fake_api::Fault;
use super::*;
use crate::config::advertise::Path;
use crate::config::{ClientTls, External};
use crate::proxy::tls::ClientAcceptor;
use crate::topology::Node;

pub const NAMES: [&str; 2] =
    ["cassandra-0.cassandra.db.svc.cluster.local", "cassandra-1.cassandra.db.svc.cluster.local"];
const REFRESHED: &str = "cqlgate_discovery_refreshed_timestamp_seconds";

/// As [`in_kubernetes`], told by the load balancer of the gateway's own Service.
fn behind_a_load_balancer(keys: &str) -> Config {
    Config { paths: Path::everywhere(External::Service("cqlgate".to_owned())), ..in_kubernetes(keys) }
}

fn gateway(ingress: Value) -> Value {
    json!({"spec": {"type": "LoadBalancer"}, "status": {"loadBalancer": {"ingress": ingress}}})
}

pub fn octets(ip: SocketAddr) -> [u8; 4] {
    let SocketAddr::V4(ip) = ip else { panic!("{ip}") };
    ip.ip().octets()
}

impl Running {
    async fn until_advertised(&mut self, octets: [u8; 4]) {
        self.until("advertised", |topology| topology.paths.only_address().ipv4 == Some(octets.into())).await;
    }
}

#[tokio::test]
async fn what_may_not_be_listed_is_named_until_it_may() {
    let scene = Scene::of([54, 1], 1).await;
    scene.api.break_with(Kind::Slices, Verb::List, Fault::Forbidden);
    let mut running = scene.start("dial: address");
    let said = "discovery: list endpointslices.discovery.k8s.io in namespace db: forbidden: ";
    let names = || running.readiness.pending_names();
    until(|| names().iter().any(|name| name.starts_with(said)), || format!("{:?}", names())).await;
    assert!(names().contains(&Arc::from("discovery")));
    scene.api.mend();
    running.until_ready().await;
    // Taken away later, it takes nothing with it.
    scene.api.break_with(Kind::Slices, Verb::Watch, Fault::Forbidden);
    scene.api.end_watches(Kind::Slices);
    running.until_failures("endpointslices", "forbidden", 3.0).await;
    assert!(running.readiness.is_ready());
    running.until_state(9042, NodeState::Up).await;
}

#[tokio::test]
async fn without_the_api_and_a_snapshot_it_is_not_ready() {
    let scene = Scene::of([54, 2], 1).await;
    scene.api.kill();
    let running = scene.start("dial: address");
    running.until_failures("endpointslices", "connection", 4.0).await;
    running
        .until_pending(&[
            "discovery",
            "discovery: list endpointslices.discovery.k8s.io in namespace db: Connection refused (os error 111)",
        ])
        .await;
    assert_eq!(running.metric(REFRESHED), 0.0);
    scene.api.start_again().await;
    running.until_ready().await;
    assert!(running.metric(REFRESHED) > 1.0e9);
}

#[tokio::test]
async fn a_start_while_the_api_is_away_serves_and_tells_what_the_snapshot_knows() {
    let mut scene = Scene::of([54, 3], 2).await;
    scene.api.put(Kind::LoadBalancer, "cqlgate", gateway(json!([{"ip": "203.0.113.77", "ipMode": "VIP"}])));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("snapshot.json");
    let keys = format!("dial: address, snapshot_file: {}", path.display());
    let config = behind_a_load_balancer(&keys);
    let mut running = scene.start_by(Names::system(), QUICK, &config);
    running.until_state(9042, NodeState::Up).await;
    running.until_state(9043, NodeState::Up).await;
    running.until_advertised([203, 0, 113, 77]).await;
    let saved = || std::fs::read_to_string(&path).unwrap_or_default();
    until(|| saved().contains("203.0.113.77") && saved().contains("cassandra-1"), saved).await;
    drop(running);
    scene.api.kill();
    let mut running = scene.start_by(Names::system(), QUICK, &config);
    for (ordinal, port) in (0..2).zip(9042..) {
        assert_eq!(running.until_state(port, NodeState::Up).await.address, scene.address(ordinal));
    }
    running.until_advertised([203, 0, 113, 77]).await;
    running.until_ready().await;
    // Nobody has been told of the cluster by the API.
    assert_eq!(running.metric(REFRESHED), 0.0);
    let lives = running.lives();
    scene.api.start_again().await;
    running.until_watching("endpointslices", true).await;
    running.until_watching("pods", true).await;
    scene.nodes[1] = None;
    scene.api.delete(Kind::Pods, "cassandra-1");
    scene.api.put(Kind::Slices, "cassandra-x1", scene.slice(&[0]));
    running.until("away", |topology| !topology.node_at_port(9043).unwrap().present).await;
    assert_eq!(running.lives()[0], lives[0]);
}

#[tokio::test]
async fn the_staleness_shows_that_the_api_is_away() {
    let mut scene = Scene::of([54, 4], 2).await;
    let mut running = scene.started(QUICK).await;
    running.until_watching("endpointslices", true).await;
    let before = running.metric(REFRESHED);
    let told = || {
        scene.api.bookmark(Kind::Slices);
        running.metric(REFRESHED) > before
    };
    until(told, || "a bookmark is news".to_owned()).await;
    scene.api.kill();
    running.until_failures("endpointslices", "connection", 3.0).await;
    let stale = running.metric(REFRESHED);
    // What probes see is no news of the API.
    scene.nodes[1] = None;
    running.until_state(9043, NodeState::Down).await;
    running.until_failures("endpointslices", "connection", 8.0).await;
    assert_eq!(running.metric(REFRESHED), stale);
    scene.api.start_again().await;
    until(|| running.metric(REFRESHED) > stale, || "it is heard again".to_owned()).await;
}

#[tokio::test]
async fn the_staleness_grows_while_a_watch_is_silent() {
    let mut scene = Scene::of([54, 11], 2).await;
    let mut running = scene.started(QUICK).await;
    running.until_watching("endpointslices", true).await;
    scene.api.break_with(Kind::Slices, Verb::Watch, Fault::Stalls);
    let ended = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64();
    scene.api.end_watches(Kind::Slices);
    // Its beginning is the last that is heard of it.
    scene.api.until_asked(Kind::Slices, Verb::Watch, 1).await;
    until(|| running.metric(REFRESHED) > ended, || "the watch has begun".to_owned()).await;
    let stale = running.metric(REFRESHED);
    // What probes see is no news of the API, and time is none.
    scene.nodes[1] = None;
    running.until_state(9043, NodeState::Down).await;
    tokio::time::sleep(QUICK.still_true * 20).await;
    assert_eq!(running.metric(REFRESHED), stale);
}

#[tokio::test]
async fn dns_that_lags_is_counted_and_the_watch_is_followed() {
    let scene = Scene::of([54, 5], 1).await;
    let server = NameServer::start().await;
    server.set(NAMES[0], &[[127, 54, 5, 99]]);
    let mut running = scene.start_by(server.names.clone(), QUICK, &in_kubernetes(""));
    let node = running.until_state(9042, NodeState::Up).await;
    assert_eq!((node.address, node.host.as_deref()), (scene.address(0), Some(NAMES[0])));
    let disagreements = || running.metric("cqlgate_discovery_dns_disagreements_total");
    until(|| disagreements() >= 1.0, || "no disagreement".to_owned()).await;
    assert_eq!(running.node(9042).address, scene.address(0));
}

#[tokio::test]
async fn a_name_is_asked_for_when_there_is_a_reason_and_rarely_otherwise() {
    let mut scene = Scene::of([54, 12], 2).await;
    let server = NameServer::start().await;
    for (name, ordinal) in NAMES.into_iter().zip(0..) {
        server.set(name, &[octets(scene.address(ordinal))]);
    }
    let mut running = scene.start_by(server.names.clone(), QUICK, &in_kubernetes(""));
    running.until_state(9042, NodeState::Up).await;
    running.until_state(9043, NodeState::Up).await;
    let asked = || NAMES.map(|name| server.asked(name));
    // Both families of both.
    until(|| asked().iter().all(|count| *count >= 2), || format!("{:?}", asked())).await;
    let before = asked();
    // Longer than the TTL, as it counts.
    tokio::time::sleep(Duration::from_secs(7)).await;
    assert_eq!(asked(), before);
    let moved = SocketAddr::from(([127, 54, 12, 102], 9742));
    scene.nodes[1] = None;
    scene.ring.facts.lock().members[1].address = moved;
    let _node = FakeNode::start(&scene.ring, moved).await;
    server.set(NAMES[1], &[octets(moved)]);
    scene.api.put(Kind::Pods, "cassandra-1", pod("u1b", moved));
    let pods = [(0, "u0".to_owned(), scene.address(0)), (1, "u1b".to_owned(), moved)];
    scene.api.put(Kind::Slices, "cassandra-x1", slice(&pods));
    until(|| asked()[1] >= before[1] + 2, || format!("{before:?}, now {:?}", asked())).await;
    assert_eq!(asked()[0], before[0]);
    // One that is dead is asked for as often as its TTL says.
    scene.nodes[0] = None;
    running.until_state(9042, NodeState::Down).await;
    until(|| asked()[0] >= before[0] + 4, || format!("{before:?}, now {:?}", asked())).await;
}

/// A certificate that carries one name, in `folder`.
fn certified(folder: &std::path::Path, ca: &CertifiedIssuer<'_, KeyPair>, name: &str) -> ClientTls {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new([name.to_owned()]).unwrap().signed_by(&key, ca).unwrap();
    let write = |end: &str, text: String| {
        let path = folder.join(format!("{name}.{end}"));
        std::fs::write(&path, text).unwrap();
        path
    };
    ClientTls::new(write("crt", certificate.pem()), write("key", key.serialize_pem()))
}

#[tokio::test]
async fn tls_to_a_node_wants_the_name_of_its_pod() {
    const OTHER: &str = "cassandra-1.other.db.svc.cluster.local";
    let mut scene = Scene::of([54, 13], 2).await;
    let folder = tempfile::tempdir().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    for (ordinal, name) in [NAMES[0], OTHER].into_iter().enumerate() {
        let tls = certified(folder.path(), &issuer, name);
        scene.nodes[ordinal] = None;
        let acceptor = ClientAcceptor::from_config(&tls).unwrap();
        scene.nodes[ordinal] = Some(FakeNode::start_tls(&scene.ring, scene.address(ordinal as u8), acceptor).await);
    }
    let ca = folder.path().join("ca.crt");
    std::fs::write(&ca, issuer.pem()).unwrap();
    let text = format!(
        "probe: {{interval: 50ms}}\ntls: {{nodes: {{ca: {}}}}}\n\
         discovery: {{allow: [127.0.0.0/8], kubernetes: {{service: cassandra, namespace: db}}}}\n",
        ca.display()
    );
    let config = config(&text);
    let server = NameServer::start().await;
    let mut running = scene.start_by(server.names.clone(), QUICK, &config);
    let node = running.until_state(9042, NodeState::Up).await;
    assert_eq!(&*node.host_name(), NAMES[0]);
    running.until_metric("cqlgate_dial_failures_total{node=\"cassandra-1\",reason=\"tls\"}").await;
    assert_eq!(running.node(9043).state, NodeState::Pending);
    // As a client's connection is relayed.
    let connector = NodeConnector::from_config(config.tls.nodes.as_ref().unwrap()).unwrap();
    let dial = async |node: &Node, host: &str| {
        let tcp = tokio::net::TcpStream::connect(node.address).await.unwrap();
        connector.own().connect(tcp, host).await.map(drop).map_err(|error| error.to_string())
    };
    assert_eq!(dial(&node, &node.host_name()).await, Ok(()));
    // It carries the name alone.
    let error = dial(&node, &node.address.ip().to_string()).await.unwrap_err();
    assert!(error.contains("not valid for name") && error.contains(NAMES[0]), "{error}");
    let node = running.node(9043);
    let error = dial(&node, &node.host_name()).await.unwrap_err();
    assert!(error.contains("not valid for name") && error.contains(NAMES[1]) && error.contains(OTHER), "{error}");
}

#[tokio::test]
async fn a_dead_node_is_dialled_where_its_name_leads_while_the_api_is_away() {
    let mut scene = Scene::of([54, 6], 2).await;
    let server = NameServer::start().await;
    for (name, ordinal) in NAMES.into_iter().zip(0..) {
        server.set(name, &[octets(scene.address(ordinal))]);
    }
    let mut running =
        scene.start_by(server.names.clone(), Timing { names: Duration::from_secs(1), ..QUICK }, &in_kubernetes(""));
    let other = running.until_state(9042, NodeState::Up).await;
    running.until_state(9043, NodeState::Up).await;
    scene.api.kill();
    running.until_failures("endpointslices", "connection", 3.0).await;
    // While it lives, its name decides nothing.
    let moved = SocketAddr::from(([127, 54, 6, 102], 9742));
    server.set(NAMES[1], &[octets(moved)]);
    let disagreements = || running.metric("cqlgate_discovery_dns_disagreements_total");
    until(|| disagreements() >= 1.0, || "no disagreement".to_owned()).await;
    assert_eq!(running.node(9043).address, scene.address(1));
    scene.ring.facts.lock().members[1].address = moved;
    scene.nodes[1] = Some(FakeNode::start(&scene.ring, moved).await);
    let there = |topology: &Topology| {
        topology.node_at_port(9043).is_some_and(|node| node.address == moved && node.state == NodeState::Up)
    };
    running.until("up where its name leads", there).await;
    // It stays there.
    let (life, failures) = (running.node(9043), running.failures("endpointslices", "connection"));
    running.until_failures("endpointslices", "connection", failures + 5.0).await;
    let now = running.node(9043);
    assert_eq!((now.address, now.since, now.incarnation), (moved, life.since, life.incarnation));
    assert_eq!(running.node(9042).incarnation, other.incarnation);
}

impl Scene {
    /// The API has said that the last pod is gone, and then the API has gone.
    async fn lose_the_last_pod_and_the_api(&mut self, running: &mut Running) {
        let last = self.nodes.len() as u8 - 1;
        self.nodes[usize::from(last)] = None;
        self.api.delete(Kind::Pods, &format!("cassandra-{last}"));
        self.api.put(Kind::Slices, "cassandra-x1", self.slice(&(0..last).collect::<Vec<_>>()));
        let port = 9042 + u16::from(last);
        running.until("away", |topology| topology.node_at_port(port).is_some_and(|node| !node.present)).await;
        self.api.kill();
        running.until_failures("endpointslices", "connection", 3.0).await;
    }
}

#[tokio::test]
async fn while_the_api_is_away_nobody_leaves() {
    let timing = Timing { left: Duration::from_secs(3), ..QUICK };
    let mut scene = Scene::of([54, 9], 2).await;
    let mut running = scene.started(timing).await;
    scene.lose_the_last_pod_and_the_api(&mut running).await;
    // Twice the time after which it would have left.
    tokio::time::sleep(timing.left * 2).await;
    // Whatever comes, it is not concluded from it.
    scene.nodes[0] = None;
    running.until_state(9042, NodeState::Down).await;
    assert!(running.handle.topology.borrow().node_at_port(9043).is_some_and(|node| node.state == NodeState::Down));
    let returned = std::time::Instant::now();
    scene.api.start_again().await;
    let gone = |topology: &Topology| {
        let node = topology.nodes.iter().find(|node| &*node.id.0 == "cassandra-1");
        node.is_none_or(|node| node.state == NodeState::Gone)
    };
    running.until("gone", gone).await;
    assert!(returned.elapsed() >= timing.left, "{:?}", returned.elapsed());
}

#[tokio::test]
async fn a_pod_that_comes_back_while_the_api_is_away_is_found_by_its_name() {
    let mut scene = Scene::of([54, 10], 2).await;
    let server = NameServer::start().await;
    server.set(NAMES[0], &[octets(scene.address(0))]);
    let mut running = scene.start_by(server.names.clone(), QUICK, &in_kubernetes(""));
    let other = running.until_state(9042, NodeState::Up).await;
    running.until_state(9043, NodeState::Up).await;
    scene.lose_the_last_pod_and_the_api(&mut running).await;
    let moved = SocketAddr::from(([127, 54, 10, 102], 9742));
    scene.ring.facts.lock().members[1].address = moved;
    scene.nodes[1] = Some(FakeNode::start(&scene.ring, moved).await);
    server.set(NAMES[1], &[octets(moved)]);
    let node = running.until_state(9043, NodeState::Up).await;
    assert_eq!((node.address, node.present), (moved, true));
    // The API says the same when it is heard again.
    scene.api.put(Kind::Pods, "cassandra-1", pod("u1b", moved));
    let pods = [(0, "u0".to_owned(), scene.address(0)), (1, "u1b".to_owned(), moved)];
    scene.api.put(Kind::Slices, "cassandra-x1", slice(&pods));
    scene.api.start_again().await;
    running.until_watching("endpointslices", true).await;
    running.until_watching("pods", true).await;
    let node = running.until_state(9043, NodeState::Up).await;
    assert_eq!(node.address, moved);
    assert_eq!(running.node(9042).incarnation, other.incarnation);
}

#[tokio::test]
async fn the_load_balancers_address_is_waited_for_and_followed() {
    let scene = Scene::of([54, 7], 1).await;
    let server = NameServer::start().await;
    server.set("a.lb.test", &[[203, 0, 113, 41]]);
    server.set("b.lb.test", &[[203, 0, 113, 42]]);
    let config = behind_a_load_balancer("dial: address");
    let mut running = scene.start_by(server.names.clone(), QUICK, &config);
    running.until_state(9042, NodeState::Up).await;
    let waits = |why: &str| ["advertised address".to_owned(), format!("advertised address: Service cqlgate: {why}")];
    running.until_pending(&waits("there is none of this name").each_ref().map(String::as_str)).await;
    scene.api.put(Kind::LoadBalancer, "cqlgate", json!({"spec": {}, "status": {"loadBalancer": {}}}));
    running.until_pending(&waits("its load balancer has no address").each_ref().map(String::as_str)).await;
    scene.api.put(Kind::LoadBalancer, "cqlgate", gateway(json!([{"hostname": "a.lb.test"}])));
    running.until_advertised([203, 0, 113, 41]).await;
    running.until_ready().await;
    scene.api.put(Kind::LoadBalancer, "cqlgate", gateway(json!([{"hostname": "b.lb.test"}])));
    running.until_advertised([203, 0, 113, 42]).await;
    scene.api.put(Kind::LoadBalancer, "cqlgate", gateway(Value::Null));
    scene.api.put(Kind::LoadBalancer, "cqlgate", gateway(json!([{"ip": "203.0.113.43"}])));
    running.until_advertised([203, 0, 113, 43]).await;
    assert_eq!(running.metrics.advertised_changes.get(), 2);
}

#[tokio::test]
async fn a_service_that_may_not_be_listed_is_named() {
    let scene = Scene::of([54, 8], 1).await;
    scene.api.break_with(Kind::LoadBalancer, Verb::List, Fault::Forbidden);
    let running = scene.start_by(Names::system(), QUICK, &behind_a_load_balancer("dial: address"));
    let said = "advertised address: list services (that named cqlgate) in namespace gate: forbidden: ";
    let names = || running.readiness.pending_names();
    until(|| names().iter().any(|name| name.starts_with(said)), || format!("{:?}", names())).await;
    assert!(names().contains(&Arc::from("advertised address")));
    scene.api.mend();
    scene.api.put(Kind::LoadBalancer, "cqlgate", gateway(json!([{"ip": "203.0.113.44"}])));
    running.until_ready().await;
}
