//! GRACEFUL_DISCONNECT: a connection's client is told that it is to leave, finishes what it has asked, and goes by itself.
//!
//! CEP-59 ("Graceful Disconnect: In-Band Connection Draining", CASSANDRA-21191, apache/cassandra#4953), in no release yet. Who
//! offers it says so in SUPPORTED, `GRACEFUL_DISCONNECT: [true]`; a client, on each connection of its, control or not, names the type in
//! REGISTER; the EVENT is of v5 alone, and its body is the type. Whoever was told asks nothing new there, and what it asks all the same
//! is answered until the server's own patience ends.
//!
//! Nodes that do not know the type answer a REGISTER that names it with an error. So it is taken out, and the gateway tells by
//! itself. A REGISTER of no types is left where it was the only one: the node's READY is the client's, in its turn among the others.

use crate::cql::frame::{Header, Version, encode_frame};
use crate::cql::message::event::GRACEFUL_DISCONNECT;
use crate::cql::message::{self, Register};

/// Whether one connection may ask for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Offer {
    /// The gateway is not to offer it, or the version has no such event.
    #[default]
    None,
    /// The gateway alone tells: its node has not said that it can.
    Gateway,
    /// The node said that it tells too.
    Both,
}

impl Offer {
    /// `wanted`: by the configuration; `node_tells`: the node's SUPPORTED had it.
    pub fn new(wanted: bool, version: Version, node_tells: bool) -> Self {
        match (wanted && version == Version::V5, node_tells) {
            (false, _) => Self::None,
            (true, false) => Self::Gateway,
            (true, true) => Self::Both,
        }
    }

    pub fn is_made(self) -> bool {
        self != Self::None
    }
}

/// A SUPPORTED that offers it; `None` where it does already, or cannot be read.
pub fn offered(supported: &[u8]) -> Option<Vec<u8>> {
    message::supported_with(supported, GRACEFUL_DISCONNECT, &["true"]).ok().flatten()
}

/// The REGISTER without it: a frame. `start`: where the message begins in `body`, behind what the flags put before it.
pub fn left_out(header: Header, body: &[u8], start: usize, register: &Register<'_>) -> Vec<u8> {
    let others = register.event_types.iter().copied().filter(|asked| !asked.eq_ignore_ascii_case(GRACEFUL_DISCONNECT));
    let mut out = body.get(..start).unwrap_or_default().to_vec();
    out.extend(message::encode_register(&others.collect::<Vec<_>>()));
    encode_frame(header, &out)
}
