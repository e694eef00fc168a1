//! A simulated node: a valid handshake in v3, v4 and v5, one table `bench.kv`, an answer of one size to every EXECUTE.
//!
//! Not the demo's node (`src/demo`), which parses statements and keeps rows: this one must cost so little that what is
//! measured is what stands in front of it. One thread. It answers a read's requests with one write, as Cassandra does, and in
//! as few v5 segments as they need.
//!
//! usage: node ADDRESS:PORT [ANSWER_BODY_BYTES (200)]
//!
//! On an unspecified address (0.0.0.0) it is as many nodes as there are addresses: each says that it lives where it was
//! dialled, and has a host_id of its own, made of the address's last two bytes.

use std::collections::HashMap;
use std::error::Error;
use std::net::SocketAddr;
use std::rc::Rc;

use cqlgate_compare::connection::Connection;
use cqlgate_compare::wire::{
    Frame, Protocol, Reader, append_frame, append_string, append_wire, opcode, read_string_map,
};
use mio::event::Event;
use mio::net::TcpListener;
use mio::{Events, Interest, Poll, Token};

const STATEMENT_ID: [u8; 16] = *b"bench.kv by key.";
const METADATA_ID: [u8; 16] = *b"bench.kv k and v";
const LISTENER: Token = Token(usize::MAX);

/// Type ids of native_protocol_v4.spec §4.2.5.2; a set is followed by its elements'.
mod types {
    pub const BIGINT: &[u8] = &[0, 0x02];
    pub const BLOB: &[u8] = &[0, 0x03];
    pub const INT: &[u8] = &[0, 0x09];
    pub const UUID: &[u8] = &[0, 0x0c];
    pub const VARCHAR: &[u8] = &[0, 0x0d];
    pub const INET: &[u8] = &[0, 0x10];
    pub const VARCHARS: &[u8] = &[0, 0x22, 0, 0x0d];
}

struct Column {
    name: &'static str,
    kind: &'static [u8],
    value: Vec<u8>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let address: SocketAddr = arguments.next().ok_or("usage: node ADDRESS:PORT [ANSWER_BODY_BYTES]")?.parse()?;
    let answer = arguments.next().map_or(Ok(200), |it| it.parse())?;
    let answers = Rc::new(Answers::new(address, answer));

    let mut poll = Poll::new()?;
    let mut listener = TcpListener::bind(address)?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    println!("listening on {address}");
    let mut clients: HashMap<Token, Client> = HashMap::new();
    let mut events = Events::with_capacity(1024);
    let mut scratch = vec![0; 256 * 1024];
    let mut next = 0;
    loop {
        if let Err(error) = poll.poll(&mut events, None)
            && error.kind() != std::io::ErrorKind::Interrupted
        {
            return Err(error.into());
        }
        for event in &events {
            if event.token() == LISTENER {
                while let Ok((mut socket, _)) = listener.accept() {
                    let both = Interest::READABLE | Interest::WRITABLE;
                    poll.registry().register(&mut socket, Token(next), both)?;
                    let answers = match socket.local_addr() {
                        Ok(dialled) if address.ip().is_unspecified() => Rc::new(Answers::new(dialled, answer)),
                        _ => Rc::clone(&answers),
                    };
                    clients.insert(Token(next), Client::new(Connection::new(socket)?, answers));
                    next += 1;
                }
            } else if let Some(client) = clients.get_mut(&event.token()) {
                match client.step(event, &mut scratch) {
                    Ok(true) => {}
                    Ok(false) => drop(clients.remove(&event.token())),
                    Err(error) => {
                        eprintln!("connection: {error}");
                        clients.remove(&event.token());
                    }
                }
            }
        }
    }
}

struct Client {
    connection: Connection,
    reader: Reader,
    /// How responses go out; requests come in the same way.
    protocol: Protocol,
    answers: Rc<Answers>,
}

impl Client {
    fn new(connection: Connection, answers: Rc<Answers>) -> Self {
        Self { connection, reader: Reader::new(Protocol::V4), protocol: Protocol::V4, answers }
    }

    /// `Ok(false)`: the connection has ended.
    fn step(&mut self, event: &Event, scratch: &mut [u8]) -> Result<bool, Box<dyn Error>> {
        if event.is_writable() {
            self.connection.flush()?;
        }
        if !event.is_readable() {
            return Ok(true);
        }
        let (mut frames, mut out, mut outcome, mut switch) = (Vec::new(), Vec::new(), Ok(()), None);
        let (reader, protocol, answers) = (&mut self.reader, self.protocol, &self.answers);
        let open = self.connection.read(event, scratch, |bytes| {
            frames.clear();
            let fed = reader.feed(bytes, |request| {
                answers.append(&mut frames, &request);
                switch = switch.or_else(|| negotiated(&request));
            });
            append_wire(protocol, &frames, &mut out);
            if fed.is_err() {
                outcome = fed;
            }
        });
        self.connection.write(&out)?;
        // Nothing follows STARTUP before its answer, so a switch between two reads is soon enough.
        if let Some(protocol) = switch {
            self.protocol = protocol;
            self.reader.switch(protocol);
        }
        outcome?;
        // A reset is the ordinary end of a connection.
        Ok(open.unwrap_or(false))
    }
}

/// What a STARTUP asks for, when it changes the shape of what follows.
fn negotiated(request: &Frame<'_>) -> Option<Protocol> {
    if request.opcode != opcode::STARTUP || request.version != 5 {
        return None;
    }
    let compressed = read_string_map(request.body)?.iter().any(|(key, value)| key == "COMPRESSION" && value == "lz4");
    Some(if compressed { Protocol::V5Lz4 } else { Protocol::V5 })
}

struct Answers {
    local: Vec<Column>,
    supported: Vec<u8>,
    rows: Vec<u8>,
    rows_without_metadata: Vec<u8>,
}

impl Answers {
    fn new(address: SocketAddr, body_len: usize) -> Self {
        let text = |text: &str| text.as_bytes().to_vec();
        let ip = match address.ip() {
            std::net::IpAddr::V4(ip) => ip.octets().to_vec(),
            std::net::IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        let host_id = [&b"bench: a host "[..], &ip[ip.len() - 2..]].concat();
        let int = |value: u16| i32::from(value).to_be_bytes().to_vec();
        let column = |name, kind, value| Column { name, kind, value };
        let tokens = [&[0, 0, 0, 1, 0, 0, 0, 1][..], b"0"].concat();
        let local = vec![
            column("key", types::VARCHAR, text("local")),
            column("bootstrapped", types::VARCHAR, text("COMPLETED")),
            column("broadcast_address", types::INET, ip.clone()),
            column("broadcast_port", types::INT, int(7000)),
            column("cluster_name", types::VARCHAR, text("bench")),
            column("cql_version", types::VARCHAR, text("3.4.7")),
            column("data_center", types::VARCHAR, text("dc1")),
            column("host_id", types::UUID, host_id),
            column("listen_address", types::INET, ip.clone()),
            column("native_protocol_version", types::VARCHAR, text("5")),
            column("partitioner", types::VARCHAR, text("org.apache.cassandra.dht.Murmur3Partitioner")),
            column("rack", types::VARCHAR, text("r1")),
            column("release_version", types::VARCHAR, text("5.0.9")),
            column("rpc_address", types::INET, ip),
            column("rpc_port", types::INT, int(address.port())),
            column("schema_version", types::UUID, text("bench: schema 1.")),
            column("tokens", types::VARCHARS, tokens),
        ];
        let mut supported = vec![0, 3];
        for (name, values) in [
            ("CQL_VERSION", &["3.4.7"][..]),
            ("COMPRESSION", &["lz4", "snappy"]),
            ("PROTOCOL_VERSIONS", &["3/v3", "4/v4", "5/v5"]),
        ] {
            append_string(&mut supported, name);
            supported.extend_from_slice(&(values.len() as u16).to_be_bytes());
            values.iter().for_each(|value| append_string(&mut supported, value));
        }
        let answer = |metadata: &[u8]| {
            let mut body = [&[0, 0, 0, 2][..], metadata, &[0, 0, 0, 1], &[0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 1]].concat();
            let value = body_len.saturating_sub(body.len() + 4);
            append_bytes(&mut body, &(0..value).map(|i| (i * 31 % 251) as u8).collect::<Vec<_>>());
            body
        };
        Self {
            local,
            supported,
            rows: answer(&kv_metadata()),
            rows_without_metadata: answer(&[0, 0, 0, 4, 0, 0, 0, 2]),
        }
    }

    fn append(&self, out: &mut Vec<u8>, request: &Frame<'_>) {
        let mut respond = |opcode, body: &[u8]| append_frame(out, request.version | 0x80, request.stream, opcode, body);
        match request.opcode {
            _ if !(3..=5).contains(&request.version) => {
                let mut body = vec![0, 0, 0, 0x0a];
                let version = request.version;
                append_string(&mut body, &format!("Invalid or unsupported protocol version ({version})"));
                append_frame(out, 0x85, request.stream, opcode::ERROR, &body);
            }
            opcode::EXECUTE if skips_metadata(request) => respond(opcode::RESULT, &self.rows_without_metadata),
            opcode::EXECUTE => respond(opcode::RESULT, &self.rows),
            opcode::OPTIONS => respond(opcode::SUPPORTED, &self.supported),
            opcode::STARTUP | opcode::REGISTER => respond(opcode::READY, &[]),
            opcode::PREPARE => respond(opcode::RESULT, &prepared(request.version)),
            opcode::QUERY => respond(opcode::RESULT, &self.system_rows(request.body)),
            _ => {
                let mut body = vec![0, 0, 0, 0x0a];
                append_string(&mut body, "this node answers only what the bench asks");
                respond(opcode::ERROR, &body);
            }
        }
    }

    /// One row of system.local with the columns asked for; of any other table the same columns and no row.
    fn system_rows(&self, query: &[u8]) -> Vec<u8> {
        let text = String::from_utf8_lossy(query.get(4..).unwrap_or_default()).to_lowercase();
        let asked = text.split_once(" from ").map_or("", |(select, _)| select.trim_start_matches("select "));
        let names: Vec<_> = asked.split(',').map(str::trim).collect();
        let columns: Vec<_> = self.local.iter().filter(|it| asked == "*" || names.contains(&it.name)).collect();
        let table = ["local", "peers_v2", "peers"].into_iter().find(|it| text.contains(it)).unwrap_or("local");
        let described: Vec<_> = columns.iter().map(|it| (it.name, it.kind)).collect();
        let mut body = [&[0, 0, 0, 2][..], &metadata("system", table, &described)].concat();
        body.extend_from_slice(&u32::from(table == "local").to_be_bytes());
        if table == "local" {
            columns.iter().for_each(|it| append_bytes(&mut body, &it.value));
        }
        body
    }
}

/// Flag 0x02 of EXECUTE's query parameters, behind the id(s) and the consistency.
fn skips_metadata(request: &Frame<'_>) -> bool {
    let ids = if request.version == 5 { 2 * (2 + 16) } else { 2 + 16 };
    let at = ids + 2 + if request.version == 5 { 3 } else { 0 };
    request.body.get(at).is_some_and(|flags| flags & 0x02 != 0)
}

fn prepared(version: u8) -> Vec<u8> {
    let mut body = [&[0, 0, 0, 4, 0, 16][..], &STATEMENT_ID].concat();
    if version == 5 {
        body.extend_from_slice(&[&[0, 16][..], &METADATA_ID].concat());
    }
    // Bound values: flags, one column, and from v4 on which of them are the partition key.
    body.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 1]);
    if version >= 4 {
        body.extend_from_slice(&[0, 0, 0, 1, 0, 0]);
    }
    body.extend_from_slice(&metadata("bench", "kv", &[("k", types::BIGINT)])[8..]);
    body.extend_from_slice(&kv_metadata());
    body
}

fn kv_metadata() -> Vec<u8> {
    metadata("bench", "kv", &[("k", types::BIGINT), ("v", types::BLOB)])
}

/// Flags (one table for all columns), column count, table, columns.
fn metadata(keyspace: &str, table: &str, columns: &[(&str, &[u8])]) -> Vec<u8> {
    let mut out = [1u32.to_be_bytes(), (columns.len() as u32).to_be_bytes()].concat();
    append_string(&mut out, keyspace);
    append_string(&mut out, table);
    for (name, kind) in columns {
        append_string(&mut out, name);
        out.extend_from_slice(kind);
    }
    out
}

fn append_bytes(out: &mut Vec<u8>, value: &[u8]) {
    out.extend_from_slice(&(value.len() as u32).to_be_bytes());
    out.extend_from_slice(value);
}
