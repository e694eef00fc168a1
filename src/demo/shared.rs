//! What all connections of a simulated node share.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;

use super::answer::Prepared;
use super::cluster::Facts;
use super::fault::Faults;
use super::node::Arrival;
use crate::proxy::tls::ClientAcceptor;

/// An EVENT on its way to every client of a node that registered for its type.
#[derive(Clone, Debug)]
pub(super) struct Pushed {
    pub event_type: String,
    pub body: Arc<[u8]>,
}

/// What a node's connections share.
pub(super) struct Shared {
    pub index: usize,
    pub facts: Facts,
    pub faults: Faults,
    pub credentials: Option<(String, String)>,
    pub tls: Option<ClientAcceptor>,
    pub arrivals: broadcast::Sender<Arrival>,
    pub pushed: broadcast::Sender<Pushed>,
    pub silent: watch::Sender<bool>,
    /// The native transport was stopped: whoever has sent STARTUP is closed.
    pub disabled: watch::Sender<bool>,
    /// Ends the connections of now.
    pub stop: Mutex<CancellationToken>,
    pub prepared: Mutex<HashMap<Vec<u8>, Arc<Prepared>>>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("index", &self.index).finish_non_exhaustive()
    }
}

impl Shared {
    /// What ends a connection that comes now.
    pub fn stop(&self) -> CancellationToken {
        self.stop.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Resets the connections of now, and none that come later.
    pub fn reset_connections(&self) {
        std::mem::take(&mut *self.stop.lock().unwrap_or_else(PoisonError::into_inner)).cancel();
    }

    pub fn prepared(&self, id: &[u8]) -> Option<Arc<Prepared>> {
        self.prepared_set().get(id).cloned()
    }

    pub fn keep(&self, prepared: Prepared, limit: usize) {
        let mut set = self.prepared_set();
        if set.len() >= limit {
            set.clear();
        }
        set.insert(prepared.id.to_vec(), Arc::new(prepared));
    }

    pub fn prepared_set(&self) -> MutexGuard<'_, HashMap<Vec<u8>, Arc<Prepared>>> {
        self.prepared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
