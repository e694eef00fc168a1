//! What `/metrics` says, read by a parser that is not ours.

#![allow(clippy::unwrap_used)] // helpers of tests

#[path = "common/families.rs"]
mod families;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cqlgate::cql::message::NodeChange;
use cqlgate::gateway::Lifecycle;
use cqlgate::label::{Label, LabelSet};
use cqlgate::metrics::Metrics;
use cqlgate::proxy::agreement::Told;
use cqlgate::proxy::dial::DialFailure;
use cqlgate::proxy::stages::Stage;
use cqlgate::proxy::tls::client_auth::CertificateRefused;
use cqlgate::proxy::tls::files::{Outcome, Side};
use cqlgate::proxy::{ClosedBy, Refused, Why};
use cqlgate::rewrite;
use cqlgate::rewrite::conversation::{EventAction, EventKind};
use cqlgate::rewrite::handshake::Refusal;
use cqlgate::rewrite::system_tables::{LeftOut, RefusedRequest, SystemTable};
use cqlgate::rewrite::view::DriverFamily;
use cqlgate::topology::{HiddenReason, NodeState, Unserved};
use families::{FAMILIES, OF_DISCOVERY, PROCESS};
use prometheus_parse::{Scrape, Value};

/// A word of a set that is private.
#[derive(Clone, Copy)]
struct Word(&'static str);

impl Label for Word {
    fn label(self) -> &'static str {
        self.0
    }
}

/// Metrics in which every family has a series.
fn everything() -> Arc<Metrics> {
    let metrics = Metrics::new();
    metrics.set_lifecycle(Lifecycle::Running);
    metrics.show_stages::<Stage>();
    // A name of an operator's choice, with all that the text format must escape.
    let node = metrics.node("rack \"a\"\\0");
    node.open.set(3);
    node.opened.inc();
    node.closed(ClosedBy::Client, Why::Eof);
    node.bytes_to_node.inc_by(1 << 40);
    node.bytes_to_client.inc();
    node.requests.inc();
    node.responses.inc();
    node.dial_seconds.observe(0.003);
    node.handshake_seconds.observe(0.004);
    node.probe_seconds.observe(100.0);
    node.dial_failed(DialFailure::Timeout);
    node.set_state(NodeState::Up);
    node.port.set(9042);
    metrics.driver(DriverFamily::Java4, Some("4.19.3")).open.inc();
    metrics.connection_refused(Refused::NoLiveNode);
    metrics.request_refused(RefusedRequest::InternalAddress);
    metrics.rewritten(SystemTable::PeersV2);
    metrics.rows_hidden(LeftOut::Hidden(HiddenReason::NoPort), 2);
    metrics.rows_kept(Unserved::Remote, 3);
    metrics.event(EventKind::Schema, EventAction::Passed);
    metrics.schema_change_told(Told::Late);
    metrics.contact_point_failed(DialFailure::Refused);
    metrics.watch_connected("pods").set(1);
    metrics.watch_failed("pods", Word("gone"));
    metrics.discovery_refreshed.set(1.5e9);
    metrics.task_ended("gauges");
    metrics.config_reloaded(Outcome::Refused);
    metrics.tls_reloaded(Side::Clients, Outcome::Taken);
    metrics.set_tls_expiry(Side::Clients, 1_500_000_000);
    metrics.certificate_refused(CertificateRefused::Expired);
    metrics
}

fn parse(text: &str) -> Scrape {
    Scrape::parse(text.lines().map(|line| Ok(line.to_owned()))).unwrap()
}

#[test]
fn a_parser_reads_every_line() {
    let text = everything().render().unwrap();
    let scrape = parse(&text);
    let read: usize = scrape
        .samples
        .iter()
        .map(|sample| match &sample.value {
            // The parser takes a histogram's buckets together; its sum and count are samples of their own.
            Value::Histogram(buckets) => buckets.len(),
            _ => 1,
        })
        .sum();
    let written = text.lines().filter(|line| !line.starts_with('#')).count();
    assert_eq!(read, written, "{text}");
    let values: BTreeMap<_, _> = scrape.samples.iter().map(|sample| (sample.metric.as_str(), &sample.value)).collect();
    assert_eq!(values["cqlgate_to_node_bytes_total"], &Value::Counter((1_u64 << 40) as f64));
    assert_eq!(values["cqlgate_connections_open"], &Value::Gauge(3.0));
    assert_eq!(values["cqlgate_rows_hidden_total"], &Value::Counter(2.0));
    assert_eq!(values["cqlgate_rows_kept_total"], &Value::Counter(3.0));
}

#[test]
fn every_family_is_listed_by_name_type_and_labels() {
    let text = everything().render().unwrap();
    let typed: BTreeSet<(&str, &str)> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
        .filter(|(name, _)| name.starts_with("cqlgate_"))
        .collect();
    let listed = || FAMILIES.iter().chain(OF_DISCOVERY);
    assert_eq!(typed, listed().map(|&(name, kind, _)| (name, kind)).collect());
    assert!(PROCESS.iter().all(|(name, kind, _)| text.contains(&format!("# TYPE {name} {kind}\n"))), "{text}");
    let scrape = parse(&text);
    for (name, _, labels) in listed() {
        let sample = scrape.samples.iter().find(|sample| sample.metric == *name);
        let found: BTreeSet<&str> =
            sample.unwrap_or_else(|| panic!("{name} has no series")).labels.keys().map(String::as_str).collect();
        assert_eq!(found, labels.iter().copied().collect(), "{name}");
    }
}

#[test]
fn every_family_has_a_help_text_and_a_unit_where_it_needs_one() {
    let text = everything().render().unwrap();
    let scrape = parse(&text);
    let typed: BTreeMap<&str, &str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect();
    assert!(typed.len() > 25, "{typed:?}");
    for (name, kind) in typed {
        assert!(scrape.docs.get(name).is_some_and(|help| help.len() > 10), "{name} has no help");
        assert_eq!(kind == "counter", name.ends_with("_total"), "{name} is a {kind}");
        assert!(!name.contains("milli") && !name.contains("_ms"), "{name} is in no base unit");
        if name.contains("byte") {
            assert!(name.ends_with("_bytes") || name.ends_with("_bytes_total"), "{name}");
        }
    }
}

#[test]
fn labels_of_a_family_are_always_the_same() {
    let text = everything().render().unwrap();
    let mut labels: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for sample in parse(&text).samples {
        let names: BTreeSet<String> = sample.labels.keys().cloned().collect();
        assert_eq!(labels.entry(sample.metric.clone()).or_insert_with(|| names.clone()), &names, "{}", sample.metric);
        if let Some(node) = sample.labels.get("node") {
            assert!(node.starts_with("rack"), "{node}");
        }
    }
}

/// The words of a whole set are these, in this order.
fn check_words<Set: LabelSet>(expected: &str) {
    check_labels(Set::ALL, expected);
}

fn check_labels(set: &[impl Label], expected: &str) {
    assert_eq!(set.iter().map(|value| value.label()).collect::<Vec<_>>().join(" "), expected);
}

/// Dashboards, alerts and scripts compare them: a word may be added, none is renamed.
#[test]
fn words_are_what_they_were() {
    check_words::<ClosedBy>("client node gateway");
    check_words::<Stage>("accepted tls setup login established");
    check_words::<Refused>(
        "connection_limit node_connection_limit source_connection_limit stage_full source_share made_room kept_out memory \
         draining no_live_node cordoned access_denied access_not_allowed proxy_source no_proxy_header \
         proxy_header not_cql unsupported_version frame_too_long client_ended tls client_certificate \
         no_identity setup_deadline dial_failed",
    );
    check_words::<Side>("clients nodes");
    check_words::<Outcome>("taken refused");
    check_words::<DialFailure>("refused reset timeout unreachable tls dns identity login other");
    check_words::<NodeState>("pending up down gone");
    check_words::<SystemTable>("local peers peers_v2");
    check_words::<HiddenReason>(
        "no_port not_announced not_allowed not_confirmed not_owned too_long not_resolved not_advertised same_endpoint remote ghost",
    );
    check_labels(&[LeftOut::View, LeftOut::Hidden(HiddenReason::NoPort)], "view no_port");
    check_words::<Unserved>("remote ghost");
    check_words::<EventAction>("passed added held swallowed");
    check_labels(
        &[EventKind::Node(NodeChange::NewNode), EventKind::Schema, EventKind::Other],
        "NEW_NODE SCHEMA_CHANGE other",
    );
    check_words::<DriverFamily>(
        "java-4 java-3 scylla-java python scylla-python scylla-gocql csharp cdrs-tokio gocql nodejs cpp scylla-rust other \
         none",
    );
    check_words::<Lifecycle>("starting running draining stopping");
    check_words::<RefusedRequest>("internal_address");
}

#[test]
fn words_of_why_a_connection_ended_are_what_they_were() {
    let own = [
        Why::Eof,
        Why::Reset,
        Why::Timeout,
        Why::Unread,
        Why::Tls,
        Why::Io,
        Why::Gone,
        Why::HalfClosedTimeout,
        Why::LoginDeadline,
        Why::HoldBudget,
        Why::HoldStalled,
        Why::Drain,
        Why::MaxAge,
        Why::AddressChanged,
        Why::DrainSilence,
        Why::DrainDeadline,
        Why::NodeGone,
        Why::Panic,
    ];
    check_labels(
        &own,
        "eof reset timeout unread tls io_error gone half_closed_timeout login_deadline hold_budget hold_stalled drain \
         max_age address_changed drain_silence drain_deadline node_gone panic",
    );
    check_words::<rewrite::Why>(
        "frame_too_long held_frame_too_long segment_header_checksum segment_payload_checksum malformed wrong_direction \
         version_changed compression unrewritable metadata_missing",
    );
    check_words::<Refusal>("not_cql frame_too_long unsupported_version wrong_direction malformed");
    let of_others: [Why; 4] = [
        Refused::MadeRoom.into(),
        DialFailure::Identity.into(),
        rewrite::Why::Malformed.into(),
        Refusal::WrongDirection.into(),
    ];
    check_labels(&of_others, "made_room identity malformed wrong_direction");
}
