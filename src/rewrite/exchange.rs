//! What both directions of one connection know.

use std::sync::Arc;

use super::events::Announcer;
use super::fact::Fact;
use super::graceful_disconnect::Offer;
use super::registration::Registration;
use super::schema_changes::SchemaChanges;
use super::statements::{OrdinaryStatements, StatementId};
use super::streams::{Answer, Note, Streams};
use super::view::View;
use super::view::drivers::Injection;
use super::walk::rebuilt::in_segments;
use crate::config;
use crate::cql::frame::{EVENT_STREAM, Flags, Header, Opcode, Version, encode_frame};
use crate::cql::message::{self, error_code};
use crate::cql::segment::Layout;
use crate::cql::session::Session;
use crate::topology::{Family, Topology};

/// What all connections share.
pub struct Surroundings {
    /// The present snapshot.
    pub topology: Box<dyn Fn() -> Arc<Topology> + Send + Sync>,
    /// Shared by all that are made while the process lives.
    pub statements: Arc<OrdinaryStatements>,
    /// The longest body that passes, in bytes.
    pub max_body: u32,
    /// The longest frame that is held, in bytes.
    pub held_frame: usize,
    /// What becomes of rows and events of nodes that this gateway does not serve.
    pub unserved: config::Unserved,
    /// Off only in test builds, to show what a check says without it.
    pub rewriting: bool,
}

/// Who is talking: what the handshake and the accepted port settled.
#[derive(Clone)]
pub struct Client {
    pub session: Session,
    pub view: &'static dyn View,
    /// The port, and so the node, that this connection is attached to.
    pub attached: u16,
    /// The path by which it came: what it is told to dial.
    pub path: Arc<str>,
    /// Over what it came: that chooses the advertised address.
    pub family: Family,
    /// The columns that the driver profits from.
    pub injection: Injection,
    /// The node asked for no login, or let the client in.
    pub logged_in: bool,
}

/// One connection, as both directions see it.
pub struct Exchange {
    pub client: Client,
    pub around: Arc<Surroundings>,
    pub streams: Streams,
    /// Whether the client may ask to be told when it is to leave.
    pub offer: Offer,
    /// Of a client that sent REGISTER.
    pub control: Option<Box<Control>>,
    /// Where changes of the schema are told late.
    pub schema_changes: Option<Box<SchemaChanges>>,
    pub facts: Vec<Fact>,
    /// The client's next login may pass.
    pub let_in: bool,
    pub sent: u64,
    pub answered: u64,
}

/// What a client is told of nodes.
#[derive(Debug, Default)]
pub struct Control {
    pub registration: Registration,
    pub announcer: Announcer,
}

impl Exchange {
    pub fn new(client: Client, around: Arc<Surroundings>) -> Self {
        Self {
            client,
            around,
            streams: Streams::default(),
            offer: Offer::default(),
            control: None,
            schema_changes: None,
            facts: Vec::new(),
            let_in: false,
            sent: 0,
            answered: 0,
        }
    }

    /// A request goes to the node.
    pub fn ask(&mut self, header: Header, note: Note) {
        self.sent += 1;
        self.streams.ask(header.stream, note);
    }

    /// An EXECUTE of a statement goes to the node whose answer shall describe it.
    pub fn ask_to_describe(&mut self, header: Header, statement: StatementId) {
        self.sent += 1;
        self.streams.describe(header.stream, statement);
    }

    /// An answer comes from the node.
    pub fn answer(&mut self, header: Header) -> Answer {
        if header.stream >= 0 {
            self.answered += 1;
        }
        self.streams.answer(header.stream)
    }

    /// Whether this frame of the node's, which tells of a change of the schema, is to be told late.
    pub fn tells_late(&mut self, header: Header) -> bool {
        let Some(changes) = self.schema_changes.as_deref() else { return false };
        let length = usize::try_from(header.frame_len()).unwrap_or(usize::MAX);
        let may_be_kept = length <= self.around.held_frame && changes.has_room(length);
        if !may_be_kept {
            self.facts.push(Fact::ToldAtOnce);
        }
        may_be_kept
    }

    /// Keeps it. It is not answered before it is told.
    pub fn keep_schema_change(&mut self, header: Header, body: &[u8]) {
        if let Some(changes) = &mut self.schema_changes {
            changes.keep(header, body);
        }
    }

    /// ERROR 0x000A on the stream of the client's frame, ready for an established connection's wire.
    pub fn protocol_error(&self, header: Header, text: &str) -> Vec<u8> {
        let session = self.client.session;
        let stream = if header.stream == EVENT_STREAM { 0 } else { header.stream };
        let header = Header {
            version: session.version.number() | 0x80,
            flags: Flags::default(),
            stream,
            opcode: Opcode::ERROR,
            length: 0,
        };
        let error = message::Error { code: error_code::PROTOCOL_ERROR, message: text };
        let frame = encode_frame(header, &error.encode());
        match session.version {
            Version::V5 => in_segments(&frame, Layout::of(session.compression)),
            Version::V3 | Version::V4 => frame,
        }
    }
}
