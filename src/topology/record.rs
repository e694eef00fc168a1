//! What is known of one node with a port, as facts; its state is concluded from them, never set.
//!
//! Must never forget an address it leaves without saying so: [`Record::move_to`], [`Record::learn_native`] and
//! [`Record::forget_identity`] return it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use super::input::{Contradiction, Found, Identity, Listed};
use super::{HostId, Node, NodeId, NodeState};

#[derive(Clone, Debug)]
pub(super) struct Record {
    pub id: NodeId,
    pub port: u16,
    /// Why it is another one than the node should have.
    pub port_why: Option<Arc<str>>,
    pub address: SocketAddr,
    pub host: Option<Arc<str>>,
    pub present: bool,
    /// It is not where it is said to be, on the strength of its answers alone.
    pub kept: bool,
    /// When the address was claimed, as the number of the input that did it.
    pub claimed: u64,
    pub native: Option<SocketAddr>,
    /// The only host_id that is accepted, where discovery names nodes by it.
    pub pinned: Option<HostId>,
    pub host_id: Option<HostId>,
    /// The node itself said its host_id at the present address.
    pub verified: bool,
    pub cluster_name: Option<Arc<str>>,
    /// What it said of itself while its cluster seemed to be another one: believed if the cluster's name turns out to be that.
    pub disbelieved: Option<Identity>,
    pub data_center: Option<Arc<str>>,
    pub rack: Option<Arc<str>>,
    /// What the last probe of the present address found; `None` until then.
    pub answers: Option<bool>,
    /// A probe has ended at least once since the node was found.
    pub probed: bool,
    /// The host_id that the node said last, where it cannot be its own.
    pub disputed: Option<HostId>,
    pub contradiction: Option<Contradiction>,
    pub left: bool,
    /// When it was first up with its present identity.
    pub announced: Option<SystemTime>,
    pub settled: bool,
    pub leaving: bool,
    pub state: NodeState,
    pub since: SystemTime,
    pub incarnation: u64,
    /// Connections to it must be closed: its address or identity is another one.
    pub outlived: bool,
}

impl Record {
    pub fn new(found: &Found, port: u16, claimed: u64, now: SystemTime) -> Self {
        Self {
            id: found.id.clone(),
            port,
            port_why: found.port_why.clone(),
            address: found.address,
            host: found.host.clone(),
            present: found.listed == Listed::Here,
            kept: false,
            claimed,
            native: None,
            pinned: found.host_id,
            host_id: found.host_id,
            verified: false,
            cluster_name: None,
            disbelieved: None,
            data_center: found.data_center.clone(),
            rack: found.rack.clone(),
            answers: None,
            probed: false,
            disputed: None,
            contradiction: None,
            left: false,
            announced: None,
            settled: false,
            leaving: found.leaving,
            state: NodeState::Pending,
            since: now,
            incarnation: 0,
            outlived: true,
        }
    }

    pub fn native_address(&self) -> SocketAddr {
        self.native.unwrap_or(self.address)
    }

    /// The node lives at `address` now; returns the address that its rows and events no longer carry, if that changed.
    pub fn move_to(&mut self, address: SocketAddr, claimed: u64) -> Option<SocketAddr> {
        let before = self.native_address();
        // A node that advertises another address than the dialled one probably still advertises that.
        self.native = self.native.filter(|&native| native != self.address);
        self.address = address;
        self.claimed = claimed;
        self.answers = None;
        self.verified = false;
        self.cluster_name = None;
        self.disbelieved = None;
        self.disputed = None;
        self.outlived = true;
        (self.native_address() != before).then_some(before)
    }

    /// Whether the node lives at its address now. What was found there before says nothing about who comes next.
    pub fn set_present(&mut self, present: bool) {
        if self.present != present {
            self.present = present;
            self.answers = None;
            self.verified = false;
            self.outlived = true;
        }
    }

    /// The node says that its rows carry `native`; returns the address that they carried before, if another was known.
    pub fn learn_native(&mut self, native: SocketAddr) -> Option<SocketAddr> {
        let before = self.native.replace(native)?;
        (before != native).then_some(before)
    }

    pub fn learn_place(&mut self, identity: &Identity) {
        if let Some(data_center) = &identity.data_center {
            self.data_center = Some(data_center.clone());
        }
        if let Some(rack) = &identity.rack {
            self.rack = Some(rack.clone());
        }
    }

    /// Another Cassandra node from here on: whatever was known of the former one is void. Returns the address that only the
    /// former one's rows and events carried.
    pub fn forget_identity(&mut self) -> Option<SocketAddr> {
        let before = self.native_address();
        self.host_id = self.pinned;
        self.verified = false;
        self.native = None;
        self.data_center = None;
        self.rack = None;
        self.announced = None;
        self.settled = false;
        self.outlived = true;
        (self.native_address() != before).then_some(before)
    }

    /// What the facts amount to.
    pub fn concluded(&self) -> NodeState {
        if self.left {
            NodeState::Gone
        } else if self.present && self.answers == Some(true) && self.contradiction.is_none() {
            NodeState::Up
        } else if self.announced.is_some() {
            NodeState::Down
        } else {
            NodeState::Pending
        }
    }

    pub fn to_node(&self) -> Node {
        Node {
            id: self.id.clone(),
            port: self.port,
            port_why: self.port_why.clone(),
            address: self.address,
            host: self.host.clone(),
            present: self.present,
            native: self.native,
            host_id: self.host_id,
            data_center: self.data_center.clone(),
            rack: self.rack.clone(),
            state: self.state,
            since: self.since,
            settled: self.settled,
            leaving: self.leaving,
            incarnation: self.incarnation,
        }
    }
}
