//! Lines on their way to standard error: a bounded queue and one thread that writes.
//!
//! A write to a pipe that nobody reads (a container runtime that hangs, a paused terminal) blocks for as long as it likes. Then
//! that thread waits and nobody else does: the queue fills, further lines are dropped and counted, and when writing goes on
//! one line says how many are missing. Whoever logs pays for a copy of the line, never for the write.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};
use std::{io, thread};

use tracing_subscriber::fmt::MakeWriter;

/// Lines that wait; with lines of about 300 bytes, 1.2 MiB.
const LINES: usize = 4096;
/// Between two attempts to put the request to flush into a full queue.
const RETRY: Duration = Duration::from_millis(5);

enum Entry {
    Line(Box<[u8]>),
    /// Everything before it has been written.
    Flush(SyncSender<()>),
}

/// Where the formatter writes its lines, each in one call.
#[derive(Clone)]
pub struct Queue {
    sender: SyncSender<Entry>,
    dropped: Arc<AtomicU64>,
}

impl Queue {
    /// Starts the thread that writes to `out`; `lost` is the line for so many dropped ones, its newline included.
    ///
    /// # Errors
    /// The system's, when the thread cannot be started.
    pub fn start(out: impl Write + Send + 'static, lost: fn(u64) -> String) -> io::Result<Self> {
        let (sender, entries) = sync_channel(LINES);
        let dropped = Arc::new(AtomicU64::new(0));
        let seen = Arc::clone(&dropped);
        thread::Builder::new().name("log".to_owned()).spawn(move || write(&entries, out, &seen, lost))?;
        Ok(Self { sender, dropped })
    }

    /// Waits until what was logged so far is written, or for `limit`; false says that it is not.
    pub fn flush(&self, limit: Duration) -> bool {
        let end = Instant::now() + limit;
        let (done, written) = sync_channel(1);
        let mut entry = Entry::Flush(done);
        while let Err(TrySendError::Full(back)) = self.sender.try_send(entry) {
            if Instant::now() >= end {
                return false;
            }
            entry = back;
            thread::sleep(RETRY);
        }
        written.recv_timeout(end.saturating_duration_since(Instant::now())).is_ok()
    }
}

impl Write for &Queue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.sender.try_send(Entry::Line(line.into())).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    /// Nothing: see [`Queue::flush`].
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Queue {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

/// Runs for the life of the process. A write that fails (standard error is closed) cannot be told to anybody.
fn write(entries: &Receiver<Entry>, mut out: impl Write, dropped: &AtomicU64, lost: fn(u64) -> String) {
    for entry in entries {
        match entry {
            Entry::Line(line) => drop(out.write_all(&line)),
            Entry::Flush(done) => drop(done.try_send(())),
        }
        let missing = dropped.swap(0, Ordering::Relaxed);
        if missing > 0 {
            drop(out.write_all(lost(missing).as_bytes()));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};

    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    /// An output that takes a line only when it is allowed to, and shows it.
    struct Gate {
        allowed: Receiver<()>,
        taken: Sender<String>,
    }

    impl Write for Gate {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            let _ = self.allowed.recv();
            let _ = self.taken.send(String::from_utf8_lossy(line).into_owned());
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn gated() -> (Queue, Sender<()>, Receiver<String>) {
        let ((allow, allowed), (taken, lines)) = (channel(), channel());
        (Queue::start(Gate { allowed, taken }, |lines| format!("{lines} lost\n")).unwrap(), allow, lines)
    }

    #[test]
    fn blocked_output_blocks_nobody_and_tells_what_is_missing() {
        let (queue, allow, lines) = gated();
        for line in 0..LINES * 2 {
            (&queue).write_all(format!("{line}\n").as_bytes()).unwrap();
        }
        assert!(!queue.flush(Duration::from_millis(1)));
        drop(allow);
        assert!(queue.flush(LONG));
        let written: Vec<_> = lines.try_iter().collect();
        assert_eq!(written[0], "0\n");
        let lost = written.iter().find_map(|line| line.strip_suffix(" lost\n")).unwrap().parse::<usize>().unwrap();
        assert_eq!(lost + written.len() - 1, LINES * 2);
    }

    #[test]
    fn flushed_lines_are_written_in_order() {
        let (queue, allow, lines) = gated();
        drop(allow);
        for line in 0..10 {
            (&queue).write_all(format!("{line}\n").as_bytes()).unwrap();
        }
        assert!(queue.flush(LONG));
        let expected: Vec<_> = (0..10).map(|line| format!("{line}\n")).collect();
        assert_eq!(lines.try_iter().collect::<Vec<_>>(), expected);
    }
}
