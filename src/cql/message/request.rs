//! The heads of QUERY and EXECUTE: just enough to find the statement's id and the byte that asks to skip metadata.
//!
//! The text of a statement is not looked into here.

use super::super::frame::{Flags, Version};
use super::super::primitives::{DecodeError, Reader, Writer};

/// A request's flags (native_protocol_v5.spec §4.1.4), most of which say what follows them.
pub mod flag {
    pub const VALUES: u8 = 0x01;
    pub const SKIP_METADATA: u8 = 0x02;
    pub const PAGE_SIZE: u8 = 0x04;
    pub const PAGING_STATE: u8 = 0x08;
    pub const SERIAL_CONSISTENCY: u8 = 0x10;
    pub const TIMESTAMP: u8 = 0x20;
    pub const NAMES: u8 = 0x40;
    /// v5
    pub const KEYSPACE: u8 = 0x80;
}

/// Where the flag byte of a QUERY or EXECUTE is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueryFlags {
    /// From the start of the message. In v5, where flags are an `[int]`, its lowest byte.
    pub offset: usize,
    pub value: u8,
}

impl QueryFlags {
    pub fn skips_metadata(self) -> bool {
        self.value & flag::SKIP_METADATA != 0
    }
}

/// Where the message of a request's body begins: after the custom payload, when flag 0x04 says that there is one.
pub fn message_offset(flags: Flags, body: &[u8]) -> Result<usize, DecodeError> {
    let mut reader = Reader::new(body);
    if flags.has(Flags::CUSTOM_PAYLOAD) {
        reader.skip_bytes_map("custom payload")?;
    }
    Ok(reader.position())
}

/// The flags of a QUERY (§4.1.4): after the text and the consistency.
///
/// # Errors
/// `Truncated` while `message` does not reach to them: the text may be long.
pub fn query_flags(version: Version, message: &[u8]) -> Result<QueryFlags, DecodeError> {
    let mut reader = Reader::new(message);
    reader.long_string("QUERY text")?;
    flags_after_consistency(version, reader)
}

/// The prepared id and the flags of an EXECUTE (§4.1.6).
pub fn execute_head(version: Version, message: &[u8]) -> Result<(&[u8], QueryFlags), DecodeError> {
    let mut reader = Reader::new(message);
    let id = reader.short_bytes("EXECUTE id")?;
    if version >= Version::V5 {
        reader.short_bytes("EXECUTE result metadata id")?;
    }
    flags_after_consistency(version, reader).map(|flags| (id, flags))
}

fn flags_after_consistency(version: Version, mut reader: Reader<'_>) -> Result<QueryFlags, DecodeError> {
    reader.u16("consistency")?;
    if version >= Version::V5 {
        reader.take("flags", 3)?;
    }
    let offset = reader.position();
    let value = reader.u8("flags")?;
    Ok(QueryFlags { offset, value })
}

/// The body of a QUERY at consistency ONE, without values or paging.
pub fn encode_query(version: Version, text: &str) -> Vec<u8> {
    let mut body = Vec::with_capacity(text.len() + 10);
    let mut writer = Writer::new(&mut body);
    writer.long_string(text).u16(0x0001);
    if version >= Version::V5 {
        writer.i32(0);
    } else {
        writer.u8(0);
    }
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    const VERSIONS: [Version; 3] = [Version::V3, Version::V4, Version::V5];

    #[test]
    fn query_flags_are_found_after_text_and_consistency() {
        for version in VERSIONS {
            let body = encode_query(version, "SELECT * FROM system.local");
            let flags = query_flags(version, &body).unwrap();
            assert_eq!(flags, QueryFlags { offset: body.len() - 1, value: 0 });
            for have in 0..body.len() {
                assert!(query_flags(version, &body[..have]).unwrap_err().is_truncated());
            }
        }
    }

    #[test]
    fn execute_has_a_second_id_in_v5() {
        let v4 = [0, 2, 0xab, 0xcd, 0, 1, 0x22, 0, 0, 0, 100];
        let (id, flags) = execute_head(Version::V4, &v4).unwrap();
        assert_eq!((id, flags), (&[0xab, 0xcd][..], QueryFlags { offset: 6, value: 0x22 }));
        assert!(flags.skips_metadata());
        let v5 = [0, 2, 0xab, 0xcd, 0, 1, 0xee, 0, 1, 0, 0, 0, 0x02, 0xff];
        let (id, flags) = execute_head(Version::V5, &v5).unwrap();
        assert_eq!((id, flags), (&[0xab, 0xcd][..], QueryFlags { offset: 12, value: 0x02 }));
        for have in 0..13 {
            assert!(execute_head(Version::V5, &v5[..have]).unwrap_err().is_truncated());
        }
    }

    #[test]
    fn a_custom_payload_comes_before_the_message() {
        let body = [0, 1, 0, 1, b'k', 0, 0, 0, 2, 1, 2, 0xaa];
        assert_eq!(message_offset(Flags(Flags::CUSTOM_PAYLOAD | Flags::TRACING), &body), Ok(11));
        assert_eq!(message_offset(Flags(Flags::TRACING), &body), Ok(0));
        assert!(message_offset(Flags(Flags::CUSTOM_PAYLOAD), &body[..10]).unwrap_err().is_truncated());
    }
}
