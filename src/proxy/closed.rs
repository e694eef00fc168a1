//! How a connection ended, and why one was refused: the words of the log and of the metrics.

use super::dial::DialFailure;
use crate::label::{Label, label_set};
use crate::rewrite;
use crate::rewrite::handshake::Refusal;

label_set! {
    /// Who ended a connection.
    pub enum ClosedBy { Client = "client", Node = "node", Gateway = "gateway", }
}

label_set! {
    /// Why a connection was refused before it was relayed.
    pub enum Refused {
        ConnectionLimit = "connection_limit",
        NodeConnectionLimit = "node_connection_limit",
        SourceConnectionLimit = "source_connection_limit",
        /// A stage before the last has no place left.
        StageFull = "stage_full",
        /// The source has its share of such a stage's places.
        SourceShare = "source_share",
        /// Was longest in a stage that was full.
        MadeRoom = "made_room",
        /// Too many wrong passwords (`logins.keep_out`).
        KeptOut = "kept_out",
        /// The process is short of memory.
        Memory = "memory",
        Draining = "draining",
        NoLiveNode = "no_live_node",
        /// An operator wants no new connections to the node, through this replica.
        Cordoned = "cordoned",
        /// The client's address is in access.deny.
        Denied = "access_denied",
        /// It is in no network of access.allow.
        NotAllowed = "access_not_allowed",
        /// Not from a load balancer of proxy_protocol.from, and only these may come, or a header came all the same.
        ProxySource = "proxy_source",
        /// No PROXY header came first where one must.
        NoProxyHeader = "no_proxy_header",
        /// A PROXY header that cannot be read, or where none is expected.
        ProxyHeader = "proxy_header",
        /// The first bytes are no CQL frame (nor TLS where it is expected).
        NotCql = "not_cql",
        /// A version that the node speaks and the gateway does not parse.
        UnsupportedVersion = "unsupported_version",
        FrameTooLong = "frame_too_long",
        /// The client left first, as drivers do that look for a version.
        ClientEnded = "client_ended",
        Tls = "tls",
        /// No certificate came with the TLS handshake, or none that tls.clients.client_auth accepts.
        ClientCertificate = "client_certificate",
        /// The client's certificate is for nobody in tls.nodes.identities.
        NoIdentity = "no_identity",
        SetupDeadline = "setup_deadline",
        DialFailed = "dial_failed",
    }
}

impl Refused {
    /// What an operator would look for a long time: which key it was.
    pub fn advice(self) -> Option<&'static str> {
        match self {
            Self::Denied => Some("refused: the client's address is in access.deny"),
            Self::NotAllowed => Some("refused: the client's address is in no network of access.allow"),
            Self::ProxySource => {
                Some("refused: proxy_protocol.mode is required, and proxy_protocol.from does not list the address")
            }
            Self::NoProxyHeader => Some(
                "refused: no PROXY header came first, and proxy_protocol.mode is required; turn it on at the load balancer, or \
                 write optional",
            ),
            Self::Cordoned => {
                Some("refused: the node is cordoned in this replica (PUT /nodes/NAME/uncordon at its admin address)")
            }
            _ => None,
        }
    }
}

/// How a connection ended: one log line, one counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Closed {
    pub by: ClosedBy,
    pub why: Why,
}

impl Closed {
    pub fn client(why: impl Into<Why>) -> Self {
        Self { by: ClosedBy::Client, why: why.into() }
    }

    pub fn node(why: impl Into<Why>) -> Self {
        Self { by: ClosedBy::Node, why: why.into() }
    }

    pub fn gateway(why: impl Into<Why>) -> Self {
        Self { by: ClosedBy::Gateway, why: why.into() }
    }
}

/// Why a connection ended. A reason that belongs to another set has that set's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Why {
    /// The side said that it is done.
    Eof,
    Reset,
    /// The peer acknowledges nothing any more: the kernel gave up on it, or, of a client, the gateway.
    Timeout,
    /// The client took nothing of what it was owed for timeouts.dead_peer.
    Unread,
    Tls,
    /// Another error of a socket.
    Io,
    /// It had left before anything was asked of it.
    Gone,
    /// One side had ended, and the other said nothing for too long.
    HalfClosedTimeout,
    /// Not logged in for too long.
    LoginDeadline,
    /// No room for what must be held.
    HoldBudget,
    /// What was held in the client's name was not read.
    HoldStalled,
    /// Drained between two frames.
    Drain,
    /// The same, for it was as old as timeouts.max_age allows.
    MaxAge,
    /// The same, for the advertised address has changed and the client is to read again.
    AddressChanged,
    /// Answers in flight did not come while it was drained.
    DrainSilence,
    /// What is left when a drain takes too long.
    DrainDeadline,
    /// The node is dead, or somebody else.
    NodeGone,
    /// A mistake of the gateway's own.
    Panic,
    Refused(Refused),
    Handshake(Refusal),
    Dial(DialFailure),
    Conversation(rewrite::Why),
}

impl Label for Why {
    fn label(self) -> &'static str {
        match self {
            Self::Eof => "eof",
            Self::Reset => "reset",
            Self::Timeout => "timeout",
            Self::Unread => "unread",
            Self::Tls => "tls",
            Self::Io => "io_error",
            Self::Gone => "gone",
            Self::HalfClosedTimeout => "half_closed_timeout",
            Self::LoginDeadline => "login_deadline",
            Self::HoldBudget => "hold_budget",
            Self::HoldStalled => "hold_stalled",
            Self::Drain => "drain",
            Self::MaxAge => "max_age",
            Self::AddressChanged => "address_changed",
            Self::DrainSilence => "drain_silence",
            Self::DrainDeadline => "drain_deadline",
            Self::NodeGone => "node_gone",
            Self::Panic => "panic",
            Self::Refused(reason) => reason.label(),
            Self::Handshake(refusal) => refusal.label(),
            Self::Dial(failure) => failure.label(),
            Self::Conversation(why) => why.label(),
        }
    }
}

impl From<Refused> for Why {
    fn from(reason: Refused) -> Self {
        Self::Refused(reason)
    }
}

impl From<Refusal> for Why {
    fn from(refusal: Refusal) -> Self {
        Self::Handshake(refusal)
    }
}

impl From<DialFailure> for Why {
    fn from(failure: DialFailure) -> Self {
        Self::Dial(failure)
    }
}

impl From<rewrite::Why> for Why {
    fn from(why: rewrite::Why) -> Self {
        Self::Conversation(why)
    }
}

/// What a handshake's end is counted as.
impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NotCql | Refusal::WrongDirection | Refusal::Malformed => Self::NotCql,
            Refusal::FrameTooLong => Self::FrameTooLong,
            Refusal::Unsupported => Self::UnsupportedVersion,
        }
    }
}
