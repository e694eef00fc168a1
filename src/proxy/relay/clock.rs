//! What a connection waits for besides its sockets: each thing with its moment, one timer for all of them. Nothing is
//! allocated while it waits for nothing.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// One side said that it is done, or cannot be reached; the other one has been silent since.
    Silence,
    /// Room in the hold budget: those who hold it are looked at.
    Room,
    /// Room in the hold budget: it has taken too long.
    Hold,
    /// The client may log in now.
    LetIn,
    /// The client has not logged in.
    Login,
    /// A moment with nothing in flight did not come by itself.
    Idle,
    /// Nothing is in flight, and nothing more was asked.
    Answer,
    /// A change of the schema has been kept long enough.
    SchemaChange,
    /// The last words are not taken.
    Last,
}

/// One moment for each [`Due`].
const KINDS: usize = 9;

#[derive(Default)]
pub(super) struct Clock(Option<Box<Moments>>);

struct Moments {
    due: [Option<Instant>; KINDS],
    sleep: Pin<Box<Sleep>>,
}

impl Clock {
    /// `due` is up after this time from now.
    pub fn set(&mut self, due: Due, after: Duration) {
        self.set_at(due, Instant::now() + after);
    }

    pub fn set_at(&mut self, due: Due, at: Instant) {
        let moments = self.0.get_or_insert_with(|| {
            Box::new(Moments { due: [None; KINDS], sleep: Box::pin(tokio::time::sleep_until(at)) })
        });
        if let Some(slot) = moments.due.get_mut(due as usize) {
            *slot = Some(at);
        }
    }

    /// The same, unless it runs already.
    pub fn start(&mut self, due: Due, after: Duration) {
        if !self.runs(due) {
            self.set(due, after);
        }
    }

    pub fn clear(&mut self, due: Due) {
        if let Some(slot) = self.0.as_mut().and_then(|moments| moments.due.get_mut(due as usize)) {
            *slot = None;
        }
    }

    pub fn clear_all(&mut self) {
        self.0 = None;
    }

    pub fn runs(&self, due: Due) -> bool {
        self.0.as_ref().is_some_and(|moments| moments.due.get(due as usize).is_some_and(Option::is_some))
    }

    /// The next thing that is up; it runs no more.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Due> {
        const ALL: [Due; KINDS] = [
            Due::Silence,
            Due::Room,
            Due::Hold,
            Due::LetIn,
            Due::Login,
            Due::Idle,
            Due::Answer,
            Due::SchemaChange,
            Due::Last,
        ];
        let Some(moments) = &mut self.0 else { return Poll::Pending };
        let next = moments.due.iter_mut().zip(ALL).filter(|(at, _)| at.is_some()).min_by_key(|(at, _)| **at);
        let Some((slot, due)) = next else {
            self.0 = None;
            return Poll::Pending;
        };
        if let Some(at) = *slot
            && at != moments.sleep.deadline()
        {
            moments.sleep.as_mut().reset(at);
        }
        ready!(moments.sleep.as_mut().poll(cx));
        *slot = None;
        Poll::Ready(due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;

    #[tokio::test(start_paused = true)]
    async fn what_is_due_comes_in_its_order_and_once() {
        let mut clock = Clock::default();
        let began = Instant::now();
        clock.set(Due::Silence, Duration::from_secs(30));
        clock.set(Due::Hold, Duration::from_secs(10));
        clock.set(Due::Login, Duration::from_secs(5));
        clock.start(Due::Hold, Duration::from_secs(20));
        clock.clear(Due::Login);
        clock.set(Due::Silence, Duration::from_secs(15));
        for (due, seconds) in [(Due::Hold, 10), (Due::Silence, 15)] {
            assert_eq!(poll_fn(|cx| clock.poll(cx)).await, due);
            assert_eq!(began.elapsed().as_secs(), seconds);
            assert!(!clock.runs(due));
        }
        assert!(poll_fn(|cx| Poll::Ready(clock.poll(cx))).await.is_pending());
        assert!(clock.0.is_none(), "it waits for nothing");
    }
}
