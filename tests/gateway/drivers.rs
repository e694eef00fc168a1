//! What drivers ask, in their own words, from those that are not run here too: every query of their sources is answered with
//! rows, and what these say to dial is dialled at the gateway. Simulated nodes answer; where real ones were asked,
//! `tests/golden` has what they said.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use cqlgate::cql::frame::{Opcode, Version};
use cqlgate::cql::message::request::flag;
use cqlgate::cql::primitives::{Value, Writer, inet_cell, inet_cell_bytes};

use cqlgate::config::Views;
use cqlgate::rewrite::view::{self, DriverFamily, Newcomer};
use cqlgate::topology::paths::Shape;

use crate::client::{Client, DIALECTS, Dialect, Row, rows};
use crate::gate::Gate;
use crate::{V4, error};

const JAVA_4: &str = "Apache Cassandra Java Driver";
const JAVA_3: &str = "Java Driver";
const PYTHON: &str = "DataStax Python Driver";
const NODE_JS: &str = "DataStax Node.js Driver for Apache Cassandra";
const CSHARP: &str = "DataStax C# Driver for Apache Cassandra";
const CPP: &str = "DataStax C/C++ Driver for Apache Cassandra and DataStax Products";
const GOCQL: &str = "github.com/gocql/gocql";
const GOCQL_2: &str = "github.com/apache/cassandra-gocql-driver/v2";
const SCYLLA_JAVA: &str = "ScyllaDB Java Driver";
const SCYLLA_GOCQL: &str = "ScyllaDB GoCQL Driver";
const SCYLLA_PYTHON: &str = "ScyllaDB Python Driver";
const SCYLLA_RUST: &str = "ScyllaDB Rust Driver";
const CDRS: &str = "cdrs-tokio";

const L2: &str = "SELECT * FROM system.local WHERE key='local'";
const L9: &str = "SELECT broadcast_address, cluster_name, data_center, host_id, listen_address, partitioner, rack, \
    release_version, rpc_address, schema_version, tokens FROM system.local WHERE key='local'";

/// How a query is sent.
#[derive(Clone, Copy, Debug, PartialEq)]
enum By {
    Query,
    /// QUERY with the named values `address` and, for `peers_v2`, `port`.
    Named,
    /// PREPARE and EXECUTE, with metadata and without.
    Prepared,
}
use By::{Named, Prepared, Query};

/// Every query that drivers were seen to send to the three tables, as they write it; `<peer>` is a peer's literal, `<port>` its
/// internode port.
const QUERIES: &[(&str, By, &[&str], &str)] = &[
    ("L1", Query, &[JAVA_4, CDRS], "SELECT * FROM system.local"),
    ("L2", Query, &[JAVA_3, PYTHON, NODE_JS, GOCQL, GOCQL_2, CSHARP, CPP, SCYLLA_JAVA, SCYLLA_PYTHON], L2),
    ("L3", Query, &[JAVA_4], "SELECT cluster_name FROM system.local"),
    ("L4", Query, &[JAVA_3], "select cluster_name from system.local where key = 'local'"),
    (
        "L5",
        Query,
        &[JAVA_4, PYTHON, GOCQL, SCYLLA_RUST, SCYLLA_GOCQL, SCYLLA_PYTHON],
        "SELECT schema_version FROM system.local WHERE key='local'",
    ),
    ("L6", Query, &[JAVA_3], "SELECT schema_version, host_id FROM system.local WHERE key='local'"),
    ("L7", Query, &[NODE_JS, CSHARP], "SELECT schema_version FROM system.local"),
    ("L8", Query, &[PYTHON], "SELECT rpc_address FROM system.local WHERE key='local'"),
    ("L9", Query, &[SCYLLA_GOCQL, SCYLLA_PYTHON], L9),
    (
        "L10",
        Prepared,
        &[SCYLLA_RUST],
        "SELECT host_id, rpc_address, data_center, rack, tokens, cluster_name FROM system.local WHERE key='local'",
    ),
    ("P1", Query, &[JAVA_4, JAVA_3, PYTHON, NODE_JS, GOCQL, CSHARP, CPP, CDRS], "SELECT * FROM system.peers"),
    (
        "P2",
        Query,
        &[JAVA_4, JAVA_3, PYTHON, GOCQL_2, CSHARP, CDRS, SCYLLA_JAVA, SCYLLA_PYTHON],
        "SELECT * FROM system.peers_v2",
    ),
    ("P3", Named, &[JAVA_4], "SELECT * FROM system.peers_v2 WHERE peer = :address and peer_port = :port"),
    ("P4", Named, &[JAVA_4], "SELECT * FROM system.peers WHERE peer = :address"),
    ("P5", Query, &[JAVA_3], "SELECT * FROM system.peers_v2 WHERE peer='<peer>' AND peer_port=<port>"),
    ("P5 fallback", Query, &[JAVA_3], "SELECT * FROM system.peers WHERE peer='<peer>'"),
    ("P6", Query, &[CPP], "SELECT * FROM system.peers WHERE peer = '<peer>'"),
    ("P7", Query, &[JAVA_3], "SELECT peer, rpc_address, schema_version, host_id FROM system.peers"),
    ("P8", Query, &[CPP], "SELECT peer, rpc_address, host_id, schema_version FROM system.peers"),
    ("P9", Query, &[NODE_JS, CSHARP], "SELECT schema_version FROM system.peers"),
    (
        "P10",
        Query,
        &[PYTHON],
        "SELECT host_id, peer, peer_port, native_address, native_port, schema_version FROM system.peers_v2",
    ),
    ("P10 fallback", Query, &[PYTHON], "SELECT peer, host_id, rpc_address, schema_version FROM system.peers"),
    (
        "P11",
        Query,
        &[PYTHON],
        "SELECT host_id, peer, peer_port, data_center, rack, native_address, native_port, release_version, \
         schema_version FROM system.peers_v2",
    ),
    (
        "P12",
        Query,
        &[SCYLLA_GOCQL],
        "SELECT peer, data_center, host_id, native_address, native_port, preferred_ip, rack, release_version, \
         schema_version, tokens FROM system.peers_v2",
    ),
    (
        "P12 fallback",
        Query,
        &[SCYLLA_GOCQL],
        "SELECT peer, data_center, host_id, preferred_ip, rack, release_version, rpc_address, schema_version, tokens \
         FROM system.peers",
    ),
    (
        "P13",
        Query,
        &[SCYLLA_GOCQL],
        "SELECT host_id, data_center, rack, schema_version, preferred_ip FROM system.peers_v2",
    ),
    ("P14", Prepared, &[SCYLLA_RUST], "SELECT host_id, rpc_address, data_center, rack, tokens FROM system.peers"),
];

/// Drivers that get the View of one node.
const WITHOUT_PORTS: [&str; 5] = [NODE_JS, CPP, GOCQL, GOCQL_2, SCYLLA_RUST];
/// Columns by which nodes know each other: they stay.
const INTERNODE: [&str; 3] = ["peer", "broadcast_address", "listen_address"];

async fn connect(gate: &Gate, driver: &str, dialect: Dialect) -> Client {
    Client::connect_as(gate.port(0), dialect, &[("DRIVER_NAME", driver)]).await
}

/// The answers' rows; an answer of another kind is named.
async fn ask(client: &mut Client, dialect: Dialect, by: By, text: &str, peer: (IpAddr, i32)) -> Vec<Vec<Row>> {
    let mut answers = Vec::new();
    match by {
        Query => answers.push(client.query(text).await.unwrap()),
        Named => {
            let mut message = Vec::new();
            let mut writer = Writer::new(&mut message);
            let names_a_port = text.contains(":port");
            // native_protocol_v4.spec §4.1.4: values with names.
            writer.long_string(text).u16(1);
            match dialect.0 {
                Version::V5 => writer.i32((flag::VALUES | flag::NAMES).into()),
                _ => writer.u8(flag::VALUES | flag::NAMES),
            };
            writer.u16(1 + u16::from(names_a_port));
            writer.string("address").value(Value::Bytes(inet_cell_bytes(peer.0).as_ref()));
            if names_a_port {
                writer.string("port").value(Value::Bytes(&peer.1.to_be_bytes()));
            }
            answers.push(client.ask(Opcode::QUERY, &message).await.unwrap());
        }
        Prepared => {
            let prepared = client.prepare(text).await;
            for skip_metadata in [false, true] {
                answers.push(client.execute(&prepared, &[], skip_metadata).await.unwrap());
            }
        }
    }
    let rows = |(opcode, body): (Opcode, Vec<u8>)| {
        assert_ne!(opcode, Opcode::ERROR, "{text}: {:?}", error(&body));
        assert_eq!(opcode, Opcode::RESULT, "{text}");
        rows(&body)
    };
    answers.into_iter().map(rows).collect()
}

/// `row` names the gateway wherever a driver looks for what to dial, and no node's own address but as other nodes know it.
fn check(row: &Row, gate: &Gate, what: &str) {
    let internal: Vec<Vec<u8>> =
        gate.cluster.nodes().iter().map(|node| inet_cell_bytes(node.address().ip()).as_ref().to_vec()).collect();
    for (column, cell) in row.iter().filter(|(column, _)| !INTERNODE.contains(&column.as_str())) {
        let leaks = internal.iter().any(|address| cell.windows(address.len()).any(|part| part == address));
        assert!(!leaks, "{what}: {column} has a node's own address");
    }
    for column in ["rpc_address", "native_address"] {
        if let Some(cell) = row.get(column) {
            assert_eq!(inet_cell(cell), Some(IpAddr::V4(Ipv4Addr::LOCALHOST)), "{what}: {column}");
        }
    }
    for column in ["rpc_port", "native_port"] {
        let Some(cell) = row.get(column) else { continue };
        let port = i32::from_be_bytes(cell.as_slice().try_into().unwrap());
        let node = gate.cluster.nodes().iter().position(|node| node.member().host_id.as_bytes() == &row["host_id"][..]);
        assert_eq!(port, i32::from(gate.port(node.unwrap()).port()), "{what}: {column}");
    }
}

/// The columns that a driver dials by, in what it asks for.
fn dialled(text: &str) -> &'static [&'static str] {
    let all = text.starts_with("SELECT *");
    if text.contains("peers_v2") {
        if all || text.contains("native_port") { &["native_address", "native_port"] } else { &[] }
    } else if all && text.contains("system.local") {
        &["rpc_address", "rpc_port"]
    } else if all || text.contains("rpc_address") {
        &["rpc_address"]
    } else {
        &[]
    }
}

#[tokio::test]
async fn every_query_that_drivers_are_known_to_send_is_answered_with_what_they_may_dial() {
    let gate = Gate::start().await;
    let mut direct = Client::connect(gate.cluster.node(0).address(), V4).await;
    let peer = &direct.rows("SELECT peer, peer_port FROM system.peers_v2").await[0];
    let address = inet_cell(&peer["peer"]).unwrap();
    let port = i32::from_be_bytes(peer["peer_port"].as_slice().try_into().unwrap());
    for (label, by, drivers, text) in QUERIES {
        let text = text.replace("<peer>", &address.to_string()).replace("<port>", &port.to_string());
        for (driver, dialect) in drivers.iter().flat_map(|driver| DIALECTS.map(|dialect| (driver, dialect))) {
            let what = format!("{label} of {driver} in {dialect:?}");
            let mut client = connect(&gate, driver, dialect).await;
            let expected = match () {
                () if text.contains("system.local") => 1,
                // Schema agreement is the cluster's, also to whoever sees one node.
                () if *label == "P9" => 2,
                () if WITHOUT_PORTS.contains(driver) => 0,
                () if text.contains("WHERE peer") => 1,
                () => 2,
            };
            for rows in ask(&mut client, dialect, *by, &text, (address, port)).await {
                assert_eq!(rows.len(), expected, "{what}");
                for row in &rows {
                    check(row, &gate, &what);
                    let missing: Vec<_> = dialled(&text).iter().filter(|column| !row.contains_key(**column)).collect();
                    assert!(missing.is_empty(), "{what}: no {missing:?}");
                }
            }
        }
    }
}

/// Java 3 and the ScyllaDB forks for Go and Python take their contact point's port for the control host's, unless its row has
/// one. Only answers to QUERY get it: drivers that prepare check columns, and keep what PREPARED said.
#[tokio::test]
async fn a_query_gets_the_columns_that_a_driver_profits_from_and_a_prepared_statement_never() {
    let gate = Gate::start().await;
    let names = |row: &Row| row.keys().cloned().collect::<BTreeSet<String>>();
    let injected = BTreeSet::from(["native_address".to_owned(), "native_port".to_owned()]);
    let peers = "SELECT * FROM system.peers";
    for (driver, text, gets) in [
        (JAVA_3, L2, true),
        (SCYLLA_PYTHON, L2, true),
        (SCYLLA_PYTHON, L9, true),
        (SCYLLA_GOCQL, L9, true),
        (JAVA_4, L2, false),
        (PYTHON, L2, false),
        (CSHARP, L2, false),
        (SCYLLA_RUST, L2, false),
        (SCYLLA_RUST, L9, false),
        ("something new", L9, false),
        (JAVA_3, peers, true),
        (JAVA_4, peers, true),
        (PYTHON, peers, true),
        (CDRS, peers, true),
        (CSHARP, peers, false),
    ] {
        let mut client = connect(&gate, driver, V4).await;
        let plain = Client::connect(gate.cluster.node(0).address(), V4).await.rows(text).await;
        let queried = client.rows(text).await;
        let added: BTreeSet<_> = names(&queried[0]).difference(&names(&plain[0])).cloned().collect();
        assert_eq!(added, if gets { injected.clone() } else { BTreeSet::new() }, "{driver}: {text}");
        check(&queried[0], &gate, driver);
        let prepared = client.prepare(text).await;
        for skip_metadata in [false, true] {
            let (_, body) = client.execute(&prepared, &[], skip_metadata).await.unwrap();
            assert_eq!(names(&rows(&body)[0]), names(&plain[0]), "{driver}: EXECUTE of {text}");
        }
    }
}

/// Every DRIVER_NAME that drivers' sources have or had, what clients of that name are shown, and into which tables' answers
/// `native_address` and `native_port` are injected.
#[test]
fn each_drivers_name_has_its_view_and_its_injection() {
    const ALL: &str = "NodePorts";
    const ONE: &str = "SingleNode";
    let views = Views::default();
    for (name, shown, local, peers) in [
        ("Apache Cassandra Java Driver", ALL, false, true),
        ("DataStax Java driver for Apache Cassandra(R)", ALL, false, true),
        ("Java Driver", ALL, true, true),
        ("ScyllaDB Java Driver", ALL, false, true),
        ("DataStax Python Driver", ALL, false, true),
        ("Apache Cassandra Python Driver", ALL, false, true),
        ("ScyllaDB Python Driver", ALL, true, true),
        ("DataStax C# Driver for Apache Cassandra", ALL, false, false),
        ("cdrs-tokio", ALL, false, true),
        ("ScyllaDB GoCQL Driver", ALL, true, true),
        ("github.com/scylladb/gocql", ALL, true, true),
        ("github.com/gocql/gocql", ONE, false, false),
        ("github.com/apache/cassandra-gocql-driver", ONE, false, false),
        ("github.com/apache/cassandra-gocql-driver/v2", ONE, false, false),
        ("DataStax Node.js Driver for Apache Cassandra", ONE, false, false),
        ("Apache Cassandra Node.js Driver", ONE, false, false),
        ("DataStax C/C++ Driver for Apache Cassandra and DataStax Products", ONE, false, false),
        ("DataStax PHP Driver", ONE, false, false),
        ("ScyllaDB Rust Driver", ONE, false, false),
        ("scylladb-nodejs-rs-driver", ONE, false, false),
        ("ScyllaDB Cpp-RS Driver", ONE, false, false),
        // gocql without the module's information.
        ("", ONE, false, false),
        ("something new", ALL, false, false),
    ] {
        // Names are cased as somebody felt on the day.
        for name in [name.to_owned(), name.to_lowercase(), name.to_uppercase()] {
            let injection = DriverFamily::of(Some(&name)).injection();
            let newcomer = Newcomer { driver_name: Some(&name), ..Newcomer::default() };
            let found =
                (format!("{:?}", view::select(newcomer, &views, Shape::default())), injection.local, injection.peers);
            assert_eq!(found, (shown.to_owned(), local, peers), "{name}");
        }
    }
    assert!(!DriverFamily::of(None).injection().any());
}
