//! The process-wide budget for bytes that are held because a frame must change, or has changed and waits for its reader.

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
        if more == 0 {
            return true;
        }
        let grown = self.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| {
            held.checked_add(more).filter(|&held| held <= self.limit)
        });
        if grown.is_err() {
            return false;
        }
        self.add(permit, more);
        true
    }

    /// Makes `permit` one of just so many bytes, which are there already: more than the limit if need be. Nobody else gets room
    /// then. Few enough are free.
    pub fn count(self: &Arc<Self>, permit: &mut Option<Permit>, bytes: usize) {
        if bytes <= FREE {
            *permit = None;
            return;
        }
        let has = permit.as_ref().map_or(0, |permit| permit.bytes);
        if let Some(more) = bytes.checked_sub(has) {
            self.held.fetch_add(more, Ordering::Relaxed);
            self.add(permit, more);
        } else if let Some(permit) = permit {
            self.held.fetch_sub(permit.bytes - bytes, Ordering::Relaxed);
            permit.bytes = bytes;
        }
    }

    fn add(self: &Arc<Self>, permit: &mut Option<Permit>, more: usize) {
        permit.get_or_insert_with(|| Permit { budget: Arc::clone(self), bytes: 0 }).bytes += more;
    }
}

/// A share of the budget, given back when dropped.
#[derive(Debug)]
pub struct Permit {
    budget: Arc<HoldBudget>,
    bytes: usize,
}

impl Permit {
    pub fn bytes(&self) -> usize {
        self.bytes
    }
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
    fn what_is_there_already_is_counted_beyond_the_limit_and_leaves_no_room() {
        let budget = HoldBudget::new(3 * FREE);
        let (mut one, mut other) = (None, None);
        budget.count(&mut one, FREE);
        assert_eq!(budget.held(), 0, "free");
        budget.count(&mut one, 5 * FREE);
        assert_eq!(budget.held(), 5 * FREE);
        assert!(!budget.grow(&mut other, 1));
        assert!(budget.grow(&mut one, 4 * FREE), "it has that much");
        budget.count(&mut one, 2 * FREE);
        assert!(budget.grow(&mut other, FREE));
        assert_eq!(budget.held(), 3 * FREE);
        budget.count(&mut one, 0);
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
