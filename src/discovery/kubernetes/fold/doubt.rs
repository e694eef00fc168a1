//! What of a pod is not confirmed, and when time confirms it.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use super::conclude::Heard;
use super::{Fold, Known, Member, Presence, Timing, Withdrawn};
use crate::topology::{NodeId, Topology};

/// The word of a list: its number, and since when something follows from it. Nothing does before another list says the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ListWord {
    pub number: u64,
    pub since: Option<SystemTime>,
}

impl Fold {
    /// Whether the endpoints should be listed again: of a node the last list alone says that it is gone or elsewhere, and it is up
    /// all the same, and not where it is said to be.
    pub fn asks_again(&self, topology: &Topology) -> bool {
        let contradicts = |(id, member): (&NodeId, &Member)| {
            topology.node_by_id(id).is_some_and(|node| member.is_contradicted_by(node))
        };
        self.said_once().any(contradicts)
    }

    /// Nodes of which the last list alone says that they are gone or elsewhere.
    pub(super) fn said_once(&self) -> impl Iterator<Item = (&NodeId, &Member)> {
        let last = |said: &ListWord| said.number == self.slices.lists();
        let asks = move |(id, known): &(&NodeId, &Known)| match (&known.presence, self.withdrawn.get(id)) {
            (Presence::Here, _) => known.moved.as_ref().is_some_and(last),
            (Presence::Doubted, Some(Withdrawn::List(said))) => last(said),
            _ => false,
        };
        self.known.iter().filter(asks).map(|(id, known)| (id, &known.member))
    }

    /// When `settle` would conclude something else, if nothing is heard before.
    pub fn deadline(&self) -> Option<SystemTime> {
        let next = |(id, known): (&NodeId, &Known)| match (&known.presence, self.withdrawn.get(id)) {
            (Presence::Here, _) => {
                let asked = self.asked_at(known).filter(|at| Some(*at) > self.settled);
                asked.into_iter().chain(known.moved.and_then(|said| self.believed_at(&said))).min()
            }
            (Presence::Doubted, Some(Withdrawn::List(said))) => self.believed_at(said),
            (Presence::Doubted, _) => None,
            (Presence::Away(_), _) => self.leaves_at(id, known),
        };
        self.known.iter().filter_map(next).min()
    }

    /// When it is believed what lists say against what a watch had said; never one list alone.
    pub(super) fn believed_at(&self, said: &ListWord) -> Option<SystemTime> {
        (said.number < self.slices.lists()).then(|| self.heard_for(self.timing.doubt, said.since?)).flatten()
    }

    /// The list that said that a pod which was known elsewhere is at `places` now, until that is believed. What a watch says is
    /// news; a list may be older than what the watch said before, where etcd was restored from a backup.
    pub(super) fn moved(
        &self,
        heard: Heard<'_>,
        before: Option<&Known>,
        places: &[SocketAddr],
        now: SystemTime,
    ) -> Option<ListWord> {
        let before = before.filter(|known| known.heard && !matches!(known.presence, Presence::Away(_)))?;
        let said = if places.contains(&before.member.address) {
            before.moved
        } else {
            let news = [heard.offer.map(|offer| offer.news), heard.object.map(|object| object.news)];
            let last = news.into_iter().max().flatten();
            let by_list = last.is_some_and(|news| [self.whole_slices, self.whole_pods].contains(&news));
            by_list.then(|| ListWord { number: self.slices.lists(), since: Some(now) })
        };
        said.filter(|said| self.believed_at(said).is_none_or(|at| at > now))
    }

    /// When a pod that is away has left; never while a Pod of its name exists, running or not.
    pub(super) fn leaves_at(&self, id: &NodeId, known: &Known) -> Option<SystemTime> {
        let Presence::Away(since) = known.presence else { return None };
        if self.objects.get(id).is_some_and(|object| object.exists) && !self.is_disowned(id) {
            return None;
        }
        let Timing { left, left_unseen, .. } = self.timing;
        self.heard_for(if self.pods.lists() > 0 { left } else { left_unseen }, since)
    }

    /// When the API will have been heard for so long after `since`; `None` while it is away.
    pub(super) fn heard_for(&self, long: Duration, since: SystemTime) -> Option<SystemTime> {
        since.max(self.heard_since?).checked_add(long)
    }
}
