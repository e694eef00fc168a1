//! The tasks that tell of nodes and of the address to advertise. None of them ends by itself: without one the gateway would be blind,
//! and say that nothing changes. One that is replaced has not ended.

use std::collections::HashMap;
use std::future::{Future, pending};
use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};

use super::resolve::Names;
use crate::metrics::Metrics;
use crate::topology::Topology;
use crate::topology::input::Input;

pub type Source = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What every source has to do with, whatever it tells of.
#[derive(Clone)]
pub struct Common {
    pub names: Names,
    pub inputs: mpsc::Sender<Input>,
    pub topology: watch::Receiver<Arc<Topology>>,
    pub metrics: Arc<Metrics>,
}

/// Sources that wait to begin.
const QUEUE: usize = 4;

/// The tasks by their names.
#[derive(Default)]
pub struct Sources {
    tasks: JoinSet<()>,
    by_name: HashMap<&'static str, AbortHandle>,
}

/// Replaces sources while they run.
#[derive(Clone)]
pub struct Replace(mpsc::Sender<(&'static str, Source)>);

impl Sources {
    /// Begins a source in place of the one of that name.
    pub fn begin(&mut self, name: &'static str, source: impl Future<Output = ()> + Send + 'static) {
        let begun = self.tasks.spawn(source);
        if let Some(before) = self.by_name.insert(name, begun) {
            before.abort();
        }
    }

    /// Runs them until one of them ends, by a panic or otherwise; the other end replaces them.
    pub fn run(self) -> (impl Future<Output = ()>, Replace) {
        let (replace, replaced) = mpsc::channel(QUEUE);
        (self.first_end(replaced), Replace(replace))
    }

    async fn first_end(mut self, mut replaced: mpsc::Receiver<(&'static str, Source)>) {
        loop {
            tokio::select! {
                Some((name, source)) = replaced.recv() => self.begin(name, source),
                Some(ended) = self.tasks.join_next() => match ended {
                    Err(error) if error.is_cancelled() => {}
                    Err(panicked) => return tracing::error!(%panicked, "discovery has ended"),
                    Ok(()) => return tracing::error!("a source of discovery has ended"),
                },
                else => return pending().await,
            }
        }
    }
}

impl Replace {
    /// Ends the source of that name, and begins another one.
    pub async fn with(&self, name: &'static str, source: impl Future<Output = ()> + Send + 'static) {
        // An error means that discovery ends, and with it everything.
        let _ = self.0.send((name, Box::pin(source))).await;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn a_source_that_ends_ends_discovery() {
        for panics in [false, true] {
            let mut sources = Sources::default();
            sources.begin("stays", pending());
            sources.begin("ends", async move { assert!(!panics, "on purpose") });
            timeout(DEADLINE, sources.run().0).await.unwrap();
        }
    }

    #[tokio::test]
    async fn one_that_is_replaced_has_not_ended() {
        let mut sources = Sources::default();
        let (alive, mut dropped) = mpsc::channel::<()>(1);
        sources.begin("a", async move {
            let _alive = alive;
            pending().await
        });
        let (running, replace) = sources.run();
        let running = tokio::spawn(running);
        replace.with("a", pending()).await;
        assert_eq!(timeout(DEADLINE, dropped.recv()).await.unwrap(), None, "the first one is over");
        replace.with("a", async {}).await;
        timeout(DEADLINE, running).await.unwrap().unwrap();
    }
}
