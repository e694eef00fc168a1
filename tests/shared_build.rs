//! `cargo run -- demo` and `cargo test` share one build: development dependencies change no feature of a package that the program
//! is made of, or tokio and all above it would be built twice.

#![allow(clippy::unwrap_used)] // helpers of tests

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// Each package of the graph with these kinds of edges, and its features.
fn features(edges: &str) -> BTreeMap<String, BTreeSet<String>> {
    let tree = Command::new(env!("CARGO"))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["tree", "--locked", "--offline", "--edges", edges, "--prefix", "none", "--format", "{p}\t{f}"])
        .output()
        .unwrap();
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in String::from_utf8(tree.stdout).unwrap().lines() {
        let Some((package, features)) = line.split_once('\t') else { continue };
        // "name v1.2.3 (proc-macro)", and a star where the package was shown before.
        let name = package.split(" (").next().unwrap_or_default().to_owned();
        let features = features.trim_end_matches(" (*)").split(',').filter(|feature| !feature.is_empty());
        found.entry(name).or_default().extend(features.map(str::to_owned));
    }
    found
}

#[test]
fn development_dependencies_change_no_feature_of_the_program() {
    let (program, tested) = (features("normal,build"), features("normal,build,dev"));
    assert!(program.len() > 100 && tested.len() > program.len(), "{} and {}", program.len(), tested.len());
    let changed: Vec<String> = program
        .iter()
        .filter(|(package, features)| tested.get(*package) != Some(features))
        .map(|(package, features)| {
            let more: Vec<_> = tested.get(package).into_iter().flatten().filter(|it| !features.contains(*it)).collect();
            format!("{package}: {more:?}")
        })
        .collect();
    assert!(changed.is_empty(), "built twice: {changed:#?}");
}
