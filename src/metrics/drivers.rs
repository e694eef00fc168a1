//! Which drivers are connected: a known family and a `major.minor`, both bounded, whatever STARTUP says.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry};

use super::declare::{counters, gauges};

/// Versions kept apart, over all families; later ones are `other`.
const MAX_VERSIONS: usize = 64;

pub(super) struct Drivers {
    open: IntGaugeVec,
    opened: IntCounterVec,
    versions: Mutex<HashSet<(&'static str, String)>>,
}

/// The connections of one kind of client, such as a family of drivers or a path; look up once per connection.
#[derive(Clone)]
pub struct OpenMetrics {
    pub open: IntGauge,
    pub opened: IntCounter,
}

impl Drivers {
    pub(super) fn declare(registry: &Registry) -> Self {
        let labels = &["driver", "version"];
        Self {
            open: gauges(registry, "cqlgate_driver_connections_open", "Established connections, by driver.", labels),
            opened: counters(
                registry,
                "cqlgate_driver_connections_opened_total",
                "Connections whose handshake was completed, by driver.",
                labels,
            ),
            versions: Mutex::default(),
        }
    }

    pub(super) fn of(&self, family: &'static str, driver_version: Option<&str>) -> OpenMetrics {
        let version = self.bounded(family, driver_version);
        let labels = &[family, version.as_str()];
        OpenMetrics { open: self.open.with_label_values(labels), opened: self.opened.with_label_values(labels) }
    }

    fn bounded(&self, family: &'static str, driver_version: Option<&str>) -> String {
        let Some(version) = driver_version.and_then(major_minor) else { return "other".to_owned() };
        let mut seen = self.versions.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (family, version);
        if seen.contains(&key) {
            return key.1;
        }
        if seen.len() >= MAX_VERSIONS {
            return "other".to_owned();
        }
        seen.insert(key.clone());
        key.1
    }
}

/// `4.19` of `4.19.0-rc1`, `2.1` of `v2.1.2`; `None` for what does not begin with two numbers of at most three digits.
fn major_minor(version: &str) -> Option<String> {
    let mut parts = version.strip_prefix('v').unwrap_or(version).split('.');
    let number = |part: &str| {
        let digits: String = part.chars().take_while(char::is_ascii_digit).collect();
        (1..=3).contains(&digits.len()).then_some(digits)
    };
    let major = number(parts.next()?)?;
    let minor = number(parts.next()?)?;
    Some(format!("{major}.{minor}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_major_and_minor() {
        for (version, expected) in [
            ("4.19.0", Some("4.19")),
            ("v2.1.2", Some("2.1")),
            ("3.29-rc1", Some("3.29")),
            ("3", None),
            ("", None),
            ("1234.1", None),
            ("a.b", None),
        ] {
            assert_eq!(major_minor(version).as_deref(), expected, "{version}");
        }
    }

    #[test]
    fn clients_cannot_grow_the_set_of_versions() {
        let drivers = Drivers::declare(&Registry::new());
        for minor in 0..500 {
            drivers.of("java", Some(&format!("1.{minor}"))).opened.inc();
        }
        assert_eq!(drivers.of("java", Some("1.499")).opened.get(), 500 - MAX_VERSIONS as u64);
        assert_eq!(drivers.of("java", Some("1.3")).opened.get(), 1);
    }
}
