//! `discovery.kubernetes.snapshot_file`: who was found, and what clients are told, so that a gateway that starts while the API
//! is away serves what its forerunner served. Read only then; a file that cannot be read is as good as none.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tracing::{info, warn};

use crate::topology::{Advertised, NodeId};

use super::super::replace_file::{read_limited, replace_file};
use super::fold::Member;

/// How long the disk may take.
const DISK_PATIENCE: Duration = Duration::from_secs(2);

const VERSION: u32 = 1;
/// Longest file, in bytes: room for 20,000 pods.
const MAX_LEN: u64 = 8 * 1024 * 1024;

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Contents {
    version: u32,
    /// RFC 3339.
    saved: String,
    /// Whose pods these are: `namespace/service`.
    service: String,
    advertised_ipv4: Option<Ipv4Addr>,
    advertised_ipv6: Option<Ipv6Addr>,
    pods: Vec<SavedPod>,
}

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct SavedPod {
    name: String,
    stateful_set: String,
    ordinal: u32,
    address: SocketAddr,
    hostname: Option<String>,
    /// The port of the external address.
    port: u16,
    present: bool,
}

/// One pod as it is kept: with its port.
pub type Saved = (NodeId, Member, u16);

/// The file, and what it holds.
pub struct Snapshot {
    path: PathBuf,
    service: String,
    written: Option<(Vec<SavedPod>, Advertised)>,
    failing: bool,
}

impl Snapshot {
    pub fn new(path: &Path, namespace: &str, service: &str) -> Self {
        Self { path: path.to_owned(), service: format!("{namespace}/{service}"), written: None, failing: false }
    }

    /// What an earlier process left.
    pub fn read(&self) -> Option<(Vec<Saved>, Advertised)> {
        let contents = match self.parse() {
            Ok(contents) => contents,
            Err(text) => {
                warn!(path = %self.path.display(), "no snapshot to start from: {text}");
                return None;
            }
        };
        info!(path = %self.path.display(), saved = contents.saved, pods = contents.pods.len(), "the API is away; starting from the snapshot");
        let saved = contents.pods.into_iter().map(|pod| {
            let member = Member {
                stateful_set: pod.stateful_set.into(),
                ordinal: pod.ordinal,
                address: pod.address,
                present: pod.present,
                hostname: pod.hostname.map(Arc::from),
                zone: None,
            };
            (NodeId::new(&pod.name), member, pod.port)
        });
        Some((saved.collect(), Advertised { ipv4: contents.advertised_ipv4, ipv6: contents.advertised_ipv6 }))
    }

    fn parse(&self) -> Result<Contents, String> {
        let text = read_limited(&self.path, MAX_LEN).map_err(|error| error.to_string())?;
        let contents: Contents = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        if contents.version != VERSION {
            return Err(format!("version {}, this gateway knows {VERSION}", contents.version));
        }
        if contents.service != self.service {
            return Err(format!("it is of Service {}, not of {}", contents.service, self.service));
        }
        Ok(contents)
    }

    /// Writes what is known, if the file holds something else. A disk that fails is said once.
    pub async fn save(&mut self, pods: impl Iterator<Item = Saved>, advertised: Advertised) {
        let pods: Vec<SavedPod> = pods
            .map(|(id, member, port)| SavedPod {
                name: id.to_string(),
                stateful_set: member.stateful_set.to_string(),
                ordinal: member.ordinal,
                address: member.address,
                hostname: member.hostname.as_deref().map(str::to_owned),
                port,
                present: member.present,
            })
            .collect();
        if self.written.as_ref().is_some_and(|written| written.0 == pods && written.1 == advertised) {
            return;
        }
        let contents = Contents {
            version: VERSION,
            saved: Timestamp::try_from(SystemTime::now()).map(|at| at.to_string()).unwrap_or_default(),
            service: self.service.clone(),
            advertised_ipv4: advertised.ipv4,
            advertised_ipv6: advertised.ipv6,
            pods,
        };
        let text = serde_json::to_string_pretty(&contents).map_err(std::io::Error::from);
        let saved = match text {
            Ok(text) => {
                let path = self.path.clone();
                let written = spawn_blocking(move || replace_file(&path, format!("{text}\n").as_bytes()));
                // A disk that hangs does not keep discovery waiting.
                match timeout(DISK_PATIENCE, written).await {
                    Ok(written) => written.unwrap_or_else(|error| Err(std::io::Error::other(error))),
                    Err(_) => Err(std::io::ErrorKind::TimedOut.into()),
                }
            }
            Err(error) => Err(error),
        };
        match saved {
            Ok(()) => {
                self.written = Some((contents.pods, advertised));
                self.failing = false;
            }
            Err(error) if !std::mem::replace(&mut self.failing, true) => {
                warn!(path = %self.path.display(), %error, "the snapshot is not written: a start while the API is away would know nothing");
            }
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn saved(name: &str, present: bool) -> Saved {
        let member = Member {
            stateful_set: "cassandra".into(),
            ordinal: 0,
            address: "10.1.0.1:9042".parse().unwrap(),
            present,
            hostname: Some(name.into()),
            zone: None,
        };
        (NodeId::new(name), member, 9042)
    }

    #[tokio::test]
    async fn what_was_saved_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("snapshot.json");
        let advertised = Advertised { ipv4: Some("203.0.113.10".parse().unwrap()), ipv6: None };
        let pods = vec![saved("cassandra-0", true), saved("cassandra-1", false)];
        let mut snapshot = Snapshot::new(&path, "db", "cassandra");
        assert_eq!(snapshot.read(), None);
        snapshot.save(pods.clone().into_iter(), advertised).await;
        assert_eq!(Snapshot::new(&path, "db", "cassandra").read(), Some((pods, advertised)));
        assert_eq!(Snapshot::new(&path, "other", "cassandra").read(), None);
    }

    #[test]
    fn a_damaged_file_is_as_good_as_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("snapshot.json");
        for text in ["", "{", r#"{"version":2}"#, "\u{0}"] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(Snapshot::new(&path, "db", "cassandra").read(), None, "{text:?}");
        }
    }
}
