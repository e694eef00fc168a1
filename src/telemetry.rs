//! Logs, on standard error: human on a terminal, JSON lines otherwise. The level can be changed while the gateway runs, and
//! an output that does not move holds nobody up (`queue`).

mod queue;

use std::io::{IsTerminal, stderr};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::Registry;
use tracing_subscriber::reload;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

use self::queue::Queue;
use crate::config::{Log, LogFormat};

/// The client library of the Kubernetes API: heard only where a filter names it.
const KUBE: &str = "kube_client";

/// A text that is no filter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no level: write error, warn, info, debug, trace or off, for one module cqlgate::proxy=debug,info")]
pub struct BadFilter(String);

/// Reads a filter: levels, or module=level, separated by commas.
pub fn parse_filter(text: &str) -> Result<Targets, BadFilter> {
    // `Targets` takes a word that is no level for the name of a module, of which everything is logged.
    for directive in text.split(',') {
        let level = directive.rsplit_once('=').map_or(directive, |(_, level)| level);
        if level.trim().parse::<LevelFilter>().is_err() || level.trim().is_empty() {
            return Err(BadFilter(directive.to_owned()));
        }
    }
    let filter: Targets = text.parse().map_err(|_| BadFilter(text.to_owned()))?;
    // It says of each attempt what our watches say once, and counts as an error what we wait for.
    let named = filter.iter().any(|(target, _)| target.starts_with(KUBE));
    Ok(if named { filter } else { filter.with_target(KUBE, LevelFilter::OFF) })
}

/// Reads and changes the filter of the running process.
#[derive(Clone)]
pub struct LogLevel {
    filter: reload::Handle<Targets, Registry>,
    text: Arc<Mutex<String>>,
}

impl LogLevel {
    /// The filter as it was given last.
    pub fn get(&self) -> String {
        self.text.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts `text` in force at once, or changes nothing.
    pub fn set(&self, text: &str) -> Result<(), BadFilter> {
        let filter = parse_filter(text)?;
        let mut current = self.text.lock().unwrap_or_else(PoisonError::into_inner);
        self.filter.reload(filter).map_err(|_| BadFilter(text.to_owned()))?;
        text.clone_into(&mut current);
        Ok(())
    }
}

/// Why logs could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    #[error(transparent)]
    Filter(#[from] BadFilter),
    #[error(transparent)]
    Twice(#[from] TryInitError),
    #[error("the thread that writes logs cannot be started: {0}")]
    Thread(#[from] std::io::Error),
}

/// The process's queue, once [`init`] has run.
static QUEUE: OnceLock<Queue> = OnceLock::new();
/// At the end, a reader that has stopped reading is not waited for longer than this.
const LAST_LINES: Duration = Duration::from_secs(2);

/// Starts logging for the whole process; once.
pub fn init(log: &Log) -> Result<LogLevel, TelemetryError> {
    let terminal = stderr().is_terminal();
    let human = match log.format {
        LogFormat::Auto => terminal,
        LogFormat::Human => true,
        LogFormat::Json => false,
    };
    let colours = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let queue = Queue::start(stderr(), if human { lost_human } else { lost_json })?;
    let (subscriber, level) = subscriber(log, human, colours, queue.clone())?;
    subscriber.try_init()?;
    QUEUE.get_or_init(|| queue);
    Ok(level)
}

/// Waits, for two seconds at most, until what was logged is written. The last thing that the process does.
pub fn flush() {
    if let Some(queue) = QUEUE.get() {
        queue.flush(LAST_LINES);
    }
}

fn lost_human(lines: u64) -> String {
    format!("{} WARN {lines} log lines are missing here: standard error was not read\n", Timestamp::now())
}

fn lost_json(lines: u64) -> String {
    let line = serde_json::json!({
        "timestamp": Timestamp::now().to_string(),
        "level": "WARN",
        "message": "log lines are missing here: standard error was not read",
        "lines": lines,
        "target": module_path!(),
    });
    format!("{line}\n")
}

fn subscriber<W>(
    log: &Log,
    human: bool,
    colours: bool,
    writer: W,
) -> Result<(impl Subscriber + Send + Sync, LogLevel), BadFilter>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let (filter, handle) = reload::Layer::new(parse_filter(&log.level)?);
    let lines = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(colours);
    let lines = if human { lines.boxed() } else { lines.json().flatten_event(true).boxed() };
    let level = LogLevel { filter: handle, text: Arc::new(Mutex::new(log.level.clone())) };
    Ok((Registry::default().with(lines.with_filter(filter)), level))
}

/// A level that can be set and read while the other value lives, of no logs; for tests of others.
#[cfg(test)]
pub fn detached(level: &str) -> (impl Send, LogLevel) {
    let (layer, filter) = reload::Layer::new(parse_filter(level).unwrap());
    (layer, LogLevel { filter, text: Arc::new(Mutex::new(level.to_owned())) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl Lines {
        fn take(&self) -> String {
            String::from_utf8(std::mem::take(&mut self.0.lock().unwrap())).unwrap()
        }
    }

    #[test]
    fn filters_are_levels_or_modules_with_levels() {
        for text in ["info", "off", "cqlgate::proxy=debug,info", "warn,cqlgate=trace"] {
            assert!(parse_filter(text).is_ok(), "{text}");
        }
        for (text, bad) in [("verbose", "verbose"), ("", ""), ("info,", ""), ("cqlgate=loud,info", "cqlgate=loud")] {
            assert_eq!(parse_filter(text), Err(BadFilter(bad.to_owned())));
        }
    }

    #[test]
    fn the_kubernetes_client_is_heard_where_it_is_named() {
        let hears = |text, level| parse_filter(text).unwrap().would_enable("kube_client::client", &level);
        assert!(!hears("info", tracing::Level::ERROR));
        assert!(!hears("cqlgate=debug,info", tracing::Level::ERROR));
        assert!(hears("kube_client=debug,info", tracing::Level::DEBUG));
        assert!(hears("kube_client::client=warn,info", tracing::Level::WARN));
    }

    #[test]
    fn missing_lines_are_told_in_json_too() {
        let line: serde_json::Value = serde_json::from_str(&lost_json(7)).unwrap();
        assert_eq!(line["lines"], 7);
    }

    #[test]
    fn level_changes_while_running_and_lines_are_json() {
        let lines = Lines::default();
        let writer = lines.clone();
        let log = Log { level: "info".to_owned(), format: LogFormat::Json };
        let (subscriber, level) = subscriber(&log, false, false, move || writer.clone()).unwrap();
        tracing::subscriber::with_default(subscriber, || {
            tracing::debug!("quiet");
            assert_eq!(lines.take(), "");
            level.set("debug").unwrap();
            tracing::debug!(port = 9042, "heard");
            let line: serde_json::Value = serde_json::from_str(&lines.take()).unwrap();
            assert_eq!(line["message"], "heard");
            assert_eq!(line["port"], 9042);
            assert!(level.set("loud").is_err());
            assert_eq!(level.get(), "debug");
        });
    }
}
