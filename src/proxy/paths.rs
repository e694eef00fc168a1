//! By which path a client comes, and so what it is told to dial: its own address, and what a load balancer says of it.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::gate::{contains, nets};
use super::header::{Endpoint, Via};
use crate::config::advertise::{Path, ProxyMatch};

/// The conditions of the configuration's paths; the first that fits counts.
#[derive(Clone, Debug)]
pub struct PathRules {
    rules: Vec<Rule>,
    /// Of whoever fits nowhere.
    last: Arc<str>,
}

#[derive(Clone, Debug)]
struct Rule {
    name: Arc<str>,
    from: Vec<IpNet>,
    proxy: Option<ProxyMatch>,
}

impl PathRules {
    pub fn new(paths: &[Path]) -> Self {
        let rule =
            |path: &Path| Rule { name: path.name.as_str().into(), from: nets(&path.from), proxy: path.proxy.clone() };
        let rules = paths.iter().filter(|path| path.has_condition()).map(rule).collect();
        Self { rules, last: paths.last().map_or("", |path| path.name.as_str()).into() }
    }

    /// The path of a client at `address`, of which `via` was said by a load balancer that may.
    pub fn of(&self, address: IpAddr, via: Option<&Via>) -> &Arc<str> {
        let address = address.to_canonical();
        let fits = |rule: &&Rule| {
            let is_from = rule.from.is_empty() || contains(&rule.from, address);
            is_from && rule.proxy.as_ref().is_none_or(|proxy| via.is_some_and(|via| is_said(proxy, via)))
        };
        self.rules.iter().find(fits).map_or(&self.last, |rule| &rule.name)
    }
}

fn is_said(asked: &ProxyMatch, via: &Via) -> bool {
    let endpoint = match &via.endpoint {
        Some(Endpoint::Aws(id)) => (Some(&**id), None, None),
        Some(Endpoint::Azure(id)) => (None, Some(*id), None),
        Some(Endpoint::Gcp(id)) => (None, None, Some(*id)),
        None => (None, None, None),
    };
    let authority = |asked: &str| via.authority.as_deref().is_some_and(|said| said.eq_ignore_ascii_case(asked));
    asked.aws_vpce.as_deref().is_none_or(|id| endpoint.0 == Some(id))
        && asked.azure_link.is_none_or(|id| endpoint.1 == Some(id))
        && asked.gcp_psc.is_none_or(|id| endpoint.2 == Some(id))
        && asked.authority.as_deref().is_none_or(authority)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::External;

    fn rules() -> PathRules {
        let last = Path::everywhere(External::Name("gate.example".to_owned()));
        let path = |name: &str, from: &[&str], proxy: Option<ProxyMatch>| Path {
            name: name.to_owned(),
            from: from.iter().map(|network| network.parse().unwrap()).collect(),
            proxy,
            ..last[0].clone()
        };
        let aws = ProxyMatch { aws_vpce: Some("vpce-1".to_owned()), ..ProxyMatch::default() };
        let azure =
            ProxyMatch { azure_link: Some(7), authority: Some("db.example".to_owned()), ..ProxyMatch::default() };
        let gcp = ProxyMatch { gcp_psc: Some(1 << 40), ..ProxyMatch::default() };
        PathRules::new(&[
            path("inside", &["10.0.0.0/8", "fd00::/8", "::ffff:198.51.100.0/120"], None),
            path("private", &[], Some(aws)),
            path("named", &[], Some(azure)),
            path("both", &["192.0.2.0/24"], Some(gcp)),
            path("outside", &[], None),
        ])
    }

    fn check(address: &str, via: Option<Via>, expected: &str) {
        assert_eq!(&**rules().of(address.parse().unwrap(), via.as_ref()), expected, "{address} {via:?}");
    }

    fn via(endpoint: Option<Endpoint>, authority: Option<&str>) -> Option<Via> {
        Some(Via { endpoint, authority: authority.map(Into::into) })
    }

    #[test]
    fn the_first_that_fits_counts() {
        check("10.1.2.3", None, "inside");
        check("::ffff:10.1.2.3", None, "inside");
        check("fd00::1", None, "inside");
        // An IPv4-mapped network counts as an IPv4 one, as in access.
        check("198.51.100.7", None, "inside");
        check("203.0.113.1", None, "outside");
        check("203.0.113.1", via(Some(Endpoint::Aws("vpce-1".into())), None), "private");
        check("10.1.2.3", via(Some(Endpoint::Aws("vpce-1".into())), None), "inside");
        check("203.0.113.1", via(Some(Endpoint::Aws("vpce-10".into())), None), "outside");
    }

    #[test]
    fn all_that_is_asked_must_be_said() {
        check("203.0.113.1", via(Some(Endpoint::Azure(7)), None), "outside");
        check("203.0.113.1", via(None, Some("db.example")), "outside");
        check("203.0.113.1", via(Some(Endpoint::Azure(7)), Some("DB.example")), "named");
        check("203.0.113.1", via(Some(Endpoint::Gcp(1 << 40)), None), "outside");
        check("192.0.2.9", via(Some(Endpoint::Gcp(1 << 40)), None), "both");
        check("192.0.2.9", via(Some(Endpoint::Azure(0)), None), "outside");
    }
}
