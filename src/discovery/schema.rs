//! Whether all nodes that are up have the same schema, asked for those who wait for it ([`Agreement`]).
//!
//! Each node is asked for its own version, which it writes down when it has applied a change (apache/cassandra
//! `schema/DefaultSchemaUpdateHandler.java`); what others say of it in `system.peers` came by gossip, later, and is asked only of nodes
//! that do not let the gateway in. A node that does not answer does not agree, until it is known as dead.
//!
//! Connections of its own: what becomes of a question here says nothing of a node's life. They are made when somebody waits, and kept
//! for a while.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{FutureExt, StreamExt, stream};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{debug, warn};
use uuid::Uuid;

use super::client::{Client, ClientError, LOGIN_AGAIN};
use super::own_login::OwnLogin;
use crate::cql::primitives::{DecodeError, Value};
use crate::cql::rows::Rows;
use crate::proxy::agreement::Agreement;
use crate::proxy::current::Current;
use crate::proxy::dial::{Dialer, Target};
use crate::topology::{HostId, Node, NodeId, NodeState, Topology};

const LOCAL: &str = "SELECT schema_version FROM system.local WHERE key='local'";
const PEERS: &str = "SELECT host_id, schema_version FROM system.peers";

/// From the beginning of a round to that of the next.
const INTERVAL: Duration = Duration::from_millis(100);
/// What one node has for its answer, connecting and the login included.
const ANSWER: Duration = Duration::from_secs(2);
const DIAL: Duration = Duration::from_secs(1);
/// Nodes that are asked at the same time.
const AT_ONCE: usize = 32;
/// Connections are kept so long while nobody waits.
const KEPT: Duration = Duration::from_secs(30);
/// Nodes that differ for so long are worth a line, and so often.
const SAID: Duration = Duration::from_secs(2);
const SAID_AGAIN: Duration = Duration::from_secs(60);

/// Asks the nodes while somebody waits.
pub struct Asker {
    pub agreement: Arc<Agreement>,
    pub topology: watch::Receiver<Arc<Topology>>,
    pub dialer: Current<Dialer>,
    pub login: OwnLogin,
}

/// The way to one node.
struct Line {
    target: Target,
    client: Option<Client>,
    /// It does not let the gateway in, and is not asked again before this.
    refused: Option<Instant>,
}

/// What one node said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    Version(Uuid),
    /// It does not let the gateway in.
    NotLetIn,
    Nothing,
}

/// What a round came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Round {
    Agreed,
    Differ,
    /// Nobody can say.
    Unknown,
}

impl Asker {
    /// For ever.
    pub async fn run(self) {
        let mut lines: HashMap<NodeId, Line> = HashMap::new();
        let (mut began, mut differ_since, mut said) = (None, None, None);
        loop {
            if self.agreement.somebody_waits().now_or_never().is_none() {
                differ_since = None;
                if timeout(KEPT, self.agreement.somebody_waits()).await.is_err() {
                    lines.clear();
                    self.agreement.somebody_waits().await;
                }
            }
            if let Some(began) = began {
                sleep_until(began + INTERVAL).await;
            }
            let now = Instant::now();
            began = Some(now);
            let question = self.agreement.last();
            let (round, answers) = self.round(&mut lines).await;
            debug!(question, ?round, "schema versions");
            match round {
                Round::Agreed => self.agreement.agreed(question),
                Round::Unknown => self.agreement.unknown(question),
                Round::Differ => {
                    let since = *differ_since.get_or_insert(now);
                    if now >= since + SAID && said.is_none_or(|said| now >= said + SAID_AGAIN) {
                        said = Some(now);
                        warn!(?answers, "nodes do not agree on the schema; clients that see one node for many wait");
                    }
                    continue;
                }
            }
            differ_since = None;
        }
    }

    async fn round(&self, lines: &mut HashMap<NodeId, Line>) -> (Round, Vec<(NodeId, Said)>) {
        let topology = Arc::clone(&self.topology.borrow());
        let up: Vec<Arc<Node>> = topology.nodes.iter().filter(|node| node.state == NodeState::Up).cloned().collect();
        let mut before = std::mem::take(lines);
        let mut dialer = Dialer::clone(&self.dialer.get());
        dialer.deadline = dialer.deadline.min(DIAL);
        let questions = up.into_iter().map(|node| {
            let target = Target { address: node.address, host: node.host_name() };
            let line = before.remove(&node.id).filter(|line| line.target == target);
            let mut line = line.unwrap_or(Line { target, client: None, refused: None });
            let dialer = &dialer;
            async move {
                let said = line.ask(dialer, &self.login).await;
                (node, line, said)
            }
        });
        let mut answers: Vec<(Arc<Node>, Line, Said)> =
            stream::iter(questions).buffer_unordered(AT_ONCE).collect().await;
        let peers = if answers.iter().any(|(.., said)| *said == Said::NotLetIn) {
            ask_for_others(&mut answers).await
        } else {
            HashMap::new()
        };
        let said: Vec<_> = answers.iter().map(|(node, _, said)| (node.host_id, *said)).collect();
        let round = conclude(&said, &peers);
        let named = answers.iter().map(|(node, _, said)| (node.id.clone(), *said)).collect();
        lines.extend(answers.into_iter().map(|(node, line, _)| (node.id.clone(), line)));
        (round, named)
    }
}

impl Line {
    async fn ask(&mut self, dialer: &Dialer, login: &OwnLogin) -> Said {
        if self.refused.is_some_and(|until| Instant::now() < until) {
            return Said::NotLetIn;
        }
        let asked = timeout(ANSWER, self.version(dialer, login)).await;
        let error = match asked {
            Ok(Ok(Some(version))) => return Said::Version(version),
            Ok(Ok(None)) => return Said::Nothing,
            Ok(Err(error)) => error,
            Err(_) => ClientError::Silent { doing: LOCAL, after: ANSWER },
        };
        // An answer that is late would be taken for the next one's.
        self.client = None;
        debug!(node = %self.target, %error, "the node does not say which schema it has");
        if error.is_login() || error.is_refused_login() {
            self.refused = Some(Instant::now() + LOGIN_AGAIN);
            return Said::NotLetIn;
        }
        Said::Nothing
    }

    async fn version(&mut self, dialer: &Dialer, login: &OwnLogin) -> Result<Option<Uuid>, ClientError> {
        if let Some(client) = &mut self.client {
            match own_version(client).await {
                // It ended while nobody asked.
                Err(ClientError::Lost { .. }) => self.client = None,
                said => return said,
            }
        }
        let mut client = Client::open(dialer, &self.target, ANSWER).await?;
        client.start(&login.of(self.target.address)).await?;
        let version = own_version(&mut client).await?;
        self.client = Some(client);
        Ok(version)
    }
}

async fn own_version(client: &mut Client) -> Result<Option<Uuid>, ClientError> {
    let answer = client.query(LOCAL).await?;
    let rows = rows(LOCAL, answer.message())?;
    Ok(rows.rows().next().and_then(|row| uuid(row.first())))
}

/// What the first one that can be asked says of the others.
async fn ask_for_others(answers: &mut [(Arc<Node>, Line, Said)]) -> HashMap<HostId, Uuid> {
    let Some(client) = answers.iter_mut().find_map(|(_, line, _)| line.client.as_mut()) else {
        return HashMap::new();
    };
    let answer = match timeout(ANSWER, client.query(PEERS)).await {
        Ok(Ok(answer)) => answer,
        _ => return HashMap::new(),
    };
    let Ok(rows) = rows(PEERS, answer.message()) else { return HashMap::new() };
    let of_row = |row: &[Value<'_>]| Some((HostId(uuid(row.first())?), uuid(row.get(1))?));
    rows.rows().filter_map(of_row).collect()
}

fn rows<'a>(doing: &'static str, message: &'a [u8]) -> Result<Rows<'a>, ClientError> {
    Rows::parse(message).map_err(|error: DecodeError| ClientError::Malformed { doing, error })
}

fn uuid(cell: Option<&Value<'_>>) -> Option<Uuid> {
    Uuid::from_slice(cell?.bytes()?).ok()
}

/// `peers`: what one node says of those that do not let the gateway in.
fn conclude(said: &[(Option<HostId>, Said)], peers: &HashMap<HostId, Uuid>) -> Round {
    let mut versions = said.iter().filter_map(|(_, said)| match said {
        Said::Version(version) => Some(*version),
        _ => None,
    });
    let cannot_ask = said.iter().any(|(_, said)| *said == Said::NotLetIn);
    let Some(version) = versions.next() else {
        return if cannot_ask { Round::Unknown } else { Round::Differ };
    };
    let mut all_are_known = true;
    for (host_id, said) in said {
        match said {
            Said::Version(own) if *own == version => {}
            Said::Version(_) | Said::Nothing => return Round::Differ,
            Said::NotLetIn => match host_id.and_then(|host_id| peers.get(&host_id)) {
                Some(told) if *told == version => {}
                Some(_) => return Round::Differ,
                None => all_are_known = false,
            },
        }
    }
    if all_are_known { Round::Agreed } else { Round::Unknown }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Said = Said::Version(Uuid::from_u128(0xa));
    const B: Said = Said::Version(Uuid::from_u128(0xb));

    /// Nodes 1, 2, … say so; of the first ones their peers say `peers`.
    fn check(said: &[Said], peers: &[Said], expected: Round) {
        let id = |index: usize| HostId(Uuid::from_u128(1 + index as u128));
        let said: Vec<_> = said.iter().enumerate().map(|(index, said)| (Some(id(index)), *said)).collect();
        let of = |(index, said): (usize, &Said)| match said {
            Said::Version(version) => Some((id(index), *version)),
            _ => None,
        };
        let peers = peers.iter().enumerate().filter_map(of).collect();
        assert_eq!(conclude(&said, &peers), expected, "{said:?} {peers:?}");
    }

    #[test]
    fn all_that_are_up_must_say_one_version() {
        check(&[A, A, A], &[], Round::Agreed);
        check(&[A, B, A], &[], Round::Differ);
        check(&[A], &[], Round::Agreed);
        check(&[A, A, Said::Nothing], &[], Round::Differ);
        check(&[], &[], Round::Differ);
    }

    #[test]
    fn who_does_not_let_the_gateway_in_is_asked_for_by_another_or_not_known() {
        check(&[Said::NotLetIn, Said::NotLetIn], &[], Round::Unknown);
        check(&[Said::NotLetIn, Said::Nothing], &[], Round::Unknown);
        check(&[Said::NotLetIn, A], &[A], Round::Agreed);
        check(&[Said::NotLetIn, A], &[B], Round::Differ);
        check(&[Said::NotLetIn, A], &[], Round::Unknown);
        check(&[Said::NotLetIn, A, B], &[A], Round::Differ);
        check(&[Said::NotLetIn, A, Said::Nothing], &[A], Round::Differ);
    }
}
