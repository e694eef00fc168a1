//! The gateway from start to stop: one signal drains it, a second ends it at once. SIGHUP ends nothing: the configuration is read again.

use std::path::PathBuf;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::task::AbortOnDropHandle;

use super::reload;
use crate::config::Config;
use crate::gateway;
use crate::metrics::Metrics;
use crate::shutdown::{Phase, Shutdown};
use crate::telemetry::LogLevel;

pub(super) async fn serve(file: Option<PathBuf>, config: Config, log_level: LogLevel) -> anyhow::Result<()> {
    let shutdown = Shutdown::on_signals()?;
    // From the first moment on: by itself it would end the process.
    let hangup = signal(SignalKind::hangup())?;
    let listen = config.listen;
    let mut running = gateway::start(config, Metrics::new(), log_level).await?;
    tracing::info!(%listen, admin = %running.admin, version = env!("CARGO_PKG_VERSION"), "accepting");
    let reloading = AbortOnDropHandle::new(tokio::spawn(reload::follow(running.reloads(), file, hangup)));
    let broken = tokio::select! {
        () = shutdown.reached(Phase::Draining) => None,
        task = running.broken() => Some(task),
    };
    drop(reloading);
    tokio::select! {
        () = running.drain() => {}
        () = shutdown.reached(Phase::Stopping) => {}
    }
    match broken {
        None => Ok(()),
        Some(task) => anyhow::bail!("the task {task} has ended, and the gateway with it"),
    }
}
