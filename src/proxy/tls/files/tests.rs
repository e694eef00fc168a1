//! Rotations, as people and Kubernetes make them, with a client before and after.

use std::fs;
use std::os::unix::fs::symlink;

use rustls::HandshakeKind;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::super::tests::{Authority, connect};
use super::*;
use crate::config::Verify;

/// A server whose files are those of an authority, and which follows them.
struct Server {
    files: Followed,
    acceptor: ClientAcceptor,
}

impl Server {
    fn of(tls: &ClientTls) -> Self {
        let (files, acceptor) = Followed::clients(tls).unwrap();
        Self { files, acceptor }
    }

    async fn is_trusted_by(&self, authority: &Authority) -> bool {
        connect(&self.acceptor, &authority.trusted(Verify::Full), "127.0.0.1").await.is_ok()
    }
}

fn copy(from: &ClientTls, to: &ClientTls) {
    fs::copy(&from.certificate, &to.certificate).unwrap();
    fs::copy(&from.key, &to.key).unwrap();
}

#[tokio::test]
async fn a_certificate_that_was_written_anew_is_used_from_the_next_handshake_on() {
    let (old, new) = (Authority::new(), Authority::new());
    let tls = old.server("127.0.0.1");
    let mut server = Server::of(&tls);
    assert_eq!(server.files.look(), Look::Same);
    assert!(server.is_trusted_by(&old).await && !server.is_trusted_by(&new).await);
    copy(&new.server("127.0.0.1"), &tls);
    assert!(server.is_trusted_by(&old).await);
    assert_eq!(server.files.look(), Look::Taken);
    assert!(!server.is_trusted_by(&old).await && server.is_trusted_by(&new).await);
    assert_eq!(server.files.look(), Look::Same);
}

#[tokio::test]
async fn what_cannot_be_used_changes_nothing_and_is_said_once() {
    let (old, new) = (Authority::new(), Authority::new());
    let tls = old.server("127.0.0.1");
    let mut server = Server::of(&tls);
    let next = new.server("127.0.0.1");
    // Half of a change.
    fs::copy(&next.certificate, &tls.certificate).unwrap();
    assert_eq!(server.files.look(), Look::Doubted);
    assert!(server.is_trusted_by(&old).await);
    let Look::Refused(TlsError::KeyMismatch { .. }) = server.files.look() else { panic!("said the second time") };
    assert_eq!(server.files.look(), Look::Same);
    assert!(server.is_trusted_by(&old).await);
    // Another thing that is wrong is news again.
    fs::remove_file(&tls.key).unwrap();
    assert_eq!(server.files.look(), Look::Doubted);
    assert!(matches!(server.files.look(), Look::Refused(TlsError::Unreadable { .. })));
    fs::copy(&next.key, &tls.key).unwrap();
    assert_eq!(server.files.look(), Look::Taken);
    assert!(server.is_trusted_by(&new).await);
}

/// kubelet's `..data`: a link to a directory, replaced by renaming another link over it.
#[tokio::test]
async fn the_links_of_a_mounted_secret_are_followed() {
    let (old, new, mount) = (Authority::new(), Authority::new(), tempfile::tempdir().unwrap());
    let at = |name: &str| mount.path().join(name);
    let fill = |name: &str, tls: &ClientTls| {
        fs::create_dir(at(name)).unwrap();
        fs::copy(&tls.certificate, at(name).join("tls.crt")).unwrap();
        fs::copy(&tls.key, at(name).join("tls.key")).unwrap();
    };
    fill("..first", &old.server("127.0.0.1"));
    symlink("..first", at("..data")).unwrap();
    for file in ["tls.crt", "tls.key"] {
        symlink(format!("..data/{file}"), at(file)).unwrap();
    }
    let mut server = Server::of(&ClientTls::new(at("tls.crt"), at("tls.key")));
    fill("..second", &new.server("127.0.0.1"));
    symlink("..second", at("..data_tmp")).unwrap();
    fs::rename(at("..data_tmp"), at("..data")).unwrap();
    assert_eq!(server.files.look(), Look::Taken);
    assert!(server.is_trusted_by(&new).await && !server.is_trusted_by(&old).await);
}

#[tokio::test]
async fn the_cas_by_which_nodes_are_verified_are_followed_too() {
    let (old, new) = (Authority::new(), Authority::new());
    let tls = old.trusted(Verify::Full);
    let (mut files, connector) = Followed::nodes(&tls).unwrap();
    let servers = [&old, &new].map(|authority| Server::of(&authority.server("127.0.0.1")));
    let trusts = async |server: &Server| handshake(&server.acceptor, &connector).await.is_ok();
    assert!(trusts(&servers[0]).await && !trusts(&servers[1]).await);
    let ca = tls.ca.unwrap();
    let both = [fs::read(&ca).unwrap(), fs::read(new.trusted(Verify::Full).ca.unwrap()).unwrap()].concat();
    fs::write(&ca, both).unwrap();
    assert_eq!(files.look(), Look::Taken);
    assert!(trusts(&servers[0]).await && trusts(&servers[1]).await);
    fs::copy(new.trusted(Verify::Full).ca.unwrap(), &ca).unwrap();
    assert_eq!(files.look(), Look::Taken);
    assert!(!trusts(&servers[0]).await && trusts(&servers[1]).await);
}

/// How the handshake went for the client, whose session is kept for the next one.
pub(in crate::proxy::tls) async fn handshake(
    acceptor: &ClientAcceptor,
    connector: &NodeConnector,
) -> io::Result<HandshakeKind> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    let server = async {
        let mut tls = acceptor.accept(listener.accept().await?.0, &Arc::new(Semaphore::new(1))).await?;
        tls.write_all(b"x").await?;
        tls.shutdown().await
    };
    let client = async {
        let mut tls = connector.own().connect(TcpStream::connect(address).await?, "127.0.0.1").await?;
        // The tickets come with what is read.
        tls.read_to_end(&mut Vec::new()).await?;
        tls.get_ref().1.handshake_kind().ok_or_else(|| io::ErrorKind::Other.into())
    };
    tokio::join!(server, client).1
}

#[tokio::test]
async fn a_ticket_does_not_outlive_what_it_was_issued_under() {
    let authority = Authority::new();
    let tls = authority.server("127.0.0.1");
    let mut server = Server::of(&tls);
    let connector = NodeConnector::from_config(&authority.trusted(Verify::Full)).unwrap();
    assert_eq!(handshake(&server.acceptor, &connector).await.unwrap(), HandshakeKind::Full);
    assert_eq!(handshake(&server.acceptor, &connector).await.unwrap(), HandshakeKind::Resumed);
    // The same authority, another certificate.
    authority.server("127.0.0.1");
    assert_eq!(server.files.look(), Look::Taken);
    assert_ne!(handshake(&server.acceptor, &connector).await.unwrap(), HandshakeKind::Resumed);
    assert_eq!(handshake(&server.acceptor, &connector).await.unwrap(), HandshakeKind::Resumed);
}

#[tokio::test]
async fn the_end_of_the_certificate_is_a_metric_and_follows_it() {
    let authority = Authority::new();
    let mut server = Server::of(&authority.server("127.0.0.1"));
    let metrics = Metrics::new();
    server.files.tell_ends(&metrics);
    let shown = |metrics: &Metrics| {
        let text = metrics.render().unwrap();
        let line = text.lines().find(|line| line.starts_with("cqlgate_tls_certificate_expiry_timestamp_seconds{"));
        line.map(str::to_owned)
    };
    let before = shown(&metrics).unwrap();
    assert!(before.contains("side=\"clients\""), "{before}");
    authority.server_until("127.0.0.1", 2040);
    let look = server.files.look();
    assert_eq!(look, Look::Taken);
    server.files.tell(look, &metrics);
    let seconds = "2208988800"; // 2040-01-01T00:00:00Z
    let after = shown(&metrics).unwrap();
    assert!(after.ends_with(seconds) && after != before, "{after}");
    assert!(metrics.render().unwrap().contains("cqlgate_tls_reloads_total{outcome=\"taken\",side=\"clients\"} 1"));
}
