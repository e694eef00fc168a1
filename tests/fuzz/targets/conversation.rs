//! A whole established connection, both directions, cut at random places: any frames, well wrapped or not. It ends in the same
//! way whatever the pieces, never panics, and never allocates more than the cap for held frames explains.
#![no_main]

use std::sync::Arc;

use cqlgate::cql::compression::Compression;
use cqlgate::cql::frame::{Flags, Header, Opcode, Version, encode_frame};
use cqlgate::cql::segment::{Layout, MAX_PAYLOAD, append_lz4_segment, append_segment};
use cqlgate::cql::session::Session;
use cqlgate::rewrite::conversation::Client;
use cqlgate::rewrite::statements::OrdinaryStatements;
use cqlgate::rewrite::view::drivers::Injection;
use cqlgate::rewrite::view::{NodePorts, SingleNode};
use cqlgate::rewrite::{Conversation, Step, Surroundings, Then, Work};
use cqlgate_fuzz::{Choices, topology, within};
use libfuzzer_sys::fuzz_target;

const HELD_FRAME: usize = 32 * 1024;
/// A held frame, decompressed, parsed (24 bytes for a cell of 4), rewritten and compressed again.
const STEP_CAP: usize = 32 * HELD_FRAME + 256 * 1024;

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
    let whole = play(session, single_node, &script, &[usize::MAX]);
    let cut = play(session, single_node, &script, &pieces);
    // A compressed body may be decided by its start before its end turns out to be corrupt, which is for the receiver to see.
    let is_compressed = compression.is_some() && version != Version::V5;
    assert!(is_compressed || whole.2 == cut.2, "ended differently");
    let ended = whole.2 || cut.2;
    // What was decided before the end may have gone out in one run and not in the other.
    let agree = |a: &[u8], b: &[u8]| if ended { a.starts_with(b) || b.starts_with(a) } else { a == b };
    assert!(agree(&whole.0, &cut.0) && agree(&whole.1, &cut.1), "the pieces made a difference");
});

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
    body.extend_from_slice(choices.bytes(behind));
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

/// What the node and the client got, and whether it was ended.
fn play(session: Session, single_node: bool, script: &Script, pieces: &[usize]) -> (Vec<u8>, Vec<u8>, bool) {
    let topology = topology();
    let around = Arc::new(Surroundings {
        topology: Box::new(move || topology.clone()),
        statements: OrdinaryStatements::default(),
        max_body: 1 << 20,
        held_frame: HELD_FRAME,
        rewriting: true,
    });
    let mut conversation = Conversation::new(
        Client {
            session,
            view: if single_node { &SingleNode } else { &NodePorts },
            attached: 9042,
            family: [127, 0, 0, 1].into(),
            injection: Injection { local: true, peers: true },
            logged_in: true,
        },
        around,
    );
    let mut scratch = vec![0; MAX_PAYLOAD];
    let mut undecided = [Vec::new(), Vec::new()];
    let mut written = [Vec::new(), Vec::new()];
    let mut pieces = pieces.iter().cycle();
    for (from_node, bytes) in script {
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let (piece, more) = rest.split_at(rest.len().min(*pieces.next().unwrap_or(&usize::MAX)));
            rest = more;
            let side = usize::from(*from_node);
            undecided[side].extend_from_slice(piece);
            while !undecided[side].is_empty() {
                let Step { pass, then } = within(STEP_CAP, || {
                    let work = &mut Work::new(&mut scratch);
                    if *from_node {
                        conversation.response(&undecided[side], work)
                    } else {
                        conversation.request(&undecided[side], work)
                    }
                });
                drop(conversation.take_facts());
                written[side].extend(undecided[side].drain(..pass));
                match then {
                    Then::Wait { need } => {
                        assert!(need > undecided[side].len(), "waits for bytes that are there");
                        break;
                    }
                    Then::Yield => {}
                    Then::Replace { consumed, made } => {
                        assert!(consumed > 0 || pass > 0, "a step that consumes nothing");
                        undecided[side].drain(..consumed);
                        written[side].extend(made);
                    }
                    Then::Login(_) => conversation.let_in(),
                    Then::Fail(_) => {
                        let [to_node, to_client] = written;
                        return (to_node, to_client, true);
                    }
                }
            }
        }
    }
    let [to_node, to_client] = written;
    (to_node, to_client, false)
}
