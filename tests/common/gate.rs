//! The real gateway in front of simulated nodes, all in the test's process, on loopback addresses of their own.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use cqlgate::config::{Config, Log, LogFormat};
use cqlgate::demo::node::{Cluster, Options};
use cqlgate::gateway::{self, Running};
use cqlgate::metrics::Metrics;
use cqlgate::telemetry::{self, LogLevel};
use cqlgate::topology::{NodeState, Topology};
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
        Self::before(cluster, 3, &discovery, "").await
    }

    /// Listed nodes; `yaml`: further keys of the configuration.
    pub async fn start_with(options: Options, yaml: &str) -> Self {
        Self::start_listed(options, |_| true, yaml).await
    }

    /// Nodes that are listed but for one, which has no port.
    pub async fn start_without(unlisted: usize, options: Options) -> Self {
        Self::start_listed(options, |index| index != unlisted, "").await
    }

    async fn start_listed(options: Options, is_listed: impl Fn(usize) -> bool, yaml: &str) -> Self {
        let cluster = Cluster::start(options).await.unwrap();
        let (mut discovery, mut count) = ("  nodes:\n".to_owned(), 0);
        for (index, node) in cluster.nodes().iter().enumerate().filter(|(index, _)| is_listed(*index)) {
            discovery += &format!("    - {{name: node-{index}, address: \"{}\"}}\n", node.address());
            count += 1;
        }
        Self::before(cluster, count, &discovery, yaml).await
    }

    /// The gateway in front of `cluster`, of which `count` nodes get a port.
    async fn before(cluster: Cluster, count: usize, discovery: &str, yaml: &str) -> Self {
        let text =
            format!("advertise: 127.0.0.1\nprobe: {{interval: 100ms, silence: 2s}}\ndiscovery:\n{discovery}{yaml}");
        let mut config = Config::parse("test", &text, Path::new("")).unwrap().config;
        // Ports of the system's choice: the file has no word for them.
        config.listen.address = [127, 0, 0, 1].into();
        (config.listen.first, config.listen.last) = (0, u16::try_from(count - 1).unwrap());
        config.admin = ([127, 0, 0, 1], 0).into();
        let metrics = Metrics::new();
        let running = gateway::start(config, Arc::clone(&metrics), log_level()).await.unwrap();
        let gate = Self { cluster, running, metrics };
        gate.until(|topology| topology.nodes.iter().filter(|node| node.state == NodeState::Up).count() == count).await;
        gate
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

    pub fn state(&self, index: usize) -> NodeState {
        let topology = self.running.topology.borrow();
        topology.node_at_port(self.port(index).port()).unwrap().state
    }
}

/// Logs are the process's: set up once, quiet.
fn log_level() -> LogLevel {
    static LEVEL: OnceLock<LogLevel> = OnceLock::new();
    let log = Log { level: "off".to_owned(), format: LogFormat::Human };
    LEVEL.get_or_init(|| telemetry::init(&log).unwrap()).clone()
}
