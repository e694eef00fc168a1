//! Clients that the node has not let in yet.

use super::hostile::{frame, give};
use super::*;
use crate::cql::message::error_code;

/// One whose login is not answered.
fn stranger(session: Session) -> Talk {
    let mut talk = Talk::with(session, &surroundings());
    talk.conversation.exchange.client.logged_in = false;
    talk
}

/// A token, or a custom payload's only value, of 2 GiB.
const CLAIM: &[u8] = &[0x7f, 0xff, 0xff, 0xff, 0];

/// What claims more than it holds: flags, opcode and body.
fn claims(version: Version) -> Vec<(u8, Opcode, Vec<u8>)> {
    let payload = |message: &[u8]| [&[0, 1, 0, 1, b'a'], CLAIM, message].concat();
    let valued = |body: Vec<u8>| [body, [&[0, 1], CLAIM].concat()].concat();
    vec![
        (0, Opcode::AUTH_RESPONSE, CLAIM.to_vec()),
        (0, Opcode::PREPARE, CLAIM.to_vec()),
        (0, Opcode::REGISTER, vec![0, 1, 0, 200, b'x']),
        // A node would read on in the next frame of the segment.
        (0, Opcode::BATCH, vec![0, 0, 0]),
        (0, Opcode::QUERY, query(version, "SELECT", 0x01)),
        (0, Opcode::QUERY, valued(query(version, "SELECT v FROM ks.t WHERE k = ?", 0x01))),
        (0, Opcode::EXECUTE, valued(execute(version, &ID, 0x01 | SKIP))),
        (0, Opcode::BATCH, valued(vec![0, 0, 1, 1, 0, 1, b'i'])),
        (Flags::CUSTOM_PAYLOAD, Opcode::OPTIONS, payload(&[])),
        (Flags::CUSTOM_PAYLOAD, Opcode::STARTUP, payload(&message::encode_startup(&[]))),
        (Flags::CUSTOM_PAYLOAD, Opcode::QUERY, payload(&query(version, "SELECT", 0))),
        (Flags::CUSTOM_PAYLOAD, Opcode(0x42), payload(&[])),
    ]
}

#[test]
fn what_claims_more_than_it_holds_is_refused_until_the_login_and_passes_after_it() {
    for session in ALL {
        for (flags, opcode, body) in claims(session.version) {
            let wire = on_wire_flagged(session, 0, flags, opcode, 1, &body);
            for piece in [1, 7, usize::MAX] {
                let mut talk = stranger(session);
                let mut passed = 0;
                let told = give(session, &wire, piece, |bytes, work| {
                    let step = talk.conversation.request(bytes, work);
                    passed += step.pass;
                    // A login is let in: the claim is what must end it.
                    talk.conversation.let_in();
                    step
                });
                let refused = Err((Why::Malformed, Some(error_code::PROTOCOL_ERROR)));
                assert_eq!((told, passed), (refused, 0), "{session:?} {opcode:?} {piece}");
            }
            // What stands before a statement's flags is read in any case where it is compressed, or where nodes would read on.
            let is_read = [V4_LZ4, V4_SNAPPY].contains(&session)
                || session.version == Version::V5 && opcode == Opcode::QUERY && flags != 0;
            if is_read {
                continue;
            }
            let mut talk = stranger(session);
            talk.response(Opcode::AUTH_SUCCESS, 0, &[0xff; 4]).unwrap();
            let conversation = &mut talk.conversation;
            let out = give(session, &wire, usize::MAX, |bytes, work| conversation.request(bytes, work));
            assert!(out.is_ok_and(|out| !out.is_empty()), "{session:?} {opcode:?}");
        }
    }
}

#[test]
fn what_fits_passes_before_the_login_as_it_does_after_it() {
    for session in ALL {
        let version = session.version;
        let skipping = |flags| query(version, "SELECT * FROM system.local", flags);
        for (flags, opcode, body) in [
            (0, Opcode::OPTIONS, vec![]),
            (0, Opcode(0x42), vec![0x7f; 9]),
            (0, Opcode::QUERY, skipping(0)),
            (0, Opcode::BATCH, [&[0, 0, 0, 0, 1], &[0; 4][..if version == Version::V5 { 4 } else { 1 }]].concat()),
            (Flags::CUSTOM_PAYLOAD, Opcode::QUERY, [&[0, 1, 0, 1, b'a', 0, 0, 0, 1, 7][..], &skipping(0)].concat()),
        ] {
            let wire = on_wire_flagged(session, 0, flags, opcode, 1, &body);
            let conversation = &mut stranger(session).conversation;
            let out = give(session, &wire, 5, |bytes, work| conversation.request(bytes, work));
            assert_eq!(out.as_ref(), Ok(&wire), "{session:?} {opcode:?}");
        }
        // Its flag is cleared for a stranger, too.
        assert_eq!(stranger(session).request(Opcode::QUERY, 1, &skipping(SKIP)), skipping(0), "{session:?}");
    }
}

#[test]
fn a_body_that_decompresses_to_more_than_a_stranger_may_say_is_refused() {
    for session in [V4_LZ4, V4_SNAPPY] {
        let body = session.compression.unwrap().compress(&query(Version::V4, &"x".repeat(70_000), 0)).unwrap();
        let wire = frame(Version::V4, Flags::COMPRESSION, Opcode::QUERY, 1, &body);
        assert!(wire.len() < 10_000);
        let conversation = &mut stranger(session).conversation;
        let refused = give(session, &wire, usize::MAX, |bytes, work| conversation.request(bytes, work));
        assert_eq!(refused, Err((Why::Compression, Some(error_code::PROTOCOL_ERROR))), "{session:?}");
    }
}
