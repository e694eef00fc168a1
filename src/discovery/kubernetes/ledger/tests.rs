//! Facts about one ledger and one replica; many replicas are in `simulation`.

mod memory;
mod pins;
mod simulation;

use super::agreement::{Agreed, Agreement, Store, StoreError, Unplaced};
use super::*;

use memory::{Broken, Fault, Memory, away};

const DAY: Duration = Duration::from_secs(24 * 3600);

fn id(name: &str) -> NodeId {
    NodeId::new(name)
}

/// `rack-a-3` is ordinal 3 of rack-a; `@port` is what it prefers.
fn member(text: &str) -> Member {
    let (name, prefers) = text.split_once('@').map_or((text, None), |(name, port)| (name, Some(port.parse().unwrap())));
    let (set, ordinal) = name.rsplit_once('-').unwrap();
    Member { id: id(name), stateful_set: set.into(), ordinal: ordinal.parse().unwrap(), prefers }
}

fn members(text: &str) -> Vec<Member> {
    text.split_whitespace().map(member).collect()
}

fn view(present: &str, gone: &str) -> View {
    View { present: members(present), gone: gone.split_whitespace().map(id).collect(), seen: BTreeMap::new() }
}

fn terms(first: u32, last: u32) -> Terms {
    Terms { range: PortRange::new(first, last).unwrap(), quarantine: DAY, pins: BTreeMap::new() }
}

fn hour(hours: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(hours * 3600)
}

/// `a-0=1 b-0=2!`: a name, its port, and a mark where it has left.
fn text(ledger: &Ledger) -> String {
    let entry =
        |(id, claim): (&NodeId, &Claim)| format!("{id}={}{}", claim.port, if claim.left.is_some() { "!" } else { "" });
    ledger.entries().iter().map(entry).collect::<Vec<_>>().join(" ")
}

/// What becomes of `ledger` on ports 1 to 6 at an hour, and who has no port.
#[track_caller]
fn check(ledger: &Ledger, present: &str, gone: &str, at: u64, expected: &str, unplaced: &str) -> Ledger {
    let settled = ledger.settle(&view(present, gone), &terms(1, 6), hour(at));
    assert_eq!(text(&settled.ledger), expected);
    assert_eq!(settled.changed, settled.ledger != *ledger);
    let names: Vec<String> = settled.unplaced.keys().map(NodeId::to_string).collect();
    assert_eq!(names.join(" "), unplaced);
    settled.ledger
}

#[test]
fn the_first_set_goes_up_from_the_first_port_and_others_down_from_the_last() {
    let none = Ledger::default();
    let two = check(&none, "b-1 b-0 a-1@2 a-0@1", "", 0, "a-0=1 a-1=2 b-0=6 b-1=5", "");
    // They meet: a-4 prefers what b-1 has.
    check(&two, "a-0@1 a-1@2 a-4@5 b-0 b-1 b-2 b-3", "", 0, "a-0=1 a-1=2 a-4=4 b-0=6 b-1=5 b-2=3", "b-3");
    // A preference that cannot be met takes no other's preferred port; one beyond the range is none.
    check(&none, "a-0@9 a-1@6", "", 0, "a-0=5 a-1=6", "");
    // Who was there before keeps the port, whatever it would prefer now.
    check(&two, "a-0@1 b-0@1 b-1@2", "", 0, "a-0=1 a-1=2 b-0=6 b-1=5", "");
}

#[test]
fn absence_alone_changes_nothing() {
    let ledger = check(&Ledger::default(), "a-0@1 b-0", "", 0, "a-0=1 b-0=6", "");
    let same = check(&ledger, "b-0", "", 1000, "a-0=1 b-0=6", "");
    assert_eq!(same, ledger);
    check(&ledger, "", "", 1000, "a-0=1 b-0=6", "");
    // Nor does the word that somebody is gone who is present, or is not known.
    check(&ledger, "a-0@1", "a-0 c-0", 1000, "a-0=1 b-0=6", "");
}

#[test]
fn a_port_in_quarantine_returns_to_its_own_node_only() {
    let ledger = check(&Ledger::default(), "a-0@1 b-0", "", 0, "a-0=1 b-0=6", "");
    let left = check(&ledger, "b-0", "a-0", 1, "a-0=1! b-0=6", "");
    assert_eq!(left.deadline(DAY, hour(1)), Some(hour(25)));
    assert_eq!(left.deadline(DAY, hour(25)), None);
    // Said again, it does not begin again.
    let left = check(&left, "b-0 c-0@1", "a-0", 24, "a-0=1! b-0=6 c-0=5", "");
    check(&left, "a-0@1", "", 1000, "a-0=1 b-0=6 c-0=5", "");
    let over = check(&left, "", "", 25, "a-0=1! b-0=6 c-0=5", "");
    // Another has it only by its ordinal, or where no other port is left.
    check(&over, "d-0@1", "", 24, "a-0=1! b-0=6 c-0=5 d-0=4", "");
    check(&over, "d-0@1", "", 25, "b-0=6 c-0=5 d-0=1", "");
    let full = check(&over, "d-0 d-1 d-2", "", 25, "a-0=1! b-0=6 c-0=5 d-0=4 d-1=3 d-2=2", "");
    check(&full, "a-0@1", "", 100_000, "a-0=1 b-0=6 c-0=5 d-0=4 d-1=3 d-2=2", "");
    check(&full, "d-3", "", 25, "b-0=6 c-0=5 d-0=4 d-1=3 d-2=2 d-3=1", "");
}

#[test]
fn whoever_left_first_gives_its_port_first() {
    let present = "a-0@1 a-1@2 b-0 b-1 b-2 b-3";
    let full = check(&Ledger::default(), present, "", 0, "a-0=1 a-1=2 b-0=6 b-1=5 b-2=4 b-3=3", "");
    let left = check(&full, "a-1 b-0 b-2 b-3", "b-1", 1, "a-0=1 a-1=2 b-0=6 b-1=5! b-2=4 b-3=3", "");
    let left = check(&left, "a-1 b-0 b-2 b-3", "a-0", 2, "a-0=1! a-1=2 b-0=6 b-1=5! b-2=4 b-3=3", "");
    let given = check(&left, "c-0", "", 30, "a-0=1! a-1=2 b-0=6 b-2=4 b-3=3 c-0=5", "");
    check(&given, "c-1 c-2", "", 30, "a-1=2 b-0=6 b-2=4 b-3=3 c-0=5 c-1=1", "c-2");
}

#[test]
fn a_node_without_a_port_is_named_and_stops_nobody() {
    let present = "a-0@1 a-1@2 b-0 b-1 b-2 b-3";
    let full = check(&Ledger::default(), present, "", 0, "a-0=1 a-1=2 b-0=6 b-1=5 b-2=4 b-3=3", "");
    let settled = full.settle(&view("a-0 c-0 c-1", "a-1"), &terms(1, 6), hour(0));
    let expected = "listen: ports 1-6 are 6, too few for 7 nodes (1 in quarantine)";
    assert_eq!(settled.unplaced.values().map(PortError::to_string).collect::<Vec<_>>(), [expected, expected]);
    // Other ports are configured than when the ledger was made: nobody is moved.
    let settled = full.settle(&view("a-0 b-0 c-0", ""), &terms(3, 9), hour(0));
    assert_eq!(text(&settled.ledger), "a-0=1 a-1=2 b-0=6 b-1=5 b-2=4 b-3=3 c-0=9");
    let expected = "discovery.kubernetes.ledger: port 1 of a-0 is outside of the listening ports 3-9";
    assert_eq!(settled.unplaced.values().map(PortError::to_string).collect::<Vec<_>>(), [expected]);
}

#[test]
fn a_ledger_comes_back_from_its_text() {
    let ledger = check(&Ledger::default(), "a-0@1 b-0", "", 0, "a-0=1 b-0=6", "");
    let ledger = check(&ledger, "b-0", "a-0", 1, "a-0=1! b-0=6", "");
    let data = ledger.encode("db/ports").unwrap();
    assert_eq!(Ledger::parse("db/ports", &data), Ok(ledger));
    assert_eq!(Ledger::parse("db/ports", &BTreeMap::from([("other".into(), "x".into())])), Ok(Ledger::default()));
}

#[test]
fn a_malformed_ledger_is_an_error_that_says_where_and_what() {
    let long = " ".repeat(MAX_LEN + 1);
    for (text, expected) in [
        ("", "EOF while parsing a value at line 1 column 0; expected {\"version\": 1, "),
        ("{\"version\": 2, \"nodes\": {}}", "version 2, this gateway knows 1; expected"),
        ("{\"version\": 1, \"nodes\": {\"a\": {\"port\": 70000}}}", "invalid value: integer `70000`"),
        (
            "{\"version\": 1, \"nodes\": {\"a\": {\"port\": 7}, \"b\": {\"port\": 7}}}",
            "port 7 belongs to a and to b, expected one of them",
        ),
        (&long, "1048577 bytes, expected at most 1048576"),
    ] {
        let error = Ledger::parse("db/ports", &BTreeMap::from([(KEY.into(), text.into())])).unwrap_err().to_string();
        assert!(error.starts_with("ConfigMap db/ports, key ports.json: ") && error.contains(expected), "{error}");
    }
    let name = "n".repeat(250);
    let entries = (1..6000).map(|n| (id(&format!("{name}{n}")), Claim { port: n, left: None })).collect();
    let error = Ledger { entries }.encode("db/ports").unwrap_err();
    assert!(matches!(error, LedgerError::TooLong { .. }), "{error}");
}

/// A store, and a replica that has agreed on a-0=1 b-0=6 with it.
async fn agreed() -> (Memory, Agreement<Memory>) {
    let store = Memory::new(Broken::Nothing, DAY);
    let mut replica = Agreement::new(store.clone(), terms(1, 6), Ledger::default());
    let agreed = settle(&mut replica, &store, "a-0@1 b-0", "", 0).await;
    assert_eq!(ports(&agreed), "a-0=1 b-0=6");
    (store, replica)
}

async fn settle(replica: &mut Agreement<Memory>, store: &Memory, present: &str, gone: &str, at: u64) -> Agreed {
    store.books.lock().unwrap().now = hour(at);
    let gone: Vec<NodeId> = gone.split_whitespace().map(id).collect();
    replica.settle(&members(present), &gone, hour(at)).await
}

fn ports(agreed: &Agreed) -> String {
    agreed.ports.iter().map(|(id, port)| format!("{id}={port}")).collect::<Vec<_>>().join(" ")
}

fn stored(store: &Memory) -> String {
    text(&store.books.lock().unwrap().ledger())
}

#[tokio::test(start_paused = true)]
async fn a_lost_race_is_settled_by_what_the_winner_stored() {
    let (store, mut one) = agreed().await;
    let mut two = Agreement::new(store.another(), terms(1, 6), Ledger::default());
    // One sees b-1 and the other c-0; both would take port 5.
    let agreed = settle(&mut two, &store, "c-0", "", 0).await;
    assert_eq!(ports(&agreed), "a-0=1 b-0=6 c-0=5");
    store.books.lock().unwrap().faults = [None, Some(Fault::Conflict)].into();
    let agreed = settle(&mut one, &store, "a-0@1 b-0 b-1", "", 0).await;
    assert_eq!((ports(&agreed).as_str(), agreed.failure), ("a-0=1 b-0=6 b-1=4 c-0=5", None));
}

#[tokio::test(start_paused = true)]
async fn conflicts_without_end_are_told() {
    struct Contended(Memory);
    impl Store for Contended {
        type Version = u64;
        async fn read(&self) -> Result<Option<(Ledger, u64)>, StoreError> {
            Ok(None)
        }
        async fn create(&self, _: &Ledger) -> Result<(), StoreError> {
            self.0.books.lock().unwrap().version += 1;
            Err(StoreError::Conflict)
        }
        async fn replace(&self, _: &Ledger, _: &u64) -> Result<(), StoreError> {
            Err(StoreError::Conflict)
        }
    }
    let store = Memory::new(Broken::Nothing, DAY);
    let mut replica = Agreement::new(Contended(store.clone()), terms(1, 6), Ledger::default());
    let agreed = replica.settle(&members("a-0"), &[], hour(0)).await;
    assert_eq!(agreed.failure, Some(StoreError::Conflict));
    assert_eq!(agreed.unplaced, BTreeMap::from([(id("a-0"), Unplaced::Store(StoreError::Conflict))]));
    assert_eq!(store.books.lock().unwrap().version, 8);
}

#[tokio::test(start_paused = true)]
async fn without_the_store_agreed_ports_stay_and_new_nodes_wait() {
    let (store, mut replica) = agreed().await;
    *store.cut.lock().unwrap() = true;
    let agreed = settle(&mut replica, &store, "a-0@1 b-0 b-1", "", 1).await;
    assert_eq!((ports(&agreed).as_str(), &agreed.failure), ("a-0=1 b-0=6", &Some(away())));
    assert_eq!(agreed.unplaced, BTreeMap::from([(id("b-1"), Unplaced::Store(away()))]));
    // Back after a short absence it has its port, for as long as it stays.
    settle(&mut replica, &store, "b-0", "a-0", 2).await;
    assert_eq!(ports(&settle(&mut replica, &store, "a-0@1 b-0", "", 13).await), "a-0=1 b-0=6");
    assert_eq!(ports(&settle(&mut replica, &store, "a-0@1 b-0", "", 20).await), "a-0=1 b-0=6");
    // After a long one another replica, that has not seen it return, may have given the port away.
    settle(&mut replica, &store, "b-0", "a-0", 21).await;
    let agreed = settle(&mut replica, &store, "a-0@1 b-0", "", 22).await;
    assert_eq!(ports(&agreed), "b-0=6");
    assert_eq!(agreed.unplaced, BTreeMap::from([(id("a-0"), Unplaced::Store(away()))]));
    *store.cut.lock().unwrap() = false;
    assert_eq!(ports(&settle(&mut replica, &store, "a-0@1 b-0", "", 27).await), "a-0=1 b-0=6");
}

#[tokio::test(start_paused = true)]
async fn a_write_whose_answer_was_lost_counts_once_it_is_read() {
    let (store, mut replica) = agreed().await;
    store.books.lock().unwrap().faults = [None, Some(Fault::AfterWrite)].into();
    let agreed = settle(&mut replica, &store, "a-0@1 b-0 b-1", "", 0).await;
    assert_eq!((ports(&agreed).as_str(), stored(&store).as_str()), ("a-0=1 b-0=6", "a-0=1 b-0=6 b-1=5"));
    let agreed = settle(&mut replica, &store, "a-0@1 b-0 b-1", "", 0).await;
    assert_eq!((ports(&agreed).as_str(), agreed.failure), ("a-0=1 b-0=6 b-1=5", None));
}

#[tokio::test(start_paused = true)]
async fn an_absence_that_is_contradicted_is_reported_once() {
    let (store, mut late) = agreed().await;
    let mut other = Agreement::new(store.another(), terms(1, 6), Ledger::default());
    settle(&mut late, &store, "b-0", "a-0", 1).await;
    assert_eq!(stored(&store), "a-0=1! b-0=6");
    settle(&mut other, &store, "a-0@1 b-0", "", 1).await;
    assert_eq!(stored(&store), "a-0=1 b-0=6");
    let version = store.books.lock().unwrap().version;
    settle(&mut late, &store, "b-0", "a-0", 1).await;
    assert_eq!((stored(&store).as_str(), store.books.lock().unwrap().version), ("a-0=1 b-0=6", version));
    // Seen and gone once more, it is news again; and what is said for long enough is said again.
    settle(&mut late, &store, "a-0@1 b-0", "", 1).await;
    settle(&mut late, &store, "b-0", "a-0", 1).await;
    assert_eq!(stored(&store), "a-0=1! b-0=6");
    settle(&mut other, &store, "a-0@1 b-0", "", 1).await;
    settle(&mut late, &store, "b-0", "a-0", 2).await;
    assert_eq!(stored(&store), "a-0=1! b-0=6");
}

#[tokio::test(start_paused = true)]
async fn a_quarantine_counts_from_the_last_sight_of_the_node() {
    let (store, mut replica) = agreed().await;
    settle(&mut replica, &store, "b-0", "a-0", 1).await;
    // It is back while the store is away, and away again when the store is back.
    *store.cut.lock().unwrap() = true;
    settle(&mut replica, &store, "a-0@1 b-0", "", 10).await;
    settle(&mut replica, &store, "a-0@1 b-0", "", 24).await;
    *store.cut.lock().unwrap() = false;
    assert_eq!(ports(&settle(&mut replica, &store, "b-0 c-0", "", 26).await), "b-0=6 c-0=5");
    assert_eq!(stored(&store), "a-0=1! b-0=6 c-0=5");
    let more = "b-0 c-0 d-0 d-1 d-2 d-3";
    settle(&mut replica, &store, more, "a-0", 47).await;
    assert_eq!(stored(&store), "a-0=1! b-0=6 c-0=5 d-0=4 d-1=3 d-2=2");
    settle(&mut replica, &store, more, "a-0", 48).await;
    assert_eq!(stored(&store), "b-0=6 c-0=5 d-0=4 d-1=3 d-2=2 d-3=1");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_left_unseen_is_missed() {
    let (store, _) = agreed().await;
    let mut new = Agreement::new(store.another(), terms(1, 6), Ledger::default());
    settle(&mut new, &store, "b-0", "", 1).await;
    settle(&mut new, &store, "b-0", "", 2).await;
    settle(&mut new, &store, "b-0", "", 7).await;
    assert_eq!(stored(&store), "a-0=1 b-0=6");
    settle(&mut new, &store, "b-0", "", 8).await;
    assert_eq!(stored(&store), "a-0=1! b-0=6");
    settle(&mut new, &store, "b-0 a-9@1", "", 31).await;
    assert_eq!(stored(&store), "a-0=1! a-9=5 b-0=6");
    settle(&mut new, &store, "b-0 a-8@1", "", 32).await;
    assert_eq!(stored(&store), "a-8=1 a-9=5 b-0=6");
    // Who sees nobody misses nobody.
    let mut blind = Agreement::new(store.another(), terms(1, 6), Ledger::default());
    for hour in [32, 40, 70] {
        settle(&mut blind, &store, "", "", hour).await;
    }
    assert_eq!(stored(&store), "a-8=1 a-9=5 b-0=6");
}

#[tokio::test(start_paused = true)]
async fn a_removed_ledger_is_made_again_as_it_was() {
    let (store, mut replica) = agreed().await;
    settle(&mut replica, &store, "a-0@1 b-0 b-1", "", 0).await;
    settle(&mut replica, &store, "a-0@1 b-1", "b-0", 1).await;
    assert_eq!(stored(&store), "a-0=1 b-0=6! b-1=5");
    store.books.lock().unwrap().stored = None;
    settle(&mut replica, &store, "a-0@1 b-1", "b-0", 2).await;
    assert_eq!(stored(&store), "a-0=1 b-0=6! b-1=5");
    // And where another replica, that did not know, was faster: its own ports of old, where they are free.
    store.books.lock().unwrap().stored = None;
    let mut new = Agreement::new(store.another(), terms(1, 6), Ledger::default());
    settle(&mut new, &store, "a-0@1", "", 2).await;
    settle(&mut replica, &store, "a-0@1 b-1", "b-0", 2).await;
    assert_eq!(stored(&store), "a-0=1 b-1=5");
}
