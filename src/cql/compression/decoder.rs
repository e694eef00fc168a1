//! A compressed body, decoded as it arrives and no further than it is wanted: what was decoded is never decoded again.
//!
//! Both formats are a sequence of literals and copies from what was already written, so a prefix of the input gives a
//! prefix of the output. Formats: lz4 `doc/lz4_Block_format.md`, snappy `format_description.txt`. Checked against `lz4_flex`
//! and `snap`.

use super::super::cost;
use super::super::frame::MAX_BODY_LEN;
use super::super::primitives::DecodeError;
use super::Compression;

/// How far a body is decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decoded {
    /// The input ended first. If it was the whole body, the body is malformed.
    NeedInput,
    /// As far as was asked; the body goes on.
    Reached,
    /// This is the whole body.
    Whole,
}

/// The declared uncompressed length, and how many bytes say it.
pub(super) fn declared(compression: Compression, body: &[u8]) -> Result<(usize, usize), DecodeError> {
    let what = "compressed body";
    let (length, used) = match compression {
        Compression::Lz4 => {
            let length = body.first_chunk().ok_or(DecodeError::Truncated { what, need: 4, have: body.len() })?;
            (u64::from(u32::from_be_bytes(*length)), 4)
        }
        Compression::Snappy => {
            let mut length = 0u64;
            let mut used = 0;
            loop {
                let &byte = body.get(used).ok_or(DecodeError::Truncated { what, need: used + 1, have: body.len() })?;
                length |= u64::from(byte & 0x7f) << (7 * used);
                used += 1;
                if byte & 0x80 == 0 {
                    break (length, used);
                }
                if used == 5 {
                    return Err(DecodeError::Malformed { what });
                }
            }
        }
    };
    match usize::try_from(length) {
        Ok(fits) if length <= u64::from(MAX_BODY_LEN) => Ok((fits, used)),
        _ => Err(DecodeError::TooLong { what, length, limit: u64::from(MAX_BODY_LEN) }),
    }
}

/// What the next byte of input is.
#[derive(Clone, Copy, Debug)]
enum Next {
    /// The declared length.
    Length,
    /// LZ4's token, or Snappy's tag.
    Tag,
    /// LZ4: more of a length of literals, `length` so far; the token's other half waits.
    LiteralLength { length: usize, token: u8 },
    /// Literals, so many of them; then LZ4's offset (with the token's other half), or the next tag.
    Literals { left: usize, token: u8 },
    /// LZ4: how far back a copy begins.
    Offset { token: u8 },
    /// LZ4: more of a copy's length.
    CopyLength { length: usize, offset: usize },
    /// Nothing: a copy is written.
    Copy { left: usize, offset: usize },
}

/// The state of one body's decoding. Its memory is what was decoded: a claim allocates nothing.
#[derive(Debug)]
pub struct Decoder {
    compression: Compression,
    next: Next,
    /// Bytes of the body that are behind.
    at: usize,
    length: usize,
    out: Vec<u8>,
}

impl Decoder {
    pub fn new(compression: Compression) -> Self {
        Self { compression, next: Next::Length, at: 0, length: 0, out: Vec::new() }
    }

    pub fn compression(&self) -> Compression {
        self.compression
    }

    /// What is decoded so far.
    pub fn decoded(&self) -> &[u8] {
        &self.out
    }

    /// What was decoded, to be changed.
    pub fn into_decoded(self) -> Vec<u8> {
        self.out
    }

    /// The length that the body declares, once its first bytes are there.
    pub fn declared(&self) -> Option<usize> {
        (!matches!(self.next, Next::Length)).then_some(self.length)
    }

    /// Decodes until `wanted` bytes are there in all, from as much of the body as has arrived (from its start, `is_whole` when
    /// nothing more will come).
    ///
    /// # Errors
    /// Never `Truncated`. `Malformed` and `TooLong` (over the protocol's 256 MiB, or over `limit`) are final.
    pub fn decode(&mut self, body: &[u8], is_whole: bool, wanted: usize, limit: usize) -> Result<Decoded, DecodeError> {
        let malformed = DecodeError::Malformed { what: "compressed body" };
        if let Next::Length = self.next {
            if body.is_empty() && is_whole {
                return Ok(Decoded::Whole);
            }
            match declared(self.compression, body) {
                Ok((length, used)) => (self.length, self.at, self.next) = (length, used, Next::Tag),
                Err(DecodeError::Truncated { .. }) => return Ok(Decoded::NeedInput),
                Err(error) => return Err(error),
            }
        }
        if self.length > limit {
            let (length, limit) = (self.length as u64, limit as u64);
            return Err(DecodeError::TooLong { what: "compressed body", length, limit });
        }
        let goal = wanted.min(self.length);
        while self.out.len() < goal {
            cost::steps(1);
            let moved = match self.compression {
                Compression::Lz4 => self.lz4(body, goal),
                Compression::Snappy => self.snappy(body, goal),
            };
            if !moved.ok_or(malformed)? {
                return Ok(Decoded::NeedInput);
            }
        }
        if goal < self.length {
            return Ok(Decoded::Reached);
        }
        // LZ4 ends an empty block with a token of no literals; what else follows is no part of the body.
        let rest = body.get(self.at..).unwrap_or_default();
        match (self.length, self.next, rest) {
            (_, Next::Literals { left: 0, .. } | Next::Copy { left: 0, .. } | Next::Tag, []) => Ok(Decoded::Whole),
            (_, Next::Copy { left: 0, .. } | Next::Tag, [0..16]) if self.compression == Compression::Lz4 => {
                Ok(Decoded::Whole)
            }
            _ => Err(malformed),
        }
    }

    /// One move of LZ4; false when input is missing, `None` when the block breaks its format.
    fn lz4(&mut self, body: &[u8], goal: usize) -> Option<bool> {
        self.next = match self.next {
            Next::Length => return Some(false),
            Next::Tag => {
                let Some(token) = self.byte(body) else { return Some(false) };
                match usize::from(token >> 4) {
                    15 => Next::LiteralLength { length: 15, token },
                    left => Next::Literals { left, token },
                }
            }
            Next::LiteralLength { length, token } => {
                let Some(byte) = self.byte(body) else { return Some(false) };
                let length = length.checked_add(usize::from(byte))?;
                match byte {
                    255 => Next::LiteralLength { length, token },
                    _ => Next::Literals { left: length, token },
                }
            }
            Next::Literals { left: 0, token } => Next::Offset { token },
            Next::Literals { left, token } => {
                let Some(left) = self.literals(body, left, goal)? else { return Some(false) };
                Next::Literals { left, token }
            }
            Next::Offset { token } => {
                let Some(&[low, high]) = body.get(self.at..self.at + 2) else { return Some(false) };
                self.at += 2;
                let offset = usize::from(u16::from_le_bytes([low, high]));
                match usize::from(token & 0x0f) {
                    15 => Next::CopyLength { length: 19, offset },
                    length => Next::Copy { left: length + 4, offset },
                }
            }
            Next::CopyLength { length, offset } => {
                let Some(byte) = self.byte(body) else { return Some(false) };
                let length = length.checked_add(usize::from(byte))?;
                match byte {
                    255 => Next::CopyLength { length, offset },
                    _ => Next::Copy { left: length, offset },
                }
            }
            Next::Copy { left: 0, .. } => Next::Tag,
            Next::Copy { left, offset } => Next::Copy { left: self.copy(left, offset, goal)?, offset },
        };
        Some(true)
    }

    /// One move of Snappy, likewise.
    fn snappy(&mut self, body: &[u8], goal: usize) -> Option<bool> {
        self.next = match self.next {
            Next::Literals { left: 0, .. } | Next::Copy { left: 0, .. } | Next::Tag => {
                let rest = body.get(self.at..).unwrap_or_default();
                let Some(&tag) = rest.first() else { return Some(false) };
                let high = usize::from(tag >> 2);
                let numbers = match tag & 3 {
                    0 if high < 60 => 0,
                    0 => high - 59,
                    1 => 1,
                    2 => 2,
                    _ => 4,
                };
                let Some(bytes) = rest.get(1..=numbers) else { return Some(false) };
                let number = bytes.iter().rev().fold(0, |number, &byte| number << 8 | usize::from(byte));
                self.at += 1 + numbers;
                match tag & 3 {
                    0 => Next::Literals { left: if high < 60 { high } else { number }.checked_add(1)?, token: 0 },
                    1 => Next::Copy { left: 4 + (high & 7), offset: usize::from(tag >> 5) << 8 | number },
                    _ => Next::Copy { left: high + 1, offset: number },
                }
            }
            Next::Literals { left, token } => {
                let Some(left) = self.literals(body, left, goal)? else { return Some(false) };
                Next::Literals { left, token }
            }
            Next::Copy { left, offset } => Next::Copy { left: self.copy(left, offset, goal)?, offset },
            Next::Length | Next::LiteralLength { .. } | Next::Offset { .. } | Next::CopyLength { .. } => return None,
        };
        Some(true)
    }

    fn byte(&mut self, body: &[u8]) -> Option<u8> {
        let byte = body.get(self.at).copied()?;
        self.at += 1;
        Some(byte)
    }

    /// Copies literals up to `goal`, as far as there are any, and says how many are left; `Some(None)` when none is there.
    fn literals(&mut self, body: &[u8], left: usize, goal: usize) -> Option<Option<usize>> {
        if self.out.len().checked_add(left)? > self.length {
            return None;
        }
        let rest = body.get(self.at..).unwrap_or_default();
        let taken = rest.get(..left.min(rest.len()).min(goal - self.out.len())).unwrap_or_default();
        if taken.is_empty() {
            return Some(None);
        }
        cost::steps(taken.len());
        self.out.extend_from_slice(taken);
        self.at += taken.len();
        Some(Some(left - taken.len()))
    }

    /// Repeats bytes from `offset` back (they may overlap what is being written) up to `goal`, and says how many are left.
    fn copy(&mut self, left: usize, offset: usize, goal: usize) -> Option<usize> {
        let from = self.out.len().checked_sub(offset).filter(|_| offset > 0)?;
        if self.out.len().checked_add(left)? > self.length {
            return None;
        }
        let end = (self.out.len() + left).min(goal);
        let copied = end - self.out.len();
        cost::steps(copied);
        while self.out.len() < end {
            // Everything from `from` on is a whole number of repetitions: what can be copied at once doubles.
            let chunk = (self.out.len() - from).min(end - self.out.len());
            self.out.extend_from_within(from..from + chunk);
        }
        Some(left - copied)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BOTH: [Compression; 2] = [Compression::Lz4, Compression::Snappy];

    /// Bodies with short and long literals, short and long and overlapping matches.
    fn bodies() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            prop::collection::vec(any::<u8>(), 0..400),
            (any::<u8>(), 0usize..900).prop_map(|(byte, length)| vec![byte; length]),
            (prop::collection::vec(any::<u8>(), 1..9), 0usize..100).prop_map(|(word, times)| word.repeat(times)),
        ];
        prop::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
    }

    /// What a decoder says that sees the body grow in steps of these lengths, and wants so much more each time.
    fn grown(compression: Compression, body: &[u8], steps: &[usize]) -> Result<(Decoded, Vec<u8>), DecodeError> {
        let mut decoder = Decoder::new(compression);
        let (mut have, mut wanted, mut steps) = (0, 0, steps.iter().cycle());
        loop {
            let step = *steps.next().unwrap();
            wanted += step;
            let whole = have == body.len();
            match decoder.decode(&body[..have], whole, wanted, usize::MAX)? {
                Decoded::Reached => assert_eq!(decoder.decoded().len(), wanted),
                Decoded::NeedInput if whole => return Ok((Decoded::NeedInput, decoder.into_decoded())),
                Decoded::NeedInput => have = body.len().min(have + step),
                Decoded::Whole if whole => return Ok((Decoded::Whole, decoder.into_decoded())),
                Decoded::Whole => have = body.len(),
            }
        }
    }

    proptest! {
        #[test]
        fn however_it_arrives_and_is_wanted_a_body_is_the_same(
            body in bodies(),
            steps in prop::collection::vec(1usize..300, 1..5),
        ) {
            for compression in BOTH {
                let compressed = compression.compress(&body).unwrap();
                prop_assert_eq!(grown(compression, &compressed, &steps), Ok((Decoded::Whole, body.clone())));
            }
        }

        #[test]
        fn a_prefix_of_the_input_gives_a_prefix_of_the_output(body in bodies(), cut in 0.0..1.0f64, wanted in 0usize..3000) {
            for compression in BOTH {
                let compressed = compression.compress(&body).unwrap();
                let have = (compressed.len() as f64 * cut) as usize;
                let mut decoder = Decoder::new(compression);
                let decoded = decoder.decode(&compressed[..have], false, wanted, usize::MAX).unwrap();
                prop_assert!(body.starts_with(decoder.decoded()));
                match decoded {
                    Decoded::NeedInput => prop_assert!(decoder.decoded().len() < wanted.min(body.len()) || have < 5),
                    Decoded::Reached => prop_assert_eq!(decoder.decoded().len(), wanted),
                    Decoded::Whole => prop_assert_eq!(decoder.decoded(), &body),
                }
            }
        }

        #[test]
        fn damaged_blocks_agree_with_the_libraries(body in bodies(), at in any::<prop::sample::Index>(), byte: u8) {
            for compression in BOTH {
                let mut compressed = compression.compress(&body).unwrap();
                let index = at.index(compressed.len());
                compressed[index] = byte;
                let mine = grown(compression, &compressed, &[7, 100]);
                // The libraries also refuse what only they care about (where LZ4's last match may be).
                if let Ok(whole) = compression.decompress(&compressed, 1 << 20) {
                    prop_assert_eq!(mine, Ok((Decoded::Whole, whole)));
                }
            }
        }

        #[test]
        fn arbitrary_bodies_never_panic(body in prop::collection::vec(any::<u8>(), 0..300)) {
            for compression in BOTH {
                let _ = Decoder::new(compression).decode(&body, true, 4096, usize::MAX);
            }
        }
    }

    #[test]
    fn a_copy_from_before_the_start_is_malformed() {
        let decode = |compression, body: &[u8]| Decoder::new(compression).decode(body, true, 64, usize::MAX);
        let malformed = Err(DecodeError::Malformed { what: "compressed body" });
        assert_eq!(decode(Compression::Lz4, &[0, 0, 0, 32, 0x14, b'a', 2, 0, 0]), malformed);
        assert_eq!(decode(Compression::Lz4, &[0, 0, 0, 32, 0x14, b'a', 0, 0, 0]), malformed);
        assert_eq!(decode(Compression::Snappy, &[32, 0, b'a', 1, 2]), malformed);
    }

    #[test]
    fn what_follows_the_declared_length_is_malformed() {
        for compression in BOTH {
            let mut body = compression.compress(&[7; 40]).unwrap();
            body.push(0);
            let decoded = Decoder::new(compression).decode(&body, true, 64, usize::MAX);
            assert_eq!(decoded, Err(DecodeError::Malformed { what: "compressed body" }));
        }
    }

    #[test]
    fn a_claim_allocates_nothing_and_a_limit_is_one() {
        let mut decoder = Decoder::new(Compression::Lz4);
        assert_eq!(decoder.decode(&[0x0f, 0, 0, 0, 0x10], false, 1 << 20, usize::MAX), Ok(Decoded::NeedInput));
        assert_eq!((decoder.declared(), decoder.decoded().len()), (Some(0x0f00_0000), 0));
        let too_long = Err(DecodeError::TooLong { what: "compressed body", length: 1001, limit: 1000 });
        let body = Compression::Lz4.compress(&[0; 1001]).unwrap();
        assert_eq!(Decoder::new(Compression::Lz4).decode(&body, true, 1, 1000), too_long);
    }
}
