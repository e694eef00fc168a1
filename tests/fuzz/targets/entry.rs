//! The first bytes of a connection, and a load balancer's header among them: however they are cut, the header ends at the same byte, and
//! what it says costs no more than it is long.
#![no_main]

use cqlgate::proxy::came::{Came, ENOUGH};
use cqlgate::proxy::header::{Extent, extent, parse};
use cqlgate_fuzz::within;
use libfuzzer_sys::fuzz_target;

/// What is kept of a header is copied once, and an error has its words.
const HEAP_PER_BYTE: usize = 8;
const HEAP_FREE: usize = 1024;

fuzz_target!(|bytes: &[u8]| {
    check(bytes);
    // What is seldom guessed.
    check(&[b"PROXY ", bytes].concat());
    check(&[b"\r\n\r\n\0\r\nQUIT\n", bytes].concat());
});

fn check(bytes: &[u8]) {
    if let Some(first) = bytes.get(..bytes.len().min(ENOUGH)).filter(|first| !first.is_empty()) {
        let _ = Came::of(first);
    }
    let at_once = extent(bytes, 0);
    let mut looked = 0;
    let in_pieces = loop {
        let seen = bytes.len().min(looked + 1 + looked % 3);
        match extent(&bytes[..seen], looked) {
            Extent::More if seen < bytes.len() => looked = seen,
            ended => break ended,
        }
    };
    // Of a header that is too long, or none, less may be enough to tell.
    match at_once {
        Extent::Whole(len) => {
            assert_eq!(in_pieces, at_once);
            let header = &bytes[..len];
            let _ = within(HEAP_PER_BYTE * len + HEAP_FREE, || parse(header));
        }
        Extent::More => assert_eq!(in_pieces, at_once),
        Extent::TooLong | Extent::Absent => assert!(!matches!(in_pieces, Extent::Whole(_)) || bytes.is_empty()),
    }
}
