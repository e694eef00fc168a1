//! Another configuration while the gateway runs: as a whole or not at all. What may fail comes first and changes nothing; then
//! everything is replaced, for whoever comes from now on. Connections that are there keep what they came in under.

use std::fmt::Display;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::lead_over;
use super::settings::Making;
use crate::config::advertise::Path;
use crate::config::difference::Change;
use crate::config::{ClientTls, Config, NodeTls};
use crate::discovery::Changes;
use crate::disk::Disk;
use crate::metrics::Metrics;
use crate::proxy::descriptors;
use crate::proxy::memory::{Follower, Watched};
use crate::proxy::shared::Shared;
use crate::proxy::tls::files::{Followed, Outcome, Side};
use crate::proxy::tls::{ClientAcceptor, NodeConnector};
use crate::readiness::{Degraded, Readiness};
use crate::telemetry::LogLevel;

/// The files of a side in place of those of before.
pub(super) type Files = (Side, Option<Followed>);

/// The way to another configuration.
pub struct Reloads {
    pub(super) shared: Arc<Shared>,
    pub(super) making: Making,
    pub(super) memory: Arc<Follower>,
    pub(super) changes: Arc<Changes>,
    /// Where discovery runs.
    pub(super) control: Handle,
    pub(super) disk: Disk,
    pub(super) files: mpsc::Sender<Files>,
    pub(super) log_level: LogLevel,
    pub(super) metrics: Arc<Metrics>,
    pub(super) readiness: Readiness,
    /// One change after the other.
    pub(super) in_force: tokio::sync::Mutex<InForce>,
    pub(super) refused: Mutex<Option<Degraded>>,
    /// Control connections that are told to read again, under other rules about who is told what.
    pub(super) leading: Mutex<Option<AbortOnDropHandle<()>>>,
}

/// What the gateway goes by.
pub(super) struct InForce {
    pub config: Config,
    pub client_tls: Option<ClientAcceptor>,
    pub node_tls: Option<NodeConnector>,
}

/// What became of a configuration that was taken.
#[derive(Debug, PartialEq, Eq)]
pub struct Taken {
    pub changed: Vec<Change>,
    /// What it says, and only another start can do.
    pub left: Vec<Change>,
}

impl Reloads {
    /// Goes by `wanted` from now on, as far as a process that runs can.
    ///
    /// # Errors
    /// Why it cannot be used; then everything is as before. Tells nobody: that is [`Self::refuse`]'s.
    pub async fn take(&self, wanted: &Config) -> anyhow::Result<Taken> {
        let mut in_force = self.in_force.lock().await;
        let (config, left) = wanted.within(&in_force.config);
        let changed = in_force.config.changes(&config);
        if !changed.is_empty() {
            self.put_in_force(&mut in_force, config).await?;
        }
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.metrics.config_reloaded(Outcome::Taken);
        self.metrics.config_in_force();
        Ok(Taken { changed, left })
    }

    /// The line and the count of a configuration that cannot be used. `why` begins with a line that is enough for `/readyz`.
    pub fn refuse(&self, why: &dyn Display) {
        self.metrics.config_reloaded(Outcome::Refused);
        let said = why.to_string();
        tracing::error!("the configuration cannot be used, and that of before goes on: {said}");
        let line = format!("the configuration cannot be used: {}", said.lines().next().unwrap_or_default());
        let degraded = self.readiness.degraded_itself(&line);
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = Some(degraded);
    }

    /// What was refused is gone, and what is in force stands in the file again.
    pub fn mended(&self) {
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner).take();
        if refused.is_some() {
            tracing::info!("the configuration's file says again what the gateway goes by");
        }
    }

    /// Whether this is what is in force already.
    pub async fn goes_by(&self, config: &Config) -> bool {
        self.in_force.lock().await.config == *config
    }

    /// Where files are looked at.
    pub fn disk(&self) -> &Disk {
        &self.disk
    }

    /// How far replicas are apart that are told the same.
    pub async fn jitter(&self) -> std::time::Duration {
        self.in_force.lock().await.config.reload.jitter
    }

    async fn put_in_force(&self, in_force: &mut InForce, config: Config) -> anyhow::Result<()> {
        let before = &in_force.config;
        let clients = match (&config.tls.clients, &before.tls.clients) {
            (to, from) if to == from => None,
            (to, _) => Some(
                opened(&self.disk, to.clone(), |tls: &ClientTls| Followed::clients(tls))
                    .await
                    .context("tls.clients")?,
            ),
        };
        let nodes = match (&config.tls.nodes, &before.tls.nodes) {
            (to, from) if to == from => None,
            (to, _) => {
                Some(opened(&self.disk, to.clone(), |tls: &NodeTls| Followed::nodes(tls)).await.context("tls.nodes")?)
            }
        };
        self.discovery(before, &config, in_force.node_tls.clone(), nodes.as_ref().map(|(_, tls)| tls.clone())).await?;
        // From here on nothing fails.
        if let Some((files, acceptor)) = clients {
            in_force.client_tls = acceptor;
            self.follow(Side::Clients, files).await;
        }
        if let Some((files, connector)) = nodes {
            in_force.node_tls = connector;
            self.follow(Side::Nodes, files).await;
        }
        let settings = self.making.with(&config, in_force.client_tls.clone(), in_force.node_tls.clone());
        self.shared.settings.set(settings);
        self.limit(before, &config);
        // One that was set at the admin address stays until the file names another one.
        if before.log.level != config.log.level
            && let Err(error) = self.log_level.set(&config.log.level)
        {
            tracing::warn!(%error, "log.level");
        }
        if before.paths.iter().map(Path::conditions).ne(config.paths.iter().map(Path::conditions)) {
            // Who is told what may be another question now.
            let led = lead_over(&self.shared, |handle| handle.control().is_some());
            *self.leading.lock().unwrap_or_else(PoisonError::into_inner) = Some(led);
        }
        in_force.config = config;
        Ok(())
    }

    /// The last that may fail, and what follows if it does not.
    async fn discovery(
        &self,
        from: &Config,
        to: &Config,
        tls: Option<NodeConnector>,
        other_tls: Option<Option<NodeConnector>>,
    ) -> anyhow::Result<()> {
        let (changes, from, to) = (Arc::clone(&self.changes), from.clone(), to.clone());
        let taken = self.control.spawn(async move {
            changes.prepare(&to).await?;
            changes.take(&from, &to, other_tls.unwrap_or(tls)).await;
            anyhow::Ok(())
        });
        taken.await.context("discovery has ended")?
    }

    fn limit(&self, from: &Config, to: &Config) {
        if from.limits == to.limits {
            return;
        }
        self.shared.connections.set_limits(&to.limits);
        self.shared.budget.set_limit(usize::try_from(to.limits.held_total).unwrap_or(usize::MAX));
        if from.limits.memory != to.limits.memory {
            self.memory.watch(Watched::find(to.limits.memory));
        }
        if let Some(misfit) = descriptors::misfits(to, descriptors::raise()) {
            tracing::warn!("{misfit}");
        }
    }

    async fn follow(&self, side: Side, files: Option<Followed>) {
        if let Some(files) = &files {
            files.tell_ends(&self.metrics);
        }
        // An error means that the gateway ends.
        let _ = self.files.send((side, files)).await;
    }
}

/// Reads a side's files, if it has any; where reading may block.
async fn opened<Of, Tls>(
    disk: &Disk,
    tls: Option<Of>,
    open: impl Fn(&Of) -> Result<(Followed, Tls), crate::proxy::tls::TlsError> + Send + 'static,
) -> anyhow::Result<(Option<Followed>, Option<Tls>)>
where
    Of: Send + 'static,
    Tls: Send + 'static,
{
    let opened = disk.run(move || tls.as_ref().map(open).transpose()).await??;
    Ok(opened.unzip())
}
