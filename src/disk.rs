//! The thread that looks at files. They are looked at each second for as long as the process lives, and a disk may hang: one thread of
//! its own waits then, and no other. (The runtime's pool for what blocks begins another thread where the last one has just ended its
//! work and does not rest yet, and keeps both for as long as either has something to do within ten seconds.)

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Sender, channel};
use std::thread;

use tokio::sync::oneshot;

type Work = Box<dyn FnOnce() + Send>;

/// The way to that thread, which ends with the last of these.
#[derive(Clone, Debug)]
pub struct Disk(Sender<Work>);

impl Disk {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system's, when it cannot be started.
    pub fn start() -> io::Result<Self> {
        let (sender, works) = channel::<Work>();
        thread::Builder::new().name("files".to_owned()).spawn(move || works.into_iter().for_each(|work| work()))?;
        Ok(Self(sender))
    }

    /// What `work` comes to, after all that was asked before.
    ///
    /// # Errors
    /// It panicked.
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
        let (done, result) = oneshot::channel();
        let work: Work = Box::new(move || {
            // Whoever asked hears of it; the thread has others to serve.
            if let Ok(found) = catch_unwind(AssertUnwindSafe(work)) {
                let _ = done.send(found);
            }
        });
        self.0.send(work).map_err(|_| io::Error::other("the thread that looks at files has ended"))?;
        result.await.map_err(io::Error::other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_thread_does_it_all_and_outlives_what_panics() {
        let disk = Disk::start().unwrap();
        let here = || (thread::current().id(), thread::current().name().map(str::to_owned));
        let (first, name) = disk.run(here).await.unwrap();
        assert_eq!(name.as_deref(), Some("files"));
        assert!(disk.run(|| panic!("on purpose")).await.is_err());
        assert_eq!(disk.clone().run(here).await.unwrap().0, first);
    }
}
