//! Rows of `system.local`, `system.peers` and `system.peers_v2`, as a client may see them.
//!
//! Only what a client dials is replaced; the internode identity (`peer`, `broadcast_address`, `host_id`, `tokens` …) stays,
//! because drivers use it in WHERE clauses and as keys. What is decided is decided by the answer's own metadata, so any
//! projection, any paging and any spelling of the query is right. No internal native address leaves in any form: what
//! cannot be replaced is refused with a CQL error, and what cannot be understood ends the connection.

mod columns;
mod disclosure;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use thiserror::Error;

use super::view::View;
use super::view::drivers::Injection;
use crate::cql::frame::{Flags, HEADER_LEN, Header, encode_frame};
use crate::cql::primitives::{DecodeError, InetBytes, Value, inet_cell, inet_cell_bytes};
use crate::cql::rows::{self, ColumnType, NewColumn, Rows, RowsWriter};
use crate::topology::{HiddenReason, HostId, Mapped, Node, NodeState, Topology};
use columns::{Role, Roles};
use disclosure::{Forbidden, Internal};

/// The keyspace of all of them.
pub const KEYSPACE: &str = "system";
/// The names of all of them.
pub const REWRITTEN: [&str; 3] = ["local", "peers", "peers_v2"];

/// The tables whose rows are rewritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SystemTable {
    Local,
    Peers,
    PeersV2,
}

impl SystemTable {
    fn named(keyspace: &str, table: &str) -> Option<Self> {
        match (keyspace, table) {
            (KEYSPACE, "local") => Some(Self::Local),
            (KEYSPACE, "peers") => Some(Self::Peers),
            (KEYSPACE, "peers_v2") => Some(Self::PeersV2),
            _ => None,
        }
    }
}

/// True for the tables that carry addresses of nodes. Names are as the node writes them: lower case.
#[inline]
pub fn is_rewritten(keyspace: &str, table: &str) -> bool {
    SystemTable::named(keyspace, table).is_some()
}

/// From where an answer is looked at.
#[derive(Clone, Copy)]
pub struct Perspective<'a> {
    pub view: &'a dyn View,
    pub topology: &'a Topology,
    /// The port, and so the node, that the client is connected to.
    pub attached: u16,
    /// The external address for this client.
    pub advertised: IpAddr,
    /// Columns to inject, when the answer is to a QUERY of a driver that profits.
    pub injection: Injection,
}

/// What became of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rewritten {
    /// Nothing in it had to change.
    Unchanged,
    /// The frame in its place.
    Frame(Vec<u8>),
    /// The client gets a CQL error with this text instead.
    Refused(String),
}

/// An answer, and what was seen in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    pub table: SystemTable,
    pub rewritten: Rewritten,
    pub hidden: Vec<HiddenRow>,
    /// From a row of `system.local`: what the attached node says of itself, if its columns are what they are called.
    pub local: Option<LocalRow>,
}

/// A row that was left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HiddenRow {
    pub host_id: Option<HostId>,
    pub address: Option<SocketAddr>,
    /// `None`: the View shows no peers.
    pub reason: Option<HiddenReason>,
}

/// What a node's own row says; only the columns that the client asked for are there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalRow {
    pub host_id: Option<HostId>,
    /// `rpc_address`, with `rpc_port` where the node has one.
    pub native: Option<(IpAddr, Option<u16>)>,
    pub data_center: Option<Arc<str>>,
    pub rack: Option<Arc<str>>,
    pub cluster_name: Option<Arc<str>>,
}

/// Why an answer can neither pass nor be rewritten.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Unrewritable {
    #[error("not a Rows result: {0}")]
    Malformed(#[from] DecodeError),
    #[error("no metadata of a system table")]
    NotASystemTable,
    #[error("port {0} has no node")]
    NoNode(u16),
}

/// Rewrites one RESULT/Rows frame of a system table.
///
/// # Errors
/// The connection must end: the frame cannot be understood, and its raw bytes would show internal addresses.
pub fn rewrite_rows(frame: &[u8], perspective: &Perspective<'_>) -> Result<Report, Unrewritable> {
    let header = Header::peek(frame).ok_or(DecodeError::Malformed { what: "frame header" })?;
    let body = frame.get(HEADER_LEN..).unwrap_or_default();
    let offset = rows::message_offset(header.flags, body)?;
    let (prefix, message) = body.split_at_checked(offset).unwrap_or((body, &[]));
    let rows = Rows::parse(message)?;
    let first = rows.columns.first().ok_or(Unrewritable::NotASystemTable)?;
    let table = SystemTable::named(first.keyspace, first.table).ok_or(Unrewritable::NotASystemTable)?;
    let rewriting = Rewriting {
        perspective,
        table,
        roles: Roles::of(&rows.columns)?,
        internal: Internal::of(perspective.topology, perspective.advertised),
    };
    let (rewritten, hidden, local) = rewriting.rewrite(&rows, header, prefix)?;
    Ok(Report { table, rewritten, hidden, local })
}

/// A row's answer to the question whose it is.
enum Owner<'a> {
    Node(&'a Node),
    /// Not to be shown.
    Hidden(HiddenRow),
    /// Says nothing of whose it is, and carries nothing that a client dials.
    Nobody,
    /// Carries something that a client dials, and says nothing of whose it is.
    Unknown,
}

struct Rewriting<'a> {
    perspective: &'a Perspective<'a>,
    table: SystemTable,
    roles: Roles,
    internal: Internal<'a>,
}

/// A cell to write, borrowed from the answer or made here.
enum Cell<'a> {
    Same(Value<'a>),
    Inet(InetBytes),
    Int([u8; 4]),
}

impl Cell<'_> {
    fn value(&self) -> Value<'_> {
        match self {
            Self::Same(value) => *value,
            Self::Inet(octets) => Value::Bytes(octets.as_ref()),
            Self::Int(octets) => Value::Bytes(octets),
        }
    }
}

impl<'a> Rewriting<'a> {
    fn rewrite(
        &self,
        rows: &Rows<'_>,
        header: Header,
        prefix: &[u8],
    ) -> Result<(Rewritten, Vec<HiddenRow>, Option<LocalRow>), Unrewritable> {
        let added = self.added(rows);
        let mut writer = RowsWriter::begin(rows, added, prefix.to_vec())?;
        let (mut hidden, mut local) = (Vec::new(), None);
        let mut changed = !added.is_empty();
        let mut cells = Vec::with_capacity(rows.column_count + added.len());
        for row in rows.rows() {
            if self.table == SystemTable::Local {
                local = Some(self.roles.local_row(row));
            }
            let node = match self.owner(row)? {
                Owner::Hidden(row) => {
                    hidden.push(row);
                    continue;
                }
                Owner::Node(node) => Some(node),
                Owner::Nobody => None,
                Owner::Unknown => {
                    let text = "cqlgate: select host_id too: without it this row's address cannot be told apart";
                    return Ok((Rewritten::Refused(text.to_owned()), hidden, local));
                }
            };
            cells.clear();
            match self.cells(rows, row, node, &mut cells) {
                Ok(row_changed) => changed |= row_changed,
                Err(column) => return Ok((Rewritten::Refused(refusal(&column)), hidden, local)),
            }
            if let Some(endpoint) = node.filter(|_| !added.is_empty()).map(|node| self.endpoint(node)) {
                cells.push(Cell::Inet(inet_cell_bytes(endpoint.ip())));
                cells.push(Cell::Int(i32::from(endpoint.port()).to_be_bytes()));
            } else {
                cells.extend(added.iter().map(|_| Cell::Same(Value::Null)));
            }
            writer.row(cells.iter().map(Cell::value));
        }
        if !changed && hidden.is_empty() {
            return Ok((Rewritten::Unchanged, hidden, local));
        }
        let flags = header.flags.without(Flags::COMPRESSION);
        let frame = encode_frame(Header { flags, ..header }, &writer.finish());
        Ok((Rewritten::Frame(frame), hidden, local))
    }

    /// The columns that are injected: only where the answer has what a driver's own query asks for, so that a user's
    /// projection keeps its shape.
    fn added(&self, rows: &Rows<'_>) -> &'static [NewColumn] {
        const ADDED: &[NewColumn] = &[
            NewColumn { name: "native_address", column_type: ColumnType::INET },
            NewColumn { name: "native_port", column_type: ColumnType::INT },
        ];
        let wanted = self.perspective.view.injects()
            && match self.table {
                SystemTable::Local => self.perspective.injection.local,
                SystemTable::Peers => self.perspective.injection.peers,
                SystemTable::PeersV2 => false,
            };
        let has = |name| rows.position(name).is_some();
        if wanted && has("rpc_address") && has("host_id") && !has("native_address") && !has("native_port") {
            ADDED
        } else {
            &[]
        }
    }

    fn endpoint(&self, node: &Node) -> SocketAddr {
        self.perspective.view.endpoint(node, self.perspective.advertised)
    }

    fn owner(&self, row: &[Value<'_>]) -> Result<Owner<'a>, Unrewritable> {
        let topology = self.perspective.topology;
        if self.table == SystemTable::Local {
            let port = self.perspective.attached;
            return topology.node_at_port(port).map(|node| Owner::Node(node)).ok_or(Unrewritable::NoNode(port));
        }
        let host_id = self.roles.host_id(row);
        let native = self.roles.native(row);
        let hide = |reason| {
            let address = native.map(|(address, port)| SocketAddr::new(address, port.unwrap_or(0)));
            Owner::Hidden(HiddenRow { host_id, address, reason })
        };
        if !self.perspective.view.shows_peers() {
            return Ok(hide(None));
        }
        let by_address = || {
            let (address, port) = native.or_else(|| self.roles.peer(row).map(|peer| (peer, None)))?;
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
            Some(node) if node.state == NodeState::Pending => Ok(hide(Some(HiddenReason::NotAnnounced))),
            Some(node) => Ok(Owner::Node(node)),
            None if !self.roles.has_endpoint() && host_id.is_none() => Ok(Owner::Nobody),
            None if host_id.is_none() && native.is_none() && !self.roles.has_address() => Ok(Owner::Unknown),
            None => Ok(hide(Some(HiddenReason::NoPort))),
        }
    }

    /// The cells of one row; true when one differs from the node's. `Err` names the column that cannot be shown.
    fn cells<'r>(
        &self,
        rows: &Rows<'_>,
        row: &[Value<'r>],
        node: Option<&Node>,
        cells: &mut Vec<Cell<'r>>,
    ) -> Result<bool, String> {
        let endpoint = node.map(|node| self.endpoint(node));
        let mut aliased = false;
        let mut changed = false;
        for (index, (&value, role)) in row.iter().zip(self.roles.iter()).enumerate() {
            let inet = |address: IpAddr| Cell::Inet(inet_cell_bytes(address));
            let cell = match (role, endpoint) {
                (Role::Address, Some(endpoint)) => inet(endpoint.ip()),
                (Role::Port, Some(endpoint)) => Cell::Int(i32::from(endpoint.port()).to_be_bytes()),
                (Role::Address | Role::Port | Role::Preferred, _) => Cell::Same(Value::Null),
                (Role::Identity, _) => Cell::Same(value),
                (Role::OtherInet, _) => match value.bytes().and_then(inet_cell) {
                    None => Cell::Same(value),
                    Some(address) => match self.alias(address, node) {
                        Some(endpoint) => {
                            aliased = true;
                            inet(endpoint.ip())
                        }
                        None => return Err(column(rows, index)),
                    },
                },
                (Role::OtherInt, _) => Cell::Same(value),
                (Role::Text | Role::Other, _) => {
                    let of = rows.columns.get(index).map(|column| column.column_type);
                    if of.is_none_or(|of| self.discloses(role, of, value, node)) {
                        return Err(column(rows, index));
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
        for (index, (role, value)) in self.roles.iter().zip(row).enumerate() {
            if role == Role::OtherInt && self.internal.is_raw_address(value.bytes().unwrap_or_default()) {
                return Err(column(rows, index));
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
        for ((cell, role), value) in cells.iter_mut().zip(self.roles.iter()).zip(row) {
            if role == Role::OtherInt && value.bytes() == Some(&native_port) {
                *cell = Cell::Int(i32::from(endpoint.port()).to_be_bytes());
                changed = true;
            }
        }
        changed
    }

    /// An address under a name that is not a column's: whose it is, and so what stands for it. `None`: it must not be shown.
    fn alias(&self, address: IpAddr, node: Option<&Node>) -> Option<SocketAddr> {
        if let Some(node) = node.filter(|node| node.native_address().ip().to_canonical() == address.to_canonical()) {
            return Some(self.endpoint(node));
        }
        match self.perspective.topology.map_native_ip(address) {
            Mapped::Current(node) if node.is_announced() => Some(self.endpoint(node)),
            _ => None,
        }
    }

    /// Whether a value would show an internal address; what cannot be looked into would.
    fn discloses(&self, role: Role, of: ColumnType<'_>, value: Value<'_>, node: Option<&Node>) -> bool {
        let Some(bytes) = value.bytes() else { return false };
        let is_known = |known: &Option<Arc<str>>| known.as_deref().is_some_and(|known| known.as_bytes() == bytes);
        if role == Role::Text && node.is_some_and(|node| is_known(&node.data_center) || is_known(&node.rack)) {
            return false;
        }
        let forbidden = if role == Role::Text { Forbidden::Known } else { Forbidden::Any };
        self.internal.is_in_value(of, bytes, forbidden).unwrap_or(true)
    }
}

fn column(rows: &Rows<'_>, index: usize) -> String {
    rows.columns.get(index).map(|column| format!("{}.{}", column.table, column.name)).unwrap_or_default()
}

fn refusal(column: &str) -> String {
    format!(
        "cqlgate: {column} would show the internal address of a node; select the columns rpc_address, rpc_port, \
         native_address or native_port by their own names"
    )
}

#[cfg(test)]
mod tests;
