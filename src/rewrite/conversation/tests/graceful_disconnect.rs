//! GRACEFUL_DISCONNECT, which nodes do not know.

use super::*;
use crate::cql::message::event::GRACEFUL_DISCONNECT;
use crate::cql::message::{Register, Supported};

fn talk(session: Session, node_tells: bool) -> Talk {
    let Talk { session, conversation } = Talk::with(session, &surroundings());
    Talk { session, conversation: conversation.offering(Offer::new(true, session.version, node_tells)) }
}

/// What the node hears of a REGISTER for these.
fn check(mut talk: Talk, asked: &[&str], heard: &[&str]) {
    let body = talk.request(Opcode::REGISTER, 1, &encode_register(asked));
    assert_eq!(Register::parse(&body).unwrap().event_types, heard, "{:?}", talk.session);
    assert_eq!(talk.conversation.in_flight(), 1, "the node answers it");
    let asks = talk.session.version == Version::V5 && asked.contains(&GRACEFUL_DISCONNECT);
    assert!(!talk.conversation.hears_farewell(), "before the node's READY");
    talk.response(Opcode::READY, 1, &[]).unwrap();
    assert_eq!(talk.conversation.hears_farewell(), asks);
    assert_eq!(talk.conversation.is_control(), asked.contains(&"STATUS_CHANGE"), "it is told of nodes");
}

#[test]
fn the_node_hears_of_it_only_where_it_knows_it_and_in_v5_alone() {
    let (alone, beside) = (&[GRACEFUL_DISCONNECT][..], &["SCHEMA_CHANGE", GRACEFUL_DISCONNECT, "STATUS_CHANGE"][..]);
    for session in [V5, V5_LZ4] {
        check(talk(session, false), alone, &[]);
        check(talk(session, false), beside, &["SCHEMA_CHANGE", "STATUS_CHANGE"]);
        check(talk(session, true), alone, alone);
        check(talk(session, true), beside, beside);
    }
    for session in [V3, V4, V4_LZ4] {
        check(talk(session, false), beside, beside);
    }
}

#[test]
fn what_is_not_offered_is_between_client_and_node() {
    let mut talk = Talk::with(V5, &surroundings());
    let asked = encode_register(&[GRACEFUL_DISCONNECT]);
    assert_eq!(talk.request(Opcode::REGISTER, 1, &asked), asked);
    talk.response(Opcode::READY, 1, &[]).unwrap();
    assert!(!talk.conversation.hears_farewell());
}

/// What a SUPPORTED says of it.
fn says(body: &[u8]) -> Option<Vec<&str>> {
    Supported::parse(body).unwrap().get(GRACEFUL_DISCONNECT).map(<[&str]>::to_vec)
}

#[test]
fn supported_says_so_in_v5_before_and_after_the_handshake() {
    let mut body = Vec::new();
    Writer::new(&mut body).u16(1).string("CQL_VERSION").string_list(&["3.4.7"]);
    for (session, offered) in [(V4, None), (V5, Some(vec!["true"])), (V5_LZ4, Some(vec!["true"]))] {
        let mut talk = talk(session, false);
        talk.request(Opcode::OPTIONS, 1, &[]);
        let told = talk.response(Opcode::SUPPORTED, 1, &body).unwrap();
        assert_eq!(says(&told), offered, "{session:?}");
        assert_eq!(Supported::parse(&told).unwrap().get("CQL_VERSION"), Some(&["3.4.7"][..]));
    }
    for (offers, version, offered) in [(true, 5, Some(vec!["true"])), (true, 4, None), (false, 5, None)] {
        let mut handshake = Handshake::new(offers);
        let header = |version, opcode| Header { version, flags: Flags(0), stream: 1, opcode, length: 0 };
        handshake.client(&encode_frame(header(version, Opcode::OPTIONS), &[]));
        let frame = encode_frame(header(version | 0x80, Opcode::SUPPORTED), &body);
        let told = match handshake.node(&frame) {
            Next::Replace(_, told) => told,
            Next::Forward(_) => frame,
            next => panic!("{next:?}"),
        };
        assert_eq!(says(&told[HEADER_LEN..]), offered);
    }
}

#[test]
fn what_the_node_said_of_itself_in_the_handshake_counts() {
    let mut body = Vec::new();
    Writer::new(&mut body).u16(1).string(GRACEFUL_DISCONNECT).string_list(&["true"]);
    for (body, offer) in [(body, Offer::Both), (vec![0, 0], Offer::Gateway)] {
        let mut handshake = Handshake::new(true);
        let header = |version, opcode| Header { version, flags: Flags(0), stream: 1, opcode, length: 0 };
        handshake.client(&encode_frame(header(5, Opcode::OPTIONS), &[]));
        handshake.node(&encode_frame(header(0x85, Opcode::SUPPORTED), &body));
        handshake.client(&encode_frame(header(5, Opcode::STARTUP), &message::encode_startup(&[])));
        let ready = encode_frame(header(0x85, Opcode::READY), &[]);
        let Next::Established(_, settled) = handshake.node(&ready) else { panic!() };
        assert_eq!(settled.offer, offer);
    }
}

#[test]
fn the_farewell_is_an_event_of_the_type_alone() {
    for session in [V5, V5_LZ4] {
        let mut talk = talk(session, false);
        talk.request(Opcode::REGISTER, 1, &encode_register(&[GRACEFUL_DISCONNECT]));
        talk.response(Opcode::READY, 1, &[]).unwrap();
        let told = talk.conversation.farewell();
        assert_eq!(off_wire(session, &told), b"\0\x13GRACEFUL_DISCONNECT");
    }
}
