//! Names, with a scripted name server.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, Ordering};

use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use tokio::net::UdpSocket;
use tokio::task::AbortHandle;

use super::super::resolve::{Addresses, ResolveError};
use super::node::{FakeNode, ring};
use super::*;
use crate::topology::{Hidden, HiddenReason, NodeId};

#[derive(Default)]
struct Zone {
    addresses: HashMap<&'static str, Vec<Ipv4Addr>>,
    services: HashMap<&'static str, Vec<(&'static str, u16)>>,
}

/// Answers A and SRV by what is in `zone`, with TTL 0 unless another is set; what is not there does not exist. Of a name with no address it
/// says nothing.
pub(super) struct NameServer {
    zone: Arc<Mutex<Zone>>,
    /// In seconds.
    ttl: Arc<AtomicU8>,
    /// The names of all questions so far, of both families.
    asked: Arc<Mutex<Vec<String>>>,
    pub names: Names,
    task: AbortHandle,
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl NameServer {
    pub async fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let server = socket.local_addr().unwrap();
        let zone = Arc::<Mutex<Zone>>::default();
        let (ttl, asked) = (Arc::<AtomicU8>::default(), Arc::<Mutex<Vec<String>>>::default());
        let (shared, valid, log) = (Arc::clone(&zone), Arc::clone(&ttl), Arc::clone(&asked));
        let task = tokio::spawn(async move {
            let mut query = [0; 512];
            loop {
                let (length, from) = socket.recv_from(&mut query).await.unwrap();
                let name = name(&query);
                log.lock().unwrap().push(name.clone());
                let ttl = valid.load(Ordering::Relaxed);
                if let Some(reply) = reply(&query[..length], &name, &shared.lock().unwrap(), ttl) {
                    let _ = socket.try_send_to(&reply, from);
                }
            }
        });
        let mut connection = ConnectionConfig::udp();
        connection.port = server.port();
        let server = NameServerConfig::new(server.ip(), true, vec![connection]);
        let names = Names::of(ResolverConfig::from_name_servers(vec![server]));
        Self { zone, ttl, asked, names, task: task.abort_handle() }
    }

    pub fn set_ttl(&self, seconds: u8) {
        self.ttl.store(seconds, Ordering::Relaxed);
    }

    /// How often this name was asked for, in both families together.
    pub fn asked(&self, name: &str) -> usize {
        self.asked.lock().unwrap().iter().filter(|asked| *asked == name).count()
    }

    pub fn set(&self, name: &'static str, addresses: &[[u8; 4]]) {
        self.zone.lock().unwrap().addresses.insert(name, addresses.iter().map(|&octets| octets.into()).collect());
    }

    /// The SRV records of a name: targets and ports.
    pub fn serve(&self, name: &'static str, targets: &[(&'static str, u16)]) {
        self.zone.lock().unwrap().services.insert(name, targets.to_vec());
    }
}

/// Of the question, in small letters.
fn name(query: &[u8]) -> String {
    let (mut labels, mut at) = (Vec::new(), 12);
    while query[at] != 0 {
        let end = at + 1 + usize::from(query[at]);
        labels.push(std::str::from_utf8(&query[at + 1..end]).unwrap().to_ascii_lowercase());
        at = end;
    }
    labels.join(".")
}

/// RFC 1035 §4.1: the header, the question as it was, and an answer for each address.
fn reply(query: &[u8], name: &str, zone: &Zone, ttl: u8) -> Option<Vec<u8>> {
    // As long as its text, with a length in place of each dot, one more, and the root.
    let at = 12 + name.len() + 1;
    let question = &query[12..at + 5];
    let asks_a = query[at + 2] == 1;
    if let Some(targets) = zone.services.get(name).filter(|_| query[at + 2] == 33) {
        return Some(services(query, question, targets, ttl));
    }
    let found = zone.addresses.get(name);
    if found.is_some_and(Vec::is_empty) {
        return None;
    }
    let answers = found.filter(|_| asks_a).map_or(&[][..], Vec::as_slice);
    let status = if found.is_some() { 0x80 } else { 0x83 };
    let mut reply = [&query[..2], &[0x81, status, 0, 1, 0, answers.len() as u8, 0, 0, 0, 0], question].concat();
    for address in answers {
        reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, ttl, 0, 4]);
        reply.extend(address.octets());
    }
    Some(reply)
}

/// RFC 2782.
fn services(query: &[u8], question: &[u8], targets: &[(&str, u16)], ttl: u8) -> Vec<u8> {
    let mut reply = [&query[..2], &[0x81, 0x80, 0, 1, 0, targets.len() as u8, 0, 0, 0, 0], question].concat();
    for (target, port) in targets {
        let name: Vec<u8> =
            target.split('.').flat_map(|label| [&[label.len() as u8], label.as_bytes()].concat()).collect();
        reply.extend([0xc0, 12, 0, 33, 0, 1, 0, 0, 0, ttl, 0, name.len() as u8 + 7, 0, 0, 0, 1]);
        reply.extend([&port.to_be_bytes()[..], &name, &[0]].concat());
    }
    reply
}

#[tokio::test]
async fn a_listed_name_is_looked_up_again_when_it_cannot_be_dialled() {
    let [old, new] = ["127.33.1.1:9742", "127.33.1.2:9742"].map(address);
    let ring = ring(&[old]);
    let node = FakeNode::start(&ring, old).await;
    let server = NameServer::start().await;
    server.set("c0.test", &[[127, 33, 1, 1]]);
    let text = "probe: {interval: 50ms}\ndiscovery: {nodes: [{name: c0, address: \"c0.test:9742\"}]}\n";
    let mut running = start_by(server.names.clone(), &config(text));
    let before = running.until_state(9042, NodeState::Up).await;
    assert_eq!(before.address, old);
    drop(node);
    running.until_state(9042, NodeState::Down).await;
    ring.facts.lock().members[0].address = new;
    let _moved = FakeNode::start(&ring, new).await;
    server.set("c0.test", &[[127, 33, 1, 2]]);
    let after = running.until_state(9042, NodeState::Up).await;
    assert_eq!((after.address, after.host_id), (new, before.host_id));
    assert!(after.incarnation > before.incarnation);
}

#[tokio::test]
async fn the_advertised_name_is_its_lowest_address_and_follows_it() {
    let server = NameServer::start().await;
    server.set("gate.test", &[[203, 0, 113, 9], [203, 0, 113, 7]]);
    let mut config = config("discovery: {nodes: [{name: n0, address: \"127.33.2.1:9742\"}]}\n");
    config.paths = crate::config::advertise::Path::everywhere(crate::config::External::Name("gate.test".to_owned()));
    let mut running = start_by(server.names.clone(), &config);
    let is = |octets: [u8; 4]| move |topology: &Topology| topology.paths.only_address().ipv4 == Some(octets.into());
    running.until("the lowest", is([203, 0, 113, 7])).await;
    running.until_ready().await;
    assert_eq!(running.metrics.advertised_changes.get(), 0);
    server.set("gate.test", &[[203, 0, 113, 9], [203, 0, 113, 8]]);
    running.until("the next", is([203, 0, 113, 8])).await;
    assert_eq!(running.metrics.advertised_changes.get(), 1);
}

#[tokio::test]
async fn an_advertised_name_without_address_keeps_the_gateway_from_being_ready() {
    let server = NameServer::start().await;
    let mut config = config("discovery: {nodes: [{name: n0, address: \"127.33.3.1:9742\"}]}\n");
    config.paths = crate::config::advertise::Path::everywhere(crate::config::External::Name("gate.test".to_owned()));
    let mut running = start_by(server.names.clone(), &config);
    running.until("the list", |topology| !topology.nodes.is_empty()).await;
    assert!(running.readiness.pending_names().contains(&Arc::from("advertised address")));
    server.set("gate.test", &[[203, 0, 113, 7]]);
    running.until_ready().await;
}

/// Whoever asks has a reason.
#[tokio::test]
async fn no_answer_is_kept_whatever_its_ttl() {
    let server = NameServer::start().await;
    server.set_ttl(60);
    for last in [1, 2] {
        server.set("moves.test", &[[127, 33, 5, last]]);
        let (found, _) = server.names.clone().lookup("moves.test.", &Addresses::default()).await.unwrap();
        assert_eq!(found.ipv4, [Ipv4Addr::new(127, 33, 5, last)]);
        assert_eq!(server.asked("moves.test"), 2 * usize::from(last));
    }
}

#[tokio::test]
async fn names_that_do_not_exist_or_have_no_address_are_errors() {
    let server = NameServer::start().await;
    let error = server.names.lookup("nothing.test", &Addresses::default()).await.unwrap_err();
    assert!(matches!(&error, ResolveError::Failed { host, .. } if host == "nothing.test"), "{error}");
    server.set("silent.test", &[]);
    let error = server.names.lookup("silent.test", &Addresses::default()).await.unwrap_err();
    assert_eq!(error, ResolveError::Timeout { host: "silent.test".to_owned() });
}

#[tokio::test]
async fn a_listed_name_without_address_keeps_the_gateway_from_being_ready_only_until_it_was_tried() {
    let here = address("127.33.4.1:9742");
    let ring = ring(&[here]);
    let _node = FakeNode::start(&ring, here).await;
    let server = NameServer::start().await;
    let lost = "{name: lost, address: \"lost.test:9742\"}";
    let text = format!("discovery: {{nodes: [{{name: n0, address: \"{here}\"}}, {lost}]}}\n");
    let mut running = start_by(server.names.clone(), &config(&text));
    running.until_state(9042, NodeState::Up).await;
    running.until_ready().await;
    let hidden = |id: &str| {
        let (id, reason) = (Some(NodeId::new(id)), HiddenReason::NotResolved);
        vec![Hidden { id, host_id: None, address: None, reason }]
    };
    assert!(running.handle.topology.borrow().node_at_port(9043).is_none());
    assert_eq!(running.handle.topology.borrow().hidden, hidden("lost"));
    running.until_metric("cqlgate_dial_failures_total{node=\"lost\",reason=\"dns\"}").await;
    server.set("lost.test", &[[127, 33, 4, 2]]);
    let found = running.until("the lost node", |topology| topology.node_at_port(9043).is_some()).await;
    assert_eq!(found.hidden, []);
}

#[tokio::test]
async fn a_contact_point_without_an_address_is_named_and_counted() {
    let server = NameServer::start().await;
    let text = "discovery: {contact_points: [\"nowhere.test:9742\"]}\n";
    let running = start_by(server.names.clone(), &config(text));
    running.until_pending(&["discovery", "discovery: nowhere.test: Non-Existent Domain"]).await;
    running.until_metric("cqlgate_contact_point_failures_total{reason=\"dns\"}").await;
    server.set("nowhere.test", &[[127, 33, 5, 1]]);
    running.until_pending(&["discovery", "discovery: 127.33.5.1:9742: connection refused"]).await;
}
