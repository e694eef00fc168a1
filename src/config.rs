//! What the gateway was told to do. `File` (config/file.rs) is the YAML shape; [`Config`] is what is left when there is
//! nothing left to validate.

pub mod file;
pub mod kubernetes;
pub mod marked;
pub mod resolve;
pub mod text;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use file::File;
pub use marked::ConfigError;
pub use resolve::Resolved;

/// Everything the gateway needs to start.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub listen: Listen,
    pub advertise: Advertise,
    /// Where `/metrics`, `/livez`, `/readyz` and `/topology` are served.
    pub admin: SocketAddr,
    pub discovery: Discovery,
    pub views: Views,
    pub limits: Limits,
    pub timeouts: Timeouts,
    pub probe: Probe,
    pub client_tls: Option<ClientTls>,
    pub node_tls: Option<NodeTls>,
    pub drain: Drain,
    pub log: Log,
}

/// `listen: 0.0.0.0:9042-9061`. With `first == 0` (tests only) every port is chosen by the system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Listen {
    pub address: IpAddr,
    pub first: u16,
    pub last: u16,
}

impl Listen {
    /// How many ports there are.
    pub fn ports(&self) -> usize {
        usize::from(self.last.saturating_sub(self.first)) + 1
    }
}

/// What rows and events carry in place of a node's own address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Advertise {
    Addresses {
        ipv4: Option<std::net::Ipv4Addr>,
        ipv6: Option<std::net::Ipv6Addr>,
    },
    /// A DNS name, resolved and kept fresh.
    Name(String),
    /// What the status of this Service of type LoadBalancer, in the gateway's own namespace, says.
    Service(String),
}

/// Where nodes come from.
#[derive(Clone, Debug, PartialEq)]
pub enum Discovery {
    /// `nodes:`, a fixed list.
    Nodes(Vec<ListedNode>),
    /// `contact_points:`, ask a running cluster.
    ContactPoints(ContactPoints),
    /// `kubernetes:`, watch the pods behind a headless Service.
    Kubernetes(kubernetes::Kubernetes),
}

/// One entry of `nodes:`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedNode {
    pub name: String,
    /// `host:port`; a host that is a DNS name is resolved at start and again when a dial fails.
    pub address: HostPort,
    /// Given, or first + position in the list.
    pub port: u16,
}

/// A host (name or address, without brackets) and a port.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostPort {
    pub host: String,
    pub port: u16,
}

/// `contact_points:`.
#[derive(Clone, Debug, PartialEq)]
pub struct ContactPoints {
    pub addresses: Vec<HostPort>,
    /// Keeps host_id → port across restarts.
    pub state_file: Option<PathBuf>,
}

/// Which View a driver gets, by the DRIVER_NAME of its STARTUP.
#[derive(Clone, Debug, PartialEq)]
pub struct Views {
    /// For a DRIVER_NAME that no rule matches.
    pub default: ViewName,
    /// First match wins; the built-in families come after the user's own rules.
    pub rules: Vec<ViewRule>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ViewRule {
    /// Matches a DRIVER_NAME that contains it, ASCII case ignored.
    pub driver: String,
    pub view: ViewName,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ViewName {
    /// Each node is a port of the advertised address.
    NodePorts,
    /// The node behind the dialled port is all there is.
    SingleNode,
}

/// Every limit has a name, a number and a reason.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Open client connections in all.
    pub connections: usize,
    /// Open client connections of one node port.
    pub connections_per_node: usize,
    /// Longest frame body, in bytes; longer ones get the protocol's own error.
    pub frame: u32,
    /// Longest frame held whole because it must change, in bytes.
    pub held_frame: usize,
    /// All bytes held in the process.
    pub held_total: usize,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Timeouts {
    /// From accept to READY or AUTHENTICATE, dial included.
    pub setup: Duration,
    /// TCP (and TLS) connect to a node.
    pub dial: Duration,
    /// A half-closed and silent connection is closed after this.
    pub half_closed: Duration,
    /// How long a connection may wait for room in the hold budget.
    pub hold: Duration,
}

/// The gateway's own connection to each node.
#[derive(Clone, Debug, PartialEq)]
pub struct Probe {
    /// Between two OPTIONS.
    pub interval: Duration,
    /// Silence after which a node counts as dead.
    pub silence: Duration,
    pub credentials: Option<Credentials>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Credentials {
    pub username: String,
    pub password_file: PathBuf,
}

/// TLS that clients see.
#[derive(Clone, Debug, PartialEq)]
pub struct ClientTls {
    /// PEM: the certificate and its chain.
    pub certificate: PathBuf,
    /// PEM: PKCS#8, PKCS#1 or SEC1.
    pub key: PathBuf,
}

/// TLS towards the nodes.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeTls {
    /// PEM: the CAs that sign the nodes' certificates. Required unless `verify` is `Off`.
    pub ca: Option<PathBuf>,
    pub verify: Verify,
    /// The name that certificates must carry, for `Verify::Full`; the dialled host otherwise.
    pub server_name: Option<String>,
    /// The gateway's own certificate, where nodes require one.
    pub certificate: Option<PathBuf>,
    pub key: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verify {
    /// Chain and name.
    Full,
    /// Chain only.
    Ca,
    Off,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Drain {
    /// Not ready, still accepting.
    pub delay: Duration,
    /// Closing connections, staggered, is spread over this.
    pub spread: Duration,
    /// What is left so long after the delay is closed.
    pub deadline: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// A `tracing` filter: `info`, or `cqlgate::proxy=debug,info`.
    pub level: String,
    pub format: LogFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// Human on a terminal, JSON otherwise.
    Auto,
    Human,
    Json,
}

impl Config {
    /// Reads and checks a file; relative paths in it count from its directory.
    pub fn load(path: &Path) -> Result<Resolved, ConfigError> {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|error| ConfigError::plain(format!("{name}: {error}")))?;
        Self::parse(&name, &text, path.parent().unwrap_or(Path::new("")))
    }

    /// Reads and checks `text`; errors call it `name`, relative paths count from `base`.
    pub fn parse(name: &str, text: &str, base: &Path) -> Result<Resolved, ConfigError> {
        let file: File = serde_saphyr::from_str(text).map_err(|error| ConfigError::from_yaml(name, text, &error))?;
        file.resolve(base).map_err(|error| error.marked(name, text))
    }
}
