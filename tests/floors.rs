//! Who may import whom. Reads the `use` lines and the `crate::` paths of `src/**.rs` and compares them with the floors
//! drawn in `src/lib.rs`; and keeps a few crates in their homes.

#![allow(clippy::unwrap_used)] // helpers of tests

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// The modules of each floor, the lowest first. A module may import floors below its own, and on its own floor only what
/// [`BESIDE`] says.
const FLOORS: [&[&str]; 5] = [
    &["config", "disk", "label", "metrics", "readiness", "shutdown", "telemetry"],
    &["cql", "topology"],
    &["rewrite"],
    &["admin", "discovery", "proxy"],
    &["cli", "demo", "gateway", "main"],
];

/// Who may import whom on one floor. Nothing on floor 1: `cql` and `topology` do not know each other.
const BESIDE: [(&str, &str); 8] = [
    ("metrics", "label"),
    ("config", "telemetry"),
    ("telemetry", "config"),
    ("discovery", "proxy"),
    ("cli", "gateway"),
    ("cli", "demo"),
    ("demo", "gateway"),
    ("main", "cli"),
];

/// Words of the protocol, facts and meaning.
const PURE: [&str; 3] = ["cql", "topology", "rewrite"];

/// What they know of floor 0: plain values, and how a word is shown.
const PLAIN: [&str; 2] = ["config", "label"];

/// Crates and the files (a prefix of the path below `src/`) that may name them.
const HOMES: [(&str, &[&str]); 8] = [
    ("kube", &["discovery/kubernetes"]),
    ("k8s_openapi", &["discovery/kubernetes"]),
    ("hyper", &["admin", "discovery/kubernetes"]),
    ("hyper_util", &["admin"]),
    ("http_body_util", &["admin", "discovery/kubernetes"]),
    ("rustls", &["proxy/tls"]),
    ("tokio_rustls", &["proxy/tls", "proxy/stream"]),
    ("anyhow", &["main", "cli", "gateway", "demo"]),
];

/// Crates that the pure floors never name: no async, no socket, no clock of another kind.
const IMPURE: [&str; 4] = ["tokio", "tokio_util", "socket2", "hickory_resolver"];

/// Parts of `std` that the pure floors never name outside their tests. (`std::net` has addresses too: its sockets by name.)
const IMPURE_STD: [&str; 8] =
    ["std::fs", "std::io", "std::thread", "Instant::now", "SystemTime::now", "TcpStream", "TcpListener", "UdpSocket"];

/// Who may ask the wall clock: what starts the clock that only goes forward, and two that write a time down.
/// A certificate ends by it, too.
const WALL_CLOCK: [&str; 4] =
    ["discovery/clock.rs", "discovery/kubernetes/snapshot.rs", "metrics.rs", "proxy/tls/files.rs"];

/// What is wrong with one file's text. `path` is relative to `src/`.
fn violations(path: &str, text: &str) -> Vec<String> {
    let module = path.split(['/', '.']).next().unwrap_or_default();
    let mut found = Vec::new();
    let Some(floor) = floor_of(module) else {
        // lib.rs declares everyone.
        return if path == "lib.rs" { found } else { vec![format!("{path}: {module} has no floor")] };
    };
    let code = code(text);
    for import in imports(&code, if module == "main" { "cqlgate::" } else { "crate::" }) {
        match floor_of(&import) {
            None => found.push(format!("{path}: {import} has no floor")),
            Some(_) if import == module => {}
            Some(other) if other > floor => {
                found.push(format!("{path}: {module} (floor {floor}) imports {import} (floor {other})"));
            }
            Some(other) if other == floor && !BESIDE.contains(&(module, import.as_str())) => {
                found.push(format!("{path}: {module} imports {import} of its own floor"));
            }
            Some(0) if PURE.contains(&module) && !PLAIN.contains(&import.as_str()) => {
                found.push(format!("{path}: {module} is pure and imports {import}"))
            }
            Some(_) => {}
        }
    }
    for (name, homes) in HOMES {
        if names_crate(&code, name) && !homes.iter().any(|home| path.starts_with(home)) {
            found.push(format!("{path}: {name} lives in {homes:?}"));
        }
    }
    if code.contains("SystemTime::now") && !PURE.contains(&module) && !WALL_CLOCK.contains(&path) {
        found.push(format!("{path}: no timer is driven by a clock that somebody may set"));
    }
    if PURE.contains(&module) {
        found.extend(
            IMPURE.iter().filter(|name| names_crate(&code, name)).map(|name| format!("{path}: {name} in {module}")),
        );
        found.extend(
            IMPURE_STD.iter().filter(|name| code.contains(**name)).map(|name| format!("{path}: {name} in {module}")),
        );
    }
    found
}

fn floor_of(module: &str) -> Option<usize> {
    FLOORS.iter().position(|floor| floor.contains(&module))
}

/// The text without comments, and without what follows `#[cfg(test)]` before a block of tests: tests may reach further.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// The modules of this crate that the code names: `crate::a`, `crate::{a, b::c}`; in the program `root` is the crate.
fn imports(code: &str, root: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices(root) {
        let before = code[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let rest = &code[at + root.len()..];
        if let Some(group) = rest.strip_prefix('{') {
            found.extend(first_words(group));
        } else {
            found.extend(word(rest));
        }
    }
    found
}

/// The first word of each item of a group, whose opening brace is already read.
fn first_words(group: &str) -> Vec<String> {
    let (mut depth, mut start, mut items) = (1, 0, Vec::new());
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 || (depth == 1 && c == ',') {
            items.extend(word(group[start..at].trim_start()));
            start = at + 1;
        }
        if depth == 0 {
            break;
        }
    }
    items
}

/// The word at the start; none for a type at the crate's root or a macro's `$crate`.
fn word(text: &str) -> Option<String> {
    let word: String = text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    word.chars().next().is_some_and(|c| c.is_ascii_lowercase()).then_some(word)
}

/// True where `name::` stands as the beginning of a path.
fn names_crate(code: &str, name: &str) -> bool {
    let path = format!("{name}::");
    code.match_indices(&path).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':')
    })
}

fn read(directory: &Path, prefix: &str, files: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let path = format!("{prefix}{name}");
        if entry.file_type().unwrap().is_dir() {
            read(&entry.path(), &format!("{path}/"), files);
        } else if name.ends_with(".rs") {
            files.push((path, fs::read_to_string(entry.path()).unwrap()));
        }
    }
}

#[test]
fn every_module_imports_only_from_below() {
    let mut files = Vec::new();
    read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), "", &mut files);
    assert!(files.len() > 20, "only {} files were read", files.len());
    // Files of tests beside a module may reach further, as `mod tests` blocks may.
    let found: Vec<_> = files
        .iter()
        .filter(|(path, _)| !path.ends_with("tests.rs") && !path.contains("/tests/"))
        .flat_map(|(path, text)| violations(path, text))
        .collect();
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn every_floor_is_drawn_in_the_crate_documentation() {
    let lib = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).unwrap();
    let declared: Vec<_> = lib.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).collect();
    assert!(declared.len() > 4);
    for module in declared {
        let floor = floor_of(module).unwrap_or_else(|| panic!("{module} has no floor"));
        let drawn = lib.lines().find(|line| line.starts_with(&format!("//!  {floor}  "))).unwrap_or_default();
        assert!(drawn.contains(module), "{module} is not drawn on floor {floor}: {drawn}");
    }
}

/// The violations in `text`, were it the file `path`, are as many as `expected`, and each says its part.
fn check(path: &str, text: &str, expected: &[&str]) {
    let found = violations(path, text);
    assert_eq!(found.len(), expected.len(), "{path}: {text}\n{found:?}");
    for (found, part) in found.iter().zip(expected) {
        assert!(found.contains(part), "{found} does not say {part}");
    }
}

#[test]
fn imports_against_the_floors_are_found() {
    check("cql/rows.rs", "use crate::topology::Node;", &["cql imports topology of its own floor"]);
    check("topology.rs", "fn f() { crate::cql::frame::x() }", &["topology imports cql of its own floor"]);
    check("rewrite/view.rs", "use crate::{cql::frame::{self, Header}, proxy::relay};", &["imports proxy (floor 3)"]);
    check("config.rs", "pub use crate::rewrite::view::View;", &["config (floor 0) imports rewrite (floor 2)"]);
    check("rewrite.rs", "use crate::metrics::Metrics;", &["rewrite is pure and imports metrics"]);
    check("admin.rs", "use crate::proxy::connections;", &["admin imports proxy of its own floor"]);
    check("main.rs", "fn main() { cqlgate::nowhere() }", &["nowhere has no floor"]);
    check("nowhere.rs", "", &["nowhere has no floor"]);
    check("label.rs", "use crate::metrics::Metrics;", &["label imports metrics of its own floor"]);
}

#[test]
fn crates_outside_their_homes_are_found() {
    check("proxy/relay.rs", "use rustls::ServerConfig;", &["rustls lives in"]);
    check("discovery.rs", "async fn f() -> anyhow::Result<()> {}", &["anyhow lives in"]);
    check("proxy/listener.rs", "use kube::Api;\nuse hyper::body;", &["kube lives in", "hyper lives in"]);
    check("rewrite/walk.rs", "use tokio::net::TcpStream;", &["tokio in rewrite", "TcpStream in rewrite"]);
    check("proxy/relay.rs", "let until = SystemTime::now() + WAIT;", &["driven by a clock that somebody may set"]);
    check("topology/state.rs", "let now = std::time::SystemTime::now();", &["SystemTime::now in topology"]);
}

#[test]
fn imports_with_the_floors_are_not_found() {
    check("rewrite.rs", "use crate::{cql::frame, topology::{Node, NodeId}};\nuse super::view;", &[]);
    check(
        "proxy/tls.rs",
        "use rustls::ServerConfig;\nuse tokio_rustls::TlsAcceptor;\nuse crate::config::NodeTls;",
        &[],
    );
    check(
        "cql/frame.rs",
        "// use crate::topology::Node;\nfn f() {}\n#[cfg(test)]\nmod tests {\n use crate::topology;\n}",
        &[],
    );
    check("main.rs", "fn main() { cqlgate::cli::main() }", &[]);
    check("rewrite/view.rs", "use crate::config::ViewName;", &[]);
    check("metrics.rs", "use my_crate::proxy;", &[]);
    check("metrics/node.rs", "use crate::label::Label;", &[]);
    check("topology/node.rs", "use crate::label::{Label, label_set};", &[]);
}
