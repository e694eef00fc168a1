//! The families of `/metrics` that dashboards and alerts may count on: name, type, labels.

pub const FAMILIES: &[(&str, &str, &[&str])] = &[
    ("cqlgate_connections_open", "gauge", &["node"]),
    ("cqlgate_connections_opened_total", "counter", &["node"]),
    ("cqlgate_connections_closed_total", "counter", &["node", "by", "why"]),
    ("cqlgate_connections_refused_total", "counter", &["reason"]),
    ("cqlgate_workers_stuck_total", "counter", &[]),
    ("cqlgate_stage_connections", "gauge", &["stage"]),
    ("cqlgate_stage_full_total", "counter", &["stage", "what"]),
    ("cqlgate_descriptors_exhausted_total", "counter", &[]),
    ("cqlgate_to_node_bytes_total", "counter", &["node"]),
    ("cqlgate_to_client_bytes_total", "counter", &["node"]),
    ("cqlgate_requests_total", "counter", &["node"]),
    ("cqlgate_responses_total", "counter", &["node"]),
    ("cqlgate_requests_refused_total", "counter", &["reason"]),
    ("cqlgate_rewrites_total", "counter", &["table"]),
    ("cqlgate_rows_hidden_total", "counter", &["reason"]),
    ("cqlgate_statements_redescribed_total", "counter", &[]),
    ("cqlgate_events_total", "counter", &["event", "action"]),
    ("cqlgate_node_state", "gauge", &["node", "state"]),
    ("cqlgate_node_port", "gauge", &["node"]),
    ("cqlgate_topology_generation", "gauge", &[]),
    ("cqlgate_dial_failures_total", "counter", &["node", "reason"]),
    ("cqlgate_dial_seconds", "histogram", &["node"]),
    ("cqlgate_handshake_seconds", "histogram", &["node"]),
    ("cqlgate_probe_seconds", "histogram", &["node"]),
    ("cqlgate_driver_connections_open", "gauge", &["driver", "version"]),
    ("cqlgate_driver_connections_opened_total", "counter", &["driver", "version"]),
    ("cqlgate_held_bytes", "gauge", &[]),
    ("cqlgate_hold_waiting", "gauge", &[]),
    ("cqlgate_memory_level", "gauge", &[]),
    ("cqlgate_discovery_refreshed_timestamp_seconds", "gauge", &[]),
    ("cqlgate_discovery_relists_total", "counter", &[]),
    ("cqlgate_discovery_dns_disagreements_total", "counter", &[]),
    ("cqlgate_advertised_address_changes_total", "counter", &[]),
    ("cqlgate_lifecycle_state", "gauge", &["state"]),
    ("cqlgate_ready", "gauge", &[]),
    ("cqlgate_build_info", "gauge", &["version"]),
];

/// Families with series only where discovery asks contact points or watches Kubernetes, rows are kept, the schema is changed, or there is
/// TLS.
#[allow(dead_code)] // by those who look at a gateway with a fixed list
pub const OF_DISCOVERY: &[(&str, &str, &[&str])] = &[
    ("cqlgate_contact_point_failures_total", "counter", &["reason"]),
    ("cqlgate_rows_kept_total", "counter", &["reason"]),
    ("cqlgate_schema_changes_told_total", "counter", &["outcome"]),
    ("cqlgate_tasks_ended_total", "counter", &["task"]),
    ("cqlgate_node_cordoned", "gauge", &["node"]),
    ("cqlgate_config_reloads_total", "counter", &["outcome"]),
    ("cqlgate_config_in_force_timestamp_seconds", "gauge", &[]),
    ("cqlgate_tls_reloads_total", "counter", &["side", "outcome"]),
    ("cqlgate_tls_certificate_expiry_timestamp_seconds", "gauge", &["side"]),
    ("cqlgate_tls_revocation_list_expiry_timestamp_seconds", "gauge", &[]),
    ("cqlgate_client_certificates_refused_total", "counter", &["reason"]),
    ("cqlgate_kubernetes_watch_connected", "gauge", &["resource"]),
    ("cqlgate_kubernetes_watch_failures_total", "counter", &["resource", "reason"]),
];

/// Of the process, as far as the Prometheus client's library knows it.
pub const PROCESS: &[(&str, &str, &[&str])] = &[
    ("process_cpu_seconds_total", "counter", &[]),
    ("process_open_fds", "gauge", &[]),
    ("process_resident_memory_bytes", "gauge", &[]),
    ("process_start_time_seconds", "gauge", &[]),
];
