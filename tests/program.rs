//! The program as its user meets it: arguments in; output, exit status and sockets out.

#![allow(clippy::unwrap_used)] // helpers of tests

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::thread::yield_now;
use std::time::{Duration, Instant};

const DEADLINE: Duration = Duration::from_secs(20);

fn cqlgate(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_cqlgate")).args(arguments).output().unwrap()
}

/// Exit status, and words of standard output and standard error.
fn check(arguments: &[&str], status: i32, output: &str, error: &str) {
    let ended = cqlgate(arguments);
    let (out, err) = (String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
    assert_eq!(ended.status.code(), Some(status), "{arguments:?}\n{out}\n{err}");
    assert!(out.contains(output), "{arguments:?} does not print {output}:\n{out}");
    assert!(err.contains(error), "{arguments:?} does not say {error}:\n{err}");
}

/// A gateway that runs; killed if the test ends before it does.
struct Gateway {
    child: Child,
    address: String,
    _folder: tempfile::TempDir,
}

impl Gateway {
    /// On ports 9042 to 9044 of a loopback address that no other process has, in front of nodes that refuse.
    fn start(test: u8) -> Self {
        let id = std::process::id();
        let address = format!("127.{}.{}.{test}", 64 + (id >> 8) % 128, id % 256);
        let folder = tempfile::tempdir().unwrap();
        let file: PathBuf = folder.path().join("gateway.yaml");
        let text = format!(
            "listen: {address}:9042-9044\nadvertise: {address}\nadmin: {address}:9180\n\
             discovery: {{nodes: [{{name: a, address: '{address}:1'}}, {{name: b, address: '{address}:2'}}]}}\n"
        );
        fs::write(&file, text).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_cqlgate"));
        let child = command.arg("run").arg("--config").arg(&file).stderr(Stdio::null()).spawn().unwrap();
        Self { child, address, _folder: folder }
    }

    /// Status and body, once the admin address answers.
    fn get(&self, path: &str) -> (u16, String) {
        until(|| {
            let mut admin = TcpStream::connect((self.address.as_str(), 9180)).ok()?;
            write!(admin, "GET {path} HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\r\n").ok()?;
            let mut answer = String::new();
            admin.read_to_string(&mut answer).ok()?;
            let (head, body) = answer.split_once("\r\n\r\n")?;
            let status = head.split(' ').nth(1)?.parse().ok()?;
            Some((status, body.to_owned()))
        })
    }

    fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &id]).status().unwrap().success());
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asks until there is an answer.
fn until<T>(mut ask: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + DEADLINE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < end, "no answer in {DEADLINE:?}");
        yield_now();
    }
}

#[test]
fn says_its_version_and_how_it_is_used() {
    check(&["--version"], 0, concat!("cqlgate ", env!("CARGO_PKG_VERSION")), "");
    check(&["--help"], 0, "cqlgate run --contact-point 10.1.2.3", "");
    check(&["run", "--help"], 0, "--password-file <F>", "");
    check(&[], 2, "", "Usage:");
    check(&["run"], 2, "", "--contact-point <HOST[:PORT]>");
}

#[test]
fn check_prints_what_a_file_means() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/proxy-config/nodes.yaml");
    check(&["check", file], 0, "#   9044   cassandra-2  cassandra-2.cassandra.db.svc:9042", "");
}

#[test]
fn check_marks_the_line_that_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("wrong.yaml");
    fs::write(&file, "advertise: 203.0.113.10\ndiscovery:\n  nodes:\n    - {name: a, adress: x}\n").unwrap();
    let file = file.to_str().unwrap();
    let marked = "wrong.yaml:4:17: discovery.nodes[0]: unknown field `adress`, expected one of name, address, port\n \
                  4 |     - {name: a, adress: x}\n   |                 ^^^^^^";
    check(&["check", file], 1, "", marked);
    check(&["run", "--config", file], 1, "", marked);
    check(&["check", "/no/such.yaml"], 1, "", "/no/such.yaml: No such file");
}

#[test]
fn check_reads_certificates_and_keys() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tls.yaml");
    fs::copy(concat!(env!("CARGO_MANIFEST_DIR"), "/proxy-config/tls.yaml"), &file).unwrap();
    fs::create_dir(folder.path().join("tls")).unwrap();
    for name in ["gateway.crt", "gateway.key", "nodes-ca.crt"] {
        fs::write(folder.path().join("tls").join(name), "no PEM").unwrap();
    }
    check(&["check", file.to_str().unwrap()], 1, "", "tls/gateway.crt: no certificate in it");
}

#[test]
fn ready_with_dead_nodes_whose_ports_close_at_once() {
    let gateway = Gateway::start(1);
    assert_eq!(gateway.get("/livez"), (200, "ok\n".to_owned()));
    until(|| (gateway.get("/readyz") == (200, "ready\n".to_owned())).then_some(()));
    let (_, topology) = gateway.get("/topology");
    let topology: serde_json::Value = serde_json::from_str(&topology).unwrap();
    assert_eq!(topology["nodes"][1]["name"], "b");
    assert_eq!(topology["nodes"][1]["advertised"], format!("{}:9043", gateway.address));
    assert_eq!(topology["nodes"][1]["state"], "pending");
    // Of a node that is dead, and of no node.
    for port in [9043, 9044] {
        let mut client = TcpStream::connect((gateway.address.as_str(), port)).unwrap();
        client.set_read_timeout(Some(DEADLINE)).unwrap();
        let read = client.read(&mut [0; 16]).map_err(|error| error.kind());
        assert!(matches!(read, Ok(0) | Err(ErrorKind::ConnectionReset)), "{read:?}");
    }
    let (_, metrics) = gateway.get("/metrics");
    assert!(metrics.contains("cqlgate_connections_refused_total{reason=\"no_live_node\"} 2"), "{metrics}");
}

#[test]
fn ends_well_when_asked_to() {
    let mut gateway = Gateway::start(2);
    until(|| (gateway.get("/readyz").0 == 200).then_some(()));
    gateway.signal("TERM");
    let status = until(|| gateway.child.try_wait().unwrap());
    assert_eq!(status.code(), Some(0));
}
