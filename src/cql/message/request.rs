//! The heads of QUERY and EXECUTE: just enough to find the statement's id and the byte that asks to skip metadata.
//!
//! The text of a statement is not looked into here.

use super::super::frame::Version;
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

/// The user in an AUTH_RESPONSE (§4.1.2) of SASL PLAIN (RFC 4616: `[authzid] NUL authcid NUL passwd`); `None` for whatever
/// else it is.
pub fn sasl_plain_user(message: &[u8]) -> Option<String> {
    let token = Reader::new(message).bytes("token").ok()??;
    let mut parts = token.split(|byte| *byte == 0);
    let (_authzid, user, _password) = (parts.next()?, parts.next()?, parts.next()?);
    (parts.next().is_none() && !user.is_empty()).then(|| std::str::from_utf8(user).ok().map(str::to_owned))?
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
    fn the_user_of_sasl_plain_is_known_and_of_nothing_else() {
        let user = |token: &[u8]| {
            let mut message = Vec::new();
            Writer::new(&mut message).value(super::super::super::primitives::Value::Bytes(token));
            sasl_plain_user(&message)
        };
        assert_eq!(user(b"\0cassandra\0secret").as_deref(), Some("cassandra"));
        assert_eq!(user(b"as\0cassandra\0").as_deref(), Some("cassandra"));
        for other in [&b""[..], b"cassandra", b"\0cassandra", b"\0\0secret", b"a\0b\0c\0d", b"\0\xff\0secret"] {
            assert_eq!(user(other), None, "{other:?}");
        }
        assert_eq!(sasl_plain_user(&[0xff; 4]), None, "null");
    }
}
