//! Connections that are to end, or not to begin: age, clients that do not read, cordons, and what the kernel has queued when a drain
//! begins.

use std::io::{self, Read, Write};
use std::net::TcpStream as StdStream;
use std::time::{Duration, Instant};

use cqlgate::cql::frame::{HEADER_LEN, Header, Opcode, Version};
use cqlgate::cql::message::{Event, Supported, encode_register, request};
use cqlgate::demo::node::Options;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;

use crate::V4;
use crate::client::{Client, Dialect, PATIENCE, error};
use crate::gate::{self, Gate};
use crate::limits::patient;

const SELECT: &str = "SELECT * FROM demo.kv";

#[tokio::test]
async fn connections_end_at_their_age_with_every_answer_and_not_all_at_once() {
    let gate = Gate::start_with(Options::loopback(1, 0), "timeouts: {max_age: 2s}\n").await;
    let began = Instant::now();
    let mut pool = Vec::new();
    for _ in 0..6 {
        pool.push(Client::connect(gate.port(0), V4).await);
    }
    let opened = began.elapsed();
    let lives = pool.into_iter().map(|mut client| async move {
        let (mut asked, mut answered) = (0, 0);
        loop {
            asked += u32::from(client.send(Opcode::QUERY, &request::encode_query(V4.0, SELECT)).await.is_ok());
            match client.receive().await {
                Ok((header, _)) => assert_eq!(header.opcode, Opcode::RESULT),
                // Clean, between two frames; what was written after that was never taken.
                Err(error) => {
                    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
                    assert!(asked - answered <= 1, "{asked} {answered}");
                    return began.elapsed();
                }
            }
            answered += 1;
        }
    });
    let mut ends = futures_util::future::join_all(lives).await;
    ends.sort();
    assert!(ends[0] >= Duration::from_secs(1), "{ends:?}");
    assert!(ends[5] <= Duration::from_secs(4) + opened, "{ends:?}");
    assert!(ends[5] - ends[0] > Duration::from_millis(250), "{ends:?}");
    let closed = "cqlgate_connections_closed_total{by=\"gateway\",node=\"node-0\",why=\"max_age\"}";
    gate.until_counted(closed, 6).await;
}

/// A client with little room for what it does not read, and a value in the table that is longer than that.
async fn without_room(gate: &Gate, length: usize) -> Client {
    let mut writer = Client::connect(gate.port(0), V4).await;
    let insert = writer.prepare("INSERT INTO demo.kv (k, v) VALUES (?, ?)").await;
    writer.execute(&insert, &["key", &"x".repeat(length)], false).await.unwrap();
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(8192).unwrap();
    let stream = socket.connect(gate.port(0)).await.unwrap();
    let mut client = Client::over(stream, V4);
    assert_eq!(client.startup(&[]).await.unwrap().0, Opcode::READY);
    client
}

#[tokio::test]
async fn a_client_that_reads_nothing_is_closed_in_time_be_it_that_only_the_kernel_owes_it_something() {
    let gate = Gate::start_changed(Options::loopback(1, 0), "timeouts: {dead_peer: 2s}\n", patient).await;
    // The first fits into the kernel's buffer.
    for (closed, length) in [(1, 100_000), (2, 12_000_000)] {
        let mut client = without_room(&gate, length).await;
        let began = Instant::now();
        client.send(Opcode::QUERY, &request::encode_query(V4.0, SELECT)).await.unwrap();
        gate.until_counted("cqlgate_connections_closed_total{by=\"client\",node=\"node-0\",why=\"unread\"}", closed)
            .await;
        assert!(began.elapsed() >= Duration::from_secs(2), "{:?}", began.elapsed());
    }
}

#[tokio::test]
async fn a_client_that_reads_now_and_then_gets_its_whole_answer_however_long_it_takes() {
    let gate = Gate::start_changed(Options::loopback(1, 0), "timeouts: {dead_peer: 2s}\n", patient).await;
    let mut client = without_room(&gate, 12_000_000).await;
    let asked = client.send(Opcode::QUERY, &request::encode_query(V4.0, SELECT)).await.unwrap();
    let (began, mut taken) = (Instant::now(), 0);
    let mut header = [0; HEADER_LEN];
    client.stream.read_exact(&mut header).await.unwrap();
    let header = Header::peek(&header).unwrap();
    assert_eq!((header.stream, header.opcode), (asked, Opcode::RESULT));
    let mut buffer = vec![0; 1 << 20];
    while taken < header.length as usize {
        // A pause in which nothing is taken; then as much as there is.
        if taken < 100_000 {
            tokio::time::sleep(Duration::from_millis(900)).await;
        }
        let read = client.stream.read(&mut buffer).await.unwrap();
        assert!(read > 0, "after {taken} bytes and {:?}", began.elapsed());
        taken += read;
    }
    assert!(began.elapsed() > Duration::from_secs(4), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_cordoned_node_keeps_whom_it_has_and_takes_nobody_else_and_its_row_stays() {
    let gate = Gate::start().await;
    let mut before = Client::connect(gate.port(1), V4).await;
    let put = async |path: &str| gate::request(gate.running.admin, "PUT", path).await.unwrap();
    let (status, said) = put("/nodes/node-1/cordon").await;
    assert_eq!((status, said.contains("; 1 go on")), (200, true), "{said}");
    let mut refused = Client::dial(gate.port(1), V4).await.unwrap();
    assert!(refused.startup(&[]).await.is_err());
    gate.until_counted("cqlgate_connections_refused_total{reason=\"cordoned\"}", 1).await;
    assert_eq!(before.query(SELECT).await.unwrap().0, Opcode::RESULT);
    let mut other = Client::connect(gate.port(0), V4).await;
    let (_, peers) = crate::told(&mut other).await;
    assert!(peers.contains(&gate.port(1)), "its row stays: {peers:?}");
    assert_eq!(gate.get("/readyz").await.0, 200);
    assert_eq!(put("/nodes/node-1/uncordon").await.0, 200);
    Client::connect(gate.port(1), V4).await;
}

/// The client's own thread, so that it connects while nothing of the gateway runs.
fn queued(gate: &Gate) -> StdStream {
    let mut stream = StdStream::connect(gate.port(0)).unwrap();
    let options = Header { version: 4, flags: Default::default(), stream: 1, opcode: Opcode::OPTIONS, length: 0 };
    stream.write_all(&options.encode()).unwrap();
    stream
}

#[tokio::test]
async fn whom_the_kernel_has_accepted_when_a_drain_begins_is_served() {
    let gate = Gate::start_changed(Options::loopback(1, 0), "drain: {spread: 2s, deadline: 10s}\n", patient).await;
    // This thread is the gateway's too: until it waits, they are in the queue; and they are more than are accepted in one turn.
    let queued: Vec<StdStream> = (0..400).map(|_| queued(&gate)).collect();
    let Gate { cluster: _cluster, running, .. } = gate;
    let draining = tokio::spawn(running.drain());
    let answers = tokio::task::spawn_blocking(move || {
        let answered = |mut stream: StdStream| {
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut header = [0; HEADER_LEN];
            stream.read_exact(&mut header).map(|()| Header::peek(&header).unwrap().opcode)
        };
        queued.into_iter().map(answered).collect::<Vec<_>>()
    });
    for answer in answers.await.unwrap() {
        assert_eq!(answer.unwrap(), Opcode::SUPPORTED);
    }
    tokio::time::timeout(PATIENCE, draining).await.unwrap().unwrap();
}

/// Clients of the three kinds that there are: one that leaves when it is told, one that is told and stays, one that did not ask.
#[tokio::test]
async fn a_drain_tells_those_who_asked_and_lets_them_go_by_themselves() {
    const V5: Dialect = (Version::V5, None);
    let drain = "drain: {spread: 1s, linger: 500ms, deadline: 9s, graceful_disconnect: true}\n";
    let gate = Gate::start_changed(Options::loopback(1, 0), drain, patient).await;
    let mut clients = Vec::new();
    for asks in [true, true, false] {
        let mut client = Client::dial(gate.port(0), V5).await.unwrap();
        let (_, supported) = client.ask(Opcode::OPTIONS, &[]).await.unwrap();
        let supported = Supported::parse(&supported).unwrap();
        assert_eq!(supported.get("GRACEFUL_DISCONNECT"), Some(&["true"][..]));
        assert_eq!(client.startup(&[]).await.unwrap().0, Opcode::READY);
        if asks {
            let register = encode_register(&["GRACEFUL_DISCONNECT"]);
            assert_eq!(client.ask(Opcode::REGISTER, &register).await.unwrap().0, Opcode::READY);
        }
        clients.push(client);
    }
    let Gate { cluster: _cluster, running, metrics } = gate;
    let (began, draining) = (Instant::now(), tokio::spawn(running.drain()));
    let [leaves, stays, did_not_ask] = &mut clients[..] else { panic!() };
    for client in [&mut *leaves, &mut *stays] {
        let (header, event) = client.receive().await.unwrap();
        assert_eq!((header.stream, header.opcode), (-1, Opcode::EVENT));
        assert_eq!(Event::parse(&event), Ok(Event::GracefulDisconnect));
        // What was on its way when that came is answered.
        assert_eq!(client.query(SELECT).await.unwrap().0, Opcode::RESULT);
    }
    leaves.stream.shutdown().await.unwrap();
    assert_eq!(did_not_ask.end().await, io::ErrorKind::UnexpectedEof);
    assert!(began.elapsed() < Duration::from_secs(4), "as without it");
    assert_eq!(stays.query(SELECT).await.unwrap().0, Opcode::RESULT);
    assert_eq!(stays.end().await, io::ErrorKind::UnexpectedEof, "drained, not cut");
    assert!(began.elapsed() >= Duration::from_secs(5), "it had time: {:?}", began.elapsed());
    tokio::time::timeout(PATIENCE, draining).await.unwrap().unwrap();
    let text = metrics.render().unwrap();
    let closed = |by: &str, why: &str| format!("{{by=\"{by}\",node=\"node-0\",why=\"{why}\"}}");
    for line in [
        format!("cqlgate_connections_closed_total{} 1\n", closed("client", "eof")),
        format!("cqlgate_connections_closed_total{} 2\n", closed("gateway", "drain")),
        "cqlgate_events_total{action=\"added\",event=\"GRACEFUL_DISCONNECT\"} 2\n".to_owned(),
    ] {
        assert!(text.contains(&line), "{line}{text}");
    }
}

#[tokio::test]
async fn a_client_that_asks_for_what_is_not_offered_hears_what_the_node_says() {
    let gate = Gate::start().await;
    let mut client = Client::connect(gate.port(0), (Version::V5, None)).await;
    let (opcode, body) = client.ask(Opcode::REGISTER, &encode_register(&["GRACEFUL_DISCONNECT"])).await.unwrap();
    assert_eq!((opcode, error(&body).1.as_str()), (Opcode::ERROR, "Invalid value 'GRACEFUL_DISCONNECT' for Type"));
}
