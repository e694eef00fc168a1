//! Slices of the Services that deploy/operators names, with the ports and names that each operator gives them.

use k8s_openapi::api::discovery::v1::EndpointSlice;

use super::*;
use crate::config::text::NATIVE_PORT;

/// A slice of one pod; `hostname` where the StatefulSet names this Service as its own.
fn slice(pod: &str, address: &str, hostname: bool, ports: &[(&str, u16)]) -> Slice {
    let ports: Vec<_> = ports.iter().map(|(name, port)| serde_json::json!({"name": name, "port": port})).collect();
    let mut endpoint = serde_json::json!({
        "addresses": [address],
        "conditions": {"ready": false, "serving": false, "terminating": false},
        "targetRef": {"kind": "Pod", "name": pod, "uid": format!("uid-{pod}")},
    });
    if hostname {
        endpoint["hostname"] = pod.into();
    }
    let slice = serde_json::json!({"addressType": "IPv4", "metadata": {}, "endpoints": [endpoint], "ports": ports});
    Slice::new(serde_json::from_value::<EndpointSlice>(slice).unwrap(), None)
}

/// Two racks of one pod each, or one StatefulSet of two: each pod is a node, ready or not.
fn check(pods: [(&str, &str, u32); 2], ports: &[(&str, u16)], expected: u16) {
    let mut fold = Fold::default();
    fold.hear_slice(Seen::Init);
    for (n, (set, pod, _)) in pods.iter().enumerate() {
        let slice = slice(pod, &format!("10.1.0.{n}"), true, ports);
        fold.hear_slice(Seen::InitApply((*set).to_owned() + pod, slice));
    }
    fold.hear_slice(Seen::InitDone);
    fold.settle(at(0), |_, _| false);
    let found: Vec<_> = fold.members().map(|(id, m)| (&*m.stateful_set, &*id.0, m.ordinal, m.address.port())).collect();
    let wanted: Vec<_> = pods.iter().map(|(set, pod, ordinal)| (*set, *pod, *ordinal, expected)).collect();
    assert_eq!((found, fold.strangers().next()), (wanted, None));
}

#[test]
fn pods_of_each_operator_are_nodes() {
    let native = [("native", 9042), ("mgmt-api", 8080), ("prometheus", 9103)];
    check(
        [("demo-dc1-r1-sts", "demo-dc1-r1-sts-0", 0), ("demo-dc1-r2-sts", "demo-dc1-r2-sts-11", 11)],
        &native,
        NATIVE_PORT,
    );
    let scylla = [("inter-node", 7000), ("cql", 9042), ("cql-ssl", 9142), ("cql-shard-aware", 19042), ("thrift", 9160)];
    check([("demo-dc1-a", "demo-dc1-a-0", 0), ("demo-dc1-b", "demo-dc1-b-2", 2)], &scylla, 9042);
    let bitnami = [("intra", 7000), ("tls", 7001), ("jmx", 7199), ("cql", 9043)];
    check([("cassandra", "cassandra-0", 0), ("cassandra", "cassandra-1", 1)], &bitnami, 9043);
}
