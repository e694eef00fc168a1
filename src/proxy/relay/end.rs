//! How a relayed connection ends: what was said last is flushed, the client's side is shut, and its input discarded for a
//! moment, so that the last frame is not destroyed by a reset of the kernel's (rules 3 and 4 of the relay).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::clock::Due;
use super::{Phase, Relay, SCRATCHES};
use crate::proxy::stream::Stream;
use crate::proxy::{Closed, ClosedBy, Why};

/// Reads that are discarded in one poll.
const READS_PER_POLL: usize = 8;

/// How a connection is to end.
#[derive(Debug)]
pub(super) struct End {
    pub closed: Closed,
    how: How,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    /// What is owed is written, then comes a clean end.
    Clean,
    /// What is owed is written, then comes a reset.
    Reset,
    /// A reset, now.
    Abort,
}

impl End {
    pub fn clean(closed: Closed) -> Self {
        Self { closed, how: How::Clean }
    }

    pub fn reset(closed: Closed) -> Self {
        Self { closed, how: How::Reset }
    }

    pub fn abort(closed: Closed) -> Self {
        Self { closed, how: How::Abort }
    }

    /// Rule 3: a frame that was begun and cannot be finished must not look finished.
    pub fn at(is_boundary: bool, closed: Closed) -> Self {
        if is_boundary { Self::clean(closed) } else { Self::reset(closed) }
    }

    pub fn is_clean(&self) -> bool {
        self.how == How::Clean
    }
}

impl Relay {
    pub(super) fn node_ended(&self, closed: Closed) -> End {
        End::at(!self.responses.holds() && self.conversation.responses_at_boundary(), closed)
    }

    /// Begins the end.
    pub(super) fn last(&mut self, end: End, cx: &mut Context<'_>) -> Poll<Closed> {
        if end.how != How::Abort {
            self.tell_last_changes(cx);
        }
        if self.conversation.has_facts() {
            self.report();
        }
        let End { closed, how } = end;
        if let Some(node) = self.node.take()
            && closed.by != ClosedBy::Node
        {
            node.reset_on_close();
        }
        if how == How::Abort {
            self.client.reset_on_close();
            return Poll::Ready(closed);
        }
        self.requests.forget();
        self.phase = Phase::Last { closed, reset: how == How::Reset, shut: false };
        self.clock.clear_all();
        self.clock.set(Due::Last, self.settings.timeouts.half_closed);
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Flush, shut, discard, done.
    pub(super) fn poll_last(&mut self, cx: &mut Context<'_>, scratch: &mut [u8]) -> Poll<Closed> {
        let Phase::Last { closed, reset, mut shut } = self.phase else { return Poll::Pending };
        if self.responses.is_stalled() {
            self.client.reset_on_close();
            return Poll::Ready(closed);
        }
        if self.clock.poll(cx).is_ready() {
            return Poll::Ready(closed);
        }
        if !shut {
            if ready!(self.responses.poll_flush(cx, &mut self.client)).is_err() {
                return Poll::Ready(closed);
            }
            if reset {
                self.client.reset_on_close();
                return Poll::Ready(closed);
            }
        }
        let before = shut;
        let done = poll_shut_and_discard(&mut self.client, &mut shut, cx, scratch);
        self.phase = Phase::Last { closed, reset, shut };
        if shut && !before && done.is_pending() {
            self.clock.set(Due::Last, self.settings.drain.linger);
            cx.waker().wake_by_ref();
        }
        done.map(|()| closed)
    }
}

/// Shuts the writing side; then reads and discards until the peer ends. Closing over unread input would make the kernel
/// destroy what the peer has not read. Whoever asks has a timer.
fn poll_shut_and_discard(stream: &mut Stream, shut: &mut bool, cx: &mut Context<'_>, scratch: &mut [u8]) -> Poll<()> {
    if !*shut {
        if ready!(Pin::new(&mut *stream).poll_shutdown(cx)).is_err() {
            return Poll::Ready(());
        }
        *shut = true;
    }
    for _ in 0..READS_PER_POLL {
        let mut buffer = ReadBuf::new(scratch);
        match ready!(Pin::new(&mut *stream).poll_read(cx, &mut buffer)) {
            Ok(()) if !buffer.filled().is_empty() => {}
            _ => return Poll::Ready(()),
        }
    }
    cx.waker().wake_by_ref();
    Poll::Pending
}

/// Ends a connection so that what was written last arrives: its input is discarded for `linger` at most.
pub(in crate::proxy) async fn last_words(stream: &mut Stream, linger: Duration) {
    let mut shut = false;
    let done = std::future::poll_fn(|cx| {
        SCRATCHES.with_borrow_mut(|(scratch, _)| poll_shut_and_discard(stream, &mut shut, cx, scratch))
    });
    let _ = tokio::time::timeout(linger, done).await;
}

/// What an I/O error says of the side's end.
pub(in crate::proxy) fn ending(error: &io::Error) -> Why {
    match error.kind() {
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionAborted => Why::Reset,
        io::ErrorKind::TimedOut => Why::Timeout,
        io::ErrorKind::UnexpectedEof => Why::Eof,
        io::ErrorKind::InvalidData => Why::Tls,
        _ => Why::Io,
    }
}
