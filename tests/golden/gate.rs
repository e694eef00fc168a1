//! The relay without sockets: what a recorded client and a recorded node say goes in, in any pieces, and what each of them
//! would have received comes out.
//!
//! Include `golden.rs` as `mod golden` beside it.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use cqlgate::config::External;
use cqlgate::config::advertise::{DialledPort, Part, Path, Told};
use cqlgate::cql::message::NodeChange;
use cqlgate::cql::segment::MAX_PAYLOAD;
use cqlgate::rewrite::conversation::{Client, EventAction, EventKind, Fact};
use cqlgate::rewrite::handshake::{Handshake, Next};
use cqlgate::rewrite::view::drivers::Injection;
use cqlgate::rewrite::view::{NodePorts, View};
use cqlgate::rewrite::{Conversation, Step, Surroundings, Then, Work};
use cqlgate::topology::{Family, HostId, Node, NodeState, Paths, Topology};

use super::golden::{Conversation as Golden, Exchange, Side};

/// The external address.
pub const ADVERTISED: &str = "203.0.113.10";

/// The port that stands for a recorded node.
pub fn port(number: usize) -> u16 {
    9041 + u16::try_from(number).unwrap_or_default()
}

/// What clients of three paths dial: ports of one address, an address for each node, the nodes' own.
pub fn paths() -> Paths {
    let each = |number| {
        let at = port(number);
        Part::new(at, at, External::ip(each_address(number).into()), DialledPort::Only(EACH_PORT))
    };
    let [one] = Path::everywhere(External::ip(ADVERTISED.parse().unwrap())).try_into().unwrap();
    let plan = [
        Path::new("each", Told::Ports((1..=9).map(each).collect())),
        Path::new("pods", Told::Pods),
        Path { name: "one".to_owned(), ..one },
    ];
    Paths::of(&plan, &BTreeMap::new(), &Paths::default())
}

/// The port of every node on the path `each`.
pub const EACH_PORT: u16 = 9142;

fn each_address(number: usize) -> Ipv4Addr {
    [198, 51, 100, u8::try_from(number).unwrap_or_default()].into()
}

/// What a client of `path` may dial for a recorded node that lives at `native`.
pub fn endpoint_on(path: &str, number: usize, native: SocketAddr) -> SocketAddr {
    match path {
        "each" => SocketAddr::new(each_address(number).into(), EACH_PORT),
        "pods" => native,
        _ => endpoint(number),
    }
}

/// The recorded ring, every node up.
pub fn topology(golden: &Golden) -> Topology {
    let nodes = golden.nodes.iter().map(|node| Node {
        host_id: node.host_id.parse().ok().map(HostId),
        ..Node::answering(&node.number.to_string(), port(node.number), node.address)
    });
    Topology::new(1, Arc::new(paths()), nodes)
}

/// The recorded exchanges that can be played against a gateway that asks for metadata: an answer without any was given to a
/// request that would not have reached the node like this.
pub fn playable(golden: &Golden) -> Vec<&Exchange> {
    let mut exchanges = Vec::new();
    let mut skipped = false;
    for exchange in &golden.exchanges {
        match exchange.from {
            Side::Client => {
                skipped = exchange.comment.contains(" system.") && exchange.comment.ends_with("with skip_metadata")
            }
            Side::Node => assert!(!skipped || exchange.comment.contains("no-metadata"), "{}", exchange.comment),
        }
        if !skipped {
            exchanges.push(exchange);
        }
    }
    exchanges
}

/// One connection through the gateway.
pub struct Gate {
    pub view: &'static dyn View,
    pub injection: Injection,
    pub path: &'static str,
    attached: u16,
    around: Arc<Surroundings>,
    /// What its probes find: whatever a node says of another is true.
    topology: Arc<Mutex<Arc<Topology>>>,
    /// It is not what the client was told last.
    is_news: bool,
    handshake: Handshake,
    conversation: Option<Conversation>,
    undecided: [Vec<u8>; 2],
    /// How many undecided bytes of each side must be there before it is worth asking.
    need: [usize; 2],
    scratch: Vec<u8>,
    pub to_node: Vec<u8>,
    pub to_client: Vec<u8>,
    /// Why it ended.
    pub ended: Option<String>,
}

impl Gate {
    pub fn new(golden: &Golden, rewriting: bool) -> Self {
        let topology = Arc::new(Mutex::new(Arc::new(topology(golden))));
        let probed = topology.clone();
        Self {
            view: &NodePorts,
            injection: Injection::default(),
            path: "one",
            attached: port(golden.connected),
            around: Arc::new(Surroundings {
                topology: Box::new(move || probed.lock().unwrap().clone()),
                statements: Arc::default(),
                max_body: 256 << 20,
                held_frame: 16 << 20,
                unserved: Default::default(),
                rewriting,
            }),
            topology,
            is_news: false,
            handshake: Handshake::default(),
            conversation: None,
            undecided: [Vec::new(), Vec::new()],
            need: [0, 0],
            scratch: vec![0; MAX_PAYLOAD],
            to_node: Vec::new(),
            to_client: Vec::new(),
            ended: None,
        }
    }

    /// Gives it what `from` wrote, in pieces of `size` bytes.
    pub fn play(&mut self, from: Side, bytes: &[u8], size: usize) {
        for piece in bytes.chunks(size.max(1)) {
            self.undecided[from as usize].extend_from_slice(piece);
            // The client is not read while its STARTUP is unanswered: an answer may set free what it wrote.
            while self.ended.is_none() && (self.advance(Side::Node) | self.advance(Side::Client)) {}
        }
    }

    /// Bytes that neither passed nor were replaced yet.
    pub fn undecided(&self) -> usize {
        self.undecided.iter().map(Vec::len).sum()
    }

    /// One question about one side's bytes; false when nothing more can be decided.
    fn advance(&mut self, from: Side) -> bool {
        let bytes = &self.undecided[from as usize];
        if self.ended.is_some() || bytes.is_empty() || bytes.len() < self.need[from as usize] {
            return false;
        }
        let mut asks_again = false;
        let (consumed, written) = match &mut self.conversation {
            None if from == Side::Client && !self.handshake.reads_client() => return false,
            None => {
                let next = match from {
                    Side::Client => self.handshake.client(bytes),
                    Side::Node => self.handshake.node(bytes),
                };
                match next {
                    Next::Wait { need } => return self.wait(from, need),
                    Next::Forward(len) => (len, bytes[..len].to_vec()),
                    Next::Replace(len, written) => (len, written),
                    Next::Established(len, settled) => {
                        let client = Client {
                            session: settled.session,
                            view: self.view,
                            attached: self.attached,
                            path: self.path.into(),
                            family: Family::Ipv4,
                            injection: self.injection,
                            logged_in: true,
                        };
                        self.conversation = Some(Conversation::new(client, self.around.clone()));
                        (len, bytes[..len].to_vec())
                    }
                    Next::Refuse { why, reply } => {
                        self.to_client.extend(reply);
                        self.ended = Some(format!("{why:?}"));
                        return false;
                    }
                }
            }
            Some(conversation) => {
                let step = match from {
                    Side::Client => conversation.request(bytes, &mut Work::new(&mut self.scratch)),
                    Side::Node => conversation.response(bytes, &mut Work::new(&mut self.scratch)),
                };
                let Step { pass, then } = step;
                let mut written = bytes[..pass].to_vec();
                asks_again = matches!(then, Then::Yield | Then::Login(_));
                match then {
                    Then::Wait { need } if pass == 0 => return self.wait(from, need),
                    Then::Wait { .. } | Then::Yield => (pass, written),
                    Then::Replace { consumed, made } => {
                        written.extend(made);
                        (pass + consumed, written)
                    }
                    Then::Login(_) => {
                        conversation.let_in();
                        (pass, written)
                    }
                    Then::Fail(failure) => {
                        self.to_client.extend(failure.reply.unwrap_or_default());
                        self.ended = Some(format!("{:?}", failure.why));
                        (pass, written)
                    }
                }
            }
        };
        assert!(consumed > 0 || asks_again || self.ended.is_some(), "a step that consumes nothing");
        self.need[from as usize] = 0;
        self.undecided[from as usize].drain(..consumed);
        match from {
            Side::Client => self.to_node.extend(written),
            Side::Node => self.to_client.extend(written),
        }
        self.probe();
        true
    }

    /// Looks for itself where a node says what it does not know, and tells the client. Whoever is said to be up, all are.
    fn probe(&mut self) {
        let Some(conversation) = &mut self.conversation else { return };
        let mut topology = self.topology.lock().unwrap();
        for fact in conversation.take_facts() {
            let (meant, state) = match fact {
                Fact::Doubted { port, .. } => (Some(port), NodeState::Down),
                Fact::Event { kind: EventKind::Node(NodeChange::Up), action: EventAction::Held } => {
                    (None, NodeState::Up)
                }
                _ => continue,
            };
            let nodes = topology.nodes.iter().map(|node| match meant.is_none_or(|port| port == node.port) {
                true => Node { state, ..Node::clone(node) },
                false => Node::clone(node),
            });
            *topology = Arc::new(Topology::new(
                topology.generation + 1,
                Arc::clone(&topology.paths),
                nodes.collect::<Vec<_>>(),
            ));
            self.is_news = true;
        }
        if self.is_news && conversation.responses_at_boundary() {
            self.to_client.extend(conversation.announce(&topology));
            self.is_news = false;
        }
    }

    fn wait(&mut self, from: Side, need: usize) -> bool {
        assert!(need > self.undecided[from as usize].len(), "waits for bytes that are there");
        self.need[from as usize] = need;
        false
    }
}

/// The address that a client may dial for a recorded node.
pub fn endpoint(number: usize) -> SocketAddr {
    SocketAddr::new(IpAddr::from([203, 0, 113, 10]), port(number))
}
