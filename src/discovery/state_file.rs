//! `discovery.state_file`: which node (by host_id) has which port, kept from one run to the next.
//!
//! Written whole to a file beside it and renamed over it, before the change is told to anyone. A file that cannot be read or
//! understood stops the start: ports given anew would make drivers take one node for another. An empty one, as `touch` makes it
//! where a container's mount wants a file to be there, holds no ports yet.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::claims;
use super::replace_file::{read_limited, replace_file};
use crate::topology::ports::Claims;

/// Longest file, in bytes: some 65,535 nodes, each of them 64.
const MAX_LEN: u64 = 8 * 1024 * 1024;

/// Why the file cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum StateFileError {
    #[error("discovery.state_file {path}: cannot be read: {kind}")]
    Read { path: PathBuf, kind: io::ErrorKind },
    #[error("discovery.state_file {path}: longer than {MAX_LEN} bytes")]
    TooLong { path: PathBuf },
    #[error("discovery.state_file {path}: {text}; repair it, or remove it to have ports given anew")]
    Malformed { path: PathBuf, text: String },
    #[error("discovery.state_file {path}: cannot be written: {kind}{}", remedy(*kind))]
    Write { path: PathBuf, kind: io::ErrorKind },
}

/// `rename(2)`: EBUSY where the file is a mount of its own.
fn remedy(kind: io::ErrorKind) -> &'static str {
    match kind {
        io::ErrorKind::ResourceBusy => "; a file that is mounted by itself cannot be replaced: mount its directory",
        _ => "",
    }
}

/// The file, and what it holds.
#[derive(Clone, Debug)]
pub struct StateFile {
    path: PathBuf,
    written: Claims,
}

impl StateFile {
    /// Reads the file; one that does not exist is empty.
    pub fn open(path: &Path) -> Result<Self, StateFileError> {
        let path = path.to_owned();
        let text = match read_limited(&path, MAX_LEN) {
            Ok(text) => text,
            Err(error) => match error.kind() {
                io::ErrorKind::NotFound => return Ok(Self { path, written: Claims::new() }),
                io::ErrorKind::FileTooLarge => return Err(StateFileError::TooLong { path }),
                kind => return Err(StateFileError::Read { path, kind }),
            },
        };
        if text.trim().is_empty() {
            return Ok(Self { path, written: Claims::new() });
        }
        match claims::parse(&text) {
            Ok(written) => Ok(Self { path, written }),
            Err(text) => Err(StateFileError::Malformed { path, text }),
        }
    }

    /// What the file holds.
    pub fn claims(&self) -> &Claims {
        &self.written
    }

    /// Writes `claims`, if they are not what the file holds already.
    pub fn save(&mut self, claims: &Claims) -> Result<(), StateFileError> {
        if *claims == self.written {
            return Ok(());
        }
        self.replace(claims).map_err(|error| StateFileError::Write { path: self.path.clone(), kind: error.kind() })?;
        self.written.clone_from(claims);
        Ok(())
    }

    fn replace(&self, claims: &Claims) -> io::Result<()> {
        replace_file(&self.path, claims::encode(claims)?.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::{Duration, SystemTime};

    use crate::topology::NodeId;
    use crate::topology::ports::Claim;

    use super::*;

    #[test]
    fn claims_come_back_from_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ports.json");
        let left = SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_123);
        let claims = Claims::from([
            (NodeId::new("a"), Claim { port: 9042, left: None }),
            (NodeId::new("b"), Claim { port: 9043, left: Some(left) }),
        ]);
        let mut file = StateFile::open(&path).unwrap();
        assert!(file.claims().is_empty());
        file.save(&claims).unwrap();
        assert_eq!(*StateFile::open(&path).unwrap().claims(), claims);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        // What is there already is not written again.
        fs::remove_file(&path).unwrap();
        file.save(&claims).unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn an_empty_file_holds_no_ports_yet() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for text in ["", "\n"] {
            fs::write(file.path(), text).unwrap();
            let mut state = StateFile::open(file.path()).unwrap();
            assert!(state.claims().is_empty());
            let claims = Claims::from([(NodeId::new("a"), Claim { port: 9042, left: None })]);
            state.save(&claims).unwrap();
            assert_eq!(*StateFile::open(file.path()).unwrap().claims(), claims);
        }
    }

    /// A mount needs privileges; what the kernel says of one does not.
    #[test]
    fn a_file_that_is_a_mount_of_its_own_is_told_what_to_mount() {
        let busy = io::Error::from_raw_os_error(16).kind();
        let error = StateFileError::Write { path: "/state/ports.json".into(), kind: busy }.to_string();
        assert!(error.ends_with("mounted by itself cannot be replaced: mount its directory"), "{error}");
    }

    #[test]
    fn a_bad_file_is_a_clear_error() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for (text, expected) in [
            ("{", "EOF while parsing"),
            ("{\"version\": 2, \"nodes\": {}}", "version 2, this gateway knows 1"),
            ("{\"version\": 1, \"nodes\": {\"a\": {\"port\": 70000}}}", "invalid value"),
            ("{\"version\": 1, \"nodes\": {\"a\": {\"port\": 1, \"left\": \"soon\"}}}", "nodes.a.left"),
        ] {
            fs::write(file.path(), text).unwrap();
            let error = StateFile::open(file.path()).unwrap_err().to_string();
            assert!(error.starts_with("discovery.state_file /") && error.contains(expected), "{error}");
        }
        let error = StateFile::open(Path::new("/dev/null/x")).unwrap_err();
        assert!(matches!(error, StateFileError::Read { .. }), "{error}");
        let mut nowhere = StateFile::open(Path::new("/nonexistent/ports.json")).unwrap();
        let error = nowhere.save(&Claims::from([(NodeId::new("a"), Claim { port: 1, left: None })])).unwrap_err();
        let kind = io::ErrorKind::NotFound;
        assert_eq!(error, StateFileError::Write { path: "/nonexistent/ports.json".into(), kind });
    }
}
