//! Values that come as JSON: the one column `[json]` of SELECT JSON, an object of a row's columns, and what toJson() makes of one column.
//!
//! They are read as far as the values that stand for columns, each by its name and in its place, and written with nothing but these
//! changed: order, spaces and whatever else is there stays as the node wrote it. A value is written as nodes write it
//! (apache/cassandra `db/marshal/InetAddressType.java`, toJSONString).

use std::net::IpAddr;
use std::ops::Range;

use serde::de::{DeserializeOwned, IgnoredAny};
use uuid::Uuid;

use super::columns::{self, Role};
use crate::cql::cost;
use crate::cql::rows::TypeKind;

/// The column of SELECT JSON.
const ROW: &str = "[json]";
/// What a node calls the columns that toJson() makes, before the name in brackets; the second one since Cassandra 5.0.
const FUNCTIONS: [&str; 2] = ["system.tojson(", "system.to_json("];
/// Columns in one object; the tables have some twenty.
const MAX_MEMBERS: usize = 256;
/// The longest text that is read as JSON, in bytes.
const MAX_TEXT: usize = super::MAX_LOOKED_AT;

/// What a text column of this name has in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Row,
    /// The JSON of one column.
    OneColumn,
}

/// Whether a text column of this name is JSON.
pub fn form(name: &str) -> Option<Form> {
    if name == ROW { Some(Form::Row) } else { of_function(name).map(|_| Form::OneColumn) }
}

fn of_function(name: &str) -> Option<&str> {
    FUNCTIONS.iter().find_map(|function| name.strip_prefix(function)?.strip_suffix(')'))
}

/// A value that stands for a column.
#[derive(Clone, Debug, PartialEq)]
pub struct Member {
    pub name: String,
    /// Where it is in the text.
    pub at: Range<usize>,
    pub value: Scalar,
    pub role: Role,
}

/// What a value is, as far as it matters.
#[derive(Clone, Debug, PartialEq)]
pub enum Scalar {
    Null,
    Inet(IpAddr),
    Uuid(Uuid),
    Int(i32),
    /// Another string, without what was escaped.
    Text(String),
    /// Nothing but strings, as tokens are.
    Texts,
    Other,
}

/// The columns in the text of a column of this name. `None` where it is not what its name says: a client may give any name to anything.
pub fn read(name: &str, text: &[u8]) -> Option<Vec<Member>> {
    if text.len() > MAX_TEXT {
        return None;
    }
    cost::steps(text.len());
    let mut reader = Reader { text: std::str::from_utf8(text).ok()?, at: 0 };
    let members = match form(name)? {
        Form::Row => reader.object()?,
        Form::OneColumn => vec![reader.member(of_function(name)?.to_owned())?],
    };
    reader.is_at_end().then_some(members)
}

/// `text` with other values in some places, which follow each other.
pub fn write<'v>(text: &[u8], values: impl Iterator<Item = (&'v Range<usize>, String)>) -> Vec<u8> {
    let (mut out, mut done) = (Vec::with_capacity(text.len()), 0);
    for (at, value) in values {
        out.extend_from_slice(text.get(done..at.start).unwrap_or_default());
        out.extend_from_slice(value.as_bytes());
        done = at.end;
    }
    out.extend_from_slice(text.get(done..).unwrap_or_default());
    out
}

/// An address as nodes write it: IPv6 with all of its groups.
pub fn address(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => format!("\"{address}\""),
        IpAddr::V6(address) => format!("\"{}\"", address.segments().map(|group| format!("{group:x}")).join(":")),
    }
}

struct Reader<'t> {
    text: &'t str,
    at: usize,
}

impl Reader<'_> {
    fn rest(&self) -> &str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn skip_space(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start_matches([' ', '\t', '\n', '\r']).len();
    }

    fn is_at_end(&mut self) -> bool {
        self.skip_space();
        self.rest().is_empty()
    }

    fn takes(&mut self, sign: char) -> bool {
        self.skip_space();
        let is_there = self.rest().starts_with(sign);
        self.at += usize::from(is_there);
        is_there
    }

    /// One whole value, and where it is.
    fn value<T: DeserializeOwned>(&mut self) -> Option<(T, Range<usize>)> {
        self.skip_space();
        let mut values = serde_json::Deserializer::from_str(self.rest()).into_iter::<T>();
        let value = values.next()?.ok()?;
        let end = self.at + values.byte_offset();
        Some((value, std::mem::replace(&mut self.at, end)..end))
    }

    fn object(&mut self) -> Option<Vec<Member>> {
        if !self.takes('{') {
            return None;
        }
        let mut members = Vec::new();
        if self.takes('}') {
            return Some(members);
        }
        loop {
            let (name, _) = self.value::<String>()?;
            if !self.takes(':') || members.len() == MAX_MEMBERS {
                return None;
            }
            members.push(self.member(name)?);
            if self.takes('}') {
                return Some(members);
            }
            if !self.takes(',') {
                return None;
            }
        }
    }

    fn member(&mut self, name: String) -> Option<Member> {
        let (_, at) = self.value::<IgnoredAny>()?;
        let value = Scalar::of(self.text.get(at.clone())?);
        let role = value.role(&name);
        Some(Member { name, at, value, role })
    }
}

impl Scalar {
    fn of(text: &str) -> Self {
        if text.starts_with('"') {
            let Ok(text) = serde_json::from_str::<String>(text) else { return Self::Other };
            if let Ok(address) = text.parse() {
                return Self::Inet(address);
            }
            return Uuid::try_parse(&text).map_or(Self::Text(text), Self::Uuid);
        }
        match text.parse() {
            Ok(number) => Self::Int(number),
            Err(_) if text == "null" => Self::Null,
            Err(_) if text.starts_with('[') && serde_json::from_str::<Vec<&str>>(text).is_ok() => Self::Texts,
            Err(_) => Self::Other,
        }
    }

    /// What a column of this name and with this value is to a client; JSON says little of its type.
    fn role(&self, name: &str) -> Role {
        let of = |kind| columns::role(name, kind, Some(TypeKind::Text));
        let is_named = |role: &Role| !matches!(role, Role::OtherInet | Role::OtherInt | Role::Json | Role::Other);
        let kinds: &[TypeKind] = match self {
            Self::Null => &[TypeKind::Inet, TypeKind::Int, TypeKind::Uuid, TypeKind::Text, TypeKind::Elements],
            // A rack may be called like an address.
            Self::Inet(_) => &[TypeKind::Text, TypeKind::Inet],
            Self::Uuid(_) => &[TypeKind::Text, TypeKind::Uuid],
            Self::Int(_) => &[TypeKind::Int],
            Self::Text(_) => &[TypeKind::Text],
            Self::Texts => &[TypeKind::Elements],
            Self::Other => &[],
        };
        kinds.iter().copied().map(of).find(is_named).unwrap_or(match self {
            Self::Inet(_) => Role::OtherInet,
            Self::Int(_) => Role::OtherInt,
            Self::Null | Self::Uuid(_) | Self::Text(_) | Self::Texts | Self::Other => Role::Other,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names, values as they stand in the text, and roles.
    #[track_caller]
    fn check(name: &str, text: &str, expected: &[(&str, &str, Role)]) {
        let members = read(name, text.as_bytes()).unwrap_or_else(|| panic!("{text} is not read"));
        let found: Vec<_> =
            members.iter().map(|member| (&*member.name, &text[member.at.clone()], member.role)).collect();
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn a_rows_columns_have_their_names_places_and_roles() {
        check(
            "[json]",
            r#"{"host_id": "af3c3ece-a34d-f880-0717-be9539e98f00", "peer": "10.1.2.3", "native_address": null, "native_port": 9042}"#,
            &[
                ("host_id", "\"af3c3ece-a34d-f880-0717-be9539e98f00\"", Role::Identity),
                ("peer", "\"10.1.2.3\"", Role::Identity),
                ("native_address", "null", Role::Address),
                ("native_port", "9042", Role::Port),
            ],
        );
        check(
            "[json]",
            r#" {"rack" : "10.1.2.3","tokens":["1", "-1"],"a":"fd00:0:0:0:0:0:0:7","n":1,"t":"x","peer":"x"} "#,
            &[
                ("rack", "\"10.1.2.3\"", Role::Text),
                ("tokens", "[\"1\", \"-1\"]", Role::Text),
                ("a", "\"fd00:0:0:0:0:0:0:7\"", Role::OtherInet),
                ("n", "1", Role::OtherInt),
                ("t", "\"x\"", Role::Other),
                // Under the name of an address: looked into.
                ("peer", "\"x\"", Role::Other),
            ],
        );
        check("[json]", "{}", &[]);
        check("system.tojson(rpc_address)", "\"10.1.2.3\"", &[("rpc_address", "\"10.1.2.3\"", Role::Address)]);
        check("system.to_json(native_port)", "9042", &[("native_port", "9042", Role::Port)]);
        check("system.tojson(truncated_at)", "{\"a\": 1}", &[("truncated_at", "{\"a\": 1}", Role::Other)]);
        check(
            "[json]",
            r#"{"a": 1, "a": 2, "\"B\"": true}"#,
            &[("a", "1", Role::OtherInt), ("a", "2", Role::OtherInt), ("\"B\"", "true", Role::Other)],
        );
    }

    #[test]
    fn what_is_no_json_of_columns_is_not_read() {
        let deep = format!("{{\"a\": {}}}", "[".repeat(10_000));
        let wide = format!("{{{}\"a\": 1}}", "\"a\": 1, ".repeat(MAX_MEMBERS));
        let long = format!("{{\"a\": \"{}\"}}", "x".repeat(MAX_TEXT));
        for text in [
            "",
            "null",
            "1",
            "[]",
            "{",
            "{\"a\"}",
            "{\"a\": }",
            "{\"a\": 1,}",
            "{a: 1}",
            "{} {}",
            "{\"a\": 1]",
            &deep,
            &wide,
            &long,
        ] {
            assert_eq!(read("[json]", text.as_bytes()), None, "{}", &text[..text.len().min(40)]);
        }
        assert_eq!(read("[json]", b"{\"a\": \"\xff\"}"), None);
        assert_eq!(read("system.tojson(rack)", b"\"a\" \"b\""), None);
        assert_eq!(read("rack", b"\"a\""), None);
    }

    #[test]
    fn only_values_are_written_and_everything_else_stays() {
        let text = r#"{"b": "10.1.2.3",  "\"X\"": "\u0001é", "p": 9042}"#;
        let members = read("[json]", text.as_bytes()).unwrap();
        let new = [(0, address("203.0.113.10".parse().unwrap())), (2, "9043".to_owned())];
        let out = write(text.as_bytes(), new.into_iter().map(|(index, value)| (&members[index].at, value)));
        assert_eq!(String::from_utf8(out).unwrap(), r#"{"b": "203.0.113.10",  "\"X\"": "\u0001é", "p": 9043}"#);
        assert_eq!(write(b"{}", std::iter::empty()), b"{}");
    }

    #[test]
    fn addresses_are_written_as_nodes_write_them() {
        assert_eq!(address("203.0.113.10".parse().unwrap()), "\"203.0.113.10\"");
        assert_eq!(address("2001:db8::10".parse().unwrap()), "\"2001:db8:0:0:0:0:0:10\"");
    }
}
