//! The real gateway in front of simulated nodes, all in the test's process, on loopback addresses of their own.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use cqlgate::config::{Config, Log, LogFormat};
use cqlgate::demo::node::{Cluster, Options};
use cqlgate::gateway::reload::Taken;
use cqlgate::gateway::{self, Running};
use cqlgate::metrics::Metrics;
use cqlgate::telemetry::{self, LogLevel};
use cqlgate::topology::{NodeState, Topology};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::client::PATIENCE;

pub struct Gate {
    pub cluster: Cluster,
    pub running: Running,
    pub metrics: Arc<Metrics>,
}

impl Gate {
    /// Three nodes, each with a port; all are up when it returns.
    pub async fn start() -> Self {
        Self::start_with(Options::loopback(3, 0), "").await
    }

    /// The same, found by asking the first of them.
    pub async fn start_by_contact_point() -> Self {
        let cluster = Cluster::start(Options::loopback(3, 0)).await.unwrap();
        let discovery = format!("  contact_points: [\"{}\"]\n", cluster.node(0).address());
        Self::before(cluster, 3, &discovery, "", 3, |_| {}).await
    }

    /// Listed nodes; `yaml`: further keys of the configuration.
    pub async fn start_with(options: Options, yaml: &str) -> Self {
        let count = options.addresses.len();
        Self::start_listed(options, |_| true, yaml, count).await
    }

    /// The same where no node will be up.
    pub async fn start_in_vain(options: Options, yaml: &str) -> Self {
        Self::start_listed(options, |_| true, yaml, 0).await
    }

    /// Listed nodes, and what no key of the file says.
    pub async fn start_changed(options: Options, yaml: &str, change: impl FnOnce(&mut Config)) -> Self {
        let cluster = Cluster::start(options).await.unwrap();
        let (discovery, count) = listed(&cluster, |_| true);
        Self::before(cluster, count, &discovery, yaml, count, change).await
    }

    /// Nodes that are listed but for one, which has no port.
    pub async fn start_without(unlisted: usize, options: Options, yaml: &str) -> Self {
        let count = options.addresses.len() - 1;
        Self::start_listed(options, |index| index != unlisted, yaml, count).await
    }

    async fn start_listed(options: Options, is_listed: impl Fn(usize) -> bool, yaml: &str, up: usize) -> Self {
        let cluster = Cluster::start(options).await.unwrap();
        let (discovery, count) = listed(&cluster, is_listed);
        Self::before(cluster, count, &discovery, yaml, up, |_| {}).await
    }

    /// The gateway in front of `cluster`, of which `count` nodes get a port and `up` are waited for.
    async fn before(
        cluster: Cluster,
        count: usize,
        discovery: &str,
        yaml: &str,
        up: usize,
        change: impl FnOnce(&mut Config),
    ) -> Self {
        let (running, metrics) = run(count, discovery, yaml, change).await;
        let gate = Self { cluster, running, metrics };
        gate.until(|topology| topology.nodes.iter().filter(|node| node.state == NodeState::Up).count() == up).await;
        gate
    }

    /// One more gateway in front of the same listed nodes.
    pub async fn beside(cluster: &Cluster, yaml: &str) -> (Running, Arc<Metrics>) {
        let (discovery, count) = listed(cluster, |_| true);
        run(count, &discovery, yaml, |_| {}).await
    }

    /// The configuration of the same listed nodes, but for those that `is_listed` leaves out, with other keys.
    pub fn config(&self, is_listed: impl Fn(usize) -> bool, yaml: &str) -> Config {
        parse(&listed(&self.cluster, is_listed).0, yaml)
    }

    /// Goes by it from now on.
    pub async fn reload(&self, config: &Config) -> Taken {
        self.running.reloads().take(config).await.unwrap()
    }

    /// The port that stands for a node.
    pub fn port(&self, index: usize) -> SocketAddr {
        let native = self.cluster.node(index).address();
        let topology = self.running.topology.borrow();
        let node = topology.nodes.iter().find(|node| node.address == native).unwrap();
        SocketAddr::from(([127, 0, 0, 1], node.port))
    }

    /// Waits until what clients are told is so.
    pub async fn until(&self, mut is: impl FnMut(&Topology) -> bool) {
        let mut topology = self.running.topology.clone();
        timeout(PATIENCE, topology.wait_for(|topology| is(topology))).await.unwrap().unwrap();
    }

    /// What the admin address answers: status and body.
    pub async fn get(&self, path: &str) -> (u16, String) {
        get(self.running.admin, path).await
    }

    /// Waits until the admin address answers so; `part` is in the body.
    pub async fn until_said(&self, path: &str, status: u16, part: &str) {
        let mut last = None;
        let said = async {
            loop {
                let (now, body) = self.get(path).await;
                if now == status && body.contains(part) {
                    return;
                }
                last = Some((now, body));
                tokio::task::yield_now().await;
            }
        };
        let said = timeout(PATIENCE, said).await;
        said.unwrap_or_else(|_| panic!("{path} never was {status} with {part}: {last:?}"));
    }

    /// Waits until the series, a line of `/metrics` without its value, has counted to `least`.
    pub async fn until_counted(&self, series: &str, least: u64) {
        let counted = || {
            let text = self.metrics.render().unwrap();
            let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
            line.map_or(0, |value| value.parse::<u64>().unwrap())
        };
        let so = async {
            while counted() < least {
                tokio::task::yield_now().await;
            }
        };
        let so = timeout(PATIENCE, so).await;
        so.unwrap_or_else(|_| panic!("{series} is {}, not {least}", counted()));
    }

    /// Waits until the gateway has seen for itself that the node is so. Its look and the nodes' word come apart: who starts a node
    /// again whose end was only told of may be told of that end afterwards.
    pub async fn until_state(&self, index: usize, state: NodeState) {
        let port = self.port(index).port();
        self.until(|topology| topology.node_at_port(port).unwrap().state == state).await;
    }

    pub fn state(&self, index: usize) -> NodeState {
        let topology = self.running.topology.borrow();
        topology.node_at_port(self.port(index).port()).unwrap().state
    }
}

/// A gateway of which `count` nodes get a port.
async fn run(count: usize, discovery: &str, yaml: &str, change: impl FnOnce(&mut Config)) -> (Running, Arc<Metrics>) {
    let mut config = parse(discovery, yaml);
    // Ports of the system's choice: the file has no word for them.
    config.listen.address = [127, 0, 0, 1].into();
    (config.listen.first, config.listen.last) = (0, u16::try_from(count - 1).unwrap());
    config.admin = ([127, 0, 0, 1], 0).into();
    change(&mut config);
    let metrics = Metrics::new();
    (gateway::start(config, Arc::clone(&metrics), log_level()).await.unwrap(), metrics)
}

fn parse(discovery: &str, yaml: &str) -> Config {
    let of_probe = if yaml.contains("probe:") { "" } else { "probe: {interval: 100ms, silence: 2s}\n" };
    let advertise = if yaml.contains("advertise:") { "" } else { "advertise: 127.0.0.1\n" };
    let text = format!("{advertise}{of_probe}discovery:\n{discovery}{yaml}");
    Config::parse("test", &text, Path::new("")).unwrap_or_else(|error| panic!("{text}{error}")).config
}

/// `nodes:` of the configuration, and how many there are.
fn listed(cluster: &Cluster, is_listed: impl Fn(usize) -> bool) -> (String, usize) {
    let (mut discovery, mut count) = ("  nodes:\n".to_owned(), 0);
    for (index, node) in cluster.nodes().iter().enumerate().filter(|(index, _)| is_listed(*index)) {
        discovery += &format!("    - {{name: node-{index}, address: \"{}\"}}\n", node.address());
        count += 1;
    }
    (discovery, count)
}

/// One request to an admin address: status and body.
pub async fn get(admin: SocketAddr, path: &str) -> (u16, String) {
    ask(admin, path).await.unwrap()
}

/// The same where there may be nobody to answer.
pub async fn ask(admin: SocketAddr, path: &str) -> io::Result<(u16, String)> {
    request(admin, "GET", path).await
}

/// The same with another method, and nothing as the body.
pub async fn request(admin: SocketAddr, method: &str, path: &str) -> io::Result<(u16, String)> {
    let request = format!("{method} {path} HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\r\n");
    let mut answer = String::new();
    let asked = async {
        let mut stream = TcpStream::connect(admin).await?;
        stream.write_all(request.as_bytes()).await?;
        stream.read_to_string(&mut answer).await
    };
    timeout(PATIENCE, asked).await??;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
    Ok((head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned()))
}

/// Logs are the process's: set up once, quiet.
pub fn log_level() -> LogLevel {
    static LEVEL: OnceLock<LogLevel> = OnceLock::new();
    let log = Log { level: "off".to_owned(), format: LogFormat::Human };
    LEVEL.get_or_init(|| telemetry::init(&log).unwrap()).clone()
}
