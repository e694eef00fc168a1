//! What operators, Prometheus and the kubelet ask, over HTTP on an address of its own.
//!
//! One thread with a runtime of its own, so that it answers while the data path is busy, and costs the data path nothing. It
//! only reads: snapshots, counters, names of what is pending. What it changes are the log level and which nodes are cordoned, and
//! those for nobody but a peer on the same machine. One request per connection: nothing idle has to be limited.
//!
//! ```text
//! GET /metrics                Prometheus text
//! GET /livez                  200 `ok`, or 503 and why: a worker that has not polled for half a minute
//! GET /readyz                 200 `ready`, or 503 and what is pending, one name per line
//! GET /topology               JSON, see `admin::topology`
//! GET /log-level              the filter in force; PUT with a new one as the body
//! PUT /nodes/NAME/cordon      no new connections to this node; PUT /nodes/NAME/uncordon takes it back
//! ```

mod cordon;
pub mod routes;
pub mod topology;

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime;
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::metrics::Metrics;
use crate::readiness::Readiness;
use crate::telemetry::LogLevel;
use crate::topology::Topology;
use crate::topology::cordons::Cordons;
use crate::topology::sightings::Sightings;

/// Open connections; more wait in the listen queue.
const CONNECTIONS: usize = 64;
/// Request line and headers, in bytes and time; more headers than hyper's 100 are refused too.
const HEAD: usize = 16 * 1024;
const HEAD_TIME: Duration = Duration::from_secs(5);
/// From accept to the last byte of the answer.
const CONNECTION_TIME: Duration = Duration::from_secs(30);
/// After an accept that failed: out of file descriptors, most likely, and asking again at once does not help.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What is shown.
pub struct Parts {
    pub topology: watch::Receiver<Arc<Topology>>,
    pub metrics: Arc<Metrics>,
    pub readiness: Readiness,
    pub log_level: LogLevel,
    /// Rows that clients were not shown.
    pub sightings: Arc<Sightings>,
    /// Rows of nodes that are not served here, which clients were shown as they are.
    pub kept: Arc<Sightings>,
    /// Nodes to which nobody new may come; changed here.
    pub cordons: Arc<Cordons>,
    /// Open client connections of a node's port.
    pub connections: Box<dyn Fn(u16) -> usize + Send + Sync>,
    /// Why the process is not alive, if it is not.
    pub complaint: Box<dyn Fn() -> Option<String> + Send + Sync>,
}

/// Serves until it is dropped.
pub struct Running {
    pub local_addr: SocketAddr,
    /// Cancelled when nobody serves any more, be it that the thread panicked.
    pub ended: CancellationToken,
    stop: DropGuard,
    thread: JoinHandle<()>,
}

impl Running {
    /// Stops and waits until the address is free; open connections are cut.
    pub fn stop(self) {
        drop(self.stop);
        // An error is a panic of that thread, which has told it itself.
        let _ = self.thread.join();
    }
}

/// Binds `address` and serves from then on.
///
/// # Errors
/// The system's, when the address cannot be bound or the thread not be started.
pub fn start(address: SocketAddr, parts: Parts) -> io::Result<Running> {
    let listener = StdListener::bind(address)?;
    listener.set_nonblocking(true)?;
    let local_addr = listener.local_addr()?;
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    let ended = CancellationToken::new();
    let ends = ended.clone().drop_guard();
    let thread = thread::Builder::new().name("admin".to_owned()).spawn(move || {
        let _ends = ends;
        let served = runtime.block_on(stopped.run_until_cancelled(accept(listener, parts)));
        if let Some(Err(error)) = served {
            tracing::error!(%error, "admin address is no longer served");
        }
    })?;
    Ok(Running { local_addr, ended, stop: stop.drop_guard(), thread })
}

async fn accept(listener: StdListener, parts: Parts) -> io::Result<Infallible> {
    let listener = TcpListener::from_std(listener)?;
    let parts = Arc::new(parts);
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let permit = Arc::clone(&room).acquire_owned().await.map_err(io::Error::other)?;
        match listener.accept().await {
            Ok((tcp, peer)) => {
                let parts = Arc::clone(&parts);
                tokio::spawn(async move {
                    serve(tcp, peer, &parts).await;
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "admin: cannot accept");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Answers one request. What goes wrong on the way is the peer's: it went away, was too slow, or spoke no HTTP.
async fn serve(tcp: TcpStream, peer: SocketAddr, parts: &Parts) {
    let service = service_fn(async |request| Ok::<_, Infallible>(routes::answer(request, peer, parts).await));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(HEAD)
        .keep_alive(false)
        .serve_connection(TokioIo::new(tcp), service);
    match timeout(CONNECTION_TIME, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%peer, %error, "admin connection"),
        Err(_) => tracing::debug!(%peer, "admin connection took too long"),
    }
}

#[cfg(test)]
mod tests;
