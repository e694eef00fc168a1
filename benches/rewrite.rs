//! What a conversation costs for each frame: ordinary requests and responses in every outer shape, rows that are rewritten,
//! events. `cargo bench --bench rewrite`.
//!
//! Times are CPU time of the thread: a busy machine disturbs them little.

#[path = "shared/conversations.rs"]
mod conversations;

use std::hint::black_box;
use std::time::Duration;

use conversations::{
    CpuTime, Criterion, STATEMENT_ID, V4, V5_LZ4, drive, frame, long_on_wire, node, on_wire, peers, topology,
};
use cqlgate::cql::frame::{Opcode, Version};
use cqlgate::cql::message::{Event, NodeChange, encode_register};
use cqlgate::cql::primitives::{Value, Writer};
use cqlgate::cql::session::Session;
use cqlgate::rewrite::conversation::Conversation;
use cqlgate::topology::Node;
use criterion::{Throughput, criterion_group, criterion_main};

const V5: Session = Session { version: Version::V5, compression: None };
/// Frames in one read: what a connection has in flight.
const FRAMES: usize = 16;

fn conversation(session: Session, nodes: u16) -> Conversation {
    conversations::conversation(session, topology((0..nodes).map(node)))
}

/// An EXECUTE of 100 bytes with one value; with `skip` it asks for an answer without metadata.
fn execute(session: Session, skip: bool) -> Vec<u8> {
    let flags = 0x01 | if skip { 0x02 } else { 0 };
    let mut body = Vec::new();
    let mut writer = Writer::new(&mut body);
    writer.short_bytes(&STATEMENT_ID);
    if session.version == Version::V5 {
        writer.short_bytes(&STATEMENT_ID).u16(1).i32(flags);
    } else {
        writer.u16(1).u8(flags as u8);
    }
    writer.u16(1);
    let value = vec![7; 100 - body.len() - 4];
    Writer::new(&mut body).value(Value::Bytes(&value));
    body
}

/// One row of `bench.kv`, 200 bytes.
fn answer() -> Vec<u8> {
    let mut body = Vec::new();
    let mut writer = Writer::new(&mut body);
    writer.i32(2).i32(1).i32(2).string("bench").string("kv").string("k").u16(0x02).string("v").u16(0x03).i32(1);
    writer.value(Value::Bytes(&[0; 8]));
    let value: Vec<_> = (0..200 - body.len() - 4).map(|i| (i * 31 % 251) as u8).collect();
    Writer::new(&mut body).value(Value::Bytes(&value));
    body
}

fn ordinary(c: &mut Criterion) {
    let mut group = c.benchmark_group("ordinary");
    group.throughput(Throughput::Elements(FRAMES as u64));
    for (name, session) in [("v4", V4), ("v5", V5), ("v5-lz4", V5_LZ4)] {
        let frames = |direction: u8, opcode, body: &[u8]| {
            let frames: Vec<_> = (0..FRAMES as i16).map(|it| frame(session, direction, it, opcode, body)).collect();
            on_wire(session, &frames.concat())
        };
        for (what, skip) in [("requests", false), ("requests that skip metadata", true)] {
            let wire = frames(0, Opcode::EXECUTE, &execute(session, skip));
            let mut talk = conversation(session, 3);
            group.bench_function(format!("{what}, {name}"), |b| {
                b.iter(|| drive(&wire, |bytes, work| talk.request(bytes, work)));
            });
        }
        let wire = frames(0x80, Opcode::RESULT, &answer());
        let mut talk = conversation(session, 3);
        group.bench_function(format!("responses, {name}"), |b| {
            b.iter(|| drive(&wire, |bytes, work| talk.response(bytes, work)));
        });
    }
    group.finish();
}

fn rows(c: &mut Criterion) {
    let mut group = c.benchmark_group("peers_v2");
    for count in [3u16, 1000] {
        for (name, session) in [("v4", V4), ("v5-lz4", V5_LZ4)] {
            let nodes: Vec<Node> = (1..=count).map(node).collect();
            let wire = long_on_wire(session, &frame(session, 0x80, 1, Opcode::RESULT, &peers("peers_v2", &nodes)));
            let mut talk = conversation(session, count + 1);
            group.throughput(Throughput::Elements(u64::from(count)));
            group.bench_function(format!("{count} rows, {name}"), |b| {
                b.iter(|| {
                    drive(&wire, |bytes, work| talk.response(bytes, work));
                    black_box(talk.take_facts());
                });
            });
        }
    }
    group.finish();
}

fn events(c: &mut Criterion) {
    let mut group = c.benchmark_group("events");
    group.throughput(Throughput::Elements(2));
    let mut talk = conversation(V4, 3);
    let register = frame(V4, 0, 1, Opcode::REGISTER, &encode_register(&["STATUS_CHANGE", "TOPOLOGY_CHANGE"]));
    drive(&register, |bytes, work| talk.request(bytes, work));
    let event = |change| {
        let event = Event::Node { change, address: node(1).address };
        frame(V4, 0x80, -1, Opcode::EVENT, &event.encode())
    };
    let wire = [event(NodeChange::Down), event(NodeChange::Up)].concat();
    group.bench_function("DOWN and UP of one node", |b| {
        b.iter(|| {
            drive(&wire, |bytes, work| talk.response(bytes, work));
            black_box(talk.take_facts());
        });
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = criterion::Criterion::default()
        .with_measurement(CpuTime)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    targets = ordinary, rows, events
}
criterion_main!(benches);
