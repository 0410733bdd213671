//! The issuer: `POST /token` (RFC 8693), discovery, key set, health, metrics, and the OpenAPI document of all that.
//!
//! Its stages, in the order a request meets them: `routes` (HTTP) -> `exchange` (who asks, what is granted) -> `keys`
//! (sign, with the one that their `ring` says). `certificates` says who workloads are, to each other. `cluster_keys`,
//! `grants` and `ring_file` follow what the answers depend on. Deliberately absent: any state but the signing keys and
//! certificate authorities, and `TokenReview`.

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
mod openapi;
mod own_tls;
mod ring;
mod ring_file;
mod routes;

pub use config::{Config, ConfigError, Rotate};
pub use grants::GrantsError;
pub use openapi::document as openapi;
pub use own_tls::OwnTlsError;
pub use ring_file::{KeysError, Rotation};

use authority::Authorities;
use certificates::Certificates;
use cluster_keys::ClusterKeys;
use exchange::Exchange;
use grants::Grants;
use keys::SigningKeys;
use metrics::Metrics;
use own_tls::OwnTls;
use ring::Timing;

/// Why the issuer does not start, or ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IssuerError {
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

/// Adds a signing key, unless one is on its way already. Every issuer that runs on the same file follows. Blocks.
///
/// # Errors
/// When the keys cannot be used, or the file not be written.
pub fn rotate_signing_keys(config: &Config) -> Result<Rotation, IssuerError> {
    let keys = SigningKeys::signing_existing(&config.keys_file, signing_times(config))?;
    Ok(keys.rotate(runtime::clock::now(), false)?)
}

/// Adds a certificate authority, unless one is on its way already. Every issuer that runs on the same file follows. Blocks.
///
/// # Errors
/// When certificates are not configured, the authorities cannot be used, or the file not be written.
pub fn rotate_authority(config: &Config) -> Result<Rotation, IssuerError> {
    let config = config.certificates.as_ref().ok_or(IssuerError::NoCertificates)?;
    let authorities = Authorities::authorities_existing(&config.authority_file, certificates::times(config))?;
    Ok(authorities.rotate(runtime::clock::now(), false)?)
}

/// The leeway counts twice: for the clock of an issuer that signs with an old key a little longer, and for a verifier's.
fn signing_times(config: &Config) -> Timing {
    let Rotate { period, lead } = config.signing_keys;
    Timing { period, lead, life: config.ttl + 2 * LEEWAY_SECONDS }
}

/// An issuer that is bound and ready to serve.
pub struct Issuer {
    exchange: Arc<Exchange>,
    tls: Option<OwnTls>,
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
        let signing = Arc::new(SigningKeys::signing(&config.keys_file, signing_times(&config))?);
        let certificates = config.certificates.as_ref().map(|config| Certificates::open(config, metrics.clone()));
        let certificates = certificates.transpose()?;
        let tls = config.tls.as_ref().map(|tls| OwnTls::new(tls, certificates.as_ref())).transpose()?;
        let grants = Grants::follow(&config.documents, metrics.clone())?;
        let cluster = ClusterKeys::new(&config.subject_tokens, metrics.clone(), readiness.clone())?;
        let listener = Listener::bind(&config.listen).await?;
        let admin = match &config.admin {
            Some(address) => Some(Listener::bind(address).await?),
            None => None,
        };
        warn_if_exposed(&config);
        let exchange = Arc::new(Exchange { config, signing, grants, cluster, certificates, metrics });
        Ok(Self { exchange, tls, listener, admin, registry, readiness, drain })
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
        let extra = async {
            match self.admin {
                Some(listener) => admin::serve(listener, self.registry, self.readiness, self.drain.clone()).await,
                None => Ok(()),
            }
        };
        let renewal = async {
            match &self.tls {
                Some(tls) => tls.keep_up(self.exchange.certificates.as_ref()).await,
                None => std::future::pending().await,
            }
        };
        let serving = async { tokio::try_join!(main, extra) };
        tokio::select! {
            served = serving => served.map(|_| ()).map_err(IssuerError::Serve),
            never = self.exchange.follow() => match never {},
            never = renewal => match never {},
        }
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
