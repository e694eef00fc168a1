//! Changes of the schema that are told late: each waits until all nodes have it, or for `views.schema_agreement`, and everything else
//! goes on. What is kept has room in the hold budget, or is told at once; it is told, too, when the connection ends.

use std::collections::VecDeque;
use std::future::{Future, pending};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::sync::watch;
use tokio::time::Instant;

use super::Relay;
use super::clock::Due;
use super::end::End;
use crate::proxy::agreement::{Answered, Told};
use crate::proxy::hold::Share;
use crate::proxy::{Closed, Why};

type Answers = Pin<Box<dyn Future<Output = watch::Receiver<Answered>> + Send>>;

/// Those that one connection keeps, in their order.
pub(super) struct Waiting {
    kept: VecDeque<Kept>,
    /// So many of the oldest wait no more, and are told as soon as a frame can stand there.
    due: usize,
    answers: Answers,
    share: Option<Share>,
}

struct Kept {
    question: u64,
    until: Instant,
}

impl Relay {
    /// One that is to be told waits for a place between two frames.
    pub(super) fn has_changes_to_tell(&self) -> bool {
        self.waiting.as_ref().is_some_and(|waiting| waiting.due > 0)
    }

    pub(super) fn keeps_changes(&self) -> bool {
        self.conversation.schema_changes_kept().0 > 0
    }

    /// One of them has not waited enough.
    pub(super) fn changes_wait(&self) -> bool {
        self.waiting.as_ref().is_some_and(|waiting| waiting.due < waiting.kept.len())
    }

    /// Looks at those that came, and tells those that have waited enough.
    #[inline]
    pub(super) fn poll_agreement(&mut self, cx: &mut Context<'_>) -> Option<End> {
        if self.keeps_changes() { self.poll_changes(cx) } else { None }
    }

    #[inline(never)]
    fn poll_changes(&mut self, cx: &mut Context<'_>) -> Option<End> {
        let waiting = self.ask_about_changes();
        let mut answered = None;
        while let Poll::Ready(answers) = waiting.answers.as_mut().poll(cx) {
            answered = Some(*answers.borrow());
            waiting.answers = next(answers);
        }
        if let Some(answered) = answered {
            self.changes_wait_no_more(|kept, _| answered.told(kept.question));
        }
        if !self.has_room_for_changes(cx) {
            self.changes_wait_no_more(|_, _| Some(Told::NoRoom));
        }
        self.set_change_clock();
        self.tell_changes(cx).or_else(|| self.changes_stall_others())
    }

    /// Others need the room of what cannot be told now.
    fn changes_stall_others(&self) -> Option<End> {
        let share = self.waiting.as_ref().and_then(|waiting| waiting.share.as_ref())?;
        share.must_leave().then(|| End::abort(Closed::gateway(Why::HoldStalled)))
    }

    /// Those that were kept since the last look have their questions, and a moment.
    fn ask_about_changes(&mut self) -> &mut Waiting {
        let until = Instant::now() + self.settings.views.schema_agreement;
        let agreement = &self.shared.agreement;
        let waiting = self.waiting.get_or_insert_with(|| {
            let answers = next(agreement.answered());
            Box::new(Waiting { kept: VecDeque::new(), due: 0, answers, share: None })
        });
        for _ in waiting.kept.len()..self.conversation.schema_changes_kept().0 {
            waiting.kept.push_back(Kept { question: agreement.ask(until), until });
        }
        waiting
    }

    fn has_room_for_changes(&mut self, cx: &mut Context<'_>) -> bool {
        let bytes = self.conversation.schema_changes_kept().1;
        let Some(waiting) = &mut self.waiting else { return true };
        let has_room = self.shared.budget.grow(&mut waiting.share, bytes, !self.conversation.is_logged_in());
        has_room
            && waiting.share.as_mut().is_none_or(|share| {
                share.settle(bytes, 0, false, cx.waker());
                !share.must_leave()
            })
    }

    /// `told` says why one need not wait any more; those behind the first one that must do.
    fn changes_wait_no_more(&mut self, told: impl Fn(&Kept, Instant) -> Option<Told>) {
        let Some(waiting) = &mut self.waiting else { return };
        let now = Instant::now();
        while let Some(told) = waiting.kept.get(waiting.due).and_then(|kept| told(kept, now)) {
            waiting.due += 1;
            self.shared.metrics.schema_change_told(told);
        }
    }

    /// The time of the oldest is up.
    pub(super) fn changes_are_late(&mut self, cx: &mut Context<'_>) -> Option<End> {
        self.changes_wait_no_more(|kept, now| (kept.until <= now).then_some(Told::Late));
        self.set_change_clock();
        self.tell_changes(cx)
    }

    /// The connection is to end soon: nothing waits any more.
    pub(super) fn end_the_wait_of_changes(&mut self, cx: &mut Context<'_>) -> Option<End> {
        self.changes_wait_no_more(|_, _| Some(Told::Ended));
        self.set_change_clock();
        self.tell_changes(cx)
    }

    fn set_change_clock(&mut self) {
        match self.waiting.as_ref().and_then(|waiting| waiting.kept.get(waiting.due)) {
            Some(kept) => self.clock.set_at(Due::SchemaChange, kept.until),
            None => self.clock.clear(Due::SchemaChange),
        }
    }

    fn tell_changes(&mut self, cx: &mut Context<'_>) -> Option<End> {
        let can_tell = self.conversation.responses_at_boundary() && self.responses.is_flushed();
        let waiting = self.waiting.as_mut().filter(|waiting| can_tell && waiting.due > 0)?;
        let due = std::mem::take(&mut waiting.due);
        waiting.kept.drain(..due);
        if waiting.kept.is_empty() {
            self.waiting = None;
        }
        let bytes = self.conversation.tell_schema_changes(due);
        // Nothing may be in flight now.
        cx.waker().wake_by_ref();
        self.tell(cx, &bytes)
    }

    /// The connection ends: what it keeps is written behind what is owed, where a frame can stand there.
    pub(super) fn tell_last_changes(&mut self, cx: &mut Context<'_>) {
        if !self.keeps_changes() {
            return;
        }
        self.ask_about_changes();
        self.changes_wait_no_more(|_, _| Some(Told::Ended));
        self.waiting = None;
        let bytes = self.conversation.tell_schema_changes(usize::MAX);
        if self.conversation.responses_at_boundary() {
            let _ = self.responses.write(cx, &mut self.client, &bytes);
            let _ = self.responses.poll_flush(cx, &mut self.client);
        }
    }
}

/// The next answer.
fn next(mut answers: watch::Receiver<Answered>) -> Answers {
    Box::pin(async move {
        match answers.changed().await {
            Ok(()) => answers,
            Err(_) => pending().await,
        }
    })
}
