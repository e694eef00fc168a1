//! The JSON of `/topology`. People script on it: keys may be added, none is renamed, removed or given another meaning.

use std::net::SocketAddr;
use std::time::SystemTime;

use jiff::Timestamp;
use serde::Serialize;

use crate::label::Label;
use crate::topology::cordons::Cordons;
use crate::topology::{Family, Hidden, HostId, Mapped, Node, NodeId, Path, Topology};

/// What clients may be told now, and what they are not.
///
/// ```json
/// {
///   "generation": 7,
///   "nodes": [
///     {
///       "name": "cassandra-0",
///       "host_id": "6d1a5e3c-0d0a-4e0c-8f0e-1c8f6f0d2a11",
///       "dc": "dc1",
///       "rack": "rack1",
///       "port": 9042,
///       "advertised": "203.0.113.10:9042",
///       "advertised_ipv6": "[2001:db8::10]:9042",
///       "address": "10.1.2.3:9042",
///       "state": "up",
///       "since": "2026-01-31T12:00:00Z",
///       "connections": 12,
///       "cordoned": false
///     }
///   ],
///   "hidden": [
///     {"name": null, "host_id": null, "address": "10.1.2.9:9042", "reason": "no_port"},
///     {"name": "cassandra-2", "host_id": null, "address": null, "reason": "not_resolved"}
///   ],
///   "kept": [
///     {"name": null, "host_id": "8f0e1c8f-0d0a-4e0c-8f0e-6d1a5e3c2a11", "address": "10.9.2.3:9042", "reason": "remote"}
///   ]
/// }
/// ```
#[derive(Debug, Serialize)]
pub struct Shown {
    /// Grows with every change, within the life of one process.
    generation: u64,
    /// Of which path this is, and which there are (`?path=NAME` shows each); present only where there are several.
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    paths: Vec<String>,
    /// Every node that has a port, by port.
    nodes: Vec<ShownNode>,
    /// Nodes that clients are not shown. Not in `nodes`, unless the reason is `not_announced`, or `not_allowed` of one that has moved.
    hidden: Vec<ShownHidden>,
    /// Rows of nodes that are not served here, which clients read of late as the node sent them.
    kept: Vec<ShownHidden>,
}

#[derive(Debug, Serialize)]
struct ShownNode {
    /// As discovery calls it: the listed name, the pod, or the host_id.
    name: String,
    /// `null` until learned.
    host_id: Option<String>,
    dc: Option<String>,
    rack: Option<String>,
    /// The port of the external address that stands for the node.
    port: u16,
    /// Why it is another one than the node's ordinal, or a pin, would give it, for people to read; present only then.
    #[serde(skip_serializing_if = "Option::is_none")]
    port_why: Option<String>,
    /// What clients dial: the IPv4 address, or the only one. `null` while the advertised name has not been resolved.
    advertised: Option<SocketAddr>,
    /// Present only when an IPv6 address is advertised.
    #[serde(skip_serializing_if = "Option::is_none")]
    advertised_ipv6: Option<SocketAddr>,
    /// What the gateway dials; of a node that is gone, the last.
    address: SocketAddr,
    /// `pending` (not yet shown to clients), `up`, `down` or `gone` (its port waits in quarantine).
    state: &'static str,
    /// When it entered that state: RFC 3339, UTC, whole seconds (`jq`'s `fromdate` takes no fractions).
    since: String,
    /// Open client connections of the port.
    connections: usize,
    /// This replica lets no new connection to it.
    cordoned: bool,
}

#[derive(Debug, Serialize)]
struct ShownHidden {
    /// As in `nodes`; `null` where only a row of the node was seen.
    name: Option<String>,
    host_id: Option<String>,
    address: Option<SocketAddr>,
    /// `no_port`, `not_announced`, `not_allowed`, `not_confirmed`, `not_owned`, `too_long`, `not_resolved` (listed by a DNS name that
    /// never had an address), `not_advertised` or `same_endpoint` (on this path), `remote` or `ghost`; of what is kept only the last two.
    reason: &'static str,
}

impl Shown {
    /// As clients of `path` see it. `kept` are rows that passed as they were; `connections` says how many client connections a port has.
    pub fn new(
        topology: &Topology,
        path: Option<&Path>,
        kept: &[Hidden],
        cordons: &Cordons,
        connections: &dyn Fn(u16) -> usize,
    ) -> Self {
        let show = |hidden: &Hidden| ShownHidden {
            name: hidden.id.as_ref().or_else(|| known(topology, hidden)).map(NodeId::to_string),
            host_id: hidden.host_id.map(text),
            address: hidden.address,
            reason: hidden.reason.label(),
        };
        let nodes = topology.nodes.iter().map(|node| ShownNode {
            connections: connections(node.port),
            cordoned: cordons.has(&node.id),
            ..shown(node, path)
        });
        let of_path = topology.nodes.iter().filter(|node| node.is_announced()).filter_map(|node| {
            let (id, host_id, address) = (Some(node.id.clone()), node.host_id, None);
            path?.hides(node).map(|reason| Hidden { id, host_id, address, reason })
        });
        let hidden = topology.hidden.iter().map(show).chain(of_path.map(|hidden| show(&hidden))).collect();
        let paths: Vec<String> = topology.paths.iter().map(|path| path.name.to_string()).collect();
        let several = paths.len() > 1;
        Self {
            generation: topology.generation,
            path: path.filter(|_| several).map(|path| path.name.to_string()),
            paths: if several { paths } else { Vec::new() },
            nodes: nodes.collect(),
            hidden,
            kept: kept.iter().map(show).collect(),
        }
    }
}

fn shown(node: &Node, path: Option<&Path>) -> ShownNode {
    let over = |family: Family| path.and_then(|path| path.endpoint(node, family));
    let (over_ipv4, over_ipv6) = (over(Family::Ipv4), over(Family::Ipv6));
    ShownNode {
        name: node.id.to_string(),
        host_id: node.host_id.map(text),
        dc: node.data_center.as_deref().map(str::to_owned),
        rack: node.rack.as_deref().map(str::to_owned),
        port: node.port,
        port_why: node.port_why.as_deref().map(str::to_owned),
        advertised: over_ipv4,
        advertised_ipv6: over_ipv6.filter(SocketAddr::is_ipv6),
        address: node.address,
        state: node.state.label(),
        since: utc(node.since),
        connections: 0,
        cordoned: false,
    }
}

/// The node whose row was hidden, where it has a port.
fn known<'a>(topology: &'a Topology, hidden: &Hidden) -> Option<&'a NodeId> {
    let by_host_id = hidden.host_id.and_then(|host_id| topology.node_by_host_id(host_id)).map(|node| &node.id);
    by_host_id.or_else(|| match topology.map_native(hidden.address?) {
        Mapped::Current(node) => Some(&node.id),
        _ => None,
    })
}

fn text(host_id: HostId) -> String {
    host_id.to_string()
}

/// A time that jiff cannot show (beyond the year 9999) is a clock that is wrong anyway.
fn utc(time: SystemTime) -> String {
    format!("{:.0}", Timestamp::try_from(time).unwrap_or(Timestamp::UNIX_EPOCH))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use serde_json::{Value, json};

    use super::*;
    use crate::topology::{Advertised, HiddenReason, NodeState};

    fn hidden(id: Option<&str>, host_id: Option<u128>, address: Option<&str>, reason: HiddenReason) -> Hidden {
        let host_id = host_id.map(|number| HostId(uuid::Uuid::from_u128(number)));
        Hidden { id: id.map(NodeId::new), host_id, address: address.map(|text| text.parse().unwrap()), reason }
    }

    fn check(topology: &Topology, expected: Value) {
        let kept = [hidden(None, Some(7), Some("10.9.2.3:9042"), HiddenReason::Remote)];
        let shown =
            Shown::new(topology, topology.paths.last().map(|path| &**path), &kept, &Cordons::default(), &|port| {
                usize::from(port - 9040)
            });
        assert_eq!(serde_json::to_value(&shown).unwrap(), expected);
    }

    fn advertised(ipv4: Option<&str>, ipv6: Option<&str>) -> Advertised {
        Advertised { ipv4: ipv4.map(|a| a.parse().unwrap()), ipv6: ipv6.map(|a| a.parse().unwrap()) }
    }

    #[test]
    fn shows_every_node_with_a_port_and_what_is_hidden() {
        let up = Node {
            data_center: Some(Arc::from("dc1")),
            rack: Some(Arc::from("rack1")),
            since: SystemTime::UNIX_EPOCH + Duration::from_millis(1_769_860_800_700),
            ..Node::example("cassandra-0", 9042, "10.1.2.3:9042")
        };
        let gone = Node {
            state: NodeState::Gone,
            host_id: None,
            port_why: Some("by hand".into()),
            ..Node::example("cassandra-1", 9043, "[fd00::4]:9042")
        };
        let hidden = vec![
            hidden(None, Some(9042), None, HiddenReason::NotAnnounced),
            hidden(None, None, Some("10.1.2.9:9042"), HiddenReason::NoPort),
            hidden(None, None, Some("10.1.2.3:9042"), HiddenReason::NotAnnounced),
            hidden(Some("cassandra-2"), None, None, HiddenReason::NotResolved),
        ];
        let topology = Topology::new(7, advertised(Some("203.0.113.10"), None), [gone, up]).with_hidden(hidden);
        check(
            &topology,
            json!({
                "generation": 7,
                "nodes": [
                    {
                        "name": "cassandra-0", "host_id": "00000000-0000-0000-0000-000000002352", "dc": "dc1", "rack": "rack1",
                        "port": 9042, "advertised": "203.0.113.10:9042", "address": "10.1.2.3:9042", "state": "up",
                        "since": "2026-01-31T12:00:00Z", "connections": 2, "cordoned": false,
                    },
                    {
                        "name": "cassandra-1", "host_id": null, "dc": null, "rack": null,
                        "port": 9043, "port_why": "by hand", "advertised": "203.0.113.10:9043", "address": "[fd00::4]:9042",
                        "state": "gone",
                        "since": "1970-01-01T00:00:00Z", "connections": 3, "cordoned": false,
                    },
                ],
                "hidden": [
                    {
                        "name": "cassandra-0", "host_id": "00000000-0000-0000-0000-000000002352", "address": null,
                        "reason": "not_announced",
                    },
                    {"name": null, "host_id": null, "address": "10.1.2.9:9042", "reason": "no_port"},
                    {"name": "cassandra-0", "host_id": null, "address": "10.1.2.3:9042", "reason": "not_announced"},
                    {"name": "cassandra-2", "host_id": null, "address": null, "reason": "not_resolved"},
                ],
                "kept": [
                    {
                        "name": null, "host_id": "00000000-0000-0000-0000-000000000007", "address": "10.9.2.3:9042",
                        "reason": "remote",
                    },
                ],
            }),
        );
    }

    #[test]
    fn advertised_is_ipv4_or_the_only_one() {
        for (given, ipv4, ipv6) in [
            (advertised(Some("203.0.113.10"), None), json!("203.0.113.10:9042"), None),
            (
                advertised(Some("203.0.113.10"), Some("2001:db8::10")),
                json!("203.0.113.10:9042"),
                Some(json!("[2001:db8::10]:9042")),
            ),
            (advertised(None, Some("2001:db8::10")), json!("[2001:db8::10]:9042"), Some(json!("[2001:db8::10]:9042"))),
            (advertised(None, None), Value::Null, None),
        ] {
            let node = Node::example("a", 9042, "10.1.2.3:9042");
            let topology = Topology::new(1, given, [node]);
            let path = topology.paths.last().map(|path| &**path);
            let shown = Shown::new(&topology, path, &[], &Cordons::default(), &|_| 0);
            let value = serde_json::to_value(&shown).unwrap();
            let node = &value["nodes"][0];
            assert_eq!((&node["advertised"], node.get("advertised_ipv6")), (&ipv4, ipv6.as_ref()));
        }
    }

    #[test]
    fn a_node_that_its_path_cannot_tell_is_among_the_hidden() {
        use crate::config::External;
        use crate::config::advertise::{self, DialledPort, Part, Told};
        use crate::topology::Paths;

        let part = |port, external| Part::new(port, port, external, DialledPort::Only(9042));
        let at = || External::ip([203, 0, 113, 10].into());
        let parts = vec![part(9042, at()), part(9043, External::Service("b".to_owned())), part(9044, at())];
        let plan = [advertise::Path::new("inside", Told::Pods), advertise::Path::new("outside", Told::Ports(parts))];
        let nodes = [9042, 9043, 9044]
            .map(|port| Node::example(&format!("n{port}"), port, &format!("10.1.2.{}:9042", port - 9040)));
        let paths = Arc::new(Paths::of(&plan, &std::collections::BTreeMap::new(), &Paths::default()));
        let topology = Topology::new(1, paths, nodes);
        let shown = |name| {
            let path = topology.paths.named(name).map(|path| &**path);
            serde_json::to_value(Shown::new(&topology, path, &[], &Cordons::default(), &|_| 0)).unwrap()
        };
        let outside = shown("outside");
        let reasons = |value: &Value| -> Vec<_> {
            let hidden = value["hidden"].as_array().unwrap().iter();
            hidden.map(|hidden| (hidden["name"].to_string(), hidden["reason"].to_string())).collect()
        };
        let expected = [("n9043", "not_advertised"), ("n9044", "same_endpoint")];
        assert_eq!(reasons(&outside), expected.map(|(name, why)| (format!("\"{name}\""), format!("\"{why}\""))));
        assert_eq!(outside["nodes"][0]["advertised"], json!("203.0.113.10:9042"));
        assert_eq!(outside["nodes"][1]["advertised"], Value::Null);
        assert_eq!((&outside["path"], &outside["paths"]), (&json!("outside"), &json!(["inside", "outside"])));
        let inside = shown("inside");
        assert_eq!((reasons(&inside), &inside["nodes"][1]["advertised"]), (Vec::new(), &json!("10.1.2.3:9042")));
    }
}
