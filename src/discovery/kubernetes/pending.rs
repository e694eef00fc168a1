//! Why something that readiness waits for is not known yet: the last failure, as a line of `/readyz` beside it.
//!
//! Never keeps the gateway from being ready by itself: it ends when what was waited for is there.

use std::fmt::Display;

use crate::readiness::{Pending, Readiness};

pub struct Why {
    what: &'static str,
    /// `None` once it is known.
    readiness: Option<Readiness>,
    pending: Option<Pending>,
}

impl Why {
    /// `what` is the name under which it is waited for.
    pub fn new(what: &'static str, readiness: Readiness) -> Self {
        Self { what, readiness: Some(readiness), pending: None }
    }

    pub fn note(&mut self, why: &dyn Display) {
        let Some(readiness) = &self.readiness else { return };
        self.pending = Some(readiness.pending_because(&format!("{}: {why}", self.what)));
    }

    /// It is known now, and is never waited for again.
    pub fn end(&mut self) {
        self.readiness = None;
        self.pending = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::readiness::MAX_LINE;

    #[test]
    fn the_last_reason_is_one_short_line_until_it_is_known() {
        let readiness = Readiness::new();
        let mut why = Why::new("discovery", readiness.clone());
        let names = || readiness.pending_names().iter().map(|name| name.to_string()).collect::<Vec<_>>();
        why.note(&"list pods: forbidden");
        why.note(&"no\r\nanswer");
        assert_eq!(names(), ["discovery: no  answer"]);
        why.note(&"x".repeat(10_000));
        assert_eq!(names()[0].len(), MAX_LINE);
        why.end();
        why.note(&"late");
        assert!(readiness.is_ready());
    }
}
