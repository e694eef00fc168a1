//! What a stranger's request claims to hold and does not: nodes of Cassandra 4.1 end of it, so it never reaches one.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use cqlgate::config::{Config, Discovery};
use cqlgate::cql::frame::{Flags, HEADER_LEN, Header, Opcode, Version, encode_frame};
use cqlgate::cql::message::request::{self, flag};
use cqlgate::cql::message::{encode_plain_auth_response, encode_startup, error_code};
use cqlgate::demo::node::Options;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::client::{Client, DIALECTS, PATIENCE, error};
use crate::gate::Gate;

/// Bytes that are found again in what a node was sent.
const MARK: &[u8] = &[0xc1, 0xa1, 0x4d, 0x5e];

/// Stands before a node and keeps what is sent to it.
#[derive(Clone, Default)]
struct Record(Arc<Mutex<Vec<u8>>>);

impl Record {
    /// Takes the place of the only node that is listed.
    fn stand_before(&self, config: &mut Config) {
        let Discovery::Nodes(nodes) = &mut config.discovery else { panic!("a list") };
        let address = &mut nodes[0].address;
        let node = address.to_string();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        *address = listener.local_addr().unwrap().to_string().parse().unwrap();
        let (listener, record) = (TcpListener::from_std(listener).unwrap(), self.clone());
        tokio::spawn(async move {
            while let Ok((gateway, _)) = listener.accept().await {
                tokio::spawn(record.clone().relay(gateway, TcpStream::connect(&node).await.unwrap()));
            }
        });
    }

    async fn relay(self, gateway: TcpStream, node: TcpStream) -> std::io::Result<()> {
        let (mut requests, mut to_gateway) = gateway.into_split();
        let (mut answers, mut to_node) = node.into_split();
        tokio::spawn(async move { tokio::io::copy(&mut answers, &mut to_gateway).await });
        let mut piece = vec![0; 4096];
        loop {
            let have = requests.read(&mut piece).await?;
            self.0.lock().unwrap().extend_from_slice(&piece[..have]);
            if have == 0 {
                return to_node.shutdown().await;
            }
            to_node.write_all(&piece[..have]).await?;
        }
    }

    fn has(&self, bytes: &[u8]) -> bool {
        self.0.lock().unwrap().windows(bytes.len()).any(|window| window == bytes)
    }
}

/// A node that asks for a password, what it was sent, and its port.
async fn recorded() -> (Gate, Record, SocketAddr) {
    let credentials = Some(("ann".to_owned(), "secret".to_owned()));
    let record = Record::default();
    let options = Options { credentials, ..Options::loopback(1, 0) };
    let gate = Gate::start_changed(options, "", |config| record.stand_before(config)).await;
    let port = gate.running.topology.borrow().nodes[0].port;
    (gate, record, SocketAddr::from(([127, 0, 0, 1], port)))
}

/// A `[bytes]` of which this much is said, and this is there.
fn bytes(says: i32, has: &[u8]) -> Vec<u8> {
    [&says.to_be_bytes(), has].concat()
}

/// A QUERY with one value.
fn query(version: Version, value: &[u8]) -> Vec<u8> {
    let mut body = request::encode_query(version, "SELECT * FROM demo.kv WHERE k = ?");
    *body.last_mut().unwrap() = flag::VALUES;
    [&body, &[0, 1][..], value].concat()
}

#[tokio::test]
async fn before_a_startup_no_claim_reaches_a_node() {
    let (_gate, record, port) = recorded().await;
    let claim = bytes(i32::MAX, MARK);
    let payload = |message: &[u8]| [&[0, 1, 0, 1, b'a'], &claim[..], message].concat();
    for version in [Version::V3, Version::V4, Version::V5] {
        for (opcode, flags, body) in [
            (Opcode::STARTUP, Flags::CUSTOM_PAYLOAD, payload(&encode_startup(&[("CQL_VERSION", "3.0.0")]))),
            (Opcode::OPTIONS, Flags::CUSTOM_PAYLOAD, payload(&[])),
            (Opcode::AUTH_RESPONSE, 0, claim.clone()),
            (Opcode::QUERY, 0, query(version, &claim)),
        ] {
            let mut stranger = TcpStream::connect(port).await.unwrap();
            let header = Header { version: version.number(), flags: Flags(flags), stream: 7, opcode, length: 0 };
            stranger.write_all(&encode_frame(header, &body)).await.unwrap();
            let mut answer = Vec::new();
            timeout(PATIENCE, stranger.read_to_end(&mut answer)).await.unwrap().unwrap();
            let told = Header::peek(&answer).unwrap();
            assert_eq!((told.opcode, told.stream, told.version), (Opcode::ERROR, 7, version.number() | 0x80));
            let (code, text) = error(&answer[HEADER_LEN..]);
            assert_eq!(code, error_code::PROTOCOL_ERROR, "{text}");
            assert!(!record.has(MARK), "{opcode:?} in {version:?}");
        }
    }
}

#[tokio::test]
async fn until_the_login_no_claim_reaches_a_node_and_what_fits_does() {
    let (_gate, record, port) = recorded().await;
    let asked = |dialect| async move {
        let mut stranger = Client::dial(port, dialect).await.unwrap();
        assert_eq!(stranger.startup(&[]).await.unwrap().0, Opcode::AUTHENTICATE);
        stranger
    };
    let claim = bytes(i32::MAX, MARK);
    for dialect in DIALECTS {
        let statement = [&[0, 0, 1, 0][..], &bytes(1, b"x"), &[0, 1], &claim].concat();
        for (opcode, body) in [
            (Opcode::AUTH_RESPONSE, claim.clone()),
            (Opcode::QUERY, query(dialect.0, &claim)),
            (Opcode::PREPARE, claim.clone()),
            (Opcode::BATCH, statement),
        ] {
            let mut stranger = asked(dialect).await;
            let (answered, body) = stranger.ask(opcode, &body).await.unwrap();
            assert_eq!((answered, error(&body).0), (Opcode::ERROR, error_code::PROTOCOL_ERROR), "{dialect:?}");
            assert_ne!(stranger.end().await, std::io::ErrorKind::TimedOut);
            assert!(!record.has(MARK), "{opcode:?} in {dialect:?}");
        }
    }
    for dialect in DIALECTS {
        record.0.lock().unwrap().clear();
        let (_, body) = asked(dialect).await.ask(Opcode::QUERY, &query(dialect.0, &bytes(4, MARK))).await.unwrap();
        assert_eq!(error(&body).1, "Unexpected message QUERY, expecting AUTH_RESPONSE", "{dialect:?}");
        assert!(record.has(MARK), "{dialect:?}");
        let mut user = asked(dialect).await;
        let answer = user.ask(Opcode::AUTH_RESPONSE, &encode_plain_auth_response("ann", "secret")).await.unwrap();
        assert_eq!(answer.0, Opcode::AUTH_SUCCESS, "{dialect:?}");
    }
}
