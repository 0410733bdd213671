//! The API of the cluster that we run in: a client, objects followed as they change (`objects`), a Secret that replicas
//! share (`secret`), and which replica leads (`lease`).
//!
//! While the API server is away, what is known stays in use. Deliberately absent: what an object means, and any right that
//! a pod has: each caller says what it needs of them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use kube::Config;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::secret::Secret;

pub use kube::Client;

mod lease;
mod objects;
mod secret;

pub use lease::{Leadership, Lease};
pub use objects::{Objects, Seen, Trouble, follow, follow_labelled, follow_one};
pub use secret::{Put, SecretError, SharedSecret};

/// Where the kubelet puts what a pod needs to speak to the API server.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Time to reach the API server, and then for it to answer: it is near, and somebody may wait.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// Neither a pod's credentials nor a kubeconfig.
    #[error(
        "no cluster is configured: {0}; in a pod, let its service account's token be mounted, elsewhere set KUBECONFIG"
    )]
    Config(Box<kube::config::InferConfigError>),
    /// An API server that is named cannot be asked.
    #[error("{0}: {1}")]
    Server(String, String),
    /// What is configured cannot be used.
    #[error("the client for the cluster's API cannot be made: {0}")]
    Client(Box<kube::Error>),
}

/// A client with the pod's own credentials, or, elsewhere, those of `KUBECONFIG`.
///
/// # Errors
/// When there are none, or they cannot be used. It does not connect: that the API server is away is no error here.
pub async fn client() -> Result<Client, ClientError> {
    crate::tls::install_crypto_provider();
    let mut config = Config::infer().await.map_err(|error| ClientError::Config(Box::new(error)))?;
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    Client::try_from(config).map_err(|error| ClientError::Client(Box::new(error)))
}

/// How to reach an API server; not who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Its URL.
    pub url: String,
    /// The authorities that vouch for it, in PEM.
    pub ca_file: PathBuf,
}

impl Server {
    /// A client that is whoever the token says; credentials of the pod or of a kubeconfig play no part.
    ///
    /// # Errors
    /// When the authorities cannot be read or the URL is none. It does not connect.
    pub fn client_of(&self, token: &Secret) -> Result<Client, ClientError> {
        crate::tls::install_crypto_provider();
        let unusable = |why: String| ClientError::Server(self.url.clone(), why);
        let url = self.url.parse().map_err(|error: hyper::http::uri::InvalidUri| unusable(error.to_string()))?;
        let authorities = CertificateDer::pem_file_iter(&self.ca_file)
            .and_then(|all| all.map(|one| one.map(|der| der.to_vec())).collect::<Result<Vec<_>, _>>())
            .map_err(|error| unusable(format!("{}: {error}", self.ca_file.display())))?;
        let mut config = Config::new(url);
        config.root_cert = Some(authorities);
        config.connect_timeout = Some(CONNECT_TIMEOUT);
        // By way of JSON, as a kubeconfig has it: its type for secrets is another crate's.
        config.auth_info = serde_json::from_value(serde_json::json!({"token": token.expose()}))
            .map_err(|error| unusable(error.to_string()))?;
        Client::try_from(config).map_err(|error| ClientError::Client(Box::new(error)))
    }
}

/// Whether this is a pod that has credentials for the API.
#[must_use]
pub fn has_credentials() -> bool {
    Path::new(SERVICE_ACCOUNT).join("token").exists()
}

/// The namespace of the pod that this is; none elsewhere.
#[must_use]
pub fn own_namespace() -> Option<String> {
    let text = std::fs::read_to_string(Path::new(SERVICE_ACCOUNT).join("namespace")).ok()?;
    Some(text.trim().to_owned()).filter(|namespace| !namespace.is_empty())
}

/// The answer to one request, which shall not be waited for without end. Cancel safe.
///
/// # Errors
/// What the API server says, or that it says nothing.
pub async fn in_time<T>(request: impl Future<Output = kube::Result<T>>) -> Result<T, ApiError> {
    match tokio::time::timeout(REQUEST_TIMEOUT, request).await {
        Ok(answer) => answer.map_err(ApiError::from),
        Err(_) => Err(ApiError::Timeout),
    }
}

/// What the API server says instead of what was asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApiError {
    /// No answer in time.
    #[error("the API server did not answer in {} s", REQUEST_TIMEOUT.as_secs())]
    Timeout,
    /// Somebody else changed the object first.
    #[error("the object was changed at the same time")]
    Conflict,
    /// There is no such object.
    #[error("{0}")]
    NotFound(String),
    /// We may not.
    #[error("{0}")]
    Forbidden(String),
    /// Everything else.
    #[error(transparent)]
    Other(Box<kube::Error>),
}

impl From<kube::Error> for ApiError {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) if status.code == 409 => Self::Conflict,
            kube::Error::Api(status) if status.code == 404 => Self::NotFound(status.message.clone()),
            kube::Error::Api(status) if matches!(status.code, 401 | 403) => Self::Forbidden(status.message.clone()),
            other => Self::Other(Box::new(other)),
        }
    }
}

#[cfg(test)]
mod tests;
