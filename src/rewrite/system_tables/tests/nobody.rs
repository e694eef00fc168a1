//! Rows that tell nothing to dial and do not say whose they are.

use std::collections::BTreeMap;

use super::*;

fn bigint(number: i64) -> C {
    Raw(&[0, 0x02], number.to_be_bytes().to_vec())
}

fn in_each_view(table: &str, names: &[&str], rows: &[Vec<C>]) -> [(Vec<u8>, Made, Report); 2] {
    let views: [&'static dyn View; 2] = [&NodePorts, &SingleNode];
    views.map(|view| {
        let before = frame(4, 0, &message(table, names, rows, &rows[0]));
        let (made, report) = seen_by(view, Injection::default(), &before).unwrap();
        (before, made, report)
    })
}

#[track_caller]
fn pass(names: &[&str], rows: &[Vec<C>]) {
    for table in ["peers", "peers_v2"] {
        for (_, made, report) in in_each_view(table, names, rows) {
            assert_eq!((made, report.hidden.len()), (Made::Unchanged, 0), "{table} {names:?}");
        }
    }
}

/// Programs take the first row of a count unchecked (scylla-cdc, scylla-manager); Node.js and C# compare schema versions.
#[test]
fn pass_in_every_view() {
    pass(&["count"], &[vec![bigint(2)]]);
    pass(&["schema_version"], &[vec![Id(1)], vec![Id(2)]]);
    pass(&["release_version"], &[vec![text("5.0.9")], vec![text("4.1.10")]]);
    pass(&["data_center", "rack", "tokens"], &[vec![text("dc1"), text("r1"), Texts(vec!["-1"])]]);
    pass(&["system.max(writetime(rack))"], &[vec![bigint(1_763_000_000_000_000)]]);
}

#[test]
fn are_searched_in_every_view() {
    for (name, cell) in [
        ("rack", text("10.77.0.12")),
        ("tokens", Texts(vec!["-1", "10.77.0.12"])),
        ("cast(native_address as text)", text("10.99.0.1")),
        ("system.inetasblob(native_address)", Raw(&[0, 0x03], vec![10, 77, 0, 12])),
        ("x", Int(i32::from_be_bytes([10, 77, 0, 12]))),
    ] {
        for (_, made, _) in in_each_view("peers_v2", &["schema_version", name], &[vec![Id(1), cell]]) {
            assert!(matches!(&made, Made::Refused(text) if text.contains(name)), "{name}: {made:?}");
        }
    }
}

/// Each node is an address of its own, and all have one port.
fn address_each() -> Topology {
    use crate::config::External;
    use crate::config::advertise::{DialledPort, Part, Path, Told};
    use crate::topology::Paths;
    let address = |port: u16| External::ip([192, 0, 2, port as u8].into());
    let part = |port| Part::new(port, port, address(port), DialledPort::Only(9142));
    let plan = [Path::new("each", Told::Ports((9042..9046).map(part).collect()))];
    topology().with_paths(&Arc::new(Paths::of(&plan, &BTreeMap::new(), &Paths::default())))
}

#[test]
fn are_those_of_a_port_that_all_nodes_have() {
    for (name, was, is) in [
        ("native_port", Int(9042), Int(9142)),
        ("[json]", text("{\"native_port\": 9042}"), text("{\"native_port\": 9142}")),
        ("system.tojson(native_port)", text("9042"), text("9142")),
    ] {
        let rows = |cell: C| {
            frame(
                4,
                0,
                &message(
                    "peers_v2",
                    &["schema_version", name],
                    &[vec![Id(1), cell.clone()], vec![Id(1), cell]],
                    &[Id(1), was.clone()],
                ),
            )
        };
        let before = rows(was.clone());
        let report = rewrite_rows(&before, perspective(address_each())).unwrap();
        assert_eq!(rewritten(report, &before), rows(is));
    }
    // One node alone has one port, whatever the View.
    let one = Topology::new(
        1,
        topology().paths,
        [Node { state: NodeState::Up, ..Node::example("a", 9043, "10.77.0.12:9042") }],
    );
    let rows = |port| frame(4, 0, &message("peers_v2", &["native_port"], &[vec![Int(port)]], &[Int(port)]));
    let (made, _) = rewrite_rows(&rows(9042), perspective(one)).unwrap();
    assert_eq!(made, Made::Frame(rows(9043)));
}

/// Whoever sees one node is told of no other by a row that says whose it is, or where somebody is, under whatever name.
#[test]
fn are_not_those_that_say_whose_they_are() {
    for (name, cell) in [
        ("host_id", Id(9043)),
        ("host_id", null(Id(9043))),
        ("peer", Inet("10.77.0.12")),
        ("native_address", Inet("10.77.0.12")),
        ("native_port", Int(9042)),
        ("a", Inet("10.77.0.12")),
        ("system.max(native_address)", Inet("10.77.0.12")),
    ] {
        let [_, (before, made, report)] = in_each_view("peers_v2", &["schema_version", name], &[vec![Id(1), cell]]);
        assert_eq!(report.hidden.len(), 1, "{name}");
        assert!(matches!(made, Made::Frame(frame) if frame.len() < before.len()), "{name}");
    }
}
