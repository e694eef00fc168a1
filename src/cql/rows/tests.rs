use proptest::prelude::*;

use super::super::frame::Version;
use super::super::primitives::{Value, Writer};
use super::*;

/// A column: keyspace, table, name, type.
type Spec = (&'static str, &'static str, &'static str, Vec<u8>);

fn encode(flags: i32, columns: &[Spec], head: &[u8], rows: &[Vec<Option<Vec<u8>>>]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut w = Writer::new(&mut out);
    w.i32(2).i32(flags).i32(columns.len() as i32).raw(head);
    write_columns(&mut w, flags, columns);
    w.i32(rows.len() as i32);
    for cell in rows.iter().flatten() {
        w.value(cell.as_deref().map_or(Value::Null, Value::Bytes));
    }
    out
}

fn write_columns(w: &mut Writer<'_>, flags: i32, columns: &[Spec]) {
    if flags & metadata_flags::NO_METADATA != 0 {
        return;
    }
    let global = flags & metadata_flags::GLOBAL_TABLES_SPEC != 0;
    if let (true, Some(first)) = (global, columns.first()) {
        w.string(first.0).string(first.1);
    }
    for (keyspace, table, name, column_type) in columns {
        if !global {
            w.string(keyspace).string(table);
        }
        w.string(name).raw(column_type);
    }
}

fn local() -> Vec<Spec> {
    vec![
        ("system", "local", "key", vec![0, 0x0d]),
        ("system", "local", "rpc_address", vec![0, 0x10]),
        ("system", "local", "tokens", vec![0, 0x22, 0, 0x0d]),
        ("system", "local", "truncated_at", vec![0, 0x21, 0, 0x0c, 0, 0x03]),
    ]
}

fn one_row() -> Vec<Vec<Option<Vec<u8>>>> {
    vec![vec![Some(b"local".to_vec()), Some(vec![10, 77, 0, 11]), Some(vec![0, 0, 0, 0]), None]]
}

/// Every prefix is `Truncated` or already knows the table; none panics.
fn check_table(message: &[u8], expected: TableOf<'_>) {
    assert_eq!(table_of(message), Ok(expected));
    let mut known = false;
    for have in 0..message.len() {
        match table_of(&message[..have]) {
            Ok(table) => {
                assert_eq!(table, expected, "{have} bytes");
                known = true;
            }
            Err(error) => assert!(error.is_truncated() && !known, "{have} bytes: {error}"),
        }
    }
}

#[test]
fn the_table_is_known_before_the_columns() {
    let message = encode(1, &local(), &[], &one_row());
    check_table(&message, TableOf::Table { keyspace: "system", table: "local" });
    assert!(table_of(&message[..27]).is_ok());
}

#[test]
fn the_usual_shapes_say_what_the_whole_says() {
    let message = encode(1, &local(), &[], &one_row());
    assert_eq!(usual(&message), Some(Usual::Keyspace(b"system")));
    for have in 0..20 {
        assert_eq!(usual(&message[..have]), None, "{have} bytes");
    }
    for unusual in [0, 1 | 4, 1 | 2, 1 | 8, 2 | 4, 4 | 8] {
        assert_eq!(usual(&encode(unusual, &local(), &[0; 8], &one_row())), None, "flags {unusual}");
    }
    let without_metadata = |columns: i32| [2, 4, columns].map(i32::to_be_bytes).concat();
    assert_eq!(usual(&without_metadata(1)), Some(Usual::NoMetadata));
    assert_eq!(usual(&without_metadata(i32::MAX)), Some(Usual::NoMetadata));
    for columns in [0, -1, i32::MIN] {
        assert_eq!(usual(&without_metadata(columns)), None, "{columns} columns");
    }
}

#[test]
fn the_table_is_found_behind_paging_state_and_new_metadata_id() {
    let head = [&[0, 0, 0, 3, 1, 2, 3][..], &[0, 2, 0xaa, 0xbb]].concat();
    check_table(&encode(1 | 2 | 8, &local(), &head, &one_row()), TableOf::Table { keyspace: "system", table: "local" });
    let rows = Rows::parse(&encode(1 | 2 | 8, &local(), &head, &one_row())).map(|rows| {
        (rows.paging_state.map(<[u8]>::to_vec), rows.new_metadata_id.map(<[u8]>::to_vec), rows.columns.len())
    });
    assert_eq!(rows, Ok((Some(vec![1, 2, 3]), Some(vec![0xaa, 0xbb]), 4)));
}

#[test]
fn skipped_metadata_names_no_table() {
    check_table(&encode(4, &local(), &[], &one_row()), TableOf::NoMetadata);
    check_table(&encode(1 | 4, &local(), &[], &one_row()), TableOf::NoMetadata);
    check_table(&encode(0, &[], &[], &[]), TableOf::NoColumns);
    check_table(&encode(4, &[], &[], &[]), TableOf::NoColumns);
}

#[test]
fn columns_may_each_name_their_table() {
    let message = encode(0, &local(), &[], &one_row());
    check_table(&message, TableOf::PerColumn);
    assert_eq!(table_of_whole(&message), Ok(TableOf::Table { keyspace: "system", table: "local" }));
    let mut columns = local();
    columns[3].1 = "other";
    assert_eq!(table_of_whole(&encode(0, &columns, &[], &one_row())), Ok(TableOf::Several));
}

#[test]
fn other_results_are_not_rows() {
    check_table(&[0, 0, 0, 1], TableOf::NotRows(ResultKind::Void));
    check_table(&[0, 0, 0, 3, 0, 1, b'k'], TableOf::NotRows(ResultKind::SetKeyspace));
    check_table(&[0, 0, 0, 9], TableOf::NotRows(ResultKind::Unknown(9)));
}

#[test]
fn prefixes_of_the_flags_come_in_the_order_of_the_specification() {
    let mut body = vec![7; 16];
    let mut w = Writer::new(&mut body);
    w.string_list(&["careful", "now"]).u16(1).string("key").value(Value::Bytes(&[1, 2, 3]));
    let (warnings, payload) = (2 + 9 + 5, 2 + 5 + 7);
    let all = Flags(Flags::TRACING | Flags::WARNING | Flags::CUSTOM_PAYLOAD);
    assert_eq!(message_offset(all, &body), Ok(16 + warnings + payload));
    for have in 0..body.len() {
        assert!(message_offset(all, &body[..have]).unwrap_err().is_truncated());
    }
    assert_eq!(message_offset(Flags(Flags::TRACING), &body), Ok(16));
    assert_eq!(message_offset(Flags(Flags::COMPRESSION | Flags::USE_BETA), &body), Ok(0));
    assert_eq!(message_offset(Flags(Flags::WARNING), &body[16..]), Ok(warnings));
    assert_eq!(message_offset(Flags(Flags::CUSTOM_PAYLOAD), &body[16 + warnings..]), Ok(payload));
}

#[test]
fn cells_are_borrowed_and_null_is_not_empty() {
    let message = encode(1, &local(), &[], &one_row());
    let rows = Rows::parse(&message).unwrap();
    assert_eq!((rows.row_count, rows.column_count), (1, 4));
    let row = rows.rows().next().unwrap();
    assert_eq!(row[1], Value::Bytes(&[10, 77, 0, 11]));
    assert_eq!(row[3], Value::Null);
    assert_eq!(rows.position("tokens"), Some(2));
    assert_eq!(rows.columns[1].column_type, ColumnType::INET);
    let mut types = Types::default();
    let root = types.add(rows.columns[2].column_type).unwrap();
    let kinds: Vec<_> = types.children(root).map(|child| types.kind(child)).collect();
    assert_eq!((types.kind(root), kinds), (Some(TypeKind::Elements), vec![Some(TypeKind::Text)]));
    for have in 0..message.len() {
        assert!(Rows::parse(&message[..have]).unwrap_err().is_truncated());
    }
}

#[test]
fn counts_from_the_wire_are_compared_before_anything_is_allocated() {
    let claim = |columns: i32, rows: i32| {
        let mut out = Vec::new();
        Writer::new(&mut out).i32(2).i32(4).i32(columns).i32(rows).raw(&[0xff; 64]);
        Rows::parse(&out).map(|_| ())
    };
    assert_eq!(claim(4, 4), Ok(()));
    assert_eq!(claim(0, i32::MAX), Ok(()));
    assert!(claim(1000, 1000).unwrap_err().is_truncated());
    assert!(matches!(claim(i32::MAX, i32::MAX), Err(DecodeError::TooLong { what: "cells", .. })));
    assert_eq!(claim(-1, 1), Err(DecodeError::Invalid { what: "column count", value: -1 }));
    assert_eq!(claim(1, -1), Err(DecodeError::Invalid { what: "row count", value: -1 }));
    let mut out = Vec::new();
    Writer::new(&mut out).i32(2).i32(1).i32(i32::MAX).string("k").string("t").raw(&[0; 64]);
    assert!(matches!(Rows::parse(&out), Err(DecodeError::TooLong { what: "column count", .. })));
}

#[test]
fn types_nested_without_end_are_refused() {
    let nested = |depth: usize| [[0, 0x20].repeat(depth), vec![0, 0x0d]].concat();
    let read = |bytes: &[u8]| ColumnType::read(&mut Reader::new(bytes)).map(|_| ());
    assert_eq!(read(&nested(MAX_TYPE_DEPTH - 1)), Ok(()));
    assert!(matches!(read(&nested(MAX_TYPE_DEPTH)), Err(DecodeError::TooLong { .. })));
    assert!(matches!(read(&nested(30_000)), Err(DecodeError::TooLong { .. })));
    assert_eq!(read(&[0, 0x40]), Err(DecodeError::Invalid { what: "type id", value: 0x40 }));
}

#[test]
fn every_kind_of_type_is_stepped_over() {
    let mut custom = vec![0, 0];
    Writer::new(&mut custom).string("org.apache.cassandra.db.marshal.VectorType");
    let mut udt = vec![0, 0x30];
    Writer::new(&mut udt).string("ks").string("name").u16(2).string("a").raw(&[0, 0x10]).string("b").raw(&custom);
    let tuple = [&[0, 0x31, 0, 2, 0, 9][..], &udt].concat();
    let map = [&[0, 0x21][..], &tuple, &custom].concat();
    for raw in [custom, udt, tuple, map] {
        let with_more = [&raw[..], &[1, 2, 3]].concat();
        let column_type = ColumnType::read(&mut Reader::new(&with_more)).unwrap();
        assert_eq!(column_type.raw, raw);
        assert_eq!(Types::default().add(column_type), Ok(0));
        for have in 0..raw.len() {
            assert!(ColumnType::read(&mut Reader::new(&raw[..have])).unwrap_err().is_truncated());
        }
    }
}

#[test]
fn a_types_children_are_found_without_reading_it_again() {
    // tuple<int, list<frozen<tuple<inet, text>>>, blob>
    let raw = [0, 0x31, 0, 3, 0, 9, 0, 0x20, 0, 0x31, 0, 2, 0, 0x10, 0, 0x0d, 0, 3];
    let mut types = Types::default();
    types.add(ColumnType::INET).unwrap();
    let root = types.add(ColumnType { raw: &raw }).unwrap();
    let kinds = |at| types.children(at).filter_map(|child| types.kind(child)).collect::<Vec<_>>();
    assert_eq!(kinds(root), [TypeKind::Int, TypeKind::Elements, TypeKind::Blob]);
    let elements = types.children(root).nth(1).unwrap();
    let tuple = types.children(elements).next().unwrap();
    assert_eq!(kinds(tuple), [TypeKind::Inet, TypeKind::Text]);
    assert_eq!(kinds(0), []);
}

#[test]
fn types_without_end_are_refused() {
    let fields = |count: u16| [&[0, 0x31][..], &count.to_be_bytes(), &[0, 9].repeat(count.into())].concat();
    let read = |raw: &[u8]| ColumnType::read(&mut Reader::new(raw)).map(|_| ());
    assert_eq!(read(&fields(16_383)), Ok(()));
    assert!(matches!(read(&fields(16_384)), Err(DecodeError::TooLong { what: "types", .. })));
    let (half, mut types) = (fields(8191), Types::default());
    assert_eq!(types.add(ColumnType { raw: &half }), Ok(0));
    assert_eq!(types.add(ColumnType { raw: &half }), Ok(8192));
    assert!(types.add(ColumnType::INET).is_err());
}

#[test]
fn rewriting_nothing_gives_the_same_bytes() {
    let head = [0, 0, 0, 1, 9];
    let mut message = encode(1 | 2, &local(), &head, &[one_row(), one_row()].concat());
    message.extend_from_slice(b"more data");
    let rows = Rows::parse(&message).unwrap();
    let mut writer = RowsWriter::begin(&rows, &[], b"before".to_vec()).unwrap();
    for row in rows.rows() {
        writer.row(row.iter().copied());
    }
    assert_eq!(writer.finish(rows.trailing), [b"before", &message[..]].concat());
}

#[test]
fn columns_are_added_at_the_end_with_their_table() {
    const NATIVE_PORT: NewColumn = NewColumn { name: "native_port", column_type: ColumnType::INT };
    for flags in [0, 1] {
        let message = encode(flags, &local(), &[], &[one_row(), one_row()].concat());
        let rows = Rows::parse(&message).unwrap();
        let mut writer = RowsWriter::begin(&rows, &[NATIVE_PORT], Vec::new()).unwrap();
        writer.row(rows.rows().next().unwrap().iter().copied().chain([Value::Bytes(&[0, 0, 0x23, 0x52])]));
        let out = writer.finish(rows.trailing);
        let mut columns = local();
        columns.push(("system", "local", "native_port", vec![0, 9]));
        let mut expected = one_row();
        expected[0].push(Some(vec![0, 0, 0x23, 0x52]));
        assert_eq!(out, encode(flags, &columns, &[], &expected));
    }
    let skipped = encode(4, &local(), &[], &one_row());
    let rows = Rows::parse(&skipped).unwrap();
    assert!(RowsWriter::begin(&rows, &[NATIVE_PORT], Vec::new()).is_err());
}

fn prepared(version: Version, variables: &[Spec], result_flags: i32, results: &[Spec]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut w = Writer::new(&mut out);
    w.i32(4).short_bytes(&[0xab; 16]);
    if version >= Version::V5 {
        w.short_bytes(&[0xcd; 16]);
    }
    w.i32(1).i32(variables.len() as i32);
    if version >= Version::V4 {
        w.i32(1).u16(0);
    }
    write_columns(
        &mut w,
        1,
        &[&[("ks", "t", "", vec![])][..], variables].concat()[usize::from(!variables.is_empty())..],
    );
    if variables.is_empty() {
        out.truncate(out.len() - 4);
    }
    let mut w = Writer::new(&mut out);
    w.i32(result_flags).i32(results.len() as i32);
    write_columns(&mut w, result_flags, results);
    out
}

#[test]
fn prepared_names_the_table_of_its_results() {
    let variables = vec![("system", "local", "key", vec![0, 0x0d])];
    for version in [Version::V3, Version::V4, Version::V5] {
        for (flags, results, columns, table) in [
            (1, local(), 4, TableOf::Table { keyspace: "system", table: "local" }),
            (0, local(), 4, TableOf::Table { keyspace: "system", table: "local" }),
            (4, vec![], 0, TableOf::NoColumns),
            (4, local(), 4, TableOf::NoMetadata),
        ] {
            let message = prepared(version, &variables, flags, &results);
            let expected = Prepared {
                id: &[0xab; 16],
                result_metadata_id: (version == Version::V5).then_some(&[0xcd; 16]),
                result_columns: columns,
                result_table: table,
            };
            assert_eq!(Prepared::parse(version, &message), Ok(expected));
        }
        let message = prepared(version, &variables, 0, &local());
        for have in 0..message.len() {
            assert!(Prepared::parse(version, &message[..have]).unwrap_err().is_truncated());
        }
    }
}

proptest! {
    #[test]
    fn rows_round_trip(
        flags in prop_oneof![Just(0), Just(1), Just(4)],
        rows in prop::collection::vec(prop::collection::vec(prop::option::of(prop::collection::vec(any::<u8>(), 0..6)), 4), 0..6),
    ) {
        let message = encode(flags, &local(), &[], &rows);
        let parsed = Rows::parse(&message).unwrap();
        prop_assert_eq!(parsed.rows().count(), rows.len());
        for (row, expected) in parsed.rows().zip(&rows) {
            let cells: Vec<Option<Vec<u8>>> = row.iter().map(|cell| cell.bytes().map(<[u8]>::to_vec)).collect();
            prop_assert_eq!(&cells, expected);
        }
        let mut writer = RowsWriter::begin(&parsed, &[], Vec::new()).unwrap();
        parsed.rows().for_each(|row| writer.row(row.iter().copied()));
        prop_assert_eq!(writer.finish(parsed.trailing), message);
    }

    #[test]
    fn arbitrary_bytes_never_panic(flags in 0i32..16, columns in 0i32..5, bytes in prop::collection::vec(0u8..0x32, 0..120), kind in 1i32..6) {
        let mut message = Vec::new();
        Writer::new(&mut message).i32(kind).i32(flags).i32(columns).raw(&bytes);
        if let (Some(usual), Ok(table)) = (usual(&message), table_of(&message)) {
            let said = match table {
                TableOf::Table { keyspace, .. } => Usual::Keyspace(keyspace.as_bytes()),
                other => { prop_assert_eq!(other, TableOf::NoMetadata); Usual::NoMetadata }
            };
            prop_assert_eq!(usual, said);
        }
        let _ = Rows::parse(&message);
        for version in [Version::V3, Version::V4, Version::V5] {
            let _ = Prepared::parse(version, &message);
        }
        let _ = message_offset(Flags(flags as u8), &bytes);
    }

    #[test]
    fn one_changed_byte_never_panics(at in any::<prop::sample::Index>(), byte: u8) {
        let mut message = encode(1, &local(), &[], &one_row());
        let index = at.index(message.len());
        message[index] = byte;
        if let Ok(rows) = Rows::parse(&message) {
            let _ = RowsWriter::begin(&rows, &[], Vec::new()).map(|writer| writer.finish(rows.trailing));
            rows.columns.iter().for_each(|column| assert!(Types::default().add(column.column_type).is_ok()));
        }
    }
}
