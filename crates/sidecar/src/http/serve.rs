//! One connection of HTTP/1.1 or HTTP/2, with or without TLS: from its first byte to its end.
//!
//! Which of the two it is shows in its first bytes, not in what TLS negotiated, so that both work without TLS, too.
//! Deliberately absent: what is answered.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use runtime::drain::DrainWatch;
use runtime::listen::Stream;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

use super::Body;
use crate::link::{self, Link};

/// What is offered in TLS, best first.
pub(crate) const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// How every connection of HTTP/2 begins (RFC 9113 §3.4).
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Time from the first byte of TLS to the first bytes of HTTP. Slow and silent peers are cut here.
const OPENING_TIMEOUT: Duration = Duration::from_secs(10);

/// The same, once the drain has started: for what was accepted just before.
const OPENING_MOMENT: Duration = Duration::from_millis(500);

/// Who is at the other end, which says how long a connection of HTTP/1.1 may wait for the head of its next request.
#[derive(Clone, Copy)]
pub(crate) enum Peer {
    /// Somebody beyond a network: slow and silent peers are cut.
    Remote,
    /// An application of this machine, which may keep connections as long as it likes to.
    Local,
}

impl Peer {
    fn patience(self) -> Duration {
        match self {
            Peer::Remote => Duration::from_secs(10),
            // Longer than HTTP clients keep a connection, so that few requests meet one that closes.
            Peer::Local => Duration::from_secs(120),
        }
    }
}

/// The longest head of a request, in bytes. A token has up to 16 KiB.
const HEAD_LIMIT: u32 = 64 << 10;

/// A silent HTTP/2 peer is asked after this time whether it is there, and has the other to answer.
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// Requests that one HTTP/2 connection may have open.
const STREAM_LIMIT: u32 = 250;

/// Bytes that a peer may send ahead, of one request and of all of a connection: those of one that nobody reads must not
/// take the place of another's, so the connection has room for all of its requests.
pub(super) const STREAM_WINDOW: u32 = 128 << 10;
pub(super) const CONNECTION_WINDOW: u32 = STREAM_WINDOW * (STREAM_LIMIT + 6);

/// Bytes that are kept of one request for a peer that does not take them.
pub(super) const SEND_BUFFER: usize = 64 << 10;

/// Goes with every request of a link on which a client certificate was shown: whose it was.
#[derive(Clone)]
struct ShownBy(Arc<link::Peer>);

/// Who is at the other end of the link that a request came over.
pub(super) fn shown_by(extensions: &http::Extensions) -> Option<&link::Peer> {
    extensions.get::<ShownBy>().map(|ShownBy(peer)| peer.as_ref())
}

/// Serves a connection to its end; once the drain starts, to the end of the requests under way.
pub(crate) async fn serve<F>(
    stream: Stream,
    tls: Option<Arc<rustls::ServerConfig>>,
    drain: DrainWatch,
    peer: Peer,
    answer: impl Fn(Request<Incoming>) -> F,
) where
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let opened = tokio::time::timeout(OPENING_TIMEOUT, open(stream, tls));
    let opened = tokio::select! {
        opened = opened => opened,
        () = drain.draining_for(OPENING_MOMENT) => return,
    };
    let io = match opened {
        Ok(Ok(Some(io))) => io,
        Ok(Ok(None)) => return,
        Ok(Err(error)) => return tracing::debug!(%error, "a connection ended before its first request"),
        Err(_) => return tracing::debug!("a connection was cut: no request in {} s", OPENING_TIMEOUT.as_secs()),
    };
    let is_http2 = io.read_ahead == HTTP2_PREFACE;
    let shown_by = io.link.peer().map(|peer| ShownBy(Arc::new(peer)));
    let service = service_fn(|mut request| {
        if let Some(shown_by) = shown_by.clone() {
            request.extensions_mut().insert(shown_by);
        }
        let answer = answer(request);
        async { Ok::<_, Infallible>(answer.await) }
    });
    let io = TokioIo::new(io);
    let ended = if is_http2 {
        let connection = http2().serve_connection(io, service);
        until_drained(connection, http2::Connection::graceful_shutdown, &drain).await
    } else {
        let connection = http1(peer).serve_connection(io, service).with_upgrades();
        until_drained(connection, http1::UpgradeableConnection::graceful_shutdown, &drain).await
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "an HTTP connection broke off");
    }
}

/// Serves a connection; once the drain starts, to the end of what it has begun.
async fn until_drained<C: Future<Output = hyper::Result<()>>>(
    connection: C,
    end: impl FnOnce(Pin<&mut C>),
    drain: &DrainWatch,
) -> hyper::Result<()> {
    let draining = drain.draining();
    tokio::pin!(connection, draining);
    tokio::select! {
        ended = connection.as_mut() => ended,
        () = draining => {
            end(connection.as_mut());
            connection.await
        }
    }
}

fn http1(peer: Peer) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(peer.patience()).max_buf_size(HEAD_LIMIT as usize);
    builder
}

fn http2() -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .max_header_list_size(HEAD_LIMIT)
        .max_concurrent_streams(STREAM_LIMIT)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER);
    builder
}

/// Leads a connection up to its first bytes of HTTP; `None` if the peer left without any.
async fn open(stream: Stream, tls: Option<Arc<rustls::ServerConfig>>) -> io::Result<Option<Opened>> {
    let mut link = match tls {
        None => Link::Plain(stream),
        Some(config) => Link::accept(stream, &config).await?,
    };
    let mut read_ahead = Vec::with_capacity(HTTP2_PREFACE.len());
    while read_ahead.len() < HTTP2_PREFACE.len() && HTTP2_PREFACE.starts_with(&read_ahead) {
        let mut missing = (&mut link).take((HTTP2_PREFACE.len() - read_ahead.len()) as u64);
        if missing.read_buf(&mut read_ahead).await? == 0 {
            return Ok(None);
        }
    }
    Ok(Some(Opened { read_ahead, taken: 0, link }))
}

/// A link of which the first bytes were read already.
struct Opened {
    read_ahead: Vec<u8>,
    /// How many of them were given on.
    taken: usize,
    link: Link,
}

impl AsyncRead for Opened {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let rest = this.read_ahead.get(this.taken..).unwrap_or_default();
        if rest.is_empty() {
            return Pin::new(&mut this.link).poll_read(cx, buf);
        }
        let now = rest.get(..rest.len().min(buf.remaining())).unwrap_or_default();
        buf.put_slice(now);
        this.taken += now.len();
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Opened {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().link).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().link).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.get_mut().link).poll_shutdown(cx))?;
        Poll::Ready(Ok(()))
    }
}
