//! The files of `proxy-config/` say what they mean, and errors show the user's own line.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use cqlgate::config::advertise::{DialledPort, Part, Path as Told};
use cqlgate::config::{Config, Discovery, External, Fate, File, Resolved, ViewName, ViewRule};
use serde_json::Value;

const HEAD: &str = "advertise: 203.0.113.10\n";
const NODES: &str = "discovery: {nodes: [{name: a, address: 10.0.0.1}, {name: b, address: 10.0.0.2}]}\n";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("proxy-config")
}

fn load(name: &str) -> Resolved {
    Config::load(&folder().join(name)).unwrap_or_else(|error| panic!("{error}"))
}

fn parse(text: &str) -> Result<Resolved, String> {
    Config::parse("gate.yaml", text, Path::new("")).map_err(|error| error.to_string())
}

/// `text` is refused with these words, and with this line of it marked.
fn refused(text: &str, words: &str, line: usize) {
    let Err(error) = parse(text) else { panic!("{text}\nis accepted") };
    assert!(error.contains(words), "{text}\n{error}\ndoes not say {words}");
    assert!(error.contains(&format!("gate.yaml:{line}:")), "{text}\n{error}\ndoes not mark line {line}");
}

#[test]
fn nodes_file_loads() {
    let Discovery::Nodes(nodes) = load("nodes.yaml").config.discovery else { panic!("no list") };
    let ports: Vec<_> = nodes.iter().map(|node| (node.name.as_str(), node.port)).collect();
    assert_eq!(ports, [("cassandra-0", 9042), ("cassandra-1", 9043), ("cassandra-2", 9044)]);
}

#[test]
fn contact_points_file_loads() {
    let config = load("contact-points.yaml").config;
    assert_eq!(config.paths, Told::everywhere(External::Name("gateway.example.com".to_owned())));
    let Discovery::ContactPoints(points) = config.discovery else { panic!("no contact points") };
    assert_eq!(points.addresses.len(), 2);
    assert_eq!(points.state_file, Some(folder().join("ports.json")));
}

#[test]
fn tls_file_loads_where_its_files_are() {
    let there = tempfile::tempdir().unwrap();
    let file = there.path().join("tls.yaml");
    std::fs::copy(folder().join("tls.yaml"), &file).unwrap();
    let error = Config::load(&file).unwrap_err().to_string();
    assert!(error.contains("tls/gateway.crt: No such file"), "{error}");
    std::fs::create_dir(there.path().join("tls")).unwrap();
    for name in ["gateway.crt", "gateway.key", "nodes-ca.crt"] {
        std::fs::write(there.path().join("tls").join(name), "").unwrap();
    }
    let config = Config::load(&file).unwrap().config;
    assert_eq!(config.tls.clients.unwrap().key, there.path().join("tls/gateway.key"));
    assert_eq!(config.tls.nodes.unwrap().ca, Some(there.path().join("tls/nodes-ca.crt")));
}

/// The files of an earlier version, as they were: what somebody runs must go on running. Between them they have every key of its
/// schema.
#[test]
fn files_of_earlier_versions_are_still_read() {
    let earlier = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/0.1.0");
    let there = tempfile::tempdir().unwrap();
    std::fs::create_dir(there.path().join("tls")).unwrap();
    for name in
        ["password", "tls/gateway.crt", "tls/gateway.key", "tls/nodes-ca.crt", "tls/client.crt", "tls/client.key"]
    {
        std::fs::write(there.path().join(name), "").unwrap();
    }
    let mut left = keys_of(&std::fs::read_to_string(earlier.join("schema.json")).unwrap());
    for entry in std::fs::read_dir(earlier).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            let text = std::fs::read_to_string(&path).unwrap();
            let resolved = Config::parse(&path.display().to_string(), &text, there.path());
            resolved.unwrap_or_else(|error| panic!("{error}"));
            strike(&mut left, "", &serde_saphyr::from_str(&text).unwrap());
        }
    }
    assert_eq!(left, BTreeSet::new());
}

/// Takes the keys that are in `value`, which stands at `path`, out of `keys`.
fn strike(keys: &mut BTreeSet<String>, path: &str, value: &Value) {
    for (key, inner) in value.as_object().into_iter().flatten() {
        let at = join(path, key);
        keys.remove(&at);
        strike(keys, &at, inner);
    }
    value.as_array().into_iter().flatten().for_each(|entry| strike(keys, &format!("{path}[0]"), entry));
}

#[test]
fn documented_defaults_are_the_defaults() {
    let documented = load("reference.yaml").config;
    let minimal = "advertise: 203.0.113.10\ndiscovery: {nodes: [{name: cassandra-0, address: 10.1.2.3}]}\n";
    assert_eq!(documented, parse(minimal).unwrap().config);
}

#[test]
fn reference_writes_every_default_out() {
    let text = std::fs::read_to_string(folder().join("reference.yaml")).unwrap();
    let written: Value = serde_saphyr::from_str(&text).unwrap();
    let complete = serde_json::to_value(File::from(&load("reference.yaml").config)).unwrap();
    assert_eq!(written, complete);
}

#[test]
fn reference_mentions_every_key_of_the_schema() {
    let reference = std::fs::read_to_string(folder().join("reference.yaml")).unwrap();
    let found: BTreeSet<_> = mappings(&cqlgate::config::file::schema()).into_values().flatten().collect();
    assert!(found.len() > 60, "{found:?}");
    for key in found {
        assert!(reference.contains(&format!("{key}:")), "{key} is not in reference.yaml");
    }
}

/// The mappings that a schema knows by their paths (`discovery.nodes[0]`), and the keys of each.
fn mappings(schema: &str) -> BTreeMap<String, BTreeSet<String>> {
    fn visit(whole: &Value, part: &Value, path: &str, found: &mut BTreeMap<String, BTreeSet<String>>) {
        let part = part["$ref"].as_str().map_or(part, |name| &whole["$defs"][name.trim_start_matches("#/$defs/")]);
        assert!(!part.is_null(), "{path} is nowhere in the schema");
        for choices in ["anyOf", "oneOf", "allOf"] {
            part[choices].as_array().into_iter().flatten().for_each(|choice| visit(whole, choice, path, found));
        }
        if let Some(entry) = part.get("items") {
            visit(whole, entry, &format!("{path}[0]"), found);
        }
        for (key, inner) in part["properties"].as_object().into_iter().flatten() {
            found.entry(path.to_owned()).or_default().insert(key.clone());
            visit(whole, inner, &join(path, key), found);
        }
    }
    let whole = serde_json::from_str(schema).unwrap_or_else(|error| panic!("{error}"));
    let mut found = BTreeMap::new();
    visit(&whole, &whole, "", &mut found);
    found
}

fn keys_of(schema: &str) -> BTreeSet<String> {
    mappings(schema).iter().flat_map(|(path, keys)| keys.iter().map(move |key| join(path, key))).collect()
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

#[test]
fn schema_file_is_the_generated_one() {
    let path = folder().join("schema.json");
    let generated = cqlgate::config::file::schema();
    if std::env::var_os("CQLGATE_UPDATE_SCHEMA").is_some() {
        std::fs::write(&path, &generated).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(written == generated, "run CQLGATE_UPDATE_SCHEMA=1 cargo test --test config, and look at the difference");
}

#[test]
fn what_check_prints_loads_again() {
    let config = load("contact-points.yaml").config;
    let printed = serde_saphyr::to_string(&File::from(&config)).unwrap();
    assert_eq!(parse(&printed).unwrap().config, config, "{printed}");
}

#[test]
fn kubernetes_defaults_are_those_of_the_reference() {
    let reference = std::fs::read_to_string(folder().join("reference.yaml")).unwrap();
    let lines = reference.lines().skip_while(|line| !line.starts_with("  # kubernetes:")).take_while(|l| !l.is_empty());
    let text: String = lines.map(|line| format!("{}\n", line.replacen("  # ", "  ", 1))).collect();
    let written = parse(&format!("{HEAD}discovery:\n{text}")).unwrap_or_else(|error| panic!("{error}")).config;
    let short = parse(&format!("{HEAD}discovery:\n  kubernetes: {{service: cassandra}}\n")).unwrap().config;
    let (Discovery::Kubernetes(written), Discovery::Kubernetes(short)) = (written.discovery, short.discovery) else {
        panic!("no Kubernetes")
    };
    let set = |config: cqlgate::config::kubernetes::Kubernetes| cqlgate::config::kubernetes::Kubernetes {
        namespace: None,
        port: None,
        family: None,
        pins: BTreeMap::new(),
        stateful_sets: Vec::new(),
        snapshot_file: None,
        ..config
    };
    assert!(
        written.namespace.is_some()
            && written.family.is_some()
            && !written.pins.is_empty()
            && !written.stateful_sets.is_empty()
    );
    assert_eq!(set(written), short);
}

#[test]
fn unknown_keys_are_refused_at_every_level() {
    let levels: Vec<_> = mappings(&cqlgate::config::file::schema()).into_keys().collect();
    for known in ["", "advertise", "discovery.nodes[0]", "limits.stages.login", "logins.keep_out", "views.rules[0]"] {
        assert!(levels.iter().any(|level| level == known), "{known:?} is not among {levels:?}");
    }
    for level in levels {
        // Each step on a line of its own, and the key on the last one.
        let (mut text, mut indent) = (String::new(), String::new());
        for step in level.split('.').filter(|step| !step.is_empty()) {
            let name = step.trim_end_matches("[0]");
            text.push_str(&format!("{indent}{name}:\n"));
            indent.push_str("  ");
            if name != step {
                text.push_str(&format!("{indent}-\n"));
                indent.push_str("  ");
            }
        }
        text.push_str(&format!("{indent}bogus: 1\n"));
        let at = if level.is_empty() { level } else { format!("{level}: ") };
        refused(&text, &format!(" {at}unknown field `bogus`"), text.lines().count());
    }
}

#[test]
fn values_that_mean_nothing_are_refused_with_the_numbers() {
    let nodes = |text: &str| format!("{HEAD}{NODES}{text}");
    refused(&nodes("timeouts:\n  dial: 2\n"), "2 has no unit: write 2s, 2ms or 2m", 4);
    refused(&nodes("timeouts:\n  dial: 20s\n"), "20s is longer than timeouts.setup, 10s", 4);
    refused(&nodes("limits:\n  frame: 1024\n"), "1024 has no unit", 4);
    refused(&nodes("limits:\n  frame: 1GiB\n"), "1GiB is not within 1B and 256MiB", 4);
    refused(&nodes("limits:\n  held_total: 1MiB\n"), "1MiB is less than limits.held_frame, 16MiB", 4);
    refused(&nodes("limits:\n  connections: -1\n"), "invalid", 4);
    refused(&nodes("probe:\n  silence: 1s\n"), "1s is shorter than probe.interval, 2s", 4);
    refused(&nodes("probe:\n  username: x\n"), "needs probe.password_file", 4);
    refused(&nodes("probe:\n  plain_password: yes\n"), "unknown variant `yes`", 4);
    refused(&nodes("probe:\n  username: x\n  password_file: /no/such\n"), "/no/such: No such file", 5);
    refused(&nodes("drain:\n  spread: 40s\n"), "30s is shorter than drain.spread, 40s", 3);
    refused(&nodes("log:\n  level: loud\n"), "\"loud\" is no level", 4);
    refused(&nodes("views:\n  default: all\n"), "unknown variant `all`", 4);
    refused(&nodes("views:\n  schema_agreement: 2m\n"), "2m is longer than 1m", 4);
    refused(&nodes("listen: 0.0.0.0:9042-70000\n"), "port 70000 is beyond 65535", 3);
    refused(&nodes("listen: 0.0.0.0:9042\n"), "2 nodes, but listen 0.0.0.0:9042 has 1 port\n", 2);
    refused(&nodes("admin: 127.0.0.1:9050\n"), "port 9050 is within listen 0.0.0.0:9042-9061", 3);
    refused(&nodes("tls: {nodes: {verify: full}}\n"), "ca is missing", 3);
    refused(&nodes("tls: {nodes: {verify: off, key: /no/such}}\n"), "needs tls.nodes.certificate", 3);
    let port = "discovery:\n  nodes:\n    - {name: a, address: h}\n    - {name: b, address: i, port: 99042}\n";
    refused(&format!("{HEAD}{port}"), "discovery.nodes[1].port: 99042 is no port from 1 to 65535\n 5 |", 5);
    assert_eq!(parse("").unwrap_err(), "gate.yaml: unexpected end of input");
    // No key that is there is to blame.
    let missing = "gate.yaml: advertise is missing: what clients dial, or paths, where that depends on who dials";
    assert_eq!(parse(NODES).unwrap_err(), missing);
    let nameless = "discovery:\n  nodes:\n    - {name: a, address: h}\n    - {address: i}\n";
    refused(&format!("{HEAD}{nameless}"), "discovery.nodes[1]: missing field `name`", 5);
    refused(&format!("advertise: 0.0.0.0\n{NODES}"), "0.0.0.0 cannot be dialled", 1);
    refused(&format!("advertise: gate:9042\n{NODES}"), "without a port", 1);
    refused(&format!("advertise: {{}}\n{NODES}"), "neither ipv4 nor ipv6", 1);
}

#[test]
fn rooms_and_shares_are_checked_and_a_mistake_is_told_once() {
    let limits = |text: &str| format!("{HEAD}{NODES}limits: {text}\n");
    for (text, words) in [
        ("{connections: 0}", "limits.connections"),
        ("{connections: 10, connections_per_node: 10, connections_per_source: 11}", "limits.connections_per_source"),
        ("{connections_per_source: 0}", "limits.connections_per_source"),
        ("{stages: {tls: {places: 0}}}", "limits.stages.tls.places"),
        ("{stages: {tls: {places: 5, per_source: 6}}}", "limits.stages.tls.per_source"),
    ] {
        refused(&limits(text), words, 3);
    }
    for text in ["{connections: 0, connections_per_node: 1}", "{stages: {tls: {places: 0}}}"] {
        let error = parse(&limits(text)).unwrap_err();
        assert!(!error.contains("per_source"), "{error}");
    }
}

#[test]
fn discovery_is_one_way_and_its_ports_are_distinct() {
    let listed = |second: &str| format!("{HEAD}discovery:\n  nodes:\n    - {{name: a, address: h1}}\n    - {second}\n");
    refused(&listed("{name: a, address: h2}"), "discovery.nodes[1].name: a is already that of discovery.nodes[0]", 5);
    refused(&listed("{name: b, address: h1}"), "h1:9042 is already that of discovery.nodes[0]", 5);
    refused(&listed("{name: b, address: h2, port: 9042}"), "9042 is already that of discovery.nodes[0]", 5);
    refused(&listed("{name: b, address: h2, port: 9062}"), "9062 is outside listen 0.0.0.0:9042-9061", 5);
    refused(&listed("{name: '', address: h2}"), "is empty", 5);
    refused(&format!("{HEAD}discovery: {{}}\n"), "needs nodes, contact_points, dns or kubernetes", 2);
    refused(&format!("{HEAD}discovery: {{nodes: []}}\n"), "is empty", 2);
    refused(&format!("{HEAD}discovery: {{contact_points: []}}\n"), "is empty", 2);
    refused(&format!("{HEAD}discovery: {{contact_points: ['h:0']}}\n"), "has no port from 1 to 65535", 2);
    let both = "discovery:\n  nodes: [{name: a, address: h}]\n  contact_points: [h]\n";
    refused(&format!("{HEAD}{both}"), "exclude each other", 2);
    refused(
        &format!("{HEAD}discovery:\n  contact_points: [h]\n  state_file: /no/such/ports\n"),
        "/no/such does not exist",
        4,
    );
}

#[test]
fn kubernetes_keys_are_checked() {
    let kubernetes = |keys: &str| format!("{HEAD}discovery:\n  kubernetes:\n    service: cassandra\n{keys}");
    assert!(parse(&kubernetes("    port: 9142\n")).is_ok());
    refused(&kubernetes("    namespace: D_B\n"), "\"D_B\" is no name of a Kubernetes object", 5);
    refused(&kubernetes("    snapshot_file: /no/such/file\n"), "/no/such does not exist", 5);
    refused(&kubernetes("    family: ipv5\n"), "ipv5", 5);
    refused(&kubernetes("    port: ''\n"), "discovery.kubernetes.port: is empty", 5);
    let racks = |a: &str, b: &str| {
        kubernetes(&format!("    statefulSets:\n    - {{name: a, ports: {a}}}\n    - {{name: b, ports: {b}}}\n"))
    };
    assert!(parse(&racks("9042-9049", "9050-9061")).is_ok());
    refused(&racks("9042-9050", "9050-9061"), "9050-9061 overlap 9042-9050 of a", 7);
    refused(&racks("9042-9049", "9050-9062"), "9050-9062 are not all within listen 0.0.0.0:9042-9061", 7);
    refused(&racks("9049-9042", "9050-9061"), "the range 9049-9042 ends before it begins", 6);
    refused(&format!("{}  allow: []\n", kubernetes("")), "discovery.allow: is empty", 5);
    refused(&format!("{}  allow: [10.1.2.3/8]\n", kubernetes("")), "write 10.0.0.0/8", 5);
    let listed = "discovery:\n  allow: [10.0.0.0/8]\n  nodes: [{name: a, address: 10.0.0.1}]\n";
    refused(&format!("{HEAD}{listed}"), "goes with contact_points, dns and kubernetes", 3);
    let allowed = parse(&format!("{}  allow: [10.0.0.0/8, 'fd00::9']\n", kubernetes(""))).unwrap().config;
    let printed = serde_saphyr::to_string(&File::from(&allowed)).unwrap();
    assert_eq!(allowed.allow.as_ref().map(Vec::len), Some(2));
    assert_eq!(parse(&printed).unwrap().config, allowed, "{printed}");
    refused(&kubernetes("    pins: {c-2: 9062}\n"), "pins.c-2: 9062 is outside listen 0.0.0.0:9042-9061", 5);
    refused(&kubernetes("    pins:\n      c-1: 9047\n      c-2: 9047\n"), "9047 is already that of pins.c-1", 7);
    refused(&kubernetes("    pins:\n      c-1: 9047\n      c-1: 9048\n"), "c-1", 7);
    refused(&kubernetes("    pins: {C_1: 9047}\n"), "\"C_1\" is no name of a pod", 5);
    let pinned = |pin: &str| format!("{}    pins: {{{pin}}}\n", racks("9042-9049", "9052-9061"));
    assert!(parse(&pinned("a-1: 9050, b-1: 9053")).is_ok());
    refused(&pinned("b-1: 9049"), "9049 is by statefulSets that of a-7: pin to a port that is in no range", 8);
    let with_state = format!("{}  state_file: ports.json\n", kubernetes(""));
    refused(&with_state, "kubernetes has snapshot_file", 5);
    refused(&format!("advertise: {{service: a, ipv4: 1.2.3.4}}\n{NODES}"), "service excludes ipv4 and ipv6", 1);
}

#[test]
fn a_name_of_srv_records_loads_and_an_address_is_none() {
    let dns = |name: &str| format!("{HEAD}discovery:\n  dns: {name}\n");
    let config = parse(&dns("cassandra.db.svc.cluster.local.")).unwrap().config;
    assert_eq!(config.discovery, Discovery::Dns("cassandra.db.svc.cluster.local".to_owned()));
    let printed = serde_saphyr::to_string(&File::from(&config)).unwrap();
    assert_eq!(parse(&printed).unwrap().config, config, "{printed}");
    refused(&dns("10.1.2.3"), "\"10.1.2.3\" is no DNS name of a headless Service", 3);
    refused(&dns("c:9042"), "is no DNS name", 3);
    refused(&format!("{}  state_file: ports.json\n", dns("c")), "with dns a port follows from its ordinal", 4);
}

#[test]
fn the_files_of_several_addresses_load() {
    let addresses = load("addresses.yaml").config;
    assert!(addresses.paths.len() == 1 && addresses.paths[0].parts().len() > 1);
    let paths = load("paths.yaml").config.paths;
    assert!(paths.len() > 1 && paths.iter().any(|path| path.told == cqlgate::config::advertise::Told::Pods));
}

/// A list of ten nodes, one for each port, and what clients are told.
fn ten(told: &str) -> String {
    let nodes: Vec<_> = (0..10).map(|index| format!("{{name: n{index}, address: h{index}}}")).collect();
    format!("listen: 0.0.0.0:9042-9051\n{told}discovery: {{nodes: [{}]}}\n", nodes.join(", "))
}

/// A list of these entries under a key.
fn list(key: &str, entries: &[&str]) -> String {
    ten(&format!("{key}:\n{}", entries.iter().map(|entry| format!("  - {{{entry}}}\n")).collect::<String>()))
}

#[test]
fn a_map_of_what_clients_dial_covers_each_port_once() {
    let map = |entries: &[&str]| list("advertise", entries);
    let good = map(&[
        "ports: 9042-9044, service: a",
        "ports: 9045-9046, address: 203.0.113.10, first_port: 30042",
        "ports: 9047, ipv4: 203.0.113.11, ipv6: '2001:db8::11', port: 9042",
        "ports: 9048-9049, service: 'each-{index}', port: 9042",
        "ports: 9050-9051, address: 'n{index}.example.com', first_port: 1",
    ]);
    let config = parse(&good).unwrap().config;
    let said = |part: &Part| (part.ports.unwrap().to_string(), part.external.to_string(), part.port);
    let parts: Vec<_> = config.paths[0].parts().iter().map(said).collect();
    let expected = [
        ("9042-9044", "Service a", DialledPort::OfService),
        ("9045-9046", "203.0.113.10", DialledPort::From(30042)),
        ("9047-9047", "203.0.113.11 and 2001:db8::11", DialledPort::Only(9042)),
        ("9048-9048", "Service each-0", DialledPort::Only(9042)),
        ("9049-9049", "Service each-1", DialledPort::Only(9042)),
        ("9050-9050", "n0.example.com", DialledPort::Only(1)),
        ("9051-9051", "n1.example.com", DialledPort::Only(2)),
    ];
    assert_eq!(parts, expected.map(|(ports, external, port)| (ports.to_owned(), external.to_owned(), port)));
    let printed = serde_saphyr::to_string(&File::from(&config)).unwrap();
    assert_eq!(parse(&printed).unwrap().config, config, "{printed}");

    let whole = "ports: 9042-9051, address: 203.0.113.10";
    refused(&map(&["ports: 9042-9050, address: g"]), "no entry for 9051, which listen", 2);
    refused(&map(&["ports: 9043-9051, address: g"]), "no entry for 9042, which listen", 2);
    refused(&map(&["ports: 9042-9044, address: g", "ports: 9047-9051, address: g"]), "no entry for 9045-9046", 2);
    refused(&map(&[whole, "ports: 9051, address: h"]), "another entry has 9051 already", 4);
    refused(&map(&["ports: 9042-9052, address: g"]), "9042-9052 is outside listen", 3);
    refused(&map(&["ports: 9042-9051, address: g, port: 9042"]), "would all be told as port 9042 of one address", 3);
    refused(&map(&["ports: 9042-9051, address: g, first_port: 65530"]), "65530 and 9 more are beyond 65535", 3);
    refused(&map(&["ports: 9042-9051, address: g, port: 1, first_port: 2"]), "exclude each other", 3);
    refused(&map(&["ports: 9042-9051, address: g, service: h"]), "needs exactly one of address, service", 3);
    refused(&map(&["ports: 9042-9051, service: A_b"]), "is no name of a Kubernetes object", 3);
    refused(&map(&["ports: 9042-9051, address: g, zone: z"]), "unknown field", 3);
    let twice =
        ["ports: 9042-9046, address: 203.0.113.10", "ports: 9047-9051, address: 203.0.113.10, first_port: 9046"];
    refused(&map(&twice), "9047 would be told as port 9046 of 203.0.113.10, as 9046 is", 4);
    let both = "ports: 9047-9051, ipv4: 203.0.113.10, ipv6: '2001:db8::1', first_port: 9042";
    let what = "9047 would be told as port 9042 of 203.0.113.10 and 2001:db8::1, as 9042 is";
    refused(&map(&[twice[0], both]), what, 4);
}

#[test]
fn paths_end_with_one_that_everybody_fits() {
    let paths = |entries: &[&str]| list("paths", entries);
    let inside = "name: inside, from: [10.0.0.0/8], advertise: pods";
    let outside = "name: outside, advertise: gateway.example.com";
    let private = "name: private, proxy: {aws_vpce: vpce-1}, advertise: 10.9.0.10";
    let config = parse(&paths(&[inside, private, outside])).unwrap().config;
    let printed = serde_saphyr::to_string(&File::from(&config)).unwrap();
    assert_eq!(parse(&printed).unwrap().config, config, "{printed}");
    refused(&paths(&[outside, inside]), "is the last, and has a condition", 4);
    refused(&paths(&[outside, outside]), "has neither from nor proxy", 3);
    refused(&paths(&[inside, inside, outside]), "inside is already that of paths[0]", 4);
    refused(&paths(&["name: a, proxy: {}, advertise: g", outside]), "says nothing: name an endpoint", 3);
    refused(&paths(&["name: 'a b', advertise: g"]), "is no name of letters", 3);
    refused(&ten(&format!("advertise: g\npaths: [{{{outside}}}]\n")), "leave out the one beside it", 3);
    refused(&ten("paths: []\n"), "is empty: nobody would be told anything", 2);
    // At the top it is a name.
    let named = parse(&ten("advertise: pods\n")).unwrap().config;
    assert_eq!(named.paths, Told::everywhere(External::Name("pods".to_owned())));
}

#[test]
fn kubernetes_file_loads() {
    let config = load("kubernetes.yaml").config;
    assert_eq!(config.paths, Told::everywhere(External::Service("cqlgate".to_owned())));
    let Discovery::Kubernetes(kubernetes) = config.discovery else { panic!("no Kubernetes") };
    assert_eq!((kubernetes.service.as_str(), kubernetes.namespace.as_deref()), ("cassandra", Some("db")));
    for (file, racks) in [("kubernetes-racks.yaml", 2), ("k8ssandra.yaml", 3)] {
        let Discovery::Kubernetes(kubernetes) = load(file).config.discovery else { panic!("no Kubernetes") };
        assert_eq!(kubernetes.stateful_sets.len(), racks, "{file}");
    }
}

#[test]
fn all_problems_are_shown_at_once_with_their_lines() {
    let error = parse(&format!("{HEAD}{NODES}probe:\n  silence: 1s\nadmin: 0.0.0.0:9042\n")).unwrap_err();
    assert_eq!(
        error,
        "gate.yaml:5:8: admin: port 9042 is within listen 0.0.0.0:9042-9061\n 5 | admin: 0.0.0.0:9042\n   |        ^^^^^^^^^^^^\n\
         gate.yaml:4:12: probe.silence: 1s is shorter than probe.interval, 2s\n 4 |   silence: 1s\n   |            ^^"
    );
}

#[test]
fn odd_settings_are_allowed_with_a_warning() {
    let warnings = |text: &str| parse(text).unwrap().warnings.join("\n");
    assert_eq!(warnings(&format!("{HEAD}{NODES}")), "");
    assert!(warnings(&format!("advertise: 127.0.0.1\n{NODES}")).contains("from this machine only"));
    assert!(warnings(&format!("{HEAD}discovery: {{contact_points: [h]}}\n")).contains("state_file is absent"));
    let drain = |times: &str| warnings(&format!("{HEAD}{NODES}drain: {{{times}}}\n"));
    assert!(drain("spread: 28s, linger: 3s").contains("30s is shorter than drain.spread and drain.linger, 28s and 3s"));
    assert_eq!(drain("spread: 27s, linger: 3s"), "");
    assert!(warnings(&format!("{HEAD}{NODES}tls: {{nodes: {{verify: off}}}}\n")).contains("verify is off"));
    let login = |more: &str| format!("probe: {{username: u, password_file: Cargo.toml{more}}}\n");
    assert_eq!(warnings(&format!("{HEAD}{NODES}{}", login(""))), "");
    let never =
        "probe.username logs in nowhere: no certificate of a node is verified, and probe.plain_password is never";
    assert_eq!(warnings(&format!("{HEAD}{NODES}{}", login(", plain_password: never"))), never);
    let unwatched = format!("{HEAD}discovery: {{kubernetes: {{service: c, watch_pods: false}}}}\n");
    assert!(warnings(&format!("{unwatched}{}", login(""))).contains("no pod is known to be a StatefulSet's"));
    assert_eq!(warnings(&format!("{unwatched}{}", login(", plain_password: always"))), "");
    let mapped = "tls: {clients: {certificate: FILE, key: FILE, client_auth: {mode: required, ca: FILE}}, \
                  nodes: {ca: FILE, identities: [{client: 'CN:app', certificate: FILE, key: FILE}]OWN}}\n";
    let mapped = |own: &str| mapped.replace("OWN", own).replace("FILE", "Cargo.toml");
    let absent = "tls.nodes.certificate is absent beside tls.nodes.identities";
    assert!(warnings(&format!("{HEAD}{NODES}{}", mapped(""))).contains(absent));
    assert_eq!(warnings(&format!("{HEAD}{NODES}{}", mapped(", certificate: FILE, key: FILE"))), "");
    let verified = "tls: {nodes: {ca: Cargo.toml}}\n";
    assert_eq!(warnings(&format!("{HEAD}{NODES}{verified}{}", login(", plain_password: never"))), "");
}

/// Each line of rules with what is wrong in it, and the key that is said to be so.
#[test]
fn rules_of_views_have_conditions_that_can_hold() {
    let with =
        |rule: &str| format!("{HEAD}{NODES}views:\n  rules:\n    - {{driver: x, view: node_ports}}\n    - {rule}\n");
    for rule in [
        "{unnamed: true, view: single_node}",
        "{driver: java, driver_version: '4.', application_name: shop, ports: 9042-9043, view: single_node}",
        "{driver_version: 4.19.0, view: single_node}",
        "{ports: 9042, view: single_node}",
    ] {
        parse(&with(rule)).unwrap_or_else(|error| panic!("{rule}: {error}"));
    }
    let rule = "views.rules[1]";
    for (text, key, words) in [
        ("{view: single_node}", rule, "has no condition: driver, unnamed, driver_version, application_name or ports"),
        ("{unnamed: false, view: single_node}", rule, "has no condition"),
        ("{driver: '', view: single_node}", "views.rules[1].driver", "is empty, and would hold for all"),
        ("{driver: x, application_name: '', view: single_node}", "views.rules[1].application_name", "is empty"),
        ("{driver: x, unnamed: true, view: single_node}", "views.rules[1].unnamed", "excludes driver"),
        (
            "{ports: 9042-9062, view: single_node}",
            "views.rules[1].ports",
            "9042-9062 is outside listen 0.0.0.0:9042-9061",
        ),
        // As a number it would not be what is written here.
        ("{driver_version: 1.10, view: single_node}", "views.rules[1].driver_version", "write it in quotes"),
        ("{application_name: true, view: single_node}", "views.rules[1].application_name", "write it in quotes"),
        ("{driver: x}", rule, "missing field `view`"),
    ] {
        refused(&with(text), &format!(" {key}: "), 6);
        refused(&with(text), words, 6);
    }
}

#[test]
fn views_are_configurable() {
    let views = "views: {default: single_node, rules: [{driver: My Driver, view: node_ports}]}\n";
    let config = parse(&format!("{HEAD}{NODES}{views}")).unwrap().config;
    assert_eq!(config.views.default, ViewName::SingleNode);
    let rule = ViewRule { driver: Some("My Driver".to_owned()), ..ViewRule::of(ViewName::NodePorts) };
    assert_eq!(config.views.rules, [rule]);
    assert_eq!(config.views.schema_agreement, std::time::Duration::from_secs(5));
    let off = parse(&format!("{HEAD}{NODES}views: {{schema_agreement: 0s}}\n")).unwrap().config;
    assert!(off.views.schema_agreement.is_zero());
}

#[test]
fn nothing_of_nodes_that_are_not_served_is_kept_unless_it_is_asked_for() {
    let unserved = |text: &str| {
        let config = parse(&format!("{HEAD}{NODES}{text}")).unwrap().config;
        (config.unserved.remote, config.unserved.ghosts)
    };
    assert_eq!(unserved(""), (Fate::Hide, Fate::Hide));
    assert_eq!(unserved("unserved: {}\n"), (Fate::Hide, Fate::Hide));
    assert_eq!(unserved("unserved: {remote: keep}\n"), (Fate::Keep, Fate::Hide));
    assert_eq!(unserved("unserved: {remote: hide, ghosts: keep}\n"), (Fate::Hide, Fate::Keep));
    refused(&format!("{HEAD}{NODES}unserved: {{remote: show}}\n"), "unknown variant `show`", 3);
}
