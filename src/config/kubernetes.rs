//! `discovery.kubernetes`: how the nodes of a headless Service are found. The file's shape and what it means together.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Listen;
use super::text::is_name;

pub use super::text::Ports;

/// The pods behind a headless Service, watched through the Kubernetes API.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Kubernetes {
    /// The headless Service that the StatefulSet names as its serviceName.
    pub service: String,
    /// The Service's namespace; the gateway's own when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The name of the endpoints' CQL port, or its number; when absent the port named cql or native, else 9042.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<EndpointPort>,
    /// name: by the pod's DNS name, which is also what TLS verifies; address: by the pod's address alone.
    #[serde(default)]
    pub dial: Dial,
    /// The family at which pods of both are dialled. Absent: the one that answers, IPv4 first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub family: Option<Family>,
    /// The cluster's DNS domain.
    #[serde(default = "Kubernetes::default_cluster_domain")]
    pub cluster_domain: String,
    /// The StatefulSet's .spec.ordinals.start: the ordinal that has the first port.
    #[serde(default)]
    pub first_ordinal: u32,
    /// Where there are several StatefulSets, the ports of each.
    #[serde(rename = "statefulSets", default, skip_serializing_if = "Vec::is_empty")]
    pub stateful_sets: Vec<StatefulSet>,
    /// The ConfigMap, in the gateway's own namespace, that says who has which port. Used only where statefulSets is absent;
    /// decides where several StatefulSets are found.
    #[serde(default = "Kubernetes::default_ledger")]
    pub ledger: String,
    /// Ports of single nodes, by the pod's name, in place of what follows from ordinals and of what the ledger would give.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub pins: BTreeMap<String, u16>,
    /// Watch the pods themselves, too: only they tell a node that was scaled away from one that is being replaced, and the
    /// StatefulSet's pods from one that somebody made with such a name.
    #[serde(default = "Kubernetes::default_watch_pods")]
    pub watch_pods: bool,
    /// Keeps what was found, so that the gateway can start while the API is away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot_file: Option<PathBuf>,
}

/// One StatefulSet and its ports.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StatefulSet {
    pub name: String,
    /// A part of listen, of this StatefulSet alone.
    pub ports: Ports,
    /// Its .spec.ordinals.start: the ordinal that has the first of these ports.
    #[serde(default)]
    pub first_ordinal: u32,
}

/// Which of an endpoint's ports speaks CQL.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum EndpointPort {
    Number(u16),
    Name(String),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Dial {
    #[default]
    Name,
    Address,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Family {
    Ipv4,
    Ipv6,
}

impl Family {
    pub fn is_of(self, address: IpAddr) -> bool {
        address.is_ipv4() == (self == Self::Ipv4)
    }
}

impl std::fmt::Display for Family {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if *self == Self::Ipv4 { "IPv4" } else { "IPv6" })
    }
}

impl Kubernetes {
    /// `cluster.local`.
    pub fn default_cluster_domain() -> String {
        "cluster.local".to_owned()
    }

    /// `cqlgate-ports`.
    pub fn default_ledger() -> String {
        "cqlgate-ports".to_owned()
    }

    /// Yes.
    pub fn default_watch_pods() -> bool {
        true
    }

    fn check_pins(&self, listen: Listen, mut problem: impl FnMut(&str, String)) {
        let mut owners: BTreeMap<u16, &str> = BTreeMap::new();
        for (name, &port) in &self.pins {
            let key = format!("pins.{name}");
            if !is_object_name(name) {
                problem(&key, format!("{name:?} is no name of a pod"));
            }
            if port < listen.first || port > listen.last {
                problem(&key, format!("{port} is outside listen {listen}"));
            }
            if let Some(other) = owners.insert(port, name) {
                problem(&key, format!("{port} is already that of pins.{other}"));
            }
            let within = |set: &&StatefulSet| set.ports.first <= port && port <= set.ports.last;
            if let Some(set) = self.stateful_sets.iter().find(within) {
                let owner = format!("{}-{}", set.name, set.first_ordinal + u32::from(port - set.ports.first));
                if owner != *name {
                    problem(
                        &key,
                        format!("{port} is by statefulSets that of {owner}: pin to a port that is in no range"),
                    );
                }
            }
        }
    }

    /// All that is wrong, as key and text; and the same with paths that count from `base`.
    pub(super) fn resolve(&self, listen: Listen, base: &Path) -> (Self, Vec<(String, String)>) {
        let mut wrong = Vec::new();
        let mut problem = |key: &str, what: String| wrong.push((format!("discovery.kubernetes.{key}"), what));
        for (key, name) in
            [("service", Some(&self.service)), ("namespace", self.namespace.as_ref()), ("ledger", Some(&self.ledger))]
        {
            if name.is_some_and(|name| !is_object_name(name)) {
                problem(key, format!("{:?} is no name of a Kubernetes object", name.map_or("", String::as_str)));
            }
        }
        if !is_name(&self.cluster_domain) {
            problem("cluster_domain", format!("{:?} is no DNS name", self.cluster_domain));
        }
        match &self.port {
            Some(EndpointPort::Number(0)) => problem("port", "0 is no port from 1 to 65535".to_owned()),
            Some(EndpointPort::Name(name)) if name.is_empty() => problem("port", "is empty".to_owned()),
            _ => {}
        }
        if self.first_ordinal != 0 && !self.stateful_sets.is_empty() {
            problem("first_ordinal", "goes into the entries of statefulSets".to_owned());
        }
        for (index, set) in self.stateful_sets.iter().enumerate() {
            let key = |name: &str| format!("statefulSets[{index}].{name}");
            if !is_object_name(&set.name) {
                problem(&key("name"), format!("{:?} is no name of a Kubernetes object", set.name));
            }
            let Ports { first, last } = set.ports;
            if !listen.has(set.ports) {
                problem(&key("ports"), format!("{} are not all within listen {listen}", set.ports));
            }
            for (before, other) in self.stateful_sets.iter().enumerate().take(index) {
                if other.name == set.name {
                    problem(&key("name"), format!("{} is already that of statefulSets[{before}]", set.name));
                }
                if first <= other.ports.last && other.ports.first <= last {
                    problem(&key("ports"), format!("{} overlap {} of {}", set.ports, other.ports, other.name));
                }
            }
        }
        self.check_pins(listen, &mut problem);
        let snapshot_file = self.snapshot_file.as_ref().map(|path| base.join(path));
        if let Some(directory) = snapshot_file.as_deref().and_then(Path::parent)
            && !directory.as_os_str().is_empty()
            && !directory.is_dir()
        {
            problem("snapshot_file", format!("the directory {} does not exist", directory.display()));
        }
        (Self { snapshot_file, ..self.clone() }, wrong)
    }
}

/// RFC 1123 labels, as names of Services, namespaces and StatefulSets are.
pub(super) fn is_object_name(name: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
    let outer = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let bytes = name.as_bytes();
    bytes.len() <= 253 && bytes.iter().copied().all(inner) && outer(bytes.first()) && outer(bytes.last())
}
