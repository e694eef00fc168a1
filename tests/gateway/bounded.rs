//! Memory is proportional to what arrived, whoever harms others leaves first, and a busy connection drains.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use cqlgate::cql::compression::Compression;
use cqlgate::cql::frame::{Opcode, Version};
use cqlgate::cql::message::{encode_plain_auth_response, request};
use cqlgate::demo::node::Options;
use futures_util::future::join_all;
use tokio::io::AsyncWriteExt;
use tokio::time::{sleep, timeout};

use crate::client::{Client, PATIENCE};
use crate::gate::Gate;

const V5: crate::client::Dialect = (Version::V5, None);

/// A request of 100 KB in one segment: it is looked at when it is there whole.
async fn long_request(gate: &Gate) -> Duration {
    let mut honest = Client::connect(gate.port(0), V5).await;
    let began = Instant::now();
    let text = format!("SELECT v FROM demo.kv WHERE k = '{}'", "k".repeat(100_000));
    assert_eq!(honest.query(&text).await.unwrap().0, Opcode::RESULT);
    began.elapsed()
}

#[tokio::test]
async fn what_is_only_claimed_takes_nobodys_room() {
    let gate = Gate::start_with(Options::loopback(1, 0), "limits: {held_total: 1MiB, held_frame: 512KiB}\n").await;
    let mut idle = Vec::new();
    for _ in 0..16 {
        let mut client = Client::connect(gate.port(0), V5).await;
        // Twice the room, in 16 headers.
        let text = "k".repeat(130_000);
        let segment = client.encode(1, Opcode::QUERY, &request::encode_query(Version::V5, &text));
        client.stream.write_all(&segment[..9]).await.unwrap();
        idle.push(client);
    }
    let (first, second) = tokio::join!(long_request(&gate), long_request(&gate));
    assert!(first.max(second) < Duration::from_secs(2), "{first:?} {second:?}");
    let closed = gate.metrics.node("node-0").open.get();
    assert!(closed >= 16, "nobody was closed for it: {closed} are open");
}

#[tokio::test]
async fn those_who_began_and_went_silent_make_room_for_one_who_goes_on() {
    let gate = Gate::start_with(Options::loopback(1, 0), "limits: {held_total: 1MiB, held_frame: 512KiB}\n").await;
    let mut idle = Vec::new();
    for _ in 0..16 {
        let mut client = Client::connect(gate.port(0), V5).await;
        let text = "k".repeat(100_000);
        let segment = client.encode(1, Opcode::QUERY, &request::encode_query(Version::V5, &text));
        client.stream.write_all(&segment[..90_000]).await.unwrap();
        idle.push(client);
    }
    // They harm nobody until somebody needs what they hold: then it is a second or two.
    gate.until_counted("cqlgate_held_bytes", 850_000).await;
    let (first, second) = tokio::join!(long_request(&gate), long_request(&gate));
    let longest = first.max(second);
    assert!(longest < Duration::from_secs(3), "{first:?} {second:?}");
    let stalled = "cqlgate_connections_closed_total{by=\"gateway\",node=\"node-0\",why=\"hold_stalled\"}";
    gate.until_counted(stalled, 1).await;
    assert!(gate.running.connections() >= 10, "{} of 16 are left", gate.running.connections());
}

#[tokio::test]
async fn a_client_that_does_not_read_for_a_while_gets_all_its_answers() {
    let gate = Gate::start().await;
    let mut client = Client::connect(gate.port(0), (Version::V4, Some(Compression::Lz4))).await;
    socket2::SockRef::from(&client.stream).set_recv_buffer_size(64 * 1024).unwrap();
    let ask = request::encode_query(Version::V4, "SELECT * FROM system.peers_v2");
    let mut sent = 0_i16;
    // Until neither side takes more: what the gateway owes and what it has not decided is a read and a frame each way.
    while sent < 5_000 {
        let bytes = client.encode(sent, Opcode::QUERY, &ask);
        match timeout(Duration::from_millis(300), client.stream.write_all(&bytes)).await {
            Ok(written) => written.unwrap(),
            Err(_) => break,
        }
        sent += 1;
    }
    assert!(sent > 100, "{sent} were taken");
    for stream in 0..sent {
        let (header, _) = client.receive().await.unwrap();
        assert_eq!((header.stream, header.opcode), (stream, Opcode::RESULT));
    }
}

/// Requests, of which at least one is always in flight, until the connection ends: how many were answered, and how it ended.
async fn load(mut client: Client, answered: &AtomicUsize) -> io::ErrorKind {
    let ask = request::encode_query(Version::V4, "SELECT * FROM demo.kv");
    for _ in 0..4 {
        if let Err(error) = client.send(Opcode::QUERY, &ask).await {
            return error.kind();
        }
    }
    loop {
        match client.receive().await {
            Ok((header, _)) => assert_eq!(header.opcode, Opcode::RESULT),
            Err(error) => {
                assert!(client.received().is_empty(), "it ends between two frames");
                return error.kind();
            }
        }
        answered.fetch_add(1, Ordering::Relaxed);
        let _ = client.send(Opcode::QUERY, &ask).await;
    }
}

#[tokio::test]
async fn a_connection_that_is_never_idle_drains_and_every_request_that_was_taken_is_answered() {
    let gate = Gate::start_with(Options::loopback(1, 0), "drain: {spread: 0s, deadline: 20s}\n").await;
    // So slow that there is always something on its way.
    gate.cluster.node(0).delay(Some(Duration::from_millis(20)));
    let answered = AtomicUsize::new(0);
    let mut clients = Vec::new();
    for _ in 0..5 {
        clients.push(Client::connect(gate.port(0), crate::V4).await);
    }
    let taken = gate.metrics.node("node-0").requests.clone();
    let before = taken.get();
    let Gate { running, cluster: _cluster, metrics } = gate;
    let drains = async {
        while answered.load(Ordering::Relaxed) < 20 {
            sleep(Duration::from_millis(1)).await;
        }
        let began = Instant::now();
        running.drain().await;
        began.elapsed()
    };
    let loads = join_all(clients.into_iter().map(|client| load(client, &answered)));
    let (ends, took) = timeout(PATIENCE, async { tokio::join!(loads, drains) }).await.unwrap();
    assert_eq!(ends, [io::ErrorKind::UnexpectedEof; 5]);
    assert_eq!(answered.load(Ordering::Relaxed) as u64, taken.get() - before);
    assert!(took < Duration::from_secs(10), "{took:?}");
    let text = metrics.render().unwrap();
    assert!(text.contains("by=\"gateway\",node=\"node-0\",why=\"drain\"} 5"), "{text}");
}

#[tokio::test]
async fn whoever_is_accepted_when_the_drain_begins_is_told_of_it() {
    for _ in 0..20 {
        let gate = Gate::start_with(Options::loopback(1, 0), "drain: {spread: 0s, deadline: 10s}\n").await;
        let port = gate.port(0);
        let Gate { running, cluster: _cluster, .. } = gate;
        // Some of them are accepted while the others are told.
        let arrivals = join_all((0..20).map(|_| async move {
            let mut client = Client::dial(port, crate::V4).await.ok()?;
            client.startup(&[]).await.ok()?;
            Some(client.end().await)
        }));
        let began = Instant::now();
        let (ends, ()) = tokio::join!(arrivals, running.drain());
        assert!(ends.into_iter().flatten().all(|end| end != io::ErrorKind::TimedOut));
        assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    }
}

/// How a login ended, and how long it took.
async fn log_in(gate: &Gate, user: &str, password: &str) -> (Opcode, Duration) {
    let mut client = Client::dial(gate.port(0), crate::V4).await.unwrap();
    assert_eq!(client.startup(&[]).await.unwrap().0, Opcode::AUTHENTICATE);
    let began = Instant::now();
    let answer = client.ask(Opcode::AUTH_RESPONSE, &encode_plain_auth_response(user, password)).await.unwrap().0;
    (answer, began.elapsed())
}

fn with_logins() -> Options {
    Options { credentials: Some(("ann".to_owned(), "secret".to_owned())), ..Options::loopback(1, 0) }
}

#[tokio::test]
async fn wrong_passwords_delay_only_the_same_user_and_let_the_honest_one_in() {
    let gate = Gate::start_with(with_logins(), "logins: {delay: 2s}\n").await;
    let guesses = join_all((0..100).map(|n| {
        let (gate, user) = (&gate, if n % 2 == 0 { "ann" } else { "bob" });
        async move { log_in(gate, user, "guess").await.0 }
    }));
    assert!(guesses.await.iter().all(|answer| *answer == Opcode::ERROR));
    let (other, took) = log_in(&gate, "carl", "guess").await;
    assert!(other == Opcode::ERROR && took < Duration::from_millis(1500), "nobody else waits: {took:?}");
    let (honest, took) = log_in(&gate, "ann", "secret").await;
    assert_eq!(honest, Opcode::AUTH_SUCCESS);
    assert!(took > Duration::from_millis(500) && took < Duration::from_secs(4), "{took:?}");
    let (again, took) = log_in(&gate, "ann", "secret").await;
    assert!(again == Opcode::AUTH_SUCCESS && took < Duration::from_millis(1500), "it is forgotten: {took:?}");
}

#[tokio::test]
async fn whoever_does_not_log_in_is_closed_and_whoever_does_may_be_silent() {
    let gate = Gate::start_with(with_logins(), "timeouts: {login: 3s}\n").await;
    let mut silent = Client::dial(gate.port(0), crate::V4).await.unwrap();
    let mut user = Client::dial(gate.port(0), crate::V4).await.unwrap();
    for client in [&mut silent, &mut user] {
        assert_eq!(client.startup(&[]).await.unwrap().0, Opcode::AUTHENTICATE);
    }
    gate.until_counted("cqlgate_stage_connections{stage=\"login\"}", 2).await;
    let login = encode_plain_auth_response("ann", "secret");
    assert_eq!(user.ask(Opcode::AUTH_RESPONSE, &login).await.unwrap().0, Opcode::AUTH_SUCCESS);
    assert_ne!(silent.end().await, io::ErrorKind::TimedOut);
    let late = "cqlgate_connections_closed_total{by=\"gateway\",node=\"node-0\",why=\"login_deadline\"}";
    gate.until_counted(late, 1).await;
    assert_eq!(user.query("SELECT * FROM demo.kv").await.unwrap().0, Opcode::RESULT);
    assert_eq!(gate.running.connections(), 1);
}
