//! Pods that are made, move, crash and go, an API that tells of them late and in pieces, and several replicas of the gateway that
//! hear it each in their own time; everything from one seed. Nothing is played here but the world: what a replica concludes is
//! the fold's, the placement's and the state's own doing.
//!
//! After each step of a replica: no two nodes have one port, no port has moved, and no node that answers where it was known to
//! live is withdrawn. In the end, when all have heard the same, all say the same, and it is true.
//!
//! `CQLGATE_SEED=N` plays one seed, `CQLGATE_SEEDS=N` so many.

mod cluster;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use super::fold::Fold;
use super::listing::Seen;
use super::objects::PodObject;
use super::placement::by_ordinal;
use super::random::Random;
use super::slices::Slice;
use super::timing::Timing;
use crate::config::kubernetes::Kubernetes;
use crate::topology::input::{DeadReason, Found, Identity, Input};
use crate::topology::ports::PortRange;
use crate::topology::state::{Options, State};
use crate::topology::{NodeId, NodeState, Topology};
use cluster::{Cluster, host_id, list};

const SEEDS: u64 = 1000;
const STEPS: usize = 150;
const CONFIG: &str = "service: c\nstatefulSets: [{name: a, ports: 9042-9045}, {name: b, ports: 9046-9049}]\n";

struct Replica {
    fold: Fold,
    state: State,
    config: Kubernetes,
    range: PortRange,
    watches_pods: bool,
    /// How much it has heard of slices and, once it has listed them, of pods.
    heard: (usize, Option<usize>),
    away: bool,
    relist: bool,
    /// Answers of probes on their way, and the life that gave them.
    answers: Vec<(Input, Option<u64>)>,
    /// What was told last, and which port each node has had.
    found: Vec<Found>,
    ports: BTreeMap<NodeId, u16>,
    steps: u32,
}

impl Replica {
    fn new(watches_pods: bool) -> Self {
        let range = PortRange::new(9042, 9049).unwrap();
        Self {
            fold: Fold::new(Timing::default(), None),
            state: State::new(range.clone(), Options::default()),
            config: serde_saphyr::from_str(CONFIG).unwrap(),
            range,
            watches_pods,
            heard: (0, None),
            away: false,
            relist: true,
            answers: Vec::new(),
            found: Vec::new(),
            ports: BTreeMap::new(),
            steps: 0,
        }
    }

    /// Hears, asks or is told something, and concludes.
    fn step(&mut self, random: &mut Random, cluster: &Cluster, now: SystemTime) {
        let before = self.state.topology().clone();
        let mut dead = None;
        self.steps += 1;
        match random.below(10) {
            0 if random.percent(20) => self.away = !self.away,
            1..=3 if !self.away => self.hear_slices(cluster),
            4 | 5 if !self.away && self.watches_pods => self.hear_pods(cluster),
            6 if !self.away && (self.relist || random.percent(20)) => {
                // A server that knows half says so once; what it lacks is asked for again.
                let half = !self.relist && random.percent(50);
                self.list_slices(cluster, half);
            }
            7 | 8 => self.probe(random, cluster),
            _ => {
                if let Some((answer, life)) = self.answers.pop() {
                    dead = self.answered(cluster, answer, life, now);
                }
            }
        }
        self.settle(now);
        self.check(&before, cluster, dead.as_ref());
    }

    fn hear_slices(&mut self, cluster: &Cluster) {
        if self.relist {
            return self.list_slices(cluster, false);
        }
        // A watch that lags catches up within the time that news are given to settle.
        let news = cluster.said_of_slices.iter().skip(self.heard.0);
        news.for_each(|seen| self.see_slice(seen.clone()));
        self.heard.0 = cluster.said_of_slices.len();
    }

    fn list_slices(&mut self, cluster: &Cluster, half: bool) {
        self.relist = half;
        self.heard.0 = cluster.said_of_slices.len();
        list(&cluster.slices, |name| !half || name.ends_with('0')).into_iter().for_each(|seen| self.see_slice(seen));
    }

    fn hear_pods(&mut self, cluster: &Cluster) {
        let heard = self.heard.1.replace(cluster.said_of_pods.len());
        match heard {
            None => list(&cluster.objects, |_| true).into_iter().for_each(|seen| self.see_pod(seen)),
            Some(heard) => {
                cluster.said_of_pods.iter().skip(heard).for_each(|seen| self.see_pod(seen.clone()));
            }
        }
    }

    /// To see that it is read as everything would be costs as much as all the rest: sometimes.
    fn see_slice(&mut self, seen: Seen<Slice>) {
        match self.steps.is_multiple_of(8) {
            true => self.fold.hear_slice(seen),
            false => self.fold.see_slice(seen),
        }
    }

    fn see_pod(&mut self, seen: Seen<PodObject>) {
        match self.steps.is_multiple_of(8) {
            true => self.fold.hear_pod(seen),
            false => self.fold.see_pod(seen),
        }
    }

    /// Asks one of its nodes; the answer is on its way.
    fn probe(&mut self, random: &mut Random, cluster: &Cluster) {
        let nodes: Vec<_> = self.state.topology().nodes.iter().filter(|node| node.present).cloned().collect();
        let Some(node) = random.one_of(&nodes) else { return };
        let std::net::IpAddr::V4(ip) = node.address.ip() else { return };
        let (id, address) = (node.id.clone(), node.address);
        self.answers.insert(
            0,
            match cluster.at(ip.octets()) {
                Some((name, pod)) => {
                    let identity = Identity {
                        cluster_name: Some("c".into()),
                        host_id: Some(host_id(name)),
                        ..Identity::default()
                    };
                    (Input::Alive { id, address, identity }, Some(pod.uid))
                }
                None => (Input::Dead { id, address, reason: DeadReason::Refused }, None),
            },
        );
    }

    /// An answer arrives, unless its connection has ended with the life that gave it. The node that is called dead.
    fn answered(&mut self, cluster: &Cluster, answer: Input, life: Option<u64>, now: SystemTime) -> Option<NodeId> {
        if life.is_some_and(|uid| !cluster.pods.values().any(|pod| pod.uid == uid && pod.alive)) {
            return None;
        }
        let dead = match &answer {
            Input::Dead { id, .. } => Some(id.clone()),
            _ => None,
        };
        self.state.apply(answer, now);
        dead
    }

    fn settle(&mut self, now: SystemTime) {
        let topology = self.state.topology();
        self.fold.see_api(self.away);
        self.fold.settle(now, |id, at| topology.is_up_at(id, at));
        self.relist |= self.fold.asks_again(topology);
        if !self.fold.is_listed() {
            return;
        }
        let found = self.fold.members().map(|(id, member)| Found {
            id: id.clone(),
            address: member.address,
            host: None,
            listed: member.listed,
            confirmed: member.confirmed,
            leaving: member.leaving,
            placement: by_ordinal(id, member, &self.config, &self.range),
            port_why: None,
            host_id: None,
            data_center: None,
            rack: None,
        });
        let found: Vec<Found> = found.collect();
        if found != self.found || self.state.deadline().is_some_and(|at| at <= now) {
            self.state.apply(Input::Nodes(found.clone()), now);
            self.found = found;
        }
    }

    fn check(&mut self, before: &Topology, cluster: &Cluster, dead: Option<&NodeId>) {
        let after = self.state.topology();
        let mut owners = BTreeMap::new();
        for node in &*after.nodes {
            assert_eq!(owners.insert(node.port, &node.id), None, "two nodes at {}", node.port);
            assert_eq!(*self.ports.entry(node.id.clone()).or_insert(node.port), node.port, "{} moved", node.id);
        }
        for node in before.nodes.iter().filter(|node| node.state == NodeState::Up && Some(&node.id) != dead) {
            let lives_there = cluster.pods.get(&*node.id.0).is_some_and(|pod| {
                pod.alive && pod.address.is_some_and(|ip| node.address.ip() == std::net::IpAddr::from(ip))
            });
            let now = after.node_by_id(&node.id);
            let stays = now.is_some_and(|now| now.state == NodeState::Up && now.address == node.address);
            assert!(!lives_there || stays, "{} answers at {} and was withdrawn: {now:?}", node.id, node.address);
        }
    }

    /// Hears all that there is, asks everybody, and waits until nothing is in doubt.
    fn hear_all(&mut self, cluster: &Cluster, now: &mut SystemTime) {
        self.away = false;
        for hours in [0, 0, 0, 0, 0, 0, 0, 25, 0, 0] {
            *now += Duration::from_secs(20 + hours * 3600);
            self.list_slices(cluster, false);
            if self.watches_pods {
                self.hear_pods(cluster);
            }
            self.settle(*now);
            for node in self.state.topology().nodes.iter().filter(|node| node.present).cloned().collect::<Vec<_>>() {
                let std::net::IpAddr::V4(ip) = node.address.ip() else { continue };
                let answer = match cluster.at(ip.octets()) {
                    Some((name, _)) => {
                        let identity = Identity { host_id: Some(host_id(name)), ..Identity::default() };
                        Input::Alive { id: node.id.clone(), address: node.address, identity }
                    }
                    None => Input::Dead { id: node.id.clone(), address: node.address, reason: DeadReason::Refused },
                };
                self.state.apply(answer, *now);
            }
        }
    }

    /// Who is up, with its port and address.
    fn says(&self) -> Vec<(String, u16, String)> {
        let nodes = self.state.topology().nodes.iter().filter(|node| node.state != NodeState::Gone);
        nodes.map(|node| (node.id.to_string(), node.port, format!("{} {:?}", node.address, node.state))).collect()
    }
}

fn play(seed: u64) {
    let mut random = Random::new(seed);
    let mut cluster = Cluster::new();
    let mut replicas = [true, true, false].map(Replica::new);
    let mut now = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
    for _ in 0..STEPS {
        // Whoever lists Pods for the first time while a StatefulSet is made anew cannot tell whose they were.
        let known = replicas.iter().all(|replica| !replica.watches_pods || replica.heard.1.is_some());
        cluster.step(&mut random, known);
        for replica in &mut replicas {
            if random.percent(70) {
                replica.step(&mut random, &cluster, now);
            }
        }
        now += Duration::from_millis(random.below(8000));
    }
    cluster.end(&mut random);
    let first = |name: &str| if name.starts_with('a') { 9042 } else { 9046 };
    let port = |name: &str| first(name) + name[2..].parse::<u16>().unwrap();
    let mut truth: Vec<_> = cluster
        .pods
        .iter()
        .map(|(name, pod)| {
            (name.clone(), port(name), format!("{}:9042 Up", std::net::IpAddr::from(pod.address.unwrap())))
        })
        .collect();
    truth.sort_by_key(|(_, port, _)| *port);
    for replica in &mut replicas {
        replica.hear_all(&cluster, &mut now.clone());
        assert_eq!(replica.says(), truth, "a replica that watches pods: {}", replica.watches_pods);
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

#[test]
fn replicas_that_hear_late_withdraw_nobody_move_nothing_and_agree() {
    if let Some(seed) = number("CQLGATE_SEED") {
        return play(seed);
    }
    let (seeds, next) = (number("CQLGATE_SEEDS").unwrap_or(SEEDS), AtomicU64::new(0));
    let play_some = || {
        while let Some(seed) = Some(next.fetch_add(1, Relaxed)).filter(|seed| *seed < seeds) {
            if let Err(failed) = std::panic::catch_unwind(|| play(seed)) {
                eprintln!("CQLGATE_SEED={seed} plays it again");
                next.store(seeds, Relaxed);
                std::panic::resume_unwind(failed);
            }
        }
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| (0..cores).for_each(|_| _ = scope.spawn(play_some)));
}
