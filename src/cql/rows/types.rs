//! A column's type: an `[option]` of native_protocol_v5.spec §4.2.5.2, kept as the bytes that it is.

use super::super::primitives::{DecodeError, Reader};

/// How deep types may nest: recursion on what a peer sent has a floor. Cassandra's own tables go three deep.
pub const MAX_TYPE_DEPTH: usize = 32;

/// The ids that are looked for or written.
pub mod type_id {
    pub const CUSTOM: u16 = 0x0000;
    pub const ASCII: u16 = 0x0001;
    pub const BLOB: u16 = 0x0003;
    pub const INT: u16 = 0x0009;
    /// `text` in v1 and v2.
    pub const LEGACY_TEXT: u16 = 0x000a;
    pub const UUID: u16 = 0x000c;
    pub const VARCHAR: u16 = 0x000d;
    pub const TIMEUUID: u16 = 0x000f;
    pub const INET: u16 = 0x0010;
    pub const LIST: u16 = 0x0020;
    pub const MAP: u16 = 0x0021;
    pub const SET: u16 = 0x0022;
    pub const UDT: u16 = 0x0030;
    pub const TUPLE: u16 = 0x0031;
}

use type_id::{CUSTOM, LIST, MAP, SET, TUPLE, UDT};

/// A type as on the wire: its `[short]` id, and for some ids what follows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ColumnType<'a> {
    pub raw: &'a [u8],
}

/// What matters of a type when its values are looked into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NativeType<'a> {
    /// ascii, varchar (text)
    Text,
    Blob,
    Inet,
    Int,
    /// A scalar of another kind, by id.
    Other(u16),
    /// A class of the node's: its values' bytes have no public shape.
    Custom(&'a str),
    /// List or set: the elements' type.
    Elements(ColumnType<'a>),
    Map(ColumnType<'a>, ColumnType<'a>),
    /// Tuple or user-defined type: the fields' types, `fields` of them, one after the other.
    Fields {
        fields: u16,
        raw: &'a [u8],
        named: bool,
    },
}

impl<'a> ColumnType<'a> {
    /// `inet`
    pub const INET: ColumnType<'static> = ColumnType { raw: &type_id::INET.to_be_bytes() };
    /// `int`
    pub const INT: ColumnType<'static> = ColumnType { raw: &type_id::INT.to_be_bytes() };

    /// Reads one type.
    ///
    /// # Errors
    /// `TooLong` when it nests deeper than [`MAX_TYPE_DEPTH`]; `Invalid` for an id whose shape is not known and that may
    /// be followed by something (0x0020 and above); ids of scalars that are not known are scalars.
    pub fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let start = reader.position();
        skip(reader, 0)?;
        Ok(Self { raw: reader.since(start) })
    }

    /// What the type is; never fails for a type that [`ColumnType::read`] gave.
    pub fn native(self) -> Result<NativeType<'a>, DecodeError> {
        let mut reader = Reader::new(self.raw);
        Ok(match reader.u16("type id")? {
            CUSTOM => NativeType::Custom(reader.string("custom type")?),
            type_id::ASCII | type_id::LEGACY_TEXT | type_id::VARCHAR => NativeType::Text,
            type_id::BLOB => NativeType::Blob,
            type_id::INT => NativeType::Int,
            type_id::INET => NativeType::Inet,
            LIST | SET => NativeType::Elements(Self::read(&mut reader)?),
            MAP => NativeType::Map(Self::read(&mut reader)?, Self::read(&mut reader)?),
            TUPLE => {
                let fields = reader.u16("tuple fields")?;
                NativeType::Fields { fields, raw: reader.rest(), named: false }
            }
            UDT => {
                reader.short_bytes("UDT keyspace")?;
                reader.short_bytes("UDT name")?;
                let fields = reader.u16("UDT fields")?;
                NativeType::Fields { fields, raw: reader.rest(), named: true }
            }
            other => NativeType::Other(other),
        })
    }
}

fn skip(reader: &mut Reader<'_>, depth: usize) -> Result<(), DecodeError> {
    if depth == MAX_TYPE_DEPTH {
        let (length, limit) = (depth as u64 + 1, MAX_TYPE_DEPTH as u64);
        return Err(DecodeError::TooLong { what: "nested types", length, limit });
    }
    match reader.u16("type id")? {
        CUSTOM => {
            reader.string("custom type")?;
        }
        LIST | SET => skip(reader, depth + 1)?,
        MAP => {
            skip(reader, depth + 1)?;
            skip(reader, depth + 1)?;
        }
        UDT => {
            reader.short_bytes("UDT keyspace")?;
            reader.short_bytes("UDT name")?;
            for _ in 0..reader.u16("UDT fields")? {
                reader.short_bytes("UDT field")?;
                skip(reader, depth + 1)?;
            }
        }
        TUPLE => {
            for _ in 0..reader.u16("tuple fields")? {
                skip(reader, depth + 1)?;
            }
        }
        0x0001..0x0020 => {}
        unknown => return Err(DecodeError::Invalid { what: "type id", value: i64::from(unknown) }),
    }
    Ok(())
}
