//! The schema as each node has it: CREATE TABLE of one shape, and nodes that apply a change late.
//!
//! A table that was created has the columns and the rows of `demo.kv`. As with real nodes, who creates it has it at once and says so;
//! whoever writes to it before all others have it is told that it cannot be.

use std::collections::BTreeMap;

use super::answer::{Refusal, Scope, invalid};
use super::statement::TableName;
use crate::cql::primitives::Writer;

/// Tables that may be created: whoever does shares this machine's memory.
const MOST: usize = 20_000;

/// Changes are numbered; 0 is the schema of the captured tables.
#[derive(Debug, Default)]
pub(crate) struct Schema {
    /// With the change that made it.
    tables: BTreeMap<String, u64>,
    latest: u64,
    nodes: Vec<Applied>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Applied {
    change: u64,
    /// Changes that others make are not applied for now.
    lags: bool,
}

impl Schema {
    pub fn of(nodes: usize) -> Self {
        Self { nodes: vec![Applied::default(); nodes], ..Self::default() }
    }

    /// The change that a node has applied last.
    pub fn applied(&self, node: usize) -> u64 {
        self.nodes.get(node).map_or(0, |applied| applied.change)
    }

    pub fn set_lags(&mut self, node: usize, lags: bool) {
        let latest = self.latest;
        if let Some(applied) = self.nodes.get_mut(node) {
            applied.lags = lags;
            applied.change = if lags { applied.change } else { latest };
        }
    }

    /// Whether a node has a table of `demo` that was created.
    pub fn has(&self, node: usize, table: &str) -> bool {
        self.tables.get(table).is_some_and(|change| *change <= self.applied(node))
    }

    /// Whether all of them have it.
    pub fn is_everywhere(&self, table: &str) -> bool {
        (0..self.nodes.len()).all(|node| self.has(node, table))
    }

    fn create(&mut self, by: usize, table: &str) {
        self.latest += 1;
        self.tables.insert(table.to_owned(), self.latest);
        for (node, applied) in self.nodes.iter_mut().enumerate() {
            if node == by || !applied.lags {
                applied.change = self.latest;
            }
        }
    }
}

/// CREATE TABLE: RESULT/Schema_change (native_protocol_v4.spec §4.2.5.5).
pub(super) fn create(scope: Scope<'_>, name: &TableName) -> Result<Vec<u8>, Refusal> {
    let keyspace = name.keyspace.as_deref().or(scope.keyspace);
    if keyspace != Some("demo") {
        return Err(invalid("the simulated node creates tables in demo only"));
    }
    let mut state = scope.facts.lock();
    if name.name == "kv" || state.schema.tables.contains_key(&name.name) {
        return Err(invalid(format!("Cannot add already existing table \"{}\" to keyspace \"demo\"", name.name)));
    }
    if state.schema.tables.len() >= MOST {
        return Err(invalid(format!("there are {MOST} tables")));
    }
    state.schema.create(scope.me, &name.name);
    let mut out = Vec::new();
    Writer::new(&mut out).i32(5).string("CREATED").string("TABLE").string("demo").string(&name.name);
    Ok(out)
}
