//! Finds internal addresses in values that are not addresses: JSON, casts, blobs, collections.

use std::cell::OnceCell;
use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::topology::Topology;

/// The longest textual IPv6 address, with room for a port.
const MAX_TEXT: usize = 48;

/// The addresses that must not reach a client in any form; looked up only when an answer has a value to look into.
pub struct Internal<'a> {
    topology: &'a Topology,
    advertised: IpAddr,
    known: OnceCell<HashSet<IpAddr>>,
}

impl<'a> Internal<'a> {
    pub fn of(topology: &'a Topology, advertised: IpAddr) -> Self {
        Self { topology, advertised, known: OnceCell::new() }
    }

    /// True when `text` contains a known internal address in its textual form.
    pub fn is_in_text(&self, text: &[u8]) -> bool {
        addresses_in(text, |address| self.is_known(address))
    }

    /// True when `text` contains any address but the advertised one: what a client dials under a name that says nothing.
    pub fn any_in_text(&self, text: &[u8]) -> bool {
        addresses_in(text, |address| address != self.advertised)
    }

    /// True when `bytes` contains a known internal address, as text or as the bytes of an `inet`.
    pub fn is_in_bytes(&self, bytes: &[u8]) -> bool {
        self.is_in_text(bytes)
            || bytes.windows(4).any(|window| self.is_raw_address(window))
            || bytes.windows(16).any(|window| self.is_raw_address(window))
    }

    /// True when `bytes` are just the four or sixteen of a known internal address.
    pub fn is_raw_address(&self, bytes: &[u8]) -> bool {
        if let Ok(octets) = <[u8; 4]>::try_from(bytes) {
            return self.is_known(IpAddr::V4(Ipv4Addr::from(octets)));
        }
        <[u8; 16]>::try_from(bytes).is_ok_and(|octets| self.is_known(IpAddr::V6(Ipv6Addr::from(octets))))
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
fn addresses_in(text: &[u8], is_meant: impl Fn(IpAddr) -> bool) -> bool {
    let is_part = |byte: &u8| byte.is_ascii_hexdigit() || matches!(byte, b'.' | b':');
    text.split(|byte| !is_part(byte)).any(|run| {
        run.iter().any(|byte| matches!(byte, b'.' | b':')) && (v4_in(run, &is_meant) || v6_in(run, &is_meant))
    })
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
fn v6_in(run: &[u8], is_meant: &impl Fn(IpAddr) -> bool) -> bool {
    if run.iter().filter(|byte| **byte == b':').count() < 2 {
        return false;
    }
    let starts = 0..run.len();
    starts.into_iter().any(|start| {
        let longest = run.len().min(start + MAX_TEXT);
        (start + 2..=longest).rev().any(|end| {
            run.get(start..end)
                .and_then(|part| std::str::from_utf8(part).ok())
                .and_then(|part| part.parse::<Ipv6Addr>().ok())
                .is_some_and(|address| is_meant(IpAddr::V6(address)))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: bool) {
        let internal: [IpAddr; 2] = ["10.1.2.3".parse().unwrap(), "fd00::7".parse().unwrap()];
        assert_eq!(addresses_in(text.as_bytes(), |address| internal.contains(&address)), expected, "{text}");
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
}
