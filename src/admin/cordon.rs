//! `PUT /nodes/NAME/cordon` and `/uncordon`: whether new connections to a node are taken, by this replica.

use hyper::StatusCode;

use super::Parts;
use crate::topology::NodeId;

/// What is wanted of a node.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wish {
    /// As it is written in the path, decoded; not one that there need be.
    name: String,
    cordoned: bool,
}

impl Wish {
    /// `None` where the path is another one.
    pub(super) fn of(path: &str) -> Option<Self> {
        let (name, verb) = path.strip_prefix("/nodes/")?.split_once('/')?;
        let cordoned = match verb {
            "cordon" => true,
            "uncordon" => false,
            _ => return None,
        };
        Some(Self { name: decoded(name)?, cordoned })
    }

    /// Does it, and says what follows.
    pub(super) fn carry_out(self, parts: &Parts) -> (StatusCode, String) {
        let Self { name, cordoned } = self;
        let topology = parts.topology.borrow().clone();
        let id = NodeId::new(&name);
        let Some(node) = topology.node_by_id(&id) else {
            // One that has left can still be let go.
            if !cordoned && parts.cordons.set(&id, false) {
                return (
                    StatusCode::OK,
                    format!("{name} is not cordoned any more; no node of that name is known now\n"),
                );
            }
            let known: String = topology.nodes.iter().map(|node| format!("{}\n", node.id)).collect();
            return (StatusCode::NOT_FOUND, format!("no node {name:?}; there are:\n{known}"));
        };
        let port = node.port;
        if parts.cordons.set(&id, cordoned) {
            parts.metrics.node(&name).cordoned.set(i64::from(cordoned));
            tracing::info!(node = name, port, "{}", if cordoned { "node cordoned" } else { "node uncordoned" });
        }
        let said = if cordoned {
            let open = (parts.connections)(port);
            format!("{name} is cordoned in this replica: new connections to port {port} are closed; {open} go on\n")
        } else {
            format!("{name} is not cordoned: new connections to port {port} are taken\n")
        };
        (StatusCode::OK, said)
    }
}

/// A segment of a path without its escapes (RFC 3986, section 2.1); `None` where they are none.
fn decoded(segment: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let (byte, after) = match (first, after) {
            (b'%', [high, low, after @ ..]) => {
                let digit = |of: &u8| char::from(*of).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
                (digit(high)? << 4 | digit(low)?, after)
            }
            (b'%', _) => return None,
            _ => (first, after),
        };
        bytes.push(byte);
        rest = after;
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_be_escaped_and_a_path_must_be_one_of_two() {
        let wish = |name: &str, cordoned| Some(Wish { name: name.to_owned(), cordoned });
        assert_eq!(Wish::of("/nodes/cassandra-2/cordon"), wish("cassandra-2", true));
        assert_eq!(Wish::of("/nodes/rack%20a%2Fone/uncordon"), wish("rack a/one", false));
        for path in [
            "/nodes/a",
            "/nodes/a/drain",
            "/nodes/a/cordon/",
            "/nodes/%2/cordon",
            "/nodes/%zz/cordon",
            "/nodes/%ff/cordon",
        ] {
            assert_eq!(Wish::of(path), None, "{path}");
        }
    }
}
