//! The gateway from start to stop: one signal drains it, a second ends it at once.

use crate::config::Config;
use crate::gateway;
use crate::metrics::Metrics;
use crate::shutdown::{Phase, Shutdown};
use crate::telemetry::LogLevel;

pub(super) async fn serve(config: Config, log_level: LogLevel) -> anyhow::Result<()> {
    let shutdown = Shutdown::on_signals()?;
    let listen = config.listen;
    let mut running = gateway::start(config, Metrics::new(), log_level).await?;
    tracing::info!(%listen, admin = %running.admin, version = env!("CARGO_PKG_VERSION"), "accepting");
    let broken = tokio::select! {
        () = shutdown.reached(Phase::Draining) => None,
        task = running.broken() => Some(task),
    };
    tokio::select! {
        () = running.drain() => {}
        () = shutdown.reached(Phase::Stopping) => {}
    }
    match broken {
        None => Ok(()),
        Some(task) => anyhow::bail!("the task {task} has ended, and the gateway with it"),
    }
}
