//! Rows and events of nodes that this gateway does not serve, on one connection.

use super::*;
use crate::config::{self, Fate};
use crate::cql::primitives::{Value, inet_cell_bytes};

const REMOTE: &str = "10.99.0.7:9042";

/// Both nodes are in dc1.
fn in_dc1() -> Arc<Topology> {
    let topology = topology();
    let in_dc1 = |node: &Arc<Node>| Node { data_center: Some(Arc::from("dc1")), ..(**node).clone() };
    Arc::new(Topology::new(1, Arc::clone(&topology.paths), topology.nodes.iter().map(in_dc1).collect::<Vec<_>>()))
}

fn around(remote: Fate) -> Arc<Surroundings> {
    let Ok(around) = Arc::try_unwrap(surroundings()) else { unreachable!() };
    let unserved = config::Unserved { remote, ..config::Unserved::default() };
    Arc::new(Surroundings { topology: Box::new(in_dc1), unserved, ..around })
}

fn registered(session: Session, around: &Arc<Surroundings>) -> Talk {
    let mut talk = Talk::with(session, around);
    talk.request(Opcode::REGISTER, 3, &encode_register(&["STATUS_CHANGE", "TOPOLOGY_CHANGE"]));
    talk.response(Opcode::READY, 3, b"").unwrap();
    talk
}

/// An answer of `system.peers_v2` with the row of one node of dc2.
fn peers(address: &str) -> Vec<u8> {
    let address: std::net::SocketAddr = address.parse().unwrap();
    let mut body = Vec::new();
    let mut writer = Writer::new(&mut body);
    writer.i32(2).i32(1).i32(4).string("system").string("peers_v2");
    writer.string("data_center").u16(0x0d).string("host_id").u16(0x0c);
    writer.string("native_address").u16(0x10).string("native_port").u16(0x09).i32(1);
    writer.value(Value::Bytes(b"dc2")).value(Value::Bytes(&[7; 16]));
    writer.value(Value::Bytes(inet_cell_bytes(address.ip()).as_ref()));
    writer.value(Value::Bytes(&i32::from(address.port()).to_be_bytes()));
    body
}

/// What a client reads that asks with this text, and is answered with that row.
fn reads(talk: &mut Talk, text: &str) -> Vec<u8> {
    talk.request(Opcode::QUERY, 1, &query(talk.session.version, text, 0));
    talk.response(Opcode::RESULT, 1, &peers(REMOTE)).unwrap()
}

fn event(change: NodeChange, address: &str) -> Vec<u8> {
    Event::Node { change, address: address.parse().unwrap() }.encode()
}

/// What a client is told of the events of that node.
fn told(talk: &mut Talk, address: &str) -> usize {
    let changes = [NodeChange::NewNode, NodeChange::Up, NodeChange::Down, NodeChange::RemovedNode];
    let heard = |change: &NodeChange| {
        let event = event(*change, address);
        let heard = talk.response(Opcode::EVENT, -1, &event).unwrap();
        assert!(heard.is_empty() || heard == event, "{heard:?}");
        !heard.is_empty()
    };
    changes.iter().copied().filter(heard).count()
}

const PLAIN: &str = "SELECT * FROM system.peers_v2";

#[test]
fn a_kept_row_passes_and_then_the_events_of_its_node() {
    for session in ALL {
        let around = around(Fate::Keep);
        let mut talk = registered(session, &around);
        assert_eq!(told(&mut talk, REMOTE), 0, "{session:?}: before it was read");
        assert_eq!(reads(&mut talk, PLAIN), peers(REMOTE), "{session:?}");
        assert_eq!(told(&mut talk, REMOTE), 4, "{session:?}");
        assert_eq!(told(&mut talk, "10.99.0.8:9042"), 0, "of a node that no row told of");
        assert_eq!(told(&mut talk, "10.77.0.99:9042"), 0, "{session:?}");
        let mut elsewhere = registered(session, &around);
        assert_eq!(told(&mut elsewhere, REMOTE), 0, "another client did not read it");
    }
}

#[test]
fn by_default_rows_and_events_are_hidden() {
    for session in ALL {
        let mut talk = registered(session, &around(Fate::Hide));
        assert!(!reads(&mut talk, PLAIN).windows(4).any(|window| window == [10, 99, 0, 7]), "{session:?}");
        assert_eq!(told(&mut talk, REMOTE), 0, "{session:?}");
    }
}

#[test]
fn nothing_is_kept_of_an_answer_whose_columns_may_be_called_otherwise() {
    let hides = |shown: Vec<u8>| assert!(!shown.windows(4).any(|window| window == [10, 99, 0, 7]), "{shown:?}");
    for session in ALL {
        let mut talk = registered(session, &around(Fate::Keep));
        hides(reads(
            &mut talk,
            "SELECT rack AS data_center, host_id, native_address, native_port FROM system.peers_v2",
        ));
        hides(reads(
            &mut talk,
            "SELECT data_center, now() AS host_id, native_address, native_port FROM system.peers_v2",
        ));
        // What a prepared statement calls its columns is not known.
        talk.request(Opcode::EXECUTE, 1, &execute(session.version, &ID, SKIP));
        hides(talk.response(Opcode::RESULT, 1, &peers(REMOTE)).unwrap());
        // Whose answer it is neither, where two are in flight.
        for _ in 0..2 {
            talk.request(Opcode::QUERY, 1, &query(session.version, PLAIN, 0));
        }
        hides(talk.response(Opcode::RESULT, 1, &peers(REMOTE)).unwrap());
        assert_eq!(told(&mut talk, REMOTE), 0, "{session:?}");
    }
}

#[test]
fn the_address_of_a_kept_node_is_a_served_nodes_once_that_is_there() {
    let moved = |address: &str| {
        let (topology, address) = (in_dc1(), address.parse().unwrap());
        let mut nodes: Vec<Node> = topology.nodes.iter().map(|node| (**node).clone()).collect();
        nodes[1].address = address;
        Arc::new(Topology::new(2, Arc::clone(&topology.paths), nodes))
    };
    for lives in [REMOTE, "10.99.0.7:9999"] {
        let now = std::sync::Mutex::new(in_dc1());
        let now = Arc::new(now);
        let Ok(around) = Arc::try_unwrap(around(Fate::Keep)) else { unreachable!() };
        let present = Arc::clone(&now);
        let topology = Box::new(move || Arc::clone(&present.lock().unwrap()));
        let mut talk = registered(V4, &Arc::new(Surroundings { topology, ..around }));
        reads(&mut talk, PLAIN);
        *now.lock().unwrap() = moved(lives);
        let heard = talk.response(Opcode::EVENT, -1, &event(NodeChange::Up, REMOTE)).unwrap();
        assert_ne!(heard, event(NodeChange::Up, REMOTE), "{lives}");
    }
}
