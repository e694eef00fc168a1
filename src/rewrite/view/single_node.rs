//! The View *single node*: the client's own port is the whole cluster. For drivers that apply one port to every node, or know
//! a node by its address alone: with more than one row they would send requests to the wrong node.
//!
//! Such a client hears nothing of nodes, be they up, down, new or gone. Of the others it knows nothing; of its own it learns by
//! losing its connection, and then dials the ports that it knows. What it is told besides does harm: gocql takes a node that is
//! called down out of its pool until something calls it up (`events.go`, handleNodeDown), and no connection is left on which it
//! could hear that.

use super::View;
use crate::topology::Node;

/// See the module.
#[derive(Debug)]
pub struct SingleNode;

impl View for SingleNode {
    fn shows_peers(&self) -> bool {
        false
    }

    fn tells_of(&self, _node: &Node, _attached: u16) -> bool {
        false
    }

    fn injects(&self) -> bool {
        false
    }

    fn hides_nodes(&self) -> bool {
        true
    }
}
