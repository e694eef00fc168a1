//! What the benches share: a clock of the thread's own time, a conversation with some nodes behind it, frames for it.

use std::cell::RefCell;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use cqlgate::cql::compression::Compression;
use cqlgate::cql::frame::{Flags, Header, Opcode, Version, encode_frame};
use cqlgate::cql::primitives::{Value, Writer, inet_cell_bytes};
use cqlgate::cql::segment::{Layout, MAX_PAYLOAD, append_lz4_segment, append_segment};
use cqlgate::cql::session::Session;
use cqlgate::rewrite::conversation::{Client, Conversation, Surroundings};
use cqlgate::rewrite::view::NodePorts;
use cqlgate::rewrite::view::drivers::Injection;
use cqlgate::rewrite::{Step, Then, Work};
use cqlgate::topology::{Advertised, HostId, Node, Topology};
use criterion::measurement::{Measurement, ValueFormatter, WallTime};
use rustix::time::{ClockId, clock_gettime};
use uuid::Uuid;

pub type Criterion = criterion::Criterion<CpuTime>;

pub const V4: Session = Session { version: Version::V4, compression: None };
pub const V5_LZ4: Session = Session { version: Version::V5, compression: Some(Compression::Lz4) };
const FIRST_PORT: u16 = 9042;
pub const STATEMENT_ID: [u8; 16] = *b"bench.kv by key.";

/// Nanoseconds that this thread has run.
pub struct CpuTime;

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

pub fn node(index: u16) -> Node {
    let [high, low] = index.to_be_bytes();
    let host_id = Some(HostId(Uuid::from_u128(u128::from(index))));
    let address = ([10, 77, high, low], 9042).into();
    Node { host_id, ..Node::answering(&format!("cassandra-{index}"), FIRST_PORT + index, address) }
}

pub fn topology(nodes: impl IntoIterator<Item = Node>) -> Arc<Topology> {
    let advertised = Advertised { ipv4: Some([203, 0, 113, 10].into()), ipv6: None };
    Arc::new(Topology::new(1, advertised, nodes))
}

/// A client of the first node.
pub fn conversation(session: Session, topology: Arc<Topology>) -> Conversation {
    let around = Surroundings {
        topology: Box::new(move || Arc::clone(&topology)),
        statements: Arc::default(),
        max_body: 256 << 20,
        held_frame: 16 << 20,
        unserved: Default::default(),
        rewriting: true,
    };
    around.statements.learn(&STATEMENT_ID);
    let family = cqlgate::topology::Family::Ipv4;
    let client = Client {
        session,
        view: &NodePorts,
        attached: 9042,
        path: "default".into(),
        family,
        injection: Injection::default(),
        logged_in: true,
    };
    Conversation::new(client, Arc::new(around))
}

/// Does what the relay does with every step, except for the writing.
pub fn drive(wire: &[u8], mut ask: impl FnMut(&[u8], &mut Work<'_>) -> Step) {
    thread_local! {
        static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; MAX_PAYLOAD]);
    }
    SCRATCH.with_borrow_mut(|scratch| drive_with(wire, scratch, &mut ask));
}

fn drive_with(wire: &[u8], scratch: &mut [u8], ask: &mut impl FnMut(&[u8], &mut Work<'_>) -> Step) {
    let mut at = 0;
    while at < wire.len() {
        let Step { pass, then } = ask(black_box(&wire[at..]), &mut Work::new(scratch));
        at += pass;
        match then {
            Then::Replace { consumed, made } => {
                black_box(made);
                at += consumed;
            }
            Then::Wait { .. } | Then::Yield => {}
            then => panic!("{then:?}"),
        }
    }
}

pub fn frame(session: Session, direction: u8, stream: i16, opcode: Opcode, body: &[u8]) -> Vec<u8> {
    let version = session.version.number() | direction;
    encode_frame(Header { version, flags: Flags(0), stream, opcode, length: 0 }, body)
}

/// Whole frames as they go on the wire.
pub fn on_wire(session: Session, frames: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    match Layout::of(session.compression) {
        _ if session.version != Version::V5 => return frames.to_vec(),
        Layout::Lz4 => append_lz4_segment(&mut out, true, frames),
        layout => append_segment(&mut out, layout, true, frames),
    }
    out
}

/// A column's name, its type's ids, its value in the row of a node.
type Column = (&'static str, &'static [u16], fn(&Node) -> Option<Vec<u8>>);

fn address(node: &Node) -> Option<Vec<u8>> {
    Some(inet_cell_bytes(node.address.ip()).as_ref().to_vec())
}

fn host_id(node: &Node) -> Option<Vec<u8>> {
    Some(Uuid::from_u128(u128::from(node.port - FIRST_PORT)).as_bytes().to_vec())
}

/// 16 tokens, as Cassandra 4 and later have by default.
fn tokens(_: &Node) -> Option<Vec<u8>> {
    let mut tokens = 16i32.to_be_bytes().to_vec();
    let texts = (0..16).map(|i| format!("-73786976294838206{i:02}"));
    texts.for_each(|text| _ = Writer::new(&mut tokens).value(Value::Bytes(text.as_bytes())));
    Some(tokens)
}

const PEERS_V2: &[Column] = &[
    ("peer", &[0x10], address),
    ("peer_port", &[0x09], |_| Some(7000i32.to_be_bytes().to_vec())),
    ("data_center", &[0x0d], |_| Some(b"dc1".to_vec())),
    ("host_id", &[0x0c], host_id),
    ("native_address", &[0x10], address),
    ("native_port", &[0x09], |_| Some(9042i32.to_be_bytes().to_vec())),
    ("preferred_ip", &[0x10], |_| None),
    ("preferred_port", &[0x09], |_| None),
    ("rack", &[0x0d], |_| Some(b"r1".to_vec())),
    ("release_version", &[0x0d], |_| Some(b"5.0.9".to_vec())),
    ("schema_version", &[0x0c], host_id),
    ("tokens", &[0x22, 0x0d], tokens),
];

/// An answer to `SELECT *` from `system.peers_v2`, or from `system.peers`, which has no ports: a row for each node.
pub fn peers(table: &str, nodes: &[Node]) -> Vec<u8> {
    let has_ports = table == "peers_v2";
    let columns: Vec<&Column> = PEERS_V2.iter().filter(|(name, ..)| has_ports || !name.ends_with("_port")).collect();
    let mut body = Vec::new();
    let mut writer = Writer::new(&mut body);
    writer.i32(2).i32(1).i32(columns.len() as i32).string("system").string(table);
    for (name, types, _) in &columns {
        writer.string(if *name == "native_address" && !has_ports { "rpc_address" } else { name });
        types.iter().for_each(|it| _ = writer.u16(*it));
    }
    writer.i32(nodes.len() as i32);
    for node in nodes {
        for (.., cell) in &columns {
            writer.value(cell(node).as_deref().map_or(Value::Null, Value::Bytes));
        }
    }
    body
}

/// A frame of any length as it goes on the wire.
pub fn long_on_wire(session: Session, frame: &[u8]) -> Vec<u8> {
    if session.version != Version::V5 || frame.len() <= MAX_PAYLOAD {
        return on_wire(session, frame);
    }
    let mut wire = Vec::new();
    frame.chunks(MAX_PAYLOAD).for_each(|part| append_lz4_segment(&mut wire, false, part));
    wire
}
