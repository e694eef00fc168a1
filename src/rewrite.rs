//! Meaning: cql × topology. Bytes in, decision out; no I/O, no clock, no logging above trace.
//!
//! One question drives the data path: *what shall happen to the next bytes?* The relay knows no CQL; it asks
//! [`Conversation::request`] or [`Conversation::response`], writes what the [`Step`] says, advances, and reads again.
//!
//! ```text
//! relay ── bytes ──▶ walk::{frames, segments} ── one frame ──▶ requests / responses ── Verdict ──▶ Step
//! ```
//!
//! Most frames cost a nine-byte look and are never held: a large one streams through while it still arrives. Only a frame
//! that must change is held whole, up to a cap.

pub mod conversation;
pub mod events;
pub mod exchange;
pub mod fact;
pub mod graceful_disconnect;
pub mod handshake;
mod kept_nodes;
pub mod plain_selection;
pub mod registration;
pub mod requests;
pub mod responses;
pub mod schema_changes;
mod statement;
pub mod statements;
pub mod streams;
pub mod system_tables;
pub mod view;
pub mod walk;
pub mod work;

pub use conversation::Conversation;
pub use exchange::{Client, Surroundings};
pub use fact::Fact;
pub use work::Work;

use crate::label::label_set;

/// What shall happen to the next bytes: `pass` of them go on as they are, and then this.
#[derive(Debug, PartialEq, Eq)]
pub struct Step {
    pub pass: usize,
    pub then: Then,
}

/// What follows the bytes that pass.
#[derive(Debug, PartialEq, Eq)]
pub enum Then {
    /// Nothing more can be decided before this many bytes (counted behind those that pass) are there.
    Wait { need: usize },
    /// The work of this turn is used up: others are due, then the same undecided bytes are asked about again, also when they
    /// are none.
    Yield,
    /// This many bytes are consumed, `made` goes out in their place; then the rest is asked about.
    Replace { consumed: usize, made: Vec<u8> },
    /// The client asks to be let in; nothing is consumed. Ask again after [`Conversation::let_in`].
    Login(Login),
    /// The connection ends.
    Fail(Failure),
}

/// Who asks to be let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// The name in SASL PLAIN; `None` where the mechanism is another. The password is not kept.
    pub user: Option<String>,
}

/// Why a conversation cannot go on, and the last frame that the client gets.
#[derive(Debug, PartialEq, Eq)]
pub struct Failure {
    pub why: Why,
    /// The protocol's own error for the client, ready for the wire.
    pub reply: Option<Vec<u8>>,
}

impl From<Why> for Failure {
    fn from(why: Why) -> Self {
        Self { why, reply: None }
    }
}

label_set! {
    /// Why a conversation cannot go on.
    pub enum Why {
        /// A body longer than the configured limit.
        FrameTooLong = "frame_too_long",
        /// A frame that must change is longer than the cap for held frames.
        HeldFrameTooLong = "held_frame_too_long",
        /// A v5 segment header whose CRC24 is wrong: the stream cannot be trusted any more.
        HeaderChecksum = "segment_header_checksum",
        /// A v5 segment from the node whose CRC32 is wrong.
        PayloadChecksum = "segment_payload_checksum",
        /// Bytes that no frame or segment can be made of.
        Malformed = "malformed",
        /// A response bit in a request, or none in a response.
        WrongDirection = "wrong_direction",
        /// A request in another version than the handshake settled.
        VersionChanged = "version_changed",
        /// A compressed body or segment that does not decompress.
        Compression = "compression",
        /// A system table's answer that cannot be rewritten; the raw bytes would show an internal address.
        Unrewritable = "unrewritable",
        /// A node answered without metadata although it was asked for.
        MetadataMissing = "metadata_missing",
    }
}
