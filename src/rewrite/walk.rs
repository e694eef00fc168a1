//! From a byte stream to frames and back: the two outer shapes of a connection.
//!
//! [`frames`] walks v3 and v4, where frames follow each other; [`segments`] walks v5, where they travel inside checksummed
//! segments. Both ask the same [`Judge`] about each frame and know nothing of what a frame means.

pub mod frames;
pub mod segments;

use super::{Failure, Step, Then, Why};
use crate::cql::frame::Header;

/// Who decides about frames. It may be asked again about a frame after `More` and after `Hold` (until the frame is there
/// whole), so neither answer may leave a trace.
pub trait Judge {
    /// What shall happen to a frame of which `body` is the part that has arrived (all of it when
    /// `body.len() == header.length`; then `More` is not an answer).
    fn judge(&mut self, header: Header, body: &[u8]) -> Verdict;

    /// Asked after `Verdict::Hold`, with header and body together.
    fn rewrite(&mut self, header: Header, frame: &[u8]) -> Rewrite;

    /// The failure that a header alone brings (direction, length); `None` when its body may follow.
    fn refuse(&self, header: Header) -> Option<Failure>;

    /// The longest frame that may be held, in bytes.
    fn held_limit(&self) -> usize;

    /// The failure of a frame that cannot be decided, or changed, within that limit.
    fn too_long_to_hold(&self, _header: Header) -> Failure {
        Why::HeldFrameTooLong.into()
    }

    /// Whether a v5 segment with a corrupt payload is for the receiver to refuse; otherwise it ends the connection here.
    fn passes_corrupt_payload(&self) -> bool;
}

/// What shall happen to a frame.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Cannot be said before this many bytes of the body are there.
    More(usize),
    /// It passes, also the part that has not arrived.
    Pass,
    /// It passes, with these bits of one byte of its body cleared.
    Clear(Clear),
    /// It is needed whole.
    Hold,
    Fail(Failure),
}

/// Bits to clear when the byte at `offset` of the body passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clear {
    pub offset: u32,
    pub bits: u8,
}

/// What becomes of a held frame.
#[derive(Debug, PartialEq, Eq)]
pub enum Rewrite {
    Keep,
    /// Another frame in its place (header and body).
    Frame(Vec<u8>),
    /// Nothing in its place.
    Drop,
    Fail(Failure),
}

/// The `at` bytes before the next undecided one pass; then `need` more are wanted.
fn wait(at: usize, need: usize) -> Step {
    Step { pass: at, then: Then::Wait { need } }
}

#[cfg(test)]
mod tests;
