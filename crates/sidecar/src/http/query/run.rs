//! Statements that may run are played to PostgreSQL, one after the other, and their results stream to the client.
//!
//! Little results are held until all went well, so that an error is an error's status; a long result is on its way when
//! something goes wrong behind it, and then breaks off. Deliberately absent: statements that were not decided:
//! a [`Passage`] goes with each.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response};
use postgres_protocol::IsNull;
use postgres_protocol::message::frontend;
use runtime::drain::Guard;
use runtime::settings::Settings;
use tokio::sync::watch;
use tokio::time::Instant;
use wire::WireError;
use wire::backend::TransactionStatus;

use super::super::Body;
use super::super::authenticate::invalid_token;
use super::super::problem::{Kind, Problem};
use super::answer::{self, Columns, Style};
use super::error;
use super::output::{self, Output, Stop};
use super::pool::Pooled;
use super::request::{Asked, Statement};
use crate::config;
use crate::pg::authorize::Passage;
use crate::standing::Standing;

/// PostgreSQL ends a statement by itself when its time is up; a little later, this side does, whatever was set.
const GRACE: Duration = Duration::from_secs(5);

/// A statement and the proof that it may run.
pub(super) struct Decided {
    pub(super) statement: Statement,
    pub(super) passage: Passage,
}

/// What statements run under.
pub(super) struct Terms {
    pub(super) limits: config::Query,
    pub(super) standing: Standing,
    /// The service, as challenges name it.
    pub(super) realm: String,
    pub(super) settings: watch::Receiver<Arc<Settings>>,
    #[allow(dead_code, reason = "held for its drop")]
    pub(super) guard: Guard,
}

/// Plays statements, and gives the answer as soon as its head is known. Cancel safe: what runs is cancelled.
///
/// # Errors
/// The problem, where nothing of the answer was sent yet.
pub(super) async fn start(
    session: Pooled,
    decided: Vec<Decided>,
    asked: Asked,
    terms: Terms,
) -> Result<Response<Body>, Problem> {
    let (output, answer) = output::new(terms.limits.result_limit);
    let play = Play { session, output, state: State::Settled, deadline: Instant::now(), decision: None, terms };
    tokio::spawn(play.play(decided, asked));
    let body = answer.begun().await?;
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

/// What PostgreSQL still owes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing: the last `ReadyForQuery` was read.
    Settled,
    /// The end of a statement, of which nothing lasts before its `Sync`.
    Runs,
    /// `ReadyForQuery`, or more.
    Ends,
}

struct Play {
    session: Pooled,
    output: Output,
    state: State,
    /// When the statement's time is up. Time that the client takes for the result does not count.
    deadline: Instant,
    /// Of the statement that runs, or ran last.
    decision: Option<String>,
    terms: Terms,
}

impl Play {
    async fn play(mut self, decided: Vec<Decided>, asked: Asked) {
        match self.all(decided, &asked).await {
            Ok(()) => self.output.finish().await,
            Err(Stop::Problem(problem)) => {
                self.output.fail(self.decision.iter().fold(problem, Problem::decision)).await
            }
            Err(Stop::Gone) => tracing::debug!("a client left before its answer"),
        }
        match self.state {
            State::Settled => self.session.clean_up().await,
            State::Runs => self.session.stop().await,
            State::Ends => {}
        }
        if !self.session.is_clean() {
            // Not back to the pool: ending the connection is what rolls back.
            drop(Pooled::take(self.session));
        }
    }

    async fn all(&mut self, decided: Vec<Decided>, asked: &Asked) -> Result<(), Stop> {
        let Some(begin) = &asked.begin else {
            for one in decided {
                self.statement(one, asked).await?;
            }
            return Ok(());
        };
        self.control(begin).await?;
        self.output.buffer.extend_from_slice(b"{\"results\":[");
        for (index, one) in decided.into_iter().enumerate() {
            if index > 0 {
                self.output.buffer.push(b',');
            }
            self.statement(one, asked).await?;
            if self.session.status() != TransactionStatus::InTransaction {
                return Err(Problem::new(Kind::Sql, "sidegate: a statement ended the transaction of its batch")
                    .code("2D000")
                    .into());
            }
        }
        self.control("COMMIT").await?;
        self.output.buffer.extend_from_slice(b"]}");
        Ok(())
    }

    /// Runs one of our own: `BEGIN …` or `COMMIT`.
    async fn control(&mut self, text: &str) -> Result<(), Stop> {
        let mut out = Vec::new();
        wire::frontend::query(&mut out, text);
        self.send(&out, State::Ends).await?;
        self.ready(None).await
    }

    async fn statement(&mut self, decided: Decided, asked: &Asked) -> Result<(), Stop> {
        let Decided { statement, passage } = decided;
        self.decision = passage.decision().map(ToOwned::to_owned).or(self.decision.take());
        let style = Style { arrays: statement.array_mode.unwrap_or(asked.array_mode), raw: asked.raw_text };
        let messages = messages(&statement).map_err(|error| {
            Problem::new(Kind::BadRequest, "sidegate: the statement cannot be sent").detail(error.to_string())
        })?;
        drop(statement);
        self.send(&messages, State::Runs).await?;
        let failed = self.result(style).await?;
        let mut sync = bytes::BytesMut::new();
        frontend::sync(&mut sync);
        self.state = State::Ends;
        self.session.send(&sync).await?;
        self.ready(failed).await
    }

    /// Reads a statement's answer to its end, which may be an error.
    async fn result(&mut self, style: Style) -> Result<Option<Problem>, Stop> {
        let mut columns = None;
        loop {
            let (tag, body) = self.receive().await?;
            match tag {
                b'T' | b'n' => {
                    let read = Columns::read(&body, style)?;
                    read.begin(&mut self.output.buffer);
                    self.pass_on().await?;
                    columns = Some(read);
                }
                b'D' => {
                    let columns = columns.as_mut();
                    let columns = columns.ok_or(WireError::Unexpected { tag, place: "before its description" })?;
                    columns.row(&mut self.output.buffer, &body)?;
                    self.pass_on().await?;
                }
                b'C' | b'I' if columns.is_some() => {
                    answer::end(&mut self.output.buffer, &command_tag(&body));
                    return Ok(None);
                }
                b'E' => return Ok(Some(error::of_response(&body))),
                b'1' | b'2' => {}
                // What copies was refused before; this one nobody could read.
                b'G' | b'H' | b'W' => return Err(no_copy().into()),
                _ => return Err(WireError::Unexpected { tag, place: "in the answer to a statement" }.into()),
            }
        }
    }

    /// Reads up to `ReadyForQuery`. The first error counts, and `failed` came before.
    async fn ready(&mut self, mut failed: Option<Problem>) -> Result<(), Stop> {
        loop {
            match self.receive().await? {
                (b'Z', _) => {
                    self.state = State::Settled;
                    return failed.map_or(Ok(()), |problem| Err(problem.into()));
                }
                (b'E', body) => failed = failed.or_else(|| Some(error::of_response(&body))),
                _ => {}
            }
        }
    }

    /// Lets the client have what is there, if it is enough to be sent; what it makes us wait, the statement has longer.
    async fn pass_on(&mut self) -> Result<(), Stop> {
        let before = Instant::now();
        let passed = self.output.flush_if_full().await;
        self.deadline += before.elapsed();
        passed
    }

    /// Begins something, if the caller may still go on.
    async fn send(&mut self, messages: &[u8], state: State) -> Result<(), Stop> {
        let settings = self.terms.settings.borrow().clone();
        if let Some(fields) = self.terms.standing.ended(&settings) {
            let challenge = invalid_token(&self.terms.realm, &fields.message);
            return Err(Problem::of_fields(Kind::Unauthorized, fields).challenge(challenge).into());
        }
        self.state = state;
        self.deadline = Instant::now() + self.terms.limits.statement_timeout + GRACE;
        tokio::select! {
            biased;
            sent = tokio::time::timeout_at(self.deadline, self.session.send(messages)) => match sent {
                Ok(sent) => Ok(sent?),
                Err(_) => Err(time_is_up()),
            },
            () = self.output.gone() => Err(Stop::Gone),
        }
    }

    async fn receive(&mut self) -> Result<(u8, Bytes), Stop> {
        tokio::select! {
            biased;
            received = tokio::time::timeout_at(self.deadline, self.session.receive()) => match received {
                Ok(received) => Ok(received?),
                Err(_) => Err(time_is_up()),
            },
            () = self.output.gone() => Err(Stop::Gone),
        }
    }
}

fn time_is_up() -> Stop {
    Problem::new(Kind::Sql, "sidegate: the statement's time is up").code("57014").into()
}

/// The problem of a statement that takes messages of its own.
pub(super) fn no_copy() -> Problem {
    Problem::new(Kind::Sql, "sidegate: there is no COPY over HTTP")
        .code("0A000")
        .hint("Use the native protocol, or INSERT and SELECT.")
}

fn command_tag(body: &[u8]) -> String {
    String::from_utf8_lossy(body.strip_suffix(b"\0").unwrap_or(body)).into_owned()
}

/// Parse, Bind, Describe, Execute: all parameters and all columns as text, of types that PostgreSQL finds out. No `Sync`
/// yet: before that, nothing of the statement lasts, so that one whose result cannot be given has not happened.
fn messages(statement: &Statement) -> std::io::Result<bytes::BytesMut> {
    let mut out = bytes::BytesMut::new();
    frontend::parse("", &statement.text, [], &mut out)?;
    let value = |parameter: &Option<String>, out: &mut bytes::BytesMut| match parameter {
        None => Ok(IsNull::Yes),
        Some(text) => {
            out.extend_from_slice(text.as_bytes());
            Ok(IsNull::No)
        }
    };
    frontend::bind("", "", [], &statement.parameters, value, [], &mut out).map_err(|error| match error {
        frontend::BindError::Conversion(error) => std::io::Error::other(error),
        frontend::BindError::Serialization(error) => error,
    })?;
    frontend::describe(b'P', "", &mut out)?;
    frontend::execute("", 0, &mut out)?;
    frontend::flush(&mut out);
    Ok(out)
}
