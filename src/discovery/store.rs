//! The state file while the gateway runs: written beside what goes on, and waited for only where a port is new.
//!
//! A port is kept before it is told, so that no restart gives it to another node. Nothing else waits for a disk, least of all
//! a node's death; and a disk that fails or hangs is no reason to keep a new node from clients.

use std::future::pending;
use std::io;
use std::time::Duration;

use tokio::task::{JoinError, JoinHandle, spawn_blocking};
use tokio::time::{Instant, timeout_at};
use tracing::error;

use super::state_file::StateFile;
use crate::topology::ports::Claims;

/// How long a disk may take before a new port is told all the same.
const PATIENCE: Duration = Duration::from_secs(2);

type Written = (StateFile, io::Result<()>);

/// The file, and whether it was said that it cannot be written.
pub struct Store {
    /// Not here while it is being written.
    file: Option<StateFile>,
    writing: Option<JoinHandle<Written>>,
    /// What the file holds, as far as anyone knows.
    kept: Claims,
    /// The present write takes longer than anyone waits.
    hangs: bool,
    failing: bool,
}

impl Store {
    pub fn new(file: StateFile) -> Self {
        let kept = file.claims().clone();
        Self { file: Some(file), writing: None, kept, hangs: false, failing: false }
    }

    /// Has `claims` written if the file holds others, and waits until every port among them is kept.
    pub async fn save(&mut self, claims: &Claims) {
        let deadline = Instant::now() + PATIENCE;
        while self.kept != *claims {
            if self.writing.is_none() {
                self.writing = self.file.take().map(|file| write(file, claims.clone()));
            }
            let waits = !self.hangs && has_new_ports(claims, &self.kept);
            let Some(writing) = self.writing.as_mut().filter(|_| waits) else { return };
            match timeout_at(deadline, writing).await {
                Ok(written) => {
                    if !self.written(written) {
                        return;
                    }
                }
                Err(_) => {
                    self.hangs = true;
                    self.complain(&format!("the disk has not answered for {PATIENCE:?}"));
                }
            }
        }
    }

    /// Waits for the end of what is being written, and says whether it is kept; for ever when that is nothing.
    pub async fn settled(&mut self) -> bool {
        match &mut self.writing {
            Some(writing) => {
                let written = writing.await;
                self.written(written)
            }
            None => pending().await,
        }
    }

    /// True when the file holds what was to be written.
    fn written(&mut self, written: Result<Written, JoinError>) -> bool {
        (self.writing, self.hangs) = (None, false);
        let written = match written {
            Ok((file, written)) => {
                self.kept.clone_from(file.claims());
                self.file = Some(file);
                written
            }
            Err(error) => Err(io::Error::other(error)),
        };
        match written {
            Ok(()) => self.failing = false,
            Err(error) => self.complain(&error.to_string()),
        }
        !self.failing
    }

    fn complain(&mut self, error: &str) {
        if !std::mem::replace(&mut self.failing, true) {
            error!(error, "ports are not kept: after a restart nodes may have others");
        }
    }
}

fn write(mut file: StateFile, claims: Claims) -> JoinHandle<Written> {
    spawn_blocking(move || {
        let written = file.save(&claims).map_err(io::Error::other);
        (file, written)
    })
}

fn has_new_ports(claims: &Claims, kept: &Claims) -> bool {
    claims.iter().any(|(id, claim)| kept.get(id).is_none_or(|kept| kept.port != claim.port))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, OpenOptions};
    use std::path::{Path, PathBuf};
    use std::process::Command;
    use std::time::SystemTime;

    use tokio::time::timeout;

    use crate::topology::NodeId;
    use crate::topology::ports::Claim;

    use super::*;

    /// A disk that hangs: whoever opens the new file waits for a reader that does not come.
    struct Hanging(PathBuf);

    impl Hanging {
        fn beside(path: &Path) -> Self {
            let pipe = path.with_extension("json.new");
            assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
            Self(pipe)
        }
    }

    impl Drop for Hanging {
        fn drop(&mut self) {
            // Opened for both, a pipe waits for nobody, and lets go those who do.
            let pipe = OpenOptions::new().read(true).write(true).open(&self.0);
            let _ = fs::remove_file(&self.0);
            drop(pipe);
        }
    }

    fn claims(nodes: &[(&str, u16, bool)]) -> Claims {
        let claim = |&(id, port, left): &(&str, u16, bool)| {
            (NodeId::new(id), Claim { port, left: left.then_some(SystemTime::UNIX_EPOCH) })
        };
        nodes.iter().map(claim).collect()
    }

    fn on_disk(path: &Path) -> Claims {
        StateFile::open(path).unwrap().claims().clone()
    }

    #[tokio::test]
    async fn a_new_port_is_kept_before_it_is_told_and_what_is_not_new_waits_for_no_disk() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ports.json");
        let mut store = Store::new(StateFile::open(&path).unwrap());
        let one = claims(&[("a", 9042, false)]);
        store.save(&one).await;
        assert_eq!(on_disk(&path), one);

        let disk = Hanging::beside(&path);
        let (left, two) = (claims(&[("a", 9042, true)]), claims(&[("a", 9042, true), ("b", 9043, false)]));
        // Nothing is there to be waited for: one poll is enough.
        tokio::select! {
            biased;
            () = store.save(&left) => {}
            () = std::future::ready(()) => panic!("a node that leaves waits for the disk"),
        }
        let three = claims(&[("c", 9044, false)]);
        let asked = Instant::now();
        store.save(&two).await;
        assert!(asked.elapsed() >= PATIENCE, "a new port waits while there is hope");
        tokio::select! {
            biased;
            () = store.save(&three) => {}
            () = std::future::ready(()) => panic!("a disk that hangs is waited for twice"),
        }

        drop(disk);
        assert!(!timeout(Duration::from_secs(20), store.settled()).await.unwrap(), "no file was written");
        store.save(&two).await;
        assert_eq!(on_disk(&path), two);
        assert!(!store.failing && !store.hangs);
    }
}
