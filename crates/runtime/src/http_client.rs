//! A small HTTP client for issuers: one request a connection, bounded in time and size.
//!
//! Deliberately absent: redirects (one could lead a subject token elsewhere, or bring a stranger's keys), proxies,
//! cookies, credentials, keep-alive.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{ACCEPT, CONTENT_TYPE, HOST};
use hyper::{Method, Request, Uri};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

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

/// What came back, whatever its status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// All of the body.
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
        self.send(url, Method::GET, Bytes::new()).await
    }

    /// `GET url` for a document: only an answer with status 200 is one. Cancel safe.
    ///
    /// # Errors
    /// When there is no whole answer in time, or it has another status.
    pub async fn document(&self, url: &str) -> Result<Bytes, HttpError> {
        match self.get(url).await? {
            Answer { status: 200, body } => Ok(body),
            Answer { status, .. } => Err(HttpError::Status(url.to_owned(), status)),
        }
    }

    /// `POST url` with a form, already encoded. Dropping it may leave the form sent or not.
    ///
    /// # Errors
    /// When there is no whole answer in time.
    pub async fn post_form(&self, url: &str, form: String) -> Result<Answer, HttpError> {
        self.send(url, Method::POST, Bytes::from(form)).await
    }

    async fn send(&self, url: &str, method: Method, body: Bytes) -> Result<Answer, HttpError> {
        let exchange = self.exchange(url, method, body);
        let timeout = |_| HttpError::Timeout(url.to_owned(), self.timeout);
        tokio::time::timeout(self.timeout, exchange).await.map_err(timeout)?
    }

    async fn exchange(&self, url: &str, method: Method, body: Bytes) -> Result<Answer, HttpError> {
        let unreachable = |why: String| HttpError::Connect(url.to_owned(), why);
        let target = Target::parse(url).map_err(unreachable)?;
        let request = request(&target.uri, method, body).map_err(|error| unreachable(error.to_string()))?;
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

fn request(uri: &Uri, method: Method, body: Bytes) -> Result<Request<Full<Bytes>>, hyper::http::Error> {
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let host = uri.authority().map_or("", |authority| authority.as_str());
    let mut request = Request::builder().uri(path).header(HOST, host).header(ACCEPT, "application/json");
    if method == Method::POST {
        request = request.header(CONTENT_TYPE, "application/x-www-form-urlencoded");
    }
    request.method(method).body(Full::new(body))
}

async fn talk<S>(stream: S, url: &str, request: Request<Full<Bytes>>) -> Result<Answer, HttpError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let bad = |why: String| HttpError::Answer(url.to_owned(), why);
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| bad(error.to_string()))?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(|error| bad(error.to_string()))?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), ANSWER_LIMIT).collect().await;
        let body = body.map_err(|error| bad(error.to_string()))?.to_bytes();
        Ok(Answer { status, body })
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
