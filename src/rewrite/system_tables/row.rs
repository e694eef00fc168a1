//! One row: whose it is, and what its cells become.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::disclosure::{Forbidden, Internal};
use super::{Columns, HiddenRow, KeptRow, LeftOut, MAX_LOOKED_AT, Perspective, Role, SystemTable, Unrewritable};
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
    /// Says nothing of whose it is, and carries nothing that a client dials: it passes, in every View.
    Nobody,
    /// Carries something that a client dials, and says nothing of whose it is.
    Unknown,
}

/// A cell to write, borrowed from the answer or made here.
pub enum Cell<'a> {
    Same(Value<'a>),
    Inet(InetBytes),
    Int([u8; 4]),
}

impl Cell<'_> {
    pub fn value(&self) -> Value<'_> {
        match self {
            Self::Same(value) => *value,
            Self::Inet(octets) => Value::Bytes(octets.as_ref()),
            Self::Int(octets) => Value::Bytes(octets),
        }
    }

    pub fn address(endpoint: SocketAddr) -> Self {
        Self::Inet(inet_cell_bytes(endpoint.ip()))
    }

    pub fn port(endpoint: SocketAddr) -> Self {
        Self::Int(i32::from(endpoint.port()).to_be_bytes())
    }
}

/// A look at the rows of one answer.
pub struct Looking<'a> {
    perspective: &'a Perspective,
    columns: &'a Columns,
    table: SystemTable,
    internal: Internal<'a>,
}

impl<'a> Looking<'a> {
    pub fn new(perspective: &'a Perspective, columns: &'a Columns, table: SystemTable) -> Self {
        let internal = Internal::of(&perspective.topology, perspective.advertised);
        Self { perspective, columns, table, internal }
    }

    pub fn owner(&self, row: &[Value<'_>]) -> Result<Owner<'a>, Unrewritable> {
        let topology = &self.perspective.topology;
        if self.table == SystemTable::Local {
            let port = self.perspective.attached;
            return topology.node_at_port(port).map(|node| Owner::Node(node)).ok_or(Unrewritable::NoNode(port));
        }
        let roles = &self.columns.roles;
        let host_id = roles.host_id(row);
        let native = roles.native(row);
        let hide = |reason| {
            let address = native.map(|(address, port)| SocketAddr::new(address, port.unwrap_or(0)));
            Owner::Hidden(HiddenRow { host_id, address, reason })
        };
        if !self.perspective.view.shows_peers() {
            return Ok(if roles.are_nobodys() { Owner::Nobody } else { hide(LeftOut::View) });
        }
        let by_address = || {
            let (address, port) = native.or_else(|| roles.peer(row).map(|peer| (peer, None)))?;
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
            Some(node) => Ok(Owner::Node(node)),
            None if !roles.has_endpoint() && host_id.is_none() => Ok(Owner::Nobody),
            None if host_id.is_none() && native.is_none() && !roles.has_address() => Ok(Owner::Unknown),
            None => match host_id.and_then(|host_id| self.unserved(row, host_id)) {
                Some(node) if self.fate_of(node) == Fate::Keep => {
                    let address = native.or_else(|| roles.peer(row).map(|peer| (peer, None)));
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

    /// The cells of one row; true when one differs from the node's. `Err` is the column that cannot be shown.
    pub fn cells<'r>(&self, row: &[Value<'r>], node: Option<&Node>, cells: &mut Vec<Cell<'r>>) -> Result<bool, usize> {
        let endpoint = node.map(|node| self.perspective.endpoint(node));
        let mut left = MAX_LOOKED_AT;
        let mut aliased = false;
        let mut changed = false;
        for (index, (&value, role)) in row.iter().zip(self.columns.roles.iter()).enumerate() {
            let cell = match (role, endpoint) {
                (Role::Address, Some(endpoint)) => Cell::address(endpoint),
                (Role::Port, Some(endpoint)) => Cell::port(endpoint),
                (Role::Address | Role::Port | Role::Preferred, _) => Cell::Same(Value::Null),
                (Role::Identity | Role::OtherInt, _) => Cell::Same(value),
                (Role::OtherInet, _) => match value.bytes().and_then(inet_cell) {
                    None => Cell::Same(value),
                    Some(address) => {
                        aliased = true;
                        Cell::address(self.alias(address, node).ok_or(index)?)
                    }
                },
                (Role::Text | Role::Other, _) => {
                    left = left.checked_sub(value.bytes().map_or(0, <[u8]>::len)).ok_or(index)?;
                    if self.discloses(role, index, value, node) {
                        return Err(index);
                    }
                    Cell::Same(value)
                }
            };
            changed |= !matches!(cell, Cell::Same(same) if same == value);
            cells.push(cell);
        }
        if let Some((node, endpoint)) = node.zip(endpoint).filter(|_| aliased) {
            changed |= self.replace_aliased_ports(row, node, endpoint, cells);
        }
        for (index, (role, value)) in self.columns.roles.iter().zip(row).enumerate() {
            if role == Role::OtherInt && self.internal.is_raw_address(value.bytes().unwrap_or_default()) {
                return Err(index);
            }
        }
        Ok(changed)
    }

    /// An int under another name, in a row where the node's address was seen under another name too.
    fn replace_aliased_ports(
        &self,
        row: &[Value<'_>],
        node: &Node,
        endpoint: SocketAddr,
        cells: &mut [Cell<'_>],
    ) -> bool {
        let native_port = i32::from(node.native_address().port()).to_be_bytes();
        let mut changed = false;
        for ((cell, role), value) in cells.iter_mut().zip(self.columns.roles.iter()).zip(row) {
            if role == Role::OtherInt && value.bytes() == Some(&native_port) {
                *cell = Cell::port(endpoint);
                changed = true;
            }
        }
        changed
    }

    /// An address under a name that is not a column's: whose it is, and so what stands for it. `None`: it must not be shown.
    fn alias(&self, address: IpAddr, node: Option<&Node>) -> Option<SocketAddr> {
        if let Some(node) = node.filter(|node| node.native_address().ip().to_canonical() == address.to_canonical()) {
            return Some(self.perspective.endpoint(node));
        }
        match self.perspective.topology.map_native_ip(address) {
            Mapped::Current(node) if node.is_announced() => Some(self.perspective.endpoint(node)),
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
        self.internal.is_in_value(&self.columns.types, root, bytes, forbidden).unwrap_or(true)
    }
}
