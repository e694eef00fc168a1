//! Who may come in, before anything is said: by address (`access`), and by who says which address that is (`proxy_protocol`).

use std::net::IpAddr;
use std::ops::RangeInclusive;

use ipnet::IpNet;

use super::Refused;
use crate::config::text::Network;
use crate::config::{Access, ProxyMode, ProxyProtocol};

/// Whose address the peer's is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// The client's own.
    Direct,
    /// A load balancer's, which says in a header whom it brings.
    Brought,
}

/// The rules about addresses.
#[derive(Clone, Debug)]
pub struct Gate {
    rules: Rules,
    /// Further ones, for some of the ports.
    parts: Vec<(RangeInclusive<u16>, Rules)>,
    mode: ProxyMode,
    /// Who may send a header.
    from: Vec<IpNet>,
}

#[derive(Clone, Debug)]
struct Rules {
    allow: Option<Vec<IpNet>>,
    deny: Vec<IpNet>,
}

impl Gate {
    pub fn new(access: &Access, proxy: &ProxyProtocol) -> Self {
        let part = |part: &crate::config::PortAccess| {
            (part.ports.first..=part.ports.last, Rules::new(part.allow.as_deref(), &part.deny))
        };
        Self {
            rules: Rules::new(access.allow.as_deref(), &access.deny),
            parts: access.ports.iter().map(part).collect(),
            mode: proxy.mode,
            from: nets(&proxy.from),
        }
    }

    pub fn reads_headers(&self) -> bool {
        self.mode != ProxyMode::Off
    }

    /// Whether a header has to come before anything else.
    pub fn requires_header(&self) -> bool {
        self.mode == ProxyMode::Required
    }

    /// What a peer is that comes to `port`, or why it may not.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn receive(&self, port: u16, peer: IpAddr) -> Result<Arrival, Refused> {
        let is_trusted = || contains(&self.from, peer.to_canonical());
        match self.mode {
            ProxyMode::Off => {}
            _ if is_trusted() => return Ok(Arrival::Brought),
            ProxyMode::Optional => {}
            ProxyMode::Required => return Err(Refused::ProxySource),
        }
        self.admit(port, peer).map(|()| Arrival::Direct)
    }

    /// Whether a client of this address may come in at `port`.
    ///
    /// # Errors
    /// Which list speaks against it; `deny` before `allow`.
    pub fn admit(&self, port: u16, client: IpAddr) -> Result<(), Refused> {
        let client = client.to_canonical();
        self.rules.check(client)?;
        let mut parts = self.parts.iter().filter(|(ports, _)| ports.contains(&port));
        parts.try_for_each(|(_, rules)| rules.check(client))
    }
}

impl Rules {
    fn new(allow: Option<&[Network]>, deny: &[Network]) -> Self {
        Self { allow: allow.map(nets), deny: nets(deny) }
    }

    fn check(&self, client: IpAddr) -> Result<(), Refused> {
        if contains(&self.deny, client) {
            return Err(Refused::Denied);
        }
        match &self.allow {
            Some(allow) if !contains(allow, client) => Err(Refused::NotAllowed),
            _ => Ok(()),
        }
    }
}

/// IPv4-mapped networks count as IPv4 ones, as addresses do.
pub(super) fn nets(networks: &[Network]) -> Vec<IpNet> {
    networks.iter().map(|network| canonical(network.0)).collect()
}

fn canonical(net: IpNet) -> IpNet {
    let IpNet::V6(v6) = net else { return net };
    let mapped = v6.addr().to_ipv4_mapped().zip(v6.prefix_len().checked_sub(96));
    let v4 = mapped.and_then(|(address, length)| ipnet::Ipv4Net::new(address, length).ok());
    v4.map_or(net, IpNet::V4)
}

/// `address` is canonical.
pub(super) fn contains(nets: &[IpNet], address: IpAddr) -> bool {
    nets.iter().any(|net| net.contains(&address))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(access: &str, proxy: &str) -> Gate {
        Gate::new(&serde_saphyr::from_str(access).unwrap(), &serde_saphyr::from_str(proxy).unwrap())
    }

    fn check(gate: &Gate, port: u16, peer: &str, expected: Result<Arrival, Refused>) {
        assert_eq!(gate.receive(port, peer.parse().unwrap()), expected, "{peer} at {port}");
    }

    #[test]
    fn without_lists_everybody_may_come_in() {
        let gate = gate("{}", "{}");
        check(&gate, 9042, "203.0.113.7", Ok(Arrival::Direct));
        check(&gate, 9042, "2001:db8::1", Ok(Arrival::Direct));
    }

    #[test]
    fn deny_wins_over_allow_and_allow_is_all_that_may() {
        let gate = gate("{allow: [10.0.0.0/8, '2001:db8::/32'], deny: [10.1.0.0/16]}", "{}");
        check(&gate, 9042, "10.0.0.1", Ok(Arrival::Direct));
        check(&gate, 9042, "10.1.0.1", Err(Refused::Denied));
        check(&gate, 9042, "192.0.2.1", Err(Refused::NotAllowed));
        check(&gate, 9042, "2001:db8::1", Ok(Arrival::Direct));
        check(&gate, 9042, "2001:db9::1", Err(Refused::NotAllowed));
    }

    #[test]
    fn an_address_is_the_same_in_both_ways_of_writing_it() {
        let gate = gate("{allow: [10.0.0.0/8, '::ffff:192.0.2.0/120'], deny: ['::ffff:10.1.0.0/112']}", "{}");
        check(&gate, 9042, "::ffff:10.0.0.1", Ok(Arrival::Direct));
        check(&gate, 9042, "::ffff:10.1.0.1", Err(Refused::Denied));
        check(&gate, 9042, "10.1.0.1", Err(Refused::Denied));
        check(&gate, 9042, "192.0.2.9", Ok(Arrival::Direct));
    }

    #[test]
    fn a_part_of_the_ports_has_rules_beside_those_of_all() {
        let gate = gate(
            "{deny: [10.1.0.0/16], ports: [{ports: 9043-9044, allow: [10.0.0.0/8]}, {ports: 9044, deny: [10.2.0.0/16]}]}",
            "{}",
        );
        check(&gate, 9042, "192.0.2.1", Ok(Arrival::Direct));
        check(&gate, 9043, "192.0.2.1", Err(Refused::NotAllowed));
        check(&gate, 9043, "10.2.0.1", Ok(Arrival::Direct));
        check(&gate, 9044, "10.2.0.1", Err(Refused::Denied));
        check(&gate, 9043, "10.1.0.1", Err(Refused::Denied));
        check(&gate, 9045, "10.1.0.1", Err(Refused::Denied));
    }

    #[test]
    fn only_the_load_balancer_says_whom_it_brings() {
        let access = "{deny: [192.0.2.0/24]}";
        let required = gate(access, "{mode: required, from: [10.0.0.0/8]}");
        check(&required, 9042, "10.0.0.1", Ok(Arrival::Brought));
        check(&required, 9042, "::ffff:10.0.0.1", Ok(Arrival::Brought));
        check(&required, 9042, "203.0.113.7", Err(Refused::ProxySource));
        let optional = gate(access, "{mode: optional, from: [10.0.0.0/8]}");
        check(&optional, 9042, "10.0.0.1", Ok(Arrival::Brought));
        check(&optional, 9042, "203.0.113.7", Ok(Arrival::Direct));
        check(&optional, 9042, "192.0.2.1", Err(Refused::Denied));
    }
}
