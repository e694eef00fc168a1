//! What clients are told to dial: by port, and by where they come from.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use cqlgate::config::External;
use cqlgate::config::advertise::{DialledPort, Part, Path, Told};
use cqlgate::cql::frame::Opcode;
use cqlgate::cql::primitives::inet_cell;
use cqlgate::topology::NodeState;

use crate::client::{Client, DIALECTS, rows};
use crate::entry::dial_from;
use crate::gate::Gate;
use crate::{V4, endpoint, told};

/// Where a client of the path inside comes from.
const INSIDER: u8 = 7;
const OUTSIDER: u8 = 66;

/// An address for each node, and what is dialled there.
fn address_for_each(gate: &Gate, dialled: fn(u16) -> u16) -> Told {
    let part = |index: usize| {
        let listened = gate.port(index).port();
        Part::new(listened, listened, External::ip(at(index).ip()), DialledPort::Only(dialled(listened)))
    };
    let mut parts: Vec<_> = (0..3).map(part).collect();
    parts.sort_by_key(|part| part.ports.unwrap().first);
    Told::Ports(parts)
}

fn path(name: &str, from: &[&str], told: Told) -> Path {
    let from = from.iter().map(|network| network.parse().unwrap()).collect();
    Path { from, ..Path::new(name, told) }
}

async fn take(gate: &Gate, paths: Vec<Path>) {
    let mut config = gate.config(|_| true, "");
    config.paths = paths.clone();
    gate.reload(&config).await;
    gate.until(|topology| {
        topology.paths.iter().map(|path| path.name.to_string()).eq(paths.iter().map(|path| path.name.clone()))
    })
    .await;
}

async fn client_from(source: u8, gate: &Gate, index: usize, options: &[(&str, &str)]) -> Client {
    let mut client = Client::over(dial_from(source, gate.port(index)).await.unwrap(), V4);
    assert_eq!(client.startup(options).await.unwrap().0, Opcode::READY);
    client
}

fn at(index: usize) -> SocketAddr {
    SocketAddr::from(([203, 0, 113, 10 + u8::try_from(index).unwrap()], 9042))
}

#[tokio::test]
async fn where_each_node_has_an_address_every_driver_sees_every_node() {
    const ONE_PORT: [&str; 3] = ["Apache Cassandra Node.js Driver", "DataStax C/C++ Driver", "ScyllaDB Rust Driver"];
    const GOCQL: &str = "github.com/apache/cassandra-gocql-driver";
    let gate = Gate::start().await;
    take(&gate, vec![path("each", &[], address_for_each(&gate, |_| 9042))]).await;
    for name in ONE_PORT.iter().chain(&[GOCQL, "Apache Cassandra Java Driver"]) {
        let mut client = Client::connect_as(gate.port(1), V4, &[("DRIVER_NAME", name)]).await;
        assert_eq!(told(&mut client).await, (at(1), BTreeSet::from([at(0), at(2)])), "{name}");
        let peers = client.rows("SELECT rpc_address FROM system.peers").await;
        let peers: BTreeSet<_> = peers.iter().map(|row| inet_cell(&row["rpc_address"]).unwrap()).collect();
        assert_eq!(peers, [0, 2].map(|index| at(index).ip()).into(), "{name}");
    }
    // Other ports at other addresses: enough for who reads the address alone, not for who applies one port to all.
    take(&gate, vec![path("ports", &[], address_for_each(&gate, |listened| listened))]).await;
    for (name, peers) in ONE_PORT.map(|name| (name, 0)).iter().chain(&[(GOCQL, 2)]) {
        let mut client = Client::connect_as(gate.port(1), V4, &[("DRIVER_NAME", name)]).await;
        assert_eq!(told(&mut client).await.1.len(), *peers, "{name}");
    }
}

#[tokio::test]
async fn two_clients_at_one_port_are_told_what_their_paths_lead_to() {
    let gate = Gate::start().await;
    let outside = address_for_each(&gate, |_| 9042);
    take(&gate, vec![path("inside", &["127.0.78.7/32"], Told::Pods), path("outside", &[], outside)]).await;
    let own = |index: usize| gate.cluster.node(index).address();
    let mut inside = client_from(INSIDER, &gate, 0, &[]).await;
    let mut outside = client_from(OUTSIDER, &gate, 0, &[]).await;
    assert_eq!(told(&mut inside).await, (own(0), BTreeSet::from([own(1), own(2)])));
    assert_eq!(told(&mut outside).await, (at(0), BTreeSet::from([at(1), at(2)])));
    // What one has prepared, the other executes.
    let statement = inside.prepare("SELECT * FROM system.peers_v2").await;
    for (client, expected) in [(&mut outside, [at(1), at(2)]), (&mut inside, [own(1), own(2)])] {
        for skips_metadata in [false, true] {
            let (_, body) = client.execute(&statement, &[], skips_metadata).await.unwrap();
            let told: BTreeSet<_> =
                rows(&body).iter().map(|row| endpoint(row, "native_address", "native_port")).collect();
            assert_eq!(told, expected.into());
        }
    }
    inside.register().await;
    outside.register().await;
    gate.cluster.stop(2).await;
    assert_eq!(inside.event().await, format!("DOWN {}", own(2)));
    assert_eq!(outside.event().await, format!("DOWN {}", at(2)));
    gate.until_state(2, NodeState::Down).await;
    let (_, shown) = gate.get("/topology?path=inside").await;
    assert!(shown.contains(&format!("\"advertised\":\"{}\"", own(1))), "{shown}");
    let (_, last) = gate.get("/topology").await;
    assert!(last.contains("\"path\":\"outside\",\"paths\":[\"inside\",\"outside\"]"), "{last}");
    assert!(last.contains(&format!("\"advertised\":\"{}\"", at(1))), "{last}");
    assert_eq!(gate.get("/topology?path=x").await, (404, "no such path; there are: inside, outside\n".to_owned()));
    for (path, least) in [("inside", 1), ("outside", 1)] {
        gate.until_counted(&format!("cqlgate_path_connections_opened_total{{path=\"{path}\"}}"), least).await;
    }
}

#[tokio::test]
async fn control_connections_are_led_over_where_their_path_is_another_one() {
    let gate = Gate::start().await;
    let outside = address_for_each(&gate, |_| 9042);
    let inside = path("inside", &["127.0.78.7/32"], Told::Pods);
    take(&gate, vec![inside.clone(), path("outside", &[], outside.clone())]).await;
    let (mut insider, mut outsider) =
        (client_from(INSIDER, &gate, 0, &[]).await, client_from(OUTSIDER, &gate, 0, &[]).await);
    let mut reader = client_from(OUTSIDER, &gate, 0, &[]).await;
    insider.register().await;
    outsider.register().await;
    // Only those who are told something else are led over.
    take(&gate, vec![inside, path("outside", &[], address_for_each(&gate, |_| 9043))]).await;
    outsider.end().await;
    assert_eq!(told(&mut insider).await.1.len(), 2);
    assert_eq!(told(&mut reader).await.0, SocketAddr::new(at(0).ip(), 9043), "whoever stays reads what is so now");
    let mut config = gate.config(|_| true, "");
    config.paths = vec![path("outside", &[], outside)];
    gate.reload(&config).await;
    insider.end().await;
}

/// In every version and compression a path is as good as another.
#[tokio::test]
async fn a_map_holds_in_every_dialect() {
    let gate = Gate::start().await;
    take(&gate, vec![path("each", &[], address_for_each(&gate, |_| 9042))]).await;
    for dialect in DIALECTS {
        let mut client = Client::connect(gate.port(0), dialect).await;
        assert_eq!(told(&mut client).await, (at(0), BTreeSet::from([at(1), at(2)])), "{dialect:?}");
    }
}
