//! Requests on their next hop: connections that are kept and used again, HTTP/1.1 or HTTP/2.
//!
//! Deliberately absent: any say in what is sent.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Request, Response, Uri};
use http_body_util::BodyExt;
use hyper::body::{Frame, Incoming};
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::client::legacy::{Client, Error};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use runtime::drain::DrainWatch;
use tower_service::Service;

use super::problem::{Kind, Problem};
use super::serve::{CONNECTION_WINDOW, SEND_BUFFER, STREAM_WINDOW};
use super::{Body, BodyError};
use crate::link::{Dialer, Link};
use crate::retry::{Retry, may_pass};

/// How long a connection is kept that nobody uses: shorter than servers' own, so that few requests meet one that closes.
const IDLE: Duration = Duration::from_secs(30);

/// Kept connections to one service over HTTP/1.1.
const KEPT: usize = 64;

/// A silent HTTP/2 peer is asked after this time whether it is there, and has the other to answer.
const PING_INTERVAL: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(5);

/// Where requests go next.
pub(crate) struct Upstream {
    client: Client<Dials, Body>,
    /// Stands in every URI, so that all requests share the connections.
    authority: Authority,
    http2: bool,
}

impl Upstream {
    /// `authority` is what HTTP/2 names the other side, and HTTP/1.1 where a request has no `Host`.
    pub(crate) fn new(dials: Dials, http2: bool, authority: Authority) -> Upstream {
        let client = Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(KEPT)
            .http2_only(http2)
            .http2_initial_stream_window_size(STREAM_WINDOW)
            .http2_initial_connection_window_size(CONNECTION_WINDOW)
            .http2_max_send_buf_size(SEND_BUFFER)
            .http1_max_buf_size(SEND_BUFFER)
            .http2_keep_alive_interval(PING_INTERVAL)
            .http2_keep_alive_timeout(PING_TIMEOUT)
            .build(dials);
        Upstream { client, authority, http2 }
    }

    /// Sends a request to `target`, its path and query as they are to be, and waits for the head of the answer:
    /// `patience` long, counted from the last of the request's body that went out. Cancel safe: the request is given up.
    ///
    /// # Errors
    /// A problem for the client: the other side is not there, broke off before it answered, or takes too long.
    pub(crate) async fn send<B>(
        &self,
        mut request: Request<B>,
        target: PathAndQuery,
        patience: Duration,
    ) -> Result<Response<Incoming>, Problem>
    where
        B: hyper::body::Body<Data = Bytes, Error: Into<BodyError>> + Send + Unpin + 'static,
    {
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(Scheme::HTTP);
        parts.authority = Some(self.authority.clone());
        parts.path_and_query = Some(target);
        *request.uri_mut() = Uri::from_parts(parts).map_err(|error| {
            Problem::new(Kind::BadRequest, "sidegate: the path cannot be sent on").detail(error.to_string())
        })?;
        // HTTP/2 has the name in the URI; one of HTTP/1.1 beside it may differ.
        if self.http2 {
            request.headers_mut().remove(http::header::HOST);
            *request.version_mut() = http::Version::HTTP_2;
        } else {
            *request.version_mut() = http::Version::HTTP_11;
            super::headers::join_cookies(request.headers_mut());
            // A length is written from the body. Where there is none, this says that there is a body at all: of GET and
            // its like none is expected.
            if !request.body().is_end_stream() && request.body().size_hint().exact().is_none() {
                let chunked = HeaderValue::from_static("chunked");
                request.headers_mut().insert(http::header::TRANSFER_ENCODING, chunked);
            }
        }
        let progress = Arc::new(AtomicU64::new(0));
        let request = request.map(|body| outgoing(body, progress.clone()));
        let answer = self.client.request(request);
        tokio::pin!(answer);
        loop {
            let before = progress.load(Ordering::Relaxed);
            match tokio::time::timeout(patience, &mut answer).await {
                Ok(answer) => return answer.map_err(|error| unreachable(&error)),
                Err(_) if progress.load(Ordering::Relaxed) > before => {}
                Err(_) => return Err(too_slow(patience)),
            }
        }
    }
}

fn too_slow(patience: Duration) -> Problem {
    Problem::new(Kind::Timeout, "sidegate: the service behind did not answer in time")
        .detail(format!("No answer in {} s.", patience.as_secs()))
}

/// A request's body on its way out: its parts are counted, its trailers made honest, and its length is told as it came,
/// which is what tells the next server that there is one.
struct Outgoing<B> {
    body: B,
    progress: Arc<AtomicU64>,
}

impl<B: hyper::body::Body<Data = Bytes> + Unpin> hyper::body::Body for Outgoing<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        polled.map_ok(|mut frame| {
            self.progress.fetch_add(1, Ordering::Relaxed);
            if let Some(trailers) = frame.trailers_mut() {
                super::headers::of_trailers(trailers);
            }
            frame
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        self.body.size_hint()
    }
}

fn outgoing<B>(body: B, progress: Arc<AtomicU64>) -> Body
where
    B: hyper::body::Body<Data = Bytes, Error: Into<BodyError>> + Send + Unpin + 'static,
{
    Outgoing { body, progress }.map_err(Into::into).boxed_unsync()
}

fn unreachable(error: &Error) -> Problem {
    let mut why = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(next) = source {
        why = format!("{why}: {next}");
        source = next.source();
    }
    tracing::info!(error = why, "a request got no answer");
    let is_clients = |error: &(dyn std::error::Error + 'static)| {
        error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_user)
    };
    let problem = if std::error::Error::source(error).is_some_and(is_clients) {
        Problem::new(Kind::BadRequest, "sidegate: the request broke off")
    } else if error.is_connect() {
        Problem::new(Kind::Upstream, "sidegate: the service behind cannot be reached")
            .hint("It may be starting or stopped; its own log says.")
    } else {
        Problem::new(Kind::Upstream, "sidegate: the service behind broke off before it answered")
    };
    problem.detail(why)
}

/// The path and query of a request on its next hop.
///
/// # Errors
/// Characters that no request's target has.
pub(super) fn target(path: &str, query: Option<&str>) -> Result<PathAndQuery, Problem> {
    let path = if path.is_empty() { "/" } else { path };
    let target = match query {
        Some(query) => PathAndQuery::try_from(format!("{path}?{query}")),
        None => PathAndQuery::try_from(path),
    };
    target.map_err(|error| {
        Problem::new(Kind::BadRequest, "sidegate: the path cannot be sent on").detail(error.to_string())
    })
}

/// An answer as the client gets it.
pub(super) fn passed_on(response: Response<Incoming>) -> Response<Body> {
    let mut response = response.map(|body| body.map_err(Into::into).boxed_unsync());
    super::headers::of_answer(response.headers_mut());
    response
}

/// The body of an answer that ends when `over` says so: as a failure, so that nobody takes the part for the whole.
struct While<F> {
    body: Body,
    over: Pin<Box<F>>,
}

/// An answer whose body may go on for as long as its caller may.
pub(super) fn for_as_long_as(
    response: Response<Body>,
    over: impl Future<Output = &'static str> + Send + 'static,
) -> Response<Body> {
    response.map(|body| While { body, over: Box::pin(over) }.boxed_unsync())
}

impl<F: Future<Output = &'static str>> hyper::body::Body for While<F> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Poll::Ready(why) = self.over.as_mut().poll(cx) {
            tracing::info!(reason = why, "an answer was broken off by the sidecar");
            return Poll::Ready(Some(Err(why.into())));
        }
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        self.body.size_hint()
    }
}

/// Dials for the client's pool; the URI's authority is ours and says nothing. Requests wait here for a service that is not
/// up, so that none of them can have been received by one that broke off.
#[derive(Clone)]
pub(crate) struct Dials {
    pub(crate) dialer: Dialer,
    /// How long.
    pub(crate) patience: Duration,
    pub(crate) drain: DrainWatch,
}

impl Dials {
    async fn dial(self) -> io::Result<Dialled> {
        let mut retry = Retry::within(self.patience);
        loop {
            let error = match self.dialer.dial().await {
                Ok(link) => return Ok(Dialled(TokioIo::new(link))),
                Err(error) => error,
            };
            let is_over = self.drain.is_draining() || !may_pass(&error);
            if is_over || !retry.again().await {
                return Err(error);
            }
        }
    }
}

impl Service<Uri> for Dials {
    type Response = Dialled;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Dialled>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        Box::pin(self.clone().dial())
    }
}

/// A link, with what the client's pool asks of it.
pub(crate) struct Dialled(TokioIo<Link>);

impl Connection for Dialled {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl hyper::rt::Read for Dialled {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: hyper::rt::ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_read(cx, buf)
    }
}

impl hyper::rt::Write for Dialled {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().0).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_shutdown(cx)
    }
}
