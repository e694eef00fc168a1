//! Time that only goes forward: the wall clock at the start, and what has passed since by a clock that nobody sets. A wall clock
//! that jumps a day ends no quarantine and keeps no node waiting.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

#[derive(Clone, Copy, Debug)]
pub struct Clock {
    wall: SystemTime,
    since: Instant,
}

impl Clock {
    pub fn new() -> Self {
        Self::at(SystemTime::now(), Instant::now())
    }

    fn at(wall: SystemTime, since: Instant) -> Self {
        Self { wall, since }
    }

    pub fn now(&self) -> SystemTime {
        self.after(self.since.elapsed())
    }

    fn after(&self, passed: Duration) -> SystemTime {
        self.wall.checked_add(passed).unwrap_or(self.wall)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goes_on_from_the_start_whatever_the_wall_clock_says_later() {
        let yesterday = SystemTime::now() - Duration::from_secs(86_400);
        let clock = Clock::at(yesterday, Instant::now());
        let first = clock.now();
        assert!(first >= yesterday && first < yesterday + Duration::from_secs(60), "no jump to today");
        assert!(clock.now() >= first);
        assert_eq!(clock.after(Duration::from_secs(5)), yesterday + Duration::from_secs(5));
    }
}
