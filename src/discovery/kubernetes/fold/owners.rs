//! Whose pods a set's pods are. A pod of a StatefulSet's name that anybody may have made, with the Service's labels, is none of its
//! pods: what tells them apart is the uid of their controller. Only a pod whose creator did not copy that is met by this.
//!
//! The uid that counts is that of most pods, and then of the lowest ordinal: one pod that came first keeps nobody out. It counts for
//! as long as a pod of it is there that is not being deleted, so that a StatefulSet made anew under the same name has its turn
//! after the former one. Pods that end, and pods that lose their owner, stay what they were: so a StatefulSet is made anew around
//! pods that go on.
//!
//! Where no pod of a set that stays has such an owner (another kind of controller, pods made by hand) all are its pods; but beside
//! sets that are owned one that nothing but a hand made is none.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::topology::NodeId;

use super::super::listing::Listing;
use super::super::objects::PodObject;
use super::super::slices::{Offer, split};
use super::Fold;

/// A uid as the API server makes them is so long; whoever makes a pod may write anything there.
const UID: usize = 36;

/// Of each set whose pods a StatefulSet owns: which one counts.
#[derive(Clone, Debug, Default)]
pub struct Owners {
    sets: BTreeMap<Arc<str>, Owner>,
    /// Pods that were its own: their uid, and whether it had several then.
    theirs: BTreeMap<NodeId, (Option<Arc<str>>, bool)>,
    /// Pods that are none of their set's: their uid, and why.
    refused: BTreeMap<NodeId, (Option<Arc<str>>, String)>,
}

#[derive(Clone, Debug)]
struct Owner {
    uid: Arc<str>,
    /// The most pods that it has had at the same time.
    most: usize,
}

/// A pod that is not of the StatefulSet whose name it has.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Disowned {
    pub id: NodeId,
    pub address: SocketAddr,
    pub why: String,
}

impl Owners {
    /// Looks at all Pods that there are.
    pub fn learn(&mut self, pods: &Listing<PodObject>) {
        let mut of_sets: BTreeMap<&str, Vec<(&str, u32, &PodObject)>> = BTreeMap::new();
        for (name, pod) in pods.iter() {
            if let Some((set, ordinal)) = split(name) {
                of_sets.entry(set).or_default().push((name, ordinal, pod));
            }
        }
        self.refused.clear();
        self.theirs.retain(|id, (uid, _)| pods.get(&id.0).is_some_and(|pod| pod.uid == *uid));
        self.sets.retain(|set, _| of_sets.contains_key(&**set));
        let mut ownerless = Vec::new();
        let mut owned = 0;
        for (set, pods) in of_sets {
            match self.owner(set, &pods) {
                Some((owner, count)) => {
                    self.judge(set, &owner, &pods);
                    self.sets.insert(set.into(), owner);
                    owned += count;
                }
                None => {
                    self.sets.remove(set);
                    // All of them end, and were a StatefulSet's when they were first heard of.
                    let end = pods.iter().filter(|(_, _, pod)| pod.ending && pod.set_uid.is_some());
                    let end = end.map(|(name, _, pod)| (NodeId::new(name), pod.uid.clone()));
                    for (id, uid) in end {
                        self.theirs.entry(id).or_insert((uid, false));
                    }
                    ownerless.extend(pods);
                }
            }
        }
        // One pod that says that it is owned speaks against nobody.
        if owned > 1 {
            ownerless.iter().for_each(|(name, _, pod)| self.judge_alone(name, pod));
        }
    }

    /// Whose pods count, and how many it has.
    fn owner(&self, set: &str, pods: &[(&str, u32, &PodObject)]) -> Option<(Owner, usize)> {
        let stay = pods.iter().filter(|(_, _, pod)| !pod.ending);
        let mut counts: BTreeMap<&Arc<str>, (usize, Reverse<u32>)> = BTreeMap::new();
        for (ordinal, uid) in stay.filter_map(|(_, ordinal, pod)| Some((*ordinal, pod.set_uid.as_ref()?))) {
            let (count, lowest) = counts.entry(uid).or_insert((0, Reverse(ordinal)));
            *count += 1;
            *lowest = Reverse(lowest.0.min(ordinal));
        }
        let before = self.sets.get(set);
        let stays = |before: &&Owner| {
            before.most > 1
                && counts.contains_key(&before.uid)
                && counts.values().all(|(count, _)| *count <= before.most)
        };
        let most = counts.iter().max_by_key(|(_, count)| **count).map(|(uid, _)| *uid);
        let uid = Arc::clone(before.filter(stays).map(|before| &before.uid).or(most)?);
        let count = counts.get(&uid).map_or(0, |(count, _)| *count);
        let most = before.filter(|before| before.uid == uid).map_or(count, |before| before.most.max(count));
        Some((Owner { uid, most }, count))
    }

    fn judge(&mut self, set: &str, owner: &Owner, pods: &[(&str, u32, &PodObject)]) {
        for (name, _, pod) in pods {
            let id = NodeId::new(name);
            if pod.set_uid.as_ref() == Some(&owner.uid) {
                let (_, of_several) = self.theirs.entry(id).or_insert((pod.uid.clone(), false));
                *of_several |= owner.most > 1;
                continue;
            }
            let of_several = self.theirs.get(&id).map(|(_, of_several)| *of_several);
            if pod.ending && of_several.is_some() || pod.set_uid.is_none() && of_several == Some(true) {
                continue;
            }
            let whose = match pod.set_uid {
                None => format!("owned by no StatefulSet {set}"),
                Some(_) => format!("of another StatefulSet {set}"),
            };
            let uid: String = owner.uid.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').take(UID).collect();
            let why = format!("pod {name} is {whose}; the others of {set} are StatefulSet {set}'s (uid {uid})");
            self.refused.insert(id, (pod.uid.clone(), why));
        }
    }

    /// One of a set that nobody owns, beside others that StatefulSets do.
    fn judge_alone(&mut self, name: &str, pod: &PodObject) {
        let id = NodeId::new(name);
        if pod.by_hand && !self.theirs.contains_key(&id) {
            let why = format!("pod {name} is owned by no controller; others behind the Service are StatefulSets'");
            self.refused.insert(id, (pod.uid.clone(), why));
        }
    }

    /// Why the pod of this name and uid is none of its set's, if it is not.
    pub fn refused(&self, id: &NodeId, uid: Option<&Arc<str>>) -> Option<&str> {
        self.refused.get(id).filter(|(of, _)| of.as_ref() == uid).map(|(_, why)| why.as_str())
    }

    /// Whose pod is none of its set's.
    pub fn refusals(&self) -> impl Iterator<Item = &NodeId> {
        self.refused.keys()
    }

    fn owns(&self, id: &NodeId, pod: &PodObject) -> bool {
        let owner = split(&id.0).and_then(|(set, _)| self.sets.get(set));
        owner.is_some_and(|owner| pod.set_uid.as_ref() == Some(&owner.uid))
    }
}

impl Fold {
    /// Why a pod that the slices show is none of its set's, if it is not.
    pub(super) fn disowns(&self, id: &NodeId, life: &Offer) -> Option<&str> {
        if self.owners.refused.is_empty() {
            return None;
        }
        let object = self.pods.get(&id.0)?;
        let uid = object.uid.as_ref();
        let is_it = match &life.endpoint.uid {
            Some(shown) => uid == Some(shown),
            None => life.places.iter().any(|at| object.addresses.contains(&at.ip())),
        };
        self.owners.refused(id, uid).filter(|_| is_it)
    }

    /// Whether the Pod of this name, as it is now, is none of its set's.
    pub(super) fn is_disowned(&self, id: &NodeId) -> bool {
        self.pods.get(&id.0).is_some_and(|pod| self.owners.refused(id, pod.uid.as_ref()).is_some())
    }

    /// Pods in slices that are not of the StatefulSet whose name they have.
    pub fn disowned(&self) -> impl Iterator<Item = &Disowned> {
        self.sifted.disowned.iter()
    }

    /// Where members live whose StatefulSet owns them, by what their Pods say. Not those that end: a pod with all the labels of a
    /// StatefulSet's pods, and a name that it does not want, is adopted by it to be deleted.
    pub fn owned(&self) -> impl Iterator<Item = SocketAddr> {
        let owned = |(id, member): (&NodeId, &super::Member)| {
            let pod = self.pods.get(&id.0).filter(|pod| self.owners.owns(id, pod) && !pod.ending)?;
            pod.addresses.contains(&member.address.ip()).then_some(member.address)
        };
        self.members().filter_map(owned)
    }
}
