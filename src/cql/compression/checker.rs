//! Whether a compressed body decompresses to what it declares, said as it passes and without decoding it.
//!
//! Nodes trust such bodies too much: with v3 and v4, Cassandra 4.1 decompresses LZ4 in native code that believes the declared
//! length, and allocates what is claimed (`transport/Compressor.java`); a false body ends the process. Lengths and offsets alone
//! say whether a body is one; only those are read, so that a byte costs at most one step.

use super::super::cost;
use super::super::primitives::DecodeError;
use super::{Compression, decoder};

/// LZ4's shortest match, in bytes.
const MIN_MATCH: u64 = 4;

/// What the next byte is.
#[derive(Clone, Copy, Debug)]
enum Next {
    /// One of the bytes that declare the length; so many of them are there.
    Length { have: usize, bytes: [u8; 5] },
    /// LZ4's token, or Snappy's tag.
    Tag,
    /// LZ4: more of a length of literals; the token's other half waits.
    LiteralLength { length: u64, token: u8 },
    /// So many literals; then LZ4's offset (with the token's other half), or the next tag.
    Literals { left: u64, token: u8 },
    /// LZ4: the second byte of an offset whose first is known.
    Offset { low: u8, token: u8 },
    /// LZ4: more of a copy's length.
    CopyLength { length: u64 },
    /// Snappy: bytes of a number, so many of which are missing.
    Number { tag: u8, missing: u8, have: u8, number: u64 },
}

/// Where the check of one body stands.
#[derive(Debug)]
pub struct Checker {
    compression: Compression,
    next: Next,
    /// Bytes of the body that have not passed.
    left: u64,
    declared: u64,
    /// Bytes that the sequences so far make.
    made: u64,
    /// The longest declared length that is let by.
    limit: u64,
}

impl Checker {
    /// For a body of `length` bytes that may declare up to `limit`. An empty body is right: it has nothing to decompress.
    pub fn new(compression: Compression, length: u32, limit: u32) -> Self {
        let next = Next::Length { have: 0, bytes: [0; 5] };
        Self { compression, next, left: length.into(), declared: 0, made: 0, limit: limit.into() }
    }

    /// Takes the next bytes of the body, never more than its length.
    ///
    /// # Errors
    /// `Malformed` and `TooLong`, at the latest with the last byte: a body that passed whole is right.
    pub fn take(&mut self, mut piece: &[u8]) -> Result<(), DecodeError> {
        const MALFORMED: DecodeError = DecodeError::Malformed { what: "compressed body" };
        let is_empty = self.left == 0;
        self.left = self.left.checked_sub(piece.len() as u64).ok_or(MALFORMED)?;
        while let Some((&byte, rest)) = piece.split_first() {
            cost::steps(1);
            if let Next::Literals { left, token } = self.next
                && left > 0
            {
                let passed = left.min(piece.len() as u64);
                self.next = Next::Literals { left: left - passed, token };
                piece = piece.get(passed as usize..).unwrap_or_default();
                continue;
            }
            piece = rest;
            self.next = match (self.next, self.compression) {
                (Next::Length { have, bytes }, _) => self.length(have, bytes, byte)?,
                (next, Compression::Lz4) => self.lz4(next, byte).ok_or(MALFORMED)?,
                (next, Compression::Snappy) => self.snappy(next, byte).ok_or(MALFORMED)?,
            };
        }
        let is_right = match (self.next, self.compression) {
            _ if self.left > 0 || is_empty => true,
            // A block of LZ4 ends with literals, be they none; of Snappy with any element.
            (Next::Literals { left: 0, .. }, _) | (Next::Tag, Compression::Snappy) => self.made == self.declared,
            _ => false,
        };
        is_right.then_some(()).ok_or(MALFORMED)
    }

    fn length(&mut self, have: usize, mut bytes: [u8; 5], byte: u8) -> Result<Next, DecodeError> {
        if let Some(place) = bytes.get_mut(have) {
            *place = byte;
        }
        let have = have + 1;
        match decoder::declared(self.compression, bytes.get(..have).unwrap_or_default()) {
            Ok((length, _)) if length as u64 <= self.limit => {
                self.declared = length as u64;
                Ok(Next::Tag)
            }
            Ok((length, _)) => {
                Err(DecodeError::TooLong { what: "compressed body", length: length as u64, limit: self.limit })
            }
            Err(DecodeError::Truncated { .. }) => Ok(Next::Length { have, bytes }),
            Err(error) => Err(error),
        }
    }

    /// `length` literals follow.
    fn literals(&mut self, length: u64, token: u8) -> Option<Next> {
        self.made = self.made.checked_add(length).filter(|made| *made <= self.declared)?;
        Some(Next::Literals { left: length, token })
    }

    /// A copy of `length` bytes is made.
    fn copy(&mut self, length: u64) -> Option<Next> {
        self.made = self.made.checked_add(length).filter(|made| *made <= self.declared)?;
        Some(Next::Tag)
    }

    fn reaches(&self, offset: u64) -> bool {
        (1..=self.made).contains(&offset)
    }

    fn lz4(&mut self, next: Next, byte: u8) -> Option<Next> {
        match next {
            Next::Tag if byte >> 4 == 15 => Some(Next::LiteralLength { length: 15, token: byte }),
            Next::Tag => self.literals((byte >> 4).into(), byte),
            Next::LiteralLength { length, token } => match (length + u64::from(byte), byte) {
                (length, 255) => Some(Next::LiteralLength { length, token }),
                (length, _) => self.literals(length, token),
            },
            Next::Literals { token, .. } => Some(Next::Offset { low: byte, token }),
            Next::Offset { low, token } => {
                if !self.reaches(u16::from_le_bytes([low, byte]).into()) {
                    return None;
                }
                match token & 0x0f {
                    15 => Some(Next::CopyLength { length: 15 + MIN_MATCH }),
                    length => self.copy(u64::from(length) + MIN_MATCH),
                }
            }
            Next::CopyLength { length } => match (length + u64::from(byte), byte) {
                (length, 255) => Some(Next::CopyLength { length }),
                (length, _) => self.copy(length),
            },
            Next::Length { .. } | Next::Number { .. } => None,
        }
    }

    fn snappy(&mut self, next: Next, byte: u8) -> Option<Next> {
        match next {
            Next::Tag | Next::Literals { .. } => {
                let missing = match byte & 3 {
                    0 if byte >> 2 < 60 => return self.literals(u64::from(byte >> 2) + 1, 0),
                    0 => (byte >> 2) - 59,
                    1 => 1,
                    2 => 2,
                    _ => 4,
                };
                Some(Next::Number { tag: byte, missing, have: 0, number: 0 })
            }
            Next::Number { tag, missing, have, number } => {
                let number = number | u64::from(byte) << (8 * have);
                let high = u64::from(tag >> 2);
                match (missing - 1, tag & 3) {
                    (0, 0) => self.literals(number + 1, 0),
                    (0, 1) if self.reaches(u64::from(tag >> 5) << 8 | number) => self.copy(4 + (high & 7)),
                    (0, 2 | 3) if self.reaches(number) => self.copy(high + 1),
                    (0, _) => None,
                    (missing, _) => Some(Next::Number { tag, missing, have: have + 1, number }),
                }
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BOTH: [Compression; 2] = [Compression::Lz4, Compression::Snappy];

    fn checked(compression: Compression, body: &[u8], piece: usize) -> Result<(), DecodeError> {
        let mut checker = Checker::new(compression, body.len() as u32, 1 << 20);
        body.chunks(piece).try_for_each(|piece| checker.take(piece))
    }

    fn bodies() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            prop::collection::vec(any::<u8>(), 0..400),
            (any::<u8>(), 0usize..90_000).prop_map(|(byte, length)| vec![byte; length]),
            (prop::collection::vec(any::<u8>(), 1..9), 0usize..100).prop_map(|(word, times)| word.repeat(times)),
        ];
        prop::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn what_the_libraries_made_is_right(body in bodies(), piece in 1usize..300) {
            for compression in BOTH {
                let compressed = compression.compress(&body).unwrap();
                prop_assert_eq!(checked(compression, &compressed, piece), Ok(()));
            }
        }

        #[test]
        fn what_is_right_decompresses(
            body in bodies(),
            at in any::<prop::sample::Index>(),
            byte: u8,
            cut in any::<prop::sample::Index>(),
            piece in 1usize..300,
        ) {
            for compression in BOTH {
                let mut compressed = compression.compress(&body).unwrap();
                let index = at.index(compressed.len());
                compressed[index] = byte;
                compressed.truncate(1 + cut.index(compressed.len() * 2));
                if checked(compression, &compressed, piece).is_ok() {
                    let mut decoder = super::decoder::Decoder::new(compression);
                    let decoded = decoder.decode(&compressed, true, usize::MAX, usize::MAX);
                    prop_assert_eq!(decoded, Ok(super::decoder::Decoded::Whole));
                }
            }
        }
    }

    #[test]
    fn false_lengths_and_offsets_are_found_before_the_last_byte_has_passed() {
        let malformed = Err(DecodeError::Malformed { what: "compressed body" });
        for compression in BOTH {
            let body = compression.compress(&[7; 40]).unwrap();
            for piece in [1, 100] {
                assert_eq!(checked(compression, &body, piece), Ok(()));
                assert_eq!(checked(compression, &body[..body.len() - 1], piece), malformed);
                assert_eq!(checked(compression, &[&body[..], &[0]].concat(), piece), malformed);
                assert_eq!(checked(compression, &[], piece), Ok(()));
            }
        }
        // An offset before the start, a claim that nothing fulfils, a block that ends with a match.
        assert_eq!(checked(Compression::Lz4, &[0, 0, 0, 32, 0x14, b'a', 2, 0, 0], 1), malformed);
        assert_eq!(checked(Compression::Lz4, &[0, 0x0f, 0, 0, 0x10, b'a'], 1), malformed);
        assert_eq!(checked(Compression::Lz4, &[0, 0, 0, 9, 0x14, b'a', 1, 0], 1), malformed);
        assert_eq!(checked(Compression::Snappy, &[32, 0, b'a', 1, 2], 1), malformed);
        let too_long = Err(DecodeError::TooLong { what: "compressed body", length: 1 << 24, limit: 1 << 20 });
        assert_eq!(checked(Compression::Lz4, &[1, 0, 0, 0], 1), too_long);
    }
}
