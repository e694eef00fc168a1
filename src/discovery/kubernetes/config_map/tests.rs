//! Against an API server of one ConfigMap, on a socket.

use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use kube::Config;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::discovery::kubernetes::ledger::agreement::Agreement;
use crate::discovery::kubernetes::ledger::{KEY, Member, Terms};
use crate::topology::NodeId;
use crate::topology::ports::{DEFAULT_QUARANTINE, PortRange};

use super::*;

const PATH: &str = "/api/v1/namespaces/gate/configmaps";

/// What the server holds and has been asked.
#[derive(Default)]
struct Server {
    object: Option<Value>,
    writes: u64,
    /// The status of every answer, where it is not its own.
    refuse: Option<(u16, &'static str)>,
    /// Taken over just before the next write.
    rival: Option<Option<Value>>,
    asked: Vec<String>,
}

impl Server {
    fn answer(&mut self, method: &str, path: &str, body: &[u8]) -> (u16, Value) {
        self.asked.push(format!("{method} {path}"));
        if let Some((code, reason)) = self.refuse {
            return failure(code, reason);
        }
        let object = serde_json::from_slice::<Value>(body).ok();
        if object.is_some()
            && let Some(rival) = self.rival.take()
        {
            self.object = rival.map(|rival| self.versioned(rival));
        }
        match (method, object, self.object.clone()) {
            ("GET", _, Some(object)) => (200, object),
            ("GET" | "PUT", _, None) => failure(404, "NotFound"),
            ("POST", _, Some(_)) => failure(409, "AlreadyExists"),
            ("PUT", Some(new), Some(old))
                if new["metadata"]["resourceVersion"] != old["metadata"]["resourceVersion"] =>
            {
                failure(409, "Conflict")
            }
            ("PUT" | "POST", Some(new), _) => {
                let stored = self.versioned(new);
                self.object = Some(stored.clone());
                (if method == "POST" { 201 } else { 200 }, stored)
            }
            _ => failure(400, "BadRequest"),
        }
    }

    fn versioned(&mut self, mut object: Value) -> Value {
        self.writes += 1;
        object["metadata"]["resourceVersion"] = json!(self.writes.to_string());
        object["metadata"]["namespace"] = json!("gate");
        object
    }
}

fn failure(code: u16, reason: &str) -> (u16, Value) {
    let message = format!("the server says {reason}");
    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure",
                        "message": message, "reason": reason, "code": code});
    (code, status)
}

/// Answers one connection until its end.
async fn serve(stream: TcpStream, server: Arc<Mutex<Server>>) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await?;
        let mut words = line.split_whitespace().map(str::to_owned);
        let (Some(method), Some(path)) = (words.next(), words.next()) else { return Ok(()) };
        let mut length = 0;
        loop {
            let mut header = String::new();
            stream.read_line(&mut header).await?;
            let header = header.trim().to_ascii_lowercase();
            match header.split_once(':') {
                Some(("content-length", value)) => length = value.trim().parse().unwrap(),
                Some(_) => {}
                None => break,
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await?;
        let (code, answer) = server.lock().unwrap().answer(&method, &path, &body);
        let text = answer.to_string();
        let head =
            format!("HTTP/1.1 {code} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", text.len());
        stream.write_all(format!("{head}{text}").as_bytes()).await?;
    }
}

/// The server, and a way to it.
async fn start() -> (Arc<Mutex<Server>>, ConfigMapStore) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = Arc::new(Mutex::new(Server::default()));
    let serving = Arc::clone(&server);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, Arc::clone(&serving)));
        }
    });
    (server, store_at(&format!("http://{address}")))
}

fn store_at(url: &str) -> ConfigMapStore {
    let mut config = Config::new(url.parse().unwrap());
    config.default_retry = false;
    ConfigMapStore::new(Client::try_from(config).unwrap(), "gate", "ports")
}

/// What a replica agrees on for rack-b-0, on ports 9042 to 9051.
async fn settle(store: ConfigMapStore) -> (Vec<u16>, Option<StoreError>) {
    let terms =
        Terms { range: PortRange::new(9042, 9051).unwrap(), quarantine: DEFAULT_QUARANTINE, pins: BTreeMap::new() };
    let member = Member { id: NodeId::new("rack-b-0"), stateful_set: "rack-b".into(), ordinal: 0, prefers: None };
    let mut replica = Agreement::new(store, terms, Ledger::default());
    let agreed = replica.settle(&[member], &[], SystemTime::UNIX_EPOCH).await;
    (agreed.ports.into_values().collect(), agreed.failure)
}

fn config_map(ledger: &str) -> Value {
    json!({"kind": "ConfigMap", "apiVersion": "v1", "data": {KEY: ledger},
           "metadata": {"name": "ports", "namespace": "gate", "resourceVersion": "seen"}})
}

/// A port that is not rack-b-0's.
const TAKEN: &str = "{\"version\": 1, \"nodes\": {\"rack-a-0\": {\"port\": 9051}}}";

#[tokio::test]
async fn a_config_map_is_made_where_there_is_none() {
    let (server, store) = start().await;
    assert_eq!(settle(store).await, (vec![9051], None));
    let server = server.lock().unwrap();
    assert_eq!(server.asked, [format!("GET {PATH}/ports"), format!("POST {PATH}?")]);
    let object: ConfigMap = serde_json::from_value(server.object.clone().unwrap()).unwrap();
    assert_eq!(object.metadata.labels.as_ref().unwrap()["app.kubernetes.io/managed-by"], "cqlgate");
    assert_eq!(Ledger::of(&object).unwrap().entries()[&NodeId::new("rack-b-0")].port, 9051);
}

#[tokio::test]
async fn what_else_is_in_the_config_map_is_kept() {
    let (server, store) = start().await;
    let mut object = config_map(TAKEN);
    object["data"]["other"] = json!("theirs");
    object["metadata"]["annotations"] = json!({"a": "b"});
    object["metadata"]["labels"] = json!({"c": "d"});
    server.lock().unwrap().object = Some(object);
    assert_eq!(settle(store).await, (vec![9051, 9050], None));
    let server = server.lock().unwrap();
    assert_eq!(server.asked, [format!("GET {PATH}/ports"), format!("PUT {PATH}/ports?")]);
    let object = server.object.as_ref().unwrap();
    assert_eq!(object["data"]["other"], "theirs");
    assert_eq!(object["metadata"]["annotations"], json!({"a": "b"}));
    assert_eq!(object["metadata"]["labels"], json!({"c": "d", MANAGED_BY.0: MANAGED_BY.1}));
}

#[tokio::test]
async fn a_config_map_without_the_key_is_an_empty_ledger() {
    let (server, store) = start().await;
    let mut object = config_map("");
    object.as_object_mut().unwrap().remove("data");
    server.lock().unwrap().object = Some(object);
    assert_eq!(settle(store).await, (vec![9051], None));
    assert_eq!(server.lock().unwrap().asked[1], format!("PUT {PATH}/ports?"));
}

/// A rival writes between read and write; the ledger is read again.
async fn check_race(before: Option<Value>, rival: Option<Value>, expected: &[u16]) {
    let (server, store) = start().await;
    {
        let mut server = server.lock().unwrap();
        server.object = before;
        server.rival = Some(rival);
    }
    assert_eq!(settle(store).await, (expected.to_vec(), None));
}

#[tokio::test]
async fn a_lost_race_is_read_again() {
    check_race(None, Some(config_map(TAKEN)), &[9051, 9050]).await;
    let empty = "{\"version\": 1, \"nodes\": {}}";
    check_race(Some(config_map(empty)), Some(config_map(TAKEN)), &[9051, 9050]).await;
    // It was deleted meanwhile: it is made anew.
    check_race(Some(config_map(empty)), None, &[9051]).await;
}

#[tokio::test]
async fn a_malformed_ledger_is_told_and_not_overwritten() {
    let (server, store) = start().await;
    server.lock().unwrap().object = Some(config_map("ports: none"));
    let (ports, failure) = settle(store).await;
    let text = failure.unwrap().to_string();
    assert!(ports.is_empty() && text.starts_with("ConfigMap gate/ports, key ports.json: expected value"), "{text}");
    assert_eq!(server.lock().unwrap().asked.len(), 1);
}

#[tokio::test]
async fn refusals_say_what_was_asked() {
    let (server, store) = start().await;
    let what = "get configmaps (that named ports) in namespace gate";
    let forbidden =
        format!("{what}: forbidden: the Role of the gateway's ServiceAccount needs get (the server says Forbidden)");
    for (code, reason, expected) in [
        (403, "Forbidden", StoreError::Forbidden(forbidden)),
        (500, "InternalError", StoreError::Unavailable(format!("{what}: HTTP 500: the server says InternalError"))),
    ] {
        server.lock().unwrap().refuse = Some((code, reason));
        assert_eq!(settle(store.clone()).await.1, Some(expected));
    }
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let text = settle(store_at(&format!("http://{nobody}"))).await.1.unwrap().to_string();
    assert!(text.starts_with(&format!("the ledger: {what}: ")) && text.contains("refused"), "{text}");
}

#[tokio::test]
async fn a_write_without_a_version_is_never_sent() {
    let (server, store) = start().await;
    let mut object = config_map(TAKEN);
    object["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    server.lock().unwrap().object = Some(object);
    let failure = settle(store).await.1;
    assert!(matches!(failure, Some(StoreError::Unavailable(_))), "{failure:?}");
    assert_eq!(server.lock().unwrap().asked.len(), 1);
}
