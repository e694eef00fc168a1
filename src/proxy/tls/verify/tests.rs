//! Nodes with certificates as people make them.

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, PublicKeyData, SigningKey, date_time_ymd};
use rustls::version::{TLS12, TLS13};
use rustls_pki_types::pem::PemObject;

use super::*;
use crate::config::ClientTls;
use crate::proxy::tls::acceptor::ClientAcceptor;
use crate::proxy::tls::tests::{Authority, meet, pem_of, tlv};

/// The same certificate without version and extensions, signed anew, as `openssl x509 -req` without `-extfile` would have made it.
pub(in crate::proxy::tls) fn version_1(authority: &Authority, pair: &(PathBuf, PathBuf)) -> PathBuf {
    let der = CertificateDer::from_pem_slice(&fs::read(&pair.0).unwrap()).unwrap();
    const VERSION: u8 = 0xa0;
    const EXTENSIONS: u8 = 0xa3;
    let signed = signed_without(&der, &[VERSION, EXTENSIONS], authority.issuer.key());
    authority.write("v1.crt", &pem_of("CERTIFICATE", &signed))
}

/// What is signed, without the fields of these tags, signed anew.
pub(in crate::proxy::tls) fn signed_without(der: &[u8], tags: &[u8], key: &KeyPair) -> Vec<u8> {
    let (_, certificate, _) = tlv(der);
    let (_, tbs, after) = tlv(certificate);
    let (algorithm, _) = element(after);
    let (mut fields, mut rest) = (Vec::new(), tbs);
    while !rest.is_empty() {
        let (field, next) = element(rest);
        if !tags.contains(&field[0]) {
            fields.extend(field);
        }
        rest = next;
    }
    let tbs = sequence(0x30, &fields);
    let signature = [&[0][..], &key.sign(&tbs).unwrap()].concat();
    sequence(0x30, &[&tbs[..], algorithm, &sequence(3, &signature)].concat())
}

/// The first element with its head, and the rest.
fn element(der: &[u8]) -> (&[u8], &[u8]) {
    let (_, _, rest) = tlv(der);
    der.split_at(der.len() - rest.len())
}

fn sequence(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).unwrap().to_be_bytes();
    let length = match length {
        [0, short @ 0..=0x7f] => vec![short],
        [0, long] => vec![0x81, long],
        [high, low] => vec![0x82, high, low],
    };
    [&[tag][..], &length, content].concat()
}

/// A node's pair, from these parameters.
fn pair(authority: &Authority, change: impl FnOnce(&mut CertificateParams)) -> (PathBuf, PathBuf) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["node-0.example".to_owned()]).unwrap();
    change(&mut params);
    let certificate = params.signed_by(&key, &authority.issuer).unwrap().pem();
    (authority.write("node.crt", &certificate), authority.write("node.key", &key.serialize_pem()))
}

/// Its own issuer, and a CA by its own word.
fn self_signed(authority: &Authority, change: impl FnOnce(&mut CertificateParams)) -> (PathBuf, PathBuf) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["cluster".to_owned()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    change(&mut params);
    let certificate = params.self_signed(&key).unwrap().pem();
    (authority.write("self.crt", &certificate), authority.write("self.key", &key.serialize_pem()))
}

/// What becomes of a node with this pair where `ca` is listed: nothing, or this in the error.
async fn check(pair: &(PathBuf, PathBuf), ca: &Path, expected: Result<(), &str>) {
    for verify in [Verify::Full, Verify::Ca] {
        for version in [&TLS12, &TLS13] {
            let node =
                ClientAcceptor::with_versions(&ClientTls::new(pair.0.clone(), pair.1.clone()), &[version]).unwrap();
            let trusts = NodeTls { ca: Some(ca.to_owned()), verify, ..NodeTls::default() };
            match (meet(&node, &trusts, "127.0.0.1").await.1, expected) {
                (Ok(_), Ok(())) => {}
                (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{verify:?} {version:?}: {error}"),
                (found, _) => panic!("{verify:?} {version:?}: {found:?}, expected {expected:?}"),
            }
        }
    }
}

#[tokio::test]
async fn one_certificate_for_all_nodes_that_is_listed_is_trusted_as_it_is() {
    let authority = Authority::new();
    let listed = self_signed(&authority, |_| {});
    let ca = authority.write("listed.crt", &fs::read_to_string(&listed.0).unwrap());
    check(&listed, &ca, Ok(())).await;
    // The same names and another key.
    check(&self_signed(&authority, |_| {}), &ca, Err("invalid peer certificate")).await;
}

#[tokio::test]
async fn of_version_1_a_certificate_is_trusted_where_it_is_listed_and_named_where_its_ca_is() {
    let authority = Authority::new();
    let v3 = pair(&authority, |_| {});
    let v1 = (version_1(&authority, &v3), v3.1);
    check(&v1, &v1.0, Ok(())).await;
    let ca = authority.trusted(Verify::Full).ca.unwrap();
    check(&v1, &ca, Err("is of X.509 version 1")).await;
    check(&v1, &ca, Err("sign it anew with an extension file")).await;
}

#[tokio::test]
async fn a_listed_certificate_has_its_dates() {
    let authority = Authority::new();
    let expired = self_signed(&authority, |params| params.not_after = date_time_ymd(2024, 1, 1));
    check(&expired, &expired.0, Err("xpired")).await;
    let early = self_signed(&authority, |params| params.not_before = date_time_ymd(2100, 1, 1));
    check(&early, &early.0, Err("NotValidYet")).await;
}

#[tokio::test]
async fn who_shows_a_listed_certificate_without_its_key_is_refused() {
    let authority = Authority::new();
    let listed = self_signed(&authority, |_| {});
    let other = KeyPair::generate().unwrap();
    for version in [&TLS12, &TLS13] {
        let provider = crate::proxy::tls::provider();
        let chain = pem::read_certificates(&listed.0).unwrap();
        let signer = provider.key_provider.load_private_key(other.serialize_der().try_into().unwrap()).unwrap();
        let stolen = rustls::sign::CertifiedKey::new(chain, signer);
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(stolen)));
        let node = ClientAcceptor(crate::proxy::tls::Current::new(config));
        let trusts = NodeTls { ca: Some(listed.0.clone()), ..NodeTls::default() };
        let error = meet(&node, &trusts, "127.0.0.1").await.1.unwrap_err();
        assert!(error.to_string().contains("BadSignature"), "{version:?}: {error}");
    }
    assert_ne!(other.der_bytes(), authority.issuer.key().der_bytes());
}
