//! `cqlgate check`: what a file means, as YAML that could stand in its place, and which port is whose. Certificates and
//! keys are read; nothing is bound and nobody is asked.

use std::fmt::Write;
use std::path::Path;

use anyhow::Context;

use crate::config::{Config, Discovery, File};
use crate::proxy::tls::{ClientAcceptor, NodeConnector};

/// Prints to standard output; warnings go to standard error.
pub(super) fn check(path: &Path) -> anyhow::Result<()> {
    let resolved = Config::load(path)?;
    for warning in &resolved.warnings {
        eprintln!("warning: {warning}");
    }
    let config = &resolved.config;
    config.tls.clients.as_ref().map(ClientAcceptor::from_config).transpose().context("tls.clients")?;
    config.tls.nodes.as_ref().map(NodeConnector::from_config).transpose().context("tls.nodes")?;
    print!("{}", describe(config)?);
    Ok(())
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
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &[&str]) {
        let config = Config::parse("gate.yaml", text, Path::new("")).unwrap().config;
        let described = describe(&config).unwrap();
        for part in expected {
            assert!(described.contains(part), "{described}\ndoes not say {part}");
        }
        assert_eq!(Config::parse("printed", &described, Path::new("")).unwrap().config, config);
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
