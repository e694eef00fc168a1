//! Finds internal addresses in values that are not addresses: JSON, casts, blobs, collections.
//!
//! A value's type was read once; each byte of a value leads to a few steps, however its type nests.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::json_parts::{self, Part};
use super::{Perspective, addresses};
use crate::cql::cost;
use crate::cql::primitives::{DecodeError, Reader, inet_cell};
use crate::cql::rows::{TypeKind, Types};

/// The longest value of a type whose shape is not known that is looked into, in bytes.
const MAX_CUSTOM: usize = 64 * 1024;

/// Which addresses a value must not contain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forbidden {
    /// Known internal ones: for columns that usually have none.
    Known,
    /// Any but those that the client is told: for a column whose name says nothing.
    Any,
}

/// The addresses that must not reach a client in any form.
pub struct Internal<'a> {
    perspective: &'a Perspective,
}

impl<'a> Internal<'a> {
    pub fn of(perspective: &'a Perspective) -> Self {
        Self { perspective }
    }

    /// True when a cell of the type at `root` contains a forbidden address: as `inet`, as text, or as just the bytes of one,
    /// also inside collections. Elements are looked at one by one, so that nothing before an address hides it, and bytes that
    /// merely happen to look like one (half a UUID, a commit log position) are not taken for it.
    ///
    /// # Errors
    /// When the value is not of its type, or too much to look through.
    pub fn is_in_value(
        &self,
        types: &Types,
        root: usize,
        value: &[u8],
        forbidden: Forbidden,
    ) -> Result<bool, DecodeError> {
        let mut reader = Reader::new(value);
        let kind = types.kind(root).ok_or(DecodeError::Malformed { what: "type" })?;
        Ok(match kind {
            // Four letters may be the bytes of an address by chance (dc01 is 100.99.48.49): only where the name says nothing.
            TypeKind::Text => {
                (forbidden == Forbidden::Any && self.is_raw_address(value)) || self.is_in_text(value, forbidden)
            }
            TypeKind::Blob => self.is_raw_address(value) || self.is_in_text(value, Forbidden::Known),
            TypeKind::Inet => inet_cell(value).is_some_and(|address| self.is_forbidden(address, forbidden)),
            TypeKind::Int | TypeKind::Uuid | TypeKind::Scalar => self.is_raw_address(value),
            TypeKind::Custom => self.is_in_bytes(value)?,
            TypeKind::Elements | TypeKind::Map => {
                for _ in 0..reader.count("elements")? {
                    for child in types.children(root) {
                        if self.is_in_next(&mut reader, types, child, forbidden)? {
                            return Ok(true);
                        }
                    }
                }
                false
            }
            TypeKind::Fields => {
                let mut fields = types.children(root);
                // A value written before a field was added ends early.
                while reader.remaining() > 0 {
                    let Some(field) = fields.next() else { break };
                    if self.is_in_next(&mut reader, types, field, forbidden)? {
                        return Ok(true);
                    }
                }
                false
            }
        })
    }

    /// The same for a value in JSON, which says little of its type: a blob is written as 0x and its bytes (`db/marshal/BytesType.java`).
    /// Where it is none, it cannot be looked into.
    pub fn is_in_json(&self, text: &str, forbidden: Forbidden) -> bool {
        if self.is_in_text(text.as_bytes(), forbidden) || (text.contains("0x") && self.is_in_blobs(text)) {
            return true;
        }
        let is_address = |part: Part<'_>| match part {
            Part::Text(text) => self.is_raw_address(text.as_bytes()),
            Part::Int(number) => self.is_raw_address(&number.to_be_bytes()),
        };
        forbidden == Forbidden::Any && json_parts::any(text, is_address).unwrap_or(true)
    }

    fn is_in_blobs(&self, text: &str) -> bool {
        cost::steps(text.len());
        text.split("0x").skip(1).any(|rest| {
            let digits: Vec<u8> = rest.chars().map_while(|c| c.to_digit(16)).map(|digit| digit as u8).collect();
            let bytes: Vec<u8> =
                digits.chunks_exact(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit)).collect();
            self.is_raw_address(&bytes) || self.is_in_text(&bytes, Forbidden::Known)
        })
    }

    fn is_in_next(
        &self,
        reader: &mut Reader<'_>,
        types: &Types,
        of: usize,
        forbidden: Forbidden,
    ) -> Result<bool, DecodeError> {
        reader.bytes("element")?.map_or(Ok(false), |element| self.is_in_value(types, of, element, forbidden))
    }

    fn is_in_text(&self, text: &[u8], forbidden: Forbidden) -> bool {
        addresses::any_in(text, |address| self.is_forbidden(address, forbidden))
    }

    /// A known internal address anywhere in `bytes`, as text or as the bytes of an `inet`.
    fn is_in_bytes(&self, bytes: &[u8]) -> Result<bool, DecodeError> {
        if bytes.len() > MAX_CUSTOM {
            let (length, limit) = (bytes.len() as u64, MAX_CUSTOM as u64);
            return Err(DecodeError::TooLong { what: "custom value", length, limit });
        }
        Ok(bytes.windows(4).chain(bytes.windows(16)).any(|window| self.is_raw_address(window))
            || self.is_in_text(bytes, Forbidden::Known))
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
            Forbidden::Any => !self.perspective.tells(address.to_canonical()),
        }
    }

    fn is_known(&self, address: IpAddr) -> bool {
        cost::steps(1);
        let address = address.to_canonical();
        self.perspective.topology.is_internal(address) && !self.perspective.tells(address)
    }
}
