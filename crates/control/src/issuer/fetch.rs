//! Where the cluster's key set comes from: a file, a URL, or the URL that OpenID discovery names.
//!
//! One request a connection, bounded in time and size. Deliberately absent: redirects (whoever could redirect us could
//! give us his keys), proxies, keep-alive, credentials.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{Request, StatusCode, Uri, header};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use identity::jwks::{JwksError, KeySet, MAX_JWKS_LENGTH};
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::config::{KeySource, SubjectTokens};

/// Time for one request, from connect to the last byte: a request for a token may be waiting for it.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Why the key set could not be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// The authorities for https are broken.
    #[error("subject_tokens.ca_file: {0}")]
    Authorities(#[from] runtime::tls::TlsError),
    /// The file cannot be read.
    #[error("{0}")]
    File(String),
    /// The URL gave no answer.
    #[error("{url}: {why}")]
    Url {
        /// Which.
        url: String,
        /// What happened.
        why: String,
    },
    /// The answer is no usable key set.
    #[error("{0}: {1}")]
    KeySet(String, JwksError),
}

/// Fetches the key set from its one source.
pub(crate) struct Fetcher {
    source: KeySource,
    /// Whose discovery document is believed.
    issuer: String,
    tls: Option<Arc<tokio_rustls::rustls::ClientConfig>>,
}

/// Of the discovery document, what concerns us.
#[derive(Deserialize)]
struct Discovered {
    issuer: String,
    jwks_uri: String,
}

impl Fetcher {
    pub(crate) fn new(config: &SubjectTokens) -> Result<Self, FetchError> {
        let tls = config.ca_file.as_deref().map(|file| runtime::tls::client_config(file, &[])).transpose()?;
        Ok(Self { source: config.keys.clone(), issuer: config.issuer.clone(), tls })
    }

    /// Whether asking often costs next to nothing.
    pub(crate) fn is_local(&self) -> bool {
        matches!(self.source, KeySource::File(_))
    }

    /// The key set as it is now. Cancel safe.
    pub(crate) async fn fetch(&self) -> Result<KeySet, FetchError> {
        match &self.source {
            KeySource::File(path) => read_file(path),
            KeySource::Url(url) => self.key_set(url).await,
            KeySource::Discovery(url) => {
                let document = self.get(url).await?;
                let why = |why: &str| FetchError::Url { url: url.clone(), why: why.to_owned() };
                let found: Discovered =
                    serde_json::from_slice(&document).map_err(|_| why("this is no discovery document"))?;
                // OpenID Discovery §4.3: the document must be that of the issuer asked for.
                if found.issuer != self.issuer {
                    return Err(why("the discovery document is that of another issuer"));
                }
                if url.starts_with("https:") && !found.jwks_uri.starts_with("https:") {
                    return Err(why("the discovery document names keys that would come unencrypted"));
                }
                self.key_set(&found.jwks_uri).await
            }
        }
    }

    async fn key_set(&self, url: &str) -> Result<KeySet, FetchError> {
        let document = self.get(url).await?;
        KeySet::parse(&document).map_err(|error| FetchError::KeySet(url.to_owned(), error))
    }

    async fn get(&self, url: &str) -> Result<Bytes, FetchError> {
        let failed = |why: String| FetchError::Url { url: url.to_owned(), why };
        let request = tokio::time::timeout(TIMEOUT, self.request(url));
        let answer = request.await.map_err(|_| failed(format!("no answer in {} s", TIMEOUT.as_secs())))?;
        answer.map_err(|error| failed(error.to_string()))
    }

    async fn request(&self, url: &str) -> Result<Bytes, Box<dyn std::error::Error + Send + Sync>> {
        let uri: Uri = url.parse()?;
        let host = uri.host().ok_or("the URL has no host")?.trim_start_matches('[').trim_end_matches(']').to_owned();
        let secure = uri.scheme_str() == Some("https");
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let tcp = TcpStream::connect((host.as_str(), port)).await?;
        if !secure {
            return ask(tcp, &uri).await;
        }
        let config = self.tls.clone().ok_or("https needs subject_tokens.ca_file")?;
        let name = tokio_rustls::rustls::pki_types::ServerName::try_from(host)?;
        ask(tokio_rustls::TlsConnector::from(config).connect(name, tcp).await?, &uri).await
    }
}

fn read_file(path: &Path) -> Result<KeySet, FetchError> {
    let failed = |why: String| FetchError::File(format!("{}: {why}", path.display()));
    let length = std::fs::metadata(path).map_err(|error| failed(error.to_string()))?.len();
    if length > MAX_JWKS_LENGTH as u64 {
        return Err(failed("this is too large for a key set".to_owned()));
    }
    let text = std::fs::read(path).map_err(|error| failed(error.to_string()))?;
    KeySet::parse(&text).map_err(|error| FetchError::KeySet(path.display().to_string(), error))
}

async fn ask<S>(stream: S, uri: &Uri) -> Result<Bytes, Box<dyn std::error::Error + Send + Sync>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let host = uri.authority().map_or("", |authority| authority.as_str());
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::get(path).header(header::HOST, host).header(header::ACCEPT, "application/json");
    let request = request.body(Empty::<Bytes>::new())?;
    let answer = async {
        let response = sender.send_request(request).await?;
        if response.status() != StatusCode::OK {
            return Err(format!("the answer is {}", response.status()).into());
        }
        Limited::new(response.into_body(), MAX_JWKS_LENGTH).collect().await.map(|body| body.to_bytes())
    };
    tokio::pin!(answer);
    // The connection is driven here, not in a task of its own, so that dropping this future ends both.
    tokio::select! {
        biased;
        answer = &mut answer => answer,
        ended = connection => match ended {
            Ok(()) => answer.await,
            Err(error) => Err(error.into()),
        },
    }
}
