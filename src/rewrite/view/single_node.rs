//! The View *single node*: the client's own port is the whole cluster. For drivers that apply one port to every node, or know
//! a node by its address alone: with more than one row they would send requests to the wrong node.

use std::net::{IpAddr, SocketAddr};

use super::View;
use crate::topology::Node;

/// See the module.
#[derive(Debug)]
pub struct SingleNode;

impl View for SingleNode {
    fn endpoint(&self, node: &Node, advertised: IpAddr) -> SocketAddr {
        SocketAddr::new(advertised, node.port)
    }

    fn shows_peers(&self) -> bool {
        false
    }

    fn tells_of(&self, node: &Node, attached: u16) -> bool {
        node.port == attached
    }

    fn injects(&self) -> bool {
        false
    }
}
