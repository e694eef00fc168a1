//! What follows the text of a QUERY and the id of an EXECUTE (native_protocol_v5.spec §4.1.4).

use crate::cql::frame::Version;
use crate::cql::message::request::flag;
use crate::cql::primitives::{DecodeError, Reader, Value};

#[derive(Clone, Debug, Default)]
pub(super) struct Parameters<'a> {
    pub skip_metadata: bool,
    /// With the name, where values are named.
    pub values: Vec<(Option<&'a str>, Value<'a>)>,
    pub page_size: Option<usize>,
    pub paging_state: Option<&'a [u8]>,
    /// v5
    pub keyspace: Option<&'a str>,
}

impl<'a> Parameters<'a> {
    pub fn read(version: Version, reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        reader.u16("consistency")?;
        let flags = if version >= Version::V5 { reader.u32("flags")? } else { u32::from(reader.u8("flags")?) };
        let has = |flag: u8| flags & u32::from(flag) != 0;
        let mut parameters = Self { skip_metadata: has(flag::SKIP_METADATA), ..Self::default() };
        if has(flag::VALUES) {
            for _ in 0..reader.u16("values")? {
                let name = if has(flag::NAMES) { Some(reader.string("value's name")?) } else { None };
                parameters.values.push((name, reader.value("value")?));
            }
        }
        if has(flag::PAGE_SIZE) {
            parameters.page_size = usize::try_from(reader.i32("page size")?).ok().filter(|&size| size > 0);
        }
        if has(flag::PAGING_STATE) {
            parameters.paging_state = reader.bytes("paging state")?;
        }
        if has(flag::SERIAL_CONSISTENCY) {
            reader.u16("serial consistency")?;
        }
        if has(flag::TIMESTAMP) {
            reader.i64("timestamp")?;
        }
        if has(flag::KEYSPACE) && version >= Version::V5 {
            parameters.keyspace = Some(reader.string("keyspace")?);
        }
        Ok(parameters)
    }
}
