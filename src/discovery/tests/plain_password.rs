//! To whom the gateway's own password goes over plain TCP.

use super::dns::NameServer;
use super::node::{Collector, FakeNode, Ring, ring};
use super::*;
use crate::cql::frame::Opcode;

pub const PASSWORD: &str = "hunter2";

/// `probe:` with a login, and `keys`.
pub fn probe(file: &tempfile::NamedTempFile, keys: &str) -> String {
    std::fs::write(file.path(), PASSWORD).unwrap();
    let login = format!("username: cqlgate, password_file: {}", file.path().display());
    format!("probe: {{{login}, {keys}interval: 50ms, silence: 2s}}\n")
}

/// A ring whose nodes ask for that login.
pub fn guarded(addresses: &[SocketAddr]) -> Ring {
    let mut ring = ring(addresses);
    ring.login = Some(("cqlgate".to_owned(), PASSWORD.to_owned()));
    ring
}

impl Running {
    /// Waits until the login is withheld from so many nodes, as `/readyz` would say.
    pub async fn until_withheld(&self, rule: &str, count: usize) {
        let so = || {
            let said = self.readiness.degradations();
            said.iter().filter(|(line, _)| line.contains(rule)).map(|(_, count)| count).sum::<usize>() == count
        };
        until(so, || format!("{count} of {rule}: {:?}", self.readiness.degradations())).await;
    }
}

/// Waits until whoever collects passwords has asked for one, twice; it has none.
pub async fn until_asked_in_vain(collector: &Collector) {
    until(|| collector.seen(Opcode::STARTUP) > 0, || "it was not dialled".to_owned()).await;
    let asked = collector.seen(Opcode::OPTIONS);
    until(|| collector.seen(Opcode::OPTIONS) > asked + 1, || "it is asked no more".to_owned()).await;
    assert_eq!(collector.seen(Opcode::AUTH_RESPONSE), 0);
    assert!(!collector.text().contains(PASSWORD));
}

#[tokio::test]
async fn nodes_that_the_file_lists_are_logged_in_to_unless_it_says_never() {
    let here = address("127.38.1.1:9742");
    let _node = FakeNode::start(&guarded(&[here]), here).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    let nodes = format!("discovery: {{nodes: [{{name: a, address: \"{here}\"}}]}}\n");
    let mut running = start(&(probe(&file, "") + &nodes));
    assert!(running.until_state(9042, NodeState::Up).await.host_id.is_some());
    assert_eq!(running.readiness.degradations(), []);
    let mut running = start(&(probe(&file, "plain_password: never, ") + &nodes));
    assert_eq!(running.until_state(9042, NodeState::Up).await.host_id, None);
    running.until_ready().await;
    running.until_withheld("probe.plain_password is never", 1).await;
    running.until_metric("cqlgate_dial_failures_total{node=\"a\",reason=\"login\"} 1").await;
}

#[tokio::test]
async fn what_only_rows_tell_of_is_sent_no_password_and_served_all_the_same() {
    let addresses = ["127.38.2.1:9742", "127.38.2.2:9742"].map(address);
    let ring = guarded(&addresses);
    let first = FakeNode::start(&ring, addresses[0]).await;
    let collector = Collector::start(addresses[1]).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    let point = format!("discovery: {{contact_points: [\"{}\"]}}\n", addresses[0]);
    let mut running = start(&(probe(&file, "") + &point));
    running.until_state(9042, NodeState::Up).await;
    running.until_state(9043, NodeState::Up).await;
    running.until_ready().await;
    running.until_withheld("probe.plain_password: listed", 1).await;
    // With the node of the control connection gone the other one is asked, and it is no way to the password.
    drop(first);
    running.until_state(9042, NodeState::Down).await;
    until_asked_in_vain(&collector).await;
    let _first = FakeNode::start(&ring, addresses[0]).await;
    running.until_state(9042, NodeState::Up).await;
    let relists = running.metrics.discovery_relists.get();
    until(|| running.metrics.discovery_relists.get() > relists, || "no control connection".to_owned()).await;
    assert!(!collector.text().contains(PASSWORD));
    // Where the file says so it is as before.
    let mut running = start(&(probe(&file, "plain_password: always, ") + &point));
    running.until_state(9042, NodeState::Up).await;
    until(|| collector.text().contains(PASSWORD), || "it is not sent".to_owned()).await;
}

#[tokio::test]
async fn without_a_password_for_any_contact_point_it_says_what_keeps_it() {
    let here = address("127.38.3.1:9742");
    let _node = FakeNode::start(&guarded(&[here]), here).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    let running =
        start(&format!("{}discovery: {{contact_points: [\"{here}\"]}}\n", probe(&file, "plain_password: never, ")));
    let withheld = "the node asks for a login, and probe.plain_password is never: over plain TCP it is sent none";
    running.until_pending(&["discovery", &format!("discovery: {here}: {withheld}")]).await;
}

#[tokio::test]
async fn a_contact_point_that_moves_with_its_name_is_logged_in_to_where_it_is_now() {
    let addresses = ["127.38.4.1:9742", "127.38.4.2:9742"].map(address);
    let ring = guarded(&addresses);
    let (first, _second) = (FakeNode::start(&ring, addresses[0]).await, FakeNode::start(&ring, addresses[1]).await);
    let server = NameServer::start().await;
    server.set("c.test", &[[127, 38, 4, 1]]);
    let file = tempfile::NamedTempFile::new().unwrap();
    let text = probe(&file, "") + "discovery: {contact_points: [\"c.test.:9742\"], allow: [127.38.0.0/16]}\n";
    let mut running = start_by(server.names.clone(), &config(&text));
    running.until_state(9043, NodeState::Up).await;
    running.until_withheld("probe.plain_password: listed", 1).await;
    server.set("c.test", &[[127, 38, 4, 1], [127, 38, 4, 2]]);
    first.send_event(crate::cql::message::NodeChange::Up, addresses[1]);
    running.until_withheld("probe.plain_password: listed", 0).await;
}

#[tokio::test]
async fn what_the_name_of_the_file_leads_to_is_listed() {
    let here = address("127.38.5.1:9742");
    let _node = FakeNode::start(&guarded(&[here]), here).await;
    let server = NameServer::start().await;
    server.set("c-0.c.db.svc.test", &[[127, 38, 5, 1]]);
    server.serve("_cql._tcp.c.db.svc.test", &[("c-0.c.db.svc.test", 9742)]);
    let file = tempfile::NamedTempFile::new().unwrap();
    let text = probe(&file, "") + "discovery: {dns: c.db.svc.test., allow: [127.38.0.0/16]}\n";
    let mut running = start_by(server.names.clone(), &config(&text));
    assert!(running.until_state(9042, NodeState::Up).await.host_id.is_some());
}
