//! Facts about the cluster, and what clients may be told of them. Pure: no async, no socket, no clock.
//!
//! One writer (`topology::state`) folds what discovery, probes and passing rows say into the next [`Topology`];
//! everyone else holds an immutable snapshot. A snapshot answers three questions: which node is behind a port, which node
//! does a row or an event speak of, and may a client be told that it is there.

pub mod diff;
pub mod node;
pub mod ports;
pub mod state;

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

pub use node::{HostId, Node, NodeId, NodeState};

/// Which node a native address:port belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mapped<'a> {
    /// The node's present address.
    Current(&'a Node),
    /// An address that a known node has left; the node lives elsewhere. Nothing about this address may reach a client.
    Former(&'a Node),
    /// The last address of a node that is gone: its DOWN and REMOVED_NODE still carry what clients know.
    Gone(&'a Node),
    Unknown,
}

/// The external address that clients dial; the port is the node's own. At least one family is present.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Advertised {
    pub ipv4: Option<Ipv4Addr>,
    pub ipv6: Option<Ipv6Addr>,
}

impl Advertised {
    /// The address for a client that came over `family`'s family (the accepted socket's local address), or the only one.
    pub fn for_family(&self, family: IpAddr) -> Option<IpAddr> {
        let v4 = self.ipv4.map(IpAddr::V4);
        let v6 = self.ipv6.map(IpAddr::V6);
        let wants_v6 = match family {
            IpAddr::V4(_) => false,
            IpAddr::V6(address) => address.to_ipv4_mapped().is_none(),
        };
        if wants_v6 { v6.or(v4) } else { v4.or(v6) }
    }
}

/// A row that clients are not shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hidden {
    pub host_id: Option<HostId>,
    pub address: Option<SocketAddr>,
    pub reason: HiddenReason,
}

/// Why a row is not shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HiddenReason {
    /// The node has no port: not listed, or the range is full.
    NoPort,
    /// The node has a port but no dial through it has succeeded yet.
    NotAnnounced,
}

/// One immutable picture of the cluster.
#[derive(Clone, Debug, Default)]
pub struct Topology {
    /// Grows by one with every published change.
    pub generation: u64,
    pub advertised: Advertised,
    /// Every node that has a port, those in quarantine (`NodeState::Gone`) included; by port.
    pub nodes: Vec<Arc<Node>>,
    pub hidden: Vec<Hidden>,
    by_port: HashMap<u16, usize>,
    by_host_id: HashMap<HostId, usize>,
    by_native: HashMap<SocketAddr, usize>,
    former: HashMap<SocketAddr, usize>,
}
