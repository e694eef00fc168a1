//! The values that labels may take. A closed set each: nothing that came from a socket becomes a label.

use crate::label::label_set;

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
