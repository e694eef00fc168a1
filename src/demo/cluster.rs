//! What all simulated nodes know: who is in the cluster, and the rows of `demo.kv`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use uuid::Uuid;

use super::schema::Schema;
use super::table::{self, Cell, Table};
use crate::cql::frame::Version;
use crate::cql::primitives::inet_cell_bytes;

/// One node of the cluster as the others see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub host_id: Uuid,
    /// The native address, which is the internode address too.
    pub address: SocketAddr,
    pub data_center: String,
    pub rack: String,
    pub token: i64,
    /// False before it has joined, and once it was decommissioned: no row speaks of it.
    pub member: bool,
    /// What it takes its cluster to be called; `None`: as the others do.
    pub cluster_name: Option<String>,
    /// Members (by host_id) that it has no row of.
    pub blind_to: Vec<Uuid>,
}

/// The facts that rows are made of. Tests change them while nodes run.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    shared: Arc<Mutex<State>>,
}

#[derive(Debug)]
pub(crate) struct State {
    pub members: Vec<Member>,
    /// Versions above it are refused.
    pub newest: Version,
    /// Nodes before 4.0 have no `system.peers_v2`.
    pub peers_v2: bool,
    pub schema: Schema,
    /// `demo.kv`: k → v
    pub pairs: BTreeMap<Vec<u8>, Cell>,
}

/// Rows that `demo.kv` may have: whoever fills it shares this machine's memory.
pub(super) const MAX_PAIRS: usize = 1_000_000;

impl Facts {
    pub fn new(members: Vec<Member>) -> Self {
        let schema = Schema::of(members.len());
        let state = State { members, newest: Version::V5, peers_v2: true, schema, pairs: BTreeMap::new() };
        Self { shared: Arc::new(Mutex::new(state)) }
    }

    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What node `me` shows as this table at this moment; `None` when it has none of the name.
    pub(super) fn table(&self, me: usize, keyspace: &str, name: &str) -> Option<Table> {
        let state = self.lock();
        let created = keyspace == "demo" && state.schema.has(me, name);
        let captured = table::captured(keyspace, if created { "kv" } else { name })?;
        let rows = match (keyspace, name) {
            ("system", "local") => {
                let template = captured.rows.first()?;
                let applied = state.schema.applied(me);
                state.members.get(me).into_iter().map(|member| local_row(captured, template, member, applied)).collect()
            }
            ("system", "peers_v2") if !state.peers_v2 => return None,
            ("system", "peers" | "peers_v2") => {
                let template = captured.rows.first()?;
                let blind_to = state.members.get(me).map_or(&[][..], |member| &member.blind_to);
                let others = state
                    .members
                    .iter()
                    .enumerate()
                    .filter(|&(index, member)| index != me && member.member && !blind_to.contains(&member.host_id));
                let row = |(index, member)| peer_row(captured, template, member, state.schema.applied(index));
                others.map(row).collect()
            }
            ("demo", _) => state.pairs.iter().map(|(k, v)| vec![Some(k.clone()), v.clone()]).collect(),
            _ => captured.rows.clone(),
        };
        Some(Table { rows, name: name.to_owned(), ..captured.clone() })
    }
}

fn local_row(table: &Table, template: &[Cell], member: &Member, applied: u64) -> Vec<Cell> {
    let mut row = template.to_vec();
    let address = inet_cell_bytes(member.address.ip());
    for column in ["broadcast_address", "listen_address", "rpc_address"] {
        table.set(&mut row, column, address.as_ref());
    }
    if let Some(name) = &member.cluster_name {
        table.set(&mut row, "cluster_name", name.as_str());
    }
    table.set(&mut row, "rpc_port", i32::from(member.address.port()).to_be_bytes());
    identity(table, &mut row, member, applied);
    row
}

fn peer_row(table: &Table, template: &[Cell], member: &Member, applied: u64) -> Vec<Cell> {
    let mut row = template.to_vec();
    let address = inet_cell_bytes(member.address.ip());
    for column in ["peer", "rpc_address", "native_address"] {
        table.set(&mut row, column, address.as_ref());
    }
    table.set(&mut row, "native_port", i32::from(member.address.port()).to_be_bytes());
    identity(table, &mut row, member, applied);
    row
}

fn identity(table: &Table, row: &mut [Cell], member: &Member, applied: u64) {
    // As captured where nothing was changed.
    if applied > 0 {
        table.set(row, "schema_version", Uuid::from_u128(applied.into()).as_bytes().as_slice());
    }
    table.set(row, "host_id", member.host_id.as_bytes().as_slice());
    table.set(row, "data_center", member.data_center.as_str());
    table.set(row, "rack", member.rack.as_str());
    table.set(row, "tokens", table::text_set(&[&member.token.to_string()]));
}
