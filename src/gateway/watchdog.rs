//! Whether the workers that relay still poll. One that has work and has not polled for five seconds is counted; one of thirty
//! seconds is no worker any more, and `/livez` says so: only a restart helps.
//!
//! A worker that is not parked, and whose busy time has not moved, is inside one poll: the runtime adds to that time every few
//! dozen polls. A process that gets no time of a processor (a throttled pod, a stopped one) looks the same from inside; but then
//! this thread is late too, and what it did not see for itself it does not count.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::time::{MissedTickBehavior, interval};

use crate::metrics::Metrics;

/// Between two looks. One that comes after twice that time is late, and counts as no time at all.
const LOOK: Duration = Duration::from_millis(500);

/// After how long without a poll.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// A worker is counted.
    pub counted: Duration,
    /// `/livez` fails.
    pub dead: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { counted: Duration::from_secs(5), dead: Duration::from_secs(30) }
    }
}

/// How long the worst worker has been stuck, for those who ask.
#[derive(Debug, Default)]
pub struct Liveness {
    stuck_ms: AtomicU64,
    dead_ms: AtomicU64,
}

impl Liveness {
    /// Why the process is not alive; `None` while it is.
    pub fn complaint(&self) -> Option<String> {
        let (stuck, dead) = (self.stuck_ms.load(Ordering::Relaxed), self.dead_ms.load(Ordering::Relaxed));
        (dead > 0 && stuck >= dead).then(|| format!("a worker has not polled for {} s", stuck / 1000))
    }
}

/// One worker, as seen at the last look.
#[derive(Clone, Copy, Debug, Default)]
struct Worker {
    parks: u64,
    busy: Duration,
    stuck: Duration,
    is_counted: bool,
}

impl Worker {
    /// What was seen now, `elapsed` after the last look. True when it has just become stuck for long enough to be counted.
    fn look(&mut self, parks: u64, busy: Duration, elapsed: Duration, limits: Limits) -> bool {
        // The count is even while the worker is awake.
        let moved = parks != self.parks || busy != self.busy || parks % 2 == 1;
        (self.parks, self.busy) = (parks, busy);
        if moved {
            (self.stuck, self.is_counted) = (Duration::ZERO, false);
            return false;
        }
        if elapsed < 2 * LOOK {
            self.stuck += elapsed;
        }
        let counts = self.stuck >= limits.counted && !self.is_counted;
        self.is_counted |= counts;
        counts
    }
}

/// Watches the workers of `data` for ever; to be run on another runtime.
pub async fn watch(data: Handle, limits: Limits, liveness: Arc<Liveness>, metrics: Arc<Metrics>) {
    liveness.dead_ms.store(limits.dead.as_millis() as u64, Ordering::Relaxed);
    let seen = data.metrics();
    let mut workers = vec![Worker::default(); seen.num_workers()];
    let mut ticks = interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last = Instant::now();
    loop {
        ticks.tick().await;
        let elapsed = last.elapsed();
        last = Instant::now();
        let mut worst = Duration::ZERO;
        for (index, worker) in workers.iter_mut().enumerate() {
            let (parks, busy) = (seen.worker_park_unpark_count(index), seen.worker_total_busy_duration(index));
            if worker.look(parks, busy, elapsed, limits) {
                metrics.workers_stuck.inc();
                tracing::error!(worker = index, "a worker has not polled for {:?}", limits.counted);
            }
            worst = worst.max(worker.stuck);
        }
        liveness.stuck_ms.store(worst.as_millis() as u64, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use tokio::runtime::Builder;

    const SHORT: Limits = Limits { counted: Duration::from_millis(1000), dead: Duration::from_millis(2000) };

    #[test]
    fn what_a_late_look_did_not_see_does_not_count() {
        let mut worker = Worker::default();
        let (busy, second) = (Duration::from_secs(1), Duration::from_secs(1));
        worker.look(2, busy, LOOK, Limits::default());
        for _ in 0..100 {
            assert!(!worker.look(2, busy, 60 * second, Limits::default()), "a throttled process");
        }
        let counted = (0..100).filter(|_| worker.look(2, busy, LOOK, Limits::default())).count();
        assert_eq!(counted, 1, "once for each time");
        assert!(worker.stuck >= Duration::from_secs(30));
        worker.look(2, busy + second, LOOK, Limits::default());
        assert_eq!(worker.stuck, Duration::ZERO);
        worker.look(3, busy + second, LOOK, Limits::default());
        for _ in 0..100 {
            assert!(!worker.look(3, busy + second, LOOK, Limits::default()), "asleep");
        }
    }

    #[test]
    fn a_worker_inside_one_poll_is_found_and_one_that_is_busy_or_idle_is_not() {
        let data = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let control = Builder::new_current_thread().enable_all().build().unwrap();
        let (liveness, metrics) = (Arc::new(Liveness::default()), Metrics::new());
        // Always something to poll, and never for long.
        data.spawn(async {
            loop {
                tokio::task::yield_now().await;
            }
        });
        let looks = |time: Duration| {
            let watched = watch(data.handle().clone(), SHORT, Arc::clone(&liveness), Arc::clone(&metrics));
            let _ = control.block_on(async { tokio::time::timeout(time, watched).await });
        };
        looks(Duration::from_millis(2600));
        assert_eq!((liveness.complaint(), metrics.workers_stuck.get()), (None, 0));
        let (release, released) = mpsc::channel::<()>();
        data.spawn(async move {
            let _ = released.recv();
        });
        looks(Duration::from_millis(4000));
        assert!(liveness.complaint().is_some_and(|why| why.starts_with("a worker has not polled")));
        assert_eq!(metrics.workers_stuck.get(), 1);
        release.send(()).unwrap();
        looks(Duration::from_millis(1100));
        assert_eq!(liveness.complaint(), None);
    }
}
