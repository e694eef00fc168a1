//! What the program prints at its most talkative, and what its admin address shows, searched for planted passwords and for keys.

use std::fs;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Instant;

use cqlgate::config::{AuthMode, ClientAuth};
use cqlgate::cql::frame::{Opcode, Version};
use cqlgate::cql::message::encode_plain_auth_response;
use cqlgate::demo::node::{Cluster, Options};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;

use crate::certificates::Authority;
use crate::client::Client;
use crate::{DEADLINE, get};

const PASSWORD: &str = "planted-Uzn4Qp";
const WRONG: &str = "planted-Wk7Rr2";

/// As text, as bytes in the forms in which programs print them, and in base64, at each of the three places in a group.
fn forms(secret: &str) -> Vec<String> {
    let hex = |separator: &str| secret.bytes().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(separator);
    let numbers = secret.bytes().map(|byte| byte.to_string()).collect::<Vec<_>>().join(", ");
    let mut forms = vec![secret.to_owned(), hex(""), hex(" "), hex("").to_uppercase(), numbers];
    // The groups that are of the secret alone.
    forms.extend((0..3).map(|skipped| base64(&secret.as_bytes()[skipped..skipped + 9])));
    forms
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let group = |group: &[u8]| {
        let bits = group.iter().fold(0, |bits: usize, byte| bits << 8 | usize::from(*byte));
        [18, 12, 6, 0].map(|shift| char::from(ALPHABET[bits >> shift & 63]))
    };
    bytes.chunks_exact(3).flat_map(group).collect()
}

/// The gateway before one node, both sides over TLS with certificates; a client that logs in, and one with a wrong password.
async fn printed(format: &str) -> String {
    let (servers, clients, nodes) = (Authority::new(), Authority::new(), Authority::new());
    let mut node = nodes.server(&["127.0.0.11"]);
    node.client_auth = ClientAuth { mode: AuthMode::Required, ca: Some(nodes.ca()), ..ClientAuth::default() };
    let credentials = Some(("app".to_owned(), PASSWORD.to_owned()));
    let cluster =
        Cluster::start(Options { credentials, tls: Some(node.clone()), ..Options::loopback(1, 0) }).await.unwrap();
    let (own, identity, shown) = (nodes.client("gateway"), nodes.client("role"), clients.client("app"));
    let server = servers.server(&["127.0.0.1"]);
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("password"), PASSWORD).unwrap();
    let id = std::process::id();
    let address = format!("127.{}.{}.{}", 64 + (id >> 8) % 128, id % 256, 200 + format.len());
    let yaml = format!(
        "listen: {address}:9042\nadvertise: {address}\nadmin: {address}:9180\n\
         discovery: {{nodes: [{{name: a, address: '{}'}}]}}\n\
         probe: {{username: app, password_file: password, interval: 100ms}}\nlogins: {{delay: 0s}}\n\
         log: {{level: trace, format: {format}}}\n\
         tls:\n  clients: {{certificate: {:?}, key: {:?}, client_auth: {{mode: required, ca: {:?}}}}}\n  \
         nodes: {{ca: {:?}, certificate: {:?}, key: {:?}, identities: [{{client: 'CN:app', certificate: {:?}, key: {:?}}}]}}\n",
        cluster.node(0).address(),
        server.certificate,
        server.key,
        clients.ca(),
        nodes.ca(),
        own.0,
        own.1,
        identity.0,
        identity.1,
    );
    let file = folder.path().join("gateway.yaml");
    fs::write(&file, yaml).unwrap();
    let log = folder.path().join("log");
    let output = || Stdio::from(fs::OpenOptions::new().create(true).append(true).open(&log).unwrap());
    let mut command = Command::new(env!("CARGO_BIN_EXE_cqlgate"));
    let mut program = command.arg("run").arg("--config").arg(&file).stdout(output()).stderr(output()).spawn().unwrap();
    let admin: SocketAddr = format!("{address}:9180").parse().unwrap();
    let end = Instant::now() + DEADLINE;
    while !get(admin, "/topology").is_some_and(|(_, shown)| shown.contains("\"up\"")) {
        assert!(Instant::now() < end, "the node is not up: {}", fs::read_to_string(&log).unwrap());
        tokio::task::yield_now().await;
    }
    for (password, answer) in [(WRONG, Opcode::ERROR), (PASSWORD, Opcode::AUTH_SUCCESS)] {
        let tcp = TcpStream::connect((address.as_str(), 9042)).await.unwrap();
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let tls = servers.connector_of(Some(&shown)).connect(name, tcp).await.unwrap();
        let mut client = Client::over(tls, (Version::V5, None));
        assert_eq!(client.startup(&[]).await.unwrap().0, Opcode::AUTHENTICATE);
        let token = encode_plain_auth_response("app", password);
        assert_eq!(client.ask(Opcode::AUTH_RESPONSE, &token).await.unwrap().0, answer, "{password}");
    }
    let shown: Vec<String> =
        ["/topology", "/metrics", "/readyz", "/livez"].iter().filter_map(|path| Some(get(admin, path)?.1)).collect();
    assert_eq!(shown.len(), 4);
    assert!(Command::new("kill").args(["-TERM", &program.id().to_string()]).status().unwrap().success());
    program.wait().unwrap();
    let printed = fs::read_to_string(&log).unwrap() + &shown.concat();
    for key in [&server.key, &own.1, &identity.1, &node.key] {
        let text = fs::read_to_string(key).unwrap();
        for line in text.lines().filter(|line| !line.starts_with("-----")) {
            assert!(!printed.contains(line), "a line of {} is printed", key.display());
        }
    }
    printed
}

#[tokio::test]
async fn no_level_prints_a_password_or_a_key_and_no_page_shows_one() {
    for format in ["json", "human"] {
        let printed = printed(format).await;
        // It did talk: of libraries, too.
        assert!(printed.contains("TRACE") && printed.contains("rustls"), "{printed}");
        assert!(printed.contains("CN:app"), "who the client is: {printed}");
        for secret in [PASSWORD, WRONG] {
            for form in forms(secret) {
                assert!(!printed.contains(&form), "{form} is printed:\n{printed}");
            }
        }
    }
}
