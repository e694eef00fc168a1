//! One row: whose it is, and what its cells become.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::disclosure::{Forbidden, Internal};
use super::json::{self, Member, Scalar};
use super::said::{Json, Said};
use super::shown::Shown;
use super::{
    Columns, HiddenRow, KeptRow, LeftOut, MAX_LOOKED_AT, Perspective, Refusal, Role, SystemTable, Unrewritable,
};
use crate::config::Fate;
use crate::cql::primitives::{InetBytes, Value, inet_cell, inet_cell_bytes};
use crate::cql::rows::TypeKind;
use crate::topology::{HiddenReason, HostId, Mapped, Node, NodeState, Unserved};

/// A row's answer to the question whose it is.
pub enum Owner<'a> {
    Node(&'a Node),
    /// Not to be shown.
    Hidden(HiddenRow),
    /// Of a node that this gateway does not serve: it passes as it is.
    Kept(KeptRow),
    /// Says nothing of whose it is, and carries nothing that a client dials but a port that all nodes have: it passes, in every View.
    Nobody,
    /// Carries a port, and does not say whose it is, or by a peer alone of whom nothing is known.
    Unknown {
        has_peer: bool,
    },
}

/// A cell to write, borrowed from the answer or made here.
pub enum Cell<'a> {
    Same(Value<'a>),
    Inet(InetBytes),
    Int([u8; 4]),
    Text(Vec<u8>),
}

impl Cell<'_> {
    pub fn value(&self) -> Value<'_> {
        match self {
            Self::Same(value) => *value,
            Self::Inet(octets) => Value::Bytes(octets.as_ref()),
            Self::Int(octets) => Value::Bytes(octets),
            Self::Text(text) => Value::Bytes(text),
        }
    }

    pub fn address(endpoint: SocketAddr) -> Self {
        Self::Inet(inet_cell_bytes(endpoint.ip()))
    }

    pub fn port(port: u16) -> Self {
        Self::Int(i32::from(port).to_be_bytes())
    }
}

/// A look at the rows of one answer.
pub struct Looking<'a> {
    perspective: &'a Perspective,
    columns: &'a Columns,
    table: SystemTable,
    internal: Internal<'a>,
    only_port: Option<u16>,
}

impl<'a> Looking<'a> {
    /// `only_port`: [`Perspective::only_port`].
    pub fn new(perspective: &'a Perspective, columns: &'a Columns, table: SystemTable, only_port: Option<u16>) -> Self {
        let internal = Internal::of(perspective);
        Self { perspective, columns, table, internal, only_port }
    }

    pub fn owner(&self, row: &[Value<'_>], json: &Json) -> Result<Owner<'a>, Unrewritable> {
        let topology = &self.perspective.topology;
        if self.table == SystemTable::Local {
            let port = self.perspective.attached;
            let node = topology.node_at_port(port).ok_or(Unrewritable::NoNode(port))?;
            self.perspective.endpoint(node).ok_or(Unrewritable::NoEndpoint(port))?;
            return Ok(Owner::Node(node));
        }
        let said = Said::of(&self.columns.roles, row, json);
        let Said { host_id, native, .. } = said;
        let hide = |reason| {
            let address = native.map(|(address, port)| SocketAddr::new(address, port.unwrap_or(0)));
            Owner::Hidden(HiddenRow { host_id, address, reason })
        };
        if !self.perspective.view.shows_peers() {
            return Ok(if said.is_nobodys { Owner::Nobody } else { hide(LeftOut::View) });
        }
        let by_address = || {
            let (address, port) = native.or_else(|| said.peer.map(|peer| (peer, None)))?;
            let mapped = match port {
                Some(port) => topology.map_native(SocketAddr::new(address, port)),
                None => topology.map_native_ip(address),
            };
            match mapped {
                Mapped::Current(node) => Some(node),
                // A row may lag behind the topology, and a topology behind a row: the address alone decides nothing.
                Mapped::Former(_) | Mapped::Gone(_) | Mapped::Unknown => None,
            }
        };
        let by_host_id = host_id.and_then(|host_id| topology.node_by_host_id(host_id)).map(|node| &**node);
        // An address speaks for a node only when nobody knows better: that node must not have another host_id.
        let contradicts = |node: &&Node| matches!((host_id, node.host_id), (Some(row), Some(known)) if row != known);
        match by_host_id.or_else(|| by_address().filter(|node| !contradicts(node))) {
            Some(node) if node.state == NodeState::Pending => Ok(hide(LeftOut::Hidden(HiddenReason::NotAnnounced))),
            // Nothing answers at its port any more: it was taken out of the list, or its row stays behind in the cluster.
            Some(node) if node.state == NodeState::Gone => Ok(hide(LeftOut::Hidden(HiddenReason::Ghost))),
            Some(node) if self.perspective.endpoint(node).is_none() => {
                let reason = self.perspective.path.hides(node).unwrap_or(HiddenReason::NotAdvertised);
                Ok(hide(LeftOut::Hidden(reason)))
            }
            Some(node) => Ok(Owner::Node(node)),
            None if !said.has_endpoint && host_id.is_none() => Ok(Owner::Nobody),
            None if host_id.is_none() && native.is_none() && !said.has_address => {
                let has_peer = said.peer.is_some();
                Ok(if self.only_port.is_some() { Owner::Nobody } else { Owner::Unknown { has_peer } })
            }
            None => match host_id.and_then(|host_id| self.unserved(row, host_id)) {
                Some(node) if self.fate_of(node) == Fate::Keep => {
                    let address = native.or_else(|| said.peer.map(|peer| (peer, None)));
                    let address = address.map(|(address, port)| SocketAddr::new(address, port.unwrap_or(0)));
                    Ok(Owner::Kept(KeptRow { host_id, address, node }))
                }
                node => Ok(hide(LeftOut::Hidden(node.map_or(HiddenReason::NoPort, HiddenReason::from)))),
            },
        }
    }

    /// What a row is that belongs to no node of the topology. `None` where its columns may be called by other names, and where a
    /// value of it is, or has in it, the address of a node that is served.
    fn unserved(&self, row: &[Value<'_>], host_id: HostId) -> Option<Unserved> {
        let data_center = self.columns.roles.data_center(row).filter(|_| self.perspective.is_plain)?;
        let mut addresses = Vec::new();
        let mut left = MAX_LOOKED_AT;
        for (value, &root) in row.iter().zip(&self.columns.roots) {
            let Some(bytes) = value.bytes() else { continue };
            left = left.checked_sub(bytes.len())?;
            let types = &self.columns.types;
            if self.internal.is_in_value(types, root, bytes, Forbidden::Known).unwrap_or(true) {
                return None;
            }
            if types.kind(root) == Some(TypeKind::Inet) {
                addresses.extend(inet_cell(bytes));
            }
        }
        self.perspective.topology.unserved(host_id, data_center, &addresses)
    }

    fn fate_of(&self, node: Unserved) -> Fate {
        match node {
            Unserved::Remote => self.perspective.unserved.remote,
            Unserved::Ghost => self.perspective.unserved.ghosts,
        }
    }

    /// The cells of one row; true when one differs from the node's.
    ///
    /// # Errors
    /// The row cannot be shown.
    pub fn cells<'r>(
        &self,
        row: &[Value<'r>],
        json: &Json,
        node: Option<&Node>,
        cells: &mut Vec<Cell<'r>>,
    ) -> Result<bool, Refusal> {
        let shown = Shown::new((self.perspective, self.columns, self.only_port), row, json, node);
        let mut left = MAX_LOOKED_AT;
        let mut changed = false;
        for (index, (&value, role)) in row.iter().zip(self.columns.roles.iter()).enumerate() {
            let cell = match (role, shown.endpoint) {
                (Role::Address, Some(endpoint)) => Cell::address(endpoint),
                (Role::Port, _) => shown.port.map_or(Cell::Same(Value::Null), Cell::port),
                (Role::Address | Role::Preferred, _) => Cell::Same(Value::Null),
                (Role::Identity, _) => Cell::Same(value),
                (Role::OtherInet, _) => match value.bytes().and_then(inet_cell) {
                    None => Cell::Same(value),
                    Some(address) => Cell::address(self.alias(address, node).ok_or_else(|| Refusal::of_column(index))?),
                },
                (Role::OtherInt, _) => {
                    let bytes = value.bytes().unwrap_or_default();
                    let number = <[u8; 4]>::try_from(bytes).map(i32::from_be_bytes).ok();
                    match number.and_then(|number| shown.port_for(number)) {
                        Some(port) => Cell::port(port),
                        None if self.internal.is_raw_address(bytes) => return Err(Refusal::of_column(index)),
                        None => Cell::Same(value),
                    }
                }
                (Role::Json | Role::Text | Role::Other, _) => {
                    let length = value.bytes().map_or(0, <[u8]>::len);
                    left = left.checked_sub(length).ok_or(Refusal::TooLong { column: index })?;
                    match (json.get(index).and_then(Option::as_ref), value.bytes()) {
                        (Some(members), Some(text)) => {
                            let member = |member: &Member| Some(member.name.clone());
                            let refused = |of| Refusal::Shows { column: index, member: member(of) };
                            self.json(text, members, &shown).map_err(refused)?.map_or(Cell::Same(value), Cell::Text)
                        }
                        _ if self.discloses(role, index, value, node) => return Err(Refusal::of_column(index)),
                        _ => Cell::Same(value),
                    }
                }
            };
            changed |= !matches!(cell, Cell::Same(same) if same == value);
            cells.push(cell);
        }
        Ok(changed)
    }

    /// A text that has columns in it, with these as a client may see them; `None` when nothing has to change.
    ///
    /// # Errors
    /// The one that cannot be shown.
    fn json<'m>(&self, text: &[u8], members: &'m [Member], shown: &Shown<'_>) -> Result<Option<Vec<u8>>, &'m Member> {
        let mut values = Vec::new();
        for member in members {
            let is = std::str::from_utf8(text.get(member.at.clone()).unwrap_or_default()).unwrap_or_default();
            let value = match (member.role, shown.endpoint) {
                (Role::Address, Some(endpoint)) => json::address(endpoint.ip()),
                (Role::Port, _) => shown.port.map_or_else(|| "null".to_owned(), |port| port.to_string()),
                (Role::Address | Role::Preferred, _) => "null".to_owned(),
                (Role::Identity, _) => continue,
                (Role::OtherInet, _) => {
                    let Scalar::Inet(address) = member.value else { return Err(member) };
                    json::address(self.alias(address, shown.node).ok_or(member)?.ip())
                }
                (Role::OtherInt, _) => {
                    let Scalar::Int(number) = member.value else { return Err(member) };
                    match shown.port_for(number) {
                        Some(port) => port.to_string(),
                        None if self.internal.is_raw_address(&number.to_be_bytes()) => return Err(member),
                        None => continue,
                    }
                }
                (Role::Text | Role::Json | Role::Other, _) => {
                    let forbidden = if member.role == Role::Text { Forbidden::Known } else { Forbidden::Any };
                    if !shown.is_place_of_node(member) && self.internal.is_in_json(is, forbidden) {
                        return Err(member);
                    }
                    continue;
                }
            };
            if value != is {
                values.push((&member.at, value));
            }
        }
        Ok((!values.is_empty()).then(|| json::write(text, values.into_iter())))
    }

    /// An address under a name that is not a column's: whose it is, and so what stands for it. `None`: it must not be shown.
    fn alias(&self, address: IpAddr, node: Option<&Node>) -> Option<SocketAddr> {
        if let Some(node) = node.filter(|node| node.native_address().ip().to_canonical() == address.to_canonical()) {
            return self.perspective.endpoint(node);
        }
        match self.perspective.topology.map_native_ip(address) {
            Mapped::Current(node) if node.is_announced() => self.perspective.endpoint(node),
            _ => None,
        }
    }

    /// Whether a value would show an internal address; what cannot be looked into would.
    fn discloses(&self, role: Role, index: usize, value: Value<'_>, node: Option<&Node>) -> bool {
        let (Some(bytes), Some(&root)) = (value.bytes(), self.columns.roots.get(index)) else {
            return value.bytes().is_some();
        };
        let is_known = |known: &Option<Arc<str>>| known.as_deref().is_some_and(|known| known.as_bytes() == bytes);
        if role == Role::Text && node.is_some_and(|node| is_known(&node.data_center) || is_known(&node.rack)) {
            return false;
        }
        let forbidden = if role == Role::Text { Forbidden::Known } else { Forbidden::Any };
        let is_in_json = |text| self.internal.is_in_json(text, forbidden);
        (role == Role::Json && std::str::from_utf8(bytes).is_ok_and(is_in_json))
            || self.internal.is_in_value(&self.columns.types, root, bytes, forbidden).unwrap_or(true)
    }
}
