//! The limits: how many, how long, how much. Each has a name, a number and a reason.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::text::{BadText, Size, Time, size, time};

const MIB: u64 = 1024 * 1024;

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Established client connections in all.
    pub connections: usize,
    /// Established client connections of one node's port.
    pub connections_per_node: usize,
    /// Established client connections of one source: an IPv4 address, or a /64 of IPv6. Half of connections when absent: behind a
    /// load balancer that hides the clients' addresses all of them are one source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connections_per_source: Option<usize>,
    /// Connections that are not established yet, by how far they are.
    pub stages: Stages,
    /// Longest frame body; a longer one is answered with the protocol's own error.
    #[serde(with = "size")]
    #[schemars(with = "Size")]
    pub frame: u64,
    /// Longest frame held whole because it must change.
    #[serde(with = "size")]
    #[schemars(with = "Size")]
    pub held_frame: u64,
    /// All bytes held in the process.
    #[serde(with = "size")]
    #[schemars(with = "Size")]
    pub held_total: u64,
    /// The memory that the process may use: auto (the control group's limit), off, or a size. At 85 % of it nothing new is held,
    /// at 92 % no new connection is taken, at 97 % the newest are closed.
    pub memory: MemoryLimit,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 10_000,
            connections_per_node: 4_000,
            connections_per_source: None,
            stages: Stages::default(),
            frame: 256 * MIB,
            held_frame: 16 * MIB,
            held_total: 256 * MIB,
            memory: MemoryLimit::Auto,
        }
    }
}

impl Limits {
    /// How many established connections one source may have.
    pub fn per_source(&self) -> usize {
        self.connections_per_source.unwrap_or(half(self.connections))
    }
}

/// Strangers have rooms of their own: one that is full keeps nobody out of the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Stages {
    /// Nothing was said yet.
    pub accepted: Stage,
    /// The TLS handshake goes on.
    pub tls: Stage,
    /// From the first byte of CQL to READY or AUTHENTICATE.
    pub setup: Stage,
    /// From AUTHENTICATE to AUTH_SUCCESS.
    pub login: Stage,
}

impl Default for Stages {
    fn default() -> Self {
        let stage = |places| Stage { places, per_source: None };
        Self { accepted: stage(10_000), tls: stage(1_000), setup: stage(4_000), login: stage(4_000) }
    }
}

impl Stages {
    /// The stages with the names of their keys.
    pub fn named(&self) -> [(&'static str, Stage); 4] {
        [("accepted", self.accepted), ("tls", self.tls), ("setup", self.setup), ("login", self.login)]
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    /// Connections in this stage.
    pub places: usize,
    /// Those of one source; half of the places when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_source: Option<usize>,
}

impl Stage {
    /// How many of the places one source may have.
    pub fn share(self) -> usize {
        self.per_source.unwrap_or(half(self.places))
    }
}

fn half(places: usize) -> usize {
    places.div_ceil(2)
}

/// `auto`, `off`, or a size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub enum MemoryLimit {
    /// What the process's control group allows; none where that is not known.
    Auto,
    Off,
    Bytes(u64),
}

impl FromStr for MemoryLimit {
    type Err = BadText;

    fn from_str(text: &str) -> Result<Self, BadText> {
        match text {
            "auto" => Ok(Self::Auto),
            "off" => Ok(Self::Off),
            size => Ok(Self::Bytes(size.parse::<Size>()?.0)),
        }
    }
}

impl fmt::Display for MemoryLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Off => f.write_str("off"),
            Self::Bytes(bytes) => Size(*bytes).fmt(f),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Timeouts {
    /// From accept to READY or AUTHENTICATE, the dial included.
    #[serde(with = "time")]
    #[schemars(with = "Time")]
    pub setup: Duration,
    /// TCP and TLS connect to a node.
    #[serde(with = "time")]
    #[schemars(with = "Time")]
    pub dial: Duration,
    /// For each round of a login: from what the node said last to the client's answer, and back.
    #[serde(with = "time")]
    #[schemars(with = "Time")]
    pub login: Duration,
    /// A half-closed and silent connection is closed after this.
    #[serde(with = "time")]
    #[schemars(with = "Time")]
    pub half_closed: Duration,
    /// How long a connection may wait for room within limits.held_total.
    #[serde(with = "time")]
    #[schemars(with = "Time")]
    pub hold: Duration,
    /// A client that takes nothing of what it is owed is closed after this. Not one that has vanished: that is found within a minute
    /// or so, whatever this is.
    #[serde(with = "time")]
    #[schemars(with = "Time")]
    pub dead_peer: Duration,
    /// The longest life of a connection: it is then ended as a drain does it, some of them up to half of the time sooner, so that those
    /// which were opened together do not end together. For ever when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_age: Option<Time>,
}

impl Default for Timeouts {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            setup: seconds(10),
            dial: seconds(2),
            login: seconds(10),
            half_closed: seconds(30),
            hold: seconds(10),
            // Longer than what a healthy program does between two pages; nodes themselves wait for ever.
            dead_peer: seconds(5 * 60),
            max_age: None,
        }
    }
}

impl Timeouts {
    /// The times that are there, with the names of their keys.
    pub fn named(&self) -> impl Iterator<Item = (&'static str, Duration)> {
        let always = [
            ("setup", self.setup),
            ("dial", self.dial),
            ("login", self.login),
            ("half_closed", self.half_closed),
            ("hold", self.hold),
            ("dead_peer", self.dead_peer),
        ];
        always.into_iter().chain(self.max_age.map(|age| ("max_age", age.0)))
    }
}

/// What follows from wrong passwords.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Logins {
    /// The longest that a login waits after wrong passwords for the same source and user; 0s: none waits.
    #[serde(with = "time")]
    #[schemars(with = "Time")]
    pub delay: Duration,
    /// Keeps a source out after so many wrong passwords. Only where clients' own addresses are seen: behind a load balancer that
    /// hides them it would keep everybody out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_out: Option<KeepOut>,
}

impl Default for Logins {
    fn default() -> Self {
        Self { delay: Duration::from_secs(5), keep_out: None }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KeepOut {
    /// Wrong passwords of one source, none of them older than `lasts`.
    pub after: u32,
    /// For how long.
    #[serde(with = "time")]
    #[schemars(with = "Time")]
    pub lasts: Duration,
}

/// When the file has changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Reload {
    /// It is read again after a time of its own choice up to this, so that several gateways that are given the same file do not
    /// change at once.
    #[serde(with = "time")]
    #[schemars(with = "Time")]
    pub jitter: Duration,
}

/// What happens between SIGTERM and the end.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Drain {
    /// Not ready, still accepting: the time a load balancer needs to notice.
    #[serde(with = "time")]
    #[schemars(with = "Time")]
    pub delay: Duration,
    /// Connections are then closed one after the other, over this time.
    #[serde(with = "time")]
    #[schemars(with = "Time")]
    pub spread: Duration,
    /// What is left so long after the delay is closed.
    #[serde(with = "time")]
    #[schemars(with = "Time")]
    pub deadline: Duration,
    /// After a connection's end was said, for how long its input is still read and thrown away, so that no reset overtakes the last
    /// answer.
    #[serde(with = "time")]
    #[schemars(with = "Time")]
    pub linger: Duration,
    /// Offers GRACEFUL_DISCONNECT (CEP-59, in no release of Cassandra yet) to clients that speak v5: those that registered are told of a
    /// drain, and that their node's pod is being ended, and leave by themselves.
    pub graceful_disconnect: bool,
}

impl Default for Drain {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            delay: seconds(0),
            spread: seconds(5),
            deadline: seconds(30),
            linger: seconds(1),
            graceful_disconnect: false,
        }
    }
}
