//! The thread of those who decide: discovery, probes, the writer of the topology. No client can occupy it, because nothing that
//! clients do runs there.

use std::future::Future;
use std::io;
use std::thread;

use tokio::runtime::{Builder, Handle};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Ends, with all that runs on it, when it is dropped; nobody waits for that.
pub struct Control {
    runtime: Handle,
    _stop: DropGuard,
}

impl Control {
    pub fn start() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().thread_name("control-blocking").build()?;
        let handle = runtime.handle().clone();
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        thread::Builder::new().name("control".to_owned()).spawn(move || runtime.block_on(stopped.cancelled()))?;
        Ok(Self { runtime: handle, _stop: stop.drop_guard() })
    }

    /// What `future` comes to, on that thread; tasks that it spawns stay there.
    ///
    /// # Errors
    /// It panicked.
    pub async fn run<T: Send + 'static>(&self, future: impl Future<Output = T> + Send + 'static) -> io::Result<T> {
        self.runtime.spawn(future).await.map_err(io::Error::other)
    }

    pub fn handle(&self) -> &Handle {
        &self.runtime
    }
}
