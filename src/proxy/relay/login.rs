//! A client that is not logged in: each round of the login has its time, and whoever was refused waits before the next try.

use std::task::Context;

use tokio::time::Instant;

use super::Relay;
use super::clock::Due;
use super::end::End;
use crate::cql::message::error_code;
use crate::proxy::connections::Order;
use crate::proxy::stages::Stage;
use crate::proxy::{Closed, Why};
use crate::rewrite::Login;

/// What is known of a login that is going on.
pub(super) struct Attempt {
    login: Login,
    /// Requests wait until it may go on.
    waits: bool,
}

impl Relay {
    /// Begins the time in which the client's first word about its login must come.
    pub(super) fn expect_login(&mut self) {
        if !self.conversation.is_logged_in() {
            self.clock.set(Due::Login, self.settings.timeouts.login);
        }
    }

    /// The client asks to be let in: now, or after the delay that its last tries brought.
    pub(super) fn ask_to_log_in(&mut self, cx: &Context<'_>, login: Login) {
        let delay = self.shared.logins.delay(
            &self.settings.logins,
            self.place.handle().source(),
            login.user.as_deref(),
            Instant::now(),
        );
        let waits = !delay.is_zero();
        self.attempt = Some(Box::new(Attempt { login, waits }));
        if waits {
            self.clock.clear(Due::Login);
            self.clock.set(Due::LetIn, delay);
        } else {
            self.let_in(cx);
        }
    }

    /// Whether requests wait for a login's delay.
    pub(super) fn login_waits(&self) -> bool {
        self.attempt.as_ref().is_some_and(|attempt| attempt.waits)
    }

    /// The round goes on: now the node must answer, and the client say its next word.
    pub(super) fn let_in(&mut self, cx: &Context<'_>) {
        if let Some(attempt) = &mut self.attempt {
            attempt.waits = false;
        }
        self.conversation.let_in();
        self.clock.set(Due::Login, self.settings.timeouts.login);
        cx.waker().wake_by_ref();
    }

    pub(super) fn logged_in(&mut self) {
        self.clock.clear(Due::Login);
        if let Some(attempt) = self.attempt.take() {
            self.shared.logins.succeeded(self.place.handle().source(), attempt.login.user.as_deref());
        }
        if self.place.move_to(Stage::Established).is_err() {
            self.place.handle().give(Order::Shed);
        }
    }

    pub(super) fn login_refused(&mut self, code: i32) {
        if let Some(attempt) = self.attempt.as_ref().filter(|_| code == error_code::BAD_CREDENTIALS) {
            let user = attempt.login.user.as_deref();
            self.shared.logins.failed(&self.settings.logins, self.place.handle().source(), user, Instant::now());
        }
    }

    pub(super) fn login_is_late(&self) -> End {
        End::abort(Closed::gateway(Why::LoginDeadline))
    }
}
