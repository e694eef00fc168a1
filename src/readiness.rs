//! Whether traffic may be sent here: ready when nothing that was named is still pending, until a drain takes it back for good.
//!
//! Dead nodes, a lost API or a failed reload never take it back: another replica could not serve them better, and all of them
//! would be taken out of service at once. What serves, but not as it should, is said beside it ([`Readiness::degraded`]).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What [`Readiness::pending_names`] says while draining.
pub const DRAINING: &str = "draining";

/// What a node or the API says of itself may be long; a line of `/readyz` is not.
pub const MAX_LINE: usize = 200;

/// Shared by those who still have something to do and `/readyz`. Name what is pending before `/readyz` is served: with nothing
/// named it is ready.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// How many guards hold each name.
    pending: BTreeMap<Arc<str>, usize>,
    /// The same of what is not as it should be.
    degraded: BTreeMap<Arc<str>, usize>,
    /// What is not as it should be of the gateway itself.
    amiss: BTreeMap<Arc<str>, usize>,
    draining: bool,
}

impl Readiness {
    pub fn new() -> Self {
        Self::default()
    }

    /// Not ready, because of `name`, as long as the guard lives.
    pub fn pending(&self, name: &str) -> Pending {
        let name: Arc<str> = Arc::from(name);
        *self.state().pending.entry(Arc::clone(&name)).or_default() += 1;
        Pending { name, readiness: self.clone() }
    }

    /// The same, because of something that somebody else has said: one line of at most [`MAX_LINE`] characters.
    pub fn pending_because(&self, said: &str) -> Pending {
        self.pending(&line(said))
    }

    /// Served all the same, but not as it should be, as long as the guard lives: one line of a node, counted where several say it.
    pub fn degraded(&self, said: &str) -> Degraded {
        let name: Arc<str> = line(said).into();
        *self.state().degraded.entry(Arc::clone(&name)).or_default() += 1;
        Degraded { name, itself: false, readiness: self.clone() }
    }

    /// The same of the gateway itself, and of no node.
    pub fn degraded_itself(&self, said: &str) -> Degraded {
        let name: Arc<str> = line(said).into();
        *self.state().amiss.entry(Arc::clone(&name)).or_default() += 1;
        Degraded { name, itself: true, readiness: self.clone() }
    }

    /// What is degraded of the gateway itself.
    pub fn amiss(&self) -> Vec<Arc<str>> {
        self.state().amiss.keys().cloned().collect()
    }

    /// What is degraded, in alphabetical order, and how many say so.
    pub fn degradations(&self) -> Vec<(Arc<str>, usize)> {
        self.state().degraded.iter().map(|(name, &count)| (Arc::clone(name), count)).collect()
    }

    /// Not ready from now on, whatever happens.
    pub fn drain(&self) {
        self.state().draining = true;
    }

    pub fn is_ready(&self) -> bool {
        let state = self.state();
        state.pending.is_empty() && !state.draining
    }

    /// Why it is not ready, each once, in alphabetical order; [`DRAINING`] first. Empty when ready.
    pub fn pending_names(&self) -> Vec<Arc<str>> {
        let state = self.state();
        let draining = state.draining.then(|| Arc::from(DRAINING));
        draining.into_iter().chain(state.pending.keys().cloned()).collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn line(said: &str) -> String {
    said.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_LINE).collect()
}

fn let_go(guards: &mut BTreeMap<Arc<str>, usize>, name: &Arc<str>) {
    if let Some(count) = guards.get_mut(name) {
        *count -= 1;
        if *count == 0 {
            guards.remove(name);
        }
    }
}

/// Something that is not as it should be; mended when dropped.
#[derive(Debug)]
#[must_use = "dropping it says that it is mended"]
pub struct Degraded {
    name: Arc<str>,
    itself: bool,
    readiness: Readiness,
}

impl Drop for Degraded {
    fn drop(&mut self) {
        let mut state = self.readiness.state();
        let_go(if self.itself { &mut state.amiss } else { &mut state.degraded }, &self.name);
    }
}

/// Something that must be done before the gateway is ready; done when dropped.
#[derive(Debug)]
#[must_use = "dropping it says that it is done"]
pub struct Pending {
    name: Arc<str>,
    readiness: Readiness,
}

impl Drop for Pending {
    fn drop(&mut self) {
        let_go(&mut self.readiness.state().pending, &self.name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(readiness: &Readiness, expected: &[&str]) {
        let names = readiness.pending_names();
        assert_eq!(names.iter().map(|name| &**name).collect::<Vec<_>>(), expected);
        assert_eq!(readiness.is_ready(), expected.is_empty());
    }

    #[test]
    fn ready_when_everything_named_is_done() {
        let readiness = Readiness::new();
        let probes = readiness.pending("first probes");
        let discovery = readiness.clone().pending("discovery");
        check(&readiness, &["discovery", "first probes"]);
        drop(discovery);
        check(&readiness, &["first probes"]);
        drop(probes);
        check(&readiness, &[]);
    }

    #[test]
    fn name_held_twice_is_shown_once_until_both_are_done() {
        let readiness = Readiness::new();
        let (first, second) = (readiness.pending("discovery"), readiness.pending("discovery"));
        drop(first);
        check(&readiness, &["discovery"]);
        drop(second);
        check(&readiness, &[]);
    }

    #[test]
    fn what_is_degraded_is_counted_and_ready() {
        let readiness = Readiness::new();
        let (first, second) = (readiness.degraded("login\nrefused"), readiness.degraded("login refused"));
        assert_eq!(readiness.degradations(), [("login refused".into(), 2)]);
        check(&readiness, &[]);
        drop(first);
        assert_eq!(readiness.degradations(), [("login refused".into(), 1)]);
        drop(second);
        let itself = readiness.degraded_itself("the file");
        assert_eq!((readiness.degradations(), readiness.amiss()), (vec![], vec!["the file".into()]));
        check(&readiness, &[]);
        drop(itself);
        assert_eq!(readiness.amiss(), []);
    }

    #[test]
    fn drain_takes_readiness_back_for_good() {
        let readiness = Readiness::new();
        let discovery = readiness.pending("discovery");
        readiness.drain();
        check(&readiness, &["draining", "discovery"]);
        drop(discovery);
        check(&readiness, &["draining"]);
    }
}
