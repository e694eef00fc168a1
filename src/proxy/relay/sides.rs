//! The two directions of an open relay, and what follows when one of them comes to something.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::clock::Due;
use super::end::{End, ending};
use super::{Phase, Relay};
use crate::label::Label;
use crate::proxy::direction::{Decider, Progress, Room};
use crate::proxy::{Closed, Why};
use crate::rewrite::{Conversation, Failure, Step, Work};

/// One poll: what both directions use up together, and what they came to.
pub(super) struct Turn<'a> {
    pub scratch: &'a mut [u8],
    pub work: Work<'a>,
    /// There is more to do.
    pub yields: bool,
    /// A direction waits for room in the hold budget.
    pub waits: bool,
}

struct Requests<'a, 'w> {
    conversation: &'a mut Conversation,
    work: &'a mut Work<'w>,
}

impl Decider for Requests<'_, '_> {
    fn ask(&mut self, bytes: &[u8]) -> Step {
        self.conversation.request(bytes, self.work)
    }

    fn held(&self) -> usize {
        self.conversation.requests_held()
    }
}

struct Responses<'a, 'w> {
    conversation: &'a mut Conversation,
    work: &'a mut Work<'w>,
}

impl Decider for Responses<'_, '_> {
    fn ask(&mut self, bytes: &[u8]) -> Step {
        self.conversation.response(bytes, self.work)
    }

    fn held(&self) -> usize {
        self.conversation.responses_held()
    }
}

impl Relay {
    pub(super) fn poll_requests(&mut self, cx: &mut Context<'_>, turn: &mut Turn<'_>) -> Option<End> {
        match self.phase {
            Phase::NodeDeaf => return self.discard_requests(cx, turn),
            Phase::ClientEnded | Phase::Last { .. } => return None,
            // Only what was begun goes on.
            Phase::Draining if self.conversation.requests_at_boundary() => return self.flush_requests(cx, turn),
            Phase::Open if self.login_waits() => return None,
            Phase::Open | Phase::Draining => {}
        }
        let Self { client, node, conversation, requests, shared, .. } = self;
        let node = node.as_mut()?;
        turn.work.only_what_is_begun(self.phase == Phase::Draining);
        let stranger = !conversation.is_logged_in();
        let room = Room { scratch: &mut *turn.scratch, budget: &shared.budget, stranger };
        let mut decider = Requests { conversation, work: &mut turn.work };
        let progress = requests.poll(cx, (client, node), room, &mut decider);
        turn.work.only_what_is_begun(false);
        match progress {
            Progress::Blocked => {}
            Progress::Yield => turn.yields |= self.phase == Phase::Open || !self.conversation.requests_at_boundary(),
            Progress::NoRoom => turn.waits = true,
            Progress::TooMuch => return Some(End::abort(Closed::gateway(Why::HoldBudget))),
            Progress::Login(login) => self.ask_to_log_in(cx, login),
            Progress::Finished => {
                self.clock.start(Due::Silence, self.settings.timeouts.half_closed);
                if Pin::new(self.node.as_mut()?).poll_shutdown(cx).is_ready() {
                    self.phase = Phase::ClientEnded;
                    self.requests.forget();
                }
            }
            Progress::ReadFailed(error) => return Some(End::abort(Closed::client(ending(&error)))),
            Progress::WriteFailed(_) => return self.node_is_deaf(cx, turn),
            Progress::Failed(failure) => return Some(self.request_failed(cx, failure)),
        }
        None
    }

    /// Rule 2.
    fn node_is_deaf(&mut self, cx: &mut Context<'_>, turn: &mut Turn<'_>) -> Option<End> {
        self.phase = Phase::NodeDeaf;
        self.requests.forget();
        self.clock.set(Due::Silence, self.settings.timeouts.half_closed);
        self.discard_requests(cx, turn)
    }

    fn flush_requests(&mut self, cx: &mut Context<'_>, turn: &mut Turn<'_>) -> Option<End> {
        match self.requests.poll_flush(cx, self.node.as_mut()?) {
            Poll::Ready(Err(_)) => self.node_is_deaf(cx, turn),
            _ => None,
        }
    }

    /// The client gets the protocol's own error where it can stand between two frames.
    fn request_failed(&mut self, cx: &mut Context<'_>, failure: Failure) -> End {
        let end = End::at(self.conversation.responses_at_boundary(), Closed::gateway(failure.why));
        if let Some(reply) = failure.reply.filter(|_| end.is_clean()) {
            let _ = self.responses.write(cx, &mut self.client, &reply);
        }
        end
    }

    /// Rule 2: the node does not listen any more, but may still have something to say.
    fn discard_requests(&mut self, cx: &mut Context<'_>, turn: &mut Turn<'_>) -> Option<End> {
        for _ in 0..8 {
            let mut buffer = ReadBuf::new(turn.scratch);
            match Pin::new(&mut self.client).poll_read(cx, &mut buffer) {
                Poll::Pending => return None,
                Poll::Ready(Err(error)) => return Some(End::abort(Closed::client(ending(&error)))),
                Poll::Ready(Ok(())) if buffer.filled().is_empty() => return None,
                Poll::Ready(Ok(())) => {}
            }
        }
        turn.yields = true;
        None
    }

    pub(super) fn poll_responses(&mut self, cx: &mut Context<'_>, turn: &mut Turn<'_>) -> Option<End> {
        if matches!(self.phase, Phase::Last { .. }) {
            return None;
        }
        let tells = self.has_changes_to_tell();
        let Self { client, node, conversation, responses, shared, .. } = self;
        let node = node.as_mut()?;
        let stranger = !conversation.is_logged_in();
        let room = Room { scratch: &mut *turn.scratch, budget: &shared.budget, stranger };
        // What is to be told comes before the next frame.
        turn.work.only_what_is_begun(tells);
        let mut decider = Responses { conversation, work: &mut turn.work };
        let progress = responses.poll(cx, (node, client), room, &mut decider);
        turn.work.only_what_is_begun(false);
        if self.responses.written() > 0 && self.clock.runs(Due::Silence) {
            self.clock.set(Due::Silence, self.settings.timeouts.half_closed);
        }
        let client_ended = self.phase == Phase::ClientEnded;
        match progress {
            Progress::Blocked => None,
            // A node asks for no login.
            Progress::Yield | Progress::Login(_) => {
                turn.yields = true;
                None
            }
            Progress::NoRoom => {
                turn.waits = true;
                None
            }
            Progress::TooMuch => Some(End::abort(Closed::gateway(Why::HoldBudget))),
            Progress::Finished if client_ended => Some(self.node_ended(Closed::client(Why::Eof))),
            Progress::Finished => Some(self.node_ended(Closed::node(Why::Eof))),
            // Cassandra answers a client's end with a reset.
            Progress::ReadFailed(_) if client_ended => Some(self.node_ended(Closed::client(Why::Eof))),
            Progress::ReadFailed(error) => Some(self.node_ended(Closed::node(ending(&error)))),
            Progress::WriteFailed(error) => Some(End::abort(Closed::client(ending(&error)))),
            Progress::Failed(failure) => {
                let closed = Closed::gateway(failure.why);
                tracing::warn!(port = self.port, why = failure.why.label(), "a node's response cannot be passed");
                Some(End::at(self.conversation.responses_at_boundary(), closed))
            }
        }
    }
}
