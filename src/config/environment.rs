//! Keys that are set beside the file: by variables of the environment, and by flags, which win over them.
//!
//! `CQLGATE__TLS__CLIENTS__KEY` is `tls.clients.key`: two underscores for each level, because Kubernetes itself sets `CQLGATE_PORT` and the
//! like for a Service of that name. Every other name is nobody's. A value is YAML, as it would stand in the file, lists and mappings too;
//! an empty one is the key's default. They are laid over the file's tree before it is read, so that what is wrong is refused by the same
//! code, with the variable's name in place of a line.

use serde_json::{Map, Value};

use super::marked::{ConfigError, Problem};

const PREFIX: &str = "CQLGATE__";
const LEVEL: &str = "__";
/// Keys that are not all small letters: variables are all capitals.
const MIXED: [&str; 1] = ["statefulSets"];

/// Keys and their values, each with the name of what sets it. Later ones win.
#[derive(Clone, Debug, Default)]
pub struct Overlay(Vec<Entry>);

#[derive(Clone, Debug)]
struct Entry {
    /// What sets it: `CQLGATE__LISTEN`, `--listen`.
    name: String,
    path: Vec<String>,
    value: Given,
}

#[derive(Clone, Debug)]
enum Given {
    Text(String),
    Value(Value),
}

impl Overlay {
    /// What this process's environment sets.
    pub fn of_process() -> Self {
        let text = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
        Self::of_variables(std::env::vars_os().map(|(name, value)| (text(name), text(value))))
    }

    /// What these variables set; names without the prefix are left alone.
    pub fn of_variables(variables: impl IntoIterator<Item = (String, String)>) -> Self {
        let entry = |(name, value): (String, String)| {
            let path = name.strip_prefix(PREFIX)?.split(LEVEL).map(key_of).collect();
            Some(Entry { name, path, value: Given::Text(value) })
        };
        let mut entries: Vec<Entry> = variables.into_iter().filter_map(entry).collect();
        // A key within a mapping that is set, too, is laid over that mapping.
        entries.sort_by(|a, b| (a.path.len(), &a.name).cmp(&(b.path.len(), &b.name)));
        Self(entries)
    }

    /// Sets `key` over everything before.
    pub fn set(&mut self, name: &str, key: &str, value: Value) {
        let path = key.split('.').map(str::to_owned).collect();
        self.0.push(Entry { name: name.to_owned(), path, value: Given::Value(value) });
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What sets anything, in the order in which it counts.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|entry| entry.name.as_str())
    }

    /// Whether anything sets this key itself.
    pub fn sets(&self, key: &str) -> bool {
        self.0.iter().any(|entry| entry.key() == key)
    }

    /// The text of a file that says what `text` says, and these keys.
    ///
    /// # Errors
    /// Names the variable whose value is no YAML, or that is within what is no mapping.
    pub(super) fn lay_over(&self, text: &str) -> Result<String, ConfigError> {
        let unreadable = |error: &dyn std::fmt::Display| ConfigError::plain(error.to_string());
        let mut tree: Value = if text.trim().is_empty() {
            Value::Null
        } else {
            serde_saphyr::from_str(text).map_err(|error| unreadable(&error))?
        };
        for entry in &self.0 {
            entry.lay_over(&mut tree).map_err(|what| entry.refused(what))?;
        }
        serde_saphyr::to_string(&tree).map_err(|error| unreadable(&error))
    }

    /// Names what sets a key in place of the file's line.
    pub(super) fn blame(&self, mut error: ConfigError) -> ConfigError {
        for problem in &mut error.problems {
            self.blame_one(problem);
        }
        error
    }

    fn blame_one(&self, problem: &mut Problem) {
        let unknown = problem.what.strip_prefix("unknown field `").and_then(|rest| rest.split('`').next());
        let at = match unknown {
            Some(field) if problem.key.is_empty() => field.to_owned(),
            Some(field) => format!("{}.{field}", problem.key),
            None => problem.key.clone(),
        };
        if let Some(entry) = self.0.iter().rev().find(|entry| is_within(&at, &entry.key())) {
            problem.place = None;
            let whole = is_within(&entry.key(), &at) || unknown.is_some();
            problem.key = if whole { entry.name.clone() } else { format!("{}: {}", entry.name, problem.key) };
            return;
        }
        let inside: Vec<&str> =
            self.0.iter().filter(|entry| is_within(&entry.key(), &at)).map(|entry| entry.name.as_str()).collect();
        if !inside.is_empty() && !at.is_empty() {
            problem.what = format!("{} ({} counts here)", problem.what, inside.join(", "));
        }
    }
}

impl Entry {
    fn key(&self) -> String {
        self.path.join(".")
    }

    fn refused(&self, what: String) -> ConfigError {
        ConfigError { problems: vec![Problem { key: self.name.clone(), what, place: None }] }
    }

    fn lay_over(&self, tree: &mut Value) -> Result<(), String> {
        let value = match &self.value {
            Given::Value(value) => value.clone(),
            Given::Text(text) if text.trim().is_empty() => Value::Null,
            Given::Text(text) => {
                serde_saphyr::from_str(text).map_err(|error| format!("its value is no YAML: {}", first_line(&error)))?
            }
        };
        let Some((last, levels)) = self.path.split_last().filter(|_| self.path.iter().all(|key| !key.is_empty()))
        else {
            return Err(format!("is no key: {PREFIX} and its levels, with two underscores between them"));
        };
        let mut at = tree;
        for (depth, key) in levels.iter().enumerate() {
            let key = spelling(mapping(at, &self.path[..depth])?, key);
            at = mapping(at, &self.path[..depth])?.entry(key).or_insert(Value::Null);
        }
        let within = mapping(at, levels)?;
        let key = spelling(within, last);
        // As if nobody had said anything: what is null is not what is absent, to all keys.
        if value.is_null() {
            within.remove(&key)
        } else {
            within.insert(key, value)
        };
        Ok(())
    }
}

/// What is absent becomes one.
fn mapping<'a>(value: &'a mut Value, path: &[String]) -> Result<&'a mut Map<String, Value>, String> {
    if value.is_null() {
        *value = Value::Object(Map::new());
    }
    let what = if path.is_empty() { "the file".to_owned() } else { path.join(".") };
    value.as_object_mut().ok_or_else(|| format!("{what} is no mapping: set the whole of it, as YAML"))
}

/// The key as the file has it.
fn spelling(mapping: &Map<String, Value>, key: &str) -> String {
    mapping.keys().find(|known| known.eq_ignore_ascii_case(key)).map_or(key, String::as_str).to_owned()
}

fn key_of(level: &str) -> String {
    let mixed = MIXED.iter().find(|key| key.eq_ignore_ascii_case(level));
    mixed.map_or_else(|| level.to_ascii_lowercase(), |key| (*key).to_owned())
}

/// Whether `key` is `of`, or a part of it.
fn is_within(key: &str, of: &str) -> bool {
    key.strip_prefix(of).is_some_and(|rest| of.is_empty() || rest.is_empty() || rest.starts_with(['.', '[']))
}

fn first_line(error: &dyn std::fmt::Display) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::{Config, Resolved};
    use super::*;

    const HEAD: &str = "advertise: 203.0.113.10\ndiscovery: {nodes: [{name: a, address: 10.0.0.1}]}\n";

    fn read(text: &str, variables: &[(&str, &str)]) -> Result<Resolved, String> {
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let overlay = Overlay::of_variables(variables);
        Config::read("gate.yaml", text, Path::new(""), &overlay).map_err(|error| error.to_string())
    }

    /// The variables mean the same as this text without them.
    #[track_caller]
    fn check(text: &str, variables: &[(&str, &str)], same: &str) {
        let found = read(text, variables).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(found.config, read(same, &[]).unwrap().config);
    }

    #[test]
    fn a_variable_wins_over_the_file_and_the_file_over_the_default() {
        check(
            &format!("{HEAD}probe: {{interval: 3s, silence: 9s}}\n"),
            &[("CQLGATE__PROBE__INTERVAL", "4s")],
            &format!("{HEAD}probe: {{interval: 4s, silence: 9s}}\n"),
        );
        check(HEAD, &[("CQLGATE__LISTEN", "10.0.0.1:9000-9009")], &format!("listen: 10.0.0.1:9000-9009\n{HEAD}"));
        check(
            HEAD,
            &[
                ("CQLGATE__ACCESS__DENY", "[192.0.2.0/24, 10.0.0.1]"),
                ("CQLGATE__DISCOVERY__NODES", "[{name: b, address: h, port: 9050}]"),
            ],
            "advertise: 203.0.113.10\ndiscovery: {nodes: [{name: b, address: h, port: 9050}]}\naccess: {deny: [192.0.2.0/24, 10.0.0.1]}\n",
        );
    }

    #[test]
    fn rules_of_views_are_the_same_beside_the_file_and_in_it() {
        let rules = "[{unnamed: true, view: single_node}, {driver: Java, driver_version: '4.10', view: node_ports}, \
                     {application_name: shop, ports: 9042-9044, view: single_node}]";
        let file = format!("{HEAD}views: {{rules: {rules}}}\n");
        check(HEAD, &[("CQLGATE__VIEWS__RULES", rules)], &file);
        check(&file, &[("CQLGATE__VIEWS__DEFAULT", "node_ports")], &file);
        let error = read(HEAD, &[("CQLGATE__VIEWS__RULES", "[{view: single_node}]")]).unwrap_err();
        assert!(error.starts_with("CQLGATE__VIEWS__RULES: views.rules[0]: has no condition"), "{error}");
    }

    #[test]
    fn what_the_file_lacks_a_variable_may_say() {
        let nodes = "discovery: {nodes: [{name: a, address: 10.0.0.1}]}\n";
        check(nodes, &[("CQLGATE__ADVERTISE", "203.0.113.10")], HEAD);
        check("", &[("CQLGATE__ADVERTISE", "203.0.113.10"), ("CQLGATE__DISCOVERY", &nodes[11..])], HEAD);
    }

    #[test]
    fn a_level_within_a_mapping_that_is_set_counts_in_it() {
        check(
            HEAD,
            &[("CQLGATE__DRAIN__SPREAD", "3s"), ("CQLGATE__DRAIN", "{spread: 1s, delay: 7s}")],
            &format!("{HEAD}drain: {{spread: 3s, delay: 7s}}\n"),
        );
        check(
            "advertise: g\ndiscovery: {kubernetes: {service: c}}\n",
            &[("CQLGATE__DISCOVERY__KUBERNETES__STATEFULSETS", "[{name: r, ports: 9042-9043}]")],
            "advertise: g\ndiscovery: {kubernetes: {service: c, statefulSets: [{name: r, ports: 9042-9043}]}}\n",
        );
    }

    #[test]
    fn an_empty_one_is_the_default() {
        check(&format!("{HEAD}drain: {{delay: 7s}}\n"), &[("CQLGATE__DRAIN__DELAY", "")], HEAD);
    }

    #[test]
    fn names_of_others_are_left_alone() {
        let kubernetes = [
            ("CQLGATE_PORT", "tcp://10.0.0.1:9042"),
            ("CQLGATE_SERVICE_HOST", "10.0.0.1"),
            ("CQLGATE_PORT_9042_TCP_ADDR", "10.0.0.1"),
            ("CQLGATE", "x"),
            ("XCQLGATE__LISTEN", "x"),
            ("cqlgate__listen", "x"),
        ];
        check(HEAD, &kubernetes, HEAD);
    }

    #[test]
    fn what_is_wrong_is_said_of_the_variable() {
        for (name, value, said) in [
            ("CQLGATE__TLS__CLIENTS__KEZ", "x", "CQLGATE__TLS__CLIENTS__KEZ: unknown field `kez`, expected"),
            ("CQLGATE__BOGUS", "x", "CQLGATE__BOGUS: unknown field `bogus`"),
            ("CQLGATE__PROBE__INTERVAL", "10", "CQLGATE__PROBE__INTERVAL: 10 has no unit"),
            ("CQLGATE__LIMITS__CONNECTIONS", "many", "CQLGATE__LIMITS__CONNECTIONS: "),
            ("CQLGATE__LIMITS__CONNECTIONS", "0", "CQLGATE__LIMITS__CONNECTIONS: 0 lets nobody in"),
            ("CQLGATE__ACCESS", "{allow: []}", "CQLGATE__ACCESS: access.allow: is empty"),
            ("CQLGATE__ACCESS__DENY", "[10.0.0.1/8]", "CQLGATE__ACCESS__DENY: "),
            ("CQLGATE__ACCESS__DENY", "[10.0.0.1", "CQLGATE__ACCESS__DENY: its value is no YAML"),
            ("CQLGATE__LISTEN__PORTS", "x", "CQLGATE__LISTEN__PORTS: listen is no mapping"),
            ("CQLGATE__TLS____KEY", "x", "CQLGATE__TLS____KEY: is no key"),
            ("CQLGATE__", "x", "CQLGATE__: is no key"),
            ("CQLGATE__PROBE__PASSWORD_FILE", "/no/such", "CQLGATE__PROBE__PASSWORD_FILE: "),
            ("CQLGATE__TLS__CLIENTS__CERTIFICATE", "Cargo.toml", "tls.clients: missing field `key`"),
        ] {
            let text = format!("listen: 0.0.0.0:9042-9061\n{HEAD}probe: {{username: u, password_file: Cargo.toml}}\n");
            let error = read(&text, &[(name, value)]).map(|read| read.config).unwrap_err();
            assert!(error.starts_with(said), "{name}={value}: {error}");
        }
    }

    #[test]
    fn what_is_wrong_in_the_file_keeps_its_line() {
        let set = [("CQLGATE__DRAIN__DELAY", "7s")];
        for (line, said) in [
            ("probe: {interval: 3}", "gate.yaml:3:19: probe.interval: 3 has no unit"),
            ("probe: {intervall: 3s}", "gate.yaml:3:9: probe: unknown field `intervall`"),
            ("limits: {connections: 0}", "gate.yaml:3:23: limits.connections: 0 lets nobody in"),
        ] {
            let error = read(&format!("{HEAD}{line}\n"), &set).map(|read| read.config).unwrap_err();
            assert!(error.starts_with(said), "{error}");
        }
        let both = read(HEAD, &[("CQLGATE__DISCOVERY__DNS", "c.db")]).map(|read| read.config).unwrap_err();
        assert!(both.contains("exclude each other (CQLGATE__DISCOVERY__DNS counts here)"), "{both}");
    }
}
