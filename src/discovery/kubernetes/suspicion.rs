//! When what the API said last is doubted although it is heard: a watch may be silent for ever (etcd was restored from a backup,
//! and the watch waits for a version that is years away), and a list tells.
//!
//! The reasons are nodes that are not up where the API says they live, and names that lead elsewhere. Both are ordinary for a
//! while, when pods are replaced; so the lists are asked for some time after a new reason, then ever more rarely, and never more
//! often than that first wait, however many nodes are dead and however often they come and go.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use crate::topology::NodeId;

use super::super::backoff::jittered;
use super::timing::Timing;

/// What speaks against one node's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suspect {
    pub address: IpAddr,
    /// Its name leads elsewhere.
    pub elsewhere: bool,
}

#[derive(Debug)]
pub struct Suspicion {
    timing: Timing,
    suspects: HashMap<NodeId, Suspect>,
    /// From the next asking to the one after it, before it is jittered.
    wait: Duration,
    asked: Option<SystemTime>,
    /// `None` while there is no reason.
    next: Option<SystemTime>,
}

impl Suspicion {
    pub fn new(timing: Timing) -> Self {
        Self { timing, suspects: HashMap::new(), wait: timing.suspicion, asked: None, next: None }
    }

    /// Takes over who is suspected now. True when the lists are to be read again.
    pub fn look(&mut self, now: SystemTime, suspects: HashMap<NodeId, Suspect>) -> bool {
        let first = self.timing.suspicion;
        let news = suspects.iter().any(|(id, suspect)| self.suspects.get(id) != Some(suspect));
        self.suspects = suspects;
        if self.suspects.is_empty() {
            self.next = None;
            return false;
        }
        if news {
            self.wait = first;
            let soon = now + first;
            self.next = Some(self.next.map_or(soon, |next| next.min(soon)));
        }
        if self.next.is_none_or(|next| next > now) {
            return false;
        }
        // Time that went back makes nobody wait for it to come again.
        if let Some(at) = self.asked.filter(|at| *at <= now).map(|at| at + first).filter(|at| *at > now) {
            self.next = Some(at);
            return false;
        }
        self.wait = self.wait.saturating_mul(2).min(self.timing.longest_suspicion);
        self.asked = Some(now);
        self.next = Some(now + jittered(self.wait).max(first));
        true
    }

    /// When `look` would say yes, if nothing else happens.
    pub fn deadline(&self) -> Option<SystemTime> {
        self.next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_secs(5);
    const LONGEST: Duration = Duration::from_secs(300);

    fn suspicion() -> Suspicion {
        Suspicion::new(Timing { suspicion: FIRST, longest_suspicion: LONGEST, ..Timing::default() })
    }

    fn of(nodes: &[(&str, u8)]) -> HashMap<NodeId, Suspect> {
        let suspect = |last: u8| Suspect { address: [10, 0, 0, last].into(), elsewhere: false };
        nodes.iter().map(|(id, last)| (NodeId::new(id), suspect(*last))).collect()
    }

    /// The seconds at which it asks, looked at every half second; `who(second)` is suspected.
    fn asks(seconds: u64, who: impl Fn(u64) -> HashMap<NodeId, Suspect>) -> Vec<u64> {
        let mut suspicion = suspicion();
        let at = |half: u64| SystemTime::UNIX_EPOCH + Duration::from_millis(500 * half);
        (0..2 * seconds).filter(|half| suspicion.look(at(*half), who(half / 2))).map(|half| half / 2).collect()
    }

    #[test]
    fn nobody_dead_is_no_reason() {
        assert_eq!(asks(10_000, |_| of(&[])), [0u64; 0]);
        // Back before the first wait is over.
        assert_eq!(asks(100, |second| of(if second % 10 < 4 { &[("a", 1)] } else { &[] })), [0u64; 0]);
    }

    #[test]
    fn one_that_is_dead_for_a_day_is_asked_about_ever_more_rarely() {
        let asked = asks(86_400, |_| of(&[("a", 1)]));
        assert_eq!(asked[0], 5);
        let gaps: Vec<u64> = asked.windows(2).map(|two| two[1] - two[0]).collect();
        assert!((7..=10).contains(&gaps[0]), "{gaps:?}");
        assert!(gaps[7..].iter().all(|gap| (224..=300).contains(gap)), "{gaps:?}");
        // In step with nobody.
        assert!(gaps[7..].iter().any(|gap| *gap != gaps[7]), "{gaps:?}");
    }

    #[test]
    fn a_new_reason_is_asked_about_soon() {
        let asked = asks(2_000, |second| if second < 1_000 { of(&[("a", 1)]) } else { of(&[("a", 1), ("b", 2)]) });
        assert!(asked.contains(&1_005), "{asked:?}");
        let moved = asks(2_000, |second| of(&[("a", if second < 1_000 { 1 } else { 9 })]));
        assert!(moved.contains(&1_005), "{moved:?}");
    }

    #[test]
    fn it_never_asks_more_often_than_its_first_wait() {
        // Another one dies each second; and one comes and goes.
        let storm = asks(600, |second| of(&[("a", (second % 250) as u8)]));
        let flapping = asks(600, |second| of(if second % 7 < 6 { &[("a", 1)] } else { &[] }));
        for asked in [storm, flapping] {
            assert!(asked.len() > 50 && asked.windows(2).all(|two| two[1] - two[0] >= 5), "{asked:?}");
        }
    }
}
