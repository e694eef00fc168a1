//! One client's connection to a simulated node, from accept to close.
//!
//! Requests are answered in order. What a fault asks for happens here, so that a test sees it on the socket.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::answer::{self, Prepared, Refusal, Scope, invalid};
use super::fault::Fault;
use super::node::{Arrival, Pushed, Seen, Shared};
use super::request::Parameters;
use super::statement::KNOWN;
use super::wire::Wire;
use crate::cql::compression::Compression;
use crate::cql::frame::{Flags, HEADER_LEN, Header, Opcode, Version};
use crate::cql::message::{Error, Register, Startup, error_code, request};
use crate::cql::primitives::{DecodeError, Reader, Value, Writer};

const SUPPORTED: &[u8] = include_bytes!("captured/supported");
const AUTHENTICATOR: &str = "org.apache.cassandra.auth.PasswordAuthenticator";
const BAD_CREDENTIALS: i32 = 0x0100;

/// Statements that a node keeps; the next one empties the set, so that clients see UNPREPARED.
const MAX_PREPARED: usize = 10_000;

/// How long a connection that was closed with FIN discards what the client still writes.
const LINGER: Duration = Duration::from_secs(2);

/// Why a connection ends.
enum End {
    /// The client closed, or its socket failed.
    Client,
    /// With FIN, behind what was written.
    Close,
    /// With RST, whatever is still on its way.
    Reset,
}

impl From<io::Error> for End {
    fn from(_: io::Error) -> Self {
        Self::Client
    }
}

impl From<DecodeError> for End {
    fn from(_: DecodeError) -> Self {
        Self::Reset
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Startup,
    Authentication,
    Ready,
}

struct Connection {
    node: Arc<Shared>,
    number: u64,
    stream: TcpStream,
    wire: Wire,
    stage: Stage,
    keyspace: Option<String>,
    registered: Vec<String>,
    /// What an accepted STARTUP asked for, until its answer is written.
    settled: Option<(Version, Option<Compression>)>,
    /// True when the connection ends behind the answer just made.
    refused: bool,
}

/// Serves `stream` until either side ends it; `stop` resets it.
pub(super) async fn serve(node: Arc<Shared>, stream: TcpStream, stop: CancellationToken) {
    static NUMBER: AtomicU64 = AtomicU64::new(1);
    let _ = stream.set_nodelay(true);
    let mut connection = Connection {
        number: NUMBER.fetch_add(1, Ordering::Relaxed),
        node,
        stream,
        wire: Wire::default(),
        stage: Stage::Startup,
        keyspace: None,
        registered: Vec::new(),
        settled: None,
        refused: false,
    };
    let end = tokio::select! {
        biased;
        () = stop.cancelled() => End::Reset,
        Err(end) = connection.serve() => end,
    };
    match end {
        End::Client => {}
        End::Close => {
            let _ = connection.stream.shutdown().await;
            // Closing with unread input would be a reset, which takes what is still on its way.
            let mut nowhere = tokio::io::sink();
            let rest = tokio::io::copy(&mut connection.stream, &mut nowhere);
            let _ = tokio::time::timeout(LINGER, rest).await;
        }
        End::Reset => _ = SockRef::from(&connection.stream).set_linger(Some(Duration::ZERO)),
    }
    if connection.stage == Stage::Ready {
        connection.tell(Seen::Closed);
    }
}

impl Connection {
    async fn serve(&mut self) -> Result<std::convert::Infallible, End> {
        let mut pushed = self.node.pushed.subscribe();
        let mut silent = self.node.silent.subscribe();
        loop {
            if silent.wait_for(|silent| !silent).await.is_err() {
                return Err(End::Reset);
            }
            tokio::select! {
                biased;
                changed = silent.changed() => changed.map_err(|_| End::Reset)?,
                event = pushed.recv() => match event {
                    Ok(event) => self.push(&event).await?,
                    // A client that reads so slowly has lost events; a real node closes it too.
                    Err(_) => return Err(End::Close),
                },
                read = self.stream.read_buf(&mut self.wire.input) => {
                    if read? == 0 {
                        return Err(End::Client);
                    }
                    self.answer_all().await?;
                }
            }
        }
    }

    fn tell(&self, seen: Seen) {
        // Nobody may be listening.
        let _ = self.node.arrivals.send(Arrival { node: self.node.index, connection: self.number, seen });
    }

    async fn push(&mut self, event: &Pushed) -> Result<(), End> {
        if !self.registered.contains(&event.event_type) {
            return Ok(());
        }
        let Some(version) = self.wire.version() else { return Ok(()) };
        let frame = self.wire.frame(version.number(), -1, 0, Opcode::EVENT, &event.body);
        self.write(&[frame]).await
    }

    async fn write(&mut self, frames: &[Vec<u8>]) -> Result<(), End> {
        let bytes = self.wire.pack(frames);
        Ok(self.stream.write_all(&bytes).await?)
    }

    async fn answer_all(&mut self) -> Result<(), End> {
        let mut frames = Vec::new();
        while let Some((header, body)) = self.wire.next()? {
            if let Some(time) = self.node.faults.delay() {
                tokio::time::sleep(time).await;
            }
            let fault = if self.is_about_kv(header, &body) { self.node.faults.next() } else { None };
            match fault {
                None => frames.push(self.answer(header, &body)?),
                Some(Fault::Answer { opcode, flags, body }) => {
                    frames.push(self.wire.frame(header.version & 0x7f, header.stream, flags, opcode, &body));
                }
                Some(Fault::DeclareLength(length)) => {
                    let (version, flags) = (0x80 | header.version, Flags(0));
                    let lie = Header { version, flags, stream: header.stream, opcode: Opcode::RESULT, length };
                    frames.push(lie.encode().to_vec());
                }
                Some(Fault::CutResponse { after }) => {
                    frames.push(self.answer(header, &body)?);
                    let bytes = self.wire.pack(&frames);
                    self.stream.write_all(bytes.get(..after).unwrap_or(&bytes)).await?;
                    return Err(End::Close);
                }
                Some(Fault::ErrorThenReset { after, text }) => {
                    let have = HEADER_LEN + body.len() + self.wire.input.len();
                    return self.error_then_reset(header, have, after, &text).await;
                }
            }
            if let Some((version, compression)) = self.settled.take() {
                // The answer to STARTUP goes out as the request came in: segments begin behind it.
                self.stream.write_all(&std::mem::take(&mut frames).concat()).await?;
                self.wire.establish(version, compression);
            }
            if self.refused {
                self.write(&frames).await?;
                return Err(End::Reset);
            }
        }
        self.write(&frames).await
    }

    /// Reads `after` bytes of requests, answers the first of them with an ERROR and resets. The client may be writing still.
    async fn error_then_reset(&mut self, header: Header, have: usize, after: usize, text: &str) -> Result<(), End> {
        let mut read = have;
        while read < after {
            self.wire.input.clear();
            match self.stream.read_buf(&mut self.wire.input).await? {
                0 => return Err(End::Client),
                more => read += more,
            }
        }
        let body = Error { code: error_code::SERVER_ERROR, message: text }.encode();
        let frame = self.wire.frame(header.version & 0x7f, header.stream, 0, Opcode::ERROR, &body);
        self.write(&[frame]).await?;
        Err(End::Reset)
    }

    /// Whether a request is a statement on `demo.kv`: what faults wait for, so that probes pass.
    fn is_about_kv(&self, header: Header, body: &[u8]) -> bool {
        if self.stage != Stage::Ready {
            return false;
        }
        let mut reader = Reader::new(body);
        match header.opcode {
            Opcode::QUERY | Opcode::PREPARE => {
                let text = reader.long_string("text").unwrap_or_default();
                String::from_utf8_lossy(text).to_ascii_lowercase().contains("kv")
            }
            Opcode::EXECUTE => {
                let id = reader.short_bytes("id").unwrap_or_default();
                self.node.prepared(id).is_some_and(|prepared| prepared.text.to_ascii_lowercase().contains("kv"))
            }
            _ => false,
        }
    }

    /// The frame that answers a request.
    fn answer(&mut self, header: Header, body: &[u8]) -> Result<Vec<u8>, End> {
        let Some(version) = Version::from_byte(header.version) else {
            return Ok(self.unknown_version(header));
        };
        let offset = request::message_offset(header.flags, body)?;
        let message = body.get(offset..).unwrap_or_default();
        let (opcode, mut answer) = match self.respond(version, header.opcode, message) {
            Ok(answer) => answer,
            Err(refusal) => (Opcode::ERROR, refusal.encode()),
        };
        let mut flags = 0;
        if header.flags.has(Flags::TRACING) && self.stage == Stage::Ready {
            flags = Flags::TRACING;
            answer.splice(..0, *uuid::Uuid::from_u128(u128::from(self.number)).as_bytes());
        }
        Ok(self.wire.frame(version.number(), header.stream, flags, opcode, &answer))
    }

    /// The versions' own words, in the headers that nodes put them in (apache/cassandra `transport/ProtocolVersion.java`).
    fn unknown_version(&self, header: Header) -> Vec<u8> {
        let (number, text) = (header.version & 0x7f, "supported versions are (3/v3, 4/v4, 5/v5, 6/v6-beta)");
        let (version, flags, text) = match number {
            6 => (
                6,
                Flags::USE_BETA,
                "Beta version of the protocol used (6/v6-beta), but USE_BETA flag is unset".to_owned(),
            ),
            1 | 2 => (number, 0, format!("Invalid or unsupported protocol version ({number}); {text}")),
            _ => (5, 0, format!("Invalid or unsupported protocol version ({number}); {text}")),
        };
        let body = Error { code: error_code::PROTOCOL_ERROR, message: &text }.encode();
        self.wire.frame(version, 0, flags, Opcode::ERROR, &body)
    }

    fn respond(&mut self, version: Version, opcode: Opcode, message: &[u8]) -> Result<(Opcode, Vec<u8>), Refusal> {
        let mut reader = Reader::new(message);
        match (self.stage, opcode) {
            (Stage::Startup | Stage::Ready, Opcode::OPTIONS) => Ok((Opcode::SUPPORTED, SUPPORTED.to_vec())),
            (Stage::Startup, Opcode::STARTUP) => self.startup(version, message),
            (Stage::Startup, other) => {
                self.refused = true;
                Err(protocol(format!("Unexpected message {}, expecting STARTUP or OPTIONS", name(other))))
            }
            (Stage::Authentication, Opcode::AUTH_RESPONSE) => self.authenticate(&mut reader),
            (Stage::Authentication, other) => {
                self.refused = true;
                Err(protocol(format!("Unexpected message {}, expecting AUTH_RESPONSE", name(other))))
            }
            (Stage::Ready, Opcode::REGISTER) => self.register(message),
            (Stage::Ready, Opcode::QUERY) => self.query(version, &mut reader),
            (Stage::Ready, Opcode::PREPARE) => self.prepare(version, &mut reader),
            (Stage::Ready, Opcode::EXECUTE) => self.execute(version, &mut reader),
            (Stage::Ready, Opcode::BATCH) => Err(invalid(KNOWN)),
            (Stage::Ready, Opcode::STARTUP) => {
                Err(protocol("Unexpected message STARTUP, the connection is already initialized".to_owned()))
            }
            (Stage::Ready, Opcode(number)) => Err(protocol(format!("Unknown opcode {number}"))),
        }
    }

    fn startup(&mut self, version: Version, message: &[u8]) -> Result<(Opcode, Vec<u8>), Refusal> {
        let startup = Startup::parse(message)?;
        if startup.get("CQL_VERSION").is_none() {
            return Err(protocol("Missing value CQL_VERSION in STARTUP message".to_owned()));
        }
        let compression = startup.compression();
        match (startup.get("COMPRESSION"), compression) {
            (Some(_), Some(Compression::Snappy)) if version >= Version::V5 => {
                return Err(protocol("Snappy compression is not supported in protocol V5".to_owned()));
            }
            (Some(unknown), None) => return Err(protocol(format!("Unknown compression algorithm: {unknown}"))),
            _ => {}
        }
        self.settled = Some((version, compression));
        self.tell(Seen::Connected {
            driver: startup.driver_name().map(str::to_owned),
            driver_version: startup.driver_version().map(str::to_owned),
            protocol: version,
            compression,
        });
        if self.node.credentials.is_none() {
            self.stage = Stage::Ready;
            return Ok((Opcode::READY, Vec::new()));
        }
        self.stage = Stage::Authentication;
        let mut body = Vec::new();
        Writer::new(&mut body).string(AUTHENTICATOR);
        Ok((Opcode::AUTHENTICATE, body))
    }

    /// SASL PLAIN: zero, name, zero, password.
    fn authenticate(&mut self, reader: &mut Reader<'_>) -> Result<(Opcode, Vec<u8>), Refusal> {
        let token = reader.bytes("token")?.unwrap_or_default();
        let mut parts = token.split(|&byte| byte == 0).skip(1).map(String::from_utf8_lossy);
        let (name, password) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        if self.node.credentials.as_ref().is_none_or(|(n, p)| *n != name || *p != password) {
            let text = format!("Provided username {name} and/or password are incorrect");
            return Err(Refusal { code: BAD_CREDENTIALS, text });
        }
        self.stage = Stage::Ready;
        let mut body = Vec::new();
        Writer::new(&mut body).value(Value::Null);
        Ok((Opcode::AUTH_SUCCESS, body))
    }

    fn register(&mut self, message: &[u8]) -> Result<(Opcode, Vec<u8>), Refusal> {
        let types = Register::parse(message)?.event_types;
        let known = ["TOPOLOGY_CHANGE", "STATUS_CHANGE", "SCHEMA_CHANGE"];
        if let Some(unknown) = types.iter().find(|event_type| !known.contains(event_type)) {
            return Err(protocol(format!("Invalid value '{unknown}' for Type")));
        }
        self.registered = types.into_iter().map(str::to_owned).collect();
        self.tell(Seen::Registered(self.registered.clone()));
        Ok((Opcode::READY, Vec::new()))
    }

    fn query(&mut self, version: Version, reader: &mut Reader<'_>) -> Result<(Opcode, Vec<u8>), Refusal> {
        let text = text(reader.long_string("QUERY text")?)?;
        self.tell(Seen::Statement { text: text.to_owned(), opcode: Opcode::QUERY });
        let parameters = Parameters::read(version, reader)?;
        if let Some(message) = answer::captured_text(text) {
            return Ok((Opcode::RESULT, message.to_vec()));
        }
        let prepared = answer::prepare(self.scope(parameters.keyspace), text)?;
        self.run(&prepared, &parameters, None)
    }

    fn prepare(&mut self, version: Version, reader: &mut Reader<'_>) -> Result<(Opcode, Vec<u8>), Refusal> {
        let text = text(reader.long_string("PREPARE text")?)?;
        self.tell(Seen::Statement { text: text.to_owned(), opcode: Opcode::PREPARE });
        let with_keyspace = version >= Version::V5 && reader.u32("flags")? & 1 != 0;
        let keyspace = if with_keyspace { Some(reader.string("keyspace")?) } else { None };
        let prepared = answer::prepare(self.scope(keyspace), text)?;
        let message = prepared.message(version);
        self.node.keep(prepared, MAX_PREPARED);
        Ok((Opcode::RESULT, message))
    }

    fn execute(&mut self, version: Version, reader: &mut Reader<'_>) -> Result<(Opcode, Vec<u8>), Refusal> {
        let id = reader.short_bytes("EXECUTE id")?;
        let metadata_id = if version >= Version::V5 { Some(reader.short_bytes("metadata id")?) } else { None };
        let parameters = Parameters::read(version, reader)?;
        let Some(prepared) = self.node.prepared(id) else {
            return Ok((Opcode::ERROR, unprepared(id)));
        };
        self.tell(Seen::Statement { text: prepared.text.clone(), opcode: Opcode::EXECUTE });
        self.run(&prepared, &parameters, metadata_id)
    }

    fn run(
        &mut self,
        prepared: &Prepared,
        parameters: &Parameters<'_>,
        metadata_id: Option<&[u8]>,
    ) -> Result<(Opcode, Vec<u8>), Refusal> {
        let message = prepared.run(self.scope(parameters.keyspace), parameters, metadata_id)?;
        if let Some(keyspace) = prepared.sets_keyspace() {
            self.keyspace = Some(keyspace.to_owned());
        }
        Ok((Opcode::RESULT, message))
    }

    fn scope<'a>(&'a self, keyspace: Option<&'a str>) -> Scope<'a> {
        Scope { facts: &self.node.facts, me: self.node.index, keyspace: keyspace.or(self.keyspace.as_deref()) }
    }
}

impl From<DecodeError> for Refusal {
    fn from(error: DecodeError) -> Self {
        protocol(error.to_string())
    }
}

impl Refusal {
    fn encode(&self) -> Vec<u8> {
        Error { code: self.code, message: &self.text }.encode()
    }
}

fn protocol(text: String) -> Refusal {
    Refusal { code: error_code::PROTOCOL_ERROR, text }
}

fn text(bytes: &[u8]) -> Result<&str, Refusal> {
    std::str::from_utf8(bytes).map_err(|_| protocol("text that is not UTF-8".to_owned()))
}

/// ERROR 0x2500: the text of Cassandra 5.0, and the id (native_protocol_v5.spec §9).
fn unprepared(id: &[u8]) -> Vec<u8> {
    let hex: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
    let text = format!(
        "Prepared query with ID {hex} not found (either the query was not prepared on this host (maybe the host has been \
         restarted?) or you have prepared too many queries and it has been evicted from the internal cache)"
    );
    let mut body = Error { code: error_code::UNPREPARED, message: &text }.encode();
    Writer::new(&mut body).short_bytes(id);
    body
}

fn name(opcode: Opcode) -> String {
    match opcode {
        Opcode::QUERY => "QUERY".to_owned(),
        Opcode::PREPARE => "PREPARE".to_owned(),
        Opcode::EXECUTE => "EXECUTE".to_owned(),
        Opcode::BATCH => "BATCH".to_owned(),
        Opcode::REGISTER => "REGISTER".to_owned(),
        Opcode::STARTUP => "STARTUP".to_owned(),
        Opcode(number) => format!("{number:#04x}"),
    }
}
