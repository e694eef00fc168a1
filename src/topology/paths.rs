//! What clients dial for each node: of every path by which they come, a map from the ports that are listened on to endpoints.
//!
//! Made anew whenever something is learned of an external address, and never changed. Two ports are never told alike: of two that
//! would be, the later one has no endpoint, and so its node is shown to nobody on that path.

mod map;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use super::{HiddenReason, Mapped, Node, Topology};
use crate::config::External;
use crate::config::advertise::{self, DialledPort, Part, Told};
use map::Map;

/// An external address, by family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Advertised {
    pub ipv4: Option<Ipv4Addr>,
    pub ipv6: Option<Ipv6Addr>,
}

impl Advertised {
    /// The address for a client that came over this family, or the only one.
    pub fn for_family(&self, family: Family) -> Option<IpAddr> {
        let v4 = self.ipv4.map(IpAddr::V4);
        let v6 = self.ipv6.map(IpAddr::V6);
        match family {
            Family::Ipv4 => v4.or(v6),
            Family::Ipv6 => v6.or(v4),
        }
    }

    /// IPv4 first.
    pub fn each(self) -> impl Iterator<Item = IpAddr> {
        self.ipv4.map(IpAddr::V4).into_iter().chain(self.ipv6.map(IpAddr::V6))
    }

    pub fn is_known(&self) -> bool {
        self.ipv4.is_some() || self.ipv6.is_some()
    }
}

/// Over what a client has come: a small copy of the accepted socket's local address, as each connection keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    Ipv4,
    Ipv6,
}

impl From<IpAddr> for Family {
    /// An IPv4 client of a socket for both families came over IPv4.
    fn from(local: IpAddr) -> Self {
        match local.to_canonical() {
            IpAddr::V4(_) => Self::Ipv4,
            IpAddr::V6(_) => Self::Ipv6,
        }
    }
}

/// What is known of an external address that the configuration names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Learned {
    pub advertised: Advertised,
    /// Of a Service: its ports, by the ports that they lead to.
    pub ports: BTreeMap<u16, u16>,
}

/// How the endpoints of all ports look to a driver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    /// No two have the same address.
    pub has_distinct_addresses: bool,
    /// The port of all of them, where it is one.
    pub only_port: Option<u16>,
}

impl Shape {
    fn of(endpoints: impl Iterator<Item = SocketAddr>) -> Self {
        let (mut addresses, mut ports) = (std::collections::HashSet::new(), std::collections::HashSet::new());
        let mut distinct = true;
        for endpoint in endpoints {
            distinct &= addresses.insert(endpoint.ip());
            ports.insert(endpoint.port());
        }
        let only = (ports.len() == 1).then(|| ports.into_iter().next()).flatten();
        Self { has_distinct_addresses: distinct, only_port: only }
    }
}

/// All paths, and what they were made of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Paths {
    paths: Vec<Arc<Path>>,
    learned: BTreeMap<External, Learned>,
}

/// What clients of one path are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    pub name: Arc<str>,
    endpoints: Endpoints,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Endpoints {
    /// The nodes' own.
    Pods,
    Map(Map),
}

impl Paths {
    /// What the plan amounts to, as far as its addresses are known. A path of which nothing is known stays as it was `before`.
    pub fn of(plan: &[advertise::Path], learned: &BTreeMap<External, Learned>, before: &Self) -> Self {
        let path = |planned: &advertise::Path| {
            let endpoints = match &planned.told {
                Told::Pods => Endpoints::Pods,
                Told::Ports(parts) => Endpoints::Map(Map::of(parts, learned)),
            };
            let path = Path { name: planned.name.as_str().into(), endpoints };
            match before.named(&path.name).filter(|before| !path.is_known() || ***before == path) {
                Some(before) => Arc::clone(before),
                None => Arc::new(path),
            }
        };
        let paths = plan.iter().map(path).collect();
        let meant = plan.iter().flat_map(advertise::Path::parts).map(|part| &part.external);
        let meant = meant.filter(|external| !matches!(external, External::Addresses { .. }));
        let of = |external: &External| (external.clone(), learned.get(external).cloned().unwrap_or_default());
        Self { paths, learned: meant.map(of).collect() }
    }

    pub fn iter(&self) -> impl Iterator<Item = &Arc<Path>> {
        self.paths.iter()
    }

    pub fn named(&self, name: &str) -> Option<&Arc<Path>> {
        self.paths.iter().find(|path| &*path.name == name)
    }

    /// The one of clients who fit no other.
    pub fn last(&self) -> Option<&Arc<Path>> {
        self.paths.last()
    }

    /// Whether each path tells of something.
    pub fn are_known(&self) -> bool {
        !self.paths.is_empty() && self.paths.iter().all(|path| path.is_known())
    }

    /// What is known of each address that may be another one tomorrow; of one of which nothing is, that.
    pub fn learned(&self) -> &BTreeMap<External, Learned> {
        &self.learned
    }

    /// Of one path with one address for all ports: that.
    #[cfg(test)]
    pub fn only_address(&self) -> Advertised {
        let mut lines = self.paths.iter().flat_map(|path| path.told());
        lines.next().map(|line| line.advertised).unwrap_or_default()
    }

    /// Whether clients of any path dial this address to reach the gateway.
    pub fn lead_here(&self, ip: IpAddr) -> bool {
        self.paths.iter().any(|path| matches!(&path.endpoints, Endpoints::Map(map) if map.has(ip)))
    }
}

impl From<Advertised> for Arc<Paths> {
    /// One path, and one address for each port.
    fn from(Advertised { ipv4, ipv6 }: Advertised) -> Self {
        let plan = advertise::Path::everywhere(External::Addresses { ipv4, ipv6 });
        Arc::new(Paths::of(&plan, &BTreeMap::new(), &Paths::default()))
    }
}

impl Path {
    /// What clients dial for a node who come over this family; `None` while that is not known.
    pub fn endpoint(&self, node: &Node, family: Family) -> Option<SocketAddr> {
        match &self.endpoints {
            Endpoints::Pods => Some(node.native_address()),
            Endpoints::Map(map) => map.endpoint(node.port, family),
        }
    }

    /// Why clients are not shown an announced node.
    pub fn hides(&self, node: &Node) -> Option<HiddenReason> {
        let Endpoints::Map(map) = &self.endpoints else { return None };
        if map.is_alike(node.port) {
            Some(HiddenReason::SameEndpoint)
        } else {
            (!map.knows(node.port)).then_some(HiddenReason::NotAdvertised)
        }
    }

    /// Whether an address may be told: that of a node which clients are shown.
    pub fn tells(&self, ip: IpAddr, topology: &Topology) -> bool {
        match &self.endpoints {
            Endpoints::Map(map) => map.has(ip.to_canonical()),
            Endpoints::Pods => matches!(topology.map_native_ip(ip), Mapped::Current(node) if node.is_announced()),
        }
    }

    /// To a client that came over this family and by the port `attached`.
    pub fn shape(&self, family: Family, attached: u16, topology: &Topology) -> Shape {
        match &self.endpoints {
            Endpoints::Map(map) => map.shape(family),
            Endpoints::Pods => {
                let shown = topology.nodes.iter().filter(|node| node.is_announced());
                let shape = Shape::of(shown.map(|node| node.native_address()));
                // Nothing stands between such a client and the gateway: it would apply the port that it dialled here to every node.
                Shape { only_port: shape.only_port.filter(|port| *port == attached), ..shape }
            }
        }
    }

    fn is_known(&self) -> bool {
        match &self.endpoints {
            Endpoints::Pods => true,
            Endpoints::Map(map) => map.is_known(),
        }
    }

    /// Whether somebody was told an endpoint `before` that is another one now.
    pub fn has_moved(&self, before: &Self) -> bool {
        match (&self.endpoints, &before.endpoints) {
            (Endpoints::Map(map), Endpoints::Map(before)) => map.has_moved(before),
            (now, before) => now != before,
        }
    }

    /// What is told, a line for each of its parts: its ports, the address, and the first port that is dialled.
    pub fn told(&self) -> impl Iterator<Item = map::Line> + '_ {
        let map = match &self.endpoints {
            Endpoints::Pods => None,
            Endpoints::Map(map) => Some(map),
        };
        map.into_iter().flat_map(Map::lines)
    }

    pub fn is_of_pods(&self) -> bool {
        self.endpoints == Endpoints::Pods
    }
}

#[cfg(test)]
mod tests;
