//! What all connections of the gateway share.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::agreement::Agreement;
use super::came::{Came, Seldom};
use super::connections::{Connections, Order};
use super::current::Current;
use super::descriptors::Reserve;
use super::header::HeaderError;
use super::hold::HoldBudget;
use super::logins::Logins;
use super::memory::Memory;
use super::settings::Settings;
use super::stages::Full;
use super::tls::client_auth::CertificateRefused;
use super::{Closed, Refused, Why};
use crate::label::Label;
use crate::metrics::Metrics;
use crate::topology::Topology;
use crate::topology::cordons::Cordons;
use crate::topology::input::Input;
use crate::topology::sightings::Sightings;

pub struct Shared {
    pub topology: watch::Receiver<Arc<Topology>>,
    /// What those go by who come from now on.
    pub settings: Current<Settings>,
    pub connections: Arc<Connections>,
    pub budget: Arc<HoldBudget>,
    /// How much of it is left.
    pub memory: Arc<Memory>,
    pub logins: Logins,
    /// Whether all nodes have the same schema.
    pub agreement: Arc<Agreement>,
    /// Nodes to which nobody new may come.
    pub cordons: Arc<Cordons>,
    /// Lines about those who may not, and about what came in place of what was expected.
    pub refusals: Seldom<Refused>,
    pub unexpected: Seldom<Came>,
    pub metrics: Arc<Metrics>,
    /// What attached nodes say of themselves in passing rows; lost when nobody has time for it.
    pub observations: mpsc::Sender<Input>,
    /// Rows that clients were not shown.
    pub sightings: Arc<Sightings>,
    /// Rows of nodes that are not served here, which clients were shown as they are.
    pub kept: Arc<Sightings>,
    /// Turns of TLS handshakes at the same time: each costs a core about a millisecond, and relays must not starve.
    pub handshakes: Arc<Semaphore>,
    /// For the moment when there are no file descriptors.
    pub reserve: Reserve,
    /// The tasks of all connections.
    pub tasks: TaskTracker,
}

impl Shared {
    /// The line and the count of a connection that was never relayed.
    pub fn refused(&self, port: u16, peer: SocketAddr, reason: Refused, closed: Closed) {
        let (by, why) = (closed.by.label(), closed.why.label());
        tracing::debug!(port, %peer, by, why, reason = reason.label(), "connection ended before it was established");
        self.metrics.connection_refused(reason);
        let advice = reason.advice();
        if let Some((advice, times)) =
            advice.and_then(|advice| Some((advice, self.refusals.say(reason, Instant::now())?)))
        {
            tracing::info!(port, %peer, reason = reason.label(), times, "{advice}");
        }
    }

    /// The line about a load balancer's header that says nothing.
    pub fn cannot_read_header(&self, port: u16, peer: SocketAddr, error: &HeaderError) {
        if let Some(times) = self.refusals.say(Refused::ProxyHeader, Instant::now()) {
            tracing::warn!(port, %peer, times, "refused: {error}");
        }
    }

    /// The line and the count of a client with which no TLS is to be had; what it is counted as.
    pub fn cannot_speak_tls(&self, port: u16, peer: SocketAddr, error: &io::Error) -> Refused {
        if let Some(reason) = CertificateRefused::of(error) {
            self.metrics.certificate_refused(reason);
            if let Some(times) = self.refusals.say(Refused::ClientCertificate, Instant::now()) {
                let reason = reason.label();
                tracing::info!(port, %peer, reason, times, "refused by tls.clients.client_auth: {error}");
            }
            return Refused::ClientCertificate;
        }
        if let Some(times) = self.refusals.say(Refused::Tls, Instant::now()) {
            tracing::info!(port, %peer, times, "no TLS with this client: {error}");
        }
        Refused::Tls
    }

    /// The same of one that is nobody at the nodes.
    pub fn has_no_identity(&self, port: u16, peer: SocketAddr, certificate: Option<&str>) {
        self.metrics.certificate_refused(CertificateRefused::NoIdentity);
        if let Some(times) = self.refusals.say(Refused::NoIdentity, Instant::now()) {
            tracing::info!(port, %peer, certificate, times, "refused: in none of tls.nodes.identities");
        }
    }

    /// What came first, where that is not what is expected: the line that says so.
    pub fn came(&self, settings: &Settings, port: u16, peer: SocketAddr, came: Came) {
        let tls = settings.client_tls.is_some();
        let advice = match came {
            Came::Tls if !tls => "this port is plain: tls.clients is not set",
            Came::Cql if tls && !settings.allows_plain => {
                "this port speaks TLS alone: tls.clients is set, and tls.clients.plain is refused"
            }
            Came::Http => "clients speak CQL here; metrics and health are at the admin address",
            Came::ProxyHeader if settings.gate.reads_headers() => {
                "a PROXY header is read only once, and only of those whom proxy_protocol.from lists"
            }
            Came::ProxyHeader => "no PROXY header is expected: proxy_protocol.mode is off",
            Came::Cql | Came::Tls | Came::Other => return,
        };
        if let Some(times) = self.unexpected.say(came, Instant::now()) {
            tracing::info!(port, %peer, times, "{} came first: {advice}", came.label());
        }
    }

    /// The same for one that found no place.
    pub fn found_no_place(&self, port: u16, peer: SocketAddr, full: Full) {
        let reason = self.count_full(full);
        self.refused(port, peer, reason, Closed::gateway(reason));
    }

    /// Counts a room that is full; why somebody is refused for it.
    pub fn count_full(&self, full: Full) -> Refused {
        if let Full::Room(stage) | Full::Source(stage) = full {
            self.metrics.stage_full(stage, matches!(full, Full::Source(_)));
        }
        refused(full)
    }
}

/// The label of a room that is full.
fn refused(full: Full) -> Refused {
    use super::stages::Stage;
    match full {
        Full::Node => Refused::NodeConnectionLimit,
        Full::Room(Stage::Established) => Refused::ConnectionLimit,
        Full::Source(Stage::Established) => Refused::SourceConnectionLimit,
        Full::Room(_) => Refused::StageFull,
        Full::Source(_) => Refused::SourceShare,
    }
}

/// Why a connection ends that was ordered to.
pub fn ordered(order: Order) -> (Refused, Closed) {
    let reason = match order {
        Order::MakeRoom => Refused::MadeRoom,
        Order::Shed => Refused::Memory,
        Order::Age | Order::Farewell | Order::Drain | Order::Readdress | Order::Deadline => Refused::Draining,
        Order::Unread => return (Refused::ClientEnded, Closed::client(Why::Unread)),
        Order::Vanished => return (Refused::ClientEnded, Closed::client(Why::Timeout)),
        Order::NodeGone => return (Refused::NoLiveNode, Closed::gateway(Why::NodeGone)),
        Order::Continue | Order::Tell => Refused::NoLiveNode,
    };
    (reason, Closed::gateway(reason))
}
