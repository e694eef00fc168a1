//! What a connection goes by. It takes the settings that are in force when it is accepted, and keeps them to its end: a configuration
//! that is read anew counts for whoever comes after it.

use std::sync::Arc;

use super::dial::Dialer;
use super::gate::Gate;
use super::paths::PathRules;
use super::tls::ClientAcceptor;
use crate::config::{Drain, Logins, Timeouts, Views};
use crate::rewrite::Surroundings;

/// Never changed; replaced as a whole ([`Current`](super::current::Current)).
pub struct Settings {
    pub surroundings: Arc<Surroundings>,
    pub timeouts: Timeouts,
    pub drain: Drain,
    pub logins: Logins,
    /// Who may come in by address.
    pub gate: Gate,
    /// By which path a client comes.
    pub paths: PathRules,
    pub views: Views,
    pub client_tls: Option<ClientAcceptor>,
    /// Who begins without TLS is served, too.
    pub allows_plain: bool,
    pub dialer: Dialer,
}
