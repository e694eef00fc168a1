//! The few fields of Kubernetes' objects that matter here. Everything else is let go at once, so that a thousand pods take
//! little room.

use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;

use super::fold::split;
use crate::config::kubernetes::EndpointPort;
use crate::config::text::NATIVE_PORT;

/// The port that is CQL's when none is configured: the first of these names that there is (charts say `cql`, cass-operator
/// `native`).
const CQL: [&str; 2] = ["cql", "native"];

/// Who keeps a slice up to date (`KEP-0752`: "managed-by").
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// This cluster's own controller, which makes slices of the Service's pods.
const CONTROLLER: &str = "endpointslice-controller.k8s.io";
/// Of which cluster the endpoints are, where slices are exchanged (Multi-Cluster Services API, `KEP-1645`; Cilium too).
const SOURCE_CLUSTER: &str = "multicluster.kubernetes.io/source-cluster";

/// What a StatefulSet calls each of its pods (Kubernetes documentation, "StatefulSets", "Pod Name Label").
const POD_NAME: &str = "statefulset.kubernetes.io/pod-name";

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

/// What a Pod object adds to its endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodObject {
    pub uid: Option<Arc<str>>,
    /// `status.podIPs`, the primary one first; none before the pod runs, and none once it has ended.
    pub addresses: Vec<IpAddr>,
    /// The StatefulSet that owns it: its controller, whose name and the ordinal are the pod's own name.
    pub stateful_set: Option<Arc<str>>,
    pub set_uid: Option<Arc<str>>,
    /// Nothing says that a controller made it: it has none, nor the label that a StatefulSet gives its pods, which stays with those
    /// that lost it.
    pub by_hand: bool,
    /// It is being deleted.
    pub ending: bool,
}

/// What the headless Service says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceObject {
    /// `spec.selector` as the text of a label selector; `None` where endpoints are written by hand.
    pub selector: Option<String>,
    pub headless: bool,
    /// `status.loadBalancer.ingress`, addresses and names as they stand there.
    pub ingress: Vec<String>,
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

impl PodObject {
    pub fn new(pod: Pod) -> Self {
        let status = pod.status.unwrap_or_default();
        let ended = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
        let ips = status.pod_ips.unwrap_or_default().into_iter().map(|ip| ip.ip).chain(status.pod_ip);
        let mut addresses = Vec::new();
        for ip in ips.filter_map(|ip| ip.parse::<IpAddr>().ok()).filter(|_| !ended) {
            if !addresses.contains(&ip) {
                addresses.push(ip);
            }
        }
        let name = pod.metadata.name.unwrap_or_default();
        let named = split(&name).map(|(set, _)| set);
        let owners = pod.metadata.owner_references.unwrap_or_default();
        let controller = owners.into_iter().find(|owner| owner.controller == Some(true));
        let labelled = pod.metadata.labels.is_some_and(|labels| labels.get(POD_NAME) == Some(&name));
        let by_hand = controller.is_none() && !labelled;
        let owner = controller.filter(|owner| {
            let is_set = owner.kind == "StatefulSet" && owner.api_version.starts_with("apps/");
            is_set && named == Some(&owner.name)
        });
        let (stateful_set, set_uid) = owner.map(|owner| (owner.name.into(), owner.uid.into())).unzip();
        let ending = pod.metadata.deletion_timestamp.is_some();
        Self { uid: pod.metadata.uid.map(Arc::from), addresses, stateful_set, set_uid, by_hand, ending }
    }
}

impl ServiceObject {
    pub fn new(service: Service) -> Self {
        let spec = service.spec.unwrap_or_default();
        let pairs = spec.selector.unwrap_or_default();
        let selector = pairs.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",");
        let ingress = service.status.and_then(|status| status.load_balancer).and_then(|of| of.ingress);
        let ingress = ingress.unwrap_or_default().into_iter().filter_map(|at| at.ip.or(at.hostname));
        Self {
            selector: Some(selector).filter(|selector| !selector.is_empty()),
            headless: spec.cluster_ip.as_deref() == Some("None"),
            ingress: ingress.filter(|text| !text.is_empty()).collect(),
        }
    }
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

    fn pod(metadata: &str, phase: &str) -> PodObject {
        let json = format!(
            r#"{{"metadata":{{"uid":"u",{metadata}}},
                "status":{{"phase":"{phase}","podIP":"10.1.0.1","podIPs":[{{"ip":"10.1.0.1"}},{{"ip":"fd00::1"}}]}}}}"#
        );
        PodObject::new(serde_json::from_str(&json).unwrap())
    }

    #[test]
    fn a_pod_that_has_ended_has_no_address() {
        let named = r#""name":"cassandra-0""#;
        assert_eq!(
            pod(named, "Running").addresses,
            ["10.1.0.1".parse::<IpAddr>().unwrap(), "fd00::1".parse().unwrap()]
        );
        assert!(pod(named, "Failed").addresses.is_empty());
        assert!(!pod(named, "Running").ending);
        assert!(pod(&format!(r#"{named},"deletionTimestamp":"2026-01-01T00:00:00Z""#), "Running").ending);
    }

    /// Who owns pod `name` that refers to one owner.
    fn check_owner(name: &str, reference: &str, expected: Option<(&str, &str)>) {
        let metadata = format!(r#""name":"{name}","ownerReferences":[{{{reference},"uid":"s"}}]"#);
        let pod = pod(&metadata, "Running");
        assert_eq!(pod.stateful_set.as_deref().zip(pod.set_uid.as_deref()), expected, "{name} {reference}");
    }

    #[test]
    fn a_pod_is_owned_by_the_stateful_set_that_controls_it_and_whose_name_it_has() {
        let set = r#""apiVersion":"apps/v1","kind":"StatefulSet","name":"cassandra""#;
        check_owner("cassandra-0", &format!(r#"{set},"controller":true"#), Some(("cassandra", "s")));
        check_owner("cassandra-0", &format!(r#"{set},"controller":false"#), None);
        check_owner("cassandra-0", set, None);
        check_owner("other-0", &format!(r#"{set},"controller":true"#), None);
        let foreign = set.replace("apps/v1", "example.com/v1");
        check_owner("cassandra-0", &format!(r#"{foreign},"controller":true"#), None);
        let job = set.replace("StatefulSet", "ReplicaSet");
        check_owner("cassandra-0", &format!(r#"{job},"controller":true"#), None);
        let by_hand = |more: &str| pod(&format!(r#""name":"cassandra-0"{more}"#), "Running").by_hand;
        assert!(by_hand(""));
        assert!(by_hand(&format!(r#","ownerReferences":[{{{set},"uid":"s"}}]"#)));
        assert!(!by_hand(&format!(r#","ownerReferences":[{{{job},"uid":"s","controller":true}}]"#)));
        assert!(!by_hand(r#","labels":{"statefulset.kubernetes.io/pod-name":"cassandra-0"}"#));
        assert!(by_hand(r#","labels":{"statefulset.kubernetes.io/pod-name":"cassandra-1"}"#));
    }

    #[test]
    fn a_service_says_whom_it_selects_and_where_its_load_balancer_is() {
        let json = r#"{"metadata":{},"spec":{"clusterIP":"None","selector":{"app":"cassandra","dc":"dc1"}},
            "status":{"loadBalancer":{"ingress":[{"ip":"203.0.113.10"},{"hostname":"lb.example.com"}]}}}"#;
        let service = ServiceObject::new(serde_json::from_str(json).unwrap());
        assert_eq!(service.selector.as_deref(), Some("app=cassandra,dc=dc1"));
        assert!(service.headless);
        assert_eq!(service.ingress, ["203.0.113.10", "lb.example.com"]);
        let bare = ServiceObject::new(serde_json::from_str(r#"{"metadata":{},"spec":{}}"#).unwrap());
        assert_eq!(bare, ServiceObject::default());
    }
}
