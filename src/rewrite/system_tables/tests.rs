mod json;
mod nobody;
mod unserved;

use uuid::Uuid;

use super::*;
use crate::cql::frame::{Opcode, encode_frame};
use crate::cql::primitives::{Writer, inet_cell_bytes};
use crate::cql::rows::metadata_flags;
use crate::cql::segment::MAX_PAYLOAD;
use crate::rewrite::view::{NodePorts, SingleNode};
use crate::topology::{Advertised, HiddenReason, HostId, NodeId, NodeState};

/// A cell as a test writes it. `Raw` gives the type too.
#[derive(Clone, Debug, PartialEq)]
enum C {
    Inet(&'static str),
    Int(i32),
    Text(String),
    /// A host_id: that of the example node with this port.
    Id(u16),
    /// The elements of a `set<text>`.
    Texts(Vec<&'static str>),
    Raw(&'static [u8], Vec<u8>),
    /// Null, of the type of that cell.
    Null(Box<C>),
}
use C::{Id, Inet, Int, Raw, Texts};

fn text(text: &str) -> C {
    C::Text(text.to_owned())
}

fn null(of: C) -> C {
    C::Null(Box::new(of))
}

impl C {
    fn type_bytes(&self) -> Vec<u8> {
        match self {
            Inet(_) => vec![0, 0x10],
            Int(_) => vec![0, 0x09],
            C::Text(_) => vec![0, 0x0d],
            Id(_) => vec![0, 0x0c],
            Texts(_) => vec![0, 0x22, 0, 0x0d],
            Raw(column_type, _) => column_type.to_vec(),
            C::Null(of) => of.type_bytes(),
        }
    }

    fn bytes(&self) -> Option<Vec<u8>> {
        Some(match self {
            Inet(address) => inet_cell_bytes(address.parse().unwrap()).as_ref().to_vec(),
            Int(number) => number.to_be_bytes().to_vec(),
            C::Text(text) => text.as_bytes().to_vec(),
            Id(port) => Uuid::from_u128(u128::from(*port)).as_bytes().to_vec(),
            Texts(texts) => collection(texts.iter().map(|text| text.as_bytes())),
            Raw(_, bytes) => bytes.clone(),
            C::Null(_) => return None,
        })
    }
}

fn collection<'a>(elements: impl ExactSizeIterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut out = Vec::new();
    let mut writer = Writer::new(&mut out);
    writer.i32(elements.len() as i32);
    elements.for_each(|element| _ = writer.value(Value::Bytes(element)));
    out
}

const G: &str = "203.0.113.10";

/// a and b are up, c waits for its first dial, d has left b's rack behind.
fn topology() -> Topology {
    let node = |id, port, address, state| Node { state, ..Node::example(id, port, address) };
    Topology::new(
        1,
        Advertised { ipv4: Some(G.parse().unwrap()), ipv6: Some("2001:db8::10".parse().unwrap()) },
        [
            node("a", 9042, "10.77.0.11:9042", NodeState::Up),
            node("b", 9043, "10.77.0.12:9042", NodeState::Down),
            node("c", 9044, "10.77.0.13:9042", NodeState::Pending),
            node("d", 9045, "[fd00::14]:9042", NodeState::Up),
        ],
    )
    .with_former([("10.77.0.99:9042".parse().unwrap(), NodeId::new("b"))])
}

fn message(table: &str, names: &[&str], rows: &[Vec<C>], types: &[C]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut writer = Writer::new(&mut out);
    writer.i32(2).i32(metadata_flags::GLOBAL_TABLES_SPEC).i32(names.len() as i32).string("system").string(table);
    for (name, cell) in names.iter().zip(types) {
        writer.string(name).raw(&cell.type_bytes());
    }
    writer.i32(rows.len() as i32);
    for cell in rows.iter().flatten() {
        writer.value(cell.bytes().as_deref().map_or(Value::Null, Value::Bytes));
    }
    out
}

fn frame(version: u8, flags: u8, body: &[u8]) -> Vec<u8> {
    let header = Header { version: version | 0x80, flags: Flags(flags), stream: 7, opcode: Opcode::RESULT, length: 0 };
    encode_frame(header, body)
}

/// What goes out in a frame's place, and what was seen in it; in as many turns as it takes.
fn rewrite_rows(frame: &[u8], perspective: Perspective) -> Result<(Made, Report), Unrewritable> {
    let header = Header::peek(frame).unwrap();
    let body = &frame[HEADER_LEN..];
    let mut scratch = vec![0; MAX_PAYLOAD];
    let mut rewrite = RowsRewrite::begin(header, body, perspective, &mut Work::new(&mut scratch))?;
    loop {
        if let Some(made) = rewrite.go_on(body, &mut Work::new(&mut scratch))? {
            let report = rewrite.into_report(&made);
            return Ok((made, report));
        }
    }
}

/// A client of the node at 9042 that asked for something; by default nothing of nodes that are not served is kept.
fn perspective(topology: Topology) -> Perspective {
    Perspective {
        view: &NodePorts,
        path: Arc::clone(topology.paths.last().unwrap()),
        family: crate::topology::Family::Ipv4,
        topology: Arc::new(topology),
        attached: 9042,
        injection: Injection::default(),
        is_plain: false,
        unserved: config::Unserved::default(),
    }
}

fn seen_by(view: &'static dyn View, injection: Injection, frame: &[u8]) -> Result<(Made, Report), Unrewritable> {
    rewrite_rows(frame, Perspective { view, injection, ..perspective(topology()) })
}

fn rewritten((made, report): (Made, Report), original: &[u8]) -> Vec<u8> {
    match made {
        Made::Frame(frame) => {
            assert_eq!(report.rewritten, Rewritten::Frame);
            frame
        }
        Made::Unchanged => original.to_vec(),
        Made::Refused(text) => panic!("refused: {text}"),
    }
}

/// `rows` of `system.{table}` with columns `names` come out as `expected`, in every version.
#[track_caller]
fn check(table: &str, names: &[&str], rows: &[Vec<C>], expected: &[Vec<C>]) {
    let types = rows.first().unwrap();
    for version in [3, 4, 5] {
        let before = frame(version, 0, &message(table, names, rows, types));
        let report = seen_by(&NodePorts, Injection::default(), &before).unwrap();
        let after = frame(version, 0, &message(table, names, expected, types));
        assert_eq!(rewritten(report, &before), after, "v{version}");
    }
}

/// What the refusal says.
#[track_caller]
fn check_refused(table: &str, names: &[&str], row: Vec<C>, text: &str) {
    let before = frame(4, 0, &message(table, names, std::slice::from_ref(&row), &row));
    match seen_by(&NodePorts, Injection::default(), &before).unwrap().0 {
        Made::Refused(found) => assert!(found.contains(text), "{found}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_a_client_dials_is_replaced_and_the_internode_identity_stays() {
    check(
        "peers_v2",
        &["peer", "peer_port", "host_id", "native_address", "native_port", "preferred_ip", "preferred_port", "tokens"],
        &[vec![
            Inet("10.77.0.12"),
            Int(7000),
            Id(9043),
            Inet("10.77.0.12"),
            Int(9042),
            Inet("10.77.0.12"),
            Int(7000),
            Texts(vec!["-3074457345618258603"]),
        ]],
        &[vec![
            Inet("10.77.0.12"),
            Int(7000),
            Id(9043),
            Inet(G),
            Int(9043),
            null(Inet(G)),
            null(Int(0)),
            Texts(vec!["-3074457345618258603"]),
        ]],
    );
}

#[test]
fn the_local_row_is_the_attached_nodes_whatever_it_says() {
    let names = ["key", "rpc_address", "rpc_port", "broadcast_address", "broadcast_port", "listen_address", "host_id"];
    let row = |address, port, id| {
        vec![text("local"), address, Int(port), Inet("10.77.0.11"), Int(7000), Inet("10.77.0.11"), id]
    };
    let out = row(Inet(G), 9042, Id(1));
    check("local", &names, &[row(Inet("10.99.99.99"), 1234, Id(1))], std::slice::from_ref(&out));
    check("local", &names, &[row(null(Inet(G)), 1234, Id(1))], std::slice::from_ref(&out));
    check("local", &names, &[row(Inet("0.0.0.0"), 1234, Id(1))], &[out]);
}

#[test]
fn a_row_belongs_to_its_host_id_then_to_its_address() {
    // The node has moved; the row still names an address that it has left.
    check("peers", &["host_id", "rpc_address"], &[vec![Id(9043), Inet("10.77.0.99")]], &[vec![Id(9043), Inet(G)]]);
    check(
        "peers_v2",
        &["native_address", "native_port"],
        &[vec![Inet("10.77.0.12"), Int(9042)], vec![Inet("fd00::14"), Int(9042)]],
        &[vec![Inet(G), Int(9043)], vec![Inet(G), Int(9045)]],
    );
    check("peers", &["rpc_address"], &[vec![Inet("10.77.0.12")]], &[vec![Inet(G)]]);
    // A bind address is nobody's; the row's own peer says whose it is.
    check(
        "peers",
        &["peer", "rpc_address"],
        &[vec![Inet("10.77.0.12"), Inet("0.0.0.0")], vec![Inet("10.77.0.12"), null(Inet(G))]],
        &[vec![Inet("10.77.0.12"), Inet(G)], vec![Inet("10.77.0.12"), Inet(G)]],
    );
    check(
        "peers_v2",
        &["peer", "native_port"],
        &[vec![Inet("10.77.0.12"), Int(9042)]],
        &[vec![Inet("10.77.0.12"), Int(9043)]],
    );
}

#[test]
fn rows_of_nodes_that_clients_are_not_told_of_are_left_out() {
    let names = ["host_id", "native_address", "native_port"];
    let row = |id, address| vec![Id(id), Inet(address), Int(9042)];
    let rows = [row(9043, "10.77.0.12"), row(9044, "10.77.0.13"), row(1, "10.77.0.50"), row(1, "10.77.0.12")];
    check("peers_v2", &names, &rows, &[vec![Id(9043), Inet(G), Int(9043)]]);
    let before = frame(4, 0, &message("peers_v2", &names, &rows, &rows[0]));
    let hidden = seen_by(&NodePorts, Injection::default(), &before).unwrap().1.hidden;
    let reasons: Vec<_> = hidden.iter().map(|row| (row.reason, row.address.unwrap().to_string())).collect();
    assert_eq!(
        reasons,
        [
            (LeftOut::Hidden(HiddenReason::NotAnnounced), "10.77.0.13:9042".to_owned()),
            (LeftOut::Hidden(HiddenReason::NoPort), "10.77.0.50:9042".to_owned()),
            // The node at this address is known by another host_id: one of the two is not what it says.
            (LeftOut::Hidden(HiddenReason::NoPort), "10.77.0.12:9042".to_owned()),
        ]
    );
}

#[test]
fn aliases_are_replaced_where_they_are_the_nodes_own() {
    check(
        "local",
        &["where_to", "and_port", "cluster_name"],
        &[vec![Inet("10.77.0.11"), Int(9042), text("rig")]],
        &[vec![Inet(G), Int(9042), text("rig")]],
    );
    check(
        "peers_v2",
        &["host_id", "a", "p", "other"],
        &[vec![Id(9043), Inet("10.77.0.12"), Int(9042), Int(7000)]],
        &[vec![Id(9043), Inet(G), Int(9043), Int(7000)]],
    );
    check("peers", &["a"], &[vec![Inet("10.77.0.12")]], &[vec![Inet(G)]]);
    check("peers_v2", &["p", "a"], &[vec![Int(9042), Inet("10.77.0.12")]], &[vec![Int(9043), Inet(G)]]);
    // Without an address in the row a port says nothing.
    check("local", &["p"], &[vec![Int(9042)]], &[vec![Int(9042)]]);
    check_refused("peers", &["a"], vec![Inet("10.77.0.50")], "peers.a");
    check_refused("peers", &["a"], vec![Inet("10.77.0.13")], "peers.a");
}

#[test]
fn addresses_in_other_values_are_refused() {
    let refused = |name, cell| check_refused("local", &[name], vec![cell], &format!("local.{name}"));
    refused("cast(rpc_address as text)", text("10.77.0.50"));
    refused("rack", text("10.77.0.12"));
    refused("x", text("fd00:0:0:0:0:0:0:14"));
    refused("system.inetasblob(rpc_address)", Raw(&[0, 0x03], vec![10, 77, 0, 11]));
    refused("text_of_blob", Raw(&[0, 0x0d], vec![10, 77, 0, 11]));
    refused("blob_of_text", Raw(&[0, 0x03], b"10.77.0.11".to_vec()));
    refused("list", Raw(&[0, 0x20, 0, 0x10], collection([&[10, 77, 0, 12][..]].into_iter())));
    refused("list_of_lists", {
        let inner = collection([&b"10.77.0.11"[..]].into_iter());
        Raw(&[0, 0x20, 0, 0x20, 0, 0x0d], collection([&inner[..]].into_iter()))
    });
    refused("tokens", Texts(vec!["-1", "10.77.0.11"]));
    refused(
        "map",
        Raw(
            &[0, 0x21, 0, 0x10, 0, 0x09],
            [&[0, 0, 0, 1, 0, 0, 0, 4, 10, 77, 0, 11][..], &[0, 0, 0, 4, 0, 0, 0, 1]].concat(),
        ),
    );
    refused(
        "tuple",
        Raw(&[0, 0x31, 0, 2, 0, 0x09, 0, 0x10], [&[0, 0, 0, 4, 0, 0, 0, 1][..], &[0, 0, 0, 4, 10, 77, 0, 11]].concat()),
    );
    refused("udt", {
        let column_type = b"\0\x30\0\x02ks\0\x01u\0\x01\0\x01f\0\x10";
        Raw(column_type, vec![0, 0, 0, 4, 10, 77, 0, 11])
    });
    refused("vector", Raw(b"\0\0\0\x0aVectorType", vec![4, 10, 77, 0, 11]));
    refused("broken", Raw(&[0, 0x20, 0, 0x0d], vec![0, 0, 0, 9, 1]));
}

#[test]
fn nothing_before_an_address_hides_it() {
    // 0x31 is the length of this text, and the digit 1.
    let mut long = "10.77.0.11 is where this node listens for clients".to_owned();
    long.truncate(0x31);
    assert_eq!(long.len(), 0x31);
    check_refused(
        "local",
        &["x"],
        vec![Raw(&[0, 0x20, 0, 0x0d], collection([long.as_bytes()].into_iter()))],
        "local.x",
    );
}

#[test]
fn values_that_only_look_like_addresses_pass() {
    // The bytes of 10.77.0.11 across a commit log position, as in a real truncated_at.
    let blob = [&[0, 0, 1, 0x8b][..], &[10, 77, 0, 11], &[0; 12]].concat();
    let mut truncated_at = vec![0, 0, 0, 1];
    Writer::new(&mut truncated_at).value(Value::Bytes(&[10, 77, 0, 11].repeat(4))).value(Value::Bytes(&blob));
    for (name, cell) in [
        ("truncated_at", Raw(&[0, 0x21, 0, 0x0c, 0, 0x03], truncated_at)),
        ("schema_version", Raw(&[0, 0x0c], [10, 77, 0, 11].repeat(4))),
        ("writetime(rpc_address)", Raw(&[0, 0x02], vec![0, 6, 10, 77, 0, 11, 0, 0])),
        ("tokens", Texts(vec!["-9223372036854775808", "1077011"])),
        ("release_version", text("5.0.9")),
        ("dse_version", text("6.8.40")),
        ("cql_version", text("3.4.7")),
        ("gossip_generation", Int(0x0a4d_000b)),
        ("count", Raw(&[0, 0x02], vec![0, 0, 0, 0, 0, 0, 0, 1])),
        ("time", text("12:30:45")),
        // Bytes of 10.77.0.11, under a name of the table's own.
        ("rack", text("\nM\0\u{b}")),
    ] {
        check("local", &[name], &[vec![cell.clone()]], &[vec![cell]]);
    }
    check("peers", &["schema_version"], &[vec![Id(1)], vec![Id(2)]], &[vec![Id(1)], vec![Id(2)]]);
}

#[test]
fn a_whole_local_row_of_cassandra_5_passes_but_for_its_endpoint() {
    let names = [
        "key",
        "bootstrapped",
        "broadcast_address",
        "broadcast_port",
        "cluster_name",
        "cql_version",
        "data_center",
        "gossip_generation",
        "host_id",
        "listen_address",
        "listen_port",
        "native_protocol_version",
        "partitioner",
        "rack",
        "release_version",
        "rpc_address",
        "rpc_port",
        "schema_version",
        "tokens",
        "truncated_at",
    ];
    let row = |address, port| {
        vec![
            text("local"),
            text("COMPLETED"),
            Inet("10.77.0.11"),
            Int(7000),
            text("rig"),
            text("3.4.7"),
            text("dc1"),
            Int(1_763_000_000),
            Id(9042),
            Inet("10.77.0.11"),
            Int(7000),
            text("5"),
            text("org.apache.cassandra.dht.Murmur3Partitioner"),
            text("r1"),
            text("5.0.9"),
            Inet(address),
            Int(port),
            Id(5),
            Texts(vec!["-9223372036854775808"]),
            null(Raw(&[0, 0x21, 0, 0x0c, 0, 0x03], vec![])),
        ]
    };
    check("local", &names, &[row("10.77.0.11", 9042)], &[row(G, 9042)]);
    let before = frame(5, 0, &message("local", &names, &[row("10.77.0.11", 9042)], &row(G, 1)));
    let local = seen_by(&NodePorts, Injection::default(), &before).unwrap().1.local.unwrap();
    assert_eq!(local.host_id, Some(HostId(Uuid::from_u128(9042))));
    assert_eq!(local.native, Some(("10.77.0.11".parse().unwrap(), Some(9042))));
    assert_eq!(
        (local.data_center.as_deref(), local.rack.as_deref(), local.cluster_name.as_deref()),
        (Some("dc1"), Some("r1"), Some("rig"))
    );
}

#[test]
fn a_rack_named_like_an_address_passes_when_it_is_known() {
    let mut topology = topology();
    let mut nodes: Vec<Node> = topology.nodes.iter().map(|node| (**node).clone()).collect();
    nodes[0].rack = Some(Arc::from("10.77.0.12"));
    topology = Topology::new(2, Arc::clone(&topology.paths), nodes);
    let row = vec![text("10.77.0.12")];
    let before = frame(4, 0, &message("local", &["rack"], std::slice::from_ref(&row), &row));
    assert_eq!(rewrite_rows(&before, perspective(topology)).unwrap().0, Made::Unchanged);
}

#[test]
fn a_port_alone_belongs_to_nobody_and_is_refused() {
    check_refused("peers_v2", &["native_port"], vec![Int(9042)], "select host_id or peer with native_port");
    check_refused(
        "peers_v2",
        &["[json]"],
        vec![text("{\"native_port\": 9042}")],
        "select host_id or peer with native_port",
    );
    check_refused(
        "peers_v2",
        &["system.tojson(native_port)"],
        vec![text("9042")],
        "select host_id or peer with native_port",
    );
    // Nodes that know each other by other addresses than clients do.
    let row = vec![Inet("192.168.0.12"), Int(9042)];
    check_refused("peers_v2", &["peer", "native_port"], row, "select host_id with native_port");
}

#[test]
fn prefixes_and_paging_stay_as_they_were() {
    let rows = [vec![Id(9043), Inet("10.77.0.12")], vec![Id(9044), Inet("10.77.0.13")]];
    let mut prefix = vec![0x77; 16];
    Writer::new(&mut prefix).string_list(&["careful"]).u16(1).string("k").value(Value::Bytes(&[1, 2]));
    let body = |rows: &[Vec<C>]| {
        let mut message = message("peers", &["host_id", "rpc_address"], rows, &rows[0]);
        message[7] |= (metadata_flags::HAS_MORE_PAGES | metadata_flags::METADATA_CHANGED) as u8;
        message.splice(12..12, [0, 0, 0, 3, 9, 9, 9, 0, 2, 0xaa, 0xbb]);
        message.extend_from_slice(b"and more data");
        [&prefix[..], &message].concat()
    };
    let flags = Flags::TRACING | Flags::WARNING | Flags::CUSTOM_PAYLOAD;
    for version in [3, 4, 5] {
        let before = frame(version, flags, &body(&rows));
        let report = seen_by(&NodePorts, Injection::default(), &before).unwrap();
        assert_eq!(rewritten(report, &before), frame(version, flags, &body(&[vec![Id(9043), Inet(G)]])));
    }
}

#[test]
fn single_node_shows_its_own_row_and_nobody_else() {
    let rows = [vec![Id(9043), Inet("10.77.0.12")], vec![Id(9044), Inet("10.77.0.13")]];
    for table in ["peers", "peers_v2"] {
        let before = frame(4, 0, &message(table, &["host_id", "rpc_address"], &rows, &rows[0]));
        let report = seen_by(&SingleNode, Injection::default(), &before).unwrap();
        assert_eq!(report.1.hidden.len(), 2);
        assert_eq!(
            rewritten(report, &before),
            frame(4, 0, &message(table, &["host_id", "rpc_address"], &[], &rows[0]))
        );
    }
    let row = vec![Inet("10.77.0.11"), Int(9042)];
    let local =
        |row: Vec<C>| frame(4, 0, &message("local", &["rpc_address", "rpc_port"], std::slice::from_ref(&row), &row));
    let report = seen_by(&SingleNode, Injection::default(), &local(row.clone())).unwrap();
    assert_eq!(rewritten(report, &[]), local(vec![Inet(G), Int(9042)]));
}

#[test]
fn columns_are_injected_where_they_are_wanted_and_missing() {
    let both = Injection { local: true, peers: true };
    let case = |view: &'static dyn View, table, names: &[&str], row: Vec<C>| {
        let before = frame(4, 0, &message(table, names, std::slice::from_ref(&row), &row));
        rewritten(seen_by(view, both, &before).unwrap(), &before)
    };
    let plain =
        |table, names: &[&str], row: Vec<C>| frame(4, 0, &message(table, names, std::slice::from_ref(&row), &row));
    let added = &["host_id", "rpc_address", "native_address", "native_port"];
    assert_eq!(
        case(&NodePorts, "local", &added[..2], vec![Id(9042), Inet("10.77.0.11")]),
        plain("local", added, vec![Id(9042), Inet(G), Inet(G), Int(9042)])
    );
    assert_eq!(
        case(&NodePorts, "peers", &added[..2], vec![Id(9043), Inet("10.77.0.12")]),
        plain("peers", added, vec![Id(9043), Inet(G), Inet(G), Int(9043)])
    );
    // Not into what a user asked for, not into peers_v2, not for drivers that know no ports.
    assert_eq!(
        case(&NodePorts, "local", &["rpc_address"], vec![Inet("10.77.0.11")]),
        plain("local", &["rpc_address"], vec![Inet(G)])
    );
    let names = ["host_id", "rpc_address"];
    assert_eq!(
        case(&NodePorts, "peers_v2", &names, vec![Id(9043), Inet("10.77.0.12")]),
        plain("peers_v2", &names, vec![Id(9043), Inet(G)])
    );
    assert_eq!(
        case(&SingleNode, "local", &names, vec![Id(1), Inet("10.77.0.11")]),
        plain("local", &names, vec![Id(1), Inet(G)])
    );
}

#[test]
fn the_raw_bytes_never_pass_when_the_answer_is_not_understood() {
    let row = vec![Id(9043), Inet("10.77.0.12")];
    let whole = message("peers", &["host_id", "rpc_address"], std::slice::from_ref(&row), &row);
    for have in 0..whole.len() {
        assert!(seen_by(&NodePorts, Injection::default(), &frame(4, 0, &whole[..have])).is_err(), "{have}");
    }
    let other = frame(4, 0, &message("clients", &["address"], &[vec![Inet("10.0.0.1")]], &[Inet("10.0.0.1")]));
    assert_eq!(seen_by(&NodePorts, Injection::default(), &other), Err(Unrewritable::NotASystemTable));
    let local = frame(4, 0, &message("local", &["rpc_address"], &[vec![Inet("10.0.0.1")]], &[Inet("10.0.0.1")]));
    let perspective = Perspective { attached: 9050, ..perspective(Topology::new(1, topology().paths, [])) };
    assert_eq!(rewrite_rows(&local, perspective), Err(Unrewritable::NoNode(9050)));
}

#[test]
fn a_thousand_peers_with_256_tokens_each() {
    let nodes = (0..1000u16).map(|n| {
        let address = format!("10.78.{}.{}:9042", n / 250, n % 250 + 1);
        Node { state: NodeState::Up, ..Node::example(&format!("n{n}"), 10_000 + n, &address) }
    });
    let topology = Topology::new(1, topology().paths, nodes);
    let addresses: Vec<&'static str> =
        (0..1000).map(|n| &*format!("10.78.{}.{}", n / 250, n % 250 + 1).leak()).collect();
    let names = ["peer", "host_id", "native_address", "native_port", "tokens"];
    let row = |n: usize, address, port| {
        let tokens = Texts(vec!["-9223372036854775808"; 256]);
        vec![Inet(addresses[n]), Id(10_000 + n as u16), Inet(address), Int(port), tokens]
    };
    let rows: Vec<_> = (0..1000).map(|n| row(n, addresses[n], 9042)).collect();
    let expected: Vec<_> = (0..1000).map(|n| row(n, G, 10_000 + n as i32)).collect();
    let before = frame(5, 0, &message("peers_v2", &names, &rows, &rows[0]));
    let perspective = Perspective { attached: 10_000, ..perspective(topology) };
    let report = rewrite_rows(&before, perspective).unwrap();
    assert!(report.1.hidden.is_empty());
    assert!(rewritten(report, &before) == frame(5, 0, &message("peers_v2", &names, &expected, &rows[0])));
}
