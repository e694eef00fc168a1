//! The first thing that a load balancer says, where it is trusted to: whom it brings. From there on the client is that one, to limits,
//! lists and logs.

use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};

use super::Who;
use super::setup::NotEstablished;
use crate::proxy::connections::{Order, Place};
use crate::proxy::header::{Brought, HeaderError, read};
use crate::proxy::relay::ending;
use crate::proxy::settings::Settings;
use crate::proxy::shared::Shared;
use crate::proxy::stages::Source;
use crate::proxy::{Closed, Refused, Why};

/// Reads the header, if there is one, and lets in whom it brings.
pub(super) async fn receive(
    client: &mut TcpStream,
    who: &mut Who,
    place: &mut Place,
    shared: &Shared,
    settings: &Settings,
    deadline: Instant,
) -> Result<(), NotEstablished> {
    let handle = place.handle();
    let read = tokio::select! {
        read = read(client) => read,
        order = handle.ordered(|order| order != Order::Continue && order != Order::Readdress) => {
            return Err(NotEstablished::ordered(order));
        }
        () = sleep_until(deadline) => return Err(NotEstablished::setup_deadline()),
    };
    let port = handle.port();
    match read {
        Ok(Brought { is_local: true, .. }) => return Ok(()),
        Ok(Brought { client, via, .. }) => {
            who.peer = client.unwrap_or(who.peer);
            who.via = (!via.is_empty()).then(|| Box::new(via));
        }
        Err(HeaderError::Absent) if !settings.gate.requires_header() => {}
        Err(HeaderError::Absent) => return Err(refused(Refused::NoProxyHeader)),
        Err(HeaderError::Ended) => return Err(NotEstablished::client_ended(Why::Eof)),
        Err(HeaderError::Socket(error)) => return Err(NotEstablished::client_ended(ending(&error))),
        Err(error @ (HeaderError::TooLong | HeaderError::Malformed(_))) => {
            shared.cannot_read_header(port, who.peer, &error);
            return Err(refused(Refused::ProxyHeader));
        }
    }
    let source = Source::of(who.peer.ip());
    settings.gate.admit(port, who.peer.ip()).map_err(refused)?;
    if shared.logins.keeps_out(&settings.logins, source, Instant::now()) {
        return Err(refused(Refused::KeptOut));
    }
    place.give_to(source).map_err(|full| NotEstablished::no_place(full, shared))
}

fn refused(reason: Refused) -> NotEstablished {
    NotEstablished::reset(reason, Closed::gateway(reason))
}
