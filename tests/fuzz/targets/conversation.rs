//! A whole established connection, both directions, cut at random places: any frames, well wrapped or not, repeated to any
//! length. It ends in the same way whatever the pieces, knows the same of the client then, never panics, and costs no more steps, no
//! more memory and no more bytes for the node than its bytes explain: the cost oracle.
#![no_main]

use std::sync::Arc;

use cqlgate::cql::compression::Compression;
use cqlgate::cql::cost;
use cqlgate::cql::frame::{Flags, HEADER_LEN, Header, Opcode, Version, encode_frame};
use cqlgate::cql::segment::{Layout, MAX_PAYLOAD, SegmentHeader, append_lz4_segment, append_segment};
use cqlgate::cql::session::Session;
use cqlgate::rewrite::conversation::Client;
use cqlgate::rewrite::view::drivers::Injection;
use cqlgate::rewrite::view::{NodePorts, SingleNode};
use cqlgate::rewrite::{Conversation, Step, Surroundings, Then, Work};
use cqlgate_fuzz::{Choices, topology, within};
use libfuzzer_sys::fuzz_target;

const HELD_FRAME: usize = 128 * 1024;
/// Steps for each byte that was received or decompressed, and for each question.
const STEPS_PER_BYTE: u64 = 16;
const STEPS_PER_ASK: u64 = 16;
/// The text of one ERROR, in a segment: the last that a connection gets.
const STEPS_FREE: u64 = 2048;
/// Steps of one turn; see the oracle in the crate's own tests.
const STEPS_PER_TURN: u64 = 4 * (131_071 + 64 * 1024) + 4 * 256 * 1024 + 4 * HELD_FRAME as u64;
/// Bytes of heap in one question for each byte that was received or decompressed: a held frame, decompressed, parsed (24 bytes for a
/// cell of 4, 72 for a column of 4), rewritten and compressed again.
const HEAP_PER_BYTE: usize = 24;
const HEAP_FREE: usize = 256 * 1024;

/// Bytes kept between questions for each that was received or decompressed: a claim keeps nothing.
const HELD_PER_BYTE: usize = 4;
const HELD_FREE: usize = 4096;
/// The most that is waited for: a v5 segment, or a frame that may be held.
const LONGEST_WAIT: usize = HELD_FRAME + 64;
/// The same of a REGISTER: no list of types is longer.
const LONGEST_REGISTER: usize = HEADER_LEN + 4096;
/// Frames that pass in one question.
const FRAMES_PER_ASK: usize = 256;
/// Bytes for the node that are made and not compressed, for each that the client wrote and for each that they would be, compressed:
/// what came compressed goes on compressed.
const MADE_PER_BYTE: usize = 4;
const MADE_FREE: usize = 1024;

const SESSIONS: [(Version, Option<Compression>); 8] = [
    (Version::V3, None),
    (Version::V3, Some(Compression::Snappy)),
    (Version::V4, None),
    (Version::V4, Some(Compression::Lz4)),
    (Version::V4, Some(Compression::Snappy)),
    (Version::V5, None),
    (Version::V5, Some(Compression::Lz4)),
    (Version::V4, None),
];

/// Bodies to start from; the fuzzer puts bytes before and behind them.
const BODIES: [&[u8]; 8] = [
    b"",
    b"\0\0\0\x02\0\0\0\x01\0\0\0\x02\0\x06system\0\x08peers_v2\0\x07host_id\0\x0c\0\x0enative_address\0\x10\0\0\0\x01\
      \0\0\0\x10\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x23\x53\0\0\0\x04\xd6\xe7\xd6\xe8",
    b"\0\0\0\x02\0\0\0\x04\0\0\0\x01\0\0\0\x01\0\0\0\x04\xd6\xe7\xd6\xe8",
    b"\0\0\0\x02\0\0\0\x01\0\0\0\x01\0\x02ks\0\x01t\0\x01v\0\x0d\0\0\0\x01\0\0\0\x01x",
    b"\0\x0dSTATUS_CHANGE\0\x04DOWN\x04\xd6\xe7\xd6\xe8\0\0\x23\x28",
    b"\0\x02\0\x0dSTATUS_CHANGE\0\x0fTOPOLOGY_CHANGE",
    b"\0\x10aaaaaaaaaaaaaaaa\0\x01\x02",
    b"\0\0\0\x08SELECT 1\0\x01\x02\0\0\0\x02",
];

const REQUESTS: [u8; 8] = [0x07, 0x0a, 0x0b, 0x09, 0x05, 0x0d, 0x0f, 0x11];
const RESPONSES: [u8; 8] = [0x08, 0x0c, 0x00, 0x06, 0x02, 0x10, 0x0e, 0x14];

/// Who writes what, in order.
type Script = Vec<(bool, Vec<u8>)>;

/// What became of a script.
#[derive(Default)]
struct Played {
    /// What the node and the client got.
    written: [Vec<u8>; 2],
    ended: bool,
    /// What is known of the client: that it hears of nodes, and how many requests wait for an answer.
    is_control: bool,
    in_flight: u64,
}

fuzz_target!(|bytes: &[u8]| {
    let mut choices = Choices(bytes);
    let (version, compression) = choices.one_of(&SESSIONS);
    let session = Session { version, compression };
    let single_node = choices.byte() & 1 == 1;
    let pieces: [usize; 2] = [1 + usize::from(choices.byte()) % 64, 1 + usize::from(choices.byte()) * 16];
    let mut script = Script::new();
    while !choices.is_empty() && script.len() < 24 {
        script.push(written(&mut choices, session));
    }
    let whole = play(session, single_node, &in_as_few_reads(&script), &[usize::MAX]);
    let cut = play(session, single_node, &script, &pieces);
    // A compressed body may be decided by its start before its end turns out to be corrupt, which is for the receiver to see.
    let is_compressed = compression.is_some() && version != Version::V5;
    assert!(
        is_compressed || whole.ended == cut.ended,
        "{session:?} in pieces of {pieces:?} ended {} and whole {}: {}",
        cut.ended,
        whole.ended,
        script
            .iter()
            .map(|(from_node, bytes)| format!(
                "\n{} {:02x?}",
                if *from_node { '<' } else { '>' },
                &bytes[..bytes.len().min(60)]
            ))
            .collect::<String>()
    );
    let ended = whole.ended || cut.ended;
    // What was decided before the end may have gone out in one run and not in the other.
    let agree = |a: &[u8], b: &[u8]| if ended { a.starts_with(b) || b.starts_with(a) } else { a == b };
    assert!((0..2).all(|side| agree(&whole.written[side], &cut.written[side])), "the pieces made a difference");
    let known = [&whole, &cut].map(|played| (played.is_control, played.in_flight));
    assert!(ended || known[0] == known[1], "the pieces made a difference to what is known: {known:?}");
});

/// What one side writes before the other one does, as one read.
fn in_as_few_reads(script: &Script) -> Script {
    script
        .chunk_by(|a, b| a.0 == b.0)
        .map(|run| (run[0].0, run.iter().flat_map(|(_, bytes)| bytes.clone()).collect()))
        .collect()
}

/// One frame or some raw bytes of one side, as its wire carries them.
fn written(choices: &mut Choices<'_>, Session { version, compression }: Session) -> (bool, Vec<u8>) {
    let how = choices.byte();
    let from_node = how & 1 == 1;
    if how & 0xe0 == 0xe0 {
        let length = usize::from(choices.byte());
        return (from_node, choices.bytes(length).to_vec());
    }
    let opcode = Opcode(choices.one_of(if from_node { &RESPONSES } else { &REQUESTS }));
    let mut flags = choices.byte() & 0x0e;
    let stream = if opcode == Opcode::EVENT { -1 } else { i16::from(choices.byte() as i8) };
    let before = usize::from(choices.byte() % 32);
    let mut body = choices.bytes(before).to_vec();
    body.extend_from_slice(choices.one_of(&BODIES));
    let behind = usize::from(choices.byte());
    let behind = choices.bytes(behind);
    // Many of the same: entries, elements, rows, fields. A longer frame than may be held fails in pieces and not as a whole.
    let times = if how & 64 != 0 { 1 + usize::from(choices.byte()) * 16 } else { 1 };
    (0..times.min(100_000 / behind.len().max(1))).for_each(|_| body.extend_from_slice(behind));
    if let Some(change) = body.len().checked_sub(1).filter(|_| how & 2 != 0) {
        let at = usize::from(choices.byte()).min(change);
        body[at] ^= choices.byte();
    }
    if let Some(compression) = compression.filter(|_| version != Version::V5 && how & 4 != 0) {
        flags |= Flags::COMPRESSION;
        body = compression.compress(&body).unwrap_or_default();
    }
    let version_byte = version.number() | if from_node { 0x80 } else { 0 };
    let header = Header { version: version_byte, flags: Flags(flags), stream, opcode, length: 0 };
    let frame = encode_frame(header, &body);
    if version != Version::V5 {
        return (from_node, frame);
    }
    let mut out = Vec::new();
    let layout = Layout::of(compression);
    let parts = if how & 8 != 0 { 1 + usize::from(choices.byte()) } else { frame.len() };
    for part in frame.chunks(parts) {
        let self_contained = parts >= frame.len();
        match layout {
            Layout::Lz4 if how & 16 != 0 => append_lz4_segment(&mut out, self_contained, part),
            _ => append_segment(&mut out, layout, self_contained, part),
        }
    }
    (from_node, out)
}

fn play(session: Session, single_node: bool, script: &Script, pieces: &[usize]) -> Played {
    let topology = topology();
    let around = Arc::new(Surroundings {
        topology: Box::new(move || topology.clone()),
        statements: Arc::default(),
        max_body: 1 << 20,
        held_frame: HELD_FRAME,
        unserved: Default::default(),
        rewriting: true,
    });
    let mut conversation = Conversation::new(
        Client {
            session,
            view: if single_node { &SingleNode } else { &NodePorts },
            attached: 9042,
            path: "default".into(),
            family: cqlgate::topology::Family::Ipv4,
            injection: Injection { local: true, peers: true },
            logged_in: true,
        },
        around,
    );
    let mut scratch = vec![0; MAX_PAYLOAD];
    let mut undecided = [Vec::new(), Vec::new()];
    let mut played = Played::default();
    let mut pieces = pieces.iter().cycle();
    let (mut bytes_so_far, mut from_client, mut steps, mut asks) = (0, 0, 0, 0);
    for (from_node, bytes) in script {
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let (piece, more) = rest.split_at(rest.len().min(*pieces.next().unwrap_or(&usize::MAX)));
            rest = more;
            let side = usize::from(*from_node);
            undecided[side].extend_from_slice(piece);
            bytes_so_far += piece.len();
            if !*from_node {
                from_client += piece.len();
            }
            while !undecided[side].is_empty() {
                let mut work = Work::new(&mut scratch);
                let was_at_boundary = conversation.requests_at_boundary();
                cost::take();
                let Step { pass, then } = within(HEAP_PER_BYTE * (bytes_so_far + MAX_PAYLOAD) + HEAP_FREE, || {
                    if *from_node {
                        conversation.response(&undecided[side], &mut work)
                    } else {
                        conversation.request(&undecided[side], &mut work)
                    }
                });
                let turn = cost::take();
                bytes_so_far += work.decompressed();
                steps += turn;
                asks += 1;
                let explained = STEPS_PER_BYTE * bytes_so_far as u64 + STEPS_PER_ASK * asks + STEPS_FREE;
                assert!(steps <= explained, "{steps} steps for {bytes_so_far} bytes");
                assert!(turn <= STEPS_PER_TURN, "{turn} steps in one turn");
                drop(conversation.take_facts());
                let held = conversation.requests_held() + conversation.responses_held();
                assert!(held <= HELD_PER_BYTE * bytes_so_far + HELD_FREE, "{held} bytes are held of {bytes_so_far}");
                if !*from_node && session.version != Version::V5 && was_at_boundary {
                    let frames = frames(&undecided[side][..pass]).count();
                    assert!(frames <= FRAMES_PER_ASK, "{frames} frames in one turn");
                }
                played.written[side].extend(undecided[side].drain(..pass));
                match then {
                    Then::Wait { need } => {
                        assert!(need > undecided[side].len(), "waits for bytes that are there");
                        assert!(need <= LONGEST_WAIT.max(MAX_PAYLOAD + 64), "waits for {need} bytes");
                        let registers = !*from_node && session.version != Version::V5 && {
                            let header = Header::peek(&undecided[side]);
                            was_at_boundary
                                && pass == 0
                                && header.is_some_and(|header| header.opcode == Opcode::REGISTER)
                        };
                        assert!(!registers || need <= LONGEST_REGISTER, "waits for {need} bytes of a REGISTER");
                        break;
                    }
                    Then::Yield => {}
                    Then::Replace { consumed, made } => {
                        assert!(consumed > 0 || pass > 0, "a step that consumes nothing");
                        undecided[side].drain(..consumed);
                        if !*from_node {
                            made_is_explained(session, &made, from_client);
                        }
                        played.written[side].extend(made);
                    }
                    Then::Login(_) => conversation.let_in(),
                    Then::Fail(_) => {
                        played.ended = true;
                        return played;
                    }
                }
            }
        }
    }
    (played.is_control, played.in_flight) = (conversation.is_control(), conversation.in_flight());
    if session.version != Version::V5 {
        let asked = frames(&played.written[0]).filter(|header| header.stream >= 0).count() as u64;
        assert!(played.in_flight <= asked, "{} requests are in flight of {asked}", played.in_flight);
    }
    played
}

/// The frames that begin in these bytes, the first one with the first byte.
fn frames(mut bytes: &[u8]) -> impl Iterator<Item = Header> {
    std::iter::from_fn(move || {
        let header = Header::peek(bytes)?;
        bytes = bytes.get(HEADER_LEN + header.length as usize..).unwrap_or_default();
        Some(header)
    })
}

/// # Panics
/// When a changed request is longer than what the client wrote explains, and was not compressed.
fn made_is_explained(session: Session, made: &[u8], from_client: usize) {
    let Some(compression) = session.compression else { return };
    let plain = match session.version {
        Version::V5 => plain_payloads(Layout::of(session.compression), made),
        _ if Header::peek(made).is_some_and(|header| session.is_compressed(header)) => return,
        _ => made.to_vec(),
    };
    let compressed = compression.compress(&plain).map_or(usize::MAX, |compressed| compressed.len());
    let explained = MADE_PER_BYTE * (from_client + compressed) + MADE_FREE;
    assert!(plain.len() <= explained, "{} bytes were made of {from_client}", plain.len());
}

/// The payloads of segments that are not compressed, one behind the other.
fn plain_payloads(layout: Layout, mut segments: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    while let Ok(Some(header)) = SegmentHeader::peek(layout, segments) {
        if !header.is_compressed() {
            plain.extend_from_slice(header.payload(segments).expect("whole segments are made"));
        }
        segments = &segments[header.segment_len()..];
    }
    plain
}
