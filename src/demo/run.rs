//! Runs a statement: which rows a SELECT is answered with (`WHERE` and `IN` compare cells with values of the column's type, then
//! `LIMIT` and the page cut what is left), and what a write does to `demo.kv`.

use uuid::Uuid;

use super::answer::{Refusal, Scope, column_of, fingerprint, invalid, result_columns, undefined, void};
use super::cluster::MAX_PAIRS;
use super::request::Parameters;
use super::statement::{Filter, Select, Term};
use super::table::{self, Cell, Column, Table, kind};
use crate::cql::message::error_code;
use crate::cql::primitives::{Reader, Value, inet_cell_bytes};

/// Rows, and where the next page begins.
pub(super) type Page = (Vec<Vec<Cell>>, Option<Vec<u8>>);

/// One run of a statement: its variables and what they are bound to.
pub(super) struct Run<'a> {
    pub variables: &'a [Column],
    pub parameters: &'a Parameters<'a>,
}

impl Run<'_> {
    /// The value of a term for a column of type `kind`; the outer `None` is *not set*.
    fn term(&self, term: &Term, kind: &[u8]) -> Result<Option<Cell>, Refusal> {
        let at = match term {
            Term::Null => return Ok(Some(None)),
            Term::Literal(text) => return literal(text, kind).map(|bytes| Some(Some(bytes))),
            Term::Variable(at) => *at,
        };
        let name = self.variables.get(at).map(|variable| variable.name.as_str());
        let named = self.parameters.values.iter().find(|(given, _)| given.is_some() && *given == name);
        match named.or_else(|| self.parameters.values.get(at)).map(|&(_, value)| value) {
            Some(Value::Bytes(bytes)) => Ok(Some(Some(bytes.to_vec()))),
            Some(Value::Null) => Ok(Some(None)),
            Some(Value::Unset) => Ok(None),
            None => Err(invalid("Invalid amount of bind variables")),
        }
    }

    pub fn select(&self, table: &Table, select: &Select) -> Result<Vec<Vec<Cell>>, Refusal> {
        let partition = table::key_columns(&table.keyspace, &table.name, "partition_key");
        let clustering = table::key_columns(&table.keyspace, &table.name, "clustering");
        let mut wanted = Vec::new();
        for filter in &select.filters {
            let column = filter.column();
            let at = table.position(column).ok_or_else(|| undefined(table, column))?;
            if !select.allow_filtering && !partition.contains(&column) && !clustering.contains(&column) {
                return Err(invalid(
                    "Cannot execute this query as it might involve data filtering and thus may have unpredictable \
                     performance. If you want to execute this query despite the performance unpredictability, use ALLOW \
                     FILTERING",
                ));
            }
            let kind = table.columns.get(at).map(|column| column.kind.as_slice()).unwrap_or_default();
            let values = match filter {
                Filter::Equals(_, term) => vec![self.term(term, kind)?.flatten()],
                Filter::In(_, terms) => {
                    terms.iter().map(|term| Ok(self.term(term, kind)?.flatten())).collect::<Result<_, Refusal>>()?
                }
                Filter::InList(_, term) => list_elements(self.term(term, kind)?.flatten()),
            };
            wanted.push((at, values));
        }
        let limit = match &select.limit {
            None => usize::MAX,
            Some(term) => {
                let bytes = self.term(term, &kind::INT)?.flatten().unwrap_or_default();
                let limit = <[u8; 4]>::try_from(bytes.as_slice()).ok().map(i32::from_be_bytes);
                limit
                    .and_then(|limit| usize::try_from(limit).ok())
                    .filter(|&limit| limit > 0)
                    .ok_or_else(|| invalid("LIMIT must be strictly positive"))?
            }
        };
        let places: Vec<usize> = result_columns(table, select)?.into_iter().map(|(at, _)| at).collect();
        let matches = |row: &&Vec<Cell>| {
            wanted.iter().all(|(at, values)| row.get(*at).is_some_and(|cell| cell.is_some() && values.contains(cell)))
        };
        let rows = table.rows.iter().filter(matches).take(limit);
        Ok(rows.map(|row| places.iter().map(|&at| row.get(at).cloned().flatten()).collect()).collect())
    }

    /// The page asked for and where the next one begins.
    pub fn page(&self, mut rows: Vec<Vec<Cell>>) -> Result<Page, Refusal> {
        let start = match self.parameters.paging_state {
            None => 0,
            Some(state) => {
                let start = state.first_chunk().map(|start| u32::from_be_bytes(*start));
                let start = start.filter(|&start| paging_state(start) == state).ok_or_else(|| Refusal {
                    code: error_code::PROTOCOL_ERROR,
                    text: "Invalid value for the paging state".to_owned(),
                })?;
                start as usize
            }
        };
        let size = self.parameters.page_size.unwrap_or(usize::MAX);
        let mut page = rows.split_off(start.min(rows.len()));
        if page.len() <= size {
            return Ok((page, None));
        }
        page.truncate(size);
        Ok((page, u32::try_from(start + size).ok().map(paging_state)))
    }

    pub fn key(&self, table: &Table, name: &str, term: &Term) -> Result<Vec<u8>, Refusal> {
        let column = column_of(table, name)?;
        if name != "k" {
            return Err(invalid("Some partition key parts are missing: k"));
        }
        self.term(term, &column.kind)?
            .flatten()
            .ok_or_else(|| invalid(format!("Invalid null value in condition for column {name}")))
    }

    pub fn upsert(&self, scope: Scope<'_>, table: &Table, cells: &[(String, Term)]) -> Result<Vec<u8>, Refusal> {
        let missing = || invalid("Some partition key parts are missing: k");
        let (name, term) = cells.iter().find(|(name, _)| name == "k").ok_or_else(missing)?;
        let key = self.key(table, name, term)?;
        let mut value = None;
        for (name, term) in cells.iter().filter(|(name, _)| name != "k") {
            value = self.term(term, &column_of(table, name)?.kind)?;
        }
        let mut state = scope.facts.lock();
        if state.pairs.len() >= MAX_PAIRS && !state.pairs.contains_key(&key) {
            return Err(Refusal { code: error_code::OVERLOADED, text: format!("demo.kv is full: {MAX_PAIRS} rows") });
        }
        match value {
            Some(cell) => _ = state.pairs.insert(key, cell),
            None => _ = state.pairs.entry(key).or_default(),
        }
        Ok(void())
    }
}

/// Where a page begins, and as opaque as a real node's: not one byte of it can be changed.
fn paging_state(start: u32) -> Vec<u8> {
    let start = start.to_be_bytes();
    [&start[..], &fingerprint(&[&start])].concat()
}

fn literal(text: &str, kind: &[u8]) -> Result<Vec<u8>, Refusal> {
    let bytes = match kind.first_chunk::<2>().copied() {
        Some(kind::TEXT) => Some(text.as_bytes().to_vec()),
        Some(kind::INT) => text.parse::<i32>().ok().map(|int| int.to_be_bytes().to_vec()),
        Some(kind::INET) => text.parse().ok().map(|address| inet_cell_bytes(address).as_ref().to_vec()),
        Some(kind::UUID) => Uuid::parse_str(text).ok().map(|uuid| uuid.as_bytes().to_vec()),
        _ => None,
    };
    bytes.ok_or_else(|| invalid(format!("Invalid constant ({text}) for its column")))
}

fn list_elements(list: Cell) -> Vec<Cell> {
    let list = list.unwrap_or_default();
    let mut reader = Reader::new(&list);
    let Ok(count) = reader.count("list") else { return Vec::new() };
    (0..count).map_while(|_| reader.bytes("element").ok()).map(|element| element.map(<[u8]>::to_vec)).collect()
}
