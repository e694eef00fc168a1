//! News that are older than others.

use super::*;

#[test]
fn a_pod_that_had_no_address_yet_when_it_was_heard_of_takes_no_node_away_that_answers() {
    let mut world = World::listed(&[("a", &["cassandra-0=10.1.0.1"])]);
    // The watch of Pods has stood still since then.
    world.list_pods(&[("cassandra-0", "u0", &["10.1.0.1"]), ("cassandra-2", "u0", &[])]);
    world.apply("b", B);
    world.check("cassandra-0 10.1.0.1:9042, cassandra-2 10.1.0.3:9042");
    world.answering = true;
    world.list(&[("a", &["cassandra-0=10.1.0.1"])]);
    world.check("cassandra-0 10.1.0.1:9042, cassandra-2 away?");
    assert!(world.relist, "another list is asked before this is believed");
}

#[test]
fn what_was_heard_of_an_earlier_pod_takes_no_later_one_away_that_answers() {
    let mut world = World::listed(&[("a", &["cassandra-0=10.1.0.1"]), ("b", B)]);
    world.list_pods(&[("cassandra-0", "u0", &["10.1.0.1"]), ("cassandra-2", "u0", &["10.1.0.3"])]);
    world.apply("b", &["cassandra-2=10.1.0.7 uid=u1"]);
    world.answering = true;
    world.check("cassandra-0 10.1.0.1:9042, cassandra-2 10.1.0.7:9042");
    let mut deleted = world.clone();
    deleted.delete_pod("cassandra-2");
    for mut world in [world, deleted] {
        world.list(&[("a", &["cassandra-0=10.1.0.1"])]);
        world.check("cassandra-0 10.1.0.1:9042, cassandra-2 away?");
        assert!(world.relist, "another list is asked before this is believed");
    }
}
