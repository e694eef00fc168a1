//! The View *node ports*: every client sees all nodes, each by what is advertised for its port.

use super::View;
use crate::topology::Node;

/// See the module.
#[derive(Debug)]
pub struct NodePorts;

impl View for NodePorts {
    fn shows_peers(&self) -> bool {
        true
    }

    fn tells_of(&self, _node: &Node, _attached: u16) -> bool {
        true
    }

    fn injects(&self) -> bool {
        true
    }

    fn hides_nodes(&self) -> bool {
        false
    }
}
