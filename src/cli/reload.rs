//! `cqlgate run` reads its configuration again: when the file has another content, and on SIGHUP.
//!
//! The file is looked at by content, so that it does not matter how it comes to be another: written in place, renamed over, or behind the
//! symbolic links of a mounted ConfigMap. What is half written is another file a moment later: only what was seen twice alike is read.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::signal::unix::Signal;
use tokio::time::{Instant, sleep};

use crate::config::{Config, Overlay, Resolved};
use crate::discovery::backoff::shortened;
use crate::gateway::reload::{Reloads, Taken};

/// Between two looks at the file: Kubernetes brings a changed ConfigMap a minute late.
const LOOK: Duration = Duration::from_secs(1);

/// What the file holds, or why it cannot be read.
type Content = Result<Vec<u8>, std::io::ErrorKind>;

/// Follows the file, and the signal, for ever. Without a file nothing is read again.
pub(super) async fn follow(reloads: Arc<Reloads>, file: Option<PathBuf>, mut hangup: Signal) {
    let Some(path) = file else {
        while hangup.recv().await.is_some() {
            tracing::info!("SIGHUP: there is no file to read again; certificates and passwords follow their files");
        }
        return std::future::pending().await;
    };
    let mut following = Following { reloads, path, used: None, seen: None, refused: None };
    loop {
        tokio::select! {
            signal = hangup.recv() => match signal {
                Some(()) => following.asked().await,
                None => return std::future::pending().await,
            },
            () = sleep(LOOK) => following.look().await,
        }
    }
}

struct Following {
    reloads: Arc<Reloads>,
    path: PathBuf,
    /// What the file held when it was taken last; it is not known at the start, when it may have changed since it was read.
    used: Option<Content>,
    /// Another content, and when it is time to read it.
    seen: Option<(Content, Instant)>,
    /// Why it was refused, as it was said.
    refused: Option<String>,
}

impl Following {
    /// By SIGHUP: whoever asks is answered at once, whatever is in the file.
    async fn asked(&mut self) {
        tracing::info!(file = %self.path.display(), "SIGHUP: the configuration is read again");
        self.refused = None;
        let content = self.content().await;
        if !self.read(content).await {
            tracing::info!("nothing is another than before");
        }
    }

    /// Whether the file is another one, and has been for two looks.
    async fn look(&mut self) {
        let content = self.content().await;
        if self.used.as_ref() == Some(&content) {
            self.seen = None;
            if self.refused.take().is_some() {
                self.reloads.mended();
            }
            return;
        }
        match &self.seen {
            Some((seen, due)) if *seen == content => {
                if *due <= Instant::now() {
                    self.read(content).await;
                }
            }
            // At the start it is the one that was read just now, most times.
            None if self.used.is_none() && self.is_in_force(&content).await => self.used = Some(content),
            _ => {
                let jitter = self.reloads.jitter().await;
                self.seen = Some((content, Instant::now() + shortened(jitter, jitter)));
            }
        }
    }

    async fn is_in_force(&self, content: &Content) -> bool {
        match self.parse(content.clone()).await {
            Ok(read) => self.reloads.goes_by(&read.config).await,
            Err(_) => false,
        }
    }

    async fn content(&self) -> Content {
        let path = self.path.clone();
        let read = self.reloads.disk().run(move || std::fs::read(path).map_err(|error| error.kind()));
        read.await.unwrap_or(Err(std::io::ErrorKind::Other))
    }

    /// Reads it and goes by it: false where that changes nothing. `content` is what it held a moment ago. What is refused is read again
    /// at each look, because the files that it names may come later, and said once.
    async fn read(&mut self, content: Content) -> bool {
        match self.resolve(content.clone()).await {
            Ok((Taken { changed, left }, warnings)) => {
                (self.used, self.seen, self.refused) = (Some(content), None, None);
                for change in &changed {
                    tracing::info!("the configuration has changed: {change}");
                }
                for stays in &left {
                    tracing::warn!("taken at the start alone, and left as it is: {stays}");
                }
                if !changed.is_empty() {
                    warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
                }
                !changed.is_empty() || !left.is_empty()
            }
            Err(error) => {
                let why = format!("{error:#}");
                if self.refused.as_ref() != Some(&why) {
                    self.reloads.refuse(&why);
                    self.refused = Some(why);
                }
                true
            }
        }
    }

    /// Just what was seen, whatever the file holds by now.
    async fn resolve(&self, content: Content) -> anyhow::Result<(Taken, Vec<String>)> {
        let Resolved { config, warnings } = self.parse(content).await?;
        Ok((self.reloads.take(&config).await?, warnings))
    }

    async fn parse(&self, content: Content) -> anyhow::Result<Resolved> {
        let path = self.path.clone();
        let text =
            String::from_utf8(content.map_err(std::io::Error::from).with_context(|| path.display().to_string())?)
                .with_context(|| format!("{} is no text", path.display()))?;
        let base = path.parent().map(Path::to_owned).unwrap_or_default();
        // It looks for the files that are named.
        let read = move || Config::read(&path.display().to_string(), &text, &base, &Overlay::of_process());
        Ok(self.reloads.disk().run(read).await??)
    }
}
