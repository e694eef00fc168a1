//! How replicas of the gateway come to have one [`Ledger`]: read it, settle it, write it back on condition that nobody wrote
//! in between, else begin anew.
//!
//! A claim counts once it is stored, never before: what lost a race was never told to anyone. While the store is away,
//! claims that were agreed stay valid and new members wait.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use thiserror::Error;
use tokio::time::sleep;

use crate::discovery::backoff::jittered;
use crate::topology::NodeId;
use crate::topology::ports::{Claim, PortError, over};

use super::{Ledger, LedgerError, Member, Settled, Terms, View};

/// Tries to write before the caller is told of the conflict. Each conflict means that somebody else's write succeeded, so
/// more than a few need more writers than a gateway has replicas.
const TRIES: u32 = 8;
/// Before the second try; doubles from there, to 1.3 s before the last.
const FIRST_WAIT: Duration = Duration::from_millis(20);
/// An absence that was written down, and that another replica contradicted, is written down again after this time: longer
/// than a stalled watch goes unnoticed, so that two replicas of which one sees late do not write against each other.
const REPORT_AGAIN: Duration = Duration::from_secs(3600);

/// Why the store did not answer, or not as it should.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum StoreError {
    #[error("the ledger was written by somebody else since it was read")]
    Conflict,
    /// The gateway's Role does not allow it: says which verb on what.
    #[error("the ledger: {0}")]
    Forbidden(String),
    /// Asking again may help.
    #[error("the ledger: {0}")]
    Unavailable(String),
    #[error(transparent)]
    Malformed(#[from] LedgerError),
}

/// Where the ledger is kept.
pub trait Store: Send + Sync {
    /// What was read, so that a write can be refused when it is no longer what is there.
    type Version: Send + Sync;

    /// The latest ledger, as new as the last write that anybody has completed; `None` where there is none.
    fn read(&self) -> impl Future<Output = Result<Option<(Ledger, Self::Version)>, StoreError>> + Send;
    /// `Conflict` when there is one already.
    fn create(&self, ledger: &Ledger) -> impl Future<Output = Result<(), StoreError>> + Send;
    /// `Conflict` when `version` is not what is there.
    fn replace(&self, ledger: &Ledger, version: &Self::Version) -> impl Future<Output = Result<(), StoreError>> + Send;
}

/// Settles the stored ledger and stores it; what is returned is what is stored. Where there is none, `agreed` is what it
/// begins with. An error says nothing of whether the last write was stored: only the next read does.
pub async fn agree(
    store: &impl Store,
    agreed: &Ledger,
    view: &View,
    terms: &Terms,
    now: SystemTime,
) -> Result<Settled, StoreError> {
    for attempt in 0..TRIES {
        if attempt > 0 {
            sleep(jittered(FIRST_WAIT * 2u32.pow(attempt - 1))).await;
        }
        let written = match store.read().await? {
            Some((ledger, version)) => {
                let settled = ledger.settle(view, terms, now);
                if !settled.changed {
                    return Ok(settled);
                }
                store.replace(&settled.ledger, &version).await.map(|()| settled)
            }
            None => {
                let settled = agreed.settle(view, terms, now);
                if settled.ledger == Ledger::default() {
                    return Ok(settled);
                }
                store.create(&settled.ledger).await.map(|()| settled)
            }
        };
        match written {
            Err(StoreError::Conflict) => {}
            written => return written,
        }
    }
    Err(StoreError::Conflict)
}

/// Why a member has no port for now.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Unplaced {
    #[error(transparent)]
    Port(#[from] PortError),
    /// It is new, and the ledger could not be asked.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What one replica may tell its clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agreed {
    /// The ports of those who are present, and of those of whom nobody has said that they are gone. A port in quarantine is
    /// not among them: its node has it back only once it is seen, and the others have been told.
    pub ports: BTreeMap<NodeId, u16>,
    /// Present members without a port.
    pub unplaced: BTreeMap<NodeId, Unplaced>,
    /// What is known to be stored: whose the other ports are.
    pub ledger: Ledger,
    /// Why this is only what was agreed before: to be tried again.
    pub failure: Option<StoreError>,
}

/// One replica's part in the agreement: what it knows to be stored, whom it has seen, and which absences it has reported.
#[derive(Clone, Debug)]
pub struct Agreement<S> {
    store: S,
    terms: Terms,
    ledger: Ledger,
    /// Claims that may be others' by now, since the store was last reached.
    lapsed: BTreeSet<NodeId>,
    /// At the last look.
    present: BTreeSet<NodeId>,
    /// When those with a port were last present.
    seen: BTreeMap<NodeId, SystemTime>,
    /// Since when those with a port have been neither present nor gone.
    missed: BTreeMap<NodeId, SystemTime>,
    reported: BTreeMap<NodeId, SystemTime>,
}

impl<S: Store> Agreement<S> {
    /// `ledger` is what an earlier run knew, or empty.
    pub fn new(store: S, terms: Terms, ledger: Ledger) -> Self {
        let (seen, missed, reported) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let (lapsed, present) = (BTreeSet::new(), BTreeSet::new());
        Self { store, terms, ledger, lapsed, present, seen, missed, reported }
    }

    /// The ports of `present`, agreed with the other replicas. To be called when members or the stored ledger have changed,
    /// at [`Self::deadline`], and again after a failure. `gone` names those that have had no pod for a while, for as long as
    /// they have none.
    pub async fn settle(&mut self, present: &[Member], gone: &[NodeId], now: SystemTime) -> Agreed {
        let view = self.look(present, gone, now);
        let (refused, failure) = match agree(&self.store, &self.valid(), &view, &self.terms, now).await {
            Ok(settled) => {
                self.reported.extend(view.gone.into_iter().map(|id| (id, now)));
                self.ledger = settled.ledger;
                self.lapsed.clear();
                (settled.unplaced, None)
            }
            Err(error) => {
                self.fade(present, gone, now);
                (BTreeMap::new(), Some(error))
            }
        };
        self.present = present.iter().map(|member| member.id.clone()).collect();
        self.agreed(refused, failure)
    }

    /// What the ledger shall know of this look.
    fn look(&mut self, present: &[Member], gone: &[NodeId], now: SystemTime) -> View {
        let (entries, valid) = (self.ledger.entries(), self.valid());
        // A ledger that was removed is made again as it was: a port of old comes before the one that is preferred.
        let void = self.ledger.is_void(present, &self.terms.range);
        let known = |id: &NodeId| valid.entries.get(id).filter(|_| !void).map(|claim| claim.port);
        let with_known = |member: &Member| Member { prefers: known(&member.id).or(member.prefers), ..member.clone() };
        let members: Vec<Member> = present.iter().map(with_known).collect();
        let here: BTreeSet<&NodeId> = present.iter().map(|member| &member.id).collect();
        // Not only those of the ledger: who has not reached it yet has seen them all the same.
        self.seen.retain(|_, at| now.duration_since(*at).map_or(true, |age| age < self.terms.quarantine));
        self.seen.extend(here.iter().map(|&id| (id.clone(), now)));
        // Nobody says that those are gone who left while no replica was there to see it. Who sees nobody at all is blind.
        let missing = |id: &NodeId| !here.is_empty() && !here.contains(id) && !gone.contains(id);
        self.missed.retain(|id, _| missing(id) && entries.contains_key(id));
        for id in entries.keys().filter(|id| missing(id)) {
            self.missed.entry(id.clone()).or_insert(now);
        }
        let long = |since: &SystemTime| now.duration_since(*since).is_ok_and(|time| time >= self.terms.quarantine / 4);
        let lost = self.missed.iter().filter(|(_, since)| long(since)).map(|(id, _)| id);
        let gone: BTreeSet<&NodeId> = gone.iter().chain(lost).collect();
        self.reported.retain(|id, _| gone.contains(id));
        let gone = gone.into_iter().filter(|id| self.is_news(id, now)).cloned().collect();
        View { present: members, gone, seen: self.seen.clone() }
    }

    /// When, after `now`, to settle again although nothing has happened.
    pub fn deadline(&self, now: SystemTime) -> Option<SystemTime> {
        self.ledger.deadline(self.terms.quarantine, now)
    }

    /// What is known to be stored, and who has left since.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    fn is_news(&self, id: &NodeId, now: SystemTime) -> bool {
        self.reported.get(id).is_none_or(|at| now.duration_since(*at).is_ok_and(|since| since >= REPORT_AGAIN))
    }

    /// Without the store: a member that comes back has its claim still, unless it was away for so long that others, who saw
    /// it leave earlier, may have given its port away by the time they see it return. That it did return the store has not
    /// been told: its next absence counts from the first.
    fn fade(&mut self, present: &[Member], gone: &[NodeId], now: SystemTime) {
        let here = |id: &NodeId| present.iter().any(|member| member.id == *id);
        self.ledger.leave(gone.iter().filter(|id| !here(id)), now);
        for (id, _) in over(self.ledger.entries(), self.terms.quarantine / 2, now) {
            let stayed = here(id) && self.present.contains(id);
            if !stayed {
                self.lapsed.insert(id.clone());
            }
        }
    }

    /// What of the ledger this replica may go by.
    fn valid(&self) -> Ledger {
        let entries = self.ledger.entries.iter().filter(|(id, _)| !self.lapsed.contains(id));
        Ledger { entries: entries.map(|(id, claim)| (id.clone(), *claim)).collect() }
    }

    fn agreed(&self, refused: BTreeMap<NodeId, PortError>, failure: Option<StoreError>) -> Agreed {
        let valid = self.valid().entries;
        let lives = |(id, claim): &(&NodeId, &Claim)| claim.left.is_none() || self.present.contains(id);
        // Others may have stored by now that it has moved.
        let moves = |(id, claim): &(&NodeId, &Claim)| {
            let pin = self.terms.pins.get(id).filter(|pin| failure.is_some() && **pin != claim.port);
            pin.is_some_and(|pin| valid.values().all(|claim| claim.port != *pin))
        };
        let lives = valid.iter().filter(lives).filter(|entry| !moves(entry));
        let lives = lives.map(|(id, claim)| (id.clone(), claim.port));
        let ports: BTreeMap<NodeId, u16> = lives.filter(|(_, port)| self.terms.range.contains(*port)).collect();
        let mut unplaced: BTreeMap<NodeId, Unplaced> = refused.into_iter().map(|(id, why)| (id, why.into())).collect();
        if let Some(failure) = &failure {
            let waiting = self.present.iter().filter(|id| !ports.contains_key(id));
            unplaced.extend(waiting.map(|id| (id.clone(), failure.clone().into())));
        }
        Agreed { ports, unplaced, ledger: self.ledger.clone(), failure }
    }
}
