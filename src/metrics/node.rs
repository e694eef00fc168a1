//! What is counted for one node. Looked up once per connection; then each count is one atomic addition.

use std::collections::HashMap;

use prometheus::core::{Collector, MetricVec, MetricVecBuilder};
use prometheus::proto::MetricFamily;
use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry};

use super::SECONDS;
use super::declare::{counters, gauges, histograms};
use crate::label::{Label, LabelSet};

/// The families whose first label is `node`.
pub(super) struct NodeFamilies {
    open: IntGaugeVec,
    opened: IntCounterVec,
    closed: IntCounterVec,
    bytes_to_node: IntCounterVec,
    bytes_to_client: IntCounterVec,
    requests: IntCounterVec,
    responses: IntCounterVec,
    dial_seconds: HistogramVec,
    dial_failures: IntCounterVec,
    handshake_seconds: HistogramVec,
    probe_seconds: HistogramVec,
    state: IntGaugeVec,
    port: IntGaugeVec,
    cordoned: IntGaugeVec,
}

impl NodeFamilies {
    pub(super) fn declare(registry: &Registry) -> Self {
        let counter = |name, help| counters(registry, name, help, &["node"]);
        let histogram = |name, help| histograms(registry, name, help, &["node"], SECONDS);
        Self {
            open: gauges(registry, "cqlgate_connections_open", "Client connections relayed now.", &["node"]),
            opened: counter("cqlgate_connections_opened_total", "Client connections that reached the node."),
            closed: counters(
                registry,
                "cqlgate_connections_closed_total",
                "Client connections that ended, by who closed and why.",
                &["node", "by", "why"],
            ),
            bytes_to_node: counter("cqlgate_to_node_bytes_total", "Bytes written to the node, before TLS."),
            bytes_to_client: counter(
                "cqlgate_to_client_bytes_total",
                "Bytes written to the node's clients, before TLS.",
            ),
            requests: counter("cqlgate_requests_total", "Frames from clients to the node."),
            responses: counter("cqlgate_responses_total", "Frames from the node to clients, events included."),
            dial_seconds: histogram("cqlgate_dial_seconds", "Time to connect to the node, TLS included."),
            dial_failures: counters(
                registry,
                "cqlgate_dial_failures_total",
                "Connects to the node that failed, by reason.",
                &["node", "reason"],
            ),
            handshake_seconds: histogram(
                "cqlgate_handshake_seconds",
                "Time from accept to READY or AUTHENTICATE, dial included.",
            ),
            probe_seconds: histogram("cqlgate_probe_seconds", "Time the node took to answer the gateway's OPTIONS."),
            state: gauges(
                registry,
                "cqlgate_node_state",
                "1 for the state that the node is in, 0 for the others.",
                &["node", "state"],
            ),
            port: gauges(
                registry,
                "cqlgate_node_port",
                "Port of the external address that stands for the node.",
                &["node"],
            ),
            cordoned: gauges(
                registry,
                "cqlgate_node_cordoned",
                "1 while this replica lets no new connection to the node.",
                &["node"],
            ),
        }
    }

    pub(super) fn of(&self, name: &str) -> NodeMetrics {
        let node = &[name];
        NodeMetrics {
            name: name.to_owned(),
            open: self.open.with_label_values(node),
            opened: self.opened.with_label_values(node),
            bytes_to_node: self.bytes_to_node.with_label_values(node),
            bytes_to_client: self.bytes_to_client.with_label_values(node),
            requests: self.requests.with_label_values(node),
            responses: self.responses.with_label_values(node),
            dial_seconds: self.dial_seconds.with_label_values(node),
            handshake_seconds: self.handshake_seconds.with_label_values(node),
            probe_seconds: self.probe_seconds.with_label_values(node),
            port: self.port.with_label_values(node),
            cordoned: self.cordoned.with_label_values(node),
            closed: self.closed.clone(),
            dial_failures: self.dial_failures.clone(),
            state: self.state.clone(),
        }
    }

    /// Takes every series of one node away.
    pub(super) fn forget(&self, node: &NodeMetrics) {
        let name = node.name.as_str();
        for family in [&self.opened, &self.bytes_to_node, &self.bytes_to_client, &self.requests, &self.responses] {
            let _ = family.remove_label_values(&[name]);
        }
        for family in [&self.dial_seconds, &self.handshake_seconds, &self.probe_seconds] {
            let _ = family.remove_label_values(&[name]);
        }
        for family in [&self.open, &self.port, &self.cordoned] {
            let _ = family.remove_label_values(&[name]);
        }
        for family in [&self.closed, &self.dial_failures] {
            forget_all(family, name);
        }
        forget_all(&self.state, name);
    }
}

/// Takes away the series of a node in a family that has further labels, whatever their words.
fn forget_all<T: MetricVecBuilder>(family: &MetricVec<T>, node: &str) {
    for metric in family.collect().iter().flat_map(MetricFamily::get_metric) {
        let labels: HashMap<&str, &str> = metric.get_label().iter().map(|pair| (pair.name(), pair.value())).collect();
        if labels.get("node") == Some(&node) {
            let _ = family.remove(&labels);
        }
    }
}

/// One node's counters, shared by its connections.
pub struct NodeMetrics {
    name: String,
    /// Client connections relayed now.
    pub open: IntGauge,
    pub opened: IntCounter,
    pub bytes_to_node: IntCounter,
    pub bytes_to_client: IntCounter,
    /// Frames, not segments.
    pub requests: IntCounter,
    /// Frames, not segments; EVENTs included.
    pub responses: IntCounter,
    pub dial_seconds: Histogram,
    pub handshake_seconds: Histogram,
    pub probe_seconds: Histogram,
    pub port: IntGauge,
    /// 1 while an operator wants no new connections to it.
    pub cordoned: IntGauge,
    closed: IntCounterVec,
    dial_failures: IntCounterVec,
    state: IntGaugeVec,
}

impl NodeMetrics {
    /// A relayed connection ended, and the log says the same words.
    pub fn closed(&self, by: impl Label, why: impl Label) {
        self.closed.with_label_values(&[self.name.as_str(), by.label(), why.label()]).inc();
    }

    pub fn dial_failed(&self, reason: impl Label) {
        self.dial_failures.with_label_values(&[self.name.as_str(), reason.label()]).inc();
    }

    pub fn set_state<State: LabelSet>(&self, now: State) {
        for state in State::ALL {
            let value = i64::from(*state == now);
            self.state.with_label_values(&[self.name.as_str(), state.label()]).set(value);
        }
    }
}
