//! What a walk over segments keeps between two calls, and the small steps that it is made of.

use super::Clear;
use super::rebuilt::Rebuilt;
use crate::cql::cost;
use crate::cql::frame::{HEADER_LEN, Header};
use crate::cql::primitives::DecodeError;
use crate::cql::segment::SegmentHeader;
use crate::rewrite::{Then, Why, Work};

/// What ends the walk for now.
pub type Ended<T> = Result<T, Then>;

/// What is kept of segments that are not decided.
#[derive(Debug)]
pub enum Kept {
    /// The next segment is self-contained and was looked at up to one of its frames.
    Opened(Opened),
    /// The decoded start of a frame that spans segments.
    Spanning(Spanning),
}

/// A self-contained segment between two turns.
#[derive(Debug)]
pub struct Opened {
    /// Payload bytes behind which the next frame is.
    pub at: usize,
    /// Its payload, where that had to be decompressed.
    pub decoded: Option<Vec<u8>>,
    pub rebuilt: Option<Rebuilt>,
}

#[derive(Debug)]
pub struct Spanning {
    pub start: Vec<u8>,
    /// How long it must be before it is asked about again.
    pub need: usize,
    /// The segment that comes next in the stream is in `start` already.
    pub has_next: bool,
    /// One of its segments was compressed.
    pub compressed: bool,
}

/// The payload of a segment that is there whole; `None` when its checksum is wrong.
pub fn decode<'a>(
    segment: SegmentHeader,
    rest: &'a [u8],
    scratch: &'a mut [u8],
    work: &mut Work<'_>,
) -> Ended<Option<&'a [u8]>> {
    let payload = match segment.payload(rest.get(..segment.segment_len()).unwrap_or(rest)) {
        Ok(payload) => payload,
        Err(DecodeError::Checksum { .. }) => return Ok(None),
        Err(_) => return Err(fail(Why::Malformed)),
    };
    if !segment.is_compressed() {
        return Ok(Some(payload));
    }
    work.has_decompressed(segment.content_len());
    let len = segment.decompress(payload, scratch).map_err(|_| fail(Why::Compression))?;
    Ok(Some(scratch.get(..len).unwrap_or_default()))
}

/// The header of a frame that spans segments, and the frame's length; more than that is not there of it.
pub fn head_of(start: &[u8]) -> Ended<(Header, u64)> {
    let header = Header::peek(start).ok_or_else(|| fail(Why::Malformed))?;
    let len = header.frame_len();
    if start.len() as u64 > len { Err(fail(Why::Malformed)) } else { Ok((header, len)) }
}

pub fn copied(bytes: &[u8]) -> Vec<u8> {
    cost::steps(bytes.len());
    bytes.to_vec()
}

/// A frame with bits of one byte of its body cleared; `None` when they are clear already.
pub fn cleared(frame: &[u8], clear: Clear) -> Option<Vec<u8>> {
    let position = HEADER_LEN + clear.offset as usize;
    frame.get(position).filter(|byte| **byte & clear.bits != 0)?;
    let mut frame = copied(frame);
    if let Some(byte) = frame.get_mut(position) {
        *byte &= !clear.bits;
    }
    Some(frame)
}

pub fn replace(segment: SegmentHeader, made: Vec<u8>) -> Then {
    Then::Replace { consumed: segment.segment_len(), made }
}

pub fn fail(why: Why) -> Then {
    Then::Fail(why.into())
}
