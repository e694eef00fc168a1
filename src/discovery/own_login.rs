//! The gateway's own login, and which nodes are sent it (`probe.plain_password`).
//!
//! Where a certificate was verified the node has shown who it is before the password goes out. Over plain TCP nothing has, and whoever
//! is dialled could collect it: by default it goes only where the file, or the owner of a pod, says that a node is. The others
//! are as if there were no login.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

use crate::config::{Config, Credentials, Discovery, PlainPassword};
use crate::topology::canonical;

/// Pods may be listed a little later than the endpoints that they are.
const LATE: Duration = Duration::from_secs(1);

/// What a node is given that asks for a login.
#[derive(Clone, Debug, PartialEq)]
pub enum Login {
    /// There is none.
    Absent,
    /// There is one, and this node is not sent it.
    Withheld(PlainPassword),
    Given(Credentials),
}

/// The login of one configuration; clones share for whom the source of nodes vouches.
#[derive(Clone)]
pub struct OwnLogin(Arc<Rules>);

struct Rules {
    terms: watch::Sender<Terms>,
    vouched: watch::Sender<HashSet<SocketAddr>>,
}

/// What the configuration says of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Terms {
    credentials: Option<Credentials>,
    /// `None` where certificates are verified.
    rule: Option<PlainPassword>,
    /// Who vouches is another watch than the one that tells of nodes.
    late: bool,
}

impl Terms {
    fn of(config: &Config) -> Self {
        let rule = (!config.tls.verifies_nodes()).then_some(config.probe.plain_password);
        let late = matches!(&config.discovery, Discovery::Kubernetes(kubernetes) if kubernetes.watch_pods);
        Self { credentials: config.probe.credentials(), rule, late }
    }
}

impl OwnLogin {
    pub fn new(config: &Config) -> Self {
        Self(Arc::new(Rules {
            terms: watch::Sender::new(Terms::of(config)),
            vouched: watch::Sender::new(HashSet::new()),
        }))
    }

    /// Another login from now on, or another rule.
    pub fn change(&self, config: &Config) {
        let now = Terms::of(config);
        self.0.terms.send_if_modified(|terms| now != std::mem::replace(terms, now.clone()));
    }

    /// Tells of changes from now on.
    pub fn changes(&self) -> watch::Receiver<Terms> {
        self.0.terms.subscribe()
    }

    /// The addresses that the file names, or at which a StatefulSet's pod lives; each time anew.
    pub fn vouch(&self, addresses: impl IntoIterator<Item = SocketAddr>) {
        let now: HashSet<SocketAddr> = addresses.into_iter().map(canonical).collect();
        self.0.vouched.send_if_modified(|vouched| now != std::mem::replace(vouched, now.clone()));
    }

    /// More of them: the others could not be looked up.
    pub fn vouch_also(&self, addresses: impl IntoIterator<Item = SocketAddr>) {
        self.0.vouched.send_modify(|vouched| vouched.extend(addresses.into_iter().map(canonical)));
    }

    /// What the node at this address is given.
    pub fn of(&self, address: SocketAddr) -> Login {
        let terms = self.0.terms.borrow().clone();
        match (&terms.credentials, terms.rule) {
            (None, _) => Login::Absent,
            (Some(_), Some(rule)) if !self.allows(&terms, address) => Login::Withheld(rule),
            (Some(credentials), _) => Login::Given(credentials.clone()),
        }
    }

    /// Whether the password, if there is one, is sent to this address.
    pub fn is_sent(&self, address: SocketAddr) -> bool {
        self.allows(&self.0.terms.borrow(), address)
    }

    fn allows(&self, terms: &Terms, address: SocketAddr) -> bool {
        match terms.rule.filter(|_| terms.credentials.is_some()) {
            None | Some(PlainPassword::Always) => true,
            Some(PlainPassword::Never) => false,
            Some(PlainPassword::Listed) => self.0.vouched.borrow().contains(&canonical(address)),
        }
    }

    /// Waits until somebody vouches for this address.
    pub async fn vouched(&self, address: SocketAddr) {
        let mut vouched = self.0.vouched.subscribe();
        let address = canonical(address);
        let rule = self.0.terms.borrow().rule;
        let waited = match rule {
            Some(PlainPassword::Listed) => vouched.wait_for(|vouched| vouched.contains(&address)).await.is_ok(),
            _ => false,
        };
        if !waited {
            std::future::pending::<()>().await;
        }
    }

    /// The same where that may be a matter of moments: true once somebody does.
    pub async fn vouched_soon(&self, address: SocketAddr) -> bool {
        let late = self.0.terms.borrow().late;
        late && timeout(LATE, self.vouched(address)).await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const NODES: &str = "advertise: g\ndiscovery: {nodes: [{name: a, address: 10.0.0.1}]}\n";

    fn login(keys: &str) -> OwnLogin {
        let probe = "probe: {username: u, password_file: Cargo.toml";
        let text = format!(
            "{NODES}{}\n",
            keys.replace("probe: {", &format!("{probe}, ")).replace("probe: }", &format!("{probe}}}"))
        );
        let config = Config::parse("test.yaml", &text, Path::new("")).unwrap_or_else(|error| panic!("{text}{error}"));
        OwnLogin::new(&config.config)
    }

    /// Who is sent it of one that is vouched for and one that is not.
    fn check(keys: &str, expected: [bool; 2]) {
        let login = login(keys);
        login.vouch(["[::ffff:10.0.0.1]:9042".parse().unwrap()]);
        let addresses = ["10.0.0.1:9042", "10.0.0.1:9043"].map(|address| address.parse().unwrap());
        assert_eq!(addresses.map(|address| login.is_sent(address)), expected, "{keys}");
        let given = addresses.map(|address| matches!(login.of(address), Login::Given(_)));
        assert_eq!(given, expected, "{keys}");
    }

    #[test]
    fn over_plain_tcp_the_rule_decides_and_with_a_verified_certificate_everybody_is_sent_it() {
        check("probe: }", [true, false]);
        check("probe: {plain_password: listed}", [true, false]);
        check("probe: {plain_password: always}", [true, true]);
        check("probe: {plain_password: never}", [false, false]);
        check("tls: {nodes: {verify: off}}\nprobe: }", [true, false]);
        check("tls: {nodes: {ca: Cargo.toml, verify: ca}}\nprobe: {plain_password: never}", [true, true]);
    }

    #[test]
    fn who_is_vouched_for_no_more_is_sent_nothing() {
        let (login, [first, second]) =
            (login("probe: }"), ["10.0.0.1:9042", "10.0.0.2:9042"].map(|at| at.parse().unwrap()));
        login.vouch([first]);
        login.vouch_also([second]);
        assert!(login.is_sent(first) && login.is_sent(second));
        login.vouch([second]);
        assert_eq!(login.of(first), Login::Withheld(PlainPassword::Listed));
        assert!(login.is_sent(second));
    }

    #[test]
    fn without_a_login_nothing_is_withheld() {
        let config = Config::parse("test.yaml", NODES, Path::new("")).unwrap().config;
        assert_eq!(OwnLogin::new(&config).of("10.0.0.1:9042".parse().unwrap()), Login::Absent);
    }
}
