//! The world of the simulation: pods as they are, and what the API has said of them.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use super::super::listing::Seen;
use super::super::objects::PodObject;
use super::super::random::Random;
use super::super::slices::{Endpoint, Origin, Slice};
use crate::topology::HostId;

const SETS: [&str; 2] = ["a", "b"];
const MOST_PODS: u64 = 3;

/// A pod as it is, which nobody knows but itself.
#[derive(Clone, Debug)]
pub struct Pod {
    pub uid: u64,
    pub address: Option<[u8; 4]>,
    /// Its node answers.
    pub alive: bool,
    ready: bool,
    terminating: bool,
    /// The uid of the StatefulSet that owns it.
    owner: Option<u64>,
}

/// What is, and what the API has said of it so far.
#[derive(Default)]
pub struct Cluster {
    pub pods: BTreeMap<String, Pod>,
    wanted: [u64; SETS.len()],
    /// The uids of the StatefulSets: each may be made anew.
    owners: [u64; SETS.len()],
    /// Where pods of a name have lived: the next one lives elsewhere, or what is heard late of one would be true of the other.
    former: BTreeMap<String, Vec<[u8; 4]>>,
    lives: u64,
    /// Decides which pods share a slice.
    packing: u64,
    pub slices: BTreeMap<String, Slice>,
    pub objects: BTreeMap<String, PodObject>,
    pub said_of_slices: Vec<Seen<Slice>>,
    pub said_of_pods: Vec<Seen<PodObject>>,
}

impl Cluster {
    pub fn new() -> Self {
        Self { wanted: [3, 2], ..Self::default() }
    }

    /// One thing happens, to a pod or to what is said of pods. `known`: the owners of pods may change.
    pub fn step(&mut self, random: &mut Random, known: bool) {
        let names: Vec<String> = self.pods.keys().cloned().collect();
        match random.below(14) {
            0 => self.wanted[random.below(SETS.len() as u64) as usize] = 1 + random.below(MOST_PODS),
            1 | 2 => self.control(),
            3 | 4 => self.slice_up(),
            5 => self.packing = random.below(3),
            12 if known && random.percent(10) => self.make_anew(random),
            13 => {
                let Some(name) = random.one_of(&names) else { return };
                self.adopt(&name);
            }
            what => {
                let Some(name) = random.one_of(&names) else { return };
                let address = self.free(random, &name);
                let Some(pod) = self.pods.get_mut(&name) else { return };
                match what {
                    6 if random.percent(40) => pod.terminating = true,
                    7 if random.percent(40) => (pod.alive, pod.ready) = (false, false),
                    8 if pod.terminating && !pod.alive => {
                        self.former.entry(name.clone()).or_default().extend(pod.address);
                        self.pods.remove(&name);
                    }
                    9 => pod.address = pod.address.or(address),
                    10 => pod.alive |= pod.address.is_some() && !pod.terminating,
                    _ => pod.ready = pod.alive,
                }
                self.tell_pod(&name);
            }
        }
    }

    /// An address that no pod has, and no pod of that name had.
    fn free(&self, random: &mut Random, name: &str) -> Option<[u8; 4]> {
        let taken: BTreeSet<_> = self
            .pods
            .values()
            .filter_map(|pod| pod.address)
            .chain(self.former.get(name).into_iter().flatten().copied())
            .collect();
        let free: Vec<_> = (1..20).map(|last| [10, 0, 0, last]).filter(|at| !taken.contains(at)).collect();
        random.one_of(&free)
    }

    /// The StatefulSet controller makes the pods that there should be, and ends those that there should not.
    fn control(&mut self) {
        for ((set, wanted), owner) in SETS.into_iter().zip(self.wanted).zip(self.owners) {
            for name in self.names_of(set) {
                self.adopt(&name);
            }
            for ordinal in 0..=MOST_PODS {
                let name = format!("{set}-{ordinal}");
                if ordinal >= wanted {
                    self.pods.get_mut(&name).into_iter().for_each(|pod| pod.terminating = true);
                } else if !self.pods.contains_key(&name) {
                    self.lives += 1;
                    let uid = self.lives;
                    let pod =
                        Pod { uid, address: None, alive: false, ready: false, terminating: false, owner: Some(owner) };
                    self.pods.insert(name.clone(), pod);
                }
                self.tell_pod(&name);
            }
        }
    }

    /// A StatefulSet is deleted, with its pods or without them, and another one of its name is made.
    fn make_anew(&mut self, random: &mut Random) {
        let (at, with_pods) = (random.below(SETS.len() as u64) as usize, random.percent(50));
        self.owners[at] += 1;
        for name in self.names_of(SETS[at]) {
            let Some(pod) = self.pods.get_mut(&name) else { continue };
            pod.terminating |= with_pods;
            pod.owner = pod.owner.filter(|_| pod.terminating);
            self.tell_pod(&name);
        }
    }

    /// A pod without an owner gets the StatefulSet of its name for one.
    fn adopt(&mut self, name: &str) {
        let owner = self.owners[usize::from(!name.starts_with(SETS[0]))];
        if let Some(pod) = self.pods.get_mut(name).filter(|pod| !pod.terminating) {
            pod.owner.get_or_insert(owner);
            self.tell_pod(name);
        }
    }

    fn names_of(&self, set: &str) -> Vec<String> {
        self.pods.keys().filter(|name| name.starts_with(set)).cloned().collect()
    }

    fn tell_pod(&mut self, name: &str) {
        let object = self.pods.get(name).map(|pod| PodObject {
            uid: Some(pod.uid.to_string().into()),
            addresses: pod.address.into_iter().map(Into::into).collect(),
            stateful_set: name.split('-').next().filter(|_| pod.owner.is_some()).map(Into::into),
            set_uid: pod.owner.map(|uid| format!("{}{uid}", &name[..1]).into()),
            by_hand: false,
            ending: pod.terminating,
        });
        if self.objects.get(name) == object.as_ref() {
            return;
        }
        self.said_of_pods.push(match &object {
            Some(object) => Seen::Apply(name.to_owned(), object.clone()),
            None => Seen::Delete(name.to_owned()),
        });
        match object {
            Some(object) => _ = self.objects.insert(name.to_owned(), object),
            None => _ = self.objects.remove(name),
        }
    }

    /// The EndpointSlice controller catches up.
    pub fn slice_up(&mut self) {
        let mut slices: BTreeMap<String, Slice> = BTreeMap::new();
        for (name, pod) in &self.pods {
            let Some(address) = pod.address else { continue };
            let slice = match self.packing {
                0 => "s0".to_owned(),
                1 => format!("s{}", pod.uid % 2),
                _ => format!("s{}", name.len() + name.as_bytes()[0] as usize % 3),
            };
            slices
                .entry(slice)
                .or_insert_with(|| Slice { port: Some(9042), origin: Origin::Controller, endpoints: Vec::new() })
                .endpoints
                .push(Endpoint {
                    address: address.into(),
                    pod: Some(name.as_str().into()),
                    uid: Some(pod.uid.to_string().into()),
                    hostname: Some(name.as_str().into()),
                    serving: pod.ready,
                    terminating: pod.terminating,
                    zone: None,
                });
        }
        let changed = slices.iter().filter(|(name, slice)| self.slices.get(*name) != Some(slice));
        self.said_of_slices.extend(changed.map(|(name, slice)| Seen::Apply(name.clone(), slice.clone())));
        let deleted = self.slices.keys().filter(|name| !slices.contains_key(*name));
        self.said_of_slices.extend(deleted.cloned().map(Seen::Delete));
        self.slices = slices;
    }

    /// All that was begun comes to its end: what is to go is gone, and every pod that there should be answers.
    pub fn end(&mut self, random: &mut Random) {
        for _ in 0..4 {
            self.control();
            for name in self.pods.keys().cloned().collect::<Vec<_>>() {
                let address = self.free(random, &name);
                let Some(pod) = self.pods.get_mut(&name) else { continue };
                if pod.terminating {
                    self.former.entry(name.clone()).or_default().extend(pod.address);
                    self.pods.remove(&name);
                } else {
                    pod.address = pod.address.or(address);
                    (pod.alive, pod.ready) = (true, true);
                }
                self.tell_pod(&name);
            }
            self.slice_up();
        }
    }

    /// Who answers there.
    pub fn at(&self, address: [u8; 4]) -> Option<(&String, &Pod)> {
        self.pods.iter().find(|(_, pod)| pod.alive && pod.address == Some(address))
    }
}

pub fn host_id(name: &str) -> HostId {
    HostId(Uuid::from_u128(name.bytes().fold(0, |sum, byte| sum * 256 + u128::from(byte))))
}

pub fn list<T: Clone>(all: &BTreeMap<String, T>, has: impl Fn(&str) -> bool) -> Vec<Seen<T>> {
    let objects = all.iter().filter(|(name, _)| has(name));
    let objects = objects.map(|(name, object)| Seen::InitApply(name.clone(), object.clone()));
    [Seen::Init].into_iter().chain(objects).chain([Seen::InitDone]).collect()
}
