//! The few fields of Pods and Services that matter here. Everything else is let go at once, so that a thousand pods take
//! little room.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::slices::split;

/// What a StatefulSet calls each of its pods (Kubernetes documentation, "StatefulSets", "Pod Name Label").
const POD_NAME: &str = "statefulset.kubernetes.io/pod-name";

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
    /// `spec.ports`, by targetPort: of two that lead to the same, the first. One with a name for its target leads nowhere that is known.
    pub ports: BTreeMap<u16, u16>,
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
        let mut ports = BTreeMap::new();
        for of in spec.ports.unwrap_or_default() {
            let target = match of.target_port {
                None => Some(of.port),
                Some(IntOrString::Int(target)) => Some(target),
                Some(IntOrString::String(_)) => None,
            };
            if let (Some(Ok(target)), Ok(port)) = (target.map(u16::try_from), u16::try_from(of.port)) {
                ports.entry(target).or_insert(port);
            }
        }
        let pairs = spec.selector.unwrap_or_default();
        let selector = pairs.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",");
        let ingress = service.status.and_then(|status| status.load_balancer).and_then(|of| of.ingress);
        let ingress = ingress.unwrap_or_default().into_iter().filter_map(|at| at.ip.or(at.hostname));
        Self {
            selector: Some(selector).filter(|selector| !selector.is_empty()),
            headless: spec.cluster_ip.as_deref() == Some("None"),
            ingress: ingress.filter(|text| !text.is_empty()).collect(),
            ports,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
