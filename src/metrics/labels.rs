//! The values that labels may take. A closed set each: nothing that came from a socket becomes a label.

use crate::label::label_set;

label_set! {
    /// Who ended a connection.
    pub enum ClosedBy { Client = "client", Node = "node", Gateway = "gateway", }
}

label_set! {
    /// How far a connection is.
    pub enum Stage {
        /// Nothing was said yet.
        Accepted = "accepted",
        /// The TLS handshake goes on.
        Tls = "tls",
        /// From the first byte of CQL to READY or AUTHENTICATE.
        Setup = "setup",
        /// From AUTHENTICATE to AUTH_SUCCESS.
        Login = "login",
        Established = "established",
    }
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

label_set! {
    /// Why a node could not be dialled, or a contact point not be asked.
    pub enum DialFailure {
        Refused = "refused",
        Reset = "reset",
        Timeout = "timeout",
        Unreachable = "unreachable",
        Tls = "tls",
        /// A name that could not be resolved.
        Dns = "dns",
        /// Somebody answers, but it is not the node that it should be.
        Identity = "identity",
        /// Somebody answers, but wants another login than the gateway has.
        Login = "login",
        Other = "other",
    }
}

impl DialFailure {
    /// The label for an operating system's error while connecting.
    pub fn of(error: &std::io::Error) -> Self {
        use std::io::ErrorKind;
        match error.kind() {
            ErrorKind::ConnectionRefused => Self::Refused,
            ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted | ErrorKind::UnexpectedEof => Self::Reset,
            ErrorKind::TimedOut => Self::Timeout,
            ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable | ErrorKind::AddrNotAvailable => {
                Self::Unreachable
            }
            ErrorKind::InvalidData => Self::Tls,
            _ => Self::Other,
        }
    }
}

label_set! {
    /// Why the Kubernetes API was not heard.
    pub enum WatchFailure {
        Forbidden = "forbidden",
        Unauthorized = "unauthorized",
        /// 410: the place in the history is too old.
        Gone = "gone",
        Throttled = "throttled",
        /// Another answer than was asked for.
        Server = "server",
        Timeout = "timeout",
        Connection = "connection",
    }
}

label_set! {
    /// `NodeState` of `topology::node`.
    pub enum State { Pending = "pending", Up = "up", Down = "down", Gone = "gone", }
}

label_set! {
    /// A system table whose rows are rewritten.
    pub enum Table { Local = "local", Peers = "peers", PeersV2 = "peers_v2", }
}

label_set! {
    /// `HiddenReason` of `topology`.
    pub enum HiddenRow {
        NoPort = "no_port",
        NotAnnounced = "not_announced",
        NotResolved = "not_resolved",
        /// The View shows no row of another node.
        View = "view",
    }
}

label_set! {
    /// What an EVENT says (native_protocol_v5.spec §4.2.6).
    pub enum EventKind {
        Up = "UP",
        Down = "DOWN",
        NewNode = "NEW_NODE",
        RemovedNode = "REMOVED_NODE",
        MovedNode = "MOVED_NODE",
        SchemaChange = "SCHEMA_CHANGE",
        Other = "other",
    }
}

label_set! {
    /// What became of an EVENT on its way to one client.
    pub enum EventAction {
        Passed = "passed",
        /// Made by the gateway, which knew first.
        Added = "added",
        /// Waits until the node is announced.
        Held = "held",
        Swallowed = "swallowed",
    }
}

label_set! {
    /// Why a request got an ERROR of the gateway's own.
    pub enum RefusedRequest {
        /// A projection of an address in a form that cannot be rewritten.
        InternalAddress = "internal_address",
    }
}

label_set! {
    /// Phases of the process.
    pub enum Lifecycle { Starting = "starting", Running = "running", Draining = "draining", Stopping = "stopping", }
}
