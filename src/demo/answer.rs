//! A statement and its values in, a RESULT's message or an ERROR out.

use super::cluster::Facts;
use super::request::Parameters;
use super::run::Run;
use super::schema;
use super::statement::{self, Filter, KNOWN, Parsed, Select, Statement, TableName, Term};
use super::table::{self, Column, Table, kind};
use crate::cql::frame::Version;
use crate::cql::message::error_code;
use crate::cql::primitives::{Value, Writer};
use crate::cql::rows::metadata_flags::{GLOBAL_TABLES_SPEC, HAS_MORE_PAGES, METADATA_CHANGED, NO_METADATA};

/// An ERROR's code and text; the texts are those of Cassandra 5.0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub code: i32,
    pub text: String,
}

pub(super) fn invalid(text: impl Into<String>) -> Refusal {
    Refusal { code: error_code::INVALID, text: text.into() }
}

/// The keyspace of a connection, and who answers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scope<'a> {
    pub facts: &'a Facts,
    /// Which member answers.
    pub me: usize,
    pub keyspace: Option<&'a str>,
}

/// A statement with all that its RESULTs need to say: what PREPARE keeps.
#[derive(Clone, Debug)]
pub(super) struct Prepared {
    pub id: [u8; 16],
    pub metadata_id: [u8; 16],
    pub text: String,
    statement: Statement,
    table: Option<(String, String)>,
    variables: Vec<Column>,
    /// Places among the variables of the partition key's columns; empty unless all are there.
    partition_key: Vec<u16>,
    /// Empty for statements without rows.
    result: Vec<Column>,
}

/// Texts that are answered as they are, as `statement::normalised` gives them, and what a real node answered.
const TEXTS: &[(&str, &[u8])] = &[
    ("describe cluster", include_bytes!("captured/texts/describe_cluster")),
    ("describe demo", include_bytes!("captured/texts/describe_demo")),
    ("describe demo.kv", include_bytes!("captured/texts/describe_demo.kv")),
    ("describe keyspace demo", include_bytes!("captured/texts/describe_keyspace_demo")),
    ("describe keyspaces", include_bytes!("captured/texts/describe_keyspaces")),
    ("describe schema", include_bytes!("captured/texts/describe_schema")),
    ("describe table demo.kv", include_bytes!("captured/texts/describe_table_demo.kv")),
    ("describe tables", include_bytes!("captured/texts/describe_tables")),
    (
        "select keyspace_name, tojson(replication) as replication from system_schema.keyspaces",
        include_bytes!(
            "captured/texts/select_keyspace_name,_tojson(replication)_as_replication_from_system_schema.keyspaces"
        ),
    ),
];

/// The message captured for a text as it is.
pub(super) fn captured_text(text: &str) -> Option<&'static [u8]> {
    let text = statement::normalised(text);
    TEXTS.iter().find(|(known, _)| *known == text).map(|&(_, message)| message)
}

/// Finds out what a statement is about, without running it.
pub(super) fn prepare(scope: Scope<'_>, text: &str) -> Result<Prepared, Refusal> {
    let Parsed { statement, variables: names } = statement::parse(text).ok_or_else(|| invalid(KNOWN))?;
    let mut prepared = Prepared {
        id: fingerprint(&[scope.keyspace.unwrap_or_default().as_bytes(), text.as_bytes()]),
        metadata_id: [0; 16],
        text: text.to_owned(),
        table: None,
        variables: vec![Column { name: String::new(), kind: Vec::new() }; names.len()],
        partition_key: Vec::new(),
        result: Vec::new(),
        statement,
    };
    let table_name = match &prepared.statement {
        Statement::Select(Select { table, .. }) | Statement::Upsert { table, .. } | Statement::Delete { table, .. } => {
            table
        }
        Statement::Create(_) | Statement::Use(_) => {
            prepared.metadata_id = fingerprint(&[]);
            return Ok(prepared);
        }
    };
    let table = find(scope, table_name)?;
    let mut variables = std::mem::take(&mut prepared.variables);
    let mut is = |term: &Term, name: String, kind: Vec<u8>| {
        if let Term::Variable(at) = term
            && let (Some(variable), Some(given)) = (variables.get_mut(*at), names.get(*at))
        {
            *variable = Column { name: if given.is_empty() { name } else { given.clone() }, kind };
        }
    };
    match &prepared.statement {
        Statement::Select(select) => {
            for filter in &select.filters {
                let column = column_of(&table, filter.column())?;
                match filter {
                    Filter::Equals(_, term) => is(term, column.name.clone(), column.kind.clone()),
                    Filter::In(_, terms) => {
                        terms.iter().for_each(|term| is(term, column.name.clone(), column.kind.clone()));
                    }
                    Filter::InList(_, term) => {
                        is(term, format!("in({})", column.name), [&kind::LIST[..], &column.kind].concat());
                    }
                }
            }
            if let Some(term) = &select.limit {
                is(term, "[limit]".to_owned(), kind::INT.to_vec());
            }
            prepared.result = result_columns(&table, select)?.into_iter().map(|(_, column)| column).collect();
        }
        Statement::Upsert { cells, .. } => {
            writable(&table)?;
            for (name, term) in cells {
                let column = column_of(&table, name)?;
                is(term, column.name.clone(), column.kind.clone());
            }
        }
        Statement::Delete { key: (name, term), .. } => {
            writable(&table)?;
            let column = column_of(&table, name)?;
            is(term, column.name.clone(), column.kind.clone());
        }
        Statement::Create(_) | Statement::Use(_) => {}
    }
    let key = table::key_columns(&table.keyspace, &table.name, "partition_key");
    let places = key.iter().map(|name| variables.iter().position(|variable| variable.name == *name));
    prepared.partition_key =
        places.map(|at| at.and_then(|at| u16::try_from(at).ok())).collect::<Option<_>>().unwrap_or_default();
    prepared.variables = variables;
    prepared.metadata_id = fingerprint(&[&columns_bytes(&prepared.result)]);
    prepared.table = Some((table.keyspace, table.name));
    Ok(prepared)
}

impl Prepared {
    /// RESULT/Prepared (native_protocol_v5.spec §4.2.5.4).
    pub fn message(&self, version: Version) -> Vec<u8> {
        let mut out = Vec::new();
        let mut writer = Writer::new(&mut out);
        writer.i32(4).short_bytes(&self.id);
        if version >= Version::V5 {
            writer.short_bytes(&self.metadata_id);
        }
        let count = |list: usize| i32::try_from(list).unwrap_or(i32::MAX);
        let flag = |list: &[Column]| if list.is_empty() { 0 } else { GLOBAL_TABLES_SPEC };
        writer.i32(flag(&self.variables)).i32(count(self.variables.len()));
        if version >= Version::V4 {
            writer.i32(count(self.partition_key.len()));
            self.partition_key.iter().for_each(|&at| _ = writer.u16(at));
        }
        self.write_columns(&mut writer, &self.variables);
        let none = if self.result.is_empty() { NO_METADATA } else { 0 };
        writer.i32(flag(&self.result) | none).i32(count(self.result.len()));
        self.write_columns(&mut writer, &self.result);
        out
    }

    fn write_columns(&self, writer: &mut Writer<'_>, columns: &[Column]) {
        if let (Some((keyspace, table)), false) = (&self.table, columns.is_empty()) {
            writer.string(keyspace).string(table).raw(&columns_bytes(columns));
        }
    }

    /// Runs the statement. `metadata_id` is what a v5 EXECUTE says that it knows.
    pub fn run(
        &self,
        scope: Scope<'_>,
        parameters: &Parameters<'_>,
        metadata_id: Option<&[u8]>,
    ) -> Result<Vec<u8>, Refusal> {
        if parameters.values.len() != self.variables.len() {
            return Err(invalid("Invalid amount of bind variables"));
        }
        let run = Run { variables: &self.variables, parameters };
        match &self.statement {
            Statement::Select(select) => {
                let table = self.find(scope)?;
                let (rows, paging_state) = run.page(run.select(&table, select)?)?;
                let mut flags = GLOBAL_TABLES_SPEC;
                let changed = metadata_id.is_some_and(|id| id != self.metadata_id);
                if changed {
                    flags |= METADATA_CHANGED;
                } else if parameters.skip_metadata {
                    flags |= NO_METADATA;
                }
                if paging_state.is_some() {
                    flags |= HAS_MORE_PAGES;
                }
                let mut out = Vec::new();
                let mut writer = Writer::new(&mut out);
                let count = |list: usize| i32::try_from(list).unwrap_or(i32::MAX);
                writer.i32(2).i32(flags).i32(count(self.result.len()));
                if let Some(state) = paging_state {
                    writer.value(Value::Bytes(&state));
                }
                if changed {
                    writer.short_bytes(&self.metadata_id);
                }
                if flags & NO_METADATA == 0 {
                    self.write_columns(&mut writer, &self.result);
                }
                writer.i32(count(rows.len()));
                for cell in rows.iter().flatten() {
                    writer.value(cell.as_deref().map_or(Value::Null, Value::Bytes));
                }
                Ok(out)
            }
            Statement::Upsert { cells, .. } => {
                let table = self.find(scope)?;
                everywhere(scope, &table)?;
                run.upsert(scope, &table, cells)
            }
            Statement::Delete { key: (name, term), .. } => {
                let table = self.find(scope)?;
                let key = run.key(&table, name, term)?;
                scope.facts.lock().pairs.remove(&key);
                Ok(void())
            }
            Statement::Create(name) => schema::create(scope, name),
            Statement::Use(keyspace) if table::keyspace_exists(keyspace) => {
                let mut out = Vec::new();
                Writer::new(&mut out).i32(3).string(keyspace);
                Ok(out)
            }
            Statement::Use(keyspace) => Err(invalid(format!("Keyspace '{keyspace}' does not exist"))),
        }
    }

    fn find(&self, scope: Scope<'_>) -> Result<Table, Refusal> {
        let found = self.table.as_ref().and_then(|(keyspace, name)| scope.facts.table(scope.me, keyspace, name));
        found.ok_or_else(|| invalid(KNOWN))
    }

    /// The keyspace that a USE sets.
    pub fn sets_keyspace(&self) -> Option<&str> {
        match &self.statement {
            Statement::Use(keyspace) => Some(keyspace),
            _ => None,
        }
    }
}

pub(super) fn void() -> Vec<u8> {
    1i32.to_be_bytes().to_vec()
}

fn find(scope: Scope<'_>, name: &TableName) -> Result<Table, Refusal> {
    let keyspace = name.keyspace.as_deref().or(scope.keyspace).ok_or_else(|| {
        invalid("No keyspace has been specified. USE a keyspace, or explicitly specify keyspace.tablename")
    })?;
    if !table::keyspace_exists(keyspace) {
        return Err(invalid(format!("keyspace {keyspace} does not exist")));
    }
    let table = scope.facts.table(scope.me, keyspace, &name.name);
    table.ok_or_else(|| invalid(format!("table {} does not exist", name.name)))
}

fn writable(table: &Table) -> Result<(), Refusal> {
    if table.keyspace == "demo" { Ok(()) } else { Err(invalid(KNOWN)) }
}

/// A replica that does not know the table yet cannot take the write.
fn everywhere(scope: Scope<'_>, table: &Table) -> Result<(), Refusal> {
    let known = table.name == "kv" || scope.facts.lock().schema.is_everywhere(&table.name);
    if known { Ok(()) } else { Err(invalid(format!("unconfigured table {}", table.name))) }
}

pub(super) fn undefined(table: &Table, column: &str) -> Refusal {
    invalid(format!("Undefined column name {column} in table {}.{}", table.keyspace, table.name))
}

pub(super) fn column_of<'t>(table: &'t Table, name: &str) -> Result<&'t Column, Refusal> {
    table.columns.iter().find(|column| column.name == name).ok_or_else(|| undefined(table, name))
}

/// The columns of a SELECT: their places in the table, and how the answer names them.
pub(super) fn result_columns(table: &Table, select: &Select) -> Result<Vec<(usize, Column)>, Refusal> {
    if select.columns.is_empty() {
        return Ok(table.columns.iter().cloned().enumerate().collect());
    }
    let one = |(name, alias): &(String, Option<String>)| {
        let at = table.position(name).ok_or_else(|| undefined(table, name))?;
        let kind = column_of(table, name)?.kind.clone();
        Ok((at, Column { name: alias.clone().unwrap_or_else(|| name.clone()), kind }))
    };
    select.columns.iter().map(one).collect()
}

fn columns_bytes(columns: &[Column]) -> Vec<u8> {
    let mut out = Vec::new();
    for column in columns {
        Writer::new(&mut out).string(&column.name).raw(&column.kind);
    }
    out
}

/// 16 bytes that are the same for the same parts on every node (FNV-1a, 128 bits).
pub(super) fn fingerprint(parts: &[&[u8]]) -> [u8; 16] {
    let mut hash = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d_u128;
    for byte in parts.iter().flat_map(|part| part.iter().chain(&[0xff])) {
        hash = (hash ^ u128::from(*byte)).wrapping_mul(0x0100_0000_0000_0000_0000_013b);
    }
    hash.to_be_bytes()
}

#[cfg(test)]
mod tests;
