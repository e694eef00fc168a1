//! Ports that the user gave.

use super::*;

/// On ports 1 to 6.
fn pinned(pins: &str) -> Terms {
    let pin = |text: &str| {
        let (name, port) = text.split_once('=').unwrap();
        (id(name), port.parse().unwrap())
    };
    Terms { pins: pins.split_whitespace().map(pin).collect(), ..terms(1, 6) }
}

#[track_caller]
fn check(ledger: &Ledger, pins: &str, present: &str, gone: &str, expected: &str, unplaced: &[&str]) -> Ledger {
    let settled = ledger.settle(&view(present, gone), &pinned(pins), hour(1));
    assert_eq!(text(&settled.ledger), expected);
    let said: Vec<String> = settled.unplaced.values().map(PortError::to_string).collect();
    assert_eq!(said, unplaced);
    settled.ledger
}

#[test]
fn a_pinned_port_is_its_nodes_alone_new_or_not() {
    let none = Ledger::default();
    check(&none, "a-1=5", "a-0@1 a-1@5 a-2@3", "", "a-0=1 a-1=5 a-2=3", &[]);
    // Of any StatefulSet, and nobody else is given it while the node is not there.
    let ledger = check(&none, "b-0=3 b-1=6", "a-0@1 b-0 c-0", "", "a-0=1 b-0=3 c-0=5", &[]);
    let ledger = check(&ledger, "b-0=3 b-1=6", "a-0@1 b-0 c-0 b-1", "", "a-0=1 b-0=3 b-1=6 c-0=5", &[]);
    // One that has a port moves, and one that waits for that port after it.
    check(&ledger, "a-0=2 c-0=1", "a-0 b-0 b-1 c-0", "", "a-0=2 b-0=3 b-1=6 c-0=1", &[]);
    check(&ledger, "c-0=2 a-0=5", "a-0 b-0 b-1 c-0", "", "a-0=5 b-0=3 b-1=6 c-0=2", &[]);
}

#[test]
fn a_port_that_another_holds_or_has_just_left_is_refused_and_named() {
    let ledger = check(&Ledger::default(), "", "a-0@1 a-1@2", "", "a-0=1 a-1=2", &[]);
    let refused = |of: &str| format!("discovery.kubernetes.pins: port 1 of {of} is already the port of a-0");
    let (keeps, waits) = (refused("a-1"), refused("b-0"));
    check(&ledger, "a-1=1", "a-0@1 a-1@2", "", "a-0=1 a-1=2", &[&keeps]);
    check(&ledger, "b-0=1", "a-0@1 a-1@2 b-0", "", "a-0=1 a-1=2", &[&waits]);
    check(&ledger, "b-0=1", "a-1@2 b-0", "a-0", "a-0=1! a-1=2", &[&waits]);
}

/// Without the store nobody knows whether others have moved the node already.
#[tokio::test(start_paused = true)]
async fn a_node_that_is_to_move_waits_while_the_store_is_away() {
    let (store, _) = agreed().await;
    let ledger = store.books.lock().unwrap().ledger();
    let mut replica = Agreement::new(store.clone(), pinned("b-0=4"), ledger);
    *store.cut.lock().unwrap() = true;
    let first = settle(&mut replica, &store, "a-0@1 b-0", "", 1).await;
    assert_eq!(ports(&first), "a-0=1");
    assert_eq!(first.unplaced, BTreeMap::from([(id("b-0"), Unplaced::Store(away()))]));
    *store.cut.lock().unwrap() = false;
    assert_eq!(ports(&settle(&mut replica, &store, "a-0@1 b-0", "", 1).await), "a-0=1 b-0=4");
    *store.cut.lock().unwrap() = true;
    assert_eq!(ports(&settle(&mut replica, &store, "a-0@1 b-0", "", 1).await), "a-0=1 b-0=4");
}

/// Replicas with pins and without, as in a roll-out: each is told the same.
#[tokio::test(start_paused = true)]
async fn a_replica_without_the_pin_keeps_to_what_is_stored() {
    let (store, mut before) = agreed().await;
    let mut after = Agreement::new(store.clone(), pinned("b-0=4"), Ledger::default());
    for _ in 0..3 {
        assert_eq!(ports(&settle(&mut after, &store, "a-0@1 b-0", "", 1).await), "a-0=1 b-0=4");
        assert_eq!(ports(&settle(&mut before, &store, "a-0@1 b-0", "", 1).await), "a-0=1 b-0=4");
    }
    assert_eq!(stored(&store), "a-0=1 b-0=4");
}
