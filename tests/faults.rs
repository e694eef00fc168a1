//! `tests/FAULTS.md` has every fault once, and every test, fuzz target and suite that it names exists and tests something.

#![allow(clippy::unwrap_used)] // helpers of tests

use std::fs;
use std::path::Path;

/// How many faults each part has.
const PARTS: [(char, usize); 6] = [('A', 30), ('B', 26), ('C', 13), ('D', 9), ('E', 14), ('F', 10)];

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// Every Rust source under `folder`, but for what is built there.
fn sources(folder: &Path) -> String {
    let mut text = String::new();
    for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
            text += &sources(&path);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text += &fs::read_to_string(&path).unwrap();
        }
    }
    text
}

/// The names of what `tests/real/run` runs, and of the suites that are a folder with a `run` of its own.
fn suites() -> Vec<String> {
    let rig = read("tests/real/rig/suites.py");
    let (_, rest) = rig.split_once("\nSUITES = {").unwrap();
    let (table, _) = rest.split_once("}\n").unwrap();
    let mut names: Vec<String> = table
        .split(',')
        .filter_map(|entry| Some(entry.split_once("\": ")?.0.trim().trim_start_matches('"').to_owned()))
        .collect();
    names.extend(read("tests/deploy/run").starts_with("#!").then(|| "deploy".to_owned()));
    names
}

/// The names behind a word, as in "fuzz `a`, `b`", up to what separates proofs.
fn named<'a>(proof: &'a str, kind: &str) -> Vec<&'a str> {
    proof.split([';', ':']).filter_map(|part| part.split_once(kind)).flat_map(|(_, names)| quoted(names)).collect()
}

/// Words between backquotes.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

fn is_test(name: &str) -> bool {
    let of_a_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    name.matches('_').count() >= 2 && name.chars().all(of_a_name)
}

/// The body of the function, up to the line that closes it.
fn body<'a>(sources: &'a str, name: &str) -> Option<&'a str> {
    let at = sources.find(&format!("fn {name}("))?;
    let start = sources[..at].rfind('\n').map_or(0, |line| line + 1);
    let indent: String = sources[start..at].chars().take_while(|c| *c == ' ').collect();
    let rest = &sources[at..];
    rest.find(&format!("\n{indent}}}")).map(|end| &rest[..end])
}

#[test]
fn every_fault_is_there_once_and_says_something() {
    let table = read("tests/FAULTS.md");
    for (part, count) in PARTS {
        for number in 1..=count {
            let rows: Vec<&str> =
                table.lines().filter(|line| line.starts_with(&format!("| {part}{number} |"))).collect();
            let proof = rows.first().and_then(|row| row.split('|').nth(3)).unwrap_or_default().trim();
            assert!(rows.len() == 1 && proof.len() > 15, "{part}{number}: {rows:?}");
            let is_said = ["left to a later version", "not ours", "without proof", "not run"];
            assert!(
                proof.contains('`') || is_said.iter().any(|words| proof.contains(words)),
                "{part}{number}: {proof}"
            );
        }
    }
    let unproved = table.matches("| without proof").count() + table.matches("| not run").count();
    assert!(unproved <= 5, "{unproved} rows without proof");
}

#[test]
fn every_proof_exists_and_tests_something() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let all = sources(&root.join("src")) + &sources(&root.join("tests"));
    let targets = read("tests/fuzz/Cargo.toml");
    let suites = suites();
    let table = read("tests/FAULTS.md");
    let (mut tests, mut others) = (0, 0);
    for row in table.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| #")) {
        let proof = row.split('|').nth(3).unwrap_or_default();
        for name in quoted(proof).filter(|name| is_test(name)) {
            let Some(body) = body(&all, name) else { panic!("no test is called {name}: {row}") };
            let tests_something = ["assert", "check", "panic!", "until", "refused(", "expect(", "passes(", "reached("];
            assert!(tests_something.iter().any(|word| body.contains(word)), "{name} asserts nothing");
            tests += 1;
        }
        for target in named(proof, "fuzz ") {
            assert!(targets.contains(&format!("\nname = \"{target}\"\n")), "no fuzz target is called {target}: {row}");
            others += 1;
        }
        for suite in named(proof, "rig ") {
            assert!(suites.iter().any(|known| known == suite), "no suite is called {suite}: {row}");
            others += 1;
        }
    }
    assert!(tests > 100 && others > 10, "{tests} and {others}");
    assert!(suites.len() > 10 && !suites.iter().any(|name| name == "life"), "{suites:?}");
    assert_eq!(body("fn none(", "some"), None);
}
