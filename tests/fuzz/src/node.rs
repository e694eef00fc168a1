//! A node that reads as Cassandra does, from a connection's first byte: what it was asked for it answers later, in any order.

use std::collections::VecDeque;

use cqlgate::cql::compression::Compression;
use cqlgate::cql::frame::{Flags, HEADER_LEN, Header, Opcode, Version, encode_frame};
use cqlgate::cql::message::{Event, NodeChange, Startup};
use cqlgate::cql::primitives::{Reader, Value, Writer};
use cqlgate::cql::segment::{Layout, SegmentHeader, append_frame, append_lz4_segment};
use cqlgate::cql::session::Session;

use crate::{Choices, SECRET};

pub const TEXTS: [&str; 5] = [
    "SELECT * FROM system.peers_v2",
    "SELECT * FROM system.local",
    "SELECT * FROM ks.t",
    "USE ks",
    "SELECT schema_version AS host_id FROM system.local",
];
/// Skip_metadata of QUERY and EXECUTE (native_protocol_v5.spec §4.1.4).
pub const SKIP: u8 = 0x02;
const LONGEST: usize = 1 << 20;
/// PROTOCOL_ERROR without words.
const REFUSED: [u8; 6] = [0, 0, 0, 10, 0, 0];

/// What a statement is, by its place in [`TEXTS`]; its id is that many times the same byte.
pub type Statement = usize;

pub fn id(statement: Statement) -> [u8; 16] {
    [0xa0 + statement as u8; 16]
}

/// Frames as they arrive at one side.
#[derive(Default)]
pub struct Incoming {
    wire: Vec<u8>,
    /// Of v5: what the segments held.
    frames: Vec<u8>,
}

impl Incoming {
    pub fn push(&mut self, bytes: &[u8]) {
        self.wire.extend_from_slice(bytes);
    }

    pub fn wire(&self) -> &[u8] {
        &self.wire
    }

    pub fn clear(&mut self) {
        self.wire.clear();
    }

    /// The next whole frame of a session.
    pub fn next(&mut self, session: Session) -> Option<(Header, Vec<u8>)> {
        if session.version != Version::V5 {
            return whole(&mut self.wire);
        }
        let layout = Layout::of(session.compression);
        while let Ok(Some(header)) = SegmentHeader::peek(layout, &self.wire) {
            if self.wire.len() < header.segment_len() {
                break;
            }
            let mut content = vec![0; header.content_len()];
            let payload = header.payload(&self.wire).expect("a whole segment");
            header.decompress(payload, &mut content).expect("decompresses");
            self.frames.extend(content);
            self.wire.drain(..header.segment_len());
        }
        whole(&mut self.frames)
    }

    /// The next before there is a session: frames of any version, those of the first two with their shorter header.
    fn next_of_any(&mut self) -> Option<(Header, Vec<u8>)> {
        if !matches!(self.wire.first()?, 1 | 2) {
            return whole(&mut self.wire);
        }
        let &[version, flags, stream, opcode, l0, l1, l2, l3] = self.wire.first_chunk::<8>()?;
        let length = u32::from_be_bytes([l0, l1, l2, l3]);
        let header = Header { version, flags: Flags(flags), stream: i16::from(stream), opcode: Opcode(opcode), length };
        let body = self.wire.get(8..8 + length as usize)?.to_vec();
        self.wire.drain(..8 + length as usize);
        Some((header, body))
    }
}

fn whole(bytes: &mut Vec<u8>) -> Option<(Header, Vec<u8>)> {
    let header = Header::peek(bytes)?;
    let end = HEADER_LEN + header.length as usize;
    let body = bytes.get(HEADER_LEN..end)?.to_vec();
    bytes.drain(..end);
    Some((header, body))
}

/// A frame as it is written in a session; `compressed` where v5 leaves the choice.
pub fn on_wire(session: Session, frame: &[u8], compressed: bool) -> Vec<u8> {
    if session.version != Version::V5 {
        return frame.to_vec();
    }
    let mut out = Vec::new();
    match Layout::of(session.compression) {
        Layout::Lz4 if compressed => append_lz4_segment(&mut out, true, frame),
        layout => append_frame(&mut out, layout, frame),
    }
    out
}

/// The node's end of a connection.
pub struct Node {
    incoming: Incoming,
    /// What was agreed to.
    session: Option<Session>,
    /// Whether a client must log in, and whether this one has.
    asks_login: bool,
    logged_in: bool,
    /// What it says before the client may ask for rows, in order: it answers each frame as it reads it.
    setup: VecDeque<Vec<u8>>,
    /// Answers that it owes on a stream.
    owed: Vec<(i16, Opcode, Vec<u8>)>,
}

impl Node {
    /// One that has said READY already.
    pub fn established(session: Session) -> Self {
        Self { session: Some(session), ..Self::listening(false) }
    }

    pub fn listening(asks_login: bool) -> Self {
        Self {
            incoming: Incoming::default(),
            session: None,
            asks_login,
            logged_in: !asks_login,
            setup: VecDeque::new(),
            owed: Vec::new(),
        }
    }

    pub fn session(&self) -> Option<Session> {
        self.session
    }

    pub fn owes(&self) -> bool {
        !self.setup.is_empty() || !self.owed.is_empty()
    }

    /// Reads what came as Cassandra does: the COMPRESSION flag means nothing where no compression was agreed on.
    pub fn read(&mut self, bytes: &[u8]) {
        self.incoming.push(bytes);
        loop {
            let Some(session) = self.session else {
                let Some((header, body)) = self.incoming.next_of_any() else { return };
                self.set_up(header, &body);
                continue;
            };
            let Some((header, mut body)) = self.incoming.next(session) else { return };
            if let Some(compression) = session.compression.filter(|_| session.is_compressed(header)) {
                let Ok(decompressed) = compression.decompress(&body, LONGEST) else { continue };
                body = decompressed;
            }
            if header.stream >= 0 {
                let (opcode, body) = if self.logged_in {
                    answer_to(session.version, header, &body).unwrap_or((Opcode::ERROR, REFUSED.to_vec()))
                } else if header.opcode == Opcode::AUTH_RESPONSE {
                    self.logged_in = true;
                    (Opcode::AUTH_SUCCESS, vec![0xff; 4])
                } else {
                    (Opcode::ERROR, REFUSED.to_vec())
                };
                self.owed.push((header.stream, opcode, body));
            }
        }
    }

    /// A frame before READY. Of what it does not know, or not yet, it may say several things.
    fn set_up(&mut self, header: Header, body: &[u8]) {
        let known = Version::from_byte(header.version);
        let version = known.unwrap_or(Version::V5).number() | 0x80;
        let mut say = |opcode, body: &[u8]| {
            let header = Header { version, flags: Flags(0), stream: header.stream, opcode, length: 0 };
            self.setup.push_back(encode_frame(header, body));
        };
        match (known, header.opcode) {
            (Some(_), Opcode::OPTIONS) => say(Opcode::SUPPORTED, &[0, 0]),
            (Some(version), Opcode::STARTUP) => match Startup::parse(body).ok().map(|startup| agreed(version, &startup)) {
                Some(Some(session)) => {
                    self.session = Some(session);
                    match self.asks_login {
                        true => say(Opcode::AUTHENTICATE, b"\0\x01a"),
                        false => say(Opcode::READY, &[]),
                    }
                }
                _ => say(Opcode::ERROR, &REFUSED),
            },
            _ => (0..1 + header.stream % 4).for_each(|_| say(Opcode::ERROR, &REFUSED)),
        }
    }

    /// The bytes of one of the answers that it owes.
    pub fn answer(&mut self, choices: &mut Choices<'_>) -> Option<(Vec<u8>, u8)> {
        if let Some(early) = self.setup.pop_front() {
            return Some((early, choices.byte()));
        }
        if self.owed.is_empty() {
            return None;
        }
        let which = usize::from(choices.byte()) % self.owed.len();
        let (stream, opcode, body) = self.owed.remove(which);
        self.say(stream, opcode, body, choices.byte())
    }

    /// An event about another node.
    pub fn event(&self, choices: &mut Choices<'_>) -> Option<(Vec<u8>, u8)> {
        if !self.setup.is_empty() || !self.logged_in {
            return None;
        }
        let change = choices.one_of(&[NodeChange::Up, NodeChange::Down, NodeChange::NewNode, NodeChange::RemovedNode]);
        let port = 9000 + u16::from(choices.byte() % 4);
        let event = Event::Node { change, address: (SECRET, port).into() };
        self.say(-1, Opcode::EVENT, event.encode(), choices.byte())
    }

    fn say(&self, stream: i16, opcode: Opcode, mut body: Vec<u8>, how: u8) -> Option<(Vec<u8>, u8)> {
        let session = self.session?;
        let mut flags = 0;
        if how & 1 == 1 && opcode == Opcode::RESULT {
            flags |= Flags::WARNING;
            body = [&[0, 1, 0, 1, b'w'][..], &body].concat();
        }
        if let Some(compression) = session.compression.filter(|_| session.version != Version::V5 && how & 2 == 0) {
            flags |= Flags::COMPRESSION;
            body = compression.compress(&body).unwrap_or_default();
        }
        let header =
            Header { version: session.version.number() | 0x80, flags: Flags(flags), stream, opcode, length: 0 };
        Some((on_wire(session, &encode_frame(header, &body), how & 4 != 0), how))
    }
}

fn agreed(version: Version, startup: &Startup<'_>) -> Option<Session> {
    let compression = match startup.get("COMPRESSION") {
        None | Some("") => None,
        Some(name) => Some(Compression::from_name(name)?),
    };
    (version != Version::V5 || compression != Some(Compression::Snappy)).then_some(Session { version, compression })
}

fn answer_to(version: Version, header: Header, body: &[u8]) -> Option<(Opcode, Vec<u8>)> {
    let mut reader = Reader::new(body);
    if header.flags.has(Flags::CUSTOM_PAYLOAD) {
        reader.skip_bytes_map("payload").ok()?;
    }
    let flags = |reader: &mut Reader<'_>| {
        reader.u16("consistency").ok()?;
        match version {
            Version::V5 => reader.u32("flags").ok().map(|flags| flags as u8),
            _ => reader.u8("flags").ok(),
        }
    };
    match header.opcode {
        Opcode::QUERY => {
            let text = reader.long_string("text").ok()?;
            let statement = TEXTS.iter().position(|known| known.as_bytes() == text)?;
            Some((Opcode::RESULT, rows(statement, flags(&mut reader)? & SKIP != 0)))
        }
        Opcode::EXECUTE => {
            let found = reader.short_bytes("id").ok()?.to_vec();
            if version == Version::V5 {
                reader.short_bytes("metadata id").ok()?;
            }
            let statement = (0..TEXTS.len()).find(|&statement| id(statement)[..] == found)?;
            Some((Opcode::RESULT, rows(statement, flags(&mut reader)? & SKIP != 0)))
        }
        Opcode::PREPARE => {
            let text = reader.long_string("text").ok()?;
            let statement = TEXTS.iter().position(|known| known.as_bytes() == text)?;
            Some((Opcode::RESULT, prepared(version, statement)))
        }
        Opcode::REGISTER => Some((Opcode::READY, Vec::new())),
        _ => None,
    }
}

fn table(statement: Statement) -> Option<(&'static str, &'static str)> {
    [Some(("system", "peers_v2")), Some(("system", "local")), Some(("ks", "t")), None, Some(("system", "local"))]
        [statement]
}

/// Rows as a node has them, its own address in the column that clients dial; no rows of `USE`.
fn rows(statement: Statement, skips: bool) -> Vec<u8> {
    let mut body = Vec::new();
    let mut writer = Writer::new(&mut body);
    let Some((keyspace, table)) = table(statement) else {
        writer.i32(3).string("ks");
        return body;
    };
    let name = match table {
        "peers_v2" => "native_address",
        "local" => "rpc_address",
        _ => "v",
    };
    let secret: &[u8] = if table == "t" { &[1, 2, 3, 4] } else { &SECRET };
    writer.i32(2).i32(if skips { 4 } else { 1 }).i32(2);
    if !skips {
        writer.string(keyspace).string(table).string("host_id").raw(&[0, 0x0c]).string(name).raw(&[0, 0x10]);
    }
    writer.i32(1).value(Value::Bytes(&u128::from(9043_u16).to_be_bytes())).value(Value::Bytes(secret));
    body
}

fn prepared(version: Version, statement: Statement) -> Vec<u8> {
    let mut body = Vec::new();
    let mut writer = Writer::new(&mut body);
    writer.i32(4).short_bytes(&id(statement));
    if version == Version::V5 {
        writer.short_bytes(&[0xee; 16]);
    }
    writer.i32(0).i32(0);
    if version >= Version::V4 {
        writer.i32(0);
    }
    match table(statement) {
        None => writer.i32(4).i32(0),
        Some((keyspace, table)) => {
            writer.i32(1).i32(1).string(keyspace).string(table).string("host_id").raw(&[0, 0x0c])
        }
    };
    body
}
