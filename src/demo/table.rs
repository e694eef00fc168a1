//! Tables as a real node showed them: what `SELECT *` was answered, cut into columns and rows.
//!
//! Columns, their types and the schema rows are never made up here: they come from `captured/` (made by its `capture.py`).

use std::sync::OnceLock;

use crate::cql::primitives::{DecodeError, Writer};
use crate::cql::rows::Rows;

/// A cell's bytes; `None` is null.
pub(super) type Cell = Option<Vec<u8>>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Column {
    pub name: String,
    /// The type as on the wire: an `[option]`.
    pub kind: Vec<u8>,
}

#[derive(Clone, Debug)]
pub(super) struct Table {
    pub keyspace: String,
    pub name: String,
    pub columns: Vec<Column>,
    pub rows: Vec<Vec<Cell>>,
}

impl Table {
    fn parse(message: &[u8]) -> Result<Self, DecodeError> {
        let rows = Rows::parse(message)?;
        let first = rows.columns.first().ok_or(DecodeError::Invalid { what: "column count", value: 0 })?;
        Ok(Self {
            keyspace: first.keyspace.to_owned(),
            name: first.table.to_owned(),
            columns: rows
                .columns
                .iter()
                .map(|column| Column { name: column.name.to_owned(), kind: column.column_type.raw.to_vec() })
                .collect(),
            rows: rows.rows().map(|row| row.iter().map(|cell| cell.bytes().map(<[u8]>::to_vec)).collect()).collect(),
        })
    }

    pub fn position(&self, column: &str) -> Option<usize> {
        self.columns.iter().position(|known| known.name == column)
    }

    /// A row's cell by its column's name, as text.
    fn text<'a>(&self, row: &'a [Cell], column: &str) -> &'a str {
        let cell = self.position(column).and_then(|at| row.get(at)).and_then(Option::as_deref);
        cell.and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or_default()
    }

    /// Replaces one cell of `row`; a column that the table does not have (3.11's, 6.0's) is left out.
    pub fn set(&self, row: &mut [Cell], column: &str, value: impl Into<Vec<u8>>) {
        if let Some(cell) = self.position(column).and_then(|at| row.get_mut(at)) {
            *cell = Some(value.into());
        }
    }
}

/// The types that literals and variables of the known statements have.
pub(super) mod kind {
    use crate::cql::rows::type_id;

    pub const INT: [u8; 2] = type_id::INT.to_be_bytes();
    pub const INET: [u8; 2] = type_id::INET.to_be_bytes();
    pub const UUID: [u8; 2] = type_id::UUID.to_be_bytes();
    pub const TEXT: [u8; 2] = type_id::VARCHAR.to_be_bytes();
    pub const LIST: [u8; 2] = type_id::LIST.to_be_bytes();
}

macro_rules! captured {
    ($($name:literal),* $(,)?) => {
        &[$((concat!("captured/tables/", $name), include_bytes!(concat!("captured/tables/", $name)))),*]
    };
}

const CAPTURED: &[(&str, &[u8])] = captured![
    "demo.kv",
    "system.local",
    "system.peers",
    "system.peers_v2",
    "system_schema.aggregates",
    "system_schema.column_masks",
    "system_schema.columns",
    "system_schema.dropped_columns",
    "system_schema.functions",
    "system_schema.indexes",
    "system_schema.keyspaces",
    "system_schema.tables",
    "system_schema.triggers",
    "system_schema.types",
    "system_schema.views",
    "system_virtual_schema.columns",
    "system_virtual_schema.keyspaces",
    "system_virtual_schema.tables",
];

fn tables() -> &'static [Table] {
    static TABLES: OnceLock<Vec<Table>> = OnceLock::new();
    // A file that does not parse is left out here and named by the test below.
    TABLES.get_or_init(|| CAPTURED.iter().filter_map(|(_, message)| Table::parse(message).ok()).collect())
}

pub(super) fn captured(keyspace: &str, name: &str) -> Option<&'static Table> {
    tables().iter().find(|table| table.keyspace == keyspace && table.name == name)
}

pub(super) fn keyspace_exists(keyspace: &str) -> bool {
    tables().iter().any(|table| table.keyspace == keyspace)
}

/// The columns of a table's primary key that are of `kind` (`partition_key`, `clustering`), in its order.
pub(super) fn key_columns(keyspace: &str, name: &str, kind: &str) -> Vec<&'static str> {
    let mut found: Vec<(u8, &'static str)> = Vec::new();
    for schema in ["system_schema", "system_virtual_schema"] {
        let Some(columns) = captured(schema, "columns") else { continue };
        let position = columns.position("position");
        for row in &columns.rows {
            if columns.text(row, "keyspace_name") == keyspace
                && columns.text(row, "table_name") == name
                && columns.text(row, "kind") == kind
            {
                let order = position.and_then(|at| row.get(at)).and_then(Option::as_ref).and_then(|bytes| bytes.last());
                found.push((order.copied().unwrap_or_default(), columns.text(row, "column_name")));
            }
        }
    }
    found.sort_unstable();
    found.into_iter().map(|(_, column)| column).collect()
}

/// A `set<text>` cell.
pub(super) fn text_set(elements: &[&str]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut writer = Writer::new(&mut out);
    writer.i32(i32::try_from(elements.len()).unwrap_or(i32::MAX));
    for element in elements {
        writer.long_string(element);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_captured_table_parses_and_is_named_as_its_file() {
        for (file, message) in CAPTURED {
            let table = Table::parse(message).unwrap_or_else(|error| panic!("{file}: {error}"));
            assert_eq!(*file, format!("captured/tables/{}.{}", table.keyspace, table.name));
        }
    }

    #[test]
    fn keys_are_those_of_the_schema() {
        assert_eq!(key_columns("demo", "kv", "partition_key"), ["k"]);
        assert_eq!(key_columns("system", "peers_v2", "partition_key"), ["peer"]);
        assert_eq!(key_columns("system", "peers_v2", "clustering"), ["peer_port"]);
        assert_eq!(key_columns("system_schema", "columns", "clustering"), ["table_name", "column_name"]);
        assert_eq!(key_columns("system_virtual_schema", "tables", "partition_key"), ["keyspace_name"]);
    }
}
