//! v3 and v4: frame after frame, no outer layer.

use super::{Clear, Judge, Verdict, decide, wait};
use crate::cql::compression::Checker;
use crate::cql::frame::{HEADER_LEN, Header};
use crate::rewrite::{Step, Then, Work};

/// Where one direction of a v3 or v4 connection stands. It holds no bytes of the stream.
#[derive(Debug, Default)]
pub struct FrameWalk {
    /// Bytes of the current frame that pass without another look.
    skip: u64,
    /// A byte among them, counted from here, of which bits are cleared.
    clear: Option<(u64, u8)>,
    /// What they are checked for.
    check: Option<Box<Check>>,
}

/// A body that must decompress, or its last byte does not pass.
#[derive(Debug)]
struct Check {
    header: Header,
    checker: Checker,
}

impl FrameWalk {
    /// True between two frames.
    pub fn at_boundary(&self) -> bool {
        self.skip == 0
    }

    /// What shall happen to `bytes`, the undecided rest of the stream.
    pub fn step<J: Judge>(&mut self, judge: &mut J, bytes: &[u8], work: &mut Work<'_>) -> Step {
        let mut at = 0;
        loop {
            match self.skip_ahead(judge, bytes, at) {
                Ok(next) => at = next,
                Err(step) => return step,
            }
            if self.skip > 0 {
                return wait(at, 1);
            }
            let rest = bytes.get(at..).unwrap_or_default();
            let Some(header) = Header::peek(rest) else { return wait(at, HEADER_LEN) };
            if work.is_used_up() || work.begins_nothing() {
                return Step { pass: at, then: Then::Yield };
            }
            let then = match decide(judge, header, rest, work) {
                Verdict::Pass => {
                    match judge.checks(header) {
                        None => self.skip = header.frame_len(),
                        Some((compression, limit)) => {
                            // The header passes with the first bytes of the body.
                            self.skip = header.length.into();
                            let checker = Checker::new(compression, header.length, limit);
                            self.check = Some(Box::new(Check { header, checker }));
                            at += HEADER_LEN;
                        }
                    }
                    continue;
                }
                Verdict::Clear(Clear { offset, bits }) => {
                    self.skip = header.frame_len();
                    self.clear = Some((HEADER_LEN as u64 + u64::from(offset), bits));
                    continue;
                }
                Verdict::Need(need) => Then::Wait { need },
                Verdict::Later => Then::Yield,
                Verdict::Ask(login) => Then::Login(login),
                Verdict::Replace(made) => {
                    let consumed = usize::try_from(header.frame_len()).unwrap_or(usize::MAX).min(rest.len());
                    Then::Replace { consumed, made }
                }
                Verdict::Fail(failure) => Then::Fail(failure),
            };
            return Step { pass: at, then };
        }
    }

    /// Moves over bytes that are decided: `Ok(the next undecided byte)`, or the step that a byte to clear asks for.
    #[inline(always)]
    fn skip_ahead<J: Judge>(&mut self, judge: &J, bytes: &[u8], at: usize) -> Result<usize, Step> {
        let pass = usize::try_from(self.skip).unwrap_or(usize::MAX).min(bytes.len() - at);
        if self.check.is_none() && self.clear.is_none() {
            self.skip -= pass as u64;
            return Ok(at + pass);
        }
        self.check_and_clear(judge, bytes, at, pass)
    }

    /// The same where the `pass` bytes are looked at.
    #[inline(never)]
    fn check_and_clear<J: Judge>(&mut self, judge: &J, bytes: &[u8], at: usize, pass: usize) -> Result<usize, Step> {
        if let Some(mut check) = self.check.take() {
            if check.checker.take(bytes.get(at..at + pass).unwrap_or_default()).is_err() {
                return Err(Step { pass: at, then: Then::Fail(judge.not_decompressed(check.header)) });
            }
            self.check = (self.skip > pass as u64).then_some(check);
        }
        if let Some((offset, bits)) = self.clear.take() {
            if offset >= pass as u64 {
                self.clear = (self.skip > pass as u64).then(|| (offset - pass as u64, bits));
            } else {
                let position = at + offset as usize;
                let byte = bytes.get(position).copied().unwrap_or_default();
                if byte & bits != 0 {
                    self.skip -= offset + 1;
                    let then = Then::Replace { consumed: 1, made: vec![byte & !bits] };
                    return Err(Step { pass: position, then });
                }
            }
        }
        self.skip -= pass as u64;
        Ok(at + pass)
    }
}
