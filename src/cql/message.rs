//! The few messages that are read or written: what the handshake says, EVENT, the heads of requests, and the lengths in those
//! of strangers.
//!
//! Nothing here is a general codec: a message that is not named here is never parsed. All bodies are uncompressed and
//! without what the frame's flags put before them ([`MessageStart`]).

pub mod claims;
pub mod event;
pub mod request;
pub mod start;

use super::compression::Compression;
use super::primitives::{DecodeError, Reader, Writer};

pub use event::{Event, NodeChange, SCHEMA_CHANGE};
pub use start::MessageStart;

/// Error codes that this program writes or looks for (native_protocol_v5.spec §9). An open set on the wire.
pub mod error_code {
    pub const SERVER_ERROR: i32 = 0x0000;
    pub const PROTOCOL_ERROR: i32 = 0x000a;
    /// A login was refused.
    pub const BAD_CREDENTIALS: i32 = 0x0100;
    pub const OVERLOADED: i32 = 0x1001;
    pub const INVALID: i32 = 0x2200;
    pub const UNPREPARED: i32 = 0x2500;
}

/// STARTUP (§4.1.1): a `[string map]` of options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Startup<'a> {
    /// In the order of the wire.
    pub options: Vec<(&'a str, &'a str)>,
}

impl<'a> Startup<'a> {
    pub fn parse(message: &'a [u8]) -> Result<Self, DecodeError> {
        Ok(Self { options: Reader::new(message).string_map("STARTUP options")? })
    }

    /// An option's value. Nodes compare names in upper case and the last of several wins
    /// (apache/cassandra `transport/messages/StartupMessage.java`).
    pub fn get(&self, name: &str) -> Option<&'a str> {
        self.options.iter().rev().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|&(_, value)| value)
    }

    /// The compression asked for; `None` also for a name that nodes refuse.
    pub fn compression(&self) -> Option<Compression> {
        self.get("COMPRESSION").and_then(Compression::from_name)
    }

    pub fn driver_name(&self) -> Option<&'a str> {
        self.get("DRIVER_NAME")
    }

    pub fn driver_version(&self) -> Option<&'a str> {
        self.get("DRIVER_VERSION")
    }
}

/// The body of a STARTUP.
pub fn encode_startup(options: &[(&str, &str)]) -> Vec<u8> {
    let mut body = Vec::new();
    Writer::new(&mut body).string_map(options);
    body
}

/// SUPPORTED (§4.2.4): a `[string multimap]` of options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Supported<'a> {
    pub options: Vec<(&'a str, Vec<&'a str>)>,
}

impl<'a> Supported<'a> {
    pub fn parse(message: &'a [u8]) -> Result<Self, DecodeError> {
        Ok(Self { options: Reader::new(message).string_multimap("SUPPORTED options")? })
    }

    pub fn get(&self, name: &str) -> Option<&[&'a str]> {
        self.options.iter().find(|(key, _)| *key == name).map(|(_, values)| values.as_slice())
    }
}

/// The same SUPPORTED without `keys`, every other byte as it was; `None` when it has none of them.
pub fn supported_without(message: &[u8], keys: &[&str]) -> Result<Option<Vec<u8>>, DecodeError> {
    let mut reader = Reader::new(message);
    let count = reader.u16("SUPPORTED options")?;
    let mut kept = Vec::new();
    let mut kept_count = 0u16;
    for _ in 0..count {
        let start = reader.position();
        let key = reader.short_bytes("SUPPORTED option")?;
        reader.skip_string_list("SUPPORTED values")?;
        if !keys.iter().any(|remove| remove.as_bytes() == key) {
            kept.push(reader.since(start));
            kept_count += 1;
        }
    }
    if kept_count == count {
        return Ok(None);
    }
    let mut out = Vec::with_capacity(message.len());
    let mut writer = Writer::new(&mut out);
    writer.u16(kept_count);
    for option in kept {
        writer.raw(option);
    }
    writer.raw(reader.rest());
    Ok(Some(out))
}

/// The same SUPPORTED with one option more behind the others; `None` when it has that already, or no room for one.
pub fn supported_with(message: &[u8], key: &str, values: &[&str]) -> Result<Option<Vec<u8>>, DecodeError> {
    let mut reader = Reader::new(message);
    let count = reader.u16("SUPPORTED options")?;
    let start = reader.position();
    for _ in 0..count {
        if reader.short_bytes("SUPPORTED option")? == key.as_bytes() {
            return Ok(None);
        }
        reader.skip_string_list("SUPPORTED values")?;
    }
    let Some(count) = count.checked_add(1) else { return Ok(None) };
    let mut out = Vec::with_capacity(message.len() + 32);
    let mut writer = Writer::new(&mut out);
    writer.u16(count);
    writer.raw(reader.since(start));
    writer.string(key).string_list(values);
    writer.raw(reader.rest());
    Ok(Some(out))
}

/// REGISTER (§4.1.8): the event types a client wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Register<'a> {
    pub event_types: Vec<&'a str>,
}

impl<'a> Register<'a> {
    pub fn parse(message: &'a [u8]) -> Result<Self, DecodeError> {
        Ok(Self { event_types: Reader::new(message).string_list("REGISTER types")? })
    }

    /// Whether it asks for `event_type`, in any case (apache/cassandra `transport/CBUtil.java`, `readEnumValue`).
    pub fn has(&self, event_type: &str) -> bool {
        self.event_types.iter().any(|asked| asked.eq_ignore_ascii_case(event_type))
    }
}

/// The body of a REGISTER.
pub fn encode_register(event_types: &[&str]) -> Vec<u8> {
    let mut body = Vec::new();
    Writer::new(&mut body).string_list(event_types);
    body
}

/// ERROR (§4.2.1, §9): what every code has in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Error<'a> {
    pub code: i32,
    pub message: &'a str,
}

impl<'a> Error<'a> {
    pub fn parse(message: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(message);
        Ok(Self { code: reader.i32("ERROR code")?, message: reader.string("ERROR message")? })
    }

    /// The body of an ERROR without further fields: right for every code whose §9 entry lists none.
    pub fn encode(self) -> Vec<u8> {
        let mut body = Vec::with_capacity(6 + self.message.len());
        Writer::new(&mut body).i32(self.code).string(self.message);
        body
    }
}

/// AUTHENTICATE (§4.2.3): the authenticator's class name.
pub fn parse_authenticate(message: &[u8]) -> Result<&str, DecodeError> {
    Reader::new(message).string("AUTHENTICATE class")
}

/// The body of an AUTH_RESPONSE for SASL PLAIN: what Cassandra's `PasswordAuthenticator` takes.
pub fn encode_plain_auth_response(username: &str, password: &str) -> Vec<u8> {
    let mut token = vec![0];
    token.extend_from_slice(username.as_bytes());
    token.push(0);
    token.extend_from_slice(password.as_bytes());
    let mut body = Vec::with_capacity(4 + token.len());
    Writer::new(&mut body).value(super::primitives::Value::Bytes(&token));
    body
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn startup_names_are_compared_as_nodes_do() {
        let body = encode_startup(&[("CQL_VERSION", "3.0.0"), ("compression", "LZ4"), ("DRIVER_NAME", "cdrs-tokio")]);
        let startup = Startup::parse(&body).unwrap();
        assert_eq!(startup.compression(), Some(Compression::Lz4));
        assert_eq!(startup.driver_name(), Some("cdrs-tokio"));
        assert_eq!(startup.driver_version(), None);
        let body = encode_startup(&[("COMPRESSION", "snappy"), ("COMPRESSION", "zstd")]);
        assert_eq!(Startup::parse(&body).unwrap().compression(), None);
    }

    #[test]
    fn supported_loses_only_the_keys_named() {
        let mut body = Vec::new();
        Writer::new(&mut body)
            .u16(4)
            .string("COMPRESSION")
            .string_list(&["snappy", "lz4"])
            .string("SCYLLA_SHARD_AWARE_PORT")
            .string_list(&["19042"])
            .string("CQL_VERSION")
            .string_list(&["3.4.7"])
            .string("EMPTY")
            .string_list(&[]);
        let without = supported_without(&body, &["SCYLLA_SHARD_AWARE_PORT", "SCYLLA_SHARD_AWARE_PORT_SSL"]).unwrap();
        let without = without.unwrap();
        let supported = Supported::parse(&without).unwrap();
        assert_eq!(
            supported.options,
            [("COMPRESSION", vec!["snappy", "lz4"]), ("CQL_VERSION", vec!["3.4.7"]), ("EMPTY", vec![])]
        );
        assert_eq!(supported.get("CQL_VERSION"), Some(&["3.4.7"][..]));
        assert_eq!(supported_without(&without, &["SCYLLA_SHARD_AWARE_PORT"]), Ok(None));
        for have in 0..body.len() {
            assert!(supported_without(&body[..have], &["X"]).unwrap_err().is_truncated());
        }
    }

    #[test]
    fn supported_gains_an_option_that_it_lacks() {
        let mut body = Vec::new();
        Writer::new(&mut body).u16(1).string("CQL_VERSION").string_list(&["3.4.7"]);
        let with = supported_with(&body, "X", &["true"]).unwrap().unwrap();
        let options = Supported::parse(&with).unwrap().options;
        assert_eq!(options, [("CQL_VERSION", vec!["3.4.7"]), ("X", vec!["true"])]);
        assert_eq!(supported_with(&with, "X", &["false"]), Ok(None));
        for have in 0..body.len() {
            assert!(supported_with(&body[..have], "X", &[]).unwrap_err().is_truncated());
        }
    }

    #[test]
    fn plain_credentials_are_separated_by_zero_bytes() {
        assert_eq!(encode_plain_auth_response("u", "pw"), [0, 0, 0, 5, 0, b'u', 0, b'p', b'w']);
    }

    #[test]
    fn register_and_error_round_trip() {
        let body = encode_register(&["STATUS_CHANGE", "SCHEMA_CHANGE"]);
        let register = Register::parse(&body).unwrap();
        assert!(register.has("STATUS_CHANGE") && !register.has("TOPOLOGY_CHANGE"));
        let error = Error { code: error_code::INVALID, message: "unconfigured table peers_v2" };
        assert_eq!(error.encode()[..6], [0, 0, 0x22, 0, 0, 27]);
        assert_eq!(Error::parse(&error.encode()), Ok(error));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = Startup::parse(&bytes);
            let _ = Supported::parse(&bytes);
            let _ = Register::parse(&bytes);
            let _ = Error::parse(&bytes);
            let _ = parse_authenticate(&bytes);
            let _ = supported_without(&bytes, &["A"]);
            let _ = supported_with(&bytes, "A", &["B"]);
        }
    }
}
