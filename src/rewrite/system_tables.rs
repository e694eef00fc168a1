//! Rows of `system.local`, `system.peers` and `system.peers_v2`, as a client may see them.
//!
//! Only what a client dials is replaced; the internode identity (`peer`, `broadcast_address`, `host_id`, `tokens` …) stays,
//! because drivers use it in WHERE clauses and as keys. What is decided is decided by the answer's own metadata, so any
//! projection, any paging and any spelling of the query is right; columns in JSON are columns. No internal native address leaves in
//! any form: what cannot be replaced is refused with a CQL error, and what cannot be understood ends the connection. Rows of nodes
//! that are not served here are left out, or pass as they are where the configuration says so: then nothing in them is a served
//! node's. Rows that tell of no node are the cluster's, and pass.

mod addresses;
mod columns;
mod disclosure;
mod json;
mod json_parts;
mod refusal;
mod report;
mod row;
mod said;
mod shown;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use thiserror::Error;

use super::Work;
use super::view::View;
use super::view::drivers::Injection;
use crate::config;
use crate::cql::frame::{Flags, HEADER_LEN, Header};
use crate::cql::primitives::{DecodeError, Reader, Value};
use crate::cql::rows::{self, ColumnType, NewColumn, RowsHead, RowsWriter, Types};
use crate::label::{Label, LabelSet, label_set};
use crate::topology::{Family, Node, Path, Topology};
use columns::{Role, Roles};
use refusal::Refusal;
pub use report::{HiddenRow, KeptRow, LeftOut, LocalRow, RefusedRequest, Report, Rewritten};
use row::{Cell, Owner};

/// The keyspace of all of them.
pub const KEYSPACE: &str = "system";
/// Columns of a system table's answer: the tables have some twenty, and a client may name each more than once.
const MAX_COLUMNS: usize = 1024;
/// Bytes of one row's values that are looked through for addresses. The tokens of a node take some ten KiB.
const MAX_LOOKED_AT: usize = 256 * 1024;

label_set! {
    /// The tables whose rows are rewritten, by their names.
    pub enum SystemTable { Local = "local", Peers = "peers", PeersV2 = "peers_v2", }
}

impl SystemTable {
    fn named(keyspace: &str, table: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|known| keyspace == KEYSPACE && table == known.label())
    }
}

/// True for the tables that carry addresses of nodes. Names are as the node writes them: lower case.
#[inline]
pub fn is_rewritten(keyspace: &str, table: &str) -> bool {
    SystemTable::named(keyspace, table).is_some()
}

/// From where an answer is looked at.
#[derive(Clone)]
pub struct Perspective {
    pub view: &'static dyn View,
    pub topology: Arc<Topology>,
    /// The port, and so the node, that the client is connected to.
    pub attached: u16,
    /// The path by which the client came: what it dials for each node.
    pub path: Arc<Path>,
    /// The family of addresses over which it came.
    pub family: Family,
    /// Columns to inject, when the answer is to a QUERY of a driver that profits.
    pub injection: Injection,
    /// The answer's columns are what they are called.
    pub is_plain: bool,
    /// What becomes of rows of nodes that this gateway does not serve.
    pub unserved: config::Unserved,
}

impl std::fmt::Debug for Perspective {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Perspective").field("attached", &self.attached).finish_non_exhaustive()
    }
}

impl Perspective {
    /// What stands for a node; `None` for one that the client is not told of.
    fn endpoint(&self, node: &Node) -> Option<SocketAddr> {
        self.path.endpoint(node, self.family)
    }

    fn tells(&self, ip: IpAddr) -> bool {
        self.path.tells(ip, &self.topology)
    }

    /// The port that clients dial whichever node they mean, where there is one.
    fn only_port(&self) -> Option<u16> {
        let mut ports = self
            .topology
            .nodes
            .iter()
            .filter(|node| node.is_announced())
            .filter_map(|node| self.endpoint(node))
            .map(|endpoint| endpoint.port());
        let first = ports.next()?;
        ports.all(|port| port == first).then_some(first)
    }
}

/// What goes out in an answer's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Made {
    /// Nothing in it had to change.
    Unchanged,
    /// The frame in its place.
    Frame(Vec<u8>),
    /// The client gets a CQL error with this text instead.
    Refused(String),
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
    #[error("what clients dial for port {0} is not known")]
    NoEndpoint(u16),
}

/// The rewriting of one RESULT/Rows answer of a system table, row by row, in as many turns as it takes. The answer's bytes stay
/// where they are; here is what was made of them.
#[derive(Debug)]
pub struct RowsRewrite {
    perspective: Perspective,
    only_port: Option<u16>,
    report: Report,
    header: Header,
    columns: Columns,
    added: &'static [NewColumn],
    writer: RowsWriter,
    /// Where the next row is in the body.
    at: usize,
    rows_left: usize,
    changed: bool,
    refused: Option<Refusal>,
}

/// The columns of an answer.
#[derive(Debug)]
struct Columns {
    roles: Roles,
    types: Types,
    /// Where each column's type is in `types`.
    roots: Vec<usize>,
    names: Vec<String>,
}

impl RowsRewrite {
    /// Reads what stands before the first row. `body` is whole and not compressed.
    ///
    /// # Errors
    /// The connection must end: the answer cannot be understood, and its raw bytes would show internal addresses.
    pub fn begin(
        header: Header,
        body: &[u8],
        perspective: Perspective,
        work: &mut Work<'_>,
    ) -> Result<Self, Unrewritable> {
        let offset = rows::message_offset(header.flags, body)?;
        let (prefix, message) = body.split_at_checked(offset).unwrap_or((body, &[]));
        let head = RowsHead::parse(message)?;
        let first = head.columns.first().ok_or(Unrewritable::NotASystemTable)?;
        let table = SystemTable::named(first.keyspace, first.table).ok_or(Unrewritable::NotASystemTable)?;
        let columns = Columns::of(&head)?;
        work.values(columns.types.len());
        let added = added(&perspective, table, &head);
        let header = Header { flags: header.flags.without(Flags::COMPRESSION), ..header };
        let mut out = header.encode().to_vec();
        out.extend_from_slice(prefix);
        let refused = (head.column_count > MAX_COLUMNS).then_some(Refusal::TooManyColumns);
        Ok(Self {
            report: Report::of(table),
            only_port: perspective.only_port(),
            perspective,
            header,
            columns,
            added,
            writer: RowsWriter::begin(&head, added, out)?,
            at: offset + head.cells_at,
            rows_left: head.row_count,
            changed: !added.is_empty(),
            refused,
        })
    }

    /// Goes on with the same body; `None` when the work of this turn is used up before the last row.
    ///
    /// # Errors
    /// As [`RowsRewrite::begin`].
    pub fn go_on(&mut self, body: &[u8], work: &mut Work<'_>) -> Result<Option<Made>, Unrewritable> {
        let mut values = Vec::with_capacity(self.columns.names.len());
        let mut cells = Vec::with_capacity(self.columns.names.len() + self.added.len());
        while self.rows_left > 0 && self.refused.is_none() {
            if work.is_used_up() {
                return Ok(None);
            }
            let mut reader = Reader::new(body.get(self.at..).unwrap_or_default());
            values.clear();
            for _ in 0..self.columns.names.len() {
                values.push(reader.value("cell")?);
            }
            self.at += reader.position();
            self.rows_left -= 1;
            work.values(values.len());
            work.decoded(reader.position());
            cells.clear();
            self.row(&values, &mut cells)?;
        }
        if let Some(refusal) = self.refused.take() {
            return Ok(Some(Made::Refused(refusal.text(self.report.table, &self.columns.names))));
        }
        if !self.changed {
            return Ok(Some(Made::Unchanged));
        }
        let mut frame = std::mem::take(&mut self.writer).finish(body.get(self.at..).unwrap_or_default());
        let length = u32::try_from(frame.len() - HEADER_LEN).unwrap_or(u32::MAX);
        let header = Header { length, ..self.header };
        if let Some(start) = frame.first_chunk_mut() {
            *start = header.encode();
        }
        Ok(Some(Made::Frame(frame)))
    }

    fn row<'r>(&mut self, row: &[Value<'r>], cells: &mut Vec<Cell<'r>>) -> Result<(), Unrewritable> {
        if self.report.table == SystemTable::Local {
            self.report.local = Some(self.columns.roles.local_row(row));
        }
        let looking = row::Looking::new(&self.perspective, &self.columns, self.report.table, self.only_port);
        let json = said::json(&self.columns.roles, &self.columns.names, row);
        let node = match looking.owner(row, &json)? {
            Owner::Hidden(row) => {
                self.changed = true;
                self.report.hide(row);
                return Ok(());
            }
            Owner::Kept(kept) => {
                cells.extend(row.iter().map(|&value| Cell::Same(value)));
                self.add(kept.address.map(|address| self.with_port(address)), cells);
                self.report.keep(kept);
                self.writer.row(cells.iter().map(Cell::value));
                return Ok(());
            }
            Owner::Node(node) => Some(node),
            Owner::Nobody => None,
            Owner::Unknown { has_peer } => {
                self.refused = Some(Refusal::WhosePort { has_peer });
                return Ok(());
            }
        };
        match looking.cells(row, &json, node, cells) {
            Ok(changed) => self.changed |= changed,
            Err(refusal) => {
                self.refused = Some(refusal);
                return Ok(());
            }
        }
        self.add(node.and_then(|node| self.perspective.endpoint(node)), cells);
        self.writer.row(cells.iter().map(Cell::value));
        Ok(())
    }

    /// The cells of the injected columns.
    fn add(&self, endpoint: Option<SocketAddr>, cells: &mut Vec<Cell<'_>>) {
        match endpoint.filter(|_| !self.added.is_empty()) {
            Some(endpoint) => cells.extend([Cell::address(endpoint), Cell::port(endpoint.port())]),
            None => cells.extend(self.added.iter().map(|_| Cell::Same(Value::Null))),
        }
    }

    /// Where a node is whose row names no port: nodes that have none in their rows have one port, all of them.
    fn with_port(&self, address: SocketAddr) -> SocketAddr {
        let attached = self.perspective.topology.node_at_port(self.perspective.attached);
        match attached.filter(|_| address.port() == 0) {
            Some(attached) => SocketAddr::new(address.ip(), attached.native_address().port()),
            None => address,
        }
    }

    /// Bytes that are held here.
    pub fn held_bytes(&self) -> usize {
        self.writer.len()
    }

    /// What was seen, once it is known what goes out.
    pub fn into_report(self, made: &Made) -> Report {
        let rewritten = match made {
            Made::Unchanged => Rewritten::Unchanged,
            Made::Frame(_) => Rewritten::Frame,
            Made::Refused(_) => Rewritten::Refused,
        };
        self.report.with(rewritten)
    }
}

impl Columns {
    fn of(head: &RowsHead<'_>) -> Result<Self, DecodeError> {
        let mut types = Types::default();
        let roots: Vec<usize> =
            head.columns.iter().map(|column| types.add(column.column_type)).collect::<Result<_, _>>()?;
        let roles = Roles::of(&head.columns, &types, &roots);
        let names = head.columns.iter().map(|column| column.name.to_owned()).collect();
        Ok(Self { roles, types, roots, names })
    }
}

/// The columns that are injected: only where the answer has what a driver's own query asks for, so that a user's projection
/// keeps its shape.
fn added(perspective: &Perspective, table: SystemTable, head: &RowsHead<'_>) -> &'static [NewColumn] {
    const ADDED: &[NewColumn] = &[
        NewColumn { name: "native_address", column_type: ColumnType::INET },
        NewColumn { name: "native_port", column_type: ColumnType::INT },
    ];
    let wanted = perspective.view.injects()
        && match table {
            SystemTable::Local => perspective.injection.local,
            SystemTable::Peers => perspective.injection.peers,
            SystemTable::PeersV2 => false,
        };
    let has = |name| head.position(name).is_some();
    if wanted && has("rpc_address") && has("host_id") && !has("native_address") && !has("native_port") {
        ADDED
    } else {
        &[]
    }
}

#[cfg(test)]
mod tests;
