//! The established connection: two sockets, one task, no buffers of its own.
//!
//! Both directions are polled in one task; the conversation says what happens to bytes, this file says what happens when
//! one side ends. The rules are those under which the client always receives the last frame that the node sent:
//!
//! 1. The client ends: what it said is flushed, the node's writing side is shut, answers still flow back.
//! 2. A write to the node fails: requests are read and discarded; answers still flow until the node ends.
//! 3. The node ends (a reset counts once everything it sent is written): the client's writing side is shut, its input is
//!    discarded for a moment (closing with unread input would make the kernel send a reset that destroys the last frame),
//!    then it is closed. If the node ended within a frame the client gets a reset: a clean end would be a lie.
//! 4. A write to the client fails, or it resets: the node's side is closed at once.

mod end;

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;
use tokio::time::{Instant, Sleep};

use super::Closed;
use super::connections::{Order, Place};
use super::direction::{Direction, Progress, Room};
use super::shared::{Shared, ordered};
use super::stages::Stage;
use super::stream::Stream;
use crate::cql::segment::MAX_PAYLOAD;
use crate::metrics::NodeMetrics;
use crate::rewrite::conversation::Fact;
use crate::rewrite::{Conversation, Then, Work};
use crate::topology::Topology;

use end::End;
pub(super) use end::ending;

/// One per thread: what a read can bring. Large frames cost few system calls, idle connections nothing.
const SCRATCH: usize = 256 * 1024;
/// How often a connection that waits for room in the hold budget looks again.
const ROOM_RETRY: Duration = Duration::from_millis(20);

thread_local! {
    /// For a read, and for one decompressed segment.
    static SCRATCHES: RefCell<(Vec<u8>, Vec<u8>)> = RefCell::new((vec![0; SCRATCH], vec![0; MAX_PAYLOAD]));
}

type TopologyChange = Pin<Box<dyn Future<Output = Option<watch::Receiver<Arc<Topology>>>> + Send>>;

/// A relayed connection; resolves to how it ended.
pub struct Relay {
    client: Stream,
    /// None once nothing more is expected of it.
    node: Option<Stream>,
    conversation: Conversation,
    requests: Direction,
    responses: Direction,
    phase: Phase,
    timer: Option<Pin<Box<Sleep>>>,
    /// Since when the hold budget has had no room for this connection; in this poll, and in the one before.
    waiting_for_room: Option<Instant>,
    no_room_since: Option<Instant>,
    changes: Option<TopologyChange>,
    /// The topology changed and the client has not been told what follows from it.
    announces: bool,
    place: Place,
    port: u16,
    metrics: Arc<NodeMetrics>,
    shared: Arc<Shared>,
    counted: (u64, u64),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    Open,
    /// The client has ended, the node's writing side is shut; closes when silent too long.
    ClientEnded,
    /// Writes to the node fail; the client's input is discarded.
    NodeDeaf,
    /// The last words to the client.
    Last {
        closed: Closed,
        reset: bool,
        shut: bool,
        discarded: usize,
    },
}

impl Relay {
    pub fn new(
        client: (Stream, Vec<u8>),
        node: (Stream, Vec<u8>),
        conversation: Conversation,
        place: Place,
        port: u16,
        metrics: Arc<NodeMetrics>,
        shared: Arc<Shared>,
    ) -> Self {
        Self {
            client: client.0,
            node: Some(node.0),
            conversation,
            requests: Direction::starting_with(client.1),
            responses: Direction::starting_with(node.1),
            phase: Phase::Open,
            timer: None,
            waiting_for_room: None,
            no_room_since: None,
            changes: None,
            announces: false,
            place,
            port,
            metrics,
            shared,
            counted: (0, 0),
        }
    }

    fn poll_open(&mut self, cx: &mut Context<'_>, scratch: &mut [u8], decoded: &mut [u8]) -> Poll<Closed> {
        let waited = self.waiting_for_room.take();
        self.no_room_since = waited;
        if let Some(closed) = self.poll_requests(cx, scratch, decoded) {
            return self.last(closed, cx);
        }
        if let Some(closed) = self.poll_responses(cx, scratch, decoded) {
            return self.last(closed, cx);
        }
        if self.conversation.has_facts() {
            self.report();
        }
        if let Some(closed) = self.poll_announcements(cx) {
            return self.last(closed, cx);
        }
        if self.drains() {
            let why = if self.place.handle().order() == Order::Readdress { "address_changed" } else { "drain" };
            return self.last(End::clean(Closed::gateway(why)), cx);
        }
        self.poll_timer(cx)
    }

    fn poll_requests(&mut self, cx: &mut Context<'_>, scratch: &mut [u8], decoded: &mut [u8]) -> Option<End> {
        match self.phase {
            Phase::NodeDeaf => return self.discard_requests(cx, scratch),
            Phase::ClientEnded | Phase::Last { .. } => return None,
            Phase::Open => {}
        }
        let Self { client, node, conversation, requests, shared, .. } = self;
        let node = node.as_mut()?;
        let room = Room { scratch, budget: &shared.budget };
        let progress = requests.poll(cx, client, node, room, |bytes| {
            let step = conversation.request(bytes, &mut Work::new(decoded));
            if matches!(step.then, Then::Login(_)) {
                conversation.let_in();
            }
            (step, conversation.requests_held())
        });
        match progress {
            Progress::Blocked => None,
            Progress::Yield => {
                cx.waker().wake_by_ref();
                None
            }
            Progress::NoRoom => self.wait_for_room(),
            Progress::Finished => {
                let node = self.node.as_mut()?;
                match Pin::new(node).poll_shutdown(cx) {
                    Poll::Pending => None,
                    Poll::Ready(_) => {
                        self.phase = Phase::ClientEnded;
                        self.set_timer(self.shared.timeouts.half_closed);
                        None
                    }
                }
            }
            Progress::ReadFailed(error) => Some(End::reset(Closed::client(ending(&error)))),
            Progress::WriteFailed(_) => {
                self.phase = Phase::NodeDeaf;
                self.discard_requests(cx, scratch)
            }
            Progress::Failed(failure) => {
                let end = End {
                    closed: Closed::gateway(failure.why.as_str()),
                    reset: !self.conversation.responses_at_boundary(),
                };
                if let Some(reply) = failure.reply.filter(|_| !end.reset) {
                    let _ = self.responses.write(cx, &mut self.client, &reply);
                }
                Some(end)
            }
        }
    }

    /// Rule 2: the node does not listen any more, but may still have something to say.
    fn discard_requests(&mut self, cx: &mut Context<'_>, scratch: &mut [u8]) -> Option<End> {
        for _ in 0..8 {
            let mut buffer = ReadBuf::new(scratch);
            match Pin::new(&mut self.client).poll_read(cx, &mut buffer) {
                Poll::Pending => return None,
                Poll::Ready(Err(error)) => return Some(End::reset(Closed::client(ending(&error)))),
                Poll::Ready(Ok(())) if buffer.filled().is_empty() => return None,
                Poll::Ready(Ok(())) => {}
            }
        }
        cx.waker().wake_by_ref();
        None
    }

    fn poll_responses(&mut self, cx: &mut Context<'_>, scratch: &mut [u8], decoded: &mut [u8]) -> Option<End> {
        if matches!(self.phase, Phase::Last { .. }) {
            return None;
        }
        let Self { client, node, conversation, responses, shared, .. } = self;
        let node = node.as_mut()?;
        let room = Room { scratch, budget: &shared.budget };
        let progress = responses.poll(cx, node, client, room, |bytes| {
            let step = conversation.response(bytes, &mut Work::new(decoded));
            (step, conversation.responses_held())
        });
        if self.phase == Phase::ClientEnded && self.responses.written() > 0 {
            self.set_timer(self.shared.timeouts.half_closed);
        }
        match progress {
            Progress::Blocked => None,
            Progress::Yield => {
                cx.waker().wake_by_ref();
                None
            }
            Progress::NoRoom => self.wait_for_room(),
            Progress::Finished if self.phase == Phase::ClientEnded => Some(self.node_ended(Closed::client("eof"))),
            Progress::Finished => Some(self.node_ended(Closed::node("eof"))),
            // Cassandra answers a client's end with a reset.
            Progress::ReadFailed(_) if self.phase == Phase::ClientEnded => Some(self.node_ended(Closed::client("eof"))),
            Progress::ReadFailed(error) => Some(self.node_ended(Closed::node(ending(&error)))),
            Progress::WriteFailed(error) => Some(End::reset(Closed::client(ending(&error)))),
            Progress::Failed(failure) => {
                let closed = Closed::gateway(failure.why.as_str());
                tracing::warn!(port = self.port, why = failure.why.as_str(), "a node's response cannot be passed");
                Some(End { closed, reset: !self.conversation.responses_at_boundary() })
            }
        }
    }

    /// Stops reading until there is room in the hold budget, for a while.
    fn wait_for_room(&mut self) -> Option<End> {
        let since = *self.waiting_for_room.get_or_insert(self.no_room_since.unwrap_or_else(Instant::now));
        if since.elapsed() >= self.shared.timeouts.hold {
            return Some(End::reset(Closed::gateway("hold_budget")));
        }
        self.set_timer(ROOM_RETRY);
        None
    }

    fn set_timer(&mut self, after: Duration) {
        let at = Instant::now() + after;
        match &mut self.timer {
            Some(timer) => timer.as_mut().reset(at),
            None => self.timer = Some(Box::pin(tokio::time::sleep_until(at))),
        }
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<Closed> {
        if self.waiting_for_room.is_none() {
            if self.phase != Phase::ClientEnded {
                self.timer = None;
                return Poll::Pending;
            }
            if self.no_room_since.take().is_some() {
                self.set_timer(self.shared.timeouts.half_closed);
            }
        }
        let Some(timer) = &mut self.timer else { return Poll::Pending };
        ready!(timer.as_mut().poll(cx));
        if self.waiting_for_room.is_some() {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.last(End::reset(Closed::client("half_closed_timeout")), cx)
    }

    /// Tells the client, between two frames, what follows from a change of the topology.
    fn poll_announcements(&mut self, cx: &mut Context<'_>) -> Option<End> {
        let Some(changes) = &mut self.changes else { return None };
        while let Poll::Ready(changed) = changes.as_mut().poll(cx) {
            *changes = next_change(changed?);
            self.announces = true;
        }
        if !self.announces || !self.conversation.responses_at_boundary() || !self.responses.is_flushed() {
            return None;
        }
        self.announces = false;
        let topology = self.shared.topology.borrow().clone();
        let bytes = self.conversation.announce(&topology);
        let failed = self.responses.write(cx, &mut self.client, &bytes).is_err();
        let _ = self.responses.poll_flush(cx, &mut self.client);
        self.report();
        failed.then(|| End::reset(Closed::client("reset")))
    }

    /// True when an order to drain can be followed: between frames, with nothing in flight.
    fn drains(&self) -> bool {
        matches!(self.place.handle().order(), Order::Drain | Order::Readdress)
            && self.conversation.in_flight() == 0
            && self.conversation.requests_at_boundary()
            && self.conversation.responses_at_boundary()
            && self.requests.is_idle()
            && self.responses.is_idle()
    }

    /// Adds to the node's sums what this poll did, once for all of it.
    fn count(&mut self) {
        let (to_node, to_client) = (self.requests.take_written(), self.responses.take_written());
        if to_node > 0 {
            self.metrics.bytes_to_node.inc_by(to_node);
        }
        if to_client > 0 {
            self.metrics.bytes_to_client.inc_by(to_client);
        }
        let (sent, answered) = self.conversation.counts();
        if (sent, answered) != self.counted {
            self.metrics.requests.inc_by(sent - self.counted.0);
            self.metrics.responses.inc_by(answered - self.counted.1);
            self.counted = (sent, answered);
        }
    }

    fn report(&mut self) {
        for fact in self.conversation.take_facts() {
            if matches!(fact, Fact::Registered(_)) {
                self.place.handle().set_control();
                if self.changes.is_none() {
                    self.changes = Some(next_change(self.shared.topology.clone()));
                }
            }
            if matches!(fact, Fact::LoggedIn) && self.place.move_to(Stage::Established).is_err() {
                self.place.handle().give(Order::Shed);
            }
            self.shared.report(self.port, self.place.handle().incarnation(), fact);
        }
    }
}

impl Future for Relay {
    type Output = Closed;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Closed> {
        let relay = self.get_mut();
        relay.place.handle().register(cx.waker());
        match relay.place.handle().order() {
            Order::NodeGone if !matches!(relay.phase, Phase::Last { .. }) => {
                relay.client.reset_on_close();
                return Poll::Ready(Closed::gateway("node_gone"));
            }
            Order::Deadline => {
                relay.client.reset_on_close();
                return Poll::Ready(Closed::gateway("drain_deadline"));
            }
            order @ (Order::MakeRoom | Order::Shed) => {
                relay.client.reset_on_close();
                return Poll::Ready(ordered(order).1);
            }
            _ => {}
        }
        let polled = SCRATCHES.with_borrow_mut(|(scratch, decoded)| match relay.phase {
            Phase::Last { .. } => relay.poll_last(cx, scratch),
            _ => relay.poll_open(cx, scratch, decoded),
        });
        relay.count();
        polled
    }
}

fn next_change(mut topology: watch::Receiver<Arc<Topology>>) -> TopologyChange {
    Box::pin(async move { topology.changed().await.ok().map(|()| topology) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_connection_costs_little() {
        assert!(size_of::<Relay>() <= 768, "{} bytes", size_of::<Relay>());
    }
}
