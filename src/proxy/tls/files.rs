//! Certificates, keys and CAs that follow their files: what is new counts from the next handshake on, and what cannot be used changes
//! nothing.
//!
//! Files are looked at by content, so that it does not matter how they come to be others: written in place, renamed over, or behind
//! Kubernetes' symbolic links. A certificate and its key are two files: between the two writes they do not fit, and only what is wrong
//! twice in a row is said. Who has a session of before begins anew: tickets are of the configuration under which they were issued.

use std::future::pending;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc;
use tokio::time::sleep;
use tracing::{error, info, warn};

use super::pem::{self, TlsError};
use super::shown::Shown;
use super::{ClientAcceptor, NodeConnector};
use crate::config::{ClientTls, NodeTls};
use crate::disk::Disk;
use crate::label::{Label, label_set};
use crate::metrics::Metrics;

/// Between two looks at the files: Kubernetes brings a changed Secret a minute late.
const LOOK: Duration = Duration::from_secs(1);
/// So long before a certificate ends it is time to say so.
const SOON: Duration = Duration::from_secs(7 * 24 * 60 * 60);

label_set! {
    /// Whose files they are: what clients see, or what nodes do.
    pub enum Side { Clients = "clients", Nodes = "nodes", }
}

label_set! {
    /// What became of files that changed.
    pub enum Outcome {
        Taken = "taken",
        /// They cannot be used: what was there before goes on.
        Refused = "refused",
    }
}

/// Unix times in seconds, of the first that ends of each.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Ends {
    certificate: Option<i64>,
    revocations: Option<i64>,
}

type Reload = Box<dyn Fn() -> Result<(), TlsError> + Send>;

/// The files of one side.
pub struct Followed {
    side: Side,
    paths: Vec<PathBuf>,
    certificates: Vec<PathBuf>,
    /// Lists of what is revoked.
    revocations: Option<PathBuf>,
    reload: Reload,
    seed: RandomState,
    /// What they held when they were used last, and when they could not be.
    used: u64,
    bad: Option<(u64, bool)>,
    /// When that ends which is used.
    ends: Ends,
}

/// What a look at them found.
#[derive(Debug, PartialEq)]
pub enum Look {
    Same,
    Taken,
    /// For the first time: it may be half of a change.
    Doubted,
    Refused(TlsError),
}

impl Followed {
    /// What clients see: reads the files for the first time, too.
    ///
    /// # Errors
    /// Names the file and what is wrong with it.
    pub fn clients(tls: &ClientTls) -> Result<(Self, ClientAcceptor), TlsError> {
        let auth = &tls.client_auth;
        let others = [&tls.key].into_iter().chain(&auth.ca).chain(&auth.crl);
        let (certificates, revocations, owned) = (vec![tls.certificate.clone()], auth.crl.clone(), tls.clone());
        let open = || ClientAcceptor::from_config(tls);
        let reload = move |acceptor: &ClientAcceptor| acceptor.reload(&owned);
        Self::opened(Side::Clients, certificates, others, revocations, open, reload)
    }

    /// What nodes see, and by what they are verified.
    ///
    /// # Errors
    /// Names the file and what is wrong with it.
    pub fn nodes(tls: &NodeTls) -> Result<(Self, NodeConnector), TlsError> {
        let identities = tls.identities.iter();
        let others = tls.ca.iter().chain(&tls.key).chain(identities.clone().map(|identity| &identity.key));
        let certificates = tls.certificate.iter().chain(identities.map(|identity| &identity.certificate));
        let (certificates, owned) = (certificates.cloned().collect(), tls.clone());
        let open = || NodeConnector::from_config(tls);
        let reload = move |connector: &NodeConnector| connector.reload(&owned);
        Self::opened(Side::Nodes, certificates, others, None, open, reload)
    }

    fn opened<'a, Tls: Clone + Send + 'static>(
        side: Side,
        certificates: Vec<PathBuf>,
        others: impl Iterator<Item = &'a PathBuf>,
        revocations: Option<PathBuf>,
        open: impl FnOnce() -> Result<Tls, TlsError>,
        reload: impl Fn(&Tls) -> Result<(), TlsError> + Send + 'static,
    ) -> Result<(Self, Tls), TlsError> {
        let paths: Vec<PathBuf> = certificates.iter().cloned().chain(others.cloned()).collect();
        // Before they are used: what changes meanwhile is news at the first look.
        let seed = RandomState::new();
        let used = content(&seed, &paths);
        let opened = open()?;
        let ends = ends(&certificates, revocations.as_deref());
        let reload: Reload = Box::new({
            let opened = opened.clone();
            move || reload(&opened)
        });
        Ok((Self { side, paths, certificates, revocations, reload, seed, used, bad: None, ends }, opened))
    }

    /// Takes what the files hold, if that is not what is used already. Blocks.
    pub fn look(&mut self) -> Look {
        let now = content(&self.seed, &self.paths);
        if now == self.used {
            self.bad = None;
            return Look::Same;
        }
        match self.bad {
            Some((bad, true)) if bad == now => return Look::Same,
            _ => {}
        }
        match (self.reload)() {
            Ok(()) => {
                (self.used, self.bad, self.ends) = (now, None, ends(&self.certificates, self.revocations.as_deref()));
                Look::Taken
            }
            Err(error) => {
                let twice = self.bad.is_some_and(|(bad, _)| bad == now);
                self.bad = Some((now, twice));
                if twice { Look::Refused(error) } else { Look::Doubted }
            }
        }
    }

    fn tell(&self, look: Look, metrics: &Metrics) {
        let side = self.side.label();
        match look {
            Look::Same | Look::Doubted => {}
            Look::Taken => {
                metrics.tls_reloaded(self.side, Outcome::Taken);
                info!(side, "certificates have changed and are used from now on");
                self.tell_ends(metrics);
            }
            Look::Refused(error) => {
                metrics.tls_reloaded(self.side, Outcome::Refused);
                error!(side, %error, "certificates have changed and cannot be used; those of before go on");
            }
        }
    }

    /// When that ends which is used: the metrics, and a line where it is time.
    pub fn tell_ends(&self, metrics: &Metrics) {
        let side = self.side.label();
        if let Some(end) = self.ends.certificate {
            metrics.set_tls_expiry(self.side, end);
            if let Some(hours) = hours_until(end) {
                warn!(side, hours, "a certificate ends soon, or has ended");
            }
        }
        if let Some(end) = self.ends.revocations {
            metrics.set_revocations_expiry(end);
            if let Some(hours) = hours_until(end) {
                warn!(side, hours, "the list of what is revoked is too old soon, or is already");
            }
        }
    }
}

/// When that ends which is in the files.
fn ends(certificates: &[PathBuf], revocations: Option<&Path>) -> Ends {
    Ends {
        certificate: certificates.iter().filter_map(|path| Some(Shown::read(path).ok()?.ends)).min(),
        revocations: revocations.and_then(pem::revocations_end),
    }
}

/// How long that is, where it is soon or over.
fn hours_until(end: i64) -> Option<i64> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let left = end.saturating_sub(i64::try_from(now.as_secs()).unwrap_or(i64::MAX));
    (left < i64::try_from(SOON.as_secs()).unwrap_or(i64::MAX)).then_some(left / 3600)
}

/// Follows all of these for ever; a side that is told of anew takes the place of what it had before.
pub async fn follow(
    mut all: Vec<Followed>,
    mut others: mpsc::Receiver<(Side, Option<Followed>)>,
    disk: Disk,
    metrics: Arc<Metrics>,
) {
    loop {
        tokio::select! {
            () = sleep(LOOK), if !all.is_empty() => {}
            Some((side, files)) = others.recv() => {
                all.retain(|followed| followed.side != side);
                all.extend(files);
                continue;
            }
            else => return pending().await,
        }
        let looked = disk.run(move || {
            let looks: Vec<_> = all.iter_mut().map(Followed::look).collect();
            (all, looks)
        });
        let Ok((back, looks)) = looked.await else { return };
        all = back;
        for (followed, look) in all.iter().zip(looks) {
            followed.tell(look, &metrics);
        }
    }
}

/// Of all of them together; what cannot be read counts as its error.
fn content(seed: &RandomState, paths: &[PathBuf]) -> u64 {
    let mut hasher = seed.build_hasher();
    for path in paths {
        read(path).hash(&mut hasher);
    }
    hasher.finish()
}

fn read(path: &Path) -> Result<Vec<u8>, io::ErrorKind> {
    std::fs::read(path).map_err(|error| error.kind())
}

#[cfg(test)]
pub(super) mod tests;
