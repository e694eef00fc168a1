//! Who a certificate is for, as it is written in a file: `CN:app-*`, `URI:spiffe://example.com/app`.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::text::BadText;

/// What of a certificate says who it is for: an attribute of its subject, or one of its alternative names (RFC 5280 §4.1.2.6,
/// §4.2.1.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    Uri,
    Dns,
    Email,
    Ip,
    CommonName,
    OrganizationalUnit,
    Organization,
}

impl Kind {
    const ALL: [Self; 7] =
        [Self::Uri, Self::Dns, Self::Email, Self::Ip, Self::CommonName, Self::OrganizationalUnit, Self::Organization];

    /// As OpenSSL writes it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Uri => "URI",
            Self::Dns => "DNS",
            Self::Email => "email",
            Self::Ip => "IP",
            Self::CommonName => "CN",
            Self::OrganizationalUnit => "OU",
            Self::Organization => "O",
        }
    }

    /// What no `*` stands for: it is a part of a path or of a name.
    fn separator(self) -> Option<char> {
        match self {
            Self::Uri => Some('/'),
            Self::Dns => Some('.'),
            _ => None,
        }
    }
}

/// One thing that a certificate says, or several: `*` stands for any characters, in a URI for a part of the path, in a DNS name for a
/// part of one label or a whole one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pattern {
    kind: Kind,
    text: String,
}

impl Pattern {
    /// Whether a certificate that says this is meant.
    pub fn matches(&self, kind: Kind, value: &str) -> bool {
        if kind != self.kind {
            return false;
        }
        match kind.separator() {
            Some(separator) => {
                let (mut parts, mut values) = (self.text.split(separator), value.split(separator));
                let is_part = |part: &str, value: &str| match kind {
                    Kind::Dns => glob(&part.to_ascii_lowercase(), &value.to_ascii_lowercase()),
                    _ => glob(part, value),
                };
                loop {
                    match (parts.next(), values.next()) {
                        (Some(part), Some(value)) if is_part(part, value) => {}
                        (None, None) => return true,
                        _ => return false,
                    }
                }
            }
            None if kind == Kind::Ip => self.text.parse::<IpAddr>().ok() == value.parse().ok(),
            None => glob(&self.text, value),
        }
    }
}

/// `*` stands for any characters.
fn glob(pattern: &str, text: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(text) = text.strip_prefix(first) else { return false };
    let (middle, last) = rest.rsplit_once('*').unwrap_or(("", rest));
    let Some(mut text) = text.strip_suffix(last) else { return false };
    middle.split('*').all(|piece| match text.find(piece) {
        Some(at) => {
            text = &text[at + piece.len()..];
            true
        }
        None => false,
    })
}

impl FromStr for Pattern {
    type Err = BadText;

    fn from_str(text: &str) -> Result<Self, BadText> {
        let kinds = || Kind::ALL.map(Kind::word).join(", ");
        let wrong = |what: &str| {
            BadText(format!(
                "{text:?} {what}: write one such as CN:app-1 or URI:spiffe://example.com/app ({})",
                kinds()
            ))
        };
        let (word, value) = text.split_once(':').ok_or_else(|| wrong("says not which name it is"))?;
        let kind =
            Kind::ALL.into_iter().find(|kind| kind.word() == word).ok_or_else(|| wrong("is of no known kind"))?;
        if value.is_empty() {
            return Err(wrong("names nobody"));
        }
        if kind == Kind::Ip && value.parse::<IpAddr>().is_err() {
            return Err(wrong("is no IP address"));
        }
        Ok(Self { kind, text: value.to_owned() })
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind.word(), self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pattern: &str, kind: Kind, meant: &[&str], others: &[&str]) {
        let pattern: Pattern = pattern.parse().unwrap();
        assert_eq!(pattern.to_string().parse(), Ok(pattern.clone()));
        for value in meant {
            assert!(pattern.matches(kind, value), "{pattern} is not {value}");
        }
        for value in others {
            assert!(!pattern.matches(kind, value), "{pattern} is {value}");
        }
    }

    #[test]
    fn a_star_stands_for_any_characters_but_those_that_divide() {
        check("CN:app", Kind::CommonName, &["app"], &["App", "app1", "", "app\0"]);
        check("CN:app-*", Kind::CommonName, &["app-1", "app-", "app-a/b.c"], &["app", "my-app-1"]);
        check("CN:*-a*b-*", Kind::CommonName, &["x-ab-y", "-acb-", "1-a-b-2-b-3"], &["x-a-y", "ab-"]);
        check("CN:a*a", Kind::CommonName, &["aa", "aba"], &["a", "ab"]);
        check("O:Example, Inc.", Kind::Organization, &["Example, Inc."], &["Example"]);
        let of_one = ["spiffe://example.com/ns/db/sa/app"];
        check(
            "URI:spiffe://example.com/ns/*/sa/app",
            Kind::Uri,
            &of_one,
            &["spiffe://example.com/ns/db/x/sa/app", "spiffe://example.com/ns/db/sa/app/"],
        );
        check("URI:spiffe://*/ns/db/sa/app", Kind::Uri, &of_one, &["spiffe://evil/x/ns/db/sa/app"]);
        check(
            "DNS:*.example.com",
            Kind::Dns,
            &["a.example.com", "A.Example.COM"],
            &["example.com", "a.b.example.com", "a.example.com.evil"],
        );
        check("DNS:app-*.example.com", Kind::Dns, &["app-1.example.com"], &["app-1.x.example.com"]);
        check("email:*@example.com", Kind::Email, &["a@example.com"], &["a@example.com.evil"]);
        check("IP:2001:db8::1", Kind::Ip, &["2001:db8:0:0::1"], &["2001:db8::2"]);
    }

    #[test]
    fn what_one_kind_of_name_says_counts_for_no_other() {
        check("CN:app", Kind::Dns, &[], &["app"]);
        check("DNS:app", Kind::CommonName, &[], &["app"]);
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for (text, part) in [
            ("app", "says not which name"),
            ("UID:app", "no known kind"),
            ("cn:app", "no known kind"),
            ("CN:", "names nobody"),
            ("IP:10.0.0.*", "no IP address"),
        ] {
            let error = text.parse::<Pattern>().unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
