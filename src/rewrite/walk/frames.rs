//! v3 and v4: frames follow each other with nothing around them.

use super::{Clear, Judge, Rewrite, Verdict, wait};
use crate::cql::frame::{HEADER_LEN, Header};
use crate::rewrite::{Failure, Step, Then, Why};

/// Where one direction of a v3 or v4 connection stands. It holds no bytes of the stream.
#[derive(Debug, Default)]
pub struct FrameWalk {
    /// Bytes of the current frame that pass without another look.
    skip: u64,
    /// A byte among them, counted from here, of which bits are cleared.
    clear: Option<(u64, u8)>,
}

impl FrameWalk {
    /// True between two frames.
    pub fn at_boundary(&self) -> bool {
        self.skip == 0
    }

    /// What shall happen to `bytes`, the undecided rest of the stream.
    pub fn step<J: Judge>(&mut self, judge: &mut J, bytes: &[u8]) -> Step {
        let mut at = 0;
        loop {
            match self.skip_ahead(bytes, at) {
                Ok(next) => at = next,
                Err(step) => return step,
            }
            if self.skip > 0 {
                return wait(at, 1);
            }
            let rest = bytes.get(at..).unwrap_or_default();
            let Some(header) = Header::peek(rest) else {
                return wait(at, HEADER_LEN);
            };
            if let Some(failure) = judge.refuse(header) {
                return fail(at, failure);
            }
            let whole = header.frame_len();
            let arrived = rest.len().min(usize::try_from(whole).unwrap_or(usize::MAX));
            let body = rest.get(HEADER_LEN..arrived).unwrap_or_default();
            match judge.judge(header, body) {
                Verdict::More(need) => {
                    // A body that claims more than it can hold is judged whole, as it would be had it come in one piece.
                    let need = (HEADER_LEN + need.max(body.len() + 1)) as u64;
                    let need = usize::try_from(need.min(whole)).unwrap_or(usize::MAX);
                    if arrived as u64 == whole {
                        return fail(at, Why::Malformed.into());
                    }
                    if need > judge.held_limit() {
                        return fail(at, judge.too_long_to_hold(header));
                    }
                    return wait(at, need);
                }
                Verdict::Pass => self.skip = whole,
                Verdict::Clear(Clear { offset, bits }) => {
                    self.skip = whole;
                    self.clear = Some((HEADER_LEN as u64 + u64::from(offset), bits));
                }
                Verdict::Hold => {
                    let need = match usize::try_from(whole) {
                        Ok(need) if need <= judge.held_limit() => need,
                        _ => return fail(at, judge.too_long_to_hold(header)),
                    };
                    let Some(frame) = rest.get(..need) else {
                        return wait(at, need);
                    };
                    match judge.rewrite(header, frame) {
                        Rewrite::Keep => self.skip = whole,
                        Rewrite::Frame(frame) => return replace(at, need, frame),
                        Rewrite::Drop => return replace(at, need, Vec::new()),
                        Rewrite::Fail(failure) => return fail(at, failure),
                    }
                }
                Verdict::Fail(failure) => return fail(at, failure),
            }
        }
    }

    /// Moves over bytes that are decided: `Ok(the next undecided byte)`, or the step that a byte to clear asks for.
    fn skip_ahead(&mut self, bytes: &[u8], at: usize) -> Result<usize, Step> {
        let pass = usize::try_from(self.skip).unwrap_or(usize::MAX).min(bytes.len() - at);
        if let Some((offset, bits)) = self.clear.take() {
            if offset >= pass as u64 {
                self.clear = (self.skip > pass as u64).then(|| (offset - pass as u64, bits));
            } else {
                let position = at + offset as usize;
                let byte = bytes.get(position).copied().unwrap_or_default();
                if byte & bits != 0 {
                    self.skip -= offset + 1;
                    return Err(replace(position, 1, vec![byte & !bits]));
                }
            }
        }
        self.skip -= pass as u64;
        Ok(at + pass)
    }
}

fn replace(pass: usize, consumed: usize, made: Vec<u8>) -> Step {
    Step { pass, then: Then::Replace { consumed, made } }
}

fn fail(pass: usize, failure: Failure) -> Step {
    Step { pass, then: Then::Fail(failure) }
}
