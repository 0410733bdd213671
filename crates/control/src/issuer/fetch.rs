//! Where the cluster's key set comes from: a file, a URL, or the URL that OpenID discovery names.
//!
//! Deliberately absent: HTTP (`runtime::http_client`) and the checks of a discovery document (`runtime::discovery`).

use std::path::Path;

use identity::jwks::{JwksError, KeySet, MAX_JWKS_LENGTH};
use runtime::discovery::{self, DiscoveryError};
use runtime::http_client::{HttpClient, HttpError};

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
    /// The URL gave no answer.
    #[error(transparent)]
    Url(#[from] HttpError),
    /// The URL is not known.
    #[error(transparent)]
    Discovery(#[from] DiscoveryError),
    /// The answer is no usable key set.
    #[error("{0}: {1}")]
    KeySet(String, JwksError),
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

    /// The key set as it is now. Cancel safe.
    pub(crate) async fn fetch(&self) -> Result<KeySet, FetchError> {
        match &self.source {
            KeySource::File(path) => read_file(path),
            KeySource::Url(url) => self.key_set(url).await,
            KeySource::Discovery(url) => {
                let url = discovery::jwks_uri(&self.client, url, &self.issuer).await?;
                self.key_set(&url).await
            }
        }
    }

    async fn key_set(&self, url: &str) -> Result<KeySet, FetchError> {
        let document = self.client.document(url).await?;
        KeySet::parse(&document).map_err(|error| FetchError::KeySet(url.to_owned(), error))
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
