//! Prepared statements seen to be ordinary: their answers named tables of which no column is rewritten.
//!
//! An answer without metadata names no table. An EXECUTE that asks for one passes untouched only when its id is here;
//! otherwise its Skip_metadata flag is cleared, the answer describes itself, and teaches this set. Ids are hashes of the
//! statement's text (Cassandra: `QueryProcessor.computeId`), the same on every node, so one set serves the process.
//!
//! It must never hold the id of a statement that reads a system table.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock};

/// A prepared statement's id; Cassandra's are MD5 hashes. Longer or shorter ids are never known.
pub type StatementId = [u8; 16];

/// How many ids are kept: 64 Ki × 16 bytes. A cluster whose clients prepare more pays metadata in answers, nothing else.
const CAPACITY: usize = 64 * 1024;
const SHARDS: usize = 16;

/// The bounded, process-wide set.
#[derive(Debug, Default)]
pub struct OrdinaryStatements {
    shards: [RwLock<HashSet<StatementId>>; SHARDS],
    len: AtomicUsize,
}

impl OrdinaryStatements {
    pub fn contains(&self, id: &[u8]) -> bool {
        let Ok(id) = StatementId::try_from(id) else { return false };
        self.shard(&id).read().unwrap_or_else(PoisonError::into_inner).contains(&id)
    }

    /// Adds an id. A shard that is full is emptied: its statements teach it again at their next EXECUTE.
    pub fn learn(&self, id: &[u8]) {
        let Ok(id) = StatementId::try_from(id) else { return };
        let mut shard = self.shard(&id).write().unwrap_or_else(PoisonError::into_inner);
        if shard.len() >= CAPACITY / SHARDS {
            self.len.fetch_sub(shard.len(), Ordering::Relaxed);
            shard.clear();
        }
        if shard.insert(id) {
            self.len.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn shard(&self, id: &StatementId) -> &RwLock<HashSet<StatementId>> {
        &self.shards[usize::from(id[0]) % SHARDS]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn never_grows_beyond_its_capacity() {
        let statements = OrdinaryStatements::default();
        for n in 0..(CAPACITY as u64 * 2) {
            let mut id = [0; 16];
            id[..8].copy_from_slice(&n.to_le_bytes());
            statements.learn(&id);
            assert!(statements.len() <= CAPACITY);
        }
    }
}
