//! Statements that may run are played to PostgreSQL, one after the other, and their results stream to the client.
//!
//! Little results are held until all went well, so that an error is an error's status; a long result is on its way when
//! something goes wrong behind it, and then breaks off. Deliberately absent: statements that were not decided:
//! a [`Passage`] goes with each.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response};
use http_body::Frame;
use http_body_util::BodyExt;
use postgres_protocol::IsNull;
use postgres_protocol::message::frontend;
use runtime::drain::Guard;
use runtime::settings::Settings;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use wire::WireError;
use wire::backend::TransactionStatus;

use super::super::problem::{Kind, Problem};
use super::super::{Body, BodyError, full};
use super::answer::{self, Columns, Style};
use super::error;
use super::pool::Pooled;
use super::request::{Asked, Statement};
use super::session::Over;
use crate::config;
use crate::pg::authorize::Passage;
use crate::standing::Standing;

/// Bytes that are gathered before they are sent.
const CHUNK: usize = 64 << 10;

/// Chunks that wait for a slow client.
const CHUNKS_AHEAD: usize = 2;

/// How long a client may take none of its result: it holds a session that others wait for.
const STALL: Duration = Duration::from_secs(30);

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
    let (head, headed) = oneshot::channel();
    let (chunks, pieces) = mpsc::channel(CHUNKS_AHEAD);
    let play = Play {
        session,
        output: Output { head: Some(head), chunks, buffer: Vec::new(), left: terms.limits.result_limit },
        state: State::Settled,
        deadline: Instant::now(),
        decision: None,
        terms,
    };
    tokio::spawn(play.play(decided, asked));
    let body = match headed.await {
        Ok(Ok(Head::Whole(bytes))) => full(bytes),
        Ok(Ok(Head::Streams)) => Pieces { pieces, ended: false }.boxed_unsync(),
        Ok(Err(problem)) => return Err(problem),
        Err(_) => return Err(Problem::new(Kind::Upstream, "sidegate: the request was lost").code("58000")),
    };
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

/// Why statements stop.
enum Stop {
    /// The client is told.
    Problem(Problem),
    /// There is nobody to be told.
    Gone,
}

impl From<Problem> for Stop {
    fn from(problem: Problem) -> Stop {
        Stop::Problem(problem)
    }
}

impl From<Over> for Stop {
    fn from(over: Over) -> Stop {
        error::of_session(&over).into()
    }
}

impl From<WireError> for Stop {
    fn from(error: WireError) -> Stop {
        Over::from(error).into()
    }
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
            return Err(Problem::of_fields(Kind::Unauthorized, fields).into());
        }
        self.state = state;
        self.deadline = Instant::now() + self.terms.limits.statement_timeout + GRACE;
        Ok(self.session.send(messages).await?)
    }

    async fn receive(&mut self) -> Result<(u8, Bytes), Stop> {
        tokio::select! {
            biased;
            received = tokio::time::timeout_at(self.deadline, self.session.receive()) => match received {
                Ok(received) => Ok(received?),
                Err(_) => Err(Problem::new(Kind::Sql, "sidegate: the statement's time is up").code("57014").into()),
            },
            () = self.output.gone() => Err(Stop::Gone),
        }
    }
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

/// How an answer begins.
enum Head {
    /// It is all there.
    Whole(Vec<u8>),
    /// It comes in pieces.
    Streams,
}

/// A part of an answer that streams.
enum Piece {
    Chunk(Bytes),
    End,
    Broken(&'static str),
}

/// The way to the client.
struct Output {
    head: Option<oneshot::Sender<Result<Head, Problem>>>,
    chunks: mpsc::Sender<Piece>,
    buffer: Vec<u8>,
    /// Bytes that the answer may still have, beyond the buffer.
    left: u64,
}

impl Output {
    /// Ends when the client is gone. Cancel safe.
    async fn gone(&mut self) {
        match &mut self.head {
            Some(head) => head.closed().await,
            None => self.chunks.closed().await,
        }
    }

    async fn flush_if_full(&mut self) -> Result<(), Stop> {
        if self.buffer.len() as u64 > self.left {
            return Err(Problem::new(Kind::Sql, "sidegate: the result is longer than this sidecar gives")
                .code("54000")
                .hint("Ask for less at a time, or use the native protocol.")
                .into());
        }
        if self.buffer.len() < CHUNK {
            return Ok(());
        }
        self.left -= self.buffer.len() as u64;
        if let Some(head) = self.head.take() {
            head.send(Ok(Head::Streams)).map_err(|_| Stop::Gone)?;
        }
        let mut rest = Bytes::from(std::mem::replace(&mut self.buffer, Vec::with_capacity(CHUNK + CHUNK / 4)));
        while !rest.is_empty() {
            let chunk = rest.split_to(rest.len().min(CHUNK));
            self.send(Piece::Chunk(chunk)).await?;
        }
        Ok(())
    }

    async fn send(&self, piece: Piece) -> Result<(), Stop> {
        match tokio::time::timeout(STALL, self.chunks.send(piece)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Stop::Gone),
        }
    }

    async fn finish(&mut self) {
        let rest = std::mem::take(&mut self.buffer);
        // Whoever has gone meanwhile misses nothing.
        match self.head.take() {
            Some(head) => drop(head.send(Ok(Head::Whole(rest)))),
            None => {
                let _ = self.send(Piece::Chunk(rest.into())).await;
                let _ = self.send(Piece::End).await;
            }
        }
    }

    async fn fail(&mut self, problem: Problem) {
        match self.head.take() {
            Some(head) => drop(head.send(Err(problem))),
            None => {
                // Not its words: PostgreSQL quotes values in them.
                tracing::info!(code = problem.sqlstate(), "a result broke off");
                let _ = self.send(Piece::Broken("the statement failed behind what was sent")).await;
            }
        }
    }
}

/// The body of an answer that streams. One that does not come to its end is an error, never a short answer.
struct Pieces {
    pieces: mpsc::Receiver<Piece>,
    ended: bool,
}

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let piece = ready!(self.pieces.poll_recv(cx));
        Poll::Ready(match piece {
            Some(Piece::Chunk(bytes)) => Some(Ok(Frame::data(bytes))),
            Some(Piece::End) => {
                self.ended = true;
                None
            }
            Some(Piece::Broken(why)) => Some(Err(why.into())),
            None => Some(Err("the result was lost".into())),
        })
    }
}
