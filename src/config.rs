//! What the gateway was told to do. `File` (config/file.rs) is the YAML shape; [`Config`] is the same when there is nothing left
//! to validate: what clients dial and where nodes come from have become what they mean, paths count from the file.

pub mod advertise;
pub mod bounds;
mod checks;
pub mod difference;
pub mod entry;
pub mod environment;
pub mod file;
mod former;
pub mod identity;
pub mod kubernetes;
pub mod marked;
pub mod resolve;
pub mod text;
pub mod tls;
pub mod view_rules;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use advertise::External;
pub use bounds::{Drain, KeepOut, Limits, Logins, MemoryLimit, Reload, Stage, Stages, Timeouts};
pub use entry::{Access, PortAccess, ProxyMode, ProxyProtocol};
pub use environment::Overlay;
pub use file::{File, Log, Probe, Unserved, Views};
pub use marked::ConfigError;
pub use resolve::Resolved;
pub use tls::{AuthMode, ClientAuth, ClientTls, CrlExpired, Identity, NodeTls, PlainClients, Tls};
pub use view_rules::{ViewName, ViewRule};

/// Everything the gateway needs to start.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub listen: Listen,
    /// What clients are told to dial, by where they come from; the last one has no condition.
    pub paths: Vec<advertise::Path>,
    /// Where `/metrics`, `/livez`, `/readyz` and `/topology` are served.
    pub admin: SocketAddr,
    pub discovery: Discovery,
    /// `discovery.allow`: the only networks in which addresses that others tell of are dialled.
    pub allow: Option<Vec<text::Network>>,
    pub views: Views,
    pub unserved: Unserved,
    pub access: Access,
    pub proxy_protocol: ProxyProtocol,
    pub limits: Limits,
    pub timeouts: Timeouts,
    pub probe: Probe,
    pub logins: Logins,
    pub tls: Tls,
    pub drain: Drain,
    pub reload: Reload,
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
    /// Whether all of these are among its ports.
    pub fn has(&self, ports: text::Ports) -> bool {
        self.first <= ports.first && ports.last <= self.last
    }

    /// How many ports there are.
    pub fn ports(&self) -> usize {
        usize::from(self.last.saturating_sub(self.first)) + 1
    }
}

/// Where nodes come from.
#[derive(Clone, Debug, PartialEq)]
pub enum Discovery {
    /// `nodes:`, a fixed list.
    Nodes(Vec<ListedNode>),
    /// `contact_points:`, ask a running cluster.
    ContactPoints(ContactPoints),
    /// `dns:`, the SRV records of a headless Service: its name.
    Dns(String),
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

/// What becomes of the row of a node that this gateway does not serve.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    #[default]
    Hide,
    /// It passes as the node sent it, with the node's own addresses.
    Keep,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Credentials {
    pub username: String,
    pub password_file: PathBuf,
}

/// To whom the gateway's own password goes where no certificate was verified: over plain TCP, or with `tls.nodes.verify: off`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PlainPassword {
    /// To nodes that the file names, and to pods that their StatefulSet owns.
    Listed,
    /// To whatever is dialled.
    Always,
    /// To nobody.
    Never,
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

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// Human on a terminal, JSON otherwise.
    Auto,
    Human,
    Json,
}

impl Config {
    /// Whether clients are told what the status of a Service says.
    pub fn asks_kubernetes_of_addresses(&self) -> bool {
        let mut parts = self.paths.iter().flat_map(advertise::Path::parts);
        parts.any(|part| matches!(part.external, External::Service(_)))
    }

    /// Reads and checks a file; relative paths in it count from its directory.
    pub fn load(path: &Path) -> Result<Resolved, ConfigError> {
        Self::load_under(path, &Overlay::default())
    }

    /// The same with keys that are set beside it.
    pub fn load_under(path: &Path, overlay: &Overlay) -> Result<Resolved, ConfigError> {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|error| ConfigError::plain(format!("{name}: {error}")))?;
        Self::read(&name, &text, path.parent().unwrap_or(Path::new("")), overlay)
    }

    /// Reads and checks `text`; errors call it `name`, relative paths count from `base`.
    pub fn parse(name: &str, text: &str, base: &Path) -> Result<Resolved, ConfigError> {
        Self::read(name, text, base, &Overlay::default())
    }

    /// The same with keys that are set beside it.
    pub fn read(name: &str, text: &str, base: &Path, overlay: &Overlay) -> Result<Resolved, ConfigError> {
        Self::read_with(former::FORMER, name, text, base, overlay)
    }

    fn read_with(
        former: &[former::Former],
        name: &str,
        text: &str,
        base: &Path,
        overlay: &Overlay,
    ) -> Result<Resolved, ConfigError> {
        let (living, mut warnings) = former::without(former, name, text);
        let alone = serde_saphyr::from_str(&living);
        let file: File = if overlay.is_empty() {
            alone.map_err(|error| ConfigError::from_yaml(name, text, &error))?
        } else {
            // What is wrong in the file itself is said of its line; what it lacks may be set beside it.
            if let Err(error) = alone
                && !living.trim().is_empty()
                && !matches!(error.without_snippet(), serde_saphyr::Error::SerdeMissingField { .. })
            {
                return Err(ConfigError::from_yaml(name, text, &error));
            }
            let laid = overlay.lay_over(&living)?;
            let wrong = |error| overlay.blame(ConfigError::from_yaml(name, &laid, &error).marked(name, text));
            serde_saphyr::from_str(&laid).map_err(wrong)?
        };
        let mut resolved = file.resolve(base).map_err(|error| overlay.blame(error.marked(name, text)).naming(name))?;
        warnings.append(&mut resolved.warnings);
        Ok(Resolved { warnings, ..resolved })
    }
}
