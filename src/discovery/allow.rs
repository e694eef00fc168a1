//! Which of the addresses that others tell of are dialled (`discovery.allow`): nodes' rows, EndpointSlices and DNS may name any
//! address, and whatever is dialled is spoken to from where the gateway stands, with its login.
//!
//! What the user named is dialled, whatever it is. Without `allow` everything else is, too, but for what no node of a cluster has
//! behind a gateway: loopback and link-local addresses (cloud metadata lives there), unless contact points are among them, and
//! addresses that are nobody's. With it only what it lists. The gateway itself is never dialled: that would be a loop.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};

use ipnet::IpNet;
use thiserror::Error;

use super::refusals::Refused;
use crate::config::Config;
use crate::proxy::current::Current;
use crate::topology::input::{Found, Listed};
use crate::topology::ports::PortRange;
use crate::topology::{HiddenReason, Paths};

/// Addresses of which is remembered whether they are this machine's.
const REMEMBERED: usize = 4096;

/// Why an address is not dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Error)]
pub enum NotAllowed {
    #[error("it is the gateway itself")]
    Gateway,
    #[error("it is in no network of discovery.allow")]
    NotListed,
    #[error("it is a loopback address, and no contact point has one: list it in discovery.allow if nodes live there")]
    Loopback,
    #[error("it is a link-local address, and no contact point has one: list it in discovery.allow if nodes live there")]
    LinkLocal,
    #[error("it is no host's address")]
    NoHost,
}

/// What may be dialled; clones share what the user named.
#[derive(Clone)]
pub struct Allow(Arc<Rules>);

struct Rules {
    listed: Current<Option<Vec<IpNet>>>,
    /// Where the gateway listens for clients.
    listen: IpAddr,
    ports: PortRange,
    admin: SocketAddr,
    named: Mutex<HashSet<IpAddr>>,
    local: Mutex<HashMap<IpAddr, bool>>,
}

impl Allow {
    /// `ports` are those that are bound.
    pub fn new(config: &Config, ports: PortRange) -> Self {
        let listed = Current::new(listed(config));
        let (listen, admin) = (config.listen.address.to_canonical(), config.admin);
        Self(Arc::new(Rules { listed, listen, ports, admin, named: Mutex::default(), local: Mutex::default() }))
    }

    /// Other networks from now on.
    pub fn change(&self, config: &Config) {
        self.0.listed.set(listed(config));
    }

    /// The addresses that the user named, by themselves or by a DNS name; each time anew.
    pub fn name(&self, addresses: impl IntoIterator<Item = IpAddr>) {
        let named = addresses.into_iter().map(|ip| ip.to_canonical()).collect();
        *self.0.named.lock().unwrap_or_else(PoisonError::into_inner) = named;
    }

    /// Whoever lives where nobody is to be dialled counts as away.
    pub fn refuse(&self, found: &mut [Found], paths: &Paths) -> Vec<Refused> {
        let mut refused = Vec::new();
        for node in found.iter_mut().filter(|node| node.listed == Listed::Here) {
            if let Err(why) = self.check(node.address, paths) {
                node.listed = Listed::Away;
                let (id, address, why) = (Some(node.id.clone()), Some(node.address), why.to_string());
                refused.push(Refused { id, host_id: None, address, reason: HiddenReason::NotAllowed, why });
            }
        }
        refused
    }

    /// Whether a node may be dialled there; `paths` are how clients dial the gateway.
    pub fn check(&self, address: SocketAddr, paths: &Paths) -> Result<(), NotAllowed> {
        let (rules, ip) = (&*self.0, address.ip().to_canonical());
        let named = rules.named.lock().unwrap_or_else(PoisonError::into_inner);
        if rules.is_gateway(ip, address.port(), paths) {
            return Err(NotAllowed::Gateway);
        }
        if named.contains(&ip) {
            return Ok(());
        }
        if let Some(networks) = &*rules.listed.get() {
            return if networks.iter().any(|network| network.contains(&ip)) {
                Ok(())
            } else {
                Err(NotAllowed::NotListed)
            };
        }
        let among = |of: fn(IpAddr) -> bool| of(ip) && !named.iter().any(|named| of(*named));
        match ip {
            _ if among(is_loopback) => Err(NotAllowed::Loopback),
            _ if among(is_link_local) => Err(NotAllowed::LinkLocal),
            _ if is_no_host(ip) => Err(NotAllowed::NoHost),
            _ => Ok(()),
        }
    }
}

fn listed(config: &Config) -> Option<Vec<IpNet>> {
    config.allow.as_ref().map(|networks| networks.iter().map(|network| network.0).collect())
}

impl Rules {
    fn is_gateway(&self, ip: IpAddr, port: u16, paths: &Paths) -> bool {
        let for_clients = self.ports.contains(port);
        let told = paths.lead_here(ip);
        let for_admin = port == self.admin.port();
        for_clients && (told || self.reaches(self.listen, ip)) || for_admin && self.reaches(self.admin.ip(), ip)
    }

    /// Whether a listener at `own` is reached by `ip`.
    fn reaches(&self, own: IpAddr, ip: IpAddr) -> bool {
        match own {
            IpAddr::V4(Ipv4Addr::UNSPECIFIED) => ip.is_ipv4() && self.is_local(ip),
            IpAddr::V6(Ipv6Addr::UNSPECIFIED) => self.is_local(ip),
            own => own.to_canonical() == ip,
        }
    }

    fn is_local(&self, ip: IpAddr) -> bool {
        let mut known = self.local.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= REMEMBERED {
            known.clear();
        }
        *known.entry(ip).or_insert_with(|| is_loopback(ip) || is_own(ip))
    }
}

/// The system answers from an address of its own where it is asked at that address, and from another one elsewhere. Nothing is
/// sent.
fn is_own(ip: IpAddr) -> bool {
    let any: IpAddr = if ip.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let asked = UdpSocket::bind((any, 0)).and_then(|socket| socket.connect((ip, 9)).and_then(|()| socket.local_addr()));
    asked.is_ok_and(|from| from.ip() == ip)
}

fn is_loopback(ip: IpAddr) -> bool {
    ip.is_loopback()
}

fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

fn is_no_host(ip: IpAddr) -> bool {
    let broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast() || ip.octets()[0] == 0);
    ip.is_unspecified() || ip.is_multicast() || broadcast
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn allow(keys: &str, named: &[&str]) -> Allow {
        let discovery = format!("discovery: {{contact_points: [\"10.0.0.1\"]{keys}}}");
        let text = format!("listen: 10.0.0.9:9042-9051\nadmin: 0.0.0.0:9180\nadvertise: 203.0.113.10\n{discovery}\n");
        let config = Config::parse("test.yaml", &text, Path::new("/")).unwrap_or_else(|error| panic!("{error}")).config;
        let allow = Allow::new(&config, PortRange::new(9042, 9051).unwrap());
        allow.name(named.iter().map(|ip| ip.parse().unwrap()));
        allow
    }

    fn check(allow: &Allow, expected: &[(&str, Result<(), NotAllowed>)]) {
        let advertised = crate::topology::Advertised { ipv4: Some([203, 0, 113, 10].into()), ipv6: None };
        let paths = std::sync::Arc::<Paths>::from(advertised);
        for (address, expected) in expected {
            assert_eq!(allow.check(address.parse().unwrap(), &paths), *expected, "{address}");
        }
    }

    #[test]
    fn by_default_only_what_no_node_has_is_refused() {
        check(
            &allow("", &["10.0.0.1"]),
            &[
                ("10.0.0.2:9042", Ok(())),
                ("8.8.8.8:9042", Ok(())),
                ("[2001:db8::2]:9042", Ok(())),
                ("127.0.0.1:7199", Err(NotAllowed::Loopback)),
                ("[::ffff:127.0.0.1]:7199", Err(NotAllowed::Loopback)),
                ("[::1]:7199", Err(NotAllowed::Loopback)),
                ("169.254.169.254:80", Err(NotAllowed::LinkLocal)),
                ("[fe80::1]:9042", Err(NotAllowed::LinkLocal)),
                ("0.0.0.0:9042", Err(NotAllowed::NoHost)),
                ("224.0.0.1:9042", Err(NotAllowed::NoHost)),
                ("255.255.255.255:9042", Err(NotAllowed::NoHost)),
                ("[ff02::1]:9042", Err(NotAllowed::NoHost)),
            ],
        );
    }

    #[test]
    fn where_a_contact_point_is_others_may_be() {
        let expected = [("127.0.0.2:9142", Ok(())), ("169.254.0.1:9142", Err(NotAllowed::LinkLocal))];
        check(&allow("", &["127.0.0.1"]), &expected);
        check(&allow("", &["::ffff:127.0.0.1"]), &expected);
        check(&allow("", &["169.254.0.2"]), &[("169.254.0.1:9142", Ok(())), ("[fe80::7]:9142", Ok(()))]);
    }

    #[test]
    fn a_list_is_all_that_counts_beside_what_was_named() {
        let allow = allow(", allow: [10.1.0.0/16, 127.0.0.9, \"2001:db8::/64\"]", &["10.0.0.1"]);
        check(
            &allow,
            &[
                ("10.1.2.3:9042", Ok(())),
                ("127.0.0.9:9142", Ok(())),
                ("[2001:db8::9]:9042", Ok(())),
                ("10.0.0.1:9042", Ok(())),
                ("10.0.0.2:9042", Err(NotAllowed::NotListed)),
                ("127.0.0.8:9142", Err(NotAllowed::NotListed)),
                ("[2001:db8:1::9]:9042", Err(NotAllowed::NotListed)),
            ],
        );
    }

    #[test]
    fn the_gateway_never_dials_itself() {
        let gateway = Err(NotAllowed::Gateway);
        let allow = allow(", allow: [0.0.0.0/0]", &["10.0.0.1", "10.0.0.9"]);
        check(
            &allow,
            &[
                ("10.0.0.9:9051", gateway),
                ("203.0.113.10:9042", gateway),
                ("10.0.0.9:9052", Ok(())),
                ("10.0.0.2:9051", Ok(())),
                // The admin address is every one of this machine.
                ("127.0.0.1:9180", gateway),
                ("127.0.0.1:9181", Ok(())),
            ],
        );
    }

    #[test]
    fn this_machines_addresses_are_known() {
        // Of a documentation network, which nobody has.
        assert!(!is_own([192, 0, 2, 1].into()));
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        if socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).is_ok() {
            assert!(is_own(socket.local_addr().unwrap().ip()));
        }
        assert!(is_own(Ipv4Addr::LOCALHOST.into()));
    }
}
