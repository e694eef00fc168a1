//! One direction of a relay: flush, read, ask, write. It owns no buffer while nothing is owed and nothing is undecided.
//!
//! Bytes are read into a scratch buffer that belongs to the thread, looked at there, and written from there. Only what a
//! blocked write leaves over (`owed`) and what cannot be decided yet (`kept`) is copied to the heap, and freed at once when it
//! is not needed any more. While anything is owed nothing is decided and nothing is read: a reader that does not read is owed
//! at most one read and one made frame.
//!
//! An ordinary read is free. What it brings is kept within [`hold::FREE`]; for more, room is taken from the hold budget, for
//! at most one read at a time. A longer read is made where half of the budget is free, and its room given back when it is
//! written.

mod owed;

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::hold::{self, HoldBudget, Settled, Share};
use crate::rewrite::{Failure, Login, Step, Then};

use owed::Owed;

/// An ordinary read.
pub const READ: usize = hold::FREE;
/// A read for which there is no room: it tells whether there is anything to wait for.
const TASTE: usize = 512;
/// Reads of one direction in one poll, and bytes, before others get their turn.
const READS_PER_POLL: usize = 8;
const BYTES_PER_POLL: usize = 1024 * 1024;

/// The bytes of one direction that are owed or undecided.
#[derive(Default)]
pub struct Direction {
    /// Read, undecided from `decided` on.
    kept: Vec<u8>,
    decided: usize,
    /// How many undecided bytes there must be before it is worth asking again; 0: ask, also when there are none.
    need: usize,
    /// Bytes that the conversation holds itself.
    elsewhere: usize,
    /// Decided, not written.
    owed: Owed,
    /// Room for what is more than [`hold::FREE`].
    share: Option<Share>,
    /// The conversation was not done with the undecided bytes, be they none.
    asks_again: bool,
    /// There are bytes to read for which there was no room.
    tasted: bool,
    /// The last read was as long as an ordinary one can be: there is more.
    streams: bool,
    /// The source has ended.
    ended: bool,
}

/// What a poll of one direction came to.
#[derive(Debug)]
pub enum Progress {
    /// Nothing more can be done now; the wakers are registered.
    Blocked,
    /// There is more, but others are due.
    Yield,
    /// There is no room in the hold budget; the waker is registered.
    NoRoom,
    /// More is there than may be held in all.
    TooMuch,
    /// The client asks to be let in; to be polled again when it may.
    Login(Login),
    /// The source has ended, and all that it said is written.
    Finished,
    ReadFailed(io::Error),
    WriteFailed(io::Error),
    Failed(Failure),
}

/// What a direction needs of its surroundings for one poll.
pub struct Room<'a> {
    /// The thread's read buffer, as long as a long read.
    pub scratch: &'a mut [u8],
    pub budget: &'a Arc<HoldBudget>,
    /// The client is not logged in.
    pub stranger: bool,
}

/// Says what shall happen to the next bytes, and how many bytes it holds itself after that.
pub trait Decider {
    fn ask(&mut self, bytes: &[u8]) -> Step;
    fn held(&self) -> usize;
}

impl Direction {
    /// A direction in which `kept` was read already, during the handshake.
    pub fn starting_with(kept: Vec<u8>) -> Self {
        Self { kept, ..Self::default() }
    }

    /// Nothing is owed to the destination, and no byte of the source waits.
    pub fn is_idle(&self) -> bool {
        !self.holds() && self.is_flushed()
    }

    pub fn is_flushed(&self) -> bool {
        self.owed.is_flushed()
    }

    /// Undecided bytes wait.
    pub fn holds(&self) -> bool {
        !self.undecided().is_empty()
    }

    /// Frees what will never be decided or written.
    pub fn forget(&mut self) {
        let owed = Owed::counting(self.owed.written());
        *self = Self { owed, ended: true, ..Self::default() };
    }

    /// Others wait for the room that it holds without progress.
    pub fn is_stalled(&self) -> bool {
        self.share.as_ref().is_some_and(Share::must_leave)
    }

    /// See [`Share::relieve`]; `None` when it does not wait.
    pub fn relieve(&self) -> Option<Instant> {
        self.share.as_ref().map(Share::relieve)
    }

    /// Bytes that the destination took since the last [`Direction::take_written`].
    pub fn written(&self) -> u64 {
        self.owed.written() as u64
    }

    pub fn take_written(&mut self) -> u64 {
        self.owed.take_written() as u64
    }

    /// Moves bytes until one side blocks.
    pub fn poll<S, D>(
        &mut self,
        cx: &mut Context<'_>,
        (source, destination): (&mut S, &mut D),
        room: Room<'_>,
        decider: &mut impl Decider,
    ) -> Progress
    where
        S: AsyncRead + Unpin,
        D: AsyncWrite + Unpin,
    {
        let (before, mut read) = (self.owed.written(), 0);
        let (budget, stranger) = (room.budget, room.stranger);
        let progress = self.advance(cx, (source, destination), room, decider, &mut read);
        if self.share.is_none() && self.used() > 0 {
            self.share = Some(budget.begin(stranger));
        }
        let moved = read + self.owed.written() - before;
        let too_much = self.settle(cx.waker(), moved, matches!(progress, Progress::NoRoom));
        if too_much { Progress::TooMuch } else { progress }
    }

    fn advance<S, D>(
        &mut self,
        cx: &mut Context<'_>,
        (source, destination): (&mut S, &mut D),
        room: Room<'_>,
        decider: &mut impl Decider,
        bytes: &mut usize,
    ) -> Progress
    where
        S: AsyncRead + Unpin,
        D: AsyncWrite + Unpin,
    {
        for _ in 0..READS_PER_POLL {
            match self.owed.poll_flush(cx, destination) {
                Poll::Pending => return Progress::Blocked,
                Poll::Ready(Err(error)) => return Progress::WriteFailed(error),
                Poll::Ready(Ok(())) => {}
            }
            let asks = self.asks_again || self.holds() && self.undecided().len() >= self.need;
            if !asks && self.ended {
                return Progress::Finished;
            }
            let Poll::Ready(length) = self.poll_room(cx, &room, asks) else { return Progress::NoRoom };
            if asks {
                if let Err(progress) = self.decide_kept(cx, destination, decider) {
                    return progress;
                }
                continue;
            }
            let mut buffer = ReadBuf::new(room.scratch.get_mut(..length).unwrap_or_default());
            match Pin::new(&mut *source).poll_read(cx, &mut buffer) {
                Poll::Pending => return Progress::Blocked,
                Poll::Ready(Err(error)) => return Progress::ReadFailed(error),
                Poll::Ready(Ok(())) => {}
            }
            let read = buffer.filled();
            *bytes += read.len();
            self.ended = read.is_empty();
            self.tasted = length == TASTE;
            self.streams = read.len() >= READ;
            if self.holds() {
                self.keep_more(read);
            } else if let Err(progress) = self.decide_read(cx, destination, read, decider) {
                return progress;
            }
            if *bytes >= BYTES_PER_POLL {
                return Progress::Yield;
            }
        }
        Progress::Yield
    }

    fn undecided(&self) -> &[u8] {
        self.kept.get(self.decided..).unwrap_or_default()
    }

    /// How many bytes the next read may bring; room for what is there already, before anything more is decided. Nobody waits
    /// for room before it is known that there is something to read.
    #[inline]
    fn poll_room(&mut self, cx: &mut Context<'_>, room: &Room<'_>, asks: bool) -> Poll<usize> {
        let nothing_is_held = self.kept.is_empty() && self.elsewhere == 0;
        if !asks && nothing_is_held && !self.streams && self.need <= READ {
            return Poll::Ready(READ.min(room.scratch.len()));
        }
        self.poll_more_room(cx, room, asks)
    }

    fn poll_more_room(&mut self, cx: &mut Context<'_>, room: &Room<'_>, asks: bool) -> Poll<usize> {
        let used = self.kept.len() + self.elsewhere;
        let missing = if asks { 0 } else { self.need.saturating_sub(self.undecided().len()).max(1) };
        let long = room.scratch.len();
        let has = hold::FREE + self.share.as_ref().map_or(0, Share::bytes);
        if !asks && (self.streams || missing > READ) {
            let wanted = (used + long).saturating_sub(hold::FREE);
            if used + long <= has || room.budget.spare(&mut self.share, wanted, room.stranger) {
                return Poll::Ready(long);
            }
        }
        let wanted = used + missing.min(READ);
        if wanted > has {
            let budget = room.budget;
            if asks || self.tasted {
                // Whoever has to wait waits once for the rest of a frame, and gives back what does not come at once.
                let more = used + missing.min(long) - hold::FREE;
                ready!(budget.poll_grow(cx, &mut self.share, more, room.stranger));
            } else if !budget.grow(&mut self.share, wanted - hold::FREE, room.stranger) {
                return Poll::Ready(TASTE.min(long));
            }
        }
        let has = hold::FREE + self.share.as_ref().map_or(0, Share::bytes);
        Poll::Ready((has - used.min(has)).min(long).min(missing.max(READ)))
    }

    /// Keeps `read` behind the undecided bytes. What is decided before them is dropped once for each frame.
    fn keep_more(&mut self, read: &[u8]) {
        if self.decided > 0 {
            self.kept.drain(..self.decided);
            self.decided = 0;
        }
        let length = self.kept.len() + read.len();
        if length > self.kept.capacity() {
            let capacity = (2 * self.kept.capacity()).min(self.need).max(length);
            self.kept.reserve_exact(capacity - self.kept.len());
        }
        self.kept.extend_from_slice(read);
    }

    /// Decides about a read; nothing was kept before it.
    #[inline]
    fn decide_read<D: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        destination: &mut D,
        read: &[u8],
        decider: &mut impl Decider,
    ) -> Result<(), Progress> {
        let (decided, stopped) = self.decide(cx, destination, read, decider);
        self.kept = read.get(decided..).unwrap_or_default().to_vec();
        self.decided = 0;
        stopped
    }

    /// Decides about what was kept.
    fn decide_kept<D: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        destination: &mut D,
        decider: &mut impl Decider,
    ) -> Result<(), Progress> {
        let kept = std::mem::take(&mut self.kept);
        let (decided, stopped) = self.decide(cx, destination, kept.get(self.decided..).unwrap_or_default(), decider);
        self.decided += decided;
        // What is left is copied only when it is no more than what goes.
        if 2 * self.decided >= kept.len() {
            self.kept = kept.get(self.decided..).unwrap_or_default().to_vec();
            self.decided = 0;
        } else {
            self.kept = kept;
        }
        stopped
    }

    /// Asks about `input` and writes what passes, until something is owed: how many bytes are decided.
    #[inline]
    fn decide<D: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        destination: &mut D,
        input: &[u8],
        decider: &mut impl Decider,
    ) -> (usize, Result<(), Progress>) {
        let mut at = 0;
        let mut asks_again = std::mem::take(&mut self.asks_again);
        self.need = 0;
        loop {
            let rest = input.get(at..).unwrap_or_default();
            if rest.is_empty() && !asks_again {
                return (at, Ok(()));
            }
            asks_again = false;
            let Step { pass, then } = decider.ask(rest);
            self.elsewhere = decider.held();
            let passes = rest.get(..pass).unwrap_or(rest);
            at += passes.len();
            if let Err(error) = self.owed.write(cx, destination, passes) {
                return (at, Err(Progress::WriteFailed(error)));
            }
            match then {
                Then::Replace { consumed, made } => {
                    at = (at + consumed).min(input.len());
                    if let Err(error) = self.owed.write_made(cx, destination, made) {
                        return (at, Err(Progress::WriteFailed(error)));
                    }
                }
                Then::Wait { need } => {
                    self.need = need.max(input.len() - at + 1);
                    return (at, Ok(()));
                }
                Then::Yield => {
                    self.asks_again = true;
                    return (at, Err(Progress::Yield));
                }
                Then::Login(login) => {
                    self.asks_again = true;
                    return (at, Err(Progress::Login(login)));
                }
                Then::Fail(failure) => return (at, Err(Progress::Failed(failure))),
            }
            if !self.owed.is_empty() || self.elsewhere > hold::FREE {
                return (at, Ok(()));
            }
        }
    }

    /// Gives back room that is not needed any more, and counts what is there, room or no room: true when it is too much.
    fn settle(&mut self, waker: &Waker, moved: usize, waits: bool) -> bool {
        let held = self.used();
        let settled = self.share.as_mut().map(|share| share.settle(held, moved, waits, waker));
        if settled == Some(Settled::Spent) {
            self.share = None;
        }
        settled == Some(Settled::TooMuch)
    }

    /// Bytes that are there beyond the free ones.
    fn used(&self) -> usize {
        (self.kept.len() + self.owed.len() + self.elsewhere).saturating_sub(hold::FREE)
    }

    /// Writes `bytes` after all that is owed; what the destination does not take now is owed.
    pub fn write<D: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        destination: &mut D,
        bytes: &[u8],
    ) -> io::Result<()> {
        self.owed.write(cx, destination, bytes)
    }

    /// Writes all that is owed.
    pub fn poll_flush<D: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        destination: &mut D,
    ) -> Poll<io::Result<()>> {
        let before = self.owed.written();
        let flushed = self.owed.poll_flush(cx, destination);
        let moved = self.owed.written() - before;
        self.settle(cx.waker(), moved, false);
        flushed
    }
}

#[cfg(test)]
mod tests;
