//! The demo's node as discovery meets it: a ring whose members listen, or do not, at addresses of a test's choice.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::broadcast;
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

use crate::config::ClientTls;
use crate::cql::frame::{Flags, HEADER_LEN, Header, Opcode, Version, encode_frame};
use crate::cql::message::{Event, NodeChange, error_code};
use crate::demo::node::{Arrival, Facts, Member, Node, Seen};
use crate::proxy::tls::ClientAcceptor;

/// What all nodes of a test share. A node answers by what is here at that moment.
pub struct Ring {
    pub facts: Facts,
    /// `Some`: nodes that start from now on need a login, with this user and password.
    pub login: Option<(String, String)>,
}

pub fn ring(addresses: &[SocketAddr]) -> Ring {
    let members = addresses.iter().zip(1u128..).map(|(&address, n)| member(n, address));
    Ring { facts: Facts::new(members.collect()), login: None }
}

pub fn member(n: u128, address: SocketAddr) -> Member {
    Member {
        host_id: Uuid::from_u128(n),
        address,
        data_center: "dc1".to_owned(),
        rack: "rack1".to_owned(),
        token: n as i64,
        member: true,
        cluster_name: None,
        blind_to: Vec::new(),
    }
}

/// A listening member of a ring; dropping it closes the port and every connection.
pub struct FakeNode {
    node: Node,
    arrivals: Mutex<(broadcast::Receiver<Arrival>, Vec<Version>)>,
}

impl FakeNode {
    pub async fn start(ring: &Ring, address: SocketAddr) -> Self {
        Self::listen(ring, address, None).await
    }

    pub async fn start_tls(ring: &Ring, address: SocketAddr, tls: ClientAcceptor) -> Self {
        Self::listen(ring, address, Some(tls)).await
    }

    async fn listen(ring: &Ring, address: SocketAddr, tls: Option<ClientAcceptor>) -> Self {
        let index = ring.facts.lock().members.iter().position(|member| member.address == address).unwrap();
        let (seen, arrivals) = broadcast::channel(1024);
        let node = Node::new(index, ring.facts.clone(), ring.login.clone(), tls, seen);
        node.accept(bind(address).await);
        Self { node, arrivals: Mutex::new((arrivals, Vec::new())) }
    }

    /// The versions of the STARTUPs since the start, one for each connection.
    pub fn connected(&self) -> Vec<Version> {
        let (arrivals, versions) = &mut *self.arrivals.lock().unwrap();
        while let Ok(arrival) = arrivals.try_recv() {
            versions.extend(match arrival.seen {
                Seen::Connected { protocol, .. } => Some(protocol),
                _ => None,
            });
        }
        versions.clone()
    }

    /// Sends an EVENT to whoever registered.
    pub fn send_event(&self, change: NodeChange, address: SocketAddr) {
        self.node.push(&Event::Node { change, address });
    }
}

/// And the verbs of its life.
impl std::ops::Deref for FakeNode {
    type Target = Node;

    fn deref(&self) -> &Node {
        &self.node
    }
}

type Frames = Arc<Mutex<Vec<(Opcode, Vec<u8>)>>>;

/// Whoever wants passwords: it asks each connection for a login, and keeps what it is sent.
pub struct Collector {
    frames: Frames,
    _listening: AbortOnDropHandle<()>,
}

impl Collector {
    pub async fn start(address: SocketAddr) -> Self {
        let success = (Opcode::AUTH_SUCCESS, (-1i32).to_be_bytes().to_vec());
        Self::answering(address, [authenticate("PasswordAuthenticator"), success]).await
    }

    /// Knows nobody by a certificate; `asks` for a login before it says so.
    pub async fn knowing_nobody(address: SocketAddr, asks: bool) -> Self {
        let refused = (Opcode::ERROR, [&error_code::BAD_CREDENTIALS.to_be_bytes()[..], &string("nobody")].concat());
        let to_startup = if asks { authenticate("MutualTlsAuthenticator") } else { refused.clone() };
        Self::answering(address, [to_startup, refused]).await
    }

    /// What it says to STARTUP, and to a login.
    async fn answering(address: SocketAddr, answers: [(Opcode, Vec<u8>); 2]) -> Self {
        let frames = Frames::default();
        let (listener, kept) = (bind(address).await, Arc::clone(&frames));
        let listening = async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(collect(stream, Arc::clone(&kept), answers.clone()));
            }
        };
        Self { frames, _listening: AbortOnDropHandle::new(tokio::spawn(listening)) }
    }

    /// How many frames of this opcode have come.
    pub fn seen(&self, opcode: Opcode) -> usize {
        self.frames.lock().unwrap().iter().filter(|(of, _)| *of == opcode).count()
    }

    /// Everything that it was sent.
    pub fn text(&self) -> String {
        self.frames.lock().unwrap().iter().map(|(_, body)| String::from_utf8_lossy(body).into_owned()).collect()
    }
}

/// A certificate for this host that is its own issuer, and its key, in files of this name.
pub fn self_signed(folder: &Path, name: &str, host: &str) -> ClientTls {
    let made = rcgen::generate_simple_self_signed([host.to_owned()]).unwrap();
    let write = |kind: &str, text: String| {
        let path = folder.join(format!("{name}.{kind}"));
        std::fs::write(&path, text).unwrap();
        path
    };
    ClientTls::new(write("crt", made.cert.pem()), write("key", made.signing_key.serialize_pem()))
}

/// A `[string]`.
fn string(text: &str) -> Vec<u8> {
    [&(text.len() as u16).to_be_bytes()[..], text.as_bytes()].concat()
}

fn authenticate(class: &str) -> (Opcode, Vec<u8>) {
    (Opcode::AUTHENTICATE, string(&format!("org.apache.cassandra.auth.{class}")))
}

async fn collect(mut stream: TcpStream, kept: Frames, answers: [(Opcode, Vec<u8>); 2]) -> std::io::Result<()> {
    let [to_startup, to_login] = answers;
    loop {
        let mut head = [0; HEADER_LEN];
        stream.read_exact(&mut head).await?;
        let header = Header::peek(&head).unwrap();
        let mut body = vec![0; header.length as usize];
        stream.read_exact(&mut body).await?;
        kept.lock().unwrap().push((header.opcode, body));
        let (opcode, body) = match header.opcode {
            Opcode::OPTIONS => (Opcode::SUPPORTED, vec![0, 0]),
            Opcode::STARTUP => to_startup.clone(),
            _ => to_login.clone(),
        };
        let header = Header { version: header.version | 0x80, flags: Flags::default(), opcode, ..header };
        stream.write_all(&encode_frame(header, &body)).await?;
    }
}

/// The address may still be held by the node that was dropped a moment ago.
async fn bind(address: SocketAddr) -> TcpListener {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(5);
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => return listener,
            Err(error) => assert!(tokio::time::Instant::now() < deadline, "{address}: {error}"),
        }
        tokio::task::yield_now().await;
    }
}
