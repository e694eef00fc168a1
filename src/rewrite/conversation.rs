//! One established connection: two walks, two judges, and what both directions know. The relay asks it what shall happen to the
//! next bytes of either side.

use std::sync::Arc;

use super::exchange::Exchange;
pub use super::exchange::{Client, Surroundings};
pub use super::fact::{EventAction, EventKind, Fact};
use super::graceful_disconnect::Offer;
use super::requests::{RequestJudge, Requests};
use super::responses::{ResponseJudge, Responses};
use super::schema_changes::SchemaChanges;
use super::walk::Judge;
use super::walk::frames::FrameWalk;
use super::walk::rebuilt::in_segments;
use super::walk::segments::SegmentWalk;
use super::{Step, Work};
use crate::cql::frame::{EVENT_STREAM, Flags, Header, Opcode, Version, encode_frame};
use crate::cql::message::Event;
use crate::cql::segment::Layout;
use crate::cql::session::Session;
use crate::topology::Topology;

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

    fn step<J: Judge>(&mut self, judge: &mut J, bytes: &[u8], work: &mut Work<'_>) -> Step {
        match self {
            Self::Frames(walk) => walk.step(judge, bytes, work),
            Self::Segments(walk) => walk.step(judge, bytes, work),
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

/// The state of one connection after its handshake. It does no I/O and holds no bytes but those of a frame that is not decided.
pub struct Conversation {
    request_walk: Walk,
    response_walk: Walk,
    requests: Requests,
    responses: Responses,
    exchange: Exchange,
}

impl Conversation {
    pub fn new(client: Client, around: Arc<Surroundings>) -> Self {
        Self {
            request_walk: Walk::new(client.session),
            response_walk: Walk::new(client.session),
            requests: Requests::default(),
            responses: Responses::default(),
            exchange: Exchange::new(client, around),
        }
    }

    /// The client may ask to be told when it is to leave.
    pub fn offering(mut self, offer: Offer) -> Self {
        self.exchange.offer = offer;
        self
    }

    /// Changes of the schema are kept until they are told.
    pub fn telling_schema_changes_late(mut self) -> Self {
        self.exchange.schema_changes = Some(Box::default());
        self
    }

    /// What shall happen to the next bytes from the client.
    pub fn request(&mut self, bytes: &[u8], work: &mut Work<'_>) -> Step {
        let mut judge = RequestJudge { requests: &mut self.requests, exchange: &mut self.exchange };
        self.request_walk.step(&mut judge, bytes, work)
    }

    /// What shall happen to the next bytes from the node.
    pub fn response(&mut self, bytes: &[u8], work: &mut Work<'_>) -> Step {
        let mut judge = ResponseJudge { responses: &mut self.responses, exchange: &mut self.exchange };
        self.response_walk.step(&mut judge, bytes, work)
    }

    /// The events that the gateway itself tells after a change of the topology, ready for the wire. To be asked only between
    /// two frames (`responses_at_boundary`).
    pub fn announce(&mut self, topology: &Topology) -> Vec<u8> {
        let Exchange { client, control, facts, .. } = &mut self.exchange;
        let Some(control) = control.as_deref_mut().filter(|control| control.registration.in_force().any()) else {
            return Vec::new();
        };
        let events = control.announcer.on_topology(control.registration.in_force(), topology, client);
        let mut frames = Vec::new();
        for (change, address) in events {
            facts.push(Fact::Event { kind: EventKind::Node(change), action: EventAction::Added });
            let event = Event::Node { change, address };
            frames.extend_from_slice(&event_frame(client.session.version, &event));
        }
        match client.session.version {
            Version::V5 if !frames.is_empty() => in_segments(&frames, Layout::of(client.session.compression)),
            _ => frames,
        }
    }

    /// The client asked to be told when it is to leave.
    pub fn hears_farewell(&self) -> bool {
        self.exchange.control.as_ref().is_some_and(|control| control.registration.in_force().graceful_disconnect)
    }

    /// What tells it, ready for the wire; to be asked as [`Conversation::announce`] is.
    pub fn farewell(&mut self) -> Vec<u8> {
        let Exchange { client, facts, .. } = &mut self.exchange;
        facts.push(Fact::Event { kind: EventKind::GracefulDisconnect, action: EventAction::Added });
        let frame = event_frame(client.session.version, &Event::GracefulDisconnect);
        in_segments(&frame, Layout::of(client.session.compression))
    }

    /// The path by which the client came.
    pub fn path(&self) -> &Arc<str> {
        &self.exchange.client.path
    }

    /// Changes of the schema that are kept, and their bytes.
    #[inline]
    pub fn schema_changes_kept(&self) -> (usize, usize) {
        let kept = self.exchange.schema_changes.as_deref();
        kept.map_or((0, 0), |changes| (changes.len(), changes.bytes()))
    }

    /// The `count` oldest of them, ready for the wire; to be asked as [`Conversation::announce`] is.
    pub fn tell_schema_changes(&mut self, count: usize) -> Vec<u8> {
        let mut frames = Vec::new();
        for _ in 0..count {
            let Some((header, frame)) = self.exchange.schema_changes.as_deref_mut().and_then(SchemaChanges::take)
            else {
                break;
            };
            if header.opcode == Opcode::EVENT {
                self.exchange.facts.push(Fact::Event { kind: EventKind::Schema, action: EventAction::Passed });
            } else {
                self.exchange.answer(header);
            }
            frames.extend_from_slice(&frame);
        }
        let session = self.exchange.client.session;
        match session.version {
            Version::V5 if !frames.is_empty() => in_segments(&frames, Layout::of(session.compression)),
            _ => frames,
        }
    }

    /// True once the node lets the client hear of nodes.
    pub fn is_control(&self) -> bool {
        self.exchange.control.as_ref().is_some_and(|control| control.registration.in_force().any())
    }

    /// The client may log in; see [`super::Then::Login`].
    pub fn let_in(&mut self) {
        self.exchange.let_in = true;
    }

    /// The node asked for no login, or let the client in.
    pub fn is_logged_in(&self) -> bool {
        self.exchange.client.logged_in
    }

    /// Requests that are not answered yet; those on negative streams are not counted, nodes do not answer them.
    pub fn in_flight(&self) -> u64 {
        self.exchange.streams.in_flight()
    }

    /// Requests sent and answers received so far.
    pub fn counts(&self) -> (u64, u64) {
        (self.exchange.sent, self.exchange.answered)
    }

    pub fn requests_at_boundary(&self) -> bool {
        self.request_walk.at_boundary()
    }

    pub fn responses_at_boundary(&self) -> bool {
        self.response_walk.at_boundary()
    }

    /// Bytes that are held here for a request that is not decided.
    pub fn requests_held(&self) -> usize {
        self.request_walk.held_bytes() + self.requests.held_bytes()
    }

    /// Bytes that are held here for a response that is not decided.
    pub fn responses_held(&self) -> usize {
        self.response_walk.held_bytes() + self.responses.held_bytes()
    }

    /// Takes what happened since the last call.
    pub fn take_facts(&mut self) -> Vec<Fact> {
        std::mem::take(&mut self.exchange.facts)
    }

    pub fn has_facts(&self) -> bool {
        !self.exchange.facts.is_empty()
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

#[cfg(test)]
mod tests;
