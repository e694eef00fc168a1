//! How much one turn of a connection may do before others get theirs. The numbers stand here and nowhere else.
//!
//! A turn is one poll of a connection, both directions together. What is begun when the work is used up is finished, so that
//! each limit may be passed by one piece: a segment, a frame, a value of bounded length.

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
    /// Room for one decompressed segment; belongs to the thread.
    pub(super) scratch: &'a mut [u8],
}

impl<'a> Work<'a> {
    /// A whole turn's work. `scratch` has room for a segment's payload ([`crate::cql::segment::MAX_PAYLOAD`]).
    pub fn new(scratch: &'a mut [u8]) -> Self {
        Self { decoded: DECODED, frames: FRAMES, values: VALUES, scratch }
    }

    /// True when others are due.
    #[inline]
    pub fn is_used_up(&self) -> bool {
        self.decoded == 0 || self.frames == 0 || self.values == 0
    }
}
