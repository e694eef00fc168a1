//! Before READY or AUTHENTICATE: whole frames, one at a time, each passed byte for byte, until the node says that a version
//! is established. What was settled by then never changes.
//!
//! Negotiation belongs to the two sides: unknown versions and opcodes pass (native_protocol_v5.spec §2.1; drivers read the
//! node's own error text). Only a version that this crate cannot parse is never established.

use super::graceful_disconnect::Offer;
use super::responses::supported_as_told;
use crate::cql::compression::Compression;
use crate::cql::frame::{Flags, HEADER_LEN, Header, Opcode, Version, encode_frame};
use crate::cql::message::event::GRACEFUL_DISCONNECT;
use crate::cql::message::{self, MessageStart, Startup, claims, error_code};
use crate::cql::session::Session;
use crate::label::label_set;

/// The longest body of a node's before a connection is established: SUPPORTED, or an ERROR.
pub const MAX_SETUP_BODY: u32 = 128 * 1024;
/// The same of a client's: OPTIONS is empty, STARTUP has some hundred bytes.
pub const MAX_CLIENT_BODY: u32 = 16 * 1024;
/// What whoever is not let in is told of a request that claims more than it holds.
pub const ENDS_EARLY: &str = "cqlgate: the frame's body ends before the request in it does";
/// Opcodes of requests are below (native_protocol_v5.spec §2.4); later versions may add some.
const KNOWN_OPCODES: u8 = 0x1f;
/// v1 and v2 had a one-byte stream id (native_protocol_v2.spec §2).
const OLD_HEADER_LEN: usize = 8;

/// What shall happen next.
#[derive(Debug, PartialEq)]
pub enum Next {
    /// Too few bytes; this many, counted from the start, are needed.
    Wait { need: usize },
    /// This many bytes go to the other side.
    Forward(usize),
    /// This many bytes are consumed, these go to the other side.
    Replace(usize, Vec<u8>),
    /// This many bytes go to the client, and the connection is established.
    Established(usize, Settled),
    /// The connection ends; the client gets these bytes first.
    Refuse { why: Refusal, reply: Vec<u8> },
}

/// What the handshake settled.
#[derive(Clone, Debug, PartialEq)]
pub struct Settled {
    pub session: Session,
    pub driver_name: Option<String>,
    pub driver_version: Option<String>,
    pub application_name: Option<String>,
    /// The node asks for a login first.
    pub authenticates: bool,
    /// Whether the client may ask to be told when it is to leave.
    pub offer: Offer,
}

label_set! {
    /// Why a handshake cannot go on.
    pub enum Refusal {
        /// The first bytes are not CQL: a scanner, TLS on a plain port, a load balancer's probe.
        NotCql = "not_cql",
        FrameTooLong = "frame_too_long",
        /// The node agreed to a version or compression that the gateway does not parse.
        Unsupported = "unsupported_version",
        WrongDirection = "wrong_direction",
        /// A body that ends before the request in it does.
        Malformed = "malformed",
    }
}

/// The state of a handshake.
#[derive(Debug, Default)]
pub struct Handshake {
    /// The client's last frame, where it is a STARTUP.
    startup: Option<Pending>,
    /// A first frame was accepted as CQL.
    is_cql: bool,
    /// The client's frame that is with the node.
    asked: Option<Opcode>,
    /// The last one was one that nothing may follow.
    is_last: bool,
    /// Clients are to be offered GRACEFUL_DISCONNECT.
    offers: bool,
    /// The node has said that it knows it.
    node_tells: bool,
    /// How often the node answered with what begins no connection.
    refusals: u8,
}

/// A client that was refused this often is not read again: once, as it may try another version.
const MOST_REFUSALS: u8 = 2;

/// A STARTUP that waits for its answer: what of it is worth keeping.
#[derive(Debug, Default)]
struct Pending {
    version: u8,
    compression: Option<String>,
    driver_name: Option<String>,
    driver_version: Option<String>,
    application_name: Option<String>,
}

impl Pending {
    fn new(version: u8, startup: Option<&Startup<'_>>) -> Self {
        let option = |name| startup.and_then(|startup| startup.get(name)).map(str::to_owned);
        Self {
            version,
            compression: option("COMPRESSION").filter(|name| !name.is_empty()),
            driver_name: option("DRIVER_NAME"),
            driver_version: option("DRIVER_VERSION"),
            application_name: option("APPLICATION_NAME"),
        }
    }
}

impl Handshake {
    /// `offers`: clients are to be offered GRACEFUL_DISCONNECT.
    pub fn new(offers: bool) -> Self {
        Self { offers, ..Self::default() }
    }

    /// The client is not read while a frame of its is unanswered: the answer to STARTUP says how its next bytes are to be read, and
    /// nothing but their order tells which frame an answer is to. Of a frame that is no OPTIONS or STARTUP of a version that is
    /// parsed a node may say several things, and so may it of one that it refuses: after that no request gets past unread.
    pub fn reads_client(&self) -> bool {
        self.asked.is_none() && !self.is_last && self.refusals < MOST_REFUSALS
    }

    /// What shall happen to `bytes` from the client.
    pub fn client(&mut self, bytes: &[u8]) -> Next {
        let Some(header) = AnyHeader::peek(bytes) else {
            return match bytes.first() {
                Some(&first) if !self.is_cql && !is_version(first) => refuse(Refusal::NotCql),
                Some(1 | 2) => Next::Wait { need: OLD_HEADER_LEN },
                _ => Next::Wait { need: HEADER_LEN },
            };
        };
        if !self.is_cql && !header.looks_like_cql() {
            return refuse(Refusal::NotCql);
        }
        if header.version & 0x80 != 0 {
            return refuse(Refusal::WrongDirection);
        }
        if !self.is_cql && header.opcode.0 > KNOWN_OPCODES {
            // In the words of nodes (apache/cassandra `transport/Message.java`).
            let text = format!("Unknown opcode {}", header.opcode.0);
            return Next::Refuse { why: Refusal::NotCql, reply: protocol_error(header, &text) };
        }
        if header.length > MAX_CLIENT_BODY {
            let text =
                format!("Frame body of {} bytes exceeds the maximum of {MAX_CLIENT_BODY} before READY", header.length);
            return Next::Refuse { why: Refusal::FrameTooLong, reply: protocol_error(header, &text) };
        }
        self.is_cql = true;
        let Some(frame) = bytes.get(..header.frame_len()) else {
            return Next::Wait { need: header.frame_len() };
        };
        let body = frame.get(header.len..).unwrap_or_default();
        if !claims::fit(header.version, header.opcode, header.flags, body) {
            return Next::Refuse { why: Refusal::Malformed, reply: protocol_error(header, ENDS_EARLY) };
        }
        self.startup = (header.opcode == Opcode::STARTUP).then(|| {
            let start = MessageStart::of_request().find(header.flags, body).unwrap_or(usize::MAX);
            let startup = Startup::parse(body.get(start..).unwrap_or_default()).ok();
            Pending::new(header.version, startup.as_ref())
        });
        self.asked = Some(header.opcode);
        self.is_last =
            !matches!(header.opcode, Opcode::STARTUP | Opcode::OPTIONS) || Version::from_byte(header.version).is_none();
        Next::Forward(frame.len())
    }

    /// What shall happen to `bytes` from the node.
    pub fn node(&mut self, bytes: &[u8]) -> Next {
        let Some(header) = AnyHeader::peek(bytes) else {
            return Next::Wait { need: HEADER_LEN };
        };
        if header.version & 0x80 == 0 {
            return refuse(Refusal::WrongDirection);
        }
        if header.length > MAX_SETUP_BODY {
            return refuse(Refusal::FrameTooLong);
        }
        let Some(frame) = bytes.get(..header.frame_len()) else {
            return Next::Wait { need: header.frame_len() };
        };
        let body = frame.get(header.len..).unwrap_or_default();
        match header.opcode {
            Opcode::READY | Opcode::AUTHENTICATE => self.established(header, frame.len()),
            Opcode::SUPPORTED => {
                self.asked.take_if(|asked| *asked == Opcode::OPTIONS);
                let offers = self.offers && Version::from_byte(header.version) == Some(Version::V5);
                self.node_tells |=
                    message::Supported::parse(body).is_ok_and(|of| of.get(GRACEFUL_DISCONNECT).is_some());
                match (supported_as_told(body, offers), Header::peek(frame)) {
                    (Some(body), Some(header)) => Next::Replace(frame.len(), encode_frame(header, &body)),
                    _ => Next::Forward(frame.len()),
                }
            }
            // What a node says of v1 and v2 is not told from its header: they had one of eight bytes, and some answer in nine.
            // It passes unlooked, and so nothing may be asked any more.
            _ if header.len == OLD_HEADER_LEN => {
                self.refused();
                self.is_last = true;
                Next::Forward(bytes.len())
            }
            _ => {
                self.refused();
                Next::Forward(frame.len())
            }
        }
    }

    fn refused(&mut self) {
        self.refusals = self.refusals.saturating_add(1);
        self.asked = None;
    }

    fn established(&mut self, header: AnyHeader, len: usize) -> Next {
        // Without a STARTUP there is nothing that READY could be the answer to: no version is 0.
        let startup = self.startup.take().unwrap_or_default();
        let version = Version::from_byte(header.version).filter(|version| version.number() == startup.version);
        let compression = match startup.compression.as_deref().map(Compression::from_name) {
            None => Some(None),
            Some(Some(Compression::Snappy)) if version == Some(Version::V5) => None,
            Some(known) => known.map(Some),
        };
        match (version, compression) {
            (Some(version), Some(compression)) => {
                let session = Session { version, compression };
                let Pending { driver_name, driver_version, application_name, .. } = startup;
                let authenticates = header.opcode == Opcode::AUTHENTICATE;
                let offer = Offer::new(self.offers, version, self.node_tells);
                let settled = Settled { session, driver_name, driver_version, application_name, authenticates, offer };
                Next::Established(len, settled)
            }
            _ => {
                let number = header.version & 0x7f;
                let text = format!(
                    "Invalid or unsupported protocol version ({number}); supported versions are (3/v3, 4/v4, 5/v5)"
                );
                Next::Refuse {
                    why: Refusal::Unsupported,
                    reply: protocol_error(AnyHeader { version: 5, ..header }, &text),
                }
            }
        }
    }
}

/// A header of any version, as far as all agree.
#[derive(Clone, Copy)]
struct AnyHeader {
    version: u8,
    flags: Flags,
    stream: i16,
    opcode: Opcode,
    length: u32,
    /// Of the header itself, in bytes.
    len: usize,
}

impl AnyHeader {
    fn peek(bytes: &[u8]) -> Option<Self> {
        if matches!(bytes.first()? & 0x7f, 1 | 2) {
            let &[version, flags, stream, opcode, l0, l1, l2, l3] = bytes.first_chunk::<OLD_HEADER_LEN>()?;
            let length = u32::from_be_bytes([l0, l1, l2, l3]);
            let stream = i16::from(stream as i8);
            return Some(Self {
                version,
                flags: Flags(flags),
                stream,
                opcode: Opcode(opcode),
                length,
                len: OLD_HEADER_LEN,
            });
        }
        let Header { version, flags, stream, opcode, length } = Header::peek(bytes)?;
        Some(Self { version, flags, stream, opcode, length, len: HEADER_LEN })
    }

    /// Header and body; the length was compared with its limit.
    fn frame_len(self) -> usize {
        self.len + self.length as usize
    }

    /// True for anything a driver may open with. Versions that nobody parses yet are believed when they ask for OPTIONS or
    /// STARTUP with a short body; HTTP, TLS and SSH do not.
    fn looks_like_cql(self) -> bool {
        let opens = matches!(self.opcode, Opcode::OPTIONS | Opcode::STARTUP) && self.length <= MAX_CLIENT_BODY;
        match self.version {
            0 => false,
            3..=5 => true,
            6 => self.opcode.0 <= KNOWN_OPCODES,
            _ => opens,
        }
    }
}

/// True for a first byte that a request can have: v1 to v15, or DSE's 0x41 and up, tried by drivers on their way down.
fn is_version(first: u8) -> bool {
    first & 0x80 == 0 && first != 0
}

fn refuse(why: Refusal) -> Next {
    Next::Refuse { why, reply: Vec::new() }
}

/// ERROR 0x0100 in answer to the client's first frame (native_protocol_v5.spec §8).
pub fn bad_credentials(frame: &[u8], text: &str) -> Vec<u8> {
    AnyHeader::peek(frame).map(|header| error(header, error_code::BAD_CREDENTIALS, text)).unwrap_or_default()
}

/// ERROR 0x000A on the client's stream.
fn protocol_error(header: AnyHeader, text: &str) -> Vec<u8> {
    error(header, error_code::PROTOCOL_ERROR, text)
}

/// On the client's stream, in a version that it can read.
fn error(header: AnyHeader, code: i32, text: &str) -> Vec<u8> {
    let version = Version::from_byte(header.version).unwrap_or(Version::V5);
    let header = Header {
        version: version.number() | 0x80,
        flags: Flags::default(),
        stream: header.stream,
        opcode: Opcode::ERROR,
        length: 0,
    };
    encode_frame(header, &message::Error { code, message: text }.encode())
}

#[cfg(test)]
mod tests;
