//! How a relayed connection ends: what was said last is flushed, the client's side is shut, and its input discarded for a
//! moment, so that the last frame is not destroyed by a reset of the kernel's (rules 3 and 4 of the relay).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Phase, Relay};
use crate::metrics::ClosedBy;
use crate::proxy::Closed;

/// After the node's end, for how long and for how much the client's input is discarded.
const DISCARD_TIME: Duration = Duration::from_secs(1);
const DISCARD_BYTES: usize = 1024 * 1024;

/// How a connection is to end.
pub(super) struct End {
    pub closed: Closed,
    /// The client gets a reset.
    pub reset: bool,
}

impl End {
    pub fn clean(closed: Closed) -> Self {
        Self { closed, reset: false }
    }

    pub fn reset(closed: Closed) -> Self {
        Self { closed, reset: true }
    }
}

impl Relay {
    /// Rule 3: a frame that was begun and cannot be finished must not look finished.
    pub(super) fn node_ended(&self, closed: Closed) -> End {
        End { closed, reset: self.responses.holds() || !self.conversation.responses_at_boundary() }
    }

    /// Begins the end.
    pub(super) fn last(&mut self, end: End, cx: &mut Context<'_>) -> Poll<Closed> {
        if self.conversation.has_facts() {
            self.report();
        }
        if let Some(node) = self.node.take()
            && end.closed.by != ClosedBy::Node
        {
            node.reset_on_close();
        }
        let End { closed, reset } = end;
        if reset && closed.by == ClosedBy::Client {
            self.client.reset_on_close();
            return Poll::Ready(closed);
        }
        self.phase = Phase::Last { closed, reset, shut: false, discarded: 0 };
        self.set_timer(self.shared.timeouts.half_closed);
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Flush, shut, discard, done.
    pub(super) fn poll_last(&mut self, cx: &mut Context<'_>, scratch: &mut [u8]) -> Poll<Closed> {
        let Phase::Last { closed, reset, shut, mut discarded } = self.phase else { return Poll::Pending };
        if let Some(timer) = &mut self.timer
            && timer.as_mut().poll(cx).is_ready()
        {
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
            if ready!(Pin::new(&mut self.client).poll_shutdown(cx)).is_err() {
                return Poll::Ready(closed);
            }
            self.phase = Phase::Last { closed, reset, shut: true, discarded };
            self.set_timer(DISCARD_TIME);
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        while discarded < DISCARD_BYTES {
            let mut buffer = ReadBuf::new(scratch);
            match Pin::new(&mut self.client).poll_read(cx, &mut buffer) {
                Poll::Pending => {
                    self.phase = Phase::Last { closed, reset, shut, discarded };
                    return Poll::Pending;
                }
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => discarded += buffer.filled().len(),
                Poll::Ready(_) => return Poll::Ready(closed),
            }
        }
        Poll::Ready(closed)
    }
}

/// An I/O error as a metric's label value.
pub(in crate::proxy) fn ending(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionAborted => "reset",
        io::ErrorKind::TimedOut => "timeout",
        io::ErrorKind::UnexpectedEof => "eof",
        io::ErrorKind::InvalidData => "tls",
        _ => "io_error",
    }
}
