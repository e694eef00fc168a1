//! Clients that have vanished, and clients that do not read: to the kernel they look alike, and they are not.
//!
//! `TCP_USER_TIMEOUT` counts the time of a closed window as that of a lost peer (`tcp(7)`), and takes keepalive's decision over: a
//! client that pauses for longer loses its answer, and nodes themselves wait for ever. So towards clients it is not set. Keepalive finds
//! those that vanish while nothing is owed to them; the others are found here, by asking the kernel now and then about those who were
//! sent something: one that is gone acknowledges nothing, however often the kernel asks again; one that does not read says at least
//! that its window is closed.
//!
//! Where the kernel may not be asked, `TCP_USER_TIMEOUT` has to do: [`client_user_timeout`].

mod sock_diag;

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::connections::Order;
use super::shared::Shared;
use sock_diag::{ANSWERS, SockDiag, TcpState};

/// Between two looks, where `timeouts.dead_peer` is not so short that it must be sooner.
const LOOK: Duration = Duration::from_secs(5);
const QUICKEST: Duration = Duration::from_millis(50);
/// Nothing was heard for so long, and the kernel has sent so many segments in vain: the client is gone. A probe of a closed window
/// comes two minutes after the last at most, and is answered; so that one loss, or two, mean nothing.
const GONE: Duration = Duration::from_secs(30);
const IN_VAIN: u32 = 3;
/// Questions in one turn: each takes some microseconds, and others have work on this thread.
const IN_ONE_TURN: usize = 256;

/// `TCP_USER_TIMEOUT` of a client's socket: none where this module looks after it.
pub fn client_user_timeout(dead_peer: Duration) -> Option<Duration> {
    (!*ANSWERS).then_some(dead_peer)
}

/// One client to which something is owed, as it was seen.
#[derive(Clone, Copy, Debug)]
struct Seen {
    /// What it had acknowledged, and since when that is so.
    acked: u64,
    took: Instant,
    /// Segments that came and went when something was heard of it last, and when that was.
    segments_in: u32,
    segments_out: u32,
    heard: Instant,
}

impl Seen {
    fn new(state: TcpState, now: Instant) -> Self {
        let TcpState { queued: _, acked, segments_in, segments_out } = state;
        Self { acked, took: now, segments_in, segments_out, heard: now }
    }

    /// Looks again: how it is to end, if it is.
    fn look(&mut self, state: TcpState, now: Instant, dead_peer: Duration) -> Option<Order> {
        if state.acked != self.acked {
            (self.acked, self.took) = (state.acked, now);
        }
        if state.segments_in != self.segments_in {
            (self.segments_in, self.segments_out, self.heard) = (state.segments_in, state.segments_out, now);
        }
        let in_vain = state.segments_out.wrapping_sub(self.segments_out);
        if now.duration_since(self.heard) >= GONE && in_vain >= IN_VAIN {
            Some(Order::Vanished)
        } else if now.duration_since(self.took) >= dead_peer {
            Some(Order::Unread)
        } else {
            None
        }
    }
}

/// Looks after clients for as long as it is polled.
pub async fn watch(shared: Arc<Shared>) {
    if !*ANSWERS {
        tracing::info!(
            "the kernel may not be asked about connections: clients that vanish are found after timeouts.dead_peer only"
        );
        return std::future::pending().await;
    }
    let mut seen = HashMap::new();
    loop {
        let dead_peer = shared.settings.get().timeouts.dead_peer;
        sleep((dead_peer / 8).clamp(QUICKEST, LOOK)).await;
        if let Err(error) = look(&shared, &mut seen, dead_peer).await {
            tracing::debug!(%error, "cannot ask the kernel about connections");
        }
    }
}

async fn look(shared: &Shared, seen: &mut HashMap<u64, Seen>, dead_peer: Duration) -> io::Result<()> {
    let owing = shared.connections.take_sent_to();
    if owing.is_empty() {
        seen.clear();
        return Ok(());
    }
    let mut diag = SockDiag::open()?;
    let mut still = HashMap::new();
    for (number, (key, handle)) in owing.into_iter().enumerate() {
        if number % IN_ONE_TURN == IN_ONE_TURN - 1 {
            tokio::task::yield_now().await;
        }
        let Some((local, peer)) = handle.ends() else { continue };
        // One that cannot be asked about is asked about again.
        let state = diag.ask(local, peer);
        if state.as_ref().is_ok_and(|state| state.is_none_or(|state| state.queued == 0)) {
            continue;
        }
        handle.sent_to_client();
        let Ok(Some(state)) = state else { continue };
        let now = Instant::now();
        let mut known = seen.remove(&key).unwrap_or_else(|| Seen::new(state, now));
        if let Some(order) = known.look(state, now, dead_peer) {
            handle.give(order);
        }
        still.insert(key, known);
    }
    *seen = still;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEAD_PEER: Duration = Duration::from_secs(300);

    /// What becomes of a client of which this is seen, each with its second: what it has acknowledged, and the segments that have
    /// come and gone.
    fn check(seen: impl IntoIterator<Item = (u64, u64, u32, u32)>, expected: Option<(u64, Order)>) {
        let began = Instant::now();
        let mut known: Option<Seen> = None;
        for (second, acked, segments_in, segments_out) in seen {
            let state = TcpState { queued: 1, acked, segments_in, segments_out };
            let now = began + Duration::from_secs(second);
            let order = known.get_or_insert(Seen::new(state, now)).look(state, now, DEAD_PEER);
            if order.is_some() {
                return assert_eq!(order.map(|order| (second, order)), expected);
            }
        }
        assert_eq!(expected, None);
    }

    #[test]
    fn a_client_that_answers_nothing_is_gone_within_a_minute() {
        // Sent again after 0.2, 0.6, 1.4 … seconds: RFC 6298.
        let again = |second: u64| (1..).take_while(|n| 200 * ((1 << n) - 1) <= second * 1000).count() as u32;
        check((3..=60).step_by(5).map(|second| (second, 10, 7, 20 + again(second))), Some((33, Order::Vanished)));
    }

    #[test]
    fn a_client_that_says_that_its_window_is_closed_has_the_time_that_dead_peer_gives() {
        // A probe each time that the interval has doubled, two minutes at most, and its answer.
        let probes = |second: u64| second.ilog2() + u32::try_from(second / 120).unwrap();
        let closed = (5..=400).step_by(5).map(|second| (second, 10, 7 + probes(second), 20 + probes(second)));
        check(closed, Some((305, Order::Unread)));
        // Two probes or their answers were lost.
        let lost =
            (5..=400).step_by(5).map(|second| (second, 10, 7 + probes(second).saturating_sub(2), 20 + probes(second)));
        check(lost, Some((305, Order::Unread)));
    }

    #[test]
    fn a_client_that_reads_ever_so_little_stays() {
        check((5..=2000).step_by(5).map(|second| (second, second / 250, 7 + second as u32, 20 + second as u32)), None);
    }
}
