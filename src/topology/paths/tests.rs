use super::*;
use crate::topology::NodeId;

#[test]
fn a_client_is_told_the_family_it_came_by_or_the_only_one() {
    let (v4, v6) = ("203.0.113.10", "2001:db8::10");
    for (ipv4, ipv6, came_by, told) in [
        (Some(v4), Some(v6), "10.0.0.1", Some(v4)),
        (Some(v4), Some(v6), "2001:db8::99", Some(v6)),
        (Some(v4), Some(v6), "::1", Some(v6)),
        // An IPv4 client of a socket for both families.
        (Some(v4), Some(v6), "::ffff:10.0.0.1", Some(v4)),
        (Some(v4), None, "2001:db8::99", Some(v4)),
        (None, Some(v6), "10.0.0.1", Some(v6)),
        (None, Some(v6), "::ffff:10.0.0.1", Some(v6)),
        (None, None, "10.0.0.1", None),
    ] {
        let advertised = Advertised {
            ipv4: ipv4.map(|address| address.parse().unwrap()),
            ipv6: ipv6.map(|address| address.parse().unwrap()),
        };
        let told = told.map(|address| address.parse::<IpAddr>().unwrap());
        assert_eq!(
            advertised.for_family(came_by.parse::<IpAddr>().unwrap().into()),
            told,
            "{advertised:?} over {came_by}"
        );
    }
}

const V4: Family = Family::Ipv4;
const V6: Family = Family::Ipv6;

fn at(address: &str) -> External {
    External::ip(address.parse().unwrap())
}

fn service(name: &str) -> External {
    External::Service(name.to_owned())
}

fn plan(parts: Vec<Part>) -> Vec<advertise::Path> {
    vec![advertise::Path::new("p", Told::Ports(parts))]
}

/// A Service's name, its address, and its ports by the ports that they lead to.
type Known<'a> = (&'a str, &'a str, &'a [(u16, u16)]);

fn learned(of: &[Known<'_>]) -> BTreeMap<External, Learned> {
    let each = of.iter().map(|(name, address, ports)| {
        let advertised = Advertised { ipv4: address.parse().ok(), ipv6: None };
        (service(name), Learned { advertised, ports: ports.iter().copied().collect() })
    });
    each.collect()
}

/// What is told for each of these ports, over IPv4; `-` for nothing.
fn check(parts: &[Part], known: &[Known<'_>], ports: &[u16], expected: &[&str]) -> Arc<Path> {
    let paths = Paths::of(&plan(parts.to_vec()), &learned(known), &Paths::default());
    let path = paths.last().unwrap();
    let told: Vec<_> = ports
        .iter()
        .map(|port| path.endpoint(&Node::example("a", *port, "10.0.0.1:9042"), V4))
        .map(|endpoint| endpoint.map_or("-".to_owned(), |endpoint| endpoint.to_string()))
        .collect();
    assert_eq!(told, expected);
    Arc::clone(path)
}

#[test]
fn each_part_has_its_address_and_its_numbers() {
    let parts = [
        Part::new(9042, 9044, at("203.0.113.10"), DialledPort::From(30042)),
        Part::new(9045, 9045, at("203.0.113.11"), DialledPort::Only(9042)),
        Part::new(9046, 9047, at("203.0.113.10"), DialledPort::Listened),
    ];
    let expected = ["-", "203.0.113.10:30042", "203.0.113.10:30044", "203.0.113.11:9042", "203.0.113.10:9047", "-"];
    let path = check(&parts, &[], &[9041, 9042, 9044, 9045, 9047, 9048], &expected);
    assert!(["203.0.113.10", "203.0.113.11"].iter().all(|ip| path.tells(ip.parse().unwrap(), &Topology::default())));
    assert!(!path.tells("203.0.113.12".parse().unwrap(), &Topology::default()));
}

#[test]
fn a_services_port_is_the_one_that_leads_here() {
    let parts = [
        Part::new(9042, 9043, service("a"), DialledPort::OfService),
        Part::new(9044, 9044, service("b"), DialledPort::Only(9042)),
    ];
    let path = check(
        &parts,
        &[("a", "203.0.113.10", &[(9042, 19042)])],
        &[9042, 9043, 9044],
        &["203.0.113.10:19042", "-", "-"],
    );
    let reason = |port| path.hides(&Node::example("a", port, "10.0.0.1:9042"));
    let pending = Some(HiddenReason::NotAdvertised);
    assert_eq!([9042, 9043, 9044].map(reason), [None, pending, pending]);
    // The short form is told by the numbers that are listened on, where the Service does not say otherwise.
    let short = Paths::of(
        &advertise::Path::everywhere(service("a")),
        &learned(&[("a", "203.0.113.10", &[(9042, 19042)])]),
        &Paths::default(),
    );
    let endpoint =
        |port| short.last().unwrap().endpoint(&Node::example("a", port, "10.0.0.1:9042"), V4).unwrap().port();
    assert_eq!([9042, 9043].map(endpoint), [19042, 9043]);
}

#[test]
fn of_two_ports_that_would_be_told_alike_the_later_one_is_hidden() {
    let each = |name: &str, port| Part::new(port, port, service(name), DialledPort::Only(9042));
    let parts = [each("a", 9042), each("b", 9043), each("c", 9044)];
    let known: &[Known<'_>] = &[("a", "203.0.113.10", &[]), ("b", "203.0.113.10", &[]), ("c", "203.0.113.12", &[])];
    let path = check(&parts, known, &[9042, 9043, 9044], &["203.0.113.10:9042", "-", "203.0.113.12:9042"]);
    assert_eq!(path.hides(&Node::example("b", 9043, "10.0.0.1:9042")), Some(HiddenReason::SameEndpoint));
}

#[test]
fn the_shape_says_whether_addresses_tell_nodes_apart() {
    let shape = |parts: &[Part]| {
        let paths = Paths::of(&plan(parts.to_vec()), &BTreeMap::new(), &Paths::default());
        paths.last().unwrap().shape(V4, 9042, &Topology::default())
    };
    let each = |address, port, dialled| Part::new(port, port, at(address), dialled);
    let nodes =
        [each("203.0.113.10", 9042, DialledPort::Only(9042)), each("203.0.113.11", 9043, DialledPort::Only(9042))];
    assert_eq!(shape(&nodes), Shape { has_distinct_addresses: true, only_port: Some(9042) });
    let other = [each("203.0.113.10", 9042, DialledPort::Listened), each("203.0.113.11", 9043, DialledPort::Listened)];
    assert_eq!(shape(&other), Shape { has_distinct_addresses: true, only_port: None });
    let two = [
        Part::new(9042, 9043, at("203.0.113.10"), DialledPort::Listened),
        each("203.0.113.11", 9044, DialledPort::Listened),
    ];
    assert_eq!(shape(&two), Shape::default());
    assert_eq!(shape(&[Part::new(9042, 9043, at("203.0.113.10"), DialledPort::Listened)]), Shape::default());
}

#[test]
fn a_path_of_which_nothing_is_known_stays_as_it_was() {
    let before = Paths::of(
        &plan(vec![Part::new(9042, 9043, at("203.0.113.10"), DialledPort::Listened)]),
        &BTreeMap::new(),
        &Paths::default(),
    );
    let to = plan(vec![Part::new(9042, 9043, service("a"), DialledPort::From(9042))]);
    let pending = Paths::of(&to, &BTreeMap::new(), &before);
    assert_eq!(pending.last(), before.last());
    let same = Paths::of(&to, &learned(&[("a", "203.0.113.10", &[])]), &pending);
    assert!(!same.last().unwrap().has_moved(before.last().unwrap()), "they are told the same");
    let known = Paths::of(&to, &learned(&[("a", "203.0.113.20", &[])]), &pending);
    assert!(known.last().unwrap().has_moved(before.last().unwrap()));
}

#[test]
fn what_was_not_known_before_has_not_moved() {
    let parts = vec![
        Part::new(9042, 9042, service("a"), DialledPort::Only(9042)),
        Part::new(9043, 9043, service("b"), DialledPort::Only(9042)),
    ];
    let one = Paths::of(&plan(parts.clone()), &learned(&[("a", "203.0.113.10", &[])]), &Paths::default());
    let both = Paths::of(&plan(parts), &learned(&[("a", "203.0.113.10", &[]), ("b", "203.0.113.11", &[])]), &one);
    assert!(!both.last().unwrap().has_moved(one.last().unwrap()));
    assert!(one.last().unwrap().has_moved(both.last().unwrap()));
}

#[test]
fn pods_are_told_as_they_are() {
    let plan = [advertise::Path::new("inside", Told::Pods)];
    let paths = Arc::new(Paths::of(&plan, &BTreeMap::new(), &Paths::default()));
    let nodes = [Node::example("a", 9042, "10.0.0.1:9042"), Node::example("b", 9043, "10.0.0.2:9042")];
    let topology =
        Topology::new(1, Arc::clone(&paths), nodes).with_former([("10.0.0.9:9042".parse().unwrap(), NodeId::new("b"))]);
    let path = paths.last().unwrap();
    assert_eq!(path.endpoint(&topology.nodes[1], V6), Some("10.0.0.2:9042".parse().unwrap()));
    assert_eq!(path.shape(V4, 9042, &topology), Shape { has_distinct_addresses: true, only_port: Some(9042) });
    assert_eq!(path.shape(V4, 9043, &topology), Shape { has_distinct_addresses: true, only_port: None });
    let tells = |ip: &str| path.tells(ip.parse().unwrap(), &topology);
    assert_eq!(["10.0.0.1", "10.0.0.2", "10.0.0.9", "203.0.113.1"].map(tells), [true, true, false, false]);
}
