//! The lines between a program and the rig: JSON out, commands in (see ../README.md).
use serde_json::Value;
use std::io::Write;
use tokio::io::{AsyncBufReadExt, BufReader, Lines, Stdin};

pub fn say(line: Value) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).expect("the rig reads");
}

pub fn options() -> Value {
    serde_json::from_str(&std::env::args().nth(1).expect("one argument")).expect("JSON")
}

pub fn contacts(options: &Value) -> Vec<String> {
    options["contacts"].as_array().expect("a list").iter().filter_map(|c| Some(c.as_str()?.to_owned())).collect()
}

pub fn commands() -> Lines<BufReader<Stdin>> {
    BufReader::new(tokio::io::stdin()).lines()
}
