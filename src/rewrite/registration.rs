//! What one client registered for: what it asked, and what of it is in force because its node said READY.
//!
//! A REGISTER goes to the node as the client wrote it; the node tells what it sees, and the gateway adds what it knows first, of
//! the types in force. Only a client that is told of nodes is a control connection.

use super::graceful_disconnect::Offer;
use crate::cql::message::event::{GRACEFUL_DISCONNECT, STATUS_CHANGE, TOPOLOGY_CHANGE};
use crate::cql::message::{NodeChange, Register};

/// The longest body of a REGISTER: the names of all types that there are take some hundred bytes.
pub const MAX_REGISTER: u32 = 4 * 1024;
/// REGISTERs that wait for their answers. Drivers send one.
const MAX_PENDING: usize = 8;

/// The event types of which the gateway adds any by itself: those that speak of nodes, and the one that asks to leave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RegisteredTypes {
    pub status_change: bool,
    pub topology_change: bool,
    pub graceful_disconnect: bool,
}

impl RegisteredTypes {
    pub fn of(register: &Register<'_>, offer: Offer) -> Self {
        Self {
            status_change: register.has(STATUS_CHANGE),
            topology_change: register.has(TOPOLOGY_CHANGE),
            graceful_disconnect: offer.is_made() && register.has(GRACEFUL_DISCONNECT),
        }
    }

    pub fn has(self, change: NodeChange) -> bool {
        match change {
            NodeChange::Up | NodeChange::Down => self.status_change,
            NodeChange::NewNode | NodeChange::RemovedNode | NodeChange::MovedNode => self.topology_change,
        }
    }

    /// Any that speaks of nodes.
    pub fn any(self) -> bool {
        self.status_change || self.topology_change
    }

    fn and(self, other: Self) -> Self {
        Self {
            status_change: self.status_change || other.status_change,
            topology_change: self.topology_change || other.topology_change,
            graceful_disconnect: self.graceful_disconnect || other.graceful_disconnect,
        }
    }
}

/// The registration of one connection.
#[derive(Debug, Default)]
pub struct Registration {
    /// By stream, in the order of the requests.
    pending: Vec<(i16, RegisteredTypes)>,
    in_force: RegisteredTypes,
}

impl Registration {
    /// The client asked for these; false when too many of its REGISTERs have no answer.
    pub fn ask(&mut self, stream: i16, types: RegisteredTypes) -> bool {
        if stream < 0 {
            return true;
        }
        if self.pending.len() == MAX_PENDING {
            return false;
        }
        self.pending.push((stream, types));
        true
    }

    /// The node said READY on `stream`; true when more is in force now.
    pub fn ready(&mut self, stream: i16) -> bool {
        let before = self.in_force;
        if let Some(types) = self.take(stream) {
            self.in_force = self.in_force.and(types);
        }
        self.in_force != before
    }

    /// The node refused a request on `stream` on which nothing else was in flight.
    pub fn refused(&mut self, stream: i16) {
        self.take(stream);
    }

    /// What the gateway may tell this client by itself.
    pub fn in_force(&self) -> RegisteredTypes {
        self.in_force
    }

    /// What the node may tell it: a node that registered a client may speak before its READY is there.
    pub fn asked(&self) -> RegisteredTypes {
        self.pending.iter().fold(self.in_force, |asked, &(_, types)| asked.and(types))
    }

    fn take(&mut self, stream: i16) -> Option<RegisteredTypes> {
        let position = self.pending.iter().position(|&(asked, _)| asked == stream)?;
        let (_, types) = self.pending.remove(position);
        if self.pending.is_empty() {
            self.pending = Vec::new();
        }
        Some(types)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: RegisteredTypes =
        RegisteredTypes { status_change: true, topology_change: false, graceful_disconnect: false };
    const TOPOLOGY: RegisteredTypes =
        RegisteredTypes { status_change: false, topology_change: true, graceful_disconnect: false };

    #[test]
    fn is_in_force_once_the_node_said_so() {
        let mut registration = Registration::default();
        assert!(registration.ask(3, STATUS));
        assert_eq!((registration.in_force(), registration.asked()), (RegisteredTypes::default(), STATUS));
        assert!(!registration.ready(4), "another request's");
        assert!(registration.ready(3));
        assert_eq!(registration.in_force(), STATUS);
        registration.ask(3, TOPOLOGY);
        registration.refused(3);
        assert_eq!(registration.asked(), STATUS);
    }

    #[test]
    fn several_in_one_read_add_up_and_are_bounded() {
        let mut registration = Registration::default();
        registration.ask(1, STATUS);
        registration.ask(1, TOPOLOGY);
        assert!(registration.ready(1) && registration.ready(1));
        assert_eq!(registration.in_force(), STATUS.and(TOPOLOGY));
        let asked = (0..100).filter(|&stream| registration.ask(stream, STATUS)).count();
        assert_eq!(asked, MAX_PENDING);
    }

    #[test]
    fn names_of_types_are_taken_in_any_case() {
        let of = |types: &[&'static str], offer| RegisteredTypes::of(&Register { event_types: types.to_vec() }, offer);
        assert_eq!(of(&["status_change", "Topology_Change"], Offer::None), STATUS.and(TOPOLOGY));
        assert!(!of(&["SCHEMA_CHANGE"], Offer::None).any());
        // One that is not offered is asked of the node alone.
        for (offer, asked) in [(Offer::None, false), (Offer::Gateway, true), (Offer::Both, true)] {
            let types = of(&["graceful_disconnect"], offer);
            assert!(types.graceful_disconnect == asked && !types.any());
        }
    }
}
