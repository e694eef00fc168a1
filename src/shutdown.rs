//! When the process is asked to end: SIGTERM (Kubernetes) or SIGINT (Ctrl-C) starts a drain, a second one stops at once.
//!
//! It only says so; what draining means is `gateway`'s. Phases never go back.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    Running,
    /// Asked to end: finish what is in flight.
    Draining,
    /// Asked again: end now.
    Stopping,
}

/// The phase that the process is asked to be in.
#[derive(Clone, Debug)]
pub struct Shutdown(watch::Receiver<Phase>);

impl Shutdown {
    /// Listens for the signals on the current runtime, from now on.
    ///
    /// # Errors
    /// The system's, when a signal cannot be listened for.
    pub fn on_signals() -> io::Result<Self> {
        let (terminate, interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let (sender, receiver) = watch::channel(Phase::Running);
        tokio::spawn(follow(terminate, interrupt, sender));
        Ok(Self(receiver))
    }

    pub fn phase(&self) -> Phase {
        *self.0.borrow()
    }

    /// Waits for `phase` or a later one.
    pub async fn reached(&self, phase: Phase) {
        // An error means that the runtime is going away, and with it whoever waits.
        let _ = self.0.clone().wait_for(|now| *now >= phase).await;
    }
}

async fn follow(mut terminate: Signal, mut interrupt: Signal, phase: watch::Sender<Phase>) {
    for (next, meaning) in [
        (Phase::Draining, "finishing what is in flight; a second signal stops at once"),
        (Phase::Stopping, "stopping at once"),
    ] {
        let name = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
        tracing::info!(signal = name, "{meaning}");
        phase.send_replace(next);
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    fn send(signal: &str) {
        let kill = format!("kill -{signal} {}", std::process::id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    }

    async fn reached(shutdown: &Shutdown, phase: Phase) {
        timeout(Duration::from_secs(10), shutdown.reached(phase)).await.unwrap();
        assert_eq!(shutdown.phase(), phase);
    }

    #[tokio::test]
    async fn first_signal_drains_and_second_stops() {
        let shutdown = Shutdown::on_signals().unwrap();
        reached(&shutdown, Phase::Running).await;
        send("TERM");
        reached(&shutdown, Phase::Draining).await;
        send("INT");
        reached(&shutdown, Phase::Stopping).await;
    }
}
