//! The View *node ports*: each node is a port of the one address, and every client sees them all.

use std::net::{IpAddr, SocketAddr};

use super::View;
use crate::topology::Node;

/// See the module.
#[derive(Debug)]
pub struct NodePorts;

impl View for NodePorts {
    fn endpoint(&self, node: &Node, advertised: IpAddr) -> SocketAddr {
        SocketAddr::new(advertised, node.port)
    }

    fn shows_peers(&self) -> bool {
        true
    }

    fn tells_of(&self, _node: &Node, _attached: u16) -> bool {
        true
    }

    fn injects(&self) -> bool {
        true
    }
}
