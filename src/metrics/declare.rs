//! How a family is made and registered.

use prometheus::core::Collector;
use prometheus::{HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

pub(super) fn counter(registry: &Registry, name: &str, help: &str) -> IntCounter {
    declared(registry, IntCounter::new(name, help))
}

pub(super) fn gauge(registry: &Registry, name: &str, help: &str) -> IntGauge {
    declared(registry, IntGauge::new(name, help))
}

pub(super) fn counters(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    declared(registry, IntCounterVec::new(Opts::new(name, help), labels))
}

pub(super) fn gauges(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
    declared(registry, IntGaugeVec::new(Opts::new(name, help), labels))
}

pub(super) fn histograms(registry: &Registry, name: &str, help: &str, labels: &[&str], bounds: &[f64]) -> HistogramVec {
    declared(registry, HistogramVec::new(HistogramOpts::new(name, help).buckets(bounds.to_vec()), labels))
}

/// Adds a family to the registry. Only the constants of this page can make it fail, so every test would see it.
#[allow(clippy::expect_used)]
pub(super) fn declared<C: Collector + Clone + 'static>(registry: &Registry, family: Result<C, prometheus::Error>) -> C {
    let family = family.expect("a metric's name and labels are valid");
    register(registry, family.clone());
    family
}

#[allow(clippy::expect_used)]
pub(super) fn register(registry: &Registry, collector: impl Collector + 'static) {
    registry.register(Box::new(collector)).expect("a metric is declared once");
}
