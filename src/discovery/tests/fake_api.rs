//! A scripted Kubernetes API server: lists, pages, watches, bookmarks and errors, word for word as a real one (1.36) was seen to
//! answer over HTTP/1.1, with the faults that a real one does not produce on demand.

mod ledger;

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{broadcast, watch};
use tokio::task::{AbortHandle, JoinSet};

use super::until;

/// The objects that the gateway asks for, by path and field selector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Of namespace `db`.
    Slices,
    Pods,
    /// The headless Service of namespace `db`.
    Service,
    /// The gateway's own Service, of namespace `gate`.
    LoadBalancer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verb {
    List,
    Watch,
}

/// What is answered in place of the truth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Unauthorized,
    Forbidden,
    /// 429 of API priority and fairness: text/plain, no Status.
    Throttled,
    Internal,
    Unavailable,
    /// The request is read and never answered.
    Silent,
    /// The connection ends in the middle of the answer.
    Cut,
    /// Lists: the next is answered, those after it are [`Self::Unavailable`].
    UnavailableAfterOne,
    /// Lists: the first page comes; of the second the continue token has expired.
    SecondPageExpired,
    /// Lists: JSON that is no list. Watches: a line that is no event, then silence.
    Garbage,
    /// Watches: 200, and then that the place in the history is gone.
    Expired,
    /// Watches: 200, and a clean end at once.
    EndsAtOnce,
    /// Watches: 200, and then nothing, whatever happens.
    Stalls,
}

/// One request as it came.
#[derive(Clone, Debug)]
pub struct Request {
    pub at: Instant,
    pub kind: Kind,
    pub verb: Verb,
    /// `resourceVersion`.
    pub version: Option<u64>,
}

struct World {
    version: u64,
    /// Watches from before this version are told that it is gone.
    oldest: u64,
    objects: BTreeMap<(Kind, String), Value>,
    history: Vec<(u64, Kind, &'static str, Value)>,
    faults: HashMap<(Kind, Verb), Fault>,
    requests: Vec<Request>,
    page: usize,
    config_map: Option<Value>,
}

pub struct Backup {
    version: u64,
    objects: BTreeMap<(Kind, String), Value>,
}

/// What happens to open watches of a kind.
#[derive(Clone, Debug)]
enum Act {
    End,
    /// The connection ends in the middle of an event.
    Cut,
    Write(Vec<u8>),
}

struct Shared {
    world: Mutex<World>,
    /// The newest version.
    version: watch::Sender<u64>,
    acts: broadcast::Sender<(Kind, Act)>,
}

pub struct FakeApi {
    shared: Arc<Shared>,
    address: SocketAddr,
    running: Mutex<Option<Running>>,
}

struct Running {
    accepting: AbortHandle,
    connections: Arc<Mutex<JoinSet<()>>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.accepting.abort();
        self.connections.lock().unwrap().abort_all();
    }
}

impl FakeApi {
    pub async fn start() -> Self {
        let world = World {
            version: 1000,
            oldest: 0,
            objects: BTreeMap::new(),
            history: Vec::new(),
            faults: HashMap::new(),
            requests: Vec::new(),
            page: usize::MAX,
            config_map: None,
        };
        let shared =
            Shared { world: Mutex::new(world), version: watch::Sender::new(1000), acts: broadcast::channel(64).0 };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let api = Self { shared: Arc::new(shared), address, running: Mutex::default() };
        api.serve(listener);
        api
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn serve(&self, listener: TcpListener) {
        let connections = Arc::<Mutex<JoinSet<()>>>::default();
        let (shared, open) = (Arc::clone(&self.shared), Arc::clone(&connections));
        let accepting = tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { return };
                let shared = Arc::clone(&shared);
                open.lock().unwrap().spawn(async move { _ = shared.converse(stream).await });
            }
        });
        *self.running.lock().unwrap() = Some(Running { accepting: accepting.abort_handle(), connections });
    }

    /// As after SIGKILL: connections are reset, and new ones refused.
    pub fn kill(&self) {
        self.running.lock().unwrap().take();
    }

    /// At the same address as before.
    pub async fn start_again(&self) {
        loop {
            match TcpListener::bind(self.address).await {
                Ok(listener) => return self.serve(listener),
                // The killed one goes at its next poll.
                Err(_) => tokio::task::yield_now().await,
            }
        }
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.shared.world.lock().unwrap()
    }

    /// Makes or changes an object.
    pub fn put(&self, kind: Kind, name: &str, mut object: Value) {
        let mut world = self.world();
        world.version += 1;
        let version = world.version;
        object["metadata"]["name"] = json!(name);
        object["metadata"]["resourceVersion"] = json!(version.to_string());
        let before = world.objects.insert((kind, name.to_owned()), object.clone());
        let event = if before.is_some() { "MODIFIED" } else { "ADDED" };
        world.history.push((version, kind, event, object));
        drop(world);
        self.shared.version.send_replace(version);
    }

    pub fn delete(&self, kind: Kind, name: &str) {
        let mut world = self.world();
        world.version += 1;
        let version = world.version;
        let mut object = world.objects.remove(&(kind, name.to_owned())).unwrap();
        object["metadata"]["resourceVersion"] = json!(version.to_string());
        world.history.push((version, kind, "DELETED", object));
        drop(world);
        self.shared.version.send_replace(version);
    }

    /// Takes objects out of lists without an event.
    pub fn lose(&self, kind: Kind, name: &str) {
        self.world().objects.remove(&(kind, name.to_owned())).unwrap();
    }

    /// Every version until now is too old to watch from, as after a restart of the server.
    pub fn forget_history(&self) {
        let mut world = self.world();
        world.version += 1;
        world.oldest = world.version;
    }

    /// What a backup of etcd would hold now.
    pub fn back_up(&self) -> Backup {
        let world = self.world();
        Backup { version: world.version, objects: world.objects.clone() }
    }

    /// As after etcd was restored from that backup and the server started again: versions go on from the backup's, and watches
    /// from later ones are accepted and hear nothing until versions have come so far again.
    pub async fn restore(&self, backup: &Backup) {
        self.kill();
        {
            let mut world = self.world();
            world.version = backup.version;
            world.objects = backup.objects.clone();
            world.history.retain(|(version, ..)| *version <= backup.version);
        }
        self.shared.version.send_replace(backup.version);
        self.start_again().await;
    }

    /// Objects in one page of a list, whatever the client's limit.
    pub fn set_page(&self, page: usize) {
        self.world().page = page;
    }

    pub fn break_with(&self, kind: Kind, verb: Verb, fault: Fault) {
        self.world().faults.insert((kind, verb), fault);
    }

    pub fn mend_one(&self, kind: Kind, verb: Verb) {
        self.world().faults.remove(&(kind, verb));
    }

    pub fn mend(&self) {
        self.world().faults.clear();
    }

    pub fn end_watches(&self, kind: Kind) {
        _ = self.shared.acts.send((kind, Act::End));
    }

    pub fn cut_watches(&self, kind: Kind) {
        _ = self.shared.acts.send((kind, Act::Cut));
    }

    pub fn bookmark(&self, kind: Kind) {
        let mut world = self.world();
        world.version += 1;
        let object =
            kind.object(json!({"metadata": {"resourceVersion": world.version.to_string(), "creationTimestamp": null}}));
        drop(world);
        _ = self.shared.acts.send((kind, Act::Write(line("BOOKMARK", &object))));
    }

    /// These bytes in every open watch of the kind.
    pub fn write(&self, kind: Kind, bytes: Vec<u8>) {
        _ = self.shared.acts.send((kind, Act::Write(bytes)));
    }

    pub fn version(&self) -> u64 {
        self.world().version
    }

    /// The requests of one kind, in order.
    pub fn requests(&self, kind: Kind, verb: Verb) -> Vec<Request> {
        self.world().requests.iter().filter(|of| of.kind == kind && of.verb == verb).cloned().collect()
    }

    /// Waits until so many more requests of this kind have come.
    pub async fn until_asked(&self, kind: Kind, verb: Verb, more: usize) {
        self.until_asked_in_all(kind, verb, self.requests(kind, verb).len() + more).await;
    }

    pub async fn until_asked_in_all(&self, kind: Kind, verb: Verb, wanted: usize) {
        let count = || self.requests(kind, verb).len();
        until(|| count() >= wanted, || format!("{kind:?} {verb:?}: {} of {wanted}", count())).await;
    }
}

impl Kind {
    fn of(path: &str, query: &HashMap<String, String>) -> Option<Self> {
        match (path, query.get("fieldSelector").map(String::as_str)) {
            ("/apis/discovery.k8s.io/v1/namespaces/db/endpointslices", None) => {
                assert_eq!(query["labelSelector"], "kubernetes.io/service-name=cassandra");
                Some(Self::Slices)
            }
            ("/api/v1/namespaces/db/pods", None) => {
                assert_eq!(query["labelSelector"], "app=cassandra");
                Some(Self::Pods)
            }
            ("/api/v1/namespaces/db/services", Some("metadata.name=cassandra")) => Some(Self::Service),
            ("/api/v1/namespaces/gate/services", Some("metadata.name=cqlgate")) => Some(Self::LoadBalancer),
            _ => None,
        }
    }

    /// Kind, apiVersion, plural, and the group's name.
    fn names(self) -> (&'static str, &'static str, &'static str, &'static str) {
        match self {
            Self::Slices => ("EndpointSlice", "discovery.k8s.io/v1", "endpointslices", "discovery.k8s.io"),
            Self::Pods => ("Pod", "v1", "pods", ""),
            Self::Service | Self::LoadBalancer => ("Service", "v1", "services", ""),
        }
    }

    fn object(self, mut object: Value) -> Value {
        let (kind, version, ..) = self.names();
        object["kind"] = json!(kind);
        object["apiVersion"] = json!(version);
        if self == Self::Slices && object.get("addressType").is_none() {
            object["addressType"] = json!("");
            object["endpoints"] = Value::Null;
            object["ports"] = Value::Null;
        }
        object
    }
}

/// One event of a watch.
pub fn line(event: &str, object: &Value) -> Vec<u8> {
    format!("{}\n", json!({"type": event, "object": object})).into_bytes()
}

fn status(code: u16, reason: &str, message: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message,
        "reason": reason, "code": code})
}

impl Shared {
    /// One connection, request after request.
    async fn converse(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let mut received = Vec::new();
        loop {
            let end = loop {
                if let Some(at) = received.windows(4).position(|four| four == b"\r\n\r\n") {
                    break at + 4;
                }
                if stream.read_buf(&mut received).await? == 0 {
                    return Ok(());
                }
            };
            let head: Vec<u8> = received.drain(..end).collect();
            let head = String::from_utf8(head).unwrap();
            let target = head.split(' ').nth(1).unwrap();
            let (path, query) = target.split_once('?').unwrap_or((target, ""));
            let header = |line: &str| line.to_ascii_lowercase().strip_prefix("content-length:").map(str::to_owned);
            let length: usize = head.lines().find_map(header).map_or(0, |length| length.trim().parse().unwrap());
            while received.len() < length {
                stream.read_buf(&mut received).await?;
            }
            let body: Vec<u8> = received.drain(..length).collect();
            if let Some((code, answer)) = self.config_map(head.split(' ').next().unwrap(), path, &body) {
                write_whole(&mut stream, code, &answer.to_string()).await?;
                continue;
            }
            let query = parse_query(query);
            let Some(kind) = Kind::of(path, &query) else {
                let error = status(404, "NotFound", "the server could not find the requested resource");
                write_whole(&mut stream, 404, &error.to_string()).await?;
                continue;
            };
            let verb = if query.contains_key("watch") { Verb::Watch } else { Verb::List };
            let version = query.get("resourceVersion").and_then(|text| text.parse().ok());
            let fault = {
                let mut world = self.world.lock().unwrap();
                world.requests.push(Request { at: Instant::now(), kind, verb, version });
                let fault = world.faults.get(&(kind, verb)).copied();
                if fault == Some(Fault::UnavailableAfterOne) {
                    world.faults.insert((kind, verb), Fault::Unavailable);
                }
                fault
            };
            let of_page = |expired| fault == Some(Fault::SecondPageExpired) && expired;
            match fault {
                Some(Fault::Silent) => std::future::pending().await,
                Some(fault) if write_error(&mut stream, kind, verb, fault).await? => {}
                _ if of_page(query.contains_key("continue")) => {
                    let text = "The provided continue parameter is too old to display a consistent list result.";
                    write_whole(&mut stream, 410, &status(410, "Expired", text).to_string()).await?;
                }
                fault if verb == Verb::List => {
                    let list = self.list(kind, query.get("continue")).to_string();
                    match fault {
                        Some(Fault::Cut) => {
                            let head = format!(
                                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
                                list.len()
                            );
                            stream.write_all(head.as_bytes()).await?;
                            stream.write_all(&list.as_bytes()[..list.len() / 2]).await?;
                            return Ok(());
                        }
                        Some(Fault::Garbage) => write_whole(&mut stream, 200, "{\"items\":[{\"metadata\":7}]}").await?,
                        _ => write_whole(&mut stream, 200, &list).await?,
                    }
                }
                fault => {
                    let seconds: u64 = query["timeoutSeconds"].parse().unwrap();
                    assert!(query["allowWatchBookmarks"] == "true" && (180..240).contains(&seconds), "{query:?}");
                    self.watch(&mut stream, kind, version.unwrap(), fault).await?;
                }
            }
        }
    }

    fn list(&self, kind: Kind, token: Option<&String>) -> Value {
        let world = self.world.lock().unwrap();
        let from: usize = token.map_or(0, |token| token.parse().unwrap());
        let all: Vec<&Value> =
            world.objects.iter().filter(|((of, _), _)| *of == kind).map(|(_, object)| object).collect();
        let items: Vec<&Value> = all.iter().copied().skip(from).take(world.page).collect();
        let (of, api_version, ..) = kind.names();
        let mut metadata = json!({"resourceVersion": world.version.to_string()});
        let next = from + items.len();
        if next < all.len() {
            metadata["continue"] = json!(next.to_string());
            metadata["remainingItemCount"] = json!(all.len() - next);
        }
        json!({"kind": format!("{of}List"), "apiVersion": api_version, "metadata": metadata, "items": items})
    }

    /// Returns when the watch has ended cleanly: the connection may go on.
    async fn watch(&self, stream: &mut TcpStream, kind: Kind, from: u64, fault: Option<Fault>) -> std::io::Result<()> {
        let mut acts = self.acts.subscribe();
        let mut newest = self.version.subscribe();
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
            .await?;
        let oldest = self.world.lock().unwrap().oldest;
        if fault == Some(Fault::Expired) || from < oldest {
            let error = status(410, "Expired", &format!("too old resource version: {from} ({oldest})"));
            write_chunk(stream, &line("ERROR", &error)).await?;
            return stream.write_all(b"0\r\n\r\n").await;
        }
        match fault {
            Some(Fault::EndsAtOnce) => return stream.write_all(b"0\r\n\r\n").await,
            Some(Fault::Stalls) => return std::future::pending().await,
            Some(Fault::Garbage) => {
                write_chunk(stream, b"{\"type\":\"ADDED\",\"object\":{\"metadata\":7}}\n").await?;
                return std::future::pending().await;
            }
            _ => {}
        }
        let mut sent = from;
        loop {
            let news: Vec<Vec<u8>> = {
                let world = self.world.lock().unwrap();
                let news = world.history.iter().filter(|(version, of, ..)| *version > sent && *of == kind);
                let lines = news.map(|(_, _, event, object)| line(event, &kind.object(object.clone())));
                let lines = lines.collect();
                sent = world.version.max(sent);
                lines
            };
            for event in news {
                write_chunk(stream, &event).await?;
            }
            let mut byte = [0];
            tokio::select! {
                Ok(()) = newest.changed() => {}
                Ok((of, act)) = acts.recv() => match act {
                    _ if of != kind => {}
                    Act::End => return stream.write_all(b"0\r\n\r\n").await,
                    Act::Cut => {
                        write_chunk(stream, b"{\"type\":\"MODIFIED\",\"object\":{\"kind\":\"Endp").await?;
                        return Err(std::io::ErrorKind::UnexpectedEof.into());
                    }
                    Act::Write(bytes) => write_chunk(stream, &bytes).await?,
                },
                // The client has gone.
                read = stream.read(&mut byte) => {
                    assert_eq!(read?, 0);
                    return Err(std::io::ErrorKind::UnexpectedEof.into());
                }
            }
        }
    }
}

/// False where the fault is no answer of its own.
async fn write_error(stream: &mut TcpStream, kind: Kind, verb: Verb, fault: Fault) -> std::io::Result<bool> {
    let (_, _, plural, group) = kind.names();
    let (code, body) = match fault {
        Fault::Unauthorized => (401, status(401, "Unauthorized", "Unauthorized")),
        Fault::Forbidden => {
            let verb = if verb == Verb::List { "list" } else { "watch" };
            let name = format!("{plural}{}{group}", if group.is_empty() { "" } else { "." });
            let who = "User \"system:serviceaccount:gate:cqlgate\"";
            let text = format!(
                "{name} is forbidden: {who} cannot {verb} resource \"{plural}\" in API group \"{group}\" in the namespace \"db\""
            );
            (403, status(403, "Forbidden", &text))
        }
        Fault::Throttled => {
            let text = "Too many requests, please try again later.\n";
            let head =
                "HTTP/1.1 429 Too Many Requests\r\nContent-Type: text/plain; charset=utf-8\r\nRetry-After: 1\r\n";
            stream.write_all(format!("{head}Content-Length: {}\r\n\r\n{text}", text.len()).as_bytes()).await?;
            return Ok(true);
        }
        Fault::Internal => (500, status(500, "InternalError", "Internal error occurred: etcdserver: leader changed")),
        Fault::Unavailable => {
            (503, status(503, "ServiceUnavailable", "the server is currently unable to handle the request"))
        }
        _ => return Ok(false),
    };
    write_whole(stream, code, &body.to_string()).await?;
    Ok(true)
}

async fn write_whole(stream: &mut TcpStream, code: u16, body: &str) -> std::io::Result<()> {
    let head = format!("HTTP/1.1 {code} -\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all(format!("{head}{body}").as_bytes()).await
}

async fn write_chunk(stream: &mut TcpStream, bytes: &[u8]) -> std::io::Result<()> {
    stream.write_all(format!("{:x}\r\n", bytes.len()).as_bytes()).await?;
    stream.write_all(bytes).await?;
    stream.write_all(b"\r\n").await
}

/// Percent signs as `application/x-www-form-urlencoded` has them.
fn parse_query(text: &str) -> HashMap<String, String> {
    let decode = |text: &str| {
        let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
        while let [first, tail @ ..] = rest {
            rest = tail;
            match (first, tail) {
                (b'%', [a, b, tail @ ..]) => {
                    let digits = [*a, *b];
                    bytes.push(u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap());
                    rest = tail;
                }
                (b'+', _) => bytes.push(b' '),
                _ => bytes.push(*first),
            }
        }
        String::from_utf8(bytes).unwrap()
    };
    let pairs = text.split('&').filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (decode(name), decode(value))).collect()
}
