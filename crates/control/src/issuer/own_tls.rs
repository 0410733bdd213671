//! The issuer's own TLS: by a certificate from files, or by one of its own authority's or root's, renewed at half of its life.
//!
//! Deliberately absent: client certificates. Whoever asks here shows a token; the certificate is what it asks for.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use rcgen::KeyPair;
use runtime::http_server::ALPN;
use runtime::tls::TlsError;
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::authority::{Authorities, Leaf, SignError};
use super::certificates::{Certificates, name_of};
use super::config::Tls;

/// How often it is looked whether the certificate is to be renewed.
const TICK: Duration = Duration::from_secs(1);

/// Why the issuer cannot serve TLS.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OwnTlsError {
    /// Certificate and key cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The authority gave no certificate.
    #[error("the issuer's own certificate could not be made")]
    Making,
}

/// How the issuer serves TLS.
pub(crate) struct OwnTls {
    pub(crate) config: Arc<ServerConfig>,
    renewed: Option<Arc<Renewed>>,
}

/// The life of a certificate by the root, in seconds.
const ROOTED: i64 = 24 * 3600;

/// A certificate of the own authority's or root's, for its names.
struct Renewed {
    authorities: Arc<Authorities>,
    /// In seconds.
    ttl: i64,
    names: Vec<String>,
    /// With the time at which it is to be renewed.
    shown: RwLock<(Arc<CertifiedKey>, i64)>,
}

impl OwnTls {
    /// The configuration was checked: there are authorities where they are needed.
    pub(crate) fn new(
        tls: &Tls,
        certificates: Option<&Certificates>,
        root: Option<Arc<Authorities>>,
    ) -> Result<Self, OwnTlsError> {
        let (authorities, ttl, names) = match tls {
            Tls::Files { certificate, key } => {
                let config = runtime::tls::server_config(certificate, key, &ALPN)?;
                return Ok(Self { config, renewed: None });
            }
            Tls::Authority { names } => {
                let certificates = certificates.ok_or(OwnTlsError::Making)?;
                (certificates.authorities.clone(), certificates.ttl(), names)
            }
            Tls::Root { names } => (root.ok_or(OwnTlsError::Making)?, ROOTED, names),
        };
        let shown = RwLock::new(make(&authorities, ttl, names, runtime::clock::now())?);
        let renewed = Arc::new(Renewed { authorities, ttl, names: names.clone(), shown });
        let config = runtime::tls::server_config_showing(renewed.clone(), &ALPN)?;
        Ok(Self { config, renewed: Some(renewed) })
    }

    /// Renews the certificate in time, for ever.
    pub(crate) async fn keep_up(&self) -> Infallible {
        let Some(renewed) = &self.renewed else { return std::future::pending().await };
        loop {
            tokio::time::sleep(TICK).await;
            renewed.renew(runtime::clock::now());
        }
    }
}

impl Renewed {
    fn renew(&self, now: i64) {
        if now < self.shown.read().1 {
            return;
        }
        match make(&self.authorities, self.ttl, &self.names, now) {
            Ok(made) => *self.shown.write() = made,
            Err(error) => {
                tracing::error!(%error, "the issuer's own certificate is not renewed; tried again in a second")
            }
        }
    }
}

impl std::fmt::Debug for Renewed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Renewed").field("names", &self.names).finish_non_exhaustive()
    }
}

impl ResolvesServerCert for Renewed {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.shown.read().0.clone())
    }
}

/// A new key with its certificate, and when it is to be renewed: at half of its life. The key is in memory only.
fn make(
    authorities: &Authorities,
    ttl: i64,
    names: &[String],
    now: i64,
) -> Result<(Arc<CertifiedKey>, i64), OwnTlsError> {
    let making = |_: SignError| OwnTlsError::Making;
    let key = KeyPair::generate().map_err(|_| OwnTlsError::Making)?;
    let names = names.iter().map(|name| name_of(name)).collect::<Result<_, _>>().map_err(making)?;
    let leaf = Leaf { names, not_after: now.saturating_add(ttl), client: false };
    let issued = authorities.ring().active(now).sign(&key, leaf, now).map_err(making)?;
    let private = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialized_der().to_vec()));
    let certified = runtime::tls::certified_key(issued.pem.as_bytes(), private)?;
    Ok((certified, now.saturating_add(ttl / 2)))
}
