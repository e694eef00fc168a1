//! From what watches show to the pods that are nodes: a pure fold, in which the time is the caller's.
//!
//! Two witnesses speak of a pod: the EndpointSlices of the headless Service and, where they may be watched, the Pods
//! themselves. Each may lag behind the other, so the later news of an address or of a deleted Pod wins; a Pod that exists
//! outweighs that it is in no slice. Where only the slices speak, a pod that a watch took out of its slice is away at once. One
//! whose whole slice was deleted is in doubt, and so is one that a new list lacks, or shows elsewhere than a watch did: until a
//! second list says so too, and [`Timing::doubt`] is over. What that means to a node that answers is not decided here
//! ([`State`](crate::topology::state::State)). A pod that is away keeps its place; only when no Pod of its name has existed for
//! a while has the node left. All such times are of hearing the API: while it is away nothing is concluded from what it does not
//! say, and when it is heard again they begin anew.
//!
//! A pod may have several addresses (dual stack), of which Cassandra answers at one: the first is taken, the others are asked
//! aside once the node has been silent for a while ([`Fold::elsewhere`]), and the node is where it is found to answer. One that
//! answers is never moved.

mod conclude;
mod cursor;
mod doubt;
mod gather;
mod identity;
mod offers;
mod owners;
mod places;
mod sift;
mod verdict;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::SystemTime;

use uuid::Uuid;

use crate::topology::input::Listed;
use crate::topology::{HostId, Node, NodeId, NodeState};

use super::listing::{Changed, Listing, Seen};
use super::objects::{PodObject, Slice};
use super::timing::Timing;
use crate::config::kubernetes::Family;
use cursor::Cursor;
use doubt::ListWord;
pub use identity::split;
use offers::Lives;
use owners::{Disowned, Owners};
use places::Place;
use sift::Choice;

/// A pod of a StatefulSet behind the Service, and where it lives; or, without a StatefulSet, a node that is known by its host_id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Empty where no pod is named.
    pub stateful_set: Arc<str>,
    pub ordinal: u32,
    /// Where it lives, or lived last.
    pub address: SocketAddr,
    /// Here or away; and whether more than one list says so.
    pub listed: Listed,
    pub confirmed: bool,
    /// Its DNS label, where it has a name of its own within the Service.
    pub hostname: Option<Arc<str>>,
    pub zone: Option<Arc<str>>,
}

impl Member {
    /// It lives at its address, or nothing that is confirmed says that it does not.
    pub fn is_present(&self) -> bool {
        self.listed == Listed::Here || !self.confirmed
    }

    /// Whether the node is up, and not where this says that it is.
    pub fn is_contradicted_by(&self, node: &Node) -> bool {
        node.state == NodeState::Up && (self.listed == Listed::Away || node.address != self.address)
    }

    /// The host_id of the node of this identity, where it is its identity.
    pub fn host_id(&self, id: &NodeId) -> Option<HostId> {
        self.stateful_set.is_empty().then(|| Uuid::parse_str(&id.0).ok().map(HostId)).flatten()
    }
}

/// An endpoint that cannot be a node, and why.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stranger {
    pub address: IpAddr,
    pub why: String,
}

/// Since when a pod is not there, by which witness.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Presence {
    Here,
    /// Not in the last list, or its slice was deleted.
    Doubted,
    Away(SystemTime),
}

/// How a pod came to be in no slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Withdrawn {
    /// Its endpoint was taken out of a slice: it is gone.
    Told,
    /// The first list that lacked it.
    List(ListWord),
    /// Its whole slice was deleted. That happens when endpoints are packed anew, and when the Service is deleted; to a pod it
    /// need mean nothing, until a list shows other slices.
    Slice,
}

#[derive(Clone, Debug)]
struct Known {
    member: Member,
    presence: Presence,
    /// This process has heard of it.
    heard: bool,
    /// The list that first said that it is at this address, where a watch had said another.
    moved: Option<ListWord>,
    place: Place,
    /// The pod that the slices showed last: its uid, and the news that did so first.
    shown: Option<(Arc<str>, u64)>,
    /// A pod of this name has answered.
    answered: bool,
    /// There is evidence that the pod is, or was, this cluster's.
    ours: bool,
}

/// One pod at one address: its name, its uid, and where.
type Life = (NodeId, Option<Arc<str>>, IpAddr);

#[derive(Clone, Debug)]
struct Object {
    object: PodObject,
    /// False once a watch said that it was deleted.
    exists: bool,
    /// The news that told of this Pod first, and the last that told of an address or of its end.
    since: u64,
    news: u64,
}

/// All that is known of the pods behind one Service.
#[derive(Clone, Debug, Default)]
pub struct Fold {
    timing: Timing,
    /// Where pods are dialled at this family alone.
    family: Option<Family>,
    api_away: bool,
    /// Since when the API has been heard without a break.
    heard_since: Option<SystemTime>,
    slices: Listing<Slice>,
    pods: Listing<PodObject>,
    /// News so far: says which witness spoke last. And the last that were whole lists, of slices and of pods.
    news: u64,
    whole_slices: u64,
    whole_pods: u64,
    /// What the slices show, all of it, and what of it counts.
    lives: Lives,
    chosen: BTreeMap<NodeId, Choice>,
    /// Slices that named another pod of a name than the one that is known.
    rivals: BTreeSet<(NodeId, Arc<str>)>,
    /// Where those are.
    doubtful: BTreeMap<NodeId, Vec<SocketAddr>>,
    /// When each endpoint that there is now was first there.
    first_seen: BTreeMap<Life, u64>,
    /// Pods that are in no slice any more.
    withdrawn: BTreeMap<NodeId, Withdrawn>,
    objects: BTreeMap<NodeId, Object>,
    known: BTreeMap<NodeId, Known>,
    strangers: BTreeSet<Stranger>,
    /// Addresses at which no pod is named, and what the nodes there have said of themselves.
    unnamed: BTreeSet<SocketAddr>,
    who: BTreeMap<SocketAddr, Result<HostId, String>>,
    /// Pods of other clusters.
    foreign: BTreeSet<Stranger>,
    /// Which StatefulSets own Pods, and whom the slices show that none does.
    owners: Owners,
    disowned: BTreeSet<Disowned>,
    /// Pods without an address of the configured family.
    other_family: BTreeSet<Stranger>,
    /// When it was last concluded.
    settled: Option<SystemTime>,
}

impl Fold {
    /// `family`: addresses of the other one are nobody's.
    pub fn new(timing: Timing, family: Option<Family>) -> Self {
        Self { timing, family, ..Self::default() }
    }

    /// True once the Service's endpoints have been listed.
    pub fn is_listed(&self) -> bool {
        self.slices.lists() > 0
    }

    /// Whether the API is heard.
    pub fn see_api(&mut self, away: bool) {
        self.api_away = away;
    }

    /// Takes over who was known before this process began, all of them in doubt until a list or a probe speaks.
    pub fn restore(&mut self, members: impl IntoIterator<Item = (NodeId, Member)>) {
        for (id, member) in members {
            let presence = Presence::Doubted;
            self.withdrawn.insert(id.clone(), Withdrawn::List(ListWord { number: 0, since: None }));
            let (place, moved) = (Place::default(), None);
            self.known.insert(
                id,
                Known { member, presence, heard: false, moved, place, shown: None, answered: true, ours: false },
            );
        }
    }

    pub fn see_slice(&mut self, seen: Seen<Slice>) {
        let deleted = matches!(seen, Seen::Delete(_));
        let changed = self.slices.apply(seen);
        if changed == Changed::Nothing {
            return;
        }
        self.news += 1;
        let said = ListWord { number: self.slices.lists(), since: None };
        let how = match (changed, deleted) {
            (Changed::Whole, _) => Withdrawn::List(said),
            (_, true) => Withdrawn::Slice,
            _ => Withdrawn::Told,
        };
        if changed == Changed::Whole {
            self.whole_slices = self.news;
        }
        self.gather();
        self.choose(how);
        if changed == Changed::Whole {
            // Of those of an earlier process this is the first list that lacks them; and where there are other slices, a deleted
            // one was not that of a Service that is gone.
            let has_slices = self.slices.iter().next().is_some();
            let earlier = |of: &&mut Withdrawn| match of {
                Withdrawn::List(said) => said.number == 0,
                Withdrawn::Slice => has_slices,
                Withdrawn::Told => false,
            };
            self.withdrawn.values_mut().filter(earlier).for_each(|of| *of = how);
        }
    }

    /// Chooses anew among the pods of each name; whoever is no longer among them was withdrawn in this way.
    fn choose(&mut self, how: Withdrawn) {
        let before = std::mem::take(&mut self.chosen);
        self.sift();
        let mut now = Cursor::new(&self.chosen);
        let lost = before.into_keys().filter(|id| now.at(id).is_none());
        self.withdrawn.extend(lost.map(|id| (id, how)));
        self.withdrawn.extend(self.disowned.iter().map(|of| (of.id.clone(), Withdrawn::Told)));
        let chosen = &self.chosen;
        self.withdrawn.retain(|id, _| !chosen.contains_key(id));
    }

    pub fn see_pod(&mut self, seen: Seen<PodObject>) {
        let deleted = match &seen {
            Seen::Delete(name) => Some(NodeId::new(name)),
            _ => None,
        };
        let changed = self.pods.apply(seen);
        if changed == Changed::Nothing {
            return;
        }
        self.news += 1;
        self.owners.learn(&self.pods);
        if let Some(object) = deleted.and_then(|id| self.objects.get_mut(&id)) {
            object.exists = false;
            object.news = self.news;
        }
        for (name, object) in self.pods.iter() {
            let id = NodeId::new(name);
            let before = self.objects.get(&id);
            let same =
                before.filter(|b| b.exists && b.object.uid == object.uid && b.object.addresses == object.addresses);
            let news = same.map_or(self.news, |before| before.news);
            let since = before.filter(|b| b.object.uid == object.uid).map_or(self.news, |before| before.since);
            self.objects.insert(id, Object { object: object.clone(), exists: true, since, news });
        }
        if changed == Changed::Whole {
            self.whole_pods = self.news;
            // Not listed is not deleted: of these the slices alone speak, until a watch does.
            let pods = &self.pods;
            self.objects.retain(|id, _| pods.get(&id.0).is_some());
        }
        if !self.unnamed.is_empty() {
            self.gather();
        }
        self.choose(Withdrawn::Told);
    }

    /// Pods may not be watched any longer: what they said last is no testimony. False where they had said nothing.
    pub fn forget_pods(&mut self) -> bool {
        let heard = self.pods.lists() > 0;
        (self.pods, self.owners) = (Listing::default(), Owners::default());
        self.objects.clear();
        self.choose(Withdrawn::Told);
        heard
    }

    /// Concludes who is a member and where. `answers` says whether a node's probe is answered at an address.
    pub fn settle(&mut self, now: SystemTime, answers: impl Fn(&NodeId, SocketAddr) -> bool) {
        if !self.is_listed() {
            return;
        }
        if self.api_away {
            self.heard_since = None;
        } else {
            self.heard_since.get_or_insert(now);
        }
        for withdrawn in self.withdrawn.values_mut() {
            if let Withdrawn::List(said) = withdrawn {
                said.since.get_or_insert(now);
            }
        }
        let (known, other_family) = self.conclude(now, answers);
        self.known = known;
        let left = self.known.iter().filter(|(id, known)| self.leaves_at(id, known).is_some_and(|at| at <= now));
        let left: Vec<NodeId> = left.map(|(id, _)| id.clone()).collect();
        for id in left {
            self.known.remove(&id);
            self.withdrawn.remove(&id);
        }
        let (known, chosen) = (&self.known, &self.chosen);
        self.objects.retain(|id, object| object.exists || known.contains_key(id) || chosen.contains_key(id));
        self.other_family = other_family;
        self.settled = Some(now);
    }

    /// Other addresses of nodes that have been silent for a while: to be asked, and told to [`Self::see_answer`].
    pub fn elsewhere(&self) -> impl Iterator<Item = (&NodeId, &Member, SocketAddr)> {
        let due = |known: &Known| self.asked_at(known).is_some_and(|at| Some(at) <= self.settled);
        let asked = self.known.iter().filter(move |(_, known)| known.presence == Presence::Here && due(known));
        asked.flat_map(|(id, known)| known.place.others().iter().map(move |at| (id, &known.member, *at)))
    }

    /// A node answers at one of its other addresses.
    pub fn see_answer(&mut self, id: &NodeId, address: SocketAddr) {
        if let Some(known) = self.known.get_mut(id) {
            known.place.note(address);
        }
    }

    fn asked_at(&self, known: &Known) -> Option<SystemTime> {
        known.place.asked_at(self.timing.elsewhere)
    }

    pub fn members(&self) -> impl Iterator<Item = (&NodeId, &Member)> {
        self.known.iter().map(|(id, known)| (id, &known.member))
    }

    /// Endpoints that are no nodes.
    pub fn strangers(&self) -> impl Iterator<Item = &Stranger> {
        self.strangers.iter().chain(&self.foreign).chain(&self.other_family)
    }
}

#[cfg(test)]
mod tests;
