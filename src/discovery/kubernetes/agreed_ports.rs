//! Ports where no ranges are configured: by ordinal while there is one StatefulSet, and by the ledger from the moment on that
//! there are several.
//!
//! The ports of one StatefulSet are written into the ledger too, so that a replica that has just started when a second one
//! appears knows whose they are. Nobody waits for that: where it cannot be written, it is tried again later.
//!
//! A task of its own, because the ledger's ConfigMap may take long to answer: it is told who is there, and tells what was
//! agreed. Until it has looked for a ledger nobody has a port, or a restart could give ports that are not those of before.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;
use tracing::{debug, error, info, warn};

use crate::topology::NodeId;

use super::super::backoff::jittered;
use super::super::clock::Clock;
use super::ledger::agreement::{Agreed, Agreement, Store, StoreError};
use super::ledger::{Ledger, Member, Terms, only_set};

/// Between tries while the ledger is not reached.
const AGAIN: Duration = Duration::from_secs(5);
/// Longest time between two looks at the ledger.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);
/// Longest time between two tries to write what nobody waits for; the first come after [`AGAIN`], doubled each time.
const LONGEST_AGAIN: Duration = Duration::from_secs(300);
/// So often is asked whether there is a ledger before it is believed that this is forbidden, and so long apart: an apiserver
/// that has just started forbids everything for a moment.
const FORBIDDEN_TRIES: u32 = 5;
const FORBIDDEN_AGAIN: Duration = Duration::from_secs(1);

/// Who is there, as the source sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// `prefers` is the port that follows from the ordinal alone.
    pub present: Vec<Member>,
    /// Those that have left.
    pub gone: Vec<NodeId>,
}

/// What is known of ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Known {
    /// Whether there is a ledger is not known: why.
    Nothing(Arc<str>),
    /// One StatefulSet: ports follow from ordinals, for as long as this ledger [says so](Ledger::follows_ordinals).
    Ordinals(Arc<Ledger>),
    Agreed(Agreed),
}

/// Looks for a ledger, and keeps to it and keeps it up to date; ends with the source.
pub async fn keep<S: Store>(
    store: S,
    terms: Terms,
    clock: Clock,
    mut wanted: watch::Receiver<Wanted>,
    known: watch::Sender<Known>,
) {
    let Some(ledger) = find(&store, &known).await else { return };
    let mut agreement = Agreement::new(store, terms.clone(), ledger.unwrap_or_default());
    // The StatefulSet that had the ports of its ordinals while it was the only one.
    let mut alone: Option<Arc<str>> = None;
    let mut unwritten = 0;
    loop {
        let Wanted { present, gone } = wanted.borrow_and_update().clone();
        let follows = agreement.ledger().follows_ordinals(&present, &terms.range);
        if follows {
            alone = only_set(&present).cloned().or(alone);
            publish(&known, Known::Ordinals(Arc::new(agreement.ledger().clone())));
        }
        if present.is_empty() && gone.is_empty() {
            if wanted.changed().await.is_err() {
                return;
            }
            continue;
        }
        let members: Vec<Member> = if follows {
            // Whose ordinal is beyond the range has no port.
            present.iter().filter(|member| member.prefers.is_some()).cloned().collect()
        } else {
            let chosen = alone.as_ref().or_else(|| agreement.ledger().first_of(&present));
            let prefers = |of: &Member| of.prefers.filter(|_| Some(&of.stateful_set) == chosen);
            present.iter().map(|member| Member { prefers: prefers(member), ..member.clone() }).collect()
        };
        let now = clock.now();
        let agreed = agreement.settle(&members, &gone, now).await;
        let due = agreement.deadline(now).map(|at| at.duration_since(now).unwrap_or_default());
        let due = due.unwrap_or(LONGEST_SLEEP).clamp(AGAIN, LONGEST_SLEEP);
        let wait = if follows && agreement.ledger().follows_ordinals(&present, &terms.range) {
            match &agreed.failure {
                Some(failure) => {
                    debug!(%failure, "the ports of the only StatefulSet are not in the ledger");
                    unwritten += 1;
                    jittered(AGAIN.saturating_mul(2u32.saturating_pow(unwritten - 1)).min(LONGEST_AGAIN))
                }
                None => {
                    unwritten = 0;
                    publish(&known, Known::Ordinals(Arc::new(agreement.ledger().clone())));
                    due
                }
            }
        } else {
            let failed = agreed.failure.is_some();
            say(&known, &agreed);
            publish(&known, Known::Agreed(agreed));
            if failed { jittered(AGAIN) } else { due }
        };
        tokio::select! {
            changed = wanted.changed() => if changed.is_err() { return },
            () = sleep(wait) => {}
        }
    }
}

/// Wakes who listens only when `next` is something else than before: then true.
pub fn publish<T: PartialEq>(latest: &watch::Sender<T>, next: T) -> bool {
    latest.send_if_modified(|before| {
        let differs = *before != next;
        *before = next;
        differs
    })
}

/// The ledger, if there is one; asks until that is known. `None` when nobody listens any more.
async fn find<S: Store>(store: &S, known: &watch::Sender<Known>) -> Option<Option<Ledger>> {
    let mut forbidden = 0;
    loop {
        let mut wait = AGAIN;
        let error = match store.read().await {
            Ok(found) => return Some(found.map(|(ledger, _)| ledger)),
            Err(error @ StoreError::Forbidden { .. }) if forbidden + 1 < FORBIDDEN_TRIES => {
                forbidden += 1;
                wait = FORBIDDEN_AGAIN;
                error
            }
            Err(error @ StoreError::Forbidden { .. }) => {
                warn!("{error}; needed where there are, or may be, several StatefulSets without ranges of ports");
                return Some(None);
            }
            Err(error) => error,
        };
        if publish(known, Known::Nothing(error.to_string().into())) {
            warn!(%error, "whether there is a ledger of ports is not known");
        }
        if known.is_closed() {
            return None;
        }
        sleep(jittered(wait)).await;
    }
}

/// That the ledger decides is said once, and a failure once, until it is over.
fn say(known: &watch::Sender<Known>, agreed: &Agreed) {
    let before = known.borrow();
    if !matches!(&*before, Known::Agreed(_)) {
        info!("ports are those of the ledger");
    }
    let failing = match &*before {
        Known::Agreed(before) => before.failure.as_ref(),
        _ => None,
    };
    match (failing, &agreed.failure) {
        (None, Some(failure)) => {
            error!(%failure, "the ledger of ports is not reached: new nodes wait, the others keep theirs")
        }
        (Some(_), None) => info!("the ledger of ports is reached again"),
        _ => {}
    }
}

#[cfg(test)]
mod former;
#[cfg(test)]
mod rollout;
#[cfg(test)]
mod simulation;

#[cfg(test)]
mod tests;
