//! Another configuration while clients are there: for whoever comes, and not for whoever is inside.

use std::collections::BTreeSet;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use cqlgate::cql::frame::Opcode;
use cqlgate::demo::node::Options;
use cqlgate::topology::{NodeState, Topology};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::certificates::Authority;
use crate::client::{Client, PATIENCE};
use crate::entry::{dial_from, is_served};
use crate::gate::Gate;
use crate::{V4, secured, told};

/// Two addresses of clients.
const INSIDER: u8 = 7;
const STRANGER: u8 = 66;

fn all(_: usize) -> bool {
    true
}

/// Asks for something ordinary.
async fn is_answered(client: &mut Client) -> bool {
    matches!(client.query("SELECT * FROM demo.kv").await, Ok((Opcode::RESULT, _)))
}

async fn connect_from(source: u8, gate: &Gate, index: usize) -> Client {
    let mut client = Client::over(dial_from(source, gate.port(index)).await.unwrap(), V4);
    assert_eq!(client.startup(&[]).await.unwrap().0, Opcode::READY);
    client
}

#[tokio::test]
async fn an_address_list_that_changes_counts_for_whoever_comes_and_not_for_whoever_is_inside() {
    let gate = Gate::start_with(Options::loopback(1, 0), "").await;
    let mut inside = connect_from(STRANGER, &gate, 0).await;
    let taken = gate.reload(&gate.config(all, "access: {deny: [127.0.78.66]}\n")).await;
    let said: Vec<String> = taken.changed.iter().map(ToString::to_string).collect();
    assert!(said.contains(&"access.deny: [] → [127.0.78.66/32]".to_owned()), "{said:?}");
    assert!(!is_served(STRANGER, gate.port(0), b"").await);
    assert!(is_served(INSIDER, gate.port(0), b"").await);
    assert!(is_answered(&mut inside).await);
    gate.until_counted("cqlgate_connections_refused_total{reason=\"access_denied\"}", 1).await;
    gate.reload(&gate.config(all, "access: {allow: [127.0.78.66]}\n")).await;
    assert!(is_served(STRANGER, gate.port(0), b"").await);
    assert!(!is_served(INSIDER, gate.port(0), b"").await);
    gate.until_counted("cqlgate_config_reloads_total{outcome=\"taken\"}", 2).await;
}

#[tokio::test]
async fn what_cannot_be_used_changes_nothing_and_is_told_beside_ready() {
    let gate = Gate::start_with(Options::loopback(1, 0), "").await;
    let folder = tempfile::tempdir().unwrap();
    let pem = folder.path().join("no.pem");
    std::fs::write(&pem, "no PEM").unwrap();
    let bad = format!("access: {{deny: [127.0.78.66]}}\ntls: {{clients: {{certificate: {pem:?}, key: {pem:?}}}}}\n");
    let reloads = gate.running.reloads();
    let why = format!("{:#}", reloads.take(&gate.config(all, &bad)).await.unwrap_err());
    assert!(why.starts_with("tls.clients: ") && why.contains("no certificate in it"), "{why}");
    reloads.refuse(&why);
    assert!(is_served(STRANGER, gate.port(0), b"").await, "the half that is good is not taken either");
    gate.until_said("/readyz", 200, "ready\ndegraded: the configuration cannot be used: tls.clients: ").await;
    gate.until_counted("cqlgate_config_reloads_total{outcome=\"refused\"}", 1).await;
    gate.reload(&gate.config(all, "access: {deny: [127.0.78.66]}\n")).await;
    assert_eq!(gate.get("/readyz").await, (200, "ready\n".to_owned()));
    assert!(!is_served(STRANGER, gate.port(0), b"").await);
}

#[tokio::test]
async fn what_is_bound_at_the_start_is_named_and_left_and_the_rest_is_taken() {
    let gate = Gate::start_with(Options::loopback(2, 0), "").await;
    let ports = [gate.port(0), gate.port(1)];
    let mut config = gate.config(all, "admin: 127.0.0.1:1\naccess: {deny: [127.0.78.66]}\n");
    config.discovery = cqlgate::config::Discovery::Dns("cassandra.db".to_owned());
    let taken = gate.reload(&config).await;
    let left: BTreeSet<&str> = taken.left.iter().map(|change| change.key.as_str()).collect();
    assert_eq!(left, BTreeSet::from(["admin", "listen", "discovery.dns", "discovery.nodes"]));
    assert!(!is_served(STRANGER, ports[0], b"").await);
    assert!(is_served(INSIDER, ports[1], b"").await);
    assert_eq!(gate.get("/livez").await.0, 200);
}

/// Ends when a node that stays is for a moment not up, or at another port.
async fn until_withdrawn(mut topology: watch::Receiver<Arc<Topology>>, port: u16) {
    let life = topology.borrow().node_at_port(port).unwrap().incarnation;
    let withdrawn = |topology: &Arc<Topology>| {
        !topology.node_at_port(port).is_some_and(|node| node.state == NodeState::Up && node.incarnation == life)
    };
    topology.wait_for(withdrawn).await.unwrap();
}

#[tokio::test]
async fn listed_nodes_come_and_go_and_those_that_stay_keep_their_ports_and_clients() {
    let spare = |config: &mut cqlgate::config::Config| config.listen.last = 4;
    let gate = Gate::start_changed(Options::loopback(3, 0), "", spare).await;
    let ports = [0, 1, 2].map(|index| gate.port(index));
    let stays = until_withdrawn(gate.running.topology.clone(), ports[2].port());
    let changes = async {
        let (mut goes, mut inside) = (Client::connect(ports[0], V4).await, Client::connect(ports[2], V4).await);
        gate.reload(&gate.config(|index| index != 0, "")).await;
        let native = gate.cluster.node(0).address();
        let is_gone = |topology: &Topology| {
            topology.nodes.iter().any(|node| node.address == native && node.state == NodeState::Gone)
        };
        gate.until(is_gone).await;
        // Its clients are let go, a moment after that is said.
        let let_go = async { while goes.query("SELECT * FROM demo.kv").await.is_ok() {} };
        timeout(PATIENCE, let_go).await.expect("a node that left keeps its clients");
        // The cluster has it still, and its row.
        assert_eq!(told(&mut inside).await.1, BTreeSet::from([ports[1]]));
        gate.until_said("/topology", 200, "\"reason\":\"ghost\"").await;
        gate.reload(&gate.config(all, "")).await;
        gate.until_state(0, NodeState::Up).await;
        assert_eq!([0, 1, 2].map(|index| gate.port(index)), ports);
        assert_eq!(told(&mut inside).await.1, BTreeSet::from([ports[0], ports[1]]));
        assert!(is_answered(&mut Client::connect(ports[0], V4).await).await);
    };
    tokio::select! {
        () = changes => {}
        () = stays => panic!("a node that stays was withdrawn"),
    }
}

#[tokio::test]
async fn tls_is_turned_on_for_whoever_comes_and_plain_clients_go_on() {
    let authority = Authority::new();
    let gate = Gate::start_with(Options::loopback(1, 0), "").await;
    let mut plain = Client::connect(gate.port(0), V4).await;
    gate.reload(&gate.config(all, &secured::yaml(Some(&authority), None))).await;
    let mut secured = Client::over(secured::connect(&gate, 0, &authority).await.unwrap(), V4);
    assert_eq!(secured.startup(&[]).await.unwrap().0, Opcode::READY);
    assert!(!is_served(INSIDER, gate.port(0), b"").await);
    assert!(is_answered(&mut plain).await);
    gate.reload(&gate.config(all, "")).await;
    assert!(is_served(INSIDER, gate.port(0), b"").await);
    assert_eq!(secured.query("SELECT * FROM demo.kv").await.unwrap().0, Opcode::RESULT);
}

#[tokio::test]
async fn a_login_that_is_given_later_tells_who_nodes_are_and_costs_nobody_a_connection() {
    let credentials = Some(("ann".to_owned(), "secret".to_owned()));
    let gate = Gate::start_with(Options { credentials, ..Options::loopback(2, 0) }, "").await;
    let ports = [gate.port(0), gate.port(1)];
    assert!(gate.running.topology.borrow().nodes.iter().all(|node| node.host_id.is_none()));
    let mut password = tempfile::NamedTempFile::new().unwrap();
    password.write_all(b"secret").unwrap();
    let yaml = format!(
        "probe: {{interval: 100ms, silence: 2s, username: ann, password_file: {:?}, plain_password: listed}}\n",
        password.path()
    );
    let stay = ports.map(|port| Box::pin(until_withdrawn(gate.running.topology.clone(), port.port())));
    let [first, second] = stay;
    tokio::select! {
        () = async {
            gate.reload(&gate.config(all, &yaml)).await;
            gate.until(|topology| topology.nodes.iter().all(|node| node.host_id.is_some())).await;
        } => {}
        () = first => panic!("the first node was withdrawn"),
        () = second => panic!("the second node was withdrawn"),
    }
}

#[tokio::test]
async fn another_address_to_advertise_is_what_rows_say_from_then_on() {
    let gate = Gate::start_with(Options::loopback(2, 0), "").await;
    let mut client = Client::connect(gate.port(0), V4).await;
    assert_eq!(told(&mut client).await.0.ip().to_string(), "127.0.0.1");
    gate.reload(&gate.config(all, "advertise: 203.0.113.77\n")).await;
    gate.until(|topology| topology.paths.lead_here([203, 0, 113, 77].into())).await;
    let (own, peers) = told(&mut client).await;
    assert!(
        own.ip().to_string() == "203.0.113.77" && peers.iter().all(|peer| peer.ip() == own.ip()),
        "{own} {peers:?}"
    );
}

/// Configurations that differ in many keys from one to the next.
fn another(gate: &Gate, n: usize) -> cqlgate::config::Config {
    let odd = n % 2 == 1;
    let yaml = format!(
        "access: {{deny: [192.0.2.{}]}}\nprobe: {{interval: {}ms, silence: 2s}}\ntimeouts: {{setup: {}s, hold: {}s}}\n\
         limits: {{connections: {}, held_total: {}MiB, frame: {}MiB}}\nviews: {{rules: [{{driver: x{n}, view: single_node}}]}}\n\
         unserved: {{remote: {}}}\ndrain: {{spread: {}ms}}\nlogins: {{delay: {}s}}\n",
        n % 250,
        100 + n % 50,
        10 + n % 5,
        10 + n % 7,
        4000 + n,
        64 + n % 64,
        200 + n % 50,
        if odd { "keep" } else { "hide" },
        1000 + n,
        1 + n % 4,
    );
    // The last node comes and goes.
    gate.config(|index| index < 2 || odd, &yaml)
}

const RELOADS: usize = 200;

#[tokio::test]
async fn two_hundred_reloads_under_load_fail_no_request() {
    let gate = Gate::start_with(Options::loopback(3, 0), "").await;
    let ports = [gate.port(0), gate.port(1)];
    let (over, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    let stays = |turn: usize| {
        let (over, answered) = (&over, &answered);
        async move {
            let mut client = Client::connect(ports[turn % 2], V4).await;
            while !over.load(Relaxed) {
                assert!(is_answered(&mut client).await, "a request failed");
                answered.fetch_add(1, Relaxed);
            }
        }
    };
    let comes = |turn: usize| {
        let (over, answered) = (&over, &answered);
        async move {
            while !over.load(Relaxed) {
                let mut client = Client::connect(ports[turn % 2], V4).await;
                assert!(is_answered(&mut client).await, "a request of a new connection failed");
                answered.fetch_add(1, Relaxed);
            }
        }
    };
    let reloads = async {
        for n in 1..=RELOADS {
            let before = answered.load(Relaxed);
            let taken = gate.reload(&another(&gate, n)).await;
            assert!(taken.changed.len() > 8, "{taken:?}");
            while answered.load(Relaxed) < before + 4 {
                tokio::task::yield_now().await;
            }
        }
        over.store(true, Relaxed);
    };
    let patience = Duration::from_secs(5) * 20;
    let all = async { tokio::join!(reloads, stays(0), stays(1), comes(0), comes(1)) };
    timeout(patience, all).await.expect("requests are answered while the configuration changes");
    gate.until_counted("cqlgate_config_reloads_total{outcome=\"taken\"}", RELOADS as u64).await;
    assert!(answered.load(Relaxed) >= 4 * RELOADS);
}
