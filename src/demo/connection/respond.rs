//! What a request is answered with. The words of refusals are those of Cassandra 5.0.

use super::super::answer::{self, Prepared, Refusal, Scope, invalid};
use super::super::node::Seen;
use super::super::request::Parameters;
use super::super::statement::KNOWN;
use super::{Connection, End, Stage};
use crate::cql::compression::Compression;
use crate::cql::frame::{Flags, Header, Opcode, Version};
use crate::cql::message::{Error, MessageStart, Register, Startup, error_code};
use crate::cql::primitives::{DecodeError, Reader, Value, Writer};

const SUPPORTED: &[u8] = include_bytes!("../captured/supported");
const AUTHENTICATOR: &str = "org.apache.cassandra.auth.PasswordAuthenticator";

/// Statements that a node keeps; the next one empties the set, so that clients see UNPREPARED.
const MAX_PREPARED: usize = 10_000;

impl Connection {
    /// The frame that answers a request.
    pub(super) fn answer(&mut self, header: Header, body: &[u8]) -> Result<Vec<u8>, End> {
        let newest = self.node.facts.lock().newest;
        let Some(version) = Version::from_byte(header.version).filter(|version| *version <= newest) else {
            return Ok(self.unknown_version(header, newest));
        };
        let offset = MessageStart::of_request().find(header.flags, body)?;
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
    fn unknown_version(&self, header: Header, newest: Version) -> Vec<u8> {
        let (number, text) = (header.version & 0x7f, "supported versions are (3/v3, 4/v4, 5/v5, 6/v6-beta)");
        let (version, flags, text) = match number {
            6 => (
                6,
                Flags::USE_BETA,
                "Beta version of the protocol used (6/v6-beta), but USE_BETA flag is unset".to_owned(),
            ),
            1 | 2 => (number, 0, format!("Invalid or unsupported protocol version ({number}); {text}")),
            _ if newest < Version::V5 => {
                let newest = newest.number();
                (
                    newest,
                    0,
                    format!("Invalid or unsupported protocol version ({number}); highest supported is {newest}"),
                )
            }
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
            return Err(Refusal { code: error_code::BAD_CREDENTIALS, text });
        }
        self.stage = Stage::Ready;
        let mut body = Vec::new();
        Writer::new(&mut body).value(Value::Null);
        Ok((Opcode::AUTH_SUCCESS, body))
    }

    fn register(&mut self, message: &[u8]) -> Result<(Opcode, Vec<u8>), Refusal> {
        let types = Register::parse(message)?.event_types;
        // In any case, as nodes take them.
        let types: Vec<String> = types.iter().map(|event_type| event_type.to_ascii_uppercase()).collect();
        let known = ["TOPOLOGY_CHANGE", "STATUS_CHANGE", "SCHEMA_CHANGE"];
        if let Some(unknown) = types.iter().find(|event_type| !known.contains(&event_type.as_str())) {
            return Err(protocol(format!("Invalid value '{unknown}' for Type")));
        }
        self.registered = types;
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
