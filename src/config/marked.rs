//! Errors that show the user's own line: `file:line:column`, the line, a caret, what is wrong.

use std::fmt;

use serde_saphyr::granit_parser::{Event, Parser, Span};

/// What is wrong with a configuration; all that was found at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    pub problems: Vec<Problem>,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The key as a path, such as `discovery.nodes[1].port`; empty where the text cannot be read as YAML.
    pub key: String,
    pub what: String,
    /// Absent where there is no file, or no such line.
    pub place: Option<Place>,
}

/// A place in a file. Line and column count from 1, column and width in characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub file: String,
    pub line: usize,
    pub column: usize,
    pub width: usize,
    /// The line itself.
    pub text: String,
}

impl ConfigError {
    /// One problem without a place: the file itself, or the command line.
    pub fn plain(what: String) -> Self {
        Self { problems: vec![Problem { key: String::new(), what, place: None }] }
    }

    /// What serde found in `text`.
    pub fn from_yaml(file: &str, text: &str, error: &serde_saphyr::Error) -> Self {
        let place = error.location().and_then(|at| {
            let (line, column) = (usize::try_from(at.line()).ok()?, usize::try_from(at.column()).ok()?);
            Place::at(file, text, line, column, usize::try_from(at.span().len()).unwrap_or(1))
        });
        let mut what = error.without_snippet().to_string();
        if let Some(at) = what.rfind(" at line ") {
            what.truncate(at);
        }
        let what = what.replace(", set DuplicateKeyPolicy in Options if acceptable", "");
        // With nothing to show, an empty file, at least which file it was.
        let what = if place.is_none() { format!("{file}: {what}") } else { what };
        Self { problems: vec![Problem { key: String::new(), what, place }] }
    }

    /// Finds the line of each problem's key in `text`.
    pub fn marked(mut self, file: &str, text: &str) -> Self {
        for problem in &mut self.problems {
            problem.place =
                locate(text, &problem.key).and_then(|(line, column, width)| Place::at(file, text, line, column, width));
        }
        self
    }
}

impl Place {
    fn at(file: &str, text: &str, line: usize, column: usize, width: usize) -> Option<Self> {
        let found = text.lines().nth(line.checked_sub(1)?)?;
        let room = found.chars().count().saturating_sub(column.saturating_sub(1));
        let width = width.clamp(1, room.max(1));
        Some(Self { file: file.to_owned(), line, column, width, text: found.to_owned() })
    }
}

impl std::error::Error for ConfigError {}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = if self.key.is_empty() { String::new() } else { format!("{}: ", self.key) };
        let Some(place) = &self.place else { return write!(f, "{key}{}", self.what) };
        let Place { file, line, column, width, text } = place;
        let margin = " ".repeat(line.to_string().len());
        // Tabs stay tabs, so that the caret stands below what it points at.
        let indent: String =
            text.chars().take(column.saturating_sub(1)).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
        write!(
            f,
            "{file}:{line}:{column}: {key}{}\n {line} | {text}\n {margin} | {indent}{}",
            self.what,
            "^".repeat(*width)
        )
    }
}

/// Line, column (from 1) and width of the value of `key`, or of the deepest part of it that is there.
fn locate(text: &str, key: &str) -> Option<(usize, usize, usize)> {
    let mut events =
        Parser::new_from_str(text).filter_map(Result::ok).filter(|(event, _)| event.is_node() || is_end(event));
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
    fn the_line_is_shown_with_a_caret_below_the_value() {
        let problem = Problem { key: "discovery.nodes[1].port".to_owned(), what: "is taken".to_owned(), place: None };
        let error = ConfigError { problems: vec![problem] }.marked("gate.yaml", TEXT);
        assert_eq!(
            error.to_string(),
            "gate.yaml:6:13: discovery.nodes[1].port: is taken\n 6 |       port: 9043\n   |             ^^^^"
        );
    }
}
