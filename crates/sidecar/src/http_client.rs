//! A small HTTP client for the issuer: one request a connection, bounded in time and size.
//!
//! Deliberately absent: redirects, proxies, cookies, keep-alive. A redirect could lead a subject token elsewhere.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{ACCEPT, CONTENT_TYPE, HOST};
use hyper::{Method, Request, Uri};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// The longest answer that is read, in bytes: a key set of some hundred keys.
const ANSWER_LIMIT: usize = 1 << 20;

/// Time for one request from connect to the last byte.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// What went wrong with a request.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum HttpError {
    #[error("cannot reach {0}: {1}")]
    Connect(String, String),
    #[error("{0} did not answer in {secs} s", secs = REQUEST_TIMEOUT.as_secs())]
    Timeout(String),
    #[error("{0} answered badly: {1}")]
    Answer(String, String),
}

/// A client of one issuer.
#[derive(Clone)]
pub(crate) struct HttpClient {
    tls: Option<Arc<rustls::ClientConfig>>,
}

impl HttpClient {
    pub(crate) fn new(ca_file: Option<&Path>) -> Result<HttpClient, runtime::tls::TlsError> {
        let tls = ca_file.map(|file| runtime::tls::client_config(file, &[])).transpose()?;
        Ok(HttpClient { tls })
    }

    /// `GET url`: the status and the body.
    pub(crate) async fn get(&self, url: &str) -> Result<(u16, Bytes), HttpError> {
        self.send(url, Method::GET, Bytes::new()).await
    }

    /// `POST url` with a form.
    pub(crate) async fn post_form(&self, url: &str, form: String) -> Result<(u16, Bytes), HttpError> {
        self.send(url, Method::POST, Bytes::from(form)).await
    }

    async fn send(&self, url: &str, method: Method, body: Bytes) -> Result<(u16, Bytes), HttpError> {
        let exchange = self.exchange(url, method, body);
        tokio::time::timeout(REQUEST_TIMEOUT, exchange).await.map_err(|_| HttpError::Timeout(url.to_owned()))?
    }

    async fn exchange(&self, url: &str, method: Method, body: Bytes) -> Result<(u16, Bytes), HttpError> {
        let connect = |why: String| HttpError::Connect(url.to_owned(), why);
        let uri: Uri = url.parse().map_err(|error: hyper::http::uri::InvalidUri| connect(error.to_string()))?;
        let host = uri.host().ok_or_else(|| connect("the URL has no host".to_owned()))?;
        let secure = uri.scheme_str() == Some("https");
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let bare_host = host.trim_start_matches('[').trim_end_matches(']');
        let tcp = TcpStream::connect((bare_host, port)).await.map_err(|error| connect(error.to_string()))?;
        let request = request(&uri, method, body).map_err(|error| connect(error.to_string()))?;
        if !secure {
            return talk(tcp, url, request).await;
        }
        let config = self.tls.clone().ok_or_else(|| connect("set issuer.ca_file for an https issuer".to_owned()))?;
        let name = rustls::pki_types::ServerName::try_from(bare_host.to_owned())
            .map_err(|error| connect(error.to_string()))?;
        let tls = tokio_rustls::TlsConnector::from(config).connect(name, tcp).await;
        talk(tls.map_err(|error| connect(error.to_string()))?, url, request).await
    }
}

fn request(uri: &Uri, method: Method, body: Bytes) -> Result<Request<Full<Bytes>>, hyper::http::Error> {
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let host = uri.authority().map_or("", |authority| authority.as_str());
    let mut request = Request::builder().method(method).uri(path).header(HOST, host).header(ACCEPT, "application/json");
    if !body.is_empty() {
        request = request.header(CONTENT_TYPE, "application/x-www-form-urlencoded");
    }
    request.body(Full::new(body))
}

async fn talk<S>(stream: S, url: &str, request: Request<Full<Bytes>>) -> Result<(u16, Bytes), HttpError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let answer = |why: String| HttpError::Answer(url.to_owned(), why);
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| answer(error.to_string()))?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(|error| answer(error.to_string()))?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), ANSWER_LIMIT).collect().await;
        let body = body.map_err(|error| answer(error.to_string()))?.to_bytes();
        Ok((status, body))
    };
    tokio::pin!(connection);
    tokio::pin!(exchange);
    // The connection is driven here rather than in a task of its own, so that dropping this future ends both.
    tokio::select! {
        biased;
        result = &mut exchange => result,
        ended = &mut connection => match ended {
            Ok(()) => exchange.await,
            Err(error) => Err(answer(error.to_string())),
        },
    }
}
