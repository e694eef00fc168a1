//! Nodes that are silent where they are dialled are asked at the other addresses of their pods, aside: OPTIONS, without a login.
//! Nothing is dialled for clients there before it has answered.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;
use tracing::info;

use crate::config;
use crate::proxy::current::Current;
use crate::proxy::dial::{Dialer, Target};
use crate::topology::NodeId;

use super::super::backoff::jittered;
use super::super::client::Client;

/// A node, and an address at which it answers.
pub type Answer = (NodeId, SocketAddr);

pub struct Elsewhere {
    dialer: Current<Dialer>,
    /// Its silence is how long an answer may take.
    probe: Current<config::Probe>,
    /// Between two questions.
    again: Duration,
    tell: mpsc::Sender<Answer>,
    asking: HashMap<Answer, AbortOnDropHandle<()>>,
}

impl Elsewhere {
    /// With the end at which answers arrive.
    pub fn new(
        dialer: Current<Dialer>,
        probe: Current<config::Probe>,
        again: Duration,
    ) -> (Self, mpsc::Receiver<Answer>) {
        let (tell, answers) = mpsc::channel(64);
        (Self { dialer, probe, again, tell, asking: HashMap::new() }, answers)
    }

    /// Asks at these addresses, over and over, and at no others. `host` is what TLS verifies.
    pub fn follow(&mut self, wanted: impl Iterator<Item = (Answer, Option<Arc<str>>)>) {
        let mut before = std::mem::take(&mut self.asking);
        for (what, host) in wanted {
            let asking = before.remove(&what).filter(|task| !task.is_finished());
            let asking = asking.unwrap_or_else(|| self.ask(what.clone(), host));
            self.asking.insert(what, asking);
        }
    }

    fn ask(&self, what: Answer, host: Option<Arc<str>>) -> AbortOnDropHandle<()> {
        let (dialer, probe, tell, again) = (self.dialer.clone(), self.probe.clone(), self.tell.clone(), self.again);
        let (node, address) = what;
        let target = host.map_or_else(|| Target::at(address), |host| Target { address, host });
        AbortOnDropHandle::new(tokio::spawn(async move {
            while Client::open(&dialer.get(), &target, probe.get().silence).await.is_err() {
                sleep(jittered(again)).await;
            }
            info!(%node, %address, "the node does not answer where it is dialled, and answers at another address of its pod");
            _ = tell.send((node, address)).await;
        }))
    }
}
