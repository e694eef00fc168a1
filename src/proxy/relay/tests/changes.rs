//! Changes of the schema that are told late: to whom, when, and what others have of it.

use super::*;
use crate::cql::primitives::Writer;

const PATIENCE: Duration = Duration::from_secs(5);

/// A relay for a client that sees one node for many.
async fn relay_that_tells_late() -> Ends {
    let mut ends = relay().await;
    let around = Arc::clone(&ends.shared.settings.get().surroundings);
    ends.relay.conversation = Conversation::new(client_of(Version::V4, true), around).telling_schema_changes_late();
    ends
}

fn created(stream: i16) -> Vec<u8> {
    let mut body = Vec::new();
    Writer::new(&mut body).i32(5).string("CREATED").string("TABLE").string("ks").string("t");
    encode_frame(Header { version: 0x84, flags: Flags(0), stream, opcode: Opcode::RESULT, length: 0 }, &body)
}

/// One request, answered with a change of the schema, and another one that is answered behind it.
async fn ask(client: &mut TcpStream, node: &mut TcpStream) {
    client.write_all(&[request(1), request(2)].concat()).await.unwrap();
    node.read_exact(&mut [0; 18]).await.unwrap();
    node.write_all(&[created(1), answer(2)].concat()).await.unwrap();
    heard(client, &answer(2)).await;
}

async fn heard(client: &mut TcpStream, expected: &[u8]) {
    let mut bytes = vec![0; expected.len()];
    client.read_exact(&mut bytes).await.unwrap();
    assert_eq!(bytes, expected);
}

/// The outcome was counted once, and no other.
fn counted(shared: &Shared, outcome: &str) {
    let text = shared.metrics.render().unwrap();
    let series: Vec<&str> = text.lines().filter(|line| line.starts_with("cqlgate_schema_changes_told")).collect();
    assert_eq!(series, [format!("cqlgate_schema_changes_told_total{{outcome=\"{outcome}\"}} 1")]);
}

#[tokio::test(start_paused = true)]
async fn a_change_is_told_when_all_agree_and_not_before() {
    for (knows, outcome) in [(true, "agreed"), (false, "unknown")] {
        let Ends { relay, mut client, mut node, shared, .. } = relay_that_tells_late().await;
        let relay = tokio::spawn(relay);
        let (began, before) = (Instant::now(), shared.agreement.ask(Instant::now() + PATIENCE));
        ask(&mut client, &mut node).await;
        // What was asked before says nothing of it.
        shared.agreement.agreed(before);
        tokio::time::sleep(PATIENCE / 2).await;
        assert_eq!(client.try_read(&mut [0]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
        let question = shared.agreement.last();
        if knows {
            shared.agreement.agreed(question)
        } else {
            shared.agreement.unknown(question)
        }
        heard(&mut client, &created(1)).await;
        assert!(began.elapsed() < PATIENCE);
        counted(&shared, outcome);
        assert_eq!(shared.budget.held(), 0);
        drop((client, node));
        ended(relay).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_is_told_late_where_they_do_not_and_others_go_on_meanwhile() {
    let Ends { relay, mut client, mut node, shared, .. } = relay_that_tells_late().await;
    let relay = tokio::spawn(relay);
    let began = Instant::now();
    ask(&mut client, &mut node).await;
    for stream in 3..100 {
        client.write_all(&request(stream)).await.unwrap();
        node.write_all(&answer(stream)).await.unwrap();
        heard(&mut client, &answer(stream)).await;
    }
    assert!(began.elapsed() < PATIENCE / 10);
    assert!(shared.budget.held() > 0, "what is kept has room");
    heard(&mut client, &created(1)).await;
    assert!((PATIENCE..PATIENCE * 11 / 10).contains(&began.elapsed()), "{:?}", began.elapsed());
    counted(&shared, "late");
    drop((client, node));
    ended(relay).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn without_room_it_is_told_at_once() {
    let Ends { relay, mut client, mut node, shared, .. } = relay_that_tells_late().await;
    shared.budget.set_short(true);
    let relay = tokio::spawn(relay);
    let began = Instant::now();
    client.write_all(&request(1)).await.unwrap();
    node.write_all(&created(1)).await.unwrap();
    heard(&mut client, &created(1)).await;
    assert!(began.elapsed() < PATIENCE / 10);
    counted(&shared, "no_room");
    drop((client, node));
    ended(relay).await.unwrap();
}

/// However the connection ends, the answer comes first: `clean` where an end follows it.
async fn check(end: impl AsyncFnOnce(&Handle, TcpStream) -> Option<TcpStream>, closed: Closed) {
    let Ends { relay, mut client, mut node, shared, orders } = relay_that_tells_late().await;
    let relay = tokio::spawn(relay);
    let began = Instant::now();
    ask(&mut client, &mut node).await;
    let _node = end(&orders, node).await;
    let mut heard = Vec::new();
    client.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard, created(1), "{closed:?}");
    assert!(began.elapsed() < PATIENCE, "{closed:?}");
    counted(&shared, "ended");
    drop(client);
    assert_eq!(ended(relay).await.unwrap(), closed);
    assert_eq!(shared.budget.held(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_ends_tells_what_it_keeps() {
    let give = |order| {
        async move |orders: &Handle, node| {
            orders.give(order);
            Some(node)
        }
    };
    check(give(Order::Drain), Closed::gateway(Why::Drain)).await;
    check(give(Order::Age), Closed::gateway(Why::MaxAge)).await;
    check(give(Order::NodeGone), Closed::gateway(Why::NodeGone)).await;
    check(give(Order::Deadline), Closed::gateway(Why::DrainDeadline)).await;
    let node_ends = async |_: &Handle, node| {
        drop::<TcpStream>(node);
        None
    };
    check(node_ends, Closed::node(Why::Eof)).await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_has_ended_and_one_that_reads_nothing_are_not_waited_for_for_ever() {
    let Ends { relay, mut client, mut node, shared, .. } = relay_that_tells_late().await;
    let relay = tokio::spawn(relay);
    ask(&mut client, &mut node).await;
    client.shutdown().await.unwrap();
    heard(&mut client, &created(1)).await;
    counted(&shared, "late");
    assert_eq!(ended(relay).await.unwrap(), Closed::client(Why::HalfClosedTimeout));
    // One that reads nothing keeps what it is owed, and the change behind it.
    let Ends { relay, mut client, mut node, shared, orders } = relay_that_tells_late().await;
    let relay = tokio::spawn(relay);
    ask(&mut client, &mut node).await;
    let long = frame(0x84, Opcode(0x42), 3, 1 << 20);
    let writes = tokio::spawn(async move {
        for _ in 0..100 {
            if node.write_all(&long).await.is_err() {
                break;
            }
        }
        node
    });
    tokio::time::sleep(10 * PATIENCE).await;
    counted(&shared, "late");
    assert!(!relay.is_finished());
    orders.give(Order::Unread);
    assert_eq!(ended(relay).await.unwrap(), Closed::client(Why::Unread));
    assert_eq!(shared.budget.held(), 0);
    drop(writes);
}

#[tokio::test]
async fn it_has_a_place_between_two_frames_that_follow_one_another_closely() {
    let Ends { relay, mut client, mut node, shared, .. } = relay_that_tells_late().await;
    let relay = tokio::spawn(relay);
    ask(&mut client, &mut node).await;
    // What the node has sent never ends where a frame does.
    let long = frame(0x84, Opcode(0x42), 3, 100_003);
    let (begun, rest) = long.split_at(50_000);
    node.write_all(begun).await.unwrap();
    heard(&mut client, begun).await;
    shared.agreement.agreed(shared.agreement.last());
    while shared.metrics.render().unwrap().matches("outcome=\"agreed\"").count() == 0 {
        tokio::task::yield_now().await;
    }
    let bytes = [rest, begun].concat().repeat(10);
    let writes = tokio::spawn(async move { while node.write_all(&bytes).await.is_ok() {} });
    heard(&mut client, rest).await;
    // The first place there is: no frame that came behind it is told before.
    heard(&mut client, &created(1)).await;
    heard(&mut client, begun).await;
    drop(client);
    ended(relay).await.unwrap();
    ended(writes).await.unwrap();
}
