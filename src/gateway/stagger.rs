//! Orders that are given to many connections over some time: never to all of one client's at once, nor to those that were opened
//! together. A driver whose whole pool ends in the same moment has nothing to go on with, and comes back all at once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::proxy::connections::{Handle, Order};
use crate::proxy::stages::Source;

/// Gives `order` to each, over `spread`.
pub async fn stagger(handles: Vec<Arc<Handle>>, spread: Duration, order: Order) {
    let began = Instant::now();
    for (position, handle) in positions(handles) {
        sleep_until(began + spread.mul_f64(position)).await;
        handle.give(order);
    }
}

/// When each has its turn, from 0 to 1, the first first. `handles` are by age. The connections of one source are as far apart as
/// they can be, from which follows that the first and the last of them are by half of the time or more; and where all clients are one
/// source, behind a load balancer that hides them, those opened one after the other are far apart.
fn positions(handles: Vec<Arc<Handle>>) -> Vec<(f64, Arc<Handle>)> {
    let mut sources: BTreeMap<Source, Vec<(u32, Arc<Handle>)>> = BTreeMap::new();
    for handle in handles {
        let of_source = sources.entry(handle.source()).or_default();
        let age = u32::try_from(of_source.len()).unwrap_or(u32::MAX);
        of_source.push((age.reverse_bits(), handle));
    }
    let mut positions = Vec::new();
    for (number, mut of_source) in (0u32..).zip(sources.into_values()) {
        of_source.sort_unstable_by_key(|(turn, _)| *turn);
        let first = fraction(number);
        let count = f64::from(u32::try_from(of_source.len()).unwrap_or(u32::MAX));
        let at = |index: u32| (f64::from(index) + first) / count;
        positions.extend((0u32..).zip(of_source).map(|(index, (_, handle))| (at(index), handle)));
    }
    positions.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    positions
}

/// The van der Corput sequence: however many there are, they fill the range evenly.
fn fraction(number: u32) -> f64 {
    f64::from(number.reverse_bits()) / 2f64.powi(32)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Turns of the connections of these sources, in the order of `sources`.
    fn turns(sources: &[u32]) -> Vec<f64> {
        let handles: Vec<_> = sources.iter().map(|of| Arc::new(Handle::detached(Source::V4(*of)))).collect();
        let placed = positions(handles.clone());
        assert!(placed.is_sorted_by(|(a, _), (b, _)| a <= b) && placed.len() == sources.len());
        let turn = |of: &Arc<Handle>| placed.iter().find(|(_, handle)| Arc::ptr_eq(handle, of)).unwrap().0;
        handles.iter().map(turn).collect()
    }

    fn apart(turns: &[f64]) -> f64 {
        let (first, last) = turns.iter().fold((1f64, 0f64), |(first, last), turn| (first.min(*turn), last.max(*turn)));
        last - first
    }

    #[test]
    fn a_clients_first_and_last_connection_end_half_the_time_apart_whoever_else_there_is() {
        for (pools, singles) in [(1, 0), (2, 0), (7, 0), (5, 100), (40, 3)] {
            for size in [2, 3, 8] {
                let of_pools = (0..pools).flat_map(|client| vec![client; size]);
                let sources: Vec<u32> = of_pools.chain((0..singles).map(|n| 1000 + n)).collect();
                let turns = turns(&sources);
                assert!(turns.iter().all(|turn| (0.0..1.0).contains(turn)));
                for pool in turns.chunks(size).take(pools as usize) {
                    assert!(apart(pool) >= 0.5 - 1e-9, "{pool:?} of {pools} pools of {size}, {singles} singles");
                }
            }
        }
    }

    #[test]
    fn where_all_are_one_source_those_opened_together_end_apart() {
        let turns = turns(&[1; 96]);
        for pool in turns.chunks(8) {
            assert!(apart(pool) > 0.5, "{pool:?}");
        }
    }

    #[test]
    fn no_moment_has_more_than_its_share() {
        let sources: Vec<u32> = (0..400).collect();
        let turns = turns(&sources);
        for tenth in 0..10 {
            let (from, to) = (f64::from(tenth) / 10.0, f64::from(tenth + 1) / 10.0);
            let count = turns.iter().filter(|turn| (from..to).contains(turn)).count();
            assert!((30..=50).contains(&count), "{count} in {from}..{to}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn each_is_told_in_its_turn() {
        let handles: Vec<_> = [1, 1].map(|of| Arc::new(Handle::detached(Source::V4(of)))).into();
        let told = tokio::spawn(stagger(handles.clone(), Duration::from_secs(10), Order::Drain));
        let count = || handles.iter().filter(|handle| handle.order() == Order::Drain).count();
        tokio::time::sleep(Duration::from_millis(4900)).await;
        assert_eq!(count(), 1);
        told.await.unwrap();
        assert_eq!(count(), 2);
    }
}
