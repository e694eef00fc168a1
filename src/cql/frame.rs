//! The nine bytes before every body, in v3, v4 and v5 (native_protocol_v4.spec §2, v5 §2.2).
//!
//! Unknown versions, flags and opcodes stay numbers: what one side said reaches the other.

/// Length in bytes of a frame header in protocol v3 and later.
pub const HEADER_LEN: usize = 9;

/// The longest body that the specification allows: 256 MiB (native_protocol_v4.spec §2.5).
pub const MAX_BODY_LEN: u32 = 256 * 1024 * 1024;

/// The stream id of every EVENT (native_protocol_v4.spec §2.3).
pub const EVENT_STREAM: i16 = -1;

/// A protocol version that this crate parses after the handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    V3,
    V4,
    V5,
}

impl Version {
    /// The version named by a header's first byte, direction bit ignored; `None` for every other number.
    pub fn from_byte(byte: u8) -> Option<Self> {
        match byte & 0x7f {
            3 => Some(Self::V3),
            4 => Some(Self::V4),
            5 => Some(Self::V5),
            _ => None,
        }
    }

    /// The number in the header of a request.
    pub fn number(self) -> u8 {
        match self {
            Self::V3 => 3,
            Self::V4 => 4,
            Self::V5 => 5,
        }
    }
}

/// A message's opcode; an open set (native_protocol_v5.spec §2.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Opcode(pub u8);

impl Opcode {
    pub const ERROR: Self = Self(0x00);
    pub const STARTUP: Self = Self(0x01);
    pub const READY: Self = Self(0x02);
    pub const AUTHENTICATE: Self = Self(0x03);
    pub const OPTIONS: Self = Self(0x05);
    pub const SUPPORTED: Self = Self(0x06);
    pub const QUERY: Self = Self(0x07);
    pub const RESULT: Self = Self(0x08);
    pub const PREPARE: Self = Self(0x09);
    pub const EXECUTE: Self = Self(0x0a);
    pub const REGISTER: Self = Self(0x0b);
    pub const EVENT: Self = Self(0x0c);
    pub const BATCH: Self = Self(0x0d);
    pub const AUTH_CHALLENGE: Self = Self(0x0e);
    pub const AUTH_RESPONSE: Self = Self(0x0f);
    pub const AUTH_SUCCESS: Self = Self(0x10);
}

/// A header's flag bits; an open set (native_protocol_v5.spec §2.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(pub u8);

impl Flags {
    pub const COMPRESSION: u8 = 0x01;
    pub const TRACING: u8 = 0x02;
    pub const CUSTOM_PAYLOAD: u8 = 0x04;
    pub const WARNING: u8 = 0x08;
    pub const USE_BETA: u8 = 0x10;

    pub fn has(self, bit: u8) -> bool {
        self.0 & bit != 0
    }

    pub fn without(self, bit: u8) -> Self {
        Self(self.0 & !bit)
    }
}

/// One frame header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The first byte as it is on the wire: bit 7 set in responses.
    pub version: u8,
    pub flags: Flags,
    pub stream: i16,
    pub opcode: Opcode,
    /// Length of the body in bytes, as declared; not yet compared with any limit.
    pub length: u32,
}

impl Header {
    /// The header at the start of `bytes`; `None` when fewer than nine are there.
    pub fn peek(bytes: &[u8]) -> Option<Self> {
        let &[version, flags, s0, s1, opcode, l0, l1, l2, l3] = bytes.first_chunk::<HEADER_LEN>()?;
        Some(Self {
            version,
            flags: Flags(flags),
            stream: i16::from_be_bytes([s0, s1]),
            opcode: Opcode(opcode),
            length: u32::from_be_bytes([l0, l1, l2, l3]),
        })
    }

    pub fn encode(self) -> [u8; HEADER_LEN] {
        let [s0, s1] = self.stream.to_be_bytes();
        let [l0, l1, l2, l3] = self.length.to_be_bytes();
        [self.version, self.flags.0, s0, s1, self.opcode.0, l0, l1, l2, l3]
    }

    /// True when bit 7 of the version byte is set.
    pub fn is_response(self) -> bool {
        self.version & 0x80 != 0
    }

    /// Header and body together, in bytes.
    pub fn frame_len(self) -> u64 {
        HEADER_LEN as u64 + u64::from(self.length)
    }
}

/// A whole frame: `header` with its length set to that of `body`, then `body`.
///
/// Bodies here are made by this crate and bounded by its caps, far below `u32::MAX`; a longer one saturates and would be
/// refused by the receiver.
pub fn encode_frame(header: Header, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
    super::cost::steps(body.len());
    let mut frame = Vec::with_capacity(HEADER_LEN + body.len());
    frame.extend_from_slice(&Header { length, ..header }.encode());
    frame.extend_from_slice(body);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_round_trips() {
        let bytes = [0x85, 0x1b, 0xff, 0xff, 0x0c, 0x10, 0x00, 0x00, 0x01];
        let header = Header::peek(&bytes).unwrap();
        assert_eq!(header.stream, EVENT_STREAM);
        assert_eq!(header.opcode, Opcode::EVENT);
        assert_eq!(header.length, MAX_BODY_LEN + 1);
        assert_eq!(Version::from_byte(header.version), Some(Version::V5));
        assert!(header.is_response());
        assert_eq!(header.encode(), bytes);
    }

    #[test]
    fn header_needs_nine_bytes() {
        let bytes = [0x04, 0, 0, 0, 0x05, 0, 0, 0, 0];
        for have in 0..HEADER_LEN {
            assert_eq!(Header::peek(&bytes[..have]), None);
        }
        assert!(Header::peek(&bytes).is_some());
    }

    #[test]
    fn unknown_versions_are_none() {
        for byte in [0x01, 0x02, 0x06, 0x07, 0x41, 0x42, 0x86] {
            assert_eq!(Version::from_byte(byte), None);
        }
    }
}
