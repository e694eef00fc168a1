//! What follows from wrong passwords: only the next logins of the same source and user wait, a little longer each time.
//!
//! Nothing here keeps anybody else waiting: behind a load balancer that hides addresses all clients are one source, and one of
//! them with a wrong password must not lock the others out. Keeping a whole source out is a key that is off by default.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::stages::Source;
use crate::config;

/// Sources with their users that are remembered; the one that failed longest ago is forgotten for another.
const MAX_REMEMBERED: usize = 16 * 1024;
/// The first wrong password costs nothing: people mistype.
const FREE: u32 = 1;
/// What the second costs; each further one twice as much, up to `logins.delay`.
const FIRST_DELAY: Duration = Duration::from_millis(250);
/// After so long without another wrong password all is forgotten.
const FORGET: Duration = Duration::from_secs(600);

/// The wrong passwords of late.
#[derive(Debug, Default)]
pub struct Logins {
    /// Of this process alone, so that nobody can choose names that are taken for each other's.
    seed: RandomState,
    tries: Mutex<Tries>,
}

#[derive(Debug, Default)]
struct Tries {
    /// By a hash of source and user, or of the source alone.
    failed: HashMap<u64, Failed>,
    /// In the order of their last failures, with how many there had been.
    order: VecDeque<(u64, u32)>,
}

#[derive(Clone, Copy, Debug)]
struct Failed {
    count: u32,
    last: Instant,
}

impl Logins {
    /// How long the next login of this source as this user waits.
    pub fn delay(&self, rules: &config::Logins, source: Source, user: Option<&str>, now: Instant) -> Duration {
        let tries = self.tries();
        let Some(failed) = tries.failed.get(&self.key(source, Some(user))).filter(|failed| failed.is_fresh(now)) else {
            return Duration::ZERO;
        };
        let Some(doublings) = failed.count.checked_sub(FREE + 1) else { return Duration::ZERO };
        let delay = FIRST_DELAY.saturating_mul(1 << doublings.min(16)).min(rules.delay);
        delay.saturating_sub(now.duration_since(failed.last))
    }

    /// Whether this source is kept out (`logins.keep_out`).
    pub fn keeps_out(&self, rules: &config::Logins, source: Source, now: Instant) -> bool {
        let Some(keep_out) = &rules.keep_out else { return false };
        let failed = self.tries().failed.get(&self.key(source, None)).copied();
        failed.is_some_and(|failed| failed.count >= keep_out.after && now.duration_since(failed.last) < keep_out.lasts)
    }

    /// The node refused the password.
    pub fn failed(&self, rules: &config::Logins, source: Source, user: Option<&str>, now: Instant) {
        let mut tries = self.tries();
        tries.fail(self.key(source, Some(user)), now);
        if let Some(keep_out) = &rules.keep_out {
            let key = self.key(source, None);
            // Those that are older than it lasts count no more.
            if tries.failed.get(&key).is_some_and(|failed| now.duration_since(failed.last) >= keep_out.lasts) {
                tries.failed.remove(&key);
            }
            tries.fail(key, now);
        }
    }

    /// The node let the client in.
    pub fn succeeded(&self, source: Source, user: Option<&str>) {
        self.tries().failed.remove(&self.key(source, Some(user)));
    }

    fn key(&self, source: Source, user: Option<Option<&str>>) -> u64 {
        self.seed.hash_one((source, user))
    }

    fn tries(&self) -> std::sync::MutexGuard<'_, Tries> {
        self.tries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tries {
    fn fail(&mut self, key: u64, now: Instant) {
        let failed = self.failed.entry(key).or_insert(Failed { count: 0, last: now });
        if !failed.is_fresh(now) {
            failed.count = 0;
        }
        failed.count = failed.count.saturating_add(1);
        failed.last = now;
        self.order.push_back((key, failed.count));
        while self.failed.len() > MAX_REMEMBERED || self.order.len() > 2 * MAX_REMEMBERED {
            let Some((key, count)) = self.order.pop_front() else { return };
            // Unless it failed again since: then it is in the order again.
            if self.failed.get(&key).is_some_and(|failed| failed.count == count) {
                self.failed.remove(&key);
            }
        }
    }
}

impl Failed {
    fn is_fresh(self, now: Instant) -> bool {
        now.duration_since(self.last) < FORGET
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::KeepOut;

    const HERE: Source = Source::V4(1);

    fn rules(keep_out: Option<KeepOut>) -> config::Logins {
        config::Logins { delay: Duration::from_secs(5), keep_out }
    }

    #[test]
    fn only_the_same_user_of_the_same_source_waits_and_never_longer_than_the_key_says() {
        let (logins, rules, now) = (Logins::default(), rules(None), Instant::now());
        let waits = || logins.delay(&rules, HERE, Some("ann"), now);
        let waited: Vec<_> = (0..100)
            .map(|_| {
                logins.failed(&rules, HERE, Some("ann"), now);
                waits()
            })
            .collect();
        assert_eq!(waited[..4], [0, 250, 500, 1000].map(Duration::from_millis));
        assert_eq!(waits(), Duration::from_secs(5));
        assert_eq!(logins.delay(&rules, HERE, Some("bob"), now), Duration::ZERO);
        assert_eq!(logins.delay(&rules, HERE, None, now), Duration::ZERO);
        assert_eq!(logins.delay(&rules, Source::V4(2), Some("ann"), now), Duration::ZERO);
        assert_eq!(logins.delay(&rules, HERE, Some("ann"), now + Duration::from_secs(4)), Duration::from_secs(1));
        assert_eq!(logins.delay(&rules, HERE, Some("ann"), now + Duration::from_secs(6)), Duration::ZERO);
        logins.succeeded(HERE, Some("ann"));
        assert_eq!(waits(), Duration::ZERO);
    }

    #[test]
    fn a_source_is_kept_out_only_where_that_is_asked_for() {
        let (logins, open, now) = (Logins::default(), rules(None), Instant::now());
        let strict = rules(Some(KeepOut { after: 3, lasts: Duration::from_secs(60) }));
        for n in 0..3 {
            assert!(!logins.keeps_out(&strict, HERE, now), "{n}");
            logins.failed(&strict, HERE, Some(&format!("user {n}")), now);
        }
        assert!(logins.keeps_out(&strict, HERE, now + Duration::from_secs(59)) && !logins.keeps_out(&open, HERE, now));
        assert!(!logins.keeps_out(&strict, Source::V4(2), now));
        let later = now + Duration::from_secs(60);
        assert!(!logins.keeps_out(&strict, HERE, later));
        logins.failed(&strict, HERE, Some("ann"), later);
        assert!(!logins.keeps_out(&strict, HERE, later), "one since then");
    }

    #[test]
    fn what_is_remembered_is_bounded_and_the_latest_is_in_it() {
        let (logins, rules, now) = (Logins::default(), rules(None), Instant::now());
        for n in 0..(3 * MAX_REMEMBERED as u32) {
            logins.failed(&rules, Source::V4(n), Some("ann"), now);
            logins.failed(&rules, HERE, Some("bob"), now);
        }
        assert_eq!(logins.delay(&rules, HERE, Some("bob"), now), Duration::from_secs(5));
        let tries = logins.tries();
        assert!(tries.failed.len() <= MAX_REMEMBERED && tries.order.len() <= 2 * MAX_REMEMBERED);
    }
}
