//! What clients are told to dial: for each path by which they come, a map from the ports that are listened on to addresses and ports.
//!
//! Here are the words of the file and whether they mean something; [`crate::topology::paths`] looks each up in what is known by then.

pub(super) mod resolve;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use schemars::JsonSchema;
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{self, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::text::{BadText, Network, Ports};

/// The path of a file that has none.
pub const DEFAULT_PATH: &str = "default";
/// In place of addresses: the nodes' own.
const PODS: &str = "pods";

/// An external address, as it is named. What it means may change while the gateway runs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum External {
    Addresses {
        ipv4: Option<Ipv4Addr>,
        ipv6: Option<Ipv6Addr>,
    },
    /// A DNS name, resolved and kept fresh.
    Name(String),
    /// What the status of this Service of type LoadBalancer, in the gateway's own namespace, says.
    Service(String),
}

impl External {
    pub fn ip(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(ip) => Self::Addresses { ipv4: Some(ip), ipv6: None },
            IpAddr::V6(ip) => Self::Addresses { ipv4: None, ipv6: Some(ip) },
        }
    }

    /// Those that are given, IPv4 first; none of what has to be looked up.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        let (ipv4, ipv6) = match *self {
            Self::Addresses { ipv4, ipv6 } => (ipv4, ipv6),
            Self::Name(_) | Self::Service(_) => (None, None),
        };
        ipv4.map(IpAddr::V4).into_iter().chain(ipv6.map(IpAddr::V6))
    }
}

impl fmt::Display for External {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Addresses { .. } => {
                f.write_str(&self.addresses().map(|ip| ip.to_string()).collect::<Vec<_>>().join(" and "))
            }
            Self::Name(name) => f.write_str(name),
            Self::Service(name) => write!(f, "Service {name}"),
        }
    }
}

/// Which port clients dial for one that is listened on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DialledPort {
    /// The same.
    Listened,
    /// Consecutive ones from this on.
    From(u16),
    /// This, for one that is listened on.
    Only(u16),
    /// The Service's whose targetPort is the one that is listened on.
    OfService,
}

/// Consecutive ports that are listened on, and what clients dial for them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// `None`: whichever there are.
    pub ports: Option<Ports>,
    pub external: External,
    pub port: DialledPort,
}

impl Part {
    pub fn new(first: u16, last: u16, external: External, port: DialledPort) -> Self {
        Self { ports: Some(Ports { first, last }), external, port }
    }
}

/// What clients of one path dial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// By port; parts do not overlap.
    Ports(Vec<Part>),
    /// The nodes' own addresses.
    Pods,
}

/// Where clients come from who are told the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    pub name: String,
    /// The networks of the clients' addresses; any where it is empty.
    pub from: Vec<Network>,
    /// What the load balancer's header says; anything where it is `None`.
    pub proxy: Option<ProxyMatch>,
    pub told: Told,
}

impl Path {
    /// One without a condition.
    pub fn new(name: &str, told: Told) -> Self {
        Self { name: name.to_owned(), from: Vec::new(), proxy: None, told }
    }

    /// The only one, of one address for every port.
    pub fn everywhere(external: External) -> Vec<Self> {
        let port = match external {
            External::Service(_) => DialledPort::OfService,
            External::Addresses { .. } | External::Name(_) => DialledPort::Listened,
        };
        let told = Told::Ports(vec![Part { ports: None, external, port }]);
        vec![Self::new(DEFAULT_PATH, told)]
    }

    /// Who is of this path, and of none before it.
    pub fn conditions(&self) -> (&str, &[Network], Option<&ProxyMatch>) {
        (&self.name, &self.from, self.proxy.as_ref())
    }

    pub fn has_condition(&self) -> bool {
        !self.from.is_empty() || self.proxy.is_some()
    }

    pub fn parts(&self) -> &[Part] {
        match &self.told {
            Told::Ports(parts) => parts,
            Told::Pods => &[],
        }
    }
}

/// One of `advertise: 203.0.113.10`, `advertise: gateway.example.com`, `advertise: {ipv4: …, ipv6: …}`, `advertise: {service: …}`, and
/// a list of entries for parts of the ports; of a path also `advertise: pods`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Advertise {
    Text(String),
    Families(Families),
    Service(LoadBalancer),
    Map(Vec<Entry>),
}

/// The gateway's own Service of type LoadBalancer, in its own namespace.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LoadBalancer {
    /// Its status.loadBalancer.ingress is what clients dial.
    pub service: String,
}

/// Both families; a client is told the one over which it came.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Families {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv4: Option<Ipv4Addr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<Ipv6Addr>,
}

/// What clients dial for some of the ports: exactly one of address, ipv4 and ipv6, and service.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// A part of listen.
    pub ports: Ports,
    /// An IP address or a DNS name. In a name, {index} counts from 0 within the entry's ports: a name for each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv4: Option<Ipv4Addr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<Ipv6Addr>,
    /// A Service of type LoadBalancer of the gateway's own, and which of its ports leads here. {index} as in address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// What clients dial, where the entry has one port, or an address for each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// What clients dial for the first of the ports; the others follow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_port: Option<u16>,
}

/// Clients who come from one side, and what they are told.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PathRule {
    pub name: String,
    /// The networks that the clients' own addresses are of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub from: Vec<Network>,
    /// What the load balancer in front says of the client (proxy_protocol).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<ProxyMatch>,
    /// As at the top of the file; or pods, for clients that reach the nodes' own addresses.
    pub advertise: Advertise,
}

/// What a PROXY header carries beside the address; all that is given must be as it says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ProxyMatch {
    /// The id of an AWS VPC endpoint, such as vpce-08d2bf15fac5001c9.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aws_vpce: Option<String>,
    /// The LinkID of an Azure private endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub azure_link: Option<u32>,
    /// The id of a Private Service Connect connection of Google Cloud.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gcp_psc: Option<u64>,
    /// The name that the client dialled; ASCII case is ignored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authority: Option<String>,
}

/// What may stand in the mapping of `advertise`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AdvertiseKeys {
    ipv4: Option<Ipv4Addr>,
    ipv6: Option<Ipv6Addr>,
    service: Option<String>,
}

impl<'de> Deserialize<'de> for Advertise {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AdvertiseVisitor;
        impl<'de> Visitor<'de> for AdvertiseVisitor {
            type Value = Advertise;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an IP address, a DNS name, {ipv4, ipv6}, {service} or a list of entries with ports")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Advertise, E> {
                Ok(Advertise::Text(text.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Advertise, A::Error> {
                let keys = AdvertiseKeys::deserialize(MapAccessDeserializer::new(map))?;
                match keys {
                    AdvertiseKeys { ipv4: None, ipv6: None, service: Some(service) } => {
                        Ok(Advertise::Service(LoadBalancer { service }))
                    }
                    AdvertiseKeys { ipv4, ipv6, service: None } => Ok(Advertise::Families(Families { ipv4, ipv6 })),
                    AdvertiseKeys { service: Some(_), .. } => {
                        Err(de::Error::custom("service excludes ipv4 and ipv6: its status has the addresses"))
                    }
                }
            }

            fn visit_seq<A: SeqAccess<'de>>(self, entries: A) -> Result<Advertise, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(entries)).map(Advertise::Map)
            }
        }
        deserializer.deserialize_any(AdvertiseVisitor)
    }
}

impl FromStr for Advertise {
    type Err = BadText;

    fn from_str(text: &str) -> Result<Self, BadText> {
        Ok(Self::Text(text.to_owned()))
    }
}
