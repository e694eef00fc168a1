//! Every number that the gateway shows, declared on one page, so that names, units and help texts can be read at once.
//!
//! Names follow Prometheus: prefix `cqlgate_`, base units, `_total` for counters. Label values are closed sets
//! ([`Label`]), names of nodes from discovery, or bounded ([`drivers`]); never what a client sent. Handles with labels
//! are looked up once per connection; the relay adds its sums once per poll.

mod declare;
pub mod drivers;
pub mod node;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use prometheus::process_collector::ProcessCollector;
use prometheus::{Gauge, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry, TextEncoder};

use crate::label::{Label, LabelSet};
use declare::{counter, counters, declared, gauge, gauges, register};
pub use drivers::OpenMetrics;
pub use node::NodeMetrics;

/// Content type of [`Metrics::render`].
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// Bounds in seconds for connects, handshakes and probes.
const SECONDS: &[f64] = &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Made once at start, shared by everyone.
pub struct Metrics {
    registry: Registry,
    families: node::NodeFamilies,
    nodes: Mutex<HashMap<String, Arc<NodeMetrics>>>,
    drivers: drivers::Drivers,
    paths_open: IntGaugeVec,
    paths_opened: IntCounterVec,
    refused: IntCounterVec,
    stage_connections: IntGaugeVec,
    stage_full: IntCounterVec,
    /// Accepts that failed for want of a file descriptor.
    pub descriptors_exhausted: IntCounter,
    /// Workers that did not poll for five seconds.
    pub workers_stuck: IntCounter,
    tasks_ended: IntCounterVec,
    requests_refused: IntCounterVec,
    rewrites: IntCounterVec,
    rows_hidden: IntCounterVec,
    rows_kept: IntCounterVec,
    events: IntCounterVec,
    schema_changes: IntCounterVec,
    lifecycle: IntGaugeVec,
    config_reloads: IntCounterVec,
    config_in_force: Gauge,
    tls_reloads: IntCounterVec,
    tls_expiry: IntGaugeVec,
    revocations_expiry: IntGauge,
    certificates_refused: IntCounterVec,
    contact_point_failures: IntCounterVec,
    /// Bytes of frames held whole, over all connections.
    pub held_bytes: IntGauge,
    /// Connections that wait for room among them.
    pub hold_waiting: IntGauge,
    /// `Level` of `proxy::memory`.
    pub memory_level: IntGauge,
    /// EXECUTEs whose skip-metadata flag was cleared so that the answer describes itself.
    pub statements_redescribed: IntCounter,
    /// Generation of the topology that clients see now.
    pub topology_generation: IntGauge,
    /// Unix time in seconds when discovery last heard of the cluster; `time() -` it is the staleness.
    pub discovery_refreshed: Gauge,
    /// Complete readings of the list of nodes.
    pub discovery_relists: IntCounter,
    /// Look-ups of pods' names that gave another address than the Kubernetes API.
    pub dns_disagreements: IntCounter,
    watch_connected: IntGaugeVec,
    watch_failures: IntCounterVec,
    /// Changes of the address that clients are told to dial.
    pub advertised_changes: IntCounter,
    /// 1 while `/readyz` says yes.
    pub ready: IntGauge,
}

impl Metrics {
    pub fn new() -> Arc<Self> {
        let registry = Registry::new();
        let r = &registry;
        let metrics = Self {
            families: node::NodeFamilies::declare(r),
            nodes: Mutex::default(),
            drivers: drivers::Drivers::declare(r),
            paths_open: gauges(r, "cqlgate_path_connections_open", "Established connections, by path.", &["path"]),
            paths_opened: counters(
                r,
                "cqlgate_path_connections_opened_total",
                "Connections whose handshake was completed, by path.",
                &["path"],
            ),
            refused: counters(
                r,
                "cqlgate_connections_refused_total",
                "Client connections that ended before they were relayed, by reason.",
                &["reason"],
            ),
            stage_connections: gauges(
                r,
                "cqlgate_stage_connections",
                "Client connections by how far they are: accepted, tls, setup, login, established.",
                &["stage"],
            ),
            stage_full: counters(
                r,
                "cqlgate_stage_full_total",
                "Connections that found no place in a stage: all were taken (places), or their source had its share (share).",
                &["stage", "what"],
            ),
            descriptors_exhausted: counter(
                r,
                "cqlgate_descriptors_exhausted_total",
                "Connections that could not be accepted because no file descriptor was left.",
            ),
            workers_stuck: counter(
                r,
                "cqlgate_workers_stuck_total",
                "Times that a worker of the data path did not poll for five seconds while it had work.",
            ),
            tasks_ended: counters(r, "cqlgate_tasks_ended_total", "Tasks that ended and must not, by name.", &["task"]),
            requests_refused: counters(
                r,
                "cqlgate_requests_refused_total",
                "Requests answered with an ERROR of the gateway's own, by reason.",
                &["reason"],
            ),
            rewrites: counters(
                r,
                "cqlgate_rewrites_total",
                "Results of system tables that were rewritten, by table.",
                &["table"],
            ),
            rows_hidden: counters(
                r,
                "cqlgate_rows_hidden_total",
                "Rows of other nodes that clients were not shown, by reason.",
                &["reason"],
            ),
            rows_kept: counters(
                r,
                "cqlgate_rows_kept_total",
                "Rows of nodes that are not served here which clients were shown as they are, by reason.",
                &["reason"],
            ),
            config_reloads: counters(
                r,
                "cqlgate_config_reloads_total",
                "Times that the configuration was read again, and whether it could be used (taken, refused).",
                &["outcome"],
            ),
            config_in_force: declared(
                r,
                Gauge::new(
                    "cqlgate_config_in_force_timestamp_seconds",
                    "When the configuration was read that the gateway goes by, as Unix time.",
                ),
            ),
            tls_reloads: counters(
                r,
                "cqlgate_tls_reloads_total",
                "Changes of certificate files, by whose they are (clients, nodes) and whether they could be used (taken, refused).",
                &["side", "outcome"],
            ),
            tls_expiry: gauges(
                r,
                "cqlgate_tls_certificate_expiry_timestamp_seconds",
                "When the gateway's own certificate ends that clients or nodes see.",
                &["side"],
            ),
            revocations_expiry: gauge(
                r,
                "cqlgate_tls_revocation_list_expiry_timestamp_seconds",
                "When the first of the lists of revoked client certificates is too old; 0 without one.",
            ),
            certificates_refused: counters(
                r,
                "cqlgate_client_certificates_refused_total",
                "Clients that were refused for the certificate that they showed, or did not show, by reason.",
                &["reason"],
            ),
            events: counters(
                r,
                "cqlgate_events_total",
                "Events on their way to one client each, by what they say and what became of them.",
                &["event", "action"],
            ),
            schema_changes: counters(
                r,
                "cqlgate_schema_changes_told_total",
                "Changes of the schema that were told late to clients that see one node for many, by what ended the wait: agreed, late, unknown (the gateway has no login to ask nodes), no_room, ended.",
                &["outcome"],
            ),
            lifecycle: gauges(
                r,
                "cqlgate_lifecycle_state",
                "1 for the phase that the process is in, 0 for the others.",
                &["state"],
            ),
            contact_point_failures: counters(
                r,
                "cqlgate_contact_point_failures_total",
                "Contact points that could not be asked about the cluster, by reason.",
                &["reason"],
            ),
            held_bytes: gauge(r, "cqlgate_held_bytes", "Bytes of frames held whole because they may have to change."),
            hold_waiting: gauge(
                r,
                "cqlgate_hold_waiting",
                "Directions of connections that wait for room to hold a frame.",
            ),
            memory_level: gauge(
                r,
                "cqlgate_memory_level",
                "0: enough; 1: nothing new is held; 2: no new connections; 3: the newest are closed.",
            ),
            statements_redescribed: counter(
                r,
                "cqlgate_statements_redescribed_total",
                "EXECUTEs whose skip-metadata flag was cleared so that the answer describes itself.",
            ),
            topology_generation: gauge(r, "cqlgate_topology_generation", "Grows with every change shown to clients."),
            discovery_refreshed: declared(
                r,
                Gauge::new(
                    "cqlgate_discovery_refreshed_timestamp_seconds",
                    "When discovery last heard of the cluster, as Unix time.",
                ),
            ),
            discovery_relists: counter(r, "cqlgate_discovery_relists_total", "Complete readings of the list of nodes."),
            dns_disagreements: counter(
                r,
                "cqlgate_discovery_dns_disagreements_total",
                "Look-ups of pods' names that gave another address than the Kubernetes API, which is the one that counts.",
            ),
            watch_connected: gauges(
                r,
                "cqlgate_kubernetes_watch_connected",
                "1 while a watch of these objects is open.",
                &["resource"],
            ),
            watch_failures: counters(
                r,
                "cqlgate_kubernetes_watch_failures_total",
                "Lists and watches that failed, by objects and reason.",
                &["resource", "reason"],
            ),
            advertised_changes: counter(
                r,
                "cqlgate_advertised_address_changes_total",
                "Changes of the address that clients are told to dial.",
            ),
            ready: gauge(r, "cqlgate_ready", "1 while /readyz says yes."),
            registry,
        };
        let build =
            gauges(&metrics.registry, "cqlgate_build_info", "Always 1; the version is in the label.", &["version"]);
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        register(&metrics.registry, ProcessCollector::for_self());
        Arc::new(metrics)
    }

    /// Shows every stage of a connection from now on, so that the first one without a place is a rise.
    pub fn show_stages<Stage: LabelSet>(&self) {
        for &stage in Stage::ALL {
            self.set_stage(stage, 0);
            for what in ["places", "share"] {
                self.stage_full.with_label_values(&[stage.label(), what]).inc_by(0);
            }
        }
    }

    /// Discovery was told of the cluster just now.
    pub fn discovery_heard(&self) {
        self.discovery_refreshed.set(unix_time());
    }

    /// The configuration was read again, and was taken or not.
    pub fn config_reloaded(&self, outcome: impl Label) {
        self.config_reloads.with_label_values(&[outcome.label()]).inc();
    }

    /// The configuration that was read just now counts.
    pub fn config_in_force(&self) {
        self.config_in_force.set(unix_time());
    }

    /// Whether a watch of these objects is open; `kind` is one of a few names in the code.
    pub fn watch_connected(&self, kind: &'static str) -> IntGauge {
        self.watch_connected.with_label_values(&[kind])
    }

    pub fn watch_failed(&self, kind: &'static str, reason: impl Label) {
        self.watch_failures.with_label_values(&[kind, reason.label()]).inc();
    }

    /// The counters of one node, by the name that discovery gave it; made when asked for the first time.
    pub fn node(&self, name: &str) -> Arc<NodeMetrics> {
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(node) = nodes.get(name) {
            return Arc::clone(node);
        }
        let node = Arc::new(self.families.of(name));
        nodes.insert(name.to_owned(), Arc::clone(&node));
        node
    }

    /// Takes the series of a node away whose port is no longer its own. Connections that still count do so unseen.
    pub fn forget_node(&self, name: &str) {
        if let Some(node) = self.nodes.lock().unwrap_or_else(PoisonError::into_inner).remove(name) {
            self.families.forget(&node);
        }
    }

    /// The counters for a family of drivers and a DRIVER_VERSION of any content.
    pub fn driver(&self, family: impl Label, driver_version: Option<&str>) -> OpenMetrics {
        self.drivers.of(family.label(), driver_version)
    }

    /// The counters for a path, by its name in the configuration.
    pub fn path(&self, name: &str) -> OpenMetrics {
        let labels = &[name];
        OpenMetrics {
            open: self.paths_open.with_label_values(labels),
            opened: self.paths_opened.with_label_values(labels),
        }
    }

    pub fn connection_refused(&self, reason: impl Label) {
        self.refused.with_label_values(&[reason.label()]).inc();
    }

    /// A connection found no place in a stage; `share`: its source had its share.
    pub fn stage_full(&self, stage: impl Label, share: bool) {
        self.stage_full.with_label_values(&[stage.label(), if share { "share" } else { "places" }]).inc();
    }

    /// Connections in a stage now.
    pub fn set_stage(&self, stage: impl Label, connections: usize) {
        self.stage_connections.with_label_values(&[stage.label()]).set(i64::try_from(connections).unwrap_or(i64::MAX));
    }

    /// A task has ended that must not.
    pub fn task_ended(&self, task: &str) {
        self.tasks_ended.with_label_values(&[task]).inc();
    }

    pub fn request_refused(&self, reason: impl Label) {
        self.requests_refused.with_label_values(&[reason.label()]).inc();
    }

    pub fn rewritten(&self, table: impl Label) {
        self.rewrites.with_label_values(&[table.label()]).inc();
    }

    pub fn rows_kept(&self, reason: impl Label, rows: u64) {
        self.rows_kept.with_label_values(&[reason.label()]).inc_by(rows);
    }

    pub fn rows_hidden(&self, reason: impl Label, rows: u64) {
        self.rows_hidden.with_label_values(&[reason.label()]).inc_by(rows);
    }

    pub fn event(&self, kind: impl Label, action: impl Label) {
        self.events.with_label_values(&[kind.label(), action.label()]).inc();
    }

    /// A change of the schema, or the event of one, was told late.
    pub fn schema_change_told(&self, outcome: impl Label) {
        self.schema_changes.with_label_values(&[outcome.label()]).inc();
    }

    pub fn contact_point_failed(&self, reason: impl Label) {
        self.contact_point_failures.with_label_values(&[reason.label()]).inc();
    }

    /// Certificates of a side have changed, and were taken or not.
    pub fn tls_reloaded(&self, side: impl Label, outcome: impl Label) {
        self.tls_reloads.with_label_values(&[side.label(), outcome.label()]).inc();
    }

    /// A client was refused for its certificate.
    pub fn certificate_refused(&self, reason: impl Label) {
        self.certificates_refused.with_label_values(&[reason.label()]).inc();
    }

    /// When the certificate that a side sees ends: Unix time in seconds.
    pub fn set_tls_expiry(&self, side: impl Label, expiry: i64) {
        self.tls_expiry.with_label_values(&[side.label()]).set(expiry);
    }

    /// When the first list of what is revoked is too old: Unix time in seconds.
    pub fn set_revocations_expiry(&self, expiry: i64) {
        self.revocations_expiry.set(expiry);
    }

    /// Which of its phases the process is in.
    pub fn set_lifecycle<Phase: LabelSet>(&self, now: Phase) {
        for state in Phase::ALL {
            self.lifecycle.with_label_values(&[state.label()]).set(i64::from(*state == now));
        }
    }

    /// The text that Prometheus reads, of type [`CONTENT_TYPE`].
    pub fn render(&self) -> Result<String, prometheus::Error> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}

fn unix_time() -> f64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

#[cfg(test)]
mod tests;
