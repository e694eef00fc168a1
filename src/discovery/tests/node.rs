//! A scripted node, or a ring of them: answers what discovery asks, as real nodes were seen to, and misbehaves on demand.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::{broadcast, watch};
use tokio::task::{AbortHandle, JoinSet};
use uuid::Uuid;

use crate::cql::frame::{EVENT_STREAM, Flags, HEADER_LEN, Header, Opcode, encode_frame};
use crate::cql::message::{Error, Event, NodeChange, encode_plain_auth_response, error_code};
use crate::cql::primitives::{Reader, Value, Writer, inet_cell_bytes};
use crate::cql::rows::type_id;
use tokio::io::{AsyncRead, AsyncWrite};

/// Plain, or over TLS.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}
use crate::proxy::tls::ClientAcceptor;

/// One node as the ring knows it.
#[derive(Clone, Debug)]
pub struct Member {
    pub host_id: Uuid,
    pub address: SocketAddr,
    pub cluster_name: String,
    /// Members (by host_id) whose rows its peers do not show.
    pub blind_to: Vec<Uuid>,
}

/// What all nodes of a test share. A node answers by what is here at that moment.
#[derive(Debug, Default)]
pub struct Ring {
    pub members: Vec<Member>,
    /// `Some`: a login is needed, with this user and password.
    pub login: Option<(String, String)>,
    /// Has `peers_v2` (4.0 and later).
    pub peers_v2: bool,
    /// Versions above this are refused.
    pub newest: u8,
}

pub type SharedRing = Arc<Mutex<Ring>>;

pub fn ring(addresses: &[SocketAddr]) -> SharedRing {
    let members = addresses.iter().zip(1u128..).map(|(&address, n)| member(n, address));
    Arc::new(Mutex::new(Ring { members: members.collect(), login: None, peers_v2: true, newest: 5 }))
}

pub fn member(n: u128, address: SocketAddr) -> Member {
    Member { host_id: Uuid::from_u128(n), address, cluster_name: "test".to_owned(), blind_to: Vec::new() }
}

/// A listening node; dropping it closes the port and every connection.
pub struct FakeNode {
    task: AbortHandle,
    events: broadcast::Sender<Vec<u8>>,
    silent: watch::Sender<bool>,
    connections: Arc<Mutex<Connections>>,
    disabled: watch::Sender<bool>,
}

#[derive(Default)]
struct Connections {
    open: JoinSet<()>,
    accepted: usize,
}

impl FakeNode {
    pub async fn start(ring: &SharedRing, address: SocketAddr) -> Self {
        Self::listen(ring, address, None).await
    }

    pub async fn start_tls(ring: &SharedRing, address: SocketAddr, tls: ClientAcceptor) -> Self {
        Self::listen(ring, address, Some(tls)).await
    }

    async fn listen(ring: &SharedRing, address: SocketAddr, tls: Option<ClientAcceptor>) -> Self {
        let listener = bind(address).await;
        let (events, _) = broadcast::channel(16);
        let (silent, quiet) = watch::channel(false);
        let connections = Arc::<Mutex<Connections>>::default();
        let kept = Arc::clone(&connections);
        let (disabled, stopped) = watch::channel(false);
        let (ring, sender) = (Arc::clone(ring), events.clone());
        let task = tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { return };
                let (ring, events, quiet) = (Arc::clone(&ring), sender.subscribe(), quiet.clone());
                let (tls, stopped) = (tls.clone(), stopped.clone());
                let mut connections = kept.lock().unwrap();
                connections.accepted += 1;
                connections.open.spawn(async move {
                    let stream: Box<dyn Stream> = match tls {
                        None => Box::new(stream),
                        Some(tls) => match tls.accept(stream, &Arc::new(tokio::sync::Semaphore::new(1))).await {
                            Ok(stream) => Box::new(stream),
                            Err(_) => return,
                        },
                    };
                    serve(stream, address, ring, events, quiet, stopped).await;
                });
            }
        });
        Self { task: task.abort_handle(), events, silent, connections, disabled }
    }

    /// Connections since the start.
    pub fn accepted(&self) -> usize {
        self.connections.lock().unwrap().accepted
    }

    /// Closes every connection and goes on listening.
    pub fn drop_connections(&self) {
        self.connections.lock().unwrap().open.abort_all();
    }

    /// `nodetool disablebinary`: stops listening, closes the connections that have sent STARTUP, and no others.
    pub fn disable_binary(&self) {
        self.task.abort();
        self.disabled.send_replace(true);
    }

    /// Accepts, reads and never answers, like a stopped process.
    pub fn set_silent(&self, silent: bool) {
        self.silent.send_replace(silent);
    }

    /// Sends an EVENT to whoever registered.
    pub fn send_event(&self, change: NodeChange, address: SocketAddr) {
        let _ = self.events.send(Event::Node { change, address }.encode());
    }
}

impl Drop for FakeNode {
    fn drop(&mut self) {
        self.task.abort();
        self.drop_connections();
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

async fn serve(
    mut stream: Box<dyn Stream>,
    address: SocketAddr,
    ring: SharedRing,
    mut events: broadcast::Receiver<Vec<u8>>,
    mut silent: watch::Receiver<bool>,
    mut stopped: watch::Receiver<bool>,
) {
    let (mut registered, mut started) = (None, false);
    let mut received = BytesMut::new();
    loop {
        let Some(request) = Header::peek(&received).filter(|head| head.frame_len() <= received.len() as u64) else {
            tokio::select! {
                event = events.recv(), if registered.is_some() => {
                    let header = Header { stream: EVENT_STREAM, opcode: Opcode::EVENT, ..registered.unwrap() };
                    let _ = stream.write_all(&encode_frame(header, &event.unwrap())).await;
                }
                () = async { _ = stopped.wait_for(|stopped| *stopped).await }, if started => return,
                read = stream.read_buf(&mut received) => if read.unwrap_or(0) == 0 {
                    return;
                },
            }
            continue;
        };
        let body = received.split_to(HEADER_LEN + request.length as usize).split_off(HEADER_LEN);
        if silent.wait_for(|silent| !silent).await.is_err() {
            return;
        }
        let (opcode, answer) = answer(&ring.lock().unwrap(), address, request, &body);
        let version = request.version.min(ring.lock().unwrap().newest) | 0x80;
        let header = Header { version, flags: Flags::default(), opcode, ..request };
        started |= request.opcode == Opcode::STARTUP;
        if request.opcode == Opcode::REGISTER {
            registered = Some(header);
        }
        if stream.write_all(&encode_frame(header, &answer)).await.is_err() {
            return;
        }
    }
}

fn answer(ring: &Ring, address: SocketAddr, request: Header, body: &[u8]) -> (Opcode, Vec<u8>) {
    let error = |code, message| (Opcode::ERROR, Error { code, message }.encode());
    if request.version > ring.newest {
        return error(error_code::PROTOCOL_ERROR, "Invalid or unsupported protocol version");
    }
    match request.opcode {
        Opcode::OPTIONS => (Opcode::SUPPORTED, vec![0, 0]),
        Opcode::STARTUP if ring.login.is_some() => {
            let mut body = Vec::new();
            Writer::new(&mut body).string("org.apache.cassandra.auth.PasswordAuthenticator");
            (Opcode::AUTHENTICATE, body)
        }
        Opcode::STARTUP | Opcode::REGISTER => (Opcode::READY, Vec::new()),
        Opcode::AUTH_RESPONSE => match &ring.login {
            Some((user, password)) if body == encode_plain_auth_response(user, password) => {
                (Opcode::AUTH_SUCCESS, vec![0xff; 4])
            }
            _ => error(0x0100, "Provided username and/or password are incorrect"),
        },
        Opcode::QUERY => {
            let text = Reader::new(body).long_string("text").unwrap();
            let text = std::str::from_utf8(text).unwrap();
            let me = ring.members.iter().find(|member| member.address == address);
            let Some(me) = me else { return error(error_code::SERVER_ERROR, "not a member") };
            let peers = ring.members.iter().filter(|m| m.host_id != me.host_id && !me.blind_to.contains(&m.host_id));
            match text.split_whitespace().find(|word| word.starts_with("system.")) {
                Some("system.local") => (Opcode::RESULT, rows("local", "rpc_address", Some("rpc_port"), &[me])),
                Some("system.peers_v2") if ring.peers_v2 => {
                    let peers: Vec<_> = peers.collect();
                    (Opcode::RESULT, rows("peers_v2", "native_address", Some("native_port"), &peers))
                }
                Some("system.peers") => {
                    (Opcode::RESULT, rows("peers", "rpc_address", None, &peers.collect::<Vec<_>>()))
                }
                _ => error(error_code::INVALID, "unconfigured table peers_v2"),
            }
        }
        _ => error(error_code::PROTOCOL_ERROR, "not in the script"),
    }
}

fn rows(table: &str, address: &str, port: Option<&str>, members: &[&Member]) -> Vec<u8> {
    let mut columns = vec![("host_id", type_id::UUID), (address, type_id::INET)];
    columns.extend(["data_center", "rack", "cluster_name"].map(|column| (column, type_id::VARCHAR)));
    columns.extend(port.map(|port| (port, type_id::INT)));
    let mut body = Vec::new();
    let mut writer = Writer::new(&mut body);
    writer.i32(2).i32(1).i32(columns.len() as i32).string("system").string(table);
    for (name, column_type) in columns {
        writer.string(name).u16(column_type);
    }
    writer.i32(members.len() as i32);
    for member in members {
        let ip: IpAddr = member.address.ip();
        writer.value(Value::Bytes(member.host_id.as_bytes())).value(Value::Bytes(inet_cell_bytes(ip).as_ref()));
        for text in ["dc1", "rack1", &member.cluster_name] {
            writer.value(Value::Bytes(text.as_bytes()));
        }
        if port.is_some() {
            writer.value(Value::Bytes(&i32::from(member.address.port()).to_be_bytes()));
        }
    }
    body
}
