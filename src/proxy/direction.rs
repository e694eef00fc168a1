//! One direction of a relay: flush, read, ask, write. It owns no buffer while nothing is owed.
//!
//! Bytes are read into a scratch buffer that belongs to the thread, looked at there, and written from there. Only what a
//! blocked write leaves over (`spill`) and what cannot be decided yet (`held`) is copied to the heap, and freed at once
//! when it is not needed any more.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::hold::{self, HoldBudget, Permit};
use crate::rewrite::{Failure, Step, Then};
use std::sync::Arc;

/// Reads of one direction in one poll, and bytes, before others get their turn.
const READS_PER_POLL: usize = 8;
const BYTES_PER_POLL: usize = 1024 * 1024;

/// The bytes of one direction that are owed or undecided.
#[derive(Default)]
pub struct Direction {
    /// Read, not decided: the start of a frame that is looked at, or held.
    held: Vec<u8>,
    /// How many bytes `held` must have before it is worth asking again.
    need: usize,
    /// Bytes that the conversation holds itself.
    elsewhere: usize,
    /// Decided, not written: what a blocked write left over, from `spilled` on.
    spill: Vec<u8>,
    spilled: usize,
    /// Bytes of `spill` that were made here, in the place of a frame: they count as held. Others are a read's worth.
    made: usize,
    /// Bytes that the destination took since [`Direction::take_written`]; a poll moves far less than 4 GiB.
    written: u32,
    /// The destination has accepted bytes that it has not sent (TLS).
    unflushed: bool,
    /// The source has ended.
    ended: bool,
    permit: Option<Permit>,
}

/// What a poll of one direction came to.
#[derive(Debug)]
pub enum Progress {
    /// Nothing more can be done now; the wakers are registered.
    Blocked,
    /// There is more, but others are due.
    Yield,
    /// The hold budget is exhausted.
    NoRoom,
    /// The source has ended, and all that it said is written.
    Finished,
    ReadFailed(io::Error),
    WriteFailed(io::Error),
    Failed(Failure),
}

/// What a direction needs of its surroundings for one poll.
pub struct Room<'a> {
    /// The thread's read buffer.
    pub scratch: &'a mut [u8],
    pub budget: &'a Arc<HoldBudget>,
}

impl Direction {
    /// A direction in which `held` was read already, during the handshake.
    pub fn starting_with(held: Vec<u8>) -> Self {
        Self { held, ..Self::default() }
    }

    /// Nothing is owed to the destination, and no byte of the source waits.
    pub fn is_idle(&self) -> bool {
        self.held.is_empty() && self.is_flushed()
    }

    pub fn is_flushed(&self) -> bool {
        self.spill.is_empty() && !self.unflushed
    }

    /// Undecided bytes wait.
    pub fn holds(&self) -> bool {
        !self.held.is_empty()
    }

    /// Bytes that the destination took since the last [`Direction::take_written`].
    pub fn written(&self) -> u64 {
        self.written.into()
    }

    pub fn take_written(&mut self) -> u64 {
        std::mem::take(&mut self.written).into()
    }

    /// Moves bytes until one side blocks. `ask` says what shall happen to the next bytes; `held_elsewhere` how many bytes it
    /// holds itself after that.
    pub fn poll<S, D>(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut S,
        destination: &mut D,
        room: Room<'_>,
        mut ask: impl FnMut(&[u8]) -> (Step, usize),
    ) -> Progress
    where
        S: AsyncRead + Unpin,
        D: AsyncWrite + Unpin,
    {
        let mut bytes = 0;
        for _ in 0..READS_PER_POLL {
            match self.poll_flush(cx, destination) {
                Poll::Pending => return Progress::Blocked,
                Poll::Ready(Err(error)) => return Progress::WriteFailed(error),
                Poll::Ready(Ok(())) => {}
            }
            if self.ended {
                return Progress::Finished;
            }
            if !self.reserve(room.budget) {
                return Progress::NoRoom;
            }
            let asks_again = self.need == 0 && !self.held.is_empty();
            let mut buffer = ReadBuf::new(if asks_again { &mut [] } else { &mut *room.scratch });
            if !asks_again {
                match Pin::new(&mut *source).poll_read(cx, &mut buffer) {
                    Poll::Pending => return Progress::Blocked,
                    Poll::Ready(Err(error)) => return Progress::ReadFailed(error),
                    Poll::Ready(Ok(())) if buffer.filled().is_empty() => {
                        self.ended = true;
                        continue;
                    }
                    Poll::Ready(Ok(())) => {}
                }
            }
            let read = buffer.filled();
            bytes += read.len();
            if let Err(progress) = self.decide(cx, read, destination, room.budget, &mut ask) {
                return progress;
            }
            if bytes >= BYTES_PER_POLL {
                return Progress::Yield;
            }
        }
        Progress::Yield
    }

    /// Asks about `held` followed by `read`, and writes what passes.
    fn decide<D: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        read: &[u8],
        destination: &mut D,
        budget: &Arc<HoldBudget>,
        ask: &mut impl FnMut(&[u8]) -> (Step, usize),
    ) -> Result<(), Progress> {
        let joined = !self.held.is_empty();
        if joined {
            self.held.extend_from_slice(read);
            if self.held.len() < self.need {
                return Ok(());
            }
        }
        let held = std::mem::take(&mut self.held);
        let input: &[u8] = if joined { &held } else { read };
        let mut at = 0;
        self.need = 0;
        while let Some(rest) = input.get(at..).filter(|rest| !rest.is_empty()) {
            let (Step { pass, then }, held_elsewhere) = ask(rest);
            if pass > 0 {
                self.write(cx, destination, rest.get(..pass).unwrap_or(rest)).map_err(Progress::WriteFailed)?;
                at += pass;
            }
            match then {
                Then::Replace { consumed, made } => {
                    let owed = self.spill.len();
                    self.write(cx, destination, &made).map_err(Progress::WriteFailed)?;
                    self.made += self.spill.len() - owed;
                    at += consumed;
                    self.elsewhere = held_elsewhere;
                    if !self.reserve(budget) {
                        self.held = input.get(at..).unwrap_or_default().to_vec();
                        self.settle(budget);
                        return Err(Progress::NoRoom);
                    }
                }
                Then::Wait { need } => {
                    self.need = need.max(rest.len() - pass + 1);
                    break;
                }
                Then::Yield | Then::Login(_) => break,
                Then::Fail(failure) => return Err(Progress::Failed(failure)),
            }
        }
        let undecided = input.get(at..).unwrap_or_default();
        if !undecided.is_empty() {
            self.held = if at == 0 && joined { held } else { undecided.to_vec() };
        }
        self.settle(budget);
        Ok(())
    }

    /// Bytes to be held: here up to the next decision, or elsewhere.
    fn wanted(&self) -> usize {
        self.need.max(self.elsewhere)
    }

    /// Room for what is to be held.
    fn reserve(&mut self, budget: &Arc<HoldBudget>) -> bool {
        let wanted = self.wanted();
        wanted <= hold::FREE || budget.grow(&mut self.permit, wanted.saturating_add(self.made))
    }

    /// Gives back room that is not needed any more. What a reader has not taken is counted, room or no room.
    fn settle(&mut self, budget: &Arc<HoldBudget>) {
        let needed = if self.wanted() > hold::FREE { self.permit.as_ref().map_or(0, Permit::bytes) } else { 0 };
        budget.count(&mut self.permit, needed.max(self.made));
    }

    /// Writes `bytes` after all that is owed; what the destination does not take now is owed.
    pub fn write<D: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        destination: &mut D,
        bytes: &[u8],
    ) -> io::Result<()> {
        let mut rest = bytes;
        while self.spill.is_empty() && !rest.is_empty() {
            match Pin::new(&mut *destination).poll_write(cx, rest) {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(len)) => {
                    self.count(len);
                    rest = rest.get(len..).unwrap_or_default();
                    self.unflushed = true;
                }
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => break,
            }
        }
        if !rest.is_empty() {
            self.spill.extend_from_slice(rest);
        }
        Ok(())
    }

    fn count(&mut self, len: usize) {
        self.written = self.written.saturating_add(u32::try_from(len).unwrap_or(u32::MAX));
    }

    /// Writes all that is owed.
    pub fn poll_flush<D: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        destination: &mut D,
    ) -> Poll<io::Result<()>> {
        while let Some(rest) = self.spill.get(self.spilled..).filter(|rest| !rest.is_empty()) {
            match Pin::new(&mut *destination).poll_write(cx, rest) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(len)) => {
                    self.count(len);
                    self.spilled += len;
                    self.unflushed = true;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
        if self.spilled > 0 {
            self.spill = Vec::new();
            self.spilled = 0;
            self.made = 0;
            if self.wanted() <= hold::FREE {
                self.permit = None;
            }
        }
        if self.unflushed {
            match Pin::new(&mut *destination).poll_flush(cx) {
                Poll::Ready(Ok(())) => self.unflushed = false,
                other => return other,
            }
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Waker;

    const MADE: usize = 1024 * 1024;

    /// `step` says what shall happen to so many bytes.
    fn poll<S: AsyncRead + Unpin, D: AsyncWrite + Unpin>(
        direction: &mut Direction,
        (source, destination): (&mut S, &mut D),
        budget: &Arc<HoldBudget>,
        step: impl Fn(usize) -> Step,
    ) -> Progress {
        let mut cx = Context::from_waker(Waker::noop());
        let room = Room { scratch: &mut vec![0; MADE / 4], budget };
        direction.poll(&mut cx, source, destination, room, |bytes| (step(bytes.len()), 0))
    }

    fn read_all(reader: &mut (impl AsyncRead + Unpin)) -> usize {
        let (mut piece, mut length) = (vec![0; 64 * 1024], 0);
        loop {
            let mut buffer = ReadBuf::new(&mut piece);
            match Pin::new(&mut *reader).poll_read(&mut Context::from_waker(Waker::noop()), &mut buffer) {
                Poll::Ready(Ok(())) => length += buffer.filled().len(),
                _ => return length,
            }
        }
    }

    #[test]
    fn what_was_made_for_a_client_that_does_not_read_is_counted_until_it_does() {
        let (mut node, mut source) = tokio::io::duplex(1024);
        let (mut destination, mut client) = tokio::io::duplex(1024);
        // There is less room than that.
        let budget = HoldBudget::new(MADE / 2);
        let mut direction = Direction::default();
        let made = |consumed| Step { pass: 0, then: Then::Replace { consumed, made: vec![0; MADE] } };
        let mut cx = Context::from_waker(Waker::noop());
        assert!(Pin::new(&mut node).poll_write(&mut cx, b"frame").is_ready());
        let mut taken = 0;
        while taken + 1024 < MADE {
            let progress = poll(&mut direction, (&mut source, &mut destination), &budget, made);
            assert!(matches!(progress, Progress::Blocked), "{progress:?}");
            assert_eq!(budget.held(), MADE - 1024, "it is one piece of memory until the last byte is taken");
            taken += read_all(&mut client);
        }
        assert!(matches!(poll(&mut direction, (&mut source, &mut destination), &budget, made), Progress::Blocked));
        assert!(direction.is_flushed());
        assert_eq!(budget.held(), 0);
    }

    #[test]
    fn what_passes_to_a_client_that_does_not_read_is_a_reads_worth_and_free() {
        let mut source = &vec![0; MADE][..];
        let (mut destination, _client) = tokio::io::duplex(1024);
        let budget = HoldBudget::new(MADE);
        let mut direction = Direction::default();
        let progress = poll(&mut direction, (&mut source, &mut destination), &budget, |pass| Step {
            pass,
            then: Then::Wait { need: 1 },
        });
        assert!(matches!(progress, Progress::Blocked), "{progress:?}");
        assert!(!direction.is_flushed());
        assert_eq!(budget.held(), 0);
    }
}
