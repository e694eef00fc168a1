//! What was seen in an answer: whose rows it had, and what became of them.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::SystemTable;
use crate::label::{Label, label_set};
use crate::topology::{HiddenReason, HostId, Unserved};

/// Rows left out, and rows kept, that a report names; beyond them they are counted.
const MAX_NAMED: usize = 1024;

/// What became of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rewritten {
    Unchanged,
    Frame,
    Refused,
}

label_set! {
    /// Why a request got an ERROR of the gateway's own.
    pub enum RefusedRequest {
        /// A projection of an address in a form that cannot be rewritten.
        InternalAddress = "internal_address",
    }
}

/// An answer, and what was seen in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    pub table: SystemTable,
    pub rewritten: Rewritten,
    /// The first of the rows that were left out.
    pub hidden: Vec<HiddenRow>,
    /// How many more were.
    pub hidden_besides: Vec<(LeftOut, u64)>,
    /// The first of the rows of nodes that are not served here and passed all the same.
    pub kept: Vec<KeptRow>,
    /// How many more there were.
    pub kept_besides: Vec<(Unserved, u64)>,
    /// From a row of `system.local`: what the attached node says of itself, if its columns are what they are called.
    pub local: Option<LocalRow>,
}

/// A row that was left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HiddenRow {
    pub host_id: Option<HostId>,
    pub address: Option<SocketAddr>,
    pub reason: LeftOut,
}

/// The row of a node that this gateway does not serve, which passed as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptRow {
    pub host_id: Option<HostId>,
    /// Where the node is for clients, as the row says: port 0 where it names none, `None` where it names no address.
    pub address: Option<SocketAddr>,
    pub node: Unserved,
}

/// Why a row was left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeftOut {
    /// Its node is not shown.
    Hidden(HiddenReason),
    /// The View shows no peers.
    View,
}

impl Label for LeftOut {
    fn label(self) -> &'static str {
        match self {
            Self::Hidden(reason) => reason.label(),
            Self::View => "view",
        }
    }
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

impl Report {
    pub(super) fn of(table: SystemTable) -> Self {
        Self {
            table,
            rewritten: Rewritten::Unchanged,
            hidden: Vec::new(),
            hidden_besides: Vec::new(),
            kept: Vec::new(),
            kept_besides: Vec::new(),
            local: None,
        }
    }

    pub(super) fn hide(&mut self, row: HiddenRow) {
        if self.hidden.len() < MAX_NAMED {
            self.hidden.push(row);
        } else {
            count(&mut self.hidden_besides, row.reason);
        }
    }

    pub(super) fn keep(&mut self, row: KeptRow) {
        if self.kept.len() < MAX_NAMED {
            self.kept.push(row);
        } else {
            count(&mut self.kept_besides, row.node);
        }
    }

    /// The same, now that it is known what goes out: of a refused answer no row does.
    pub(super) fn with(self, rewritten: Rewritten) -> Self {
        if rewritten == Rewritten::Refused {
            return Self { rewritten, kept: Vec::new(), kept_besides: Vec::new(), ..self };
        }
        Self { rewritten, ..self }
    }
}

fn count<T: PartialEq>(counts: &mut Vec<(T, u64)>, of: T) {
    match counts.iter_mut().find(|(counted, _)| *counted == of) {
        Some((_, count)) => *count += 1,
        None => counts.push((of, 1)),
    }
}
