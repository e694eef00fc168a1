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
use crate::rewrite::{Failure, Step};
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
            let (step, held_elsewhere) = ask(rest);
            match step {
                Step::Pass(len) => {
                    self.write(cx, destination, rest.get(..len).unwrap_or(rest)).map_err(Progress::WriteFailed)?;
                    at += len;
                }
                Step::Replace(len, bytes) => {
                    self.write(cx, destination, &bytes).map_err(Progress::WriteFailed)?;
                    at += len;
                    self.elsewhere = held_elsewhere;
                    if !self.reserve(budget) {
                        self.held = input.get(at..).unwrap_or_default().to_vec();
                        return Err(Progress::NoRoom);
                    }
                }
                Step::Wait { need } => {
                    self.need = need.max(rest.len() + 1);
                    break;
                }
                Step::Fail(failure) => return Err(Progress::Failed(failure)),
            }
        }
        let undecided = input.get(at..).unwrap_or_default();
        if !undecided.is_empty() {
            self.held = if at == 0 && joined { held } else { undecided.to_vec() };
        }
        if self.need.max(self.elsewhere) <= hold::FREE {
            self.permit = None;
        }
        Ok(())
    }

    /// Room for what is to be held, here up to the next decision, or elsewhere.
    fn reserve(&mut self, budget: &Arc<HoldBudget>) -> bool {
        let wanted = self.need.max(self.elsewhere);
        if wanted <= hold::FREE {
            return true;
        }
        budget.grow(&mut self.permit, wanted)
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
