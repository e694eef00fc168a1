//! What happened on a connection that is worth counting, or worth telling somebody.

use super::events::Outcome;
use super::registration::RegisteredTypes;
use super::system_tables::{Report, Unrewritable};
use crate::cql::message::event::GRACEFUL_DISCONNECT;
use crate::cql::message::{Event, NodeChange, SCHEMA_CHANGE};
use crate::label::{Label, label_set};

#[derive(Debug)]
pub enum Fact {
    /// A system table's answer was looked at.
    Rewrote {
        report: Box<Report>,
        /// Its columns are what they are called, so what it says of nodes can be learned.
        plain: bool,
    },
    Unrewritable(Unrewritable),
    /// An EXECUTE's Skip_metadata was cleared.
    Redescribed,
    /// The node lets the client hear of nodes: this is a control connection.
    Registered(RegisteredTypes),
    /// The node says that the one behind this port is down; a dial through that port would succeed, as far as the gateway knows.
    Doubted {
        port: u16,
        incarnation: u64,
    },
    /// The node let the client in.
    LoggedIn,
    /// The node refused the client, before it let it in, with this error code.
    LoginRefused {
        code: i32,
    },
    /// A change of the schema that was to be told late is told at once: as many are kept as may be.
    ToldAtOnce,
    /// A node's event, and what became of it; or one that the gateway added.
    Event {
        kind: EventKind,
        action: EventAction,
    },
}

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    Node(NodeChange),
    Schema,
    /// The client is to leave.
    GracefulDisconnect,
    /// A type, or a change of a node, that is not known.
    Other,
}

label_set! {
    /// What became of an event on its way to one client.
    pub enum EventAction {
        Passed = "passed",
        /// Made by the gateway, which knew first.
        Added = "added",
        /// Waits until the node is announced, or is dead by the gateway's own look.
        Held = "held",
        Swallowed = "swallowed",
    }
}

impl Fact {
    pub(super) fn passed(event: &Event<'_>) -> Self {
        Self::Event { kind: EventKind::of(event), action: EventAction::Passed }
    }

    pub(super) fn event(event: &Event<'_>, outcome: &Outcome) -> Self {
        let action = match outcome {
            Outcome::Tell(_) => EventAction::Passed,
            Outcome::Held | Outcome::Doubted { .. } => EventAction::Held,
            Outcome::Swallowed => EventAction::Swallowed,
        };
        Self::Event { kind: EventKind::of(event), action }
    }
}

impl Label for EventKind {
    fn label(self) -> &'static str {
        match self {
            Self::Node(change) => change.word(),
            Self::Schema => SCHEMA_CHANGE,
            Self::GracefulDisconnect => GRACEFUL_DISCONNECT,
            Self::Other => "other",
        }
    }
}

impl EventKind {
    fn of(event: &Event<'_>) -> Self {
        match event {
            Event::Node { change, .. } => Self::Node(*change),
            Event::Schema { .. } => Self::Schema,
            Event::GracefulDisconnect => Self::GracefulDisconnect,
            Event::OtherNode { .. } | Event::Unknown { .. } => Self::Other,
        }
    }
}
