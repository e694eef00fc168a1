//! The smallest CQL client that can ask a node who it is: OPTIONS, STARTUP, SASL PLAIN, QUERY, REGISTER; one request at
//! a time, v4 (v3 where a node refuses v4), no compression.
//!
//! Only the gateway's own probes and its control connection use it; a client's bytes never pass here. Every wait has a
//! deadline, and a body is read as it arrives, up to [`MAX_BODY`], whatever its header promises.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::config::{Credentials, PlainPassword};
use crate::cql::frame::{EVENT_STREAM, Flags, HEADER_LEN, Header, Opcode, Version, encode_frame};
use crate::cql::message::error_code::BAD_CREDENTIALS;
use crate::cql::message::request::encode_query;
use crate::cql::message::{self, Error, error_code};
use crate::cql::primitives::DecodeError;
use crate::cql::rows;

use super::own_login::Login;
use crate::proxy::dial::{DialError, DialFailure, Dialer, Target};
use crate::proxy::stream::Stream;
use crate::proxy::tls::connector;
use crate::topology::input::LONGEST_NAME;

/// Longest body of an answer, in bytes: `system.peers_v2` of some 2,500 nodes with 256 tokens each. A longer one is an error.
const MAX_BODY: u32 = 16 * 1024 * 1024;

/// Longest password file, in bytes.
const MAX_PASSWORD: usize = 64 * 1024;

/// What is being done while the gateway logs in.
const LOGIN: &str = "login";

/// Where nodes know people by certificates (CEP-34). Cassandra 5.0 asks for a login all the same, and does not look at it; later ones
/// do not ask.
const BY_CERTIFICATE: &str = "MutualTlsAuthenticator";

/// After a refused login: each try costs the node a bcrypt and a line in its audit log.
pub const LOGIN_AGAIN: Duration = Duration::from_secs(5);

/// Why a conversation with a node ended.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ClientError {
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error("{doing}: connection lost ({kind})")]
    Lost { doing: &'static str, kind: io::ErrorKind },
    #[error("{doing}: {text}: the node was shown tls.nodes.certificate, or none where that is absent")]
    Certificate { doing: &'static str, text: String },
    #[error("{doing}: no answer within {after:?}")]
    Silent { doing: &'static str, after: Duration },
    #[error("{doing}: {error}")]
    Malformed { doing: &'static str, error: DecodeError },
    #[error("{doing}: answered with opcode {opcode:#04x} in version {version:#04x}")]
    Unexpected { doing: &'static str, version: u8, opcode: u8 },
    #[error("{doing}: refused with code {code:#06x}: {text}")]
    Refused { doing: &'static str, code: i32, text: String },
    #[error(
        "the node asks for a login ({authenticator}): give the gateway one with probe.username and probe.password_file"
    )]
    LoginNeeded { authenticator: String },
    #[error(
        "the node does not know the gateway by its certificate, tls.nodes.certificate ({BAD_CREDENTIALS:#06x}): {text}"
    )]
    Nobody { text: String },
    #[error("login as probe.username refused ({BAD_CREDENTIALS:#06x}): {text}")]
    LoginRefused { text: String },
    #[error("probe.password_file {path}: {kind}")]
    PasswordFile { path: PathBuf, kind: io::ErrorKind },
    #[error("{}", withheld(*.rule))]
    LoginWithheld { rule: PlainPassword },
}

fn withheld(rule: PlainPassword) -> &'static str {
    match rule {
        PlainPassword::Never => {
            "the node asks for a login, and probe.plain_password is never: over plain TCP it is sent none"
        }
        _ => {
            "the node asks for a login, and is sent none over plain TCP: neither the file names it nor a StatefulSet owns it \
             (probe.plain_password: listed)"
        }
    }
}

impl ClientError {
    /// Trying again soon does not help: the user must do something.
    pub fn is_login(&self) -> bool {
        matches!(
            self,
            Self::LoginNeeded { .. }
                | Self::Nobody { .. }
                | Self::LoginRefused { .. }
                | Self::PasswordFile { .. }
                | Self::LoginWithheld { .. }
        )
    }

    /// The node answers, and does not take the gateway's own login: a wrong password, a file that cannot be read, or the replicas
    /// of the roles' keyspace are away.
    pub fn is_refused_login(&self) -> bool {
        matches!(self, Self::LoginRefused { .. } | Self::PasswordFile { .. } | Self::Refused { doing: LOGIN, .. })
    }

    /// The node is there, and does not take the certificate that it was shown, or requires one.
    pub fn is_refused_certificate(&self) -> bool {
        matches!(self, Self::Certificate { .. } | Self::Dial(DialError::Certificate { .. }))
    }

    pub fn failure(&self) -> DialFailure {
        match self {
            Self::Dial(error) => error.failure(),
            Self::Lost { .. } => DialFailure::Reset,
            Self::Certificate { .. } => DialFailure::Tls,
            Self::Silent { .. } => DialFailure::Timeout,
            Self::LoginNeeded { .. }
            | Self::Nobody { .. }
            | Self::LoginRefused { .. }
            | Self::PasswordFile { .. }
            | Self::LoginWithheld { .. } => DialFailure::Login,
            Self::Malformed { .. } | Self::Unexpected { .. } | Self::Refused { .. } => DialFailure::Other,
        }
    }
}

/// One answer: its opcode and its message, without the prefixes of the frame's flags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    opcode: Opcode,
    body: BytesMut,
}

/// An open connection to a node.
pub struct Client {
    stream: Stream,
    received: BytesMut,
    version: Version,
    /// How long one answer may take.
    patience: Duration,
    stream_id: i16,
    /// An EVENT came since [`Client::event`] last said so.
    event_seen: bool,
}

impl Client {
    /// Connects and asks for the OPTIONS: the node is alive when this succeeds, login or not.
    pub async fn open(dialer: &Dialer, target: &Target, patience: Duration) -> Result<Self, ClientError> {
        match Self::open_version(dialer, target, patience, Version::V4).await {
            Err(ClientError::Refused { code: error_code::PROTOCOL_ERROR, .. }) => {
                Self::open_version(dialer, target, patience, Version::V3).await
            }
            other => other,
        }
    }

    async fn open_version(
        dialer: &Dialer,
        target: &Target,
        patience: Duration,
        version: Version,
    ) -> Result<Self, ClientError> {
        let stream = dialer.dial(target).await?;
        let mut client = Self { stream, received: BytesMut::new(), version, patience, stream_id: 0, event_seen: false };
        client.options().await?;
        Ok(client)
    }

    pub fn stream(&self) -> &Stream {
        &self.stream
    }

    /// OPTIONS → SUPPORTED.
    pub async fn options(&mut self) -> Result<(), ClientError> {
        let answer = self.ask("OPTIONS", Opcode::OPTIONS, &[]).await?;
        self.expect("OPTIONS", &answer, Opcode::SUPPORTED)
    }

    /// STARTUP, and the login where the node asks for one. The password file is read each time, so that it may change.
    pub async fn start(&mut self, login: &Login) -> Result<(), ClientError> {
        let options =
            [("CQL_VERSION", "3.0.0"), ("DRIVER_NAME", "cqlgate"), ("DRIVER_VERSION", env!("CARGO_PKG_VERSION"))];
        let nobody = |error| match error {
            ClientError::Refused { code: BAD_CREDENTIALS, text, .. } => ClientError::Nobody { text },
            error => error,
        };
        let startup = message::encode_startup(&options);
        let answer = self.ask("STARTUP", Opcode::STARTUP, &startup).await.map_err(nobody)?;
        if answer.opcode != Opcode::AUTHENTICATE {
            return self.expect("STARTUP", &answer, Opcode::READY);
        }
        let class = message::parse_authenticate(&answer.body).unwrap_or("unknown");
        let authenticator = shortened(class.rsplit('.').next().unwrap_or(class));
        if authenticator == BY_CERTIFICATE {
            let token = message::encode_plain_auth_response("", "");
            let answer = self.ask(LOGIN, Opcode::AUTH_RESPONSE, &token).await.map_err(nobody)?;
            return self.expect(LOGIN, &answer, Opcode::AUTH_SUCCESS);
        }
        let credentials = match login {
            Login::Given(credentials) => credentials,
            Login::Withheld(rule) => return Err(ClientError::LoginWithheld { rule: *rule }),
            Login::Absent => return Err(ClientError::LoginNeeded { authenticator }),
        };
        let read = {
            let credentials = credentials.clone();
            tokio::task::spawn_blocking(move || read_password(&credentials))
        };
        let failed =
            || ClientError::PasswordFile { path: credentials.password_file.clone(), kind: io::ErrorKind::Other };
        let password = read.await.unwrap_or_else(|_| Err(failed()))?;
        let token = message::encode_plain_auth_response(&credentials.username, &password);
        match self.ask(LOGIN, Opcode::AUTH_RESPONSE, &token).await {
            Ok(answer) => self.expect(LOGIN, &answer, Opcode::AUTH_SUCCESS),
            Err(ClientError::Refused { code: BAD_CREDENTIALS, text, .. }) => Err(ClientError::LoginRefused { text }),
            Err(error) => Err(error),
        }
    }

    /// QUERY at consistency ONE; the answer is a RESULT.
    pub async fn query(&mut self, text: &'static str) -> Result<Answer, ClientError> {
        let answer = self.ask(text, Opcode::QUERY, &encode_query(self.version, text)).await?;
        self.expect(text, &answer, Opcode::RESULT)?;
        Ok(answer)
    }

    /// REGISTER for event types; from now on [`Client::event`] can answer.
    pub async fn register(&mut self, event_types: &[&str]) -> Result<(), ClientError> {
        let answer = self.ask("REGISTER", Opcode::REGISTER, &message::encode_register(event_types)).await?;
        self.expect("REGISTER", &answer, Opcode::READY)
    }

    /// Waits for an EVENT, as long as it takes; several that wait are one. May be dropped and called again.
    pub async fn event(&mut self) -> Result<(), ClientError> {
        while !self.event_seen {
            let (header, _) = self.read_frame("EVENT").await?;
            if header.stream != EVENT_STREAM {
                let (version, opcode) = (header.version, header.opcode.0);
                return Err(ClientError::Unexpected { doing: "EVENT", version, opcode });
            }
        }
        self.event_seen = false;
        Ok(())
    }

    async fn ask(&mut self, doing: &'static str, opcode: Opcode, body: &[u8]) -> Result<Answer, ClientError> {
        self.stream_id = self.stream_id.wrapping_add(1) & 0x7fff;
        let header = Header {
            version: self.version.number(),
            flags: Flags::default(),
            stream: self.stream_id,
            opcode,
            length: 0,
        };
        let frame = encode_frame(header, body);
        let after = self.patience;
        match timeout(after, self.converse(doing, &frame)).await {
            Ok(answer) => answer,
            Err(_) => Err(ClientError::Silent { doing, after }),
        }
    }

    async fn converse(&mut self, doing: &'static str, frame: &[u8]) -> Result<Answer, ClientError> {
        let lost = |error: io::Error| lost(doing, &error);
        self.stream.write_all(frame).await.map_err(lost)?;
        self.stream.flush().await.map_err(lost)?;
        loop {
            let (header, mut body) = self.read_frame(doing).await?;
            if header.stream == EVENT_STREAM {
                continue;
            }
            let offset =
                rows::message_offset(header.flags, &body).map_err(|error| ClientError::Malformed { doing, error })?;
            body.advance(offset);
            // A node that does not speak our version answers in its own, on stream 0.
            if header.opcode == Opcode::ERROR {
                let Error { code, message } =
                    Error::parse(&body).map_err(|error| ClientError::Malformed { doing, error })?;
                return Err(ClientError::Refused { doing, code, text: shortened(message) });
            }
            if header.stream == self.stream_id && header.version & 0x7f == self.version.number() {
                return Ok(Answer { opcode: header.opcode, body });
            }
            return Err(ClientError::Unexpected { doing, version: header.version, opcode: header.opcode.0 });
        }
    }

    /// The next frame. What has arrived stays in `received` when this is dropped in between.
    async fn read_frame(&mut self, doing: &'static str) -> Result<(Header, BytesMut), ClientError> {
        loop {
            if let Some(header) = Header::peek(&self.received) {
                if !header.is_response() || Version::from_byte(header.version).is_none() {
                    let (version, opcode) = (header.version, header.opcode.0);
                    return Err(ClientError::Unexpected { doing, version, opcode });
                }
                if header.flags.has(Flags::COMPRESSION) {
                    let error = DecodeError::Malformed { what: "body compressed unasked" };
                    return Err(ClientError::Malformed { doing, error });
                }
                if header.length > MAX_BODY {
                    let (length, limit) = (u64::from(header.length), u64::from(MAX_BODY));
                    let error = DecodeError::TooLong { what: "body of an answer", length, limit };
                    return Err(ClientError::Malformed { doing, error });
                }
                let length = HEADER_LEN + header.length as usize;
                if self.received.len() >= length {
                    let mut frame = self.received.split_to(length);
                    frame.advance(HEADER_LEN);
                    self.event_seen |= header.stream == EVENT_STREAM;
                    return Ok((header, frame));
                }
            }
            match self.stream.read_buf(&mut self.received).await {
                Ok(0) => return Err(ClientError::Lost { doing, kind: io::ErrorKind::UnexpectedEof }),
                Ok(_) => {}
                Err(error) => return Err(lost(doing, &error)),
            }
        }
    }

    fn expect(&self, doing: &'static str, answer: &Answer, opcode: Opcode) -> Result<(), ClientError> {
        if answer.opcode == opcode {
            return Ok(());
        }
        Err(ClientError::Unexpected { doing, version: self.version.number(), opcode: answer.opcode.0 })
    }
}

impl Answer {
    /// The message of a RESULT.
    pub fn message(&self) -> &[u8] {
        &self.body
    }
}

/// In TLS 1.3 a node that does not take the gateway's certificate says so after the handshake (RFC 8446 §4.4.2.4).
fn lost(doing: &'static str, error: &io::Error) -> ClientError {
    match connector::refuses_certificate(error) {
        true => ClientError::Certificate { doing, text: error.to_string() },
        false => ClientError::Lost { doing, kind: error.kind() },
    }
}

/// What a node says, for a line of the log: its first [`LONGEST_NAME`] bytes.
fn shortened(text: &str) -> String {
    let end = (0..=LONGEST_NAME.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    text.get(..end.unwrap_or_default()).unwrap_or_default().to_owned()
}

/// The file's text without the newline that editors put at its end.
fn read_password(credentials: &Credentials) -> Result<String, ClientError> {
    let failed = |kind| ClientError::PasswordFile { path: credentials.password_file.clone(), kind };
    let text = std::fs::read(&credentials.password_file).map_err(|error| failed(error.kind()))?;
    if text.len() > MAX_PASSWORD {
        return Err(failed(io::ErrorKind::FileTooLarge));
    }
    let text = String::from_utf8(text).map_err(|_| failed(io::ErrorKind::InvalidData))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_node_says_is_cut_between_two_characters() {
        assert_eq!(shortened("no such keyspace"), "no such keyspace");
        assert_eq!(shortened(&"x".repeat(60_000)), "x".repeat(256));
        // Three bytes each.
        assert_eq!(shortened(&"\u{20ac}".repeat(100)), "\u{20ac}".repeat(85));
    }
}
