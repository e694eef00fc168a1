//! How much memory the process has left, where that is known, and what is done about it: from 85 % of the limit on nothing new
//! is held, from 92 % on no new connection is taken, from 97 % on the newest connections are closed.
//!
//! The limit is that of the process's control group (or of one above it), the use what the kernel would count when it looks
//! for a victim: `memory.current` less the inactive files, which it can drop. A number in the configuration takes the limit's
//! place.
//!
//! # Worst case
//!
//! What follows from the limits by default, in bytes that a stage can make the process keep:
//!
//! | stage or use | how many | each | in all |
//! |---|---|---|---|
//! | accepted, nothing said | 10,000 | 1 KiB | 10 MiB |
//! | TLS handshake | 1,000 | 40 KiB | 40 MiB |
//! | setting up: one frame of each side | 4,000 | 32 KiB | 125 MiB |
//! | logging in: one read each way | 4,000 | 34 KiB | 133 MiB |
//! | established and idle | 10,000 | 2 KiB (TLS: 10 KiB) | 20 MiB (98 MiB) |
//! | established, neither side reads: one read each way ([`hold::FREE`]) | 10,000 | 32 KiB | 313 MiB |
//! | requests in flight on all 32,768 streams, which a node that works answers | a connection | 40 KiB; 1 MiB where each is used twice | |
//! | TLS, the client does not read: records that are not sent | 10,000 | 16 KiB | (157 MiB) |
//! | held, or owed beyond a read, changes of the schema that wait among it: `limits.held_total` and a quarter | | | 320 MiB |
//! | a frame that is being rewritten: decompressed, changed, compressed again | a thread | 3 × 16 MiB | 48 MiB |
//! | scratch for a long read and a segment | a thread | 388 KiB | 1 MiB |
//! | code, topology, metrics, queues | | | 40 MiB |
//!
//! With two threads that is 790 MiB for all that is established at its worst beside a full hold budget, 1,025 MiB where clients
//! come over TLS, and 308 MiB for the stages before, were they full at the same time. A limit of 1,536 MiB has room for that.
//! The kernel's socket buffers count in a control group as well, up to some megabytes for a connection whose reader does not
//! read, and are not in this table: what keeps them within the limit is this file.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::connections::{Connections, Order};
#[allow(unused_imports)] // for the documentation
use super::hold;
use super::hold::HoldBudget;
use crate::config::MemoryLimit;
use crate::metrics::Metrics;

/// Between two looks.
const INTERVAL: Duration = Duration::from_millis(250);
/// Closing connections takes a moment to show; so long after some were closed no more are.
const EFFECT: Duration = Duration::from_secs(2);
/// One in so many connections is closed at once.
const CLOSED_PART: usize = 16;
/// A v1 limit that is none.
const NO_LIMIT: u64 = 1 << 60;

/// How much of the memory is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    Enough = 0,
    NothingNewIsHeld = 1,
    NobodyNew = 2,
    NewestLeave = 3,
}

impl Level {
    /// Nothing but this decides.
    pub fn of(used: u64, limit: u64) -> Self {
        let percent = u128::from(used) * 100 / u128::from(limit.max(1));
        match percent {
            0..85 => Self::Enough,
            85..92 => Self::NothingNewIsHeld,
            92..97 => Self::NobodyNew,
            _ => Self::NewestLeave,
        }
    }

    fn from_number(number: u8) -> Self {
        match number {
            0 => Self::Enough,
            1 => Self::NothingNewIsHeld,
            2 => Self::NobodyNew,
            _ => Self::NewestLeave,
        }
    }
}

/// One control group that has a limit, or the process by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Source {
    /// Version 2: the directory.
    Unified(PathBuf),
    /// Version 1: the directory under the memory controller.
    Memory(PathBuf),
    /// `/proc/self/status`.
    Process(PathBuf),
}

impl Source {
    fn limit(&self) -> Option<u64> {
        let text = match self {
            Self::Unified(group) => fs::read_to_string(group.join("memory.max")),
            Self::Memory(group) => fs::read_to_string(group.join("memory.limit_in_bytes")),
            Self::Process(_) => return None,
        };
        text.ok()?.trim().parse().ok().filter(|limit| *limit < NO_LIMIT)
    }

    fn used(&self) -> io::Result<u64> {
        let (group, current, inactive) = match self {
            Self::Unified(group) => (group, "memory.current", "inactive_file "),
            Self::Memory(group) => (group, "memory.usage_in_bytes", "total_inactive_file "),
            Self::Process(status) => {
                let text = fs::read_to_string(status)?;
                let kibibytes = after(&text, "VmRSS:").and_then(|rest| rest.trim().strip_suffix("kB"));
                let kibibytes = kibibytes.and_then(|number| number.trim().parse::<u64>().ok());
                return Ok(1024 * kibibytes.ok_or(io::ErrorKind::InvalidData)?);
            }
        };
        let used: u64 = fs::read_to_string(group.join(current))?.trim().parse().map_err(io::Error::other)?;
        let stat = fs::read_to_string(group.join("memory.stat"))?;
        let inactive = after(&stat, inactive).and_then(|number| number.trim().parse().ok());
        Ok(used.saturating_sub(inactive.unwrap_or(0)))
    }
}

/// The rest of the line that begins so.
fn after<'a>(text: &'a str, start: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(start))
}

/// What is watched: each group with a limit, from the process's own upwards.
#[derive(Debug, PartialEq, Eq)]
pub struct Watched(Vec<(Source, u64)>);

impl Watched {
    /// What `limit` means on this machine; `None` when there is nothing to watch.
    pub fn find(limit: MemoryLimit) -> Option<Self> {
        Self::below(Path::new("/"), limit)
    }

    /// The same with another root of the file system.
    fn below(root: &Path, limit: MemoryLimit) -> Option<Self> {
        let own = match limit {
            MemoryLimit::Off => return None,
            MemoryLimit::Auto => None,
            MemoryLimit::Bytes(bytes) => Some(bytes),
        };
        let groups = groups(root);
        if let Some(limit) = own {
            let process = Source::Process(root.join("proc/self/status"));
            let source = groups.into_iter().next().filter(|group| group.used().is_ok()).unwrap_or(process);
            return Some(Self(vec![(source, limit)]));
        }
        let limits = groups.into_iter().filter_map(|group| group.limit().map(|limit| (group, limit)));
        let limits: Vec<_> = limits.filter(|(group, _)| group.used().is_ok()).collect();
        (!limits.is_empty()).then_some(Self(limits))
    }

    /// The worst of all; what cannot be read now says nothing.
    pub fn level(&self) -> Level {
        let levels = self.0.iter().filter_map(|(source, limit)| Some(Level::of(source.used().ok()?, *limit)));
        levels.max().unwrap_or(Level::Enough)
    }

    /// The least limit.
    pub fn limit(&self) -> u64 {
        self.0.iter().map(|(_, limit)| *limit).min().unwrap_or(u64::MAX)
    }
}

/// The control groups of the process, its own first. A path that is not there is another namespace's: then the root of the
/// mount is the process's own group.
fn groups(root: &Path) -> Vec<Source> {
    let Ok(text) = fs::read_to_string(root.join("proc/self/cgroup")) else { return Vec::new() };
    let unified = after(&text, "0::").map(|path| (root.join("sys/fs/cgroup"), path, "memory.current"));
    let memory = text.lines().find_map(|line| {
        let (_, named) = line.split_once(':')?;
        let (controllers, path) = named.split_once(':')?;
        controllers.split(',').any(|controller| controller == "memory").then_some(path)
    });
    let memory = memory.map(|path| (root.join("sys/fs/cgroup/memory"), path, "memory.usage_in_bytes"));
    let Some((mount, path, file)) = memory.or(unified) else { return Vec::new() };
    let of = if file == "memory.current" { Source::Unified } else { Source::Memory };
    let own = mount.join(path.trim_start_matches('/'));
    let own = if own.join(file).exists() { own } else { mount.clone() };
    own.ancestors().take_while(|group| group.starts_with(&mount)).map(|group| of(group.to_owned())).collect()
}

/// How much memory there is, as everyone may ask; followed by a thread of its own.
#[derive(Debug, Default)]
pub struct Memory {
    level: AtomicU8,
}

impl Memory {
    pub fn level(&self) -> Level {
        Level::from_number(self.level.load(Ordering::Relaxed))
    }

    /// New connections are taken.
    pub fn takes_connections(&self) -> bool {
        self.level() < Level::NobodyNew
    }

    /// What follows from a level.
    fn apply(&self, level: Level, budget: &HoldBudget, metrics: &Metrics) {
        let before = Level::from_number(self.level.swap(level as u8, Ordering::Relaxed));
        metrics.memory_level.set(i64::from(level as u8));
        if (before >= Level::NothingNewIsHeld) != (level >= Level::NothingNewIsHeld) {
            budget.set_short(level >= Level::NothingNewIsHeld);
        }
        if before != level {
            tracing::warn!(?before, ?level, "memory");
        }
    }
}

/// Follows the memory until it is dropped.
#[derive(Debug)]
pub struct Follower {
    /// Nothing where there is no limit.
    watched: Arc<Mutex<Option<Watched>>>,
    stop: Arc<AtomicBool>,
    ended: CancellationToken,
    thread: Thread,
}

impl Follower {
    /// Reading a control group's files blocks, so it has a thread.
    ///
    /// # Errors
    /// When no thread can be made.
    pub fn start(
        watched: Option<Watched>,
        memory: Arc<Memory>,
        budget: Arc<HoldBudget>,
        connections: Arc<Connections>,
        metrics: Arc<Metrics>,
    ) -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let watched = Arc::new(Mutex::new(watched));
        let followed = Arc::clone(&watched);
        let ended = CancellationToken::new();
        let ends = ended.clone().drop_guard();
        let follow = move || {
            let _ends = ends;
            let mut closed: Option<Instant> = None;
            while !stopped.load(Ordering::Relaxed) {
                let level = watched_level(&followed);
                memory.apply(level, &budget, &metrics);
                if level == Level::NewestLeave && closed.is_none_or(|closed| closed.elapsed() >= EFFECT) {
                    close_newest(&connections);
                    closed = Some(Instant::now());
                }
                thread::park_timeout(INTERVAL);
            }
        };
        let thread = thread::Builder::new().name("memory".to_owned()).spawn(follow)?.thread().clone();
        Ok(Self { watched, stop, ended, thread })
    }

    /// Something else is watched from now on.
    pub fn watch(&self, watched: Option<Watched>) {
        *self.watched.lock().unwrap_or_else(PoisonError::into_inner) = watched;
        self.thread.unpark();
    }

    /// Cancelled when nobody looks at the memory any more, be it that the thread panicked.
    pub fn ended(&self) -> CancellationToken {
        self.ended.clone()
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.unpark();
    }
}

fn watched_level(watched: &Mutex<Option<Watched>>) -> Level {
    let watched = watched.lock().unwrap_or_else(PoisonError::into_inner);
    watched.as_ref().map_or(Level::Enough, Watched::level)
}

/// Those who came last leave first: the others have work that goes on.
fn close_newest(connections: &Connections) {
    let all = connections.all();
    let count = all.len().div_ceil(CLOSED_PART);
    tracing::warn!(count, "memory is short: closing the newest connections");
    for handle in all.iter().rev().take(count) {
        handle.give(Order::Shed);
    }
}

#[cfg(test)]
mod tests;
