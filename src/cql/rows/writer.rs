//! A Rows message written again: other cells, fewer rows, more columns at the end; every other byte as it was.

use super::super::primitives::{DecodeError, Value, Writer};
use super::{ColumnType, RowsHead, metadata_flags};

/// A column that is added behind the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewColumn {
    pub name: &'static str,
    pub column_type: ColumnType<'static>,
}

/// Writes rows one by one; [`RowsWriter::finish`] sets their count.
#[derive(Debug, Default)]
pub struct RowsWriter {
    out: Vec<u8>,
    /// Where the row count is in `out`.
    count_at: usize,
    count: i32,
}

impl RowsWriter {
    /// Begins a message behind what `out` already holds (a frame header, a tracing id …). `added` columns take the table
    /// of the first column; they need metadata to be named in.
    ///
    /// # Errors
    /// `Invalid` when columns are to be added to a result without metadata or without columns.
    pub fn begin(rows: &RowsHead<'_>, added: &[NewColumn], mut out: Vec<u8>) -> Result<Self, DecodeError> {
        let columns = i32::try_from(rows.column_count + added.len()).unwrap_or(i32::MAX);
        let mut writer = Writer::new(&mut out);
        writer.i32(2).i32(rows.flags).i32(columns).raw(rows.metadata);
        for column in added {
            let what = "column count to add to";
            let first = rows.columns.first().ok_or(DecodeError::Invalid { what, value: 0 })?;
            if rows.flags & metadata_flags::GLOBAL_TABLES_SPEC == 0 {
                writer.string(first.keyspace).string(first.table);
            }
            writer.string(column.name).raw(column.column_type.raw);
        }
        let count_at = out.len();
        out.extend_from_slice(&[0; 4]);
        Ok(Self { out, count_at, count: 0 })
    }

    /// Writes one row: a cell for each column, the added ones last.
    pub fn row<'c>(&mut self, cells: impl IntoIterator<Item = Value<'c>>) {
        let mut writer = Writer::new(&mut self.out);
        for cell in cells {
            writer.value(cell);
        }
        self.count += 1;
    }

    /// Bytes written so far.
    pub fn len(&self) -> usize {
        self.out.len()
    }

    pub fn is_empty(&self) -> bool {
        self.out.is_empty()
    }

    /// The bytes given to [`RowsWriter::begin`] and the message behind them, with what followed the rows.
    pub fn finish(mut self, trailing: &[u8]) -> Vec<u8> {
        if let Some(count) = self.out.get_mut(self.count_at..self.count_at + 4) {
            count.copy_from_slice(&self.count.to_be_bytes());
        }
        self.out.extend_from_slice(trailing);
        self.out
    }
}
