//! What connections go by, made of a configuration.

use std::sync::Arc;

use tokio::sync::watch;

use crate::config::{Config, PlainClients};
use crate::proxy::dial::Dialer;
use crate::proxy::gate::Gate;
use crate::proxy::paths::PathRules;
use crate::proxy::settings::Settings;
use crate::proxy::tls::{ClientAcceptor, NodeConnector};
use crate::rewrite::Surroundings;
use crate::rewrite::statements::OrdinaryStatements;
use crate::topology::Topology;

/// What all settings of the process have in common, one configuration after the other.
pub(super) struct Making {
    pub topology: watch::Receiver<Arc<Topology>>,
    /// What clients have taught stays true.
    pub statements: Arc<OrdinaryStatements>,
}

impl Making {
    pub(super) fn with(
        &self,
        config: &Config,
        client_tls: Option<ClientAcceptor>,
        node_tls: Option<NodeConnector>,
    ) -> Settings {
        let topology = self.topology.clone();
        Settings {
            surroundings: Arc::new(Surroundings {
                topology: Box::new(move || topology.borrow().clone()),
                statements: Arc::clone(&self.statements),
                max_body: u32::try_from(config.limits.frame).unwrap_or(u32::MAX),
                held_frame: usize::try_from(config.limits.held_frame).unwrap_or(usize::MAX),
                unserved: config.unserved,
                rewriting: rewriting(),
            }),
            timeouts: config.timeouts.clone(),
            drain: config.drain.clone(),
            logins: config.logins.clone(),
            gate: Gate::new(&config.access, &config.proxy_protocol),
            paths: PathRules::new(&config.paths),
            views: config.views.clone(),
            client_tls,
            allows_plain: config.tls.clients.as_ref().is_none_or(|tls| tls.plain == PlainClients::Allowed),
            dialer: Dialer { deadline: config.timeouts.dial, tls: node_tls },
        }
    }
}

/// Rewriting is off only in builds that exist to show what a check says without it.
fn rewriting() -> bool {
    if !cfg!(feature = "rewriting-switch") {
        return true;
    }
    std::env::var("CQLGATE_REWRITING").map_or(true, |value| value != "off")
}
