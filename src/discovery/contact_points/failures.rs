//! Contact points that did not answer: each failure is logged once, and until one of them has told who belongs to the
//! cluster, `/readyz` names the last failure of each.
//!
//! Never takes readiness back: after the first answer nothing is pending here again.

use std::collections::BTreeMap;

use tracing::warn;

use crate::readiness::{Pending, Readiness};

/// Failures that are remembered so that each is said once, and contact points that are named.
const MAX_FAILURES: usize = 64;

pub struct Failures {
    said: Vec<String>,
    /// `None` after the first answer.
    readiness: Option<Readiness>,
    pending: BTreeMap<String, Pending>,
}

impl Failures {
    pub fn new(readiness: Readiness) -> Self {
        Self { said: Vec::new(), readiness: Some(readiness), pending: BTreeMap::new() }
    }

    /// `whom` (an address, or a name that could not be resolved) failed; `error` may begin with its name.
    pub fn note(&mut self, whom: &str, error: &str) {
        let error = error.strip_prefix(whom).and_then(|rest| rest.strip_prefix(": ")).unwrap_or(error);
        if let Some(readiness) = &self.readiness
            && (self.pending.len() < MAX_FAILURES || self.pending.contains_key(whom))
        {
            let said = format!("discovery: {whom}: {error}");
            self.pending.insert(whom.to_owned(), readiness.pending_because(&said));
        }
        let text = format!("{whom}: {error}");
        if self.said.contains(&text) || self.said.len() >= MAX_FAILURES {
            return;
        }
        warn!(node = whom, error, "no control connection; trying again");
        self.said.push(text);
    }

    /// `whom` does not fail any more, though it has not answered yet.
    pub fn forget(&mut self, whom: &str) {
        self.pending.remove(whom);
    }

    /// A control connection stands: whatever fails after it is said again.
    pub fn end(&mut self) {
        self.said.clear();
        self.pending.clear();
        self.readiness = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::readiness::MAX_LINE;

    fn check(readiness: &Readiness, expected: &[&str]) {
        let names = readiness.pending_names();
        assert_eq!(names.iter().map(|name| &**name).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn the_last_failure_of_each_is_pending_until_one_answers() {
        let readiness = Readiness::new();
        let mut failures = Failures::new(readiness.clone());
        failures.note("10.1.2.3:9042", "10.1.2.3:9042: connection refused");
        failures.note("c.db", "c.db: Non-Existent Domain");
        check(&readiness, &["discovery: 10.1.2.3:9042: connection refused", "discovery: c.db: Non-Existent Domain"]);
        failures.forget("c.db");
        failures.note("10.1.2.3:9042", "OPTIONS: no answer within 10s");
        check(&readiness, &["discovery: 10.1.2.3:9042: OPTIONS: no answer within 10s"]);
        failures.end();
        failures.note("10.1.2.3:9042", "OPTIONS: no answer within 10s");
        check(&readiness, &[]);
    }

    #[test]
    fn what_a_node_says_is_one_short_line_of_few() {
        let readiness = Readiness::new();
        let mut failures = Failures::new(readiness.clone());
        failures.note("a", &format!("refused: one\r\nready\n{}", "x".repeat(10_000)));
        let line = readiness.pending_names().remove(0);
        assert!(line.starts_with("discovery: a: refused: one  ready x") && line.len() == MAX_LINE, "{line}");
        (0..1000).for_each(|n| failures.note(&n.to_string(), "no"));
        assert_eq!(readiness.pending_names().len(), MAX_FAILURES);
    }
}
