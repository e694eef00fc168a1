//! A node's answer about a system table with any columns of any type, each holding a secret address in some form: whatever
//! the client gets, the secret is not in it.
#![no_main]

use cqlgate::config::{Fate, Unserved};
use cqlgate::cql::frame::{Flags, HEADER_LEN, Header, Opcode, encode_frame};
use cqlgate::cql::primitives::{Value, Writer};
use cqlgate::cql::segment::MAX_PAYLOAD;
use cqlgate::rewrite::Work;
use cqlgate::rewrite::system_tables::{Made, Perspective, RowsRewrite, Unrewritable};
use cqlgate::rewrite::view::drivers::Injection;
use cqlgate::rewrite::view::{NodePorts, SingleNode, View};
use cqlgate_fuzz::{Choices, SECRET, topology, within};
use libfuzzer_sys::fuzz_target;

const TEXT: &str = "214.231.214.232";
/// All but the names that keep their addresses on purpose.
const NAMES: [&str; 21] = [
    "rpc_address",
    "rpc_port",
    "native_address",
    "native_port",
    "native_transport_address",
    "native_transport_port",
    "native_transport_port_ssl",
    "preferred_ip",
    "preferred_port",
    "host_id",
    "tokens",
    "rack",
    "data_center",
    "key",
    "release_version",
    "truncated_at",
    "schema_version",
    "a",
    "[json]",
    "system.tojson(native_address)",
    "",
];
/// Types by their bytes: inet, int, text, ascii, blob, uuid, list<inet>, set<text>, map<text, inet>, tuple<int, inet>,
/// list<set<text>>, UDT with one text, a class of the node's, bigint.
const TYPES: [&[u8]; 14] = [
    &[0, 0x10],
    &[0, 0x09],
    &[0, 0x0d],
    &[0, 0x01],
    &[0, 0x03],
    &[0, 0x0c],
    &[0, 0x20, 0, 0x10],
    &[0, 0x22, 0, 0x0d],
    &[0, 0x21, 0, 0x0d, 0, 0x10],
    &[0, 0x31, 0, 2, 0, 9, 0, 0x10],
    &[0, 0x20, 0, 0x22, 0, 0x0d],
    b"\0\x30\0\x01k\0\x01u\0\x01\0\x01f\0\x0d",
    b"\0\0\0\x01C",
    &[0, 0x02],
];

fuzz_target!(|bytes: &[u8]| {
    let mut choices = Choices(bytes);
    let table = choices.one_of(&["local", "peers", "peers_v2"]);
    let flags = choices.byte() & (Flags::TRACING | Flags::WARNING | Flags::CUSTOM_PAYLOAD);
    let view: &'static dyn View = choices.one_of(&[&NodePorts as &'static dyn View, &SingleNode]);
    let injection = Injection { local: choices.byte() & 1 == 1, peers: choices.byte() & 1 == 1 };
    let columns: Vec<(&str, usize)> = (0..1 + choices.byte() % 6)
        .map(|_| (choices.one_of(&NAMES), usize::from(choices.byte()) % TYPES.len()))
        .collect();
    let mut body = prefix(flags);
    let mut writer = Writer::new(&mut body);
    writer.i32(2).i32(1).i32(columns.len() as i32).string("system").string(table);
    for (name, column_type) in &columns {
        writer.string(name).raw(TYPES[*column_type]);
    }
    let rows = choices.byte() % 4;
    writer.i32(i32::from(rows));
    for _ in 0..rows {
        for &(_, column_type) in &columns {
            match choices.byte() % 8 {
                0 => writer.value(Value::Null),
                // Too short for the secret: a name of the table's own may hold any four bytes.
                1 => writer.value(Value::Bytes(choices.bytes(3))),
                kind => writer.value(Value::Bytes(&secret(column_type, kind, &mut choices))),
            };
        }
    }
    let header = Header { version: 0x84, flags: Flags(flags), stream: 1, opcode: Opcode::RESULT, length: 0 };
    let frame = encode_frame(header, &body);
    let topology = topology();
    // Whatever is kept and whatever an answer's columns are called: the secret is the address of nodes that are served.
    let fate = |choices: &mut Choices<'_>| choices.one_of(&[Fate::Hide, Fate::Keep]);
    let unserved = Unserved { remote: fate(&mut choices), ghosts: fate(&mut choices) };
    let Some(path) = topology.paths.last().cloned() else { return };
    let family = cqlgate::topology::Family::Ipv4;
    let is_plain = choices.byte() & 1 == 1;
    let perspective = Perspective { view, path, family, topology, attached: 9042, injection, is_plain, unserved };
    let cap = 40 * frame.len() + 8192;
    let mut scratch = vec![0; MAX_PAYLOAD];
    match within(cap, || rewrite(&frame, perspective, &mut scratch)) {
        Ok(Made::Frame(shown)) => {
            assert_eq!(Header::peek(&shown).map(|header| header.length as usize), Some(shown.len() - HEADER_LEN));
            hides_secret(&shown);
        }
        Ok(Made::Unchanged) => hides_secret(&frame),
        Ok(Made::Refused(text)) => hides_secret(text.as_bytes()),
        // The connection closes.
        Err(_) => {}
    }
});

fn rewrite(frame: &[u8], perspective: Perspective, scratch: &mut [u8]) -> Result<Made, Unrewritable> {
    let (header, body) = (Header::peek(frame).expect("a frame"), &frame[HEADER_LEN..]);
    let mut rewrite = RowsRewrite::begin(header, body, perspective, &mut Work::new(scratch))?;
    loop {
        if let Some(made) = rewrite.go_on(body, &mut Work::new(scratch))? {
            return Ok(made);
        }
    }
}

fn hides_secret(shown: &[u8]) {
    assert!(!shown.windows(4).any(|window| window == SECRET), "the address is in {shown:02x?}");
    assert!(!shown.windows(TEXT.len()).any(|window| window == TEXT.as_bytes()), "the address is in {shown:02x?}");
}

fn prefix(flags: u8) -> Vec<u8> {
    let mut body = Vec::new();
    let mut writer = Writer::new(&mut body);
    if flags & Flags::TRACING != 0 {
        writer.raw(&[7; 16]);
    }
    if flags & Flags::WARNING != 0 {
        writer.string_list(&["careful"]);
    }
    if flags & Flags::CUSTOM_PAYLOAD != 0 {
        writer.u16(1).string("k").value(Value::Bytes(b"v"));
    }
    body
}

/// A value of the type that holds the secret, or a host_id where the type is a UUID.
fn secret(column_type: usize, kind: u8, choices: &mut Choices<'_>) -> Vec<u8> {
    let mut text = choices.bytes(usize::from(kind)).to_vec();
    // Digits next to it would make another address of it.
    text.retain(|byte| !byte.is_ascii_hexdigit() && !matches!(byte, b'.' | b':'));
    text.extend_from_slice(TEXT.as_bytes());
    let mut out = Vec::new();
    let mut writer = Writer::new(&mut out);
    let (inet, text) = (Value::Bytes(&SECRET), Value::Bytes(&text));
    match column_type {
        0 | 1 => writer.raw(&SECRET),
        2 | 3 => return text.bytes().unwrap_or_default().to_vec(),
        4 => match kind & 1 {
            0 => writer.raw(&SECRET),
            _ => return text.bytes().unwrap_or_default().to_vec(),
        },
        5 => writer.raw(&u128::from(9040 + u16::from(kind)).to_be_bytes()),
        6 => writer.i32(2).value(Value::Null).value(inet),
        7 => writer.i32(2).value(Value::Bytes(b"-1")).value(text),
        8 => writer.i32(1).value(Value::Bytes(b"k")).value(inet),
        9 => writer.value(Value::Bytes(&[0, 0, 0, 1])).value(inet),
        10 => {
            let mut inner = Vec::new();
            Writer::new(&mut inner).i32(1).value(text);
            writer.i32(1).value(Value::Bytes(&inner))
        }
        11 => writer.value(text),
        12 => writer.raw(choices.bytes(3)).raw(&SECRET),
        _ => writer.raw(&[0; 8]),
    };
    out
}
