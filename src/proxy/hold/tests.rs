//! Who gets room, in which order, and who has to leave for others.

use super::*;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Wake;

const KIB: usize = 1024;

/// A connection as the budget sees it.
struct Connection {
    budget: Arc<HoldBudget>,
    share: Option<Share>,
    woken: Arc<Woken>,
    stranger: bool,
}

#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Connection {
    fn new(budget: &Arc<HoldBudget>) -> Self {
        Self { budget: Arc::clone(budget), share: None, woken: Arc::default(), stranger: false }
    }

    fn stranger(budget: &Arc<HoldBudget>) -> Self {
        Self { stranger: true, ..Self::new(budget) }
    }

    /// True when it has room for so many bytes now.
    fn grows(&mut self, bytes: usize) -> bool {
        let waker = Waker::from(Arc::clone(&self.woken));
        let mut cx = Context::from_waker(&waker);
        self.budget.poll_grow(&mut cx, &mut self.share, bytes, self.stranger).is_ready()
    }

    fn holds(&mut self, bytes: usize, moved: usize) -> Settled {
        self.share.as_mut().unwrap().settle(bytes, moved, false, &Waker::from(Arc::clone(&self.woken)))
    }

    fn relieve(&self) {
        self.share.as_ref().unwrap().relieve();
    }

    fn must_leave(&self) -> bool {
        self.share.as_ref().is_some_and(Share::must_leave)
    }

    fn woken(&self) -> usize {
        self.woken.0.load(Ordering::Relaxed)
    }
}

/// A budget and its first holder, who has all but the last part of it.
fn full(limit: usize) -> (Arc<HoldBudget>, Connection) {
    let budget = HoldBudget::new(limit);
    let mut holder = Connection::new(&budget);
    assert!(holder.grows(limit - limit / LAST_PART));
    (budget, holder)
}

#[tokio::test(start_paused = true)]
async fn takes_all_back_and_counts_what_is_there_already_beyond_the_limit() {
    let budget = HoldBudget::new(64 * KIB);
    let (mut one, mut other) = (Connection::new(&budget), Connection::new(&budget));
    assert!(one.grows(30 * KIB));
    assert!(one.grows(40 * KIB), "growing counts the difference only");
    assert_eq!(budget.held(), 40 * KIB);
    assert_eq!(one.holds(80 * KIB, 0), Settled::Needed);
    assert_eq!(budget.held(), 80 * KIB);
    assert!(!other.grows(1));
    assert_eq!(one.holds(80 * KIB + 1, 0), Settled::TooMuch, "a quarter beyond it and no more");
    one.holds(10 * KIB, 0);
    assert_eq!(other.woken(), 1);
    assert!(other.grows(1));
    assert_eq!(budget.held(), 10 * KIB + 1);
    drop((one, other));
    assert_eq!((budget.held(), budget.waiting()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn room_goes_to_those_who_wait_in_order_and_wakes_them() {
    let (budget, holder) = full(64 * KIB);
    // Each wants more than the last part of the room.
    let mut waiters = [(); 3].map(|()| Connection::new(&budget));
    for waiter in &mut waiters {
        assert!(!waiter.grows(20 * KIB));
        assert!(!waiter.grows(20 * KIB), "asking again is no second place");
    }
    let [mut first, mut second, mut third] = waiters;
    let mut latecomer = Connection::new(&budget);
    assert!(!latecomer.grows(1), "there would be room, but others came before");
    drop(holder);
    assert_eq!([&first, &second, &third, &latecomer].map(Connection::woken), [1, 1, 0, 0]);
    assert!(first.grows(20 * KIB) && second.grows(20 * KIB) && !third.grows(20 * KIB));
    drop(first);
    assert_eq!((third.woken(), latecomer.woken()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn holders_of_parts_do_not_wait_for_each_other() {
    // All room is held by those who need more: one after the other finishes with the last part.
    let budget = HoldBudget::new(64 * KIB);
    let mut connections = [(); 7].map(|()| Connection::new(&budget));
    assert!(connections.iter_mut().all(|connection| connection.grows(8 * KIB)));
    let mut granted: Vec<bool> = connections.iter_mut().map(|connection| connection.grows(14 * KIB)).collect();
    assert_eq!(granted, [true, false, false, false, false, false, false]);
    for next in 1..7 {
        connections[next - 1].share = None;
        granted = connections[next..].iter_mut().map(|connection| connection.grows(14 * KIB)).collect();
        assert!(granted[0], "{next} of 7");
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_makes_no_progress_leaves_first_and_only_for_those_who_wait() {
    let budget = HoldBudget::new(64 * KIB);
    let mut holders = [(); 7].map(|()| Connection::new(&budget));
    assert!(holders.iter_mut().all(|holder| holder.grows(8 * KIB)));
    for holder in &mut holders {
        holder.holds(8 * KIB, 0);
    }
    tokio::time::advance(Duration::from_secs(45)).await;
    let mut waiter = Connection::new(&budget);
    assert!(holders.iter().all(|holder| !holder.must_leave()), "they harm nobody");
    // All but the last two go on; single bytes are not going on.
    for holder in &mut holders[..5] {
        holder.holds(8 * KIB, PROGRESS);
    }
    holders[5].holds(8 * KIB, 1);
    assert!(!waiter.grows(20 * KIB));
    waiter.relieve();
    let leave: Vec<bool> = holders.iter().map(Connection::must_leave).collect();
    assert_eq!(leave, [false, false, false, false, false, true, true]);
    assert_eq!(holders[6].woken(), 1, "it hears of it");
    for holder in &mut holders[5..] {
        holder.share = None;
    }
    assert!(waiter.grows(20 * KIB));
    assert!(holders[..5].iter().all(|holder| !holder.must_leave()), "no more than it takes");
}

#[tokio::test(start_paused = true)]
async fn only_so_many_leave_as_those_who_wait_need_and_nobody_for_one_who_just_came() {
    let budget = HoldBudget::new(64 * KIB);
    let mut holders = [(); 7].map(|()| Connection::new(&budget));
    assert!(holders.iter_mut().all(|holder| holder.grows(8 * KIB)));
    tokio::time::advance(2 * GRACE).await;
    let mut waiters = [(); 3].map(|()| Connection::new(&budget));
    for waiter in &mut waiters {
        assert!(!waiter.grows(12 * KIB));
    }
    let leave = |holders: &[Connection]| holders.iter().filter(|holder| holder.must_leave()).count();
    waiters[0].relieve();
    assert_eq!(leave(&holders), 2);
    // Their room is on its way.
    tokio::time::advance(LOOK).await;
    waiters[0].relieve();
    assert_eq!(leave(&holders), 2);
    tokio::time::advance(LOOK).await;
    waiters[1].relieve();
    waiters[2].relieve();
    assert_eq!(leave(&holders), 3, "for two; the third is looked after a moment later");
}

#[tokio::test(start_paused = true)]
async fn strangers_share_a_small_part_and_keep_nobody_waiting() {
    let budget = HoldBudget::new(64 * KIB);
    let (mut one, mut other) = (Connection::stranger(&budget), Connection::stranger(&budget));
    assert!(one.grows(4 * KIB), "a sixteenth");
    assert!(!other.grows(1));
    let mut user = Connection::new(&budget);
    assert!(user.grows(8 * KIB), "though a stranger waits before it");
    tokio::time::advance(2 * GRACE).await;
    other.relieve();
    assert!(one.must_leave() && !user.must_leave(), "a stranger makes room for a stranger");
    one.share = None;
    assert!(other.grows(1));
}

#[tokio::test(start_paused = true)]
async fn while_memory_is_short_only_holders_get_more() {
    let budget = HoldBudget::new(64 * KIB);
    let (mut holder, mut newcomer) = (Connection::new(&budget), Connection::new(&budget));
    assert!(holder.grows(KIB));
    budget.set_short(true);
    assert!(!newcomer.grows(KIB));
    assert!(holder.grows(2 * KIB));
    assert!(!budget.spare(&mut holder.share, 3 * KIB, false));
    budget.set_short(false);
    assert_eq!(newcomer.woken(), 1);
    assert!(newcomer.grows(KIB));
}

#[tokio::test(start_paused = true)]
async fn long_reads_leave_half_of_the_room_to_what_must_be_held() {
    let budget = HoldBudget::new(64 * KIB);
    let (mut reader, mut other) = (Connection::new(&budget), Connection::new(&budget));
    assert!(budget.spare(&mut reader.share, 32 * KIB, false));
    assert!(!budget.spare(&mut other.share, 1, false) && other.share.is_none());
    assert!(other.grows(24 * KIB));
    assert_eq!(budget.held(), 56 * KIB);
}

#[tokio::test(start_paused = true)]
async fn a_request_near_the_end_of_the_number_line_waits() {
    let budget = HoldBudget::new(64 * KIB);
    let mut greedy = Connection::new(&budget);
    assert!(greedy.grows(KIB));
    assert!(!greedy.grows(usize::MAX));
    drop(greedy);
    assert_eq!((budget.held(), budget.waiting()), (0, 0));
}
