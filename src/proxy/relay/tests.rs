//! A relay between two sockets of this process, polled by hand: what it costs, and that nothing lets it wait for ever.

mod changes;

use std::net::Shutdown;

use super::*;
use crate::config::{self, Limits};
use crate::cql::frame::{Flags, Header, Opcode, Version, encode_frame};
use crate::cql::message::{encode_plain_auth_response, encode_register};
use crate::cql::segment::Layout;
use crate::cql::session::Session;
use crate::metrics::Metrics;
use crate::proxy::came::Seldom;
use crate::proxy::connection::{Established, Who, relayed};
use crate::proxy::connections::{Connections, Handle};
use crate::proxy::current::Current;
use crate::proxy::descriptors::Reserve;
use crate::proxy::dial::Dialer;
use crate::proxy::gate::Gate;
use crate::proxy::hold::HoldBudget;
use crate::proxy::logins::Logins;
use crate::proxy::paths::PathRules;
use crate::proxy::stages::{Source, Stage};
use crate::readiness::Readiness;
use crate::rewrite::Surroundings;
use crate::rewrite::conversation::Client;
use crate::rewrite::graceful_disconnect::Offer;
use crate::rewrite::view::{self, drivers::DriverFamily};
use crate::rewrite::walk::rebuilt::in_segments;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

const HALF_CLOSED: Duration = Duration::from_secs(30);

/// A relay with the far ends of its sockets, and what it is ordered by.
struct Ends {
    relay: Relay,
    client: TcpStream,
    node: TcpStream,
    orders: Arc<Handle>,
    shared: Arc<Shared>,
}

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let (near, far) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
    (near.unwrap(), far.unwrap().0)
}

fn surroundings_with(topology: impl Fn() -> Arc<Topology> + Send + Sync + 'static) -> Arc<Surroundings> {
    Arc::new(Surroundings {
        topology: Box::new(topology),
        statements: Arc::default(),
        max_body: 1 << 28,
        held_frame: 1 << 24,
        unserved: Default::default(),
        rewriting: true,
    })
}

fn client_of(version: Version, logged_in: bool) -> Client {
    Client {
        session: Session { version, compression: None },
        view: view::select(
            view::Newcomer::default(),
            &config::Views::default(),
            crate::topology::paths::Shape::default(),
        ),
        attached: 9042,
        path: "default".into(),
        family: crate::topology::Family::Ipv4,
        injection: DriverFamily::of(None).injection(),
        logged_in,
    }
}

async fn relay() -> Ends {
    relay_of(Version::V4, true).await
}

async fn relay_of(version: Version, logged_in: bool) -> Ends {
    let topology = Arc::new(Topology::default());
    let timeouts = config::Timeouts { half_closed: HALF_CLOSED, ..Default::default() };
    let connections = Connections::new(&Limits::default());
    let mut place = connections.enter(9042, 1, Source::V4(1)).unwrap();
    place.move_to(if logged_in { Stage::Established } else { Stage::Login }).unwrap();
    let metrics = Metrics::new();
    let surroundings = surroundings_with({
        let topology = Arc::clone(&topology);
        move || Arc::clone(&topology)
    });
    let shared = Arc::new(Shared {
        topology: watch::channel(topology).1,
        settings: Current::new(Settings {
            surroundings: Arc::clone(&surroundings),
            timeouts,
            drain: config::Drain { graceful_disconnect: true, ..config::Drain::default() },
            logins: config::Logins::default(),
            gate: Gate::new(&config::Access::default(), &config::ProxyProtocol::default()),
            paths: PathRules::new(&[]),
            views: config::Views::default(),
            client_tls: None,
            allows_plain: true,
            dialer: Dialer { deadline: HALF_CLOSED, tls: None },
        }),
        connections: Arc::clone(&connections),
        budget: HoldBudget::new(1 << 20),
        memory: Arc::default(),
        metrics: Arc::clone(&metrics),
        observations: tokio::sync::mpsc::channel(1).0,
        sightings: Arc::default(),
        kept: Arc::default(),
        handshakes: Arc::new(tokio::sync::Semaphore::new(1)),
        logins: Logins::default(),
        agreement: Arc::default(),
        cordons: Arc::default(),
        refusals: Seldom::default(),
        unexpected: Seldom::default(),
        reserve: Reserve::new(Readiness::new()),
        tasks: tokio_util::task::TaskTracker::new(),
    });
    let ((near_client, far_client), (near_node, far_node)) = (pair().await, pair().await);
    let orders = Arc::clone(place.handle());
    let relay = Relay::new(
        (Stream::Plain(near_client), Vec::new()),
        (Stream::Plain(near_node), Vec::new()),
        Conversation::new(client_of(version, logged_in), surroundings),
        place,
        9042,
        metrics.node("node"),
        (Arc::clone(&shared), shared.settings.get()),
    );
    Ends { relay, client: far_client, node: far_node, orders, shared }
}

/// What a relay comes to; nothing keeps it for a day.
async fn ended<T>(relay: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(24 * 60 * 60), relay).await.expect("it waits for ever")
}

fn frame(version: u8, opcode: Opcode, stream: i16, length: usize) -> Vec<u8> {
    encode_frame(Header { version, flags: Flags(0), stream, opcode, length: 0 }, &vec![0; length])
}

fn request(stream: i16) -> Vec<u8> {
    frame(4, Opcode::OPTIONS, stream, 0)
}

fn answer(stream: i16) -> Vec<u8> {
    frame(0x84, Opcode::SUPPORTED, stream, 2)
}

#[test]
fn an_idle_connection_costs_little() {
    assert!(size_of::<Relay>() <= 768, "{} bytes", size_of::<Relay>());
}

#[tokio::test(start_paused = true)]
async fn a_node_that_cannot_be_written_to_and_says_nothing_more_is_let_go() {
    let Ends { relay, mut client, node: mut far_node, .. } = relay().await;
    let Some(Stream::Plain(near_node)) = &relay.node else { panic!("plain") };
    // Writes fail from now on; reads wait for a node that is silent.
    SockRef::from(near_node).shutdown(Shutdown::Write).unwrap();
    client.write_all(&request(1)).await.unwrap();
    let began = Instant::now();
    let relay = tokio::spawn(relay);
    // What it says all the same arrives.
    far_node.write_all(&answer(1)).await.unwrap();
    let mut answered = vec![0; answer(1).len()];
    client.read_exact(&mut answered).await.unwrap();
    assert_eq!(ended(relay).await.unwrap(), Closed::node(Why::HalfClosedTimeout));
    assert!(began.elapsed() >= HALF_CLOSED);
}

#[tokio::test(start_paused = true)]
async fn whoever_ends_first_the_other_one_is_not_waited_for_for_ever() {
    let Ends { relay, mut client, node: _node, .. } = relay().await;
    let began = Instant::now();
    client.write_all(&request(1)).await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(ended(relay).await, Closed::client(Why::HalfClosedTimeout));
    assert!(began.elapsed() >= HALF_CLOSED);
    // A client that does not take the last words.
    let Ends { relay, client: _client, node, .. } = self::relay().await;
    drop(node);
    assert_eq!(ended(relay).await, Closed::node(Why::Eof));
}

#[tokio::test(start_paused = true)]
async fn a_request_that_was_begun_is_finished_and_no_other_is_taken() {
    let Ends { relay, mut client, mut node, orders, .. } = relay().await;
    let relay = tokio::spawn(relay);
    let begun = frame(4, Opcode(0x42), 1, 10_000);
    client.write_all(&begun[..5_000]).await.unwrap();
    let mut received = vec![0; 5_000];
    node.read_exact(&mut received).await.unwrap();
    orders.give(Order::Drain);
    // The moment in which nothing might be in flight passes.
    tokio::time::sleep(2 * IDLE).await;
    client.write_all(&[&begun[5_000..], &request(2), &request(3)].concat()).await.unwrap();
    received.resize(begun.len(), 0);
    node.read_exact(&mut received[5_000..]).await.unwrap();
    assert_eq!(received, begun);
    node.write_all(&answer(1)).await.unwrap();
    let mut answered = Vec::new();
    client.read_to_end(&mut answered).await.unwrap();
    assert_eq!(answered, answer(1), "and a clean end between two frames");
    let mut more = Vec::new();
    let _ = node.read_to_end(&mut more).await;
    assert!(more.is_empty());
    drop(client);
    assert_eq!(ended(relay).await.unwrap(), Closed::gateway(Why::Drain));
}

#[tokio::test(start_paused = true)]
async fn a_request_that_spans_segments_is_finished_too() {
    let Ends { relay, mut client, mut node, orders, .. } = relay_of(Version::V5, true).await;
    let relay = tokio::spawn(relay);
    let begun = in_segments(&frame(5, Opcode(0x42), 1, 300_000), Layout::Plain);
    client.write_all(&begun[..150_000]).await.unwrap();
    // One segment of the three is whole, and says that the others pass.
    let mut received = vec![0; 131_000];
    node.read_exact(&mut received).await.unwrap();
    orders.give(Order::Drain);
    tokio::time::sleep(2 * IDLE).await;
    let next = in_segments(&frame(5, Opcode::OPTIONS, 2, 0), Layout::Plain);
    client.write_all(&[&begun[150_000..], &next, &next].concat()).await.unwrap();
    received.resize(begun.len(), 0);
    node.read_exact(&mut received[131_000..]).await.unwrap();
    assert!(received == begun);
    let answer = in_segments(&frame(0x85, Opcode::SUPPORTED, 1, 2), Layout::Plain);
    node.write_all(&answer).await.unwrap();
    let mut answered = Vec::new();
    client.read_to_end(&mut answered).await.unwrap();
    assert_eq!(answered, answer);
    drop(client);
    assert_eq!(ended(relay).await.unwrap(), Closed::gateway(Why::Drain));
}

#[tokio::test(start_paused = true)]
async fn a_side_that_has_ended_stays_so_when_a_drain_begins() {
    let Ends { relay, mut client, mut node, orders, .. } = relay().await;
    let relay = tokio::spawn(relay);
    client.write_all(&request(1)).await.unwrap();
    node.read_exact(&mut [0; 9]).await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(node.read(&mut [0; 1]).await.unwrap(), 0);
    orders.give(Order::Drain);
    tokio::time::sleep(2 * IDLE).await;
    node.write_all(&answer(1)).await.unwrap();
    let mut answered = Vec::new();
    client.read_to_end(&mut answered).await.unwrap();
    assert_eq!(answered, answer(1));
    drop(client);
    assert_eq!(ended(relay).await.unwrap(), Closed::gateway(Why::Drain));
}

#[tokio::test(start_paused = true)]
async fn a_drain_with_nothing_in_flight_is_a_clean_end_at_once() {
    let Ends { relay, mut client, node: _node, orders, .. } = relay().await;
    let relay = tokio::spawn(relay);
    orders.give(Order::Drain);
    let began = Instant::now();
    assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
    drop(client);
    assert_eq!(ended(relay).await.unwrap(), Closed::gateway(Why::Drain));
    assert!(began.elapsed() < IDLE);
}

#[tokio::test]
async fn what_was_asked_before_the_end_was_said_is_answered_also_where_the_runtime_has_not_heard_of_it() {
    let Ends { mut relay, mut client, mut node, orders, .. } = relay().await;
    let once = |relay: &mut Relay| Pin::new(relay).poll(&mut Context::from_waker(std::task::Waker::noop()));
    assert!(once(&mut relay).is_pending());
    orders.give(Order::Drain);
    assert!(once(&mut relay).is_pending());
    assert_eq!(relay.phase, Phase::Open, "an answer may be the better moment");
    relay.is_quiet = true;
    // Between two polls of this task the runtime asks the kernel for nothing.
    assert_eq!(client.try_write(&request(1)).unwrap(), request(1).len());
    assert!(once(&mut relay).is_pending());
    assert_eq!(relay.phase, Phase::Open);
    let relay = tokio::spawn(relay);
    node.read_exact(&mut vec![0; request(1).len()]).await.unwrap();
    node.write_all(&answer(1)).await.unwrap();
    let mut answered = Vec::new();
    client.read_to_end(&mut answered).await.unwrap();
    assert_eq!(answered, answer(1), "and the end right behind it");
    drop(client);
    assert_eq!(ended(relay).await.unwrap(), Closed::gateway(Why::Drain));
}

/// A client that asked to be told, and its node.
async fn told_when_to_leave() -> Ends {
    let Ends { mut relay, mut client, mut node, shared, orders } = relay_of(Version::V5, true).await;
    relay.conversation =
        Conversation::new(client_of(Version::V5, true), Arc::clone(&shared.settings.get().surroundings))
            .offering(Offer::new(true, Version::V5, false));
    let header = Header { version: 5, flags: Flags(0), stream: 1, opcode: Opcode::REGISTER, length: 0 };
    let register = in_segments(&encode_frame(header, &encode_register(&["GRACEFUL_DISCONNECT"])), Layout::Plain);
    client.write_all(&register).await.unwrap();
    let ready = in_segments(&frame(0x85, Opcode::READY, 1, 0), Layout::Plain);
    node.write_all(&ready).await.unwrap();
    let registered = std::future::poll_fn(|cx| {
        assert!(Pin::new(&mut relay).poll(cx).is_pending());
        if relay.conversation.hears_farewell() { Poll::Ready(()) } else { Poll::Pending }
    });
    ended(registered).await;
    client.read_exact(&mut vec![0; ready.len()]).await.unwrap();
    let none = in_segments(&encode_frame(header, &encode_register(&[])), Layout::Plain);
    let mut heard = vec![0; none.len()];
    node.read_exact(&mut heard).await.unwrap();
    assert_eq!(heard, none);
    Ends { relay, client, node, shared, orders }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_asked_to_be_told_is_told_once_and_goes_by_itself() {
    for first in [Order::Tell, Order::Farewell] {
        let Ends { relay, mut client, mut node, orders, .. } = told_when_to_leave().await;
        let relay = tokio::spawn(relay);
        let ask = in_segments(&frame(5, Opcode::OPTIONS, 2, 0), Layout::Plain);
        let answer = in_segments(&frame(0x85, Opcode::SUPPORTED, 2, 2), Layout::Plain);
        client.write_all(&ask).await.unwrap();
        node.read_exact(&mut vec![0; ask.len()]).await.unwrap();
        orders.give(first);
        let header = Header { version: 0x85, flags: Flags(0), stream: -1, opcode: Opcode::EVENT, length: 0 };
        let event = in_segments(&encode_frame(header, b"\0\x13GRACEFUL_DISCONNECT"), Layout::Plain);
        let mut told = vec![0; event.len()];
        client.read_exact(&mut told).await.unwrap();
        assert_eq!(told, event);
        // Long after, what was asked before is answered, and so is what is asked now.
        orders.give(Order::Farewell);
        tokio::time::sleep(10 * HALF_CLOSED).await;
        client.write_all(&ask).await.unwrap();
        node.read_exact(&mut vec![0; ask.len()]).await.unwrap();
        let mut answers = [answer.clone(), answer].concat();
        node.write_all(&answers).await.unwrap();
        client.read_exact(&mut answers).await.unwrap();
        client.shutdown().await.unwrap();
        drop(node);
        assert_eq!(ended(relay).await.unwrap(), Closed::client(Why::Eof));
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_was_told_and_stays_is_drained_in_the_end_and_one_that_did_not_ask_at_once() {
    let Ends { relay, mut client, node: _node, orders, .. } = told_when_to_leave().await;
    let relay = tokio::spawn(relay);
    orders.give(Order::Farewell);
    client.read_exact(&mut [0; 9]).await.unwrap();
    orders.give(Order::Drain);
    client.read_to_end(&mut Vec::new()).await.unwrap();
    drop(client);
    assert_eq!(ended(relay).await.unwrap(), Closed::gateway(Why::Drain));
    let Ends { relay, mut client, node: _node, orders, .. } = self::relay().await;
    let relay = tokio::spawn(relay);
    orders.give(Order::Tell);
    tokio::time::sleep(10 * HALF_CLOSED).await;
    assert!(!relay.is_finished(), "nothing is closed because a node is going");
    orders.give(Order::Farewell);
    assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
    drop(client);
    assert_eq!(ended(relay).await.unwrap(), Closed::gateway(Why::Drain));
}

#[tokio::test(start_paused = true)]
async fn whoever_is_as_old_as_it_may_be_and_whoever_does_not_read_end_each_with_its_word() {
    let ends = [
        (Order::Age, Closed::gateway(Why::MaxAge)),
        (Order::Unread, Closed::client(Why::Unread)),
        (Order::Vanished, Closed::client(Why::Timeout)),
    ];
    for (order, closed) in ends {
        let Ends { relay, client, node: _node, orders, .. } = relay().await;
        orders.give(order);
        let relay = tokio::spawn(relay);
        if order == Order::Age {
            drop(client);
        }
        assert_eq!(ended(relay).await.unwrap(), closed);
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_never_comes_does_not_keep_a_connection_that_takes_no_more_requests() {
    let Ends { relay, mut client, mut node, orders, .. } = relay().await;
    let relay = tokio::spawn(relay);
    client.write_all(&request(1)).await.unwrap();
    node.read_exact(&mut [0; 9]).await.unwrap();
    orders.give(Order::Readdress);
    assert_eq!(ended(relay).await.unwrap(), Closed::gateway(Why::DrainSilence));
}

#[tokio::test]
async fn a_panic_in_one_connection_ends_that_connection_and_leaves_nothing_behind() {
    let Ends { mut relay, mut client, mut node, shared, .. } = relay().await;
    // A REGISTER asks for the topology, in the middle of a poll that has the thread's buffers.
    relay.conversation =
        Conversation::new(client_of(Version::V4, true), surroundings_with(|| panic!("on purpose, for a test")));
    let (metrics, driver) = (shared.metrics.node("node"), shared.metrics.driver(DriverFamily::of(None), None));
    metrics.open.inc();
    driver.open.inc();
    let established = Established { relay: Box::new(relay), driver, path: shared.metrics.path("default") };
    let peer = client.local_addr().unwrap();
    let task = shared.tasks.spawn(relayed(
        established,
        Who { peer, via: None, certificate: None },
        9042,
        Arc::clone(&metrics),
        Instant::now(),
    ));
    assert_eq!(shared.connections.taken(Stage::Established), 1);
    let register = encode_frame(
        Header { version: 4, flags: Flags(0), stream: 1, opcode: Opcode::REGISTER, length: 0 },
        &encode_register(&["STATUS_CHANGE"]),
    );
    client.write_all(&register).await.unwrap();
    assert!(ended(task).await.unwrap_err().is_panic());
    for far in [&mut client, &mut node] {
        assert!(matches!(far.read(&mut [0]).await, Ok(0) | Err(_)), "its sockets are closed");
    }
    assert_eq!((shared.connections.taken(Stage::Established), metrics.open.get(), shared.tasks.len()), (0, 0, 0));
    let counted = "cqlgate_connections_closed_total{by=\"gateway\",node=\"node\",why=\"panic\"} 1";
    assert!(shared.metrics.render().unwrap().contains(counted));
    // The next one on this thread, with the same buffers.
    let Ends { relay, mut client, mut node, .. } = self::relay().await;
    let relay = tokio::spawn(relay);
    client.write_all(&request(1)).await.unwrap();
    node.read_exact(&mut [0; 9]).await.unwrap();
    drop((client, node));
    ended(relay).await.unwrap();
}

/// AUTH_RESPONSE of SASL PLAIN.
fn login(stream: i16) -> Vec<u8> {
    let header = Header { version: 4, flags: Flags(0), stream, opcode: Opcode::AUTH_RESPONSE, length: 0 };
    encode_frame(header, &encode_plain_auth_response("ann", "guess"))
}

#[tokio::test(start_paused = true)]
async fn a_login_waits_for_its_delay_and_answers_flow_meanwhile() {
    let Ends { relay, mut client, mut node, shared, orders } = relay_of(Version::V4, false).await;
    let source = orders.source();
    for _ in 0..20 {
        shared.logins.failed(&shared.settings.get().logins, source, Some("ann"), Instant::now());
    }
    let delay = shared.logins.delay(&shared.settings.get().logins, source, Some("ann"), Instant::now());
    let relay = tokio::spawn(relay);
    client.write_all(&[request(1), login(2)].concat()).await.unwrap();
    node.read_exact(&mut [0; 9]).await.unwrap();
    let began = Instant::now();
    node.write_all(&answer(1)).await.unwrap();
    client.read_exact(&mut vec![0; answer(1).len()]).await.unwrap();
    assert!(began.elapsed() < delay / 2);
    let mut asked = vec![0; login(2).len()];
    node.read_exact(&mut asked).await.unwrap();
    assert_eq!(asked, login(2));
    assert!(began.elapsed() >= delay * 9 / 10, "{:?}", began.elapsed());
    // The node lets it in: no clock runs any more, and the place is one of the established.
    let header = Header { version: 0x84, flags: Flags(0), stream: 2, opcode: Opcode::AUTH_SUCCESS, length: 0 };
    node.write_all(&encode_frame(header, &[0xff; 4])).await.unwrap();
    client.read_exact(&mut [0; 13]).await.unwrap();
    tokio::time::sleep(10 * shared.settings.get().timeouts.login).await;
    assert_eq!(shared.connections.taken(Stage::Established), 1);
    assert_eq!(shared.logins.delay(&shared.settings.get().logins, source, Some("ann"), Instant::now()), Duration::ZERO);
    drop(client);
    drop(node);
    ended(relay).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn each_round_of_a_login_has_its_time() {
    let Ends { relay, mut client, mut node, shared, .. } = relay_of(Version::V4, false).await;
    let relay = tokio::spawn(relay);
    let began = Instant::now();
    // Whoever asks for something else all the time logs in none the more.
    for stream in 1..10 {
        tokio::time::sleep(shared.settings.get().timeouts.login / 10).await;
        client.write_all(&request(stream)).await.unwrap();
        node.write_all(&answer(stream)).await.unwrap();
    }
    // The node never answers.
    client.write_all(&login(1)).await.unwrap();
    assert_eq!(ended(relay).await.unwrap(), Closed::gateway(Why::LoginDeadline));
    let rounds = began.elapsed().as_secs_f64() / shared.settings.get().timeouts.login.as_secs_f64();
    assert!((1.8..2.1).contains(&rounds), "{rounds}");
}

#[tokio::test]
async fn one_poll_judges_so_many_frames_and_then_it_is_the_others_turn() {
    let Ends { mut relay, mut client, mut node, .. } = relay().await;
    let requests = request(1).repeat(1000);
    client.write_all(&requests).await.unwrap();
    node.write_all(&answer(1)).await.unwrap();
    client.readable().await.ok();
    let mut cx = Context::from_waker(std::task::Waker::noop());
    let mut taken = Vec::new();
    // The first polls tell the sockets' readiness.
    for poll in 0.. {
        assert!(poll < 1000 && Pin::new(&mut relay).poll(&mut cx).is_pending());
        taken.push(relay.conversation.counts());
        if taken.last() == Some(&(1000, 1)) {
            break;
        }
        tokio::task::yield_now().await;
    }
    let mut before = (0, 0);
    for now in &taken {
        assert!(now.0 - before.0 + now.1 - before.1 <= 256, "{taken:?}");
        before = *now;
    }
    let answered = taken.iter().find(|counts| counts.1 == 1).unwrap();
    assert!(answered.0 < 1000, "the answer waits for no more than a turn: {taken:?}");
}
