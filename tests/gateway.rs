//! The whole gateway on sockets: real bytes from a client with verbs, through real ports, to simulated nodes.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // a test's helpers may fail loudly

#[path = "gateway/agreement.rs"]
mod agreement;
#[path = "gateway/bounded.rs"]
mod bounded;
#[path = "common/certificates.rs"]
mod certificates;
#[path = "gateway/certified.rs"]
mod certified;
#[path = "gateway/claims.rs"]
mod claims;
#[path = "common/client.rs"]
mod client;
#[path = "gateway/control.rs"]
mod control;
#[path = "gateway/drivers.rs"]
mod drivers;
#[path = "gateway/ends.rs"]
mod ends;
#[path = "gateway/entry.rs"]
mod entry;
#[path = "common/families.rs"]
mod families;
#[path = "common/gate.rs"]
mod gate;
#[path = "gateway/leaving.rs"]
mod leaving;
#[path = "gateway/limits.rs"]
mod limits;
#[path = "gateway/odd.rs"]
mod odd;
#[path = "gateway/paging.rs"]
mod paging;
#[path = "gateway/paths.rs"]
mod paths;
#[path = "gateway/reloaded.rs"]
mod reloaded;
#[path = "gateway/reloads.rs"]
mod reloads;
#[path = "gateway/rolled.rs"]
mod rolled;
#[path = "gateway/scraped.rs"]
mod scraped;
#[path = "gateway/secured.rs"]
mod secured;
#[path = "gateway/strangers.rs"]
mod strangers;
#[path = "gateway/unserved.rs"]
mod unserved;

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use cqlgate::config::External;
use cqlgate::config::advertise::Path;
use cqlgate::cql::frame::{Flags, Header, Opcode, Version};
use cqlgate::cql::message::event::{Event, NodeChange};
use cqlgate::cql::message::{encode_plain_auth_response, error_code, request};
use cqlgate::cql::primitives::{Writer, inet_cell};
use cqlgate::demo::node::{Fault, Options};
use cqlgate::topology::{NodeState, Topology};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use certificates::Authority;
use client::{Client, DIALECTS, PATIENCE, Row, error, rows};
use gate::Gate;

const V4: client::Dialect = (Version::V4, None);

/// An inet cell and an int cell as the address that a driver would dial.
fn endpoint(row: &Row, address: &str, port: &str) -> SocketAddr {
    let port = i32::from_be_bytes(row[port].as_slice().try_into().unwrap());
    SocketAddr::new(inet_cell(&row[address]).unwrap(), u16::try_from(port).unwrap())
}

/// What a client on `port` is told to dial: its own row's address and those of all peers.
async fn told<S: AsyncRead + AsyncWrite + Unpin>(client: &mut Client<S>) -> (SocketAddr, BTreeSet<SocketAddr>) {
    let local = client.rows("SELECT * FROM system.local WHERE key='local'").await;
    let peers = client.rows("SELECT * FROM system.peers_v2").await;
    let peers = peers.iter().map(|row| endpoint(row, "native_address", "native_port")).collect();
    (endpoint(&local[0], "rpc_address", "rpc_port"), peers)
}

#[tokio::test]
async fn three_nodes_are_three_ports_in_every_dialect() {
    let gate = Gate::start().await;
    let all: BTreeSet<SocketAddr> = (0..3).map(|index| gate.port(index)).collect();
    assert_eq!(all.len(), 3);
    for dialect in DIALECTS {
        for index in 0..3 {
            let port = gate.port(index);
            let mut client = Client::connect(port, dialect).await;
            let (own, peers) = told(&mut client).await;
            assert_eq!(own, port, "{dialect:?}");
            let others: BTreeSet<SocketAddr> = all.iter().copied().filter(|other| *other != port).collect();
            assert_eq!(peers, others, "{dialect:?}");
            // The identity is the node's own: nothing is cross-wired, and internode addresses stay.
            let local = &client.rows("SELECT host_id, broadcast_address FROM system.local").await[0];
            let member = gate.cluster.node(index).member();
            assert_eq!(local["host_id"], member.host_id.as_bytes());
            assert_eq!(inet_cell(&local["broadcast_address"]), Some(member.address.ip()));
            // The older table has addresses only.
            let rows = client.rows("SELECT peer, rpc_address FROM system.peers").await;
            let addresses: Vec<_> = rows.iter().map(|row| inet_cell(&row["rpc_address"]).unwrap()).collect();
            assert_eq!(addresses, [IpAddr::V4(Ipv4Addr::LOCALHOST); 2], "{dialect:?}");
            assert!(rows.iter().all(|row| row["peer"] != row["rpc_address"]));
        }
    }
}

#[tokio::test]
async fn rows_of_other_tables_pass_in_every_dialect() {
    let gate = Gate::start().await;
    for dialect in DIALECTS {
        let mut client = Client::connect(gate.port(0), dialect).await;
        let insert = client.prepare("INSERT INTO demo.kv (k, v) VALUES (?, ?)").await;
        let select = client.prepare("SELECT * FROM demo.kv WHERE k = ?").await;
        for length in [0, 1, 5_000, 400_000] {
            let value = "x".repeat(length);
            let (opcode, _) = client.execute(&insert, &["key", &value], false).await.unwrap();
            assert_eq!(opcode, Opcode::RESULT);
            let (_, body) = client.execute(&select, &["key"], false).await.unwrap();
            assert_eq!(rows(&body)[0]["v"], value.as_bytes(), "{dialect:?} {length}");
        }
    }
}

#[tokio::test]
async fn skipped_metadata_never_yields_a_nodes_own_address() {
    let gate = Gate::start().await;
    for dialect in DIALECTS {
        for text in ["SELECT * FROM system.peers_v2", "SELECT native_address, native_port FROM system.peers_v2"] {
            // Prepared around the gateway, so that nothing here knows the id; executed through two ports.
            for index in 0..2 {
                let mut direct = Client::connect(gate.cluster.node(index).address(), dialect).await;
                let prepared = direct.prepare(text).await;
                let mut client = Client::connect(gate.port(index), dialect).await;
                for _ in 0..2 {
                    let (opcode, body) = client.execute(&prepared, &[], true).await.unwrap();
                    assert_eq!(opcode, Opcode::RESULT);
                    let found: BTreeSet<SocketAddr> =
                        rows(&body).iter().map(|row| endpoint(row, "native_address", "native_port")).collect();
                    let expected = (0..3).filter(|other| *other != index).map(|other| gate.port(other)).collect();
                    assert_eq!(found, expected, "{dialect:?} {text}");
                }
            }
        }
    }
}

#[tokio::test]
async fn bytes_are_counted_each_way_as_they_are_written() {
    let gate = Gate::start().await;
    let mut client = Client::connect(gate.port(0), V4).await;
    let node = gate.metrics.node("node-0");
    let counted = || (node.bytes_to_node.get(), node.bytes_to_client.get());
    let (mut sent, mut received) = counted();
    // One answer is written as it came, one has been rewritten.
    for text in ["SELECT * FROM demo.kv", "SELECT * FROM system.peers_v2"] {
        let request = request::encode_query(Version::V4, text);
        sent += client.encode(0, Opcode::QUERY, &request).len() as u64;
        client.send(Opcode::QUERY, &request).await.unwrap();
        received += client.receive().await.unwrap().0.frame_len();
        // They are counted when all that could be written is.
        let so = async {
            while counted() != (sent, received) {
                tokio::task::yield_now().await;
            }
        };
        let so = tokio::time::timeout(PATIENCE, so).await;
        so.unwrap_or_else(|_| panic!("{text}: {:?}, not {:?}", counted(), (sent, received)));
    }
}

#[tokio::test]
async fn a_statement_that_the_node_does_not_know_is_unprepared() {
    let gate = Gate::start().await;
    let mut client = Client::connect(gate.port(0), V4).await;
    let prepared = client.prepare("SELECT * FROM demo.kv WHERE k = ?").await;
    let (opcode, body) = Client::connect(gate.port(1), V4).await.execute(&prepared, &["a"], true).await.unwrap();
    assert_eq!((opcode, error(&body).0), (Opcode::ERROR, error_code::UNPREPARED));
    assert!(body.ends_with(&prepared.0));
}

#[tokio::test]
async fn a_projection_is_rewritten_under_limit_use_and_quoted_names() {
    let gate = Gate::start().await;
    let mut client = Client::connect(gate.port(0), V4).await;
    let found = client.rows("SELECT native_address, native_port FROM system.peers_v2 LIMIT 1").await;
    assert_eq!(endpoint(&found[0], "native_address", "native_port"), gate.port(1));
    client.query("USE system").await.unwrap();
    let found = client.rows("select \"native_port\", native_address from peers_v2").await;
    assert_eq!(endpoint(&found[1], "native_address", "native_port"), gate.port(2));
}

#[tokio::test]
async fn a_dead_nodes_clients_are_reset_and_its_port_refuses() {
    let gate = Gate::start().await;
    let port = gate.port(2);
    let mut client = Client::connect(port, V4).await;
    let mut other = Client::connect(gate.port(0), V4).await;
    gate.cluster.node(2).kill().await;
    assert_ne!(client.end().await, io::ErrorKind::TimedOut);
    gate.until_state(2, NodeState::Down).await;
    let mut refused = Client::dial(port, V4).await.unwrap();
    assert!(matches!(
        refused.startup(&[]).await.unwrap_err().kind(),
        io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe
    ));
    // The row of a node that is down stays, and so does its port.
    assert!(told(&mut other).await.1.contains(&port));
    gate.cluster.start_again(2).await.unwrap();
    gate.until_state(2, NodeState::Up).await;
    assert_eq!(told(&mut Client::connect(port, V4).await).await.0, port);
}

#[tokio::test]
async fn a_node_keeps_its_port_at_a_new_address() {
    let gate = Gate::start_by_contact_point().await;
    let (port, member) = (gate.port(2), gate.cluster.node(2).member());
    let mut control = Client::connect(gate.port(0), V4).await;
    control.register().await;
    let mut client = Client::connect(port, V4).await;
    gate.cluster.node(2).kill().await;
    assert_ne!(client.end().await, io::ErrorKind::TimedOut);
    assert_eq!(control.event().await, format!("DOWN {port}"));
    gate.cluster.start_at(2, SocketAddr::new([127, 0, 0, 23].into(), member.address.port())).await.unwrap();
    // NEW_NODE comes with it from a real node; here it is a node that clients know.
    assert_eq!(control.event().await, format!("UP {port}"));
    let mut client = Client::connect(port, V4).await;
    let local = &client.rows("SELECT * FROM system.local").await[0];
    assert_eq!(local["host_id"], member.host_id.as_bytes());
    assert_eq!(endpoint(local, "rpc_address", "rpc_port"), port);
    assert!(told(&mut Client::connect(gate.port(1), V4).await).await.1.contains(&port));
}

#[tokio::test]
async fn a_node_that_leaves_is_told_of_by_its_port() {
    let gate = Gate::start_by_contact_point().await;
    let port = gate.port(2);
    let mut control = Client::connect(gate.port(0), V4).await;
    control.register().await;
    gate.cluster.decommission(2).await;
    loop {
        // DOWN comes before when the gateway sees the death first.
        let event = control.event().await;
        if event == format!("REMOVED_NODE {port}") {
            break;
        }
        assert_eq!(event, format!("DOWN {port}"));
    }
    assert_eq!(told(&mut Client::connect(gate.port(0), V4).await).await.1, BTreeSet::from([gate.port(1)]));
    assert!(Client::dial(port, V4).await.unwrap().startup(&[]).await.is_err());
}

#[tokio::test]
async fn clients_of_a_silent_node_are_let_go() {
    let gate = Gate::start().await;
    let port = gate.port(1);
    let mut client = Client::connect(port, V4).await;
    gate.cluster.node(1).silence(true);
    assert_ne!(client.end().await, io::ErrorKind::TimedOut);
    assert_eq!(gate.state(1), NodeState::Down);
    assert_eq!(gate.state(0), NodeState::Up);
    gate.cluster.node(1).silence(false);
    gate.until_state(1, NodeState::Up).await;
}

#[tokio::test]
async fn down_and_up_are_told_once_and_with_the_port() {
    let gate = Gate::start().await;
    for dialect in [V4, (Version::V5, None)] {
        let port = gate.port(2);
        let mut client = Client::connect(gate.port(0), dialect).await;
        client.register().await;
        // The node says so, and the gateway sees it: one event.
        gate.cluster.stop(2).await;
        assert_eq!(client.event().await, format!("DOWN {port}"));
        gate.until_state(2, NodeState::Down).await;
        // Later the failure detector says it again, and a node that is behind says UP: neither is told.
        let address = gate.cluster.node(2).address();
        gate.cluster.node(0).push(&Event::Node { change: NodeChange::Down, address });
        gate.cluster.node(0).push(&Event::Node { change: NodeChange::Up, address });
        gate.cluster.node(0).push(&Event::Schema { body: &schema_change() });
        assert!(client.event().await.starts_with("Schema"));
        gate.cluster.start_again(2).await.unwrap();
        assert_eq!(client.event().await, format!("UP {port}"));
        Client::connect(port, dialect).await;
        // The next one is the next change, so nothing came twice in between.
        gate.until_state(2, NodeState::Up).await;
        gate.cluster.stop(2).await;
        assert_eq!(client.event().await, format!("DOWN {port}"));
        gate.until_state(2, NodeState::Down).await;
        gate.cluster.start_again(2).await.unwrap();
        assert_eq!(client.event().await, format!("UP {port}"));
        gate.until_state(2, NodeState::Up).await;
    }
    let metrics = gate.metrics.render().unwrap();
    assert!(metrics.contains("cqlgate_events_total{action=\"passed\",event=\"SCHEMA_CHANGE\"} 2"), "{metrics}");
}

/// CREATED KEYSPACE k
fn schema_change() -> Vec<u8> {
    let mut body = Vec::new();
    Writer::new(&mut body).string("SCHEMA_CHANGE").string("CREATED").string("KEYSPACE").string("k");
    body
}

/// The node reads 50 KB of requests, answers with a frame of 20 bytes and resets, or closes over unread input, while the client
/// still writes: what the node said last reaches the client, over TLS or not.
async fn check_final_frames(clients_tls: bool, nodes_tls: bool, reset: bool) {
    let authority = Authority::new();
    let options = if nodes_tls { secured::nodes(&authority) } else { Options::loopback(3, 0) };
    let yaml = secured::yaml(clients_tls.then_some(&authority), nodes_tls.then_some(&authority));
    let gate = Gate::start_with(options, if clients_tls || nodes_tls { &yaml } else { "" }).await;
    let mut delivered = 0;
    for _ in 0..150 {
        gate.cluster.node(0).plan(Fault::ErrorThenEnd { after: 50_000, text: "12345".to_owned(), reset });
        let received = if clients_tls {
            last_words(Client::over(secured::connect(&gate, 0, &authority).await.unwrap(), V4)).await
        } else {
            last_words(Client::dial(gate.port(0), V4).await.unwrap()).await
        };
        let header = Header::peek(&received);
        if header.is_some_and(|header| header.opcode == Opcode::ERROR && received.len() == 20) {
            delivered += 1;
        }
    }
    assert_eq!(delivered, 150, "TLS to clients: {clients_tls}, to nodes: {nodes_tls}, reset: {reset}");
}

/// What `client` receives while it writes one request after the other, until its connection is gone.
async fn last_words<S: AsyncRead + AsyncWrite + Unpin>(mut client: Client<S>) -> Vec<u8> {
    assert_eq!(client.startup(&[]).await.unwrap().0, Opcode::READY);
    let text = format!("SELECT v FROM demo.kv WHERE k = '{}'", "k".repeat(450));
    let request = client.encode(1, Opcode::QUERY, &request::encode_query(Version::V4, &text));
    let (mut read, mut write) = tokio::io::split(client.stream);
    let writing = async {
        while write.write_all(&request).await.is_ok() {}
        std::future::pending::<()>().await;
    };
    let mut bytes = Vec::new();
    tokio::select! {
        _ = tokio::time::timeout(PATIENCE, read.read_to_end(&mut bytes)) => {}
        () = writing => {}
    }
    bytes
}

#[tokio::test]
async fn a_final_frame_is_delivered_150_times_of_150() {
    check_final_frames(false, false, true).await;
}

#[tokio::test]
async fn a_final_frame_is_delivered_over_tls() {
    check_final_frames(true, false, true).await;
    check_final_frames(true, true, true).await;
}

#[tokio::test]
async fn a_final_frame_before_a_plain_close_is_delivered() {
    check_final_frames(false, false, false).await;
    check_final_frames(true, false, false).await;
    check_final_frames(true, true, false).await;
}

/// The client reads slowly and writes on: what the node said before it closed is still on its way when the gateway is done.
#[tokio::test]
async fn a_long_last_answer_reaches_a_slow_reader_that_still_writes() {
    let gate = Gate::start().await;
    let value = "v".repeat(1_000_000);
    let mut client = Client::connect(gate.port(1), V4).await;
    let insert = client.prepare("INSERT INTO demo.kv (k, v) VALUES (?, ?)").await;
    client.execute(&insert, &["a", &value], false).await.unwrap();
    for _ in 0..10 {
        let mut client = Client::connect(gate.port(0), V4).await;
        SockRef::from(&client.stream).set_recv_buffer_size(128 * 1024).unwrap();
        gate.cluster.node(0).plan(Fault::CutResponse { after: usize::MAX });
        let select = request::encode_query(Version::V4, "SELECT v FROM demo.kv WHERE k = 'a'");
        let request = client.encode(1, Opcode::QUERY, &select);
        let (mut read, mut write) = client.stream.split();
        let writing = async {
            while write.write_all(&request).await.is_ok() {
                tokio::task::yield_now().await;
            }
            std::future::pending::<()>().await;
        };
        let mut received = Vec::new();
        let reading = async {
            let mut piece = [0; 16 * 1024];
            while let Ok(1..) =
                read.read(&mut piece).await.inspect(|&length| received.extend_from_slice(&piece[..length]))
            {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            done = tokio::time::timeout(PATIENCE, reading) => done.unwrap(),
            () = writing => {}
        }
        let header = Header::peek(&received).unwrap();
        assert_eq!(received.len() as u64, header.frame_len());
    }
}

#[tokio::test]
async fn a_frame_over_the_limit_gets_the_protocols_own_error() {
    let gate = Gate::start_with(Options::loopback(3, 0), "limits: {frame: 64KiB}\n").await;
    let mut client = Client::connect(gate.port(0), V4).await;
    let header = Header { version: 4, flags: Flags(0), stream: 9, opcode: Opcode::QUERY, length: 65 * 1024 };
    client.stream.write_all(&header.encode()).await.unwrap();
    let (header, body) = client.receive().await.unwrap();
    assert_eq!(header.opcode, Opcode::ERROR);
    assert_eq!(error(&body).0, error_code::PROTOCOL_ERROR, "{}", error(&body).1);
    client.end().await;
}

#[tokio::test]
async fn a_request_too_long_to_be_changed_gets_the_protocols_own_error() {
    let gate = Gate::start_with(Options::loopback(3, 0), "limits: {held_frame: 64KiB}\n").await;
    for dialect in DIALECTS.into_iter().filter(|(version, compression)| *version < Version::V5 && compression.is_some())
    {
        let mut client = Client::connect(gate.port(0), dialect).await;
        // Short on the wire, and too long once it is decompressed.
        let value = "x".repeat(100_000);
        let (opcode, body) = client.execute(&(vec![7; 16], None), &[&value], true).await.unwrap();
        let (code, text) = error(&body);
        assert_eq!((opcode, code), (Opcode::ERROR, error_code::PROTOCOL_ERROR));
        assert!(text.contains("65536 bytes"), "{dialect:?}: {text}");
        assert_ne!(client.end().await, io::ErrorKind::TimedOut);
    }
}

#[tokio::test]
async fn a_response_cut_in_the_middle_ends_the_connection_and_nothing_else() {
    let gate = Gate::start().await;
    let mut client = Client::connect(gate.port(0), V4).await;
    gate.cluster.node(0).plan(Fault::CutResponse { after: 20 });
    // A clean end would say that the frame was whole.
    assert_eq!(client.query("SELECT * FROM demo.kv").await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    let mut next = Client::connect(gate.port(0), V4).await;
    assert_eq!(next.query("SELECT * FROM demo.kv").await.unwrap().0, Opcode::RESULT);
}

#[tokio::test]
async fn a_node_that_declares_too_long_a_frame_is_not_believed() {
    let gate = Gate::start().await;
    for dialect in [V4, (Version::V5, None)] {
        let mut client = Client::connect(gate.port(0), dialect).await;
        gate.cluster.node(0).plan(Fault::DeclareLength(i32::MAX as u32));
        // It is closed at once, and not one byte of it comes: there is no frame that the client could wait for.
        let error = client.query("SELECT * FROM demo.kv").await.unwrap_err();
        assert_ne!(error.kind(), io::ErrorKind::TimedOut);
        assert!(client.received().is_empty(), "{dialect:?}");
    }
}

#[tokio::test]
async fn a_node_that_dies_between_a_clients_look_and_its_registration_is_told_down() {
    let gate = Gate::start().await;
    let port = gate.port(2);
    for dialect in DIALECTS {
        let mut client = Client::connect(gate.port(0), dialect).await;
        assert!(told(&mut client).await.1.contains(&port));
        gate.cluster.node(2).kill().await;
        gate.until_state(2, NodeState::Down).await;
        client.register().await;
        assert_eq!(client.event().await, format!("DOWN {port}"), "{dialect:?}");
        gate.cluster.start_again(2).await.unwrap();
        assert_eq!(client.event().await, format!("UP {port}"), "{dialect:?}");
        gate.until_state(2, NodeState::Up).await;
    }
}

#[tokio::test]
async fn another_host_id_at_a_nodes_address_is_another_node() {
    let gate = Gate::start().await;
    let port = gate.port(2);
    let mut control = Client::connect(gate.port(0), V4).await;
    control.register().await;
    let mut client = Client::connect(port, V4).await;
    gate.cluster.node(2).kill().await;
    assert_ne!(client.end().await, io::ErrorKind::TimedOut);
    assert_eq!(control.event().await, format!("DOWN {port}"));
    let host_id = uuid::Uuid::from_u128(7);
    gate.cluster.node(2).set_host_id(host_id);
    gate.cluster.start_again(2).await.unwrap();
    for change in ["REMOVED_NODE", "NEW_NODE", "UP"] {
        assert_eq!(control.event().await, format!("{change} {port}"));
    }
    let local = &Client::connect(port, V4).await.rows("SELECT host_id FROM system.local").await[0];
    assert_eq!(local["host_id"], host_id.as_bytes());
    assert_eq!(told(&mut Client::connect(gate.port(0), V4).await).await.1, BTreeSet::from([gate.port(1), port]));
}

/// As after a roll-out with a Secret of yesterday.
#[tokio::test]
async fn a_wrong_password_of_the_gateways_own_keeps_no_client_out() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "wrong").unwrap();
    let credentials = Some(("ann".to_owned(), "secret".to_owned()));
    let gate = Gate::start_changed(Options { credentials, ..Options::loopback(3, 0) }, "", |config| {
        config.probe.username = Some("ann".to_owned());
        config.probe.password_file = Some(file.path().to_owned());
    })
    .await;
    gate.until_said("/readyz", 200, "ready\ndegraded, by 3 nodes: login as probe.username refused (0x0100): ").await;
    gate.until_counted("cqlgate_dial_failures_total{node=\"node-2\",reason=\"login\"}", 1).await;
    let mut client = Client::dial(gate.port(1), V4).await.unwrap();
    assert_eq!(client.startup(&[]).await.unwrap().0, Opcode::AUTHENTICATE);
    let login = encode_plain_auth_response("ann", "secret");
    assert_eq!(client.ask(Opcode::AUTH_RESPONSE, &login).await.unwrap().0, Opcode::AUTH_SUCCESS);
    assert_eq!(told(&mut client).await, (gate.port(1), BTreeSet::from([gate.port(0), gate.port(2)])));
    std::fs::write(file.path(), "secret").unwrap();
    gate.until_said("/readyz", 200, "ready").await;
    let is_said = async { while gate.get("/readyz").await.1.contains("degraded") {} };
    tokio::time::timeout(PATIENCE, is_said).await.expect("no longer degraded");
}

/// A gateway without credentials learns who its nodes are from the rows that pass, and a client can give any name to a column.
#[tokio::test]
async fn an_alias_teaches_nothing_and_a_nodes_own_row_does() {
    let credentials = Some(("ann".to_owned(), "secret".to_owned()));
    let gate = Gate::start_with(Options { credentials, ..Options::loopback(2, 0) }, "").await;
    let port = gate.port(0).port();
    let host_id = |topology: &Topology, port| topology.node_at_port(port).unwrap().host_id.map(|id| id.0);
    for dialect in DIALECTS {
        let mut clients = Vec::new();
        for index in 0..2 {
            let mut client = Client::dial(gate.port(index), dialect).await.unwrap();
            assert_eq!(client.startup(&[]).await.unwrap().0, Opcode::AUTHENTICATE);
            let response = encode_plain_auth_response("ann", "secret");
            assert_eq!(client.ask(Opcode::AUTH_RESPONSE, &response).await.unwrap().0, Opcode::AUTH_SUCCESS);
            clients.push(client);
        }
        let before = gate.running.topology.borrow().node_at_port(port).unwrap().clone();
        for text in [
            "SELECT schema_version AS host_id FROM system.local",
            "SELECT schema_version AS host_id, release_version AS cluster_name FROM system.local WHERE key='local'",
        ] {
            let row = &clients[0].rows(text).await[0];
            assert_ne!(row["host_id"], gate.cluster.node(0).member().host_id.as_bytes());
            let prepared = clients[0].prepare(text).await;
            assert_eq!(clients[0].execute(&prepared, &[], false).await.unwrap().0, Opcode::RESULT);
        }
        // When this answer is here, all before it were reported; what the other node says comes after them.
        clients[0].rows("SELECT * FROM demo.kv").await;
        clients[1].rows("SELECT * FROM system.local WHERE key='local'").await;
        let other = gate.port(1).port();
        gate.until(|topology| host_id(topology, other).is_some()).await;
        let after = gate.running.topology.borrow().node_at_port(port).unwrap().clone();
        assert_eq!((after.host_id, after.incarnation), (before.host_id, before.incarnation), "{dialect:?}");
        let local = clients[0].rows("SELECT host_id FROM system.local").await;
        gate.until(|topology| host_id(topology, port).is_some()).await;
        let learned = host_id(&gate.running.topology.borrow(), port);
        assert_eq!(learned, Some(gate.cluster.node(0).member().host_id), "{dialect:?}");
        assert_eq!(local[0]["host_id"], learned.unwrap().as_bytes());
    }
}

#[tokio::test]
async fn a_hidden_row_is_listed_under_its_own_host_id() {
    let gate = Gate::start_without(2, Options::loopback(3, 0), "").await;
    let mut client = Client::connect(gate.port(0), V4).await;
    client.rows("SELECT schema_version AS host_id, native_address, native_port FROM system.peers_v2").await;
    client.rows("SELECT * FROM system.peers_v2").await;
    let generation = gate.running.topology.borrow().generation;
    let host_id = gate.cluster.node(2).member().host_id;
    gate.until_said("/topology", 200, &format!("\"hidden\":[{{\"name\":null,\"host_id\":\"{host_id}\"")).await;
    // What clients happen to read is shown to those who look, and is no change of the cluster.
    assert_eq!(gate.running.topology.borrow().generation, generation);
    assert!(gate.running.topology.borrow().hidden.is_empty());
}

#[tokio::test]
async fn what_nobody_knows_passes_as_it_is() {
    let gate = Gate::start().await;
    for dialect in DIALECTS {
        let mut client = Client::connect(gate.port(0), dialect).await;
        let body: Vec<u8> = (0..300_000_u32).map(|byte| (byte % 251) as u8).collect();
        gate.cluster.node(0).plan(Fault::Answer { opcode: Opcode(0x55), flags: 0, body: body.clone() });
        assert_eq!(client.query("SELECT * FROM demo.kv").await.unwrap(), (Opcode(0x55), body), "{dialect:?}");
    }
}

#[tokio::test]
async fn version_negotiation_passes_as_it_is() {
    let gate = Gate::start().await;
    for version in [0x41, 0x42, 6, 7] {
        let header = Header { version, flags: Flags(0), stream: 0, opcode: Opcode::OPTIONS, length: 0 }.encode();
        let mut answers = Vec::new();
        for address in [gate.cluster.node(0).address(), gate.port(0)] {
            let mut client = Client::dial(address, V4).await.unwrap();
            client.stream.write_all(&header).await.unwrap();
            answers.push(client.receive().await.unwrap());
        }
        assert_eq!(answers[0], answers[1]);
        assert_eq!(error(&answers[1].1).0, error_code::PROTOCOL_ERROR);
    }
}

#[tokio::test]
async fn a_login_is_between_client_and_node() {
    let credentials = Some(("ann".to_owned(), "secret".to_owned()));
    let gate = Gate::start_with(Options { credentials, ..Options::loopback(2, 0) }, "").await;
    for dialect in DIALECTS {
        for (password, expected) in [("secret", Opcode::AUTH_SUCCESS), ("guess", Opcode::ERROR)] {
            let mut client = Client::dial(gate.port(0), dialect).await.unwrap();
            assert_eq!(client.startup(&[]).await.unwrap().0, Opcode::AUTHENTICATE);
            let response = encode_plain_auth_response("ann", password);
            assert_eq!(client.ask(Opcode::AUTH_RESPONSE, &response).await.unwrap().0, expected, "{dialect:?}");
            if expected == Opcode::AUTH_SUCCESS {
                assert_eq!(told(&mut client).await.1, BTreeSet::from([gate.port(1)]), "{dialect:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_driver_without_ports_sees_one_node() {
    let gate = Gate::start().await;
    let names = ["ScyllaDB Rust Driver", "Apache Cassandra Node.js Driver", "github.com/apache/cassandra-gocql-driver"];
    for name in names {
        let mut client = Client::connect_as(gate.port(1), V4, &[("DRIVER_NAME", name)]).await;
        let (own, peers) = told(&mut client).await;
        assert_eq!((own, peers), (gate.port(1), BTreeSet::new()), "{name}");
        assert_eq!(client.rows("SELECT * FROM system.peers").await.len(), 0);
        // What tells of nobody is the cluster's.
        assert_eq!(client.rows("SELECT schema_version FROM system.peers").await.len(), 2);
    }
}

/// What STARTUP says reaches the rules: each client of the node at port 1, and how many peers it sees.
#[tokio::test]
async fn rules_choose_by_what_a_client_says_of_itself() {
    let rules = "views:\n  rules:\n    - {unnamed: true, view: single_node}\n    - {driver: gocql, view: node_ports}\n    \
                 - {driver_version: '9.9', application_name: shop, view: single_node}\n";
    let gate = Gate::start_with(Options::loopback(3, 0), rules).await;
    let java = ("DRIVER_NAME", "Apache Cassandra Java Driver");
    let (version, shop) = (("DRIVER_VERSION", "9.9.1"), ("APPLICATION_NAME", "The Shop"));
    for (said, peers) in [
        (&[][..], 0),
        // gocql without the module's information: no rule names it.
        (&[("DRIVER_NAME", "")], 0),
        (&[("DRIVER_NAME", "github.com/gocql/gocql")], 2),
        (&[java, version, shop], 0),
        (&[java, version], 2),
        (&[java, shop], 2),
    ] {
        let mut client = Client::connect_as(gate.port(1), V4, said).await;
        assert_eq!(client.rows("SELECT * FROM system.peers_v2").await.len(), peers, "{said:?}");
    }
}

#[tokio::test]
async fn a_client_over_ipv6_is_told_ipv6() {
    if let Err(error) = tokio::net::TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).await {
        eprintln!("skipped: this machine has no ::1 ({error})");
        return;
    }
    let (ipv4, ipv6) = (Ipv4Addr::new(203, 0, 113, 10), "2001:db8::10".parse().unwrap());
    // Both families reach one listener; the accepted socket's own decides.
    let gate = Gate::start_changed(Options::loopback(3, 0), "", |config| {
        config.listen.address = Ipv6Addr::UNSPECIFIED.into();
        config.paths = Path::everywhere(External::Addresses { ipv4: Some(ipv4), ipv6: Some(ipv6) });
    })
    .await;
    for dialect in DIALECTS {
        for (dialled, told_of) in
            [(IpAddr::from(Ipv6Addr::LOCALHOST), IpAddr::from(ipv6)), (Ipv4Addr::LOCALHOST.into(), ipv4.into())]
        {
            let at = |index| SocketAddr::new(told_of, gate.port(index).port());
            let mut client = Client::connect(SocketAddr::new(dialled, gate.port(0).port()), dialect).await;
            assert_eq!(told(&mut client).await, (at(0), BTreeSet::from([at(1), at(2)])), "{dialled} {dialect:?}");
            client.register().await;
            gate.cluster.stop(2).await;
            assert_eq!(client.event().await, format!("DOWN {}", at(2)));
            gate.until_state(2, NodeState::Down).await;
            gate.cluster.start_again(2).await.unwrap();
            gate.until_state(2, NodeState::Up).await;
        }
    }
}

#[tokio::test]
async fn drain_answers_what_was_asked_and_closes_between_frames() {
    let gate = Gate::start_with(Options::loopback(3, 0), "drain: {spread: 0s, deadline: 10s}\n").await;
    gate.cluster.node(0).delay(Some(Duration::from_millis(5)));
    let mut clients = Vec::new();
    for dialect in DIALECTS {
        let mut client = Client::connect(gate.port(0), dialect).await;
        for _ in 0..20 {
            client.send(Opcode::QUERY, &request::encode_query(dialect.0, "SELECT * FROM demo.kv")).await.unwrap();
        }
        // The first answer is here, so all requests are on their way or read.
        client.receive().await.unwrap();
        clients.push((client, dialect));
    }
    let port = gate.port(0);
    let Gate { cluster: _cluster, running, .. } = gate;
    let draining = tokio::spawn(running.drain());
    for (client, dialect) in &mut clients {
        for answer in 1..20 {
            let (header, _) = client.receive().await.unwrap_or_else(|e| panic!("{dialect:?} {answer}: {e}"));
            assert_eq!(header.opcode, Opcode::RESULT);
        }
        assert_eq!(client.end().await, io::ErrorKind::UnexpectedEof, "{dialect:?}");
    }
    tokio::time::timeout(PATIENCE, draining).await.unwrap().unwrap();
    assert!(Client::dial(port, V4).await.is_err());
}
