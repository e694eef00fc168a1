//! As whom nodes are dialled.

use super::*;
use crate::config::identity::Kind;
use crate::config::{AuthMode, ClientAuth, ClientTls, Verify};
use crate::proxy::tls::acceptor::ClientAcceptor;
use crate::proxy::tls::client_auth::tests::client;
use crate::proxy::tls::tests::{Authority, meet_as};

fn shown(name: &str) -> Shown {
    Shown { is_version_1: false, begins: 0, ends: 0, names: vec![(Kind::CommonName, name.to_owned())] }
}

/// A node that asks for certificates of this CA.
fn node(authority: &Authority) -> ClientAcceptor {
    let mut tls: ClientTls = authority.server("127.0.0.1");
    let ca = authority.trusted(Verify::Full).ca;
    tls.client_auth = ClientAuth { mode: AuthMode::Optional, ca, ..ClientAuth::default() };
    ClientAcceptor::from_config(&tls).unwrap()
}

#[tokio::test]
async fn a_node_is_shown_the_certificate_of_the_client_and_the_gateways_own_to_probes_alone() {
    let authority = Authority::new();
    let pair = |name: &str| client(&authority, name, |_| {});
    let identity = |pattern: &str, name: &str| {
        let (certificate, key) = pair(name);
        Identity { client: pattern.parse().unwrap(), certificate, key }
    };
    let own = pair("gateway");
    let identities = vec![identity("CN:app-1", "role-1"), identity("CN:app-*", "role-2")];
    let tls = NodeTls { certificate: Some(own.0), key: Some(own.1), identities, ..authority.trusted(Verify::Full) };
    let (node, connector) = (node(&authority), NodeConnector::from_config(&tls).unwrap());
    let seen = async |face: Face| {
        let seen = meet_as(&node, &face, "127.0.0.1").await.0.unwrap();
        seen.map(|shown| shown.name()).unwrap_or_default()
    };
    // Twice and in turn: a session of one is never resumed by another.
    for _ in 0..2 {
        assert_eq!(seen(connector.own()).await, "CN:gateway");
        assert_eq!(seen(connector.of_client(Some(&shown("app-1"))).unwrap()).await, "CN:role-1");
        assert_eq!(seen(connector.of_client(Some(&shown("app-2"))).unwrap()).await, "CN:role-2");
    }
    assert!(connector.of_client(Some(&shown("gateway"))).is_none());
    assert!(connector.of_client(None).is_none());
}

#[tokio::test]
async fn without_identities_all_clients_are_the_gateway() {
    let authority = Authority::new();
    let own = client(&authority, "gateway", |_| {});
    let tls = NodeTls { certificate: Some(own.0), key: Some(own.1), ..authority.trusted(Verify::Full) };
    let connector = NodeConnector::from_config(&tls).unwrap();
    for who in [None, Some(shown("app-1"))] {
        let face = connector.of_client(who.as_ref()).unwrap();
        let seen = meet_as(&node(&authority), &face, "127.0.0.1").await.0.unwrap();
        assert_eq!(seen.unwrap().name(), "CN:gateway");
    }
}

#[test]
fn where_there_is_nothing_in_common_the_line_says_what_the_gateway_has() {
    for alert in [AlertDescription::HandshakeFailure, AlertDescription::ProtocolVersion] {
        let text =
            with_suites(io::Error::new(io::ErrorKind::InvalidData, rustls::Error::AlertReceived(alert))).to_string();
        assert!(text.contains("no common suite or version; the gateway offers TLS 1.2 and 1.3 with TLS13_"), "{text}");
    }
    let other = rustls::Error::AlertReceived(AlertDescription::UnknownCA);
    let text = with_suites(io::Error::new(io::ErrorKind::InvalidData, other)).to_string();
    assert!(!text.contains("suite"), "{text}");
}

#[test]
fn a_refused_certificate_is_told_from_other_ends() {
    let alert = |alert| io::Error::new(io::ErrorKind::InvalidData, rustls::Error::AlertReceived(alert));
    for refused in
        [AlertDescription::CertificateRequired, AlertDescription::BadCertificate, AlertDescription::UnknownCA]
    {
        assert!(refuses_certificate(&alert(refused)), "{refused:?}");
    }
    assert!(!refuses_certificate(&alert(AlertDescription::HandshakeFailure)));
    assert!(!refuses_certificate(&io::ErrorKind::ConnectionReset.into()));
}
