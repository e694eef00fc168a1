//! Replicas of the gateway that live through the arrival of a second StatefulSet: they start, crash and see late, and the
//! ledger is away now and then; everything from one seed. No port that any of them has told ever moves.

use std::collections::BTreeMap;

use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::tests::{Shelf, forbidden, member};
use super::*;
use crate::discovery::kubernetes::random::Random;
use crate::topology::ports::PortRange;

const SEEDS: u64 = 1000;
const STEPS: u64 = 40;
const MOST_PODS: u64 = 4;

fn terms() -> Terms {
    Terms { range: PortRange::new(9042, 9055).unwrap(), quarantine: Duration::from_secs(86_400), pins: BTreeMap::new() }
}

struct Replica {
    wanted: watch::Sender<Wanted>,
    known: watch::Receiver<Known>,
    task: AbortHandle,
    told: BTreeMap<NodeId, u16>,
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Replica {
    fn start(shelf: &Shelf) -> Self {
        let (wanted, wants) = watch::channel(Wanted::default());
        let (tell, known) = watch::channel(Known::Nothing("not asked".into()));
        let task = tokio::spawn(keep(shelf.clone(), terms(), Clock::new(), wants, tell)).abort_handle();
        Self { wanted, known, task, told: BTreeMap::new() }
    }

    fn see(&self, pods: &[(&str, u64)]) {
        let all =
            pods.iter().flat_map(|&(set, count)| (0..count).map(move |ordinal| member(&format!("{set}-{ordinal}"))));
        publish(&self.wanted, Wanted { present: all.collect(), gone: Vec::new() });
    }

    /// Whoever has a port keeps it while what is known says nothing.
    fn look(&mut self) {
        let present = self.wanted.borrow().present.clone();
        match &*self.known.borrow() {
            Known::Ordinals(ledger) if ledger.follows_ordinals(&present, &terms().range) => {
                self.told.extend(present.iter().filter_map(|of| Some((of.id.clone(), of.prefers?))));
            }
            Known::Ordinals(_) | Known::Nothing(_) => {}
            Known::Agreed(agreed) => {
                let here = |id: &NodeId| present.iter().any(|of| of.id == *id);
                self.told.extend(agreed.ports.iter().filter(|(id, _)| here(id)).map(|(id, port)| (id.clone(), *port)));
            }
        }
    }
}

/// What went wrong, with what was told by whom.
async fn run(seed: u64) -> Result<(), String> {
    let mut random = Random::new(seed);
    let (alone, second) = if random.percent(50) { ("a", "b") } else { ("b", "a") };
    let mut pods = vec![(alone, 1 + random.below(MOST_PODS))];
    let comes = 1 + random.below(STEPS - 10);
    let shelf = Shelf::default();
    let mut replicas = vec![Replica::start(&shelf)];
    replicas[0].see(&pods);
    let written = async {
        while !shelf.is_written() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(60), written).await.map_err(|_| "the ports of one alone are not written")?;
    let (mut ports, mut owners) = (BTreeMap::new(), BTreeMap::new());
    for step in 0..STEPS {
        shelf.refuse(match random.below(10) {
            _ if step + 5 > STEPS => None,
            0 => Some(StoreError::Unavailable("away".to_owned())),
            1 => Some(forbidden()),
            _ => None,
        });
        if step == comes {
            pods.push((second, 1 + random.below(MOST_PODS)));
        }
        let grows = random.below(pods.len() as u64) as usize;
        if random.percent(20) {
            pods[grows].1 = (pods[grows].1 + 1).min(MOST_PODS);
        }
        if replicas.len() < 3 && random.percent(20) {
            replicas.push(Replica::start(&shelf));
        }
        for replica in &mut replicas {
            if random.percent(10) {
                *replica = Replica::start(&shelf);
            }
            if random.percent(70) || step + 5 > STEPS {
                replica.see(&pods);
            }
        }
        sleep(Duration::from_millis(random.below(20_000))).await;
        for replica in &mut replicas {
            replica.look();
            for (id, port) in &replica.told {
                let (before, owner) =
                    (*ports.entry(id.clone()).or_insert(*port), owners.entry(*port).or_insert(id.clone()));
                if before != *port || owner != id {
                    return Err(format!("step {step}: {id} was at {before}, is at {port}, which was {owner}'s"));
                }
            }
        }
    }
    sleep(LONGEST_AGAIN).await;
    for replica in &mut replicas {
        replica.look();
        if replica.told != ports {
            return Err(format!("at the end: {:?} in place of {ports:?}", replica.told));
        }
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn no_port_moves_when_a_second_stateful_set_comes() {
    for seed in 1..=SEEDS {
        if let Err(error) = run(seed).await {
            panic!("seed {seed}: {error}");
        }
    }
}
