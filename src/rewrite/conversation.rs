//! One established connection: two scanners that share a few notes. The relay asks it what shall happen to the next bytes
//! of either side.

use std::net::IpAddr;
use std::sync::Arc;

use super::events::{Announcer, Outcome, RegisteredTypes};
use super::requests::Requests;
use super::responses::{Responses, told_as};
use super::statements::OrdinaryStatements;
use super::streams::Streams;
use super::system_tables::{Report, Unrewritable};
use super::view::View;
use super::view::drivers::Injection;
use super::walk::frames::FrameWalk;
use super::walk::segments::{self, SegmentWalk};
use super::{Step, Work};
use crate::cql::frame::{EVENT_STREAM, Flags, Header, Opcode, Version, encode_frame};
use crate::cql::message::{self, Event, NodeChange};
use crate::cql::segment::Layout;
use crate::cql::session::Session;
use crate::topology::Topology;

/// What all connections share.
pub struct Surroundings {
    /// The present snapshot.
    pub topology: Box<dyn Fn() -> Arc<Topology> + Send + Sync>,
    pub statements: OrdinaryStatements,
    /// The longest body that passes, in bytes.
    pub max_body: u32,
    /// The longest frame that is held, in bytes.
    pub held_frame: usize,
    /// Off only in test builds, to show what a check says without it.
    pub rewriting: bool,
}

/// Something worth counting, or worth telling the topology.
#[derive(Debug)]
pub enum Fact {
    /// A system table's answer was looked at.
    Rewrote {
        report: Box<Report>,
        /// Its columns are what they are called, so what it says of nodes can be learned.
        plain: bool,
    },
    Unrewritable(Unrewritable),
    /// The node let the client in.
    LoggedIn,
    /// The node refused the client's login, with this error code.
    LoginRefused {
        code: i32,
    },
    /// An EXECUTE's Skip_metadata was cleared.
    Redescribed,
    /// The client registered for events: this is a control connection.
    Registered(RegisteredTypes),
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
    /// A type, or a change of a node, that is not known.
    Other,
}

/// What became of an event on its way to one client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventAction {
    Passed,
    Added,
    Held,
    Swallowed,
}

impl Fact {
    pub(super) fn passed(event: &Event<'_>) -> Self {
        Self::Event { kind: EventKind::of(event), action: EventAction::Passed }
    }

    pub(super) fn event(event: &Event<'_>, outcome: &Outcome) -> Self {
        let action = match outcome {
            Outcome::Tell(_) => EventAction::Passed,
            Outcome::Held => EventAction::Held,
            Outcome::Swallowed => EventAction::Swallowed,
        };
        Self::Event { kind: EventKind::of(event), action }
    }
}

impl EventKind {
    fn of(event: &Event<'_>) -> Self {
        match event {
            Event::Node { change, .. } => Self::Node(*change),
            Event::Schema { .. } => Self::Schema,
            Event::OtherNode { .. } | Event::Unknown { .. } => Self::Other,
        }
    }
}

/// Who is talking: what the handshake and the accepted port settled.
#[derive(Clone)]
pub struct Client {
    pub session: Session,
    pub view: &'static dyn View,
    /// The port, and so the node, that this connection is attached to.
    pub attached: u16,
    /// The local address that the client connected to: its family chooses the advertised one.
    pub family: IpAddr,
    /// The columns that the driver profits from.
    pub injection: Injection,
    /// The node asked for no login.
    pub logged_in: bool,
}

/// One direction's walk.
enum Walk {
    Frames(FrameWalk),
    Segments(SegmentWalk),
}

impl Walk {
    fn new(session: Session) -> Self {
        match session.version {
            Version::V5 => Self::Segments(SegmentWalk::new(Layout::of(session.compression))),
            Version::V3 | Version::V4 => Self::Frames(FrameWalk::default()),
        }
    }

    fn at_boundary(&self) -> bool {
        match self {
            Self::Frames(walk) => walk.at_boundary(),
            Self::Segments(walk) => walk.at_boundary(),
        }
    }

    fn held_bytes(&self) -> usize {
        match self {
            Self::Frames(_) => 0,
            Self::Segments(walk) => walk.held_bytes(),
        }
    }
}

/// The state of one connection after its handshake. It does no I/O and holds no bytes but those of a frame that must change.
pub struct Conversation {
    client: Client,
    around: Arc<Surroundings>,
    requests: Walk,
    responses: Walk,
    streams: Streams,
    announcer: Option<Box<Announcer>>,
    facts: Vec<Fact>,
    sent: u64,
    answered: u64,
}

impl Conversation {
    pub fn new(client: Client, around: Arc<Surroundings>) -> Self {
        Self {
            requests: Walk::new(client.session),
            responses: Walk::new(client.session),
            client,
            around,
            streams: Streams::default(),
            announcer: None,
            facts: Vec::new(),
            sent: 0,
            answered: 0,
        }
    }

    /// What shall happen to the next bytes from the client.
    pub fn request(&mut self, bytes: &[u8], work: &mut Work<'_>) -> Step {
        let mut judge = Requests {
            session: self.client.session,
            around: &self.around,
            streams: &mut self.streams,
            facts: &mut self.facts,
            sent: &mut self.sent,
            answered: self.answered,
            notes_queries: self.client.injection.any(),
        };
        let step = match &mut self.requests {
            Walk::Frames(walk) => walk.step(&mut judge, bytes),
            Walk::Segments(walk) => walk.step(&mut judge, bytes, work.scratch),
        };
        if let Some(Fact::Registered(types)) = self.facts.last() {
            let topology = (self.around.topology)();
            let announcer = self.announcer.get_or_insert_default();
            announcer.register(*types, &topology);
        }
        step
    }

    /// What shall happen to the next bytes from the node.
    pub fn response(&mut self, bytes: &[u8], work: &mut Work<'_>) -> Step {
        let mut judge = Responses {
            session: self.client.session,
            around: &self.around,
            view: self.client.view,
            attached: self.client.attached,
            family: self.client.family,
            injection: self.client.injection,
            streams: &mut self.streams,
            announcer: self.announcer.as_deref_mut(),
            facts: &mut self.facts,
            answered: &mut self.answered,
        };
        match &mut self.responses {
            Walk::Frames(walk) => walk.step(&mut judge, bytes),
            Walk::Segments(walk) => walk.step(&mut judge, bytes, work.scratch),
        }
    }

    /// The events that the gateway itself tells after a change of the topology, ready for the wire. To be asked only between
    /// two frames (`responses_at_boundary`).
    pub fn announce(&mut self, topology: &Topology) -> Vec<u8> {
        let Some(announcer) = &mut self.announcer else { return Vec::new() };
        let Some(advertised) = topology.advertised.for_family(self.client.family) else { return Vec::new() };
        let events = announcer.on_topology(topology, told_as(self.client.view, self.client.attached, advertised));
        let mut frames = Vec::new();
        for (change, address) in events {
            self.facts.push(Fact::Event { kind: EventKind::Node(change), action: EventAction::Added });
            let event = Event::Node { change, address };
            frames.extend_from_slice(&event_frame(self.client.session.version, &event));
        }
        match self.client.session.version {
            Version::V5 if !frames.is_empty() => {
                segments::in_segments(&frames, Layout::of(self.client.session.compression))
            }
            _ => frames,
        }
    }

    /// True once the client registered for events.
    pub fn is_control(&self) -> bool {
        self.announcer.is_some()
    }

    /// The client may log in; see [`super::Then::Login`].
    pub fn let_in(&mut self) {}

    /// Requests that are not answered yet.
    pub fn in_flight(&self) -> u64 {
        self.sent.saturating_sub(self.answered)
    }

    /// Requests sent and answers received so far.
    pub fn counts(&self) -> (u64, u64) {
        (self.sent, self.answered)
    }

    pub fn requests_at_boundary(&self) -> bool {
        self.requests.at_boundary()
    }

    pub fn responses_at_boundary(&self) -> bool {
        self.responses.at_boundary()
    }

    /// Bytes that are, or will be, held for a request that spans segments.
    pub fn requests_held(&self) -> usize {
        self.requests.held_bytes()
    }

    /// Bytes that are, or will be, held for a response that spans segments.
    pub fn responses_held(&self) -> usize {
        self.responses.held_bytes()
    }

    /// Takes what happened since the last call.
    pub fn take_facts(&mut self) -> Vec<Fact> {
        std::mem::take(&mut self.facts)
    }

    pub fn has_facts(&self) -> bool {
        !self.facts.is_empty()
    }
}

fn event_frame(version: Version, event: &Event<'_>) -> Vec<u8> {
    let header = Header {
        version: version.number() | 0x80,
        flags: Flags::default(),
        stream: EVENT_STREAM,
        opcode: Opcode::EVENT,
        length: 0,
    };
    encode_frame(header, &event.encode())
}

/// An ERROR made by the gateway, ready for an established connection's wire.
pub(super) fn error_frame(session: Session, stream: i16, code: i32, text: &str) -> Vec<u8> {
    let header = Header {
        version: session.version.number() | 0x80,
        flags: Flags::default(),
        stream,
        opcode: Opcode::ERROR,
        length: 0,
    };
    let frame = encode_frame(header, &message::Error { code, message: text }.encode());
    match session.version {
        Version::V5 => segments::in_segments(&frame, Layout::of(session.compression)),
        Version::V3 | Version::V4 => frame,
    }
}

#[cfg(test)]
mod tests;
