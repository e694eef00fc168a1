//! The cost oracle: whatever is read, in whatever pieces, costs steps and memory in proportion to its bytes, and no turn does
//! more than a turn's work.

use proptest::prelude::*;

use super::hostile::frame;
use super::*;
use crate::cql::cost;
use crate::cql::primitives::Value;
use crate::cql::rows::type_id;
use crate::cql::segment::{append_lz4_segment, append_segment};

/// Steps for each byte that was received or decompressed.
const PER_BYTE: u64 = 16;
/// Steps of one turn: a segment and a turn's bytes, each decoded, copied, looked at and written; a row's values looked through; a
/// frame of the test's longest compressed again in one piece.
const PER_TURN: u64 = 4 * (131_071 + 64 * 1024) + 4 * 256 * 1024 + (1 << 20);
/// Bytes held for each byte that was received or decompressed: raw, decoded and rewritten, with what vectors grow by.
const HELD_PER_BYTE: usize = 4;
const HELD_FREE: usize = 4096;

/// What a direction's bytes cost.
struct Cost {
    steps: u64,
    most_in_a_turn: u64,
    bytes: u64,
}

/// Reads `wire` in pieces, as a relay does: asked when enough is there, a turn for each question.
fn read(session: Session, from_node: bool, wire: &[u8], piece: usize) -> Cost {
    let mut talk = Talk::with(session, &surroundings());
    let mut scratch = vec![0; MAX_PAYLOAD];
    let (mut held, mut need, mut cost) = (Vec::new(), 0, Cost { steps: 0, most_in_a_turn: 0, bytes: 0 });
    let mut arrived = 0;
    'read: for piece in wire.chunks(piece) {
        held.extend_from_slice(piece);
        arrived += piece.len();
        while held.len() >= need {
            need = 0;
            cost::take();
            let mut work = Work::new(&mut scratch);
            let Step { pass, then } = match from_node {
                true => talk.conversation.response(&held, &mut work),
                false => talk.conversation.request(&held, &mut work),
            };
            let steps = cost::take();
            cost.steps += steps;
            cost.most_in_a_turn = cost.most_in_a_turn.max(steps);
            cost.bytes += work.decompressed() as u64;
            held.drain(..pass);
            let holds = talk.conversation.requests_held() + talk.conversation.responses_held();
            let explained = arrived + cost.bytes as usize;
            assert!(holds <= HELD_PER_BYTE * explained + HELD_FREE, "{holds} bytes are held of {explained}");
            match then {
                Then::Wait { need: more } => {
                    need = more;
                    break;
                }
                Then::Yield => {}
                Then::Replace { consumed, .. } => drop(held.drain(..consumed)),
                Then::Login(_) => talk.conversation.let_in(),
                Then::Fail(_) => break 'read,
            }
        }
    }
    cost.bytes += arrived as u64;
    cost
}

/// # Panics
/// When a bound is passed.
#[track_caller]
fn check(session: Session, from_node: bool, wire: &[u8], piece: usize) {
    let Cost { steps, most_in_a_turn, bytes } = read(session, from_node, wire, piece);
    assert!(
        steps <= PER_BYTE * bytes + 64,
        "{session:?}, pieces of {piece}: {steps} steps for {bytes} bytes: {} each",
        steps / bytes.max(1)
    );
    assert!(most_in_a_turn <= PER_TURN, "{session:?}, pieces of {piece}: {most_in_a_turn} steps in one turn");
}

/// A frame as it goes on the wire: compressed, or in segments of `part` bytes.
fn on_a_wire(
    session: Session,
    direction: u8,
    flags: u8,
    opcode: Opcode,
    stream: i16,
    body: &[u8],
    part: usize,
) -> Vec<u8> {
    let header = |more| Header {
        version: session.version.number() | direction,
        flags: Flags(flags | more),
        stream,
        opcode,
        length: 0,
    };
    if session.version != Version::V5 {
        return match session.compression {
            None => encode_frame(header(0), body),
            Some(compression) => encode_frame(header(Flags::COMPRESSION), &compression.compress(body).unwrap()),
        };
    }
    let frame = encode_frame(header(0), body);
    let is_one = frame.len() <= part.min(MAX_PAYLOAD);
    let mut out = Vec::new();
    for payload in frame.chunks(part.min(MAX_PAYLOAD)) {
        match Layout::of(session.compression) {
            Layout::Lz4 => append_lz4_segment(&mut out, is_one, payload),
            layout => append_segment(&mut out, layout, is_one, payload),
        }
    }
    out
}

/// A system table's rows: one column of this type, and its values.
fn of_type(column: &[u8], values: &[Vec<u8>]) -> Vec<u8> {
    named("a", column, values)
}

fn named(name: &str, column: &[u8], values: &[Vec<u8>]) -> Vec<u8> {
    let mut body = Vec::new();
    let mut writer = Writer::new(&mut body);
    writer.i32(2).i32(1).i32(1).string("system").string("local").string(name).raw(column).i32(values.len() as i32);
    values.iter().for_each(|value| _ = writer.value(Value::Bytes(value)));
    body
}

fn tuple_of_ints(fields: u16) -> Vec<u8> {
    let mut raw = type_id::TUPLE.to_be_bytes().to_vec();
    raw.extend(fields.to_be_bytes());
    raw.extend(type_id::INT.to_be_bytes().repeat(fields.into()));
    raw
}

/// Bodies of answers that want to cost more than they are long; flags come first.
fn answers() -> Vec<(&'static str, u8, Opcode, Vec<u8>)> {
    let mut found = Vec::new();
    // Row 5 of what was found: a type is not read again for each element.
    let list_of_tuples = [&type_id::LIST.to_be_bytes()[..], &tuple_of_ints(4000)].concat();
    let empty_tuples = [&30_000_i32.to_be_bytes()[..], &[0; 4].repeat(30_000)].concat();
    found.push(("empty tuples of many fields", 0, Opcode::RESULT, of_type(&list_of_tuples, &[empty_tuples])));
    found.push(("a type of many fields", 0, Opcode::RESULT, of_type(&tuple_of_ints(20_000), &[vec![]])));
    let nested = [[0, 0x20].repeat(40), vec![0, 9]].concat();
    found.push(("a type that nests", 0, Opcode::RESULT, of_type(&nested, &[vec![0; 60_000]])));
    for text in ["::::::::", "1:2:3:4:5:6:7:8:", "a:b::c:d:e:", "10.77.0.", "abcdef01::1:"] {
        let texts = [text.repeat(60_000 / text.len()).into_bytes()];
        found.push((text, 0, Opcode::RESULT, of_type(&type_id::VARCHAR.to_be_bytes(), &texts)));
        found.push(("the same as a blob", 0, Opcode::RESULT, of_type(&type_id::BLOB.to_be_bytes(), &texts)));
    }
    for json in [
        format!("{{{}\"a\": 1}}", "\"a\": \"10.77.0.1\", ".repeat(250)),
        format!("{{{}\"a\": 1}}", "\"\":1,".repeat(10_000)),
        format!("{{\"a\": {}", "[".repeat(60_000)),
        format!("{{\"a\": \"{}\"}}", "0x".repeat(30_000)),
        format!("{{\"a\": [{}0]}}", "0,".repeat(30_000)),
    ] {
        found.push(("JSON", 0, Opcode::RESULT, named("[json]", &type_id::VARCHAR.to_be_bytes(), &[json.into_bytes()])));
    }
    found.push((
        "rows of JSON",
        0,
        Opcode::RESULT,
        named("[json]", &type_id::VARCHAR.to_be_bytes(), &vec![b"{}".to_vec(); 10_000]),
    ));
    let mut custom = vec![0, 0];
    Writer::new(&mut custom).string("org.apache.cassandra.db.marshal.VectorType");
    found.push(("a custom value", 0, Opcode::RESULT, of_type(&custom, &[vec![10; 60_000]])));
    found.push(("many rows", 0, Opcode::RESULT, of_type(&[0, 9], &vec![vec![]; 60_000])));
    // Each column names its table.
    let mut per_column = Vec::new();
    let mut writer = Writer::new(&mut per_column);
    writer.i32(2).i32(0).i32(12_000);
    (0..12_000).for_each(|_| _ = writer.string("k").string("t").string("c").raw(&[0, 9]));
    writer.i32(0);
    found.push(("a table for each column", 0, Opcode::RESULT, per_column));
    // What stands before a message.
    let mut warnings = vec![0xff, 0xff];
    warnings.extend([0, 0].repeat(65_535));
    warnings.extend(rows("ks", "t"));
    found.push(("many warnings", Flags::WARNING, Opcode::RESULT, warnings));
    let mut payload = vec![0x7f, 0xff];
    payload.extend([0, 0, 0xff, 0xff, 0xff, 0xff].repeat(32_767));
    payload.extend(rows("system", "local"));
    found.push(("a payload of many entries", Flags::CUSTOM_PAYLOAD, Opcode::RESULT, payload));
    let mut prepared = prepared(Version::V4, &ID, "ks", "t");
    prepared.extend(vec![0; 30_000]);
    found.push(("a long PREPARED", 0, Opcode::RESULT, prepared));
    found.push(("an ordinary result", 0, Opcode::RESULT, [rows("ks", "t"), vec![7; 100_000]].concat()));
    found.push(("an event", 0, Opcode::EVENT, event(NodeChange::Down, "10.77.0.12:9042")));
    found.push(("zeros", 0, Opcode::RESULT, vec![0; 100_000]));
    found
}

/// The same of requests.
fn requests(version: Version) -> Vec<(&'static str, u8, Opcode, Vec<u8>)> {
    let mut entries = vec![0xff, 0xfe];
    entries.extend([0, 0, 0, 0, 0, 0].repeat(40_000));
    let mut named = vec![0, 200];
    (0..200).for_each(|_| _ = Writer::new(&mut named).string(&"k".repeat(300)).value(Value::Bytes(&[7; 500])));
    let long = |start: Vec<u8>| [start, vec![b'x'; 200_000]].concat();
    vec![
        // Row 4: a custom payload is walked once.
        ("a payload of many entries", Flags::CUSTOM_PAYLOAD, Opcode::QUERY, entries),
        (
            "a payload of long entries",
            Flags::CUSTOM_PAYLOAD,
            Opcode::EXECUTE,
            [named, execute(version, &ID, SKIP)].concat(),
        ),
        // Row 7: what must change and came compressed.
        ("a long EXECUTE that must change", 0, Opcode::EXECUTE, long(execute(version, &ID, SKIP))),
        ("a long EXECUTE", 0, Opcode::EXECUTE, long(execute(version, &ID, 0))),
        ("a long text", 0, Opcode::QUERY, query(version, &"x".repeat(200_000), SKIP)),
        ("a text that is cut", 0, Opcode::QUERY, [&0x7fff_ffff_i32.to_be_bytes()[..], &[b'x'; 200_000]].concat()),
        ("a plain selection", 0, Opcode::QUERY, query(version, "SELECT * FROM system.local", 0)),
        ("types", 0, Opcode::REGISTER, encode_register(&["STATUS_CHANGE"; 200])),
        ("zeros", 0, Opcode::QUERY, vec![0; 100_000]),
        ("another request", 0, Opcode::BATCH, vec![0; 100_000]),
    ]
}

/// Pieces in which a wire of this length is read; a byte at a time where that is not for ever.
fn pieces(length: usize) -> impl Iterator<Item = usize> {
    [1, 7, 300, 16 * 1024, usize::MAX].into_iter().filter(move |&piece| length / piece.max(1) <= 40_000)
}

#[test]
fn no_answer_costs_more_than_its_bytes_explain() {
    for session in ALL {
        for (what, flags, opcode, body) in answers() {
            let stream = if opcode == Opcode::EVENT { -1 } else { 1 };
            for part in [usize::MAX, 1000, 1] {
                if session.version != Version::V5 && part != usize::MAX || part == 1 && body.len() > 1000 {
                    continue;
                }
                let wire = on_a_wire(session, 0x80, flags, opcode, stream, &body, part);
                for piece in pieces(wire.len()) {
                    println!("{what}, {session:?}, segments of {part}, pieces of {piece}");
                    check(session, true, &wire, piece);
                }
            }
        }
    }
}

#[test]
fn no_request_costs_more_than_its_bytes_explain() {
    for session in ALL {
        for (what, flags, opcode, body) in requests(session.version) {
            for part in [usize::MAX, 1000, 1] {
                if session.version != Version::V5 && part != usize::MAX || part == 1 && body.len() > 1000 {
                    continue;
                }
                let wire = on_a_wire(session, 0, flags, opcode, 1, &body, part);
                for piece in pieces(wire.len()) {
                    println!("{what}, {session:?}, segments of {part}, pieces of {piece}");
                    check(session, false, &wire, piece);
                }
            }
        }
    }
}

#[test]
fn many_small_requests_in_one_read_cost_what_they_are() {
    for session in ALL {
        let one = frame(session.version, 0, Opcode::OPTIONS, 1, &[]);
        let mut wire = one.repeat(14_000);
        if session.version == Version::V5 {
            let frames = std::mem::take(&mut wire);
            match Layout::of(session.compression) {
                Layout::Lz4 => append_lz4_segment(&mut wire, true, &frames),
                layout => append_segment(&mut wire, layout, true, &frames),
            }
        }
        for piece in [300, usize::MAX] {
            check(session, false, &wire, piece);
        }
    }
}

#[test]
fn segments_of_one_byte_cost_what_they_are() {
    // Row 4 of what was found, as it was: a map of many entries, then segments of one byte.
    let mut body = vec![0xff, 0xfe];
    body.extend([0, 0, 0, 0, 0, 0].repeat(30_000));
    let frame = frame(Version::V5, Flags::CUSTOM_PAYLOAD, Opcode::QUERY, 1, &body);
    let (start, rest) = frame.split_at(60_000);
    let mut wire = Vec::new();
    append_segment(&mut wire, Layout::Plain, false, start);
    rest[..20_000].iter().for_each(|&byte| append_segment(&mut wire, Layout::Plain, false, &[byte]));
    for piece in [11, 16 * 1024] {
        check(V5, false, &wire, piece);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn no_bytes_cost_more_than_they_explain(
        which in 0..ALL.len(),
        from_node: bool,
        flags in 0u8..16,
        opcode in prop_oneof![Just(0x07u8), Just(0x08), Just(0x0a), Just(0x0b), Just(0x0c), Just(0x00), any::<u8>()],
        stream in -2i16..4,
        start in prop::collection::vec(prop_oneof![0u8..4, any::<u8>()], 0..80),
        middle in prop::collection::vec(any::<u8>(), 1..12),
        times in 0usize..4000,
        part in prop_oneof![1usize..40, 1000usize..200_000],
        piece in prop_oneof![1usize..20, 300usize..100_000],
    ) {
        let session = ALL[which];
        let body = [start, middle.repeat(times)].concat();
        let direction = if from_node { 0x80 } else { 0 };
        let wire = on_a_wire(session, direction, flags, Opcode(opcode), stream, &body, part);
        check(session, from_node, &wire, piece);
    }
}
