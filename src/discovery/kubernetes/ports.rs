//! Who has which port may be said otherwise while the source runs (`statefulSets`, `first_ordinal`, `pins`): nothing else begins anew.

use tokio::sync::watch as latest;

use crate::config::kubernetes::Kubernetes;
use crate::topology::NodeId;
use crate::topology::ports::DEFAULT_QUARANTINE;

use super::Source;
use super::agreed_ports::{self, Known, Wanted};
use super::config_map::ConfigMapStore;
use super::ledger::Terms;

impl Source {
    /// Other ports for those who have none yet. Who keeps the ledger begins anew: until it has looked, whoever has a port has that one.
    pub(super) fn replace(&mut self, config: Kubernetes) {
        if let Some(keeper) = self.keeper.take() {
            keeper.abort();
        }
        let agreed = config.stateful_sets.is_empty().then(|| {
            let cluster = &self.cluster;
            let store = ConfigMapStore::new(cluster.client.clone(), &cluster.namespace, &config.ledger);
            let pins = config.pins.iter().map(|(name, port)| (NodeId::new(name), *port)).collect();
            let terms = Terms { range: self.range.clone(), quarantine: DEFAULT_QUARANTINE, pins };
            let (wanted, wants) = latest::channel(Wanted::default());
            let (tell, known) = latest::channel(Known::Nothing("the ledger has not been looked for yet".into()));
            self.keeper = Some(self.watches.spawn(agreed_ports::keep(store, terms, self.clock, wants, tell)));
            (wanted, known)
        });
        self.placements.replace(config.clone(), agreed);
        self.config = config;
    }
}
