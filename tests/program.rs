//! The program as its user meets it: arguments in; output, exit status and sockets out.

#![allow(clippy::unwrap_used)] // helpers of tests

#[path = "common/certificates.rs"]
#[allow(dead_code)] // a few of its verbs are enough here
mod certificates;
#[path = "common/client.rs"]
#[allow(dead_code)]
mod client;
#[path = "program/secrets.rs"]
mod secrets;

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread::{self, yield_now};
use std::time::{Duration, Instant};

use client::{Client, Row, rows};
use cqlgate::cql::frame::{Opcode, Version};
use cqlgate::cql::primitives::inet_cell;

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

/// A loopback address that no other process has.
fn own_address(test: u8) -> String {
    let id = std::process::id();
    format!("127.{}.{}.{test}", 64 + (id >> 8) % 128, id % 256)
}

/// A gateway that runs; killed if the test ends before it does.
struct Gateway {
    child: Child,
    address: String,
    folder: tempfile::TempDir,
}

impl Gateway {
    /// On ports 9042 to 9044 of a loopback address that no other process has, in front of nodes that refuse.
    fn start(test: u8) -> Self {
        Self::start_with(test, "", |folder, text| fs::write(folder.join("gateway.yaml"), text).unwrap())
    }

    /// The same with further keys, and the file put there by another way.
    fn start_with(test: u8, keys: &str, put: impl FnOnce(&Path, &str)) -> Self {
        let address = own_address(test);
        let folder = tempfile::tempdir().unwrap();
        let file: PathBuf = folder.path().join("gateway.yaml");
        let text = format!(
            "listen: {address}:9042-9044\nadvertise: {address}\nadmin: {address}:9180\n\
             discovery: {{nodes: [{{name: a, address: '{address}:1'}}, {{name: b, address: '{address}:2'}}]}}\n{keys}"
        );
        put(folder.path(), &text);
        let mut command = Command::new(env!("CARGO_BIN_EXE_cqlgate"));
        let child = command.arg("run").arg("--config").arg(&file).stderr(Stdio::null()).spawn().unwrap();
        Self { child, address, folder }
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("gateway.yaml")
    }

    /// The file with one more line; written beside it and renamed over it, as editors do.
    fn write(&self, text: &str) {
        let beside = self.folder.path().join("new.yaml");
        fs::write(&beside, text).unwrap();
        fs::rename(&beside, self.file()).unwrap();
    }

    /// Waits until the admin address says this.
    fn until_said(&self, path: &str, part: &str) -> String {
        until(|| Some(self.get(path).1).filter(|body| body.contains(part)))
    }

    /// Status and body, once the admin address answers.
    fn get(&self, path: &str) -> (u16, String) {
        until(|| get(SocketAddr::new(self.address.parse().unwrap(), 9180), path))
    }

    fn signal(&self, name: &str) {
        signal(&self.child, name);
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn signal(child: &Child, name: &str) {
    let id = child.id().to_string();
    assert!(Command::new("kill").args([&format!("-{name}"), &id]).status().unwrap().success());
}

/// Status and body, if the admin address answers.
fn get(admin: SocketAddr, path: &str) -> Option<(u16, String)> {
    let mut admin = TcpStream::connect(admin).ok()?;
    admin.set_read_timeout(Some(DEADLINE)).ok()?;
    write!(admin, "GET {path} HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    admin.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some((status, body.to_owned()))
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
fn check_dials_nodes_where_it_is_asked_to() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/proxy-config/nodes.yaml");
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let refused = format!("#   FAIL  {nobody} ({nobody}): {nobody}: connection refused");
    check(&["check", file, "--node", &nobody], 1, &refused, "a node is not as it should be");
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

#[test]
fn the_file_is_read_again_when_it_changes_and_on_sighup_and_what_is_wrong_is_told_with_its_line() {
    let mut gateway = Gateway::start(8);
    until(|| (gateway.get("/readyz").0 == 200).then_some(()));
    let text = fs::read_to_string(gateway.file()).unwrap();
    let denied = || {
        let mut client = TcpStream::connect((gateway.address.as_str(), 9042)).unwrap();
        client.set_read_timeout(Some(DEADLINE)).unwrap();
        let _ = client.read(&mut [0; 16]);
        gateway.get("/metrics").1.contains("cqlgate_connections_refused_total{reason=\"access_denied\"}")
    };
    assert!(!denied());
    // Nobody asks for it.
    gateway.write(&format!("{text}access: {{deny: [127.0.0.0/8]}}\n"));
    gateway.until_said("/metrics", "cqlgate_config_reloads_total{outcome=\"taken\"} 1\n");
    assert!(denied());
    gateway.write(&format!("{text}access: {{deni: [127.0.0.0/8]}}\n"));
    gateway.signal("HUP");
    let said = gateway.until_said("/readyz", "degraded: the configuration cannot be used: ");
    assert!(said.starts_with("ready\n") && said.contains("gateway.yaml:5:10: access: unknown field `deni`"), "{said}");
    assert!(gateway.get("/metrics").1.contains("cqlgate_config_reloads_total{outcome=\"taken\"} 1\n"));
    // What is right again is no change, and mends it.
    gateway.write(&format!("{text}access: {{deny: [127.0.0.0/8]}}\n"));
    until(|| (gateway.get("/readyz").1 == "ready\n").then_some(()));
    assert!(gateway.child.try_wait().unwrap().is_none());
}

/// kubelet's `..data`: a link to a folder, replaced by renaming another link over it; the folder of before goes.
fn mount(volume: &Path, version: &str, text: &str) {
    let at = |name: &str| volume.join(name);
    fs::create_dir(at(version)).unwrap();
    fs::write(at(version).join("gateway.yaml"), text).unwrap();
    symlink(version, at("..data_tmp")).unwrap();
    let before = fs::canonicalize(at("..data"));
    fs::rename(at("..data_tmp"), at("..data")).unwrap();
    match before {
        Ok(before) => fs::remove_dir_all(before).unwrap(),
        Err(_) => symlink("..data/gateway.yaml", at("gateway.yaml")).unwrap(),
    }
}

#[test]
fn the_links_of_a_mounted_config_map_are_followed() {
    let gateway = Gateway::start_with(10, "", |volume, text| mount(volume, "..2026_01_01", text));
    until(|| (gateway.get("/readyz").0 == 200).then_some(()));
    let text = fs::read_to_string(gateway.file()).unwrap();
    for (taken, version) in [(1, "..2026_01_02"), (2, "..2026_01_03")] {
        mount(gateway.folder.path(), version, &format!("{text}access: {{deny: [192.0.2.{taken}]}}\n"));
        gateway.until_said("/metrics", &format!("cqlgate_config_reloads_total{{outcome=\"taken\"}} {taken}\n"));
    }
    assert_eq!(gateway.get("/readyz").1, "ready\n");
}

#[test]
fn a_file_that_has_changed_waits_for_a_time_of_the_gateways_own_choice_and_sighup_does_not() {
    // The least that it may choose is minutes.
    let jitter = "reload: {jitter: 24h}\n";
    let waits = Gateway::start_with(11, jitter, |folder, text| fs::write(folder.join("gateway.yaml"), text).unwrap());
    let follows = Gateway::start(12);
    let taken = |count: u32| format!("cqlgate_config_reloads_total{{outcome=\"taken\"}} {count}\n");
    let texts = [&waits, &follows].map(|gateway| {
        until(|| (gateway.get("/readyz").0 == 200).then_some(()));
        fs::read_to_string(gateway.file()).unwrap()
    });
    waits.write(&format!("{}access: {{deny: [192.0.2.1]}}\n", texts[0]));
    // Another one has looked and taken twice meanwhile.
    for count in 1..=2 {
        follows.write(&format!("{}access: {{deny: [192.0.2.{count}]}}\n", texts[1]));
        follows.until_said("/metrics", &taken(count));
    }
    assert!(!waits.get("/metrics").1.contains(&taken(1)));
    waits.signal("HUP");
    waits.until_said("/metrics", &taken(1));
}

#[test]
fn a_gateway_without_a_file_outlives_sighup() {
    let address = own_address(9);
    let mut command = Command::new(env!("CARGO_BIN_EXE_cqlgate"));
    command.args(["run", "--contact-point", &format!("{address}:1"), "--listen", &format!("{address}:9042-9043")]);
    command.args(["--admin", &format!("{address}:9180")]).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let (printed, lines) = channel();
    let output = BufReader::new(child.stderr.take().unwrap());
    thread::spawn(move || output.lines().map_while(Result::ok).all(|line| printed.send(line).is_ok()));
    let until_printed = |part: &str| while !lines.recv_timeout(DEADLINE).unwrap().contains(part) {};
    until_printed("accepting");
    signal(&child, "HUP");
    until_printed("there is no file to read again");
    signal(&child, "TERM");
    assert_eq!(until(|| child.try_wait().unwrap()).code(), Some(0));
}

#[test]
fn variables_of_the_environment_count_over_the_file() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/proxy-config/nodes.yaml");
    let checked = |value: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cqlgate"));
        command.args(["check", file]).env("CQLGATE__DRAIN__SPREAD", value).env("CQLGATE_PORT", "tcp://10.0.0.1:9042");
        command.output().unwrap()
    };
    let taken = checked("7s");
    let printed = String::from_utf8_lossy(&taken.stdout);
    assert!(printed.contains("spread: 7s") && printed.contains("# CQLGATE__DRAIN__SPREAD counts"), "{printed}");
    let refused = checked("7");
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(
        (refused.status.code(), said.starts_with("CQLGATE__DRAIN__SPREAD: 7 has no unit")),
        (Some(1), true),
        "{said}"
    );
}

/// `cqlgate demo` on ports of an address of its own, and the lines that it prints; killed if the test ends before it does.
struct Demo {
    child: Child,
    lines: Receiver<String>,
    ports: [SocketAddr; 3],
}

impl Demo {
    /// Prints its whole banner before this returns.
    fn start(test: u8) -> Self {
        Self::start_with(test, None)
    }

    /// The same with at most so many open files.
    fn start_with(test: u8, files: Option<u32>) -> Self {
        let address = own_address(test);
        let limited = files.map_or_else(String::new, |files| format!("ulimit -n {files} && "));
        let mut command = Command::new("sh");
        command.args(["-c", &format!("{limited}exec \"$0\" \"$@\""), env!("CARGO_BIN_EXE_cqlgate")]);
        command.args(["demo", "--listen", &format!("{address}:9042-9044"), "--admin", &format!("{address}:9180")]);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let (printed, lines) = channel();
        let output = BufReader::new(child.stdout.take().unwrap());
        // Ends with the program's output.
        thread::spawn(move || output.lines().map_while(Result::ok).all(|line| printed.send(line).is_ok()));
        let ports = [9042, 9043, 9044].map(|port| SocketAddr::new(address.parse().unwrap(), port));
        let demo = Self { child, lines, ports };
        for port in ports {
            demo.until_printed(&format!("  {port}  ─▶  simulated node 127.0.0.1"));
        }
        demo.until_printed(&format!("  cqlsh {address} 9042"));
        demo.until_printed("Rows are kept in memory only. Ctrl-C ends it. What arrives:");
        demo
    }

    /// The next line with `part`.
    fn until_printed(&self, part: &str) -> String {
        loop {
            let line = self.lines.recv_timeout(DEADLINE).unwrap_or_else(|error| panic!("no line has {part}: {error}"));
            if line.contains(part) {
                return line;
            }
        }
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn endpoint(row: &Row, address: &str, port: &str) -> SocketAddr {
    let number = i32::from_be_bytes(row.get(port).unwrap().as_slice().try_into().unwrap());
    SocketAddr::new(inet_cell(row.get(address).unwrap()).unwrap(), u16::try_from(number).unwrap())
}

/// The README's first command.
#[tokio::test]
async fn demo_shows_three_nodes_and_a_table_until_it_is_stopped() {
    let mut demo = Demo::start(3);
    let all = BTreeSet::from(demo.ports);
    let dialect = (Version::V5, None);
    let mut clients = Vec::new();
    for port in demo.ports {
        clients.push(Client::connect_as(port, dialect, &[("DRIVER_NAME", "a test's own")]).await);
        // It shows what arrives, and on which port; later lines may be too many for it.
        let line = demo.until_printed("connected   a test's own, v5");
        assert!(line.trim_start().starts_with(&port.port().to_string()), "{line}");
    }
    let mut host_ids = BTreeSet::new();
    for (index, (port, mut client)) in demo.ports.into_iter().zip(clients).enumerate() {
        let local = client.rows("SELECT * FROM system.local").await.remove(0);
        let peers = client.rows("SELECT * FROM system.peers_v2").await;
        assert_eq!(endpoint(&local, "rpc_address", "rpc_port"), port);
        let mut named: BTreeSet<_> = peers.iter().map(|row| endpoint(row, "native_address", "native_port")).collect();
        named.insert(port);
        assert_eq!(named, all);
        host_ids.insert(local.get("host_id").unwrap().clone());
        // Written through one port, read through the next.
        let insert = client.prepare("INSERT INTO demo.kv (k, v) VALUES (?, ?)").await;
        client.execute(&insert, &[&format!("key {index}"), &format!("value {index}")], false).await.unwrap();
        let mut next = Client::connect(demo.ports[(index + 1) % 3], dialect).await;
        let select = next.prepare("SELECT v FROM demo.kv WHERE k = ?").await;
        let (opcode, body) = next.execute(&select, &[&format!("key {index}")], false).await.unwrap();
        assert_eq!(opcode, Opcode::RESULT);
        assert_eq!(rows(&body).remove(0).get("v").unwrap(), format!("value {index}").as_bytes());
    }
    assert_eq!(host_ids.len(), 3);
    signal(&demo.child, "TERM");
    let status = until(|| demo.child.try_wait().unwrap());
    assert_eq!(status.code(), Some(0));
}

#[test]
fn without_descriptors_it_is_not_ready_and_says_so_until_there_are_some_again() {
    let demo = Demo::start_with(7, Some(256));
    let admin = SocketAddr::new(demo.ports[0].ip(), 9180);
    until(|| get(admin, "/readyz").filter(|(status, _)| *status == 200));
    // More than there are descriptors for: those that find none are reset, so that nobody waits for his own time limit.
    let mut clients: Vec<_> = (0..400).filter_map(|n| TcpStream::connect(demo.ports[n % 3]).ok()).collect();
    // Of a reset the socket tells once, and that it has ended from then on.
    let is_closed = |client: &TcpStream| {
        client.set_nonblocking(true).unwrap();
        client.peek(&mut [0]).map_or_else(|error| error.kind() != ErrorKind::WouldBlock, |_| true)
    };
    until(|| (clients.iter().filter(|client| is_closed(client)).count() > 100).then_some(()));
    // Room for whoever asks.
    clients.drain(..20);
    let (_, why) = until(|| get(admin, "/readyz").filter(|(status, _)| *status == 503));
    assert!(why.contains("file descriptors"), "{why}");
    let (_, metrics) = until(|| get(admin, "/metrics"));
    let counted = metrics.lines().find_map(|line| line.strip_prefix("cqlgate_descriptors_exhausted_total "));
    assert!(counted.unwrap().parse::<u64>().unwrap() > 100);
    drop(clients);
    until(|| get(admin, "/readyz").filter(|(status, _)| *status == 200));
}
