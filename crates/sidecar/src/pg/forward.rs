//! Bytes both ways, in one task a session: each read is passed on with one write, and what must be changed is changed
//! in place. What may pass is said by an [`Inspect`]: statement by statement on the inbound side (`inspect`), all of it
//! on the outbound side (`relay`).
//!
//! Answers are stepped over by their headers; rows are never looked at. Memory is bounded: a direction does not read
//! while it has bytes to write, a text is held up to `TEXT_LIMIT`, everything else streams, and a session that sleeps
//! holds no buffers.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use runtime::secret::Secret;
use tokio::io::AsyncWrite;
use tokio::io::AsyncWriteExt;
use tokio_util::io::poll_read_buf;
use wire::frame::{HEADER_LEN, Header};
use wire::{ErrorFields, WireError, backend, frontend};

use crate::link::{Link, Peer};

/// Bytes read at a time: PostgreSQL's own buffer is 8 KiB, a TLS record at most 16.
const READ_BYTES: usize = 16 << 10;

/// Time to tell a client why its session ends.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a session's bytes stopped.
#[derive(Debug)]
pub(super) enum Stop {
    /// The client said goodbye or closed.
    ClientLeft,
    /// The server closed; `told`: it had said why.
    ServerLeft { told: bool },
    /// The client broke the protocol.
    Client(WireError),
    /// The server broke the protocol.
    Server(WireError),
    /// A setting on which the reading of SQL rests has changed.
    UnsafeSetting(&'static str),
    /// The session was to end, and is between statements.
    Ended,
    /// The client wants something that needs rights, and the session's are to be renewed first. Said once.
    Held,
    /// A long text is to be analysed; then go on.
    Analyze(Vec<u8>),
    /// The decision log has no room, and nothing may go on unrecorded; when it has, go on.
    LogFull,
    /// The caller's sidecar brought a fresh token, or the word that there is none any more.
    Token(Option<Secret>),
    /// The database's sidecar wants a fresh token.
    TokenWanted,
}

/// One direction's bytes: `ready` of `buffer` may be written; then `insert`; then `discard` bytes are dropped; the rest
/// is yet to be looked at. `stream` bytes still to come belong to a message that may pass.
#[derive(Default)]
pub(super) struct Lane {
    buffer: BytesMut,
    ready: usize,
    insert: BytesMut,
    discard: usize,
    stream: usize,
    unflushed: bool,
}

impl Lane {
    /// What has not been looked at, once what must come before it is settled.
    pub(super) fn unseen(&mut self) -> Option<&[u8]> {
        let passing = self.stream.min(self.buffer.len() - self.ready);
        self.ready += passing;
        self.stream -= passing;
        if self.ready == 0 && self.insert.is_empty() {
            let dropping = self.discard.min(self.buffer.len());
            self.buffer.advance(dropping);
            self.discard -= dropping;
        }
        let blocked = self.stream > 0 || self.discard > 0 || !self.insert.is_empty();
        self.buffer.get(self.ready..).filter(|rest| !blocked && !rest.is_empty())
    }

    /// Lets the next message pass: `total` bytes, which need not all have arrived.
    pub(super) fn pass(&mut self, total: usize) {
        self.stream = total;
    }

    /// Puts `instead` in the place of the next message of `total` bytes, which need not all have arrived.
    pub(super) fn replace(&mut self, total: usize, instead: &[u8]) {
        self.discard = total;
        self.insert.extend_from_slice(instead);
    }

    /// Puts `between` ahead of the next message. To be called where one begins or is to begin.
    pub(super) fn put_in(&mut self, between: &[u8]) {
        self.insert.extend_from_slice(between);
    }

    /// Takes the first whole message of type `tag`, whose body has at most `limit` bytes, out of what is yet to be looked
    /// at, and gives its body: for a lane whose next message must wait for it. `None`: it is not here, or not whole.
    ///
    /// # Errors
    /// A length that cannot be, on the way to it or its own.
    pub(super) fn take_ahead(&mut self, tag: u8, limit: usize) -> Result<Option<BytesMut>, WireError> {
        let mut at = self.ready;
        while let Some(header) = self.buffer.get(at..).map(Header::read).transpose()?.flatten() {
            let end = at.saturating_add(header.total());
            if header.tag != tag {
                at = end;
                continue;
            }
            if header.body > limit {
                return Err(WireError::TooLong { tag, body: header.body });
            }
            if self.buffer.len() < end {
                return Ok(None);
            }
            let mut message = self.buffer.split_off(at);
            let rest = message.split_off(header.total());
            self.buffer.extend_from_slice(&rest);
            return Ok(Some(message.split_off(HEADER_LEN)));
        }
        Ok(None)
    }

    /// Whether something behind what is to be written waits for that: what is put in, or what is dropped.
    fn is_unfinished(&self) -> bool {
        !self.insert.is_empty() || self.discard > 0 && self.ready > 0
    }

    /// Bytes that are here and not written.
    pub(super) fn held(&self) -> usize {
        self.buffer.len()
    }

    /// Lets everything pass that is here.
    pub(super) fn pass_all(&mut self) {
        self.ready = self.buffer.len();
    }

    /// Whether the rest of a message that passes or is dropped is still to come.
    pub(super) fn is_amid_message(&self) -> bool {
        self.stream > 0 || self.discard > 0
    }

    /// Whether something may be put in here and now: no message is under way, and nothing else is put in.
    pub(super) fn is_at_boundary(&self) -> bool {
        !self.is_amid_message() && self.insert.is_empty()
    }

    /// At a message boundary with nothing left to write.
    fn is_clear(&self) -> bool {
        self.ready == 0 && self.insert.is_empty() && self.discard == 0 && self.stream == 0
    }

    /// Writes what may be written. Ready when all of it is.
    fn poll_write(&mut self, cx: &mut Context<'_>, to: &mut Link) -> Poll<io::Result<()>> {
        loop {
            let from =
                if self.ready > 0 { self.buffer.get(..self.ready).unwrap_or_default() } else { &self.insert[..] };
            if from.is_empty() {
                return Poll::Ready(Ok(()));
            }
            let written = ready!(Pin::new(&mut *to).poll_write(cx, from))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.unflushed = true;
            if self.ready > 0 {
                self.ready -= written;
                self.buffer.advance(written);
            } else {
                self.insert.advance(written);
            }
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>, to: &mut Link) -> Poll<io::Result<()>> {
        if self.unflushed {
            ready!(Pin::new(to).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Reads more. Gives an empty buffer back to the allocator while there is nothing.
    fn poll_read(&mut self, cx: &mut Context<'_>, from: &mut Link) -> Poll<io::Result<usize>> {
        self.buffer.reserve(READ_BYTES);
        let read = poll_read_buf(Pin::new(from), cx, &mut self.buffer);
        if read.is_pending() && self.buffer.is_empty() {
            self.buffer = BytesMut::new();
            self.insert = BytesMut::new();
        }
        read
    }
}

/// Says what of a session's bytes may pass.
pub(super) trait Inspect {
    /// Looks at the client's bytes as far as they go; whether to read more.
    ///
    /// # Errors
    /// What the session must stop for.
    fn client(&mut self, lane: &mut Lane) -> Result<bool, Stop>;

    /// Looks at the server's bytes as far as they go.
    ///
    /// # Errors
    /// What the session must stop for.
    fn server(&mut self, lane: &mut Lane) -> Result<(), Stop>;

    /// Whether the session is to end and may, as far as its messages go.
    fn is_over(&self) -> bool;

    /// Whether the session is to end wherever the client is, as the server waits for it.
    fn is_overdue(&self) -> bool;

    /// Whether it is to end even if the client does not take what is still meant for it.
    fn is_cut(&self) -> bool;

    /// Whether the server has said why it closes.
    fn was_told(&self) -> bool;
}

/// A session's two connections and the bytes between them.
pub(super) struct Pump {
    client: Link,
    server: Link,
    to_server: Lane,
    to_client: Lane,
    /// Writing to the server failed: only what it still has to say is of interest.
    server_is_deaf: bool,
}

impl Pump {
    /// Couples a client with a server.
    pub(super) fn new(client: Link, server: Link) -> Pump {
        Pump { client, server, to_server: Lane::default(), to_client: Lane::default(), server_is_deaf: false }
    }

    /// Who the client is by its certificate.
    pub(super) fn peer(&self) -> Option<Peer> {
        self.client.peer()
    }

    /// Moves bytes until something stops them. Cancel safe: all state is in `self` and `inspect`, so that it may be
    /// called again, after [`Stop::Analyze`] above all.
    pub(super) async fn run(&mut self, inspect: &mut impl Inspect) -> Stop {
        poll_fn(|cx| self.poll(cx, inspect)).await
    }

    fn poll(&mut self, cx: &mut Context<'_>, inspect: &mut impl Inspect) -> Poll<Stop> {
        if let Poll::Ready(stop) = self.poll_to_client(cx, inspect) {
            return Poll::Ready(stop);
        }
        if let Poll::Ready(stop) = self.poll_to_server(cx, inspect) {
            return Poll::Ready(stop);
        }
        let is_over = inspect.is_over() && self.to_server.is_clear() || inspect.is_overdue();
        if is_over && (self.to_client.is_clear() || inspect.is_cut()) {
            return Poll::Ready(Stop::Ended);
        }
        Poll::Pending
    }

    fn poll_to_server(&mut self, cx: &mut Context<'_>, inspect: &mut impl Inspect) -> Poll<Stop> {
        loop {
            let reads_on = match inspect.client(&mut self.to_server) {
                Ok(reads_on) => reads_on,
                Err(stop) => return Poll::Ready(stop),
            };
            let unfinished = self.to_server.is_unfinished();
            if self.server_is_deaf {
                return Poll::Pending;
            }
            if ready!(self.to_server.poll_write(cx, &mut self.server)).is_err() {
                // What it said before it closed is still to be read, and that it closed is seen there.
                self.server_is_deaf = true;
                return Poll::Pending;
            }
            if unfinished {
                continue;
            }
            let read = if reads_on { self.to_server.poll_read(cx, &mut self.client) } else { Poll::Pending };
            match read {
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Stop::ClientLeft),
                Poll::Pending => {
                    self.server_is_deaf |=
                        matches!(self.to_server.poll_flush(cx, &mut self.server), Poll::Ready(Err(_)));
                    return Poll::Pending;
                }
            }
        }
    }

    fn poll_to_client(&mut self, cx: &mut Context<'_>, inspect: &mut impl Inspect) -> Poll<Stop> {
        loop {
            if let Err(stop) = inspect.server(&mut self.to_client) {
                return Poll::Ready(stop);
            }
            let unfinished = self.to_client.is_unfinished();
            if ready!(self.to_client.poll_write(cx, &mut self.client)).is_err() {
                return Poll::Ready(Stop::ClientLeft);
            }
            if unfinished {
                continue;
            }
            match self.to_client.poll_read(cx, &mut self.server) {
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Stop::ServerLeft { told: inspect.was_told() }),
                Poll::Pending => {
                    return match self.to_client.poll_flush(cx, &mut self.client) {
                        Poll::Ready(Err(_)) => Poll::Ready(Stop::ClientLeft),
                        _ => Poll::Pending,
                    };
                }
            }
        }
    }

    /// Ends both connections and takes leave of the server, unless amid a message. Bounded in time. Not cancel safe.
    pub(super) async fn finish(mut self, reason: Option<&ErrorFields>) {
        let mut last = Vec::new();
        if self.to_server.is_clear() {
            frontend::terminate(&mut last);
        }
        // A server that does not take it closes on its own when the connection goes.
        let _ = tokio::time::timeout(FAREWELL_TIMEOUT, self.server.send(&last)).await;
        self.close(reason).await;
    }

    /// Closes both connections. The client gets what was meant for it up to the last whole message, and `reason`.
    /// Bounded in time. Not cancel safe.
    pub(super) async fn close(mut self, reason: Option<&ErrorFields>) {
        let mut last = Vec::new();
        let lane = &self.to_client;
        if lane.stream == 0 {
            last.extend_from_slice(lane.buffer.get(..lane.ready).unwrap_or_default());
            last.extend_from_slice(&lane.insert);
            reason.iter().for_each(|fields| backend::error_response(&mut last, fields));
        }
        let farewell = async {
            // Failing to reach a client that is gone is no news.
            let _ = self.client.send(&last).await;
            let _ = self.client.shutdown().await;
        };
        let _ = tokio::time::timeout(FAREWELL_TIMEOUT, farewell).await;
    }
}
