//! `service: …` in `advertise`: the address that the load balancer of a Service of the gateway's own was given, as soon as it has one,
//! and for as long as it keeps it, and which port leads where.

use std::collections::BTreeMap;
use std::future::pending;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;
use tracing::{error, info, warn};

use crate::config::External;
use crate::readiness::Readiness;
use crate::topology::input::Input;
use crate::topology::paths::Learned;

use super::super::advertised::{First, choose_each};
use super::super::resolve::{Addresses, Failures, follow};
use super::super::sources::Common;
use super::cluster::Cluster;
use super::listing::Seen;
use super::objects::ServiceObject;
use super::pending::Why;
use super::watch::{News, Watch};

/// Sends what clients are to be told, whenever it changes; runs until nobody takes it.
pub async fn run(cluster: Cluster, service: String, common: Common, mut first: First, readiness: Readiness) {
    let Common { names, inputs, mut topology, metrics } = common;
    let external = External::Service(service.clone());
    let (tell, mut news) = mpsc::channel(16);
    let watch = Watch::<Service>::named(&cluster, &cluster.namespace, &service, "load_balancer", &metrics);
    let _watching = AbortOnDropHandle::new(tokio::spawn(watch.run(tell, ServiceObject::new)));
    let (told, mut answers) = mpsc::channel::<(String, Addresses)>(4);
    let known = topology.borrow().paths.learned().get(&external).cloned().unwrap_or_default();
    let mut state = LoadBalancer { service, told: known, ..LoadBalancer::default() };
    let mut following: Option<(String, AbortOnDropHandle<()>)> = None;
    let mut why = Why::new("advertised address", readiness);
    loop {
        tokio::select! {
            next = news.recv() => match next {
                Some(News::Seen(seen)) => state.see(seen),
                Some(News::Failed(error)) => {
                    first.said();
                    why.note(&error);
                }
                Some(News::Heard) => {}
                None => return,
            },
            Some((host, addresses)) = answers.recv() => state.resolved(&host, addresses),
            () = ended(&mut following) => return,
            // A snapshot may know it, too.
            Ok(()) = topology.changed() => {}
        }
        if state.listed || state.missing.is_some() {
            first.said();
        }
        if topology.borrow().paths.are_known() {
            why.end();
        } else if let Some(missing) = state.missing {
            why.note(&format!("Service {}: {missing}", state.service));
        }
        let host = state.hostname();
        if following.as_ref().map(|(host, _)| host) != host.as_ref() {
            following = host.map(|host| {
                let (told, of) = (told.clone(), host.clone());
                let tell = move |addresses: Option<Addresses>| {
                    let (told, of) = (told.clone(), of.clone());
                    async move {
                        if let Some(addresses) = addresses {
                            _ = told.send((of, addresses)).await;
                        }
                    }
                };
                let task =
                    tokio::spawn(follow(names.clone(), host.clone(), Arc::default(), Failures::Wrong, None, tell));
                (host, AbortOnDropHandle::new(task))
            });
        }
        if let Some(learned) = state.next()
            && inputs.send(Input::External(external.clone(), learned)).await.is_err()
        {
            return;
        }
    }
}

/// When the name is followed no more; for ever where none is.
async fn ended(following: &mut Option<(String, AbortOnDropHandle<()>)>) {
    match following {
        Some((host, task)) => {
            let ended = task.await;
            error!(%host, ?ended, "a look-up has ended");
        }
        None => pending().await,
    }
}

/// What is known of the Service, and what was made of it. Pure.
#[derive(Debug, Default)]
struct LoadBalancer {
    service: String,
    ingress: Vec<String>,
    /// Its ports, by the ports that they lead to.
    ports: BTreeMap<u16, u16>,
    resolved: Option<(String, Addresses)>,
    told: Learned,
    /// The list that arrives has had the Service in it.
    listed: bool,
    /// Why there is nothing to tell, once that was said.
    missing: Option<&'static str>,
}

impl LoadBalancer {
    fn see(&mut self, seen: Seen<ServiceObject>) {
        let missing = match seen {
            Seen::InitApply(_, service) | Seen::Apply(_, service) => {
                if self.ingress != service.ingress {
                    info!(service = %self.service, ingress = ?service.ingress, "the load balancer's addresses");
                }
                self.ingress = service.ingress;
                self.ports = service.ports;
                self.listed = true;
                self.ingress.is_empty().then_some("its load balancer has no address")
            }
            Seen::Delete(_) => {
                self.ingress.clear();
                Some("it was deleted")
            }
            Seen::Init => {
                self.listed = false;
                return;
            }
            Seen::InitDone if self.listed => return,
            Seen::InitDone => {
                self.ingress.clear();
                Some("there is none of this name")
            }
        };
        if let Some(missing) = missing.filter(|missing| self.missing != Some(*missing)) {
            let kept = if self.told.advertised.is_known() {
                "the last one is kept"
            } else {
                "nobody is told of its ports before it has one"
            };
            warn!(service = %self.service, "the address of the gateway's Service: {missing}; {kept}");
        }
        self.missing = missing;
    }

    /// The name to look up: only where no address is given. The one in use while it is there, else the lowest.
    fn hostname(&self) -> Option<String> {
        if self.addresses() != Addresses::default() {
            return None;
        }
        let in_use = self.resolved.as_ref().map(|(host, _)| host).filter(|host| self.ingress.contains(host));
        in_use.or_else(|| self.ingress.iter().min()).cloned()
    }

    fn resolved(&mut self, host: &str, addresses: Addresses) {
        self.resolved = Some((host.to_owned(), addresses));
    }

    fn addresses(&self) -> Addresses {
        let mut addresses = Addresses::default();
        for ip in self.ingress.iter().filter_map(|text| text.parse::<IpAddr>().ok()) {
            match ip {
                IpAddr::V4(ip) => addresses.ipv4.push(ip),
                IpAddr::V6(ip) => addresses.ipv6.push(ip),
            }
        }
        addresses
    }

    /// What clients are to be told, if it is something else than before.
    fn next(&mut self) -> Option<Learned> {
        let given = self.addresses();
        let of_name = || {
            let (host, addresses) = self.resolved.as_ref()?;
            (self.hostname().as_ref() == Some(host)).then(|| addresses.clone())
        };
        let addresses = if given == Addresses::default() { of_name()? } else { given };
        let advertised = choose_each(self.told.advertised, &addresses);
        let next = Learned { advertised, ports: self.ports.clone() };
        if next == self.told || !advertised.is_known() {
            return None;
        }
        self.told = next.clone();
        Some(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(ingress: &[&str]) -> Seen<ServiceObject> {
        let ingress = ingress.iter().map(|&text| text.to_owned()).collect();
        Seen::Apply("cqlgate".to_owned(), ServiceObject { ingress, ..ServiceObject::default() })
    }

    fn check(balancer: &mut LoadBalancer, seen: Seen<ServiceObject>, expected: Option<&str>) {
        balancer.see(seen);
        let next = balancer.next().map(|next| next.advertised.ipv4.map(|ip| ip.to_string()).unwrap_or_default());
        assert_eq!(next.as_deref(), expected);
    }

    #[test]
    fn the_lowest_address_is_told_and_kept_while_it_is_there() {
        let mut balancer = LoadBalancer::default();
        check(&mut balancer, service(&[]), None);
        check(&mut balancer, service(&["203.0.113.20", "203.0.113.10"]), Some("203.0.113.10"));
        check(&mut balancer, service(&["203.0.113.5", "203.0.113.10"]), None);
        check(&mut balancer, service(&["203.0.113.7", "203.0.113.5"]), Some("203.0.113.5"));
        // Taken back: what clients know stays until there is something else.
        check(&mut balancer, service(&[]), None);
        check(&mut balancer, Seen::Delete("cqlgate".to_owned()), None);
        check(&mut balancer, service(&["203.0.113.30"]), Some("203.0.113.30"));
    }

    #[test]
    fn a_host_name_is_told_by_its_address_and_followed() {
        let mut balancer = LoadBalancer::default();
        check(&mut balancer, service(&["lb.example.com"]), None);
        assert_eq!(balancer.hostname().as_deref(), Some("lb.example.com"));
        let addresses = |ip: &str| Addresses { ipv4: vec![ip.parse().unwrap()], ipv6: Vec::new() };
        balancer.resolved("lb.example.com", addresses("203.0.113.40"));
        check(&mut balancer, service(&["lb.example.com"]), Some("203.0.113.40"));
        check(&mut balancer, service(&["other.example.com"]), None);
        assert_eq!(balancer.hostname().as_deref(), Some("other.example.com"));
        balancer.resolved("other.example.com", addresses("203.0.113.50"));
        check(&mut balancer, service(&["other.example.com"]), Some("203.0.113.50"));
        check(&mut balancer, service(&["203.0.113.60"]), Some("203.0.113.60"));
        assert_eq!(balancer.hostname(), None);
    }
}
