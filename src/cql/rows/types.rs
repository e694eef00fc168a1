//! A column's type: an `[option]` of native_protocol_v5.spec §4.2.5.2, kept as the bytes that it is.

use super::super::cost;
use super::super::primitives::{DecodeError, Reader};

/// How deep types may nest: recursion on what a peer sent has a floor. Cassandra's own tables go three deep.
pub const MAX_TYPE_DEPTH: usize = 32;

/// How many nodes the types of one message may have: a turn's work. Wide tables have some thousand.
pub const MAX_TYPE_NODES: usize = 16 * 1024;

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

impl<'a> ColumnType<'a> {
    /// `inet`
    pub const INET: ColumnType<'static> = ColumnType { raw: &type_id::INET.to_be_bytes() };
    /// `int`
    pub const INT: ColumnType<'static> = ColumnType { raw: &type_id::INT.to_be_bytes() };

    /// Reads one type.
    ///
    /// # Errors
    /// `TooLong` when it nests deeper than [`MAX_TYPE_DEPTH`] or has more nodes than [`MAX_TYPE_NODES`]; `Invalid` for an id whose shape is not known and that may
    /// be followed by something (0x0020 and above); ids of scalars that are not known are scalars.
    pub fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Self::read_within(reader, &mut { MAX_TYPE_NODES })
    }

    /// The same, of several types that have `nodes` together: a list of types may be long, but has an end.
    pub fn read_within(reader: &mut Reader<'a>, nodes: &mut usize) -> Result<Self, DecodeError> {
        let start = reader.position();
        read(reader, 0, nodes, &mut None)?;
        Ok(Self { raw: reader.since(start) })
    }
}

/// What matters of a type when its values are looked into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TypeKind {
    /// ascii, varchar (text)
    Text,
    Blob,
    Inet,
    Int,
    /// uuid, timeuuid
    Uuid,
    /// A scalar of another kind.
    Scalar,
    /// A class of the node's: its values' bytes have no public shape.
    Custom,
    /// List or set: one child.
    Elements,
    /// Two children.
    Map,
    /// Tuple or user-defined type: a child for each field.
    Fields,
}

/// A node of a type, with its children behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TypeNode {
    pub kind: TypeKind,
    /// Where in the list the next node is that is no part of this one.
    pub end: u32,
}

/// Types read once, to be looked at for each value: their nodes in one list, parents first.
#[derive(Clone, Debug, Default)]
pub struct Types {
    nodes: Vec<TypeNode>,
}

impl Types {
    /// Reads one more type, and says where it is.
    ///
    /// # Errors
    /// As [`ColumnType::read`]; `TooLong` when all together have more than [`MAX_TYPE_NODES`].
    pub fn add(&mut self, of: ColumnType<'_>) -> Result<usize, DecodeError> {
        let at = self.nodes.len();
        let mut left = MAX_TYPE_NODES.saturating_sub(at);
        read(&mut Reader::new(of.raw), 0, &mut left, &mut Some(&mut self.nodes))?;
        Ok(at)
    }

    pub fn get(&self, at: usize) -> Option<TypeNode> {
        self.nodes.get(at).copied()
    }

    pub fn kind(&self, at: usize) -> Option<TypeKind> {
        self.get(at).map(|node| node.kind)
    }

    /// Where the children of the node at `at` are, in order.
    pub fn children(&self, at: usize) -> impl Iterator<Item = usize> + '_ {
        let end = self.get(at).map_or(0, |node| node.end as usize);
        let first = (at + 1 < end).then_some(at + 1);
        std::iter::successors(first, move |&child| {
            self.get(child).map(|node| node.end as usize).filter(|&next| next < end)
        })
    }

    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }
}

/// Reads one type, and writes its nodes down where they are wanted.
fn read(
    reader: &mut Reader<'_>,
    depth: usize,
    left: &mut usize,
    nodes: &mut Option<&mut Vec<TypeNode>>,
) -> Result<(), DecodeError> {
    let too_long = |what, limit: usize| DecodeError::TooLong { what, length: limit as u64 + 1, limit: limit as u64 };
    if depth == MAX_TYPE_DEPTH {
        return Err(too_long("nested types", MAX_TYPE_DEPTH));
    }
    *left = left.checked_sub(1).ok_or(too_long("types", MAX_TYPE_NODES))?;
    cost::steps(1);
    let id = reader.u16("type id")?;
    let kind = match id {
        CUSTOM => TypeKind::Custom,
        type_id::ASCII | type_id::LEGACY_TEXT | type_id::VARCHAR => TypeKind::Text,
        type_id::BLOB => TypeKind::Blob,
        type_id::INT => TypeKind::Int,
        type_id::INET => TypeKind::Inet,
        type_id::UUID | type_id::TIMEUUID => TypeKind::Uuid,
        0x0001..0x0020 => TypeKind::Scalar,
        LIST | SET => TypeKind::Elements,
        MAP => TypeKind::Map,
        TUPLE | UDT => TypeKind::Fields,
        unknown => return Err(DecodeError::Invalid { what: "type id", value: i64::from(unknown) }),
    };
    let at = nodes.as_ref().map_or(0, |nodes| nodes.len());
    if let Some(nodes) = nodes {
        nodes.push(TypeNode { kind, end: 0 });
    }
    match id {
        CUSTOM => {
            reader.string("custom type")?;
        }
        LIST | SET => read(reader, depth + 1, left, nodes)?,
        MAP => {
            read(reader, depth + 1, left, nodes)?;
            read(reader, depth + 1, left, nodes)?;
        }
        UDT => {
            reader.short_bytes("UDT keyspace")?;
            reader.short_bytes("UDT name")?;
            for _ in 0..reader.u16("UDT fields")? {
                reader.short_bytes("UDT field")?;
                read(reader, depth + 1, left, nodes)?;
            }
        }
        TUPLE => {
            for _ in 0..reader.u16("tuple fields")? {
                read(reader, depth + 1, left, nodes)?;
            }
        }
        _ => {}
    }
    if let Some(nodes) = nodes {
        let end = u32::try_from(nodes.len()).unwrap_or(u32::MAX);
        if let Some(node) = nodes.get_mut(at) {
            node.end = end;
        }
    }
    Ok(())
}
