//! What opens a connection, and what tries to.

use super::*;

fn frame(version: u8, opcode: Opcode, body: &[u8]) -> Vec<u8> {
    encode_frame(Header { version, flags: Flags(0), stream: 1, opcode, length: 0 }, body)
}

fn startup(version: u8, options: &[(&str, &str)]) -> Vec<u8> {
    frame(version, Opcode::STARTUP, &message::encode_startup(options))
}

#[test]
fn what_a_driver_opens_with_passes_and_what_a_scanner_does_not() {
    for version in [3, 4, 5, 6, 0x41, 0x42, 66] {
        let options = frame(version, Opcode::OPTIONS, &[]);
        assert_eq!(Handshake::default().client(&options), Next::Forward(options.len()), "{version}");
    }
    let no_version = frame(0, Opcode::OPTIONS, &[]);
    let hello = [0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3];
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"SSH-2.0-OpenSSH_9.6\r\n", &hello, &no_version] {
        let next = Handshake::default().client(bytes);
        assert!(matches!(next, Next::Refuse { why: Refusal::NotCql, .. }), "{next:?}");
    }
}

#[test]
fn a_version_that_is_not_parsed_is_never_established() {
    for (version, ready) in [(6, Opcode::READY), (6, Opcode::AUTHENTICATE), (0x42, Opcode::READY)] {
        let mut handshake = Handshake::default();
        handshake.client(&startup(version, &[]));
        let Next::Refuse { why, reply } = handshake.node(&frame(version | 0x80, ready, &[])) else { panic!() };
        assert_eq!(why, Refusal::Unsupported);
        // Drivers look for these words, and for the code, in a header of a version that they know.
        let header = Header::peek(&reply).unwrap();
        assert_eq!((header.version, header.opcode, header.stream), (0x85, Opcode::ERROR, 1));
        let number = if version == 6 { "6" } else { "66" };
        let text =
            format!("Invalid or unsupported protocol version ({number}); supported versions are (3/v3, 4/v4, 5/v5)");
        let expected = message::Error { code: error_code::PROTOCOL_ERROR, message: &text };
        assert_eq!(message::Error::parse(&reply[HEADER_LEN..]), Ok(expected));
    }
}

#[test]
fn the_session_is_what_startup_asked_for_and_the_node_agreed_to() {
    let mut handshake = Handshake::default();
    let said = [("COMPRESSION", "LZ4"), ("DRIVER_NAME", "x"), ("DRIVER_VERSION", "1.2"), ("APPLICATION_NAME", "shop")];
    handshake.client(&startup(5, &[&[("CQL_VERSION", "3.0.0")], &said[..]].concat()));
    assert!(!handshake.reads_client(), "the answer says how the next bytes are to be read");
    let ready = frame(0x85, Opcode::READY, &[]);
    let Next::Established(len, settled) = handshake.node(&ready) else { panic!() };
    assert_eq!(len, ready.len());
    assert_eq!(settled.session, Session { version: Version::V5, compression: Some(Compression::Lz4) });
    let texts = [&settled.driver_name, &settled.driver_version, &settled.application_name];
    assert_eq!(texts.map(Option::as_deref), [Some("x"), Some("1.2"), Some("shop")]);
}

#[test]
fn a_refused_startup_may_be_tried_again_on_the_same_connection() {
    let mut handshake = Handshake::default();
    handshake.client(&startup(5, &[("COMPRESSION", "snappy")]));
    let error = frame(0x85, Opcode::ERROR, &[0, 0, 0, 10, 0, 0]);
    assert_eq!(handshake.node(&error), Next::Forward(error.len()));
    assert!(handshake.reads_client());
    handshake.client(&startup(4, &[]));
    let Next::Established(_, settled) = handshake.node(&frame(0x84, Opcode::AUTHENTICATE, &[])) else { panic!() };
    assert_eq!(settled.session, Session { version: Version::V4, compression: None });
}

#[test]
fn who_was_refused_may_ask_again_what_the_node_supports() {
    let mut handshake = Handshake::default();
    handshake.client(&startup(5, &[]));
    handshake.node(&frame(0x85, Opcode::ERROR, &[0, 0, 0, 10, 0, 0]));
    let options = frame(4, Opcode::OPTIONS, &[]);
    assert_eq!(handshake.client(&options), Next::Forward(options.len()));
    assert!(!handshake.reads_client());
    handshake.node(&frame(0x84, Opcode::SUPPORTED, &[0, 0]));
    assert!(handshake.reads_client());
    handshake.client(&startup(4, &[]));
    // What answers OPTIONS is no answer to STARTUP.
    handshake.node(&frame(0x84, Opcode::SUPPORTED, &[0, 0]));
    assert!(!handshake.reads_client());
    let Next::Established(..) = handshake.node(&frame(0x84, Opcode::READY, &[])) else { panic!() };
}

#[test]
fn a_ready_that_answers_no_startup_establishes_nothing() {
    let error = frame(0x84, Opcode::ERROR, &[0, 0, 0, 10, 0, 0]);
    for before in [vec![], vec![startup(4, &[])]] {
        for opcode in [Opcode::READY, Opcode::AUTHENTICATE] {
            let mut handshake = Handshake::default();
            for startup in &before {
                handshake.client(startup);
                handshake.node(&error);
            }
            handshake.client(&frame(4, Opcode::OPTIONS, &[]));
            let next = handshake.node(&frame(0x84, opcode, &[]));
            assert!(matches!(next, Next::Refuse { why: Refusal::Unsupported, .. }), "{next:?}");
        }
    }
}

/// Else what follows would be sent on unread, and its answers taken for those of later requests.
#[test]
fn a_node_that_says_more_than_was_asked_lets_nothing_past_its_startup() {
    let error = frame(0x84, Opcode::ERROR, &[0, 0, 0, 10, 0, 0]);
    // What a node answers more than once: another version, or what may not be said yet.
    for (junk, is_last) in [
        (frame(66, Opcode::OPTIONS, &[]), true),
        (frame(4, Opcode::AUTH_RESPONSE, &[0xff; 4]), true),
        (frame(4, Opcode::REGISTER, &[0, 0]), true),
        (frame(5, Opcode::STARTUP, &[0, 0]), false),
    ] {
        let mut handshake = Handshake::default();
        assert_eq!(handshake.client(&junk), Next::Forward(junk.len()));
        assert!(!handshake.reads_client(), "unanswered");
        handshake.node(&error);
        assert_eq!(handshake.reads_client(), !is_last);
        if is_last {
            continue;
        }
        handshake.client(&startup(4, &[("COMPRESSION", "lz4")]));
        handshake.node(&error);
        assert!(!handshake.reads_client(), "the error may be the junk's, and STARTUP unanswered");
        let Next::Established(_, settled) = handshake.node(&frame(0x84, Opcode::READY, &[])) else { panic!() };
        assert_eq!(settled.session.compression, Some(Compression::Lz4));
    }
}

#[test]
fn what_claims_more_than_it_holds_is_refused_before_a_node_reads_it() {
    let payload = [&[0, 1, 0, 1, b'a', 0x7f, 0xff, 0xff, 0xff][..], &message::encode_startup(&[])].concat();
    let flagged = |version, opcode| {
        let header = Header { version, flags: Flags(Flags::CUSTOM_PAYLOAD), stream: 1, opcode, length: 0 };
        encode_frame(header, &payload)
    };
    for version in 3..=6 {
        let token = frame(version, Opcode::AUTH_RESPONSE, &[0x7f, 0xff, 0xff, 0xff, 0]);
        for bytes in [flagged(version, Opcode::STARTUP), flagged(version, Opcode::OPTIONS), token] {
            let mut handshake = Handshake::default();
            let Next::Refuse { why, reply } = handshake.client(&bytes) else { panic!("{version} {bytes:x?}") };
            assert_eq!(why, Refusal::Malformed);
            let header = Header::peek(&reply).unwrap();
            assert_eq!((header.version, header.opcode, header.stream), (version.min(5) | 0x80, Opcode::ERROR, 1));
            let error = message::Error::parse(&reply[HEADER_LEN..]).unwrap();
            assert_eq!(error, message::Error { code: error_code::PROTOCOL_ERROR, message: ENDS_EARLY });
        }
    }
}

#[test]
fn a_startup_is_read_behind_its_custom_payload() {
    let header =
        Header { version: 4, flags: Flags(Flags::CUSTOM_PAYLOAD), stream: 1, opcode: Opcode::STARTUP, length: 0 };
    let body = [&[0, 1, 0, 1, b'a', 0, 0, 0, 1, 9][..], &message::encode_startup(&[("COMPRESSION", "lz4")])].concat();
    let mut handshake = Handshake::default();
    let startup = encode_frame(header, &body);
    assert_eq!(handshake.client(&startup), Next::Forward(startup.len()));
    let Next::Established(_, settled) = handshake.node(&frame(0x84, Opcode::READY, &[])) else { panic!() };
    assert_eq!(settled.session.compression, Some(Compression::Lz4));
}

#[test]
fn answers_about_versions_one_and_two_pass_whatever_their_header() {
    for answer in
        [&[0x82, 0, 1, 0, 0, 0, 0, 6, 0, 0, 0, 10, 0, 0][..], &frame(0x82, Opcode::ERROR, &[0, 0, 0, 10, 0, 0])]
    {
        let mut handshake = Handshake::default();
        let options = [2, 0, 1, 5, 0, 0, 0, 0];
        assert_eq!(handshake.client(&options), Next::Forward(options.len()));
        assert_eq!(handshake.node(answer), Next::Forward(answer.len()));
        assert!(!handshake.reads_client(), "what passes unlooked may be no answer to what follows");
    }
    let mut handshake = Handshake::default();
    handshake.client(&startup(4, &[]));
    handshake.node(&[0x82, 0, 1, 0, 0, 0, 0, 6, 0, 0, 0, 10, 0, 0]);
    assert!(!handshake.reads_client());
    let mut handshake = Handshake::default();
    handshake.client(&[2, 0, 1, 1, 0, 0, 0, 0]);
    let next = handshake.node(&[0x82, 0, 1, 2, 0, 0, 0, 0]);
    assert!(matches!(next, Next::Refuse { why: Refusal::Unsupported, .. }), "{next:?}");
}
