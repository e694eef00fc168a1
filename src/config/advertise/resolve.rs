//! From the words of `advertise` and `paths` to what they mean, and back.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use super::{
    Advertise, DEFAULT_PATH, DialledPort, Entry, External, Families, LoadBalancer, PODS, Part, Path, PathRule,
    ProxyMatch, Told,
};
use crate::config::Listen;
use crate::config::kubernetes::is_object_name;
use crate::config::resolve::Findings;
use crate::config::text::{Ports, is_name};

/// Stands in a name for the number of a port within its entry.
const INDEX: &str = "{index}";

/// What the file says of paths: exactly one of the two.
pub fn paths(
    advertise: Option<&Advertise>,
    rules: Option<&[PathRule]>,
    listen: Listen,
    found: &mut Findings,
) -> Vec<Path> {
    let rules = match (advertise, rules) {
        (Some(advertise), None) => {
            let told = told("advertise", advertise, listen, found);
            return vec![Path::new(DEFAULT_PATH, told)];
        }
        (None, None) => {
            found.problem("", "advertise is missing: what clients dial, or paths, where that depends on who dials");
            return Vec::new();
        }
        (Some(_), Some(_)) => {
            found.problem("paths", "each path has an advertise of its own: leave out the one beside it");
            return Vec::new();
        }
        (None, Some(rules)) => rules,
    };
    if rules.is_empty() {
        found.problem("paths", "is empty: nobody would be told anything");
    }
    let mut names = HashMap::new();
    let mut paths = Vec::with_capacity(rules.len());
    for (index, rule) in rules.iter().enumerate() {
        let key = format!("paths[{index}]");
        let (name, proxy) = (rule.name.clone(), rule.proxy.clone());
        if name.is_empty() || name.len() > 63 || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        {
            found.problem(format!("{key}.name"), format!("{name:?} is no name of letters, digits, -, _ and ."));
        }
        if let Some(first) = names.insert(name.clone(), index) {
            found.problem(format!("{key}.name"), format!("{name} is already that of paths[{first}]"));
        }
        if proxy.as_ref().is_some_and(|proxy| *proxy == ProxyMatch::default()) {
            found.problem(format!("{key}.proxy"), "says nothing: name an endpoint, or leave it out");
        }
        let told = told(&format!("{key}.advertise"), &rule.advertise, listen, found);
        let path = Path { name, from: rule.from.clone(), proxy, told };
        let is_last = index + 1 == rules.len();
        if is_last && path.has_condition() {
            found.problem(key, "is the last, and has a condition: whoever fits nowhere would be told nothing");
        } else if !is_last && !path.has_condition() {
            found.problem(key, "has neither from nor proxy: those behind it would never be reached");
        }
        paths.push(path);
    }
    paths
}

fn told(key: &str, advertise: &Advertise, listen: Listen, found: &mut Findings) -> Told {
    let external = match advertise {
        Advertise::Text(text) if text == PODS && key != "advertise" => return Told::Pods,
        Advertise::Text(text) => address(key, text, found),
        Advertise::Families(both) => families(key, both, found),
        Advertise::Service(of) => service(&format!("{key}.service"), &of.service, found),
        Advertise::Map(entries) => return Told::Ports(map(key, entries, listen, found)),
    };
    Path::everywhere(external).pop().map_or(Told::Ports(Vec::new()), |path| path.told)
}

fn address(key: &str, text: &str, found: &mut Findings) -> External {
    let external = match text.parse::<IpAddr>() {
        Ok(ip) => External::ip(ip),
        Err(_) => {
            if !is_name(text) {
                let hint = "write one such as 203.0.113.10 or gateway.example.com, without a port";
                found.problem(key, format!("{text:?} is no IP address or DNS name: {hint}"));
            }
            External::Name(text.to_owned())
        }
    };
    check_dialled(key, &external, found);
    external
}

fn families(key: &str, both: &Families, found: &mut Findings) -> External {
    if both.ipv4.is_none() && both.ipv6.is_none() {
        found.problem(key, "neither ipv4 nor ipv6 is there");
    }
    let external = External::Addresses { ipv4: both.ipv4, ipv6: both.ipv6 };
    check_dialled(key, &external, found);
    external
}

fn service(key: &str, name: &str, found: &mut Findings) -> External {
    if !is_object_name(name) {
        found.problem(key, format!("{name:?} is no name of a Kubernetes object"));
    }
    External::Service(name.to_owned())
}

fn check_dialled(key: &str, external: &External, found: &mut Findings) {
    for address in external.addresses() {
        if address.is_unspecified() {
            found.problem(key, format!("{address} cannot be dialled: name the address that clients use"));
        } else if address.is_loopback() {
            found.warnings.push(format!("{key}: {address} can be dialled from this machine only"));
        }
    }
}

/// The entries as parts that cover each port that is listened on once; one with an index becomes a part for each of its ports.
fn map(key: &str, entries: &[Entry], listen: Listen, found: &mut Findings) -> Vec<Part> {
    let mut parts: Vec<(String, Ports, Part)> = Vec::with_capacity(entries.len());
    for (index, entry) in entries.iter().enumerate() {
        let key = format!("{key}[{index}]");
        let ports = entry.ports;
        if !listen.has(ports) {
            found.problem(format!("{key}.ports"), format!("{ports} is outside listen {listen}"));
            continue;
        }
        parts.extend(entry_parts(&key, entry, found).into_iter().map(|(ports, part)| (key.clone(), ports, part)));
    }
    parts.sort_by_key(|(_, ports, _)| ports.first);
    let mut next = u32::from(listen.first);
    for (at, ports, _) in &parts {
        let (first, last) = (u32::from(ports.first), u32::from(ports.last));
        if first < next {
            found.problem(format!("{at}.ports"), format!("another entry has {first} already"));
        } else if first > next {
            found.problem(key, format!("no entry for {}, which listen {listen} has", range(next, first - 1)));
        }
        next = next.max(last + 1);
    }
    if next <= u32::from(listen.last) {
        let missing = range(next, u32::from(listen.last));
        found.problem(key, format!("no entry for {missing}, which listen {listen} has"));
    }
    refuse_alike(&parts, found);
    parts.into_iter().map(|(_, _, part)| part).collect()
}

fn range(first: u32, last: u32) -> String {
    if first == last { first.to_string() } else { format!("{first}-{last}") }
}

fn entry_parts(key: &str, entry: &Entry, found: &mut Findings) -> Vec<(Ports, Part)> {
    let ports = entry.ports;
    let many = ports.first != ports.last;
    let indexed = [&entry.address, &entry.service].into_iter().flatten().any(|name| name.contains(INDEX));
    if entry.port.is_some() && entry.first_port.is_some() {
        found.problem(format!("{key}.port"), "and first_port exclude each other");
    }
    if let (Some(port), true, false) = (entry.port, many, indexed) {
        let what = format!(
            "{ports} would all be told as port {port} of one address: use first_port, or a name for each, with {INDEX}"
        );
        found.problem(format!("{key}.port"), what);
    }
    let width = u32::from(ports.last - ports.first);
    if let Some(first) = entry.first_port.filter(|first| u32::from(*first) + width > u32::from(u16::MAX)) {
        found.problem(format!("{key}.first_port"), format!("{first} and {width} more are beyond 65535"));
    }
    for (name, port) in [("port", entry.port), ("first_port", entry.first_port)] {
        if port == Some(0) {
            found.problem(format!("{key}.{name}"), "port 0 is no port");
        }
    }
    let port = match (entry.port, entry.first_port, &entry.service) {
        (Some(port), _, _) => DialledPort::Only(port),
        (_, Some(first), _) => DialledPort::From(first),
        (None, None, Some(_)) => DialledPort::OfService,
        (None, None, None) => DialledPort::Listened,
    };
    let external = |found: &mut Findings, index: u16| match (&entry.address, (entry.ipv4, entry.ipv6), &entry.service) {
        (Some(text), (None, None), None) => {
            Some(address(&format!("{key}.address"), &text.replace(INDEX, &index.to_string()), found))
        }
        (None, (ipv4, ipv6), None) if ipv4.is_some() || ipv6.is_some() => {
            Some(families(key, &Families { ipv4, ipv6 }, found))
        }
        (None, (None, None), Some(name)) => {
            Some(service(&format!("{key}.service"), &name.replace(INDEX, &index.to_string()), found))
        }
        _ => {
            found.problem(key, "needs exactly one of address, service, and ipv4 or ipv6 or both");
            None
        }
    };
    if !indexed {
        let external = external(found, 0);
        return external.into_iter().map(|external| (ports, Part { ports: Some(ports), external, port })).collect();
    }
    let mut parts = Vec::new();
    for (index, at) in (0..).zip(ports.first..=ports.last) {
        // What is wrong with one is wrong with all.
        let Some(external) = external(found, index) else { break };
        let port =
            if let DialledPort::From(first) = port { DialledPort::Only(first.saturating_add(index)) } else { port };
        let one = Ports { first: at, last: at };
        parts.push((one, Part { ports: Some(one), external, port }));
    }
    parts
}

/// Two ports that clients cannot tell apart, as far as the file says.
fn refuse_alike(parts: &[(String, Ports, Part)], found: &mut Findings) {
    let mut told: BTreeMap<(External, u16), u16> = BTreeMap::new();
    for (key, ports, part) in parts {
        // One address of two is enough.
        let mut each: Vec<External> = part.external.addresses().map(External::ip).collect();
        if each.is_empty() {
            each.push(part.external.clone());
        }
        for (index, listened) in (0..).zip(ports.first..=ports.last) {
            let dialled = match part.port {
                DialledPort::Listened => listened,
                DialledPort::From(first) => first.saturating_add(index),
                DialledPort::Only(port) => port,
                DialledPort::OfService => continue,
            };
            let before = each.iter().filter_map(|at| told.insert((at.clone(), dialled), listened)).next();
            if let Some(before) = before {
                let what = format!("{listened} would be told as port {dialled} of {}, as {before} is", part.external);
                found.problem(key.clone(), what);
                break;
            }
        }
    }
}

/// The words that say the same.
pub fn words(paths: &[Path]) -> (Option<Advertise>, Option<Vec<PathRule>>) {
    if let [path] = paths
        && path.name == DEFAULT_PATH
        && !path.has_condition()
    {
        return (Some(Advertise::from(&path.told)), None);
    }
    let rule = |path: &Path| PathRule {
        name: path.name.clone(),
        from: path.from.clone(),
        proxy: path.proxy.clone(),
        advertise: Advertise::from(&path.told),
    };
    (None, Some(paths.iter().map(rule).collect()))
}

impl From<&Told> for Advertise {
    fn from(told: &Told) -> Self {
        let parts = match told {
            Told::Pods => return Self::Text(PODS.to_owned()),
            Told::Ports(parts) => parts,
        };
        if let [Part { ports: None, external, .. }] = parts.as_slice() {
            return match external {
                External::Addresses { ipv4: Some(ip), ipv6: None } => Self::Text(ip.to_string()),
                External::Addresses { ipv4: None, ipv6: Some(ip) } => Self::Text(ip.to_string()),
                External::Addresses { ipv4, ipv6 } => Self::Families(Families { ipv4: *ipv4, ipv6: *ipv6 }),
                External::Name(name) => Self::Text(name.clone()),
                External::Service(service) => Self::Service(LoadBalancer { service: service.clone() }),
            };
        }
        Self::Map(parts.iter().filter_map(Entry::of).collect())
    }
}

impl Entry {
    fn of(part: &Part) -> Option<Self> {
        let ports = part.ports?;
        let (address, ipv4, ipv6, service) = match &part.external {
            External::Addresses { ipv4: Some(ip), ipv6: None } => (Some(ip.to_string()), None, None, None),
            External::Addresses { ipv4: None, ipv6: Some(ip) } => (Some(ip.to_string()), None, None, None),
            External::Addresses { ipv4, ipv6 } => (None, *ipv4, *ipv6, None),
            External::Name(name) => (Some(name.clone()), None, None, None),
            External::Service(name) => (None, None, None, Some(name.clone())),
        };
        let (port, first_port) = match part.port {
            DialledPort::Listened | DialledPort::OfService => (None, None),
            DialledPort::Only(port) => (Some(port), None),
            DialledPort::From(first) => (None, Some(first)),
        };
        Some(Self { ports, address, ipv4, ipv6, service, port, first_port })
    }
}
