//! `discovery.kubernetes.snapshot_file`: who was found, and what clients are told, so that a gateway that starts while the API
//! is away serves what its forerunner served. Read only then; a file that cannot be read is as good as none.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::Instant;
use tracing::{info, warn};

use crate::config::External;
use crate::topology::input::Listed;
use crate::topology::paths::Learned;
use crate::topology::{Advertised, NodeId, Paths};

use super::super::replace_file::{read_limited, replace_file};
use super::fold::Member;

/// How long the disk may take before that is said.
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
    /// Of files that an earlier version wrote: what was known of the only address.
    #[serde(default, skip_serializing)]
    advertised_ipv4: Option<Ipv4Addr>,
    #[serde(default, skip_serializing)]
    advertised_ipv6: Option<Ipv6Addr>,
    #[serde(default)]
    advertised: Vec<SavedAddress>,
    pods: Vec<SavedPod>,
}

/// What was known of an address that clients are told: exactly one of service and name.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct SavedAddress {
    service: Option<String>,
    name: Option<String>,
    ipv4: Option<Ipv4Addr>,
    ipv6: Option<Ipv6Addr>,
    ports: BTreeMap<u16, u16>,
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

impl SavedAddress {
    fn of((external, learned): (&External, &Learned)) -> Option<Self> {
        let (service, name) = match external {
            External::Service(service) => (Some(service.clone()), None),
            External::Name(name) => (None, Some(name.clone())),
            External::Addresses { .. } => return None,
        };
        let Advertised { ipv4, ipv6 } = learned.advertised;
        learned.advertised.is_known().then(|| Self { service, name, ipv4, ipv6, ports: learned.ports.clone() })
    }

    fn known(self) -> Option<(External, Learned)> {
        let external = self.service.map(External::Service).or(self.name.map(External::Name))?;
        Some((external, Learned { advertised: Advertised { ipv4: self.ipv4, ipv6: self.ipv6 }, ports: self.ports }))
    }
}

/// What was known of addresses that clients are told.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Known {
    /// An earlier version did not say of which.
    only: Option<Advertised>,
    each: Vec<(External, Learned)>,
}

impl Known {
    /// What is not known by now.
    pub fn news(self, paths: &Paths) -> Vec<(External, Learned)> {
        let unknown: Vec<_> =
            paths.learned().iter().filter(|(_, learned)| !learned.advertised.is_known()).map(|(of, _)| of).collect();
        let of_only = match (self.only, unknown.as_slice()) {
            (Some(advertised), [external]) => Some(((*external).clone(), Learned { advertised, ..Learned::default() })),
            _ => None,
        };
        self.each.into_iter().filter(|(external, _)| unknown.contains(&external)).chain(of_only).collect()
    }
}

/// One pod as it is kept: with its port.
pub type Saved = (NodeId, Member, u16);

/// The file, and what it holds.
pub struct Snapshot {
    path: PathBuf,
    service: String,
    written: Option<(Vec<SavedPod>, Vec<SavedAddress>)>,
    writing: Option<Writing>,
    failing: bool,
}

/// What is on its way to the disk, beside what goes on: nobody waits for it.
struct Writing {
    task: JoinHandle<io::Result<()>>,
    what: (Vec<SavedPod>, Vec<SavedAddress>),
    since: Instant,
}

impl Snapshot {
    pub fn new(path: &Path, namespace: &str, service: &str) -> Self {
        let service = format!("{namespace}/{service}");
        Self { path: path.to_owned(), service, written: None, writing: None, failing: false }
    }

    /// What an earlier process left.
    pub async fn read(&self) -> Option<(Vec<Saved>, Known)> {
        let (path, service) = (self.path.clone(), self.service.clone());
        let contents = spawn_blocking(move || parse(&path, &service)).await;
        let contents = match contents.unwrap_or_else(|error| Err(error.to_string())) {
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
                listed: if pod.present { Listed::Here } else { Listed::Away },
                confirmed: true,
                leaving: false,
                hostname: pod.hostname.map(Arc::from),
                zone: None,
            };
            (NodeId::new(&pod.name), member, pod.port)
        });
        let (ipv4, ipv6) = (contents.advertised_ipv4, contents.advertised_ipv6);
        let only = Some(Advertised { ipv4, ipv6 }).filter(Advertised::is_known);
        let each = contents.advertised.into_iter().filter_map(SavedAddress::known).collect();
        Some((saved.collect(), Known { only, each }))
    }

    /// Has written what is known, if the file holds something else and nothing is being written: what is left out now is written
    /// another time. A disk that fails is said once.
    pub async fn save(&mut self, pods: Vec<Saved>, paths: &Paths) {
        self.settle().await;
        if self.writing.is_some() {
            return;
        }
        let pods: Vec<SavedPod> = pods
            .into_iter()
            .map(|(id, member, port)| SavedPod {
                name: id.to_string(),
                stateful_set: member.stateful_set.to_string(),
                ordinal: member.ordinal,
                address: member.address,
                hostname: member.hostname.as_deref().map(str::to_owned),
                port,
                present: member.is_present(),
            })
            .collect();
        let advertised: Vec<_> = paths.learned().iter().filter_map(SavedAddress::of).collect();
        if self.written.as_ref().is_some_and(|written| written.0 == pods && written.1 == advertised) {
            return;
        }
        let contents = Contents {
            version: VERSION,
            saved: Timestamp::try_from(SystemTime::now()).map(|at| at.to_string()).unwrap_or_default(),
            service: self.service.clone(),
            advertised_ipv4: None,
            advertised_ipv6: None,
            advertised: advertised.clone(),
            pods,
        };
        let path = self.path.clone();
        let text = serde_json::to_string_pretty(&contents).map_err(io::Error::from);
        let task = spawn_blocking(move || replace_file(&path, format!("{}\n", text?).as_bytes()));
        self.writing = Some(Writing { task, what: (contents.pods, advertised), since: Instant::now() });
    }

    /// Takes in how the last write ended, if it has.
    async fn settle(&mut self) {
        let Some(writing) = self.writing.take_if(|writing| writing.task.is_finished()) else {
            if self.writing.as_ref().is_some_and(|writing| writing.since.elapsed() >= DISK_PATIENCE) {
                self.complain(&io::ErrorKind::TimedOut.into());
            }
            return;
        };
        match writing.task.await.unwrap_or_else(|error| Err(io::Error::other(error))) {
            Ok(()) => {
                self.written = Some(writing.what);
                self.failing = false;
            }
            Err(error) => self.complain(&error),
        }
    }

    fn complain(&mut self, error: &io::Error) {
        if !std::mem::replace(&mut self.failing, true) {
            warn!(path = %self.path.display(), %error, "the snapshot is not written: a start while the API is away would know nothing");
        }
    }
}

fn parse(path: &Path, service: &str) -> Result<Contents, String> {
    let text = read_limited(path, MAX_LEN).map_err(|error| error.to_string())?;
    let contents: Contents = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    if contents.version != VERSION {
        return Err(format!("version {}, this gateway knows {VERSION}", contents.version));
    }
    if contents.service != service {
        return Err(format!("it is of Service {}, not of {service}", contents.service));
    }
    Ok(contents)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn saved(name: &str, present: bool) -> Saved {
        let member = Member {
            stateful_set: "cassandra".into(),
            ordinal: 0,
            address: "10.1.0.1:9042".parse().unwrap(),
            listed: if present { Listed::Here } else { Listed::Away },
            confirmed: true,
            leaving: false,
            hostname: Some(name.into()),
            zone: None,
        };
        (NodeId::new(name), member, 9042)
    }

    #[tokio::test]
    async fn what_was_saved_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("snapshot.json");
        let external = External::Service("gate".to_owned());
        let advertised = Advertised { ipv4: Some("203.0.113.10".parse().unwrap()), ipv6: None };
        let learned = Learned { advertised, ports: BTreeMap::from([(9042, 19042)]) };
        let plan = crate::config::advertise::Path::everywhere(external.clone());
        let unknown = Paths::of(&plan, &BTreeMap::new(), &Paths::default());
        let paths = Paths::of(&plan, &BTreeMap::from([(external.clone(), learned.clone())]), &unknown);
        let pods = vec![saved("cassandra-0", true), saved("cassandra-1", false)];
        let mut snapshot = Snapshot::new(&path, "db", "cassandra");
        assert_eq!(snapshot.read().await, None);
        snapshot.save(pods.clone(), &paths).await;
        (&mut snapshot.writing.as_mut().unwrap().task).await.unwrap().unwrap();
        let (read, known) = Snapshot::new(&path, "db", "cassandra").read().await.unwrap();
        assert_eq!(read, pods);
        assert_eq!(known.clone().news(&paths), [], "it is known already");
        assert_eq!(known.news(&unknown), [(external.clone(), learned)]);
        // As 0.1.0 wrote it.
        let text = std::fs::read_to_string(&path).unwrap();
        let at = text.find("\"advertised\"").unwrap();
        let end = at + text[at..].find(']').unwrap() + 1;
        let former = "\"advertised_ipv4\": \"203.0.113.10\", \"advertised_ipv6\": null";
        std::fs::write(&path, [&text[..at], former, &text[end..]].concat()).unwrap();
        let (_, known) = Snapshot::new(&path, "db", "cassandra").read().await.unwrap();
        assert_eq!(known.news(&unknown), [(external, Learned { advertised, ..Learned::default() })]);
        assert_eq!(Snapshot::new(&path, "other", "cassandra").read().await, None);
    }

    #[tokio::test]
    async fn a_damaged_file_is_as_good_as_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("snapshot.json");
        for text in ["", "{", r#"{"version":2}"#, "\u{0}"] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(Snapshot::new(&path, "db", "cassandra").read().await, None, "{text:?}");
        }
    }
}
