//! EVENT (native_protocol_v5.spec §4.2.6): the same body in v3, v4 and v5.

use std::net::SocketAddr;

use super::super::primitives::{DecodeError, Reader, Writer};

pub const STATUS_CHANGE: &str = "STATUS_CHANGE";
pub const TOPOLOGY_CHANGE: &str = "TOPOLOGY_CHANGE";
pub const SCHEMA_CHANGE: &str = "SCHEMA_CHANGE";
/// See `rewrite::graceful_disconnect`.
pub const GRACEFUL_DISCONNECT: &str = "GRACEFUL_DISCONNECT";

/// What STATUS_CHANGE and TOPOLOGY_CHANGE say of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NodeChange {
    Up,
    Down,
    NewNode,
    RemovedNode,
    MovedNode,
}

impl NodeChange {
    const ALL: [Self; 5] = [Self::Up, Self::Down, Self::NewNode, Self::RemovedNode, Self::MovedNode];

    /// The event type that carries it: what REGISTER names.
    pub fn event_type(self) -> &'static str {
        match self {
            Self::Up | Self::Down => STATUS_CHANGE,
            Self::NewNode | Self::RemovedNode | Self::MovedNode => TOPOLOGY_CHANGE,
        }
    }

    /// The word on the wire. MOVED_NODE is not in the specification; nodes send it all the same.
    pub fn word(self) -> &'static str {
        match self {
            Self::Up => "UP",
            Self::Down => "DOWN",
            Self::NewNode => "NEW_NODE",
            Self::RemovedNode => "REMOVED_NODE",
            Self::MovedNode => "MOVED_NODE",
        }
    }
}

/// One event. Types and changes are open sets: what is not known keeps its words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A known change of the node at `address` (its native address and port).
    Node { change: NodeChange, address: SocketAddr },
    /// A STATUS_CHANGE or TOPOLOGY_CHANGE with a word that is not known; it still names an address.
    OtherNode { event_type: &'a str, change: &'a str, address: SocketAddr },
    /// SCHEMA_CHANGE; `body` is the whole message.
    Schema { body: &'a [u8] },
    /// GRACEFUL_DISCONNECT: the client is to leave this connection.
    GracefulDisconnect,
    /// Every other type; `body` is the whole message.
    Unknown { event_type: &'a str, body: &'a [u8] },
}

impl<'a> Event<'a> {
    pub fn parse(message: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(message);
        let event_type = reader.string("EVENT type")?;
        match event_type {
            STATUS_CHANGE | TOPOLOGY_CHANGE => {
                let word = reader.string("EVENT change")?;
                let address = reader.inet("EVENT address")?;
                let known =
                    NodeChange::ALL.into_iter().find(|known| known.event_type() == event_type && known.word() == word);
                Ok(match known {
                    Some(change) => Self::Node { change, address },
                    None => Self::OtherNode { event_type, change: word, address },
                })
            }
            SCHEMA_CHANGE => Ok(Self::Schema { body: message }),
            GRACEFUL_DISCONNECT => Ok(Self::GracefulDisconnect),
            _ => Ok(Self::Unknown { event_type, body: message }),
        }
    }

    /// The type's name on the wire.
    pub fn event_type(&self) -> &'a str {
        match self {
            Self::Node { change, .. } => change.event_type(),
            Self::OtherNode { event_type, .. } | Self::Unknown { event_type, .. } => event_type,
            Self::Schema { .. } => SCHEMA_CHANGE,
            Self::GracefulDisconnect => GRACEFUL_DISCONNECT,
        }
    }

    /// The body of the EVENT.
    pub fn encode(&self) -> Vec<u8> {
        let (event_type, change, address) = match *self {
            Self::Node { change, address } => (change.event_type(), change.word(), address),
            Self::OtherNode { event_type, change, address } => (event_type, change, address),
            Self::Schema { body } | Self::Unknown { body, .. } => return body.to_vec(),
            Self::GracefulDisconnect => {
                let mut body = Vec::new();
                Writer::new(&mut body).string(GRACEFUL_DISCONNECT);
                return body;
            }
        };
        let mut body = Vec::with_capacity(64);
        Writer::new(&mut body).string(event_type).string(change).inet(address);
        body
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(bytes: &[u8], expected: Event<'_>) {
        assert_eq!(Event::parse(bytes), Ok(expected));
        assert_eq!(expected.encode(), bytes);
    }

    #[test]
    fn status_change_is_type_word_and_inet() {
        let bytes = b"\0\x0dSTATUS_CHANGE\0\x04DOWN\x04\x0a\x4d\0\x0d\0\0\x23\x52";
        let address = SocketAddr::from(([10, 77, 0, 13], 9042));
        check(bytes, Event::Node { change: NodeChange::Down, address });
        for have in 0..bytes.len() {
            assert!(Event::parse(&bytes[..have]).unwrap_err().is_truncated());
        }
    }

    #[test]
    fn every_change_round_trips_in_both_families() {
        for change in NodeChange::ALL {
            for ip in ["10.77.0.14", "fd00::14"] {
                let event = Event::Node { change, address: SocketAddr::new(ip.parse().unwrap(), 9042) };
                let bytes = event.encode();
                check(&bytes, event);
            }
        }
    }

    #[test]
    fn unknown_words_and_types_are_kept() {
        let address = SocketAddr::from(([10, 0, 0, 1], 1));
        let event = Event::OtherNode { event_type: STATUS_CHANGE, change: "NEW_NODE", address };
        check(&event.encode(), event);
        let bytes = b"\0\x14CLIENT_ROUTES_CHANGE\0\x01X";
        check(bytes, Event::Unknown { event_type: "CLIENT_ROUTES_CHANGE", body: bytes });
        check(b"\0\x13GRACEFUL_DISCONNECT", Event::GracefulDisconnect);
        let bytes = b"\0\x0dSCHEMA_CHANGE\0\x07CREATED\0\x08KEYSPACE\0\x01k";
        check(bytes, Event::Schema { body: bytes });
    }
}
