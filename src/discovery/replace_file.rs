//! Files that the gateway keeps for its next start: read up to a limit, written whole beside the old one and renamed over it.

use std::fs;
use std::io::{self, Read, Write};
use std::path::Path;

/// The text of a file of at most `limit` bytes.
pub fn read_limited(path: &Path, limit: u64) -> io::Result<String> {
    let mut text = String::new();
    fs::File::open(path)?.take(limit + 1).read_to_string(&mut text)?;
    if text.len() as u64 > limit {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("longer than {limit} bytes")));
    }
    Ok(text)
}

/// Whoever reads the file finds the old text or the new one, also after a crash.
pub fn replace_file(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    let mut file = fs::File::create(&new)?;
    file.write_all(text)?;
    file.sync_all()?;
    fs::rename(&new, path)
}
