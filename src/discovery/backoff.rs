//! How long to wait before a node is dialled again: at once, then soon, then at most every second, never in step with
//! other gateways.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// Between the second and the third dial; doubles from there.
const FIRST: Duration = Duration::from_millis(50);
/// A node that starts again is found within this time of its port's opening.
const LONGEST: Duration = Duration::from_secs(1);

/// Waits before consecutive dials.
#[derive(Debug, Default)]
pub struct Backoff {
    dials: u32,
}

impl Backoff {
    /// The wait before the next dial: none before the first.
    pub fn next_wait(&mut self) -> Duration {
        let dials = self.dials;
        self.dials = dials.saturating_add(1);
        match dials.checked_sub(1) {
            None => Duration::ZERO,
            Some(doublings) => jittered(FIRST.saturating_mul(2u32.saturating_pow(doublings)).min(LONGEST)),
        }
    }

    /// Dials since the last success.
    pub fn dials(&self) -> u32 {
        self.dials
    }

    /// What was dialled has held: the next dial is at once again.
    pub fn reset(&mut self) {
        self.dials = 0;
    }
}

/// Three quarters to all of `wait`.
pub fn jittered(wait: Duration) -> Duration {
    shortened(wait, wait / 4)
}

/// `wait`, shortened by a random part of `most`.
pub fn shortened(wait: Duration, most: Duration) -> Duration {
    // A fresh RandomState is seeded anew; nothing here needs a better source.
    let part = (RandomState::new().hash_one(0u8) % 256) as u32;
    wait - most * part / 256
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_from_nothing_to_a_second() {
        let mut backoff = Backoff::default();
        assert_eq!(backoff.next_wait(), Duration::ZERO);
        let waits: Vec<_> = (0..40).map(|_| backoff.next_wait()).collect();
        assert!(waits.iter().all(|wait| *wait <= LONGEST && *wait >= FIRST * 3 / 4), "{waits:?}");
        assert!(waits.last().unwrap() >= &(LONGEST * 3 / 4));
        assert!(waits.iter().take(5).sum::<Duration>() < Duration::from_secs(2));
        backoff.reset();
        assert_eq!(backoff.next_wait(), Duration::ZERO);
    }
}
