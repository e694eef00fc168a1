//! Rows of nodes that this gateway does not serve.

use proptest::prelude::*;

use super::*;
use crate::config::Fate;
use crate::topology::Unserved;

const KEEP: config::Unserved = config::Unserved { remote: Fate::Keep, ghosts: Fate::Keep };
const HIDE: config::Unserved = config::Unserved { remote: Fate::Hide, ghosts: Fate::Hide };

/// The usual cluster, all of it in dc1.
fn in_dc1() -> Topology {
    let topology = topology();
    let in_dc1 = |node: &Arc<Node>| Node { data_center: Some(Arc::from("dc1")), ..(**node).clone() };
    Topology::new(2, Arc::clone(&topology.paths), topology.nodes.iter().map(in_dc1).collect::<Vec<_>>())
        .with_former([("10.77.0.99:9042".parse().unwrap(), NodeId::new("b"))])
}

fn looked_at(topology: Topology, is_plain: bool, unserved: config::Unserved, before: &[u8]) -> (Made, Report) {
    rewrite_rows(before, Perspective { is_plain, unserved, ..perspective(topology) }).unwrap()
}

const NAMES: [&str; 9] = [
    "peer",
    "peer_port",
    "data_center",
    "host_id",
    "native_address",
    "native_port",
    "preferred_ip",
    "preferred_port",
    "tokens",
];

/// A row of `SELECT * FROM system.peers_v2`.
fn row(data_center: &str, id: u16, address: &'static str) -> Vec<C> {
    vec![
        Inet(address),
        Int(7000),
        text(data_center),
        Id(id),
        Inet(address),
        Int(9042),
        Inet(address),
        Int(7001),
        Texts(vec!["-3074457345618258603"]),
    ]
}

/// b's row, as clients see it.
fn served() -> Vec<C> {
    let mut row = row("dc1", 9043, "10.77.0.12");
    (row[4], row[5], row[6], row[7]) = (Inet(G), Int(9043), null(Inet(G)), null(Int(0)));
    row
}

fn peers_v2(rows: &[Vec<C>]) -> Vec<u8> {
    frame(4, 0, &message("peers_v2", &NAMES, rows, &row("", 0, G)))
}

/// What is told of b, a node of dc2 and a ghost of dc1.
#[track_caller]
fn check_told(is_plain: bool, unserved: config::Unserved, expected: &[Vec<C>], reasons: &[HiddenReason]) -> Report {
    let before = peers_v2(&[row("dc1", 9043, "10.77.0.12"), row("dc2", 7, "10.99.0.7"), row("dc1", 8, "10.77.0.88")]);
    let seen = looked_at(in_dc1(), is_plain, unserved, &before);
    let hidden: Vec<_> = seen.1.hidden.iter().map(|row| row.reason).collect();
    assert_eq!(hidden, reasons.iter().map(|&reason| LeftOut::Hidden(reason)).collect::<Vec<_>>());
    let report = seen.1.clone();
    assert_eq!(rewritten(seen, &before), peers_v2(expected));
    report
}

#[test]
fn are_hidden_and_told_apart_unless_they_are_to_be_kept() {
    let report = check_told(true, HIDE, &[served()], &[HiddenReason::Remote, HiddenReason::Ghost]);
    assert_eq!(report.kept, []);
}

#[test]
fn pass_as_they_are_where_they_are_kept() {
    let (remote, ghost) = (row("dc2", 7, "10.99.0.7"), row("dc1", 8, "10.77.0.88"));
    let report = check_told(true, KEEP, &[served(), remote.clone(), ghost.clone()], &[]);
    let kept = |id, address: &str, node| KeptRow {
        host_id: Some(HostId(Uuid::from_u128(id))),
        address: Some(address.parse().unwrap()),
        node,
    };
    let kept = [kept(7, "10.99.0.7:9042", Unserved::Remote), kept(8, "10.77.0.88:9042", Unserved::Ghost)];
    assert_eq!((report.kept, report.kept_besides), (kept.to_vec(), vec![]));
    check_told(true, config::Unserved { ghosts: Fate::Hide, ..KEEP }, &[served(), remote], &[HiddenReason::Ghost]);
    check_told(true, config::Unserved { remote: Fate::Hide, ..KEEP }, &[served(), ghost], &[HiddenReason::Remote]);
}

#[test]
fn are_hidden_where_columns_may_be_called_by_other_names() {
    check_told(false, KEEP, &[served()], &[HiddenReason::NoPort, HiddenReason::NoPort]);
}

#[test]
fn are_hidden_where_it_cannot_be_told_whose_they_are() {
    let hidden = |names: &[&str], row: Vec<C>, topology: Topology| {
        let before = frame(4, 0, &message("peers_v2", names, std::slice::from_ref(&row), &row));
        let (_, report) = looked_at(topology, true, KEEP, &before);
        assert_eq!((report.kept, report.hidden.len()), (vec![], 1), "{names:?} {row:?}");
    };
    // Columns that say it are not asked for, or are null.
    hidden(&["host_id", "native_address"], vec![Id(7), Inet("10.99.0.7")], in_dc1());
    hidden(&["data_center", "native_address"], vec![text("dc2"), Inet("10.99.0.7")], in_dc1());
    let names = ["data_center", "host_id", "native_address"];
    hidden(&names, vec![null(text("")), Id(7), Inet("10.99.0.7")], in_dc1());
    hidden(&names, vec![text("dc2"), null(Id(7)), Inet("10.99.0.7")], in_dc1());
    // No data center is known.
    hidden(&names, vec![text("dc2"), Id(7), Inet("10.99.0.7")], topology());
    // The host_id or an address is that of a node that is served: up, not announced, gone from there, in whatever column.
    for address in ["10.77.0.11", "10.77.0.13", "10.77.0.99", "fd00::14"] {
        hidden(&names, vec![text("dc2"), Id(7), Inet(address)], in_dc1());
        for name in ["peer", "preferred_ip", "another"] {
            let names = ["data_center", "host_id", "native_address", name];
            hidden(&names, vec![text("dc2"), Id(7), Inet("10.99.0.7"), Inet(address)], in_dc1());
        }
        let names = ["data_center", "host_id", "native_address", "rack"];
        hidden(&names, vec![text("dc2"), Id(7), Inet("10.99.0.7"), text(&format!("r {address}"))], in_dc1());
    }
    hidden(&names, vec![text("dc2"), Id(9044), Inet("10.99.0.7")], in_dc1());
}

#[test]
fn the_view_of_one_node_keeps_nobody() {
    let before = peers_v2(&[row("dc2", 7, "10.99.0.7")]);
    let perspective = Perspective { view: &SingleNode, is_plain: true, unserved: KEEP, ..perspective(in_dc1()) };
    let (made, report) = rewrite_rows(&before, perspective).unwrap();
    assert_eq!((made, report.kept, report.hidden[0].reason), (Made::Frame(peers_v2(&[])), vec![], LeftOut::View));
}

#[test]
fn an_answer_that_is_refused_has_told_nobody() {
    let names = ["data_center", "host_id", "native_address", "rack"];
    let rows = [
        vec![text("dc2"), Id(7), Inet("10.99.0.7"), text("r1")],
        vec![text("dc1"), Id(9043), Inet("10.77.0.12"), text("10.77.0.12")],
    ];
    let before = frame(4, 0, &message("peers_v2", &names, &rows, &rows[0]));
    let (made, report) = looked_at(in_dc1(), true, KEEP, &before);
    assert!(matches!(made, Made::Refused(_)) && report.kept.is_empty(), "{made:?}");
}

#[test]
fn columns_that_are_injected_have_the_rows_address_and_the_port_of_all_nodes() {
    let names = ["data_center", "host_id", "rpc_address", "native_address", "native_port"];
    let rows = |more: usize| {
        let told = [
            vec![text("dc1"), Id(9043), Inet(G), Inet(G), Int(9043)],
            vec![text("dc2"), Id(7), Inet("10.99.0.7"), Inet("10.99.0.7"), Int(9042)],
        ];
        let rows = told.map(|row| row[..3 + more].to_vec());
        frame(4, 0, &message("peers", &names[..3 + more], &rows, &rows[0]))
    };
    let injection = Injection { local: true, peers: true };
    // Attached to a node whose port here is not its own.
    let perspective =
        Perspective { attached: 9045, injection, is_plain: true, unserved: KEEP, ..perspective(in_dc1()) };
    let (made, _) = rewrite_rows(&rows(0), perspective).unwrap();
    assert_eq!(made, Made::Frame(rows(2)));
}

/// Names of columns, also for what they do not stand for, as an alias makes them.
fn name() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "data_center",
        "host_id",
        "native_address",
        "rpc_address",
        "native_port",
        "preferred_ip",
        "rack",
        "tokens",
        "schema_version",
        "x",
    ])
}

/// A node's address in some form, or something else.
fn cell() -> impl Strategy<Value = C> {
    let address = || prop::sample::select(vec!["10.77.0.11", "10.77.0.12", "10.77.0.13", "10.77.0.99", "fd00::14"]);
    let octets = |address: &str| inet_cell_bytes(address.parse().unwrap()).as_ref().to_vec();
    prop_oneof![
        prop::sample::select(vec!["dc1", "dc2", "r1", ""]).prop_map(text),
        prop_oneof![Just(7), 9042u16..9046].prop_map(Id),
        Just(Inet("10.99.0.7")),
        Just(Int(9042)),
        address().prop_map(Inet),
        address().prop_map(|address| text(&format!("at {address}"))),
        address().prop_map(|address| Texts(vec!["-1", address])),
        address().prop_map(move |address| Raw(&[0, 0x03], octets(address))),
        address().prop_map(move |address| Raw(b"\0\0\0\x0aVectorType", [&[4][..], &octets(address)].concat())),
    ]
}

proptest! {
    /// Whatever is selected, under whatever names, and also if it were taken for plain by mistake.
    #[test]
    fn no_address_of_a_served_node_passes_whatever_is_kept(
        table in prop::sample::select(vec!["peers", "peers_v2"]),
        columns in prop::collection::vec((name(), cell()), 1..8),
        of_nobody in prop::option::weighted(0.8, prop::sample::select(vec!["dc1", "dc2"])),
        is_plain in any::<bool>(),
    ) {
        // Mostly a row that would be kept, but for what else is in it.
        let first = of_nobody.map(|data_center| [("data_center", text(data_center)), ("host_id", Id(7))]);
        let columns = first.into_iter().flatten().chain(columns.into_iter().filter(|(name, _)| {
            of_nobody.is_none() || !matches!(*name, "data_center" | "host_id")
        }));
        let (names, cells): (Vec<&str>, Vec<C>) = columns.unzip();
        let before = frame(4, 0, &message(table, &names, std::slice::from_ref(&cells), &cells));
        let shown = match looked_at(in_dc1(), is_plain, KEEP, &before).0 {
            Made::Frame(frame) => frame,
            Made::Unchanged => before,
            Made::Refused(text) => text.into_bytes(),
        };
        for address in ["10.77.0.11", "10.77.0.12", "10.77.0.13", "10.77.0.99", "fd00::14"] {
            let octets = inet_cell_bytes(address.parse().unwrap()).as_ref().to_vec();
            for form in [octets, address.as_bytes().to_vec()] {
                prop_assert!(!shown.windows(form.len()).any(|window| window == form), "{address} is told: {names:?} {cells:?}");
            }
        }
    }
}
