//! Two or three replicas with views that lag by themselves, StatefulSets that grow, shrink and restart, and a store with
//! conflicts and failures; everything from one seed. After each step the claims of all of them are held side by side.

use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::time::{Duration, SystemTime};

use super::memory::{Broken, Fault, Memory};
use super::*;
use crate::discovery::kubernetes::random::Random;

const SEEDS: u64 = 1000;
const STEPS: usize = 200;
const QUARANTINE: Duration = Duration::from_secs(3600);
/// No view is older.
const MAX_LAG: Duration = Duration::from_secs(3600 / 4 - 60);
const MAX_SKEW: u64 = 5;
/// More than anybody waits between two tries.
const LONGEST_WAIT: Duration = Duration::from_secs(2);
/// No request takes longer; who asked has given up by then.
const MAX_FLIGHT: Duration = Duration::from_secs(60);
const GONE_AFTER: Duration = Duration::from_secs(60);

/// The pods that exist: StatefulSet and ordinal.
type Pods = BTreeSet<(&'static str, u32)>;

/// The cluster as it is: how many pods each StatefulSet wants, and which are away for a restart.
struct Cluster {
    wanted: Vec<(&'static str, u32)>,
    away: Pods,
    /// Every state so far, with its time; views are indexes.
    history: Vec<(SystemTime, Pods)>,
}

impl Cluster {
    fn step(&mut self, random: &mut Random, now: SystemTime) {
        let which = random.below(self.wanted.len() as u64) as usize;
        let (set, count) = self.wanted[which];
        match random.below(4) {
            0 => self.wanted[which].1 = (count + 1 + random.below(3) as u32).min(5),
            1 => self.wanted[which].1 = count.saturating_sub(1 + random.below(3) as u32),
            2 if count > 0 => _ = self.away.insert((set, random.below(u64::from(count)) as u32)),
            _ => self.away.clear(),
        }
        self.record(now);
    }

    fn record(&mut self, now: SystemTime) {
        let all = self.wanted.iter().flat_map(|&(set, count)| (0..count).map(move |ordinal| (set, ordinal)));
        let pods: Pods = all.filter(|pod| !self.away.contains(pod)).collect();
        self.history.push((now, pods));
    }

    /// The oldest view that is not too old.
    fn oldest(&self, now: SystemTime) -> usize {
        // A state is seen for as long as it lasts: it ends with the next one.
        let ends = self.history.iter().skip(1).map(|(from, _)| *from);
        ends.take_while(|end| now.duration_since(*end).unwrap_or_default() > MAX_LAG).count()
    }
}

type Flight = Pin<Box<dyn Future<Output = (Agreement<Memory>, Agreed)>>>;

struct Replica {
    store: Memory,
    agreement: Agreement<Memory>,
    flight: Option<(SystemTime, Flight)>,
    view: usize,
    /// Since when its view has been without these pods, which it knows of.
    absent: BTreeMap<NodeId, SystemTime>,
    present: Vec<Member>,
    /// Those that it has seen, by name.
    met: BTreeMap<NodeId, Member>,
    /// It counts those as present that are away for a moment only.
    is_patient: bool,
    announced: BTreeMap<NodeId, u16>,
    unplaced: BTreeSet<NodeId>,
    skew: Duration,
}

impl Replica {
    fn clock(&self, now: SystemTime) -> SystemTime {
        now + self.skew
    }

    fn look(&mut self, cluster: &Cluster, view: usize, now: SystemTime, terms: &Terms) {
        self.view = view;
        let pods = &cluster.history[view].1;
        let first = pods.first().map(|(set, _)| *set);
        let member = |&(set, ordinal): &(&'static str, u32)| {
            let prefers = (first == Some(set)).then_some(terms.range.first() + ordinal as u16);
            Member { id: NodeId::new(&format!("{set}-{ordinal}")), stateful_set: set.into(), ordinal, prefers }
        };
        self.present = pods.iter().map(member).collect();
        self.met.extend(self.present.iter().map(|member| (member.id.clone(), member.clone())));
        let clock = self.clock(now);
        let known = self.announced.keys().chain(self.agreement.ledger().entries().keys());
        for id in known {
            self.absent.entry(id.clone()).or_insert(clock);
        }
        self.absent.retain(|id, _| !self.present.iter().any(|member| member.id == *id));
        // Who is gone is announced no longer.
        let gone = self.gone(now);
        self.announced.retain(|id, _| !gone.contains(id));
    }

    fn gone(&self, now: SystemTime) -> Vec<NodeId> {
        let clock = self.clock(now);
        let long = |since: &SystemTime| clock.duration_since(*since).unwrap_or_default() >= GONE_AFTER;
        self.absent.iter().filter(|(_, since)| long(since)).map(|(id, _)| id.clone()).collect()
    }

    fn ask(&mut self, now: SystemTime) {
        let (mut present, gone, clock) = (self.present.clone(), self.gone(now), self.clock(now));
        if self.is_patient {
            let away = self.met.values().filter(|member| self.absent.contains_key(&member.id));
            present.extend(away.filter(|member| !gone.contains(&member.id)).cloned());
        }
        let mut agreement = self.agreement.clone();
        let flight = async move {
            let agreed = agreement.settle(&present, &gone, clock).await;
            (agreement, agreed)
        };
        self.flight = Some((now, Box::pin(flight)));
    }

    /// One step of the request that is under way.
    async fn poll(&mut self) {
        let Some((_, flight)) = &mut self.flight else { return };
        let Poll::Ready((agreement, agreed)) = poll_fn(|context| Poll::Ready(flight.as_mut().poll(context))).await
        else {
            return;
        };
        self.flight = None;
        self.agreement = agreement;
        let here = |id: &NodeId| self.present.iter().any(|member| member.id == *id);
        let announced = &self.announced;
        self.announced = agreed.ports.into_iter().filter(|(id, _)| here(id) || announced.contains_key(id)).collect();
        self.unplaced = agreed.unplaced.into_keys().collect();
    }

    async fn finish(&mut self) {
        while self.flight.is_some() {
            tokio::time::advance(LONGEST_WAIT).await;
            self.poll().await;
        }
    }
}

struct World {
    random: Random,
    now: SystemTime,
    terms: Terms,
    cluster: Cluster,
    store: Memory,
    replicas: Vec<Replica>,
}

impl World {
    fn new(seed: u64, broken: Broken) -> Self {
        let mut random = Random::new(seed);
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let range = PortRange::new(9042, 9042 + 5 + random.below(8) as u32).unwrap();
        let quarantine = if broken == Broken::Quarantine { Duration::ZERO } else { QUARANTINE };
        let terms = Terms { range, quarantine, pins: BTreeMap::new() };
        // A quarantine begins by one clock, somewhat before it is stored, and ends by another.
        let at_least = QUARANTINE - MAX_FLIGHT - Duration::from_secs(MAX_SKEW);
        let store = Memory::new(broken, at_least);
        let sets = ["rack-a", "rack-b", "rack-c"];
        let wanted = sets[..2 + random.below(2) as usize].iter().map(|set| (*set, random.below(4) as u32)).collect();
        let mut cluster = Cluster { wanted, away: Pods::new(), history: Vec::new() };
        cluster.record(now);
        let mut world = Self { random, now, terms, cluster, store, replicas: Vec::new() };
        for _ in 0..2 + world.random.below(2) {
            let replica = world.started();
            world.replicas.push(replica);
        }
        world
    }

    /// A replica that has just started: it knows nothing.
    fn started(&mut self) -> Replica {
        let store = self.store.another();
        let mut replica = Replica {
            agreement: Agreement::new(store.clone(), self.terms.clone(), Ledger::default()),
            store,
            flight: None,
            view: 0,
            absent: BTreeMap::new(),
            present: Vec::new(),
            met: BTreeMap::new(),
            is_patient: self.random.percent(50),
            announced: BTreeMap::new(),
            unplaced: BTreeSet::new(),
            skew: Duration::from_secs(self.random.below(MAX_SKEW + 1)),
        };
        let view = self.later_view(0);
        replica.look(&self.cluster, view, self.now, &self.terms);
        replica
    }

    /// A view between `view`, or the oldest there may be, and the latest.
    fn later_view(&mut self, view: usize) -> usize {
        let from = view.max(self.cluster.oldest(self.now));
        let newer = self.cluster.history.len() - from;
        from + self.random.below(newer as u64) as usize
    }

    async fn step(&mut self) {
        let longest = match self.random.below(20) {
            0 => 600,
            1..=6 => 180,
            7..=12 => 20,
            _ => 1,
        };
        self.now += Duration::from_millis(self.random.below(longest * 1000));
        tokio::time::advance(LONGEST_WAIT).await;
        self.store.books.lock().unwrap().now = self.now;
        if self.random.percent(40) {
            self.cluster.step(&mut self.random, self.now);
        }
        for at in 0..self.replicas.len() {
            let fault = match self.random.below(30) {
                0 => Some(Fault::BeforeWrite),
                1 => Some(Fault::AfterWrite),
                2 => Some(Fault::Conflict),
                _ => None,
            };
            let first = if self.random.percent(50) { None } else { fault };
            self.store.books.lock().unwrap().faults = [first, fault].into();
            self.step_replica(at).await;
        }
    }

    async fn step_replica(&mut self, at: usize) {
        if self.random.percent(1) {
            // It crashes, whatever is under way.
            self.replicas[at] = self.started();
        }
        let behind = self.replicas[at].view < self.cluster.oldest(self.now);
        if behind || self.random.percent(60) {
            let view = self.later_view(self.replicas[at].view);
            self.replicas[at].look(&self.cluster, view, self.now, &self.terms);
        }
        let (ask, polls) = (self.random.percent(80), self.random.below(3));
        let cut = self.random.percent(4).then(|| self.random.percent(50));
        let replica = &mut self.replicas[at];
        if let Some(cut) = cut {
            *replica.store.cut.lock().unwrap() = cut;
        }
        let late = |since: &SystemTime| self.now.duration_since(*since).unwrap_or_default() > MAX_FLIGHT;
        if replica.flight.as_ref().is_some_and(|(since, _)| late(since)) {
            replica.flight = None;
        }
        if replica.flight.is_none() && ask {
            replica.ask(self.now);
        }
        for _ in 0..polls {
            replica.poll().await;
        }
    }

    /// What is wrong now.
    fn check(&self) -> Result<(), String> {
        let books = self.store.books.lock().unwrap();
        if let Some(violation) = books.violations.first() {
            return Err(violation.clone());
        }
        let (mut ports, mut owners) = (BTreeMap::new(), BTreeMap::new());
        for (id, port) in self.replicas.iter().flat_map(|replica| &replica.announced) {
            if *ports.entry(id).or_insert(port) != port {
                return Err(format!("{id} is announced at two ports, {port} and {}", ports[id]));
            }
            if *owners.entry(port).or_insert(id) != id {
                return Err(format!("port {port} is announced for {id} and {}", owners[port]));
            }
            if !books.held.contains(&(id.clone(), *port)) {
                return Err(format!("{id} is announced at {port}, which was never stored"));
            }
        }
        Ok(())
    }

    /// Everyone sees everything, and nothing fails any longer: all must come to the same map, and stay with it.
    async fn check_end(&mut self) -> Result<(), String> {
        self.store.books.lock().unwrap().faults.clear();
        let latest = self.cluster.history.len() - 1;
        let mut version = 0;
        // Time enough to miss who is gone; then it stands still, so that nothing is due.
        for wait in [GONE_AFTER, GONE_AFTER, GONE_AFTER, Duration::ZERO, Duration::ZERO] {
            self.now += wait;
            {
                let mut books = self.store.books.lock().unwrap();
                books.now = self.now;
                version = books.version;
            }
            for replica in &mut self.replicas {
                replica.flight = None;
                *replica.store.cut.lock().unwrap() = false;
                replica.look(&self.cluster, latest, self.now, &self.terms);
                replica.ask(self.now);
                replica.finish().await;
            }
            self.check()?;
        }
        if self.store.books.lock().unwrap().version != version {
            return Err("the ledger is still being written".into());
        }
        for replica in &self.replicas {
            let missing = |member: &&Member| {
                !replica.announced.contains_key(&member.id) && !replica.unplaced.contains(&member.id)
            };
            if let Some(member) = replica.present.iter().find(missing) {
                return Err(format!("{} has neither a port nor a reason", member.id));
            }
            let held = |claim: &&Claim| !claim.is_over(self.terms.quarantine, self.now);
            let claims = replica.agreement.ledger().entries().values().filter(held).count();
            if !replica.unplaced.is_empty() && claims < self.terms.range.count() {
                return Err(format!("{:?} have no port although some are free", replica.unplaced));
            }
            let here = |replica: &Replica| -> BTreeMap<NodeId, u16> {
                let present = replica.present.iter().filter_map(|member| replica.announced.get_key_value(&member.id));
                present.map(|(id, port)| (id.clone(), *port)).collect()
            };
            if here(replica) != here(&self.replicas[0]) {
                return Err(format!("{:?} and {:?} are not one map", here(replica), here(&self.replicas[0])));
            }
        }
        Ok(())
    }
}

async fn run(seed: u64, broken: Broken) -> Result<World, String> {
    let mut world = World::new(seed, broken);
    for step in 0..STEPS {
        world.step().await;
        world.check().map_err(|error| format!("seed {seed}, step {step}: {error}"))?;
    }
    world.check_end().await.map_err(|error| format!("seed {seed}, at the end: {error}"))?;
    Ok(world)
}

#[tokio::test(start_paused = true)]
async fn replicas_agree_whatever_they_see_and_whatever_fails() {
    let (mut writes, mut claims) = (0, 0);
    for seed in 1..=SEEDS {
        match run(seed, Broken::Nothing).await {
            Ok(world) => {
                let books = world.store.books.lock().unwrap();
                writes += books.version;
                claims += books.held.len() as u64;
            }
            Err(error) => panic!("{error}"),
        }
    }
    // The worlds are lively: many writes, and about as many claims as there are ports.
    assert!(writes > 15 * SEEDS && claims > 9 * SEEDS, "{writes} writes, {claims} claims");
}

/// The simulation would notice: of a hundred worlds with this fault, so many go wrong.
async fn check_noticed(broken: Broken, expected: &str, least: usize) {
    let mut noticed = 0;
    for seed in 1..=100 {
        noticed += usize::from(run(seed, broken).await.is_err_and(|error| error.contains(expected)));
    }
    assert!(noticed >= least, "{broken:?}: noticed in {noticed} of 100 worlds");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_ignores_versions_is_noticed() {
    check_noticed(Broken::Version, "", 10).await;
}

#[tokio::test(start_paused = true)]
async fn ports_given_away_without_a_quarantine_are_noticed() {
    check_noticed(Broken::Quarantine, "too early", 50).await;
}
