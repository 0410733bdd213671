//! Where the cluster's key set comes from: a file, a URL, the URL that OpenID discovery names, or the API server itself.
//!
//! Deliberately absent: HTTP (`runtime::http_client`) and the checks of a discovery document (`runtime::discovery`).

use std::path::Path;

use axum::http::Request;
use identity::jwks::{JwksError, KeySet, MAX_JWKS_LENGTH};
use runtime::discovery::{self, DiscoveryError, Published};
use runtime::http_client::HttpClient;
use runtime::kubernetes::{Client, in_time};
use serde::Deserialize;

use super::config::{KeySource, SubjectTokens};

/// Where the API server has its keys, whatever it calls the place.
const KEYS: &str = "/openid/v1/jwks";

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
    /// The API server does not give it.
    #[error("the API server: {0}")]
    Cluster(#[from] runtime::kubernetes::ApiError),
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
            Self::Cluster(_) => "cluster",
            Self::KeySet(..) => "key_set",
        }
    }

    /// What whoever runs this can do about it.
    pub(crate) fn advice(&self) -> &'static str {
        match self {
            Self::Authorities(_) => "put the cluster's authorities there, in PEM",
            Self::File(_) => "see subject_tokens.jwks_file, and that this process may read it",
            Self::Published(error) => error.advice(),
            Self::Cluster(_) => {
                "see that the API server is reachable and that this service account may get /openid/v1/jwks and \
                 /.well-known/openid-configuration (ClusterRole sidegate-issuer)"
            }
            Self::KeySet(..) => "see what is published there: it must be the cluster's own key set (/openid/v1/jwks)",
        }
    }
}

/// The keys, and whose they are.
pub(crate) struct Trusted {
    pub(crate) keys: KeySet,
    /// `iss` of the tokens that they sign.
    pub(crate) issuer: String,
}

/// Fetches the key set from its one source.
pub(crate) struct Fetcher {
    source: KeySource,
    /// Whose discovery document is believed; none for the API server's own, which says it.
    issuer: Option<String>,
    client: HttpClient,
    cluster: Option<Client>,
}

/// Of the API server's discovery document, what concerns us: where its keys are is known, and `jwks_uri` often names an
/// address that its certificate does not.
#[derive(Deserialize)]
struct Discovered {
    issuer: String,
}

impl Fetcher {
    /// `cluster` is needed for the API server's own keys.
    pub(crate) fn new(config: &SubjectTokens, cluster: Option<Client>) -> Result<Self, FetchError> {
        let client = HttpClient::new(config.ca_file.as_deref())?;
        Ok(Self { source: config.keys.clone(), issuer: config.issuer.clone(), client, cluster })
    }

    /// Whether asking often costs next to nothing.
    pub(crate) fn is_local(&self) -> bool {
        matches!(self.source, KeySource::File(_))
    }

    /// The key set as it is now. Bounded in time. Cancel safe.
    pub(crate) async fn fetch(&self) -> Result<Trusted, FetchError> {
        let issuer = self.issuer.clone().unwrap_or_default();
        let keys = match &self.source {
            KeySource::File(path) => read_file(path)?,
            KeySource::Url(url) => key_set(&discovery::keys_at(&self.client, url).await?)?,
            KeySource::Discovery(url) => key_set(&discovery::published_keys(&self.client, url, &issuer).await?)?,
            KeySource::Cluster => return self.of_cluster().await,
        };
        Ok(Trusted { keys, issuer })
    }

    async fn of_cluster(&self) -> Result<Trusted, FetchError> {
        let away = || FetchError::Cluster(runtime::kubernetes::ApiError::Timeout);
        let client = self.cluster.as_ref().ok_or_else(away)?;
        let asked = async {
            let keys = in_time(client.request_text(get(KEYS)?)).await?;
            let issuer = match &self.issuer {
                Some(issuer) => issuer.clone(),
                None => in_time(client.request::<Discovered>(get(discovery::PATH)?)).await?.issuer,
            };
            let keys = KeySet::parse(keys.as_bytes()).map_err(|error| FetchError::KeySet(KEYS.to_owned(), error))?;
            Ok(Trusted { keys, issuer })
        };
        tokio::time::timeout(discovery::KEYS_TIMEOUT, asked).await.unwrap_or_else(|_| Err(away()))
    }
}

fn get(path: &str) -> Result<Request<Vec<u8>>, FetchError> {
    Request::get(path).body(Vec::new()).map_err(|error| FetchError::File(error.to_string()))
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
