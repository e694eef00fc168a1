//! From [`File`] to [`Config`]: whether the words mean something together. Every problem is found at once and names its
//! key and the numbers; nothing is left to validate afterwards.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::file::{self, File};
use super::marked::{ConfigError, Problem};
use super::text::{Time, is_name};
use super::{Config, ContactPoints, Discovery, External, ListedNode, PlainPassword, Probe, advertise};

/// A configuration with nothing left to validate, and what is odd about it.
#[derive(Clone, Debug)]
pub struct Resolved {
    pub config: Config,
    /// For the log: allowed, but seldom meant.
    pub warnings: Vec<String>,
}

#[derive(Default)]
pub(super) struct Findings {
    problems: Vec<Problem>,
    pub(super) warnings: Vec<String>,
}

impl Findings {
    pub(super) fn problem(&mut self, key: impl Into<String>, what: impl Into<String>) {
        self.problems.push(Problem { key: key.into(), what: what.into(), place: None });
    }

    pub(super) fn file(&mut self, key: &str, base: &Path, path: &Path) -> PathBuf {
        let path = base.join(path);
        match std::fs::metadata(&path) {
            Ok(found) if found.is_file() => {}
            Ok(_) => self.problem(key, format!("{} is no file", path.display())),
            Err(error) => self.problem(key, format!("{}: {error}", path.display())),
        }
        path
    }
}

impl File {
    /// Checks and completes; relative paths count from `base`, the directory of the file.
    pub fn resolve(&self, base: &Path) -> Result<Resolved, ConfigError> {
        let mut findings = Findings::default();
        let found = &mut findings;
        let paths = advertise::resolve::paths(self.advertise.as_ref(), self.paths.as_deref(), self.listen, found);
        let discovery = self.resolve_discovery(found, base);
        self.check_admin(found);
        self.check_views(found);
        self.check_entry(found);
        self.check_limits(found);
        self.check_timeouts(found);
        self.check_log(found);
        let config = Config {
            listen: self.listen,
            paths,
            admin: self.admin,
            discovery,
            allow: self.discovery.allow.clone(),
            views: self.views.clone(),
            unserved: self.unserved,
            access: self.access.clone(),
            proxy_protocol: self.proxy_protocol.clone(),
            limits: self.limits.clone(),
            timeouts: self.timeouts.clone(),
            logins: self.logins.clone(),
            probe: self.resolve_probe(found, base),
            tls: self.tls.resolve(found, base),
            drain: self.drain.clone(),
            reload: self.reload.clone(),
            log: self.log.clone(),
        };
        let Findings { problems, warnings } = findings;
        if problems.is_empty() { Ok(Resolved { config, warnings }) } else { Err(ConfigError { problems }) }
    }

    fn resolve_discovery(&self, found: &mut Findings, base: &Path) -> Discovery {
        let discovery = &self.discovery;
        if discovery.state_file.is_some() && discovery.kubernetes.is_some() {
            found.problem("discovery.state_file", "goes with contact_points; kubernetes has snapshot_file");
        }
        match &discovery.allow {
            Some(_) if discovery.nodes.is_some() => {
                found.problem(
                    "discovery.allow",
                    "goes with contact_points, dns and kubernetes; listed nodes are dialled as listed",
                );
            }
            Some(networks) if networks.is_empty() => {
                found.problem("discovery.allow", "is empty: nothing could be dialled");
            }
            _ => {}
        }
        match (&discovery.nodes, &discovery.contact_points, &discovery.dns, &discovery.kubernetes) {
            (Some(nodes), None, None, None) => {
                if discovery.state_file.is_some() {
                    found.problem(
                        "discovery.state_file",
                        "goes with contact_points; listed nodes keep their ports without it",
                    );
                }
                Discovery::Nodes(self.resolve_nodes(nodes, found))
            }
            (None, Some(points), None, None) => {
                if points.is_empty() {
                    found.problem("discovery.contact_points", "is empty: give at least one node of the cluster");
                }
                let state_file = discovery.state_file.as_ref().map(|path| base.join(path));
                if let Some(path) = &state_file {
                    let directory = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
                    if !directory.is_dir() {
                        let what = format!("{}: the directory {} does not exist", path.display(), directory.display());
                        found.problem("discovery.state_file", what);
                    }
                } else {
                    found.warnings.push(
                        "discovery.state_file is absent: nodes may get other ports when the gateway starts again"
                            .to_owned(),
                    );
                }
                Discovery::ContactPoints(ContactPoints { addresses: points.clone(), state_file })
            }
            (None, None, Some(name), None) => {
                if discovery.state_file.is_some() {
                    found.problem(
                        "discovery.state_file",
                        "goes with contact_points; with dns a port follows from its ordinal",
                    );
                }
                let name = name.trim_end_matches('.');
                if !is_name(name) || name.parse::<IpAddr>().is_ok() {
                    found.problem("discovery.dns", format!("{name:?} is no DNS name of a headless Service"));
                }
                Discovery::Dns(name.to_owned())
            }
            (None, None, None, Some(kubernetes)) => {
                let (resolved, wrong) = kubernetes.resolve(self.listen, base);
                for (key, what) in wrong {
                    found.problem(key, what);
                }
                Discovery::Kubernetes(resolved)
            }
            (None, None, None, None) => {
                found.problem("discovery", "needs nodes, contact_points, dns or kubernetes");
                Discovery::Nodes(Vec::new())
            }
            _ => {
                found.problem("discovery", "nodes, contact_points, dns and kubernetes exclude each other");
                Discovery::Nodes(Vec::new())
            }
        }
    }

    fn resolve_nodes(&self, nodes: &[file::ListedNode], found: &mut Findings) -> Vec<ListedNode> {
        let (listen, ports) = (self.listen, self.listen.ports());
        if nodes.is_empty() {
            found.problem("discovery.nodes", "is empty: list at least one node");
        }
        if nodes.len() > ports {
            let plural = if ports == 1 { "" } else { "s" };
            let what = format!("{} nodes, but listen {listen} has {ports} port{plural}", nodes.len());
            found.problem("discovery.nodes", what);
            return Vec::new();
        }
        let (mut names, mut by_port, mut addresses) = (HashMap::new(), HashMap::new(), HashMap::new());
        let mut listed = Vec::with_capacity(nodes.len());
        for (index, node) in nodes.iter().enumerate() {
            let key = format!("discovery.nodes[{index}]");
            let position = u16::try_from(index).unwrap_or(u16::MAX);
            let port = node.port.unwrap_or(listen.first.saturating_add(position));
            if node.name.is_empty() {
                found.problem(format!("{key}.name"), "is empty");
            }
            if !(listen.first..=listen.last).contains(&port) {
                found.problem(format!("{key}.port"), format!("{port} is outside listen {listen}"));
            }
            taken(&mut names, node.name.clone(), index, &format!("{key}.name"), found);
            taken(&mut by_port, port, index, &format!("{key}.port"), found);
            taken(&mut addresses, node.address.clone(), index, &format!("{key}.address"), found);
            listed.push(ListedNode { name: node.name.clone(), address: node.address.clone(), port });
        }
        listed
    }

    fn resolve_probe(&self, found: &mut Findings, base: &Path) -> Probe {
        let mut probe = self.probe.clone();
        if probe.interval == Duration::ZERO {
            found.problem("probe.interval", "0s leaves no time");
        }
        if probe.silence < probe.interval {
            let (silence, interval) = (Time(probe.silence), Time(probe.interval));
            found.problem("probe.silence", format!("{silence} is shorter than probe.interval, {interval}"));
        }
        match (&probe.username, &mut probe.password_file) {
            (Some(_), Some(file)) => *file = found.file("probe.password_file", base, file),
            (None, None) => {}
            (Some(_), None) => found.problem("probe.username", "needs probe.password_file"),
            (None, Some(_)) => found.problem("probe.password_file", "needs probe.username"),
        }
        self.warn_of_plain_password(&probe, found);
        probe
    }
}

impl File {
    /// Where there is a login that is sent to nobody.
    fn warn_of_plain_password(&self, probe: &Probe, found: &mut Findings) {
        let unwatched = self.discovery.kubernetes.as_ref().is_some_and(|kubernetes| !kubernetes.watch_pods);
        let why = match probe.plain_password {
            _ if self.tls.verifies_nodes() || probe.username.is_none() => return,
            PlainPassword::Never => "never",
            PlainPassword::Listed if unwatched => {
                "listed, and without discovery.kubernetes.watch_pods no pod is known to be a StatefulSet's"
            }
            _ => return,
        };
        found.warnings.push(format!(
            "probe.username logs in nowhere: no certificate of a node is verified, and probe.plain_password is {why}"
        ));
    }
}

/// A problem where `value` is already that of another entry.
fn taken<T: std::hash::Hash + Eq + std::fmt::Display>(
    seen: &mut HashMap<T, usize>,
    value: T,
    index: usize,
    key: &str,
    found: &mut Findings,
) {
    match seen.entry(value) {
        Entry::Occupied(first) => {
            found.problem(key, format!("{} is already that of discovery.nodes[{}]", first.key(), first.get()));
        }
        Entry::Vacant(place) => {
            place.insert(index);
        }
    }
}

impl From<&Config> for File {
    /// The file that says the same, with every default written out.
    fn from(config: &Config) -> Self {
        let (advertise, paths) = advertise::resolve::words(&config.paths);
        let discovery = match &config.discovery {
            Discovery::Nodes(nodes) => file::Discovery {
                nodes: Some(nodes.iter().map(file::ListedNode::from).collect()),
                ..file::Discovery::default()
            },
            Discovery::ContactPoints(points) => file::Discovery {
                contact_points: Some(points.addresses.clone()),
                state_file: points.state_file.clone(),
                ..file::Discovery::default()
            },
            Discovery::Dns(name) => file::Discovery { dns: Some(name.clone()), ..file::Discovery::default() },
            Discovery::Kubernetes(kubernetes) => {
                file::Discovery { kubernetes: Some(kubernetes.clone()), ..file::Discovery::default() }
            }
        };
        Self {
            listen: config.listen,
            advertise,
            paths,
            admin: config.admin,
            discovery: file::Discovery { allow: config.allow.clone(), ..discovery },
            views: config.views.clone(),
            unserved: config.unserved,
            access: config.access.clone(),
            proxy_protocol: config.proxy_protocol.clone(),
            limits: config.limits.clone(),
            timeouts: config.timeouts.clone(),
            logins: config.logins.clone(),
            probe: config.probe.clone(),
            tls: config.tls.clone(),
            drain: config.drain.clone(),
            reload: config.reload.clone(),
            log: config.log.clone(),
        }
    }
}

impl From<&ListedNode> for file::ListedNode {
    fn from(node: &ListedNode) -> Self {
        Self { name: node.name.clone(), address: node.address.clone(), port: Some(node.port) }
    }
}

impl Config {
    /// Everything by default but what has none. For the demo and for tests: nothing is checked.
    pub fn new(listen: super::Listen, external: External, admin: SocketAddr, discovery: Discovery) -> Self {
        let File {
            views,
            unserved,
            access,
            proxy_protocol,
            limits,
            timeouts,
            logins,
            probe,
            tls,
            drain,
            reload,
            log,
            ..
        } = File::new(file::Advertise::Text("localhost".to_owned()), file::Discovery::default());
        Self {
            listen,
            paths: advertise::Path::everywhere(external),
            admin,
            discovery,
            allow: None,
            views,
            unserved,
            access,
            proxy_protocol,
            limits,
            timeouts,
            logins,
            probe,
            tls,
            drain,
            reload,
            log,
        }
    }
}
