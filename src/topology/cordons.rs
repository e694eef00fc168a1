//! Nodes to which an operator wants no new connections through this replica: rows and events stay, and so do the connections that
//! there are. Forgotten when the process ends.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::NodeId;

/// Changed at the admin address, asked when a connection is accepted.
#[derive(Debug, Default)]
pub struct Cordons {
    nodes: Mutex<BTreeSet<NodeId>>,
}

impl Cordons {
    pub fn has(&self, id: &NodeId) -> bool {
        self.nodes().contains(id)
    }

    /// Sets whether `id` is cordoned; false when it was so already.
    pub fn set(&self, id: &NodeId, cordoned: bool) -> bool {
        let mut nodes = self.nodes();
        if cordoned { nodes.insert(id.clone()) } else { nodes.remove(id) }
    }

    fn nodes(&self) -> MutexGuard<'_, BTreeSet<NodeId>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
