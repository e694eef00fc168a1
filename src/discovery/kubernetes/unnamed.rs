//! Endpoints that name no pod, as an operator writes them by hand: each address is asked who it is (`system.local`), aside, and its
//! node is known by its host_id.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};
use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;

use crate::config;
use crate::proxy::current::Current;
use crate::proxy::dial::{Dialer, Target};
use crate::topology::HostId;

use super::super::backoff::jittered;
use super::super::client::{Client, ClientError, LOGIN_AGAIN};
use super::super::identity::read_local;
use super::super::own_login::OwnLogin;

/// Addresses that are asked at the same time.
const AT_ONCE: usize = 16;

/// Who is at an address, or why that is not known.
pub type Said = (SocketAddr, Result<HostId, String>);

/// How to ask.
#[derive(Clone)]
pub struct Asks {
    pub dialer: Current<Dialer>,
    pub login: OwnLogin,
    /// Its silence is how long an answer may take.
    pub probe: Current<config::Probe>,
    /// Between two questions to one address.
    pub again: Duration,
}

pub struct Unnamed {
    asks: Asks,
    tell: mpsc::Sender<Said>,
    places: Arc<Semaphore>,
    asking: HashMap<SocketAddr, AbortOnDropHandle<()>>,
}

impl Unnamed {
    /// With the end at which answers arrive.
    pub fn new(asks: Asks) -> (Self, mpsc::Receiver<Said>) {
        let (tell, said) = mpsc::channel(64);
        (Self { asks, tell, places: Arc::new(Semaphore::new(AT_ONCE)), asking: HashMap::new() }, said)
    }

    /// Asks these addresses, over and over, and no others.
    pub fn follow(&mut self, wanted: impl Iterator<Item = SocketAddr>) {
        let mut before = std::mem::take(&mut self.asking);
        for address in wanted {
            let asking = before.remove(&address).filter(|task| !task.is_finished());
            let asking = asking.unwrap_or_else(|| self.ask(address));
            self.asking.insert(address, asking);
        }
    }

    fn ask(&self, address: SocketAddr) -> AbortOnDropHandle<()> {
        let (asks, tell, places) = (self.asks.clone(), self.tell.clone(), Arc::clone(&self.places));
        AbortOnDropHandle::new(tokio::spawn(async move {
            loop {
                let asked = {
                    let Ok(_place) = places.acquire().await else { return };
                    asks.ask(address).await
                };
                let wait = match &asked {
                    Err(error) if error.is_login() => LOGIN_AGAIN,
                    _ => asks.again,
                };
                let said = asked.map_err(|error| error.to_string());
                let said = said.and_then(|host_id| host_id.ok_or_else(|| "it has no host_id yet".to_owned()));
                if tell.send((address, said)).await.is_err() {
                    return;
                }
                sleep(jittered(wait)).await;
            }
        }))
    }
}

impl Asks {
    async fn ask(&self, address: SocketAddr) -> Result<Option<HostId>, ClientError> {
        let mut client = Client::open(&self.dialer.get(), &Target::at(address), self.probe.get().silence).await?;
        client.start(&self.login.of(address)).await?;
        Ok(read_local(&mut client, address).await?.host_id)
    }
}
