//! The few statement shapes that the node knows, read word by word: names, terms, `WHERE`, `IN`, `LIMIT`. Far from a parser of CQL,
//! whose types, functions and operators it has none of: what has another shape is answered with [`KNOWN`].
//!
//! ```text
//! SELECT * | column [AS alias], … FROM table [WHERE column = term | column IN (term, …) [AND …]] [LIMIT term] [ALLOW FILTERING]
//! INSERT INTO table (column, …) VALUES (term, …)
//! UPDATE table SET column = term WHERE column = term
//! DELETE FROM table WHERE column = term
//! CREATE TABLE table (k text PRIMARY KEY, v text)
//! USE keyspace
//! ```

/// What an ERROR 0x2200 says for a statement of another shape.
pub(super) const KNOWN: &str = "the simulated node knows only: SELECT columns FROM demo.kv or a system, system_schema or \
    system_virtual_schema table [WHERE key = value …] [LIMIT n]; INSERT, UPDATE, DELETE by key on demo.kv; CREATE TABLE of its shape; USE; \
    DESCRIBE of demo";

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Statement {
    Select(Select),
    /// INSERT and UPDATE: both are an upsert.
    Upsert {
        table: TableName,
        cells: Vec<(String, Term)>,
    },
    Delete {
        table: TableName,
        key: (String, Term),
    },
    /// A table as `demo.kv` is.
    Create(TableName),
    Use(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Select {
    pub table: TableName,
    /// Name and alias; empty is `*`.
    pub columns: Vec<(String, Option<String>)>,
    pub filters: Vec<Filter>,
    pub limit: Option<Term>,
    pub allow_filtering: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Filter {
    Equals(String, Term),
    In(String, Vec<Term>),
    /// `column IN ?`
    InList(String, Term),
}

impl Filter {
    pub fn column(&self) -> &str {
        match self {
            Self::Equals(column, _) | Self::In(column, _) | Self::InList(column, _) => column,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TableName {
    pub keyspace: Option<String>,
    pub name: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Term {
    /// A literal as written, quotes taken off.
    Literal(String),
    Null,
    /// A `?` or `:name`, by its place among the statement's variables.
    Variable(usize),
}

/// A statement and the names of its variables (empty for `?`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Parsed {
    pub statement: Statement,
    pub variables: Vec<String>,
}

/// `None` when the text has none of the shapes.
pub(super) fn parse(text: &str) -> Option<Parsed> {
    let mut words = Words { tokens: tokens(text)?.into_iter(), peeked: None, variables: Vec::new() };
    let statement = words.statement()?;
    words.optional(";");
    match words.next() {
        None => Some(Parsed { statement, variables: words.variables }),
        Some(_) => None,
    }
}

/// A text without its comments' and spaces' choices: what captured answers are found by.
pub(super) fn normalised(text: &str) -> String {
    let words: Vec<String> =
        text.trim().trim_end_matches(';').split_whitespace().map(str::to_ascii_lowercase).collect();
    match words.split_first() {
        Some((first, rest)) if first == "desc" => format!("describe {}", rest.join(" ")),
        _ => words.join(" "),
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    /// A name, keyword, number or uuid, in lower case.
    Word(String),
    /// A quoted name.
    Name(String),
    Text(String),
    Sign(char),
}

fn tokens(text: &str) -> Option<Vec<Token>> {
    let mut out = Vec::new();
    let mut rest = text.chars().peekable();
    while let Some(&c) = rest.peek() {
        if c.is_whitespace() {
            rest.next();
        } else if c == '\'' || c == '"' {
            rest.next();
            let mut quoted = String::new();
            loop {
                let next = rest.next()?;
                if next != c {
                    quoted.push(next);
                } else if rest.next_if_eq(&c).is_some() {
                    quoted.push(c);
                } else {
                    break;
                }
            }
            out.push(if c == '\'' { Token::Text(quoted) } else { Token::Name(quoted) });
        } else if c.is_ascii_alphanumeric() || c == '_' || c == '-' {
            let mut word = String::new();
            while let Some(c) = rest.next_if(|&c| c.is_ascii_alphanumeric() || c == '_' || c == '-') {
                word.push(c.to_ascii_lowercase());
            }
            out.push(Token::Word(word));
        } else {
            rest.next();
            out.push(Token::Sign(c));
        }
    }
    Some(out)
}

struct Words {
    tokens: std::vec::IntoIter<Token>,
    peeked: Option<Token>,
    variables: Vec<String>,
}

impl Words {
    fn next(&mut self) -> Option<Token> {
        self.peeked.take().or_else(|| self.tokens.next())
    }

    /// Takes the next token when it is this keyword or sign.
    fn optional(&mut self, word: &str) -> bool {
        let Some(token) = self.next() else { return false };
        let is = match &token {
            Token::Word(found) => found == word,
            Token::Sign(found) => word.len() == 1 && word.starts_with(*found),
            Token::Name(_) | Token::Text(_) => false,
        };
        if !is {
            self.peeked = Some(token);
        }
        is
    }

    fn expect(&mut self, word: &str) -> Option<()> {
        self.optional(word).then_some(())
    }

    fn name(&mut self) -> Option<String> {
        match self.next()? {
            Token::Word(name) | Token::Name(name) => Some(name),
            Token::Text(_) | Token::Sign(_) => None,
        }
    }

    fn term(&mut self) -> Option<Term> {
        let variable = match self.next()? {
            Token::Text(text) => return Some(Term::Literal(text)),
            Token::Word(word) if word == "null" => return Some(Term::Null),
            Token::Word(word) => return Some(Term::Literal(word)),
            Token::Sign('?') => String::new(),
            Token::Sign(':') => self.name()?,
            Token::Name(_) | Token::Sign(_) => return None,
        };
        self.variables.push(variable);
        Some(Term::Variable(self.variables.len() - 1))
    }

    fn list<T>(&mut self, mut item: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let mut list = vec![item(self)?];
        while self.optional(",") {
            list.push(item(self)?);
        }
        Some(list)
    }

    fn in_parentheses<T>(&mut self, item: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        self.expect("(")?;
        let list = self.list(item)?;
        self.expect(")").map(|()| list)
    }

    fn table(&mut self) -> Option<TableName> {
        let first = self.name()?;
        if self.optional(".") {
            return Some(TableName { keyspace: Some(first), name: self.name()? });
        }
        Some(TableName { keyspace: None, name: first })
    }

    fn equality(&mut self) -> Option<(String, Term)> {
        let column = self.name()?;
        self.expect("=")?;
        Some((column, self.term()?))
    }

    fn statement(&mut self) -> Option<Statement> {
        match self.next()? {
            Token::Word(word) => match word.as_str() {
                "select" => self.select().map(Statement::Select),
                "insert" => self.insert(),
                "update" => self.update(),
                "delete" => self.delete(),
                "create" => self.create(),
                "use" => self.name().map(Statement::Use),
                _ => None,
            },
            _ => None,
        }
    }

    fn select(&mut self) -> Option<Select> {
        let columns = if self.optional("*") {
            Vec::new()
        } else {
            self.list(|words| {
                let column = words.name()?;
                let alias = if words.optional("as") { Some(words.name()?) } else { None };
                Some((column, alias))
            })?
        };
        self.expect("from")?;
        let table = self.table()?;
        let mut filters = Vec::new();
        if self.optional("where") {
            filters.push(self.filter()?);
            while self.optional("and") {
                filters.push(self.filter()?);
            }
        }
        let limit = if self.optional("limit") { Some(self.term()?) } else { None };
        let allow_filtering = self.optional("allow");
        if allow_filtering {
            self.expect("filtering")?;
        }
        Some(Select { table, columns, filters, limit, allow_filtering })
    }

    fn filter(&mut self) -> Option<Filter> {
        let column = self.name()?;
        if self.optional("=") {
            return Some(Filter::Equals(column, self.term()?));
        }
        self.expect("in")?;
        if self.optional("(") {
            let terms = self.list(Self::term)?;
            self.expect(")")?;
            return Some(Filter::In(column, terms));
        }
        Some(Filter::InList(column, self.term()?))
    }

    fn insert(&mut self) -> Option<Statement> {
        self.expect("into")?;
        let table = self.table()?;
        let columns = self.in_parentheses(Self::name)?;
        self.expect("values")?;
        let terms = self.in_parentheses(Self::term)?;
        let same = columns.len() == terms.len();
        same.then(|| Statement::Upsert { table, cells: columns.into_iter().zip(terms).collect() })
    }

    fn update(&mut self) -> Option<Statement> {
        let table = self.table()?;
        self.expect("set")?;
        let mut cells = self.list(Self::equality)?;
        self.expect("where")?;
        cells.push(self.equality()?);
        Some(Statement::Upsert { table, cells })
    }

    fn create(&mut self) -> Option<Statement> {
        self.expect("table")?;
        let table = self.table()?;
        for word in ["(", "k", "text", "primary", "key", ",", "v", "text", ")"] {
            self.expect(word)?;
        }
        Some(Statement::Create(table))
    }

    fn delete(&mut self) -> Option<Statement> {
        self.expect("from")?;
        let table = self.table()?;
        self.expect("where")?;
        Some(Statement::Delete { table, key: self.equality()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn select(text: &str) -> Select {
        match parse(text).map(|parsed| parsed.statement) {
            Some(Statement::Select(select)) => select,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn drivers_own_statements_have_known_shapes() {
        for text in [
            "SELECT * FROM system.local",
            "select cluster_name from system.local where key = 'local'",
            "SELECT * FROM system.peers_v2 WHERE peer = :address and peer_port = :port",
            "SELECT host_id, rpc_address, data_center, rack, tokens, cluster_name FROM system.local WHERE key='local'",
            "SELECT * FROM system_schema.columns WHERE keyspace_name IN ('a', 'b')",
            "select keyspace_name, replication from system_schema.keyspaces where keyspace_name in ?",
            "SELECT\n\tkey FROM \"system\".\"local\" LIMIT 1 ALLOW FILTERING;",
        ] {
            select(text);
        }
    }

    #[test]
    fn other_shapes_are_none() {
        for text in [
            "",
            "SELECT",
            "SELECT JSON * FROM system.peers",
            "SELECT toJson(rpc_address) FROM system.peers",
            "SELECT * FROM system.local WHERE key = 'x",
            "SELECT * FROM system.local; SELECT * FROM system.local",
            "INSERT INTO demo.kv (k, v) VALUES ('a')",
            "CREATE TABLE demo.t (k int PRIMARY KEY)",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn quotes_are_taken_off_and_doubled_quotes_are_one() {
        let select = select("SELECT v AS \"Value\" FROM demo.kv WHERE k = 'it''s'");
        assert_eq!(select.columns, [("v".to_owned(), Some("Value".to_owned()))]);
        assert_eq!(select.filters, [Filter::Equals("k".to_owned(), Term::Literal("it's".to_owned()))]);
    }

    #[test]
    fn variables_are_counted_in_order_and_keep_their_names() {
        let parsed = parse("UPDATE demo.kv SET v = :value WHERE k = ?").unwrap();
        assert_eq!(parsed.variables, ["value", ""]);
    }

    #[test]
    fn texts_are_found_whatever_their_spacing_and_case() {
        assert_eq!(normalised(" DESC  Cluster ;"), "describe cluster");
        assert_eq!(normalised("describe\ttable demo.kv;"), "describe table demo.kv");
    }
}
