//! SELECT JSON and toJson().

use proptest::prelude::*;

use super::*;

/// A row of SELECT JSON comes out as `expected`.
#[track_caller]
fn json(table: &str, row: &str, expected: &str) {
    check(table, &["[json]"], &[vec![text(row)]], &[vec![text(expected)]]);
}

fn id(port: u16) -> String {
    Uuid::from_u128(u128::from(port)).to_string()
}

/// As a node of Cassandra 5.0.9 wrote it, in a ring with these addresses.
#[test]
fn a_rows_endpoint_is_replaced_and_the_internode_identity_stays() {
    json(
        "peers_v2",
        r#"{"peer": "10.77.0.12", "native_address": "10.77.0.12", "native_port": 9042}"#,
        r#"{"peer": "10.77.0.12", "native_address": "203.0.113.10", "native_port": 9043}"#,
    );
    let all = |address: &str, port, preferred: &str| {
        format!(
            r#"{{"peer": "10.77.0.12", "peer_port": 7000, "data_center": "dc1", "host_id": "{}", "native_address": "{address}", "native_port": {port}, "preferred_ip": {preferred}, "preferred_port": {preferred}, "rack": "r1", "release_version": "5.0.9", "schema_version": "{}", "tokens": ["-3074457345618258603", "1"]}}"#,
            id(9043),
            id(7),
        )
    };
    json("peers_v2", &all("10.77.0.12", 9042, "null"), &all(G, 9043, "null"));
    // The node has moved; the row still names an address that it has left.
    json("peers_v2", &all("10.77.0.99", 9042, "null"), &all(G, 9043, "null"));
    let local = |address: &str, port| {
        format!(
            r#"{{"key": "local", "bootstrapped": "COMPLETED", "broadcast_address": "10.77.0.11", "broadcast_port": 7000, "cluster_name": "rig", "cql_version": "3.4.7", "data_center": "dc1", "gossip_generation": 172818443, "host_id": "{}", "listen_address": "10.77.0.11", "listen_port": 7000, "native_protocol_version": "5", "rack": "r1", "release_version": "5.0.9", "rpc_address": {address}, "rpc_port": {port}, "schema_version": "{}", "tokens": ["-9223372036854775808"], "truncated_at": {{"176c39cd-b93d-33a5-a218-8eb06a56f66e": "0x0000018b0a4d000b000000000000000000"}}}}"#,
            id(9042),
            id(7),
        )
    };
    let told = local("\"203.0.113.10\"", 9042);
    json("local", &local("\"10.77.0.11\"", 1234), &told);
    json("local", &local("null", 1234), &told);
    json("local", &local("\"0.0.0.0\"", 1234), &told);
}

#[test]
fn a_column_alone_is_replaced_in_its_own_json() {
    let names = ["host_id", "system.tojson(native_address)", "system.to_json(native_port)", "system.tojson(peer)"];
    let row =
        |address: &str, port: &str| vec![Id(9043), text(&format!("\"{address}\"")), text(port), text("\"10.77.0.12\"")];
    check("peers_v2", &names, &[row("10.77.0.12", "9042")], &[row(G, "9043")]);
    // Whose it is, the JSON says too; by an address where it has no host_id.
    for whose in [format!("\"{}\"", id(9043)), "null".to_owned()] {
        let row = |address, port: &str| vec![text(&whose), text(address), text(port)];
        let names = ["system.tojson(host_id)", "system.tojson(native_address)", "system.tojson(native_port)"];
        check("peers_v2", &names, &[row("\"10.77.0.12\"", "9042")], &[row("\"203.0.113.10\"", "9043")]);
    }
    check("peers", &["system.tojson(rpc_address)"], &[vec![text("\"10.77.0.12\"")]], &[vec![text("\"203.0.113.10\"")]]);
    check("local", &["system.tojson(rpc_port)"], &[vec![text("1234")]], &[vec![text("9042")]]);
}

#[test]
fn an_advertised_ipv6_address_is_written_as_nodes_write_it() {
    let row = |address| frame(4, 0, &message("local", &["[json]"], &[vec![text(address)]], &[text("")]));
    let before = row(r#"{"rpc_address": "fd00:0:0:0:0:0:0:11"}"#);
    let perspective = Perspective { family: crate::topology::Family::Ipv6, ..perspective(topology()) };
    let (made, _) = rewrite_rows(&before, perspective).unwrap();
    assert_eq!(made, Made::Frame(row(r#"{"rpc_address": "2001:db8:0:0:0:0:0:10"}"#)));
}

#[test]
fn rows_of_nodes_that_clients_are_not_told_of_are_left_out() {
    let row =
        |port, address: &str| vec![text(&format!(r#"{{"host_id": "{}", "native_address": "{address}"}}"#, id(port)))];
    let rows = [row(9043, "10.77.0.12"), row(9044, "10.77.0.13"), row(1, "10.77.0.50"), row(1, "10.77.0.12")];
    check("peers_v2", &["[json]"], &rows, &[row(9043, G)]);
    let before = frame(4, 0, &message("peers", &["[json]"], &rows, &rows[0]));
    let report = seen_by(&SingleNode, Injection::default(), &before).unwrap();
    assert_eq!(report.1.hidden.len(), 4);
    assert_eq!(rewritten(report, &before), frame(4, 0, &message("peers", &["[json]"], &[], &rows[0])));
    // What says nothing of whose it is, and nothing to dial, is the cluster's in JSON, too.
    let row = vec![text(&format!(r#"{{"schema_version": "{}", "count": 2}}"#, id(7)))];
    let before = frame(4, 0, &message("peers", &["[json]"], std::slice::from_ref(&row), &row));
    assert_eq!(seen_by(&SingleNode, Injection::default(), &before).unwrap().0, Made::Unchanged);
    for whose in ["host_id", "peer", "native_port", "rpc_address"] {
        let row = vec![text(&format!("{{\"{whose}\": null}}"))];
        let before = frame(4, 0, &message("peers", &["[json]"], std::slice::from_ref(&row), &row));
        assert_eq!(seen_by(&SingleNode, Injection::default(), &before).unwrap().1.hidden.len(), 1, "{whose}");
    }
}

#[test]
fn aliases_are_replaced_where_they_are_the_nodes_own() {
    let row =
        |address: &str, port| format!(r#"{{"host_id": "{}", "a": "{address}", "p": {port}, "other": 7000}}"#, id(9043));
    json("peers_v2", &row("10.77.0.12", 9042), &row(G, 9043));
    json("peers_v2", r#"{"a": "10.77.0.12"}"#, r#"{"a": "203.0.113.10"}"#);
    json("peers_v2", r#"{"p": 9042, "a": "10.77.0.12"}"#, r#"{"p": 9043, "a": "203.0.113.10"}"#);
    json(
        "peers_v2",
        r#"{"cast(native_address as text)": "10.77.0.12"}"#,
        r#"{"cast(native_address as text)": "203.0.113.10"}"#,
    );
    json("local", r#"{"a": "10.77.0.11", "p": 9042}"#, r#"{"a": "203.0.113.10", "p": 9042}"#);
    // Beside an alias that is no JSON.
    let names = ["host_id", "a", "[json]"];
    let row = |address, port: &str| vec![Id(9043), Inet(address), text(port)];
    check("peers_v2", &names, &[row("10.77.0.12", r#"{"p": 9042}"#)], &[row(G, r#"{"p": 9043}"#)]);
}

#[test]
fn what_would_show_an_address_in_another_form_is_refused_by_its_name() {
    let row = |member: &str| vec![text(&format!(r#"{{"host_id": "{}", {member}}}"#, id(9043)))];
    for (member, name) in [
        (r#""a": "10.77.0.50""#, "a"),
        (r#""a": "10.77.0.13""#, "a"),
        (r#""rack": "10.77.0.12""#, "rack"),
        (r#""cast(native_address as text)": "/10.77.0.12""#, "cast(native_address as text)"),
        (r#""system.inetasblob(native_address)": "0x0a4d000c""#, "system.inetasblob(native_address)"),
        (r#""b": "0x31302e37372e302e3132""#, "b"),
        (r#""t": "\nM\u0000\f""#, "t"),
        (r#""i": 172818444"#, "i"),
        (r#""l": ["x", "10.77.0.12"]"#, "l"),
        (r#""m": {"10.77.0.12": 1}"#, "m"),
        (r#""u": [1, 172818444]"#, "u"),
        (r#""s": ["x", "\nM\u0000\f"]"#, "s"),
        (r#""tokens": [[172818444]]"#, "tokens"),
        (r#""tokens": ["-1", "10.77.0.12"]"#, "tokens"),
        (r#""system.tojson(native_address)": "\"10.77.0.12\"""#, "system.tojson(native_address)"),
    ] {
        check_refused("peers_v2", &["[json]"], row(member), &format!("peers_v2.[json] ({name}) would show"));
    }
    check_refused("peers", &["system.tojson(rack)"], vec![text("\"10.77.0.12\"")], "peers.system.tojson(rack) (rack)");
    // A name does not make JSON of it.
    for not_json in ["10.77.0.12", "{\"rpc_address\": \"10.77.0.12\"", "[\"10.77.0.12\"]", "{\"i\": 172818444"] {
        check_refused("peers", &["[json]"], vec![text(not_json)], "peers.[json] would show");
    }
    let long = format!("{{\"a\": \"{}\"}}", "x".repeat(MAX_LOOKED_AT));
    check_refused("local", &["[json]"], vec![text(&long)], "select fewer columns");
}

#[test]
fn a_rack_may_be_called_like_an_address_where_the_node_is_known_to_be_there() {
    let node = Node { rack: Some(Arc::from("10.77.0.12")), ..Node::example("b", 9043, "10.77.0.12:9042") };
    let topology = Topology::new(1, topology().paths, [Node { state: NodeState::Up, ..node }]);
    let row = |address| {
        let json = format!(r#"{{"host_id": "{}", "rack": "10.77.0.12", "rpc_address": "{address}"}}"#, id(9043));
        frame(4, 0, &message("peers", &["[json]"], &[vec![text(&json)]], &[text("")]))
    };
    let (made, _) = rewrite_rows(&row("10.77.0.12"), perspective(topology)).unwrap();
    assert_eq!(made, Made::Frame(row(G)));
}

/// Names of columns and of what stands for none, and values in whose every form an address is.
fn member() -> impl Strategy<Value = String> {
    let name = prop::sample::select(vec![
        "host_id",
        "native_address",
        "rpc_address",
        "native_port",
        "preferred_ip",
        "rack",
        "tokens",
        "schema_version",
        "key",
        "a",
        "[json]",
        "system.tojson(rpc_address)",
        "a\\u0000\\\"b",
    ]);
    let value = prop::sample::select(vec![
        "null",
        "true",
        "9042",
        "1.5",
        "172818444",
        "\"10.77.0.12\"",
        "\"::ffff:10.77.0.12\"",
        "\"fd00:0:0:0:0:0:0:14\"",
        "\"at 10.77.0.12\"",
        "\"0x0a4d000c\"",
        "[\"10.77.0.12\"]",
        "[[172818444]]",
        "{\"10.77.0.12\": {}}",
        "\"00000000-0000-0000-0000-000000002353\"",
        "\"\\\"10.77.0.12\\\"\"",
    ]);
    (name, value).prop_map(|(name, value)| format!("\"{name}\": {value}"))
}

proptest! {
    #[test]
    fn no_address_is_told_whatever_is_in_the_json(
        table in prop::sample::select(vec!["local", "peers", "peers_v2"]),
        members in prop::collection::vec(member(), 0..6),
        cut in any::<prop::sample::Index>(),
        is_cut in prop::bool::weighted(0.2),
        alone in any::<bool>(),
    ) {
        let mut json = format!("{{{}}}", members.join(", "));
        let name = if alone { "system.tojson(native_address)" } else { "[json]" };
        if let Some(member) = members.first().filter(|_| alone) {
            json = member.split_once(": ").unwrap().1.to_owned();
        }
        if is_cut {
            json.truncate((0..=cut.index(json.len() + 1)).rev().find(|&at| json.is_char_boundary(at)).unwrap());
        }
        let row = vec![text(&json)];
        let before = frame(4, 0, &message(table, &[name], std::slice::from_ref(&row), &row));
        let views: [&'static dyn View; 2] = [&NodePorts, &SingleNode];
        for view in views {
            let shown = match seen_by(view, Injection::default(), &before).unwrap().0 {
                Made::Frame(frame) => frame,
                Made::Unchanged => before.clone(),
                Made::Refused(text) => text.into_bytes(),
            };
            let shown = String::from_utf8_lossy(&shown[HEADER_LEN..]).into_owned();
            for form in ["10.77.0.12", "0a4d000c", "172818444", "fd00:0:0:0:0:0:0:14"] {
                prop_assert!(!shown.contains(form), "{form} is told: {json} became {shown}");
            }
        }
    }
}
