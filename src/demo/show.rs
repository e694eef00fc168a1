//! What the demo prints: what to type next, and then one line for each thing that arrives.

use std::collections::HashSet;
use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{MissedTickBehavior, interval};

use super::node::{Arrival, Cluster, Seen};
use crate::cql::frame::Opcode;

/// Lines in a second; more are counted.
const RATE: usize = 20;
/// Characters of a statement.
const WIDTH: usize = 120;

pub(super) fn banner(cluster: &Cluster, ports: &[u16], advertise: IpAddr, admin: SocketAddr) -> String {
    let mut text = "\ncqlgate demo: one address, each node a port of it\n\n".to_owned();
    for (node, port) in cluster.nodes().iter().zip(ports) {
        let (member, advertised) = (node.member(), SocketAddr::new(advertise, *port));
        let _ = writeln!(
            text,
            "  {advertised}  ─▶  simulated node {}  {} {}  {}",
            member.address, member.data_center, member.rack, member.host_id
        );
    }
    let first = ports.first().copied().unwrap_or_default();
    let _ = write!(
        text,
        "
In another terminal:

  cqlsh {advertise} {first}
    SELECT peer, native_address, native_port FROM system.peers_v2;
    INSERT INTO demo.kv (k, v) VALUES ('hello', 'world');
    SELECT * FROM demo.kv;

  python3     (pip install cassandra-driver)
    from cassandra.cluster import Cluster
    cluster = Cluster([('{advertise}', {first})]); session = cluster.connect()
    print([(host.endpoint, host.rack, host.is_up) for host in cluster.metadata.all_hosts()])
    read = session.prepare('SELECT v FROM demo.kv WHERE k = ?')
    rows = [session.execute(read, [key]) for key in 'abcdefgh']     # each key on a port of its own replicas

  curl -s http://{admin}/topology

Rows are kept in memory only. Ctrl-C ends it. What arrives:

"
    );
    text
}

/// Prints until there is nothing more to come.
pub(super) async fn arrivals(mut arrivals: Receiver<Arrival>, ports: &[u16]) {
    let mut probes = HashSet::new();
    let mut second = interval(Duration::from_secs(1));
    second.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut shown, mut left_out, mut missed) = (0, vec![0; ports.len()], 0_u64);
    loop {
        tokio::select! {
            _ = second.tick() => {
                if let Some(line) = more(ports, &left_out, missed) {
                    println!("{line}");
                }
                left_out.fill(0);
                (shown, missed) = (0, 0);
            }
            arrival = arrivals.recv() => match arrival {
                Ok(arrival) => {
                    let Some(line) = line(&arrival, ports, &mut probes) else { continue };
                    if shown < RATE {
                        println!("{line}");
                        shown += 1;
                    } else if let Some(count) = left_out.get_mut(arrival.node) {
                        *count += 1;
                    }
                }
                Err(RecvError::Lagged(count)) => missed += count,
                Err(RecvError::Closed) => return,
            }
        }
    }
}

/// How many arrivals of this second have no line, by port: what shows that a driver uses them all.
fn more(ports: &[u16], left_out: &[u64], missed: u64) -> Option<String> {
    let counts: Vec<_> = ports.iter().zip(left_out).filter(|(_, count)| **count > 0).collect();
    let mut parts: Vec<_> = counts.iter().map(|(port, count)| format!("{count} on {port}")).collect();
    if missed > 0 {
        parts.push(format!("{missed} that were too many to look at"));
    }
    (!parts.is_empty()).then(|| format!("       … and more: {}", parts.join(", ")))
}

/// The line for an arrival; `None` for the gateway's own connections, which `probes` remembers.
fn line(arrival: &Arrival, ports: &[u16], probes: &mut HashSet<u64>) -> Option<String> {
    let port = ports.get(arrival.node).copied().unwrap_or_default();
    if let Seen::Connected { driver: Some(driver), .. } = &arrival.seen
        && driver == "cqlgate"
    {
        probes.insert(arrival.connection);
    }
    let is_probe = match arrival.seen {
        Seen::Closed => probes.remove(&arrival.connection),
        _ => probes.contains(&arrival.connection),
    };
    if is_probe {
        return None;
    }
    let what = match &arrival.seen {
        Seen::Connected { driver, driver_version, protocol, compression } => {
            let driver = driver.as_deref().unwrap_or("a driver that does not name itself");
            let version = driver_version.as_deref().map(|version| format!(" {version}")).unwrap_or_default();
            let compression = compression.map_or("", |compression| compression.name());
            format!("connected   {driver}{version}, v{} {compression}", protocol.number())
        }
        Seen::Registered(types) => format!("REGISTER    {}", types.join(", ")),
        Seen::Statement { text, opcode } => {
            let opcode = match *opcode {
                Opcode::PREPARE => "PREPARE",
                Opcode::EXECUTE => "EXECUTE",
                _ => "QUERY",
            };
            format!("{opcode:<12}{}", text.split_whitespace().collect::<Vec<_>>().join(" "))
        }
        Seen::Closed => "closed".to_owned(),
    };
    let printable = what.chars().map(|c| if c.is_control() { '·' } else { c });
    let number = arrival.connection;
    let line: String = format!("{port:>5}  #{number:<4} ").chars().chain(printable.take(WIDTH)).collect();
    Some(line.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cql::frame::Version;

    fn check(arrivals: &[(u64, Seen)], expected: &[&str]) {
        let mut probes = HashSet::new();
        let lines: Vec<String> = arrivals
            .iter()
            .filter_map(|(connection, seen)| {
                let arrival = Arrival { node: 1, connection: *connection, seen: seen.clone() };
                line(&arrival, &[9042, 9043], &mut probes)
            })
            .collect();
        assert_eq!(lines, expected);
    }

    fn connected(driver: &str) -> Seen {
        let (driver, driver_version) = (Some(driver.to_owned()), Some("3.30.1".to_owned()));
        Seen::Connected { driver, driver_version, protocol: Version::V5, compression: None }
    }

    #[test]
    fn the_gateways_own_connections_are_not_shown() {
        let statement = || Seen::Statement { text: "SELECT *\n FROM  kv".to_owned(), opcode: Opcode::QUERY };
        check(
            &[
                (1, connected("cqlgate")),
                (2, connected("Python")),
                (1, statement()),
                (2, statement()),
                (1, Seen::Closed),
                (2, Seen::Closed),
            ],
            &[
                " 9043  #2    connected   Python 3.30.1, v5",
                " 9043  #2    QUERY       SELECT * FROM kv",
                " 9043  #2    closed",
            ],
        );
    }

    #[test]
    fn what_has_no_line_is_counted_by_port() {
        assert_eq!(more(&[9042, 9043], &[0, 0], 0), None);
        assert_eq!(more(&[9042, 9043], &[0, 7], 0).as_deref(), Some("       … and more: 7 on 9043"));
        let all = "       … and more: 12 on 9042, 9 on 9043, 3 that were too many to look at";
        assert_eq!(more(&[9042, 9043], &[12, 9], 3).as_deref(), Some(all));
    }

    #[test]
    fn what_clients_send_cannot_move_the_cursor() {
        let statement = Seen::Statement { text: "\u{1b}[2J".to_owned(), opcode: Opcode::PREPARE };
        check(&[(3, statement)], &[" 9043  #3    PREPARE     ·[2J"]);
    }
}
