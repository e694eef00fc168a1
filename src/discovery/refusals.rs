//! What discovery was told of and does not take: each hidden from clients with its reason, and said once.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use tracing::warn;

use crate::topology::{Hidden, HiddenReason, HostId, NodeId};

/// Of one reading so many are told and said; a node that means harm can name any number.
const TOLD: usize = 16;

/// A node, or the row of one, that is not taken, and why.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Refused {
    pub id: Option<NodeId>,
    pub host_id: Option<HostId>,
    pub address: Option<SocketAddr>,
    pub reason: HiddenReason,
    pub why: String,
}

/// What was said and still holds.
#[derive(Debug, Default)]
pub struct Said(BTreeSet<Refused>);

impl Said {
    /// Takes over what is refused now; says what was not refused before. The answer is what is hidden.
    pub fn take_over(&mut self, mut refused: Vec<Refused>) -> Vec<Hidden> {
        let more = refused.len().saturating_sub(TOLD);
        refused.sort();
        refused.truncate(TOLD);
        for refused in refused.iter().filter(|refused| !self.0.contains(refused)) {
            let Refused { id, host_id, address, why, .. } = refused;
            let (node, host_id) = (id.as_ref().map(tracing::field::display), host_id.map(tracing::field::display));
            let address = address.map(tracing::field::display);
            warn!(node, host_id, address, more, "not dialled: {why}");
        }
        let hidden = |Refused { id, host_id, address, reason, .. }: &Refused| Hidden {
            id: id.clone(),
            host_id: *host_id,
            address: *address,
            reason: *reason,
        };
        let hidden = refused.iter().map(hidden).collect();
        self.0 = refused.into_iter().collect();
        hidden
    }
}
