//! The longest bodies that there are, both ways: they pass while they arrive, and nothing of them is kept.

use super::*;
use crate::cql::segment::append_segment;

/// The protocol's longest body.
const LONGEST: usize = 1 << 28;
const PIECE: usize = 64 * 1024;
/// What may be undecided or held at once.
const KEPT: usize = 2 * MAX_PAYLOAD;

fn unlimited() -> Arc<Surroundings> {
    Arc::new(Surroundings {
        topology: Box::new(topology),
        statements: Arc::default(),
        max_body: LONGEST as u32,
        held_frame: 1 << 20,
        unserved: Default::default(),
        rewriting: true,
    })
}

/// QUERY whose text makes a body of `length` bytes, and the answer's one long value; what is missing is filled up.
fn starts(length: usize) -> [(Opcode, Vec<u8>); 2] {
    let (mut query, mut rows) = (Vec::new(), Vec::new());
    Writer::new(&mut query).i32(length as i32 - 7).raw(b"INSERT INTO ks.t (k, v) VALUES (1, '");
    let mut writer = Writer::new(&mut rows);
    writer.i32(2).i32(1).i32(1).string("ks").string("t").string("v").raw(&[0, 0x0d]).i32(1);
    let value = length - rows.len() - 4;
    Writer::new(&mut rows).i32(value as i32);
    [(Opcode::QUERY, query), (Opcode::RESULT, rows)]
}

/// One frame as it arrives, in pieces or segments of which all but the first and the last are one and the same; returns how many of
/// its wire's bytes passed, and of how many.
fn stream(talk: &mut Talk, from_node: bool, opcode: Opcode, start: &[u8], length: usize) -> (usize, usize) {
    let version = talk.session.version.number() | if from_node { 0x80 } else { 0 };
    let header = Header { version, flags: Flags(0), stream: 1, opcode, length: length as u32 };
    let is_segmented = talk.session.version == Version::V5;
    let most = if is_segmented { MAX_PAYLOAD } else { PIECE };
    let on_wire = |payload: Vec<u8>| {
        let mut out = Vec::new();
        match is_segmented {
            true => append_segment(&mut out, Layout::Plain, false, &payload),
            false => out = payload,
        }
        out
    };
    let mut first = [&header.encode()[..], start].concat();
    first.resize(most, b'x');
    let frame = HEADER_LEN + length;
    let (first, again, last) = (on_wire(first), on_wire(vec![b'x'; most]), on_wire(vec![b'x'; frame % most]));
    let pieces = std::iter::once(&first).chain(std::iter::repeat_n(&again, frame / most - 1)).chain([&last]);
    let (mut undecided, mut passed, mut arrived, mut scratch) = (Vec::new(), 0, 0, vec![0; MAX_PAYLOAD]);
    for piece in pieces {
        arrived += piece.len();
        undecided.extend_from_slice(piece);
        loop {
            let work = &mut Work::new(&mut scratch);
            let Step { pass, then } = match from_node {
                true => talk.conversation.response(&undecided, work),
                false => talk.conversation.request(&undecided, work),
            };
            passed += pass;
            undecided.drain(..pass);
            match then {
                Then::Wait { .. } => break,
                Then::Yield => {}
                other => panic!("{:?} of {length} bytes: {other:?}", talk.session),
            }
        }
        let kept = undecided.len() + talk.conversation.requests_held() + talk.conversation.responses_held();
        assert!(kept <= KEPT, "{kept} bytes are kept of {arrived}");
    }
    (passed, arrived)
}

#[test]
fn bodies_of_256_mib_pass_both_ways_and_nothing_of_them_is_kept() {
    for session in [V4, V5] {
        let mut talk = Talk::with(session, &unlimited());
        for (from_node, (opcode, start)) in [false, true].into_iter().zip(starts(LONGEST)) {
            let (passed, arrived) = stream(&mut talk, from_node, opcode, &start, LONGEST);
            assert_eq!(passed, arrived, "{session:?}, from the node: {from_node}");
            assert!(arrived > LONGEST);
        }
        assert_eq!(talk.conversation.in_flight(), 0);
        assert!(talk.conversation.requests_at_boundary() && talk.conversation.responses_at_boundary());
    }
    // One byte more is too long.
    let mut talk = Talk::with(V4, &unlimited());
    let header = Header { version: 4, flags: Flags(0), stream: 1, opcode: Opcode::QUERY, length: LONGEST as u32 + 1 };
    let step = talk.conversation.request(&header.encode(), &mut Work::new(&mut []));
    assert!(matches!(step.then, Then::Fail(failure) if failure.why == Why::FrameTooLong), "{:?}", step.pass);
}

#[test]
fn a_request_that_the_node_discards_for_its_length_costs_its_own_answer_and_no_more() {
    const TOO_LONG: usize = 17 << 20;
    for session in [V4, V5] {
        let mut talk = Talk::with(session, &unlimited());
        let [(opcode, start), _] = starts(TOO_LONG);
        let (passed, arrived) = stream(&mut talk, false, opcode, &start, TOO_LONG);
        assert_eq!((passed, talk.conversation.in_flight()), (arrived, 1), "{session:?}");
        // Cassandra reads it away and answers on its stream; the connection stays.
        let error = message::Error { code: message::error_code::INVALID, message: "Request is too big" }.encode();
        assert!(talk.response(Opcode::ERROR, 1, &error).unwrap().ends_with(&error));
        assert_eq!(talk.conversation.in_flight(), 0);
        let query = request::encode_query(session.version, "SELECT * FROM ks.t");
        assert!(talk.request(Opcode::QUERY, 1, &query).ends_with(&query));
        let rows = starts(100)[1].1.clone();
        let rows = [&rows[..], &vec![b'x'; 100 - rows.len()]].concat();
        assert!(talk.response(Opcode::RESULT, 1, &rows).unwrap().ends_with(&rows));
        assert_eq!(talk.conversation.counts(), (2, 2));
    }
}
