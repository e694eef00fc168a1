//! What two configurations say otherwise, key by key; and which keys the process cannot change while it runs.

use std::collections::BTreeSet;
use std::fmt;

use serde_json::Value;

use super::file::File;
use super::{Config, Discovery, ListedNode, Listen};

/// The longest value that a line shows, in characters: lists may be long.
const LONGEST: usize = 300;

/// A key with another value. Secrets are in files, which the configuration only names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// As a path, such as `access.deny`.
    pub key: String,
    pub from: String,
    pub to: String,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} → {}", self.key, self.from, self.to)
    }
}

impl Config {
    /// What `to` says otherwise, in alphabetical order.
    pub fn changes(&self, to: &Self) -> Vec<Change> {
        let tree = |config: &Self| serde_json::to_value(File::from(config)).unwrap_or_default();
        let mut changes = Vec::new();
        compare("", Some(&tree(self)), Some(&tree(to)), &mut changes);
        changes
    }

    /// This one as far as a process that began with `running` can go by it: what is bound or opened at the start stays. With it,
    /// what therefore is not as it says.
    pub fn within(&self, running: &Self) -> (Self, Vec<Change>) {
        let mut possible = Self { listen: running.listen, admin: running.admin, ..self.clone() };
        possible.log.format = running.log.format;
        match (&mut possible.discovery, &running.discovery) {
            (Discovery::Nodes(nodes), Discovery::Nodes(_)) => place_within(running.listen, nodes),
            (Discovery::Dns(_), Discovery::Dns(_)) => {}
            (Discovery::ContactPoints(points), Discovery::ContactPoints(before)) => {
                points.state_file.clone_from(&before.state_file);
            }
            (Discovery::Kubernetes(kubernetes), Discovery::Kubernetes(before)) => {
                let (first_ordinal, stateful_sets) = (kubernetes.first_ordinal, kubernetes.stateful_sets.clone());
                let pins = kubernetes.pins.clone();
                *kubernetes = before.clone();
                (kubernetes.first_ordinal, kubernetes.stateful_sets, kubernetes.pins) =
                    (first_ordinal, stateful_sets, pins);
            }
            (discovery, before) => {
                before.clone_into(discovery);
                possible.allow.clone_from(&running.allow);
            }
        }
        let left = possible.changes(self);
        (possible, left)
    }
}

/// Ports of another `listen` than the one that is bound are nobody's: those nodes have the port of their place in the list.
fn place_within(listen: Listen, nodes: &mut [ListedNode]) {
    // Ports of the system's choice are no numbers of the file's.
    if listen.first == 0 {
        return;
    }
    for (position, node) in (0..).zip(nodes) {
        if !(listen.first..=listen.last).contains(&node.port) {
            node.port = listen.first.saturating_add(position);
        }
    }
}

/// Mappings key by key, everything else as a whole.
fn compare(key: &str, from: Option<&Value>, to: Option<&Value>, changes: &mut Vec<Change>) {
    if from == to {
        return;
    }
    let (Some(Value::Object(before)), Some(Value::Object(after))) = (from, to) else {
        changes.push(Change { key: key.to_owned(), from: words(from), to: words(to) });
        return;
    };
    for name in before.keys().chain(after.keys()).collect::<BTreeSet<_>>() {
        let inner = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
        compare(&inner, before.get(name), after.get(name), changes);
    }
}

/// As it would stand in the file, on one line.
fn words(value: Option<&Value>) -> String {
    let mut text = String::new();
    match value {
        Some(value) => write_value(value, &mut text),
        None => text.push_str("absent"),
    }
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{} …", &text[..end]),
        None => text,
    }
}

fn write_value(value: &Value, text: &mut String) {
    match value {
        Value::String(word) => text.push_str(word),
        Value::Array(entries) => {
            text.push('[');
            for (index, entry) in entries.iter().enumerate() {
                text.push_str(if index > 0 { ", " } else { "" });
                write_value(entry, text);
            }
            text.push(']');
        }
        Value::Object(keys) => {
            text.push('{');
            for (index, (key, value)) in keys.iter().enumerate() {
                text.push_str(if index > 0 { ", " } else { "" });
                text.extend([key.as_str(), ": "]);
                write_value(value, text);
            }
            text.push('}');
        }
        other => text.push_str(&other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const HEAD: &str = "advertise: g\ndiscovery: {nodes: [{name: a, address: h}]}\n";

    fn config(text: &str) -> Config {
        Config::parse("gate.yaml", text, Path::new("")).unwrap_or_else(|error| panic!("{text}{error}")).config
    }

    /// What changes, and what stays, where the second text follows the first.
    #[track_caller]
    fn check(from: &str, to: &str, taken: &[&str], left: &[&str]) {
        let (from, to) = (config(from), config(to));
        let (possible, stays) = to.within(&from);
        let lines = |changes: Vec<Change>| changes.iter().map(Change::to_string).collect::<Vec<_>>();
        assert_eq!(lines(from.changes(&possible)), taken);
        assert_eq!(lines(stays), left);
    }

    #[test]
    fn a_change_is_told_by_its_key_with_both_values_in_words() {
        check(HEAD, HEAD, &[], &[]);
        check(
            HEAD,
            &format!("{HEAD}access: {{deny: [192.0.2.0/24], allow: [10.0.0.0/8]}}\nprobe: {{interval: 3s}}\n"),
            &["access.allow: absent → [10.0.0.0/8]", "access.deny: [] → [192.0.2.0/24]", "probe.interval: 2s → 3s"],
            &[],
        );
        check(
            &format!("{HEAD}views: {{rules: [{{driver: x, view: node_ports}}]}}\n"),
            &format!("{HEAD}views: {{rules: [{{ports: 9042-9043, unnamed: true, view: single_node}}]}}\n"),
            &["views.rules: [{driver: x, view: node_ports}] → [{ports: 9042-9043, unnamed: true, view: single_node}]"],
            &[],
        );
        check(
            &format!("{HEAD}logins: {{keep_out: {{after: 3, lasts: 1m}}}}\n"),
            "advertise: {ipv4: 10.0.0.1, ipv6: '2001:db8::1'}\ndiscovery: {nodes: [{name: b, address: h, port: 9050}]}\n",
            &[
                "advertise: g → {ipv4: 10.0.0.1, ipv6: 2001:db8::1}",
                "discovery.nodes: [{address: h:9042, name: a, port: 9042}] → [{address: h:9042, name: b, port: 9050}]",
                "logins.keep_out: {after: 3, lasts: 1m} → absent",
            ],
            &[],
        );
    }

    #[test]
    fn what_is_bound_at_the_start_is_named_and_stays_and_the_rest_is_taken() {
        check(
            HEAD,
            &format!("listen: 10.0.0.1:9000-9009\nadmin: 10.0.0.1:9180\n{HEAD}log: {{level: debug, format: json}}\n"),
            &["log.level: info → debug"],
            &[
                "admin: 127.0.0.1:9180 → 10.0.0.1:9180",
                "discovery.nodes: [{address: h:9042, name: a, port: 9042}] → [{address: h:9042, name: a, port: 9000}]",
                "listen: 0.0.0.0:9042-9061 → 10.0.0.1:9000-9009",
                "log.format: auto → json",
            ],
        );
        check(
            HEAD,
            "advertise: h\ndiscovery: {dns: c.db, allow: [10.0.0.0/8]}\n",
            &["advertise: g → h"],
            &[
                "discovery.allow: absent → [10.0.0.0/8]",
                "discovery.dns: absent → c.db",
                "discovery.nodes: [{address: h:9042, name: a, port: 9042}] → absent",
            ],
        );
        check(
            "advertise: g\ndiscovery: {contact_points: [h], state_file: a.json}\n",
            "advertise: g\ndiscovery: {contact_points: [h, i], state_file: b.json, allow: [10.0.0.0/8]}\n",
            &["discovery.allow: absent → [10.0.0.0/8]", "discovery.contact_points: [h:9042] → [h:9042, i:9042]"],
            &["discovery.state_file: a.json → b.json"],
        );
        check(
            "advertise: g\ndiscovery: {kubernetes: {service: c}}\n",
            "advertise: g\ndiscovery: {kubernetes: {service: d, ledger: e, pins: {c-2: 9050}, first_ordinal: 3}}\n",
            &["discovery.kubernetes.first_ordinal: 0 → 3", "discovery.kubernetes.pins: absent → {c-2: 9050}"],
            &["discovery.kubernetes.ledger: cqlgate-ports → e", "discovery.kubernetes.service: c → d"],
        );
    }

    #[test]
    fn a_long_list_is_cut() {
        let many: Vec<String> = (0..100).map(|n| format!("10.0.{n}.0/24")).collect();
        let to = config(&format!("{HEAD}access: {{deny: [{}]}}\n", many.join(", ")));
        let change = config(HEAD).changes(&to).remove(0);
        assert_eq!(change.to.chars().count(), LONGEST + 2);
        assert!(change.to.ends_with(" …"), "{change}");
    }
}
