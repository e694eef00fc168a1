//! How replicas of 0.1.0 agree.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use thiserror::Error;
use tokio::time::sleep;

use crate::discovery::backoff::jittered;
use crate::topology::NodeId;
use crate::topology::ports::{Claim, PortError};

use super::{Ledger, LedgerError, Member, Settled, Terms, View};

const TRIES: u32 = 8;
const FIRST_WAIT: Duration = Duration::from_millis(20);
const REPORT_AGAIN: Duration = Duration::from_secs(3600);

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum StoreError {
    #[error("the ledger was written by somebody else since it was read")]
    Conflict,
    #[error("the ledger: {0}")]
    #[expect(dead_code, reason = "no test of the roll-out forbids it")]
    Forbidden(String),
    #[error("the ledger: {0}")]
    Unavailable(String),
    #[error(transparent)]
    Malformed(#[from] LedgerError),
}

pub trait Store: Send + Sync {
    type Version: Send + Sync;

    fn read(&self) -> impl Future<Output = Result<Option<(Ledger, Self::Version)>, StoreError>> + Send;
    fn create(&self, ledger: &Ledger) -> impl Future<Output = Result<(), StoreError>> + Send;
    fn replace(&self, ledger: &Ledger, version: &Self::Version) -> impl Future<Output = Result<(), StoreError>> + Send;
}

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

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Unplaced {
    #[error(transparent)]
    Port(#[from] PortError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agreed {
    pub ports: BTreeMap<NodeId, u16>,
    pub unplaced: BTreeMap<NodeId, Unplaced>,
    pub failure: Option<StoreError>,
}

#[derive(Clone, Debug)]
pub struct Agreement<S> {
    store: S,
    terms: Terms,
    ledger: Ledger,
    present: BTreeSet<NodeId>,
    seen: BTreeMap<NodeId, SystemTime>,
    missed: BTreeMap<NodeId, SystemTime>,
    reported: BTreeMap<NodeId, SystemTime>,
}

impl<S: Store> Agreement<S> {
    pub fn new(store: S, terms: Terms, ledger: Ledger) -> Self {
        let (seen, missed, reported) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { store, terms, ledger, present: BTreeSet::new(), seen, missed, reported }
    }

    pub async fn settle(&mut self, present: &[Member], gone: &[NodeId], now: SystemTime) -> Agreed {
        let view = self.look(present, gone, now);
        let (refused, failure) = match agree(&self.store, &self.ledger, &view, &self.terms, now).await {
            Ok(settled) => {
                self.reported.extend(view.gone.into_iter().map(|id| (id, now)));
                self.ledger = settled.ledger;
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

    fn look(&mut self, present: &[Member], gone: &[NodeId], now: SystemTime) -> View {
        let entries = self.ledger.entries();
        let void = self.ledger.is_void(present, &self.terms.range);
        let known = |id: &NodeId| entries.get(id).filter(|_| !void).map(|claim| claim.port);
        let with_known = |member: &Member| Member { prefers: known(&member.id).or(member.prefers), ..member.clone() };
        let members: Vec<Member> = present.iter().map(with_known).collect();
        let here: BTreeSet<&NodeId> = present.iter().map(|member| &member.id).collect();
        self.seen.retain(|_, at| now.duration_since(*at).map_or(true, |age| age < self.terms.quarantine));
        self.seen.extend(here.iter().map(|&id| (id.clone(), now)));
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

    pub fn deadline(&self) -> Option<SystemTime> {
        self.ledger.deadline(self.terms.quarantine)
    }

    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    fn is_news(&self, id: &NodeId, now: SystemTime) -> bool {
        self.reported.get(id).is_none_or(|at| now.duration_since(*at).is_ok_and(|since| since >= REPORT_AGAIN))
    }

    fn fade(&mut self, present: &[Member], gone: &[NodeId], now: SystemTime) {
        let here = |id: &NodeId| present.iter().any(|member| member.id == *id);
        self.ledger.leave(gone.iter().filter(|id| !here(id)), now);
        for id in self.ledger.over(self.terms.quarantine / 2, now) {
            let stayed = here(&id) && self.present.contains(&id);
            if !stayed {
                self.ledger.entries.remove(&id);
            }
        }
    }

    fn agreed(&self, refused: BTreeMap<NodeId, PortError>, failure: Option<StoreError>) -> Agreed {
        let lives = |(id, claim): &(&NodeId, &Claim)| claim.left.is_none() || self.present.contains(id);
        let lives = self.ledger.entries.iter().filter(lives).map(|(id, claim)| (id.clone(), claim.port));
        let ports: BTreeMap<NodeId, u16> = lives.filter(|(_, port)| self.terms.range.contains(*port)).collect();
        let mut unplaced: BTreeMap<NodeId, Unplaced> = refused.into_iter().map(|(id, why)| (id, why.into())).collect();
        if let Some(failure) = &failure {
            let waiting = self.present.iter().filter(|id| !ports.contains_key(id));
            unplaced.extend(waiting.map(|id| (id.clone(), failure.clone().into())));
        }
        Agreed { ports, unplaced, failure }
    }
}
