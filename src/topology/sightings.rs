//! Rows of nodes that clients are not shown, or are shown though they are not served, as clients' reads happened to bring them: for
//! those who look, and for nobody who decides. A bounded map; whoever reports does not wait, and nothing follows from a report.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::{Hidden, HiddenReason, HostId, Topology, is_shown};

/// Rows that are remembered; a client's reads can bring more.
const MOST: usize = 1024;
/// For how long after it was seen.
const FOR: Duration = Duration::from_secs(600);

type Key = (Option<HostId>, Option<SocketAddr>);

/// Shared by all connections and the admin address.
#[derive(Debug, Default)]
pub struct Sightings {
    rows: Mutex<HashMap<Key, (Hidden, Instant)>>,
}

impl Sightings {
    /// A row was seen. Lost when somebody else is at the map; when it is full, what was not seen for longest makes room. What one
    /// answer says of a node's data center, others that do not say it leave.
    pub fn see(&self, mut hidden: Hidden, now: Instant) {
        let Ok(mut rows) = self.rows.try_lock() else { return };
        let key = (hidden.host_id, hidden.address);
        if rows.len() >= MOST && !rows.contains_key(&key) {
            let oldest = rows.iter().min_by_key(|(_, (_, seen))| *seen).map(|(key, _)| *key);
            oldest.and_then(|oldest| rows.remove(&oldest));
        }
        if let (HiddenReason::NoPort, Some((known, _))) = (hidden.reason, rows.get(&key)) {
            hidden.reason = known.reason;
        }
        rows.insert(key, (hidden, now));
    }

    /// What was seen of late and is not shown by `topology`, nor listed by it already.
    pub fn beside(&self, topology: &Topology, now: Instant) -> Vec<Hidden> {
        let listed = |hidden: &Hidden| {
            topology.hidden.iter().any(|other| (other.host_id, other.address) == (hidden.host_id, hidden.address))
        };
        let mut beside = self.recent(topology, now);
        beside.retain(|hidden| !listed(hidden));
        beside
    }

    /// What was seen of late and is not shown by `topology`.
    pub fn recent(&self, topology: &Topology, now: Instant) -> Vec<Hidden> {
        let mut rows = self.rows.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        rows.retain(|_, (hidden, seen)| now.duration_since(*seen) < FOR && !is_shown(topology, hidden));
        let mut recent: Vec<Hidden> = rows.values().map(|(hidden, _)| hidden.clone()).collect();
        recent.sort_by_key(|hidden| (hidden.host_id.map(|id| id.0), hidden.address));
        recent
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::{Advertised, Node};

    fn row(n: u32) -> Hidden {
        let address = Some(SocketAddr::from((n.to_be_bytes(), 9042)));
        Hidden { id: None, host_id: None, address, reason: HiddenReason::NoPort }
    }

    #[test]
    fn are_bounded_fade_and_go_when_the_node_is_shown() {
        let (sightings, topology, now) = (Sightings::default(), Topology::default(), Instant::now());
        for n in 0..3000 {
            sightings.see(row(n), now + Duration::from_millis(n.into()));
            // One that is read again and again stays.
            sightings.see(row(0), now + Duration::from_millis(n.into()));
        }
        let seen = sightings.beside(&topology, now);
        assert!(seen.len() == MOST && seen.contains(&row(0)) && seen.contains(&row(2999)) && !seen.contains(&row(1)));
        let later = now + Duration::from_secs(3) + FOR;
        sightings.see(row(5000), later);
        assert_eq!(sightings.beside(&topology, later), [row(5000)]);
        let known = Node::example("a", 9042, &row(5000).address.unwrap().to_string());
        assert_eq!(sightings.beside(&Topology::new(1, Advertised::default(), [known]), later), []);
    }

    #[test]
    fn a_reason_that_one_answer_tells_is_not_lost_with_the_next_that_does_not() {
        let (sightings, topology, now) = (Sightings::default(), Topology::default(), Instant::now());
        let remote = Hidden { reason: HiddenReason::Remote, ..row(1) };
        for (seen, shown) in [(row(1), row(1)), (remote.clone(), remote.clone()), (row(1), remote)] {
            sightings.see(seen, now);
            assert_eq!(sightings.beside(&topology, now), [shown]);
        }
    }
}
