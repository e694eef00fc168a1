//! `tests/TRAPS.md` names tests; each must exist, and each trap must be in the table.

use std::fs;
use std::path::Path;

/// Every Rust source under `folder`, joined.
fn sources(folder: &Path) -> String {
    let mut text = String::new();
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    for path in entries.map(|entry| entry.path()) {
        if path.is_dir() {
            text += &sources(&path);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text += &fs::read_to_string(&path).unwrap_or_default();
        }
    }
    text
}

/// The names in code that look like tests: lower case, with at least two underscores, and nothing else.
fn tests_named(line: &str) -> Vec<&str> {
    let is_test = |name: &&str| {
        name.matches('_').count() >= 2 && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    };
    line.split('`').skip(1).step_by(2).filter(is_test).collect()
}

fn missing(table: &str, sources: &str) -> Vec<String> {
    table
        .lines()
        .flat_map(tests_named)
        .filter(|name| !sources.contains(&format!("fn {name}(")))
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_test_in_the_table_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let table = fs::read_to_string(root.join("tests/TRAPS.md")).unwrap();
    let all = sources(&root.join("src")) + &sources(&root.join("tests"));
    assert_eq!(missing(&table, &all), Vec::<String>::new());
    assert_eq!(missing("| 1 | | `no_such_test_is_here_at_all` |", &all[..1000]), ["no_such_test_is_here_at_all"]);
}

#[test]
fn every_trap_has_a_row_that_says_something() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let table = fs::read_to_string(root.join("tests/TRAPS.md")).unwrap();
    for trap in 1..=43 {
        let row = table.lines().find(|line| line.starts_with(&format!("| {trap} |"))).unwrap_or_default();
        let met_by = row.split('|').nth(3).unwrap_or_default().trim();
        assert!(met_by.len() > 20, "trap {trap}: {row}");
    }
}
