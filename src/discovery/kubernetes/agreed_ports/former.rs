//! How 0.1.0 keeps to the ledger: its code as it was released, without its comments and its log, on a clock that is given. Here to
//! see that it and the present code share one ledger during a roll-out; never to be mended.

mod claims;
pub mod ledger;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

use super::publish;
use crate::topology::NodeId;

use crate::discovery::backoff::jittered;
use crate::discovery::clock::Clock;
use ledger::agreement::{Agreed, Agreement, Store, StoreError};
use ledger::{Ledger, Member, Terms, only_set};

const AGAIN: Duration = Duration::from_secs(5);
const LONGEST_SLEEP: Duration = Duration::from_secs(60);
const LONGEST_AGAIN: Duration = Duration::from_secs(300);
const FORBIDDEN_TRIES: u32 = 5;
const FORBIDDEN_AGAIN: Duration = Duration::from_secs(1);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    pub present: Vec<Member>,
    pub gone: Vec<NodeId>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Known {
    Nothing(Arc<str>),
    Ordinals(Arc<Ledger>),
    Agreed(Agreed),
}

pub async fn keep<S: Store>(
    store: S,
    terms: Terms,
    clock: Clock,
    mut wanted: watch::Receiver<Wanted>,
    known: watch::Sender<Known>,
) {
    let Some(ledger) = find(&store, &known).await else { return };
    let mut agreement = Agreement::new(store, terms.clone(), ledger.unwrap_or_default());
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
            present.iter().filter(|member| member.prefers.is_some()).cloned().collect()
        } else {
            let chosen = alone.as_ref().or_else(|| agreement.ledger().first_of(&present));
            let prefers = |of: &Member| of.prefers.filter(|_| Some(&of.stateful_set) == chosen);
            present.iter().map(|member| Member { prefers: prefers(member), ..member.clone() }).collect()
        };
        let now = clock.now();
        let agreed = agreement.settle(&members, &gone, now).await;
        let due = agreement.deadline().map(|at| at.duration_since(now).unwrap_or_default());
        let due = due.unwrap_or(LONGEST_SLEEP).clamp(AGAIN, LONGEST_SLEEP);
        let wait = if follows && agreement.ledger().follows_ordinals(&present, &terms.range) {
            match &agreed.failure {
                Some(_) => {
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
            publish(&known, Known::Agreed(agreed));
            if failed { jittered(AGAIN) } else { due }
        };
        tokio::select! {
            changed = wanted.changed() => if changed.is_err() { return },
            () = sleep(wait) => {}
        }
    }
}

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
            Err(StoreError::Forbidden { .. }) => return Some(None),
            Err(error) => error,
        };
        publish(known, Known::Nothing(error.to_string().into()));
        if known.is_closed() {
            return None;
        }
        sleep(jittered(wait)).await;
    }
}
