//! Clients with certificates of all kinds at one that asks for them: in each test somebody gets in.

use std::path::PathBuf;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevocationReason, RevokedCertParams, SanType,
    SerialNumber, date_time_ymd,
};

use rustls::HandshakeKind;
use rustls_pki_types::CertificateRevocationListDer;
use rustls_pki_types::pem::PemObject;

use super::*;
use crate::config::{ClientTls, NodeTls, Verify};
use crate::proxy::tls::acceptor::ClientAcceptor;
use crate::proxy::tls::connector::NodeConnector;
use crate::proxy::tls::files::tests::handshake;
use crate::proxy::tls::files::{Followed, Look};
use crate::proxy::tls::tests::{Authority, meet, pem_of};
use crate::proxy::tls::verify::tests::{signed_without, version_1};

const CRL_SERIAL: u64 = 66;

/// A client's certificate from these parameters.
pub(in crate::proxy::tls) fn client(
    authority: &Authority,
    name: &str,
    change: impl FnOnce(&mut CertificateParams),
) -> (PathBuf, PathBuf) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.serial_number = Some(SerialNumber::from(7));
    change(&mut params);
    let certificate = params.signed_by(&key, &authority.issuer).unwrap().pem();
    let file = |kind: &str, text: &str| authority.write(&format!("{name}.{kind}"), text);
    (file("crt", &certificate), file("key", &key.serialize_pem()))
}

/// A list of the CA's: serial 66 is revoked.
fn revocations(authority: &Authority, until: i32) -> PathBuf {
    let revoked = RevokedCertParams {
        serial_number: SerialNumber::from(CRL_SERIAL),
        revocation_time: date_time_ymd(2020, 1, 1),
        reason_code: Some(RevocationReason::KeyCompromise),
        invalidity_date: None,
    };
    let list = CertificateRevocationListParams {
        this_update: date_time_ymd(2020, 1, 1),
        next_update: date_time_ymd(until, 1, 1),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: vec![revoked],
        key_identifier_method: KeyIdMethod::Sha256,
    };
    authority.write("crl.pem", &list.signed_by(&authority.issuer).unwrap().pem().unwrap())
}

struct Door {
    servers: Authority,
    clients: Authority,
    server: ClientTls,
}

impl Door {
    fn new(change: impl FnOnce(&Authority, &mut ClientAuth)) -> Self {
        let (servers, clients) = (Authority::new(), Authority::new());
        let mut server = servers.server("127.0.0.1");
        let ca = clients.trusted(Verify::Full).ca;
        server.client_auth = ClientAuth { mode: AuthMode::Required, ca, ..ClientAuth::default() };
        change(&clients, &mut server.client_auth);
        Self { servers, clients, server }
    }

    /// What becomes of who shows this certificate: as whom he is known, or why he is refused.
    async fn check(&self, pair: Option<&(PathBuf, PathBuf)>, expected: Result<&str, CertificateRefused>) {
        for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
            let acceptor = ClientAcceptor::with_versions(&self.server, &[version]).unwrap();
            let (certificate, key) = pair.cloned().unzip();
            let shows = NodeTls { certificate, key, ..self.servers.trusted(Verify::Full) };
            let (server, client) = meet(&acceptor, &shows, "127.0.0.1").await;
            match (server, expected) {
                (Ok(shown), Ok(name)) => {
                    assert_eq!(shown.map(|shown| shown.name()).unwrap_or_default(), name, "{pair:?}");
                    client.unwrap();
                }
                (Err(error), Err(reason)) => {
                    assert_eq!(CertificateRefused::of(&error), Some(reason), "{pair:?}: {error}");
                    client.unwrap_err();
                }
                (server, _) => panic!("{pair:?} at {version:?}: {server:?}, expected {expected:?}"),
            }
        }
    }
}

#[tokio::test]
async fn who_must_have_a_certificate_of_the_ca_gets_in_with_one_alone() {
    let door = Door::new(|_, _| {});
    let of = |name: &str, change: fn(&mut CertificateParams)| client(&door.clients, name, change);
    door.check(Some(&of("app", |_| {})), Ok("CN:app")).await;
    door.check(None, Err(CertificateRefused::Absent)).await;
    door.check(Some(&client(&Authority::new(), "stranger", |_| {})), Err(CertificateRefused::UnknownIssuer)).await;
    let expired = of("expired", |params| params.not_after = date_time_ymd(2024, 1, 1));
    door.check(Some(&expired), Err(CertificateRefused::Expired)).await;
    let early = of("early", |params| params.not_before = date_time_ymd(2100, 1, 1));
    door.check(Some(&early), Err(CertificateRefused::NotYetValid)).await;
    let server = of("server", |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]);
    door.check(Some(&server), Err(CertificateRefused::Purpose)).await;
    // Without any purpose a certificate is for all (RFC 5280 §4.2.1.12).
    door.check(Some(&of("any", |params| params.extended_key_usages.clear())), Ok("CN:any")).await;
    let old = of("old", |_| {});
    let old = (version_1(&door.clients, &old), old.1);
    door.check(Some(&old), Err(CertificateRefused::Version)).await;
}

#[tokio::test]
async fn where_certificates_are_optional_a_wrong_one_is_none_and_gets_nobody_in() {
    let door = Door::new(|_, auth| auth.mode = AuthMode::Optional);
    door.check(None, Ok("")).await;
    door.check(Some(&client(&door.clients, "app", |_| {})), Ok("CN:app")).await;
    door.check(Some(&client(&Authority::new(), "stranger", |_| {})), Err(CertificateRefused::UnknownIssuer)).await;
}

#[tokio::test]
async fn of_all_that_the_ca_has_signed_those_get_in_who_are_listed() {
    let patterns = ["CN:app-*", "URI:spiffe://example.com/ns/*/app"];
    let door =
        Door::new(|_, auth| auth.allow = Some(patterns.iter().map(|pattern| pattern.parse().unwrap()).collect()));
    door.check(Some(&client(&door.clients, "app-1", |_| {})), Ok("CN:app-1")).await;
    let uri = |uri: &str| {
        let name = SanType::URI(uri.try_into().unwrap());
        client(&door.clients, "other", |params| params.subject_alt_names = vec![name])
    };
    let meant = "spiffe://example.com/ns/db/app";
    door.check(Some(&uri(meant)), Ok(&format!("URI:{meant}"))).await;
    door.check(Some(&uri("spiffe://example.com/ns/db/sa/app")), Err(CertificateRefused::NotAllowed)).await;
    door.check(Some(&client(&door.clients, "other", |_| {})), Err(CertificateRefused::NotAllowed)).await;
}

#[tokio::test]
async fn who_is_revoked_is_refused_and_so_is_everybody_by_a_list_that_is_too_old_unless_that_is_allowed() {
    let revoked = |params: &mut CertificateParams| params.serial_number = Some(SerialNumber::from(CRL_SERIAL));
    let door = |until: i32, expired: CrlExpired| {
        Door::new(|clients, auth| {
            auth.crl = Some(revocations(clients, until));
            auth.crl_expired = expired;
        })
    };
    let fresh = door(2100, CrlExpired::Refuse);
    fresh.check(Some(&client(&fresh.clients, "app", |_| {})), Ok("CN:app")).await;
    fresh.check(Some(&client(&fresh.clients, "left", revoked)), Err(CertificateRefused::Revoked)).await;
    let old = door(2021, CrlExpired::Refuse);
    old.check(Some(&client(&old.clients, "app", |_| {})), Err(CertificateRefused::RevocationExpired)).await;
    let lax = door(2021, CrlExpired::Allow);
    lax.check(Some(&client(&lax.clients, "app", |_| {})), Ok("CN:app")).await;
    lax.check(Some(&client(&lax.clients, "left", revoked)), Err(CertificateRefused::Revoked)).await;
}

#[tokio::test]
async fn a_certificate_of_a_ca_of_which_no_list_tells_is_refused() {
    let others = Authority::new();
    let door = Door::new(|_, auth| auth.crl = Some(revocations(&others, 2100)));
    // Of another CA of the same name: its list's signature is not the issuer's.
    door.check(Some(&client(&door.clients, "app", |_| {})), Err(CertificateRefused::RevocationUnknown)).await;
    let own = Door::new(|clients, auth| auth.crl = Some(revocations(clients, 2100)));
    own.check(Some(&client(&own.clients, "app", |_| {})), Ok("CN:app")).await;
}

#[tokio::test]
async fn a_chain_of_eight_is_followed_and_whose_middle_is_no_ca_is_not() {
    let door = Door::new(|_, _| {});
    let chain = |depth: usize, is_ca: bool| {
        let mut pems = Vec::new();
        let mut issuer: Option<CertifiedIssuer<'static, KeyPair>> = None;
        for level in 0..depth {
            let mut params = CertificateParams::new(Vec::new()).unwrap();
            params.distinguished_name.push(DnType::CommonName, format!("level {level}"));
            params.is_ca = if is_ca { IsCa::Ca(BasicConstraints::Unconstrained) } else { IsCa::ExplicitNoCa };
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
            let key = KeyPair::generate().unwrap();
            let next = match &issuer {
                None => CertifiedIssuer::signed_by(params, key, &door.clients.issuer),
                Some(issuer) => CertifiedIssuer::signed_by(params, key, issuer),
            };
            let next = next.unwrap();
            pems.push(next.pem());
            issuer = Some(next);
        }
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, "deep");
        pems.push(params.signed_by(&key, &issuer.unwrap()).unwrap().pem());
        pems.reverse();
        (door.clients.write("deep.crt", &pems.concat()), door.clients.write("deep.key", &key.serialize_pem()))
    };
    door.check(Some(&chain(6, true)), Ok("CN:deep")).await;
    door.check(Some(&chain(1, false)), Err(CertificateRefused::Other)).await;
    door.check(Some(&chain(40, true)), Err(CertificateRefused::Other)).await;
}

#[test]
fn what_is_wrong_with_the_files_is_said() {
    let door = Door::new(|_, _| {});
    let error = |auth: ClientAuth| {
        let tls = ClientTls { client_auth: auth, ..door.server.clone() };
        ClientAcceptor::from_config(&tls).err().unwrap().to_string()
    };
    let auth = &door.server.client_auth;
    assert_eq!(error(ClientAuth { ca: None, ..auth.clone() }), TlsError::ClientCaMissing.to_string());
    let no_list = auth.ca.clone();
    assert!(error(ClientAuth { crl: no_list, ..auth.clone() }).contains("no certificate revocation list in it"));
    let list = CertificateRevocationListDer::from_pem_file(revocations(&door.clients, 2100)).unwrap();
    let (integer, extensions) = (2, 0xa0);
    let old = signed_without(&list, &[integer, extensions], door.clients.issuer.key());
    let old = door.clients.write("old.crl", &pem_of("X509 CRL", &old));
    let text = error(ClientAuth { crl: Some(old), ..auth.clone() });
    assert!(text.contains("is of version 1: make it anew with extensions"), "{text}");
    let garbage = door.clients.write("bad.crl", &pem_of("X509 CRL", b"none"));
    let text = error(ClientAuth { crl: Some(garbage.clone()), ..auth.clone() });
    assert!(text.starts_with(&garbage.display().to_string()), "{text}");
}

#[tokio::test]
async fn the_clients_ca_is_rotated_without_a_handshake_that_fails() {
    let next = Authority::new();
    let door = Door::new(|_, _| {});
    let (mut files, acceptor) = Followed::clients(&door.server).unwrap();
    let pairs = [client(&door.clients, "old", |_| {}), client(&next, "new", |_| {})];
    let gets_in = async |pair: &(PathBuf, PathBuf)| {
        let (certificate, key) = (Some(pair.0.clone()), Some(pair.1.clone()));
        let shows = NodeTls { certificate, key, ..door.servers.trusted(Verify::Full) };
        meet(&acceptor, &shows, "127.0.0.1").await.0.is_ok()
    };
    let ca = door.server.client_auth.ca.as_ref().unwrap();
    let [old, new] = [door.clients.issuer.pem(), next.issuer.pem()];
    assert!(gets_in(&pairs[0]).await && !gets_in(&pairs[1]).await);
    for (file, expected) in [(format!("{old}{new}"), [true, true]), (new, [false, true])] {
        std::fs::write(ca, file).unwrap();
        assert_eq!(files.look(), Look::Taken);
        assert_eq!([gets_in(&pairs[0]).await, gets_in(&pairs[1]).await], expected);
    }
}

#[tokio::test]
async fn who_is_revoked_meanwhile_has_no_session_to_resume() {
    let door = Door::new(|clients, auth| auth.crl = Some(revocations(clients, 2100)));
    let acceptor = ClientAcceptor::from_config(&door.server).unwrap();
    let (certificate, key) = client(&door.clients, "app", |_| {});
    let shows = NodeTls { certificate: Some(certificate), key: Some(key), ..door.servers.trusted(Verify::Full) };
    let connector = NodeConnector::from_config(&shows).unwrap();
    for _ in 0..3 {
        assert_eq!(handshake(&acceptor, &connector).await.unwrap(), HandshakeKind::Full);
    }
}

#[test]
fn when_a_list_is_too_old_is_a_metric() {
    let door = Door::new(|clients, auth| auth.crl = Some(revocations(clients, 2040)));
    let metrics = crate::metrics::Metrics::new();
    Followed::clients(&door.server).unwrap().0.tell_ends(&metrics);
    let line = "cqlgate_tls_revocation_list_expiry_timestamp_seconds 2208988800"; // 2040-01-01T00:00:00Z
    assert!(metrics.render().unwrap().contains(line));
}
