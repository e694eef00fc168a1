//! `cqlgate demo`: three simulated nodes and the gateway in one process, to look at with cqlsh and any driver.
//!
//! The gateway is the real one, with a real configuration; only the nodes are simulated ([`node`]). What the nodes see is
//! printed while it happens, under the gateway's port that leads to them (`show`).

pub mod node;

mod answer;
mod cluster;
mod connection;
mod fault;
mod request;
mod run;
mod schema;
mod shared;
mod show;
mod statement;
mod table;
mod wire;

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::time::timeout;

use crate::config::file::{Advertise, Discovery, File, ListedNode};

use crate::config::{Drain, HostPort, Listen, Log, LogFormat};
use crate::gateway;
use crate::metrics::Metrics;
use crate::shutdown::{Phase, Shutdown};
use crate::telemetry;
use crate::topology::NodeState;

/// Simulated nodes.
const NODES: u8 = 3;
/// The nodes are in this process: if the gateway has not found them by then, it will not.
const READY: Duration = Duration::from_secs(10);

/// What `cqlgate demo` is told.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// At least three ports.
    pub listen: Listen,
    pub admin: SocketAddr,
    /// What clients are told to dial; the address of `listen` when absent.
    pub advertise: Option<IpAddr>,
}

/// Runs until a signal.
///
/// # Errors
/// When an address is taken or does not exist on this machine.
pub async fn run(options: Options) -> anyhow::Result<()> {
    let (listen, admin) = (options.listen, options.admin);
    ensure!(listen.ports() >= usize::from(NODES), "--listen {listen}: the demo needs {NODES} ports, one for each node");
    let shutdown = Shutdown::on_signals()?;
    let cluster = node::Cluster::start(node::Options::loopback(NODES, 0)).await.context(
        "the simulated nodes live on 127.0.0.11, .12 and .13; where these do not exist (macOS), add them: \
         sudo ifconfig lo0 alias 127.0.0.11 up",
    )?;
    let arrivals = cluster.arrivals();
    let any =
        if listen.address.is_ipv4() { IpAddr::from([127, 0, 0, 1]) } else { IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]) };
    let own = if listen.address.is_unspecified() { any } else { listen.address };
    let advertise = options.advertise.unwrap_or(own);
    let config = file(&cluster, listen, admin, advertise).resolve(Path::new(""))?.config;
    let log = Log { level: "warn".to_owned(), format: LogFormat::Human };
    let running = gateway::start(config, Metrics::new(), telemetry::init(&log)?)
        .await
        .context("the demo does not start; where an address is taken, --listen and --admin choose others")?;
    let mut topology = running.topology.clone();
    let up = |node: &&std::sync::Arc<crate::topology::Node>| node.state == NodeState::Up;
    let all = topology.wait_for(|now| now.nodes.iter().filter(up).count() == usize::from(NODES));
    timeout(READY, all).await.context("the gateway does not find the simulated nodes")??;
    let ports: Vec<u16> = (listen.first..).take(usize::from(NODES)).collect();
    print!("{}", show::banner(&cluster, &ports, advertise, running.admin));
    tokio::select! {
        () = show::arrivals(arrivals, &ports) => {}
        () = shutdown.reached(Phase::Draining) => {}
    }
    tokio::select! {
        () = running.drain() => {}
        () = shutdown.reached(Phase::Stopping) => {}
    }
    Ok(())
}

/// The configuration that somebody would write for these nodes.
fn file(cluster: &node::Cluster, listen: Listen, admin: SocketAddr, advertise: IpAddr) -> File {
    let nodes = cluster.nodes().iter().zip(listen.first..).map(|(node, port)| ListedNode {
        name: node.member().rack.replace('r', "cassandra-"),
        address: HostPort { host: node.address().ip().to_string(), port: node.address().port() },
        port: Some(port),
    });
    let discovery = Discovery { nodes: Some(nodes.collect()), ..Discovery::default() };
    let drain = Drain { spread: Duration::ZERO, deadline: Duration::from_secs(1), ..Drain::default() };
    File { listen, admin, drain, ..File::new(Advertise::Text(advertise.to_string()), discovery) }
}
