//! A connection before READY, the first that hostile bytes meet: any frames of both sides, of any version, cut at random places.
//! What the client says reaches the node byte for byte, nothing is established that was not asked for or is not parsed, the
//! pieces make no difference, and a length that is only claimed allocates nothing.
#![no_main]

use cqlgate::cql::frame::{Flags, Header, Opcode, Version, encode_frame};
use cqlgate::rewrite::handshake::{Handshake, Next, Settled};
use cqlgate_fuzz::{Choices, within};
use libfuzzer_sys::fuzz_target;

/// What a step may hold beside what its input explains: an error's text, a few empty vectors.
const STEP_CAP: usize = 8 * 1024;
/// Of each byte that is there: a string of two bytes is a pair of slices, a list of none a vector.
const PER_BYTE: usize = 64;

/// Bodies to start from; the fuzzer puts bytes before and behind them.
const BODIES: [&[u8]; 8] = [
    b"",
    b"\0\x01\0\x0bCQL_VERSION\0\x053.0.0",
    b"\0\x02\0\x0bCQL_VERSION\0\x053.0.0\0\x0bCOMPRESSION\0\x03lz4",
    b"\0\x02\0\x0bCOMPRESSION\0\x06snappy\0\x0bDRIVER_NAME\0\x0bJava Driver",
    b"\0\x02\0\x0bCOMPRESSION\0\x02\0\x03lz4\0\x06snappy\0\x17SCYLLA_SHARD_AWARE_PORT\0\x01\0\x0519042",
    b"\0\0\0\x0a\0\x03bad",
    b"\0\x0eAuthenticator0",
    b"\0\x01\0\x11PROTOCOL_VERSIONS\0\x02\0\x043/v3\0\x044/v4",
];

const VERSIONS: [u8; 10] = [3, 4, 5, 4, 5, 6, 1, 2, 0x41, 0x42];
const REQUESTS: [u8; 6] = [0x01, 0x05, 0x01, 0x05, 0x07, 0x0f];
const RESPONSES: [u8; 6] = [0x02, 0x03, 0x06, 0x00, 0x02, 0x10];

/// Who writes what, in order.
type Script = Vec<(bool, Vec<u8>)>;

/// How it went.
#[derive(Default)]
struct Outcome {
    to_node: Vec<u8>,
    to_client: Vec<u8>,
    settled: Option<Settled>,
    refused: bool,
    /// The node spoke v1 or v2, whose frames are passed as they come and not told apart.
    old: bool,
}

fuzz_target!(|bytes: &[u8]| {
    let mut choices = Choices(bytes);
    let pieces: [usize; 2] = [1 + usize::from(choices.byte()) % 64, 1 + usize::from(choices.byte()) * 16];
    let mut script = Script::new();
    while !choices.is_empty() && script.len() < 16 {
        script.push(written(&mut choices));
    }
    let whole = play(&script, &[usize::MAX]);
    let cut = play(&script, &pieces);
    let said: Vec<u8> =
        script.iter().filter(|(from_node, _)| !from_node).flat_map(|(_, bytes)| bytes.clone()).collect();
    assert!(said.starts_with(&whole.to_node) && said.starts_with(&cut.to_node), "a request was changed");
    if whole.old || cut.old {
        return;
    }
    assert_eq!(whole.settled, cut.settled, "settled differently");
    assert_eq!(whole.refused, cut.refused, "refused differently");
    assert!(whole.to_node == cut.to_node, "the pieces made a difference to the node");
    assert!(whole.refused || whole.to_client == cut.to_client, "the pieces made a difference to the client");
});

/// One frame or some raw bytes of one side.
fn written(choices: &mut Choices<'_>) -> (bool, Vec<u8>) {
    let how = choices.byte();
    let from_node = how & 1 == 1;
    if how & 0xe0 == 0xe0 {
        let length = usize::from(choices.byte());
        return (from_node, choices.bytes(length).to_vec());
    }
    let version = choices.one_of(&VERSIONS) | if from_node { 0x80 } else { 0 };
    let opcode = Opcode(choices.one_of(if from_node { &RESPONSES } else { &REQUESTS }));
    let mut body = choices.one_of(&BODIES).to_vec();
    let behind = usize::from(choices.byte());
    body.extend_from_slice(choices.bytes(behind));
    if let Some(last) = body.len().checked_sub(1).filter(|_| how & 2 != 0) {
        let at = usize::from(choices.byte()).min(last);
        body[at] ^= choices.byte();
    }
    let header = Header { version, flags: Flags(choices.byte()), stream: 0, opcode, length: 0 };
    let mut frame = encode_frame(header, &body);
    if how & 4 != 0 {
        // A lie about the length.
        let at = 5 + usize::from(choices.byte() % 4);
        frame[at] ^= choices.byte();
    }
    (from_node, frame)
}

fn play(script: &Script, pieces: &[usize]) -> Outcome {
    let (mut handshake, mut out) = (Handshake::default(), Outcome::default());
    let mut undecided = [Vec::new(), Vec::new()];
    // The version of the client's last frame, where it is a STARTUP.
    let mut asked = None;
    let mut pieces = pieces.iter().cycle();
    for (from_node, bytes) in script {
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let (piece, more) = rest.split_at(rest.len().min(*pieces.next().unwrap_or(&usize::MAX)));
            rest = more;
            undecided[usize::from(*from_node)].extend_from_slice(piece);
            // An answer may set free what the client wrote, all of which goes out before the next one is looked at: whether the
            // node says two things in one piece or in two must not matter.
            loop {
                while step(&mut handshake, false, &mut undecided[0], &mut asked, &mut out) {}
                if !step(&mut handshake, true, &mut undecided[1], &mut asked, &mut out) {
                    break;
                }
            }
            if out.refused || out.settled.is_some() {
                return out;
            }
        }
    }
    out
}

/// One question about one side's bytes; false when nothing more can be decided.
fn step(handshake: &mut Handshake, node: bool, bytes: &mut Vec<u8>, asked: &mut Option<u8>, out: &mut Outcome) -> bool {
    if out.refused || out.settled.is_some() || bytes.is_empty() || (!node && !handshake.reads_client()) {
        return false;
    }
    let cap = STEP_CAP + PER_BYTE * bytes.len();
    let next = within(cap, || if node { handshake.node(bytes) } else { handshake.client(bytes) });
    let (consumed, written) = match next {
        Next::Wait { need } => {
            assert!(need > bytes.len(), "waits for bytes that are there");
            return false;
        }
        Next::Forward(length) => (length, bytes[..length].to_vec()),
        Next::Replace(length, instead) => {
            assert!(node, "a request was replaced");
            (length, instead)
        }
        Next::Established(length, settled) => {
            let version = bytes[0] & 0x7f;
            assert!(node && Version::from_byte(version) == Some(settled.session.version), "another version");
            assert!(*asked == Some(version), "a version that was not asked for");
            out.settled = Some(settled);
            (length, bytes[..length].to_vec())
        }
        Next::Refuse { reply, .. } => {
            out.to_client.extend(reply);
            out.refused = true;
            return false;
        }
    };
    assert!(consumed > 0, "a step that consumes nothing");
    out.old |= node && matches!(bytes[0] & 0x7f, 1 | 2);
    if !node {
        let opcode = bytes[if matches!(bytes[0], 1 | 2) { 3 } else { 4 }];
        *asked = (Opcode(opcode) == Opcode::STARTUP).then_some(bytes[0]);
    }
    bytes.drain(..consumed);
    if node {
        out.to_client.extend(written)
    } else {
        out.to_node.extend(written)
    }
    true
}
