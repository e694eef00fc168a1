//! What the node and the load generator share. Written apart from cqlgate's own parsers on purpose: it also checks them.

pub mod connection;
pub mod wire;
