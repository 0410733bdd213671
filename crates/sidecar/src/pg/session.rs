//! A session that verifies, from its login to its end: bytes move, and what may end or renew it is watched.
//!
//! Its rights are those of its token. Between two sidecars a fresh token comes inside the session, before the old one's
//! end or when older ones are void; a plain client's session ends with its token. Deliberately absent: the decision on
//! a statement (`authorize`) and the bytes themselves (`forward`).

use std::sync::Arc;
use std::time::Duration;

use runtime::listen::Address;
use runtime::secret::Secret;
use runtime::settings::{Settings, Verify};
use tokio::time::Instant;
use wire::ErrorFields;
use wire::startup::CancelKey;

use super::cancel;
use super::forward::{Pump, Stop};
use super::inbound::Listening;
use super::inspect::Watched;
use super::upstream;
use crate::login::Login;
use crate::standing::Standing;
use crate::verify::{Credential, Failure};

/// How long a session that is to end waits for a client that has begun something and does not go on.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// The part of a drain that open transactions have to come to their end. Behind it their clients are told.
pub(super) const TRANSACTIONS_PART: f64 = 0.75;

/// How long a session whose token is void waits for a fresh one: an exchange takes a moment, and an issuer that is away
/// for longer must not keep a revoked caller in.
const RENEWAL_WAIT: Duration = Duration::from_secs(5);

/// Tokens in a row that may be none.
const REFUSALS_MAX: u32 = 8;

/// Time between two looks at the clock, whose seconds are whole ones.
const SHORTEST_LOOK: Duration = Duration::from_millis(250);

/// A session that has logged in.
pub(super) struct Session {
    pump: Pump,
    watched: Watched,
    standing: Standing,
    login: Login,
    phase: Phase,
    /// Tokens in a row that were none.
    refusals: u32,
    _cancel: cancel::Registered<(Address, CancelKey)>,
}

/// Where a session is in its life.
enum Phase {
    Open,
    /// Its token is void, and a fresh one is to come: until then, once the client waits for it.
    Renewing(Option<Instant>),
    /// It ends between statements, or then wherever the client is.
    Ending(Ending, Instant),
    /// The client has had its time, and has until then to take what is meant for it.
    Overdue(Ending, Option<Instant>),
}

/// The end of a session.
struct Ending {
    /// What the client is told.
    fields: Box<ErrorFields>,
    /// It is for a token that did not come in time; if it comes after all, the session goes on.
    is_for_token: bool,
}

/// Why a fresh token does not help.
enum NotRenewed {
    /// It is none for this session.
    Token(Failure),
    /// It does not let the session go on.
    Rights(Box<ErrorFields>),
}

impl Session {
    pub(super) fn new(
        pump: Pump,
        watched: Watched,
        standing: Standing,
        login: Login,
        cancel: cancel::Registered<(Address, CancelKey)>,
    ) -> Session {
        Session { pump, watched, standing, login, phase: Phase::Open, refusals: 0, _cancel: cancel }
    }

    /// Runs it to its end.
    pub(super) async fn run(mut self, listening: &Listening) {
        let mut settings = listening.settings.clone();
        self.look(&settings.borrow_and_update().clone());
        let timer = tokio::time::sleep(Duration::ZERO);
        tokio::pin!(timer);
        let reason = loop {
            let due = self.due(&settings.borrow());
            timer.as_mut().reset(due.unwrap_or_else(Instant::now));
            let may_end = self.may_end();
            tokio::select! {
                biased;
                Ok(()) = settings.changed(), if may_end => self.look(&settings.borrow_and_update().clone()),
                () = &mut timer, if due.is_some() => self.time_has_come(&settings.borrow().clone()),
                () = listening.drain.draining(), if may_end => self.finish(listening.drain_timeout),
                stop = self.pump.run(&mut self.watched) => match stop {
                    Stop::Analyze(text) => match listening.analyses.make(text).await {
                        Some(analysis) => self.watched.gate.prepared = Some(analysis),
                        None => break Some(ErrorFields::fatal("58000", "sidegate: a statement could not be analysed")),
                    },
                    Stop::LogFull => tokio::select! {
                        () = listening.audit.log.room() => {}
                        // A log that takes nothing does not keep a session from its end.
                        Ok(()) = settings.changed(), if may_end => self.look(&settings.borrow_and_update().clone()),
                        () = &mut timer, if due.is_some() => self.time_has_come(&settings.borrow().clone()),
                        () = listening.drain.draining(), if may_end => self.finish(listening.drain_timeout),
                    },
                    Stop::Held => {
                        if let Phase::Renewing(until) = &mut self.phase {
                            *until = Some(Instant::now() + RENEWAL_WAIT);
                        }
                    }
                    Stop::Token(token) => {
                        let now = settings.borrow().clone();
                        self.take(token, &now, listening).await;
                    }
                    stop => break self.end_reason(stop),
                },
            }
        };
        if let Some(fields) = &reason {
            tracing::info!(message = fields.message, "session ended by the sidecar");
        }
        self.pump.finish(reason.as_ref()).await;
    }

    /// Whether it still depends on settings, time and drain.
    fn may_end(&self) -> bool {
        matches!(self.phase, Phase::Open | Phase::Renewing(_))
    }

    /// When to look again by the clock.
    fn due(&self, settings: &Settings) -> Option<Instant> {
        match &self.phase {
            Phase::Renewing(Some(until)) | Phase::Ending(_, until) => Some(*until),
            Phase::Overdue(_, until) => *until,
            // Where nothing is enforced nothing ends, and a change of that is a change of settings.
            _ if settings.verify != Verify::Enforce || !self.standing.expires() => None,
            _ => Some(Instant::now() + self.standing.life_left().max(SHORTEST_LOOK)),
        }
    }

    /// Whether it may go on under these settings.
    fn look(&mut self, settings: &Settings) {
        if self.watched.gate.is_tainted() {
            self.standing.is_tolerated_from_now_on();
        }
        if self.watched.renews
            && !self.standing.has_expired()
            && let Some(not_before) = self.standing.revoked(settings)
        {
            self.watched.go_on();
            self.watched.wait_for_token(not_before);
            self.phase = Phase::Renewing(None);
            return;
        }
        match self.standing.ended(settings) {
            Some(fields) => self.bar(fields, false),
            None => {
                self.watched.go_on();
                self.phase = Phase::Open;
            }
        }
    }

    fn time_has_come(&mut self, settings: &Settings) {
        match std::mem::replace(&mut self.phase, Phase::Open) {
            // The clock may have been set back since the timer was.
            Phase::Open | Phase::Renewing(None) => self.look(settings),
            Phase::Renewing(Some(_)) => match self.standing.ended(settings) {
                Some(fields) => self.bar(fields, true),
                None => self.look(settings),
            },
            Phase::Ending(ending, _) => {
                self.watched.overdue = true;
                self.phase = Phase::Overdue(ending, Some(Instant::now() + PATIENCE));
            }
            Phase::Overdue(ending, _) => {
                self.watched.cut = true;
                self.phase = Phase::Overdue(ending, None);
            }
        }
    }

    /// It has no rights any more, and ends.
    fn bar(&mut self, fields: ErrorFields, is_for_token: bool) {
        self.watched.barred = true;
        self.end(fields, is_for_token);
    }

    fn end(&mut self, fields: ErrorFields, is_for_token: bool) {
        self.watched.ending = true;
        let ending = Ending { fields: Box::new(fields), is_for_token };
        self.phase = Phase::Ending(ending, Instant::now() + PATIENCE);
    }

    /// The sidecar is to end, and the session with it, once its transaction is over: none of its rights is in doubt.
    fn finish(&mut self, limit: Duration) {
        (self.watched.ending, self.watched.finishing) = (true, true);
        let ending = Ending { fields: Box::new(shutting_down()), is_for_token: false };
        self.phase = Phase::Ending(ending, Instant::now() + limit.mul_f64(TRANSACTIONS_PART));
    }

    /// Takes what the other sidecar brought in place of the session's token.
    async fn take(&mut self, token: Option<Secret>, settings: &Settings, listening: &Listening) {
        let can_help = match &self.phase {
            Phase::Open | Phase::Renewing(_) => true,
            Phase::Ending(ending, _) | Phase::Overdue(ending, _) => ending.is_for_token,
        };
        if !can_help {
            return;
        }
        let renewed = match token {
            Some(token) => self.renew(&token, settings, listening).await,
            None => Err(NotRenewed::Rights(Box::new(withdrawn()))),
        };
        let result = match &renewed {
            Ok(()) => "ok",
            Err(NotRenewed::Token(failure)) => failure.label(),
            Err(NotRenewed::Rights(_)) => "rights_withdrawn",
        };
        listening.audit.metrics.renewed(result);
        match renewed {
            Ok(()) => {
                self.refusals = 0;
                self.look(settings);
            }
            Err(NotRenewed::Rights(fields)) if settings.verify == Verify::Enforce => self.bar(*fields, false),
            Err(NotRenewed::Rights(_)) => self.standing.withdraw(),
            Err(NotRenewed::Token(failure)) => {
                self.token_was_refused(&failure);
                // Where one is waited for, the next is asked for: this one was issued a moment too early.
                if matches!(self.phase, Phase::Renewing(_)) {
                    self.look(settings);
                }
            }
        }
    }

    /// The token at hand is good to its end, or waits for a better one. One that was refused may be the issuer's mistake;
    /// many in a row are somebody's who wants to keep us busy.
    fn token_was_refused(&mut self, failure: &Failure) {
        self.refusals += 1;
        if self.refusals == 1 {
            tracing::warn!(reason = failure.label(), "a session's fresh token was refused");
        }
        if self.refusals > REFUSALS_MAX {
            self.bar(ErrorFields::fatal("57P01", "sidegate: too many tokens that are none in one session"), false);
        }
    }

    async fn renew(&mut self, token: &Secret, settings: &Settings, listening: &Listening) -> Result<(), NotRenewed> {
        let verified = listening.verifier.verify(settings, token.expose(), self.pump.peer().as_ref()).await;
        let credential = verified.map_err(NotRenewed::Token)?;
        let role = match &self.login.role {
            // Whose token it is was settled when the session began, and what it may do nobody asked then.
            None => return Ok(()),
            Some(role) => role.clone(),
        };
        let Some(held) = self.standing.token() else { return Ok(()) };
        if held.subject() != credential.token.subject() {
            return Err(NotRenewed::Token(Failure::Token(identity::TokenError::Claim("sub"))));
        }
        // Of several issuers one may not know yet what the others do: rights do not go back to what they were.
        if credential.token.issued_at() < held.issued_at() {
            return Ok(());
        }
        let rights = |fields| NotRenewed::Rights(Box::new(fields));
        let role = listening.logins.same_role(&credential, &role, &self.login).map_err(rights)?;
        self.go_by(credential, role);
        Ok(())
    }

    fn go_by(&mut self, credential: Arc<Credential>, role: Arc<policy::Role>) {
        self.watched.gate.renew(&role);
        self.login.role = Some(role);
        self.standing.renew(credential);
    }

    /// What the client is told when its session stops.
    fn end_reason(&mut self, stop: Stop) -> Option<ErrorFields> {
        match stop {
            Stop::ClientLeft | Stop::ServerLeft { told: true } => None,
            Stop::ServerLeft { told: false } => {
                Some(ErrorFields::fatal("08006", "sidegate: PostgreSQL closed the connection without a word"))
            }
            Stop::Client(error) => Some(ErrorFields::fatal("08P01", format!("sidegate: {error}"))),
            Stop::Server(error) => {
                Some(ErrorFields::fatal("08P01", format!("sidegate: PostgreSQL sent what cannot be: {error}")))
            }
            Stop::UnsafeSetting(name) => Some(upstream::unsafe_setting(name)),
            Stop::Ended => match std::mem::replace(&mut self.phase, Phase::Open) {
                Phase::Ending(ending, _) | Phase::Overdue(ending, _) => Some(*ending.fields),
                Phase::Open | Phase::Renewing(_) => None,
            },
            // These are dealt with where they come; the last comes from no client.
            Stop::Analyze(_) | Stop::LogFull | Stop::Held | Stop::Token(_) | Stop::TokenWanted => None,
        }
    }
}

pub(super) fn shutting_down() -> ErrorFields {
    ErrorFields::fatal("57P01", "sidegate: terminating connection: the sidecar is shutting down").hint("Reconnect.")
}

fn withdrawn() -> ErrorFields {
    ErrorFields::fatal("57P01", "sidegate: the session's rights were withdrawn")
        .detail("The issuer grants its caller no role on this service any more.")
        .hint("Ask for an AccessGrant.")
}
