//! Finds internal addresses in values that are not addresses: JSON, casts, blobs, collections.

use std::cell::{Cell, OnceCell};
use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::cql::primitives::{DecodeError, Reader, inet_cell};
use crate::cql::rows::{ColumnType, NativeType};
use crate::topology::Topology;

/// The longest textual IPv6 address, with room for a port.
const MAX_TEXT: usize = 48;

/// How often one answer's texts may be tried as an IPv6 address: some 30 ms. A client can write megabytes of colons into a
/// literal; real answers stay below a thousandth.
const MAX_ATTEMPTS: u32 = 1_000_000;

/// The longest value of a type whose shape is not known that is looked into, in bytes.
const MAX_CUSTOM: usize = 64 * 1024;

/// Which addresses a value must not contain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forbidden {
    /// Known internal ones: for columns that usually have none.
    Known,
    /// Any but the advertised one: for a column whose name says nothing.
    Any,
}

/// The addresses that must not reach a client in any form; looked up only when an answer has a value to look into.
pub struct Internal<'a> {
    topology: &'a Topology,
    advertised: IpAddr,
    known: OnceCell<HashSet<IpAddr>>,
    attempts_left: Cell<u32>,
}

impl<'a> Internal<'a> {
    pub fn of(topology: &'a Topology, advertised: IpAddr) -> Self {
        let attempts_left = Cell::new(MAX_ATTEMPTS);
        Self { topology, advertised, known: OnceCell::new(), attempts_left }
    }

    /// True when a cell of this type contains a forbidden address: as `inet`, as text, or as just the bytes of one, also
    /// inside collections. Elements are looked at one by one, so that nothing before an address hides it, and bytes that
    /// merely happen to look like one (half a UUID, a commit log position) are not taken for it.
    ///
    /// # Errors
    /// When the value is not of its type, or too much to look through.
    pub fn is_in_value(
        &self,
        column_type: ColumnType<'_>,
        value: &[u8],
        forbidden: Forbidden,
    ) -> Result<bool, DecodeError> {
        let mut reader = Reader::new(value);
        Ok(match column_type.native()? {
            // Four letters may be the bytes of an address by chance (dc01 is 100.99.48.49): only where the name says nothing.
            NativeType::Text => {
                (forbidden == Forbidden::Any && self.is_raw_address(value)) || self.is_in_text(value, forbidden)?
            }
            NativeType::Blob => self.is_raw_address(value) || self.is_in_text(value, Forbidden::Known)?,
            NativeType::Inet => inet_cell(value).is_some_and(|address| self.is_forbidden(address, forbidden)),
            NativeType::Int | NativeType::Other(_) => self.is_raw_address(value),
            NativeType::Custom(_) => self.is_in_bytes(value)?,
            NativeType::Elements(of) => {
                for _ in 0..reader.count("elements")? {
                    if self.is_in_next(&mut reader, of, forbidden)? {
                        return Ok(true);
                    }
                }
                false
            }
            NativeType::Map(of_key, of_value) => {
                for _ in 0..reader.count("map entries")? {
                    if self.is_in_next(&mut reader, of_key, forbidden)?
                        || self.is_in_next(&mut reader, of_value, forbidden)?
                    {
                        return Ok(true);
                    }
                }
                false
            }
            NativeType::Fields { fields, raw, named } => {
                let mut types = Reader::new(raw);
                for _ in 0..fields {
                    if named {
                        types.short_bytes("field name")?;
                    }
                    let of = ColumnType::read(&mut types)?;
                    // A value written before a field was added ends early.
                    if reader.remaining() > 0 && self.is_in_next(&mut reader, of, forbidden)? {
                        return Ok(true);
                    }
                }
                false
            }
        })
    }

    fn is_in_next(
        &self,
        reader: &mut Reader<'_>,
        of: ColumnType<'_>,
        forbidden: Forbidden,
    ) -> Result<bool, DecodeError> {
        reader.bytes("element")?.map_or(Ok(false), |element| self.is_in_value(of, element, forbidden))
    }

    fn is_in_text(&self, text: &[u8], forbidden: Forbidden) -> Result<bool, DecodeError> {
        addresses_in(text, &self.attempts_left, |address| self.is_forbidden(address, forbidden))
    }

    /// A known internal address anywhere in `bytes`, as text or as the bytes of an `inet`.
    fn is_in_bytes(&self, bytes: &[u8]) -> Result<bool, DecodeError> {
        if bytes.len() > MAX_CUSTOM {
            let (length, limit) = (bytes.len() as u64, MAX_CUSTOM as u64);
            return Err(DecodeError::TooLong { what: "custom value", length, limit });
        }
        Ok(bytes.windows(4).chain(bytes.windows(16)).any(|window| self.is_raw_address(window))
            || self.is_in_text(bytes, Forbidden::Known)?)
    }

    /// True when `bytes` are just the four or sixteen of a known internal address.
    pub fn is_raw_address(&self, bytes: &[u8]) -> bool {
        if let Ok(octets) = <[u8; 4]>::try_from(bytes) {
            return self.is_known(IpAddr::V4(Ipv4Addr::from(octets)));
        }
        <[u8; 16]>::try_from(bytes).is_ok_and(|octets| self.is_known(IpAddr::V6(Ipv6Addr::from(octets))))
    }

    fn is_forbidden(&self, address: IpAddr, forbidden: Forbidden) -> bool {
        match forbidden {
            Forbidden::Known => self.is_known(address),
            Forbidden::Any => address.to_canonical() != self.advertised,
        }
    }

    fn is_known(&self, address: IpAddr) -> bool {
        let known = self
            .known
            .get_or_init(|| self.topology.internal_addresses().map(|native| native.ip().to_canonical()).collect());
        let address = address.to_canonical();
        address != self.advertised && known.contains(&address)
    }
}

/// True when `is_meant` holds for an address written in `text`.
fn addresses_in(
    text: &[u8],
    attempts_left: &Cell<u32>,
    is_meant: impl Fn(IpAddr) -> bool,
) -> Result<bool, DecodeError> {
    let is_part = |byte: &u8| byte.is_ascii_hexdigit() || matches!(byte, b'.' | b':');
    for run in text.split(|byte| !is_part(byte)) {
        if run.iter().any(|byte| matches!(byte, b'.' | b':'))
            && (v4_in(run, &is_meant) || v6_in(run, attempts_left, &is_meant)?)
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Dotted quads anywhere in a run: digits next to letters do not hide one.
fn v4_in(run: &[u8], is_meant: &impl Fn(IpAddr) -> bool) -> bool {
    run.split(|byte| !byte.is_ascii_digit() && *byte != b'.').any(|dotted| {
        let parts: Vec<Option<u8>> = dotted.split(|byte| *byte == b'.').map(octet).collect();
        parts.windows(4).any(|quad| match quad {
            &[Some(a), Some(b), Some(c), Some(d)] => is_meant(IpAddr::V4(Ipv4Addr::new(a, b, c, d))),
            _ => false,
        })
    })
}

fn octet(digits: &[u8]) -> Option<u8> {
    if digits.is_empty() || digits.len() > 3 {
        return None;
    }
    digits.iter().try_fold(0_u8, |value, digit| value.checked_mul(10)?.checked_add(digit - b'0'))
}

/// IPv6 anywhere in a run: with letters before it that happen to be hexadecimal digits, or a port behind it.
fn v6_in(run: &[u8], attempts_left: &Cell<u32>, is_meant: &impl Fn(IpAddr) -> bool) -> Result<bool, DecodeError> {
    if run.iter().filter(|byte| **byte == b':').count() < 2 {
        return Ok(false);
    }
    for start in 0..run.len() {
        let longest = run.len().min(start + MAX_TEXT);
        for end in (start + 2..=longest).rev() {
            let Some(left) = attempts_left.get().checked_sub(1) else {
                let limit = u64::from(MAX_ATTEMPTS);
                return Err(DecodeError::TooLong { what: "texts with colons", length: limit + 1, limit });
            };
            attempts_left.set(left);
            let part = run.get(start..end).and_then(|part| std::str::from_utf8(part).ok());
            if part.and_then(|part| part.parse().ok()).is_some_and(|address| is_meant(IpAddr::V6(address))) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: bool) {
        let internal: [IpAddr; 2] = ["10.1.2.3".parse().unwrap(), "fd00::7".parse().unwrap()];
        let found = addresses_in(text.as_bytes(), &Cell::new(MAX_ATTEMPTS), |address| internal.contains(&address));
        assert_eq!(found, Ok(expected), "{text}");
    }

    #[test]
    fn addresses_are_found_in_any_surroundings() {
        check("10.1.2.3", true);
        check("/10.1.2.3:9042", true);
        check(r#"{"native_address": "10.1.2.3", "native_port": 9042}"#, true);
        check("node-10.1.2.3.example", true);
        check("abc10.1.2.3", true);
        check("fd00::7", true);
        check("/fd00:0:0:0:0:0:0:7", true);
        check("[fd00::7]:9042", true);
        check("fd00:0000:0000:0000:0000:0000:0000:0007", true);
        check("cafe fd00::7", true);
    }

    #[test]
    fn what_is_no_address_is_not_taken_for_one() {
        check("110.1.2.3", false);
        check("10.1.2.33", false);
        check("10.1.2", false);
        check("5.0.9", false);
        check("-9223372036854775808", false);
        check("10.1.2.300", false);
        check("fd00::8", false);
        check("12:30:45", false);
    }

    #[test]
    fn megabytes_of_colons_are_given_up_on() {
        let colons = vec![b':'; 4 << 20];
        let found = addresses_in(&colons, &Cell::new(MAX_ATTEMPTS), |_| false);
        assert!(matches!(found, Err(DecodeError::TooLong { what: "texts with colons", .. })));
    }
}
