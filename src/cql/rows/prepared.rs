//! RESULT/Prepared (native_protocol_v5.spec §4.2.5.4): the id, and what its results will be rows of.

use super::super::frame::Version;
use super::super::primitives::{DecodeError, Reader};
use super::{ColumnType, MAX_TYPE_NODES, MetadataHead, ResultKind, TableOf, metadata_flags};

/// What a PREPARE was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prepared<'a> {
    pub id: &'a [u8],
    /// v5: the id of the result metadata.
    pub result_metadata_id: Option<&'a [u8]>,
    /// Columns of a result; 0 for statements that return no rows.
    pub result_columns: usize,
    /// The table of its results: `Table`, `Several`, `NoColumns`, or `NoMetadata`.
    pub result_table: TableOf<'a>,
}

impl<'a> Prepared<'a> {
    /// Parses a RESULT message that is a Prepared result, from its kind on.
    pub fn parse(version: Version, message: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(message);
        let kind = reader.i32("RESULT kind")?;
        if ResultKind::parse(message)? != ResultKind::Prepared {
            return Err(DecodeError::Invalid { what: "RESULT kind", value: i64::from(kind) });
        }
        let id = reader.short_bytes("prepared id")?;
        let result_metadata_id =
            if version >= Version::V5 { Some(reader.short_bytes("result metadata id")?) } else { None };
        skip_variables(version, &mut reader)?;
        let head = MetadataHead::read(&mut reader)?;
        let result_table = result_table(&mut reader, &head)?;
        Ok(Self { id, result_metadata_id, result_columns: head.column_count, result_table })
    }
}

/// The metadata of the bound variables: with the partition key's indexes from v4 on (§4.2.5.4).
fn skip_variables(version: Version, reader: &mut Reader<'_>) -> Result<(), DecodeError> {
    let flags = reader.i32("variables flags")?;
    let count = reader.count("variables count")?;
    if version >= Version::V4 {
        for _ in 0..reader.count("partition key count")? {
            reader.u16("partition key index")?;
        }
    }
    let global = flags & metadata_flags::GLOBAL_TABLES_SPEC != 0;
    if global {
        reader.short_bytes("keyspace")?;
        reader.short_bytes("table")?;
    }
    let mut nodes = MAX_TYPE_NODES;
    for _ in 0..count {
        if !global {
            reader.short_bytes("variable keyspace")?;
            reader.short_bytes("variable table")?;
        }
        reader.short_bytes("variable name")?;
        ColumnType::read_within(reader, &mut nodes)?;
    }
    Ok(())
}

fn result_table<'a>(reader: &mut Reader<'a>, head: &MetadataHead<'a>) -> Result<TableOf<'a>, DecodeError> {
    if head.column_count == 0 {
        return Ok(TableOf::NoColumns);
    }
    if head.has(metadata_flags::NO_METADATA) {
        return Ok(TableOf::NoMetadata);
    }
    super::table_of_columns(reader, head)
}
