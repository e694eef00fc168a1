//! What the API does wrong, and that the nodes behind it go on as if nothing were.

use std::time::Instant;

use super::super::fake_api::{Fault, line};
use super::*;

/// A fault of the slices' list or watch, so many requests long; nothing that is known changes, and then a pod that moved
/// meanwhile is found.
async fn check_nothing_changes(net: [u8; 2], verb: Verb, fault: Fault, requests: usize) -> (Scene, Running) {
    let scene = Scene::of(net, 2).await;
    let running = scene.started(QUICK).await;
    let lives = running.lives();
    scene.api.break_with(Kind::Slices, verb, fault);
    if verb == Verb::List {
        scene.api.forget_history();
    }
    scene.api.end_watches(Kind::Slices);
    scene.api.until_asked(Kind::Slices, verb, requests).await;
    assert_eq!(running.lives(), lives, "{fault:?}");
    scene.api.mend();
    (scene, running)
}

/// The watch works again: what happened in the meantime is seen.
async fn check_goes_on(scene: &mut Scene, running: &mut Running) {
    let lives = running.lives();
    let ordinal = scene.nodes.len() as u8;
    let new = scene.address(ordinal);
    scene.ring.facts.lock().members.push(super::super::node::member(u128::from(ordinal) + 1, new));
    scene.nodes.push(Some(FakeNode::start(&scene.ring, new).await));
    let all: Vec<u8> = (0..=ordinal).collect();
    scene.api.put(Kind::Slices, "cassandra-x1", scene.slice(&all));
    let port = 9042 + u16::from(ordinal);
    running.until_state(port, NodeState::Up).await;
    let others: Vec<_> = running.lives().into_iter().filter(|life| life.0 != port).collect();
    assert_eq!(others, lives);
}

#[tokio::test]
async fn a_list_that_fails_in_its_middle_changes_nothing() {
    let (mut scene, mut running) = check_nothing_changes([51, 1], Verb::List, Fault::Cut, 3).await;
    check_goes_on(&mut scene, &mut running).await;
    let (mut scene, mut running) = {
        let scene = Scene::without_slices([51, 2], 2).await;
        scene.api.set_page(1);
        scene.api.put(Kind::Slices, "cassandra-a", scene.slice(&[0]));
        scene.api.put(Kind::Slices, "cassandra-b", scene.slice(&[1]));
        let running = scene.started(QUICK).await;
        (scene, running)
    };
    let lives = running.lives();
    scene.api.break_with(Kind::Slices, Verb::List, Fault::SecondPageExpired);
    scene.api.forget_history();
    scene.api.end_watches(Kind::Slices);
    // Two pages, the first of them each time.
    scene.api.until_asked(Kind::Slices, Verb::List, 6).await;
    assert_eq!(running.lives(), lives);
    scene.api.mend();
    scene.api.delete(Kind::Slices, "cassandra-b");
    scene.api.put(Kind::Slices, "cassandra-x1", scene.slice(&[1]));
    check_goes_on(&mut scene, &mut running).await;
}

#[tokio::test]
async fn a_history_that_is_gone_costs_one_list_and_nobody_notices() {
    let mut scene = Scene::of([51, 3], 2).await;
    let mut running = scene.started(QUICK).await;
    let (lives, lists) = (running.lives(), scene.api.requests(Kind::Slices, Verb::List).len());
    for more in 1..=3 {
        scene.api.forget_history();
        scene.api.end_watches(Kind::Slices);
        // The one that is refused, and the one after the list.
        scene.api.until_asked(Kind::Slices, Verb::Watch, 2).await;
        assert_eq!(scene.api.requests(Kind::Slices, Verb::List).len(), lists + more);
    }
    assert_eq!(running.lives(), lives);
    assert_eq!(running.failures("endpointslices", "gone"), 3.0);
    check_goes_on(&mut scene, &mut running).await;
}

#[tokio::test]
async fn watches_that_end_at_once_are_begun_at_their_pace_and_change_nothing() {
    let timing = Timing { apart: Duration::from_millis(150), ..QUICK };
    let scene = Scene::of([51, 4], 2).await;
    let running = scene.started(timing).await;
    let (lives, lists) = (running.lives(), running.metric("cqlgate_discovery_relists_total"));
    for kind in [Kind::Slices, Kind::Pods, Kind::Service] {
        scene.api.break_with(kind, Verb::Watch, Fault::EndsAtOnce);
        scene.api.end_watches(kind);
    }
    for kind in [Kind::Slices, Kind::Pods, Kind::Service] {
        scene.api.until_asked(kind, Verb::Watch, 6).await;
        let watches = scene.api.requests(kind, Verb::Watch);
        let took = watches[watches.len() - 1].at - watches[1].at;
        // The first may have been late.
        assert!(took >= timing.apart * (watches.len() as u32 - 3), "{kind:?}: {watches:?}");
    }
    assert_eq!((running.lives(), running.metric("cqlgate_discovery_relists_total")), (lives, lists));
    assert_eq!(Timing::default().apart, Duration::from_secs(1));
}

#[tokio::test]
async fn a_watch_goes_on_from_the_last_version_seen() {
    let mut scene = Scene::of([51, 5], 2).await;
    let mut running = scene.started(QUICK).await;
    let lists = scene.api.requests(Kind::Slices, Verb::List).len();
    let last = || scene.api.requests(Kind::Slices, Verb::Watch).last().and_then(|watch| watch.version);
    for end in [FakeApi::end_watches, FakeApi::cut_watches] {
        scene.api.bookmark(Kind::Slices);
        let version = scene.api.version();
        end(&scene.api, Kind::Slices);
        until(|| last() == Some(version), || format!("{:?}, not {version}", last())).await;
    }
    assert_eq!(scene.api.requests(Kind::Slices, Verb::List).len(), lists);
    check_goes_on(&mut scene, &mut running).await;
}

#[tokio::test]
async fn a_silent_watch_is_begun_anew_where_it_was() {
    let timing = Timing { silence: Duration::from_millis(200), ..QUICK };
    let mut scene = Scene::of([51, 6], 2).await;
    let mut running = scene.started(timing).await;
    let (lives, lists) = (running.lives(), scene.api.requests(Kind::Slices, Verb::List).len());
    scene.api.break_with(Kind::Slices, Verb::Watch, Fault::Stalls);
    scene.api.end_watches(Kind::Slices);
    scene.api.until_asked(Kind::Slices, Verb::Watch, 3).await;
    assert_eq!(running.lives(), lives);
    scene.api.mend();
    // The last one that stalls still does.
    check_goes_on(&mut scene, &mut running).await;
    assert_eq!(scene.api.requests(Kind::Slices, Verb::List).len(), lists);
}

/// Waits after the failures of [`check_storm`]: 10, 20, 40, 80 and 160 ms, by half; the first may have been late.
const GROWING: Duration = Duration::from_millis(140);

/// Six failures one after the other, in `least` or more; nothing that is known changes, and when the API has mended all goes
/// on.
async fn check_storm(net: [u8; 2], verb: Verb, fault: Fault, reason: &str, least: Duration) {
    let timing = Timing { answer: Duration::from_millis(500), longest_wait: Duration::from_millis(640), ..QUICK };
    let mut scene = Scene::of(net, 2).await;
    let mut running = scene.started(timing).await;
    let (lives, asked) = (running.lives(), scene.api.requests(Kind::Slices, verb).len());
    scene.api.break_with(Kind::Slices, verb, fault);
    if verb == Verb::List {
        scene.api.forget_history();
    }
    scene.api.end_watches(Kind::Slices);
    scene.api.until_asked_in_all(Kind::Slices, verb, asked + 6).await;
    let asked: Vec<_> = scene.api.requests(Kind::Slices, verb)[asked..].iter().map(|request| request.at).collect();
    let took = asked[5] - asked[0];
    assert!(took >= least, "{fault:?} {verb:?}: {took:?}");
    running.until_failures("endpointslices", reason, 5.0).await;
    assert!(running.lives() == lives && running.readiness.is_ready(), "{fault:?} {verb:?}");
    scene.api.mend();
    running.until_watching("endpointslices", true).await;
    check_goes_on(&mut scene, &mut running).await;
}

#[tokio::test]
async fn throttling_is_met_by_the_waits_that_the_server_asks_for_and_changes_nothing() {
    // Retry-After: 1, five times; the first answer may have come late.
    let least = Duration::from_millis(4500);
    tokio::join!(
        check_storm([52, 1], Verb::List, Fault::Throttled, "throttled", least),
        check_storm([52, 2], Verb::Watch, Fault::Throttled, "throttled", least)
    );
}

#[tokio::test]
async fn errors_of_the_server_are_met_by_longer_waits_and_change_nothing() {
    check_storm([52, 3], Verb::List, Fault::Internal, "server", GROWING).await;
    check_storm([52, 4], Verb::Watch, Fault::Unavailable, "server", GROWING).await;
}

#[tokio::test]
async fn answers_that_break_off_or_make_no_sense_are_met_by_longer_waits_and_change_nothing() {
    check_storm([52, 5], Verb::List, Fault::Cut, "connection", GROWING).await;
    check_storm([52, 6], Verb::List, Fault::Garbage, "server", GROWING).await;
    check_storm([52, 7], Verb::Watch, Fault::Garbage, "server", GROWING).await;
}

#[tokio::test]
async fn a_server_that_does_not_answer_or_know_the_gateway_is_met_by_longer_waits_and_changes_nothing() {
    check_storm([52, 8], Verb::Watch, Fault::Silent, "timeout", GROWING).await;
    check_storm([52, 9], Verb::Watch, Fault::Unauthorized, "unauthorized", GROWING).await;
}

#[tokio::test]
async fn what_is_no_event_is_gone_around_by_a_list() {
    let mut scene = Scene::of([51, 7], 2).await;
    let mut running = scene.started(QUICK).await;
    let lives = running.lives();
    let garbage: [Vec<u8>; 5] = [
        b"not JSON at all\n".to_vec(),
        line("ADDED", &json!({"kind": "EndpointSlice", "metadata": 7})),
        line("WHATEVER", &json!({})),
        b"\xff\xfe\n".to_vec(),
        // No end of it, however long one waits.
        vec![b' '; 9 * 1024 * 1024],
    ];
    for (count, bytes) in (1..).zip(garbage) {
        let lists = scene.api.requests(Kind::Slices, Verb::List).len();
        scene.api.write(Kind::Slices, bytes);
        running.until_failures("endpointslices", "server", f64::from(count)).await;
        scene.api.until_asked_in_all(Kind::Slices, Verb::List, lists + 1).await;
        running.until_watching("endpointslices", true).await;
    }
    assert_eq!(running.lives(), lives);
    check_goes_on(&mut scene, &mut running).await;
}

#[tokio::test]
async fn a_list_with_less_in_it_takes_the_dead_at_once_and_others_when_others_have_said_so_for_a_while() {
    let scene = Scene::without_slices([51, 8], 3).await;
    // With Pods there would be another witness.
    scene.api.break_with(Kind::Pods, Verb::List, Fault::Forbidden);
    scene.api.put(Kind::Slices, "cassandra-a", scene.slice(&[0]));
    scene.api.put(Kind::Slices, "cassandra-b", scene.slice(&[1, 2]));
    let mut scene = scene;
    let timing = Timing { doubt: Duration::from_secs(2), ..QUICK };
    let mut running = scene.started(timing).await;
    scene.nodes[2] = None;
    running.until_state(9044, NodeState::Down).await;
    let lives = running.lives();
    scene.api.lose(Kind::Slices, "cassandra-b");
    let began = Instant::now();
    scene.api.break_with(Kind::Slices, Verb::List, Fault::UnavailableAfterOne);
    scene.api.forget_history();
    scene.api.end_watches(Kind::Slices);
    running.until("the dead one is away", |topology| !topology.node_at_port(9044).unwrap().present).await;
    scene.api.until_asked(Kind::Slices, Verb::List, 3).await;
    assert_eq!(running.lives()[..2], lives[..2]);
    scene.api.mend_one(Kind::Slices, Verb::List);
    let away = running.until_state(9043, NodeState::Down).await;
    assert!(!away.present && began.elapsed() >= timing.doubt);
    assert_eq!(running.lives()[0], lives[0]);
}

#[tokio::test]
async fn nodes_are_found_where_pods_may_not_be_watched() {
    let scene = Scene::of([51, 9], 2).await;
    scene.api.break_with(Kind::Pods, Verb::List, Fault::Forbidden);
    let mut scene = scene;
    let mut running = scene.started(QUICK).await;
    running.until_failures("pods", "forbidden", 1.0).await;
    check_goes_on(&mut scene, &mut running).await;
}

#[tokio::test]
async fn pods_that_are_forbidden_later_testify_no_more_until_they_are_listed_again() {
    let mut scene = Scene::of([51, 11], 2).await;
    let mut running = scene.started(QUICK).await;
    running.until_watching("pods", true).await;
    let lists = scene.api.requests(Kind::Pods, Verb::List).len();
    for verb in [Verb::List, Verb::Watch] {
        scene.api.break_with(Kind::Pods, verb, Fault::Forbidden);
    }
    scene.api.end_watches(Kind::Pods);
    running.until_failures("pods", "forbidden", 1.0).await;
    // Its Pod is still there, as far as anybody knows.
    scene.nodes[1] = None;
    scene.api.put(Kind::Slices, "cassandra-x1", scene.slice(&[0]));
    running.until("away", |topology| !topology.node_at_port(9043).unwrap().present).await;
    scene.api.mend();
    scene.api.until_asked_in_all(Kind::Pods, Verb::List, lists + 1).await;
    running.until("its Pod says that it is there", |topology| topology.node_at_port(9043).unwrap().present).await;
}

#[tokio::test]
async fn pods_that_are_forbidden_for_a_moment_testify_all_the_same() {
    let timing = Timing { forbidden: Duration::from_secs(600), ..QUICK };
    let mut scene = Scene::of([51, 12], 2).await;
    let mut running = scene.started(timing).await;
    running.until_watching("pods", true).await;
    scene.api.break_with(Kind::Pods, Verb::Watch, Fault::Forbidden);
    scene.api.end_watches(Kind::Pods);
    running.until_failures("pods", "forbidden", 1.0).await;
    scene.api.put(Kind::Slices, "cassandra-x1", scene.slice(&[0]));
    // The last waits are far longer than what the slice needs.
    running.until_failures("pods", "forbidden", 8.0).await;
    assert!(running.node(9043).present);
    scene.api.mend();
    running.until_watching("pods", true).await;
    check_goes_on(&mut scene, &mut running).await;
}

#[tokio::test]
async fn an_api_that_is_away_takes_nothing_away() {
    let mut scene = Scene::of([51, 10], 3).await;
    let mut running = scene.started(QUICK).await;
    let lives = running.lives();
    scene.api.kill();
    running.until_watching("endpointslices", false).await;
    running.until_failures("endpointslices", "connection", 5.0).await;
    assert_eq!(running.lives(), lives);
    // Whether a node lives is known without the API.
    scene.nodes[2] = None;
    running.until_state(9044, NodeState::Down).await;
    assert!(running.readiness.is_ready());
    scene.nodes[2] = Some(FakeNode::start(&scene.ring, scene.address(2)).await);
    running.until_state(9044, NodeState::Up).await;
    scene.api.forget_history();
    scene.api.start_again().await;
    running.until_watching("endpointslices", true).await;
    check_goes_on(&mut scene, &mut running).await;
    assert_eq!(running.lives()[..2], lives[..2]);
}
