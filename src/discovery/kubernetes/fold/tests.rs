//! The fold, told as a watch tells it; the state after each step is one line of text.

mod by_hand;
mod clusters;
mod families;
mod late;
mod operators;
mod owners;

use std::time::Duration;

use proptest::prelude::*;

use super::super::slices::Endpoint;
use super::*;

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

/// `cassandra-0=10.1.0.1`, with ` uid=u` (`u0` otherwise), ` terminating`, ` down` (not serving), ` bare` (no hostname),
/// ` nowhere` (no targetRef).
fn endpoint(text: &str) -> Endpoint {
    let mut words = text.split(' ');
    let (pod, address) = words.next().unwrap().split_once('=').unwrap();
    let mut endpoint = Endpoint {
        address: address.parse().unwrap(),
        pod: (!pod.is_empty()).then(|| pod.into()),
        uid: (!pod.is_empty()).then(|| "u0".into()),
        hostname: (!pod.is_empty()).then(|| pod.into()),
        serving: true,
        terminating: false,
        zone: None,
    };
    for word in words {
        match word {
            "terminating" => endpoint.terminating = true,
            "down" => endpoint.serving = false,
            "nowhere" => (endpoint.pod, endpoint.uid) = (None, None),
            "bare" => endpoint.hostname = None,
            uid => endpoint.uid = Some(uid.strip_prefix("uid=").unwrap().into()),
        }
    }
    endpoint
}

/// As the endpointslice controller makes them, unless the name of the slice says `hand/` or the name of a cluster: `west/`.
fn slice(name: &str, endpoints: &[&str]) -> Slice {
    let origin = match name.split_once('/') {
        None => Origin::Controller,
        Some(("hand", _)) => Origin::Unknown,
        Some((cluster, _)) => Origin::Mirrored(cluster.into()),
    };
    Slice { port: Some(9042), origin, endpoints: endpoints.iter().map(|text| endpoint(text)).collect() }
}

impl Fold {
    /// Hears, and sees to it that what is read again of one slice or one Pod is what reading everything would show.
    pub fn hear_slice(&mut self, seen: Seen<Slice>) {
        let before = self.news;
        self.see_slice(seen);
        self.check_reading(before);
    }

    pub fn hear_pod(&mut self, seen: Seen<PodObject>) {
        let before = self.news;
        self.see_pod(seen);
        self.check_reading(before);
    }

    fn check_reading(&self, before: u64) {
        if self.news == before {
            return;
        }
        let mut anew = self.clone();
        anew.read_slices();
        assert_eq!(self.offers, anew.offers);
        anew.choose(Withdrawn::Told, None);
        // Whoever was odd is looked at once more.
        assert!(anew.sifted.odd.is_subset(&self.sifted.odd));
        anew.sifted.odd.clone_from(&self.sifted.odd);
        assert_eq!((&self.sifted, &self.withdrawn), (&anew.sifted, &anew.withdrawn));
    }
}

/// The fold with a clock and with what probes say.
#[derive(Clone)]
struct World {
    fold: Fold,
    now: u64,
    answering: bool,
    /// Where Cassandra listens, while not everybody answers.
    listening: Vec<IpAddr>,
    relist: bool,
}

impl World {
    /// A world whose only list of slices shows these endpoints.
    fn listed(slices: &[(&str, &[&str])]) -> Self {
        let mut world =
            Self { fold: Fold::default(), now: 1000, answering: false, listening: Vec::new(), relist: false };
        world.list(slices);
        world
    }

    fn list(&mut self, slices: &[(&str, &[&str])]) {
        self.fold.hear_slice(Seen::Init);
        for (name, endpoints) in slices {
            self.fold.hear_slice(Seen::InitApply((*name).to_owned(), slice(name, endpoints)));
        }
        self.fold.hear_slice(Seen::InitDone);
        self.settle();
    }

    fn apply(&mut self, name: &str, endpoints: &[&str]) {
        self.fold.hear_slice(Seen::Apply(name.to_owned(), slice(name, endpoints)));
        self.settle();
    }

    fn delete(&mut self, name: &str) {
        self.fold.hear_slice(Seen::Delete(name.to_owned()));
        self.settle();
    }

    /// A Pod: its uid and its addresses.
    fn pod(&mut self, name: &str, uid: &str, addresses: &[&str]) {
        self.fold.hear_pod(Seen::Apply(name.to_owned(), object(uid, addresses)));
        self.settle();
    }

    fn list_pods(&mut self, pods: &[(&str, &str, &[&str])]) {
        self.fold.hear_pod(Seen::Init);
        for (name, uid, addresses) in pods {
            self.fold.hear_pod(Seen::InitApply((*name).to_owned(), object(uid, addresses)));
        }
        self.fold.hear_pod(Seen::InitDone);
        self.settle();
    }

    fn delete_pod(&mut self, name: &str) {
        self.fold.hear_pod(Seen::Delete(name.to_owned()));
        self.settle();
    }

    fn api(&mut self, away: bool) {
        self.fold.see_api(away);
        self.settle();
    }

    fn pass(&mut self, seconds: u64) {
        self.now += seconds;
        self.settle();
    }

    fn settle(&mut self) {
        self.fold.settle(at(self.now), |_, at| self.answering || self.listening.contains(&at.ip()));
        self.relist = self.answering && self.fold.said_once().next().is_some();
    }

    /// `cassandra-0 10.1.0.1:9042, cassandra-1 away`; `away?`, `10.1.0.3:9042?` where that is not confirmed.
    fn shown(&self) -> String {
        let member = |(id, member): (&NodeId, &Member)| {
            let doubt = if member.confirmed { "" } else { "?" };
            match member.listed {
                Listed::Here => format!("{id} {}{doubt}", member.address),
                _ => format!("{id} away{doubt}"),
            }
        };
        self.fold.members().map(member).collect::<Vec<_>>().join(", ")
    }

    fn check(&self, expected: &str) {
        assert_eq!(self.shown(), expected);
    }
}

/// Owned by StatefulSet `cassandra`, whose uid is `s`.
fn object(uid: &str, addresses: &[&str]) -> PodObject {
    let addresses = addresses.iter().map(|ip| ip.parse().unwrap()).collect();
    let (stateful_set, set_uid) = (Some("cassandra".into()), Some("s".into()));
    PodObject { uid: Some(uid.into()), addresses, stateful_set, set_uid, by_hand: false, ending: false }
}

const A: &[&str] = &["cassandra-0=10.1.0.1", "cassandra-1=10.1.0.2"];
const B: &[&str] = &["cassandra-2=10.1.0.3"];
/// Of a list without slice `a`.
const LESS: &str = "cassandra-0 away?, cassandra-1 away?, cassandra-2 10.1.0.3:9042";
const ALL: &str = "cassandra-0 10.1.0.1:9042, cassandra-1 10.1.0.2:9042, cassandra-2 10.1.0.3:9042";

#[test]
fn several_slices_are_one_service() {
    World::listed(&[("a", A), ("b", B)]).check(ALL);
}

#[test]
fn an_endpoint_in_two_slices_while_it_moves_is_one_node() {
    let mut world = World::listed(&[("a", A), ("b", B)]);
    world.apply("c", &["cassandra-0=10.1.0.1", "cassandra-2=10.1.0.3"]);
    world.check(ALL);
    world.apply("a", &["cassandra-1=10.1.0.2"]);
    world.delete("b");
    world.check(ALL);
}

#[test]
fn slices_recreated_under_new_names_change_nothing() {
    let mut world = World::listed(&[("a", A), ("b", B)]);
    world.apply("c", A);
    world.delete("a");
    world.check(ALL);
}

#[test]
fn a_deleted_slice_says_nothing_that_is_confirmed_until_lists_show_others() {
    let mut world = World::listed(&[("a", A), ("b", B)]);
    world.answering = true;
    world.delete("a");
    world.delete("b");
    let nobody = "cassandra-0 away?, cassandra-1 away?, cassandra-2 away?";
    world.check(nobody);
    assert!(!world.relist);
    // The Service is gone: there are no others.
    for _ in 0..2 {
        world.list(&[]);
        world.pass(100_000);
    }
    world.check(nobody);
    world.apply("c", A);
    world.check("cassandra-0 10.1.0.1:9042, cassandra-1 10.1.0.2:9042, cassandra-2 away?");
    // Taken out of a slice, a node is away.
    world.apply("c", &["cassandra-0=10.1.0.1"]);
    world.check("cassandra-0 10.1.0.1:9042, cassandra-1 away, cassandra-2 away?");
    for _ in 0..2 {
        world.list(&[("c", &["cassandra-0=10.1.0.1"])]);
    }
    world.check("cassandra-0 10.1.0.1:9042, cassandra-1 away, cassandra-2 away?");
    world.pass(60);
    world.check("cassandra-0 10.1.0.1:9042, cassandra-1 away, cassandra-2 away");
}

#[test]
fn a_replaced_pod_is_away_until_its_new_address_is_known() {
    let mut world = World::listed(&[("a", A), ("b", B)]);
    world.answering = true;
    world.apply("b", &["cassandra-2=10.1.0.3 terminating down"]);
    world.check(ALL);
    world.apply("b", &[]);
    world.check("cassandra-0 10.1.0.1:9042, cassandra-1 10.1.0.2:9042, cassandra-2 away");
    world.apply("b", &["cassandra-2=10.1.0.9 uid=u1 down"]);
    world.check("cassandra-0 10.1.0.1:9042, cassandra-1 10.1.0.2:9042, cassandra-2 10.1.0.9:9042");
}

#[test]
fn the_later_of_two_pods_of_one_name_counts() {
    let mut world = World::listed(&[("a", &["cassandra-0=10.1.0.1"])]);
    // The new pod is in another slice, sorted before; the old one lingers, terminating or not.
    world.apply("A", &["cassandra-0=10.1.0.7 uid=u1 down"]);
    world.check("cassandra-0 10.1.0.7:9042");
    world.apply("a", &["cassandra-0=10.1.0.1 terminating"]);
    world.check("cassandra-0 10.1.0.7:9042");
    // News of the old one's conditions are no news of where the pod is.
    world.apply("a", &["cassandra-0=10.1.0.1 down"]);
    world.check("cassandra-0 10.1.0.7:9042");
}

#[test]
fn a_dual_stack_pod_is_one_node_dialled_over_ipv4() {
    let mut world = World::listed(&[("v6", &["cassandra-0=fd00::1"])]);
    world.check("cassandra-0 [fd00::1]:9042");
    world.apply("v4", &["cassandra-0=10.1.0.1"]);
    world.check("cassandra-0 10.1.0.1:9042");
    world.apply("w6", &["cassandra-0=fd00::1"]);
    world.check("cassandra-0 10.1.0.1:9042");
}

#[test]
fn a_pod_that_is_being_ended_is_leaving_by_either_witness_and_the_next_of_its_name_is_not() {
    let leaving = |world: &World| -> Vec<String> {
        world.fold.members().filter(|(_, member)| member.leaving).map(|(id, _)| id.to_string()).collect()
    };
    let mut world = World::listed(&[("a", A)]);
    world.pod("cassandra-1", "u0", &["10.1.0.2"]);
    assert!(leaving(&world).is_empty());
    world.apply("a", &["cassandra-0=10.1.0.1 terminating", "cassandra-1=10.1.0.2"]);
    assert_eq!(leaving(&world), ["cassandra-0"]);
    let ending = PodObject { ending: true, ..object("u0", &["10.1.0.2"]) };
    world.fold.hear_pod(Seen::Apply("cassandra-1".to_owned(), ending));
    world.settle();
    assert_eq!(leaving(&world), ["cassandra-0", "cassandra-1"]);
    world.apply("a", &["cassandra-0=10.1.0.9 uid=u1", "cassandra-1=10.1.0.2"]);
    assert_eq!(leaving(&world), ["cassandra-1"]);
}

#[test]
fn readiness_changes_nothing() {
    let mut world = World::listed(&[("a", A)]);
    let before = world.shown();
    world.apply("a", &["cassandra-0=10.1.0.1 down", "cassandra-1=10.1.0.2 terminating down"]);
    world.check(&before);
}

#[test]
fn a_pod_says_sooner_than_its_slices_where_it_is() {
    let mut world = World::listed(&[("a", &["cassandra-0=10.1.0.1"])]);
    world.list_pods(&[("cassandra-0", "u0", &["10.1.0.1"])]);
    world.delete_pod("cassandra-0");
    world.check("cassandra-0 away");
    world.pod("cassandra-0", "u1", &[]);
    world.check("cassandra-0 away");
    world.pod("cassandra-0", "u1", &["10.1.0.8"]);
    world.check("cassandra-0 10.1.0.8:9042");
    world.apply("a", &["cassandra-0=10.1.0.8 uid=u1"]);
    world.check("cassandra-0 10.1.0.8:9042");
}

#[test]
fn pods_that_may_not_be_watched_any_longer_testify_no_more() {
    let mut world = World::listed(&[("a", A)]);
    world.list_pods(&[("cassandra-0", "u0", &["10.1.0.1"]), ("cassandra-1", "u0", &["10.1.0.2"])]);
    assert!(world.fold.forget_pods());
    assert!(!world.fold.forget_pods());
    world.settle();
    world.check("cassandra-0 10.1.0.1:9042, cassandra-1 10.1.0.2:9042");
    world.apply("a", &["cassandra-0=10.1.0.1"]);
    world.check("cassandra-0 10.1.0.1:9042, cassandra-1 away");
    world.pass(3600);
    world.check("cassandra-0 10.1.0.1:9042, cassandra-1 away");
    world.list_pods(&[("cassandra-0", "u0", &["10.1.0.1"]), ("cassandra-1", "u0", &["10.1.0.2"])]);
    world.check("cassandra-0 10.1.0.1:9042, cassandra-1 10.1.0.2:9042");
}

#[test]
fn slices_say_it_where_the_pods_watch_lags() {
    let mut world = World::listed(&[("a", &["cassandra-0=10.1.0.1"])]);
    world.list_pods(&[("cassandra-0", "u0", &["10.1.0.1"])]);
    world.apply("a", &["cassandra-0=10.1.0.8 uid=u1"]);
    world.check("cassandra-0 10.1.0.8:9042");
    // The late Pod events, one after the other, end at the same place.
    world.delete_pod("cassandra-0");
    world.pod("cassandra-0", "u1", &["10.1.0.8"]);
    world.check("cassandra-0 10.1.0.8:9042");
}

#[test]
fn a_node_has_left_when_no_pod_of_its_name_exists_for_a_minute() {
    let mut world = World::listed(&[("a", A)]);
    world.list_pods(&[("cassandra-0", "u0", &["10.1.0.1"]), ("cassandra-1", "u0", &["10.1.0.2"])]);
    world.apply("a", &["cassandra-0=10.1.0.1"]);
    world.delete_pod("cassandra-1");
    assert_eq!(world.fold.deadline(), Some(at(1060)));
    world.pass(59);
    world.check("cassandra-0 10.1.0.1:9042, cassandra-1 away");
    world.pass(1);
    world.check("cassandra-0 10.1.0.1:9042");
    assert_eq!(world.fold.deadline(), None);
}

#[test]
fn while_the_api_is_away_nobody_leaves_and_the_minute_begins_anew_after_it() {
    let mut world = World::listed(&[("a", A)]);
    world.list_pods(&[("cassandra-0", "u0", &["10.1.0.1"]), ("cassandra-1", "u0", &["10.1.0.2"])]);
    world.apply("a", &["cassandra-0=10.1.0.1"]);
    world.delete_pod("cassandra-1");
    world.pass(30);
    world.api(true);
    assert_eq!(world.fold.deadline(), None);
    world.pass(100_000);
    world.check("cassandra-0 10.1.0.1:9042, cassandra-1 away");
    world.api(false);
    assert_eq!(world.fold.deadline(), Some(at(101_090)));
    world.pass(59);
    world.check("cassandra-0 10.1.0.1:9042, cassandra-1 away");
    world.pass(1);
    world.check("cassandra-0 10.1.0.1:9042");
}

#[test]
fn while_the_api_is_away_no_doubt_ends() {
    let mut world = World::listed(&[("a", A)]);
    world.answering = true;
    world.list(&[]);
    world.list(&[]);
    world.api(true);
    world.pass(100_000);
    world.check("cassandra-0 away?, cassandra-1 away?");
    world.api(false);
    world.pass(59);
    world.check("cassandra-0 away?, cassandra-1 away?");
    world.pass(1);
    world.check("cassandra-0 away, cassandra-1 away");
}

#[test]
fn a_pod_that_waits_for_a_place_has_not_left() {
    let mut world = World::listed(&[("a", &["cassandra-0=10.1.0.1"])]);
    world.list_pods(&[("cassandra-0", "u0", &["10.1.0.1"])]);
    world.apply("a", &[]);
    world.pod("cassandra-0", "u1", &[]);
    assert_eq!(world.fold.deadline(), None);
    world.pass(100_000);
    world.check("cassandra-0 away");
}

#[test]
fn without_pods_it_takes_a_day_to_leave() {
    let mut world = World::listed(&[("a", A)]);
    world.apply("a", &["cassandra-0=10.1.0.1"]);
    world.pass(3600);
    world.check("cassandra-0 10.1.0.1:9042, cassandra-1 away");
    world.pass(23 * 3600);
    world.check("cassandra-0 10.1.0.1:9042");
}

#[test]
fn a_list_with_less_in_it_is_confirmed_by_another_one_and_by_time() {
    let mut world = World::listed(&[("a", A), ("b", B)]);
    world.answering = true;
    world.list(&[("b", B)]);
    world.check(LESS);
    assert!(world.relist);
    world.list(&[("a", A), ("b", B)]);
    world.check(ALL);
    assert!(!world.relist);
    // Twice the same within a minute is one server that knows half; for longer than that it is believed.
    world.list(&[("b", B)]);
    assert_eq!(world.fold.deadline(), None);
    world.pass(59);
    world.list(&[("b", B)]);
    world.check(LESS);
    assert!(!world.relist);
    assert_eq!(world.fold.deadline(), Some(at(1060)));
    world.pass(1);
    world.check("cassandra-0 away, cassandra-1 away, cassandra-2 10.1.0.3:9042");
    assert!(!world.relist);
}

#[test]
fn one_list_is_not_believed_however_old_it_is() {
    let mut world = World::listed(&[("a", A), ("b", B)]);
    world.answering = true;
    world.list(&[("b", B)]);
    world.pass(100_000);
    world.check(LESS);
    assert!(world.relist);
    assert_eq!(world.fold.deadline(), None);
    // It was in a list again: the time counts anew from the next one without it.
    world.list(&[("a", A), ("b", B)]);
    world.list(&[("b", B)]);
    world.list(&[("b", B)]);
    world.pass(59);
    world.check(LESS);
    world.pass(1);
    world.check("cassandra-0 away, cassandra-1 away, cassandra-2 10.1.0.3:9042");
}

#[test]
fn a_list_that_shows_a_pod_elsewhere_than_a_watch_did_is_confirmed_by_another_one_and_by_time() {
    let (before, moved) = ("cassandra-0 10.1.0.1:9042", "cassandra-0 10.1.0.9:9042");
    let mut world = World::listed(&[("a", &["cassandra-0=10.1.0.5"])]);
    world.apply("a", &["cassandra-0=10.1.0.1"]);
    world.check(before);
    world.answering = true;
    let backup: &[(&str, &[&str])] = &[("a", &["cassandra-0=10.1.0.5"])];
    world.list(backup);
    world.check("cassandra-0 10.1.0.5:9042?");
    assert!(world.relist);
    // The watch knows better.
    let mut told = world.clone();
    told.apply("a", &["cassandra-0=10.1.0.9"]);
    told.check(moved);
    world.pass(60);
    world.check("cassandra-0 10.1.0.5:9042?");
    world.list(backup);
    world.check("cassandra-0 10.1.0.5:9042");
    assert!(!world.relist);
    // What a list says of one that is away, or that nobody has heard of since the start, is news.
    world.apply("a", &[]);
    world.list(&[("a", &["cassandra-0=10.1.0.9"])]);
    world.check(moved);
}

#[test]
fn a_deleted_pod_that_lists_lack_is_away_at_once() {
    let mut world = World::listed(&[("a", A)]);
    world.list_pods(&[("cassandra-0", "u0", &["10.1.0.1"])]);
    world.answering = true;
    world.list(&[]);
    world.check("cassandra-0 10.1.0.1:9042, cassandra-1 away?");
    world.delete_pod("cassandra-0");
    world.check("cassandra-0 away, cassandra-1 away?");
}

#[test]
fn half_a_list_changes_nothing() {
    let mut world = World::listed(&[("a", A), ("b", B)]);
    world.fold.hear_slice(Seen::Init);
    world.settle();
    world.fold.hear_slice(Seen::InitApply("b".to_owned(), slice("b", B)));
    world.settle();
    world.check(ALL);
}

#[test]
fn pods_of_another_service_are_nobodys() {
    let mut world = World::listed(&[("a", &["cassandra-0=10.1.0.1"])]);
    world.list_pods(&[("cassandra-0", "u0", &["10.1.0.1"]), ("reaper-7", "u9", &["10.1.0.44"])]);
    world.check("cassandra-0 10.1.0.1:9042");
}

#[test]
fn endpoints_without_identity_are_strangers() {
    let mut world = World::listed(&[("a", &["=10.1.0.5", "web-7d4b9c-x2x=10.1.0.6", "cassandra-01=10.1.0.7"])]);
    world.fold.see_identity("10.1.0.5:9042".parse().unwrap(), Err("refused".to_owned()));
    world.settle();
    world.check("");
    let said: Vec<_> =
        world.fold.strangers().map(|stranger| format!("{} {}", stranger.address, stranger.why)).collect();
    assert_eq!(
        said,
        [
            "10.1.0.5 the endpoint names no pod, and who it is is not known: refused",
            "10.1.0.6 pod web-7d4b9c-x2x has no ordinal: it is not of a StatefulSet",
            "10.1.0.7 pod cassandra-01 has no ordinal: it is not of a StatefulSet",
        ]
    );
}

#[test]
fn a_pod_without_a_hostname_is_a_member_without_a_name() {
    let world = World::listed(&[("a", &["cassandra-0=10.1.0.1 bare"])]);
    world.check("cassandra-0 10.1.0.1:9042");
    assert!(world.fold.members().all(|(_, member)| member.hostname.is_none()));
}

#[test]
fn who_was_restored_is_shown_before_a_list_and_doubted_after_it() {
    let members = World::listed(&[("a", A)]).fold.members().map(|(id, m)| (id.clone(), m.clone())).collect::<Vec<_>>();
    let mut world = World { fold: Fold::default(), now: 1000, answering: true, listening: Vec::new(), relist: false };
    world.fold.restore(members);
    world.settle();
    world.check("cassandra-0 10.1.0.1:9042, cassandra-1 10.1.0.2:9042");
    world.list(&[("a", &["cassandra-0=10.1.0.1"])]);
    world.check("cassandra-0 10.1.0.1:9042, cassandra-1 away?");
    assert!(world.relist);
    world.list(&[("a", &["cassandra-0=10.1.0.1"])]);
    world.check("cassandra-0 10.1.0.1:9042, cassandra-1 away?");
    world.pass(60);
    world.check("cassandra-0 10.1.0.1:9042, cassandra-1 away");
}

/// One step of a cluster in which pods are replaced and endpoints move between slices, as the two watches tell of it.
#[derive(Clone, Debug)]
enum Act {
    Replace(u8),
    /// Which slice an endpoint is in from here on.
    Move(u8, u8),
    TellSlices,
    TellPods,
    RelistSlices,
    RelistPods,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        (0u8..4).prop_map(Act::Replace),
        (0u8..4, 0u8..3).prop_map(|(pod, slice)| Act::Move(pod, slice)),
        Just(Act::TellSlices),
        Just(Act::TellPods),
        Just(Act::RelistSlices),
        Just(Act::RelistPods),
    ]
}

proptest! {
    /// However the two watches lag behind each other: once both have told everything, every pod is where it is.
    #[test]
    fn the_end_does_not_depend_on_the_order_of_news(acts in prop::collection::vec(act(), 1..60), answering: bool) {
        let mut world = World { fold: Fold::default(), now: 1000, answering, listening: Vec::new(), relist: false };
        let mut lives = [0u8; 4];
        let mut places = [0u8; 4];
        let address = |pod: usize, life: u8| format!("10.{life}.0.{}", pod + 1);
        let tell_slices = |world: &mut World, lives: [u8; 4], places: [u8; 4], list: bool| {
            let slices: Vec<(String, Vec<String>)> = (0..3u8).map(|place| {
                let inside = (0..4).filter(|&pod| places[pod] == place);
                let texts = inside.map(|pod| format!("cassandra-{pod}={} uid=u{}", address(pod, lives[pod]), lives[pod]));
                (format!("s{place}"), texts.collect())
            }).collect();
            if list {
                world.fold.hear_slice(Seen::Init);
            }
            for (name, endpoints) in slices {
                let texts: Vec<&str> = endpoints.iter().map(String::as_str).collect();
                let slice = slice(&name, &texts);
                world.fold.hear_slice(if list { Seen::InitApply(name, slice) } else { Seen::Apply(name, slice) });
            }
            if list {
                world.fold.hear_slice(Seen::InitDone);
            }
            world.settle();
        };
        let tell_pods = |world: &mut World, lives: [u8; 4], list: bool| {
            if list {
                world.fold.hear_pod(Seen::Init);
            }
            for (pod, life) in lives.into_iter().enumerate() {
                let (name, object) = (format!("cassandra-{pod}"), object(&format!("u{life}"), &[&address(pod, life)]));
                world.fold.hear_pod(if list { Seen::InitApply(name, object) } else { Seen::Apply(name, object) });
            }
            if list {
                world.fold.hear_pod(Seen::InitDone);
            }
            world.settle();
        };
        tell_slices(&mut world, lives, places, true);
        for act in acts {
            match act {
                Act::Replace(pod) => lives[usize::from(pod)] += 1,
                Act::Move(pod, place) => places[usize::from(pod)] = place,
                Act::TellSlices => tell_slices(&mut world, lives, places, false),
                Act::TellPods => tell_pods(&mut world, lives, false),
                Act::RelistSlices => tell_slices(&mut world, lives, places, true),
                Act::RelistPods => tell_pods(&mut world, lives, true),
            }
        }
        tell_slices(&mut world, lives, places, false);
        tell_pods(&mut world, lives, false);
        let expected: Vec<String> =
            (0..4).map(|pod| format!("cassandra-{pod} {}:9042", address(pod, lives[pod]))).collect();
        prop_assert_eq!(world.shown().replace('?', ""), expected.join(", "));
    }
}
