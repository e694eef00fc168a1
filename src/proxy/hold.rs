//! The process-wide budget for bytes that are held because a frame must change.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Holds up to this many bytes are free: a read's worth, which every relay has in its hands anyway.
pub const FREE: usize = 64 * 1024;

/// How many bytes may be held in all, and how many are.
#[derive(Debug)]
pub struct HoldBudget {
    limit: usize,
    held: AtomicUsize,
}

impl HoldBudget {
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, held: AtomicUsize::new(0) })
    }

    pub fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Grows `permit` to `bytes`; false when there is no room now.
    pub fn grow(self: &Arc<Self>, permit: &mut Option<Permit>, bytes: usize) -> bool {
        let has = permit.as_ref().map_or(0, |permit| permit.bytes);
        let more = bytes.saturating_sub(has);
        let grown = self.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| {
            held.checked_add(more).filter(|&held| held <= self.limit)
        });
        if grown.is_err() {
            return false;
        }
        permit.get_or_insert_with(|| Permit { budget: Arc::clone(self), bytes: 0 }).bytes += more;
        true
    }
}

/// A share of the budget, given back when dropped.
#[derive(Debug)]
pub struct Permit {
    budget: Arc<HoldBudget>,
    bytes: usize,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.budget.held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_gives_more_than_its_limit_and_takes_all_back() {
        let budget = HoldBudget::new(100);
        let (mut one, mut other) = (None, None);
        assert!(budget.grow(&mut one, 60));
        assert!(budget.grow(&mut one, 70), "growing counts the difference only");
        assert_eq!(budget.held(), 70);
        assert!(!budget.grow(&mut other, 31));
        assert!(budget.grow(&mut other, 30));
        drop(one);
        assert_eq!(budget.held(), 30);
        drop(other);
        assert_eq!(budget.held(), 0);
    }

    #[test]
    fn a_request_near_the_end_of_the_number_line_is_refused() {
        let budget = HoldBudget::new(100);
        let mut permit = None;
        assert!(budget.grow(&mut permit, 10));
        assert!(!budget.grow(&mut permit, usize::MAX));
    }
}
