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
mod nameless;
mod owners;
mod places;
mod sift;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::SystemTime;

use uuid::Uuid;

use crate::topology::input::Listed;
use crate::topology::{HostId, Node, NodeId, NodeState};

use super::listing::{Changed, Listing, Seen};
use super::objects::PodObject;
use super::slices::{Offer, Offers, Origin, Slice};
use super::timing::Timing;
use crate::config::kubernetes::Family;
use cursor::Cursor;
use doubt::ListWord;
use owners::Owners;
use places::Place;
use sift::{Choice, Sifted};

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
    /// It is being ended.
    pub leaving: bool,
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
    offers: Offers,
    sifted: Sifted,
    /// Pods that are in no slice any more.
    withdrawn: BTreeMap<NodeId, Withdrawn>,
    objects: BTreeMap<NodeId, Object>,
    known: BTreeMap<NodeId, Known>,
    /// Which StatefulSets own Pods.
    owners: Owners,
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
        let Changed::One(name, before) = changed else {
            self.whole_slices = self.news;
            self.read_slices();
            let how = Withdrawn::List(ListWord { number: self.slices.lists(), since: None });
            self.choose(how, None);
            return self.withdraw_by_list(how);
        };
        let names = self.offers.read_again(&name, before.as_ref(), &self.slices, self.news);
        if names.is_none() {
            self.read_slices();
        }
        self.choose(if deleted { Withdrawn::Slice } else { Withdrawn::Told }, names);
    }

    /// Of those of an earlier process this is the first list that lacks them; and where there are other slices, a deleted one was
    /// not that of a Service that is gone.
    fn withdraw_by_list(&mut self, how: Withdrawn) {
        let has_slices = self.slices.iter().next().is_some();
        let earlier = |of: &&mut Withdrawn| match of {
            Withdrawn::List(said) => said.number == 0,
            Withdrawn::Slice => has_slices,
            Withdrawn::Told => false,
        };
        self.withdrawn.values_mut().filter(earlier).for_each(|of| *of = how);
    }

    fn read_slices(&mut self) {
        self.offers.read(&self.slices, &self.pods, self.news);
    }

    /// Chooses anew among the pods of `names` and of the odd ones, or of all; of whom no pod is left was withdrawn in this way.
    fn choose(&mut self, how: Withdrawn, names: Option<BTreeSet<NodeId>>) {
        let Sifted { mut chosen, rivals, odd, .. } = std::mem::take(&mut self.sifted);
        let mut sifted = Sifted { rivals, ..Sifted::default() };
        let mut lost = Vec::new();
        match names {
            Some(names) => {
                for id in names.into_iter().chain(odd) {
                    match self.offers.lives().get(&id).and_then(|lives| self.choose_one(&id, lives, &mut sifted)) {
                        Some(choice) => _ = chosen.insert(id, choice),
                        None => lost.extend(chosen.remove(&id).map(|_| id)),
                    }
                }
            }
            None => {
                let lives = self.offers.lives().iter();
                let some = lives.filter_map(|(id, of)| Some((id.clone(), self.choose_one(id, of, &mut sifted)?)));
                let some: Vec<_> = some.collect();
                let before = std::mem::replace(&mut chosen, some.into_iter().collect());
                let mut now = Cursor::new(&chosen);
                lost.extend(before.into_keys().filter(|id| now.at(id).is_none()));
            }
        }
        sifted.forget_rivals(&self.slices);
        self.sifted = Sifted { chosen, ..sifted };
        self.withdrawn.extend(lost.into_iter().map(|id| (id, how)));
        let Sifted { chosen, disowned, .. } = &self.sifted;
        self.withdrawn.extend(disowned.iter().map(|of| (of.id.clone(), Withdrawn::Told)));
        self.withdrawn.retain(|id, _| !chosen.contains_key(id));
    }

    /// Nearly always this cluster's controller shows one pod of a name; else there is more to say.
    fn choose_one(&self, id: &NodeId, lives: &[Offer], sifted: &mut Sifted) -> Option<Choice> {
        match lives {
            [life]
                if life.origin == Origin::Controller
                    && !sifted.is_contested(id)
                    && self.disowns(id, life).is_none() =>
            {
                Some(Choice { life: 0, ours: true })
            }
            _ => self.sift(id, lives, sifted),
        }
    }

    pub fn see_pod(&mut self, seen: Seen<PodObject>) {
        let mut names = match self.pods.apply(seen) {
            Changed::Nothing => return,
            Changed::One(name, _) => Some(BTreeSet::from([NodeId::new(&name)])),
            Changed::Whole => None,
        };
        self.news += 1;
        match &names {
            Some(names) => names.iter().for_each(|id| self.see_object(id)),
            None => {
                self.whole_pods = self.news;
                let all: Vec<NodeId> = self.pods.iter().map(|(name, _)| NodeId::new(name)).collect();
                all.iter().for_each(|id| self.see_object(id));
                // Not listed is not deleted: of these the slices alone speak, until a watch does.
                let pods = &self.pods;
                self.objects.retain(|id, _| pods.get(&id.0).is_some());
            }
        }
        if let Some(names) = &mut names {
            names.extend(self.owners.refusals().cloned());
        }
        self.owners.learn(&self.pods);
        if let Some(names) = &mut names {
            names.extend(self.owners.refusals().cloned());
        }
        if self.offers.has_nameless() {
            self.read_slices();
            names = None;
        }
        self.choose(Withdrawn::Told, names);
    }

    /// The Pod of this name as it is now, or that there is none any more.
    fn see_object(&mut self, id: &NodeId) {
        let before = self.objects.get_mut(id);
        let Some(object) = self.pods.get(&id.0) else {
            if let Some(object) = before {
                (object.exists, object.news) = (false, self.news);
            }
            return;
        };
        let of_uid = before.filter(|before| before.object.uid == object.uid);
        let same = of_uid.as_ref().filter(|b| b.exists && b.object.addresses == object.addresses);
        let news = same.map_or(self.news, |before| before.news);
        let since = of_uid.map_or(self.news, |before| before.since);
        self.objects.insert(id.clone(), Object { object: object.clone(), exists: true, since, news });
    }

    /// Pods may not be watched any longer: what they said last is no testimony. False where they had said nothing.
    pub fn forget_pods(&mut self) -> bool {
        let heard = self.pods.lists() > 0;
        (self.pods, self.owners) = (Listing::default(), Owners::default());
        self.objects.clear();
        self.choose(Withdrawn::Told, None);
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
        let (known, chosen) = (&self.known, &self.sifted.chosen);
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
        self.offers.strangers().chain(&self.sifted.foreign).chain(&self.other_family)
    }
}

#[cfg(test)]
mod tests;
