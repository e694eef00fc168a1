//! A client's connection from accept to close.
//!
//! ```text
//! listener ─▶ connection (a place in each stage: TLS, handshake, dial) ─▶ relay ─▶ Closed { by, why }
//! ```
//!
//! The setup of a connection is its own task with one deadline; what remains is a small relay task that holds two sockets
//! and no buffers. What all of them can make the process keep at the worst is added up in [`memory`].

pub mod connection;
pub mod connections;
pub mod descriptors;
pub mod dial;
pub mod direction;
pub mod hold;
pub mod listener;
pub mod logins;
pub mod memory;
pub mod relay;
pub mod report;
pub mod shared;
pub mod stages;
pub mod stream;
pub mod tls;

use crate::metrics::ClosedBy;

/// How a connection ended: one log line, one counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Closed {
    pub by: ClosedBy,
    /// A metric's label value: from a closed set, never from the network.
    pub why: &'static str,
}

impl Closed {
    pub fn client(why: &'static str) -> Self {
        Self { by: ClosedBy::Client, why }
    }

    pub fn node(why: &'static str) -> Self {
        Self { by: ClosedBy::Node, why }
    }

    pub fn gateway(why: &'static str) -> Self {
        Self { by: ClosedBy::Gateway, why }
    }
}
