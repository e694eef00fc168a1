//! From ports that are listened on to what clients dial.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};

use super::{Advertised, DialledPort, External, Family, Learned, Part, Shape};

/// The parts of one path, by their first ports, as far as they are known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Map {
    spans: Vec<Span>,
    /// Ports that would be told as an earlier one is.
    alike: HashSet<u16>,
    addresses: HashSet<IpAddr>,
    ipv4: Shape,
    ipv6: Shape,
}

/// Consecutive ports with one address.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Span {
    first: u16,
    last: u16,
    advertised: Advertised,
    numbers: Numbers,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Numbers {
    Listened,
    From(u16),
    /// By the port that is listened on; one that is missing is the same where `or_listened`.
    Given {
        ports: BTreeMap<u16, u16>,
        or_listened: bool,
    },
}

/// What of a part is told: the ports that are listened on, the address, and what is dialled for the first of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    pub first: u16,
    pub last: u16,
    pub advertised: Advertised,
    pub dialled: Option<u16>,
}

impl Span {
    fn of(part: &Part, learned: &BTreeMap<External, Learned>) -> Self {
        let (first, last) = part.ports.map_or((0, u16::MAX), |ports| (ports.first, ports.last));
        let known = learned.get(&part.external);
        let advertised = match part.external {
            External::Addresses { ipv4, ipv6 } => Advertised { ipv4, ipv6 },
            External::Name(_) | External::Service(_) => known.map(|known| known.advertised).unwrap_or_default(),
        };
        let numbers = match part.port {
            DialledPort::Listened => Numbers::Listened,
            DialledPort::From(port) | DialledPort::Only(port) => Numbers::From(port),
            DialledPort::OfService => Numbers::Given {
                ports: known.map(|known| known.ports.clone()).unwrap_or_default(),
                // The short form is older than the look at the Service's ports.
                or_listened: part.ports.is_none(),
            },
        };
        Self { first, last, advertised, numbers }
    }

    fn dialled(&self, port: u16) -> Option<u16> {
        match &self.numbers {
            Numbers::Listened => Some(port),
            Numbers::From(first) => first.checked_add(port.checked_sub(self.first)?),
            Numbers::Given { ports, or_listened } => ports.get(&port).copied().or(or_listened.then_some(port)),
        }
    }
}

impl Map {
    pub(super) fn of(parts: &[Part], learned: &BTreeMap<External, Learned>) -> Self {
        let mut spans: Vec<_> = parts.iter().map(|part| Span::of(part, learned)).collect();
        spans.sort_by_key(|span| span.first);
        let mut map = Self { spans, ..Self::default() };
        // One address with the ports that are listened on: none are alike, and there may be as many as there are numbers.
        let is_plain = matches!(map.spans.as_slice(), [Span { numbers: Numbers::Listened, .. }]);
        if !is_plain {
            map.find_alike();
        }
        let spans = map.spans.iter().filter(|span| span.first != span.last || map.knows(span.first));
        map.addresses = spans.flat_map(|span| span.advertised.each()).collect();
        (map.ipv4, map.ipv6) = (map.seen_by(Family::Ipv4), map.seen_by(Family::Ipv6));
        map
    }

    fn find_alike(&mut self) {
        let mut told: HashMap<SocketAddr, u16> = HashMap::new();
        for span in &self.spans {
            for port in span.first..=span.last {
                let Some(dialled) = span.dialled(port) else { continue };
                for ip in span.advertised.each() {
                    match told.entry(SocketAddr::new(ip, dialled)) {
                        Entry::Vacant(place) => _ = place.insert(port),
                        Entry::Occupied(before) if *before.get() != port => _ = self.alike.insert(port),
                        Entry::Occupied(_) => {}
                    }
                }
            }
        }
    }

    fn seen_by(&self, family: Family) -> Shape {
        match self.spans.as_slice() {
            // Of one address for many ports it is known at once.
            [Span { first, last, .. }] if first != last => Shape::default(),
            spans => {
                let ports = spans.iter().flat_map(|span| span.first..=span.last);
                Shape::of(ports.filter_map(|port| self.endpoint(port, family)))
            }
        }
    }

    pub(super) fn shape(&self, family: Family) -> Shape {
        match family {
            Family::Ipv4 => self.ipv4,
            Family::Ipv6 => self.ipv6,
        }
    }

    fn span(&self, port: u16) -> Option<&Span> {
        let after = self.spans.partition_point(|span| span.first <= port);
        self.spans.get(after.checked_sub(1)?).filter(|span| port <= span.last)
    }

    pub(super) fn endpoint(&self, port: u16, family: Family) -> Option<SocketAddr> {
        let span = self.span(port).filter(|_| !self.alike.contains(&port))?;
        Some(SocketAddr::new(span.advertised.for_family(family)?, span.dialled(port)?))
    }

    pub(super) fn is_alike(&self, port: u16) -> bool {
        self.alike.contains(&port)
    }

    pub(super) fn knows(&self, port: u16) -> bool {
        self.endpoint(port, Family::Ipv4).is_some()
    }

    pub(super) fn is_known(&self) -> bool {
        self.spans.iter().any(|span| span.advertised.is_known())
    }

    pub(super) fn has(&self, ip: IpAddr) -> bool {
        self.addresses.contains(&ip)
    }

    pub(super) fn has_moved(&self, before: &Self) -> bool {
        let families = [Family::Ipv4, Family::Ipv6];
        if self == before {
            return false;
        }
        // Where spans are as they were, only their addresses and numbers count.
        let ports = before.spans.iter().flat_map(|span| match span.numbers {
            Numbers::Listened
                if self
                    .spans
                    .iter()
                    .any(|now| now.first == span.first && now.last == span.last && now.numbers == span.numbers) =>
            {
                span.first..=span.first
            }
            _ => span.first..=span.last,
        });
        ports.into_iter().any(|port| {
            let was = families.map(|family| before.endpoint(port, family));
            was.into_iter().zip(families).any(|(was, family)| was.is_some() && self.endpoint(port, family) != was)
        })
    }

    pub(super) fn lines(&self) -> impl Iterator<Item = Line> + '_ {
        self.spans.iter().map(|span| Line {
            first: span.first,
            last: span.last,
            advertised: span.advertised,
            dialled: self.endpoint(span.first, Family::Ipv4).map(|endpoint| endpoint.port()),
        })
    }
}
