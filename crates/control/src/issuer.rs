//! The issuer: `POST /token` (RFC 8693), discovery, key set, health, metrics, and the OpenAPI document of all that.
//!
//! Its stages, in the order a request meets them: `routes` (HTTP) -> `exchange` (who asks, what is granted) -> `keys`
//! (sign, with the one that their `ring` says). `certificates` says who workloads are, to each other. `cluster_keys`,
//! `grants` and `stored_ring` follow what the answers depend on; `platform` is what all of it stands on, this machine or a
//! cluster. Deliberately absent: any state but the signing keys and certificate authorities.

use std::sync::Arc;

use identity::LEEWAY_SECONDS;
use runtime::admin::{self, Readiness};
use runtime::drain::DrainWatch;
use runtime::http_server;
use runtime::listen::{Address, BindError, Listener};

mod authority;
mod certificates;
mod cluster_keys;
mod config;
mod csr;
mod exchange;
mod fetch;
mod grants;
mod keys;
mod metrics;
mod objects;
mod openapi;
mod own_tls;
mod platform;
mod ring;
mod routes;
mod statuses;
mod store;
mod stored_ring;
mod token_review;

/// What the injector's own certificate is made with, too.
pub(crate) mod shared {
    pub(crate) use super::authority::Authorities;
    pub(crate) use super::config::Tls;
    pub(crate) use super::own_tls::OwnTls;
    pub(crate) use super::ring::Timing;
    pub(crate) use super::store::secret::SecretStore;
}

pub use config::{Config, ConfigError, Rotate};
pub use grants::GrantsError;
pub use openapi::document as openapi;
pub use own_tls::OwnTlsError;
pub use platform::PlatformError;
pub use store::{KeysError, StoreError};
pub use stored_ring::Rotation;

use authority::Authorities;
use certificates::Certificates;
use cluster_keys::ClusterKeys;
use config::Tls;
use exchange::Exchange;
use grants::Grants;
use keys::SigningKeys;
use metrics::Metrics;
use own_tls::OwnTls;
use platform::{Platform, Which};
use ring::Timing;

/// How often the root is looked at, which changes once in years.
const ROOT_TICK: std::time::Duration = std::time::Duration::from_secs(60);

/// Why the issuer does not start, or ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IssuerError {
    /// The cluster cannot be stood on.
    #[error(transparent)]
    Platform(#[from] PlatformError),
    /// A thread that opened keys panicked.
    #[error("the keys could not be opened")]
    Opening,
    /// The signing keys cannot be used.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// The documents are broken.
    #[error(transparent)]
    Grants(#[from] GrantsError),
    /// The source of the cluster's keys cannot be used.
    #[error(transparent)]
    ClusterKeys(#[from] fetch::FetchError),
    /// The port cannot be bound.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// There is no authority.
    #[error("there is no certificate authority: the configuration has no `certificates`")]
    NoCertificates,
    /// TLS cannot be served.
    #[error("tls: {0}")]
    Tls(#[from] OwnTlsError),
    /// Serving failed.
    #[error("the issuer's listener failed: {0}")]
    Serve(#[from] std::io::Error),
}

/// Starts the issuer and serves until the drain starts and the last answer is given.
///
/// # Errors
/// When it cannot start, or a listener fails.
pub async fn serve(config: Config, drain: DrainWatch) -> Result<(), IssuerError> {
    Issuer::bind(config, drain).await?.serve().await
}

/// Adds a signing key, unless one is on its way already. Every issuer that shares the keys follows.
///
/// # Errors
/// When the keys cannot be used, or not be written.
pub async fn rotate_signing_keys(config: &Config) -> Result<Rotation, IssuerError> {
    let store = Platform::open(&config.platform).await?.store(Which::SigningKeys)?;
    let times = signing_times(config);
    blocking(move || SigningKeys::signing_existing(store, times)?.rotate(runtime::clock::now(), false)).await
}

/// Adds a certificate authority, unless one is on its way already. Every issuer that shares them follows.
///
/// # Errors
/// When certificates are not configured, the authorities cannot be used, or not be written.
pub async fn rotate_authority(config: &Config) -> Result<Rotation, IssuerError> {
    let times = certificates::times(config.certificates.as_ref().ok_or(IssuerError::NoCertificates)?);
    let store = Platform::open(&config.platform).await?.store(Which::Authorities)?;
    blocking(move || Authorities::authorities_existing(store, times)?.rotate(runtime::clock::now(), false)).await
}

/// Disks and networks may be slow, and a thread that serves must not wait for them.
async fn blocking<T: Send + 'static>(
    open: impl FnOnce() -> Result<T, KeysError> + Send + 'static,
) -> Result<T, IssuerError> {
    Ok(tokio::task::spawn_blocking(open).await.map_err(|_| IssuerError::Opening)??)
}

/// The leeway counts twice: for the clock of an issuer that signs with an old key a little longer, and for a verifier's.
fn signing_times(config: &Config) -> Timing {
    let Rotate { period, lead } = config.signing_keys;
    Timing { period, lead, life: config.ttl + 2 * LEEWAY_SECONDS }
}

/// An issuer that is bound and ready to serve.
pub struct Issuer {
    exchange: Arc<Exchange>,
    platform: Platform,
    tls: Option<OwnTls>,
    /// The root of the issuer's own certificate, where it has one.
    root: Option<Arc<Authorities>>,
    listener: Listener,
    admin: Option<Listener>,
    registry: runtime::metrics::Metrics,
    readiness: Readiness,
    drain: DrainWatch,
}

impl Issuer {
    /// Reads keys and documents, then binds: what is broken is said before a port is open.
    ///
    /// # Errors
    /// When the signing keys or documents are broken or an address cannot be bound.
    pub async fn bind(config: Config, drain: DrainWatch) -> Result<Self, IssuerError> {
        let registry = runtime::metrics::Metrics::new();
        let metrics = Metrics::register(&registry);
        let readiness = Readiness::new();
        let platform = Platform::open(&config.platform).await?;
        let signing = Arc::new(open_signing(&config, &platform).await?);
        let certificates = open_certificates(&config, &platform, &metrics).await?;
        let root = open_root(&config, &platform).await?;
        let own_tls = |tls| OwnTls::new(tls, certificates.as_ref(), root.clone());
        let tls = config.tls.as_ref().map(own_tls).transpose()?;
        let grants = Grants::follow(&platform, metrics.clone(), readiness.clone())?;
        let client = platform.cluster().map(|cluster| cluster.client.clone());
        let cluster = ClusterKeys::new(&config.subject_tokens, client.clone(), metrics.clone(), readiness.clone())?;
        let reviewer = client.filter(|_| config.subject_tokens.token_review);
        let listener = Listener::bind(&config.listen).await?;
        let admin = match &config.admin {
            Some(address) => Some(Listener::bind(address).await?),
            None => None,
        };
        warn_if_exposed(&config);
        let exchange = Arc::new(Exchange { config, signing, grants, cluster, certificates, reviewer, metrics });
        Ok(Self { exchange, platform, tls, root, listener, admin, registry, readiness, drain })
    }

    /// Where it listens; for port 0 the port that the system chose.
    #[must_use]
    pub fn local_address(&self) -> &Address {
        self.listener.local_address()
    }

    /// Serves until the drain starts and the last answer is given. Cancel safe: dropping it closes the listeners.
    ///
    /// # Errors
    /// When a listener fails.
    pub async fn serve(self) -> Result<(), IssuerError> {
        let _guard = self.drain.guard();
        let health = admin::router(self.registry.clone(), self.readiness.clone(), self.drain.clone());
        let router = routes::router(self.exchange.clone(), health);
        tracing::info!(listen = %self.listener.local_address(), url = %self.exchange.config.url, "the issuer listens");
        let tls = self.tls.as_ref().map(|tls| tls.config.clone());
        let main = http_server::serve(self.listener, tls, router, self.drain.clone());
        // It outlives the drain, as that is where it shows.
        let extra = async {
            match self.admin {
                Some(listener) => {
                    let routes = admin::router(self.registry, self.readiness, self.drain.clone());
                    admin::serve(listener, routes).await
                }
                None => std::future::pending().await,
            }
        };
        let renewal = async {
            match &self.tls {
                Some(tls) => tls.keep_up().await,
                None => std::future::pending().await,
            }
        };
        let publishing = async {
            match (self.platform.cluster(), &self.root) {
                (Some(cluster), Some(root)) => tokio::select! {
                    never = cluster.publish(root) => never,
                    never = keep_root(root) => never,
                },
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            served = main => served.map_err(IssuerError::Serve),
            failed = extra => failed.map_err(IssuerError::Serve),
            never = self.exchange.follow() => match never {},
            never = renewal => match never {},
            never = publishing => match never {},
        }
    }
}

async fn open_signing(config: &Config, platform: &Platform) -> Result<SigningKeys, IssuerError> {
    let (store, times) = (platform.store(Which::SigningKeys)?, signing_times(config));
    blocking(move || SigningKeys::signing(store, times)).await
}

async fn open_certificates(
    config: &Config,
    platform: &Platform,
    metrics: &Metrics,
) -> Result<Option<Certificates>, IssuerError> {
    let Some(wanted) = config.certificates.clone() else { return Ok(None) };
    let (store, metrics) = (platform.store(Which::Authorities)?, metrics.clone());
    let bundle_file = match platform {
        Platform::Local(local) => local.trust_bundle_file.clone(),
        Platform::Cluster(_) => None,
    };
    blocking(move || Certificates::open(&wanted, store, bundle_file, metrics)).await.map(Some)
}

async fn open_root(config: &Config, platform: &Platform) -> Result<Option<Arc<Authorities>>, IssuerError> {
    let Some(Tls::Root { .. }) = &config.tls else { return Ok(None) };
    let store = platform.store(Which::Root)?;
    blocking(move || Authorities::root(store)).await.map(|root| Some(Arc::new(root)))
}

/// Follows and rotates the root, for ever.
async fn keep_root(root: &Arc<Authorities>) -> std::convert::Infallible {
    loop {
        let ring = root.clone();
        // That it failed was said where it happened.
        let _ = tokio::task::spawn_blocking(move || ring.tick(runtime::clock::now())).await;
        tokio::time::sleep(ROOT_TICK).await;
    }
}

fn warn_if_exposed(config: &Config) {
    if !config.listen.is_local() && config.url.starts_with("http:") {
        tracing::warn!(
            listen = %config.listen,
            "tokens cross the network in clear: give it `tls`, put TLS before it, or let it listen on loopback"
        );
    }
}

#[cfg(test)]
mod tests;
