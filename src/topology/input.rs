//! What the world says about nodes, each as one value: the words between discovery, probes, relayed rows and
//! [`State`](super::state::State). Facts only; what they mean is decided there.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use super::paths::Learned;
use super::ports::PortError;
use super::{Hidden, HostId, NodeId};
use crate::config::External;
use crate::config::advertise;
use crate::label::{Label, label_set};

/// One thing that was learned.
#[derive(Clone, Debug)]
pub enum Input {
    /// Every node that exists, as discovery sees it now. A node that is missing has left the cluster.
    Nodes(Vec<Found>),
    /// A node that exists, but whose name has no address yet; it is in no `Nodes` until it has.
    Unresolved(NodeId),
    /// A probe made a connection to `address` and was answered there; sent again for each new connection, and when a node
    /// that is not up was asked again who it is.
    Alive { id: NodeId, address: SocketAddr, identity: Identity },
    /// The node at `address` is dead, for now.
    Dead { id: NodeId, address: SocketAddr, reason: DeadReason },
    /// What a node said of itself in a `system.local` row that passed on a client's connection.
    Observed(Observation),
    /// A node said that the one behind `port` is down, which its last probe contradicts.
    Doubted { port: u16, incarnation: u64 },
    /// What clients are to be told, as the configuration has it.
    Paths(Arc<[advertise::Path]>),
    /// What is known of an address in it.
    External(External, Learned),
    /// A row was not shown to a client.
    Hidden(Hidden),
    /// Time has passed (see `State::deadline`).
    Tick,
}

/// A node as discovery knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub id: NodeId,
    /// Where to dial it; of a node that is not present, where it lived last.
    pub address: SocketAddr,
    /// The name of its host: what its certificate carries. `None` where it is known by its address alone.
    pub host: Option<Arc<str>>,
    pub listed: Listed,
    /// False where one word alone says so, and may be wrong or old: then a node that is up where it is known to live stays as it
    /// is, until that is confirmed or it is up no more.
    pub confirmed: bool,
    /// It is being ended: its pod is, and it will be gone or another one soon.
    pub leaving: bool,
    pub placement: Placement,
    /// Why that is another port than its ordinal, or a pin, would give it.
    pub port_why: Option<Arc<str>>,
    /// Given where it *is* the node's identity (contact points): then no other host_id is accepted from the node. `None` where
    /// the name is the identity: then it is learned, and may change when the node is replaced.
    pub host_id: Option<HostId>,
    pub data_center: Option<Arc<str>>,
    pub rack: Option<Arc<str>>,
}

/// Where a node is said to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listed {
    /// At its address.
    Here,
    /// Nowhere, although it still belongs to the cluster: its pod is being replaced.
    Away,
    /// It belongs to the cluster no more; the same as not to be in the set at all.
    Left,
}

/// Which port a node is to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Placement {
    /// The lowest that nobody holds.
    Assigned,
    /// The one that the user gave it, or that its place implies.
    Chosen(u16),
    /// None: the node is hidden, and this is why.
    Withheld(PortError),
}

/// What a node says of itself; `None` for what it was not asked or could not be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    pub cluster_name: Option<Arc<str>>,
    pub host_id: Option<HostId>,
    /// `rpc_address` and port; an unspecified address (`0.0.0.0`) counts as not said.
    pub native: Option<SocketAddr>,
    pub data_center: Option<Arc<str>>,
    pub rack: Option<Arc<str>>,
}

/// Longest name that a node may give itself, its cluster, its data center or its rack, in bytes.
pub const LONGEST_NAME: usize = 256;

impl Identity {
    /// The first of its names that is longer than [`LONGEST_NAME`]: its column, and its length in bytes.
    pub fn too_long(&self) -> Option<(&'static str, usize)> {
        let names = [("cluster_name", &self.cluster_name), ("data_center", &self.data_center), ("rack", &self.rack)];
        let mut lengths = names.into_iter().filter_map(|(column, name)| Some((column, name.as_ref()?.len())));
        lengths.find(|(_, length)| *length > LONGEST_NAME)
    }
}

/// An identity seen on a connection that was made to `port`'s node in its life `incarnation`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    pub port: u16,
    pub incarnation: u64,
    pub identity: Identity,
}

label_set! {
    /// Why a probe calls a node dead.
    pub enum DeadReason {
        Refused = "refused",
        Reset = "reset",
        /// No connection within the dial timeout, or no route.
        Unreachable = "unreachable",
        /// Connected, and silent for longer than `probe.silence`.
        Silent = "silent",
        /// The TLS handshake failed.
        Tls = "tls",
        /// What it answers is not CQL, or is an error.
        Protocol = "protocol",
        /// It refused the gateway's own credentials.
        Login = "login",
    }
}

/// What someone who reads the log must know; each is said once, when it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    Died {
        id: NodeId,
        address: SocketAddr,
        reason: DeadReason,
    },
    NoPort {
        id: NodeId,
        error: PortError,
    },
    /// Another port was wanted for it than it has.
    KeepsPort {
        id: NodeId,
        error: PortError,
    },
    /// The node was known by another host_id before.
    Replaced {
        id: NodeId,
        from: HostId,
        to: HostId,
    },
    /// A host_id moved from one name to another, whose node answers with it now.
    HostIdTaken {
        host_id: HostId,
        by: NodeId,
        from: NodeId,
    },
    /// Not up although it answers.
    Refused {
        id: NodeId,
        address: SocketAddr,
        why: Contradiction,
    },
}

/// Why an answering node is not the node that it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Contradiction {
    WrongCluster {
        expected: Arc<str>,
        found: Arc<str>,
    },
    WrongHostId {
        expected: HostId,
        found: HostId,
    },
    /// Another node that is known has this host_id.
    HostIdOf {
        host_id: HostId,
        owner: NodeId,
    },
    /// Another node was listed at the same address later, and nothing tells which of them lives there.
    AddressOf {
        owner: NodeId,
    },
}

impl fmt::Display for Contradiction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WrongCluster { expected, found } => {
                write!(f, "it belongs to cluster {found:?}, the other nodes to {expected:?}")
            }
            Self::WrongHostId { expected, found } => write!(f, "its host_id is {found}, expected {expected}"),
            Self::HostIdOf { host_id, owner } => write!(f, "its host_id {host_id} is that of {owner}"),
            Self::AddressOf { owner } => write!(f, "{owner} was listed at the same address later"),
        }
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Died { id, address, reason } => write!(f, "{id} at {address} is dead: {}", reason.label()),
            Self::NoPort { id, error } => write!(f, "{id} has no port and is hidden from clients: {error}"),
            Self::KeepsPort { id, error } => write!(f, "{id} keeps the port that it has: {error}"),
            Self::Replaced { id, from, to } => write!(f, "{id} was replaced: its host_id was {from} and is {to}"),
            Self::HostIdTaken { host_id, by, from } => write!(f, "host_id {host_id} is now {by}, before it was {from}"),
            Self::Refused { id, address, why } => write!(f, "{id} answers at {address} but is not used: {why}"),
        }
    }
}
