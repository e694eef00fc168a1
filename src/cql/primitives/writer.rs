//! The notations of native_protocol_v5.spec §3, written.

use std::net::{IpAddr, SocketAddr};

use super::super::cost;
use super::{InetBytes, Value, inet_cell_bytes};

/// Appends the same notations to a `Vec`.
///
/// What it writes is made by this crate and bounded: a text longer than its notation allows is cut at a character, a
/// list longer than 65,535 likewise.
#[derive(Debug)]
pub struct Writer<'a> {
    out: &'a mut Vec<u8>,
}

impl<'a> Writer<'a> {
    pub fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out }
    }

    pub fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        cost::steps(bytes.len());
        self.out.extend_from_slice(bytes);
        self
    }

    pub fn u8(&mut self, value: u8) -> &mut Self {
        self.raw(&[value])
    }

    pub fn u16(&mut self, value: u16) -> &mut Self {
        self.raw(&value.to_be_bytes())
    }

    pub fn i32(&mut self, value: i32) -> &mut Self {
        self.raw(&value.to_be_bytes())
    }

    pub fn i64(&mut self, value: i64) -> &mut Self {
        self.raw(&value.to_be_bytes())
    }

    /// `[string]`
    pub fn string(&mut self, text: &str) -> &mut Self {
        let mut end = text.len().min(usize::from(u16::MAX));
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        self.short_bytes(text.get(..end).unwrap_or_default().as_bytes())
    }

    /// `[long string]`
    pub fn long_string(&mut self, text: &str) -> &mut Self {
        self.value(Value::Bytes(text.as_bytes()))
    }

    /// `[short bytes]`
    pub fn short_bytes(&mut self, bytes: &[u8]) -> &mut Self {
        let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
        self.u16(length).raw(bytes.get(..usize::from(length)).unwrap_or(bytes))
    }

    /// `[bytes]`, `[value]`
    pub fn value(&mut self, value: Value<'_>) -> &mut Self {
        match value {
            Value::Null => self.i32(-1),
            Value::Unset => self.i32(-2),
            Value::Bytes(bytes) => {
                let length = i32::try_from(bytes.len()).unwrap_or(i32::MAX);
                self.i32(length).raw(bytes)
            }
        }
    }

    /// `[string list]`
    pub fn string_list(&mut self, list: &[&str]) -> &mut Self {
        let count = u16::try_from(list.len()).unwrap_or(u16::MAX);
        self.u16(count);
        for text in list.iter().take(usize::from(count)) {
            self.string(text);
        }
        self
    }

    /// `[string map]`
    pub fn string_map(&mut self, map: &[(&str, &str)]) -> &mut Self {
        let count = u16::try_from(map.len()).unwrap_or(u16::MAX);
        self.u16(count);
        for (key, value) in map.iter().take(usize::from(count)) {
            self.string(key).string(value);
        }
        self
    }

    /// `[inetaddr]`
    pub fn inetaddr(&mut self, address: IpAddr) -> &mut Self {
        match inet_cell_bytes(address) {
            InetBytes::V4(octets) => self.u8(4).raw(&octets),
            InetBytes::V6(octets) => self.u8(16).raw(&octets),
        }
    }

    /// `[inet]`
    pub fn inet(&mut self, address: SocketAddr) -> &mut Self {
        self.inetaddr(address.ip()).i32(i32::from(address.port()))
    }
}
