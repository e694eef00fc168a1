//! Values that are one word of text in the file and on the command line: durations, sizes, listen ranges, addresses.
//!
//! Durations and sizes have units: a bare number is refused, with what to write instead.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::bounds::MemoryLimit;
use super::identity::Pattern;
use super::{HostPort, Listen, PlainPassword};

/// The port of a node when none is written (Cassandra's `native_transport_port`).
pub const NATIVE_PORT: u16 = 9042;

/// A text that is no such value: what is wrong and what to write.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadText(pub(super) String);

impl FromStr for PlainPassword {
    type Err = BadText;

    fn from_str(text: &str) -> Result<Self, BadText> {
        match text {
            "listed" => Ok(Self::Listed),
            "always" => Ok(Self::Always),
            "never" => Ok(Self::Never),
            _ => Err(BadText(format!("{text:?} is neither listed nor always nor never"))),
        }
    }
}

/// A duration with its unit: `500ms`, `10s`, `2m`, `1m 30s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Time(pub Duration);

impl FromStr for Time {
    type Err = BadText;

    fn from_str(text: &str) -> Result<Self, BadText> {
        if !text.is_empty() && text.chars().all(|c| c.is_ascii_digit()) && text != "0" {
            return Err(BadText(format!("{text} has no unit: write {text}s, {text}ms or {text}m")));
        }
        if text == "0" {
            return Ok(Self(Duration::ZERO));
        }
        let parsed = jiff::fmt::friendly::SpanParser::new().parse_unsigned_duration(text);
        parsed.map(Self).map_err(|_| BadText(format!("{text:?} is no duration: write one such as 500ms, 10s or 2m")))
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&jiff::fmt::friendly::SpanPrinter::new().unsigned_duration_to_string(&self.0))
    }
}

/// A size in bytes with its unit: `512B`, `64KiB`, `256MiB`, `1GiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Size(pub u64);

/// A [`Time`] in the file, a [`Duration`] here.
pub mod time {
    use super::{Duration, Time};
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        Time(*time).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        Time::deserialize(deserializer).map(|time| time.0)
    }
}

/// A [`Size`] in the file, bytes here.
pub mod size {
    use super::Size;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<S: Serializer>(bytes: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        Size(*bytes).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        Size::deserialize(deserializer).map(|size| size.0)
    }
}

const UNITS: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

impl FromStr for Size {
    type Err = BadText;

    fn from_str(text: &str) -> Result<Self, BadText> {
        let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
        let unit = text[digits.len()..].trim_start();
        if unit.is_empty() && !digits.is_empty() {
            return Err(BadText(format!("{text} has no unit: write {text}B, {text}KiB or {text}MiB")));
        }
        let bytes = UNITS.iter().find(|(name, _)| *name == unit).and_then(|(_, bytes)| {
            let count: u64 = digits.parse().ok()?;
            count.checked_mul(*bytes)
        });
        bytes.map(Self).ok_or_else(|| BadText(format!("{text:?} is no size: write one such as 64KiB, 256MiB or 1GiB")))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, bytes) =
            UNITS.iter().find(|(_, bytes)| self.0 > 0 && self.0.is_multiple_of(*bytes)).unwrap_or(&UNITS[3]);
        write!(f, "{}{name}", self.0 / bytes)
    }
}

impl FromStr for Listen {
    type Err = BadText;

    /// `0.0.0.0:9042-9061`, `[::]:9042-9061`, or one port alone.
    fn from_str(text: &str) -> Result<Self, BadText> {
        let wrong =
            |what: String| BadText(format!("{what}: write an address and a range of ports, such as 0.0.0.0:9042-9061"));
        let Some((address, range)) = text.rsplit_once(':') else {
            return Err(wrong(format!("{text:?} has no port")));
        };
        let bare = address.strip_prefix('[').and_then(|a| a.strip_suffix(']')).unwrap_or(address);
        let Ok(address) = bare.parse::<IpAddr>() else {
            return Err(wrong(format!("{address:?} is no IP address")));
        };
        let Ports { first, last } = parse_ports(range).map_err(wrong)?;
        Ok(Self { address, first, last })
    }
}

/// Consecutive ports: `9042-9051`, or one alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Ports {
    pub first: u16,
    pub last: u16,
}

impl FromStr for Ports {
    type Err = BadText;

    fn from_str(text: &str) -> Result<Self, BadText> {
        parse_ports(text).map_err(|what| BadText(format!("{what}: write a range of ports, such as 9042-9051")))
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

fn parse_ports(range: &str) -> Result<Ports, String> {
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let port = |text: &str| match text.parse::<u64>() {
        Ok(port) => match u16::try_from(port) {
            Ok(0) => Err("port 0 is no port".to_owned()),
            Ok(port) => Ok(port),
            Err(_) => Err(format!("port {port} is beyond 65535")),
        },
        Err(_) => Err(format!("{text:?} is no port")),
    };
    let (first, last) = (port(first)?, port(last)?);
    if last < first {
        return Err(format!("the range {first}-{last} ends before it begins"));
    }
    Ok(Ports { first, last })
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            IpAddr::V4(address) => write!(f, "{address}:{}", self.first)?,
            IpAddr::V6(address) => write!(f, "[{address}]:{}", self.first)?,
        }
        if self.last == self.first { Ok(()) } else { write!(f, "-{}", self.last) }
    }
}

impl FromStr for HostPort {
    type Err = BadText;

    /// `10.1.2.3:9042`, `cassandra-0.db:9042`, `[2001:db8::1]:9042`; without a port, 9042.
    fn from_str(text: &str) -> Result<Self, BadText> {
        let wrong = |what: &str| BadText(format!("{text:?} {what}: write a host and a port, such as 10.1.2.3:9042"));
        let (host, port) = if let Some(rest) = text.strip_prefix('[') {
            let (host, rest) = rest.split_once(']').ok_or_else(|| wrong("has no closing bracket"))?;
            if host.parse::<Ipv6Addr>().is_err() {
                return Err(wrong("has no IPv6 address in its brackets"));
            }
            (host, if rest.is_empty() { None } else { Some(rest.strip_prefix(':').unwrap_or("")) })
        } else if text.parse::<Ipv6Addr>().is_ok() {
            (text, None)
        } else {
            text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port)))
        };
        if host.parse::<IpAddr>().is_err() && !is_name(host) {
            return Err(wrong("has no address or name"));
        }
        let port = match port {
            None => NATIVE_PORT,
            Some(port) => match port.parse::<u16>() {
                Ok(port) if port > 0 => port,
                _ => return Err(wrong("has no port from 1 to 65535")),
            },
        };
        Ok(Self { host: host.to_owned(), port })
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// A network: `10.0.0.0/8`, `2001:db8::/32`, or one address alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Network(pub IpNet);

impl FromStr for Network {
    type Err = BadText;

    fn from_str(text: &str) -> Result<Self, BadText> {
        let network = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        let network = network.map_err(|_| BadText(format!("{text:?} is no network: write one such as 10.0.0.0/8")))?;
        // 10.1.2.3/8 is a slip of the hand, and which one nobody knows.
        if network.addr() != network.network() {
            return Err(BadText(format!("{text} is an address within a network: write {}", network.trunc())));
        }
        Ok(Self(network))
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// True for a DNS name: labels of letters, digits, `-` and `_`, not digits alone, 253 bytes at most (RFC 1035 §2.3.4).
pub fn is_name(text: &str) -> bool {
    let text = text.strip_suffix('.').unwrap_or(text);
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    let last_is_number = text.rsplit('.').next().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()));
    (1..=253).contains(&text.len()) && text.split('.').all(label) && !last_is_number
}

/// serde and JSON schema for a value that is written as text.
macro_rules! as_text {
    ($($type:ty, $name:literal, $pattern:literal, $example:literal;)+) => { $(
        impl TryFrom<String> for $type {
            type Error = BadText;
            fn try_from(text: String) -> Result<Self, BadText> { text.parse() }
        }
        impl From<$type> for String {
            fn from(value: $type) -> Self { value.to_string() }
        }
        impl schemars::JsonSchema for $type {
            fn schema_name() -> std::borrow::Cow<'static, str> { $name.into() }
            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "type": "string", "pattern": $pattern, "examples": [$example] })
            }
        }
    )+ };
}

as_text! {
    Time, "Duration", "^(0|.*[a-zµ])$", "10s";
    Size, "Size", "^[0-9]+ ?(B|KiB|MiB|GiB)$", "256MiB";
    MemoryLimit, "MemoryLimit", "^(auto|off|[0-9]+ ?(B|KiB|MiB|GiB))$", "auto";
    Listen, "Listen", "^.+:[0-9]+(-[0-9]+)?$", "0.0.0.0:9042-9061";
    HostPort, "HostPort", "^.+$", "10.1.2.3:9042";
    Ports, "Ports", "^[0-9]+(-[0-9]+)?$", "9042-9051";
    Network, "Network", "^[0-9a-fA-F:.]+(/[0-9]+)?$", "10.0.0.0/8";
    Pattern, "CertificateName", "^(URI|DNS|email|IP|CN|OU|O):.+$", "CN:app-*";
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<T: FromStr<Err = BadText> + fmt::Display>(text: &str, expected: Result<&str, &str>) {
        match (text.parse::<T>(), expected) {
            (Ok(value), Ok(expected)) => assert_eq!(value.to_string(), expected, "{text}"),
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{text}: {error}"),
            (Ok(value), Err(part)) => panic!("{text} is read as {value}, not refused with {part}"),
            (Err(error), Ok(_)) => panic!("{text}: {error}"),
        }
    }

    #[test]
    fn durations_have_units() {
        check::<Time>("10s", Ok("10s"));
        check::<Time>("500ms", Ok("500ms"));
        check::<Time>("2m", Ok("2m"));
        check::<Time>("1m 30s", Ok("1m 30s"));
        check::<Time>("0", Ok("0s"));
        check::<Time>("10", Err("10 has no unit: write 10s, 10ms or 10m"));
        check::<Time>("", Err("is no duration"));
        check::<Time>("-1s", Err("is no duration"));
        check::<Time>("10 parsecs", Err("is no duration"));
    }

    #[test]
    fn sizes_have_units() {
        check::<Size>("256MiB", Ok("256MiB"));
        check::<Size>("1024 KiB", Ok("1MiB"));
        check::<Size>("1000B", Ok("1000B"));
        check::<Size>("0B", Ok("0B"));
        check::<Size>("1024", Err("1024 has no unit"));
        check::<Size>("1MB", Err("is no size"));
        check::<Size>("MiB", Err("is no size"));
        check::<Size>("99999999999GiB", Err("is no size"));
        check::<Size>("-1B", Err("is no size"));
    }

    #[test]
    fn listen_is_an_address_and_a_range() {
        check::<Listen>("0.0.0.0:9042-9061", Ok("0.0.0.0:9042-9061"));
        check::<Listen>("[::]:9042-9061", Ok("[::]:9042-9061"));
        check::<Listen>("127.0.0.1:9042", Ok("127.0.0.1:9042"));
        check::<Listen>("0.0.0.0:9042-70000", Err("port 70000 is beyond 65535"));
        check::<Listen>("0.0.0.0:9061-9042", Err("9061-9042 ends before it begins"));
        check::<Listen>("0.0.0.0:0", Err("port 0"));
        check::<Listen>("9042", Err("has no port"));
        check::<Listen>("localhost:9042", Err("is no IP address"));
        check::<Listen>("0.0.0.0:9042-", Err("is no port"));
    }

    #[test]
    fn networks_are_whole() {
        check::<Network>("10.0.0.0/8", Ok("10.0.0.0/8"));
        check::<Network>("10.1.2.3", Ok("10.1.2.3/32"));
        check::<Network>("2001:db8::/32", Ok("2001:db8::/32"));
        check::<Network>("10.1.2.3/8", Err("write 10.0.0.0/8"));
        check::<Network>("10.0.0.0/33", Err("is no network"));
        check::<Network>("cassandra.db", Err("is no network"));
    }

    #[test]
    fn hosts_have_a_port_or_9042() {
        check::<HostPort>("10.1.2.3:9043", Ok("10.1.2.3:9043"));
        check::<HostPort>("10.1.2.3", Ok("10.1.2.3:9042"));
        check::<HostPort>("cassandra-0.cassandra.db.svc", Ok("cassandra-0.cassandra.db.svc:9042"));
        check::<HostPort>("[2001:db8::1]:9043", Ok("[2001:db8::1]:9043"));
        check::<HostPort>("2001:db8::1", Ok("[2001:db8::1]:9042"));
        check::<HostPort>("[2001:db8::1]x", Err("has no port"));
        check::<HostPort>("10.1.2.3:0", Err("has no port from 1 to 65535"));
        check::<HostPort>("10.1.2.3:70000", Err("has no port from 1 to 65535"));
        check::<HostPort>("10.1.2.300", Err("has no address or name"));
        check::<HostPort>("a b", Err("has no address or name"));
        check::<HostPort>(":9042", Err("has no address or name"));
    }
}
