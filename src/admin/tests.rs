//! Requests over a real socket, as bytes.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::{Request, StatusCode};

use super::*;
use crate::readiness::Pending;
use crate::telemetry;
use crate::topology::{Advertised, Node};

struct Gateway {
    running: Running,
    topology: watch::Sender<Arc<Topology>>,
    readiness: Readiness,
    _filter: Box<dyn Send>,
}

fn parts() -> (Parts, watch::Sender<Arc<Topology>>, Box<dyn Send>) {
    let (filter, log_level) = telemetry::detached("info");
    let (sender, topology) = watch::channel(Arc::default());
    let parts = Parts {
        topology,
        metrics: Metrics::new(),
        readiness: Readiness::new(),
        log_level,
        sightings: Arc::default(),
        kept: Arc::default(),
        cordons: Arc::default(),
        connections: Box::new(|port| usize::from(port) - 9000),
        complaint: Box::new(|| None),
    };
    (parts, sender, Box::new(filter))
}

impl Gateway {
    fn start() -> Self {
        let (parts, topology, filter) = parts();
        let readiness = parts.readiness.clone();
        let running = start((Ipv4Addr::LOCALHOST, 0).into(), parts).unwrap();
        Self { running, topology, readiness, _filter: filter }
    }

    /// Sends bytes, reads until the server closes.
    fn send(&self, bytes: &[u8]) -> String {
        let mut tcp = TcpStream::connect(self.running.local_addr).unwrap();
        tcp.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        tcp.write_all(bytes).unwrap();
        let mut response = String::new();
        tcp.read_to_string(&mut response).unwrap();
        response
    }

    /// Status, headers in lower case, body.
    fn ask(&self, method: &str, path: &str, body: &str) -> (u16, String, String) {
        let length = body.len();
        let request = format!("{method} {path} HTTP/1.1\r\nHost: gateway\r\nContent-Length: {length}\r\n\r\n{body}");
        let response = self.send(request.as_bytes());
        let (head, body) = response.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, head.to_lowercase(), body.to_owned())
    }

    fn get(&self, path: &str) -> (u16, String) {
        let (status, _, body) = self.ask("GET", path, "");
        (status, body)
    }

    fn pending(&self, name: &str) -> Pending {
        self.readiness.pending(name)
    }
}

fn pair(status: u16, body: &str) -> (u16, String) {
    (status, body.to_owned())
}

#[test]
fn metrics_are_prometheus_text() {
    let gateway = Gateway::start();
    let (status, head, body) = gateway.ask("GET", "/metrics", "");
    assert_eq!(status, 200);
    assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
    assert!(body.contains("\ncqlgate_build_info{version="), "{body}");
}

#[test]
fn alive_though_not_ready() {
    let gateway = Gateway::start();
    let _discovery = gateway.pending("discovery");
    assert_eq!(gateway.get("/livez"), pair(200, "ok\n"));
}

#[test]
fn readyz_names_what_is_pending_one_per_line() {
    let gateway = Gateway::start();
    let (discovery, probes) = (gateway.pending("discovery"), gateway.pending("first probes"));
    assert_eq!(gateway.get("/readyz"), pair(503, "discovery\nfirst probes\n"));
    drop(discovery);
    assert_eq!(gateway.get("/readyz"), pair(503, "first probes\n"));
    drop(probes);
    assert_eq!(gateway.get("/readyz?verbose"), pair(200, "ready\n"));
    gateway.readiness.drain();
    assert_eq!(gateway.get("/readyz"), pair(503, "draining\n"));
}

#[test]
fn topology_is_the_newest_snapshot_with_its_connections() {
    let gateway = Gateway::start();
    assert_eq!(gateway.get("/topology"), pair(200, r#"{"generation":0,"nodes":[],"hidden":[],"kept":[]}"#));
    let node = Node::example("cassandra-0", 9042, "10.1.2.3:9042");
    gateway.topology.send_replace(Arc::new(Topology::new(3, Advertised::default(), [node])));
    let (status, head, body) = gateway.ask("GET", "/topology", "");
    assert_eq!(status, 200);
    assert!(head.contains("content-type: application/json"), "{head}");
    let shown: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(shown["generation"], 3);
    assert_eq!(shown["nodes"][0]["name"], "cassandra-0");
    assert_eq!(shown["nodes"][0]["connections"], 42);
}

#[test]
fn log_level_is_read_and_changed() {
    let gateway = Gateway::start();
    assert_eq!(gateway.get("/log-level"), pair(200, "info\n"));
    let (status, _, body) = gateway.ask("PUT", "/log-level", "cqlgate::proxy=debug,info\n");
    assert_eq!((status, body), pair(200, "cqlgate::proxy=debug,info\n"));
    let (status, _, body) = gateway.ask("PUT", "/log-level", "loud");
    assert_eq!(status, 400);
    assert!(body.contains("\"loud\" is no level"), "{body}");
    assert_eq!(gateway.get("/log-level"), pair(200, "cqlgate::proxy=debug,info\n"));
    assert_eq!(gateway.ask("PUT", "/log-level", &"x".repeat(5000)).0, 413);
}

#[tokio::test]
async fn log_level_is_changed_from_this_machine_only() {
    let (parts, _topology, _filter) = parts();
    for (peer, status, level) in [
        ("10.0.0.9:40000", StatusCode::FORBIDDEN, "info"),
        ("[2001:db8::9]:40000", StatusCode::FORBIDDEN, "info"),
        ("127.0.0.1:40000", StatusCode::OK, "debug"),
        ("[::1]:40000", StatusCode::OK, "debug"),
        ("[::ffff:127.0.0.1]:40000", StatusCode::OK, "debug"),
    ] {
        parts.log_level.set("info").unwrap();
        let request = Request::put("/log-level").body(Full::new(Bytes::from("debug"))).unwrap();
        let response = routes::answer(request, peer.parse().unwrap(), &parts).await;
        assert_eq!((response.status(), parts.log_level.get().as_str()), (status, level), "{peer}");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(status == StatusCode::FORBIDDEN, body.starts_with(b"the log level can be changed from"));
    }
}

#[test]
fn a_node_is_cordoned_by_name_and_an_unknown_name_is_answered_with_those_that_there_are() {
    let gateway = Gateway::start();
    let nodes = ["cassandra-0", "cassandra-1"].into_iter().zip(9042..);
    let nodes = nodes.map(|(name, port)| Node::example(name, port, &format!("10.1.2.{}:9042", port - 9040)));
    gateway.topology.send_replace(Arc::new(Topology::new(1, Advertised::default(), nodes)));
    let put = |path: &str| {
        let (status, _, body) = gateway.ask("PUT", path, "");
        (status, body)
    };
    let shown = || {
        let shown: serde_json::Value = serde_json::from_str(&gateway.get("/topology").1).unwrap();
        [0, 1].map(|node| shown["nodes"][node]["cordoned"].as_bool().unwrap())
    };
    let counted = |line: &str| gateway.get("/metrics").1.contains(&format!("\n{line}\n"));
    let (status, body) = put("/nodes/cassandra-1/cordon");
    assert_eq!(status, 200);
    assert_eq!(body, "cassandra-1 is cordoned in this replica: new connections to port 9043 are closed; 43 go on\n");
    assert_eq!(shown(), [false, true]);
    assert!(counted("cqlgate_node_cordoned{node=\"cassandra-1\"} 1"));
    assert_eq!(
        put("/nodes/cassandra-7/cordon"),
        pair(404, "no node \"cassandra-7\"; there are:\ncassandra-0\ncassandra-1\n")
    );
    assert_eq!(gateway.ask("GET", "/nodes/cassandra-1/cordon", "").0, 405);
    assert_eq!(gateway.get("/readyz"), pair(200, "ready\n"));
    assert_eq!(put("/nodes/cassandra-1/uncordon").0, 200);
    assert_eq!(shown(), [false, false]);
    assert!(counted("cqlgate_node_cordoned{node=\"cassandra-1\"} 0"));
    // One that has left is not kept for ever.
    put("/nodes/cassandra-0/cordon");
    gateway.topology.send_replace(Arc::default());
    assert_eq!(put("/nodes/cassandra-0/uncordon").0, 200);
    assert_eq!(put("/nodes/cassandra-0/uncordon").0, 404);
}

#[tokio::test]
async fn nodes_are_cordoned_from_this_machine_only() {
    let (parts, topology, _filter) = parts();
    topology.send_replace(Arc::new(Topology::new(
        1,
        Advertised::default(),
        [Node::example("cassandra-0", 9042, "10.1.2.3:9042")],
    )));
    for (peer, status) in [("10.0.0.9:40000", StatusCode::FORBIDDEN), ("[::1]:40000", StatusCode::OK)] {
        let request = Request::put("/nodes/cassandra-0/cordon").body(Full::new(Bytes::new())).unwrap();
        let response = routes::answer(request, peer.parse().unwrap(), &parts).await;
        assert_eq!(response.status(), status, "{peer}");
        assert_eq!(parts.cordons.has(&crate::topology::NodeId::new("cassandra-0")), status == StatusCode::OK);
    }
}

#[test]
fn unknown_path_lists_what_there_is() {
    let gateway = Gateway::start();
    let (status, body) = gateway.get("/");
    assert_eq!(status, 404);
    for path in ["/metrics", "/livez", "/readyz", "/topology", "/log-level", "/nodes/NAME/uncordon"] {
        assert!(body.contains(&format!("\n{path} ")), "{path}");
    }
}

#[test]
fn other_methods_are_refused_with_the_right_ones() {
    let gateway = Gateway::start();
    for (method, path, allowed) in [
        ("POST", "/metrics", "get, head"),
        ("DELETE", "/topology", "get, head"),
        ("POST", "/log-level", "get, head, put"),
    ] {
        let (status, head, _) = gateway.ask(method, path, "");
        assert_eq!(status, 405, "{method} {path}");
        assert!(head.contains(&format!("\r\nallow: {allowed}")), "{head}");
    }
}

#[test]
fn head_is_get_without_the_body() {
    let gateway = Gateway::start();
    let (status, head, body) = gateway.ask("HEAD", "/livez", "");
    assert_eq!((status, body.as_str()), (200, ""));
    assert!(head.contains("content-length: 3"), "{head}");
}

#[test]
fn long_heads_and_other_protocols_are_refused() {
    let gateway = Gateway::start();
    let long = format!("GET /livez HTTP/1.1\r\nX-Long: {}", "x".repeat(HEAD));
    assert!(gateway.send(long.as_bytes()).starts_with("HTTP/1.1 431 "));
    let many = format!("GET /livez HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(101));
    assert!(gateway.send(many.as_bytes()).starts_with("HTTP/1.1 431 "));
    assert!(gateway.send(&[4, 0, 0, 0, 5, 0, 0, 0, 0]).starts_with("HTTP/1.1 400 "));
    assert_eq!(gateway.get("/livez").0, 200);
}

#[test]
fn silent_peer_is_closed_and_disturbs_nobody() {
    let gateway = Gateway::start();
    let silent: Vec<_> =
        (0..CONNECTIONS / 2).map(|_| TcpStream::connect(gateway.running.local_addr).unwrap()).collect();
    assert_eq!(gateway.get("/livez").0, 200);
    for mut tcp in silent {
        tcp.set_read_timeout(Some(HEAD_TIME * 4)).unwrap();
        let mut end = Vec::new();
        tcp.read_to_end(&mut end).unwrap();
    }
}

#[test]
fn address_is_free_after_stop_and_taken_before() {
    let gateway = Gateway::start();
    let address = gateway.running.local_addr;
    let (second, ..) = parts();
    assert_eq!(start(address, second).err().unwrap().kind(), io::ErrorKind::AddrInUse);
    gateway.running.stop();
    let (third, ..) = parts();
    assert!(start(address, third).is_ok());
}
