//! What a row's cells become that are dialled, in its columns and in the JSON of some.

use std::net::SocketAddr;
use std::sync::Arc;

use super::json::{Member, Scalar};
use super::said::Json;
use super::{Columns, Perspective, Role};
use crate::cql::primitives::{Value, inet_cell};
use crate::topology::{Mapped, Node};

/// What stands for a row's node, in all of its cells.
pub struct Shown<'n> {
    pub node: Option<&'n Node>,
    pub endpoint: Option<SocketAddr>,
    /// Its port, or that of all nodes.
    pub port: Option<u16>,
    /// Where an address was seen under another name than a column's: an int like this port, the node's own, is a port, too, and this
    /// one stands for it.
    aliased: Option<(u16, u16)>,
}

impl<'n> Shown<'n> {
    pub fn new(
        (perspective, columns, only_port): (&'n Perspective, &Columns, Option<u16>),
        row: &[Value<'_>],
        json: &Json,
        node: Option<&'n Node>,
    ) -> Self {
        let endpoint = |node: &Node| perspective.endpoint(node);
        let mut cells = columns.roles.iter().zip(row).filter(|(role, _)| *role == Role::OtherInet);
        let in_json = json.iter().flatten().flatten().filter(|member| member.role == Role::OtherInet);
        let mut in_json = in_json.filter_map(|member| match member.value {
            Scalar::Inet(address) => Some(address),
            _ => None,
        });
        let alias = cells.find_map(|(_, value)| value.bytes().and_then(inet_cell)).or_else(|| in_json.next());
        let by_alias = |address| match perspective.topology.map_native_ip(address) {
            Mapped::Current(node) => Some(node),
            _ => None,
        };
        let meant = alias.and_then(|address| node.or_else(|| by_alias(address)));
        let own = node.and_then(endpoint);
        Self {
            node,
            endpoint: own,
            port: own.map(|own| own.port()).or(only_port),
            aliased: meant.and_then(|node| Some((node.native_address().port(), endpoint(node)?.port()))),
        }
    }

    /// What stands for an int under another name, where it is the node's port.
    pub fn port_for(&self, number: i32) -> Option<u16> {
        self.aliased.filter(|&(native, _)| i32::from(native) == number).map(|(_, port)| port)
    }

    /// True for the name of the data center or rack that the node is known to be in, which may be called like an address.
    pub fn is_place_of_node(&self, member: &Member) -> bool {
        let name = match &member.value {
            Scalar::Text(text) => text.clone(),
            Scalar::Inet(address) => address.to_string(),
            _ => return false,
        };
        let is_it = |known: &Option<Arc<str>>| known.as_deref() == Some(name.as_str());
        member.role == Role::Text && self.node.is_some_and(|node| is_it(&node.data_center) || is_it(&node.rack))
    }
}
