//! Whether all nodes have the same schema: between those who wait for it and the one who asks the nodes (`discovery::schema`).
//!
//! Nobody asks for himself. A question has a number, and is answered by a round that began after it was asked: one round answers all who
//! wait, and rounds go on only while somebody does.

use tokio::sync::watch;
use tokio::time::Instant;

use crate::label::label_set;

label_set! {
    /// What ended the wait of a change of the schema that is told late.
    pub enum Told {
        /// All nodes that are up say one version.
        Agreed = "agreed",
        /// They did not in the time that they have.
        Late = "late",
        /// The gateway has no login to ask them.
        Unknown = "unknown",
        /// There is no room to keep it.
        NoRoom = "no_room",
        /// Its connection ends, or is to.
        Ended = "ended",
    }
}

/// What rounds have come to: the questions up to these numbers are answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answered {
    pub agreed: u64,
    /// Nobody can say.
    pub unknown: u64,
}

impl Answered {
    /// What became of a question, once something has.
    pub fn told(self, question: u64) -> Option<Told> {
        match question {
            question if question <= self.agreed => Some(Told::Agreed),
            question if question <= self.unknown => Some(Told::Unknown),
            _ => None,
        }
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Asked {
    number: u64,
    /// Nobody waits for longer.
    until: Option<Instant>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Agreement {
    asked: watch::Sender<Asked>,
    answered: watch::Sender<Answered>,
}

impl Agreement {
    /// Asks, and waits for the answer until then at most: the question's number.
    pub fn ask(&self, until: Instant) -> u64 {
        let mut number = 0;
        self.asked.send_modify(|asked| {
            asked.number += 1;
            asked.until = asked.until.max(Some(until));
            number = asked.number;
        });
        number
    }

    /// Tells of answers.
    pub fn answered(&self) -> watch::Receiver<Answered> {
        self.answered.subscribe()
    }

    /// Waits until somebody waits for an answer.
    pub async fn somebody_waits(&self) {
        let mut asked = self.asked.subscribe();
        // The other end is here.
        let _ = asked.wait_for(|asked| self.is_waited_for(asked)).await;
    }

    fn is_waited_for(&self, asked: &Asked) -> bool {
        let answered = *self.answered.borrow();
        answered.told(asked.number).is_none() && asked.until.is_some_and(|until| Instant::now() < until)
    }

    /// The number of the last question that was asked.
    pub fn last(&self) -> u64 {
        self.asked.borrow().number
    }

    /// All nodes agree: an answer to all questions up to this one.
    pub fn agreed(&self, question: u64) {
        self.answered.send_modify(|answered| answered.agreed = question);
    }

    /// Nobody can say whether they do.
    pub fn unknown(&self, question: u64) {
        self.answered.send_modify(|answered| answered.unknown = question);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn rounds_go_on_while_somebody_waits_and_answer_all_who_asked_before() {
        let agreement = Agreement::default();
        let waits = || agreement.somebody_waits().now_or_never().is_some();
        assert!(!waits());
        let until = Instant::now() + Duration::from_secs(5);
        let (first, second) = (agreement.ask(until), agreement.ask(until));
        let answered = agreement.answered();
        assert!(waits());
        agreement.agreed(first);
        assert_eq!([first, second].map(|question| answered.borrow().told(question)), [Some(Told::Agreed), None]);
        assert!(waits());
        agreement.unknown(second);
        assert_eq!(answered.borrow().told(second), Some(Told::Unknown));
        assert!(!waits());
        agreement.ask(until);
        assert!(waits());
        tokio::time::advance(Duration::from_secs(5)).await;
        assert!(!waits(), "whoever asked has gone");
    }
}
