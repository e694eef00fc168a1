//! Replicas of 0.1.0 are replaced one by one by those of now, and sometimes back, while pods come and go: both write the one
//! ConfigMap, each by its own code (`former` is 0.1.0's). Everything but the waits between two tries comes from one seed.
//!
//! No port that any of them has told moves or is another's before its quarantine is over, and each text that either writes says
//! the same to both.

mod object;

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use tokio::task::AbortHandle;

use super::former::ledger as former_ledger;
use super::*;
use crate::discovery::kubernetes::ledger::KEY;
use crate::discovery::kubernetes::random::Random;
use crate::topology::ports::PortRange;
use object::Object;

const SEEDS: u64 = 60;
const STEPS: u64 = 60;
const MOST_PODS: u32 = 4;
const QUARANTINE: Duration = Duration::from_secs(2 * 3600);
/// So much earlier a quarantine may end by what is told: clocks are one, but what replicas see differs.
const SLACK: Duration = Duration::from_secs(600);
/// A pod that is away for less is there.
const GONE_AFTER: Duration = Duration::from_secs(60);

/// A StatefulSet's pod and its ordinal; of no StatefulSet where it is known by its host_id.
type Pod = (&'static str, u32);

fn id((set, ordinal): Pod) -> NodeId {
    match set {
        "" => NodeId::new(&format!("cafe0000-0000-4000-8000-{ordinal:012}")),
        _ => NodeId::new(&format!("{set}-{ordinal}")),
    }
}

fn range() -> PortRange {
    PortRange::new(9042, 9061).unwrap()
}

/// Where members of a version go, and what it makes of them.
enum Ends {
    Former(watch::Sender<former::Wanted>, watch::Receiver<former::Known>),
    Present(watch::Sender<Wanted>, watch::Receiver<Known>),
}

struct Replica {
    ends: Ends,
    task: AbortHandle,
    /// The pods as it has heard of them.
    heard: Pods,
    met: BTreeSet<Pod>,
    told: BTreeMap<NodeId, u16>,
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Replica {
    fn new(ends: Ends, task: AbortHandle) -> Self {
        Self { ends, task, heard: Pods::default(), met: BTreeSet::new(), told: BTreeMap::new() }
    }

    fn former(object: &Object, clock: Clock) -> Self {
        let terms = former_ledger::Terms { range: range(), quarantine: QUARANTINE };
        let (wanted, wants) = watch::channel(former::Wanted::default());
        let (tell, known) = watch::channel(former::Known::Nothing("not asked".into()));
        let task = tokio::spawn(former::keep(object.clone(), terms, clock, wants, tell)).abort_handle();
        Self::new(Ends::Former(wanted, known), task)
    }

    fn present(object: &Object, clock: Clock, pins: &BTreeMap<NodeId, u16>) -> Self {
        let terms = Terms { range: range(), quarantine: QUARANTINE, pins: pins.clone() };
        let (wanted, wants) = watch::channel(Wanted::default());
        let (tell, known) = watch::channel(Known::Nothing("not asked".into()));
        let task = tokio::spawn(keep(object.clone(), terms, clock, wants, tell)).abort_handle();
        Self::new(Ends::Present(wanted, known), task)
    }

    fn is_former(&self) -> bool {
        matches!(self.ends, Ends::Former(..))
    }

    /// It hears of those StatefulSets; of all of them at first, which is a list.
    fn see(&mut self, pods: &Pods, mut of: impl FnMut(&str) -> bool, pins: &BTreeMap<NodeId, u16>) {
        let lists = self.heard.now.is_none();
        self.heard.now = pods.now;
        for set in ["a", "b", "c", ""].iter().copied().filter(|set| lists || of(set)) {
            self.heard.all.extend(pods.all.iter().filter(|((of, _), _)| *of == set).map(|(pod, away)| (*pod, *away)));
        }
        // 0.1.0 hides endpoints that name no pod.
        let sees = |pod: &Pod| !self.is_former() || !pod.0.is_empty();
        let here: Vec<Pod> = self.heard.here().filter(sees).collect();
        self.told.retain(|of, _| here.iter().any(|pod| id(*pod) == *of));
        let gone: Vec<NodeId> = self.heard.gone().filter(|pod| self.met.contains(pod)).map(id).collect();
        self.met.extend(&here);
        let ordinal_port = |(set, ordinal): Pod| (!set.is_empty()).then_some(9042 + ordinal as u16);
        match &self.ends {
            Ends::Former(wanted, _) => {
                let member = |pod: &Pod| {
                    let (stateful_set, prefers) = (pod.0.into(), ordinal_port(*pod));
                    former_ledger::Member { id: id(*pod), stateful_set, ordinal: pod.1, prefers }
                };
                publish(wanted, former::Wanted { present: here.iter().map(member).collect(), gone });
            }
            Ends::Present(wanted, _) => {
                let member = |pod: &Pod| {
                    let pinned = pins.get(&id(*pod)).copied();
                    let free = ordinal_port(*pod).filter(|port| pins.values().all(|pin| pin != port));
                    Member { id: id(*pod), stateful_set: pod.0.into(), ordinal: pod.1, prefers: pinned.or(free) }
                };
                publish(wanted, Wanted { present: here.iter().map(member).collect(), gone });
            }
        }
    }

    /// Whoever has a port keeps it while what is known says nothing.
    fn look(&mut self) {
        macro_rules! news {
            ($version:ident, $wanted:expr, $known:expr) => {{
                let present = $wanted.borrow().present.clone();
                let news: Vec<(NodeId, u16)> = match &*$known.borrow() {
                    $version::Ordinals(ledger) if ledger.follows_ordinals(&present, &range()) => {
                        present.iter().filter_map(|of| Some((of.id.clone(), of.prefers?))).collect()
                    }
                    $version::Ordinals(_) | $version::Nothing(_) => Vec::new(),
                    $version::Agreed(agreed) => {
                        let here = |id: &NodeId| present.iter().any(|of| of.id == *id);
                        agreed.ports.iter().filter(|(id, _)| here(id)).map(|(id, port)| (id.clone(), *port)).collect()
                    }
                };
                news
            }};
        }
        use super::former::Known as FormerKnown;
        let news = match &self.ends {
            Ends::Former(wanted, known) => news!(FormerKnown, wanted, known),
            Ends::Present(wanted, known) => news!(Known, wanted, known),
        };
        self.told.extend(news);
    }
}

/// The pods, and since when each has been away that is.
#[derive(Default)]
struct Pods {
    all: BTreeMap<Pod, Option<SystemTime>>,
    now: Option<SystemTime>,
}

impl Pods {
    fn is_gone(&self, since: Option<SystemTime>) -> bool {
        since.zip(self.now).is_some_and(|(since, now)| now >= since + GONE_AFTER)
    }

    fn here(&self) -> impl Iterator<Item = Pod> {
        self.all.iter().filter(|(_, since)| !self.is_gone(**since)).map(|(pod, _)| *pod)
    }

    /// Nobody is told for ever that somebody has left.
    fn gone(&self) -> impl Iterator<Item = Pod> {
        let recent = |since: SystemTime| self.now.is_some_and(|now| now < since + QUARANTINE);
        self.all
            .iter()
            .filter(move |(_, since)| self.is_gone(**since) && since.is_some_and(recent))
            .map(|(pod, _)| *pod)
    }

    /// So many are wanted of a StatefulSet.
    fn scale(&mut self, set: &'static str, count: u32) {
        for ordinal in 0..MOST_PODS {
            let away = self.all.entry((set, ordinal)).or_insert(Some(SystemTime::UNIX_EPOCH));
            *away = if ordinal < count { None } else { away.or(self.now) };
        }
    }
}

/// Who was told at each port last, and when.
#[derive(Default)]
struct Books(BTreeMap<(NodeId, u16), SystemTime>);

impl Books {
    /// Where a pinned node is before it is where it is pinned does not count: it was asked to move. 0.1.0 knows no pins, and
    /// gives another port to one that comes back after its quarantine.
    fn note(&mut self, replica: &Replica, pins: &BTreeMap<NodeId, u16>, now: SystemTime) -> Result<(), String> {
        let stays = |(id, port): &(&NodeId, &u16)| pins.get(*id).is_none_or(|pin| pin == *port);
        for (id, port) in replica.told.iter().filter(stays) {
            for ((other, at), last) in &self.0 {
                let recent = now < *last + QUARANTINE - SLACK;
                if recent && (other == id) != (at == port) {
                    return Err(format!("{id} is at {port} too early: {other} was at {at}"));
                }
            }
            self.0.insert((id.clone(), *port), now);
        }
        Ok(())
    }
}

async fn run(seed: u64) -> Result<[u64; 2], String> {
    let mut random = Random::new(seed);
    let (object, clock) = (Object::new(Random::new(seed + 1_000_000)), Clock::new());
    let mut pods = Pods { now: Some(clock.now()), ..Pods::default() };
    let (alone, second) = if random.percent(50) { ("a", "b") } else { ("b", "a") };
    pods.scale(alone, 1 + random.below(3) as u32);
    let mut pins = BTreeMap::new();
    let (mut replicas, mut books): (Vec<Replica>, Books) = Default::default();
    for _ in 0..2 + random.below(2) {
        replicas.push(Replica::former(&object, clock));
    }
    replicas.iter_mut().for_each(|replica| replica.see(&pods, |_| true, &pins));
    sleep(Duration::from_secs(10)).await;
    let by_hand = random.percent(40);
    let mut has_waited = false;
    let begins = 1 + random.below(STEPS / 2);
    for step in 0..STEPS {
        let ends = step + 5 > STEPS;
        let wait = match random.below(30) {
            0 => 60_000 * (20 + random.below(160)),
            _ => random.below(20_000),
        };
        // 0.1.0 forgets, while the ledger is away, whose quarantine is half over, and gives those ports to a StatefulSet that comes
        // alone then.
        has_waited |= wait > 20_000;
        let forgets = has_waited && replicas.iter().any(Replica::is_former);
        object.set_away(random.percent(15) && !forgets && !ends);
        for _ in 0..random.below(3) {
            match random.below(6) {
                0 => pods.scale(alone, random.below(u64::from(MOST_PODS) + 1) as u32),
                1 => pods.scale(second, random.below(u64::from(MOST_PODS) + 1) as u32),
                2 => pods.scale("c", random.below(u64::from(MOST_PODS) + 1) as u32),
                3 if by_hand && step > begins => pods.scale("", random.below(3) as u32),
                _ => {}
            }
        }
        if step == begins && random.percent(40) {
            // Who pins writes down the ports that are.
            pins = replicas[0].told.clone().into_iter().filter(|_| random.percent(50)).collect();
        }
        for replica in &mut replicas {
            let upgrade = ends || (step >= begins && random.percent(if replica.is_former() { 20 } else { 5 }));
            if upgrade && (!ends || replica.is_former()) {
                *replica = Replica::present(&object, clock, &pins);
            } else if !ends && random.percent(5) {
                // It crashes, or is rolled back.
                *replica = Replica::former(&object, clock);
            }
        }
        pods.now = Some(clock.now());
        for replica in &mut replicas {
            // Nobody is blind for hours.
            replica.see(&pods, |_| ends || wait > 20_000 || random.percent(50), &pins);
        }
        let mut left = wait;
        while left > 0 {
            let part = left.min(60_000);
            sleep(Duration::from_millis(part)).await;
            left -= part;
            pods.now = Some(clock.now());
            for replica in &mut replicas {
                if wait > 20_000 {
                    replica.see(&pods, |_| true, &pins);
                }
                replica.look();
                books.note(replica, &pins, clock.now()).map_err(|error| format!("step {step}: {error}"))?;
            }
        }
    }
    sleep(LONGEST_AGAIN).await;
    pods.now = Some(clock.now());
    for replica in &mut replicas {
        replica.see(&pods, |_| true, &pins);
    }
    sleep(LONGEST_AGAIN).await;
    for replica in &mut replicas {
        replica.look();
        books.note(replica, &pins, clock.now())?;
    }
    let expected: BTreeSet<NodeId> = pods.here().map(id).collect();
    for replica in &replicas {
        if replica.told != replicas[0].told {
            return Err(format!("at the end: {:?} and {:?}", replica.told, replicas[0].told));
        }
        // A pin that somebody else holds is refused.
        if pins.is_empty() && !replica.told.keys().eq(&expected) {
            return Err(format!("at the end: {:?}, expected ports for {expected:?}", replica.told));
        }
    }
    object.writes()
}

#[tokio::test(start_paused = true)]
async fn a_replica_of_0_1_0_and_one_of_now_share_the_ledger_and_no_port_moves() {
    let mut writes = [0, 0];
    for seed in 1..=SEEDS {
        match run(seed).await {
            Ok([former, present]) => writes = [writes[0] + former, writes[1] + present],
            Err(error) => panic!("seed {seed}: {error}"),
        }
    }
    assert!(writes.iter().all(|writes| *writes > 3 * SEEDS), "{writes:?}: both have much to write");
}

/// What 0.1.0 has left in the cluster says now what it said then, and is written as it was.
#[test]
fn the_text_of_0_1_0_is_read_and_written_unchanged() {
    let data: BTreeMap<String, String> = [(KEY.to_owned(), include_str!("former/ports.json").to_owned())].into();
    let ledger = Ledger::parse("gate/ports", &data).unwrap();
    let shown = |(id, claim): (&NodeId, &crate::topology::ports::Claim)| {
        format!("{id}={}{}", claim.port, if claim.left.is_some() { "!" } else { "" })
    };
    let shown: Vec<String> = ledger.entries().iter().map(shown).collect();
    assert_eq!(shown, ["rack-a-0=9042", "rack-a-1=9043!", "rack-b-0=9061"]);
    assert_eq!(ledger.encode("gate/ports"), Ok(data.clone()));
    assert_eq!(former_ledger::Ledger::parse("gate/ports", &data).unwrap().entries(), ledger.entries());
}
