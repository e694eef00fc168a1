//! Ports where no ranges are configured: by ordinal while there is one StatefulSet and no ledger, and by the ledger from the
//! moment on that there are several.
//!
//! A task of its own, because the ledger's ConfigMap may take long to answer: it is told who is there, and tells what was
//! agreed. Until it has looked for a ledger nobody has a port, or a restart could give ports that are not those of before.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::time::sleep;
use tracing::{error, info, warn};

use crate::topology::NodeId;

use super::super::backoff::jittered;
use super::ledger::agreement::{Agreed, Agreement, Store, StoreError};
use super::ledger::{Ledger, Member, Terms};

/// Between tries while the ledger is not reached.
const AGAIN: Duration = Duration::from_secs(5);
/// Longest time between two looks at the clock.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

/// Who is there, as the source sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// `prefers` is the port that follows from the ordinal alone.
    pub present: Vec<Member>,
    /// Those that have left.
    pub gone: Vec<NodeId>,
}

impl Wanted {
    pub fn is_of_one_set(&self) -> bool {
        let mut sets = self.present.iter().map(|member| &member.stateful_set);
        let first = sets.next();
        sets.all(|set| Some(set) == first)
    }
}

/// What is known of ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Known {
    /// Whether there is a ledger is not known: why.
    Nothing(Arc<str>),
    /// One StatefulSet and no ledger: ports follow from ordinals.
    Ordinals,
    Agreed(Agreed),
}

/// Looks for a ledger, and keeps to it once there is one; ends with the source.
pub async fn keep<S: Store>(store: S, terms: Terms, mut wanted: watch::Receiver<Wanted>, known: watch::Sender<Known>) {
    let Some(mut ledger) = find(&store, &known).await else { return };
    let mut agreement: Option<Agreement<S>> = None;
    let mut store = Some(store);
    // The StatefulSet that had the ports of its ordinals while it was the only one.
    let mut alone: Option<Arc<str>> = None;
    loop {
        let now_wanted = wanted.borrow_and_update().clone();
        let sets: BTreeSet<&Arc<str>> = now_wanted.present.iter().map(|member| &member.stateful_set).collect();
        let first = sets.first().map(|set| Arc::clone(set));
        if agreement.is_none() && ledger.is_none() && sets.len() <= 1 {
            alone = first.or(alone);
            known.send_replace(Known::Ordinals);
            if wanted.changed().await.is_err() {
                return;
            }
            continue;
        }
        if let Some(store) = store.take() {
            info!(stateful_sets = ?sets, "ports are those of the ledger");
            agreement = Some(Agreement::new(store, terms.clone(), ledger.take().unwrap_or_default()));
        }
        let Some(agreement) = &mut agreement else { return };
        let chosen = alone.clone().or(first);
        let present: Vec<Member> = now_wanted
            .present
            .iter()
            .map(|member| Member {
                prefers: member.prefers.filter(|_| Some(&member.stateful_set) == chosen.as_ref()),
                ..member.clone()
            })
            .collect();
        let now = SystemTime::now();
        let agreed = agreement.settle(&present, &now_wanted.gone, now).await;
        let failed = agreed.failure.is_some();
        say(&known, &agreed);
        publish(&known, Known::Agreed(agreed));
        let due = agreement.deadline().map(|at| at.duration_since(now).unwrap_or_default());
        let wait = if failed { jittered(AGAIN) } else { due.unwrap_or(LONGEST_SLEEP).clamp(AGAIN, LONGEST_SLEEP) };
        tokio::select! {
            changed = wanted.changed() => if changed.is_err() { return },
            () = sleep(wait) => {}
        }
    }
}

/// Wakes who listens only when `next` is something else than before: then true.
pub fn publish<T: PartialEq>(latest: &watch::Sender<T>, next: T) -> bool {
    latest.send_if_modified(|before| {
        let differs = *before != next;
        *before = next;
        differs
    })
}

/// The ledger, if there is one; asks until that is known. `None` when nobody listens any more.
async fn find<S: Store>(store: &S, known: &watch::Sender<Known>) -> Option<Option<Ledger>> {
    loop {
        let error = match store.read().await {
            Ok(found) => return Some(found.map(|(ledger, _)| ledger)),
            Err(error @ StoreError::Forbidden { .. }) => {
                warn!("{error}; needed only where several StatefulSets have no ranges of ports");
                return Some(None);
            }
            Err(error) => error,
        };
        if publish(known, Known::Nothing(error.to_string().into())) {
            warn!(%error, "whether there is a ledger of ports is not known");
        }
        if known.is_closed() {
            return None;
        }
        sleep(jittered(AGAIN)).await;
    }
}

/// A failure is said once, until it is over.
fn say(known: &watch::Sender<Known>, agreed: &Agreed) {
    let before = known.borrow();
    let failing = match &*before {
        Known::Agreed(before) => before.failure.as_ref(),
        _ => None,
    };
    match (failing, &agreed.failure) {
        (None, Some(failure)) => {
            error!(%failure, "the ledger of ports is not reached: new nodes wait, the others keep theirs")
        }
        (Some(_), None) => info!("the ledger of ports is reached again"),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;
    use crate::topology::ports::PortRange;

    /// A store whose answers the test decides.
    #[derive(Clone, Default)]
    struct Shelf(Arc<Mutex<Contents>>);

    #[derive(Default)]
    struct Contents {
        ledger: Option<Ledger>,
        version: u64,
        refuses: Option<StoreError>,
    }

    impl Shelf {
        fn holding(entries: &str) -> Self {
            let data = [(super::super::ledger::KEY.to_owned(), entries.to_owned())].into();
            let shelf = Self::default();
            shelf.0.lock().unwrap().ledger = Some(Ledger::parse("gateway/ports", &data).unwrap());
            shelf
        }

        fn refuse(&self, error: Option<StoreError>) {
            self.0.lock().unwrap().refuses = error;
        }
    }

    impl Store for Shelf {
        type Version = u64;

        async fn read(&self) -> Result<Option<(Ledger, u64)>, StoreError> {
            let contents = self.0.lock().unwrap();
            match &contents.refuses {
                Some(error) => Err(error.clone()),
                None => Ok(contents.ledger.clone().map(|ledger| (ledger, contents.version))),
            }
        }

        async fn create(&self, ledger: &Ledger) -> Result<(), StoreError> {
            if self.0.lock().unwrap().ledger.is_some() {
                return Err(StoreError::Conflict);
            }
            self.replace(ledger, &0).await
        }

        async fn replace(&self, ledger: &Ledger, version: &u64) -> Result<(), StoreError> {
            let mut contents = self.0.lock().unwrap();
            if let Some(error) = &contents.refuses {
                return Err(error.clone());
            }
            if contents.version != *version {
                return Err(StoreError::Conflict);
            }
            contents.version += 1;
            contents.ledger = Some(ledger.clone());
            Ok(())
        }
    }

    fn forbidden() -> StoreError {
        StoreError::Forbidden("get of ConfigMap gateway/ports is forbidden".to_owned())
    }

    struct Kept {
        wanted: watch::Sender<Wanted>,
        known: watch::Receiver<Known>,
    }

    impl Kept {
        fn start(shelf: &Shelf) -> Self {
            let terms = Terms { range: PortRange::new(9042, 9049).unwrap(), quarantine: Duration::from_secs(86_400) };
            let (wanted, wants) = watch::channel(Wanted::default());
            let (tell, known) = watch::channel(Known::Nothing("not asked".into()));
            tokio::spawn(keep(shelf.clone(), terms, wants, tell));
            Self { wanted, known }
        }

        /// `a-0 b-1`: pods, each of which prefers the port of its ordinal.
        fn want(&self, pods: &str) {
            let member = |pod: &str| {
                let (set, ordinal) = pod.rsplit_once('-').unwrap();
                let ordinal: u32 = ordinal.parse().unwrap();
                let prefers = u16::try_from(9042 + ordinal).ok();
                Member { id: NodeId::new(pod), stateful_set: set.into(), ordinal, prefers }
            };
            let present = pods.split_whitespace().map(member).collect();
            self.wanted.send_replace(Wanted { present, gone: Vec::new() });
        }

        /// Waits until what is known is told by this text: `ordinals`, `nothing`, or `a-0=9042 b-0=waits`.
        async fn until(&mut self, expected: &str) {
            let told = |known: &Known| match known {
                Known::Nothing(_) => "nothing".to_owned(),
                Known::Ordinals => "ordinals".to_owned(),
                Known::Agreed(agreed) => {
                    let ports = agreed.ports.iter().map(|(id, port)| format!("{id}={port}"));
                    ports.chain(agreed.unplaced.keys().map(|id| format!("{id}=waits"))).collect::<Vec<_>>().join(" ")
                }
            };
            let wait = self.known.wait_for(|known| told(known) == expected);
            let reached = timeout(Duration::from_secs(60), wait).await.is_ok();
            assert!(reached, "{} in place of {expected}", told(&self.known.borrow()));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_stateful_set_needs_no_ledger() {
        let shelf = Shelf::default();
        let mut kept = Kept::start(&shelf);
        kept.want("a-0 a-1");
        kept.until("ordinals").await;
        assert!(shelf.0.lock().unwrap().ledger.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn who_was_alone_keeps_its_ports_when_a_second_one_comes() {
        let mut kept = Kept::start(&Shelf::default());
        kept.want("b-0 b-1");
        kept.until("ordinals").await;
        kept.want("a-0 b-0 b-1");
        kept.until("a-0=9049 b-0=9042 b-1=9043").await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_ledger_that_is_there_is_kept_to_also_by_one_alone() {
        let shelf = Shelf::holding(r#"{"version": 1, "nodes": {"b-0": {"port": 9049}}}"#);
        let mut kept = Kept::start(&shelf);
        kept.want("b-0 b-1");
        kept.until("b-0=9049 b-1=9043").await;
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_has_a_port_before_a_ledger_was_looked_for() {
        let shelf = Shelf::holding(r#"{"version": 1, "nodes": {"b-0": {"port": 9049}}}"#);
        shelf.refuse(Some(StoreError::Unavailable("away".to_owned())));
        let mut kept = Kept::start(&shelf);
        kept.want("b-0");
        kept.known.wait_for(|known| *known == Known::Nothing("the ledger: away".into())).await.unwrap();
        shelf.refuse(None);
        kept.until("b-0=9049").await;
    }

    #[tokio::test(start_paused = true)]
    async fn while_the_ledger_is_away_only_new_nodes_wait() {
        let shelf = Shelf::default();
        let mut kept = Kept::start(&shelf);
        kept.want("a-0 b-0");
        kept.until("a-0=9042 b-0=9049").await;
        shelf.refuse(Some(StoreError::Unavailable("away".to_owned())));
        kept.want("a-0 b-0 b-1");
        kept.until("a-0=9042 b-0=9049 b-1=waits").await;
        shelf.refuse(None);
        kept.until("a-0=9042 b-0=9049 b-1=9048").await;
    }

    #[tokio::test(start_paused = true)]
    async fn without_the_right_to_a_ledger_one_set_lives_by_ordinals_and_several_wait() {
        let shelf = Shelf::default();
        shelf.refuse(Some(forbidden()));
        let mut kept = Kept::start(&shelf);
        kept.want("a-0");
        kept.until("ordinals").await;
        kept.want("a-0 b-0");
        kept.until("a-0=waits b-0=waits").await;
    }
}
