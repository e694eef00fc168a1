//! Any bytes as a RESULT: what is known from a prefix stays true of the whole, rewriting nothing gives the same bytes, and
//! claimed counts allocate nothing.
#![no_main]

use cqlgate::cql::frame::{Flags, Version};
use cqlgate::cql::rows::{ColumnType, Prepared, Rows, RowsWriter, TableOf, Types, message_offset, table_of};
use cqlgate_fuzz::within;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((&flags, bytes)) = bytes.split_first() else { return };
    within(0, || prefixes(flags, bytes));
    // A cell takes 4 bytes on the wire and 24 here, a column 4 and 72, a node of its type 2 and 8.
    within(40 * bytes.len() + 1024, || whole(bytes));
});

fn prefixes(flags: u8, bytes: &[u8]) {
    let table = table_of(bytes);
    let offset = message_offset(Flags(flags), bytes);
    for cut in 0..bytes.len().min(300) {
        match table_of(&bytes[..cut]) {
            Err(error) => assert!(error.is_truncated() || table == Err(error)),
            early => assert_eq!(early, table),
        }
        match message_offset(Flags(flags), &bytes[..cut]) {
            Err(error) => assert!(error.is_truncated() || offset == Err(error)),
            early => assert_eq!(early, offset),
        }
    }
    for version in [Version::V3, Version::V4, Version::V5] {
        if let Ok(prepared) = Prepared::parse(version, bytes) {
            assert!(prepared.id.len() <= bytes.len());
        }
    }
}

fn whole(message: &[u8]) {
    let Ok(rows) = Rows::parse(message) else { return };
    if let (Ok(TableOf::Table { keyspace, table }), Some(column)) = (table_of(message), rows.columns.first()) {
        assert_eq!((column.keyspace, column.table), (keyspace, table));
    }
    for column in &rows.columns {
        let mut types = Types::default();
        let root = types.add(column.column_type).expect("it was read before");
        assert!(types.children(root).count() < types.len());
        assert_ne!(column.column_type, ColumnType { raw: &[] });
    }
    let mut writer = RowsWriter::begin(&rows, &[], Vec::with_capacity(message.len())).expect("nothing added");
    if rows.column_count == 0 {
        return;
    }
    for row in rows.rows() {
        writer.row(row.iter().copied());
    }
    assert_eq!(writer.finish(rows.trailing), message);
}
