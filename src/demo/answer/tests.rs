use super::super::node::Member;
use super::*;
use crate::cql::rows::Rows;

fn facts() -> Facts {
    let member = |n: u8| Member {
        host_id: uuid::Uuid::from_u128(n.into()),
        address: ([127, 0, 0, n], 9042).into(),
        data_center: "dc1".to_owned(),
        rack: "r1".to_owned(),
        token: n.into(),
        member: true,
        cluster_name: None,
        blind_to: Vec::new(),
    };
    Facts::new((1..=3).map(member).collect())
}

fn run(facts: &Facts, text: &str, parameters: &Parameters<'_>) -> Result<Vec<u8>, String> {
    let scope = Scope { facts, me: 0, keyspace: None };
    prepare(scope, text).and_then(|prepared| prepared.run(scope, parameters, None)).map_err(|refusal| refusal.text)
}

/// The cells of a statement's answer as text; unreadable ones in hex.
fn check(facts: &Facts, text: &str, expected: Result<&[&[&str]], &str>) {
    let found = run(facts, text, &Parameters::default()).map(|message| {
        let parsed = Rows::parse(&message).map(|rows| {
            let cell = |cell: &Value<'_>| String::from_utf8_lossy(cell.bytes().unwrap_or(b"null")).into_owned();
            rows.rows().map(|row| row.iter().map(cell).collect()).collect::<Vec<Vec<_>>>()
        });
        parsed.unwrap_or_default()
    });
    let expected = expected
        .map(|rows| rows.iter().map(|row| row.iter().map(|&cell| cell.to_owned()).collect()).collect::<Vec<Vec<_>>>())
        .map_err(str::to_owned);
    assert_eq!(found, expected, "{text}");
}

#[test]
fn rows_are_written_read_and_deleted_by_key() {
    let facts = facts();
    check(&facts, "INSERT INTO demo.kv (k, v) VALUES ('a', '1')", Ok(&[]));
    check(&facts, "UPDATE demo.kv SET v = '2' WHERE k = 'b'", Ok(&[]));
    check(&facts, "INSERT INTO demo.kv (k) VALUES ('c')", Ok(&[]));
    check(&facts, "SELECT * FROM demo.kv", Ok(&[&["a", "1"], &["b", "2"], &["c", "null"]]));
    check(&facts, "SELECT v AS x FROM demo.kv WHERE k IN ('b', 'z')", Ok(&[&["2"]]));
    check(&facts, "DELETE FROM demo.kv WHERE k = 'a'", Ok(&[]));
    check(&facts, "SELECT k FROM demo.kv LIMIT 1", Ok(&[&["b"]]));
}

#[test]
fn refusals_are_those_of_a_real_node() {
    let facts = facts();
    for (text, expected) in [
        ("SELECT * FROM system_schema.scylla_tables", "table scylla_tables does not exist"),
        ("SELECT * FROM nope.t", "keyspace nope does not exist"),
        ("SELECT nope FROM demo.kv", "Undefined column name nope in table demo.kv"),
        ("USE nope", "Keyspace 'nope' does not exist"),
        ("INSERT INTO demo.kv (v) VALUES ('a')", "Some partition key parts are missing: k"),
        ("INSERT INTO demo.kv (k) VALUES (null)", "Invalid null value in condition for column k"),
        ("SELECT * FROM demo.kv WHERE k = ?", "Invalid amount of bind variables"),
        ("SELECT JSON * FROM demo.kv", KNOWN),
        ("INSERT INTO system.local (key) VALUES ('a')", KNOWN),
    ] {
        check(&facts, text, Err(expected));
    }
}

#[test]
fn each_node_shows_itself_and_the_others() {
    let facts = facts();
    check(&facts, "SELECT data_center FROM system.local WHERE key = 'local'", Ok(&[&["dc1"]]));
    check(&facts, "SELECT rack FROM system.peers_v2 WHERE peer = '127.0.0.3' AND peer_port = 7000", Ok(&[&["r1"]]));
    check(&facts, "SELECT rack FROM system.peers WHERE peer = '127.0.0.1'", Ok(&[]));
    facts.lock().members[2].member = false;
    check(&facts, "SELECT rack FROM system.peers", Ok(&[&["r1"]]));
}

#[test]
fn nodes_are_blind_old_or_of_another_cluster_where_a_test_wants_it() {
    let facts = facts();
    facts.lock().members[0].blind_to = vec![uuid::Uuid::from_u128(2)];
    check(&facts, "SELECT peer FROM system.peers_v2 WHERE peer = '127.0.0.2'", Ok(&[]));
    check(&facts, "SELECT rack FROM system.peers_v2", Ok(&[&["r1"]]));
    facts.lock().members[0].cluster_name = Some("another".to_owned());
    check(&facts, "SELECT cluster_name FROM system.local", Ok(&[&["another"]]));
    facts.lock().peers_v2 = false;
    check(&facts, "SELECT rack FROM system.peers_v2", Err("table peers_v2 does not exist"));
    check(&facts, "SELECT rack FROM system.peers", Ok(&[&["r1"]]));
}

#[test]
fn pages_are_cut_and_continued() {
    let facts = facts();
    for k in ["a", "b", "c"] {
        facts.lock().pairs.insert(k.into(), None);
    }
    let first = Parameters { page_size: Some(2), ..Parameters::default() };
    let message = run(&facts, "SELECT k FROM demo.kv", &first).unwrap();
    let rows = Rows::parse(&message).unwrap();
    assert_eq!(rows.row_count, 2);
    let second = Parameters { paging_state: rows.paging_state, page_size: Some(2), ..Parameters::default() };
    let message = run(&facts, "SELECT k FROM demo.kv", &second).unwrap();
    let rows = Rows::parse(&message).unwrap();
    assert_eq!((rows.row_count, rows.paging_state), (1, None));
}

#[test]
fn prepared_messages_name_the_table_and_the_partition_key() {
    let facts = facts();
    let scope = Scope { facts: &facts, me: 0, keyspace: Some("demo") };
    let prepared = prepare(scope, "SELECT * FROM kv WHERE k = ?").unwrap();
    // The same bytes as a real node's, behind the ids.
    let expected = [
        &[0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0][..],
        b"\0\x04demo\0\x02kv\0\x01k\0\x0d",
        &[0, 0, 0, 1, 0, 0, 0, 2],
        b"\0\x04demo\0\x02kv\0\x01k\0\x0d\0\x01v\0\x0d",
    ];
    assert_eq!(prepared.message(Version::V4)[22..], expected.concat());
    assert_eq!(prepared.message(Version::V5)[40..], expected.concat());
}

#[test]
fn captured_texts_are_found_and_are_rows() {
    for (text, message) in TEXTS {
        assert_eq!(captured_text(&text.to_uppercase()), Some(*message));
        assert!(Rows::parse(message).unwrap().row_count > 0, "{text}");
    }
    assert_eq!(captured_text("desc  TABLE demo.kv;"), captured_text("DESCRIBE TABLE demo.kv"));
    assert_eq!(captured_text("DESCRIBE TABLE demo.other"), None);
}
