//! EndpointSlices: what matters of them, and the pods that they show together, each under the identity by which its node is known: the
//! pod's name, or the host_id of the node at an address where no pod is named.
//!
//! A watch tells of one slice at a time: then only the names are read again of which that slice says something else than before.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use k8s_openapi::api::discovery::v1::EndpointSlice;

use crate::config::kubernetes::EndpointPort;
use crate::config::text::NATIVE_PORT;
use crate::topology::{HostId, NodeId};

use super::fold::Stranger;
use super::listing::Listing;
use super::objects::PodObject;

/// The port that is CQL's when none is configured: the first of these names that there is (charts say `cql`, cass-operator
/// `native`).
const CQL: [&str; 2] = ["cql", "native"];

/// Who keeps a slice up to date (`KEP-0752`: "managed-by").
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// This cluster's own controller, which makes slices of the Service's pods.
const CONTROLLER: &str = "endpointslice-controller.k8s.io";
/// Of which cluster the endpoints are, where slices are exchanged (Multi-Cluster Services API, `KEP-1645`; Cilium too).
const SOURCE_CLUSTER: &str = "multicluster.kubernetes.io/source-cluster";

/// Whose pods a slice shows, as far as its labels say.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// Written by hand, or by something that does not say for whom.
    #[default]
    Unknown,
    /// Another cluster's, or said to be this one's by something that exchanges slices.
    Mirrored(Arc<str>),
    /// The controller's of this cluster.
    Controller,
}

/// One EndpointSlice: some of a Service's endpoints, of one address family, with the ports of all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slice {
    /// The CQL port of these endpoints; `None` where the configured name is not among the slice's.
    pub port: Option<u16>,
    pub origin: Origin,
    pub endpoints: Vec<Endpoint>,
}

/// One endpoint. Absent conditions mean what the API says that they mean (`ready` and `serving`: yes; `terminating`: no).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub address: IpAddr,
    /// `targetRef.name`; a missing one is no pod.
    pub pod: Option<Arc<str>>,
    pub uid: Option<Arc<str>>,
    /// Present only where the pod has a DNS name of its own: the StatefulSet names this Service as its serviceName.
    pub hostname: Option<Arc<str>>,
    pub serving: bool,
    pub terminating: bool,
    pub zone: Option<Arc<str>>,
}

/// One pod as the slices show it: its endpoints put together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// The one that describes it best.
    pub endpoint: Endpoint,
    pub port: u16,
    /// Whose it is, by the slice that says most.
    pub origin: Origin,
    /// The slices that name it.
    pub slices: Vec<Arc<str>>,
    /// The news that named it first at one of its addresses, and last at another.
    pub since: u64,
    pub news: u64,
    /// All its addresses, IPv4 first.
    pub places: Vec<SocketAddr>,
}

/// When a pod of a name, as its uid tells it, was first seen at an address.
#[derive(Clone, Debug, PartialEq, Eq)]
struct FirstSeen {
    uid: Option<Arc<str>>,
    address: IpAddr,
    news: u64,
}

/// All that the slices show.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offers {
    /// The pods, by name: of each name, all of them.
    lives: BTreeMap<NodeId, Vec<Offer>>,
    first_seen: BTreeMap<NodeId, Vec<FirstSeen>>,
    strangers: BTreeSet<Stranger>,
    /// Some endpoint names no pod, be it that of one at whose address another names one.
    has_nameless: bool,
    /// Addresses at which no pod is named, and what the nodes there have said of themselves.
    unnamed: BTreeSet<SocketAddr>,
    who: BTreeMap<SocketAddr, Result<HostId, String>>,
}

impl Slice {
    /// Endpoints whose address is no IP address (slices of type FQDN) are left out.
    pub fn new(slice: EndpointSlice, port: Option<&EndpointPort>) -> Self {
        let ports = slice.ports.unwrap_or_default();
        let named = |name: &str| {
            let found = ports.iter().find(|port| port.name.as_deref().unwrap_or_default() == name);
            found.and_then(|port| u16::try_from(port.port?).ok())
        };
        let port = match port {
            Some(EndpointPort::Number(number)) => Some(*number),
            Some(EndpointPort::Name(name)) => named(name),
            None => Some(CQL.into_iter().find_map(named).unwrap_or(NATIVE_PORT)),
        };
        let endpoints = slice.endpoints.into_iter().flat_map(|endpoint| {
            let conditions = endpoint.conditions.unwrap_or_default();
            let pod = endpoint.target_ref.filter(|target| target.kind.as_deref().is_none_or(|kind| kind == "Pod"));
            let (name, uid) = pod.map(|pod| (pod.name, pod.uid)).unwrap_or_default();
            let (pod, uid): (Option<Arc<str>>, Option<Arc<str>>) = (name.map(Arc::from), uid.map(Arc::from));
            let hostname: Option<Arc<str>> = endpoint.hostname.filter(|name| !name.is_empty()).map(Arc::from);
            let zone: Option<Arc<str>> = endpoint.zone.map(Arc::from);
            // The API says that all addresses of an endpoint are one pod's; whoever writes them by hand may mean several.
            endpoint.addresses.into_iter().filter_map(move |address| {
                Some(Endpoint {
                    address: address.parse().ok()?,
                    pod: pod.clone(),
                    uid: uid.clone(),
                    hostname: hostname.clone(),
                    serving: conditions.serving.or(conditions.ready).unwrap_or(true),
                    terminating: conditions.terminating.unwrap_or(false),
                    zone: zone.clone(),
                })
            })
        });
        let endpoints = endpoints.collect();
        let labels = slice.metadata.labels.unwrap_or_default();
        let origin = match labels.get(SOURCE_CLUSTER) {
            Some(cluster) => Origin::Mirrored(cluster.as_str().into()),
            None if labels.get(MANAGED_BY).is_some_and(|by| by == CONTROLLER) => Origin::Controller,
            None => Origin::Unknown,
        };
        Self { port, origin, endpoints }
    }
}

impl Endpoint {
    /// Nothing but its address tells it from others.
    pub fn is_unnamed(&self) -> bool {
        self.pod.is_none() && self.hostname.is_none()
    }
}

impl Offer {
    pub fn new(endpoint: &Endpoint, port: u16, origin: &Origin, slice: &Arc<str>, news: u64) -> Self {
        Self {
            endpoint: endpoint.clone(),
            port,
            origin: origin.clone(),
            slices: vec![Arc::clone(slice)],
            since: news,
            news,
            places: vec![SocketAddr::new(endpoint.address, port)],
        }
    }

    /// Which pod it is, where that is told, and the news that named it first.
    pub fn shown(&self) -> Option<(Arc<str>, u64)> {
        self.endpoint.uid.clone().map(|uid| (uid, self.since))
    }

    /// The same pod: while endpoints move from slice to slice it may be in two, and a dual-stack pod always is. Without a
    /// `targetRef` nothing but the address, or the other family, speaks for it.
    fn is_of(&self, other: &Self) -> bool {
        let same_place = self.places.contains(&SocketAddr::new(other.endpoint.address, other.port));
        let other_family = self.places.iter().all(|at| at.is_ipv4() != other.endpoint.address.is_ipv4());
        let nameless = self.origin == other.origin && (same_place || other_family);
        self.endpoint.uid == other.endpoint.uid && (self.endpoint.uid.is_some() || nameless)
    }

    fn merge(&mut self, other: Self) {
        let rank = |of: &Self| (!of.endpoint.terminating, of.endpoint.address.is_ipv4(), of.endpoint.serving, of.news);
        let (since, news) = (self.since.min(other.since), self.news.max(other.news));
        let mut places = std::mem::take(&mut self.places);
        places.extend(&other.places);
        places.sort_unstable_by_key(|at| (at.is_ipv6(), *at));
        places.dedup();
        let mut slices = std::mem::take(&mut self.slices);
        slices.extend(other.slices.iter().cloned());
        let origin = self.origin.clone().max(other.origin.clone());
        if rank(&other) > rank(self) {
            *self = other;
        }
        (self.since, self.news, self.places, self.slices, self.origin) = (since, news, places, slices, origin);
    }
}

impl Offers {
    /// By name, all pods of that name.
    pub fn lives(&self) -> &BTreeMap<NodeId, Vec<Offer>> {
        &self.lives
    }

    /// True where what is shown depends on Pods, too.
    pub fn has_nameless(&self) -> bool {
        self.has_nameless
    }

    /// Endpoints that cannot be nodes.
    pub fn strangers(&self) -> impl Iterator<Item = &Stranger> {
        self.strangers.iter()
    }

    /// Addresses at which no pod is named, and who is there as far as that is known.
    pub fn unnamed(&self) -> impl Iterator<Item = (SocketAddr, Option<HostId>)> {
        self.unnamed.iter().map(|at| (*at, self.who.get(at).and_then(|who| who.as_ref().ok()).copied()))
    }

    /// Who is at one of these addresses, or why that is not known; false where it is no news, as a failure is of one that is known.
    pub fn see_identity(&mut self, address: SocketAddr, said: Result<HostId, String>) -> bool {
        let known = self.who.get(&address);
        let no_news = known == Some(&said) || (said.is_err() && matches!(known, Some(Ok(_))));
        if no_news || !self.unnamed.contains(&address) {
            return false;
        }
        self.who.insert(address, said);
        true
    }

    /// Reads all slices anew; `news` is the number of what was heard last.
    pub fn read(&mut self, slices: &Listing<Slice>, pods: &Listing<PodObject>, news: u64) {
        let before = std::mem::take(&mut self.first_seen);
        self.lives.clear();
        self.strangers.clear();
        let mut unnamed = BTreeMap::new();
        for (name, slice) in slices.iter() {
            let name: Arc<str> = name.as_str().into();
            for endpoint in &slice.endpoints {
                let why = match named(endpoint, slice.port) {
                    Ok(Named::Pod(id, port)) => {
                        self.add(id, Offer::new(endpoint, port, &slice.origin, &name, news), &before);
                        continue;
                    }
                    Ok(Named::Nothing(port)) => match &slice.origin {
                        Origin::Mirrored(cluster) => {
                            format!("the endpoint is one of cluster {cluster} and names no pod")
                        }
                        origin => {
                            let at = SocketAddr::new(endpoint.address, port);
                            unnamed.entry(at).or_insert((endpoint, origin, Arc::clone(&name)));
                            continue;
                        }
                    },
                    Err(why) => why,
                };
                self.strangers.insert(Stranger { address: endpoint.address, why });
            }
        }
        self.has_nameless = !unnamed.is_empty();
        // What is written by hand beside a named pod is that pod.
        if self.has_nameless {
            let of_pods: BTreeSet<IpAddr> = pods.iter().flat_map(|(_, pod)| pod.addresses.iter().copied()).collect();
            let endpoints = slices.iter().flat_map(|(_, slice)| &slice.endpoints);
            let named = endpoints.filter(|endpoint| !endpoint.is_unnamed());
            let of_slices: BTreeSet<IpAddr> = named.map(|endpoint| endpoint.address).collect();
            unnamed.retain(|at, _| !of_pods.contains(&at.ip()) && !of_slices.contains(&at.ip()));
        }
        self.who.retain(|at, _| unnamed.contains_key(at));
        for (at, (endpoint, origin, name)) in &unnamed {
            match self.who.get(at) {
                Some(Ok(host_id)) => {
                    let id = NodeId::new(&host_id.to_string());
                    let endpoint = Endpoint { uid: Some(Arc::clone(&id.0)), ..(*endpoint).clone() };
                    self.add(id, Offer::new(&endpoint, at.port(), origin, name, news), &before);
                }
                Some(Err(error)) => {
                    let why = format!("the endpoint names no pod, and who it is is not known: {error}");
                    self.strangers.insert(Stranger { address: at.ip(), why });
                }
                None => {}
            }
        }
        self.unnamed = unnamed.into_keys().collect();
    }

    /// Reads those names again of which slice `name` says something else than `before`, and returns them; `None` where more
    /// depends on it than the pods of names, and all is to be read.
    pub fn read_again(
        &mut self,
        name: &str,
        before: Option<&Slice>,
        slices: &Listing<Slice>,
        news: u64,
    ) -> Option<BTreeSet<NodeId>> {
        if self.has_nameless {
            return None;
        }
        let names = told_otherwise(before, slices.get(name))?;
        let first_seen: BTreeMap<NodeId, Vec<FirstSeen>> =
            names.iter().filter_map(|id| self.first_seen.remove_entry(id)).collect();
        let mut of_slices = BTreeSet::from([Arc::from(name)]);
        for id in &names {
            of_slices.extend(self.lives.remove(id).into_iter().flatten().flat_map(|life| life.slices));
        }
        let by_name: BTreeMap<&str, &NodeId> = names.iter().map(|id| (&*id.0, id)).collect();
        for (name, slice) in of_slices.iter().filter_map(|name| Some((name, slices.get(name)?))) {
            let Some(port) = slice.port else { continue };
            for endpoint in &slice.endpoints {
                if let Some(id) = name_of(endpoint).and_then(|of| by_name.get(of)) {
                    self.add(NodeId::clone(id), Offer::new(endpoint, port, &slice.origin, name, news), &first_seen);
                }
            }
        }
        Some(names)
    }

    fn add(&mut self, id: NodeId, mut offer: Offer, before: &BTreeMap<NodeId, Vec<FirstSeen>>) {
        let (uid, address) = (offer.endpoint.uid.clone(), offer.endpoint.address);
        let is_it = |seen: &&FirstSeen| seen.address == address && seen.uid == uid;
        if let Some(FirstSeen { news, .. }) = before.get(&id).and_then(|seen| seen.iter().find(is_it)) {
            (offer.since, offer.news) = (*news, *news);
        }
        let seen = self.first_seen.entry(id.clone()).or_default();
        if seen.iter().find(is_it).is_none() {
            seen.push(FirstSeen { news: offer.news, uid, address });
        }
        let lives = self.lives.entry(id).or_default();
        match lives.iter_mut().find(|life| life.is_of(&offer)) {
            Some(life) => life.merge(offer),
            None => lives.push(offer),
        }
    }
}

/// The pods of which a slice says something else than before; `None` where it does so of what is no StatefulSet's pod.
fn told_otherwise(before: Option<&Slice>, after: Option<&Slice>) -> Option<BTreeSet<NodeId>> {
    let [was, is] = [before, after].map(|of| of.map(|slice| slice.endpoints.as_slice()).unwrap_or_default());
    let same_slice = before.map(|of| (of.port, &of.origin)) == after.map(|of| (of.port, &of.origin));
    let mut names = BTreeSet::new();
    for at in 0..was.len().max(is.len()) {
        let (was, is) = (was.get(at), is.get(at));
        if same_slice && was == is {
            continue;
        }
        for (endpoint, slice) in [(was, before), (is, after)] {
            let (Some(endpoint), Some(slice)) = (endpoint, slice) else { continue };
            match named(endpoint, slice.port) {
                Ok(Named::Pod(id, _)) => _ = names.insert(id),
                _ => return None,
            }
        }
    }
    Some(names)
}

/// By what an endpoint says that it is, and its port.
enum Named {
    Pod(NodeId, u16),
    /// Only the node itself can say who it is.
    Nothing(u16),
}

/// The identity of an endpoint and its port, or why it has none.
fn named(endpoint: &Endpoint, port: Option<u16>) -> Result<Named, String> {
    let Some(name) = name_of(endpoint) else {
        return port.map(Named::Nothing).ok_or_else(|| "the endpoint has no port of the configured name".to_owned());
    };
    if split(name).is_none() {
        return Err(format!("pod {name} has no ordinal: it is not of a StatefulSet"));
    }
    let port = port.ok_or_else(|| format!("the endpoint of pod {name} has no port of the configured name"))?;
    Ok(Named::Pod(NodeId::new(name), port))
}

/// The name of an endpoint's pod.
fn name_of(endpoint: &Endpoint) -> Option<&str> {
    endpoint.pod.as_deref().or(endpoint.hostname.as_deref())
}

/// A StatefulSet's pod is its name, a hyphen and the ordinal in decimal (StatefulSet documentation, "Ordinal Index").
pub fn split(pod: &str) -> Option<(&str, u32)> {
    let (set, ordinal) = pod.rsplit_once('-')?;
    let plain = ordinal == "0" || !ordinal.starts_with('0');
    let digits = ordinal.bytes().all(|b| b.is_ascii_digit());
    if set.is_empty() || !plain || !digits {
        return None;
    }
    Some((set, ordinal.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slice(json: &str) -> EndpointSlice {
        serde_json::from_str(json).unwrap()
    }

    fn check_port(ports: &str, wanted: Option<EndpointPort>, expected: Option<u16>) {
        let json = format!(r#"{{"addressType":"IPv4","endpoints":[],"metadata":{{}},"ports":{ports}}}"#);
        assert_eq!(Slice::new(slice(&json), wanted.as_ref()).port, expected, "{ports} {wanted:?}");
    }

    #[test]
    fn the_port_is_the_configured_one_or_the_one_named_cql_or_native_or_9042() {
        let both = r#"[{"name":"intra","port":7000},{"name":"cql","port":9142}]"#;
        let name = |name: &str| Some(EndpointPort::Name(name.to_owned()));
        check_port(both, None, Some(9142));
        check_port(both, name("intra"), Some(7000));
        check_port(both, name("tls"), None);
        check_port(both, Some(EndpointPort::Number(9999)), Some(9999));
        check_port(r#"[{"port":7000}]"#, None, Some(9042));
        check_port("null", None, Some(9042));
        check_port(r#"[{"name":"native","port":9142},{"name":"mgmt","port":8080}]"#, None, Some(9142));
        check_port(r#"[{"name":"native","port":9142},{"name":"cql","port":9242}]"#, None, Some(9242));
    }

    #[test]
    fn absent_conditions_mean_a_serving_endpoint() {
        let json = r#"{"addressType":"IPv4","metadata":{"name":"s"},"endpoints":[
            {"addresses":["10.1.0.1"],"targetRef":{"kind":"Pod","name":"cassandra-0","uid":"u0"},"hostname":"cassandra-0"},
            {"addresses":["10.1.0.2"],"conditions":{"ready":false,"terminating":true},"targetRef":{"kind":"Node","name":"n"}},
            {"addresses":["example.com"]}]}"#;
        let found = Slice::new(slice(json), None).endpoints;
        assert_eq!(found.len(), 2);
        let by_hand =
            r#"{"addressType":"IPv4","metadata":{},"endpoints":[{"addresses":["10.1.0.1","10.1.0.2","10.1.0.3"]}]}"#;
        let each: Vec<_> = Slice::new(slice(by_hand), None).endpoints;
        assert_eq!(
            each.iter().map(|of| of.address.to_string()).collect::<Vec<_>>(),
            ["10.1.0.1", "10.1.0.2", "10.1.0.3"]
        );
        assert!(each.iter().all(Endpoint::is_unnamed));
        assert_eq!((found[0].pod.as_deref(), found[0].uid.as_deref()), (Some("cassandra-0"), Some("u0")));
        assert!(found[0].serving && !found[0].terminating);
        assert_eq!((found[1].pod.as_deref(), found[1].hostname.as_deref()), (None, None));
        assert!(!found[1].serving && found[1].terminating);
    }

    #[test]
    fn a_slice_says_whose_it_is() {
        let check = |labels: &str, expected: Origin| {
            let json = format!(r#"{{"addressType":"IPv4","endpoints":[],"metadata":{{"labels":{labels}}}}}"#);
            assert_eq!(Slice::new(slice(&json), None).origin, expected, "{labels}");
        };
        check("null", Origin::Unknown);
        check(r#"{"endpointslice.kubernetes.io/managed-by":"endpointslice-controller.k8s.io"}"#, Origin::Controller);
        check(
            r#"{"endpointslice.kubernetes.io/managed-by":"endpointslicemirroring-controller.k8s.io"}"#,
            Origin::Unknown,
        );
        let mesh = r#"{"endpointslice.kubernetes.io/managed-by":"endpointslice-mesh-controller.cilium.io",
            "multicluster.kubernetes.io/source-cluster":"west"}"#;
        check(mesh, Origin::Mirrored("west".into()));
    }
}
