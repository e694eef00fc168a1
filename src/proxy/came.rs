//! What came where something else was expected: the line that saves the days in which both sides see nothing but a reset.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::header::{Extent, extent};
use crate::label::label_set;

/// Between two lines of one kind.
const SAY_AGAIN: Duration = Duration::from_secs(1);
/// Bytes that tell what came.
pub const ENOUGH: usize = 16;

label_set! {
    /// What the first bytes of a connection are.
    pub enum Came {
        Cql = "CQL",
        Tls = "TLS",
        ProxyHeader = "a PROXY header",
        Http = "HTTP",
        Other = "something else",
    }
}

impl Came {
    /// By up to [`ENOUGH`] bytes, at least one.
    pub fn of(bytes: &[u8]) -> Self {
        const METHODS: [&[u8]; 6] = [b"GET ", b"HEAD ", b"POST ", b"PUT ", b"OPTIONS ", b"PRI * HTTP"];
        let is_http = METHODS.iter().any(|method| bytes.starts_with(method));
        match bytes {
            // A record of type handshake, of whatever version 3 (RFC 8446 §5.1).
            [0x16, 3, ..] | [0x16] => Self::Tls,
            _ if is_http => Self::Http,
            // Two bytes, or a header would be guessed from a line break.
            [_, _, ..] if extent(bytes, 0) != Extent::Absent => Self::ProxyHeader,
            // A request of any version of the protocol, or of DSE's (native_protocol_v5.spec §2.1).
            [1..=6 | 0x41 | 0x42, ..] => Self::Cql,
            _ => Self::Other,
        }
    }
}

/// Lines of several kinds, of each at most one a second.
#[derive(Debug)]
pub struct Seldom<K>(Mutex<HashMap<K, Said>>);

#[derive(Debug)]
struct Said {
    last: Instant,
    unsaid: u64,
}

impl<K> Default for Seldom<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash> Seldom<K> {
    /// How many there have been since the last line, where there is to be one now.
    pub fn say(&self, kind: K, now: Instant) -> Option<u64> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match all.get_mut(&kind) {
            Some(said) if now.duration_since(said.last) < SAY_AGAIN => {
                said.unsaid += 1;
                None
            }
            Some(said) => {
                said.last = now;
                Some(std::mem::take(&mut said.unsaid) + 1)
            }
            None => {
                all.insert(kind, Said { last: now, unsaid: 0 });
                Some(1)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_is_told_by_its_first_bytes() {
        for (bytes, expected) in [
            (&b"\x04\x00\x00\x00\x05"[..], Came::Cql),
            (b"\x05", Came::Cql),
            (b"\x42\x00\x00", Came::Cql),
            (b"\x16\x03\x01\x02\x00", Came::Tls),
            (b"\x16\x00", Came::Other),
            (b"GET / HTTP/1.1\r\n", Came::Http),
            (b"PUT /x", Came::Http),
            (b"PROXY TCP4 10.0.0.1", Came::ProxyHeader),
            (b"PR", Came::ProxyHeader),
            (b"\r\n\r\n\0\r\nQUIT\n\x21", Came::ProxyHeader),
            (b"\r\n", Came::ProxyHeader),
            (b"\r", Came::Other),
            (b"P", Came::Other),
            (b"SSH-2.0", Came::Other),
        ] {
            assert_eq!(Came::of(bytes), expected, "{bytes:?}");
        }
    }

    #[test]
    fn a_line_of_each_kind_is_said_once_a_second_and_says_how_many_it_stands_for() {
        let (seldom, now) = (Seldom::default(), Instant::now());
        let at = |millis: u64| now + Duration::from_millis(millis);
        assert_eq!(seldom.say("a", at(0)), Some(1));
        assert_eq!(seldom.say("b", at(10)), Some(1));
        assert_eq!((seldom.say("a", at(10)), seldom.say("a", at(999))), (None, None));
        assert_eq!(seldom.say("a", at(1000)), Some(3));
        assert_eq!(seldom.say("a", at(5000)), Some(1));
    }
}
