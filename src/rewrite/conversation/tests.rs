//! Whole conversations, both directions, in every version and compression.

mod cost;
mod graceful_disconnect;
mod hostile;
mod long;
mod schema_changes;
mod segments;
mod single_node;
mod strangers;
mod unserved;

use super::*;
use crate::cql::compression::Compression;
use crate::cql::frame::{HEADER_LEN, Opcode};
use crate::cql::message::{self, NodeChange, encode_register, request};
use crate::cql::primitives::Writer;
use crate::cql::segment::{MAX_PAYLOAD, SegmentHeader};
use crate::rewrite::handshake::{Handshake, Next, Settled};
use crate::rewrite::view::drivers::Injection;
use crate::rewrite::view::{NodePorts, View};
use crate::rewrite::{Then, Why};
use crate::topology::{Advertised, Node};

const V3: Session = Session { version: Version::V3, compression: None };
const V4: Session = Session { version: Version::V4, compression: None };
const V5: Session = Session { version: Version::V5, compression: None };
const V4_LZ4: Session = Session { version: Version::V4, compression: Some(Compression::Lz4) };
const V4_SNAPPY: Session = Session { version: Version::V4, compression: Some(Compression::Snappy) };
const V5_LZ4: Session = Session { version: Version::V5, compression: Some(Compression::Lz4) };
const ALL: [Session; 6] = [V3, V4, V5, V4_LZ4, V4_SNAPPY, V5_LZ4];

const ID: [u8; 16] = [0xab; 16];
const SKIP: u8 = 0x02;

fn topology() -> Arc<Topology> {
    let node = |port: u16, address: &str| Node::example(address, port, address);
    let advertised = Advertised { ipv4: Some("203.0.113.10".parse().unwrap()), ipv6: None };
    Arc::new(Topology::new(1, advertised, [node(9042, "10.77.0.11:9042"), node(9043, "10.77.0.12:9042")]))
}

fn surroundings() -> Arc<Surroundings> {
    Arc::new(Surroundings {
        topology: Box::new(topology),
        statements: Arc::default(),
        max_body: 1 << 20,
        held_frame: 1 << 20,
        unserved: Default::default(),
        rewriting: true,
    })
}

/// A client in the middle of a conversation.
struct Talk {
    session: Session,
    conversation: Conversation,
}

impl Talk {
    fn with(session: Session, around: &Arc<Surroundings>) -> Self {
        Self::seeing(&NodePorts, session, around)
    }

    fn seeing(view: &'static dyn View, session: Session, around: &Arc<Surroundings>) -> Self {
        let client = Client {
            session,
            view,
            attached: 9042,
            path: "default".into(),
            family: crate::topology::Family::Ipv4,
            injection: Injection::default(),
            logged_in: true,
        };
        Self { session, conversation: Conversation::new(client, Arc::clone(around)) }
    }

    /// What the node receives when the client sends this, taken off the wire again.
    fn request(&mut self, opcode: Opcode, stream: i16, body: &[u8]) -> Vec<u8> {
        let wire = on_wire(self.session, 0, opcode, stream, body);
        let conversation = &mut self.conversation;
        let out = drive(&wire, |bytes, work| conversation.request(bytes, work)).unwrap();
        off_wire(self.session, &out)
    }

    /// What the client receives when the node sends this, taken off the wire again.
    fn response(&mut self, opcode: Opcode, stream: i16, body: &[u8]) -> Result<Vec<u8>, Why> {
        let wire = on_wire(self.session, 0x80, opcode, stream, body);
        let conversation = &mut self.conversation;
        let out = drive(&wire, |bytes, work| conversation.response(bytes, work))?;
        Ok(off_wire(self.session, &out))
    }
}

/// Feeds bytes one by one: the hardest way for the one who must decide.
fn drive(wire: &[u8], mut ask: impl FnMut(&[u8], &mut Work<'_>) -> Step) -> Result<Vec<u8>, Why> {
    let mut scratch = vec![0; MAX_PAYLOAD];
    let (mut held, mut out) = (Vec::new(), Vec::new());
    for &byte in wire {
        held.push(byte);
        while !held.is_empty() {
            let Step { pass, then } = ask(&held, &mut Work::new(&mut scratch));
            out.extend(held.drain(..pass));
            match then {
                Then::Wait { .. } => break,
                Then::Replace { consumed, made } => {
                    held.drain(..consumed);
                    out.extend(made);
                }
                Then::Fail(failure) => return Err(failure.why),
                Then::Yield | Then::Login(_) => {}
            }
        }
    }
    assert!(held.is_empty());
    Ok(out)
}

fn on_wire(session: Session, direction: u8, opcode: Opcode, stream: i16, body: &[u8]) -> Vec<u8> {
    on_wire_flagged(session, direction, 0, opcode, stream, body)
}

fn on_wire_flagged(session: Session, direction: u8, flags: u8, opcode: Opcode, stream: i16, body: &[u8]) -> Vec<u8> {
    let version = session.version.number() | direction;
    let header = |more| Header { version, flags: Flags(flags | more), stream, opcode, length: 0 };
    match (session.version, session.compression) {
        // Java driver 4 sets the flag in v5 although no body is compressed there.
        (Version::V5, _) => {
            let flags = if session.compression.is_some() { Flags::COMPRESSION } else { 0 };
            in_segments(&encode_frame(header(flags), body), Layout::of(session.compression))
        }
        (_, None) => encode_frame(header(0), body),
        (_, Some(compression)) => encode_frame(header(Flags::COMPRESSION), &compression.compress(body).unwrap()),
    }
}

/// The bodies in what was received, one after the other; empty when nothing was.
fn off_wire(session: Session, wire: &[u8]) -> Vec<u8> {
    let mut frames = Vec::new();
    if session.version == Version::V5 {
        let layout = Layout::of(session.compression);
        let mut rest = wire;
        while let Some(header) = SegmentHeader::peek(layout, rest).unwrap() {
            let mut content = vec![0; header.content_len()];
            header.decompress(header.payload(rest).unwrap(), &mut content).unwrap();
            frames.extend(content);
            rest = &rest[header.segment_len()..];
        }
    } else {
        frames.extend_from_slice(wire);
    }
    let (mut bodies, mut rest) = (Vec::new(), &frames[..]);
    while let Some(header) = Header::peek(rest) {
        let end = HEADER_LEN + header.length as usize;
        let body = &rest[HEADER_LEN..end];
        match session.compression.filter(|_| session.is_compressed(header)) {
            None => bodies.extend_from_slice(body),
            Some(compression) => bodies.extend(compression.decompress(body, 1 << 20).unwrap()),
        }
        rest = &rest[end..];
    }
    bodies
}

/// EXECUTE at consistency ONE with these flags and no values.
fn execute(version: Version, id: &[u8], flags: u8) -> Vec<u8> {
    let mut body = Vec::new();
    let mut writer = Writer::new(&mut body);
    writer.short_bytes(id);
    if version == Version::V5 {
        writer.short_bytes(&[0xee; 16]).u16(1).i32(i32::from(flags));
    } else {
        writer.u16(1).u8(flags);
    }
    body
}

fn query(version: Version, text: &str, flags: u8) -> Vec<u8> {
    let mut body = request::encode_query(version, text);
    *body.last_mut().unwrap() = flags;
    body
}

/// A Rows result of one text column and one row.
fn rows(keyspace: &str, table: &str) -> Vec<u8> {
    let mut body = Vec::new();
    let mut writer = Writer::new(&mut body);
    writer.i32(2).i32(1).i32(1).string(keyspace).string(table).string("v").u16(0x000d).i32(1).i32(3).raw(b"abc");
    body
}

fn rows_without_metadata() -> Vec<u8> {
    let mut body = Vec::new();
    Writer::new(&mut body).i32(2).i32(4).i32(1).i32(1).i32(3).raw(b"abc");
    body
}

/// A Prepared result without variables.
fn prepared(version: Version, id: &[u8], keyspace: &str, table: &str) -> Vec<u8> {
    let mut body = Vec::new();
    let mut writer = Writer::new(&mut body);
    writer.i32(4).short_bytes(id);
    if version == Version::V5 {
        writer.short_bytes(&[0xee; 16]);
    }
    writer.i32(0).i32(0);
    if version >= Version::V4 {
        writer.i32(0);
    }
    writer.i32(1).i32(1).string(keyspace).string(table).string("v").u16(0x000d);
    body
}

fn void() -> Vec<u8> {
    vec![0, 0, 0, 1]
}

#[test]
fn an_unknown_statement_is_described_once_and_then_passes() {
    for session in ALL {
        let around = surroundings();
        let mut talk = Talk::with(session, &around);
        let asked = execute(session.version, &ID, SKIP);
        let described = execute(session.version, &ID, 0);
        assert_eq!(talk.request(Opcode::EXECUTE, 1, &asked), described, "{session:?}");
        assert_eq!(talk.response(Opcode::RESULT, 1, &rows("ks", "t")).unwrap(), rows("ks", "t"));
        assert_eq!(talk.request(Opcode::EXECUTE, 1, &asked), asked, "{session:?}");
        let mut elsewhere = Talk::with(session, &around);
        assert_eq!(elsewhere.request(Opcode::EXECUTE, 9, &asked), asked, "one set serves the process");
    }
}

#[test]
fn a_statement_without_rows_teaches_too() {
    let mut talk = Talk::with(V4, &surroundings());
    talk.request(Opcode::EXECUTE, 1, &execute(Version::V4, &ID, SKIP));
    talk.response(Opcode::RESULT, 1, &void()).unwrap();
    let asked = execute(Version::V4, &ID, SKIP);
    assert_eq!(talk.request(Opcode::EXECUTE, 1, &asked), asked);
}

#[test]
fn preparing_teaches_what_is_ordinary_and_only_that() {
    for session in ALL {
        let around = surroundings();
        let mut talk = Talk::with(session, &around);
        for (id, table) in [([1; 16], "t"), ([2; 16], "peers"), ([3; 16], "local"), ([4; 16], "peers_v2")] {
            let keyspace = if table == "t" { "ks" } else { "system" };
            let answer = prepared(session.version, &id, keyspace, table);
            assert_eq!(talk.response(Opcode::RESULT, 1, &answer).unwrap(), answer);
            assert_eq!(around.statements.contains(&id), table == "t", "{session:?} {table}");
        }
    }
}

#[test]
fn a_table_of_the_user_with_a_system_tables_name_is_ordinary() {
    let around = surroundings();
    let mut talk = Talk::with(V4, &around);
    let answer = rows("ks", "peers");
    assert_eq!(talk.response(Opcode::RESULT, 1, &answer).unwrap(), answer);
    talk.response(Opcode::RESULT, 1, &prepared(Version::V4, &ID, "ks", "local")).unwrap();
    assert!(around.statements.contains(&ID));
}

#[test]
fn a_system_statement_is_described_every_time() {
    let around = surroundings();
    let mut talk = Talk::with(V4, &around);
    for _ in 0..3 {
        let sent = talk.request(Opcode::EXECUTE, 1, &execute(Version::V4, &ID, SKIP));
        assert_eq!(sent, execute(Version::V4, &ID, 0));
        talk.response(Opcode::RESULT, 1, &rows("system", "peers_v2")).unwrap();
    }
    assert!(!around.statements.contains(&ID));
}

#[test]
fn a_node_that_skips_metadata_all_the_same_is_not_believed() {
    let mut talk = Talk::with(V4, &surroundings());
    talk.request(Opcode::EXECUTE, 1, &execute(Version::V4, &ID, SKIP));
    assert_eq!(talk.response(Opcode::RESULT, 1, &rows_without_metadata()), Err(Why::MetadataMissing));
}

#[test]
fn a_query_never_skips_metadata() {
    for session in ALL {
        let mut talk = Talk::with(session, &surroundings());
        let text = "SELECT * FROM system.peers";
        let asked = query(session.version, text, SKIP | 0x20);
        assert_eq!(talk.request(Opcode::QUERY, 1, &asked), query(session.version, text, 0x20), "{session:?}");
        let plain = query(session.version, text, 0x20);
        assert_eq!(talk.request(Opcode::QUERY, 1, &plain), plain, "{session:?}");
    }
}

/// A text of which compression makes nothing shorter.
fn noise(length: usize) -> String {
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(b' ' + (state >> 33) as u8 % 95)
    };
    (0..length).map(|_| next()).collect()
}

#[test]
fn the_flag_of_a_long_query_is_cleared() {
    for session in ALL {
        for text in ["x".repeat(2000), noise(2000)] {
            let mut talk = Talk::with(session, &surroundings());
            let asked = query(session.version, &text, SKIP);
            assert_eq!(talk.request(Opcode::QUERY, 1, &asked), query(session.version, &text, 0), "{session:?}");
        }
    }
}

#[test]
fn a_query_with_a_long_text_and_a_long_value_streams() {
    for session in ALL {
        for text in [10, 2000, 50_000] {
            let mut conversation = Talk::with(session, &surroundings()).conversation;
            let mut body = query(session.version, &noise(text), 0x01);
            Writer::new(&mut body).u16(1).i32(300_000).raw(noise(300_000).as_bytes());
            let wire = on_wire(session, 0, Opcode::QUERY, 1, &body);
            // As if it arrived in pieces of 20 KB: most of it passes before the rest is there.
            let (mut from, mut to, mut need, mut scratch) = (0, 0, 0, vec![0; MAX_PAYLOAD]);
            while to < wire.len() * 3 / 4 {
                to += 20_000;
                while from + need < to {
                    let Step { pass, then } = conversation.request(&wire[from..to], &mut Work::new(&mut scratch));
                    from += pass;
                    need = match then {
                        Then::Wait { need } => need,
                        Then::Yield => 0,
                        other => panic!("{session:?} {text}: {other:?}"),
                    };
                }
            }
            assert!(from > 80_000, "{session:?} {text}: {from} of {to} passed");
        }
    }
}

/// How much of a request passes, in as many turns as it takes.
fn passed_in_turns(conversation: &mut Conversation, wire: &[u8]) -> usize {
    loop {
        let step = conversation.request(wire, &mut Work::new(&mut []));
        if step.pass > 0 || step.then != Then::Yield {
            return step.pass;
        }
    }
}

#[test]
fn a_long_compressed_query_that_need_not_change_passes_byte_for_byte() {
    for session in [V4_LZ4, V4_SNAPPY] {
        for text in ["x".repeat(500_000), noise(500_000)] {
            let mut conversation = Talk::with(session, &surroundings()).conversation;
            let wire = on_wire(session, 0, Opcode::QUERY, 1, &query(session.version, &text, 0x20));
            assert_eq!(passed_in_turns(&mut conversation, &wire), wire.len(), "{session:?}");
            // One that declares more text than it has is for the node to refuse.
            let mut body = query(session.version, &text, 0x20);
            body[..4].copy_from_slice(&0x7fff_ffff_u32.to_be_bytes());
            let wire = on_wire(session, 0, Opcode::QUERY, 1, &body);
            assert_eq!(passed_in_turns(&mut conversation, &wire), wire.len(), "{session:?}");
        }
    }
}

#[test]
fn a_request_too_long_to_be_changed_gets_the_protocols_own_error() {
    let around = Arc::new(Surroundings {
        topology: Box::new(topology),
        statements: Arc::default(),
        max_body: 1 << 20,
        held_frame: 4096,
        unserved: Default::default(),
        rewriting: true,
    });
    let refused_on_wire = |session: Session, wire: &[u8]| {
        let mut conversation = Talk::with(session, &around).conversation;
        let mut scratch = vec![0; MAX_PAYLOAD];
        let mut step = conversation.request(wire, &mut Work::new(&mut scratch));
        while step.then == Then::Yield {
            step = conversation.request(wire, &mut Work::new(&mut scratch));
        }
        let Then::Fail(failure) = step.then else { panic!("{session:?}: {step:?}") };
        assert_eq!(failure.why, Why::HeldFrameTooLong, "{session:?}");
        let reply = failure.reply.unwrap();
        let error = off_wire(session, &reply);
        let error = message::Error::parse(&error).unwrap();
        assert_eq!(error.code, message::error_code::PROTOCOL_ERROR);
        assert!(error.message.contains("4096 bytes"), "{}", error.message);
    };
    let refused = |session: Session, opcode, body: &[u8]| {
        refused_on_wire(session, &on_wire(session, 0, opcode, 77, body));
    };
    // The half of a custom payload, behind which the id and the flags are.
    let mut body = Vec::new();
    Writer::new(&mut body).u16(1).string("k").i32(9000).raw(noise(9000).as_bytes()).raw(&execute(
        Version::V4,
        &ID,
        SKIP,
    ));
    let flags = Flags(Flags::CUSTOM_PAYLOAD);
    let frame = encode_frame(Header { version: 4, flags, stream: 77, opcode: Opcode::EXECUTE, length: 0 }, &body);
    refused_on_wire(V4, &frame[..5000]);
    for session in ALL {
        for session in [session].into_iter().filter(|it| it.version != Version::V5 && it.compression.is_some()) {
            for text in ["x".repeat(100_000), noise(100_000)] {
                let mut body = execute(session.version, &ID, SKIP);
                body.extend(text.bytes());
                refused(session, Opcode::EXECUTE, &body);
                refused(session, Opcode::QUERY, &query(session.version, &text, 0));
            }
        }
    }
}

/// Whether what a row of `system.local` says is learned when it answers what was asked last.
fn is_learned(talk: &mut Talk, stream: i16) -> bool {
    talk.response(Opcode::RESULT, stream, &rows("system", "local")).unwrap();
    let facts = talk.conversation.take_facts();
    matches!(facts.as_slice(), [.., Fact::Rewrote { plain: true, .. }])
}

#[test]
fn only_the_answer_to_a_plain_selection_is_learned_from() {
    const PLAIN: &str = "SELECT * FROM system.local WHERE key='local'";
    const ALIAS: &str = "SELECT schema_version AS host_id FROM system.local";
    for session in ALL {
        let version = session.version;
        let mut talk = Talk::with(session, &surroundings());
        for flags in [0, SKIP] {
            talk.request(Opcode::QUERY, 1, &query(version, PLAIN, flags));
            assert!(is_learned(&mut talk, 1), "{session:?}");
            talk.request(Opcode::QUERY, 1, &query(version, ALIAS, flags));
            assert!(!is_learned(&mut talk, 1), "{session:?}");
        }
        // A text that is longer than what is looked at.
        talk.request(Opcode::QUERY, 1, &query(version, &format!("{PLAIN}{}", " ".repeat(600)), 0));
        assert!(!is_learned(&mut talk, 1), "{session:?}");
        talk.request(Opcode::EXECUTE, 1, &execute(version, &ID, 0));
        assert!(!is_learned(&mut talk, 1), "{session:?}");
        talk.request(Opcode::PREPARE, 1, &query(version, PLAIN, 0));
        assert!(!is_learned(&mut talk, 1), "{session:?}");
        talk.request(Opcode::BATCH, 1, &query(version, PLAIN, 0));
        assert!(!is_learned(&mut talk, 1), "{session:?}");
    }
}

#[test]
fn the_answer_to_another_request_on_the_same_stream_is_not_learned_from() {
    const PLAIN: &str = "SELECT host_id FROM system.local";
    let ask = |talk: &mut Talk, stream, text| _ = talk.request(Opcode::QUERY, stream, &query(Version::V4, text, 0));
    let mut talk = Talk::with(V4, &surroundings());
    ask(&mut talk, 1, "SELECT now() AS host_id FROM system.local");
    ask(&mut talk, 1, PLAIN);
    assert!(!is_learned(&mut talk, 1));
    assert!(!is_learned(&mut talk, 1));
    ask(&mut talk, 1, PLAIN);
    ask(&mut talk, 1, "SELECT now() AS host_id FROM system.local");
    assert!(!is_learned(&mut talk, 1));
    assert!(!is_learned(&mut talk, 1));
    // As the Python driver asks: two at once, each on its own stream.
    ask(&mut talk, 1, "SELECT * FROM system.peers_v2");
    ask(&mut talk, 2, PLAIN);
    assert!(is_learned(&mut talk, 2));
    talk.response(Opcode::RESULT, 1, &rows("system", "peers_v2")).unwrap();
    ask(&mut talk, 1, PLAIN);
    assert!(is_learned(&mut talk, 1));
}

#[test]
fn requests_in_flight_are_counted() {
    let mut talk = Talk::with(V4, &surroundings());
    talk.request(Opcode::QUERY, 1, &query(Version::V4, "a", 0));
    talk.request(Opcode::OPTIONS, 2, &[]);
    assert_eq!(talk.conversation.in_flight(), 2);
    talk.response(Opcode::RESULT, 1, &void()).unwrap();
    talk.response(Opcode::EVENT, -1, &Event::Schema { body: b"\x00\x0dSCHEMA_CHANGE" }.encode()).unwrap();
    assert_eq!(talk.conversation.in_flight(), 1);
}

#[test]
fn shard_aware_ports_are_taken_out_of_supported() {
    let mut body = Vec::new();
    let mut writer = Writer::new(&mut body);
    writer
        .u16(2)
        .string("SCYLLA_SHARD_AWARE_PORT")
        .string_list(&["19042"])
        .string("CQL_VERSION")
        .string_list(&["3.0.0"]);
    let mut expected = Vec::new();
    Writer::new(&mut expected).u16(1).string("CQL_VERSION").string_list(&["3.0.0"]);
    for session in ALL {
        let mut talk = Talk::with(session, &surroundings());
        assert_eq!(talk.response(Opcode::SUPPORTED, 1, &body).unwrap(), expected, "{session:?}");
    }
}

fn event(change: NodeChange, address: &str) -> Vec<u8> {
    Event::Node { change, address: address.parse().unwrap() }.encode()
}

#[test]
fn events_carry_the_address_that_rows_show() {
    for session in ALL {
        let mut talk = Talk::with(session, &surroundings());
        let register = encode_register(&["STATUS_CHANGE", "TOPOLOGY_CHANGE"]);
        assert_eq!(talk.request(Opcode::REGISTER, 1, &register), register);
        let told = talk.response(Opcode::EVENT, -1, &event(NodeChange::Down, "10.77.0.12:9042")).unwrap();
        assert!(told.is_empty(), "{session:?}: the gateway knows it as up");
        let facts = talk.conversation.take_facts();
        assert!(facts.iter().any(|fact| matches!(fact, Fact::Doubted { port: 9043, .. })), "{facts:?}");
        let told = talk.response(Opcode::EVENT, -1, &event(NodeChange::RemovedNode, "10.77.0.12:9042")).unwrap();
        assert_eq!(told, event(NodeChange::RemovedNode, "203.0.113.10:9043"), "{session:?}");
        let unknown = talk.response(Opcode::EVENT, -1, &event(NodeChange::Up, "10.77.0.99:9042")).unwrap();
        assert!(unknown.is_empty(), "{session:?}");
        let schema = Event::Schema { body: b"\x00\x0dSCHEMA_CHANGE\x00\x07CREATED" }.encode();
        talk.conversation.take_facts();
        assert_eq!(talk.response(Opcode::EVENT, -1, &schema).unwrap(), schema);
        let facts = talk.conversation.take_facts();
        assert!(
            matches!(facts[..], [Fact::Event { kind: EventKind::Schema, action: EventAction::Passed }]),
            "{facts:?}"
        );
    }
}

/// What passes byte for byte, whatever wraps it.
fn passes(talk: &mut Talk, from_node: bool, flags: u8, opcode: Opcode, stream: i16, body: &[u8]) {
    let (session, conversation) = (talk.session, &mut talk.conversation);
    let direction = if from_node { 0x80 } else { 0 };
    let wire = on_wire_flagged(session, direction, flags, opcode, stream, body);
    let out = drive(&wire, |bytes, work| match from_node {
        true => conversation.response(bytes, work),
        false => conversation.request(bytes, work),
    });
    assert_eq!(out, Ok(wire), "{session:?} {opcode:?} with flags {flags:#x}");
}

#[test]
fn an_authentication_of_several_rounds_passes_byte_for_byte() {
    let token = |length: usize| {
        let mut body = Vec::new();
        Writer::new(&mut body).i32(i32::try_from(length).unwrap()).raw(noise(length).as_bytes());
        body
    };
    let mut authenticator = Vec::new();
    Writer::new(&mut authenticator).string("com.example.ScramAuthenticator");
    for session in ALL {
        // AUTHENTICATE is the last frame before segments and compression begin.
        let mut handshake = Handshake::default();
        let mut options = vec![("CQL_VERSION", "3.0.0")];
        options.extend(session.compression.map(|compression| ("COMPRESSION", compression.name())));
        let version = session.version.number();
        let header = |version, opcode| Header { version, flags: Flags(0), stream: 0, opcode, length: 0 };
        let startup = encode_frame(header(version, Opcode::STARTUP), &message::encode_startup(&options));
        assert_eq!(handshake.client(&startup), Next::Forward(startup.len()));
        let authenticate = encode_frame(header(version | 0x80, Opcode::AUTHENTICATE), &authenticator);
        let settled = Settled {
            session,
            driver_name: None,
            driver_version: None,
            application_name: None,
            authenticates: true,
            offer: Default::default(),
        };
        assert_eq!(handshake.node(&authenticate), Next::Established(authenticate.len(), settled));
        let mut talk = Talk::with(session, &surroundings());
        passes(&mut talk, false, 0, Opcode::AUTH_RESPONSE, 0, &token(40));
        passes(&mut talk, true, 0, Opcode::AUTH_CHALLENGE, 0, &token(80));
        passes(&mut talk, false, 0, Opcode::AUTH_RESPONSE, 1, &token(1000));
        assert_eq!(talk.conversation.in_flight(), 1);
        // A token of null.
        passes(&mut talk, true, 0, Opcode::AUTH_SUCCESS, 1, &[0xff; 4]);
        assert_eq!(talk.conversation.in_flight(), 0);
        assert!(!talk.conversation.has_facts());
    }
}

#[test]
fn unknown_event_types_pass_byte_for_byte() {
    for session in ALL {
        let mut talk = Talk::with(session, &surroundings());
        passes(&mut talk, false, 0, Opcode::REGISTER, 1, &encode_register(&["CLIENT_ROUTES_CHANGE", "STATUS_CHANGE"]));
        passes(&mut talk, true, 0, Opcode::READY, 1, &[]);
        talk.conversation.take_facts();
        let mut body = Vec::new();
        Writer::new(&mut body).string("CLIENT_ROUTES_CHANGE").string("UPDATE_NODES").u16(0).raw(&[10, 77, 0, 11]);
        passes(&mut talk, true, 0, Opcode::EVENT, -1, &body);
        let facts = talk.conversation.take_facts();
        assert!(
            matches!(facts[..], [Fact::Event { kind: EventKind::Other, action: EventAction::Passed }]),
            "{facts:?}"
        );
    }
}

#[test]
fn unknown_flags_pass_byte_for_byte() {
    const UNKNOWN: u8 = 0xe0;
    for session in ALL {
        let mut talk = Talk::with(session, &surroundings());
        for flags in [UNKNOWN, 0x20, 0x40, 0x80] {
            passes(&mut talk, false, flags, Opcode::QUERY, 1, &query(session.version, "SELECT v FROM ks.t", 0));
            passes(&mut talk, true, flags, Opcode::RESULT, 1, &rows("ks", "t"));
            passes(&mut talk, false, flags, Opcode::EXECUTE, 1, &execute(session.version, &ID, 0));
            passes(&mut talk, true, flags, Opcode::RESULT, 1, &void());
            passes(&mut talk, false, flags, Opcode::OPTIONS, 1, &[]);
            passes(&mut talk, true, flags, Opcode::SUPPORTED, 1, &[0, 0]);
        }
    }
}

#[test]
fn unknown_error_codes_pass_byte_for_byte() {
    for session in ALL {
        let mut talk = Talk::with(session, &surroundings());
        for code in [0x7777, -1] {
            passes(&mut talk, false, 0, Opcode::EXECUTE, 1, &execute(session.version, &ID, 0));
            let mut body = message::Error { code, message: "of a later version" }.encode();
            body.extend(noise(500).bytes());
            passes(&mut talk, true, 0, Opcode::ERROR, 1, &body);
        }
        assert_eq!(talk.conversation.in_flight(), 0);
    }
}

#[test]
fn what_no_frame_can_be_made_of_ends_the_connection() {
    let mut talk = Talk::with(V4, &surroundings());
    assert_eq!(talk.response(Opcode::RESULT, 1, &[0, 0]), Err(Why::Malformed));
    let mut talk = Talk::with(V4, &surroundings());
    let request = on_wire(V4, 0, Opcode::QUERY, 1, &[]);
    let conversation = &mut talk.conversation;
    let failed = drive(&request, |bytes, work| conversation.response(bytes, work));
    assert_eq!(failed, Err(Why::WrongDirection));
}

#[test]
fn a_request_over_the_limit_gets_the_protocols_own_error() {
    for session in [V4, V5] {
        let mut conversation = Talk::with(session, &surroundings()).conversation;
        let version = session.version.number();
        let header = Header { version, flags: Flags(0), stream: 77, opcode: Opcode::QUERY, length: (1 << 20) + 1 };
        let start = match session.version {
            Version::V5 => {
                let mut out = Vec::new();
                crate::cql::segment::append_segment(&mut out, Layout::Plain, false, &header.encode());
                out
            }
            _ => header.encode().to_vec(),
        };
        let step = conversation.request(&start, &mut Work::new(&mut vec![0; MAX_PAYLOAD]));
        let Then::Fail(failure) = step.then else { panic!() };
        assert_eq!(failure.why, Why::FrameTooLong);
        let body = off_wire(session, &failure.reply.unwrap());
        let error = message::Error::parse(&body).unwrap();
        assert_eq!(error.code, message::error_code::PROTOCOL_ERROR);
    }
}
