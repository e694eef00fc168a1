//! How a connection ended, and why one was refused: the words of the log and of the metrics.

use crate::label::label_set;

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
        /// The first bytes are no CQL frame (nor TLS where it is expected).
        NotCql = "not_cql",
        /// A version that the node speaks and the gateway does not parse.
        UnsupportedVersion = "unsupported_version",
        FrameTooLong = "frame_too_long",
        /// The client left first, as drivers do that look for a version.
        ClientEnded = "client_ended",
        Tls = "tls",
        SetupDeadline = "setup_deadline",
        DialFailed = "dial_failed",
    }
}

/// How a connection ended: one log line, one counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Closed {
    pub by: ClosedBy,
    /// A metric's label value: from a closed set, never from the network.
    pub why: &'static str,
}

impl Closed {
    pub fn client(why: &'static str) -> Self {
        Self { by: ClosedBy::Client, why }
    }

    pub fn node(why: &'static str) -> Self {
        Self { by: ClosedBy::Node, why }
    }

    pub fn gateway(why: &'static str) -> Self {
        Self { by: ClosedBy::Gateway, why }
    }
}
