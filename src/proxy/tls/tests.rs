//! Full handshakes over loopback, with certificates made on the spot.

use std::fs;
use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertifiedIssuer, IsCa, KeyPair, KeyUsagePurpose, PKCS_RSA_SHA256,
};
use rustls::server::WebPkiClientVerifier;
use rustls::{ProtocolVersion, ServerConfig};
use std::io;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::acceptor::client_of;
use super::connector::Face;
use super::hello::hello;
use super::shown::Shown;
use super::*;
use crate::config::{ClientTls, NodeTls, Verify};

/// A CA, and a directory for what it signs. All carry one name: a stranger is told by its key alone.
pub(super) struct Authority {
    pub(super) issuer: CertifiedIssuer<'static, KeyPair>,
    dir: TempDir,
}

impl Authority {
    pub(in crate::proxy::tls) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Self { issuer, dir: tempfile::tempdir().unwrap() }
    }

    pub(super) fn write(&self, file: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(file);
        fs::write(&path, text).unwrap();
        path
    }

    fn sign(&self, name: &str, key: &KeyPair) -> Certificate {
        CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(key, &self.issuer).unwrap()
    }

    /// A server certificate for `name`, with its key.
    pub(in crate::proxy::tls) fn server(&self, name: &str) -> ClientTls {
        let key = KeyPair::generate().unwrap();
        let certificate = self.sign(name, &key).pem();
        ClientTls::new(self.write("tls.crt", &certificate), self.write("tls.key", &key.serialize_pem()))
    }

    /// The same that ends with a year.
    pub(in crate::proxy::tls) fn server_until(&self, name: &str, year: i32) -> ClientTls {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        ClientTls::new(self.write("tls.crt", &certificate), self.write("tls.key", &key.serialize_pem()))
    }

    pub(in crate::proxy::tls) fn trusted(&self, verify: Verify) -> NodeTls {
        let ca = Some(self.write("ca.crt", &self.issuer.pem()));
        NodeTls { ca, verify, ..NodeTls::default() }
    }
}

/// Dials a server with `server`'s certificate as `host` and exchanges a few bytes.
pub(super) async fn connect(server: &ClientAcceptor, node: &NodeTls, host: &str) -> io::Result<ProtocolVersion> {
    meet(server, node, host).await.1
}

/// What becomes of it on both sides; the server's is whom it has seen.
pub(super) async fn meet(
    server: &ClientAcceptor,
    node: &NodeTls,
    host: &str,
) -> (io::Result<Option<Shown>>, io::Result<ProtocolVersion>) {
    meet_as(server, &NodeConnector::from_config(node).unwrap().own(), host).await
}

pub(super) async fn meet_as(
    server: &ClientAcceptor,
    face: &Face,
    host: &str,
) -> (io::Result<Option<Shown>>, io::Result<ProtocolVersion>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = async {
        let mut tls = server.accept(listener.accept().await?.0, &Arc::new(Semaphore::new(1))).await?;
        let mut request = [0; 7];
        tls.read_exact(&mut request).await?;
        tls.write_all(&request).await?;
        tls.shutdown().await?;
        Ok(client_of(&tls))
    };
    let client = async {
        let mut tls = face.connect(TcpStream::connect(address).await?, host).await?;
        tls.write_all(b"OPTIONS").await?;
        let mut response = Vec::new();
        tls.read_to_end(&mut response).await?;
        assert_eq!(response, b"OPTIONS");
        Ok(tls.get_ref().1.protocol_version().unwrap())
    };
    tokio::join!(server, client)
}

async fn check(authority: &Authority, certified: &str, node: NodeTls, host: &str, expected: Result<(), &str>) {
    let acceptor = ClientAcceptor::from_config(&authority.server(certified)).unwrap();
    match (connect(&acceptor, &node, host).await, expected) {
        (Ok(_), Ok(())) => {}
        (Err(error), Err(part)) => {
            assert_eq!(error.kind(), ErrorKind::InvalidData, "{error}");
            assert!(error.to_string().contains(part), "{error}");
        }
        (found, expected) => panic!("{host}: {found:?}, expected {expected:?}"),
    }
}

#[tokio::test]
async fn full_wants_the_chain_and_the_dialled_name() {
    let authority = Authority::new();
    let full = || authority.trusted(Verify::Full);
    check(&authority, "node-0.example", full(), "node-0.example", Ok(())).await;
    check(&authority, "127.0.0.1", full(), "127.0.0.1", Ok(())).await;
    check(&authority, "::1", full(), "::1", Ok(())).await;
    check(&authority, "node-0.example", full(), "node-1.example", Err("not valid for name")).await;
    check(&authority, "node-0.example", full(), "127.0.0.1", Err("not valid for name")).await;
    check(&authority, "node-0.example", Authority::new().trusted(Verify::Full), "node-0.example", Err("BadSignature"))
        .await;
}

#[tokio::test]
async fn server_name_stands_for_every_host() {
    let authority = Authority::new();
    let named = |name: &str| NodeTls { server_name: Some(name.to_owned()), ..authority.trusted(Verify::Full) };
    check(&authority, "cluster.example", named("cluster.example"), "127.0.0.1", Ok(())).await;
    check(&authority, "cluster.example", named("other.example"), "127.0.0.1", Err("not valid for name")).await;
}

#[tokio::test]
async fn ca_wants_the_chain_and_no_name() {
    let authority = Authority::new();
    check(&authority, "node-0.example", authority.trusted(Verify::Ca), "127.0.0.1", Ok(())).await;
    check(&authority, "node-0.example", Authority::new().trusted(Verify::Ca), "127.0.0.1", Err("BadSignature")).await;
}

#[tokio::test]
async fn off_takes_any_certificate_and_needs_no_ca() {
    let off = NodeTls { verify: Verify::Off, ..NodeTls::default() };
    check(&Authority::new(), "node-0.example", off, "127.0.0.1", Ok(())).await;
}

#[tokio::test]
async fn speaks_tls_1_2_and_1_3() {
    let authority = Authority::new();
    for verify in [Verify::Full, Verify::Ca, Verify::Off] {
        for (version, expected) in
            [(VERSIONS, ProtocolVersion::TLSv1_3), (&[&rustls::version::TLS12], ProtocolVersion::TLSv1_2)]
        {
            let acceptor = ClientAcceptor::with_versions(&authority.server("127.0.0.1"), version).unwrap();
            assert_eq!(connect(&acceptor, &authority.trusted(verify), "127.0.0.1").await.unwrap(), expected);
        }
    }
}

/// What a client with this hello reads first: type and, of an alert, level and description; and the acceptor's error.
async fn answer_to(acceptor: &ClientAcceptor, hello: &[u8]) -> (u8, [u8; 2], io::Result<()>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    client.write_all(hello).await.unwrap();
    let turns = Arc::new(Semaphore::new(1));
    let accepted = acceptor.accept(listener.accept().await.unwrap().0, &turns);
    let client = async {
        let mut record = [0; 7];
        client.read_exact(&mut record).await.unwrap();
        // What is answered with more than an alert waits for the client's next message: there is none.
        drop(client);
        (record[0], [record[5], record[6]])
    };
    let (accepted, (kind, alert)) = tokio::join!(accepted, client);
    (kind, alert, accepted.map(drop).map_err(io::Error::from))
}

#[tokio::test]
async fn older_tls_and_suites_without_encryption_are_refused_with_an_alert() {
    const HANDSHAKE: u8 = 22;
    const ALERT: u8 = 21;
    const FATAL_PROTOCOL_VERSION: [u8; 2] = [2, 70];
    const FATAL_HANDSHAKE_FAILURE: [u8; 2] = [2, 40];
    const SUITE: u16 = 0xc02b; // TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
    const NULL_SUITES: [u16; 3] = [0x0001, 0x003b, 0xc006];
    let acceptor = ClientAcceptor::from_config(&Authority::new().server("127.0.0.1")).unwrap();
    // What is refused below is refused for its version or its suites alone.
    assert_eq!(answer_to(&acceptor, &hello(0x0303, &[SUITE])).await.0, HANDSHAKE);
    for old in [0x0300, 0x0301, 0x0302] {
        let (kind, alert, accepted) = answer_to(&acceptor, &hello(old, &[SUITE, 0xc009, 0x002f])).await;
        assert_eq!((kind, alert), (ALERT, FATAL_PROTOCOL_VERSION), "{old:#06x}");
        assert_eq!(accepted.unwrap_err().kind(), ErrorKind::InvalidData);
    }
    let (kind, alert, accepted) = answer_to(&acceptor, &hello(0x0303, &NULL_SUITES)).await;
    assert_eq!((kind, alert), (ALERT, FATAL_HANDSHAKE_FAILURE));
    let error = accepted.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidData);
    let text = error.to_string();
    assert!(
        text.contains("the client offers TLS_RSA_WITH_NULL_MD5, TLS_RSA_WITH_NULL_SHA256, TLS_ECDHE_ECDSA_WITH_NULL_SHA; the gateway")
            && text.contains("TLS13_AES_256_GCM_SHA384"),
        "{text}"
    );
}

#[tokio::test]
async fn records_of_one_byte_arrive_and_a_flood_of_key_updates_ends_the_connection() {
    let authority = Authority::new();
    let acceptor = ClientAcceptor::from_config(&authority.server("127.0.0.1")).unwrap();
    let connector = NodeConnector::from_config(&authority.trusted(Verify::Full)).unwrap();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let dialled = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let turns = Arc::new(Semaphore::new(1));
    let accepted = listener.accept().await.unwrap().0;
    let face = connector.own();
    let (server, client) = tokio::join!(acceptor.accept(accepted, &turns), face.connect(dialled, "127.0.0.1"));
    let (mut server, mut client) = (server.unwrap(), client.unwrap());
    for byte in 0..200 {
        client.write_all(&[byte]).await.unwrap();
        client.flush().await.unwrap();
    }
    let mut received = [0; 200];
    server.read_exact(&mut received).await.unwrap();
    assert_eq!(received.to_vec(), (0..200).collect::<Vec<u8>>());

    for _ in 0..1000 {
        client.get_mut().1.refresh_traffic_keys().unwrap();
        client.flush().await.unwrap();
    }
    // Were they all taken, the byte behind them would come.
    let _ = client.write_all(b"x").await;
    let ended = server.read(&mut received).await.unwrap_err();
    assert_eq!(ended.kind(), ErrorKind::InvalidData);
    assert!(ended.to_string().contains("TooManyKeyUpdateRequests"), "{ended}");
}

#[tokio::test]
async fn plain_text_is_refused_on_both_sides() {
    let authority = Authority::new();
    let acceptor = ClientAcceptor::from_config(&authority.server("127.0.0.1")).unwrap();
    let connector = NodeConnector::from_config(&authority.trusted(Verify::Full)).unwrap();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let options = [4, 0, 0, 0, 5, 0, 0, 0, 0];

    let mut plain = TcpStream::connect(address).await.unwrap();
    plain.write_all(&options).await.unwrap();
    let refused = acceptor.accept(listener.accept().await.unwrap().0, &Arc::new(Semaphore::new(1))).await;
    assert_eq!(refused.unwrap_err().error.kind(), ErrorKind::InvalidData);

    let dialled = TcpStream::connect(address).await.unwrap();
    let mut plain = listener.accept().await.unwrap().0;
    plain.write_all(&options).await.unwrap();
    let refused = connector.own().connect(dialled, "127.0.0.1").await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::InvalidData);
}

#[tokio::test]
async fn shows_its_own_certificate_to_a_node_that_requires_one() {
    let authority = Authority::new();
    let server = authority.server("127.0.0.1");
    let roots = Arc::new(pem::read_roots(authority.trusted(Verify::Full).ca.as_deref().unwrap()).unwrap());
    let config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(VERSIONS)
        .unwrap()
        .with_client_cert_verifier(WebPkiClientVerifier::builder_with_provider(roots, provider()).build().unwrap())
        .with_cert_resolver(pem::read_certified_key(&provider(), &server.certificate, &server.key).unwrap());
    let acceptor = ClientAcceptor(Current::new(config));

    let without = authority.trusted(Verify::Full);
    let with = NodeTls { certificate: Some(server.certificate), key: Some(server.key), ..without.clone() };
    assert!(connect(&acceptor, &with, "127.0.0.1").await.is_ok());
    assert!(connect(&acceptor, &without, "127.0.0.1").await.is_err());
}

fn acceptor_error(certificate: &Path, key: &Path) -> TlsError {
    let tls = ClientTls::new(certificate.to_path_buf(), key.to_path_buf());
    ClientAcceptor::from_config(&tls).err().unwrap()
}

#[test]
fn errors_name_the_file_and_what_is_wrong() {
    let authority = Authority::new();
    let ClientTls { certificate, key, .. } = authority.server("127.0.0.1");
    let missing = PathBuf::from("/nonexistent/tls.crt");
    assert_eq!(
        acceptor_error(&missing, &key),
        TlsError::Unreadable { path: missing.clone(), kind: ErrorKind::NotFound }
    );
    assert_eq!(acceptor_error(&missing, &key).to_string(), "/nonexistent/tls.crt: cannot be read: entity not found");
    assert_eq!(acceptor_error(&key, &key), TlsError::NoCertificate { path: key.clone() });
    assert_eq!(acceptor_error(&certificate, &certificate), TlsError::NoKey { path: certificate.clone() });
    let other = authority.write("other.key", &KeyPair::generate().unwrap().serialize_pem());
    assert_eq!(
        acceptor_error(&certificate, &other),
        TlsError::KeyMismatch { certificate: certificate.clone(), key: other }
    );
    let pem = fs::read_to_string(&key).unwrap();
    let encrypted = authority.write("encrypted.key", &pem.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY"));
    assert_eq!(acceptor_error(&certificate, &encrypted), TlsError::EncryptedKey { path: encrypted });
    let cut = authority.write("cut.key", pem.split("-----END").next().unwrap());
    assert_eq!(acceptor_error(&certificate, &cut), TlsError::Malformed { path: cut, what: "an END line is missing" });
    let garbage = authority.write("garbage.crt", &pem_of("CERTIFICATE", b"no certificate"));
    assert!(
        matches!(acceptor_error(&garbage, &key), TlsError::BadCertificate { path, position: 1, .. } if path == garbage)
    );
}

#[test]
fn node_side_names_the_missing_part() {
    let authority = Authority::new();
    let error = |tls: NodeTls| NodeConnector::from_config(&tls).err().unwrap();
    let trusted = authority.trusted(Verify::Full);
    assert_eq!(error(NodeTls { ca: None, ..trusted.clone() }), TlsError::CaMissing);
    assert_eq!(error(NodeTls { key: Some(PathBuf::from("tls.key")), ..trusted.clone() }), TlsError::HalfPair);
    let named = NodeTls { server_name: Some("no name".to_owned()), ..trusted };
    assert_eq!(error(named), TlsError::Name { name: "no name".to_owned() });
}

#[test]
fn keys_may_be_pkcs8_pkcs1_or_sec1() {
    let authority = Authority::new();
    let rsa = KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap();
    let ec = KeyPair::generate().unwrap();
    for (key, label) in [(&rsa, "RSA PRIVATE KEY"), (&ec, "EC PRIVATE KEY")] {
        let certificate = authority.write("tls.crt", &authority.sign("127.0.0.1", key).pem());
        let pkcs8 = key.serialize_pem();
        let bare = pem_of(label, inside_pkcs8(&key.serialize_der()));
        for text in [pkcs8, bare] {
            let key = authority.write("tls.key", &text);
            let tls = ClientTls::new(certificate.clone(), key);
            assert!(ClientAcceptor::from_config(&tls).is_ok(), "{label}");
        }
    }
}

/// `PrivateKeyInfo.privateKey` (RFC 5208 §5): the RSAPrivateKey or ECPrivateKey in it.
fn inside_pkcs8(der: &[u8]) -> &[u8] {
    let (_, info, _) = tlv(der);
    let (_, _, after_version) = tlv(info);
    let (_, _, after_algorithm) = tlv(after_version);
    let (tag, key, _) = tlv(after_algorithm);
    assert_eq!(tag, 4, "an OCTET STRING");
    key
}

/// Tag, content and rest of the first DER element.
pub(super) fn tlv(der: &[u8]) -> (u8, &[u8], &[u8]) {
    let (length, head) = match der[1] {
        short @ 0..=0x7F => (usize::from(short), 2),
        long => {
            let bytes = usize::from(long & 0x7F);
            (der[2..2 + bytes].iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), 2 + bytes)
        }
    };
    (der[0], &der[head..head + length], &der[head + length..])
}

pub(super) fn pem_of(label: &str, der: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in der.chunks(3) {
        let bits = chunk.iter().fold(0, |bits, byte| bits << 8 | usize::from(*byte)) << (8 * (3 - chunk.len()));
        for position in 0..4 {
            let sextet = bits >> (18 - 6 * position) & 0x3F;
            text.push(if position <= chunk.len() { char::from(ALPHABET[sextet]) } else { '=' });
        }
        if text.len() % 65 == 64 {
            text.push('\n');
        }
    }
    format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n")
}
