//! Errors that show the user's own line: `file:line:column`, the line, a caret, what is wrong.

pub(super) mod keys;

use std::fmt;

use keys::{key_at, locate, mapping_at};

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

    /// What serde found in `text`. What is missing is said of the mapping that lacks it: serde's own place is that mapping's
    /// last key, which is innocent.
    pub fn from_yaml(file: &str, text: &str, error: &serde_saphyr::Error) -> Self {
        let error = error.without_snippet();
        let at = error.location().and_then(|at| {
            let (line, column) = (usize::try_from(at.line()).ok()?, usize::try_from(at.column()).ok()?);
            Some((line, column, usize::try_from(at.span().len()).unwrap_or(1)))
        });
        let (key, at) = match (error, at) {
            (_, None) => (String::new(), None),
            (serde_saphyr::Error::SerdeMissingField { .. }, Some((line, column, _))) => {
                let key = mapping_at(text, line, column);
                let at = locate(text, &key);
                (key, at)
            }
            (serde_saphyr::Error::SerdeUnknownField { .. }, Some(at)) => (mapping_at(text, at.0, at.1), Some(at)),
            (_, Some(at)) => (key_at(text, at.0, at.1), Some(at)),
        };
        let place = at.and_then(|(line, column, width)| Place::at(file, text, line, column, width));
        let mut what = error.to_string();
        if let Some(at) = what.rfind(" at line ") {
            what.truncate(at);
        }
        let what = what.replace(", set DuplicateKeyPolicy in Options if acceptable", "");
        // With no line to show, in an empty file or for a key that is missing at the top, at least which file it was.
        let what = if place.is_none() { format!("{file}: {what}") } else { what };
        Self { problems: vec![Problem { key, what, place }] }
    }

    /// What is missing at the top has no line: at least which file it was.
    pub fn naming(mut self, file: &str) -> Self {
        for problem in self.problems.iter_mut().filter(|problem| problem.key.is_empty() && problem.place.is_none()) {
            problem.what = format!("{file}: {}", problem.what);
        }
        self
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

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "listen: 0.0.0.0:9042 # x\ndiscovery:\n  nodes:\n    - {name: a, port: 9042}\n    - name: b\n      port: 9043\nlimits: {frame: 1B}\n";

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
