//! Slices of another cluster beside one's own: the same names, other pods.

use super::*;

impl World {
    /// `10.9.0.1 why`, one for each that is hidden.
    fn hidden(&self) -> Vec<String> {
        self.fold.strangers().map(|of| format!("{} {}", of.address, of.why)).collect()
    }
}

const OURS: &[&str] = &["cassandra-0=10.1.0.1", "cassandra-1=10.1.0.2"];
const HERE: &str = "cassandra-0 10.1.0.1:9042, cassandra-1 10.1.0.2:9042";

/// In every order of names and of events: a change over there never moves a node here, not even while its pod is away.
fn check(ours: &str, theirs: &str, pods: bool, theirs_now: [&str; 2]) {
    let what = format!("{ours} {theirs} pods={pods} {theirs_now:?}");
    let both = [&theirs_now[..1], &theirs_now[1..]];
    let mut world = World::listed(&[(ours, OURS), (theirs, both[0])]);
    let ours_exist: &[(&str, &str, &[&str])] =
        &[("cassandra-0", "u0", &["10.1.0.1"]), ("cassandra-1", "u0", &["10.1.0.2"])];
    if pods {
        world.list_pods(ours_exist);
    }
    world.check_as(HERE, &what);
    assert_eq!(world.hidden().len(), 1, "{what}");
    world.apply(theirs, both[1]);
    world.check_as(HERE, &what);
    world.pass(3600);
    world.apply(theirs, both[0]);
    world.check_as(HERE, &what);
    // Ours is replaced.
    if pods {
        world.delete_pod("cassandra-0");
    }
    world.apply(ours, &["cassandra-1=10.1.0.2"]);
    world.check_as("cassandra-0 away, cassandra-1 10.1.0.2:9042", &what);
    world.apply(theirs, both[1]);
    world.check_as("cassandra-0 away, cassandra-1 10.1.0.2:9042", &what);
    if pods {
        world.pod("cassandra-0", "u1", &["10.1.0.8"]);
    }
    world.apply(ours, &["cassandra-0=10.1.0.8 uid=u1", "cassandra-1=10.1.0.2"]);
    world.check_as("cassandra-0 10.1.0.8:9042, cassandra-1 10.1.0.2:9042", &what);
    world.delete(theirs);
    world.check_as("cassandra-0 10.1.0.8:9042, cassandra-1 10.1.0.2:9042", &what);
    assert_eq!(world.hidden(), [""; 0], "{what}");
}

impl World {
    fn check_as(&self, expected: &str, what: &str) {
        assert_eq!(self.shown(), expected, "{what}");
    }
}

#[test]
fn a_change_in_another_cluster_takes_no_nodes_port() {
    for theirs_now in [
        ["cassandra-0=10.9.0.1 uid=x", "cassandra-0=10.9.0.7 uid=y"],
        ["cassandra-0=10.9.0.1 nowhere", "cassandra-0=10.9.0.7 nowhere"],
    ] {
        for theirs in ["a", "z"] {
            let mirrored = format!("west/{theirs}");
            let unlabelled = format!("hand/{theirs}");
            for pods in [true, false] {
                check("m", &mirrored, pods, theirs_now);
                check("m", &unlabelled, pods, theirs_now);
                check("hand/m", &mirrored, pods, theirs_now);
            }
            // Nothing but that the Pods are here.
            check("hand/m", &unlabelled, true, theirs_now);
        }
    }
}

#[test]
fn what_is_hidden_has_a_reason() {
    let mut world = World::listed(&[
        ("a", OURS),
        ("west/b", &["cassandra-0=10.9.0.1 uid=x"]),
        ("hand/c", &["cassandra-7=10.8.0.1 uid=y"]),
    ]);
    world.list_pods(&[("cassandra-0", "u0", &["10.1.0.1"]), ("cassandra-1", "u0", &["10.1.0.2"])]);
    world.check(&format!("{HERE}, cassandra-7 away"));
    assert_eq!(
        world.hidden(),
        [
            "10.8.0.1 this cluster has no Pod cassandra-7 there, and its slice is not the endpointslice controller's",
            "10.9.0.1 cassandra-0 here is a pod of cluster west: its slice says so",
        ]
    );
}

/// Neither labels nor Pods: whoever was there first stays, or else whoever answers.
#[test]
fn without_any_evidence_the_one_that_was_known_stays() {
    for (ours, theirs) in [("hand/a", "hand/b"), ("hand/b", "hand/a")] {
        let mut world = World::listed(&[(ours, OURS)]);
        world.apply(theirs, &["cassandra-0=10.0.0.1 uid=x"]);
        world.check(HERE);
        world.apply(theirs, &["cassandra-0=10.0.0.7 uid=y"]);
        world.check(HERE);
        world.apply(ours, &["cassandra-1=10.1.0.2"]);
        world.apply(theirs, &["cassandra-0=10.0.0.1 uid=x"]);
        world.check("cassandra-0 away, cassandra-1 10.1.0.2:9042");
        world.apply(ours, &["cassandra-0=10.1.0.8 uid=u1", "cassandra-1=10.1.0.2"]);
        world.check("cassandra-0 10.1.0.8:9042, cassandra-1 10.1.0.2:9042");
    }
    // Both from the first list on: the same for every name of the slices, and the one that answers.
    for (ours, theirs) in [("hand/a", "hand/b"), ("hand/b", "hand/a")] {
        let mut world = World::listed(&[(ours, OURS), (theirs, &["cassandra-0=10.0.0.1 uid=x"])]);
        world.check("cassandra-0 10.0.0.1:9042, cassandra-1 10.1.0.2:9042");
        world.listening = ["10.1.0.1", "10.1.0.2"].map(|ip| ip.parse().unwrap()).to_vec();
        world.settle();
        world.pass(3);
        assert_eq!(world.ask_elsewhere(), "10.1.0.1");
        world.check(HERE);
        world.apply(theirs, &["cassandra-0=10.0.0.7 uid=y"]);
        world.listening.clear();
        world.pass(3600);
        assert_eq!(world.ask_elsewhere(), "");
        world.check(HERE);
    }
}
