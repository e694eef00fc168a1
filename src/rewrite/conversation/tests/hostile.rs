//! Clients that want to be told what they must not be, or to cost more than they send.

use super::*;
use crate::cql::message::error_code;
use crate::cql::segment::{append_lz4_segment, append_segment};

/// Gives the bytes in turns and pieces; what goes out, or the failure with the code of the client's error.
pub fn give(
    session: Session,
    wire: &[u8],
    piece: usize,
    mut ask: impl FnMut(&[u8], &mut Work<'_>) -> Step,
) -> Result<Vec<u8>, (Why, Option<i32>)> {
    let mut scratch = vec![0; MAX_PAYLOAD];
    let (mut held, mut out) = (Vec::new(), Vec::new());
    for piece in wire.chunks(piece) {
        held.extend_from_slice(piece);
        loop {
            let Step { pass, then } = ask(&held, &mut Work::new(&mut scratch));
            out.extend(held.drain(..pass));
            match then {
                Then::Wait { .. } => break,
                Then::Yield | Then::Login(_) => {}
                Then::Replace { consumed, made } => {
                    held.drain(..consumed);
                    out.extend(made);
                }
                Then::Fail(failure) => {
                    let code = failure
                        .reply
                        .map(|reply| message::Error::parse(&off_wire(session, &reply)).expect("an ERROR").code);
                    return Err((failure.why, code));
                }
            }
        }
    }
    Ok(out)
}

pub fn frame(version: Version, flags: u8, opcode: Opcode, stream: i16, body: &[u8]) -> Vec<u8> {
    encode_frame(Header { version: version.number(), flags: Flags(flags), stream, opcode, length: 0 }, body)
}

impl Talk {
    /// The client writes all this at once.
    pub fn writes(&mut self, wire: &[u8]) -> Result<Vec<u8>, (Why, Option<i32>)> {
        give(self.session, wire, usize::MAX, |bytes, work| self.conversation.request(bytes, work))
    }
}

#[test]
fn an_answer_to_another_request_on_the_stream_never_makes_a_statement_ordinary() {
    for session in ALL {
        let around = surroundings();
        let mut talk = Talk::with(session, &around);
        talk.request(Opcode::QUERY, 1, &query(session.version, "USE ks", 0));
        talk.request(Opcode::EXECUTE, 1, &execute(session.version, &ID, SKIP));
        talk.response(Opcode::RESULT, 1, &void()).unwrap();
        assert!(!around.statements.contains(&ID), "{session:?}: by the first answer");
        talk.response(Opcode::RESULT, 1, &rows("ks", "t")).unwrap();
        assert!(!around.statements.contains(&ID), "{session:?}: by either");
        // An answer that nobody asked for is nobody's evidence.
        talk.response(Opcode::RESULT, 1, &rows("ks", "t")).unwrap();
        talk.request(Opcode::EXECUTE, 1, &execute(session.version, &ID, SKIP));
        talk.response(Opcode::RESULT, 1, &rows("ks", "t")).unwrap();
        assert!(around.statements.contains(&ID), "{session:?}: alone on its stream");
    }
}

#[test]
fn a_nameless_answer_passes_only_to_a_skipping_execute_of_an_ordinary_statement_alone_on_its_stream() {
    let session = V4;
    let around = surroundings();
    around.statements.learn(&ID);
    let skipping = execute(session.version, &ID, SKIP);
    let mut talk = Talk::with(session, &around);
    talk.request(Opcode::EXECUTE, 1, &skipping);
    assert_eq!(talk.response(Opcode::RESULT, 1, &rows_without_metadata()), Ok(rows_without_metadata()));
    // Nobody asked; somebody asked for something else; two are in flight.
    assert_eq!(talk.response(Opcode::RESULT, 1, &rows_without_metadata()), Err(Why::MetadataMissing));
    for first in [Opcode::BATCH, Opcode(0x42), Opcode::QUERY, Opcode::EXECUTE] {
        let mut talk = Talk::with(session, &around);
        let body = if first == Opcode::QUERY { query(session.version, "SELECT", SKIP) } else { skipping.clone() };
        talk.request(first, 1, &body);
        if first == Opcode::EXECUTE {
            talk.request(Opcode::EXECUTE, 1, &skipping);
        }
        assert_eq!(talk.response(Opcode::RESULT, 1, &rows_without_metadata()), Err(Why::MetadataMissing), "{first:?}");
    }
}

#[test]
fn a_compressed_request_where_no_compression_was_agreed_on_is_refused() {
    for session in [V3, V4] {
        for opcode in [Opcode::EXECUTE, Opcode::QUERY, Opcode::BATCH, Opcode(0x42)] {
            let body = execute(session.version, &ID, SKIP);
            let wire = frame(session.version, Flags::COMPRESSION, opcode, 1, &body);
            let refused = Talk::with(session, &surroundings()).writes(&wire);
            assert_eq!(refused, Err((Why::Compression, Some(error_code::PROTOCOL_ERROR))), "{session:?} {opcode:?}");
        }
    }
    // In v5 it means nothing, to nodes and to us: Java driver 4 sets it.
    let body = execute(Version::V5, &ID, SKIP);
    let wire = in_segments(&frame(Version::V5, Flags::COMPRESSION, Opcode::EXECUTE, 1, &body), Layout::Plain);
    let out = Talk::with(V5, &surroundings()).writes(&wire).unwrap();
    assert_eq!(off_wire(V5, &out), execute(Version::V5, &ID, 0));
}

#[test]
fn a_body_that_does_not_decompress_is_refused() {
    for session in [V4_LZ4, V4_SNAPPY] {
        for opcode in [Opcode::EXECUTE, Opcode::QUERY, Opcode::REGISTER] {
            for body in [&[0, 0, 0, 200, 0x14, b'a', 9, 9, 0][..], &[0xff; 30], &[200, 1, 1, 9, 9]] {
                let wire = frame(session.version, Flags::COMPRESSION, opcode, 1, body);
                let refused = Talk::with(session, &surroundings()).writes(&wire);
                assert_eq!(refused, Err((Why::Compression, Some(error_code::PROTOCOL_ERROR))), "{opcode:?}");
            }
        }
    }
}

#[test]
fn a_header_that_contradicts_the_handshake_is_refused() {
    for session in ALL {
        for (byte, why) in [(3, Why::VersionChanged), (4, Why::VersionChanged), (5, Why::VersionChanged)] {
            if byte == session.version.number() {
                continue;
            }
            let header = Header { version: byte, flags: Flags(0), stream: 1, opcode: Opcode::OPTIONS, length: 0 };
            let mut wire = header.encode().to_vec();
            if session.version == Version::V5 {
                wire = in_segments(&wire, Layout::of(session.compression));
            }
            let refused = Talk::with(session, &surroundings()).writes(&wire);
            assert_eq!(refused, Err((why, Some(error_code::PROTOCOL_ERROR))), "{session:?} {byte}");
        }
    }
}

#[test]
fn a_registration_counts_whatever_is_read_with_it_and_in_any_case() {
    for session in ALL {
        let mut talk = Talk::with(session, &surroundings());
        let wire = [
            on_wire(session, 0, Opcode::REGISTER, 1, &encode_register(&["status_change", "Topology_Change"])),
            on_wire(session, 0, Opcode::EXECUTE, 2, &execute(session.version, &ID, SKIP)),
        ]
        .concat();
        talk.writes(&wire).unwrap();
        assert!(!talk.conversation.is_control(), "the node has not said READY");
        talk.response(Opcode::READY, 1, &[]).unwrap();
        assert!(talk.conversation.is_control(), "{session:?}");
        let told = talk.response(Opcode::EVENT, -1, &event(NodeChange::RemovedNode, "10.77.0.12:9042")).unwrap();
        assert_eq!(told, event(NodeChange::RemovedNode, "203.0.113.10:9043"), "{session:?}");
    }
}

#[test]
fn a_registration_that_the_node_refuses_or_that_is_of_the_schema_alone_is_none() {
    for (types, answer, body) in
        [(&["STATUS_CHANGE"][..], Opcode::ERROR, &[0, 0, 0, 10, 0, 0][..]), (&["SCHEMA_CHANGE"], Opcode::READY, &[])]
    {
        let mut talk = Talk::with(V4, &surroundings());
        talk.request(Opcode::REGISTER, 1, &encode_register(types));
        talk.response(answer, 1, body).unwrap();
        assert!(!talk.conversation.is_control(), "{types:?}");
        assert!(talk.conversation.announce(&topology()).is_empty());
        let told = talk.response(Opcode::EVENT, -1, &event(NodeChange::Down, "10.77.0.12:9042")).unwrap();
        assert!(told.is_empty(), "{types:?}");
    }
}

#[test]
fn a_register_has_a_small_cap_of_its_own() {
    for session in ALL {
        let header = Header {
            version: session.version.number(),
            flags: Flags(0),
            stream: 1,
            opcode: Opcode::REGISTER,
            length: 16 << 20,
        };
        let mut wire = header.encode().to_vec();
        if session.version == Version::V5 {
            wire.clear();
            append_segment(&mut wire, Layout::of(session.compression), false, &header.encode());
        }
        let refused = Talk::with(session, &surroundings()).writes(&wire);
        assert_eq!(refused, Err((Why::FrameTooLong, Some(error_code::PROTOCOL_ERROR))), "{session:?}");
    }
}

#[test]
fn requests_on_negative_streams_are_not_waited_for() {
    let mut talk = Talk::with(V4, &surroundings());
    for stream in [-1, -7, i16::MIN] {
        talk.request(Opcode::QUERY, stream, &query(Version::V4, "SELECT 1", 0));
    }
    assert_eq!(talk.conversation.in_flight(), 0);
    talk.request(Opcode::QUERY, 1, &query(Version::V4, "SELECT 1", 0));
    assert_eq!(talk.conversation.in_flight(), 1);
    talk.response(Opcode::RESULT, -7, &void()).unwrap();
    assert_eq!(talk.conversation.in_flight(), 1);
    talk.response(Opcode::RESULT, 1, &void()).unwrap();
    assert_eq!(talk.conversation.in_flight(), 0);
}

#[test]
fn what_must_change_and_came_compressed_goes_on_compressed() {
    let text = "x".repeat(100_000);
    let mut body = execute(Version::V4, &ID, SKIP);
    body.extend(text.bytes());
    for session in [V4_LZ4, V4_SNAPPY] {
        let wire = on_wire(session, 0, Opcode::EXECUTE, 1, &body);
        let out = Talk::with(session, &surroundings()).writes(&wire).unwrap();
        assert!(out.len() <= wire.len() + 16, "{session:?}: {} of {}", out.len(), wire.len());
        assert!(Header::peek(&out).unwrap().flags.has(Flags::COMPRESSION));
    }
    let mut body = execute(Version::V5, &ID, SKIP);
    body.extend(text.bytes());
    let mut wire = Vec::new();
    append_lz4_segment(&mut wire, true, &frame(Version::V5, 0, Opcode::EXECUTE, 1, &body));
    let out = Talk::with(V5_LZ4, &surroundings()).writes(&wire).unwrap();
    assert!(out.len() <= wire.len() + 16, "{} of {}", out.len(), wire.len());
    assert_ne!(out, wire);
}

/// A custom payload of as many entries as there can be, before a QUERY.
fn many_entries() -> Vec<u8> {
    let mut body = vec![0xff, 0xfe];
    body.extend([0, 0, 0, 0, 0, 0].repeat(65_534));
    body.extend(query(Version::V5, "SELECT 1", SKIP));
    body
}

#[test]
fn behind_a_payload_of_many_entries_the_flag_is_cleared_in_whatever_pieces_it_comes() {
    let frame = frame(Version::V5, Flags::CUSTOM_PAYLOAD, Opcode::QUERY, 1, &many_entries());
    let mut wire = Vec::new();
    let (start, rest) = frame.split_at(60_000);
    append_segment(&mut wire, Layout::Plain, false, start);
    rest[..20_000].iter().for_each(|&byte| append_segment(&mut wire, Layout::Plain, false, &[byte]));
    append_segment(&mut wire, Layout::Plain, false, &rest[20_000..120_000]);
    append_segment(&mut wire, Layout::Plain, false, &rest[120_000..220_000]);
    append_segment(&mut wire, Layout::Plain, false, &rest[220_000..]);
    let mut talk = Talk::with(V5, &surroundings());
    let conversation = &mut talk.conversation;
    let out = give(V5, &wire, 11, |bytes, work| conversation.request(bytes, work)).unwrap();
    let expected = [&many_entries()[..many_entries().len() - 1], &[0]].concat();
    assert_eq!(off_wire(V5, &out), expected);
}

#[test]
fn more_than_a_turns_work_is_done_in_turns() {
    // Fourteen thousand requests in one segment.
    let header = Header { version: 5, flags: Flags(0), stream: 1, opcode: Opcode::OPTIONS, length: 0 };
    let frames = header.encode().repeat(MAX_PAYLOAD / 9);
    for layout in [Layout::Plain, Layout::Lz4] {
        let mut wire = Vec::new();
        match layout {
            Layout::Plain => append_segment(&mut wire, layout, true, &frames),
            Layout::Lz4 => append_lz4_segment(&mut wire, true, &frames),
        }
        let session = if layout == Layout::Lz4 { V5_LZ4 } else { V5 };
        let mut conversation = Talk::with(session, &surroundings()).conversation;
        let mut scratch = vec![0; MAX_PAYLOAD];
        let mut turns = 0;
        let passed = loop {
            let step = conversation.request(&wire, &mut Work::new(&mut scratch));
            turns += 1;
            match step {
                Step { pass: 0, then: Then::Yield } => {}
                step => break step.pass,
            }
        };
        assert_eq!(passed, wire.len(), "{layout:?}");
        assert!(turns > 40, "{turns}");
        assert_eq!(conversation.counts().0, (MAX_PAYLOAD / 9) as u64);
    }
}

#[test]
fn who_logs_in_is_asked_about_before_the_node_hears_of_it() {
    for session in ALL {
        let mut talk = Talk::with(session, &surroundings());
        talk.conversation.exchange.client.logged_in = false;
        let mut body = Vec::new();
        Writer::new(&mut body).value(crate::cql::primitives::Value::Bytes(b"\0alice\0secret"));
        let wire = on_wire(session, 0, Opcode::AUTH_RESPONSE, 1, &body);
        let mut scratch = vec![0; MAX_PAYLOAD];
        for _ in 0..3 {
            let step = talk.conversation.request(&wire, &mut Work::new(&mut scratch));
            let login = crate::rewrite::Login { user: Some("alice".to_owned()) };
            assert_eq!(step, Step { pass: 0, then: Then::Login(login) }, "{session:?}");
        }
        talk.conversation.let_in();
        assert_eq!(talk.conversation.request(&wire, &mut Work::new(&mut scratch)).pass, wire.len(), "{session:?}");
        let mut error = 0x0100i32.to_be_bytes().to_vec();
        Writer::new(&mut error).string("Provided username alice and/or password are incorrect");
        talk.response(Opcode::ERROR, 1, &error).unwrap();
        assert!(matches!(talk.conversation.take_facts()[..], [Fact::LoginRefused { code: 0x0100 }]), "{session:?}");
        talk.response(Opcode::AUTH_SUCCESS, 1, &[0xff; 4]).unwrap();
        assert!(talk.conversation.is_logged_in());
        assert!(matches!(talk.conversation.take_facts()[..], [Fact::LoggedIn]));
    }
}

#[test]
fn a_response_from_a_client_gets_the_protocols_own_error() {
    for session in ALL {
        let wire = on_wire(session, 0x80, Opcode::RESULT, 1, &void());
        let refused = Talk::with(session, &surroundings()).writes(&wire);
        assert_eq!(refused, Err((Why::WrongDirection, Some(error_code::PROTOCOL_ERROR))), "{session:?}");
    }
}

#[test]
fn every_stream_may_be_in_flight_at_once() {
    let mut talk = Talk::with(V4, &surroundings());
    for stream in 0..=i16::MAX {
        talk.writes(&frame(Version::V4, 0, Opcode::OPTIONS, stream, &[])).unwrap();
    }
    assert_eq!(talk.conversation.in_flight(), 32_768);
    for stream in (0..=i16::MAX).rev() {
        let answer = on_wire(V4, 0x80, Opcode::RESULT, stream, &void());
        let conversation = &mut talk.conversation;
        let out = give(V4, &answer, usize::MAX, |bytes, work| conversation.response(bytes, work)).unwrap();
        assert_eq!(out, answer);
    }
    assert_eq!(talk.conversation.in_flight(), 0);
}

#[test]
fn a_body_that_does_not_decompress_never_passes_whole_whatever_the_request() {
    for session in [V4_LZ4, V4_SNAPPY] {
        let compression = session.compression.unwrap();
        let statement = query(Version::V4, &format!("INSERT INTO t (a) VALUES ('{}')", "x".repeat(500)), 0);
        let right = compression.compress(&statement).unwrap();
        // Cut short, longer than it says, and a claim of 15 MiB.
        let (mut claims, mut goes_on) = (right.clone(), right.clone());
        match session.compression {
            Some(Compression::Lz4) => claims[1] = 0xf0,
            _ => drop(claims.splice(0..2, [0xff, 0xff, 0xff, 0x07])),
        }
        goes_on.push(0);
        for opcode in [Opcode::QUERY, Opcode::PREPARE, Opcode::BATCH, Opcode::OPTIONS, Opcode(0x77)] {
            for piece in [1, 7, usize::MAX] {
                let send = |body: &[u8]| {
                    let wire = frame(Version::V4, 0x01, opcode, 1, body);
                    let mut talk = Talk::with(session, &surroundings());
                    give(session, &wire, piece, |bytes, work| talk.conversation.request(bytes, work))
                };
                assert_eq!(send(&right), Ok(frame(Version::V4, 0x01, opcode, 1, &right)), "{opcode:?}");
                for body in [&right[..right.len() - 1], &claims, &goes_on] {
                    let refused = Err((Why::Compression, Some(error_code::PROTOCOL_ERROR)));
                    assert_eq!(send(body), refused, "{session:?} {opcode:?} {piece}");
                }
            }
        }
    }
}
