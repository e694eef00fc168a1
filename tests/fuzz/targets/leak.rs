//! Several clients of one gateway, whole conversations: pipelined, streams used twice at once, odd flags, versions and opcodes, and
//! a node behind it that reads as Cassandra does. Whatever they ask, no client is told an endpoint that it may not be told.
#![no_main]

use std::sync::Arc;

use cqlgate::cql::compression::Compression;
use cqlgate::cql::frame::{Flags, HEADER_LEN, Header, Opcode, Version, encode_frame};
use cqlgate::cql::message::{Event, NodeChange, encode_register, request};
use cqlgate::cql::primitives::{Reader, Value, Writer};
use cqlgate::cql::segment::{Layout, MAX_PAYLOAD, SegmentHeader, append_frame, append_lz4_segment};
use cqlgate::cql::session::Session;
use cqlgate::rewrite::statements::OrdinaryStatements;
use cqlgate::rewrite::view::NodePorts;
use cqlgate::rewrite::view::drivers::Injection;
use cqlgate::rewrite::{Client, Conversation, Step, Surroundings, Then, Work};
use cqlgate_fuzz::{Choices, SECRET, topology};
use libfuzzer_sys::fuzz_target;

const SESSIONS: [(Version, Option<Compression>); 6] = [
    (Version::V4, None),
    (Version::V3, None),
    (Version::V5, None),
    (Version::V4, Some(Compression::Lz4)),
    (Version::V5, Some(Compression::Lz4)),
    (Version::V3, Some(Compression::Snappy)),
];
/// What clients are told to dial; later paths may allow more.
const MAY_BE_TOLD: [[u8; 4]; 1] = [[203, 0, 113, 10]];
const TEXTS: [&str; 5] = [
    "SELECT * FROM system.peers_v2",
    "SELECT * FROM system.local",
    "SELECT * FROM ks.t",
    "USE ks",
    "SELECT schema_version AS host_id FROM system.local",
];
const SKIP: u8 = 0x02;

/// What a statement is, by its place in [`TEXTS`]; its id is that many times the same byte.
type Statement = usize;

fn id(statement: Statement) -> [u8; 16] {
    [0xa0 + statement as u8; 16]
}

/// An answer that the node owes on a stream.
type Owed = (i16, Opcode, Vec<u8>);

struct Connection {
    session: Session,
    conversation: Conversation,
    /// What the gateway has passed to either side and is no whole segment yet, and what is no whole frame yet; the client first.
    arrived: [Vec<u8>; 2],
    frames: [Vec<u8>; 2],
    owed: Vec<Owed>,
    undecided: [Vec<u8>; 2],
    ended: bool,
}

fuzz_target!(|bytes: &[u8]| {
    let mut choices = Choices(bytes);
    let topology = topology();
    let around = Arc::new(Surroundings {
        topology: Box::new(move || topology.clone()),
        statements: OrdinaryStatements::default(),
        max_body: 1 << 20,
        held_frame: 64 * 1024,
        rewriting: true,
    });
    let mut connections: Vec<Connection> = (0..3).map(|_| Connection::new(&mut choices, &around)).collect();
    while !choices.is_empty() {
        let which = choices.byte();
        let connection = &mut connections[usize::from(which) % 3];
        match which / 3 % 4 {
            0 | 1 => connection.ask(&mut choices),
            2 => connection.answer(&mut choices),
            _ => connection.tell(&mut choices),
        }
    }
    connections.iter_mut().for_each(|connection| {
        while !connection.owed.is_empty() && !connection.ended {
            connection.answer(&mut Choices(&[]));
        }
    });
});

impl Connection {
    fn new(choices: &mut Choices<'_>, around: &Arc<Surroundings>) -> Self {
        let (version, compression) = choices.one_of(&SESSIONS);
        let session = Session { version, compression };
        let injection = Injection { local: choices.byte() & 1 == 1, peers: true };
        let client = Client {
            session,
            view: &NodePorts,
            attached: 9042,
            family: [127, 0, 0, 1].into(),
            injection,
            logged_in: true,
        };
        Self {
            session,
            conversation: Conversation::new(client, Arc::clone(around)),
            arrived: Default::default(),
            frames: Default::default(),
            owed: Vec::new(),
            undecided: [Vec::new(), Vec::new()],
            ended: false,
        }
    }

    /// The client writes one request, mostly a valid one.
    fn ask(&mut self, choices: &mut Choices<'_>) {
        let version = self.session.version;
        let statement = usize::from(choices.byte()) % TEXTS.len();
        let odd = choices.byte();
        let skip = if odd & 1 == 1 { SKIP } else { 0 };
        let (opcode, mut body) = match choices.byte() % 6 {
            0 | 1 => (Opcode::EXECUTE, execute(version, statement, skip)),
            2 => (Opcode::QUERY, with_flags(request::encode_query(version, TEXTS[statement]), skip)),
            3 => (Opcode::PREPARE, prepare(version, TEXTS[statement])),
            4 => (Opcode::REGISTER, encode_register(&["STATUS_CHANGE", "topology_change"])),
            _ => (Opcode(choices.byte()), execute(version, statement, skip)),
        };
        let mut flags = if odd & 2 != 0 { choices.byte() } else { 0 };
        if odd & 4 != 0 && flags & Flags::CUSTOM_PAYLOAD != 0 {
            body = [&[0, 1, 0, 1, b'k', 0, 0, 0, 1, 7][..], &body].concat();
        }
        if let Some(compression) = self.session.compression.filter(|_| version != Version::V5 && odd & 8 == 0) {
            flags |= Flags::COMPRESSION;
            body = compression.compress(&body).unwrap_or_default();
        }
        // Few streams, so that many are used twice at once.
        let stream = if odd & 16 != 0 { i16::from(choices.byte() as i8) } else { i16::from(choices.byte() % 3) };
        let number = if odd & 0x60 == 0x60 { choices.byte() } else { version.number() };
        let header = Header { version: number, flags: Flags(flags), stream, opcode, length: 0 };
        let wire = self.on_wire(&encode_frame(header, &body), odd & 128 != 0);
        self.give(false, &wire);
        self.read_as_the_node();
    }

    fn on_wire(&self, frame: &[u8], compressed: bool) -> Vec<u8> {
        if self.session.version != Version::V5 {
            return frame.to_vec();
        }
        let mut out = Vec::new();
        match Layout::of(self.session.compression) {
            Layout::Lz4 if compressed => append_lz4_segment(&mut out, true, frame),
            layout => append_frame(&mut out, layout, frame),
        }
        out
    }

    /// Bytes through the gateway, as a relay takes them.
    fn give(&mut self, from_node: bool, bytes: &[u8]) {
        let side = usize::from(from_node);
        self.undecided[side].extend_from_slice(bytes);
        let mut scratch = vec![0; MAX_PAYLOAD];
        let mut out = Vec::new();
        while !self.ended {
            let held = &self.undecided[side];
            let work = &mut Work::new(&mut scratch);
            let Step { pass, then } = match from_node {
                true => self.conversation.response(held, work),
                false => self.conversation.request(held, work),
            };
            out.extend(self.undecided[side].drain(..pass));
            match then {
                Then::Wait { .. } => break,
                Then::Yield => {}
                Then::Replace { consumed, made } => {
                    self.undecided[side].drain(..consumed);
                    out.extend(made);
                }
                Then::Login(_) => self.conversation.let_in(),
                Then::Fail(failure) => {
                    self.ended = true;
                    told_nothing_else(&failure.reply.unwrap_or_default());
                }
            }
        }
        self.arrived[1 - side].extend(out);
        if from_node {
            self.read_as_the_client();
        }
    }

    fn read_as_the_client(&mut self) {
        told_nothing_else(&self.arrived[0]);
        while let Some((header, body)) = self.next_frame(0) {
            match self.session.compression.filter(|_| self.session.is_compressed(header)) {
                Some(compression) => told_nothing_else(&compression.decompress(&body, 1 << 20).expect("compressed")),
                None => told_nothing_else(&body),
            }
        }
    }

    /// The next whole frame that has arrived at a side.
    fn next_frame(&mut self, side: usize) -> Option<(Header, Vec<u8>)> {
        let (arrived, frames) = (&mut self.arrived[side], &mut self.frames[side]);
        if self.session.version != Version::V5 {
            frames.append(arrived);
        }
        while let Ok(Some(header)) = SegmentHeader::peek(Layout::of(self.session.compression), arrived) {
            if arrived.len() < header.segment_len() {
                break;
            }
            let mut content = vec![0; header.content_len()];
            let payload = header.payload(arrived).expect("a whole segment");
            header.decompress(payload, &mut content).expect("decompresses");
            frames.extend(content);
            arrived.drain(..header.segment_len());
        }
        let header = Header::peek(frames)?;
        let end = HEADER_LEN + header.length as usize;
        let body = frames.get(HEADER_LEN..end)?.to_vec();
        frames.drain(..end);
        Some((header, body))
    }

    /// The node reads what came as Cassandra does: the COMPRESSION flag means nothing where no compression was agreed on.
    fn read_as_the_node(&mut self) {
        while let Some((header, mut body)) = self.next_frame(1) {
            if let Some(compression) = self.session.compression.filter(|_| self.session.is_compressed(header)) {
                let Ok(decompressed) = compression.decompress(&body, 1 << 20) else { continue };
                body = decompressed;
            }
            if header.stream >= 0 {
                let (opcode, body) = self.answer_to(header, &body).unwrap_or((Opcode::ERROR, vec![0, 0, 0, 10, 0, 0]));
                self.owed.push((header.stream, opcode, body));
            }
        }
    }

    fn answer_to(&self, header: Header, body: &[u8]) -> Option<(Opcode, Vec<u8>)> {
        let version = self.session.version;
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

    /// The node answers one of the requests that it owes an answer.
    fn answer(&mut self, choices: &mut Choices<'_>) {
        if self.owed.is_empty() || self.ended {
            return;
        }
        let which = usize::from(choices.byte()) % self.owed.len();
        let (stream, opcode, body) = self.owed.remove(which);
        self.say(stream, opcode, body, choices.byte());
    }

    /// The node tells of another one.
    fn tell(&mut self, choices: &mut Choices<'_>) {
        let change = choices.one_of(&[NodeChange::Up, NodeChange::Down, NodeChange::NewNode, NodeChange::RemovedNode]);
        let port = 9000 + u16::from(choices.byte() % 4);
        let event = Event::Node { change, address: (SECRET, port).into() };
        self.say(-1, Opcode::EVENT, event.encode(), choices.byte());
    }

    fn say(&mut self, stream: i16, opcode: Opcode, mut body: Vec<u8>, how: u8) {
        let version = self.session.version;
        let mut flags = 0;
        if how & 1 == 1 && opcode == Opcode::RESULT {
            flags |= Flags::WARNING;
            body = [&[0, 1, 0, 1, b'w'][..], &body].concat();
        }
        if let Some(compression) = self.session.compression.filter(|_| version != Version::V5 && how & 2 == 0) {
            flags |= Flags::COMPRESSION;
            body = compression.compress(&body).unwrap_or_default();
        }
        let header = Header { version: version.number() | 0x80, flags: Flags(flags), stream, opcode, length: 0 };
        let wire = self.on_wire(&encode_frame(header, &body), how & 4 != 0);
        let piece = 1 + usize::from(how) * 4;
        for piece in wire.chunks(piece) {
            self.give(true, piece);
        }
    }
}

/// # Panics
/// When an address is among the bytes that is none of those that may be told.
fn told_nothing_else(bytes: &[u8]) {
    let told = bytes.windows(4).any(|window| window == SECRET && !MAY_BE_TOLD.iter().any(|may| window == may));
    assert!(!told, "a node's own address was told: {bytes:02x?}");
}

fn with_flags(mut body: Vec<u8>, flags: u8) -> Vec<u8> {
    if let Some(last) = body.last_mut() {
        *last |= flags;
    }
    body
}

fn execute(version: Version, statement: Statement, flags: u8) -> Vec<u8> {
    let mut body = Vec::new();
    let mut writer = Writer::new(&mut body);
    writer.short_bytes(&id(statement));
    if version == Version::V5 {
        writer.short_bytes(&[0xee; 16]).u16(1).i32(i32::from(flags));
    } else {
        writer.u16(1).u8(flags);
    }
    body
}

fn prepare(version: Version, text: &str) -> Vec<u8> {
    let mut body = Vec::new();
    let mut writer = Writer::new(&mut body);
    writer.long_string(text);
    if version == Version::V5 {
        writer.i32(0);
    }
    body
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
