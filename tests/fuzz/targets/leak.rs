//! Several clients of one gateway, whole conversations, some from their first byte: junk and frames behind STARTUP, pipelined,
//! streams used twice at once, odd flags, versions and opcodes, and a node behind it that reads as Cassandra does. Whatever they
//! ask, no client is told an endpoint that it may not be told, and gateway and node agree on what a connection is.
#![no_main]

use std::sync::Arc;

use cqlgate::cql::compression::Compression;
use cqlgate::cql::frame::{Flags, Header, Opcode, Version, encode_frame};
use cqlgate::cql::message::{encode_register, encode_startup, request};
use cqlgate::cql::primitives::Writer;
use cqlgate::cql::segment::MAX_PAYLOAD;
use cqlgate::cql::session::Session;
use cqlgate::rewrite::handshake::{Handshake, Next, Settled};
use cqlgate::rewrite::view::NodePorts;
use cqlgate::rewrite::view::drivers::Injection;
use cqlgate::rewrite::{Client, Conversation, Step, Surroundings, Then, Work};
use cqlgate_fuzz::node::{Incoming, Node, SKIP, Statement, TEXTS, id, on_wire};
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
/// A connection whose first byte of choice is at least this begins before its STARTUP; the next bit has the node ask for a login.
const FROM_THE_FIRST_BYTE: u8 = 0x80;
const WITH_LOGIN: u8 = 0x40;
const VERSIONS: [u8; 8] = [4, 5, 3, 6, 66, 1, 2, 0x41];
const COMPRESSIONS: [&str; 5] = ["", "lz4", "snappy", "LZ4", "zstd"];
/// What clients are told to dial; later paths may allow more.
const MAY_BE_TOLD: [[u8; 4]; 1] = [[203, 0, 113, 10]];

struct Connection {
    /// As the client writes; what was agreed on may be another.
    session: Session,
    injection: Injection,
    gateway: Gateway,
    node: Node,
    /// What the client has been sent.
    told: Incoming,
    undecided: [Vec<u8>; 2],
}

/// What the gateway has of a connection.
enum Gateway {
    SettingUp(Handshake),
    Established(Box<Conversation>),
    Ended,
}

fuzz_target!(|bytes: &[u8]| {
    let mut choices = Choices(bytes);
    let topology = topology();
    let around = Arc::new(Surroundings {
        topology: Box::new(move || topology.clone()),
        statements: Arc::default(),
        max_body: 1 << 20,
        held_frame: 64 * 1024,
        unserved: Default::default(),
        rewriting: true,
    });
    let mut connections: Vec<Connection> = (0..3).map(|_| Connection::new(&mut choices, &around)).collect();
    while !choices.is_empty() {
        let which = choices.byte();
        let connection = &mut connections[usize::from(which) % 3];
        match which / 3 % 4 {
            0 | 1 => connection.ask(&mut choices, &around),
            2 => connection.answer(&mut choices, &around),
            _ => connection.tell(&mut choices, &around),
        }
    }
    connections.iter_mut().for_each(|connection| {
        while connection.node.owes() && !connection.ended() {
            connection.answer(&mut Choices(&[]), &around);
        }
    });
});

impl Connection {
    fn new(choices: &mut Choices<'_>, around: &Arc<Surroundings>) -> Self {
        let how = choices.byte();
        let (version, compression) = SESSIONS[usize::from(how) % SESSIONS.len()];
        let session = Session { version, compression };
        let injection = Injection { local: choices.byte() & 1 == 1, peers: true };
        let (gateway, node) = if how < FROM_THE_FIRST_BYTE {
            (established(session, injection, true, around), Node::established(session))
        } else {
            (Gateway::SettingUp(Handshake::default()), Node::listening(how & WITH_LOGIN != 0))
        };
        Self { session, injection, gateway, node, told: Incoming::default(), undecided: [Vec::new(), Vec::new()] }
    }

    fn ended(&self) -> bool {
        matches!(self.gateway, Gateway::Ended)
    }

    /// The client writes something: before it is let in mostly what opens a connection, then mostly valid requests.
    fn ask(&mut self, choices: &mut Choices<'_>, around: &Arc<Surroundings>) {
        let wire = match &self.gateway {
            Gateway::Ended => return,
            Gateway::SettingUp(_) => {
                let how = choices.byte();
                let frame = self.opening(how, choices).unwrap_or_else(|| self.request(choices));
                frame.repeat(1 + usize::from(how >> 6))
            }
            Gateway::Established(..) => self.request(choices),
        };
        self.give(false, &wire, around);
    }

    /// What may come before READY; `None` for what should come after it.
    fn opening(&self, how: u8, choices: &mut Choices<'_>) -> Option<Vec<u8>> {
        let options = match self.session.compression {
            Some(Compression::Lz4) => vec![("COMPRESSION", "lz4")],
            Some(Compression::Snappy) => vec![("COMPRESSION", "snappy")],
            None => vec![("CQL_VERSION", "3.0.0")],
        };
        let (version, opcode, body) = match how % 8 {
            0 | 1 => (self.session.version.number(), Opcode::STARTUP, encode_startup(&options)),
            2 => {
                let options = [("COMPRESSION", choices.one_of(&COMPRESSIONS))];
                (choices.one_of(&VERSIONS), Opcode::STARTUP, encode_startup(&options))
            }
            3 => (choices.one_of(&VERSIONS), Opcode::OPTIONS, Vec::new()),
            4 => (choices.one_of(&VERSIONS), Opcode(choices.byte()), vec![0; usize::from(choices.byte() % 8)]),
            _ => return None,
        };
        let stream = choices.byte() % 8;
        if matches!(version, 1 | 2) {
            let length = (body.len() as u32).to_be_bytes();
            return Some([&[version, 0, stream, opcode.0][..], &length, &body].concat());
        }
        Some(encode_frame(Header { version, flags: Flags(0), stream: stream.into(), opcode, length: 0 }, &body))
    }

    /// A request on the wire, mostly a valid one.
    fn request(&self, choices: &mut Choices<'_>) -> Vec<u8> {
        let version = self.session.version;
        let statement = usize::from(choices.byte()) % TEXTS.len();
        let odd = choices.byte();
        let skip = if odd & 1 == 1 { SKIP } else { 0 };
        let (opcode, mut body) = match choices.byte() {
            0xf0.. => (Opcode::AUTH_RESPONSE, b"\0\0\0\x04\0a\0b".to_vec()),
            which => match which % 6 {
                0 | 1 => (Opcode::EXECUTE, execute(version, statement, skip)),
                2 => (Opcode::QUERY, with_flags(request::encode_query(version, TEXTS[statement]), skip)),
                3 => (Opcode::PREPARE, prepare(version, TEXTS[statement])),
                4 => (Opcode::REGISTER, encode_register(&["STATUS_CHANGE", "topology_change"])),
                _ => (Opcode(choices.byte()), execute(version, statement, skip)),
            },
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
        on_wire(self.session, &encode_frame(header, &body), odd & 128 != 0)
    }

    /// The node answers one of the requests that it owes an answer.
    fn answer(&mut self, choices: &mut Choices<'_>, around: &Arc<Surroundings>) {
        let answer = self.node.answer(choices);
        self.hear(answer, around);
    }

    /// The node tells of another one.
    fn tell(&mut self, choices: &mut Choices<'_>, around: &Arc<Surroundings>) {
        let event = self.node.event(choices);
        self.hear(event, around);
    }

    fn hear(&mut self, said: Option<(Vec<u8>, u8)>, around: &Arc<Surroundings>) {
        let Some((wire, how)) = said else { return };
        for piece in wire.chunks(1 + usize::from(how) * 4) {
            self.give(true, piece, around);
        }
    }

    /// Bytes through the gateway, as the proxy takes them.
    fn give(&mut self, from_node: bool, bytes: &[u8], around: &Arc<Surroundings>) {
        self.undecided[usize::from(from_node)].extend_from_slice(bytes);
        match self.gateway {
            Gateway::SettingUp(_) => self.set_up(around),
            Gateway::Established(..) => self.relay(from_node),
            Gateway::Ended => {}
        }
    }

    fn set_up(&mut self, around: &Arc<Surroundings>) {
        let [from_client, from_node] = &mut self.undecided;
        while let Gateway::SettingUp(handshake) = &mut self.gateway {
            if handshake.reads_client() && !from_client.is_empty() {
                match handshake.client(from_client) {
                    Next::Forward(length) => {
                        self.node.read(&from_client.drain(..length).collect::<Vec<u8>>());
                        continue;
                    }
                    Next::Refuse { reply, .. } => {
                        told_nothing_else(&reply);
                        self.gateway = Gateway::Ended;
                        continue;
                    }
                    _ => {}
                }
            }
            if from_node.is_empty() {
                return;
            }
            let said = match handshake.node(from_node) {
                Next::Wait { .. } => return,
                Next::Forward(length) => from_node.drain(..length).collect(),
                Next::Replace(length, made) => {
                    from_node.drain(..length);
                    made
                }
                Next::Refuse { reply, .. } => {
                    self.gateway = Gateway::Ended;
                    reply
                }
                Next::Established(length, Settled { session, authenticates, .. }) => {
                    assert_eq!(self.node.session(), Some(session), "the node agreed to another session");
                    self.gateway = established(session, self.injection, !authenticates, around);
                    from_node.drain(..length).collect()
                }
            };
            told_nothing_else(&said);
        }
        // What came with the last frame.
        self.relay(false);
        self.relay(true);
    }

    fn relay(&mut self, from_node: bool) {
        let undecided = &mut self.undecided[usize::from(from_node)];
        let mut scratch = vec![0; MAX_PAYLOAD];
        let mut out = Vec::new();
        while let Gateway::Established(conversation) = &mut self.gateway {
            let work = &mut Work::new(&mut scratch);
            let Step { pass, then } =
                if from_node { conversation.response(undecided, work) } else { conversation.request(undecided, work) };
            out.extend(undecided.drain(..pass));
            match then {
                Then::Wait { .. } => break,
                Then::Yield => {}
                Then::Replace { consumed, made } => {
                    undecided.drain(..consumed);
                    out.extend(made);
                }
                Then::Login(_) => conversation.let_in(),
                Then::Fail(failure) => {
                    self.gateway = Gateway::Ended;
                    told_nothing_else(&failure.reply.unwrap_or_default());
                }
            }
        }
        if from_node {
            self.told.push(&out);
            self.read_as_the_client();
        } else {
            self.node.read(&out);
        }
    }

    fn read_as_the_client(&mut self) {
        told_nothing_else(self.told.wire());
        let Some(session) = self.node.session() else { return };
        while let Some((header, body)) = self.told.next(session) {
            match session.compression.filter(|_| session.is_compressed(header)) {
                Some(compression) => told_nothing_else(&compression.decompress(&body, 1 << 20).expect("compressed")),
                None => told_nothing_else(&body),
            }
        }
    }
}

fn established(session: Session, injection: Injection, logged_in: bool, around: &Arc<Surroundings>) -> Gateway {
    let client =
        Client { session, view: &NodePorts, attached: 9042, path: "default".into(), family: cqlgate::topology::Family::Ipv4, injection, logged_in };
    Gateway::Established(Box::new(Conversation::new(client, Arc::clone(around))))
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
