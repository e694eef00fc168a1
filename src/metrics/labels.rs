//! The values that labels may take. A closed set each: nothing that came from a socket becomes a label.

/// An enum whose variants are the values of one label.
macro_rules! label {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$variant_doc])* $variant,)+ }

        impl $name {
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The label's value.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }
    };
}

label! {
    /// Who ended a connection.
    ClosedBy { Client = "client", Node = "node", Gateway = "gateway", }
}

label! {
    /// How far a connection is.
    Stage {
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

label! {
    /// Why a connection was refused before it was relayed.
    Refused {
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

label! {
    /// Why a node could not be dialled, or a contact point not be asked.
    DialFailure {
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

label! {
    /// Why the Kubernetes API was not heard.
    WatchFailure {
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

label! {
    /// `NodeState` of `topology::node`.
    State { Pending = "pending", Up = "up", Down = "down", Gone = "gone", }
}

label! {
    /// A system table whose rows are rewritten.
    Table { Local = "local", Peers = "peers", PeersV2 = "peers_v2", }
}

label! {
    /// `HiddenReason` of `topology`.
    HiddenRow {
        NoPort = "no_port",
        NotAnnounced = "not_announced",
        NotResolved = "not_resolved",
        /// The View shows no row of another node.
        View = "view",
    }
}

label! {
    /// What an EVENT says (native_protocol_v5.spec §4.2.6).
    EventKind {
        Up = "UP",
        Down = "DOWN",
        NewNode = "NEW_NODE",
        RemovedNode = "REMOVED_NODE",
        MovedNode = "MOVED_NODE",
        SchemaChange = "SCHEMA_CHANGE",
        Other = "other",
    }
}

label! {
    /// What became of an EVENT on its way to one client.
    EventAction {
        Passed = "passed",
        /// Made by the gateway, which knew first.
        Added = "added",
        /// Waits until the node is announced.
        Held = "held",
        Swallowed = "swallowed",
    }
}

label! {
    /// Why a request got an ERROR of the gateway's own.
    RefusedRequest {
        /// A projection of an address in a form that cannot be rewritten.
        InternalAddress = "internal_address",
    }
}

label! {
    /// Phases of the process.
    Lifecycle { Starting = "starting", Running = "running", Draining = "draining", Stopping = "stopping", }
}
