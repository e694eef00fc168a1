//! An independent judge: `cassandra-protocol`, another implementation of the protocol, parses what real nodes said before and
//! after rewriting, and the two differ only in the cells and addresses that a client dials.
//!
//! What is expected is worked out here from the recorded ring, with nothing of the crate's own rewriting.

#![allow(clippy::unwrap_used)]

#[path = "golden/gate.rs"]
mod gate;
#[path = "golden/golden.rs"]
mod golden;

use std::net::{IpAddr, SocketAddr};

use cassandra_protocol::compression::Compression;
use cassandra_protocol::frame::events::ServerEvent;
use cassandra_protocol::frame::frame_decoder::{
    FrameDecoder, LegacyFrameDecoder, Lz4FrameDecoder, UncompressedFrameDecoder,
};
use cassandra_protocol::frame::message_response::ResponseBody;
use cassandra_protocol::frame::message_result::{BodyResResultRows, ColType, ColTypeOption, ResResultBody};
use cassandra_protocol::frame::{Envelope, Opcode};
use cqlgate::rewrite::view::drivers::Injection;
use cqlgate::rewrite::view::{NodePorts, SingleNode, View};
use gate::{Gate, endpoint_on, playable};
use golden::{Conversation, GoldenNode, Side, all, named};

/// The envelopes of one side, decoded by the other implementation.
struct Oracle {
    compression: Compression,
    /// `None` until the handshake is over.
    decoder: Option<Box<dyn FrameDecoder>>,
    version: u8,
}

impl Oracle {
    fn new(conversation: &Conversation) -> Self {
        let compression = match &*conversation.compression {
            "lz4" => Compression::Lz4,
            "snappy" => Compression::Snappy,
            _ => Compression::None,
        };
        Self { compression, decoder: None, version: conversation.version }
    }

    fn read(&mut self, bytes: &[u8]) -> Vec<Envelope> {
        let mut bytes = bytes.to_vec();
        if let Some(decoder) = &mut self.decoder {
            return decoder.consume(&mut bytes, self.compression).unwrap();
        }
        let envelopes = LegacyFrameDecoder::default().consume(&mut bytes, self.compression).unwrap();
        if envelopes.iter().any(|e| matches!(e.opcode, Opcode::Ready | Opcode::Authenticate)) {
            self.decoder = Some(match (self.version, self.compression) {
                (5, Compression::Lz4) => Box::new(Lz4FrameDecoder::default()),
                (5, _) => Box::new(UncompressedFrameDecoder::default()),
                _ => Box::new(LegacyFrameDecoder::default()),
            });
        }
        envelopes
    }
}

/// How a conversation is looked at.
struct Setting {
    view: &'static dyn View,
    injection: Injection,
    rewriting: bool,
    /// What the client is told to dial.
    path: &'static str,
}

const NODE_PORTS: Setting =
    Setting { view: &NodePorts, injection: Injection { local: false, peers: false }, rewriting: true, path: "one" };

/// What was compared.
#[derive(Debug, Default)]
struct Seen {
    rows: usize,
    cells: usize,
    events: usize,
    json: usize,
    injected: usize,
}

/// Plays a conversation and compares all that the node said with all that the client got.
fn compare(conversation: &Conversation, setting: &Setting) -> Result<Seen, String> {
    let mut gate = Gate::new(conversation, setting.rewriting);
    (gate.view, gate.injection, gate.path) = (setting.view, setting.injection, setting.path);
    let (mut said, mut got) = (Oracle::new(conversation), Oracle::new(conversation));
    let (mut before, mut after) = (Vec::new(), Vec::new());
    for exchange in playable(conversation) {
        let told = gate.to_client.len();
        gate.play(exchange.from, &exchange.bytes, usize::MAX);
        if exchange.from == Side::Node {
            before.extend(said.read(&exchange.bytes));
            after.extend(got.read(&gate.to_client[told..]));
        }
    }
    if let Some(ended) = gate.ended {
        return Err(format!("{}: ended: {ended}", conversation.name));
    }
    let mut seen = Seen::default();
    let mut after = after.iter();
    let mut told = Told::default();
    for before in &before {
        let Some((word, address)) = event_of(before) else {
            compare_envelopes(conversation, setting, before, after.next().ok_or("an answer is missing")?, &mut seen)
                .map_err(|why| format!("{}: {why}", conversation.name))?;
            continue;
        };
        // An address that is nobody's is that of a node which is down and came back elsewhere.
        let returned = |node: &&GoldenNode| word == "Up" && told.down.contains(&node.number);
        let mut nodes = conversation.nodes.iter();
        let known = nodes.clone().find(|node| node.address == address);
        let Some(node) = known.or_else(|| nodes.find(returned)) else { continue };
        if !setting.view.shows_peers() || !told.is_news(node.number, &word) {
            continue;
        }
        let expected = Some((word, endpoint_on(setting.path, node.number, node.address)));
        let is = after.next().and_then(event_of);
        if is != expected {
            return Err(format!("{}: {address} became {is:?}, not {expected:?}", conversation.name));
        }
        seen.events += 1;
    }
    match after.next() {
        None => Ok(seen),
        Some(more) => Err(format!("{}: the client got more than the node said: {more:?}", conversation.name)),
    }
}

/// What a client was told of each node: at first that all are there and up, as the rows say that it reads.
#[derive(Default)]
struct Told {
    removed: Vec<usize>,
    down: Vec<usize>,
}

impl Told {
    /// False for what the client knows already.
    fn is_news(&mut self, number: usize, word: &str) -> bool {
        let (removed, down) = (self.removed.contains(&number), self.down.contains(&number));
        match word {
            "Down" if !down && !removed => self.down.push(number),
            "Up" if down => self.down.retain(|&n| n != number),
            "RemovedNode" if !removed => self.removed.push(number),
            "NewNode" if removed => self.removed.retain(|&n| n != number),
            _ => return false,
        }
        true
    }
}

/// The word and the address of an event about a node.
fn event_of(envelope: &Envelope) -> Option<(String, SocketAddr)> {
    if envelope.opcode != Opcode::Event {
        return None;
    }
    match envelope.response_body().ok()? {
        ResponseBody::Event(event) => match event.event {
            ServerEvent::StatusChange(change) => Some((format!("{:?}", change.change_type), change.addr)),
            ServerEvent::TopologyChange(change) => Some((format!("{:?}", change.change_type), change.addr)),
            _ => None,
        },
        _ => None,
    }
}

fn compare_envelopes(
    conversation: &Conversation,
    setting: &Setting,
    before: &Envelope,
    after: &Envelope,
    seen: &mut Seen,
) -> Result<(), String> {
    if before == after && system_rows(before).is_none() {
        return Ok(());
    }
    let Some((table, was)) = system_rows(before) else { return Err(format!("{before:?} became {after:?}")) };
    if (before.stream_id, before.version) != (after.stream_id, after.version) {
        return Err("another stream or version".to_owned());
    }
    if (before.flags, &before.tracing_id, &before.warnings) != (after.flags, &after.tracing_id, &after.warnings) {
        return Err("other flags, tracing id or warnings".to_owned());
    }
    let Some((_, is)) = system_rows(after) else { return Err(format!("{table} became {after:?}")) };
    compare_rows(conversation, setting, &table, &was, &is, seen)
}

/// The table and the rows, when an envelope is an answer from one of the three.
fn system_rows(envelope: &Envelope) -> Option<(String, BodyResResultRows)> {
    let Ok(ResponseBody::Result(ResResultBody::Rows(rows))) = envelope.response_body() else { return None };
    let spec = rows.metadata.global_table_spec.clone()?;
    let ours = spec.ks_name == "system" && ["local", "peers", "peers_v2"].contains(&&*spec.table_name);
    ours.then_some((spec.table_name, rows))
}

fn compare_rows(
    conversation: &Conversation,
    setting: &Setting,
    table: &str,
    was: &BodyResResultRows,
    is: &BodyResResultRows,
    seen: &mut Seen,
) -> Result<(), String> {
    let names: Vec<&str> = was.metadata.col_specs.iter().map(|column| &*column.name).collect();
    let wants = match table {
        "local" => setting.injection.local,
        "peers" => setting.injection.peers,
        _ => false,
    };
    let has = |name| names.contains(&name);
    // Prepared statements never get columns, and nothing in an answer says that it is one: either shape is right here.
    let injected = is.metadata.columns_count - was.metadata.columns_count;
    if !(injected == 0 || (injected == 2 && wants && has("rpc_address") && has("host_id"))) {
        return Err(format!("{table}: {injected} more columns"));
    }
    let (same, added) = is.metadata.col_specs.split_at(was.metadata.col_specs.len());
    let mut metadata = is.metadata.clone();
    metadata.columns_count -= injected;
    metadata.col_specs.truncate(same.len());
    if metadata != was.metadata {
        return Err(format!("{table}: other metadata {:?}", is.metadata));
    }
    let simple = |id| ColTypeOption { id, value: None };
    let added: Vec<_> = added.iter().map(|column| (&*column.name, column.col_type.clone())).collect();
    if injected == 2 && added != [("native_address", simple(ColType::Inet)), ("native_port", simple(ColType::Int))] {
        return Err(format!("{table}: {added:?} were added"));
    }
    if table != "local" && !setting.view.shows_peers() {
        return if is.rows_content.is_empty() { Ok(()) } else { Err(format!("{table} is not empty")) };
    }
    if was.rows_content.len() != is.rows_content.len() {
        return Err(format!("{table}: {} rows became {}", was.rows_content.len(), is.rows_content.len()));
    }
    for (was, is) in was.rows_content.iter().zip(&is.rows_content) {
        let bytes = |row: &[cassandra_protocol::types::CBytes]| -> Vec<Option<Vec<u8>>> {
            row.iter().map(|cell| cell.clone().into_bytes()).collect()
        };
        let (was, is) = (bytes(was), bytes(is));
        if names == ["[json]"] {
            compare_json(conversation, setting.path, was[0].as_deref(), is[0].as_deref())?;
            seen.json += 1;
            continue;
        }
        let owner = owner(conversation, table, &names, &was);
        let mut expected: Vec<_> =
            names.iter().zip(&was).map(|(name, cell)| expected_cell(setting.path, name, cell, owner)).collect();
        if injected == 2 {
            expected
                .extend(["native_address", "native_port"].map(|name| expected_cell(setting.path, name, &None, owner)));
            seen.injected += 1;
        }
        if expected != is {
            return Err(format!("{table}: {names:?} {is:?}, expected {expected:?}"));
        }
        seen.rows += 1;
        seen.cells += is.iter().zip(&was).filter(|(is, was)| is != was).count();
    }
    Ok(())
}

/// A row of SELECT JSON: the text is that of the node, but for the values that a client dials.
fn compare_json(conversation: &Conversation, path: &str, was: Option<&[u8]>, is: Option<&[u8]>) -> Result<(), String> {
    let text = |json: Option<&[u8]>| String::from_utf8(json.unwrap_or_default().to_vec()).unwrap();
    let (was, is) = (text(was), text(is));
    let row: serde_json::Value = serde_json::from_str(&was).unwrap();
    let peer = row["peer"].as_str().unwrap();
    let node = conversation.nodes.iter().find(|node| node.address.ip().to_string() == peer).unwrap();
    let told = endpoint_on(path, node.number, node.address);
    let expected = was
        .replace(&format!("\"native_address\": \"{peer}\""), &format!("\"native_address\": \"{}\"", told.ip()))
        .replace(&format!("\"native_port\": {}", row["native_port"]), &format!("\"native_port\": {}", told.port()));
    if is == expected && (is != was || path == "pods") {
        Ok(())
    } else {
        Err(format!("{was} became {is}, not {expected}"))
    }
}

/// The node that a row is of, by whatever it says.
fn owner<'a>(
    conversation: &'a Conversation,
    table: &str,
    names: &[&str],
    row: &[Option<Vec<u8>>],
) -> Option<&'a GoldenNode> {
    if table == "local" {
        return Some(conversation.connected_node());
    }
    let octets = |node: &GoldenNode| match node.address.ip() {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let host_id = names.iter().position(|name| *name == "host_id").and_then(|at| row[at].as_deref());
    conversation.nodes.iter().find(|node| match host_id {
        Some(id) => uuid::Uuid::from_slice(id).unwrap().to_string() == node.host_id,
        None => row.iter().flatten().any(|cell| *cell == octets(node)),
    })
}

fn expected_cell(path: &str, name: &str, cell: &Option<Vec<u8>>, owner: Option<&GoldenNode>) -> Option<Vec<u8>> {
    let told = owner.map(|node| endpoint_on(path, node.number, node.address));
    match name {
        "rpc_address" | "native_address" | "a" | "system.max(native_address)" => match told.map(|told| told.ip()) {
            Some(IpAddr::V4(address)) => Some(address.octets().to_vec()),
            Some(IpAddr::V6(address)) => Some(address.octets().to_vec()),
            None => None,
        },
        "rpc_port" | "native_port" | "p" => told.map(|told| i32::from(told.port()).to_be_bytes().to_vec()),
        "preferred_ip" | "preferred_port" => None,
        _ => cell.clone(),
    }
}

#[test]
fn what_real_nodes_said_differs_only_where_a_client_dials() {
    let mut total = Seen::default();
    for conversation in all().iter().filter(|c| !c.name.contains("negotiation-")) {
        let seen = compare(conversation, &NODE_PORTS).unwrap_or_else(|why| panic!("{why}"));
        if conversation.name.contains("system-") {
            assert!(seen.rows >= 20 && seen.cells >= 30 && seen.json >= 2, "{}: {seen:?}", conversation.name);
        }
        if conversation.name.contains("events-") {
            assert!(seen.events >= 2, "{}: {seen:?}", conversation.name);
        }
        total.rows += seen.rows;
    }
    assert!(total.rows > 200, "{total:?}");
}

#[test]
fn what_is_told_is_what_the_path_leads_to() {
    for path in ["each", "pods"] {
        let mut total = Seen::default();
        for conversation in all().iter().filter(|c| c.name.contains("system-") || c.name.contains("events-")) {
            let seen =
                compare(conversation, &Setting { path, ..NODE_PORTS }).unwrap_or_else(|why| panic!("{path} {why}"));
            (total.rows, total.events) = (total.rows + seen.rows, total.events + seen.events);
            total.cells += seen.cells;
        }
        assert!(total.rows > 100 && total.events > 10, "{path}: {total:?}");
        assert!(path == "pods" || total.cells > 200, "{path}: {total:?}");
    }
}

#[test]
fn columns_are_added_only_at_the_end_and_only_where_wanted() {
    let injection = Injection { local: true, peers: true };
    for conversation in all().iter().filter(|c| c.name.contains("system-")) {
        let seen = compare(conversation, &Setting { injection, ..NODE_PORTS }).unwrap_or_else(|why| panic!("{why}"));
        assert!(seen.injected >= 3, "{}: {seen:?}", conversation.name);
    }
}

#[test]
fn the_single_node_view_differs_only_in_its_own_row() {
    for conversation in all().iter().filter(|c| c.name.contains("system-") || c.name.contains("events-")) {
        let seen =
            compare(conversation, &Setting { view: &SingleNode, ..NODE_PORTS }).unwrap_or_else(|why| panic!("{why}"));
        assert!(seen.events == 0, "{}: {seen:?}", conversation.name);
    }
}

#[test]
fn without_rewriting_the_oracle_sees_every_internal_address() {
    for cell in ["v3-none", "v3-lz4", "v3-snappy", "v4-none", "v4-lz4", "v4-snappy", "v5-none", "v5-lz4"] {
        let conversation = named(&format!("5.0/system-{cell}"));
        assert!(compare(&conversation, &Setting { rewriting: false, ..NODE_PORTS }).is_err(), "{cell}");
    }
    let events = named("5.0/events-v4-none");
    assert!(compare(&events, &Setting { rewriting: false, ..NODE_PORTS }).is_err());
}
