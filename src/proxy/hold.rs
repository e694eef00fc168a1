//! The process-wide budget for bytes that wait: for the rest of their frame, or for their reader.
//!
//! A claim reserves nothing. Room is taken as bytes arrive: before a read that may bring more than is free, for at most that
//! read. When it is short, those who wait get it in the order in which they came, and are woken; nobody polls. Of those who
//! hold what others wait for, whoever makes no progress is closed first ([`Share::relieve`]). The last part of the room
//! belongs to one waiter at a time, who finishes with it: so holders of parts never wait for each other.
//!
//! What is there already, because it was made or decompressed here, is counted even beyond the limit, up to a quarter of it:
//! nobody else gets room then, and who brings more than that is closed. Connections that are not logged in have a small part of the room for all of them together.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::Instant;

/// So many bytes of each direction are free: one ordinary read.
pub const FREE: usize = 16 * 1024;
/// Whoever has waited so long has the others looked at.
pub const PATIENCE: Duration = Duration::from_secs(1);
/// A holder that makes no progress for longer than this may be closed for others.
const GRACE: Duration = Duration::from_secs(1);
/// They are looked at so often at most.
const LOOK: Duration = Duration::from_millis(100);
/// Bytes that are progress: single ones are not.
const PROGRESS: usize = 1024;
/// The last eighth of the room belongs to the first waiter alone.
const LAST_PART: usize = 8;
/// All who are not logged in have a sixteenth of the room.
const STRANGERS_PART: usize = 16;
/// What is there already may pass the limit by a quarter.
const BEYOND_PART: usize = 4;
/// Longer reads than ordinary ones leave half of the room free.
const SPARE_PART: usize = 2;

/// How many bytes may be held in all, and who holds them.
#[derive(Debug)]
pub struct HoldBudget {
    limit: AtomicUsize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    held: usize,
    held_by_strangers: usize,
    holders: HashMap<u64, Holder>,
    next: u64,
    /// Those who wait, in order.
    queue: VecDeque<u64>,
    /// Whose the last part of the room is.
    first: Option<u64>,
    /// Bytes of holders that are told to leave.
    leaving: usize,
    /// When the holders were looked at for the last time.
    looked: Option<Instant>,
    /// Memory is short: who holds nothing gets nothing.
    short: bool,
}

#[derive(Debug)]
struct Holder {
    bytes: usize,
    stranger: bool,
    /// So many more are waited for.
    wants: Option<usize>,
    progressed: Instant,
    /// Bytes moved since then.
    moved: usize,
    leaves: bool,
    waker: Option<Waker>,
}

impl HoldBudget {
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit: AtomicUsize::new(limit), state: Mutex::default() })
    }

    /// Another limit from now on; nobody loses what it holds.
    pub fn set_limit(&self, limit: usize) {
        self.limit.store(limit, Ordering::Relaxed);
        self.state().serve(limit);
    }

    fn limit(&self) -> usize {
        self.limit.load(Ordering::Relaxed)
    }

    /// Bytes held now.
    pub fn held(&self) -> usize {
        self.state().held
    }

    /// How many wait for room now.
    pub fn waiting(&self) -> usize {
        self.state().queue.len()
    }

    /// While memory is short, only those get more room who have some.
    pub fn set_short(&self, short: bool) {
        let mut state = self.state();
        state.short = short;
        state.serve(self.limit());
    }

    /// Grows `share` to `bytes` for a read that could do with less: only where nobody waits, and half of the room stays free.
    pub fn spare(self: &Arc<Self>, share: &mut Option<Share>, bytes: usize, stranger: bool) -> bool {
        let mut state = self.state();
        let more = bytes.saturating_sub(share.as_ref().map_or(0, |share| share.bytes));
        let room = self.limit() / SPARE_PART;
        if stranger || state.short || !state.queue.is_empty() || state.held.saturating_add(more) > room {
            return false;
        }
        let share = share.get_or_insert_with(|| Share::new(self, &mut state, stranger));
        state.grant(share.id, more);
        share.bytes += more;
        true
    }

    /// A share of nothing yet.
    pub fn begin(self: &Arc<Self>, stranger: bool) -> Share {
        Share::new(self, &mut self.state(), stranger)
    }

    /// Grows `share` to `bytes`, when it is its turn: until then it waits.
    pub fn poll_grow(
        self: &Arc<Self>,
        cx: &mut Context<'_>,
        share: &mut Option<Share>,
        bytes: usize,
        stranger: bool,
    ) -> Poll<()> {
        let mut state = self.state();
        let share = share.get_or_insert_with(|| Share::new(self, &mut state, stranger));
        state.ask(self.limit(), share, bytes, Some(cx.waker()))
    }

    /// Grows `share` to `bytes` if it can be had at once. It does not wait.
    pub fn grow(self: &Arc<Self>, share: &mut Option<Share>, bytes: usize, stranger: bool) -> bool {
        let mut state = self.state();
        let share = share.get_or_insert_with(|| Share::new(self, &mut state, stranger));
        state.ask(self.limit(), share, bytes, None).is_ready()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a share is worth after a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// It is not needed any more.
    Spent,
    Needed,
    /// There is more than all holders together may have.
    TooMuch,
}

/// What one direction holds of the budget; given back when dropped.
#[derive(Debug)]
pub struct Share {
    budget: Arc<HoldBudget>,
    id: u64,
    /// As its holder's, or less when it was just granted more.
    bytes: usize,
}

impl Share {
    fn new(budget: &Arc<HoldBudget>, state: &mut State, stranger: bool) -> Self {
        let id = state.next;
        state.next += 1;
        let progressed = Instant::now();
        let holder = Holder { bytes: 0, stranger, wants: None, progressed, moved: 0, leaves: false, waker: None };
        state.holders.insert(id, holder);
        Self { budget: Arc::clone(budget), id, bytes: 0 }
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// True when others need what it holds, and it made no progress.
    pub fn must_leave(&self) -> bool {
        self.budget.state().holders.get(&self.id).is_some_and(|holder| holder.leaves)
    }

    /// Says what it holds at the end of a turn in which `moved` bytes came or went: fewer bytes than it has room for, or more
    /// because they are there already. `waker` is woken when it must leave. One who waits keeps the room it has, also what it
    /// was granted just now.
    pub fn settle(&mut self, bytes: usize, moved: usize, waits: bool, waker: &Waker) -> Settled {
        let (limit, mut state) = (self.budget.limit(), self.budget.state());
        let Some(holder) = state.holders.get_mut(&self.id) else { return Settled::Spent };
        holder.hear(waker);
        holder.moved = holder.moved.saturating_add(moved);
        if holder.moved >= PROGRESS {
            holder.moved = 0;
            holder.progressed = Instant::now();
        }
        let waits = waits || holder.wants.is_some();
        let bytes = if waits { bytes.max(holder.bytes) } else { bytes };
        let (before, stranger, leaves) = (holder.bytes, holder.stranger, holder.leaves);
        holder.bytes = bytes;
        self.bytes = bytes;
        state.change(before, bytes, stranger);
        if leaves {
            state.leaving = (state.leaving + bytes).saturating_sub(before);
        }
        if bytes < before {
            state.serve(limit);
        }
        if bytes > before && state.held > limit + limit / BEYOND_PART {
            return Settled::TooMuch;
        }
        if waits || bytes > 0 { Settled::Needed } else { Settled::Spent }
    }

    /// To be called by one who waits, after [`PATIENCE`]: those are told to leave who have made no progress for longest, until
    /// what they hold is enough for it and for those of its kind who came before it. Returns when it is worth another look.
    pub fn relieve(&self) -> Instant {
        let now = Instant::now();
        self.budget.state().relieve(self.id, self.budget.limit(), now).max(now + LOOK)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut state = self.budget.state();
        let Some(holder) = state.holders.remove(&self.id) else { return };
        state.leave_queue(self.id);
        if holder.leaves {
            state.leaving = state.leaving.saturating_sub(holder.bytes);
        }
        state.change(holder.bytes, 0, holder.stranger);
        state.serve(self.budget.limit());
    }
}

impl Holder {
    fn hear(&mut self, waker: &Waker) {
        match &mut self.waker {
            Some(known) => known.clone_from(waker),
            none => *none = Some(waker.clone()),
        }
    }
}

/// Why one who asks gets nothing now.
#[derive(Clone, Copy, PartialEq)]
enum Without {
    /// There is no room.
    Room,
    /// There is none for its kind; others need not wait for it.
    RoomOfItsKind,
}

impl State {
    fn ask(&mut self, limit: usize, share: &mut Share, bytes: usize, waker: Option<&Waker>) -> Poll<()> {
        let Some(holder) = self.holders.get_mut(&share.id) else { return Poll::Pending };
        if holder.wants.is_some() {
            waker.into_iter().for_each(|waker| holder.hear(waker));
            return Poll::Pending;
        }
        // What was granted while it waited.
        share.bytes = holder.bytes;
        let more = bytes.saturating_sub(holder.bytes);
        if more == 0 {
            return Poll::Ready(());
        }
        holder.wants = Some(more);
        // What it gets at once needs no waking.
        let heard = holder.waker.take();
        self.queue.push_back(share.id);
        self.serve(limit);
        let Some(holder) = self.holders.get_mut(&share.id) else { return Poll::Pending };
        share.bytes = holder.bytes;
        holder.waker = heard;
        match (holder.wants, waker) {
            (None, _) => Poll::Ready(()),
            (Some(_), Some(waker)) => {
                holder.hear(waker);
                Poll::Pending
            }
            (Some(_), None) => {
                holder.wants = None;
                self.leave_queue(share.id);
                Poll::Pending
            }
        }
    }

    fn leave_queue(&mut self, id: u64) {
        self.queue.retain(|waits| *waits != id);
        if self.first == Some(id) {
            self.first = None;
        }
    }

    /// Gives room to those who wait, in order.
    fn serve(&mut self, limit: usize) {
        let mut position = 0;
        while let Some(&id) = self.queue.get(position) {
            match self.without(id, limit) {
                Some(Without::RoomOfItsKind) => position += 1,
                Some(Without::Room) if self.first.is_none() => self.first = Some(id),
                Some(Without::Room) => return,
                None => {
                    self.queue.remove(position);
                    let Some(holder) = self.holders.get_mut(&id) else { continue };
                    let wants = holder.wants.take();
                    if let Some(waker) = &holder.waker {
                        waker.wake_by_ref();
                    }
                    self.grant(id, wants.unwrap_or_default());
                }
            }
        }
    }

    fn without(&self, id: u64, limit: usize) -> Option<Without> {
        let holder = self.holders.get(&id)?;
        let more = holder.wants.unwrap_or_default();
        if self.short && holder.bytes == 0 || holder.stranger && !self.has_room_for_strangers(more, limit) {
            return Some(Without::RoomOfItsKind);
        }
        let room = if self.first == Some(id) { limit } else { limit - limit / LAST_PART };
        (self.held.saturating_add(more) > room).then_some(Without::Room)
    }

    fn has_room_for_strangers(&self, more: usize, limit: usize) -> bool {
        self.held_by_strangers.saturating_add(more) <= limit / STRANGERS_PART
    }

    fn grant(&mut self, id: u64, more: usize) {
        let Some(holder) = self.holders.get_mut(&id) else { return };
        let (before, after, stranger) = (holder.bytes, holder.bytes + more, holder.stranger);
        holder.bytes = after;
        self.change(before, after, stranger);
    }

    fn change(&mut self, before: usize, after: usize, stranger: bool) {
        self.held = (self.held + after).saturating_sub(before);
        if stranger {
            self.held_by_strangers = (self.held_by_strangers + after).saturating_sub(before);
        }
    }

    fn relieve(&mut self, waiter: u64, limit: usize, now: Instant) -> Instant {
        let later = now + GRACE;
        if self.looked.is_some_and(|looked| now < looked + LOOK) {
            return now;
        }
        let Some(asks) = self.holders.get(&waiter).filter(|asks| asks.wants.is_some()) else { return later };
        let (stranger, is_new) = (asks.stranger, asks.bytes == 0);
        if self.short && is_new {
            return later;
        }
        self.looked = Some(now);
        let before = self.queue.iter().position(|id| *id == waiter).unwrap_or_default();
        let wait = self.queue.iter().take(before + 1).filter_map(|id| self.holders.get(id));
        let of_its_kind = wait.filter(|holder| holder.stranger == stranger);
        let wants = of_its_kind.fold(0_usize, |sum, holder| sum.saturating_add(holder.wants.unwrap_or_default()));
        // Strangers are not helped at the cost of others.
        let only_strangers = stranger && !self.has_room_for_strangers(wants, limit);
        let may_leave = |holder: &&mut Holder| {
            !holder.leaves && holder.wants.is_none() && holder.bytes > 0 && (holder.stranger || !only_strangers)
        };
        while self.leaving < wants {
            let idle = self.holders.values_mut().filter(may_leave).min_by_key(|holder| holder.progressed);
            let Some(idle) = idle else { return later };
            if idle.progressed + GRACE > now {
                return idle.progressed + GRACE;
            }
            idle.leaves = true;
            self.leaving += idle.bytes;
            if let Some(waker) = &idle.waker {
                waker.wake_by_ref();
            }
        }
        later
    }
}

#[cfg(test)]
mod tests;
