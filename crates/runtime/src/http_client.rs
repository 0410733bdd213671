//! A small HTTP client for issuers: one request a connection, bounded in time and size.
//!
//! Deliberately absent: redirects (one could lead a subject token elsewhere, or bring a stranger's keys), proxies,
//! cookies, keep-alive.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{ACCEPT, AGE, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, DATE, HOST, HeaderName, HeaderValue};
use hyper::{HeaderMap, Method, Request, Response, Uri};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::secret::Secret;
use crate::tls::{self, TlsError};

/// The longest answer that is read, in bytes: a key set of some hundred keys.
const ANSWER_LIMIT: usize = 1 << 20;

/// Time for one request from connect to the last byte: a login may be waiting for it.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// What went wrong with a request. Never has a word of the body sent, which may hold a token.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum HttpError {
    /// No connection, or not one that can be trusted.
    #[error("cannot reach {0}: {1}")]
    Connect(String, String),
    /// Too slow.
    #[error("{0} did not answer in {1:?}")]
    Timeout(String, Duration),
    /// The answer is too large or no HTTP.
    #[error("{0} answered badly: {1}")]
    Answer(String, String),
    /// The answer is another than the one that was needed.
    #[error("{0} answered with status {1}")]
    Status(String, u16),
}

impl HttpError {
    /// A bounded label for metrics.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Connect(..) => "connect",
            Self::Timeout(..) => "timeout",
            Self::Answer(..) => "answer",
            Self::Status(..) => "status",
        }
    }

    /// What whoever runs this can do about it.
    #[must_use]
    pub fn advice(&self) -> &'static str {
        match self {
            Self::Connect(..) => {
                "see that the server runs, that the configured URL (host, port, http or https) is right, that nothing on \
                 the way forbids it (NetworkPolicy), and for https that ca_file has its authority"
            }
            Self::Timeout(..) => "see whether the server, or what stands before it, hangs: its log and its load",
            Self::Answer(..) => {
                "see what answers at that address: it may be another program, another protocol (http, https), or a \
                 server that breaks off"
            }
            Self::Status(..) => {
                "see what answers at that address, and its log; redirects are not followed, so configure the final URL"
            }
        }
    }
}

/// A document that its publisher changes now and then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// All of it.
    pub body: Bytes,
    /// How long it may be used without asking again, if its publisher says so.
    pub max_age: Option<Duration>,
    /// What its publisher's clock said, in seconds since the epoch, when it was sent.
    pub date: Option<i64>,
}

impl Document {
    fn read(headers: &HeaderMap, body: Bytes) -> Self {
        // What a cache on the way has kept for a while is that much older, and its publisher's clock that much further.
        let age = number(headers, AGE).unwrap_or(0);
        let max_age = max_age(headers).map(|seconds| Duration::from_secs(seconds.saturating_sub(age)));
        let date = headers.get(DATE).and_then(|value| OffsetDateTime::parse(value.to_str().ok()?, &Rfc2822).ok());
        let date = date.and_then(|date| date.unix_timestamp().checked_add_unsigned(age));
        Self { body, max_age, date }
    }
}

/// `max-age` of `Cache-Control` (RFC 9111 §5.2.2); what must not be kept has none left.
fn max_age(headers: &HeaderMap) -> Option<u64> {
    let values = headers.get_all(CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
    let directives = values.flat_map(|value| value.split(',')).map(|directive| directive.trim().to_ascii_lowercase());
    let ages = directives.filter_map(|directive| match directive.split_once('=') {
        Some(("max-age", seconds)) => seconds.trim_matches('"').parse().ok(),
        None if directive == "no-store" || directive == "no-cache" => Some(0),
        _ => None,
    });
    ages.min()
}

fn number(headers: &HeaderMap, name: hyper::header::HeaderName) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.trim().parse().ok()
}

/// What came back, whatever its status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// All of the body.
    pub body: Bytes,
}

impl From<Response<Bytes>> for Answer {
    fn from(response: Response<Bytes>) -> Self {
        Self { status: response.status().as_u16(), body: response.into_body() }
    }
}

/// What [`HttpClient::post`] sends.
#[derive(Debug)]
pub struct Post {
    /// What the body is.
    pub content_type: &'static str,
    /// What the answer is to be.
    pub accept: &'static str,
    /// The token that says who asks (RFC 6750).
    pub bearer: Secret,
    /// The body.
    pub body: Bytes,
}

/// What [`HttpClient::upload`] sends.
#[derive(Debug)]
pub struct Upload {
    /// What the body is.
    pub content_type: &'static str,
    /// Header fields beside.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The body.
    pub body: Bytes,
}

/// A client that trusts one set of authorities.
#[derive(Clone)]
pub struct HttpClient {
    tls: Option<Arc<rustls::ClientConfig>>,
    timeout: Duration,
}

impl HttpClient {
    /// A client that trusts the authorities in `ca_file`; without one it speaks no https.
    ///
    /// # Errors
    /// When the file holds no usable authorities.
    pub fn new(ca_file: Option<&Path>) -> Result<Self, TlsError> {
        let tls = ca_file.map(|file| tls::client_config(file, &[])).transpose()?;
        Ok(Self { tls, timeout: REQUEST_TIMEOUT })
    }

    /// `GET url`. Cancel safe.
    ///
    /// # Errors
    /// When there is no whole answer in time.
    pub async fn get(&self, url: &str) -> Result<Answer, HttpError> {
        self.send(url, Sent::get()).await.map(Answer::from)
    }

    /// `GET url` for a document: only an answer with status 200 is one. Cancel safe.
    ///
    /// # Errors
    /// When there is no whole answer in time, or it has another status.
    pub async fn document(&self, url: &str) -> Result<Document, HttpError> {
        let (head, body) = self.send(url, Sent::get()).await?.into_parts();
        match head.status.as_u16() {
            200 => Ok(Document::read(&head.headers, body)),
            status => Err(HttpError::Status(url.to_owned(), status)),
        }
    }

    /// `POST url` with a form, already encoded. Dropping it may leave the form sent or not.
    ///
    /// # Errors
    /// When there is no whole answer in time.
    pub async fn post_form(&self, url: &str, form: String) -> Result<Answer, HttpError> {
        let sent = Sent {
            method: Method::POST,
            accept: "application/json",
            content_type: Some("application/x-www-form-urlencoded"),
            bearer: None,
            headers: Vec::new(),
            body: Bytes::from(form),
        };
        self.send(url, sent).await.map(Answer::from)
    }

    /// `POST url` with a token. Dropping it may leave it sent or not.
    ///
    /// # Errors
    /// When there is no whole answer in time.
    pub async fn post(&self, url: &str, post: Post) -> Result<Answer, HttpError> {
        let Post { content_type, accept, bearer, body } = post;
        let (content_type, bearer) = (Some(content_type), Some(bearer));
        let sent = Sent { method: Method::POST, accept, content_type, bearer, headers: Vec::new(), body };
        self.send(url, sent).await.map(Answer::from)
    }

    /// `POST url` with header fields of the caller's choice. Dropping it may leave it sent or not.
    ///
    /// # Errors
    /// When there is no whole answer in time.
    pub async fn upload(&self, url: &str, upload: Upload) -> Result<Answer, HttpError> {
        let Upload { content_type, headers, body } = upload;
        let sent = Sent { method: Method::POST, content_type: Some(content_type), headers, body, ..Sent::get() };
        self.send(url, sent).await.map(Answer::from)
    }

    async fn send(&self, url: &str, sent: Sent) -> Result<Response<Bytes>, HttpError> {
        let exchange = self.exchange(url, sent);
        let timeout = |_| HttpError::Timeout(url.to_owned(), self.timeout);
        tokio::time::timeout(self.timeout, exchange).await.map_err(timeout)?
    }

    async fn exchange(&self, url: &str, sent: Sent) -> Result<Response<Bytes>, HttpError> {
        let unreachable = |why: String| HttpError::Connect(url.to_owned(), why);
        let target = Target::parse(url).map_err(unreachable)?;
        let request = request(&target.uri, sent).map_err(|error| unreachable(error.to_string()))?;
        let tcp = TcpStream::connect((target.host.as_str(), target.port)).await;
        let tcp = tcp.map_err(|error| unreachable(error.to_string()))?;
        if !target.secure {
            return talk(tcp, url, request).await;
        }
        let config = self.tls.clone().ok_or_else(|| unreachable("https needs a ca_file".to_owned()))?;
        let name = ServerName::try_from(target.host).map_err(|error| unreachable(error.to_string()))?;
        let tls = tokio_rustls::TlsConnector::from(config).connect(name, tcp).await;
        talk(tls.map_err(|error| unreachable(error.to_string()))?, url, request).await
    }
}

/// `GET url` on a connection that somebody else has made. Cancel safe.
///
/// # Errors
/// When there is no whole answer in time.
pub async fn get_over<S>(stream: S, url: &str) -> Result<Answer, HttpError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let exchange = async {
        let uri = url.parse().map_err(|error: hyper::http::uri::InvalidUri| error.to_string());
        let request = uri.and_then(|uri| request(&uri, Sent::get()).map_err(|error| error.to_string()));
        talk(stream, url, request.map_err(|why| HttpError::Connect(url.to_owned(), why))?).await.map(Answer::from)
    };
    let timeout = |_| HttpError::Timeout(url.to_owned(), REQUEST_TIMEOUT);
    tokio::time::timeout(REQUEST_TIMEOUT, exchange).await.map_err(timeout)?
}

/// A URL, taken apart.
struct Target {
    uri: Uri,
    /// Without the brackets of an IPv6 address.
    host: String,
    port: u16,
    secure: bool,
}

impl Target {
    fn parse(url: &str) -> Result<Self, String> {
        let uri: Uri = url.parse().map_err(|error: hyper::http::uri::InvalidUri| error.to_string())?;
        let (secure, usual_port) = match uri.scheme_str() {
            Some("https") => (true, 443),
            Some("http") => (false, 80),
            _ => return Err("this is no http:// or https:// URL".to_owned()),
        };
        let host = uri.host().ok_or("the URL has no host")?.trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = uri.port_u16().unwrap_or(usual_port);
        Ok(Self { uri, host, port, secure })
    }
}

/// What a request holds.
struct Sent {
    method: Method,
    accept: &'static str,
    content_type: Option<&'static str>,
    bearer: Option<Secret>,
    headers: Vec<(HeaderName, HeaderValue)>,
    body: Bytes,
}

impl Sent {
    fn get() -> Self {
        Self {
            method: Method::GET,
            accept: "application/json",
            content_type: None,
            bearer: None,
            headers: Vec::new(),
            body: Bytes::new(),
        }
    }
}

fn request(uri: &Uri, sent: Sent) -> Result<Request<Full<Bytes>>, hyper::http::Error> {
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let host = uri.authority().map_or("", |authority| authority.as_str());
    let mut request = Request::builder().method(sent.method).uri(path).header(HOST, host).header(ACCEPT, sent.accept);
    if let Some(content_type) = sent.content_type {
        request = request.header(CONTENT_TYPE, content_type);
    }
    if let Some(token) = sent.bearer {
        let mut value = HeaderValue::try_from(format!("Bearer {}", token.expose()))?;
        value.set_sensitive(true);
        request = request.header(AUTHORIZATION, value);
    }
    for (name, value) in sent.headers {
        request = request.header(name, value);
    }
    request.body(Full::new(sent.body))
}

async fn talk<S>(stream: S, url: &str, request: Request<Full<Bytes>>) -> Result<Response<Bytes>, HttpError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let bad = |why: String| HttpError::Answer(url.to_owned(), why);
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| bad(error.to_string()))?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(|error| bad(error.to_string()))?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, ANSWER_LIMIT).collect().await;
        let body = body.map_err(|error| bad(error.to_string()))?.to_bytes();
        Ok(Response::from_parts(head, body))
    };
    tokio::pin!(connection);
    tokio::pin!(exchange);
    // The connection is driven here rather than in a task of its own, so that dropping this future ends both.
    tokio::select! {
        biased;
        result = &mut exchange => result,
        // However it ended, the exchange knows whether the answer was whole: a server may hang up rudely after it.
        _ = &mut connection => exchange.await,
    }
}

#[cfg(test)]
mod tests;
