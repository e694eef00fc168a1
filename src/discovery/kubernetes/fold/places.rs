//! Which of a pod's addresses is its node's: the one that answers. Cassandra listens on one family, and a pod may have both.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

/// Where the node of one pod is, and where else it could be.
#[derive(Clone, Debug, Default)]
pub struct Place {
    others: Vec<SocketAddr>,
    /// Since when it has not answered where it is.
    silent: Option<SystemTime>,
    /// It has answered where it is: silence alone is no reason to look at the first address again.
    proven: bool,
    /// One of the others that has answered since the last choice.
    answered: Option<SocketAddr>,
}

impl Place {
    /// Of `all` (at least one) the address that the node is dialled at from now on; `before` is the present one. One that
    /// answers is kept, one that answered when it was asked aside comes next, and the first of `all` is for want of better
    /// knowledge.
    pub fn choose(
        &mut self,
        all: &[SocketAddr],
        before: Option<SocketAddr>,
        answers: bool,
        now: SystemTime,
    ) -> Option<SocketAddr> {
        let before = before.filter(|at| all.contains(at));
        let answers = answers && before.is_some();
        let found = self.answered.take().filter(|at| all.contains(at));
        self.proven = before.is_some() && (self.proven || answers);
        let chosen = match (before, found) {
            (Some(before), _) if answers => before,
            (_, Some(found)) => found,
            (Some(before), None) if self.proven => before,
            _ => *all.first()?,
        };
        if answers {
            self.silent = None;
        } else if before == Some(chosen) {
            self.silent.get_or_insert(now);
        } else {
            self.silent = Some(now);
            self.proven = found.is_some();
        }
        self.others = all.iter().filter(|at| **at != chosen).copied().collect();
        Some(chosen)
    }

    /// It answers at this address, asked aside.
    pub fn note(&mut self, address: SocketAddr) {
        if self.others.contains(&address) {
            self.answered = Some(address);
        }
    }

    /// When it will have been silent for so long; `None` while it answers.
    pub fn silent_for(&self, long: Duration) -> Option<SystemTime> {
        self.silent?.checked_add(long)
    }

    /// When the other addresses are to be asked, after so long a silence; `None` where there are none, or it answers.
    pub fn asked_at(&self, patience: Duration) -> Option<SystemTime> {
        self.silent.filter(|_| !self.others.is_empty())?.checked_add(patience)
    }

    pub fn others(&self) -> &[SocketAddr] {
        &self.others
    }
}
