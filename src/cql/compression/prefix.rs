//! The first bytes of a compressed body, decoded from whatever has arrived of it.
//!
//! Both formats are a sequence of literals and copies from what was already written, so a prefix of the input gives a
//! prefix of the output. The decoders write only into the caller's buffer, which is all that a copy may reach back into.
//! Formats: lz4 `doc/lz4_Block_format.md`, snappy `format_description.txt`. Checked against `lz4_flex` and `snap`.

use super::super::frame::MAX_BODY_LEN;
use super::super::primitives::DecodeError;
use super::Compression;

/// How far a prefix came; `written` bytes of the buffer are valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prefix {
    /// The input ended first. If it was the whole body, the body is malformed.
    NeedInput { written: usize },
    /// The buffer is full; the body goes on.
    Full { written: usize },
    /// This is the whole body.
    Whole { written: usize },
}

impl Prefix {
    pub fn written(self) -> usize {
        match self {
            Self::NeedInput { written } | Self::Full { written } | Self::Whole { written } => written,
        }
    }
}

/// The declared uncompressed length, and the block that follows it (for Snappy the part after the varint).
pub(super) fn declared(compression: Compression, body: &[u8]) -> Result<(usize, &[u8]), DecodeError> {
    if body.is_empty() {
        return Ok((0, body));
    }
    let what = "compressed body";
    let (length, block) = match compression {
        Compression::Lz4 => {
            let (length, block) =
                body.split_first_chunk().ok_or(DecodeError::Truncated { what, need: 4, have: body.len() })?;
            (u64::from(u32::from_be_bytes(*length)), block)
        }
        Compression::Snappy => {
            let mut length = 0u64;
            let mut used = 0;
            loop {
                let &byte = body.get(used).ok_or(DecodeError::Truncated { what, need: used + 1, have: body.len() })?;
                length |= u64::from(byte & 0x7f) << (7 * used);
                used += 1;
                if byte & 0x80 == 0 {
                    break (length, body.get(used..).unwrap_or_default());
                }
                if used == 5 {
                    return Err(DecodeError::Malformed { what });
                }
            }
        }
    };
    match usize::try_from(length) {
        Ok(fits) if length <= u64::from(MAX_BODY_LEN) => Ok((fits, block)),
        _ => Err(DecodeError::TooLong { what, length, limit: u64::from(MAX_BODY_LEN) }),
    }
}

pub(super) fn decode(compression: Compression, body: &[u8], out: &mut [u8]) -> Result<Prefix, DecodeError> {
    // Nothing has arrived yet: that is not the same as a body that is empty.
    if body.is_empty() {
        return Ok(Prefix::NeedInput { written: 0 });
    }
    let (length, block) = match declared(compression, body) {
        Ok(declared) => declared,
        Err(DecodeError::Truncated { .. }) => return Ok(Prefix::NeedInput { written: 0 }),
        Err(error) => return Err(error),
    };
    let wanted = length.min(out.len());
    let mut output = Output { out: out.get_mut(..wanted).unwrap_or_default(), written: 0 };
    let mut input = Input { rest: block };
    let end = match compression {
        Compression::Lz4 => lz4(&mut input, &mut output),
        Compression::Snappy => snappy(&mut input, &mut output),
    };
    let written = output.written;
    match end {
        Err(Stop::Malformed) => Err(DecodeError::Malformed { what: "compressed body" }),
        Err(Stop::Input) => Ok(Prefix::NeedInput { written }),
        Ok(()) if wanted == length => Ok(Prefix::Whole { written }),
        Ok(()) => Ok(Prefix::Full { written }),
    }
}

/// Why a decoder stopped before its output was full.
enum Stop {
    Input,
    Malformed,
}

struct Input<'a> {
    rest: &'a [u8],
}

impl<'a> Input<'a> {
    fn byte(&mut self) -> Result<u8, Stop> {
        let (&byte, rest) = self.rest.split_first().ok_or(Stop::Input)?;
        self.rest = rest;
        Ok(byte)
    }

    /// A little-endian number of `count` bytes, at most four.
    fn number(&mut self, count: usize) -> Result<usize, Stop> {
        let mut value = 0;
        for index in 0..count {
            value |= usize::from(self.byte()?) << (8 * index);
        }
        Ok(value)
    }

    /// Up to `count` bytes: fewer when the input ends.
    fn up_to(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.rest.split_at(count.min(self.rest.len()));
        self.rest = rest;
        taken
    }
}

struct Output<'a> {
    out: &'a mut [u8],
    written: usize,
}

impl Output<'_> {
    fn room(&self) -> usize {
        self.out.len() - self.written
    }

    /// Copies `length` literals, or as many as there is room for.
    fn literals(&mut self, input: &mut Input<'_>, length: usize) -> Result<(), Stop> {
        let length = length.min(self.room());
        let literals = input.up_to(length);
        if let Some(target) = self.out.get_mut(self.written..self.written + literals.len()) {
            target.copy_from_slice(literals);
        }
        self.written += literals.len();
        if literals.len() < length { Err(Stop::Input) } else { Ok(()) }
    }

    /// Repeats `length` bytes from `offset` back (they may overlap what is being written), or as many as fit.
    fn copy(&mut self, offset: usize, length: usize) -> Result<(), Stop> {
        let from = self.written.checked_sub(offset).filter(|_| offset > 0).ok_or(Stop::Malformed)?;
        let end = self.written + length.min(self.room());
        while self.written < end {
            // Everything from `from` on is a whole number of repetitions: what can be copied at once doubles.
            let chunk = (self.written - from).min(end - self.written);
            self.out.copy_within(from..from + chunk, self.written);
            self.written += chunk;
        }
        Ok(())
    }
}

fn lz4(input: &mut Input<'_>, output: &mut Output<'_>) -> Result<(), Stop> {
    while output.room() > 0 {
        let token = input.byte()?;
        let literals = lz4_length(input, token >> 4)?;
        output.literals(input, literals)?;
        if output.room() == 0 {
            return Ok(());
        }
        let offset = input.number(2)?;
        let length = lz4_length(input, token & 0x0f)?;
        output.copy(offset, length.saturating_add(4))?;
    }
    Ok(())
}

/// A length whose first four bits are in the token.
fn lz4_length(input: &mut Input<'_>, nibble: u8) -> Result<usize, Stop> {
    let mut length = usize::from(nibble);
    if nibble == 15 {
        loop {
            let byte = input.byte()?;
            length = length.saturating_add(usize::from(byte));
            if byte != 255 {
                break;
            }
        }
    }
    Ok(length)
}

fn snappy(input: &mut Input<'_>, output: &mut Output<'_>) -> Result<(), Stop> {
    while output.room() > 0 {
        let tag = input.byte()?;
        let high = usize::from(tag >> 2);
        match tag & 3 {
            0 => {
                let length = if high < 60 { high } else { input.number(high - 59)? };
                output.literals(input, length.saturating_add(1))?;
            }
            1 => {
                let offset = usize::from(tag >> 5) << 8 | input.number(1)?;
                output.copy(offset, 4 + (high & 7))?;
            }
            kind => {
                let offset = input.number(if kind == 2 { 2 } else { 4 })?;
                output.copy(offset, high + 1)?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Bodies with short and long literals, short and long and overlapping matches.
    fn bodies() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            prop::collection::vec(any::<u8>(), 0..400),
            (any::<u8>(), 0usize..900).prop_map(|(byte, length)| vec![byte; length]),
            (prop::collection::vec(any::<u8>(), 1..9), 0usize..100).prop_map(|(word, times)| word.repeat(times)),
        ];
        prop::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn a_prefix_of_the_input_gives_a_prefix_of_the_output(body in bodies(), cut in 0.0..=1.0f64, room in 0usize..3000) {
            for compression in [Compression::Lz4, Compression::Snappy] {
                let compressed = compression.compress(&body).unwrap();
                let have = (compressed.len() as f64 * cut) as usize;
                let mut out = vec![0xee; room];
                let prefix = compression.decompress_prefix(&compressed[..have], &mut out).unwrap();
                let written = prefix.written();
                prop_assert_eq!(&out[..written], &body[..written]);
                prop_assert!(out[written..].iter().all(|&byte| byte == 0xee));
                match prefix {
                    Prefix::NeedInput { .. } => prop_assert!(have < compressed.len()),
                    Prefix::Full { .. } => prop_assert!(written == room && room < body.len()),
                    Prefix::Whole { .. } => prop_assert_eq!(written, body.len()),
                }
            }
        }

        #[test]
        fn the_whole_input_fills_the_buffer_or_gives_the_whole_body(body in bodies(), room in 0usize..3000) {
            for compression in [Compression::Lz4, Compression::Snappy] {
                let compressed = compression.compress(&body).unwrap();
                let prefix = compression.decompress_prefix(&compressed, &mut vec![0; room]).unwrap();
                let expected = if room >= body.len() {
                    Prefix::Whole { written: body.len() }
                } else {
                    Prefix::Full { written: room }
                };
                prop_assert_eq!(prefix, expected);
            }
        }

        #[test]
        fn damaged_blocks_agree_with_the_libraries(body in bodies(), at in any::<prop::sample::Index>(), byte: u8) {
            for compression in [Compression::Lz4, Compression::Snappy] {
                let mut compressed = compression.compress(&body).unwrap();
                let index = at.index(compressed.len());
                compressed[index] = byte;
                let mut out = vec![0; 8192];
                // Whatever the library accepts, the prefix decoder gives the same bytes of.
                if let Ok(whole) = compression.decompress(&compressed, 1 << 20) {
                    let prefix = compression.decompress_prefix(&compressed, &mut out).unwrap();
                    prop_assert_eq!(prefix.written(), whole.len().min(out.len()));
                    prop_assert_eq!(&out[..prefix.written()], &whole[..prefix.written()]);
                }
            }
        }
    }

    #[test]
    fn a_copy_from_before_the_start_is_malformed() {
        let malformed = Err(DecodeError::Malformed { what: "compressed body" });
        let mut out = [0; 64];
        assert_eq!(Compression::Lz4.decompress_prefix(&[0, 0, 0, 32, 0x14, b'a', 2, 0, 0], &mut out), malformed);
        assert_eq!(Compression::Lz4.decompress_prefix(&[0, 0, 0, 32, 0x14, b'a', 0, 0, 0], &mut out), malformed);
        assert_eq!(Compression::Snappy.decompress_prefix(&[32, 0, b'a', 1, 2], &mut out), malformed);
    }

    #[test]
    fn too_little_input_is_not_malformed() {
        let body = Compression::Lz4.compress(b"abcdefgh").unwrap();
        let mut out = [0; 64];
        for have in 0..4 {
            let prefix = Compression::Lz4.decompress_prefix(&body[..have], &mut out);
            assert_eq!(prefix, Ok(Prefix::NeedInput { written: 0 }));
        }
        assert_eq!(Compression::Snappy.decompress_prefix(&[], &mut out), Ok(Prefix::NeedInput { written: 0 }));
        assert_eq!(Compression::Lz4.decompress_prefix(&body[..8], &mut out), Ok(Prefix::NeedInput { written: 3 }));
    }
}
