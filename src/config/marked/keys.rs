//! Keys of a YAML text and their places: where a key is, and which key is at a place.
//!
//! Reads only as far as the text is YAML; what cannot be found is `None` or the key around it, never an error.

use serde_saphyr::granit_parser::{Event, Parser, Span};

/// Line, column (from 1) and width of the value of `key`, or of the deepest part of it that is there.
pub fn locate(text: &str, key: &str) -> Option<(usize, usize, usize)> {
    let mut events = nodes(text);
    let mut found = None;
    let mut node = events.next()?;
    'parts: for part in parts(key) {
        let wanted = match (&node.0, part) {
            (Event::MappingStart(..), Part::Key(wanted)) => Some(wanted),
            (Event::SequenceStart(..), Part::Index(index)) => {
                node = events.next()?;
                for _ in 0..index {
                    skip(&mut events, &node.0);
                    if is_end(&node.0) {
                        break 'parts;
                    }
                    node = events.next()?;
                }
                if is_end(&node.0) {
                    break;
                }
                found = Some(mark(&node.1));
                None
            }
            _ => break,
        };
        let Some(wanted) = wanted else { continue };
        loop {
            let name = events.next()?;
            if is_end(&name.0) {
                break 'parts;
            }
            let value = events.next()?;
            if matches!(&name.0, Event::Scalar(name, ..) if name.as_ref() == wanted) {
                // A collection is shown by its key, a scalar by its value.
                let scalar = matches!(value.0, Event::Scalar(..)) && value.1.start.index() < value.1.end.index();
                found = Some(mark(if scalar { &value.1 } else { &name.1 }));
                node = value;
                break;
            }
            skip(&mut events, &value.0);
        }
    }
    found
}

enum Part<'a> {
    Key(&'a str),
    Index(usize),
}

/// `a.b[1]` → a, b, 1.
fn parts(key: &str) -> impl Iterator<Item = Part<'_>> {
    key.split(['.', '[']).filter(|part| !part.is_empty()).map(|part| {
        let index = part.strip_suffix(']').and_then(|index| index.parse().ok());
        index.map_or(Part::Key(part), Part::Index)
    })
}

fn is_end(event: &Event<'_>) -> bool {
    matches!(event, Event::MappingEnd | Event::SequenceEnd)
}

/// Reads to the end of the node that `first` begins.
fn skip<'a>(events: &mut impl Iterator<Item = (Event<'a>, Span)>, first: &Event<'a>) {
    let mut depth = usize::from(matches!(first, Event::MappingStart(..) | Event::SequenceStart(..)));
    while depth > 0 {
        match events.next() {
            Some((Event::MappingStart(..) | Event::SequenceStart(..), _)) => depth += 1,
            Some((event, _)) if is_end(&event) => depth -= 1,
            Some(_) => {}
            None => return,
        }
    }
}

fn mark(span: &Span) -> (usize, usize, usize) {
    let width = if span.start.line() == span.end.line() { span.end.col().saturating_sub(span.start.col()) } else { 1 };
    (span.start.line(), span.start.col() + 1, width)
}

/// Scalars and the beginnings and ends of collections, as far as the text can be read.
pub(in crate::config) fn nodes(text: &str) -> impl Iterator<Item = (Event<'_>, Span)> {
    Parser::new_from_str(text).map_while(Result::ok).filter(|(event, _)| event.is_node() || is_end(event))
}

/// The key at a line and column (from 1), as a path: that of the last key or value that begins there or before.
pub fn key_at(text: &str, line: usize, column: usize) -> String {
    path(&levels_at(text, line, column).0)
}

/// The path of the mapping that the key at a line and column is in, or that begins there and is empty.
pub fn mapping_at(text: &str, line: usize, column: usize) -> String {
    let (mut levels, is_mapping) = levels_at(text, line, column);
    if !is_mapping {
        levels.pop();
    }
    path(&levels)
}

/// Where a reader of the events is: in which collections, and at which of their children.
enum Level {
    Mapping { key: String, value_is_next: bool },
    Sequence { items: usize },
}

/// Follows [`nodes`] one by one and knows where the last one is.
#[derive(Default)]
pub(in crate::config) struct Walk {
    levels: Vec<Level>,
    opened: Option<Level>,
    is_mapping: bool,
    is_key: bool,
}

impl Walk {
    pub(in crate::config) fn step(&mut self, event: &Event<'_>) {
        self.levels.extend(self.opened.take());
        self.is_key = false;
        if is_end(event) {
            self.levels.pop();
            return;
        }
        match self.levels.last_mut() {
            Some(Level::Mapping { value_is_next, .. }) if *value_is_next => *value_is_next = false,
            Some(Level::Mapping { key, value_is_next }) => {
                (*value_is_next, self.is_key) = (true, true);
                *key = if let Event::Scalar(name, ..) = event { name.to_string() } else { String::new() };
            }
            Some(Level::Sequence { items }) => *items += 1,
            None => {}
        }
        self.is_mapping = matches!(event, Event::MappingStart(..));
        self.opened = match event {
            Event::MappingStart(..) => Some(Level::Mapping { key: String::new(), value_is_next: false }),
            Event::SequenceStart(..) => Some(Level::Sequence { items: 0 }),
            _ => None,
        };
    }

    /// Whether the last node is a mapping's key.
    pub(in crate::config) fn is_key(&self) -> bool {
        self.is_key
    }

    /// How many collections are around the last node.
    pub(in crate::config) fn depth(&self) -> usize {
        self.levels.len()
    }

    /// The key at which the last node is, such as `discovery.nodes[1].port`.
    pub(in crate::config) fn path(&self) -> String {
        path(&self.levels)
    }
}

/// The collections around the last node that begins at a place or before, and whether that node is a mapping.
fn levels_at(text: &str, line: usize, column: usize) -> (Vec<Level>, bool) {
    let mut walk = Walk::default();
    for (event, span) in nodes(text) {
        if (span.start.line(), span.start.col() + 1) > (line, column) {
            break;
        }
        walk.step(&event);
    }
    (walk.levels, walk.is_mapping)
}

fn path(levels: &[Level]) -> String {
    let mut path = String::new();
    for level in levels {
        match level {
            Level::Mapping { key, .. } if path.is_empty() => path.push_str(key),
            Level::Mapping { key, .. } => path.extend([".", key.as_str()]),
            Level::Sequence { items } => path.push_str(&format!("[{}]", items.saturating_sub(1))),
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "listen: 0.0.0.0:9042 # x\ndiscovery:\n  nodes:\n    - {name: a, port: 9042}\n    - name: b\n      port: 9043\nlimits: {frame: 1B}\n";

    #[test]
    fn keys_are_found_in_the_text() {
        for (key, expected) in [
            ("listen", "0.0.0.0:9042"),
            ("discovery", "discovery"),
            ("discovery.nodes", "nodes"),
            ("discovery.nodes[0].port", "9042"),
            ("discovery.nodes[1].port", "9043"),
            ("discovery.nodes[1].absent", "n"),
            ("limits.frame", "1B"),
        ] {
            let (line, column, width) = locate(TEXT, key).unwrap();
            let line = TEXT.lines().nth(line - 1).unwrap();
            let marked: String = line.chars().skip(column - 1).take(width.max(1)).collect();
            assert_eq!(marked, expected, "{key}");
        }
        assert_eq!(locate(TEXT, "absent"), None);
        assert_eq!(locate(TEXT, "discovery.nodes[7]").map(|at| at.0), Some(3));
    }

    #[test]
    fn places_are_known_by_their_keys() {
        for (place, expected, mapping) in [
            ("listen", "listen", ""),
            ("0.0.0.0", "listen", ""),
            ("nodes", "discovery.nodes", "discovery"),
            ("{name: a", "discovery.nodes[0]", "discovery.nodes[0]"),
            ("a, ", "discovery.nodes[0].name", "discovery.nodes[0]"),
            ("port: 9043", "discovery.nodes[1].port", "discovery.nodes[1]"),
            ("9043", "discovery.nodes[1].port", "discovery.nodes[1]"),
            ("1B", "limits.frame", "limits"),
        ] {
            let before = &TEXT[..TEXT.find(place).unwrap()];
            let (line, column) = (before.lines().count().max(1), before.rsplit('\n').next().unwrap().len() + 1);
            let line = if before.ends_with('\n') { line + 1 } else { line };
            assert_eq!(key_at(TEXT, line, column), expected, "{place}");
            assert_eq!(mapping_at(TEXT, line, column), mapping, "{place}");
        }
        assert_eq!(key_at("", 1, 1), "");
        assert_eq!(key_at("a: [b", 1, 5), "a");
    }
}
