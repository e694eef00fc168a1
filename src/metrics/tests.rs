//! What is shown follows what was counted, and the names follow the conventions.

use super::*;
use crate::proxy::dial::DialFailure;
use crate::proxy::{ClosedBy, Why};
use crate::topology::NodeState;

fn line(metrics: &Metrics, start: &str) -> Option<String> {
    metrics.render().unwrap().lines().find(|line| line.starts_with(start)).map(str::to_owned)
}

#[test]
fn counts_by_node_who_and_why() {
    let metrics = Metrics::new();
    let node = metrics.node("cassandra-0");
    node.bytes_to_node.inc_by(4096);
    metrics.node("cassandra-0").bytes_to_node.inc_by(1);
    node.closed(ClosedBy::Gateway, Why::Drain);
    assert_eq!(
        line(&metrics, "cqlgate_to_node_bytes_total").unwrap(),
        "cqlgate_to_node_bytes_total{node=\"cassandra-0\"} 4097"
    );
    assert_eq!(
        line(&metrics, "cqlgate_connections_closed_total").unwrap(),
        "cqlgate_connections_closed_total{by=\"gateway\",node=\"cassandra-0\",why=\"drain\"} 1"
    );
}

#[test]
fn node_is_in_one_state() {
    let metrics = Metrics::new();
    let node = metrics.node("a");
    node.set_state(NodeState::Up);
    node.set_state(NodeState::Down);
    let text = metrics.render().unwrap();
    let set: Vec<_> = text.lines().filter(|l| l.starts_with("cqlgate_node_state{") && l.ends_with(" 1")).collect();
    assert_eq!(set, ["cqlgate_node_state{node=\"a\",state=\"down\"} 1"]);
}

#[test]
fn forgotten_node_leaves_no_series_and_the_others_keep_theirs() {
    let metrics = Metrics::new();
    for name in ["leaver", "stayer"] {
        let node = metrics.node(name);
        node.set_state(NodeState::Gone);
        node.closed(ClosedBy::Node, Why::Eof);
        node.closed(ClosedBy::Client, Why::Reset);
        node.dial_failed(DialFailure::Refused);
        node.dial_seconds.observe(0.1);
        node.port.set(9042);
    }
    let of = |name| metrics.render().unwrap().lines().filter(|line| line.contains(name)).count();
    let before = of("stayer");
    assert!(before > 10 && of("leaver") == before);
    metrics.forget_node("leaver");
    assert_eq!((of("leaver"), of("stayer")), (0, before));
}

#[test]
fn names_and_help_follow_the_conventions() {
    let metrics = Metrics::new();
    metrics.node("a").closed(ClosedBy::Client, Why::Eof);
    for family in metrics.registry.gather() {
        let name = family.name();
        assert!(name.starts_with("cqlgate_") || name.starts_with("process_"), "{name}");
        assert!(family.help().ends_with('.') || name.starts_with("process_"), "{name}: {}", family.help());
        let counter = family.get_field_type() == prometheus::proto::MetricType::COUNTER;
        assert_eq!(name.ends_with("_total"), counter, "{name}");
        let histogram = family.get_field_type() == prometheus::proto::MetricType::HISTOGRAM;
        assert!(!histogram || name.ends_with("_seconds") || name.ends_with("_bytes"), "{name}");
    }
    assert!(line(&metrics, "process_open_fds").is_some());
    assert!(line(&metrics, "cqlgate_build_info{version=").is_some());
}
