//! `cqlgate check --nodes`: each node that the file names, or that its names lead to, is dialled and asked as the gateway would.

use std::net::SocketAddr;

use tokio::net::lookup_host;

use crate::config::text::NATIVE_PORT;
use crate::config::{Config, Discovery, HostPort, PlainPassword};
use crate::discovery::examine::{Login, examine};
use crate::proxy::dial::{Dialer, Target};
use crate::proxy::tls::NodeConnector;

/// Prints a line for each node; whether all of them are as they should be.
///
/// # Errors
/// There is no runtime.
pub(super) fn check(config: &Config, given: &[HostPort], tls: Option<NodeConnector>) -> anyhow::Result<bool> {
    let dialer = Dialer { deadline: config.timeouts.dial, tls };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(async {
        let mut all_well = true;
        println!("# Nodes:");
        let (named, wrong) = named(config, given).await;
        let login = login(config, given.is_empty());
        for what in wrong {
            all_well = false;
            println!("#   FAIL  {what}");
        }
        for (name, target) in named {
            let (mark, what) = match examine(&dialer, &target, &login).await {
                Ok(what) => ("ok  ", what),
                Err(what) => ("FAIL", what),
            };
            all_well &= mark == "ok  ";
            println!("#   {mark}  {name} ({}): {what}", target.address);
        }
        all_well
    }))
}

/// The gateway's own, for nodes that it may be sent to (`probe.plain_password`).
fn login(config: &Config, by_file: bool) -> Login {
    let is_listed = by_file && !matches!(config.discovery, Discovery::Kubernetes(_));
    match (config.probe.credentials(), config.probe.plain_password) {
        (None, _) => Login::Absent,
        (Some(credentials), _) if config.tls.verifies_nodes() => Login::Given(credentials),
        (Some(credentials), PlainPassword::Always) => Login::Given(credentials),
        (Some(credentials), PlainPassword::Listed) if is_listed => Login::Given(credentials),
        (Some(_), rule) => Login::Withheld(rule),
    }
}

/// Whom to ask, by name; and names that lead nowhere.
async fn named(config: &Config, given: &[HostPort]) -> (Vec<(String, Target)>, Vec<String>) {
    let of_host = |host: &str| HostPort { host: host.to_owned(), port: NATIVE_PORT };
    let names: Vec<(String, HostPort)> = if given.is_empty() {
        match &config.discovery {
            Discovery::Nodes(nodes) => nodes.iter().map(|node| (node.name.clone(), node.address.clone())).collect(),
            Discovery::ContactPoints(points) => {
                points.addresses.iter().map(|point| (point.to_string(), point.clone())).collect()
            }
            Discovery::Dns(name) => vec![(name.clone(), of_host(name))],
            Discovery::Kubernetes(kubernetes) => {
                let namespace = kubernetes
                    .namespace
                    .as_ref()
                    .map(|namespace| format!(".{namespace}.svc.{}", kubernetes.cluster_domain));
                let name = format!("{}{}", kubernetes.service, namespace.unwrap_or_default());
                vec![(name.clone(), of_host(&name))]
            }
        }
    } else {
        given.iter().map(|point| (point.to_string(), point.clone())).collect()
    };
    let (mut targets, mut wrong) = (Vec::new(), Vec::new());
    for (name, HostPort { host, port }) in names {
        match lookup_host((host.as_str(), port)).await {
            Ok(addresses) => {
                let mut addresses: Vec<SocketAddr> = addresses.collect();
                addresses.sort_unstable();
                addresses.dedup();
                let target = |address| (name.clone(), Target { address, host: host.as_str().into() });
                targets.extend(addresses.into_iter().map(target));
            }
            Err(error) => wrong.push(format!("{name}: {error}; name nodes with --node")),
        }
    }
    (targets, wrong)
}
