//! Ports where no ranges are configured: by ordinal while there is one StatefulSet and no ledger, and by the ledger from the
//! moment on that there are several.
//!
//! A task of its own, because the ledger's ConfigMap may take long to answer: it is told who is there, and tells what was
//! agreed. Until it has looked for a ledger nobody has a port, or a restart could give ports that are not those of before.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::time::sleep;
use tracing::{error, info, warn};

use crate::topology::NodeId;

use super::super::backoff::jittered;
use super::ledger::agreement::{Agreed, Agreement, Store, StoreError};
use super::ledger::{Ledger, Member, Terms};

/// Between tries while the ledger is not reached.
const AGAIN: Duration = Duration::from_secs(5);
/// Longest time between two looks at the clock.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

/// Who is there, as the source sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// `prefers` is the port that follows from the ordinal alone.
    pub present: Vec<Member>,
    /// Those that have left.
    pub gone: Vec<NodeId>,
}

impl Wanted {
    pub fn is_of_one_set(&self) -> bool {
        let mut sets = self.present.iter().map(|member| &member.stateful_set);
        let first = sets.next();
        sets.all(|set| Some(set) == first)
    }
}

/// What is known of ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Known {
    /// Whether there is a ledger is not known: why.
    Nothing(Arc<str>),
    /// One StatefulSet and no ledger: ports follow from ordinals.
    Ordinals,
    Agreed(Agreed),
}

/// Looks for a ledger, and keeps to it once there is one; ends with the source.
pub async fn keep<S: Store>(store: S, terms: Terms, mut wanted: watch::Receiver<Wanted>, known: watch::Sender<Known>) {
    let Some(mut ledger) = find(&store, &known).await else { return };
    let mut agreement: Option<Agreement<S>> = None;
    let mut store = Some(store);
    // The StatefulSet that had the ports of its ordinals while it was the only one.
    let mut alone: Option<Arc<str>> = None;
    loop {
        let now_wanted = wanted.borrow_and_update().clone();
        let sets: BTreeSet<&Arc<str>> = now_wanted.present.iter().map(|member| &member.stateful_set).collect();
        let first = sets.first().map(|set| Arc::clone(set));
        if agreement.is_none() && ledger.is_none() && sets.len() <= 1 {
            alone = first.or(alone);
            known.send_replace(Known::Ordinals);
            if wanted.changed().await.is_err() {
                return;
            }
            continue;
        }
        if let Some(store) = store.take() {
            info!(stateful_sets = ?sets, "ports are those of the ledger");
            agreement = Some(Agreement::new(store, terms.clone(), ledger.take().unwrap_or_default()));
        }
        let Some(agreement) = &mut agreement else { return };
        let chosen = alone.clone().or(first);
        let present: Vec<Member> = now_wanted
            .present
            .iter()
            .map(|member| Member {
                prefers: member.prefers.filter(|_| Some(&member.stateful_set) == chosen.as_ref()),
                ..member.clone()
            })
            .collect();
        let now = SystemTime::now();
        let agreed = agreement.settle(&present, &now_wanted.gone, now).await;
        let failed = agreed.failure.is_some();
        say(&known, &agreed);
        known.send_if_modified(|before| {
            let next = Known::Agreed(agreed);
            let differs = *before != next;
            *before = next;
            differs
        });
        let due = agreement.deadline().map(|at| at.duration_since(now).unwrap_or_default());
        let wait = if failed { jittered(AGAIN) } else { due.unwrap_or(LONGEST_SLEEP).clamp(AGAIN, LONGEST_SLEEP) };
        tokio::select! {
            changed = wanted.changed() => if changed.is_err() { return },
            () = sleep(wait) => {}
        }
    }
}

/// The ledger, if there is one; asks until that is known. `None` when nobody listens any more.
async fn find<S: Store>(store: &S, known: &watch::Sender<Known>) -> Option<Option<Ledger>> {
    loop {
        let error = match store.read().await {
            Ok(found) => return Some(found.map(|(ledger, _)| ledger)),
            Err(error @ StoreError::Forbidden { .. }) => {
                warn!("{error}; needed only where several StatefulSets have no ranges of ports");
                return Some(None);
            }
            Err(error) => error,
        };
        let text: Arc<str> = error.to_string().into();
        let is_news = known.send_if_modified(|before| {
            let next = Known::Nothing(Arc::clone(&text));
            let differs = *before != next;
            *before = next;
            differs
        });
        if is_news {
            warn!(%error, "whether there is a ledger of ports is not known");
        }
        if known.is_closed() {
            return None;
        }
        sleep(jittered(AGAIN)).await;
    }
}

/// A failure is said once, until it is over.
fn say(known: &watch::Sender<Known>, agreed: &Agreed) {
    let before = known.borrow();
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
