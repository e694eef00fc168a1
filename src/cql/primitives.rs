//! The notations of native_protocol_v5.spec §3 (`[short]`, `[string]`, `[bytes]`, `[inet]` …), read from a slice and
//! appended to a `Vec`.
//!
//! Reading never panics, never allocates more than the bytes at hand can fill, and tells *not enough bytes yet*
//! ([`DecodeError::Truncated`]) from *malformed*: a caller that streams waits on the first and gives up on the second.

mod writer;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use thiserror::Error;
use uuid::Uuid;

use super::cost;

pub use writer::Writer;

/// Why bytes could not be read. `what` names the field that was being read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// The bytes end before the field does; more of them could make it right.
    #[error("{what}: need {need} bytes, have {have}")]
    Truncated { what: &'static str, need: usize, have: usize },
    /// No further bytes can make this right.
    #[error("{what}: invalid value {value}")]
    Invalid { what: &'static str, value: i64 },
    /// A declared length or count is over the limit; nothing was allocated for it.
    #[error("{what}: length {length} is over the limit {limit}")]
    TooLong { what: &'static str, length: u64, limit: u64 },
    /// A checksum differs: the bytes were damaged, or they are not what they were taken for.
    #[error("{what}: checksum mismatch (computed {computed:#x}, found {found:#x})")]
    Checksum { what: &'static str, computed: u32, found: u32 },
    /// Bytes that should be UTF-8 are not, or a compressed block breaks its own format.
    #[error("{what}: malformed")]
    Malformed { what: &'static str },
}

impl DecodeError {
    /// True when more bytes could change the answer.
    pub fn is_truncated(self) -> bool {
        matches!(self, Self::Truncated { .. })
    }

    /// How many bytes more would make a truncated field whole; 0 for every other error.
    pub fn missing(self) -> usize {
        match self {
            Self::Truncated { need, have, .. } => need.saturating_sub(have).max(1),
            _ => 0,
        }
    }
}

/// A `[value]`: length -1 is null, -2 is *not set* (native_protocol_v4.spec §3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    Bytes(&'a [u8]),
    Null,
    Unset,
}

impl<'a> Value<'a> {
    /// The bytes; `None` for null and not set.
    pub fn bytes(self) -> Option<&'a [u8]> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            Self::Null | Self::Unset => None,
        }
    }
}

/// A position in a slice. Every read names what it reads, for the error.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Reader<'a> {
    #[inline]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, position: 0 }
    }

    /// Bytes read so far.
    #[inline]
    pub fn position(&self) -> usize {
        self.position
    }

    /// Bytes not yet read.
    #[inline]
    pub fn remaining(&self) -> usize {
        self.bytes.len().saturating_sub(self.position)
    }

    /// The bytes not yet read.
    #[inline]
    pub fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.position..).unwrap_or_default()
    }

    /// What was read since `start`, an earlier [`Reader::position`].
    pub fn since(&self, start: usize) -> &'a [u8] {
        self.bytes.get(start..self.position).unwrap_or_default()
    }

    /// The next `need` bytes.
    #[inline]
    pub fn take(&mut self, what: &'static str, need: usize) -> Result<&'a [u8], DecodeError> {
        cost::steps(1);
        match self.rest().get(..need) {
            Some(bytes) => {
                self.position += need;
                Ok(bytes)
            }
            None => Err(DecodeError::Truncated { what, need, have: self.remaining() }),
        }
    }

    #[inline]
    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], DecodeError> {
        cost::steps(1);
        match self.rest().first_chunk::<N>() {
            Some(bytes) => {
                self.position += N;
                Ok(*bytes)
            }
            None => Err(DecodeError::Truncated { what, need: N, have: self.remaining() }),
        }
    }

    #[inline]
    pub fn u8(&mut self, what: &'static str) -> Result<u8, DecodeError> {
        self.array::<1>(what).map(|[byte]| byte)
    }

    /// `[short]`
    #[inline]
    pub fn u16(&mut self, what: &'static str) -> Result<u16, DecodeError> {
        self.array(what).map(u16::from_be_bytes)
    }

    /// `[int]`
    #[inline]
    pub fn i32(&mut self, what: &'static str) -> Result<i32, DecodeError> {
        self.array(what).map(i32::from_be_bytes)
    }

    pub fn u32(&mut self, what: &'static str) -> Result<u32, DecodeError> {
        self.array(what).map(u32::from_be_bytes)
    }

    /// `[long]`
    pub fn i64(&mut self, what: &'static str) -> Result<i64, DecodeError> {
        self.array(what).map(i64::from_be_bytes)
    }

    /// `[uuid]`
    pub fn uuid(&mut self, what: &'static str) -> Result<Uuid, DecodeError> {
        self.array(what).map(Uuid::from_bytes)
    }

    /// An `[int]` that counts things: never negative.
    #[inline]
    pub fn count(&mut self, what: &'static str) -> Result<usize, DecodeError> {
        let value = self.i32(what)?;
        usize::try_from(value).map_err(|_| DecodeError::Invalid { what, value: i64::from(value) })
    }

    /// `[string]`
    #[inline]
    pub fn string(&mut self, what: &'static str) -> Result<&'a str, DecodeError> {
        let bytes = self.short_bytes(what)?;
        cost::steps(bytes.len());
        std::str::from_utf8(bytes).map_err(|_| DecodeError::Malformed { what })
    }

    /// `[long string]`, as bytes: a statement's text is never looked into here.
    pub fn long_string(&mut self, what: &'static str) -> Result<&'a [u8], DecodeError> {
        let length = self.count(what)?;
        self.take(what, length)
    }

    /// `[short bytes]`; also a `[string]` that need not be UTF-8.
    #[inline]
    pub fn short_bytes(&mut self, what: &'static str) -> Result<&'a [u8], DecodeError> {
        let length = self.u16(what)?;
        self.take(what, usize::from(length))
    }

    /// `[bytes]`: any negative length is null.
    pub fn bytes(&mut self, what: &'static str) -> Result<Option<&'a [u8]>, DecodeError> {
        match usize::try_from(self.i32(what)?) {
            Ok(length) => self.take(what, length).map(Some),
            Err(_) => Ok(None),
        }
    }

    /// `[value]`
    pub fn value(&mut self, what: &'static str) -> Result<Value<'a>, DecodeError> {
        match self.i32(what)? {
            -1 => Ok(Value::Null),
            -2 => Ok(Value::Unset),
            length => match usize::try_from(length) {
                Ok(length) => self.take(what, length).map(Value::Bytes),
                Err(_) => Err(DecodeError::Invalid { what, value: i64::from(length) }),
            },
        }
    }

    /// `[string list]`
    pub fn string_list(&mut self, what: &'static str) -> Result<Vec<&'a str>, DecodeError> {
        let count = usize::from(self.u16(what)?);
        let mut list = Vec::with_capacity(count.min(self.remaining() / 2));
        for _ in 0..count {
            list.push(self.string(what)?);
        }
        Ok(list)
    }

    /// `[string map]`, in the order of the wire.
    pub fn string_map(&mut self, what: &'static str) -> Result<Vec<(&'a str, &'a str)>, DecodeError> {
        let count = usize::from(self.u16(what)?);
        let mut map = Vec::with_capacity(count.min(self.remaining() / 4));
        for _ in 0..count {
            map.push((self.string(what)?, self.string(what)?));
        }
        Ok(map)
    }

    /// `[string multimap]`, in the order of the wire.
    pub fn string_multimap(&mut self, what: &'static str) -> Result<Vec<(&'a str, Vec<&'a str>)>, DecodeError> {
        let count = usize::from(self.u16(what)?);
        let mut map = Vec::with_capacity(count.min(self.remaining() / 4));
        for _ in 0..count {
            map.push((self.string(what)?, self.string_list(what)?));
        }
        Ok(map)
    }

    /// Steps over a `[string list]`.
    pub fn skip_string_list(&mut self, what: &'static str) -> Result<(), DecodeError> {
        for _ in 0..self.u16(what)? {
            self.short_bytes(what)?;
        }
        Ok(())
    }

    /// Steps over a `[bytes map]` (a custom payload).
    pub fn skip_bytes_map(&mut self, what: &'static str) -> Result<(), DecodeError> {
        for _ in 0..self.u16(what)? {
            self.short_bytes(what)?;
            self.bytes(what)?;
        }
        Ok(())
    }

    /// `[inetaddr]`: one length byte (4 or 16), then the address.
    pub fn inetaddr(&mut self, what: &'static str) -> Result<IpAddr, DecodeError> {
        match self.u8(what)? {
            4 => self.array::<4>(what).map(|octets| IpAddr::V4(Ipv4Addr::from(octets))),
            16 => self.array::<16>(what).map(|octets| IpAddr::V6(Ipv6Addr::from(octets))),
            length => Err(DecodeError::Invalid { what, value: i64::from(length) }),
        }
    }

    /// `[inet]`: an `[inetaddr]`, then the port as `[int]`.
    pub fn inet(&mut self, what: &'static str) -> Result<SocketAddr, DecodeError> {
        let address = self.inetaddr(what)?;
        let port = self.i32(what)?;
        let port = u16::try_from(port).map_err(|_| DecodeError::Invalid { what, value: i64::from(port) })?;
        Ok(SocketAddr::new(address, port))
    }
}

/// The address in an `inet` cell (4 or 16 bytes); `None` for every other length.
pub fn inet_cell(cell: &[u8]) -> Option<IpAddr> {
    if let Ok(octets) = <[u8; 4]>::try_from(cell) {
        return Some(IpAddr::V4(Ipv4Addr::from(octets)));
    }
    <[u8; 16]>::try_from(cell).ok().map(|octets| IpAddr::V6(Ipv6Addr::from(octets)))
}

/// An address as the bytes of an `inet` cell: 4 or 16 of them.
pub fn inet_cell_bytes(address: IpAddr) -> InetBytes {
    match address {
        IpAddr::V4(v4) => InetBytes::V4(v4.octets()),
        IpAddr::V6(v6) => InetBytes::V6(v6.octets()),
    }
}

/// The bytes of an `inet` cell, on the stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InetBytes {
    V4([u8; 4]),
    V6([u8; 16]),
}

impl AsRef<[u8]> for InetBytes {
    fn as_ref(&self) -> &[u8] {
        match self {
            Self::V4(octets) => octets,
            Self::V6(octets) => octets,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(write: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
        let mut out = Vec::new();
        write(&mut Writer::new(&mut out));
        out
    }

    /// Reads `bytes` back to `expected`, and every shorter prefix to `Truncated`.
    fn check<T: PartialEq + std::fmt::Debug>(
        bytes: &[u8],
        read: impl for<'a> Fn(&mut Reader<'a>) -> Result<T, DecodeError>,
        expected: T,
    ) {
        let mut reader = Reader::new(bytes);
        assert_eq!(read(&mut reader), Ok(expected));
        assert_eq!(reader.remaining(), 0);
        for have in 0..bytes.len() {
            let error = read(&mut Reader::new(&bytes[..have])).unwrap_err();
            assert!(error.is_truncated(), "{have} of {} bytes: {error}", bytes.len());
        }
    }

    #[test]
    fn inet_is_length_address_and_int_port() {
        let bytes = [4, 10, 77, 0, 11, 0, 0, 0x23, 0x52];
        check(&bytes, |r| r.inet("address"), SocketAddr::from(([10, 77, 0, 11], 9042)));
        assert_eq!(written(|w| _ = w.inet(SocketAddr::from(([10, 77, 0, 11], 9042)))), bytes);
        let v6 = SocketAddr::new("fd00::1".parse().unwrap(), 65535);
        check(&written(|w| _ = w.inet(v6)), |r| r.inet("address"), v6);
    }

    #[test]
    fn inet_of_another_length_is_invalid() {
        let error = Reader::new(&[5, 1, 2, 3, 4, 5, 0, 0, 0, 1]).inet("address").unwrap_err();
        assert_eq!(error, DecodeError::Invalid { what: "address", value: 5 });
        let error = Reader::new(&[4, 1, 2, 3, 4, 0, 1, 0, 0]).inet("address").unwrap_err();
        assert_eq!(error, DecodeError::Invalid { what: "address", value: 65536 });
    }

    #[test]
    fn null_and_not_set_are_told_apart() {
        check(&[0xff, 0xff, 0xff, 0xff], |r| r.value("cell").map(|v| v == Value::Null), true);
        check(&[0xff, 0xff, 0xff, 0xfe], |r| r.value("cell").map(|v| v == Value::Unset), true);
        check(&[0, 0, 0, 0], |r| r.value("cell").map(|v| v == Value::Bytes(&[])), true);
        let error = Reader::new(&[0xff, 0xff, 0xff, 0xfd]).value("cell").unwrap_err();
        assert_eq!(error, DecodeError::Invalid { what: "cell", value: -3 });
    }

    #[test]
    fn a_count_from_the_wire_allocates_only_what_the_bytes_can_fill() {
        let mut reader = Reader::new(&[0xff, 0xff, 0, 1]);
        assert!(reader.string_map("options").unwrap_err().is_truncated());
        let error = Reader::new(&[0x80, 0, 0, 0]).long_string("query").unwrap_err();
        assert_eq!(error, DecodeError::Invalid { what: "query", value: i64::from(i32::MIN) });
    }

    #[test]
    fn text_that_is_not_utf8_is_malformed() {
        assert_eq!(Reader::new(&[0, 1, 0xff]).string("name"), Err(DecodeError::Malformed { what: "name" }));
    }

    #[test]
    fn a_text_too_long_for_its_notation_is_cut_at_a_character() {
        let text = "é".repeat(40_000);
        let bytes = written(|w| _ = w.string(&text));
        assert_eq!(Reader::new(&bytes).string("text").unwrap().len(), 65_534);
    }

    proptest! {
        #[test]
        fn maps_round_trip(map in prop::collection::vec((".{0,12}", ".{0,12}"), 0..8)) {
            let borrowed: Vec<(&str, &str)> = map.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
            let bytes = written(|w| _ = w.string_map(&borrowed));
            prop_assert_eq!(Reader::new(&bytes).string_map("map").unwrap(), borrowed);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let reader = Reader::new(&bytes);
            let _ = reader.clone().string_list("x");
            let _ = reader.clone().string_map("x");
            let _ = reader.clone().string_multimap("x");
            let _ = reader.clone().skip_bytes_map("x");
            let _ = reader.clone().inet("x");
            let _ = reader.clone().value("x");
            let _ = reader.clone().bytes("x");
        }
    }
}
