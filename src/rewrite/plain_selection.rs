//! Which QUERYs select columns of the rewritten tables by their own names: only what they are answered with is learned.
//!
//! An answer's metadata has the names that the client chose: `now() AS host_id` comes as the column `host_id` of
//! `system.local`. Rewriting does not mind, for it looks at values too; but whoever believes such a row lets any client say
//! who a node is. So the text is looked at here, and nowhere else. What is not surely plain is not: a comment before the
//! table is enough. It must never say yes to a text in which a name could stand for something else.

use super::system_tables::{KEYSPACE, SystemTable};
use crate::label::{Label, LabelSet};

/// Bytes of a QUERY's body that are looked at: twice what the longest of a driver's own selections needs.
pub const LOOK: usize = 512;

/// True for `SELECT *` and for a comma list of bare or quoted names, `FROM` one of the rewritten tables in its full name,
/// whatever follows.
pub fn is_plain(text: &[u8]) -> bool {
    reads_keyspace(text) && reads_plainly(Tokens(text)).is_some()
}

/// A quick no for nearly all texts: the first dot of a plain selection follows the keyspace's name.
fn reads_keyspace(text: &[u8]) -> bool {
    let Some(dot) = text.iter().position(|&byte| byte == b'.') else { return false };
    let before = text.get(..dot).unwrap_or_default().trim_ascii_end();
    let before = before.strip_suffix(b"\"").unwrap_or(before);
    before.last_chunk::<{ KEYSPACE.len() }>().is_some_and(|word| word.eq_ignore_ascii_case(KEYSPACE.as_bytes()))
}

fn reads_plainly(mut tokens: Tokens<'_>) -> Option<()> {
    tokens.next()?.keyword("select")?;
    match tokens.next()? {
        Token::Sign(b'*') => tokens.next()?.keyword("from")?,
        column => {
            column.name()?;
            while let Token::Sign(b',') = tokens.peek()? {
                tokens.next()?;
                tokens.next()?.name()?;
            }
            tokens.next()?.keyword("from")?;
        }
    }
    tokens.next()?.names(KEYSPACE)?;
    let Token::Sign(b'.') = tokens.next()? else { return None };
    let table = tokens.next()?;
    SystemTable::ALL.iter().find_map(|known| table.names(known.label()))
}

#[derive(Clone, Copy)]
enum Token<'a> {
    Word(&'a [u8]),
    Quoted(&'a [u8]),
    Sign(u8),
}

impl Token<'_> {
    fn keyword(self, word: &str) -> Option<()> {
        matches!(self, Self::Word(it) if it.eq_ignore_ascii_case(word.as_bytes())).then_some(())
    }

    fn name(self) -> Option<()> {
        (!matches!(self, Self::Sign(_))).then_some(())
    }

    /// Quoted names are in the case that they have.
    fn names(self, name: &str) -> Option<()> {
        match self {
            Self::Quoted(it) => (it == name.as_bytes()).then_some(()),
            word => word.keyword(name),
        }
    }
}

/// The few tokens of CQL (apache/cassandra `antlr/Lexer.g`) that a plain selection has; `None` at every other.
#[derive(Clone, Copy)]
struct Tokens<'a>(&'a [u8]);

impl<'a> Tokens<'a> {
    fn peek(mut self) -> Option<Token<'a>> {
        self.next()
    }

    fn next(&mut self) -> Option<Token<'a>> {
        let start = self.0.iter().position(|byte| !matches!(byte, b' ' | b'\t' | b'\n' | b'\r'))?;
        let text = self.0.get(start..)?;
        let (token, len) = match text.first()? {
            b'"' => {
                let inner = text.get(1..)?;
                let len = inner.iter().position(|&byte| byte == b'"')?;
                // A doubled quote is a part of the name; no column has one.
                if len == 0 || inner.get(len + 1) == Some(&b'"') {
                    return None;
                }
                (Token::Quoted(inner.get(..len)?), len + 2)
            }
            &sign @ (b'*' | b',' | b'.') => (Token::Sign(sign), 1),
            b'a'..=b'z' | b'A'..=b'Z' => {
                let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
                let len = text.iter().position(|byte| !is_part(byte)).unwrap_or(text.len());
                (Token::Word(text.get(..len)?), len)
            }
            _ => return None,
        };
        self.0 = text.get(len..)?;
        Some(token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(expected: bool, texts: &[&str]) {
        for text in texts {
            assert_eq!(is_plain(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn what_drivers_ask_is_plain() {
        check(
            true,
            &[
                "SELECT * FROM system.local",
                "SELECT * FROM system.local WHERE key='local'",
                "SELECT * FROM system.peers_v2",
                "select cluster_name from system.local",
                "select host_id, rpc_address, data_center, rack, tokens from system.local WHERE key='local'",
                "SELECT peer, host_id, native_address, native_port, schema_version FROM system.peers_v2",
                "SELECT cluster_name, data_center, host_id FROM system.local WHERE key='local';",
            ],
        );
    }

    #[test]
    fn case_space_and_quotes_change_nothing() {
        check(
            true,
            &[
                "\n\tSeLeCt\r\n*\tFrOm SYSTEM.Local\n",
                "SELECT*FROM system.local;",
                "SELECT \"host_id\",\"rack\"FROM\"system\".\"local\"",
                "SELECT host_id , rack FROM system . local",
                "SELECT * FROM system.local/* what follows is the node's to judge */",
                // A column that is not there, with any name: the node refuses it.
                "SELECT \"now() AS host_id\" FROM system.local",
            ],
        );
    }

    #[test]
    fn what_gives_a_name_to_something_else_is_not() {
        check(
            false,
            &[
                "SELECT schema_version AS host_id FROM system.local",
                "SELECT host_id AS x FROM system.local",
                "SELECT now() AS host_id FROM system.local",
                "SELECT *, now() AS host_id FROM system.local",
                "SELECT rack,now()AS host_id FROM system.local",
                "SELECT \"schema_version\"AS\"host_id\"FROM system.local",
                "SELECT schema_version/**/AS/**/host_id FROM system.local",
                "SELECT schema_version AS -- FROM system.local\n host_id FROM system.local",
                "SELECT schema_version as host_id FROM system.local WHERE key='SELECT * FROM system.local'",
                "SELECT CAST(schema_version AS uuid) FROM system.local",
                "SELECT (uuid) 12345678-1234-1234-1234-123456789012 AS host_id FROM system.local",
                "SELECT JSON * FROM system.local",
                "SELECT JSON host_id FROM system.local",
                "SELECT DISTINCT key FROM system.local",
                "SELECT count(*) FROM system.local",
                "SELECT writetime(rack) FROM system.local",
                "SELECT tokens[0] FROM system.local",
                "SELECT ? FROM system.local",
                "SELECT 'a' FROM system.local",
                "SELECT \"a\"\"b\" FROM system.local",
                "SELECT \"\" FROM system.local",
            ],
        );
    }

    #[test]
    fn nor_what_reads_another_table_or_is_no_selection() {
        check(
            false,
            &[
                "",
                "SELECT",
                "SELECT *",
                "SELECT * FROM",
                "SELECT * FROM system",
                "SELECT * FROM system.",
                "SELECT * FROM local",
                "SELECT * FROM system.local_other",
                "SELECT * FROM system.\"Local\"",
                "SELECT * FROM \"SYSTEM\".local",
                "SELECT * FROM systems.local",
                "SELECT * FROM demo.kv",
                "SELECT host_id, FROM system.local",
                "SELECT , host_id FROM system.local",
                "SELECT host_id rack FROM system.local",
                "SELECT system.local FROM system.local",
                "-- a comment\nSELECT * FROM system.local",
                "/**/SELECT * FROM system.local",
                "SELECT * FROM /* system.local */ demo.kv",
                "SELECTED * FROM system.local",
                "UPDATE system.local SET host_id = null",
                "SELECT h\u{f6}st_id FROM system.local",
                "SELECT * FROM\u{a0}system.local",
            ],
        );
    }
}
