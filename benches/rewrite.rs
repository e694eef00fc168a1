//! What a conversation costs for each frame: ordinary requests and responses in every outer shape, rows that are rewritten,
//! events. `cargo bench --bench rewrite`.
//!
//! Times are CPU time of the thread: a busy machine disturbs them little.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use cqlgate::cql::compression::Compression;
use cqlgate::cql::frame::{Flags, Header, Opcode, Version, encode_frame};
use cqlgate::cql::message::{Event, NodeChange, encode_register};
use cqlgate::cql::primitives::{Value, Writer, inet_cell_bytes};
use cqlgate::cql::segment::{Layout, MAX_PAYLOAD, append_lz4_segment, append_segment};
use cqlgate::cql::session::Session;
use cqlgate::rewrite::Step;
use cqlgate::rewrite::conversation::{Client, Conversation, Surroundings};
use cqlgate::rewrite::statements::OrdinaryStatements;
use cqlgate::rewrite::view::NodePorts;
use cqlgate::rewrite::view::drivers::Injection;
use cqlgate::topology::{Advertised, HostId, Node, NodeId, NodeState, Topology};
use criterion::measurement::{Measurement, ValueFormatter, WallTime};
use criterion::{Throughput, criterion_group, criterion_main};
use rustix::time::{ClockId, clock_gettime};
use uuid::Uuid;

const V4: Session = Session { version: Version::V4, compression: None };
const V5: Session = Session { version: Version::V5, compression: None };
const V5_LZ4: Session = Session { version: Version::V5, compression: Some(Compression::Lz4) };
/// Frames in one read: what a connection has in flight.
const FRAMES: usize = 16;
const STATEMENT_ID: [u8; 16] = *b"bench.kv by key.";

type Criterion = criterion::Criterion<CpuTime>;

/// Nanoseconds that this thread has run.
struct CpuTime;

impl Measurement for CpuTime {
    type Intermediate = u64;
    type Value = Duration;

    fn start(&self) -> u64 {
        let now = clock_gettime(ClockId::ThreadCPUTime);
        now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
    }

    fn end(&self, start: u64) -> Duration {
        Duration::from_nanos(self.start() - start)
    }

    fn add(&self, a: &Duration, b: &Duration) -> Duration {
        *a + *b
    }

    fn zero(&self) -> Duration {
        Duration::ZERO
    }

    fn to_f64(&self, value: &Duration) -> f64 {
        WallTime.to_f64(value)
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        WallTime.formatter()
    }
}

fn node(index: u16) -> Node {
    let [high, low] = index.to_be_bytes();
    Node {
        id: NodeId::new(&format!("cassandra-{index}")),
        port: 9042 + index,
        address: ([10, 77, high, low], 9042).into(),
        host: None,
        present: true,
        native: None,
        host_id: Some(HostId(Uuid::from_u128(u128::from(index)))),
        data_center: None,
        rack: None,
        state: NodeState::Up,
        since: SystemTime::UNIX_EPOCH,
        settled: true,
        incarnation: 1,
    }
}

fn conversation(session: Session, nodes: u16) -> Conversation {
    let advertised = Advertised { ipv4: Some([203, 0, 113, 10].into()), ipv6: None };
    let topology = Arc::new(Topology::new(1, advertised, (0..nodes).map(node)));
    let around = Surroundings {
        topology: Box::new(move || Arc::clone(&topology)),
        statements: OrdinaryStatements::default(),
        max_body: 256 << 20,
        held_frame: 16 << 20,
        rewriting: true,
    };
    around.statements.learn(&STATEMENT_ID);
    let family = [127, 0, 0, 1].into();
    let client = Client { session, view: &NodePorts, attached: 9042, family, injection: Injection::default() };
    Conversation::new(client, Arc::new(around))
}

/// Does what the relay does with every step, except for the writing.
fn drive(wire: &[u8], mut ask: impl FnMut(&[u8]) -> Step) {
    let mut at = 0;
    while at < wire.len() {
        match ask(black_box(&wire[at..])) {
            Step::Pass(length) => at += length,
            Step::Replace(length, bytes) => {
                black_box(bytes);
                at += length;
            }
            step => panic!("{step:?}"),
        }
    }
}

fn frame(session: Session, direction: u8, stream: i16, opcode: Opcode, body: &[u8]) -> Vec<u8> {
    let version = session.version.number() | direction;
    encode_frame(Header { version, flags: Flags(0), stream, opcode, length: 0 }, body)
}

/// Whole frames as they go on the wire.
fn on_wire(session: Session, frames: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    match Layout::of(session.compression) {
        _ if session.version != Version::V5 => return frames.to_vec(),
        Layout::Lz4 => append_lz4_segment(&mut out, true, frames),
        layout => append_segment(&mut out, layout, true, frames),
    }
    out
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
        let mut scratch = vec![0; MAX_PAYLOAD];
        for (what, skip) in [("requests", false), ("requests that skip metadata", true)] {
            let wire = frames(0, Opcode::EXECUTE, &execute(session, skip));
            let mut talk = conversation(session, 3);
            group.bench_function(format!("{what}, {name}"), |b| {
                b.iter(|| drive(&wire, |bytes| talk.request(bytes, &mut scratch)));
            });
        }
        let wire = frames(0x80, Opcode::RESULT, &answer());
        let mut talk = conversation(session, 3);
        group.bench_function(format!("responses, {name}"), |b| {
            b.iter(|| drive(&wire, |bytes| talk.response(bytes, &mut scratch)));
        });
    }
    group.finish();
}

/// RESULT/Rows of `system.peers_v2`, 16 tokens in each row as Cassandra 4 and later have by default.
fn peers(rows: u16) -> Vec<u8> {
    const COLUMNS: [(&str, &[u16]); 12] = [
        ("peer", &[0x10]),
        ("peer_port", &[0x09]),
        ("data_center", &[0x0d]),
        ("host_id", &[0x0c]),
        ("native_address", &[0x10]),
        ("native_port", &[0x09]),
        ("preferred_ip", &[0x10]),
        ("preferred_port", &[0x09]),
        ("rack", &[0x0d]),
        ("release_version", &[0x0d]),
        ("schema_version", &[0x0c]),
        ("tokens", &[0x22, 0x0d]),
    ];
    let mut body = Vec::new();
    let mut writer = Writer::new(&mut body);
    writer.i32(2).i32(1).i32(COLUMNS.len() as i32).string("system").string("peers_v2");
    for (name, types) in COLUMNS {
        writer.string(name);
        types.iter().for_each(|it| _ = writer.u16(*it));
    }
    writer.i32(i32::from(rows));
    let mut tokens = 16i32.to_be_bytes().to_vec();
    (0..16)
        .for_each(|i| _ = Writer::new(&mut tokens).value(Value::Bytes(format!("-73786976294838206{i:02}").as_bytes())));
    for index in 1..=rows {
        let node = node(index);
        let address = inet_cell_bytes(node.address.ip());
        let host_id = node.host_id.map_or([0; 16], |it| *it.0.as_bytes());
        let cells: [Option<&[u8]>; 12] = [
            Some(address.as_ref()),
            Some(&7000i32.to_be_bytes()),
            Some(b"dc1"),
            Some(&host_id),
            Some(address.as_ref()),
            Some(&9042i32.to_be_bytes()),
            None,
            None,
            Some(b"r1"),
            Some(b"5.0.9"),
            Some(&host_id),
            Some(&tokens),
        ];
        let mut writer = Writer::new(&mut body);
        cells.into_iter().for_each(|cell| _ = writer.value(cell.map_or(Value::Null, Value::Bytes)));
    }
    body
}

fn rows(c: &mut Criterion) {
    let mut group = c.benchmark_group("peers_v2");
    for count in [3u16, 1000] {
        for (name, session) in [("v4", V4), ("v5-lz4", V5_LZ4)] {
            let frame = frame(session, 0x80, 1, Opcode::RESULT, &peers(count));
            let mut wire = Vec::new();
            match session.version {
                Version::V5 if frame.len() > MAX_PAYLOAD => {
                    frame.chunks(MAX_PAYLOAD).for_each(|part| append_lz4_segment(&mut wire, false, part));
                }
                _ => wire = on_wire(session, &frame),
            }
            let mut talk = conversation(session, count + 1);
            let mut scratch = vec![0; MAX_PAYLOAD];
            group.throughput(Throughput::Elements(u64::from(count)));
            group.bench_function(format!("{count} rows, {name}"), |b| {
                b.iter(|| {
                    drive(&wire, |bytes| talk.response(bytes, &mut scratch));
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
    let mut scratch = vec![0; MAX_PAYLOAD];
    let register = frame(V4, 0, 1, Opcode::REGISTER, &encode_register(&["STATUS_CHANGE", "TOPOLOGY_CHANGE"]));
    drive(&register, |bytes| talk.request(bytes, &mut scratch));
    let event = |change| {
        let event = Event::Node { change, address: node(1).address };
        frame(V4, 0x80, -1, Opcode::EVENT, &event.encode())
    };
    let wire = [event(NodeChange::Down), event(NodeChange::Up)].concat();
    group.bench_function("DOWN and UP of one node", |b| {
        b.iter(|| {
            drive(&wire, |bytes| talk.response(bytes, &mut scratch));
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
