//! `nodes:`, the list in the configuration: who exists is settled; only where a name leads may change.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio::time::interval;
use tracing::{error, info, warn};

use crate::config::ListedNode;
use crate::metrics::Metrics;
use crate::proxy::dial::DialFailure;
use crate::topology::input::{Found, Input, Listed, Placement};
use crate::topology::ports::PortRange;
use crate::topology::{NodeId, NodeState, Topology};

use super::own_login::OwnLogin;
use super::resolve::{Addresses, Failures, Names, follow};

/// A list does not change; this often it is said to be still true, so that nobody takes discovery for stale.
const STILL_TRUE: Duration = Duration::from_secs(30);

/// One name's news: its position in the list and its addresses, `None` when the look-up failed.
type News = (usize, Option<Addresses>);

/// The list with what is known of each entry's address.
pub struct Fixed {
    nodes: Vec<ListedNode>,
    addresses: Vec<Option<IpAddr>>,
    range: PortRange,
    /// The listen ports were chosen by the system: a listed port is a position among them.
    positions: bool,
    wakes: HashMap<NodeId, Arc<Notify>>,
}

impl Fixed {
    pub fn new(nodes: &[ListedNode], range: PortRange, positions: bool) -> Self {
        let addresses: Vec<Option<IpAddr>> = nodes.iter().map(|node| node.address.host.parse().ok()).collect();
        let named = nodes.iter().zip(&addresses).filter(|(_, address)| address.is_none());
        let wakes = named.map(|(node, _)| (NodeId::new(&node.name), Arc::default())).collect();
        Self { nodes: nodes.to_vec(), addresses, range, positions, wakes }
    }

    /// What a name leads to while it was not looked up yet: where its node is now.
    pub fn knowing(mut self, topology: &Topology) -> Self {
        for (node, address) in self.nodes.iter().zip(&mut self.addresses) {
            let known = topology.node_by_id(&NodeId::new(&node.name)).filter(|known| known.state != NodeState::Gone);
            let same = known.filter(|known| *known.host_name() == *node.address.host);
            *address = address.or_else(|| same.map(|known| known.address.ip()));
        }
        self
    }

    /// For each node that is listed by name, what to wake when it should be looked up again.
    pub fn wakes(&self) -> HashMap<NodeId, Arc<Notify>> {
        self.wakes.clone()
    }

    /// Sends the list once every name was looked up, and again whenever an address changes.
    pub async fn run(mut self, names: Names, login: OwnLogin, inputs: mpsc::Sender<Input>, metrics: Arc<Metrics>) {
        let (told, mut news) = mpsc::channel::<News>(16);
        let mut lookups = JoinSet::new();
        let mut waiting: Vec<usize> = Vec::new();
        for (index, node) in self.nodes.iter().enumerate() {
            let Some(wake) = self.wakes.get(&NodeId::new(&node.name)) else { continue };
            waiting.push(index);
            let told = told.clone();
            let (names, host, wake) = (names.clone(), node.address.host.clone(), Arc::clone(wake));
            lookups.spawn(follow(names, host, wake, Failures::Wrong, None, move |addresses| {
                let told = told.clone();
                async move { _ = told.send((index, addresses)).await }
            }));
        }
        let mut still_true = interval(STILL_TRUE);
        loop {
            tokio::select! {
                _ = still_true.tick() => {}
                // A name that nobody looks up any more would keep its address for ever.
                Some(Err(panicked)) = lookups.join_next() => {
                    error!(%panicked, "a look-up has ended");
                    return;
                }
                Some((index, addresses)) = news.recv() => {
                    let first = waiting.iter().position(|&waits| waits == index);
                    if let Some(first) = first {
                        waiting.swap_remove(first);
                    }
                    if let (None, Some(node)) = (&addresses, self.nodes.get(index)) {
                        metrics.node(&node.name).dial_failed(DialFailure::Dns);
                        if first.is_some() && self.addresses.get(index).is_some_and(Option::is_none) {
                            let (id, host) = (NodeId::new(&node.name), &node.address.host);
                            warn!(node = %id, %host, "hidden from clients until its name has an address");
                            if inputs.send(Input::Unresolved(id)).await.is_err() {
                                return;
                            }
                        }
                    }
                    if !self.learn(index, addresses) && first.is_none() {
                        continue;
                    }
                }
            }
            if waiting.is_empty() {
                metrics.discovery_heard();
                let found = self.found();
                login.vouch(found.iter().map(|node| node.address));
                if inputs.send(Input::Nodes(found)).await.is_err() {
                    return;
                }
            }
        }
    }

    /// True when the node's address is another one now.
    fn learn(&mut self, index: usize, addresses: Option<Addresses>) -> bool {
        let (Some(node), Some(in_use), Some(found)) = (self.nodes.get(index), self.addresses.get_mut(index), addresses)
        else {
            return false;
        };
        let before = *in_use;
        *in_use = found.choose(before);
        if before == *in_use {
            return false;
        }
        if let (Some(from), Some(to)) = (before, *in_use) {
            info!(node = %node.name, host = %node.address.host, %from, %to, "the name leads to another address");
        }
        true
    }

    /// Nodes whose address is known.
    fn found(&self) -> Vec<Found> {
        let placed = self.nodes.iter().zip(&self.addresses).filter_map(|(node, ip)| Some((node, (*ip)?)));
        placed
            .map(|(node, ip)| Found {
                id: NodeId::new(&node.name),
                address: SocketAddr::new(ip, node.address.port),
                host: Some(node.address.host.as_str().into()),
                listed: Listed::Here,
                confirmed: true,
                leaving: false,
                placement: match self.positions {
                    true => {
                        self.range.iter().nth(usize::from(node.port)).map_or(Placement::Assigned, Placement::Chosen)
                    }
                    false => Placement::Chosen(node.port),
                },
                port_why: None,
                host_id: None,
                data_center: None,
                rack: None,
            })
            .collect()
    }
}
