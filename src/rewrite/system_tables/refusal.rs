//! What a client is told whose request is refused: why, and what to ask instead.

use super::{MAX_COLUMNS, MAX_LOOKED_AT, SystemTable};
use crate::label::Label;

/// Why an answer is refused. Columns are named by their place in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A value would show an internal address: this column's, or in JSON that of this name in it.
    Shows {
        column: usize,
        member: Option<String>,
    },
    /// Up to this column a row is longer than what is looked through.
    TooLong {
        column: usize,
    },
    /// A port, in a row that does not say whose it is.
    WhosePort {
        has_peer: bool,
    },
    TooManyColumns,
}

impl Refusal {
    pub fn of_column(column: usize) -> Self {
        Self::Shows { column, member: None }
    }

    /// In words, for an answer from this table with columns of these names.
    pub fn text(&self, table: SystemTable, names: &[String]) -> String {
        let table = table.label();
        let name = |column: &usize| names.get(*column).map_or("", String::as_str);
        match self {
            Self::Shows { column, member } => {
                let within = member.as_ref().map(|member| format!(" ({member})")).unwrap_or_default();
                format!(
                    "cqlgate: {table}.{}{within} would show the internal address of a node; select the columns rpc_address, \
                     rpc_port, native_address or native_port by their own names, as in SELECT JSON and toJson(), too",
                    name(column)
                )
            }
            Self::TooLong { column } => format!(
                "cqlgate: {table}.{}: no more than {} KiB of a row are looked through for internal addresses; select fewer columns \
                 at once",
                name(column),
                MAX_LOOKED_AT / 1024
            ),
            Self::WhosePort { has_peer } => {
                let instead = if *has_peer { "host_id" } else { "host_id or peer" };
                format!(
                    "cqlgate: {table}: each node has another port here, and a row does not say whose it is; select {instead} with \
                     native_port"
                )
            }
            Self::TooManyColumns => format!(
                "cqlgate: more than {MAX_COLUMNS} columns of a system table are asked for; select each of them once"
            ),
        }
    }
}
