//! One look at a node for people: `cqlgate check --nodes`. What is found is said in words, and what could be meant where it is not
//! what was expected.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::client::{Client, ClientError};
pub use super::own_login::Login;
use crate::proxy::dial::{DialError, Dialer, Target};
use crate::proxy::stream::Stream;
use crate::proxy::tls::connector::spoken;
use crate::proxy::tls::hello::{Answer, OLDER, offer};

/// For one answer of a node.
const PATIENCE: Duration = Duration::from_secs(5);
/// OPTIONS of version 4.
const OPTIONS: [u8; 9] = [4, 0, 0, 0, 5, 0, 0, 0, 0];
const SUPPORTED: u8 = 6;

/// Dials, speaks TLS where the dialer does, asks for OPTIONS and logs in.
///
/// # Errors
/// What is wrong, in words.
pub async fn examine(dialer: &Dialer, target: &Target, login: &Login) -> Result<String, String> {
    let mut client = match Client::open(dialer, target, PATIENCE).await {
        Ok(client) => client,
        Err(error @ ClientError::Dial(DialError::Connect { .. } | DialError::Timeout { .. })) => {
            return Err(error.to_string());
        }
        Err(error) => return Err(format!("{error}{}", meant(dialer, target).await)),
    };
    let over = match client.stream() {
        Stream::Plain(_) => "plain".to_owned(),
        Stream::Tls(tls) => spoken(tls),
    };
    match client.start(login).await {
        Ok(()) if matches!(login, Login::Given(_)) => Ok(format!("{over}; the login is taken, or none is asked for")),
        Ok(()) => Ok(format!("{over}; no login is asked for")),
        Err(error @ ClientError::LoginWithheld { .. }) => Ok(format!("{over}; {error}")),
        Err(ClientError::LoginNeeded { authenticator }) => {
            Ok(format!("{over}; clients log in ({authenticator}), and the gateway has no login of its own"))
        }
        Err(error) => Err(format!("{over}; {error}")),
    }
}

/// What else could be at the port.
async fn meant(dialer: &Dialer, target: &Target) -> String {
    let dialled = || async { timeout(PATIENCE, TcpStream::connect(target.address)).await.ok()?.ok() };
    let Some(stream) = dialled().await else { return String::new() };
    let answer = timeout(PATIENCE, offer(stream, OLDER)).await.ok().and_then(Result::ok);
    match answer {
        Some(Answer::Takes(suite)) if dialer.tls.is_some() => format!(
            "; it would take {suite}, which the gateway does not speak: let its cipher_suites have some with ECDHE and GCM, or TLS 1.3"
        ),
        Some(Answer::Takes(_) | Answer::Refuses) if dialer.tls.is_none() => {
            "; it speaks TLS, and tls.nodes is not set".to_owned()
        }
        Some(Answer::Takes(_) | Answer::Refuses) => String::new(),
        Some(Answer::IsNoTls) | None => {
            let Some(stream) = dialled().await else { return String::new() };
            let is_plain = timeout(PATIENCE, is_plain(stream)).await.unwrap_or(false);
            if is_plain { "; it speaks plain CQL, and tls.nodes is set".to_owned() } else { String::new() }
        }
    }
}

async fn is_plain(mut stream: TcpStream) -> bool {
    let mut header = [0; 9];
    let asked = stream.write_all(&OPTIONS).await;
    asked.is_ok() && stream.read_exact(&mut header).await.is_ok() && header.get(4) == Some(&SUPPORTED)
}

#[cfg(test)]
mod tests;
