//! File descriptors: as many as the system allows, and what happens when there are none.
//!
//! A connection takes two, one for each side. When none is left, a listener that only waits would spin and leave whoever dials to
//! his own time limit: the one in reserve is given up for a moment, so that the connection is taken and reset.

use std::fs::File;
use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::TcpListener;
use tokio::time::Instant;

use super::stream::reset_on_close;
use crate::config::Config;
use crate::readiness::{Pending, Readiness};

/// Descriptors in reserve: of one that is given up for a moment somebody else may be quicker to make use.
const IN_RESERVE: usize = 8;
/// Between two lines about it, for the whole process.
const SAY_AGAIN: Duration = Duration::from_secs(1);
/// So long after the last time it is over.
const OVER: Duration = Duration::from_secs(5);
/// Sockets that are no connection of a client's: listeners aside, those of probes, the API, the log, and some to spare.
const OTHERS: u64 = 100;

/// Raises the soft limit to the hard one, and says how many descriptors there may be.
pub fn raise() -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum && setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).is_ok() {
        return maximum.unwrap_or(u64::MAX);
    }
    current.unwrap_or(u64::MAX)
}

/// The configured numbers that do not fit into so many descriptors, in the words of the start's warning.
pub fn misfits(config: &Config, limit: u64) -> Option<String> {
    let limits = &config.limits;
    let stages = &limits.stages;
    let single = stages.accepted.places + stages.tls.places;
    let double = limits.connections + stages.setup.places + stages.login.places;
    let needed = (single + 2 * double + config.listen.ports()) as u64 + OTHERS;
    (needed > limit).then(|| {
        format!(
            "the process may open {limit} files, and its limits would need {needed}: limits.connections ({}) and the stages setup \
             ({}) and login ({}) take two each, accepted ({}) and tls ({}) one, listen {}; raise the hard limit (ulimit -Hn) or \
             lower limits.connections",
            limits.connections,
            stages.setup.places,
            stages.login.places,
            stages.accepted.places,
            stages.tls.places,
            config.listen.ports(),
        )
    })
}

/// True for the errors of a process, or a system, that has no descriptors left.
pub fn is_exhausted(error: &io::Error) -> bool {
    let code = error.raw_os_error();
    code == Some(rustix::io::Errno::MFILE.raw_os_error()) || code == Some(rustix::io::Errno::NFILE.raw_os_error())
}

/// The descriptors in reserve.
pub struct Reserve {
    files: Mutex<Vec<File>>,
    state: Mutex<State>,
    readiness: Readiness,
}

#[derive(Default)]
struct State {
    last: Option<Instant>,
    said: Option<Instant>,
    unsaid: u64,
    not_ready: Option<Pending>,
}

impl Reserve {
    pub fn new(readiness: Readiness) -> Self {
        let mut files = Vec::new();
        fill(&mut files);
        Self { files: Mutex::new(files), state: Mutex::default(), readiness }
    }

    /// Takes the connection that waits at `listener` with a descriptor in reserve, and resets it. False when there is none in
    /// reserve, or somebody else was quicker: then it is time to wait.
    pub fn reset_next(&self, listener: &TcpListener) -> bool {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = files.pop().is_some() && {
            let accepted = listener.accept().now_or_never();
            if let Some(Ok((client, _))) = &accepted {
                reset_on_close(client);
            }
            matches!(accepted, Some(Ok(_)))
        };
        fill(&mut files);
        taken
    }

    /// There was no descriptor. How many times that is, when it is time to say it again.
    pub fn exhausted(&self, now: Instant) -> Option<u64> {
        let mut state = self.state();
        state.last = Some(now);
        state.unsaid += 1;
        if state.not_ready.is_none() {
            state.not_ready = Some(self.readiness.pending("file descriptors: none is left for new connections"));
        }
        if state.said.is_some_and(|said| now.duration_since(said) < SAY_AGAIN) {
            return None;
        }
        state.said = Some(now);
        Some(std::mem::take(&mut state.unsaid))
    }

    /// To be asked now and then: it may be over.
    pub fn recover(&self, now: Instant) {
        fill(&mut self.files.lock().unwrap_or_else(PoisonError::into_inner));
        let mut state = self.state();
        if state.last.is_some_and(|last| now.duration_since(last) >= OVER) {
            *state = State::default();
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn fill(files: &mut Vec<File>) {
    while files.len() < IN_RESERVE {
        let Ok(file) = File::open("/dev/null") else { return };
        files.push(file);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_is_the_hard_one() {
        let limit = raise();
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        assert_eq!(current, maximum);
        assert_eq!(limit, current.unwrap_or(u64::MAX));
    }

    #[test]
    fn numbers_that_do_not_fit_are_named() {
        let file = "advertise: 203.0.113.10\ndiscovery: {nodes: [{name: a, address: 10.0.0.1}]}\n";
        let config = Config::parse("test", file, std::path::Path::new("")).unwrap().config;
        assert_eq!(misfits(&config, 1 << 20), None);
        let said = misfits(&config, 1024).unwrap();
        assert!(said.contains("may open 1024 files") && said.contains("limits.connections (10000)"), "{said}");
    }

    #[test]
    fn it_is_said_once_a_second_for_the_process_and_over_after_five() {
        let readiness = Readiness::new();
        let reserve = Reserve::new(readiness.clone());
        let now = Instant::now();
        assert_eq!(reserve.exhausted(now), Some(1));
        for n in 1..100 {
            assert_eq!(reserve.exhausted(now + Duration::from_millis(n * 10)), None);
        }
        assert_eq!(reserve.exhausted(now + Duration::from_millis(1001)), Some(100));
        assert!(!readiness.is_ready());
        reserve.recover(now + Duration::from_secs(5));
        assert!(!readiness.is_ready());
        reserve.recover(now + Duration::from_millis(6001));
        assert!(readiness.is_ready());
    }
}
