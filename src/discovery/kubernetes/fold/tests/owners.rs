//! Pods that somebody made, with a StatefulSet's name and the Service's labels, and StatefulSets that are made anew.

use super::*;

impl World {
    /// What the slice, and the Pods, show: `cassandra-0 s` is a pod of this name that the StatefulSet of uid `s` owns, `-` that none
    /// does; with ` ends`, it is being deleted. The pod of an ordinal lives at 10.1.0.<ordinal>, and its uid is `u` + the word that
    /// may follow (`u0` otherwise). `*` is one that another kind of controller owns.
    fn pods(&mut self, pods: &[&str]) {
        self.list_owned(pods, true);
    }

    fn list_owned(&mut self, pods: &[&str], listed: bool) {
        let pods: Vec<(String, PodObject)> = pods.iter().map(|text| owned(text)).collect();
        let endpoint = |(name, pod): &(String, PodObject)| {
            let uid = pod.uid.as_deref().unwrap();
            format!("{name}={} uid={uid}{}", pod.addresses[0], if pod.ending { " terminating" } else { "" })
        };
        let endpoints: Vec<String> = pods.iter().map(endpoint).collect();
        let endpoints: Vec<&str> = endpoints.iter().map(String::as_str).collect();
        if listed {
            self.fold.hear_pod(Seen::Init);
            for (name, pod) in &pods {
                self.fold.hear_pod(Seen::InitApply(name.clone(), pod.clone()));
            }
            self.fold.hear_pod(Seen::InitDone);
        } else {
            let gone: Vec<String> = self.fold.pods.iter().map(|(name, _)| name.clone()).collect();
            for name in gone.into_iter().filter(|name| pods.iter().all(|(other, _)| other != name)) {
                self.fold.hear_pod(Seen::Delete(name));
            }
            for (name, pod) in pods {
                self.fold.hear_pod(Seen::Apply(name, pod));
            }
        }
        self.apply("a", &endpoints);
    }

    /// The same, as a watch tells it.
    fn watched(&mut self, pods: &[&str]) {
        self.list_owned(pods, false);
    }

    fn names(&self) -> String {
        let here = self.fold.members().filter(|(_, member)| member.is_present());
        here.map(|(id, _)| id.to_string()).collect::<Vec<_>>().join(" ")
    }

    fn disowned(&self) -> Vec<&str> {
        self.fold.disowned().map(|of| of.why.as_str()).collect()
    }

    fn sent(&self) -> Vec<String> {
        self.fold.owned().map(|at| at.ip().to_string()).collect()
    }
}

fn owned(text: &str) -> (String, PodObject) {
    let mut words = text.split(' ');
    let (name, set_uid) = (words.next().unwrap(), words.next().unwrap());
    let by_hand = set_uid == "-";
    let set_uid = (set_uid != "-" && set_uid != "*").then(|| set_uid.into());
    let mut pod = object("u0", &[&format!("10.1.0.{}", name.rsplit_once('-').unwrap().1)]);
    pod.stateful_set = pod.stateful_set.filter(|_| set_uid.is_some());
    (pod.set_uid, pod.by_hand) = (set_uid, by_hand);
    for word in words {
        match word {
            "ends" => pod.ending = true,
            uid => pod.uid = Some(format!("u{uid}").into()),
        }
    }
    (name.to_owned(), pod)
}

fn world() -> World {
    let mut world = World::listed(&[]);
    world.answering = true;
    world
}

const REAL: [&str; 3] = ["cassandra-0 s", "cassandra-1 s", "cassandra-2 s"];
const ALL: &str = "cassandra-0 cassandra-1 cassandra-2";

#[test]
fn a_pod_that_no_stateful_set_owns_is_no_member_and_says_why() {
    let mut world = world();
    world.pods(&REAL);
    world.watched(&[&REAL[..], &["cassandra-7 -"]].concat());
    assert_eq!(world.names(), ALL);
    let why = "pod cassandra-7 is owned by no StatefulSet cassandra; the others of cassandra are StatefulSet cassandra's (uid s)";
    assert_eq!(world.disowned(), [why]);
    world.watched(&[&REAL[..], &["cassandra-7 forged"]].concat());
    assert_eq!(world.names(), ALL);
    let why = "pod cassandra-7 is of another StatefulSet cassandra; the others of cassandra are StatefulSet cassandra's (uid s)";
    assert_eq!(world.disowned(), [why]);
    assert_eq!(world.sent(), ["10.1.0.0", "10.1.0.1", "10.1.0.2"]);
    world.watched(&REAL);
    assert_eq!(world.disowned(), [""; 0]);
    // What a replica finds that starts now.
    let mut late = self::world();
    late.pods(&[&REAL[..], &["cassandra-7 forged"]].concat());
    assert_eq!((late.names(), late.disowned().len()), (ALL.to_owned(), 1));
}

#[test]
fn one_pod_that_came_first_keeps_nobody_out_and_leaves() {
    for first in ["cassandra-7 -", "cassandra-7 forged", "cassandra-0 forged"] {
        let mut world = world();
        world.pods(&[first]);
        assert_eq!(world.fold.members().count(), 1);
        let mine: Vec<&str> = REAL.into_iter().filter(|pod| pod[..11] != first[..11]).collect();
        for count in 2..=mine.len() {
            world.watched(&[&[first], &mine[..count]].concat());
        }
        let names: Vec<&str> = mine.iter().map(|pod| &pod[..11]).collect();
        assert_eq!((world.names(), world.disowned().len()), (names.join(" "), 1), "{first}");
        // It has had a port, and gives it back although its pod is there.
        world.pass(60);
        assert_eq!(world.fold.members().count(), mine.len(), "{first}");
    }
    // Of one against one the lower ordinal: a StatefulSet begins there, and takes no name that is taken.
    for pods in [["cassandra-7 forged", "cassandra-0 s"], ["cassandra-0 s", "cassandra-7 forged"]] {
        let mut world = world();
        world.pods(&pods[..1]);
        world.watched(&pods);
        assert_eq!((world.names(), world.sent().join(" ")), ("cassandra-0".to_owned(), "10.1.0.0".to_owned()));
    }
}

#[test]
fn a_new_uid_counts_once_no_pod_of_the_old_one_stays() {
    let mut world = world();
    world.pods(&REAL);
    world.watched(&["cassandra-0 t n", "cassandra-1 s", "cassandra-2 s"]);
    assert_eq!(world.names(), "cassandra-1 cassandra-2");
    world.watched(&["cassandra-0 t n", "cassandra-1 t n", "cassandra-2 s"]);
    assert_eq!(world.names(), "cassandra-2");
    world.watched(&["cassandra-0 t n", "cassandra-1 t n", "cassandra-2 t n"]);
    assert_eq!((world.names(), world.sent().len()), (ALL.to_owned(), 3));
}

/// One on a machine that is cut off would be ending for ever.
#[test]
fn a_pod_that_ends_holds_nobody_up_and_is_a_node_until_it_is_gone() {
    let mut world = world();
    world.pods(&REAL);
    world.watched(&["cassandra-0 s ends", "cassandra-1 s", "cassandra-2 s"]);
    assert_eq!((world.names(), world.sent()), (ALL.to_owned(), vec!["10.1.0.1".to_owned(), "10.1.0.2".to_owned()]));
    world.watched(&["cassandra-0 s ends", "cassandra-1 s ends", "cassandra-2 s ends"]);
    assert_eq!(world.names(), ALL);
    world.watched(&["cassandra-0 t n", "cassandra-1 s ends", "cassandra-2 s ends"]);
    assert_eq!((world.names(), world.disowned()), (ALL.to_owned(), Vec::new()));
    assert_eq!(world.sent(), ["10.1.0.0"]);
    // Of a set of one, too.
    let mut world = self::world();
    world.pods(&["cassandra-0 s"]);
    world.watched(&["cassandra-0 s ends", "cassandra-1 t"]);
    assert_eq!((world.names(), world.disowned()), ("cassandra-0 cassandra-1".to_owned(), Vec::new()));
}

#[test]
fn pods_go_on_while_a_stateful_set_is_made_anew_around_them() {
    let mut world = world();
    world.pods(&REAL);
    let steps = ["s s -", "s - -", "- - -", "- - t", "- t t", "t t t"];
    for step in steps {
        let uids = step.split(' ').zip(0..);
        let pods: Vec<String> = uids.map(|(uid, ordinal)| format!("cassandra-{ordinal} {uid}")).collect();
        world.watched(&pods.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!((world.names(), world.disowned()), (ALL.to_owned(), Vec::new()), "{step}");
    }
    assert_eq!(world.sent().len(), 3);
    // Another pod of that name is not the one that went on.
    world.watched(&["cassandra-0 t", "cassandra-1 t", "cassandra-2 - n"]);
    assert_eq!(world.names(), "cassandra-0 cassandra-1");
}

#[test]
fn where_no_stateful_set_owns_a_pod_of_a_set_all_are_members_and_none_is_vouched_for() {
    let mut world = world();
    world.pods(&["cassandra-0 -", "cassandra-1 -", "rack-0 -"]);
    assert_eq!((world.names(), world.sent().len()), ("cassandra-0 cassandra-1 rack-0".to_owned(), 0));
    // Nor does one pod that says that it is owned speak against those of other sets.
    world.watched(&["cassandra-0 s", "rack-0 -"]);
    assert_eq!((world.names(), world.sent().len()), ("cassandra-0 rack-0".to_owned(), 1));
    // And those of another controller are its own matter.
    world.watched(&["cassandra-0 s", "cassandra-1 s", "rack-0 *"]);
    assert_eq!((world.names(), world.sent().len()), ("cassandra-0 cassandra-1 rack-0".to_owned(), 2));
}

#[test]
fn a_pod_by_hand_of_a_set_of_its_own_is_no_member_beside_pods_that_are_owned() {
    let mut world = world();
    world.pods(&REAL);
    world.watched(&[&REAL[..], &["c-7 -"]].concat());
    let why = "pod c-7 is owned by no controller; others behind the Service are StatefulSets'";
    assert_eq!((world.names(), world.disowned()), (ALL.to_owned(), vec![why]));
    // A rack whose StatefulSet is made anew is no such pod.
    let racks = |uid: &str| [REAL.map(str::to_owned).to_vec(), vec![format!("rack-0 {uid}")]].concat();
    for uid in ["r", "-", "q"] {
        world.watched(&racks(uid).iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!((world.names(), world.disowned()), (format!("{ALL} rack-0"), Vec::new()), "{uid}");
    }
}

#[test]
fn without_pods_nobody_is_disowned_or_vouched_for() {
    let mut world = world();
    world.pods(&[&REAL[..], &["cassandra-7 -"]].concat());
    assert_eq!(world.disowned().len(), 1);
    world.fold.forget_pods();
    world.settle();
    assert_eq!((world.names(), world.disowned(), world.sent().len()), (format!("{ALL} cassandra-7"), Vec::new(), 0));
}

/// An earlier process may have known it: that it answers is no reason to doubt the Pods.
#[test]
fn a_pod_that_was_a_member_before_is_away_at_once() {
    let mut before = world();
    before.pods(&["cassandra-7 -"]);
    let members: Vec<_> = before.fold.members().map(|(id, member)| (id.clone(), member.clone())).collect();
    let mut world = World { fold: Fold::default(), ..before };
    world.fold.restore(members);
    world.list(&[]);
    assert_eq!(world.names(), "cassandra-7");
    world.pods(&[&REAL[..], &["cassandra-7 -"]].concat());
    assert_eq!((world.names(), world.disowned().len()), (ALL.to_owned(), 1));
}

/// Whoever may write EndpointSlices can name a pod that there is, at an address of his own.
#[test]
fn an_address_that_its_pod_does_not_have_is_not_vouched_for() {
    let mut world = world();
    world.pods(&REAL);
    world.answering = false;
    world.apply("a", &["cassandra-0=10.9.9.9 uid=u0"]);
    world.check("cassandra-0 10.9.9.9:9042, cassandra-1 10.1.0.1:9042, cassandra-2 10.1.0.2:9042");
    assert_eq!(world.sent(), ["10.1.0.1", "10.1.0.2"]);
}

/// The slices show the next pod of a name, and the Pod that is known is still the one before.
#[test]
fn what_a_pod_was_says_nothing_of_the_next_of_its_name() {
    let mut world = world();
    world.pods(&[&REAL[..], &["cassandra-3 -"]].concat());
    assert_eq!(world.names(), ALL);
    let real = ["cassandra-0=10.1.0.0", "cassandra-1=10.1.0.1", "cassandra-2=10.1.0.2"];
    world.apply("a", &[&real[..], &["cassandra-3=10.1.0.33 uid=next"]].concat());
    assert_eq!((world.names(), world.disowned()), (format!("{ALL} cassandra-3"), Vec::new()));
}

/// A replica that starts while a StatefulSet's last pods end hears of them before it hears of the next StatefulSet.
#[test]
fn pods_that_end_and_were_members_stay_when_the_next_stateful_set_comes() {
    let mut world = world();
    let ending = ["cassandra-1 s ends", "cassandra-2 s ends"];
    world.pods(&ending);
    assert_eq!(world.names(), "cassandra-1 cassandra-2");
    world.watched(&[&["cassandra-0 t n"], &ending[..]].concat());
    assert_eq!((world.names(), world.disowned()), (ALL.to_owned(), Vec::new()));
    // Not one that a hand made, and that ends.
    world.watched(&[&["cassandra-0 t n", "cassandra-7 - ends"], &ending[..]].concat());
    assert_eq!((world.names(), world.disowned().len()), (ALL.to_owned(), 1));
}
