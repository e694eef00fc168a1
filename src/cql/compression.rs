//! LZ4 and Snappy bodies of v3 and v4 (native_protocol_v4.spec §5), and the first bytes of one before the rest is there.
//!
//! An LZ4 body is the uncompressed length (four bytes, big endian) and one block; a Snappy body is one raw block, which
//! begins with its length as a varint. v5 compresses segments instead (`segment.rs`).
//!
//! Bodies of requests and answers on their way are decoded by a [`Decoder`], as they arrive and no further than is wanted; a
//! [`Checker`] says of those that pass whether they decompress. A
//! whole body is decompressed at once only after its declared length was compared with the caller's limit.

mod checker;
mod decoder;

use super::cost;
use super::frame::MAX_BODY_LEN;
use super::primitives::DecodeError;

pub use checker::Checker;
pub use decoder::{Decoded, Decoder};

/// A compression that STARTUP can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Compression {
    Lz4,
    Snappy,
}

impl Compression {
    /// By the value of STARTUP's COMPRESSION, in any case: nodes compare it in lower case
    /// (apache/cassandra `transport/messages/StartupMessage.java`). `None` for every other name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Lz4, Self::Snappy].into_iter().find(|compression| name.eq_ignore_ascii_case(compression.name()))
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Lz4 => "lz4",
            Self::Snappy => "snappy",
        }
    }

    /// The whole of `body`, uncompressed.
    ///
    /// # Errors
    /// `TooLong` when it declares more than `limit` bytes (nothing is allocated then); `Malformed` when it does not
    /// become just as long as it declares.
    pub fn decompress(self, body: &[u8], limit: usize) -> Result<Vec<u8>, DecodeError> {
        let what = "compressed body";
        if body.is_empty() {
            return Ok(Vec::new());
        }
        let (length, used) = decoder::declared(self, body)?;
        if length > limit {
            return Err(DecodeError::TooLong { what, length: length as u64, limit: limit as u64 });
        }
        cost::steps(length);
        let mut out = vec![0; length];
        let written = match self {
            Self::Lz4 => lz4_flex::block::decompress_into(body.get(used..).unwrap_or_default(), &mut out).ok(),
            Self::Snappy => snap::raw::Decoder::new().decompress(body, &mut out).ok(),
        };
        if written == Some(length) { Ok(out) } else { Err(DecodeError::Malformed { what }) }
    }

    /// `body` compressed, as a frame with flag 0x01 carries it.
    ///
    /// # Errors
    /// `TooLong` when `body` is over the protocol's 256 MiB.
    pub fn compress(self, body: &[u8]) -> Result<Vec<u8>, DecodeError> {
        let too_long = DecodeError::TooLong { what: "body", length: body.len() as u64, limit: u64::from(MAX_BODY_LEN) };
        let length = u32::try_from(body.len()).ok().filter(|&length| length <= MAX_BODY_LEN).ok_or(too_long)?;
        cost::steps(body.len());
        match self {
            Self::Lz4 => {
                let mut out = length.to_be_bytes().to_vec();
                out.extend_from_slice(&lz4_flex::block::compress(body));
                Ok(out)
            }
            Self::Snappy => snap::raw::Encoder::new().compress_vec(body).map_err(|_| too_long),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BOTH: [Compression; 2] = [Compression::Lz4, Compression::Snappy];

    #[test]
    fn names_are_those_of_startup_in_any_case() {
        assert_eq!(Compression::from_name("LZ4"), Some(Compression::Lz4));
        assert_eq!(Compression::from_name("snappy"), Some(Compression::Snappy));
        assert_eq!(Compression::from_name("zstd"), None);
    }

    #[test]
    fn a_claim_of_two_gigabytes_allocates_nothing() {
        let too_long = |length| Err(DecodeError::TooLong { what: "compressed body", length, limit: 1 << 28 });
        assert_eq!(Compression::Lz4.decompress(&[0x7f, 0xff, 0xff, 0xff, 0], usize::MAX), too_long(0x7fff_ffff));
        assert_eq!(
            Compression::Snappy.decompress(&[0xff, 0xff, 0xff, 0xff, 0x07, 0], usize::MAX),
            too_long(0x7fff_ffff)
        );
        let body = Compression::Lz4.compress(&[0; 1001]).unwrap();
        let error = Compression::Lz4.decompress(&body, 1000).unwrap_err();
        assert_eq!(error, DecodeError::TooLong { what: "compressed body", length: 1001, limit: 1000 });
    }

    #[test]
    fn an_empty_body_is_empty() {
        for compression in BOTH {
            assert_eq!(compression.decompress(&[], 10), Ok(vec![]));
            let body = compression.compress(&[]).unwrap();
            assert_eq!(compression.decompress(&body, 10), Ok(vec![]));
        }
    }

    proptest! {
        #[test]
        fn bodies_round_trip(body in prop::collection::vec(0u8..5, 0..3000)) {
            for compression in BOTH {
                let compressed = compression.compress(&body).unwrap();
                prop_assert_eq!(compression.decompress(&compressed, body.len()), Ok(body.clone()));
            }
        }

        #[test]
        fn arbitrary_bodies_never_panic(body in prop::collection::vec(any::<u8>(), 0..300)) {
            for compression in BOTH {
                let _ = compression.decompress(&body, 4096);
            }
        }
    }
}
