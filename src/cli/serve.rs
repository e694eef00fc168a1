//! The gateway from start to stop: one signal drains it, a second ends it at once.

use crate::config::Config;
use crate::gateway;
use crate::metrics::Metrics;
use crate::shutdown::{Phase, Shutdown};
use crate::telemetry::LogLevel;

pub(super) async fn serve(config: Config, log_level: LogLevel) -> anyhow::Result<()> {
    let shutdown = Shutdown::on_signals()?;
    let listen = config.listen;
    let running = gateway::start(config, Metrics::new(), log_level).await?;
    tracing::info!(%listen, admin = %running.admin, version = env!("CARGO_PKG_VERSION"), "accepting");
    shutdown.reached(Phase::Draining).await;
    tokio::select! {
        () = running.drain() => {}
        () = shutdown.reached(Phase::Stopping) => {}
    }
    Ok(())
}
