//! `cqlgate check`: what a file means, as YAML that could stand in its place, which port is whose, and what certificates say.
//! Nothing is bound, and without `--nodes` nobody is asked.

mod nodes;

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::PathBuf;

use anyhow::{Context, bail};
use jiff::Timestamp;

use crate::config::advertise::{DialledPort, Path, Told};
use crate::config::text::Ports;
use crate::config::{Config, Discovery, External, File, HostPort, Overlay};
use crate::proxy::tls::shown::Shown;
use crate::proxy::tls::{ClientAcceptor, NodeConnector};

/// Prints to standard output; warnings go to standard error.
pub(super) fn check(path: &std::path::Path, nodes: Option<&[HostPort]>) -> anyhow::Result<()> {
    let environment = Overlay::of_process();
    let resolved = Config::load_under(path, &environment)?;
    for warning in &resolved.warnings {
        eprintln!("warning: {warning}");
    }
    let config = &resolved.config;
    config.tls.clients.as_ref().map(ClientAcceptor::from_config).transpose().context("tls.clients")?;
    let node_tls = config.tls.nodes.as_ref().map(NodeConnector::from_config).transpose().context("tls.nodes")?;
    let mut text = describe(config)?;
    for name in environment.names() {
        writeln!(text, "# {name} counts, over what the file says.")?;
    }
    for (key, path) in certificates(config) {
        let shown = Shown::read(path).context(key.clone())?;
        let now = Timestamp::now();
        let ends = Timestamp::from_second(shown.ends).unwrap_or(Timestamp::MAX);
        let names = shown.all_names();
        writeln!(text, "# {key} ends {ends:.0}; it is for {}.", if names.is_empty() { "no name" } else { &names })?;
        if shown.is_version_1 {
            eprintln!(
                "warning: {key}: it is of X.509 version 1: Java and OpenSSL take it, others do not; sign it with an extension file"
            );
        }
        if ends < now {
            eprintln!("warning: {key}: it has ended, {ends:.0}");
        }
        if key == CLIENTS {
            let told: BTreeSet<_> = config.paths.iter().flat_map(Path::parts).map(|part| &part.external).collect();
            for what in told.into_iter().flat_map(|external| misnamed(external, &shown)) {
                eprintln!("warning: {key}: {what}");
            }
        }
    }
    print!("{text}");
    match nodes {
        Some(given) if !nodes::check(config, given, node_tls)? => bail!("a node is not as it should be"),
        _ => Ok(()),
    }
}

const CLIENTS: &str = "tls.clients.certificate";

/// The certificates that the gateway shows, by their keys.
fn certificates(config: &Config) -> Vec<(String, &PathBuf)> {
    let clients = config.tls.clients.iter().map(|tls| (CLIENTS.to_owned(), &tls.certificate));
    let nodes = config.tls.nodes.iter().flat_map(|tls| &tls.certificate);
    let nodes = nodes.map(|path| ("tls.nodes.certificate".to_owned(), path));
    let identities = config.tls.nodes.iter().flat_map(|tls| tls.identities.iter().enumerate());
    let identities =
        identities.map(|(index, of)| (format!("tls.nodes.identities[{index}].certificate"), &of.certificate));
    clients.chain(nodes).chain(identities).collect()
}

/// What clients are told to dial, and the certificate is not for. Rows carry addresses, also where a name is advertised.
fn misnamed(advertise: &External, shown: &Shown) -> Vec<String> {
    let rows = "rows carry addresses, and drivers that verify names refuse it. Give it the address (subjectAltName), or let drivers verify \
                the name: Java 4, FixedHostNameAddressTranslator with advertised-hostname; Python, check_hostname off";
    match advertise {
        External::Addresses { .. } => {
            let other = advertise.addresses().filter(|address| !shown.addresses().any(|shown| shown == *address));
            other.map(|address| format!("it is not for {address}, which clients are told to dial: {rows}")).collect()
        }
        External::Name(name) if !shown.is_for(name) => vec![format!("it is not for {name}, which is advertised")],
        External::Name(_) | External::Service(_) if shown.addresses().next().is_none() => {
            vec![format!("it is for no address: {rows}")]
        }
        External::Name(_) | External::Service(_) => Vec::new(),
    }
}

fn describe(config: &Config) -> anyhow::Result<String> {
    let mut text = serde_saphyr::to_string(&File::from(config))?;
    if !text.ends_with('\n') {
        text.push('\n');
    }
    let listen = config.listen;
    writeln!(text, "\n# Ports:")?;
    match &config.discovery {
        Discovery::Nodes(nodes) => {
            let mut nodes: Vec<_> = nodes.iter().collect();
            nodes.sort_by_key(|node| node.port);
            let width = nodes.iter().map(|node| node.name.chars().count()).max().unwrap_or(0);
            for node in &nodes {
                writeln!(text, "#   {:<5}  {:<width$}  {}", node.port, node.name, node.address)?;
            }
            writeln!(text, "# {} of {} ports have no node.", listen.ports() - nodes.len(), listen.ports())?;
        }
        Discovery::ContactPoints(points) => {
            let range = format!("{}-{}", listen.first, listen.last);
            writeln!(text, "#   {range}  one for each node that is found, up to {}", listen.ports())?;
            match &points.state_file {
                Some(file) => writeln!(text, "# A node keeps its port by its host_id, in {}.", file.display())?,
                None => writeln!(text, "# A node keeps its port by its host_id until the gateway starts again.")?,
            }
        }
        Discovery::Dns(name) => {
            let range = format!("{}-{}", listen.first, listen.last);
            writeln!(text, "#   {range}  the targets of {name}'s SRV records, from ordinal 0")?;
        }
        Discovery::Kubernetes(kubernetes) => {
            let sets = &kubernetes.stateful_sets;
            let width = sets.iter().map(|set| set.name.chars().count()).max().unwrap_or(0);
            for set in sets {
                writeln!(text, "#   {:<11}  {:<width$}  from ordinal {}", set.ports, set.name, set.first_ordinal)?;
            }
            let pins = &kubernetes.pins;
            let pinned = pins.keys().map(|name| name.chars().count()).max().unwrap_or(0);
            for (name, port) in pins {
                writeln!(text, "#   {port:<11}  {name:<pinned$}  pinned")?;
            }
            if sets.is_empty() {
                let (range, first) = (format!("{}-{}", listen.first, listen.last), kubernetes.first_ordinal);
                writeln!(text, "#   {range}  the pods behind Service {}, from ordinal {first}", kubernetes.service)?;
                let ledger = &kubernetes.ledger;
                writeln!(
                    text,
                    "# Where they are of several StatefulSets, ConfigMap {ledger} says who has which port."
                )?;
            }
        }
    }
    tell(config, &mut text)?;
    Ok(text)
}

/// Who is told what, where that is more than one address.
fn tell(config: &Config, text: &mut String) -> std::fmt::Result {
    if let [path] = config.paths.as_slice()
        && path.parts().iter().any(|part| part.ports.is_none())
    {
        return Ok(());
    }
    for path in &config.paths {
        let from = path.from.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let who = match (from.is_empty(), &path.proxy) {
            (true, None) => "clients".to_owned(),
            (false, None) => format!("clients from {from}"),
            (true, Some(_)) => "clients whose PROXY header says so".to_owned(),
            (false, Some(_)) => format!("clients from {from} whose PROXY header says so"),
        };
        writeln!(text, "\n# Path {}: {who} dial", path.name)?;
        if path.told == Told::Pods {
            writeln!(text, "#   the nodes' own addresses")?;
        }
        for part in path.parts() {
            let ports = part.ports.unwrap_or(Ports { first: config.listen.first, last: config.listen.last });
            let last = |first: u16| first.saturating_add(ports.last - ports.first);
            let dialled = match part.port {
                DialledPort::Listened => format!("{ports}"),
                DialledPort::From(first) => format!("{first}-{}", last(first)),
                DialledPort::Only(port) => port.to_string(),
                DialledPort::OfService => "the Service's own ports".to_owned(),
            };
            writeln!(text, "#   {ports:<11}  {}, {dialled}", part.external)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::identity::Kind;

    fn check(text: &str, expected: &[&str]) {
        let config = Config::parse("gate.yaml", text, std::path::Path::new("")).unwrap().config;
        let described = describe(&config).unwrap();
        for part in expected {
            assert!(described.contains(part), "{described}\ndoes not say {part}");
        }
        assert_eq!(Config::parse("printed", &described, std::path::Path::new("")).unwrap().config, config);
    }

    #[test]
    fn prints_defaults_and_the_port_of_each_node() {
        let text = "advertise: 203.0.113.10\ndiscovery: {nodes: [{name: b, address: h2, port: 9050}, {name: aa, address: h1}]}\n";
        check(
            text,
            &["setup: 10s", "frame: 256MiB", "#   9043   aa  h1:9042\n#   9050   b   h2:9042\n# 18 of 20 ports"],
        );
    }

    #[test]
    fn a_certificate_that_is_not_for_what_clients_dial_is_told() {
        let shown = |names: &[&str], addresses: &[&str]| {
            let names = names.iter().map(|name| (Kind::Dns, (*name).to_owned()));
            let addresses = addresses.iter().map(|address| (Kind::Ip, (*address).to_owned()));
            Shown { is_version_1: false, begins: 0, ends: 0, names: names.chain(addresses).collect() }
        };
        let check = |advertise: &str, shown: &Shown, expected: &[&str]| {
            let text = format!("advertise: {advertise}\ndiscovery: {{contact_points: [h]}}\n");
            let advertise = Config::parse("gate.yaml", &text, std::path::Path::new("")).unwrap().config.paths;
            let found = misnamed(&advertise[0].parts()[0].external, shown);
            assert_eq!(found.len(), expected.len(), "{found:?}");
            assert!(found.iter().zip(expected).all(|(found, part)| found.starts_with(part)), "{found:?}");
        };
        let both = "{ipv4: 203.0.113.10, ipv6: '2001:db8::1'}";
        let whole = shown(&["*.example.com"], &["203.0.113.10"]);
        check("203.0.113.10", &whole, &[]);
        check("gateway.example.com", &whole, &[]);
        check("Gateway.Example.com", &whole, &[]);
        check(both, &whole, &["it is not for 2001:db8::1, which clients are told to dial: rows carry"]);
        check("203.0.113.11", &whole, &["it is not for 203.0.113.11"]);
        for other in ["example.com", "a.gateway.example.com", "gateway.example.org"] {
            check(other, &whole, &[&format!("it is not for {other}, which is advertised")]);
        }
        check("gateway.example.com", &shown(&["gateway.example.com"], &[]), &["it is for no address: rows carry"]);
        check("{service: gate}", &shown(&["gateway.example.com"], &[]), &["it is for no address"]);
    }

    #[test]
    fn says_how_found_nodes_get_their_ports() {
        check(
            "advertise: g\ndiscovery: {contact_points: [h]}\n",
            &["#   9042-9061  one for each", "until the gateway starts"],
        );
        check(
            "advertise: g\ndiscovery: {kubernetes: {service: c, pins: {c-2: 9047}}}\n",
            &["#   9047         c-2  pinned\n", "the pods behind Service c, from ordinal 0"],
        );
    }
}
