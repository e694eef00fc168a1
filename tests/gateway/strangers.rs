//! Strangers are not users: whatever they begin and do not end, users get in, and stay.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use cqlgate::cql::frame::{Flags, Header, Opcode};
use cqlgate::cql::message::{Error, encode_plain_auth_response, error_code};
use cqlgate::demo::node::Options;
use futures_util::future::select_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, timeout};

use crate::V4;
use crate::certificates::Authority;
use crate::client::{Client, PATIENCE};
use crate::gate::Gate;
use crate::secured;

/// A deadline of a setup that no test waits for.
const NO_DEADLINE: &str = "timeouts: {setup: 10m, dial: 9m}\n";

/// A connection from another address of this machine.
async fn dial_from(source: u8, port: SocketAddr) -> TcpStream {
    try_dial_from(source, port).await.unwrap()
}

/// The same where the gateway may refuse it before the dial is seen to have succeeded.
async fn try_dial_from(source: u8, port: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((Ipv4Addr::new(127, 0, 77, source), 0).into()).unwrap();
    timeout(PATIENCE, socket.connect(port)).await.unwrap()
}

/// Sockets from one address that say this and nothing more.
async fn crowd(count: usize, source: u8, port: SocketAddr, says: &[u8]) -> Vec<TcpStream> {
    let mut crowd = Vec::new();
    for _ in 0..count {
        let mut stranger = dial_from(source, port).await;
        stranger.write_all(says).await.unwrap();
        crowd.push(stranger);
    }
    crowd
}

/// A whole ClientHello, as rustls writes it.
fn client_hello(authority: &Authority) -> Vec<u8> {
    let name = rustls::pki_types::ServerName::from(std::net::IpAddr::from([127, 0, 0, 1]));
    let mut client = rustls::ClientConnection::new(Arc::clone(authority.connector().config()), name).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    hello
}

#[tokio::test]
async fn whoever_begins_tls_and_falls_silent_keeps_no_client_out() {
    let authority = Authority::new();
    let gate =
        Gate::start_with(Options::loopback(1, 0), &format!("{NO_DEADLINE}{}", secured::yaml(Some(&authority), None)))
            .await;
    let many = 8 * std::thread::available_parallelism().unwrap().get();
    let _half = crowd(many, 1, gate.port(0), &client_hello(&authority)[..3]).await;
    let _whole = crowd(many, 2, gate.port(0), &client_hello(&authority)).await;
    gate.until_counted("cqlgate_stage_connections{stage=\"tls\"}", 2 * many as u64).await;
    let began = Instant::now();
    let stream = secured::connect(&gate, 0, &authority).await.unwrap();
    assert_eq!(Client::over(stream, V4).startup(&[]).await.unwrap().0, Opcode::READY);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[tokio::test]
async fn silent_sockets_take_no_places_of_users() {
    let gate = Gate::start_with(
        Options::loopback(1, 0),
        &format!("limits: {{connections: 2, connections_per_source: 2}}\n{NO_DEADLINE}"),
    )
    .await;
    let _silent = crowd(50, 1, gate.port(0), b"").await;
    let _begun = crowd(50, 1, gate.port(0), &[4, 0, 0]).await;
    gate.until_counted("cqlgate_stage_connections{stage=\"accepted\"}", 50).await;
    gate.until_counted("cqlgate_stage_connections{stage=\"setup\"}", 50).await;
    let mut users = [Client::connect(gate.port(0), V4).await, Client::connect(gate.port(0), V4).await];
    for user in &mut users {
        assert_eq!(user.query("SELECT * FROM demo.kv").await.unwrap().0, Opcode::RESULT);
    }
    assert_eq!(gate.running.connections(), 2);
}

#[tokio::test]
async fn a_newcomer_gets_in_where_silence_has_every_place_and_users_stay() {
    let limits = "limits: {stages: {accepted: {places: 6, per_source: 6}, setup: {places: 6, per_source: 6}}}\n";
    let gate = Gate::start_with(Options::loopback(1, 0), &format!("{limits}{NO_DEADLINE}")).await;
    let mut user = Client::connect(gate.port(0), V4).await;
    let mut silent = crowd(6, 1, gate.port(0), b"").await;
    gate.until_counted("cqlgate_stage_connections{stage=\"accepted\"}", 6).await;
    // Until they have been silent for longer than an honest client is.
    let newcomer = async {
        while Client::dial(gate.port(0), V4).await.unwrap().startup(&[]).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, newcomer).await.expect("the newcomer gets in");
    // Whoever had been there longest made room.
    let closed = timeout(PATIENCE, silent[0].read(&mut [0; 8])).await.expect("closed");
    assert!(!matches!(closed, Ok(1..)), "{closed:?}");
    gate.until_counted("cqlgate_connections_refused_total{reason=\"made_room\"}", 1).await;
    assert_eq!(user.query("SELECT * FROM demo.kv").await.unwrap().0, Opcode::RESULT);
}

#[tokio::test]
async fn a_source_with_its_share_keeps_no_other_out() {
    let limits = "limits: {stages: {accepted: {places: 10, per_source: 5}}}\n";
    let gate = Gate::start_with(Options::loopback(1, 0), &format!("{limits}{NO_DEADLINE}")).await;
    let mut greedy = crowd(5, 1, gate.port(0), b"").await;
    // One of its own goes: the newcomer, or whoever was silent for long when that came.
    if let Ok(newcomer) = try_dial_from(1, gate.port(0)).await {
        greedy.push(newcomer);
        let ends = greedy.iter_mut().map(|socket| Box::pin(async { socket.read(&mut [0; 8]).await }));
        let (ended, ..) = timeout(PATIENCE, select_all(ends)).await.expect("closed");
        assert!(!matches!(ended, Ok(1..)), "{ended:?}");
    }
    gate.until_counted("cqlgate_stage_connections{stage=\"accepted\"}", 5).await;
    let mut other = Client::over(dial_from(2, gate.port(0)).await, V4);
    assert_eq!(other.startup(&[]).await.unwrap().0, Opcode::READY);
}

#[tokio::test]
async fn wrong_passwords_delay_their_own_user_alone() {
    let credentials = Some(("ann".to_owned(), "secret".to_owned()));
    let gate = Gate::start_with(Options { credentials, ..Options::loopback(1, 0) }, "logins: {delay: 2s}\n").await;
    let log_in = |user: &'static str, password: &'static str| {
        let port = gate.port(0);
        async move {
            let mut client = Client::dial(port, V4).await.unwrap();
            assert_eq!(client.startup(&[]).await.unwrap().0, Opcode::AUTHENTICATE);
            client.ask(Opcode::AUTH_RESPONSE, &encode_plain_auth_response(user, password)).await.unwrap().0
        }
    };
    let wrong = |user: &'static str| {
        let tries: Vec<_> = (0..100).map(|_| tokio::spawn(log_in(user, "wrong"))).collect();
        async move {
            for tried in tries {
                assert_eq!(tried.await.unwrap(), Opcode::ERROR);
            }
        }
    };
    // Another user's wrong passwords, from the same address: the honest one does not wait for any of them.
    let guesses = tokio::spawn(wrong("bob"));
    assert_eq!(log_in("ann", "secret").await, Opcode::AUTH_SUCCESS);
    guesses.await.unwrap();
    let began = Instant::now();
    assert_eq!(log_in("ann", "secret").await, Opcode::AUTH_SUCCESS);
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    // The user's own: the next one waits, for no longer than the key says, and then gets in.
    wrong("ann").await;
    let began = Instant::now();
    assert_eq!(log_in("ann", "secret").await, Opcode::AUTH_SUCCESS);
    assert!(began.elapsed() >= Duration::from_millis(500), "{:?}", began.elapsed());
    let began = Instant::now();
    assert_eq!(log_in("ann", "secret").await, Opcode::AUTH_SUCCESS);
    assert!(began.elapsed() < Duration::from_secs(1), "a success is the end of it: {:?}", began.elapsed());
}

#[tokio::test]
async fn whoever_is_asked_to_log_in_and_does_not_is_closed_and_keeps_nobody_out() {
    let credentials = Some(("ann".to_owned(), "secret".to_owned()));
    let options = Options { credentials, ..Options::loopback(1, 0) };
    let gate = Gate::start_with(options, "limits: {connections: 1}\ntimeouts: {login: 2s}\n").await;
    let mut asked = Vec::new();
    for _ in 0..20 {
        let mut client = Client::dial(gate.port(0), V4).await.unwrap();
        assert_eq!(client.startup(&[]).await.unwrap().0, Opcode::AUTHENTICATE);
        asked.push(client);
    }
    gate.until_counted("cqlgate_stage_connections{stage=\"login\"}", 20).await;
    let mut user = Client::dial(gate.port(0), V4).await.unwrap();
    user.startup(&[]).await.unwrap();
    let answer = user.ask(Opcode::AUTH_RESPONSE, &encode_plain_auth_response("ann", "secret")).await.unwrap();
    assert_eq!(answer.0, Opcode::AUTH_SUCCESS);
    for mut client in asked {
        assert_ne!(client.end().await, std::io::ErrorKind::TimedOut, "still open");
    }
    assert_eq!(user.query("SELECT * FROM demo.kv").await.unwrap().0, Opcode::RESULT);
}

#[tokio::test]
async fn a_node_that_dies_ends_what_waits_for_it_in_every_stage() {
    let authority = Authority::new();
    // Nothing but an order ends these before the test does.
    let plain = Gate::start_with(Options::loopback(1, 0), NO_DEADLINE).await;
    let encrypted = Gate::start_with(
        secured::nodes(&authority),
        &format!("{NO_DEADLINE}{}", secured::yaml(None, Some(&authority))),
    )
    .await;
    let mut waiting = Vec::new();
    for gate in [&plain, &encrypted] {
        gate.cluster.node(0).silence(true);
        let silent = Client::dial(gate.port(0), V4).await.unwrap();
        // It waits for READY of the one, and for the other's answer to a ClientHello.
        let mut started = Client::dial(gate.port(0), V4).await.unwrap();
        started.send(Opcode::OPTIONS, &[]).await.unwrap();
        waiting.extend([silent, started]);
    }
    for mut client in waiting {
        assert_ne!(client.end().await, std::io::ErrorKind::TimedOut, "the probe found the node dead");
    }
}

#[tokio::test]
async fn a_first_frame_with_an_unknown_opcode_gets_the_error_of_a_node() {
    let gate = Gate::start_with(Options::loopback(1, 0), "").await;
    for version in [3, 4, 5] {
        let mut stream = dial_from(1, gate.port(0)).await;
        let header = Header { version, flags: Flags(0), stream: 7, opcode: Opcode(0x42), length: 0 };
        stream.write_all(&header.encode()).await.unwrap();
        let mut answer = Vec::new();
        timeout(PATIENCE, stream.read_to_end(&mut answer)).await.unwrap().unwrap();
        let told = Header::peek(&answer).unwrap();
        assert_eq!((told.opcode, told.stream, told.version), (Opcode::ERROR, 7, version | 0x80));
        let error = Error::parse(&answer[9..]).unwrap();
        assert_eq!((error.code, error.message), (error_code::PROTOCOL_ERROR, "Unknown opcode 66"));
    }
}

#[tokio::test]
async fn a_startup_has_a_small_cap() {
    let gate = Gate::start_with(Options::loopback(1, 0), "").await;
    let mut stream = dial_from(1, gate.port(0)).await;
    let header = Header { version: 4, flags: Flags(0), stream: 0, opcode: Opcode::STARTUP, length: 16 * 1024 + 1 };
    stream.write_all(&header.encode()).await.unwrap();
    let mut answer = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut answer)).await.unwrap().unwrap();
    assert_eq!(Error::parse(&answer[9..]).unwrap().code, error_code::PROTOCOL_ERROR);
}
