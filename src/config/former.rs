//! Keys of earlier versions that have lost their meaning: a file that has one is read without it, and told what took its place.
//! Every other key that is not known is refused.

use serde_saphyr::granit_parser::Event;

use super::marked::keys::{Walk, nodes};

/// A key that had a meaning once.
pub(super) struct Former {
    /// As a path; `[]` is any entry of a list: `discovery.nodes[].zone`.
    key: &'static str,
    /// The key that does today what it did.
    now: &'static str,
}

/// What has lost its meaning since 0.1.0: nothing. limits.connections and connections_per_node counted every open connection and
/// count the established ones; limits.stages counts those before.
pub(super) const FORMER: &[Former] = &[];

/// `text` with spaces in place of former keys and their values, so that everything else stays where it is; and a warning for each.
pub(super) fn without(former: &[Former], file: &str, text: &str) -> (String, Vec<String>) {
    let mut living: Vec<char> = text.chars().collect();
    let mut warnings = Vec::new();
    let mut walk = Walk::default();
    // Of each mapping around: how many keys stay, and where the first one that does not is.
    let mut mappings: Vec<(usize, Option<usize>)> = Vec::new();
    let mut cut: Option<(usize, usize)> = None;
    for (event, span) in nodes(text) {
        walk.step(&event);
        let at = span.start.index();
        // A key goes as far as the next one, or as its mapping: with its comma and its comments.
        if let Some((from, depth)) = cut
            && (walk.depth() < depth || (walk.depth() == depth && walk.is_key()))
        {
            living.get_mut(from..at).into_iter().flatten().filter(|c| !matches!(c, '\n' | '\r')).for_each(|c| *c = ' ');
            cut = None;
        }
        match event {
            Event::MappingStart(..) => mappings.push((0, None)),
            Event::MappingEnd => {
                // A mapping without braces that has no key left would be read as null.
                if let Some((0, Some(first))) = mappings.pop()
                    && living.get(at) != Some(&'}')
                    && let Some(place) = living.get_mut(first..first + 2)
                {
                    place.copy_from_slice(&['{', '}']);
                }
            }
            _ => {}
        }
        if !walk.is_key() || cut.is_some() {
            continue;
        }
        let Some((stay, first)) = mappings.last_mut() else { continue };
        let path = walk.path();
        let Some(Former { now, .. }) = former.iter().find(|former| former.key == any_entry(&path)) else {
            *stay += 1;
            continue;
        };
        first.get_or_insert(at);
        cut = Some((at, walk.depth()));
        let (line, column) = (span.start.line(), span.start.col() + 1);
        warnings.push(format!("{file}:{line}:{column}: {path} means nothing any more and is ignored: see {now}"));
    }
    (living.into_iter().collect(), warnings)
}

/// `discovery.nodes[1].zone` → `discovery.nodes[].zone`.
fn any_entry(path: &str) -> String {
    path.split('[').map(|part| part.trim_start_matches(|c: char| c.is_ascii_digit())).collect::<Vec<_>>().join("[")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::{Config, Overlay, Resolved};
    use super::*;

    const TABLE: &[Former] = &[
        Former { key: "patience", now: "timeouts.login" },
        Former { key: "limits.strangers", now: "limits.stages" },
        Former { key: "drain.hooks", now: "drain.delay" },
        Former { key: "discovery.nodes[].zone", now: "advertise" },
    ];
    const HEAD: &str = "advertise: 203.0.113.10\ndiscovery: {nodes: [{name: a, address: 10.0.0.1}]}\n";

    fn read(former: &[Former], text: &str) -> Result<Resolved, String> {
        Config::read_with(former, "gate.yaml", text, Path::new(""), &Overlay::default())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn former_keys_are_read_ignored_and_told() {
        let told = |line, column, key: &str, now: &str| {
            format!("gate.yaml:{line}:{column}: {key} means nothing any more and is ignored: see {now}")
        };
        let stages = |line, column| vec![told(line, column, "limits.strangers", "limits.stages")];
        let hooks = |line, column| vec![told(line, column, "drain.hooks", "drain.delay")];
        for (text, same, warnings) in [
            ("patience: 3s\n", "", vec![told(3, 1, "patience", "timeouts.login")]),
            ("limits: {strangers: 5}\n", "limits: {}\n", stages(3, 10)),
            ("limits: {strangers: 5, connections: 7}\n", "limits: {connections: 7}\n", stages(3, 10)),
            ("limits: {connections: 7, 'strangers': 5}\n", "limits: {connections: 7}\n", stages(3, 26)),
            ("limits:\n  # é\n  strangers: 5 # all\nlogins: {delay: 1s}\n", "logins: {delay: 1s}\n", stages(5, 3)),
            ("limits:\r\n  strangers: 5\r\n  connections: 7\r\n", "limits: {connections: 7}\n", stages(4, 3)),
            ("limits:\n  connections: 7\n  strangers: {a: [1, 2]}", "limits: {connections: 7}\n", stages(5, 3)),
            (
                "drain:\n  hooks:\n    - a: 1\n      b: |\n        text\n  delay: 2s\n",
                "drain: {delay: 2s}\n",
                hooks(4, 3),
            ),
            ("drain:\n  delay: 2s\n  hooks:\n  - patience: 1\n", "drain: {delay: 2s}\n", hooks(5, 3)),
            ("limits: &all\n  strangers: 5\n", "", stages(4, 3)),
            ("# patience: 1\ndrain:\n  hooks:\n", "", hooks(5, 3)),
        ] {
            let found = read(TABLE, &format!("{HEAD}{text}")).unwrap_or_else(|error| panic!("{text}{error}"));
            assert_eq!(found.warnings, warnings, "{text}");
            assert_eq!(found.config, read(TABLE, &format!("{HEAD}{same}")).unwrap().config, "{text}");
        }
        let marked = format!("\u{feff}patience: 3s\n{HEAD}");
        assert_eq!(read(TABLE, &marked).unwrap().warnings, [told(1, 1, "patience", "timeouts.login")]);
        let listed = "advertise: g\ndiscovery:\n  nodes:\n    - {name: a, address: h}\n    - zone: x\n      name: b\n      address: i\n";
        assert_eq!(read(TABLE, listed).unwrap().warnings, [told(5, 7, "discovery.nodes[1].zone", "advertise")]);
    }

    /// Beside a former key, what is wrong is still found, and where it is.
    #[test]
    fn all_other_keys_are_refused_as_ever() {
        for (text, expected) in [
            ("patience: 3s\nlimits: {strangers: 5, bogus: 1}\n", "gate.yaml:4:24: limits: unknown field `bogus`"),
            ("limits: {connections: 7}\nstrangers: 5\n", "gate.yaml:4:1: unknown field `strangers`"),
            ("drain: {strangers: 5}\n", "gate.yaml:3:9: drain: unknown field `strangers`"),
            ("limits: {stages: {patience: 5}}\n", "gate.yaml:3:19: limits.stages: unknown field `patience`"),
            ("limits: {strangers: 5, connections: 0}\n", "gate.yaml:3:37: limits.connections: 0 lets nobody in"),
            ("patience: 1s\nlimits: {strangers: [5}\n", "gate.yaml:4:"),
        ] {
            let error = read(TABLE, &format!("{HEAD}{text}")).unwrap_err();
            assert!(error.starts_with(expected), "{text}{error}");
        }
        let error = read(&[], &format!("{HEAD}patience: 3s\n")).unwrap_err();
        assert!(error.contains("unknown field `patience`"), "{error}");
    }
}
