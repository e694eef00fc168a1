//! Ports that follow from ordinals, and a ledger that may fail: what is told, and what is written.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use tokio::task::yield_now;
use tokio::time::timeout;

use super::*;
use crate::topology::ports::PortRange;

/// A store whose answers the test decides.
#[derive(Clone, Default)]
pub struct Shelf(Arc<Mutex<Contents>>);

#[derive(Default)]
pub struct Contents {
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

    pub fn refuse(&self, error: Option<StoreError>) {
        self.0.lock().unwrap().refuses = error;
    }

    pub fn is_written(&self) -> bool {
        self.0.lock().unwrap().ledger.is_some()
    }

    /// `a-0=9042 b-0=9049`
    fn shown(&self) -> String {
        let contents = self.0.lock().unwrap();
        let entries = contents.ledger.iter().flat_map(|ledger| ledger.entries());
        entries.map(|(id, claim)| format!("{id}={}", claim.port)).collect::<Vec<_>>().join(" ")
    }

    /// Waits until what is stored is told by this text.
    async fn until(&self, expected: &str) {
        let reached = async {
            while self.shown() != expected {
                sleep(Duration::from_millis(100)).await;
            }
        };
        let reached = timeout(Duration::from_secs(600), reached).await.is_ok();
        assert!(reached, "{} in place of {expected}", self.shown());
    }
}

impl Store for Shelf {
    type Version = u64;

    async fn read(&self) -> Result<Option<(Ledger, u64)>, StoreError> {
        yield_now().await;
        let contents = self.0.lock().unwrap();
        match &contents.refuses {
            Some(error) => Err(error.clone()),
            None => Ok(contents.ledger.clone().map(|ledger| (ledger, contents.version))),
        }
    }

    async fn create(&self, ledger: &Ledger) -> Result<(), StoreError> {
        if self.is_written() {
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

pub fn forbidden() -> StoreError {
    StoreError::Forbidden("get of ConfigMap gateway/ports is forbidden".to_owned())
}

/// Prefers the port of its ordinal, of those from 9042 to 9055.
pub fn member(pod: &str) -> Member {
    let (set, ordinal) = pod.rsplit_once('-').unwrap();
    let ordinal: u32 = ordinal.parse().unwrap();
    let prefers = u16::try_from(9042 + ordinal).ok().filter(|port| *port <= 9055);
    Member { id: NodeId::new(pod), stateful_set: set.into(), ordinal, prefers }
}

struct Kept {
    wanted: watch::Sender<Wanted>,
    known: watch::Receiver<Known>,
}

impl Kept {
    fn start(shelf: &Shelf) -> Self {
        Self::start_on(shelf, 9042, BTreeMap::new())
    }

    /// With eight ports from this one on.
    fn start_on(shelf: &Shelf, first: u32, pins: BTreeMap<NodeId, u16>) -> Self {
        let terms =
            Terms { range: PortRange::new(first, first + 7).unwrap(), quarantine: Duration::from_secs(86_400), pins };
        let (wanted, wants) = watch::channel(Wanted::default());
        let (tell, known) = watch::channel(Known::Nothing("not asked".into()));
        tokio::spawn(keep(shelf.clone(), terms, Clock::new(), wants, tell));
        Self { wanted, known }
    }

    /// `a-0 b-1`: pods, each of which prefers the port of its ordinal.
    fn want(&self, pods: &str) {
        let present = pods.split_whitespace().map(member).collect();
        self.wanted.send_replace(Wanted { present, gone: Vec::new() });
    }

    /// Waits until what is known is told by this text: `ordinals`, `nothing`, or `a-0=9042 b-0=waits`.
    async fn until(&mut self, expected: &str) {
        let told = |known: &Known| match known {
            Known::Nothing(_) => "nothing".to_owned(),
            Known::Ordinals(_) => "ordinals".to_owned(),
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
async fn one_stateful_set_does_not_wait_for_a_ledger_and_is_written_into_it() {
    let shelf = Shelf::default();
    let mut kept = Kept::start(&shelf);
    kept.until("ordinals").await;
    shelf.refuse(Some(StoreError::Unavailable("away".to_owned())));
    kept.want("a-0 a-1 a-99");
    kept.until("ordinals").await;
    // Beyond the range is no port.
    shelf.refuse(None);
    shelf.until("a-0=9042 a-1=9043").await;
    kept.want("a-0 a-1 a-2 a-99");
    shelf.until("a-0=9042 a-1=9043 a-2=9044").await;
    assert!(matches!(&*kept.known.borrow(), Known::Ordinals(_)));
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_has_just_started_knows_who_was_alone() {
    let shelf = Shelf::default();
    let mut old = Kept::start(&shelf);
    old.want("b-0 b-1");
    shelf.until("b-0=9042 b-1=9043").await;
    let mut new = Kept::start(&shelf);
    // What the old one has told and not written yet is that of its ordinal too.
    new.want("a-0 a-1 a-2 b-0 b-1 b-2");
    let both = "a-0=9049 a-1=9048 a-2=9047 b-0=9042 b-1=9043 b-2=9044";
    new.until(both).await;
    old.want("a-0 a-1 a-2 b-0 b-1 b-2");
    old.until(both).await;
}

#[tokio::test(start_paused = true)]
async fn ports_of_one_set_follow_a_range_that_has_moved() {
    let shelf = Shelf::default();
    let kept = Kept::start(&shelf);
    kept.want("b-0 b-1");
    shelf.until("b-0=9042 b-1=9043").await;
    drop(kept);
    let mut kept = Kept::start_on(&shelf, 9043, BTreeMap::new());
    let moved = |pod: &str| Member { prefers: Some(if pod == "b-0" { 9043 } else { 9044 }), ..member(pod) };
    kept.wanted.send_replace(Wanted { present: vec![moved("b-0"), moved("b-1")], gone: Vec::new() });
    kept.until("ordinals").await;
    shelf.until("b-0=9043 b-1=9044").await;
}

/// As `placement` prefers it: the port of the pin.
#[tokio::test(start_paused = true)]
async fn a_pin_moves_a_node_of_the_only_set_and_then_ordinals_hold_again() {
    let shelf = Shelf::holding(r#"{"version": 1, "nodes": {"b-0": {"port": 9042}, "b-1": {"port": 9043}}}"#);
    let pins = BTreeMap::from([(NodeId::new("b-1"), 9047)]);
    let mut kept = Kept::start_on(&shelf, 9042, pins);
    let pinned = Member { prefers: Some(9047), ..member("b-1") };
    kept.wanted.send_replace(Wanted { present: vec![member("b-0"), pinned], gone: Vec::new() });
    kept.until("b-0=9042 b-1=9047").await;
    shelf.until("b-0=9042 b-1=9047").await;
    let third = vec![member("b-0"), Member { prefers: Some(9047), ..member("b-1") }, member("b-2")];
    kept.wanted.send_replace(Wanted { present: third, gone: Vec::new() });
    kept.until("ordinals").await;
    // One whose pin is refused keeps its port, and that is said.
    let shelf = Shelf::holding(r#"{"version": 1, "nodes": {"b-0": {"port": 9042}, "b-1": {"port": 9043}}}"#);
    let mut kept = Kept::start_on(&shelf, 9042, BTreeMap::from([(NodeId::new("b-1"), 9042)]));
    let (first, pinned) = (Member { prefers: None, ..member("b-0") }, Member { prefers: Some(9042), ..member("b-1") });
    kept.wanted.send_replace(Wanted { present: vec![first, pinned], gone: Vec::new() });
    kept.until("b-0=9042 b-1=9043 b-1=waits").await;
}

#[tokio::test(start_paused = true)]
async fn what_is_forbidden_for_a_moment_is_asked_again() {
    let shelf = Shelf::holding(r#"{"version": 1, "nodes": {"b-0": {"port": 9049}}}"#);
    shelf.refuse(Some(forbidden()));
    let mut kept = Kept::start(&shelf);
    kept.want("b-0");
    let forbidden = |known: &Known| matches!(known, Known::Nothing(why) if why.contains("forbidden"));
    timeout(Duration::from_secs(60), kept.known.wait_for(forbidden)).await.unwrap().unwrap();
    shelf.refuse(None);
    let told = timeout(Duration::from_secs(60), kept.known.wait_for(|known| !matches!(known, Known::Nothing(_)))).await;
    let told = told.unwrap().unwrap().clone();
    assert!(matches!(&told, Known::Agreed(agreed) if agreed.ports[&NodeId::new("b-0")] == 9049), "{told:?}");
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

/// It knows the ledger of before still, and whose ports are in quarantine there.
#[tokio::test(start_paused = true)]
async fn while_the_ledger_is_away_a_set_that_comes_alone_has_no_port_of_who_left() {
    let shelf = Shelf::default();
    let mut kept = Kept::start(&shelf);
    kept.want("b-0 b-1");
    shelf.until("b-0=9042 b-1=9043").await;
    let gone = vec![NodeId::new("b-0"), NodeId::new("b-1")];
    kept.wanted.send_replace(Wanted { present: Vec::new(), gone });
    // More than half of the quarantine.
    sleep(Duration::from_secs(13 * 3600)).await;
    shelf.refuse(Some(StoreError::Unavailable("away".to_owned())));
    kept.want("a-0 a-1");
    sleep(Duration::from_secs(60)).await;
    kept.until("a-0=waits a-1=waits").await;
    shelf.refuse(None);
    kept.until("a-0=9049 a-1=9048").await;
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
