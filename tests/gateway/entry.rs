//! Who may come in: by address, and by who says which address that is. In each test somebody may, and somebody may not.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use cqlgate::cql::frame::Opcode;
use cqlgate::demo::node::Options;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::V4;
use crate::certificates::Authority;
use crate::client::{Client, PATIENCE};
use crate::gate::Gate;
use crate::secured;

/// The load balancer's address, and another one.
const BALANCER: u8 = 10;
const STRANGER: u8 = 66;
const FROM_BALANCER: &str = "from: [127.0.78.10]";

pub async fn dial_from(source: u8, port: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((Ipv4Addr::new(127, 0, 78, source), 0).into()).unwrap();
    timeout(PATIENCE, socket.connect(port)).await.unwrap()
}

/// What becomes of a client that says `first` before its STARTUP: true where it is served.
pub async fn is_served(source: u8, port: SocketAddr, first: &[u8]) -> bool {
    let Ok(mut stream) = dial_from(source, port).await else { return false };
    if stream.write_all(first).await.is_err() {
        return false;
    }
    let mut client = Client::over(stream, V4);
    matches!(client.startup(&[]).await, Ok((Opcode::READY, _)))
}

/// Version 1: a client of 198.51.100.`last`.
fn line(last: u8) -> Vec<u8> {
    format!("PROXY TCP4 198.51.100.{last} 203.0.113.10 50000 9042\r\n").into_bytes()
}

/// Version 2: the same, with what a private endpoint of AWS adds.
fn binary(command: u8, last: u8, values: &[u8]) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    header.extend([0x20 | command, 0x11]);
    header.extend((12 + values.len() as u16).to_be_bytes());
    header.extend([198, 51, 100, last, 203, 0, 113, 10]);
    header.extend([50000u16.to_be_bytes(), 9042u16.to_be_bytes()].concat());
    header.extend(values);
    header
}

const PROXY: u8 = 1;
const LOCAL: u8 = 0;

#[tokio::test]
async fn who_is_denied_is_reset_and_others_get_in() {
    let access = "access: {allow: [127.0.0.0/8], deny: [127.0.78.66]}\n";
    let gate = Gate::start_with(Options::loopback(1, 0), access).await;
    assert!(!is_served(STRANGER, gate.port(0), b"").await);
    assert!(is_served(7, gate.port(0), b"").await);
    gate.until_counted("cqlgate_connections_refused_total{reason=\"access_denied\"}", 1).await;
}

#[tokio::test]
async fn who_is_not_listed_is_reset_and_others_get_in() {
    let gate = Gate::start_with(Options::loopback(1, 0), "access: {allow: [127.0.78.7]}\n").await;
    assert!(!is_served(STRANGER, gate.port(0), b"").await);
    assert!(is_served(7, gate.port(0), b"").await);
    gate.until_counted("cqlgate_connections_refused_total{reason=\"access_not_allowed\"}", 1).await;
}

#[tokio::test]
async fn lists_count_for_whom_the_load_balancer_brings() {
    let yaml = format!(
        "proxy_protocol: {{mode: required, {FROM_BALANCER}}}\naccess: {{deny: [198.51.100.66, 127.0.78.10]}}\n"
    );
    let gate = Gate::start_with(Options::loopback(1, 0), &yaml).await;
    for header in [line(7), binary(PROXY, 7, &[])] {
        assert!(is_served(BALANCER, gate.port(0), &header).await);
    }
    for header in [line(66), binary(PROXY, 66, &[])] {
        assert!(!is_served(BALANCER, gate.port(0), &header).await);
    }
    gate.until_counted("cqlgate_connections_refused_total{reason=\"access_denied\"}", 2).await;
    // It looks by itself whether the gateway is there, whatever address stands in the header.
    assert!(is_served(BALANCER, gate.port(0), &binary(LOCAL, 66, &[])).await);
    let without_address = [&binary(LOCAL, 7, &[])[..13], &[0, 0, 0]].concat();
    assert!(is_served(BALANCER, gate.port(0), &without_address).await);
}

#[tokio::test]
async fn whom_the_load_balancer_does_not_know_is_who_it_seems_to_be() {
    let of_another_kind = |kind: u8, addresses: usize| {
        let mut header = binary(PROXY, 7, &[])[..13].to_vec();
        header.push(kind);
        header.extend((addresses as u16).to_be_bytes());
        header.extend(vec![7; addresses]);
        header
    };
    let unknown =
        [b"PROXY UNKNOWN\r\n".to_vec(), of_another_kind(0, 0), of_another_kind(0x12, 12), of_another_kind(0x31, 216)];
    for (deny, expected) in [("127.0.78.11", true), ("127.0.78.10", false)] {
        let yaml = format!("proxy_protocol: {{mode: required, {FROM_BALANCER}}}\naccess: {{deny: [{deny}]}}\n");
        let gate = Gate::start_with(Options::loopback(1, 0), &yaml).await;
        for header in &unknown {
            assert_eq!(is_served(BALANCER, gate.port(0), header).await, expected, "{header:?} where {deny} is denied");
        }
    }
}

#[tokio::test]
async fn where_a_header_is_required_nobody_gets_in_without_one_or_from_elsewhere() {
    let gate =
        Gate::start_with(Options::loopback(1, 0), &format!("proxy_protocol: {{mode: required, {FROM_BALANCER}}}\n"))
            .await;
    assert!(!is_served(STRANGER, gate.port(0), b"").await);
    assert!(!is_served(STRANGER, gate.port(0), &line(7)).await);
    gate.until_counted("cqlgate_connections_refused_total{reason=\"proxy_source\"}", 2).await;
    assert!(!is_served(BALANCER, gate.port(0), b"").await);
    gate.until_counted("cqlgate_connections_refused_total{reason=\"no_proxy_header\"}", 1).await;
    assert!(is_served(BALANCER, gate.port(0), &line(7)).await);
}

#[tokio::test]
async fn where_a_header_is_optional_only_the_load_balancer_may_send_one() {
    let gate = Gate::start_with(
        Options::loopback(1, 0),
        &format!("proxy_protocol: {{mode: optional, {FROM_BALANCER}}}\naccess: {{deny: [198.51.100.66]}}\n"),
    )
    .await;
    assert!(is_served(STRANGER, gate.port(0), b"").await);
    assert!(!is_served(STRANGER, gate.port(0), &line(7)).await);
    assert!(!is_served(STRANGER, gate.port(0), &binary(PROXY, 7, &[])).await);
    gate.until_counted("cqlgate_connections_refused_total{reason=\"proxy_header\"}", 2).await;
    assert!(is_served(BALANCER, gate.port(0), b"").await);
    assert!(is_served(BALANCER, gate.port(0), &line(7)).await);
    assert!(!is_served(BALANCER, gate.port(0), &line(66)).await);
}

#[tokio::test]
async fn without_proxy_protocol_a_header_is_refused_whoever_sends_it() {
    let gate = Gate::start_with(Options::loopback(1, 0), "").await;
    assert!(!is_served(BALANCER, gate.port(0), &line(7)).await);
    assert!(is_served(BALANCER, gate.port(0), b"").await);
    gate.until_counted("cqlgate_connections_refused_total{reason=\"proxy_header\"}", 1).await;
}

#[tokio::test]
async fn a_header_may_come_in_pieces_and_only_its_own_bytes_are_taken() {
    let authority = Authority::new();
    let yaml =
        format!("proxy_protocol: {{mode: required, {FROM_BALANCER}}}\n{}", secured::yaml(Some(&authority), None));
    let gate = Gate::start_with(Options::loopback(1, 0), &yaml).await;
    let aws = [&[0xEA, 0, 23, 1][..], b"vpce-0123456789abcdef0"].concat();
    for header in [line(7), binary(PROXY, 7, &aws), binary(LOCAL, 7, &[])] {
        let mut stream = dial_from(BALANCER, gate.port(0)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        for byte in header {
            stream.write_all(&[byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
        let name = rustls::pki_types::ServerName::from(std::net::IpAddr::from([127, 0, 0, 1]));
        let tls = timeout(PATIENCE, authority.connector().connect(name, stream)).await.unwrap().unwrap();
        assert_eq!(Client::over(tls, V4).startup(&[]).await.unwrap().0, Opcode::READY);
    }
}

#[tokio::test]
async fn a_header_that_cannot_be_read_closes_and_the_next_client_gets_in() {
    let gate =
        Gate::start_with(Options::loopback(1, 0), &format!("proxy_protocol: {{mode: required, {FROM_BALANCER}}}\n"))
            .await;
    let mut long = binary(PROXY, 7, &[]);
    long[14..16].copy_from_slice(&u16::MAX.to_be_bytes());
    let without_end = [b"PROXY TCP4 ".as_slice(), &[b'1'; 200]].concat();
    let of_another_version = [&binary(PROXY, 7, &[])[..12], &[0x31, 0x11, 0, 0]].concat();
    let cut_value = binary(PROXY, 7, &[0xEA, 0, 200, 1]);
    let bad = [long, without_end, of_another_version, cut_value, b"PROXY TCP4 x y 1 2\r\n".to_vec()];
    for header in &bad {
        assert!(!is_served(BALANCER, gate.port(0), header).await, "{header:?}");
    }
    gate.until_counted("cqlgate_connections_refused_total{reason=\"proxy_header\"}", bad.len() as u64).await;
    assert!(is_served(BALANCER, gate.port(0), &line(7)).await);
}

#[tokio::test]
async fn shares_of_places_are_those_of_whom_the_load_balancer_brings() {
    let yaml = format!(
        "proxy_protocol: {{mode: required, {FROM_BALANCER}}}\nlimits: {{connections: 10, connections_per_source: 1}}\n"
    );
    let gate = Gate::start_with(Options::loopback(1, 0), &yaml).await;
    let mut inside = Vec::new();
    for last in [7, 8] {
        let mut stream = dial_from(BALANCER, gate.port(0)).await.unwrap();
        stream.write_all(&line(last)).await.unwrap();
        let mut client = Client::over(stream, V4);
        assert_eq!(client.startup(&[]).await.unwrap().0, Opcode::READY, "both come from one load balancer");
        inside.push(client);
    }
    assert!(!is_served(BALANCER, gate.port(0), &line(7)).await);
    gate.until_counted("cqlgate_connections_refused_total{reason=\"source_connection_limit\"}", 1).await;
    drop(inside);
}

#[tokio::test]
async fn a_health_check_of_the_load_balancers_that_says_nothing_is_let_be() {
    let gate =
        Gate::start_with(Options::loopback(1, 0), &format!("proxy_protocol: {{mode: required, {FROM_BALANCER}}}\n"))
            .await;
    let mut check = dial_from(BALANCER, gate.port(0)).await.unwrap();
    check.shutdown().await.unwrap();
    let mut rest = Vec::new();
    let _ = timeout(PATIENCE, check.read_to_end(&mut rest)).await.unwrap();
    gate.until_counted("cqlgate_connections_refused_total{reason=\"client_ended\"}", 1).await;
    assert!(is_served(BALANCER, gate.port(0), &line(7)).await);
}
