//! Pods with an address of each family, of which Cassandra listens at one.

use super::*;

const V4: &[&str] = &["cassandra-0=10.1.0.1", "cassandra-1=10.1.0.2"];
const V6: &[&str] = &["cassandra-0=fd00::1", "cassandra-1=fd00::2"];

impl World {
    fn listen(&mut self, at: &[&str]) {
        self.listening = at.iter().map(|ip| ip.parse().unwrap()).collect();
        self.settle();
    }

    /// Where it is asked aside; those that answer there say so.
    pub(super) fn ask_elsewhere(&mut self) -> String {
        let asked: Vec<_> = self.fold.elsewhere().map(|(id, _, at)| (id.clone(), at)).collect();
        for (id, at) in &asked {
            if self.listening.contains(&at.ip()) {
                self.fold.see_answer(id, *at);
            }
        }
        self.settle();
        asked.iter().map(|(_, at)| at.ip().to_string()).collect::<Vec<_>>().join(" ")
    }
}

#[test]
fn a_node_is_where_it_answers() {
    let mut world = World::listed(&[("v4", V4), ("v6", V6)]);
    world.listen(&["fd00::1", "10.1.0.2"]);
    assert_eq!(world.fold.deadline(), Some(at(1003)));
    world.pass(2);
    assert_eq!(world.ask_elsewhere(), "");
    world.pass(1);
    assert_eq!(world.fold.deadline(), None);
    assert_eq!(world.ask_elsewhere(), "fd00::1");
    world.check("cassandra-0 [fd00::1]:9042, cassandra-1 10.1.0.2:9042");
    world.pass(3600);
    assert_eq!(world.ask_elsewhere(), "");
    world.check("cassandra-0 [fd00::1]:9042, cassandra-1 10.1.0.2:9042");
}

#[test]
fn a_node_that_answers_is_never_moved_whatever_else_answers_or_appears() {
    let mut world = World::listed(&[("v6", V6)]);
    world.listen(&["fd00::1", "fd00::2", "10.1.0.1"]);
    world.apply("v4", V4);
    world.pass(3600);
    assert_eq!(world.ask_elsewhere(), "");
    world.fold.see_answer(&NodeId::new("cassandra-0"), "10.1.0.1:9042".parse().unwrap());
    world.settle();
    world.check("cassandra-0 [fd00::1]:9042, cassandra-1 [fd00::2]:9042");
    // Nor is one that answered and is silent for a while, until it answers elsewhere.
    world.listen(&["10.1.0.2"]);
    world.pass(3600);
    assert_eq!(world.ask_elsewhere(), "10.1.0.1 10.1.0.2");
    world.check("cassandra-0 [fd00::1]:9042, cassandra-1 10.1.0.2:9042");
    // What answered once while it was not asked for is forgotten.
    world.pass(3600);
    world.check("cassandra-0 [fd00::1]:9042, cassandra-1 10.1.0.2:9042");
}

#[test]
fn a_pod_that_is_replaced_begins_at_its_first_address() {
    let mut world = World::listed(&[("v4", V4), ("v6", V6)]);
    world.listen(&["fd00::1"]);
    world.pass(3);
    world.ask_elsewhere();
    world.check("cassandra-0 [fd00::1]:9042, cassandra-1 10.1.0.2:9042");
    world.apply("v4", &["cassandra-0=10.1.0.8 uid=u1"]);
    world.apply("v6", &["cassandra-0=fd00::8 uid=u1"]);
    world.check("cassandra-0 10.1.0.8:9042, cassandra-1 away");
    assert_eq!(world.ask_elsewhere(), "");
    world.listen(&["fd00::8"]);
    world.pass(3);
    world.ask_elsewhere();
    world.check("cassandra-0 [fd00::8]:9042, cassandra-1 away");
}

/// The Service has one family, the pods both.
#[test]
fn the_other_address_may_be_known_by_the_pod_alone() {
    let mut world = World::listed(&[("v4", &["cassandra-0=10.1.0.1"])]);
    world.list_pods(&[("cassandra-0", "u0", &["10.1.0.1", "fd00::1"])]);
    world.listen(&["fd00::1"]);
    world.pass(3);
    assert_eq!(world.ask_elsewhere(), "fd00::1");
    world.check("cassandra-0 [fd00::1]:9042");
    // The same with the slices the last to speak.
    let mut world = World::listed(&[]);
    world.list_pods(&[("cassandra-0", "u0", &["10.1.0.1", "fd00::1"])]);
    world.apply("v4", &["cassandra-0=10.1.0.1"]);
    world.check("cassandra-0 10.1.0.1:9042");
    world.listen(&["fd00::1"]);
    world.pass(3);
    assert_eq!(world.ask_elsewhere(), "fd00::1");
    world.check("cassandra-0 [fd00::1]:9042");
}

#[test]
fn a_family_that_is_configured_is_the_only_one() {
    let mut world = World::listed(&[]);
    world.fold.family = Some(Family::Ipv6);
    world.list(&[("v4", V4), ("v6", &["cassandra-0=fd00::1"])]);
    world.listen(&["10.1.0.1", "10.1.0.2"]);
    world.check("cassandra-0 [fd00::1]:9042");
    let said: Vec<_> = world.fold.strangers().map(|of| format!("{} {}", of.address, of.why)).collect();
    assert_eq!(said, ["10.1.0.2 pod cassandra-1 has no IPv6 address, and discovery.kubernetes.family wants one"]);
    world.pass(3);
    assert_eq!(world.ask_elsewhere(), "");
    // The pods' own addresses count as well.
    world
        .list_pods(&[("cassandra-0", "u0", &["10.1.0.1", "fd00::1"]), ("cassandra-1", "u0", &["10.1.0.2", "fd00::2"])]);
    world.check("cassandra-0 [fd00::1]:9042, cassandra-1 [fd00::2]:9042");
    assert_eq!(world.fold.strangers().count(), 0);
}
