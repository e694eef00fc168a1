//! From bytes to frames: what of a stream passes without a look, and when a frame is judged.
//!
//! Two walks for the two outer shapes, [`frames`] (v3, v4) and [`segments`] (v5), and one question about a frame, which both
//! ask with `decide`. A walk keeps its place: bytes that were walked over are not walked over again.

pub mod frames;
mod kept;
pub mod rebuilt;
pub mod segments;

use super::{Failure, Login, Step, Then, Why, Work};
use crate::cql::compression::Compression;
use crate::cql::cost;
use crate::cql::frame::{HEADER_LEN, Header};

/// Who decides about frames.
pub trait Judge {
    /// What shall happen to a frame of which `body` is the part that has arrived. After [`Verdict::Need`] it is asked again with
    /// more, after [`Verdict::Later`] and [`Verdict::Ask`] with the same; what it found out meanwhile it keeps. Any other verdict
    /// is its last word about the frame.
    fn judge(&mut self, header: Header, body: &[u8], work: &mut Work<'_>) -> Verdict;

    /// The failure that a header alone brings (direction, version, length); `None` when its body may follow.
    fn refuse(&self, header: Header) -> Option<Failure>;

    /// The longest frame of which more than its start may be needed, in bytes.
    fn held_limit(&self) -> usize;

    /// The failure of a frame that cannot be decided, or changed, within that limit.
    fn too_long_to_hold(&self, _header: Header) -> Failure {
        Why::HeldFrameTooLong.into()
    }

    /// Whether a frame's body, which passes, is checked on its way to decompress, and to how many bytes at most.
    fn checks(&self, _header: Header) -> Option<(Compression, u32)> {
        None
    }

    /// The failure of a body that does not.
    fn not_decompressed(&self, _header: Header) -> Failure {
        Why::Compression.into()
    }

    /// Whether a v5 segment with a corrupt payload is for the receiver to refuse; otherwise it ends the connection here.
    fn passes_corrupt_payload(&self) -> bool;

    /// One passes: what was asked in it nobody knows.
    fn corrupt_payload_passes(&mut self) {}
}

/// What shall happen to a frame.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Cannot be said before this many bytes of the body are there.
    Need(usize),
    /// Not in this turn: its work is used up.
    Later,
    /// Not before the client was let in.
    Ask(Login),
    /// It passes, also the part that has not arrived.
    Pass,
    /// It passes, with these bits of one byte of its body cleared.
    Clear(Clear),
    /// These bytes (whole frames, or nothing) go out in its place. It is there whole.
    Replace(Vec<u8>),
    Fail(Failure),
}

/// Bits to clear when the byte at `offset` of the body passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clear {
    pub offset: u32,
    pub bits: u8,
}

/// Asks about the frame at the start of `frame`, of which that much has arrived. `Need` counts the header too, and is more
/// than is there.
#[inline(always)]
fn decide<J: Judge>(judge: &mut J, header: Header, frame: &[u8], work: &mut Work<'_>) -> Verdict {
    if let Some(failure) = judge.refuse(header) {
        return Verdict::Fail(failure);
    }
    let whole = usize::try_from(header.frame_len()).unwrap_or(usize::MAX);
    let frame = frame.get(..whole).unwrap_or(frame);
    work.frame();
    cost::steps(1);
    match judge.judge(header, frame.get(HEADER_LEN..).unwrap_or_default(), work) {
        // It was there whole, and not enough: a length inside lies.
        Verdict::Need(_) if frame.len() == whole => Verdict::Fail(Why::Malformed.into()),
        Verdict::Need(body) => {
            // A body that claims more than it can hold is judged whole, as it would be had it come in one piece.
            let need = body.saturating_add(HEADER_LEN).max(frame.len() + 1).min(whole);
            if need > judge.held_limit() {
                return Verdict::Fail(judge.too_long_to_hold(header));
            }
            Verdict::Need(need)
        }
        verdict => verdict,
    }
}

/// The `at` bytes before the next undecided one pass; then `need` more are wanted.
fn wait(at: usize, need: usize) -> Step {
    Step { pass: at, then: Then::Wait { need } }
}

#[cfg(test)]
mod tests;
