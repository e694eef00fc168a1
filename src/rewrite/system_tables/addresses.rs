//! Addresses written in a text, found in one pass over it: each byte is looked at once, and each group of digits leads to a
//! few look-ups at most.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::cql::cost;

/// Groups of an IPv6 address.
const GROUPS: usize = 8;

/// True when `is_meant` holds for an address written in `text`, whatever stands beside it: an IPv4 address between digits and
/// dots of its own, an IPv6 address with letters before it that happen to be hexadecimal digits, or with a port behind it.
pub fn any_in(text: &[u8], is_meant: impl Fn(IpAddr) -> bool) -> bool {
    let is_part = |byte: &u8| byte.is_ascii_hexdigit() || matches!(byte, b'.' | b':');
    cost::steps(text.len());
    text.split(|byte| !is_part(byte)).any(|run| {
        let (dots, colons) = run.iter().fold((0, 0), |(dots, colons), byte| match byte {
            b'.' => (dots + 1, colons),
            b':' => (dots, colons + 1),
            _ => (dots, colons),
        });
        (dots >= 3 && v4_in(run, &is_meant)) || (colons >= 2 && v6_in(run, &is_meant))
    })
}

/// Dotted quads anywhere in a run: letters next to digits do not hide one.
fn v4_in(run: &[u8], is_meant: &impl Fn(IpAddr) -> bool) -> bool {
    run.split(|byte| !byte.is_ascii_digit() && *byte != b'.').any(|dotted| {
        let (mut last, mut valid) = (0u32, 0);
        dotted.split(|byte| *byte == b'.').any(|digits| {
            match octet(digits) {
                Some(octet) => (last, valid) = (last << 8 | u32::from(octet), valid + 1),
                None => valid = 0,
            }
            valid >= 4 && is_meant(IpAddr::V4(Ipv4Addr::from(last)))
        })
    })
}

fn octet(digits: &[u8]) -> Option<u8> {
    if digits.is_empty() || digits.len() > 3 {
        return None;
    }
    digits.iter().try_fold(0_u8, |value, digit| value.checked_mul(10)?.checked_add(digit - b'0'))
}

/// Groups that follow each other, divided by single colons: the last ones.
#[derive(Clone, Copy, Default)]
struct Groups {
    /// The last eight, the very last in the low bits.
    value: u128,
    count: usize,
    /// The first of them is the end of more digits than a group has.
    first_is_cut: bool,
}

impl Groups {
    fn push(&mut self, group: u16) {
        self.value = self.value << 16 | u128::from(group);
        if self.count == GROUPS {
            self.first_is_cut = false;
        }
        self.count = (self.count + 1).min(GROUPS);
    }
}

/// IPv6 anywhere in a run of hexadecimal digits, dots and colons.
fn v6_in(run: &[u8], is_meant: &impl Fn(IpAddr) -> bool) -> bool {
    let mut before: Option<Groups> = None;
    let mut groups = Groups::default();
    let mut tokens = run.split(|byte| *byte == b':').peekable();
    let mut is_first = true;
    while let Some(token) = tokens.next() {
        let is_last = tokens.peek().is_none();
        if token.is_empty() {
            // Two colons: between two tokens, or at the start or the end of the run, where two empty tokens stand.
            if is_last {
                return false;
            }
            if !is_first || run.starts_with(b"::") {
                before = Some(groups);
                groups = Groups::default();
                if ends_here(before, groups, is_meant) {
                    return true;
                }
            }
        } else if token.contains(&b'.') {
            // An embedded IPv4 address is found as one.
            (before, groups) = (None, Groups::default());
        } else {
            // Of too many digits the last ones may begin an address; they do not go on with one.
            let long = token.len() > 4;
            let digits = token.get(token.len().saturating_sub(4)..).unwrap_or_default();
            if long {
                (before, groups) = (None, Groups { first_is_cut: true, ..Groups::default() });
            }
            groups.push(hexadecimal(digits));
            if ends_here(before, groups, is_meant) {
                return true;
            }
        }
        is_first = false;
    }
    false
}

/// True when an address ends with the last of `groups`: eight of them, or up to seven around two colons.
fn ends_here(before: Option<Groups>, groups: Groups, is_meant: &impl Fn(IpAddr) -> bool) -> bool {
    let Some(before) = before else {
        return groups.count == GROUPS && each_beginning(groups.value, 7, groups.first_is_cut, is_meant);
    };
    if groups.count >= GROUPS {
        return false;
    }
    let most = before.count.min(GROUPS - 1 - groups.count);
    (0..=most).any(|count| {
        let kept = if count == 0 { 0 } else { before.value & (u128::MAX >> (128 - 16 * count)) };
        let first = if count == 0 { 0 } else { kept << (128 - 16 * count) };
        let is_cut = count > 0 && count == before.count && before.first_is_cut;
        each_beginning(first | groups.value, 7, is_cut, is_meant)
    })
}

/// The address, and where its first group was cut from more digits, also with fewer of these.
fn each_beginning(value: u128, first: u32, is_cut: bool, is_meant: &impl Fn(IpAddr) -> bool) -> bool {
    let shift = 16 * first;
    let digits = if is_cut { 1..=4 } else { 4..=4 };
    digits.into_iter().any(|digits| {
        let mask = u128::from(u16::MAX >> (16 - 4 * digits)) << shift;
        let rest = value & (u128::MAX >> (128 - shift));
        is_meant(IpAddr::V6(Ipv6Addr::from(value & mask | rest)))
    })
}

fn hexadecimal(digits: &[u8]) -> u16 {
    digits.iter().fold(0, |value, &digit| value << 4 | char::from(digit).to_digit(16).unwrap_or_default() as u16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(text: &str, expected: bool) {
        let internal: [IpAddr; 2] = ["10.1.2.3".parse().unwrap(), "fd00::7".parse().unwrap()];
        let found = any_in(text.as_bytes(), |address| internal.contains(&address));
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn addresses_are_found_in_any_surroundings() {
        check("10.1.2.3", true);
        check("/10.1.2.3:9042", true);
        check(r#"{"native_address": "10.1.2.3", "native_port": 9042}"#, true);
        check("node-10.1.2.3.example", true);
        check("abc10.1.2.3", true);
        check("9.9.10.1.2.3.9", true);
        check("::ffff:10.1.2.3", true);
        check("fd00::7", true);
        check("/fd00:0:0:0:0:0:0:7", true);
        check("[fd00::7]:9042", true);
        check("fd00::7:9042", true);
        check("fd00:0:0:0:0:0:0:7:9042", true);
        check("fd00:0000:0000:0000:0000:0000:0000:0007", true);
        check("cafe fd00::7", true);
        check("cafefd00::7", true);
        check("cafefd00:0:0:0:0:0:0:7", true);
        check("1:2:fd00::7", true);
        check("fd00:0:0::0:7", true);
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
        check("fd00::0::7", false);
        check("12:30:45", false);
        check("fd00:0:0:0:0:0:7", false);
        check("::", false);
        check("", false);
    }

    /// The colons of a text are tried at a few places each, however many there are.
    #[test]
    fn megabytes_of_colons_cost_a_few_look_ups_for_each_byte() {
        for text in ["::::::::", "a:b:c:d::e:f:", "abcdef:1::", "1:2:3:4:5:6:7:8:"] {
            let text = text.repeat(100_000);
            let asked = std::cell::Cell::new(0);
            any_in(text.as_bytes(), |_| {
                asked.set(asked.get() + 1);
                false
            });
            assert!(asked.get() <= 4 * text.len(), "{} of {}", asked.get(), text.len());
        }
    }

    proptest! {
        #[test]
        fn whatever_form_an_address_is_written_in_it_is_found(
            groups in any::<[u16; 8]>(),
            zeros in 0usize..8,
            length in 0usize..8,
            before in "[g-z /\\[]?",
            behind in "[g-z /\\]]?",
        ) {
            let mut groups = groups;
            groups.iter_mut().skip(zeros).take(length).for_each(|group| *group = 0);
            let address = Ipv6Addr::from(groups);
            let whole = groups.map(|group| format!("{group:04x}")).join(":");
            let short = groups.map(|group| format!("{group:x}")).join(":");
            for text in [address.to_string(), whole, short] {
                let text = format!("{before}{text}{behind}");
                prop_assert!(any_in(text.as_bytes(), |found| found.to_canonical() == IpAddr::V6(address).to_canonical()), "{text}");
            }
        }
    }
}
