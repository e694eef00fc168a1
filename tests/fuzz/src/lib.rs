//! What the targets share: an allocator that counts, so that a length that a peer only claims can be seen to allocate nothing;
//! and a small cluster,
//! of which [`node`] is one.

mod count;
pub mod node;

use std::net::SocketAddr;
use std::sync::Arc;

use cqlgate::topology::{Advertised, HostId, Node, NodeState, Topology};

pub use count::within;

/// The native address of every node: two bytes that no length, count or port of a short message has, twice.
pub const SECRET: [u8; 4] = [0xd6, 0xe7, 0xd6, 0xe8];

/// Three nodes of dc1 behind one secret address, on three ports: one up, one down, one not announced.
pub fn topology() -> Arc<Topology> {
    let node = |port: u16, state| Node {
        host_id: Some(HostId(uuid::Uuid::from_u128(u128::from(port)))),
        data_center: Some(Arc::from("dc1")),
        state,
        ..Node::answering(&format!("n{port}"), port, SocketAddr::from((SECRET, port - 42)))
    };
    let nodes = [node(9042, NodeState::Up), node(9043, NodeState::Down), node(9044, NodeState::Pending)];
    Arc::new(Topology::new(1, Advertised { ipv4: "203.0.113.10".parse().ok(), ipv6: None }, nodes))
}

/// Bytes that decide something, taken from the fuzzer's input; zeros when there are no more.
pub struct Choices<'a>(pub &'a [u8]);

impl<'a> Choices<'a> {
    pub fn byte(&mut self) -> u8 {
        let (&byte, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        byte
    }

    pub fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[usize::from(self.byte()) % choices.len()]
    }

    pub fn bytes(&mut self, most: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(most.min(self.0.len()));
        self.0 = rest;
        taken
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
