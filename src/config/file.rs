//! The YAML shape. Unknown keys are refused at every level; what is absent has the default written here, nowhere else.
//!
//! A `File` says only that the words are right. What they mean together is checked by [`File::resolve`].

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::de;
use serde::{Deserialize, Deserializer, Serialize};

pub use super::advertise::{Advertise, Entry, Families, LoadBalancer, PathRule, ProxyMatch};
use super::bounds::{Drain, Limits, Logins, Reload, Timeouts};
use super::entry::{Access, ProxyProtocol};
use super::kubernetes::Kubernetes;
use super::text::{Network, Time, time};
use super::tls::Tls;
use super::{Credentials, Fate, HostPort, Listen, LogFormat, PlainPassword, ViewName, ViewRule};

/// The configuration of cqlgate.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// One address and a range of ports; each node of the cluster gets one of them.
    #[serde(default = "File::listen")]
    pub listen: Listen,
    /// What clients dial in place of the nodes' own addresses: an IP address, a DNS name, both families, what the status of the
    /// gateway's own Service says, or a list of entries, each for a part of the ports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advertise: Option<Advertise>,
    /// In place of advertise, where that depends on where a client comes from: the first path that fits counts, and the last has no
    /// condition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paths: Option<Vec<PathRule>>,
    /// Where /metrics, /livez, /readyz, /topology and /log-level are served: an IP address and a port.
    #[serde(default = "File::admin")]
    pub admin: std::net::SocketAddr,
    /// Where nodes come from: exactly one of the ways.
    pub discovery: Discovery,
    #[serde(default)]
    pub views: Views,
    #[serde(default)]
    pub unserved: Unserved,
    #[serde(default)]
    pub access: Access,
    #[serde(default)]
    pub proxy_protocol: ProxyProtocol,
    #[serde(default)]
    pub limits: Limits,
    #[serde(default)]
    pub timeouts: Timeouts,
    #[serde(default)]
    pub logins: Logins,
    #[serde(default)]
    pub probe: Probe,
    #[serde(default)]
    pub tls: Tls,
    #[serde(default)]
    pub drain: Drain,
    #[serde(default)]
    pub reload: Reload,
    #[serde(default)]
    pub log: Log,
}

impl File {
    /// `0.0.0.0:9042-9061`.
    pub fn listen() -> Listen {
        Listen { address: Ipv4Addr::UNSPECIFIED.into(), first: 9042, last: 9061 }
    }

    /// `127.0.0.1:9180`.
    pub fn admin() -> std::net::SocketAddr {
        (Ipv4Addr::LOCALHOST, 9180).into()
    }

    /// Everything by default but what has none.
    pub fn new(advertise: Advertise, discovery: Discovery) -> Self {
        Self {
            listen: Self::listen(),
            advertise: Some(advertise),
            paths: None,
            admin: Self::admin(),
            discovery,
            views: Views::default(),
            unserved: Unserved::default(),
            access: Access::default(),
            proxy_protocol: ProxyProtocol::default(),
            limits: Limits::default(),
            timeouts: Timeouts::default(),
            logins: Logins::default(),
            probe: Probe::default(),
            tls: Tls::default(),
            drain: Drain::default(),
            reload: Reload::default(),
            log: Log::default(),
        }
    }
}

/// Exactly one of `nodes`, `contact_points`, `dns` and `kubernetes`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Discovery {
    /// A fixed list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<Vec<ListedNode>>,
    /// Ask a running cluster: some of its nodes, as host:port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contact_points: Option<Vec<HostPort>>,
    /// With contact_points: keeps each node's port across restarts of the gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state_file: Option<PathBuf>,
    /// Look up the SRV records of a StatefulSet's headless Service, such as cassandra.db.svc.cluster.local.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns: Option<String>,
    /// With contact_points, dns and kubernetes: the only networks in which nodes are dialled, beside what the file names. When absent
    /// every address but loopback and link-local ones, unless contact points are there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow: Option<Vec<Network>>,
    /// Watch the pods behind a headless Service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kubernetes: Option<Kubernetes>,
}

/// One node of a fixed list.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListedNode {
    /// By what the port is kept, also when the address changes.
    pub name: String,
    /// Where the gateway dials the node.
    pub address: HostPort,
    /// A port of `listen`; first port + position in the list when absent.
    #[serde(default, deserialize_with = "port", skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

/// A port, or the number that is none: serde alone would say "invalid u16".
fn port<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u16>, D::Error> {
    let Some(number) = Option::<i64>::deserialize(deserializer)? else { return Ok(None) };
    let port = u16::try_from(number).map_err(|_| de::Error::custom(format!("{number} is no port from 1 to 65535")))?;
    Ok(Some(port))
}

/// How the cluster is presented to which driver.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Views {
    /// For a driver that no rule, and no rule built in, matches.
    pub default: ViewName,
    /// The first match wins; the rules built in come after these.
    pub rules: Vec<ViewRule>,
    /// Where a driver sees one node for many: how long it waits at most for the answer to a change of the schema, until all nodes that
    /// are up have it; 0s: not at all. Where nodes ask for a login the gateway needs one of its own (probe.username) to ask them, and
    /// without one nobody waits.
    #[serde(with = "time")]
    #[schemars(with = "Time")]
    pub schema_agreement: Duration,
}

impl Default for Views {
    fn default() -> Self {
        Self { default: ViewName::NodePorts, rules: Vec::new(), schema_agreement: Duration::from_secs(5) }
    }
}

/// Rows and events of nodes that this gateway does not serve. Keep is for clients that can reach the nodes' own addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Unserved {
    /// Nodes of data centers of which no node is served.
    pub remote: Fate,
    /// Rows of a data center that is served, of nodes that discovery does not know.
    pub ghosts: Fate,
}

/// The gateway's own connection to each node.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Probe {
    /// Between two OPTIONS.
    #[serde(with = "time")]
    #[schemars(with = "Time")]
    pub interval: Duration,
    /// Silence after which a node counts as dead.
    #[serde(with = "time")]
    #[schemars(with = "Time")]
    pub silence: Duration,
    /// With a username the gateway logs in; it needs no permission beyond LOGIN.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// The password, alone in a file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
    /// Who is sent the password where no certificate says who it is: listed, only nodes that the file names or a StatefulSet owns.
    pub plain_password: PlainPassword,
}

impl Default for Probe {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(2),
            silence: Duration::from_secs(10),
            username: None,
            password_file: None,
            plain_password: PlainPassword::Listed,
        }
    }
}

impl Probe {
    /// What the gateway logs in with.
    pub fn credentials(&self) -> Option<Credentials> {
        let (username, password_file) = (self.username.clone()?, self.password_file.clone()?);
        Some(Credentials { username, password_file })
    }
}

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// A level, or levels by module: info, or cqlgate::proxy=debug,info.
    pub level: String,
    /// auto: human on a terminal, JSON otherwise.
    pub format: LogFormat,
}

impl Default for Log {
    fn default() -> Self {
        Self { level: "info".to_owned(), format: LogFormat::Auto }
    }
}

/// The JSON schema of [`File`], as text that ends with a line break.
pub fn schema() -> String {
    let schema = schemars::schema_for!(File);
    format!("{:#}\n", schema.to_value())
}
