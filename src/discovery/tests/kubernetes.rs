//! `discovery.kubernetes` against a scripted API server and scripted nodes: what the topology says while the API misbehaves.

mod away;
mod by_hand;
mod faults;
mod owners;
mod pods;
mod restored;

use std::net::Ipv4Addr;

use serde_json::{Value, json};

use super::fake_api::{FakeApi, Kind, Verb};
use super::node::{FakeNode, Ring, ring};
use super::*;
use crate::discovery::kubernetes::Timing;

/// Waits that a test can afford, still far enough apart to be told from each other.
const QUICK: Timing = Timing {
    settle: Duration::from_millis(10),
    still_true: Duration::from_millis(50),
    patience: Duration::from_millis(300),
    answer: Duration::from_secs(5),
    silence: Duration::from_secs(60),
    first_wait: Duration::from_millis(10),
    longest_wait: Duration::from_millis(200),
    apart: Duration::from_millis(20),
    renew: Duration::from_secs(600),
    suspicion: Duration::from_secs(600),
    longest_suspicion: Duration::from_secs(600),
    names: Duration::from_secs(600),
    doubt: Duration::from_secs(60),
    forbidden: Duration::from_millis(100),
    elsewhere: Duration::from_millis(300),
    left: Duration::from_secs(60),
    left_unseen: Duration::from_secs(24 * 60 * 60),
};

/// A StatefulSet `cassandra` in namespace `db`, its API server, and its pods at `127.<part>.<test>.<ordinal + 1>`.
struct Scene {
    api: FakeApi,
    ring: Ring,
    net: [u8; 2],
    nodes: Vec<Option<FakeNode>>,
}

impl Scene {
    /// With so many pods that run, all in one slice.
    async fn of(net: [u8; 2], pods: u8) -> Self {
        let scene = Self::without_slices(net, pods).await;
        scene.api.put(Kind::Slices, "cassandra-x1", scene.slice(&(0..pods).collect::<Vec<_>>()));
        scene
    }

    async fn without_slices(net: [u8; 2], pods: u8) -> Self {
        let api = FakeApi::start().await;
        let mut scene = Self { api, ring: ring(&[]), net, nodes: Vec::new() };
        let addresses: Vec<_> = (0..pods).map(|n| scene.address(n)).collect();
        scene.ring = ring(&addresses);
        for (n, &address) in addresses.iter().enumerate() {
            scene.nodes.push(Some(FakeNode::start(&scene.ring, address).await));
            scene.api.put(Kind::Pods, &format!("cassandra-{n}"), pod(&format!("u{n}"), address));
        }
        let service = json!({"spec": {"clusterIP": "None", "selector": {"app": "cassandra"}}});
        scene.api.put(Kind::Service, "cassandra", service);
        scene
    }

    /// Where the pod of this ordinal lives, or lived first.
    fn address(&self, ordinal: u8) -> SocketAddr {
        (Ipv4Addr::new(127, self.net[0], self.net[1], ordinal + 1), 9742).into()
    }

    fn slice(&self, ordinals: &[u8]) -> Value {
        slice(&ordinals.iter().map(|&n| (n, format!("u{n}"), self.address(n))).collect::<Vec<_>>())
    }

    fn cluster(&self, timing: Timing) -> Cluster {
        let mut config = kube::Config::new(self.api.url().parse().unwrap());
        config.default_namespace = "gate".to_owned();
        Cluster { timing, ..Cluster::new(config).unwrap() }
    }

    /// The gateway's discovery; `keys` are more of `discovery.kubernetes`.
    fn start(&self, keys: &str) -> Running {
        self.start_by(Names::system(), QUICK, &in_kubernetes(keys))
    }

    fn start_by(&self, names: Names, timing: Timing, config: &Config) -> Running {
        super::start_in(Some(self.cluster(timing)), names, config)
    }

    /// As [`Self::start`], until every pod's node is up at its port.
    async fn started(&self, timing: Timing) -> Running {
        let mut running = self.start_by(Names::system(), timing, &in_kubernetes("dial: address"));
        for ordinal in 0..self.nodes.len() {
            running.until_state(9042 + ordinal as u16, NodeState::Up).await;
        }
        running.until_ready().await;
        running
    }
}

fn in_kubernetes(keys: &str) -> Config {
    let keys = ["service: cassandra, namespace: db", keys].join(if keys.is_empty() { "" } else { ", " });
    config(&format!(
        "probe: {{interval: 50ms, silence: 10s}}\ndiscovery: {{allow: [127.0.0.0/8, \"::1/128\"], kubernetes: {{{keys}}}}}\n"
    ))
}

/// As the endpointslice controller writes it, of pods that are ready.
fn slice(pods: &[(u8, String, SocketAddr)]) -> Value {
    let endpoints = pods.iter().map(|(ordinal, uid, address)| {
        let name = format!("cassandra-{ordinal}");
        json!({"addresses": [address.ip()], "conditions": {"ready": true, "serving": true, "terminating": false},
            "hostname": name, "nodeName": "fake-a", "zone": "a",
            "targetRef": {"kind": "Pod", "namespace": "db", "name": name, "uid": uid}})
    });
    json!({"addressType": "IPv4", "endpoints": endpoints.collect::<Vec<_>>(),
        "metadata": {"namespace": "db", "labels": {"kubernetes.io/service-name": "cassandra",
            "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io"}},
        "ports": [{"name": "cql", "port": 9742, "protocol": "TCP"}]})
}

fn pod(uid: &str, address: SocketAddr) -> Value {
    json!({"metadata": {"namespace": "db", "uid": uid, "labels": {"app": "cassandra"}, "ownerReferences":
            [{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "cassandra", "uid": "s", "controller": true}]},
        "spec": {"containers": [{"name": "cassandra"}], "nodeName": "fake-a"},
        "status": {"phase": "Running", "podIP": address.ip(), "podIPs": [{"ip": address.ip()}]}})
}

/// What a node's life is known by: any flapping makes another one of it.
type Life = (u16, SocketAddr, NodeState, std::time::SystemTime, u64);

impl Running {
    fn lives(&self) -> Vec<Life> {
        let topology = self.handle.topology.borrow();
        topology.nodes.iter().map(|n| (n.port, n.address, n.state, n.since, n.incarnation)).collect()
    }

    /// The value of one series; 0 before there is one.
    fn metric(&self, series: &str) -> f64 {
        let text = self.metrics.render().unwrap();
        let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        value.map_or(0.0, |value| value.parse().unwrap())
    }

    fn failures(&self, resource: &str, reason: &str) -> f64 {
        self.metric(&format!("cqlgate_kubernetes_watch_failures_total{{reason=\"{reason}\",resource=\"{resource}\"}}"))
    }

    async fn until_failures(&self, resource: &str, reason: &str, count: f64) {
        let seen = || self.failures(resource, reason);
        until(|| seen() >= count, || format!("{resource} {reason}: {} of {count}", seen())).await;
    }

    async fn until_watching(&self, resource: &str, open: bool) {
        let line = format!("cqlgate_kubernetes_watch_connected{{resource=\"{resource}\"}} {}", u8::from(open));
        self.until_metric(&line).await;
    }
}
