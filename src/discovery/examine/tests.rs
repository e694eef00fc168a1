//! What is said of simulated nodes, right and wrong ones.

use super::*;
use crate::config::NodeTls;
use crate::demo::node::{Cluster, Options};
use crate::discovery::tests::node::self_signed;
use crate::proxy::tls::NodeConnector;

/// What is said of a node, and whether that is good.
async fn said(options: Options, tls: Option<&NodeTls>) -> Result<String, String> {
    let cluster = Cluster::start(options).await.unwrap();
    let tls = tls.map(|tls| NodeConnector::from_config(tls).unwrap());
    let dialer = Dialer { deadline: PATIENCE, tls };
    examine(&dialer, &Target::at(cluster.node(0).address()), &Login::Absent).await
}

#[tokio::test]
async fn what_a_node_speaks_is_said_and_where_the_file_expects_something_else_which_key_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let node = self_signed(folder.path(), "node", "127.0.0.11");
    let trusts = NodeTls { ca: Some(node.certificate.clone()), ..NodeTls::default() };
    let plain = || Options::loopback(1, 0);
    let secured = || Options { tls: Some(node.clone()), ..plain() };
    assert_eq!(said(plain(), None).await.unwrap(), "plain; no login is asked for");
    let over_tls = said(secured(), Some(&trusts)).await.unwrap();
    assert!(over_tls.starts_with("TLS 1.3, TLS13_") && over_tls.contains("IP:127.0.0.11"), "{over_tls}");
    let error = said(plain(), Some(&trusts)).await.unwrap_err();
    assert!(error.ends_with("it speaks plain CQL, and tls.nodes is set"), "{error}");
    let error = said(secured(), None).await.unwrap_err();
    assert!(error.ends_with("it speaks TLS, and tls.nodes is not set"), "{error}");
    let login = Options { credentials: Some(("a".to_owned(), "b".to_owned())), ..plain() };
    let with_login = said(login, None).await.unwrap();
    assert!(
        with_login.contains("clients log in (PasswordAuthenticator), and the gateway has no login of its own"),
        "{with_login}"
    );
}

#[tokio::test]
async fn who_is_not_there_is_said() {
    let nowhere = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let dialer = Dialer { deadline: PATIENCE, tls: None };
    let error = examine(&dialer, &Target::at(nowhere), &Login::Absent).await.unwrap_err();
    assert!(error.contains("connection refused"), "{error}");
}
