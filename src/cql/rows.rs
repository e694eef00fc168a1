//! RESULT: which table its rows are of, and the rows themselves (native_protocol_v5.spec §4.2.5).
//!
//! [`table_of`] looks at every result that passes and allocates nothing; it says `Truncated` while the part that has
//! arrived does not reach far enough. [`Rows`] is the whole message, for the few that must change; [`RowsWriter`] writes
//! it again with other cells, fewer rows or more columns, and every other byte as it was.

mod parse;
mod prepared;
mod types;
mod writer;

use super::frame::Flags;
use super::message::MessageStart;
use super::primitives::{DecodeError, Reader};

pub use parse::{Column, MAX_CELLS, MAX_COLUMNS, Rows, RowsHead};
pub use prepared::Prepared;
pub use types::{ColumnType, MAX_TYPE_DEPTH, MAX_TYPE_NODES, TypeKind, TypeNode, Types, type_id};
pub use writer::{NewColumn, RowsWriter};

/// Flags of a Rows metadata.
pub mod metadata_flags {
    pub const GLOBAL_TABLES_SPEC: i32 = 0x01;
    pub const HAS_MORE_PAGES: i32 = 0x02;
    pub const NO_METADATA: i32 = 0x04;
    pub const METADATA_CHANGED: i32 = 0x08;
}

/// The `[int]` at the start of a RESULT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResultKind {
    Void,
    Rows,
    SetKeyspace,
    Prepared,
    SchemaChange,
    Unknown(i32),
}

impl ResultKind {
    pub fn parse(message: &[u8]) -> Result<Self, DecodeError> {
        Self::read(&mut Reader::new(message))
    }

    #[inline]
    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(match reader.i32("RESULT kind")? {
            1 => Self::Void,
            2 => Self::Rows,
            3 => Self::SetKeyspace,
            4 => Self::Prepared,
            5 => Self::SchemaChange,
            other => Self::Unknown(other),
        })
    }
}

/// Where the message of a whole response's body begins ([`MessageStart`]).
///
/// # Errors
/// `Truncated` while `body` does not reach to the message.
pub fn message_offset(flags: Flags, body: &[u8]) -> Result<usize, DecodeError> {
    MessageStart::of_response().find(flags, body)
}

/// What a RESULT says of the table its rows are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableOf<'a> {
    /// Not a Rows result.
    NotRows(ResultKind),
    /// The metadata was skipped: only the one who asked knows the table.
    NoMetadata,
    /// No columns, hence no table and no cells.
    NoColumns,
    Table {
        keyspace: &'a str,
        table: &'a str,
    },
    /// Each column names a table of its own: [`table_of_whole`] says whether it is one. No statement of Cassandra's gives this.
    PerColumn,
    /// Columns of more than one table.
    Several,
}

/// Which table a RESULT's rows are of, from as much of the message as is there. The layout is the same in v3, v4 and v5.
///
/// # Errors
/// `Truncated`: more is needed (in practice below 100 bytes). Everything else is final.
#[inline]
pub fn table_of(message: &[u8]) -> Result<TableOf<'_>, DecodeError> {
    let mut reader = Reader::new(message);
    match ResultKind::read(&mut reader)? {
        ResultKind::Rows => {}
        kind => return Ok(TableOf::NotRows(kind)),
    }
    let head = MetadataHead::read(&mut reader)?;
    if head.has(metadata_flags::NO_METADATA) {
        return Ok(if head.column_count == 0 { TableOf::NoColumns } else { TableOf::NoMetadata });
    }
    Ok(match head.global {
        Some((keyspace, table)) => TableOf::Table { keyspace, table },
        None if head.column_count == 0 => TableOf::NoColumns,
        None => TableOf::PerColumn,
    })
}

/// The same of a whole message, also where each column names a table of its own.
pub fn table_of_whole(message: &[u8]) -> Result<TableOf<'_>, DecodeError> {
    match table_of(message)? {
        TableOf::PerColumn => {
            let mut reader = Reader::new(message);
            ResultKind::read(&mut reader)?;
            let head = MetadataHead::read(&mut reader)?;
            table_of_columns(&mut reader, &head)
        }
        told => Ok(told),
    }
}

/// What a Rows result in one of its two usual shapes says of its table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usual<'a> {
    /// One table, of this keyspace, for all columns; no paging state, no new metadata id.
    Keyspace(&'a [u8]),
    /// Columns, and no metadata of them.
    NoMetadata,
}

/// The first look at every answer: `None` says nothing, then ask [`table_of`].
#[inline]
pub fn usual(message: &[u8]) -> Option<Usual<'_>> {
    let (head, rest) = message.split_first_chunk::<12>()?;
    match *head {
        [0, 0, 0, 2, 0, 0, 0, 1, ..] => {
            let (&[high, low], rest) = rest.split_first_chunk::<2>()?;
            rest.get(..usize::from(u16::from_be_bytes([high, low]))).map(Usual::Keyspace)
        }
        [0, 0, 0, 2, 0, 0, 0, 4, a @ 0..=127, b, c, d] if a | b | c | d != 0 => Some(Usual::NoMetadata),
        _ => None,
    }
}

/// The table that a metadata's columns are of; `reader` is behind its head.
fn table_of_columns<'a>(reader: &mut Reader<'a>, head: &MetadataHead<'a>) -> Result<TableOf<'a>, DecodeError> {
    if let Some((keyspace, table)) = head.global {
        return Ok(TableOf::Table { keyspace, table });
    }
    let mut found = None;
    let mut nodes = types::MAX_TYPE_NODES;
    for _ in 0..head.column_count {
        let name = (reader.string("column keyspace")?, reader.string("column table")?);
        reader.short_bytes("column name")?;
        ColumnType::read_within(reader, &mut nodes)?;
        match found {
            None => found = Some(name),
            Some(first) if first == name => {}
            Some(_) => return Ok(TableOf::Several),
        }
    }
    Ok(found.map_or(TableOf::NoColumns, |(keyspace, table)| TableOf::Table { keyspace, table }))
}

/// The part of a Rows metadata before the columns.
#[derive(Clone, Copy, Debug)]
struct MetadataHead<'a> {
    flags: i32,
    column_count: usize,
    paging_state: Option<&'a [u8]>,
    new_metadata_id: Option<&'a [u8]>,
    global: Option<(&'a str, &'a str)>,
}

impl<'a> MetadataHead<'a> {
    #[inline]
    fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let flags = reader.i32("metadata flags")?;
        let mut head = Self {
            flags,
            column_count: reader.count("column count")?,
            paging_state: None,
            new_metadata_id: None,
            global: None,
        };
        if head.has(metadata_flags::HAS_MORE_PAGES) {
            head.paging_state = reader.bytes("paging state")?;
        }
        if head.has(metadata_flags::METADATA_CHANGED) {
            head.new_metadata_id = Some(reader.short_bytes("new metadata id")?);
        }
        if head.has(metadata_flags::GLOBAL_TABLES_SPEC) && !head.has(metadata_flags::NO_METADATA) {
            head.global = Some((reader.string("keyspace")?, reader.string("table")?));
        }
        Ok(head)
    }

    fn has(&self, flag: i32) -> bool {
        self.flags & flag != 0
    }
}

#[cfg(test)]
mod tests;
