//! `dns:`, the SRV records of a StatefulSet's headless Service: for places where the Kubernetes API may not be asked.
//!
//! A target is a pod's name (Kubernetes documentation, "DNS for Services and Pods"): the label before the first dot is the node's
//! identity, its ordinal the position of its port in `listen`, so that replicas agree and nothing is stored. DNS says who is
//! ready (or, with `publishNotReadyAddresses`, who has an address), never who has left: a node without a record is away, and only
//! after [`LEFT`] has it left. One that answers is not away, whatever DNS says.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{info, warn};

use crate::metrics::Metrics;
use crate::proxy::current::Current;
use crate::readiness::{Pending, Readiness};
use crate::topology::input::{Found, Input, Listed, Placement};
use crate::topology::ports::{PortError, PortRange};
use crate::topology::{NodeId, NodeState, Topology};

use super::allow::Allow;
use super::kubernetes::pod_name;
use super::own_login::OwnLogin;
use super::refusals::Said;
use super::resolve::{Addresses, Names, ResolveError, Target};

/// The names that the port of CQL has in Services (`cql` in most charts, `native` in cass-operator's).
const PORT_NAMES: [&str; 2] = ["cql", "native"];
/// Two look-ups are so far apart, whatever happens.
const APART: Duration = Duration::from_secs(1);
/// Without a record for so long a node has left: DNS does not tell one that was scaled away from one that is being replaced.
const LEFT: Duration = Duration::from_secs(24 * 60 * 60);

/// The source; it runs until it is aborted.
pub struct Dns {
    /// Of the headless Service.
    pub name: Current<String>,
    pub names: Names,
    pub range: PortRange,
    pub allow: Allow,
    pub login: OwnLogin,
    pub inputs: mpsc::Sender<Input>,
    pub topology: watch::Receiver<Arc<Topology>>,
    pub metrics: Arc<Metrics>,
    pub readiness: Readiness,
}

/// One node that had a record once.
struct Known {
    target: Target,
    addresses: Addresses,
    address: Option<IpAddr>,
    listed: Instant,
    is_listed: bool,
}

#[derive(Default)]
struct Memory {
    nodes: BTreeMap<NodeId, Known>,
    /// Targets that are no nodes, each said once.
    strangers: BTreeSet<String>,
    refused: Said,
    failing: Option<ResolveError>,
    pending: Option<Pending>,
}

impl Dns {
    pub async fn run(mut self) {
        let mut memory = Memory::default();
        loop {
            let started = Instant::now();
            let valid = match self.services().await {
                Ok((targets, valid)) => {
                    let valid = valid.min(self.learn(&mut memory, targets).await);
                    if memory.failing.take().is_some() {
                        info!(name = %self.name.get(), "the name has SRV records again");
                    }
                    memory.pending = None;
                    self.metrics.discovery_heard();
                    if self.tell(&mut memory).await.is_err() {
                        return;
                    }
                    valid
                }
                Err(error) => {
                    if memory.failing.as_ref() != Some(&error) {
                        warn!(%error, "no SRV records; what was found stays");
                        let said = format!("discovery: {error}");
                        memory.pending = memory.nodes.is_empty().then(|| self.readiness.pending_because(&said));
                        memory.failing = Some(error);
                    }
                    APART
                }
            };
            tokio::select! {
                () = sleep(valid) => {}
                () = self.a_node_has_died() => {}
            }
            sleep_until(started + APART).await;
        }
    }

    /// The records of the first port name that has some, and how long they may be used.
    async fn services(&self) -> Result<(Vec<Target>, Duration), ResolveError> {
        let (mut first, name) = (None, self.name.get());
        for port in PORT_NAMES {
            match self.names.services(&format!("_{port}._tcp.{name}")).await {
                Ok(found) => return Ok(found),
                Err(error) => _ = first.get_or_insert(error),
            }
        }
        Err(first.unwrap_or_else(|| ResolveError::NoService { name: name.to_string() }))
    }

    /// Takes the targets in, each with its addresses; how long the shortest of these may be used.
    async fn learn(&self, memory: &mut Memory, targets: Vec<Target>) -> Duration {
        let now = Instant::now();
        let mut valid = Duration::MAX;
        memory.nodes.values_mut().for_each(|known| known.is_listed = false);
        for target in targets {
            let label = target.host.split('.').next().unwrap_or_default();
            if pod_name(label).is_none() || is_address(label) {
                if memory.strangers.insert(target.host.clone()) {
                    warn!(
                        target = %target.host,
                        "hidden from clients: its name ends in no ordinal, so nothing but its address tells it from others; with \
                         contact_points nodes are told apart by their host_id"
                    );
                }
                continue;
            }
            let known = memory.nodes.entry(NodeId::new(label)).or_insert_with(|| Known {
                target: target.clone(),
                addresses: Addresses::default(),
                address: None,
                listed: now,
                is_listed: true,
            });
            match self.names.lookup(&format!("{}.", target.host), &known.addresses).await {
                Ok((addresses, ttl)) => {
                    valid = valid.min(ttl);
                    known.address = addresses.choose(known.address);
                    known.addresses = addresses;
                }
                // A pod that was in the first answer and is not in the second.
                Err(_) => valid = APART,
            }
            (known.target, known.listed, known.is_listed) = (target, now, true);
        }
        memory.nodes.retain(|_, known| known.is_listed || known.listed.elapsed() < LEFT);
        valid
    }

    async fn tell(&self, memory: &mut Memory) -> Result<(), mpsc::error::SendError<Input>> {
        let paths = Arc::clone(&self.topology.borrow().paths);
        let mut found = self.found(memory);
        let refused = self.allow.refuse(&mut found, &paths);
        // The file names the Service, and so whatever it leads to.
        self.login.vouch(found.iter().map(|node| node.address));
        self.inputs.send(Input::Nodes(found)).await?;
        for hidden in memory.refused.take_over(refused) {
            self.inputs.send(Input::Hidden(hidden)).await?;
        }
        Ok(())
    }

    fn found(&self, memory: &Memory) -> Vec<Found> {
        let nodes = memory.nodes.iter().filter_map(|(id, known)| Some((id, known, known.address?)));
        nodes
            .map(|(id, known, ip)| Found {
                id: id.clone(),
                address: SocketAddr::new(ip, known.target.port),
                host: Some(known.target.host.as_str().into()),
                // Records come and go with what DNS servers have cached.
                listed: if known.is_listed { Listed::Here } else { Listed::Away },
                confirmed: known.is_listed,
                leaving: false,
                placement: self.placement(id),
                port_why: None,
                host_id: None,
                data_center: None,
                rack: None,
            })
            .collect()
    }

    fn placement(&self, id: &NodeId) -> Placement {
        let Some((_, ordinal)) = pod_name(&id.0) else { return Placement::Assigned };
        let position = usize::try_from(ordinal).unwrap_or(usize::MAX);
        self.range.iter().nth(position).map_or_else(
            || {
                let (node, first, last) = (id.clone(), self.range.first(), self.range.last());
                Placement::Withheld(PortError::BeyondRange {
                    key: "listen",
                    node,
                    ordinal,
                    first_ordinal: 0,
                    first,
                    last,
                })
            },
            Placement::Chosen,
        )
    }

    /// Until a node is down that was not: its name may lead elsewhere by now.
    async fn a_node_has_died(&mut self) {
        let down = |topology: &Topology| {
            let down = topology.nodes.iter().filter(|node| node.state == NodeState::Down);
            down.map(|node| node.id.clone()).collect::<BTreeSet<_>>()
        };
        let before = down(&self.topology.borrow_and_update());
        if self.topology.wait_for(|now| !down(now).is_subset(&before)).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Pods without a name of their own have their address for one (CoreDNS, plugin kubernetes: `10-1-2-3`, `fd00--7`).
fn is_address(label: &str) -> bool {
    label.replace('-', ".").parse::<Ipv4Addr>().is_ok() || label.replace('-', ":").parse::<Ipv6Addr>().is_ok()
}
