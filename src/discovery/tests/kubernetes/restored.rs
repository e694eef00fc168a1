//! etcd is restored from a backup: the lists' versions are lower than the watches', which are accepted and stay silent.

use super::super::dns::NameServer;
use super::away::{NAMES, octets};
use super::*;

/// A moment, and then more rarely.
const SUSPICIOUS: Timing =
    Timing { suspicion: Duration::from_millis(200), longest_suspicion: Duration::from_secs(2), ..QUICK };

impl Scene {
    /// The API says that pod 1 lives at `address` from now on.
    pub fn say_moved(&self, address: SocketAddr) {
        let pods = [(0, "u0".to_owned(), self.address(0)), (1, "u1".to_owned(), address)];
        self.api.put(Kind::Slices, "cassandra-x1", slice(&pods));
        self.api.put(Kind::Pods, "cassandra-1", pod("u1", address));
    }

    /// Pod 1 lives at `address`, and nowhere else.
    pub async fn move_pod(&mut self, address: SocketAddr) {
        self.nodes[1] = None;
        self.join_at(address).await;
    }

    pub async fn join_at(&mut self, address: SocketAddr) {
        self.ring.facts.lock().members[1].address = address;
        self.nodes.push(Some(FakeNode::start(&self.ring, address).await));
    }

    /// Many versions after the backup etcd is restored from it, and the watches go on where they were: deaf.
    async fn restore_with(&self, running: &Running) {
        let backup = self.api.back_up();
        for _ in 0..100 {
            self.api.put(Kind::LoadBalancer, "other", json!({}));
        }
        let kinds = [Kind::Slices, Kind::Pods];
        for kind in kinds {
            self.api.bookmark(kind);
            self.api.end_watches(kind);
        }
        let late = self.api.version() - 1;
        let at_late = |kind| {
            let watches = self.api.requests(kind, Verb::Watch);
            watches.iter().filter(|watch| watch.version >= Some(late)).count()
        };
        let mut watches = kinds.map(|_| 0);
        for restored in [false, true] {
            if restored {
                watches = kinds.map(at_late);
                self.api.restore(&backup).await;
            }
            for (kind, before) in kinds.into_iter().zip(watches) {
                until(|| at_late(kind) > before, || format!("{kind:?}, {}", at_late(kind))).await;
            }
        }
        running.until_watching("endpointslices", true).await;
        running.until_watching("pods", true).await;
    }
}

#[tokio::test]
async fn a_node_that_is_dead_where_the_api_says_is_found_by_a_new_list() {
    let mut scene = Scene::of([55, 1], 2).await;
    let mut running = scene.started(SUSPICIOUS).await;
    running.until_watching("pods", true).await;
    let lives = running.lives();
    scene.restore_with(&running).await;
    let there = scene.address(8);
    scene.move_pod(there).await;
    scene.say_moved(there);
    let found = |topology: &Topology| {
        topology.node_at_port(9043).is_some_and(|node| node.address == there && node.state == NodeState::Up)
    };
    running.until("at its new address", found).await;
    assert_eq!(running.lives()[0], lives[0]);
    // And the watch is at the list's own place: it hears again.
    let further = scene.address(9);
    let lists = scene.api.requests(Kind::Slices, Verb::List).len();
    scene.join_at(further).await;
    scene.say_moved(further);
    running.until("the watch tells", |topology| topology.node_at_port(9043).unwrap().address == further).await;
    assert_eq!(scene.api.requests(Kind::Slices, Verb::List).len(), lists);
}

#[tokio::test]
async fn a_name_that_leads_elsewhere_is_a_reason_to_list_again() {
    let mut scene = Scene::of([55, 2], 2).await;
    let server = NameServer::start().await;
    server.set_ttl(1);
    for (name, ordinal) in NAMES.into_iter().zip(0..) {
        server.set(name, &[octets(scene.address(ordinal))]);
    }
    let timing = Timing { names: Duration::from_secs(1), ..SUSPICIOUS };
    let mut running = scene.start_by(server.names.clone(), timing, &in_kubernetes(""));
    for port in [9042, 9043] {
        running.until_state(port, NodeState::Up).await;
    }
    running.until_watching("pods", true).await;
    scene.restore_with(&running).await;
    // The former one answers for as long as it likes.
    let there = scene.address(8);
    scene.join_at(there).await;
    scene.say_moved(there);
    server.set(NAMES[1], &[octets(there)]);
    running.until("where its name leads", |topology| topology.node_at_port(9043).unwrap().address == there).await;
}

#[tokio::test]
async fn time_alone_is_a_reason_to_list_again() {
    let timing = Timing { renew: Duration::from_millis(500), doubt: Duration::from_millis(200), ..QUICK };
    let mut scene = Scene::of([55, 3], 2).await;
    let mut running = scene.started(timing).await;
    running.until_watching("pods", true).await;
    let lives = running.lives();
    scene.restore_with(&running).await;
    // Both addresses answer, and nobody has a name.
    let there = scene.address(8);
    scene.join_at(there).await;
    scene.say_moved(there);
    running.until("listed", |topology| topology.node_at_port(9043).unwrap().address == there).await;
    assert_eq!(running.lives()[0], lives[0]);
    // Each list by its time: jittered, and no storm.
    scene.api.until_asked(Kind::Slices, Verb::List, 6).await;
    let lists = scene.api.requests(Kind::Slices, Verb::List);
    let gaps = lists[lists.len() - 5..].windows(2).map(|two| two[1].at - two[0].at);
    assert!(gaps.clone().all(|gap| gap >= timing.renew * 3 / 4), "{:?}", gaps.collect::<Vec<_>>());
}

#[tokio::test]
async fn whoever_is_dead_for_long_costs_few_lists() {
    let mut scene = Scene::of([55, 4], 3).await;
    let mut running = scene.started(SUSPICIOUS).await;
    let before = scene.api.requests(Kind::Slices, Verb::List).len();
    scene.nodes[1] = None;
    scene.nodes[2] = None;
    running.until_state(9043, NodeState::Down).await;
    running.until_state(9044, NodeState::Down).await;
    scene.api.until_asked_in_all(Kind::Slices, Verb::List, before + 5).await;
    let lists = scene.api.requests(Kind::Slices, Verb::List);
    let gaps: Vec<Duration> = lists[before..].windows(2).map(|two| two[1].at - two[0].at).collect();
    // 400, 800, 1600 and 2000 ms, less a quarter at most; two nodes are no more than one. The second may have died later.
    assert!(gaps.iter().all(|gap| *gap >= SUSPICIOUS.suspicion), "{gaps:?}");
    assert!(gaps.last().unwrap() >= &(SUSPICIOUS.suspicion * 3), "{gaps:?}");
    assert_eq!(Timing::default().suspicion, Duration::from_secs(5));
}
