//! Reads the golden conversations of `tests/golden/`: what real nodes said, byte for byte. The README there says how the
//! files look and how they are made. Nothing here knows CQL; a test that wants meaning asks `cqlgate::cql`.
//!
//! For tests only: a file that cannot be read is a panic that names file and line.
#![allow(dead_code, clippy::expect_used)]

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Who wrote the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Client,
    Node,
}

/// One frame, or one v5 segment.
#[derive(Clone, Debug)]
pub struct Exchange {
    pub from: Side,
    /// What it means, decompressed: `RESULT Rows global, 2 rows`.
    pub comment: String,
    pub bytes: Vec<u8>,
}

/// A node of the ring that was recorded.
#[derive(Clone, Debug)]
pub struct GoldenNode {
    pub number: usize,
    /// A UUID as text.
    pub host_id: String,
    pub address: SocketAddr,
    pub dc: String,
    pub rack: String,
    pub tokens: Vec<String>,
}

/// One connection from its first byte to its last.
#[derive(Clone, Debug)]
pub struct Conversation {
    /// `5.0/system-v4-lz4`.
    pub name: String,
    /// Of the server: `5.0.9`.
    pub cassandra: String,
    /// The protocol version of the client's frames: `4`.
    pub version: u8,
    /// `none`, `lz4` or `snappy`.
    pub compression: String,
    pub nodes: Vec<GoldenNode>,
    /// The `number` of the node that was connected to.
    pub connected: usize,
    pub exchanges: Vec<Exchange>,
    /// The recording goes on until the node closed.
    pub closed_by_node: bool,
}

impl Conversation {
    /// All bytes of one side, in order.
    pub fn stream(&self, from: Side) -> Vec<u8> {
        self.exchanges.iter().filter(|e| e.from == from).flat_map(|e| e.bytes.iter().copied()).collect()
    }

    pub fn connected_node(&self) -> &GoldenNode {
        let wanted = self.connected;
        self.nodes.iter().find(|n| n.number == wanted).expect("the connected node is listed")
    }
}

/// Every conversation, sorted by name.
pub fn all() -> Vec<Conversation> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut files: Vec<PathBuf> = Vec::new();
    for release in fs::read_dir(&root).expect("tests/golden is there").flatten().filter(|e| e.path().is_dir()) {
        files.extend(fs::read_dir(release.path()).expect("a readable folder").flatten().map(|e| e.path()));
    }
    files.retain(|file| file.extension().is_some_and(|e| e == "txt"));
    files.sort();
    files.iter().map(|file| read(file)).collect()
}

/// The conversation of that name, `5.0/system-v4-lz4`.
pub fn named(name: &str) -> Conversation {
    read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(format!("{name}.txt")))
}

fn read(file: &Path) -> Conversation {
    let text = fs::read_to_string(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    let release = file.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy();
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    let mut out = Conversation {
        name: format!("{release}/{stem}"),
        cassandra: String::new(),
        version: 0,
        compression: String::new(),
        nodes: Vec::new(),
        connected: 0,
        exchanges: Vec::new(),
        closed_by_node: false,
    };
    for (number, line) in text.lines().enumerate() {
        let bad = || -> ! { panic!("{}:{}: {line}", file.display(), number + 1) };
        let (mark, rest) = line.split_at_checked(2).unwrap_or((line, ""));
        match mark {
            "" => {}
            "# " => header(&mut out, rest).unwrap_or_else(|| bad()),
            "> " | "< " => out.exchanges.push(Exchange {
                from: if mark == "> " { Side::Client } else { Side::Node },
                comment: rest.to_owned(),
                bytes: Vec::new(),
            }),
            ". " => out.closed_by_node = rest == "closed by the node",
            _ => {
                let Some(exchange) = out.exchanges.last_mut() else { bad() };
                for word in line.split(' ') {
                    let (byte, run) = word.split_once('*').unwrap_or((word, "1"));
                    let (Ok(byte), Ok(run)) = (u8::from_str_radix(byte, 16), run.parse()) else { bad() };
                    exchange.bytes.extend(std::iter::repeat_n(byte, run));
                }
            }
        }
    }
    out
}

fn header(out: &mut Conversation, line: &str) -> Option<()> {
    // The first line is a sentence, not a key.
    let Some((key, text)) = line.split_once(": ") else { return Some(()) };
    match key {
        "cassandra" => out.cassandra = text.to_owned(),
        "version" => out.version = text.strip_prefix('v')?.parse().ok()?,
        "compression" => out.compression = text.to_owned(),
        "connected to" => out.connected = text.strip_prefix("node ")?.parse().ok()?,
        "node" => {
            let mut words = text.split(' ');
            out.nodes.push(GoldenNode {
                number: words.next()?.parse().ok()?,
                host_id: words.next()?.to_owned(),
                address: words.next()?.parse().ok()?,
                dc: words.next()?.to_owned(),
                rack: words.next()?.to_owned(),
                tokens: words.next()?.split(',').map(str::to_owned).collect(),
            });
        }
        _ => {}
    }
    Some(())
}
