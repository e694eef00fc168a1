//! Any bytes as a frame: the header round-trips, and no message parser panics or allocates more than its input can fill.
#![no_main]

use cqlgate::cql::frame::{HEADER_LEN, Header, Opcode, Version, encode_frame};
use cqlgate::cql::message::{Error, Event, MessageStart, Register, Startup, Supported, request, supported_without};
use cqlgate_fuzz::within;
use libfuzzer_sys::fuzz_target;

const SCYLLA: [&str; 2] = ["SCYLLA_SHARD_AWARE_PORT", "SCYLLA_SHARD_AWARE_PORT_SSL"];

fuzz_target!(|bytes: &[u8]| {
    let Some(header) = Header::peek(bytes) else {
        assert!(bytes.len() < HEADER_LEN);
        return;
    };
    assert_eq!(header.encode(), bytes[..HEADER_LEN]);
    let body = &bytes[HEADER_LEN..];
    assert_eq!(Header::peek(&encode_frame(header, body)).map(|h| h.length as usize), Some(body.len()));
    // A list's entry takes 2 bytes on the wire and 40 here.
    within(64 * bytes.len() + 1024, || messages(header, body));
});

fn messages(header: Header, body: &[u8]) {
    for version in [Version::V3, Version::V4, Version::V5] {
        if let Ok(start) = MessageStart::of_request().find(header.flags, body) {
            let message = &body[start..];
            assert!(request::sasl_plain_user(message).is_none_or(|user| user.len() < message.len()));
            if let Ok((id, flags)) = request::execute_head(version, message) {
                assert!(id.len() < flags.offset && message[flags.offset] == flags.value);
            }
        }
    }
    let _ = Startup::parse(body).map(|startup| (startup.compression(), startup.driver_name()));
    let _ = Register::parse(body);
    let _ = Error::parse(body);
    if let Ok(Some(without)) = supported_without(body, &SCYLLA) {
        assert_eq!(supported_without(&without, &SCYLLA), Ok(None));
        if let Ok(supported) = Supported::parse(body) {
            assert!(SCYLLA.iter().any(|key| supported.get(key).is_some()));
            assert!(Supported::parse(&without).is_ok());
        }
    }
    if let Ok(event) = Event::parse(body) {
        let again = event.encode();
        assert!(body.starts_with(&again));
        assert_eq!(Event::parse(&again), Ok(event));
    }
    if header.opcode == Opcode::EVENT {
        for cut in 0..body.len().min(80) {
            let _ = Event::parse(&body[..cut]);
        }
    }
}
