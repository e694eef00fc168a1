//! Connections live no longer than `timeouts.max_age`: those that a roll-out brought to one replica, or that came back to one node
//! after it was away, do not stay there for ever.
//!
//! One look at all of them now and then, in place of a timer for each: an idle connection costs what it did.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::proxy::shared::Shared;

/// Looks within the longest life: so exact is it.
const LOOKS: u32 = 200;
/// Between two looks, at least and at most.
const QUICKEST: Duration = Duration::from_millis(10);
const SLOWEST: Duration = Duration::from_secs(60);

/// Ends those that are too old, for as long as it is polled.
pub async fn end_old(shared: Arc<Shared>) {
    loop {
        let max_age = shared.settings.get().timeouts.max_age.map(|age| age.0);
        sleep(max_age.map_or(SLOWEST, |age| (age / LOOKS).clamp(QUICKEST, SLOWEST))).await;
        if let Some(max_age) = max_age {
            shared.connections.end_older(max_age, Instant::now());
        }
    }
}
