//! The way of an answer from the task that makes it to the client: held while it is little, in pieces when it is long.
//!
//! Deliberately absent: what stands in it.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::Frame;
use http_body_util::BodyExt;
use tokio::sync::{mpsc, oneshot};
use wire::WireError;

use super::super::problem::{Kind, Problem};
use super::super::{Body, BodyError, full};
use super::error;
use super::session::Over;

/// Bytes that are gathered before they are sent.
const CHUNK: usize = 64 << 10;

/// Chunks that wait for a slow client.
const CHUNKS_AHEAD: usize = 2;

/// How long a client may take none of its result: it holds a session that others wait for.
const STALL: Duration = Duration::from_secs(30);

/// Why statements stop.
pub(super) enum Stop {
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

/// An answer's two ends; it may have `limit` bytes.
pub(super) fn new(limit: u64) -> (Output, Answer) {
    let (head, headed) = oneshot::channel();
    let (chunks, pieces) = mpsc::channel(CHUNKS_AHEAD);
    (Output { head: Some(head), chunks, buffer: Vec::new(), left: limit }, Answer { headed, pieces })
}

/// The client's end.
pub(super) struct Answer {
    headed: oneshot::Receiver<Result<Head, Problem>>,
    pieces: mpsc::Receiver<Piece>,
}

impl Answer {
    /// The body, once it is known how it begins. Cancel safe: the other end notices.
    ///
    /// # Errors
    /// The problem, where nothing was sent yet.
    pub(super) async fn begun(self) -> Result<Body, Problem> {
        match self.headed.await {
            Ok(Ok(Head::Whole(bytes))) => Ok(full(bytes)),
            Ok(Ok(Head::Streams)) => Ok(Pieces { pieces: self.pieces, ended: false }.boxed_unsync()),
            Ok(Err(problem)) => Err(problem),
            Err(_) => Err(Problem::new(Kind::Upstream, "sidegate: the request was lost").code("58000")),
        }
    }
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
pub(super) struct Output {
    head: Option<oneshot::Sender<Result<Head, Problem>>>,
    chunks: mpsc::Sender<Piece>,
    /// What is not on its way yet. Whoever writes calls [`Output::flush_if_full`] now and then.
    pub(super) buffer: Vec<u8>,
    /// Bytes that the answer may still have, beyond the buffer.
    left: u64,
}

impl Output {
    /// Ends when the client is gone. Cancel safe.
    pub(super) async fn gone(&mut self) {
        match &mut self.head {
            Some(head) => head.closed().await,
            None => self.chunks.closed().await,
        }
    }

    pub(super) async fn flush_if_full(&mut self) -> Result<(), Stop> {
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

    pub(super) async fn finish(&mut self) {
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

    pub(super) async fn fail(&mut self, problem: Problem) {
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
