//! Prepared statements seen to be ordinary: their answers named tables of which no column is rewritten.
//!
//! An answer without metadata names no table. An EXECUTE that asks for one passes untouched only when its id is here;
//! otherwise its Skip_metadata flag is cleared, the answer describes itself, and teaches this set. Ids are hashes of the
//! statement's text (Cassandra: `QueryProcessor.computeId`), the same on every node, so one set serves the process.
//!
//! It is asked for nearly every request, by all threads at once: a question is three loads and takes no lock.
//! It must never say yes to the id of a statement that reads a system table.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// A prepared statement's id; Cassandra's are MD5 hashes. Longer or shorter ids are never known.
pub type StatementId = [u8; 16];

/// How many ids are kept: 16 Ki × 16 bytes. A cluster whose clients use more pays metadata in answers, nothing else.
const CAPACITY: usize = 16 * 1024;
/// Ids that share a place: four, one cache line. A fifth takes the place of one of them, which is taught again.
const WAYS: usize = 4;

/// One id, or nothing while `first` is zero. It is zero while `second` changes: who reads `first` twice alike has read one id.
#[derive(Debug, Default)]
struct Slot {
    first: AtomicU64,
    second: AtomicU64,
}

/// The bounded, process-wide set.
#[derive(Debug)]
pub struct OrdinaryStatements {
    slots: Box<[[Slot; WAYS]]>,
    len: AtomicUsize,
    /// Which way gives its place next; held by the one who writes.
    victim: Mutex<usize>,
    /// Of this process alone, so that nobody can choose texts whose ids share a place.
    seed: u64,
}

impl Default for OrdinaryStatements {
    fn default() -> Self {
        Self {
            slots: (0..CAPACITY / WAYS).map(|_| <[Slot; WAYS]>::default()).collect(),
            len: AtomicUsize::new(0),
            victim: Mutex::new(0),
            seed: RandomState::new().hash_one(0),
        }
    }
}

impl OrdinaryStatements {
    #[inline]
    pub fn contains(&self, id: &[u8]) -> bool {
        let Ok(id) = StatementId::try_from(id) else { return false };
        let (first, second) = halves(id);
        first != 0 && self.ways(first, second).iter().any(|slot| slot.holds(first, second))
    }

    /// Adds an id.
    pub fn learn(&self, id: &[u8]) {
        let Ok(id) = StatementId::try_from(id) else { return };
        let (first, second) = halves(id);
        let mut victim = self.victim.lock().unwrap_or_else(PoisonError::into_inner);
        let ways = self.ways(first, second);
        // An id with eight zeros in front does not occur; it would read as an empty place.
        if first == 0 || ways.iter().any(|slot| slot.holds(first, second)) {
            return;
        }
        let empty = ways.iter().find(|slot| slot.first.load(Ordering::Acquire) == 0);
        if empty.is_some() {
            self.len.fetch_add(1, Ordering::Relaxed);
        }
        *victim = (*victim + 1) % WAYS;
        if let Some(slot) = empty.or(ways.get(*victim)) {
            slot.put(first, second);
        }
    }

    pub fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    #[inline]
    fn ways(&self, first: u64, second: u64) -> &[Slot] {
        let product = u128::from(first ^ self.seed) * u128::from(second | 1);
        let mixed = (product >> 64) as u64 ^ product as u64;
        self.slots.get(mixed as usize % (CAPACITY / WAYS)).map_or(&[], |ways| ways)
    }
}

impl Slot {
    #[inline]
    fn holds(&self, first: u64, second: u64) -> bool {
        self.first.load(Ordering::Acquire) == first
            && self.second.load(Ordering::Acquire) == second
            && self.first.load(Ordering::Acquire) == first
    }

    /// For one writer at a time. Each store releases the one before it.
    fn put(&self, first: u64, second: u64) {
        self.first.store(0, Ordering::Release);
        self.second.store(second, Ordering::Release);
        self.first.store(first, Ordering::Release);
    }
}

#[inline]
fn halves(id: StatementId) -> (u64, u64) {
    let id = u128::from_ne_bytes(id);
    ((id >> 64) as u64, id as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As even as a hash.
    fn id(n: u64) -> StatementId {
        let half = |n: u64| {
            let n = (n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let n = (n ^ n >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            u128::from(n ^ n >> 27)
        };
        (half(2 * n) << 64 | half(2 * n + 1)).to_ne_bytes()
    }

    #[test]
    fn knows_what_it_learned_and_nothing_else() {
        let statements = OrdinaryStatements::default();
        statements.learn(&[7; 16]);
        statements.learn(&[7; 16]);
        statements.learn(b"short");
        assert!(statements.contains(&[7; 16]));
        assert!(!statements.contains(&[8; 16]));
        assert!(!statements.contains(b"short"));
        assert_eq!(statements.len(), 1);
    }

    #[test]
    fn an_id_of_zeros_is_not_an_empty_place() {
        let statements = OrdinaryStatements::default();
        assert!(!statements.contains(&[0; 16]));
        statements.learn(&[0; 16]);
        assert!(!statements.contains(&[0; 16]));
    }

    #[test]
    fn never_grows_beyond_its_capacity_and_knows_the_latest() {
        let statements = OrdinaryStatements::default();
        for n in 0..(CAPACITY as u64 * 4) {
            statements.learn(&id(n));
            assert!(statements.contains(&id(n)));
            assert!(statements.len() <= CAPACITY);
        }
        let known = (0..CAPACITY as u64 * 4).filter(|&n| statements.contains(&id(n))).count();
        assert_eq!(known, statements.len());
        assert!(known > CAPACITY * 9 / 10, "{known}");
    }

    #[test]
    fn a_reader_beside_a_writer_never_sees_half_an_id() {
        let (slot, last) = (Slot::default(), AtomicU64::new(1));
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                for n in 1..300_000 {
                    slot.put(n, n);
                    last.store(n, Ordering::Release);
                }
            });
            while !writer.is_finished() {
                let n = last.load(Ordering::Acquire);
                assert!(!slot.holds(n, n + 1), "{n}");
            }
        });
    }
}
