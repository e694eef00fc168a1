//! Any bytes as a compressed body: a claim over the limit allocates nothing, and the prefix decoder gives the same bytes as
//! the libraries do.
#![no_main]

use cqlgate::cql::compression::{Compression, Prefix};
use cqlgate_fuzz::within;
use libfuzzer_sys::fuzz_target;

const LIMIT: usize = 64 * 1024;

fuzz_target!(|bytes: &[u8]| {
    for compression in [Compression::Lz4, Compression::Snappy] {
        decode(compression, bytes);
        let compressed = compression.compress(bytes).expect("short");
        assert_eq!(compression.decompress(&compressed, bytes.len()).as_deref(), Ok(bytes));
        decode(compression, &compressed);
    }
});

fn decode(compression: Compression, body: &[u8]) {
    let whole = within(LIMIT + 1024, || compression.decompress(body, LIMIT));
    let mut out = [0xee; 512];
    for room in [0, 1, 9, 100, out.len()] {
        for cut in [body.len(), body.len() / 2, body.len().min(20)] {
            let prefix = within(0, || compression.decompress_prefix(&body[..cut], &mut out[..room]));
            let Ok(whole) = &whole else { continue };
            let prefix = prefix.expect("the library accepts it");
            let written = prefix.written();
            assert_eq!(out[..written], whole[..written]);
            if cut == body.len() && cut > 0 {
                assert!(!matches!(prefix, Prefix::NeedInput { .. }) && written == whole.len().min(room));
            }
        }
    }
}
