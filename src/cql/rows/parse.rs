//! A Rows message, borrowed from the bytes it was parsed from.

use super::super::primitives::{DecodeError, Reader, Value};
use super::{ColumnType, MAX_TYPE_NODES, MetadataHead, ResultKind, metadata_flags};

/// More columns than a table of Cassandra's can have in practice. A column takes 4 bytes on the wire and 18 times as much here.
pub const MAX_COLUMNS: usize = 65_535;

/// More cells than `peers_v2` of 80,000 nodes has. A null takes 4 bytes on the wire and 6 times as much here.
pub const MAX_CELLS: usize = 1 << 20;

/// One column of the metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column<'a> {
    pub keyspace: &'a str,
    pub table: &'a str,
    pub name: &'a str,
    pub column_type: ColumnType<'a>,
}

/// A RESULT/Rows message up to its first cell (native_protocol_v5.spec §4.2.5.2).
#[derive(Clone, Debug)]
pub struct RowsHead<'a> {
    pub flags: i32,
    /// Null, or the state for the next page.
    pub paging_state: Option<&'a [u8]>,
    /// v5: the new id of the metadata, when it changed.
    pub new_metadata_id: Option<&'a [u8]>,
    pub column_count: usize,
    /// Empty when the metadata was skipped; else `column_count` long.
    pub columns: Vec<Column<'a>>,
    pub row_count: usize,
    /// Between the column count and the row count: paging state, metadata id, table and columns.
    pub(super) metadata: &'a [u8],
    /// Where the first cell is in the message.
    pub cells_at: usize,
}

impl<'a> RowsHead<'a> {
    /// Parses the start of a RESULT message that is a Rows result, from its kind on.
    ///
    /// # Errors
    /// `Truncated` when the message ends before its first cell, or cannot have the columns that it claims; `Invalid` when it
    /// is not a Rows result.
    pub fn parse(message: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(message);
        let kind = reader.i32("RESULT kind")?;
        if ResultKind::parse(message)? != ResultKind::Rows {
            return Err(DecodeError::Invalid { what: "RESULT kind", value: i64::from(kind) });
        }
        let head = MetadataHead::read(&mut reader)?;
        let columns =
            if head.has(metadata_flags::NO_METADATA) { Vec::new() } else { read_columns(&mut reader, &head)? };
        let metadata = reader.since(12);
        let row_count = reader.count("row count")?;
        Ok(Self {
            flags: head.flags,
            paging_state: head.paging_state,
            new_metadata_id: head.new_metadata_id,
            column_count: head.column_count,
            columns,
            row_count,
            metadata,
            cells_at: reader.position(),
        })
    }

    /// The position of the column with this name, as written in the metadata.
    pub fn position(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name == name)
    }
}

/// A whole RESULT/Rows message. Nothing is copied but the lists of columns and cells, whose lengths were compared with the
/// bytes that are there before they were allocated.
#[derive(Clone, Debug)]
pub struct Rows<'a> {
    head: RowsHead<'a>,
    cells: Vec<Value<'a>>,
    /// Behind the last row. The specification allows more data there.
    pub trailing: &'a [u8],
}

impl<'a> std::ops::Deref for Rows<'a> {
    type Target = RowsHead<'a>;

    fn deref(&self) -> &RowsHead<'a> {
        &self.head
    }
}

impl<'a> Rows<'a> {
    /// Parses a RESULT message that is a Rows result, from its kind on.
    ///
    /// # Errors
    /// `Truncated` when the message is not whole; `Invalid` when it is not a Rows result.
    pub fn parse(message: &'a [u8]) -> Result<Self, DecodeError> {
        let head = RowsHead::parse(message)?;
        let mut reader = Reader::new(message.get(head.cells_at..).unwrap_or_default());
        let cells = read_cells(&mut reader, head.column_count, head.row_count)?;
        Ok(Self { head, cells, trailing: reader.rest() })
    }

    /// The rows, each a slice of `column_count` cells. Rows without columns are not given out.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = &[Value<'a>]> {
        self.cells.chunks_exact(self.column_count.max(1))
    }
}

fn read_columns<'a>(reader: &mut Reader<'a>, head: &MetadataHead<'a>) -> Result<Vec<Column<'a>>, DecodeError> {
    // A name and a type take four bytes at least; a table of its own another four.
    fits("column count", head.column_count, 4, MAX_COLUMNS, reader)?;
    let mut columns = Vec::with_capacity(head.column_count);
    let mut nodes = MAX_TYPE_NODES.max(head.column_count);
    for _ in 0..head.column_count {
        let (keyspace, table) = match head.global {
            Some(global) => global,
            None => (reader.string("column keyspace")?, reader.string("column table")?),
        };
        let name = reader.string("column name")?;
        columns.push(Column { keyspace, table, name, column_type: ColumnType::read_within(reader, &mut nodes)? });
    }
    Ok(columns)
}

fn read_cells<'a>(reader: &mut Reader<'a>, columns: usize, rows: usize) -> Result<Vec<Value<'a>>, DecodeError> {
    let count = columns.saturating_mul(rows);
    fits("cells", count, 4, MAX_CELLS, reader)?;
    let mut cells = Vec::with_capacity(count);
    for _ in 0..count {
        cells.push(reader.value("cell")?);
    }
    Ok(cells)
}

/// That `count` things of at least `each` bytes can be in what is left, and are not over `limit`.
fn fits(what: &'static str, count: usize, each: usize, limit: usize, reader: &Reader<'_>) -> Result<(), DecodeError> {
    if count > limit {
        return Err(DecodeError::TooLong { what, length: count as u64, limit: limit as u64 });
    }
    let (need, have) = (count.saturating_mul(each), reader.remaining());
    if need > have { Err(DecodeError::Truncated { what, need, have }) } else { Ok(()) }
}
