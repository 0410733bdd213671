//! Where the cluster's key set comes from: a file, a URL, or the URL that OpenID discovery names.
//!
//! Deliberately absent: HTTP (`runtime::http_client`) and the checks of a discovery document (`runtime::discovery`).

use std::path::Path;

use identity::jwks::{JwksError, KeySet, MAX_JWKS_LENGTH};
use runtime::discovery::{self, DiscoveryError, Published};
use runtime::http_client::HttpClient;

use super::config::{KeySource, SubjectTokens};

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
    /// The URL is not known, or gave no answer.
    #[error(transparent)]
    Published(#[from] DiscoveryError),
    /// The answer is no usable key set.
    #[error("{0}: {1}")]
    KeySet(String, JwksError),
}

impl FetchError {
    /// A bounded label for metrics.
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Self::Authorities(_) => "authorities",
            Self::File(_) => "file",
            Self::Published(error) => error.label(),
            Self::KeySet(..) => "key_set",
        }
    }

    /// What whoever runs this can do about it.
    pub(crate) fn advice(&self) -> &'static str {
        match self {
            Self::Authorities(_) => "put the cluster's authorities there, in PEM",
            Self::File(_) => "see subject_tokens.jwks_file, and that this process may read it",
            Self::Published(error) => error.advice(),
            Self::KeySet(..) => "see what is published there: it must be the cluster's own key set (/openid/v1/jwks)",
        }
    }
}

/// Fetches the key set from its one source.
pub(crate) struct Fetcher {
    source: KeySource,
    /// Whose discovery document is believed.
    issuer: String,
    client: HttpClient,
}

impl Fetcher {
    pub(crate) fn new(config: &SubjectTokens) -> Result<Self, FetchError> {
        let client = HttpClient::new(config.ca_file.as_deref())?;
        Ok(Self { source: config.keys.clone(), issuer: config.issuer.clone(), client })
    }

    /// Whether asking often costs next to nothing.
    pub(crate) fn is_local(&self) -> bool {
        matches!(self.source, KeySource::File(_))
    }

    /// The key set as it is now. Bounded in time. Cancel safe.
    pub(crate) async fn fetch(&self) -> Result<KeySet, FetchError> {
        match &self.source {
            KeySource::File(path) => read_file(path),
            KeySource::Url(url) => key_set(&discovery::keys_at(&self.client, url).await?),
            KeySource::Discovery(url) => key_set(&discovery::published_keys(&self.client, url, &self.issuer).await?),
        }
    }
}

fn key_set(published: &Published) -> Result<KeySet, FetchError> {
    KeySet::parse(&published.document.body).map_err(|error| FetchError::KeySet(published.url.clone(), error))
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
