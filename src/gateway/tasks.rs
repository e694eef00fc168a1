//! The tasks that must live as long as the gateway does. The end of one, by a panic too, is the gateway's: half a gateway lies to
//! its clients, and whoever restarts it makes a whole one.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::task::{Id, JoinSet};

use crate::metrics::Metrics;

/// Ends them all when dropped.
#[derive(Default)]
pub struct Tasks {
    set: JoinSet<()>,
    names: HashMap<Id, &'static str>,
}

impl Tasks {
    pub fn spawn(&mut self, name: &'static str, on: &Handle, task: impl Future<Output = ()> + Send + 'static) {
        let handle = self.set.spawn_on(task, on);
        self.names.insert(handle.id(), name);
    }

    /// The name of the first that ends.
    pub async fn first_end(mut self, metrics: Arc<Metrics>) -> &'static str {
        let Some(ended) = self.set.join_next_with_id().await else { return std::future::pending().await };
        let (id, how) = match ended {
            Ok((id, ())) => (id, "it returned".to_owned()),
            Err(error) => (error.id(), error.to_string()),
        };
        let name = self.names.get(&id).copied().unwrap_or("unknown");
        metrics.task_ended(name);
        tracing::error!(task = name, how, "a task has ended that must not end; the gateway stops");
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_end_is_told_by_name_and_a_panic_is_one() {
        for panics in [false, true] {
            let mut tasks = Tasks::default();
            tasks.spawn("stays", &Handle::current(), std::future::pending());
            tasks.spawn("ends", &Handle::current(), async move { assert!(!panics, "on purpose") });
            let metrics = Metrics::new();
            assert_eq!(tasks.first_end(Arc::clone(&metrics)).await, "ends");
            assert!(metrics.render().unwrap().contains("cqlgate_tasks_ended_total{task=\"ends\"} 1"));
        }
    }
}
