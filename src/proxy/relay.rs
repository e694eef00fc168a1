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
//! 5. An order to drain: for a moment it is seen whether nothing is in flight by itself, best right behind an answer; then no more
//!    requests are taken, from a boundary between two of them on, the answers in flight come, and the client's side ends as in rule 3.
//!    A client that asked to be told (`rewrite::graceful_disconnect`) is, and has the time until a second order to go by itself.
//!
//! A change of the schema that is told late (`agreement`) is an answer in flight; however the connection ends, but by a reset, it is told.
//!
//! Nobody waits for ever: whenever a side has ended, cannot be reached or is not read any more, `clock` has a moment for it.

mod agreement;
mod clock;
mod end;
mod login;
mod sides;

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::AsyncWrite;
use tokio::sync::watch;

use super::connections::{Order, Place};
use super::direction::Direction;
use super::settings::Settings;
use super::shared::{Shared, ordered};
use super::stream::Stream;
use super::{Closed, Why, hold};
use crate::cql::segment::MAX_PAYLOAD;
use crate::metrics::NodeMetrics;
use crate::rewrite::conversation::Fact;
use crate::rewrite::{Conversation, Work};
use crate::topology::Topology;

use agreement::Waiting;
use clock::{Clock, Due};
use end::End;
pub(super) use end::{ending, last_words};
use login::Attempt;
use sides::Turn;

/// One per thread: what a long read can bring. Large frames cost few system calls, idle connections nothing.
const SCRATCH: usize = 256 * 1024;
/// An order to drain waits so long for a moment with nothing in flight: it costs no request.
const IDLE: Duration = Duration::from_secs(1);
/// And so long, with nothing in flight, for one right behind an answer.
const ANSWER: Duration = Duration::from_millis(250);

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
    clock: Clock,
    /// A login that is going on.
    attempt: Option<Box<Attempt>>,
    changes: Option<TopologyChange>,
    /// Changes of the schema that are told late.
    waiting: Option<Box<Waiting>>,
    /// The topology changed and the client has not been told what follows from it.
    announces: bool,
    /// The client was told to leave.
    told_farewell: bool,
    /// It is to end, and nobody has asked anything for a while.
    is_quiet: bool,
    /// Whose turn it is when the work of one poll is not enough for both.
    responses_first: bool,
    place: Place,
    port: u16,
    metrics: Arc<NodeMetrics>,
    shared: Arc<Shared>,
    /// Those under which it came in.
    settings: Arc<Settings>,
    counted: (u64, u64),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    Open,
    /// The client has ended, the node's writing side is shut; closes when silent too long.
    ClientEnded,
    /// Writes to the node fail; the client's input is discarded.
    NodeDeaf,
    /// No more requests are taken once the present one is whole.
    Draining,
    /// The last words to the client.
    Last {
        closed: Closed,
        reset: bool,
        shut: bool,
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
        (shared, settings): (Arc<Shared>, Arc<Settings>),
    ) -> Self {
        let mut relay = Self {
            client: client.0,
            node: Some(node.0),
            conversation,
            requests: Direction::starting_with(client.1),
            responses: Direction::starting_with(node.1),
            phase: Phase::Open,
            clock: Clock::default(),
            attempt: None,
            changes: None,
            waiting: None,
            announces: false,
            told_farewell: false,
            is_quiet: false,
            responses_first: false,
            place,
            port,
            metrics,
            shared,
            settings,
            counted: (0, 0),
        };
        if let (Ok(local), Ok(peer)) = (relay.client.tcp().local_addr(), relay.client.tcp().peer_addr()) {
            relay.place.handle().set_ends(local, peer);
        }
        // What was said until now counts too.
        relay.place.handle().sent_to_client();
        relay.expect_login();
        relay
    }

    fn poll_open(&mut self, cx: &mut Context<'_>, scratch: &mut [u8], decoded: &mut [u8]) -> Poll<Closed> {
        let mut turn = Turn { scratch, work: Work::new(decoded), yields: false, waits: false };
        if self.requests.is_stalled() || self.responses.is_stalled() {
            return self.last(End::abort(Closed::gateway(Why::HoldStalled)), cx);
        }
        let end = if self.responses_first {
            self.poll_responses(cx, &mut turn).or_else(|| self.poll_requests(cx, &mut turn))
        } else {
            self.poll_requests(cx, &mut turn).or_else(|| self.poll_responses(cx, &mut turn))
        };
        if let Some(end) = end {
            return self.last(end, cx);
        }
        if turn.yields {
            self.responses_first = !self.responses_first;
            cx.waker().wake_by_ref();
        }
        if self.conversation.has_facts() {
            self.report();
        }
        let end = self
            .poll_agreement(cx)
            .or_else(|| self.poll_announcements(cx))
            .or_else(|| self.say_farewell(cx))
            .or_else(|| self.drain(cx))
            .or_else(|| self.poll_clock(cx, turn.waits));
        match end {
            Some(end) => self.last(end, cx),
            None => Poll::Pending,
        }
    }

    /// What is due by now.
    fn poll_clock(&mut self, cx: &mut Context<'_>, waits_for_room: bool) -> Option<End> {
        if waits_for_room {
            self.clock.start(Due::Hold, self.settings.timeouts.hold);
            self.clock.start(Due::Room, hold::PATIENCE);
            if self.clock.runs(Due::Silence) {
                self.clock.set(Due::Silence, self.settings.timeouts.half_closed);
            }
        } else {
            self.clock.clear(Due::Hold);
            self.clock.clear(Due::Room);
        }
        while let Poll::Ready(due) = self.clock.poll(cx) {
            match due {
                Due::Silence if self.changes_wait() => {
                    self.clock.set(Due::Silence, self.settings.timeouts.half_closed);
                    if let Some(end) = self.end_the_wait_of_changes(cx) {
                        return Some(end);
                    }
                }
                Due::Silence => return Some(self.silent()),
                Due::Room => self.relieve(),
                Due::Hold => return Some(End::reset(Closed::gateway(Why::HoldBudget))),
                Due::LetIn => self.let_in(cx),
                Due::Login => return Some(self.login_is_late()),
                Due::Answer => {
                    self.is_quiet = true;
                    cx.waker().wake_by_ref();
                }
                Due::Idle if self.phase != Phase::Open => {}
                Due::Idle => {
                    self.phase = Phase::Draining;
                    self.clock.set(Due::Silence, self.settings.timeouts.half_closed);
                    cx.waker().wake_by_ref();
                    if let Some(end) = self.end_the_wait_of_changes(cx) {
                        return Some(end);
                    }
                }
                Due::SchemaChange => {
                    if let Some(end) = self.changes_are_late(cx) {
                        return Some(end);
                    }
                }
                Due::Last => {}
            }
        }
        None
    }

    /// Has those looked at that hold the room for which a direction waits.
    fn relieve(&mut self) {
        let again = [&self.requests, &self.responses].into_iter().filter_map(Direction::relieve).min();
        if let Some(again) = again {
            self.clock.set_at(Due::Room, again);
        }
    }

    fn silent(&self) -> End {
        End::abort(match self.phase {
            Phase::Draining => Closed::gateway(Why::DrainSilence),
            Phase::NodeDeaf => Closed::node(Why::HalfClosedTimeout),
            _ => Closed::client(Why::HalfClosedTimeout),
        })
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
        self.tell(cx, &bytes)
    }

    /// Tells a client that asked for it, once and between two frames, that it is to leave; what it asks all the same goes on.
    fn say_farewell(&mut self, cx: &mut Context<'_>) -> Option<End> {
        let is_due = !self.told_farewell
            && matches!(self.place.handle().order(), Order::Tell | Order::Farewell)
            && self.conversation.hears_farewell()
            && self.conversation.responses_at_boundary()
            && self.responses.is_flushed();
        if !is_due {
            return None;
        }
        self.told_farewell = true;
        let bytes = self.conversation.farewell();
        self.tell(cx, &bytes)
    }

    /// Writes what was made here, between two frames.
    fn tell(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Option<End> {
        let failed = self.responses.write(cx, &mut self.client, bytes).is_err();
        let _ = self.responses.poll_flush(cx, &mut self.client);
        self.report();
        failed.then(|| End::abort(Closed::client(Why::Reset)))
    }

    /// Rule 5.
    fn drain(&mut self, cx: &mut Context<'_>) -> Option<End> {
        let why = match self.place.handle().order() {
            Order::Age => Why::MaxAge,
            // It leaves by itself.
            Order::Farewell if self.conversation.hears_farewell() && self.phase != Phase::Draining => return None,
            Order::Farewell | Order::Drain => Why::Drain,
            Order::Readdress => Why::AddressChanged,
            _ => return None,
        };
        let requests_are_out = match self.phase {
            Phase::Draining => self.requests.is_flushed(),
            _ => self.requests.is_idle(),
        };
        let nothing_is_out = requests_are_out
            && self.conversation.in_flight() == 0
            && self.conversation.requests_at_boundary()
            && self.conversation.responses_at_boundary()
            && self.responses.is_idle();
        if self.phase == Phase::Draining {
            return nothing_is_out.then(|| End::clean(Closed::gateway(why)));
        }
        self.clock.start(Due::Idle, IDLE);
        if !nothing_is_out {
            return None;
        }
        // Whoever asks one thing after the other is least likely to have a request on its way right behind an answer.
        if !self.is_quiet && self.responses.written() == 0 {
            self.clock.start(Due::Answer, ANSWER);
            return None;
        }
        if self.client.has_unread() {
            return None;
        }
        // At once: whatever is done between the look and this, what comes meanwhile is lost.
        let _ = Pin::new(&mut self.client).poll_shutdown(cx);
        Some(End::clean(Closed::gateway(why)))
    }

    /// Adds to the node's sums what this poll did, once for all of it.
    fn count(&mut self) {
        let (to_node, to_client) = (self.requests.take_written(), self.responses.take_written());
        if to_node > 0 {
            self.metrics.bytes_to_node.inc_by(to_node);
        }
        if to_client > 0 {
            self.metrics.bytes_to_client.inc_by(to_client);
            self.place.handle().sent_to_client();
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
            match fact {
                Fact::Registered(types) if types.any() => {
                    self.place.handle().set_control(self.conversation.path());
                    if self.changes.is_none() {
                        self.changes = Some(next_change(self.shared.topology.clone()));
                        // What is not as its rows made it believe.
                        self.announces = true;
                    }
                }
                Fact::LoggedIn => self.logged_in(),
                Fact::LoginRefused { code } => self.login_refused(code),
                _ => {}
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
            Order::NodeGone if relay.keeps_changes() => {
                return relay.last(End::clean(Closed::gateway(Why::NodeGone)), cx);
            }
            Order::NodeGone if !matches!(relay.phase, Phase::Last { .. }) => {
                relay.client.reset_on_close();
                return Poll::Ready(Closed::gateway(Why::NodeGone));
            }
            Order::Deadline if relay.keeps_changes() => {
                relay.tell_last_changes(cx);
                return Poll::Ready(Closed::gateway(Why::DrainDeadline));
            }
            Order::Deadline => {
                relay.client.reset_on_close();
                return Poll::Ready(Closed::gateway(Why::DrainDeadline));
            }
            order @ (Order::MakeRoom | Order::Shed | Order::Unread | Order::Vanished) => {
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
mod tests;
