//! DNS: the names of listed nodes and the advertised name, looked up and kept fresh.
//!
//! One resolver serves all names. The system's own `resolv.conf` and `hosts` are read again when it is [a while](KEPT) old, so that
//! they may change; no answer is kept in it, only by who asked: the last good one outlives any failure. A dial never waits for DNS.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

#[cfg(test)]
use hickory_resolver::config::{ResolveHosts, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{RData, RecordType};
use hickory_resolver::{ResolverBuilder, TokioResolver};
use thiserror::Error;
use tokio::sync::{Mutex, Notify, watch};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{debug, info, warn};

use super::backoff::jittered;

/// One look-up, both families, retries included.
const DEADLINE: Duration = Duration::from_secs(5);
/// A TTL below this counts as this: some load balancers' names have 0.
const SHORTEST: Duration = Duration::from_secs(5);
/// A TTL above this counts as this: a change is seen within a minute.
const LONGEST: Duration = Duration::from_secs(60);
/// Between look-ups that are asked for before the TTL is over, and after a failure without any answer yet.
const AGAIN: Duration = Duration::from_secs(1);
/// A resolver is used for so long; the next look-up makes another.
const KEPT: Duration = Duration::from_secs(30);
/// More addresses than any name that means one thing has; the rest is left out.
const MAX_ADDRESSES: usize = 64;
/// More nodes than a range of ports has.
const MAX_TARGETS: usize = 65_536;

/// Why a name has no address.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ResolveError {
    #[error("{host}: no answer within {DEADLINE:?}")]
    Timeout { host: String },
    #[error("{host}: the name has no address")]
    NoAddress { host: String },
    #[error("{host}: {text}")]
    Failed { host: String, text: String },
    #[error("{name}: there is no SRV record")]
    NoService { name: String },
}

/// Where an SRV record leads (RFC 2782): a name without the dot at its end, and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub host: String,
    pub port: u16,
}

/// A name's addresses, both families.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    pub ipv4: Vec<Ipv4Addr>,
    pub ipv6: Vec<Ipv6Addr>,
}

/// Where names are looked up; its clones share one resolver.
#[derive(Clone)]
pub struct Names {
    servers: Servers,
    resolver: Arc<Mutex<Option<(Instant, TokioResolver)>>>,
}

#[derive(Clone)]
enum Servers {
    /// Those of `resolv.conf`.
    System,
    #[cfg(test)]
    Given(ResolverConfig),
}

impl Names {
    /// As the system is configured.
    pub fn system() -> Self {
        Self { servers: Servers::System, resolver: Arc::default() }
    }

    /// These servers only, and no hosts file.
    #[cfg(test)]
    pub fn of(servers: ResolverConfig) -> Self {
        Self { servers: Servers::Given(servers), resolver: Arc::default() }
    }

    /// Both families of a name, and how long they may be used. A family whose look-up failed keeps what `last` had.
    pub async fn lookup(&self, host: &str, last: &Addresses) -> Result<(Addresses, Duration), ResolveError> {
        match timeout(DEADLINE, self.lookup_both(host, last)).await {
            Ok(found) => found,
            Err(_) => Err(ResolveError::Timeout { host: host.to_owned() }),
        }
    }

    async fn lookup_both(&self, host: &str, last: &Addresses) -> Result<(Addresses, Duration), ResolveError> {
        let failed = |error: &NetError| ResolveError::Failed { host: host.to_owned(), text: said(error) };
        let resolver = self.resolver().await.map_err(|error| failed(&error))?;
        let (ipv4, ipv6) = tokio::join!(
            lookup_family(&resolver, host, RecordType::A),
            lookup_family(&resolver, host, RecordType::AAAA)
        );
        let mut ttl = LONGEST;
        let mut found = Addresses::default();
        match &ipv4 {
            Ok((addresses, valid)) => {
                found.ipv4 =
                    addresses.iter().filter_map(|ip| if let IpAddr::V4(ip) = ip { Some(*ip) } else { None }).collect();
                ttl = ttl.min(*valid);
            }
            Err(_) => found.ipv4.clone_from(&last.ipv4),
        }
        match &ipv6 {
            Ok((addresses, valid)) => {
                found.ipv6 =
                    addresses.iter().filter_map(|ip| if let IpAddr::V6(ip) = ip { Some(*ip) } else { None }).collect();
                ttl = ttl.min(*valid);
            }
            Err(_) => found.ipv6.clone_from(&last.ipv6),
        }
        match (ipv4, ipv6) {
            (Err(error), Err(_)) => Err(failed(&error)),
            _ if found == Addresses::default() => Err(ResolveError::NoAddress { host: host.to_owned() }),
            _ => Ok((found, ttl.max(SHORTEST))),
        }
    }

    /// The targets of a name's SRV records, and how long they may be used.
    pub async fn services(&self, name: &str) -> Result<(Vec<Target>, Duration), ResolveError> {
        let failed = |error: NetError| ResolveError::Failed { host: name.to_owned(), text: said(&error) };
        let asked = async {
            let resolver = self.resolver().await.map_err(failed)?;
            // With the dot at its end the name is absolute: no search list is gone through.
            let lookup = resolver.lookup(format!("{name}."), RecordType::SRV).await.map_err(failed)?;
            let targets = lookup.answers().iter().filter_map(|record| match &record.data {
                RData::SRV(srv) => {
                    let host = srv.target.to_ascii().trim_end_matches('.').to_ascii_lowercase();
                    Some(Target { host, port: srv.port })
                }
                _ => None,
            });
            let targets: Vec<Target> = targets.take(MAX_TARGETS).collect();
            let valid = lookup.valid_until().saturating_duration_since(std::time::Instant::now());
            Ok((targets, valid.clamp(SHORTEST, LONGEST)))
        };
        match timeout(DEADLINE, asked).await {
            Ok(Ok((targets, _))) if targets.is_empty() => Err(ResolveError::NoService { name: name.to_owned() }),
            Ok(found) => found,
            Err(_) => Err(ResolveError::Timeout { host: name.to_owned() }),
        }
    }

    async fn resolver(&self) -> Result<TokioResolver, NetError> {
        let mut kept = self.resolver.lock().await;
        if let Some((_, resolver)) = kept.as_ref().filter(|(since, _)| since.elapsed() < KEPT) {
            return Ok(resolver.clone());
        }
        let resolver = self.servers.resolver().await?;
        *kept = Some((Instant::now(), resolver.clone()));
        Ok(resolver)
    }
}

impl Servers {
    async fn resolver(&self) -> Result<TokioResolver, NetError> {
        let build = |mut builder: ResolverBuilder<TokioRuntimeProvider>| {
            builder.options_mut().cache_size = 0;
            builder.build()
        };
        match self {
            // It reads resolv.conf and the hosts file.
            Self::System => spawn_blocking(move || build(TokioResolver::builder_tokio()?))
                .await
                .unwrap_or_else(|error| Err(std::io::Error::other(error).into())),
            #[cfg(test)]
            Self::Given(config) => {
                let provider = TokioRuntimeProvider::default();
                let mut builder = TokioResolver::builder_with_config(config.clone(), provider);
                builder.options_mut().use_hosts_file = ResolveHosts::Never;
                build(builder)
            }
        }
    }
}

/// What a name server said, in its words ("Non-Existent Domain"), without the question's inner form.
fn said(error: &NetError) -> String {
    match error {
        NetError::Dns(DnsError::NoRecordsFound(none)) => none.response_code.to_string(),
        error => error.to_string(),
    }
}

/// One family; a name that exists without such records is an empty answer.
async fn lookup_family(
    resolver: &TokioResolver,
    host: &str,
    record_type: RecordType,
) -> Result<(Vec<IpAddr>, Duration), NetError> {
    match resolver.lookup(host, record_type).await {
        Ok(lookup) => {
            let addresses = lookup.answers().iter().filter_map(|record| match &record.data {
                RData::A(ip) => Some(IpAddr::V4(ip.0)),
                RData::AAAA(ip) => Some(IpAddr::V6(ip.0)),
                _ => None,
            });
            let valid = lookup.valid_until().saturating_duration_since(std::time::Instant::now());
            Ok((addresses.take(MAX_ADDRESSES).collect(), valid))
        }
        Err(NetError::Dns(DnsError::NoRecordsFound(none))) if none.response_code == ResponseCode::NoError => {
            Ok((Vec::new(), LONGEST))
        }
        Err(error) => Err(error),
    }
}

impl Addresses {
    /// The address to use: the one in use while the name has it, else the lowest IPv4, else the lowest IPv6 address.
    pub fn choose(&self, in_use: Option<IpAddr>) -> Option<IpAddr> {
        let lowest = || self.ipv4.iter().min().map(|&ip| ip.into()).or_else(|| Some((*self.ipv6.iter().min()?).into()));
        in_use.filter(|&ip| self.has(ip)).or_else(lowest)
    }

    /// All of them, IPv4 first.
    pub fn ips(&self) -> impl Iterator<Item = IpAddr> {
        self.ipv4.iter().copied().map(IpAddr::V4).chain(self.ipv6.iter().copied().map(IpAddr::V6))
    }

    pub fn has(&self, ip: IpAddr) -> bool {
        match ip {
            IpAddr::V4(ip) => self.ipv4.contains(&ip),
            IpAddr::V6(ip) => self.ipv6.contains(&ip),
        }
    }
}

/// What a name's failures are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failures {
    /// Somebody should mend it: the log is told once.
    Wrong,
    /// Nothing for the log: a pod that is not ready has no name.
    Ordinary,
}

/// When a name need not be known: then it is asked for but rarely.
pub struct Pace {
    pub is_calm: watch::Receiver<bool>,
    /// Between two look-ups then, where the TTL is not longer; shortened by up to a quarter, so that names are not asked for in step.
    pub rarely: Duration,
}

/// Looks a name up for ever: after its TTL, and soon after `wake`. Tells every good answer, and `None` of every failure.
pub async fn follow<F>(
    names: Names,
    host: String,
    wake: Arc<Notify>,
    failures: Failures,
    mut pace: Option<Pace>,
    mut tell: impl FnMut(Option<Addresses>) -> F,
) where
    F: Future<Output = ()>,
{
    let mut last = Addresses::default();
    let mut failing = None;
    loop {
        let started = Instant::now();
        let wait = match names.lookup(&host, &last).await {
            Ok((addresses, ttl)) => {
                if failing.take().is_some() && failures == Failures::Wrong {
                    info!(%host, "the name resolves again");
                }
                last = addresses.clone();
                tell(Some(addresses)).await;
                ttl
            }
            Err(error) => {
                if failing.as_ref() != Some(&error) {
                    if failures == Failures::Ordinary {
                        debug!(%error, "a name cannot be resolved");
                    } else if last == Addresses::default() {
                        warn!(%error, "a name cannot be resolved");
                    } else {
                        warn!(%error, "a name cannot be resolved; its last good address is kept");
                    }
                    failing = Some(error);
                }
                tell(None).await;
                if last == Addresses::default() { AGAIN } else { SHORTEST }
            }
        };
        tokio::select! {
            () = rest(wait, &mut pace) => {}
            () = wake.notified() => sleep(AGAIN.saturating_sub(started.elapsed())).await,
        }
    }
}

/// Waits from one look-up to the next, `wait` by its TTL.
async fn rest(wait: Duration, pace: &mut Option<Pace>) {
    let Some(Pace { is_calm, rarely }) = pace else { return sleep(wait).await };
    let answered = Instant::now();
    let rarely = jittered(*rarely).max(wait);
    let mut earliest = answered;
    loop {
        let wait = if *is_calm.borrow_and_update() { rarely } else { wait };
        let due = earliest.max(answered + wait);
        tokio::select! {
            () = sleep_until(due) => return,
            changed = is_calm.changed() => match changed {
                // Many nodes may have died at once.
                Ok(()) => earliest = Instant::now() + (AGAIN - jittered(AGAIN)),
                Err(_) => return sleep_until(due).await,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_address_is_taken_and_kept_while_it_is_there() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let both = Addresses {
            ipv4: [3, 1, 2].map(|last| Ipv4Addr::new(10, 0, 0, last)).to_vec(),
            ipv6: vec![Ipv6Addr::LOCALHOST],
        };
        assert_eq!(both.choose(None), Some(ip("10.0.0.1")));
        assert_eq!(both.choose(Some(ip("10.0.0.2"))), Some(ip("10.0.0.2")));
        assert_eq!(both.choose(Some(ip("::1"))), Some(ip("::1")));
        assert_eq!(both.choose(Some(ip("10.0.0.9"))), Some(ip("10.0.0.1")));
        let ipv6 = Addresses { ipv4: Vec::new(), ..both };
        assert_eq!(ipv6.choose(Some(ip("10.0.0.2"))), Some(ip("::1")));
        assert_eq!(Addresses::default().choose(Some(ip("10.0.0.2"))), None);
    }

    #[tokio::test(start_paused = true)]
    async fn one_resolver_serves_all_until_it_is_old() {
        let names = Names::of(ResolverConfig::default());
        let mut made = Vec::new();
        for wait in [Duration::ZERO, KEPT / 2, KEPT / 2] {
            sleep(wait).await;
            names.clone().resolver().await.unwrap();
            made.push(names.resolver.lock().await.as_ref().unwrap().0);
        }
        assert!(made[0] == made[1] && made[1] < made[2], "{made:?}");
    }

    /// A minute at the shortest TTL, calm but for the middle third: how often it is asked.
    #[tokio::test(start_paused = true)]
    async fn a_name_is_asked_for_rarely_while_all_is_calm() {
        let (tell, is_calm) = watch::channel(true);
        let mut pace = Some(Pace { is_calm, rarely: Duration::from_secs(120) });
        let began = Instant::now();
        let asked = async {
            let mut asked = Vec::new();
            loop {
                rest(SHORTEST, &mut pace).await;
                asked.push(began.elapsed().as_secs());
                if asked.len() == 6 {
                    return asked;
                }
            }
        };
        let change = async {
            for (second, calm) in [(20, false), (40, true)] {
                sleep(Duration::from_secs(second) - began.elapsed()).await;
                tell.send_replace(calm);
            }
        };
        let (asked, ()) = tokio::join!(asked, change);
        assert_eq!(asked[..4], [20, 25, 30, 35], "{asked:?}");
        assert!(asked[4] == 40 || (125..=155).contains(&asked[4]), "{asked:?}");
        assert!(asked[5] - asked[4] >= 90, "{asked:?}");
    }
}
