//! A client's connection from accept to close.
//!
//! ```text
//! listener ─▶ connection (a place in each stage: TLS, handshake, dial) ─▶ relay ─▶ Closed { by, why }
//! ```
//!
//! The setup of a connection is its own task with one deadline; what remains is a small relay task that holds two sockets
//! and no buffers. What all of them can make the process keep at the worst is added up in [`memory`].

pub mod agreement;
pub mod came;
pub mod closed;
pub mod connection;
pub mod connections;
pub mod current;
pub mod dead_peer;
pub mod descriptors;
pub mod dial;
pub mod direction;
pub mod gate;
pub mod header;
pub mod hold;
pub mod listener;
pub mod logins;
pub mod memory;
pub mod paths;
pub mod relay;
pub mod report;
pub mod settings;
pub mod shared;
pub mod stages;
pub mod stream;
pub mod tls;

pub use closed::{Closed, ClosedBy, Refused, Why};
