//! Any bytes as a compressed body: a claim allocates nothing, and however a body arrives and is wanted, the decoder gives the same
//! bytes as the libraries do.
#![no_main]

use cqlgate::cql::compression::{Compression, Decoded, Decoder};
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
    for step in [1, 9, 100, 4096] {
        let mut decoder = Decoder::new(compression);
        let (mut have, mut wanted) = (0, 0);
        // What was decoded, and what a vector grows by.
        let ended = within(2 * LIMIT + 4096, || {
            loop {
                wanted += step;
                match decoder.decode(&body[..have], have == body.len(), wanted, LIMIT) {
                    Ok(Decoded::NeedInput) if have < body.len() => have = body.len().min(have + step),
                    Ok(Decoded::Reached) => {}
                    Ok(Decoded::Whole) if have < body.len() => have = body.len(),
                    ended => return ended,
                }
            }
        });
        if let Ok(whole) = &whole {
            assert_eq!(ended, Ok(Decoded::Whole));
            assert_eq!(decoder.decoded(), whole);
        }
    }
}
