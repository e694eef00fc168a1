//! A store in memory that can be slow, fail before or after it has written, and be broken on purpose. Keeps the books: what
//! it has ever held, and whether a port went to somebody else too early.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::poll_fn;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::{Duration, SystemTime};

use super::*;

/// What is broken, to see that it is noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    Nothing,
    /// Writes are stored whatever was read before.
    Version,
    /// Ports are given away as soon as their node is gone.
    Quarantine,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Conflict,
    BeforeWrite,
    AfterWrite,
}

pub struct Books {
    pub stored: Option<Ledger>,
    pub version: u64,
    pub broken: Broken,
    /// Set by the test before each step of time.
    pub now: SystemTime,
    pub at_least: Duration,
    /// What the next requests meet, in their order; then they succeed.
    pub faults: VecDeque<Option<Fault>>,
    pub held: BTreeSet<(NodeId, u16)>,
    /// The last identity of each port and until when it was not in quarantine.
    owners: BTreeMap<u16, (NodeId, SystemTime)>,
    pub violations: Vec<String>,
}

impl Books {
    pub fn ledger(&self) -> Ledger {
        self.stored.clone().unwrap_or_default()
    }

    fn is_early(&self, until: SystemTime) -> bool {
        self.now.duration_since(until).unwrap_or_default() < self.at_least
    }

    fn write(&mut self, ledger: &Ledger) {
        let before = self.ledger();
        for (id, claim) in before.entries() {
            if claim.left.is_none() {
                self.owners.insert(claim.port, (id.clone(), self.now));
            }
        }
        for id in before.entries().keys().filter(|id| !ledger.entries().contains_key(id)) {
            let early = |(owner, until): &(NodeId, SystemTime)| owner == id && self.is_early(*until);
            if self.owners.values().any(early) {
                self.violations.push(format!("the claim of {id} is lost too early"));
            }
        }
        let mut ports = BTreeSet::new();
        for (id, claim) in ledger.entries() {
            if !ports.insert(claim.port) {
                self.violations.push(format!("port {} is stored twice", claim.port));
            }
            for (port, (owner, until)) in &self.owners {
                if self.is_early(*until) && (*port == claim.port) != (owner == id) {
                    self.violations.push(format!("{id} has {} too early: {owner} had {port}", claim.port));
                }
            }
            self.held.insert((id.clone(), claim.port));
        }
        let data = ledger.encode("db/ports").unwrap();
        self.stored = Some(Ledger::parse("db/ports", &data).unwrap());
        self.version += 1;
    }
}

/// One writer's way to the store.
#[derive(Clone)]
pub struct Memory {
    pub books: Arc<Mutex<Books>>,
    /// Set while this writer does not reach it.
    pub cut: Arc<Mutex<bool>>,
}

impl Memory {
    pub fn new(broken: Broken, at_least: Duration) -> Self {
        let books = Books {
            stored: None,
            version: 0,
            broken,
            now: SystemTime::UNIX_EPOCH,
            at_least,
            faults: VecDeque::new(),
            held: BTreeSet::new(),
            owners: BTreeMap::new(),
            violations: Vec::new(),
        };
        Self { books: Arc::new(Mutex::new(books)), cut: Arc::default() }
    }

    /// The same store, for another writer.
    pub fn another(&self) -> Self {
        Self { books: Arc::clone(&self.books), cut: Arc::default() }
    }

    fn check_reached(&self) -> Result<(), StoreError> {
        if *self.cut.lock().unwrap() { Err(away()) } else { Ok(()) }
    }

    async fn write(&self, ledger: &Ledger, version: Option<u64>) -> Result<(), StoreError> {
        pause().await;
        self.check_reached()?;
        let fault = {
            let mut books = self.books.lock().unwrap();
            let fault = books.faults.pop_front().flatten();
            let present = books.stored.as_ref().map(|_| books.version);
            if fault == Some(Fault::BeforeWrite) {
                return Err(away());
            }
            if fault == Some(Fault::Conflict) || (present != version && books.broken != Broken::Version) {
                return Err(StoreError::Conflict);
            }
            books.write(ledger);
            fault
        };
        pause().await;
        if fault == Some(Fault::AfterWrite) { Err(away()) } else { Ok(()) }
    }
}

pub fn away() -> StoreError {
    StoreError::Unavailable("away".into())
}

/// Lets others go first.
async fn pause() {
    let mut paused = false;
    poll_fn(|context| {
        context.waker().wake_by_ref();
        if std::mem::replace(&mut paused, true) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await
}

impl Store for Memory {
    type Version = u64;

    async fn read(&self) -> Result<Option<(Ledger, u64)>, StoreError> {
        pause().await;
        self.check_reached()?;
        let read = {
            let mut books = self.books.lock().unwrap();
            if books.faults.pop_front().flatten() == Some(Fault::BeforeWrite) {
                return Err(away());
            }
            books.stored.clone().map(|ledger| (ledger, books.version))
        };
        pause().await;
        Ok(read)
    }

    async fn create(&self, ledger: &Ledger) -> Result<(), StoreError> {
        self.write(ledger, None).await
    }

    async fn replace(&self, ledger: &Ledger, version: &u64) -> Result<(), StoreError> {
        self.write(ledger, Some(*version)).await
    }
}
