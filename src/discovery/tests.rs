//! Discovery against scripted nodes: what the topology says, by a deadline.

mod changes;
mod contact_points;
mod dns;
mod fake_api;
mod fixed;
mod kubernetes;
pub mod node;
mod plain_password;
mod services;

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use tokio::time::{interval, timeout};

use super::*;
use crate::topology::{Node, NodeState};

/// Long enough for a machine that does much else.
const DEADLINE: Duration = Duration::from_secs(20);

/// A gateway's discovery, and what it says.
struct Running {
    handle: Handle,
    metrics: Arc<Metrics>,
    readiness: Readiness,
}

/// Discovery by a configuration of which only `discovery:` and `probe:` matter.
fn start(discovery: &str) -> Running {
    start_with(&config(discovery))
}

fn config(discovery: &str) -> Config {
    let text = format!("listen: 127.0.0.1:9042-9051\nadvertise: 203.0.113.10\n{discovery}");
    Config::parse("test.yaml", &text, Path::new("/")).unwrap_or_else(|error| panic!("{text}\n{error}")).config
}

fn start_with(config: &Config) -> Running {
    start_by(Names::system(), config)
}

fn start_by(names: Names, config: &Config) -> Running {
    start_in(None, names, config)
}

fn start_in(cluster: Option<Cluster>, names: Names, config: &Config) -> Running {
    let (metrics, readiness) = (Metrics::new(), Readiness::new());
    let node_tls = config.tls.nodes.as_ref().map(|tls| NodeConnector::from_config(tls).unwrap());
    let ports = PortRange::new(config.listen.first.into(), config.listen.last.into()).unwrap();
    let handle = spawn_with(names, cluster, config, ports, Arc::clone(&metrics), node_tls, &readiness).unwrap();
    assert!(!readiness.is_ready());
    Running { handle, metrics, readiness }
}

impl Running {
    /// Waits until the topology is as wanted.
    async fn until(&mut self, what: &str, wanted: impl Fn(&Topology) -> bool) -> Arc<Topology> {
        let found = timeout(DEADLINE, self.handle.topology.wait_for(|topology| wanted(topology))).await;
        let found = found.map(|found| Arc::clone(&found.unwrap()));
        found.unwrap_or_else(|_| panic!("not within {DEADLINE:?}: {what}; {:#?}", self.handle.topology.borrow()))
    }

    async fn until_state(&mut self, port: u16, state: NodeState) -> Arc<Node> {
        let wanted = |topology: &Topology| topology.node_at_port(port).is_some_and(|node| node.state == state);
        let topology = self.until(&format!("{port} {state:?}"), wanted).await;
        Arc::clone(topology.node_at_port(port).unwrap())
    }

    async fn until_metric(&self, line: &str) {
        let shown = || self.metrics.render().unwrap();
        until(|| shown().contains(line), || format!("{line}: {}", shown())).await;
    }

    async fn until_ready(&self) {
        until(|| self.readiness.is_ready(), || format!("{:?}", self.readiness.pending_names())).await;
    }

    /// Waits until `/readyz` would say just this.
    async fn until_pending(&self, names: &[&str]) {
        let said = || self.readiness.pending_names();
        let so = || said().iter().map(|name| &**name).eq(names.iter().copied());
        until(so, || format!("{names:?}: {:?}", said())).await;
    }

    fn node(&self, port: u16) -> Arc<Node> {
        Arc::clone(self.handle.topology.borrow().node_at_port(port).unwrap())
    }
}

/// Waits for what tells nobody when it changes, by looking often; what was there instead is said at the deadline.
async fn until(is: impl Fn() -> bool, instead: impl Fn() -> String) {
    let mut looks = interval(Duration::from_millis(5));
    let so = async {
        while !is() {
            looks.tick().await;
        }
    };
    timeout(DEADLINE, so).await.unwrap_or_else(|_| panic!("{}", instead()));
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}
