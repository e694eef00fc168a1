//! What a cluster of 1,000 nodes costs: to learn of a change, to conclude what clients may be told, to tell them, to rewrite
//! what they read. `cargo bench --bench scale`; `benches/scale` measures the running program.
//!
//! Times are CPU time of the thread: a busy machine disturbs them little.

#[path = "shared/conversations.rs"]
mod conversations;

use std::hint::black_box;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use conversations::{CpuTime, Criterion, V4, V5_LZ4, conversation, drive, frame, long_on_wire, node, peers, topology};
use cqlgate::config::External;
use cqlgate::config::advertise::Path;
use cqlgate::cql::frame::Opcode;
use cqlgate::cql::message::encode_register;
use cqlgate::discovery::{Endpoint, Fold, Origin, Seen, Slice};
use cqlgate::topology::diff::diff;
use cqlgate::topology::input::{DeadReason, Found, Identity, Input, Listed, Placement};
use cqlgate::topology::ports::{PortMap, PortRange};
use cqlgate::topology::state::{Options, State};
use cqlgate::topology::{Node, NodeState, Topology};
use criterion::{BatchSize, criterion_group, criterion_main};

const NODES: u16 = 1000;
/// Endpoints in one slice, as the controller of EndpointSlices fills them.
const SLICE: u16 = 100;

fn nodes() -> Vec<Node> {
    (0..NODES).map(node).collect()
}

fn slice(number: u16, moved: Option<IpAddr>) -> Slice {
    let endpoint = |node: Node| Endpoint {
        address: node.address.ip(),
        pod: Some(node.id.0.clone()),
        uid: Some(node.id.0.clone()),
        hostname: Some(node.id.0),
        serving: true,
        terminating: false,
        zone: None,
    };
    let first = number * SLICE;
    let mut endpoints: Vec<Endpoint> = (first..first + SLICE).map(|index| endpoint(node(index))).collect();
    if let (Some(address), Some(endpoint)) = (moved, endpoints.first_mut()) {
        endpoint.address = address;
    }
    Slice { port: Some(9042), origin: Origin::Controller, endpoints }
}

fn fold(c: &mut Criterion) {
    let mut group = c.benchmark_group("Kubernetes fold");
    let now = SystemTime::now();
    let name = |number: u16| format!("cassandra-{number}");
    let list = || {
        let mut fold = Fold::default();
        fold.see_slice(Seen::Init);
        (0..NODES / SLICE).for_each(|number| fold.see_slice(Seen::InitApply(name(number), slice(number, None))));
        fold.see_slice(Seen::InitDone);
        fold.settle(now, |_, _| true);
        fold
    };
    group.bench_function("the first list, of 10 slices", |b| b.iter(list));
    let mut fold = list();
    let changed = [1, 2].map(|last| slice(5, Some([10, 78, 0, last].into())));
    let mut turn = 0;
    group.bench_function("one address in one slice changes", |b| {
        let next = || {
            turn += 1;
            changed[turn % 2].clone()
        };
        b.iter_batched(
            next,
            |slice| {
                fold.see_slice(Seen::Apply(name(5), slice));
                fold.settle(now, |_, _| true);
                black_box(&fold);
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

fn found() -> Vec<Found> {
    let found = |node: Node| Found {
        id: node.id,
        address: node.address,
        host: None,
        listed: Listed::Here,
        confirmed: true,
        leaving: false,
        placement: Placement::Chosen(node.port),
        port_why: None,
        host_id: None,
        data_center: None,
        rack: None,
    };
    nodes().into_iter().map(found).collect()
}

/// What a node's probe reads of it; nothing but that it answers where the gateway has no login.
fn alive(node: &Node, may_ask: bool) -> Input {
    let identity = Identity {
        cluster_name: Some("bench".into()),
        host_id: node.host_id,
        native: Some(node.address),
        data_center: Some("dc1".into()),
        rack: Some("r1".into()),
    };
    let identity = if may_ask { identity } else { Identity::default() };
    Input::Alive { id: node.id.clone(), address: node.address, identity }
}

fn range() -> PortRange {
    let Ok(range) = PortRange::new(9042, 9041 + u32::from(NODES)) else { unreachable!("these ports exist") };
    range
}

/// Every node found, and its first probe answered.
fn start(now: SystemTime, may_ask: bool) -> State {
    let mut state = State::new(range(), Options::default());
    let advertised = External::Addresses { ipv4: Some([203, 0, 113, 10].into()), ipv6: None };
    state.apply(Input::Paths(Path::everywhere(advertised).into()), now);
    state.apply(Input::Nodes(found()), now);
    nodes().iter().for_each(|node| _ = state.apply(alive(node, may_ask), now));
    state
}

fn state(c: &mut Criterion) {
    let mut group = c.benchmark_group("topology");
    let now = SystemTime::now();
    for (clients, may_ask) in [("a login", true), ("no login", false)] {
        let mut up = start(now, may_ask);
        let now = now + Duration::from_secs(10);
        up.apply(Input::Tick, now);
        assert!(up.topology().nodes.iter().all(|node| node.state == NodeState::Up && node.settled));
        let mut run = |what: &str, inputs: [Input; 2]| {
            let (mut state, mut turn) = (up.clone(), 0);
            let mut next = || {
                turn += 1;
                inputs[turn % 2].clone()
            };
            let name = format!("{what}, {clients}");
            group.bench_function(name, |b| {
                b.iter_batched(&mut next, |input| black_box(state.apply(input, now)), BatchSize::SmallInput);
            });
        };
        run("all nodes found as they were", [Input::Nodes(found()), Input::Nodes(found())]);
        let moved = [1, 2].map(|last| {
            let mut found = found();
            found[500].address = ([10, 78, 0, last], 9042).into();
            Input::Nodes(found)
        });
        run("all nodes found, one at another address", moved);
        let node = node(500);
        let dead = Input::Dead { id: node.id.clone(), address: node.address, reason: DeadReason::Refused };
        run("a node dies, or answers again", [dead, alive(&node, may_ask)]);
        run("a node answers as before", [alive(&node, may_ask), alive(&node, may_ask)]);
    }
    group.sample_size(10);
    group.bench_function("start: 1,000 nodes found, 1,000 answers, a login", |b| b.iter(|| start(now, true)));
    group.bench_function("start: 1,000 nodes found, 1,000 answers, no login", |b| b.iter(|| start(now, false)));
    group.finish();
}

/// What is known after `before`: one node is in another state.
fn changed(before: &Topology, state: NodeState, incarnation: u64) -> Arc<Topology> {
    let after = topology(nodes().into_iter().map(|node| match node.port {
        9542 => Node { state, incarnation, ..node },
        _ => node,
    }));
    Arc::new(Arc::unwrap_or_clone(after).sharing(before))
}

fn ports(c: &mut Criterion) {
    let mut group = c.benchmark_group("ports");
    let nodes = nodes();
    group.sample_size(10);
    for (what, chosen) in [("1,000 ports by ordinal", true), ("1,000 lowest free ports", false)] {
        group.bench_function(what, |b| {
            b.iter(|| {
                let mut ports = PortMap::new(range(), Duration::from_secs(60));
                nodes.iter().for_each(|node| {
                    assert_eq!(
                        ports.assign(&node.id, chosen.then_some(node.port), SystemTime::UNIX_EPOCH),
                        Ok(node.port)
                    );
                });
                ports
            });
        });
    }
    group.finish();
}

fn clients(c: &mut Criterion) {
    let mut group = c.benchmark_group("clients");
    let up = topology(nodes());
    let down = changed(&up, NodeState::Down, 2);
    group.bench_function("diff of two snapshots", |b| b.iter(|| black_box(diff(&up, &down))));
    let up_again = changed(&down, NodeState::Up, 2);
    let register = frame(V4, 0, 1, Opcode::REGISTER, &encode_register(&["STATUS_CHANGE", "TOPOLOGY_CHANGE"]));
    group.bench_function("a client registers", |b| {
        b.iter_batched_ref(
            || conversation(V4, up.clone()),
            |talk| drive(&register, |bytes, work| talk.request(bytes, work)),
            BatchSize::SmallInput,
        );
    });
    let mut talk = conversation(V4, up.clone());
    drive(&register, |bytes, work| talk.request(bytes, work));
    drive(&frame(V4, 0x80, 1, Opcode::READY, &[]), |bytes, work| talk.response(bytes, work));
    group.bench_function("a registered client is told DOWN, then UP", |b| {
        b.iter(|| {
            assert!(!black_box(talk.announce(&down)).is_empty());
            assert!(!black_box(talk.announce(&up_again)).is_empty());
            black_box(talk.take_facts());
        });
    });
    group.finish();
}

fn rows(c: &mut Criterion) {
    let mut group = c.benchmark_group("rows");
    let unnamed = || nodes().into_iter().map(|node| Node { host_id: None, ..node });
    for (known, topology) in [("host_ids known", topology(nodes())), ("host_ids unknown", topology(unnamed()))] {
        for table in ["peers_v2", "peers"] {
            for (name, session) in [("v4", V4), ("v5-lz4", V5_LZ4)] {
                let wire = frame(session, 0x80, 1, Opcode::RESULT, &peers(table, &nodes()));
                let wire = long_on_wire(session, &wire);
                let mut talk = conversation(session, topology.clone());
                group.bench_function(format!("1,000 of {table}, {known}, {name}"), |b| {
                    b.iter(|| {
                        drive(&wire, |bytes, work| talk.response(bytes, work));
                        black_box(talk.take_facts());
                    });
                });
            }
        }
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = criterion::Criterion::default()
        .with_measurement(CpuTime)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .sample_size(30);
    targets = fold, state, ports, clients, rows
}
criterion_main!(benches);
