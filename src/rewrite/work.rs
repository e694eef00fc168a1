//! How much one turn of a connection may do before others get theirs. The numbers stand here and nowhere else.
//!
//! A turn is one poll of a connection, both directions together. What is begun when the work is used up is finished, so that
//! each limit may be passed by one piece: a segment, a frame, a value of bounded length.

use crate::cql::compression::{Compression, Decoded, Decoder};
use crate::cql::primitives::DecodeError;

/// Bytes decompressed, or copied because a frame changes.
const DECODED: usize = 64 * 1024;
/// Frames judged.
const FRAMES: usize = 256;
/// Cells, and nodes of their types.
const VALUES: usize = 16 * 1024;

/// What is left of one turn, and the room to decode a segment in.
#[derive(Debug)]
pub struct Work<'a> {
    decoded: usize,
    frames: usize,
    values: usize,
    /// Bytes that were decompressed.
    decompressed: usize,
    /// No new frame is begun.
    only_what_is_begun: bool,
    /// Room for one decompressed segment; belongs to the thread.
    pub(super) scratch: &'a mut [u8],
}

impl<'a> Work<'a> {
    /// A whole turn's work. `scratch` has room for a segment's payload ([`crate::cql::segment::MAX_PAYLOAD`]).
    pub fn new(scratch: &'a mut [u8]) -> Self {
        let (decoded, frames, values) = (DECODED, FRAMES, VALUES);
        Self { decoded, frames, values, decompressed: 0, only_what_is_begun: false, scratch }
    }

    /// Whether this turn ends at the next boundary between two frames, because no more are taken.
    pub fn only_what_is_begun(&mut self, only: bool) {
        self.only_what_is_begun = only;
    }

    /// True when no frame may be begun.
    #[inline]
    pub(super) fn begins_nothing(&self) -> bool {
        self.only_what_is_begun
    }

    /// True when others are due.
    #[inline]
    pub fn is_used_up(&self) -> bool {
        self.decoded == 0 || self.frames == 0 || self.values == 0
    }

    pub(super) fn decoded(&mut self, bytes: usize) {
        self.decoded = self.decoded.saturating_sub(bytes);
    }

    /// Bytes that were decompressed in this turn.
    pub fn decompressed(&self) -> usize {
        self.decompressed
    }

    /// So many bytes more were decompressed.
    pub(super) fn has_decompressed(&mut self, bytes: usize) {
        self.decompressed += bytes;
        self.decoded(bytes);
    }

    #[inline]
    pub(super) fn frame(&mut self) {
        self.frames = self.frames.saturating_sub(1);
    }

    pub(super) fn values(&mut self, count: usize) {
        self.values = self.values.saturating_sub(count);
    }

    /// The whole of a short body, decompressed; longer than `limit` is malformed.
    pub(super) fn decompress(
        &mut self,
        compression: Compression,
        body: &[u8],
        limit: usize,
    ) -> Result<Vec<u8>, DecodeError> {
        let mut decoder = Decoder::new(compression);
        let decoded = decoder.decode(body, true, limit, limit)?;
        self.has_decompressed(decoder.decoded().len());
        match decoded {
            Decoded::Whole => Ok(decoder.into_decoded()),
            _ => Err(DecodeError::Malformed { what: "compressed body" }),
        }
    }

    /// Goes on decoding until `wanted` bytes are there, or this turn's are: then there are fewer than wanted.
    pub(super) fn decode(
        &mut self,
        decoder: &mut Decoder,
        body: &[u8],
        is_whole: bool,
        wanted: usize,
    ) -> Result<Decoded, DecodeError> {
        let before = decoder.decoded().len();
        let decoded = decoder.decode(body, is_whole, wanted.min(before + self.decoded), usize::MAX);
        self.has_decompressed(decoder.decoded().len() - before);
        decoded
    }
}
