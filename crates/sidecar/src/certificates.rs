//! The pod's own certificates, to which its tokens are bound, and the authorities by which it knows other workloads.
//!
//! They come from the issuer (`issuer`), or from files that somebody else keeps up to date. Whoever makes a link takes
//! one identity and keeps it, as a token is bound to it; listeners show the newest. Deliberately absent: certificates
//! that are good under other names than a workload's (`runtime::tls` reads those of single listeners).

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use identity::certificate::{SpiffeId, Thumbprint, not_after_of, spiffe_id_of};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use runtime::admin::Readiness;
use runtime::http_client::HttpClient;
use runtime::tls::{Authorities, Rule, TlsError};
use rustls::pki_types::CertificateDer;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::sync::watch;

use crate::config::{self, CertificateSource, ServerTls};

mod issuer;

/// How often the time that a certificate has left is looked at.
const LOOK: Duration = Duration::from_secs(5);

/// The same, while there is none that is good: traffic waits for it.
const LOOK_FOR_FIRST: Duration = Duration::from_millis(100);

/// One certificate of this pod's with its key.
pub(crate) struct Identity {
    pub(crate) thumbprint: Thumbprint,
    pub(crate) spiffe: SpiffeId,
    /// Its end, in seconds since the epoch.
    pub(crate) not_after: i64,
    key: Arc<CertifiedKey>,
}

impl fmt::Debug for Identity {
    /// Without the key.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} ({})", self.spiffe, self.thumbprint)
    }
}

impl Identity {
    /// What a certificate makes of its holder.
    ///
    /// # Errors
    /// It names no workload of this trust domain, or has expired: no other side would believe it.
    fn new(key: Arc<CertifiedKey>, trust_domain: &str, now: i64) -> Result<Identity, String> {
        let leaf = key.cert.first().ok_or("there is no certificate")?;
        let named = spiffe_id_of(leaf).map_err(|error| error.to_string())?;
        let spiffe = named.ok_or("the certificate names no workload: it needs one URI, spiffe://…/ns/…/sa/…")?;
        if spiffe.trust_domain != trust_domain {
            return Err(format!("the certificate is {spiffe}'s, not of the trust domain {trust_domain}"));
        }
        let not_after = not_after_of(leaf).map_err(|error| error.to_string())?.0;
        if not_after <= now {
            let late = now.saturating_sub(not_after);
            return Err(format!("the certificate expired {late} s ago by this machine's clock; is it right?"));
        }
        Ok(Identity { thumbprint: Thumbprint::of(leaf), spiffe, not_after, key })
    }

    /// A client's configuration that shows this certificate and no other.
    pub(crate) fn presented_by(&self, config: &rustls::ClientConfig) -> Arc<rustls::ClientConfig> {
        runtime::tls::presenting(config, &self.key)
    }
}

/// The newest of the pod's certificates; none until there was a first.
pub(crate) type Identities = watch::Receiver<Option<Arc<Identity>>>;

/// The pod's certificates. Clones share them.
#[derive(Clone)]
pub(crate) struct Certificates {
    trust_domain: Arc<str>,
    newest: Identities,
    authorities: Authorities,
    metrics: Metrics,
}

impl Certificates {
    /// Starts to keep them up to date, for as long as the runtime lives that this is called on.
    ///
    /// # Errors
    /// When they come from files that cannot be used. An issuer may be away at first.
    pub(crate) fn start(
        config: &config::Certificates,
        issuer: &config::Issuer,
        client: HttpClient,
        metrics: Metrics,
    ) -> Result<Certificates, TlsError> {
        let trust_domain: Arc<str> = config.trust_domain.as_str().into();
        let (newest, authorities) = match &config.source {
            CertificateSource::Issuer => issuer::start(issuer, client, trust_domain.clone(), metrics.clone()),
            CertificateSource::Files { own, trust_bundle_file } => {
                let authorities = Authorities::of_file(trust_bundle_file)?;
                (of_files(own, trust_domain.clone(), metrics.clone())?, authorities)
            }
        };
        Ok(Certificates { trust_domain, newest, authorities, metrics })
    }

    /// The newest certificate, now and whenever there is a newer one.
    pub(crate) fn identities(&self) -> Identities {
        self.newest.clone()
    }

    /// For listeners: they show a certificate of their own, or else the pod's newest; clients are asked for theirs.
    ///
    /// # Errors
    /// When the listener's own cannot be used.
    pub(crate) fn server_config(
        &self,
        own: Option<&ServerTls>,
        alpn: &[&[u8]],
    ) -> Result<Arc<rustls::ServerConfig>, TlsError> {
        let shown: Arc<dyn ResolvesServerCert> = match own {
            Some(files) => runtime::tls::certificate_of_files(&files.certificate_file, &files.key_file)?,
            None => Arc::new(Newest(self.newest.clone())),
        };
        runtime::tls::mutual_server_config(shown, &self.authorities, workloads_of(self.trust_domain.clone()), alpn)
    }

    /// For links to one workload; [`Identity::presented_by`] adds what they show.
    ///
    /// # Errors
    /// None that is known.
    pub(crate) fn client_config(&self, peer: &SpiffeId, alpn: &[&[u8]]) -> Result<Arc<rustls::ClientConfig>, TlsError> {
        runtime::tls::mutual_client_config(&self.authorities, exactly(peer.clone()), alpn)
    }

    /// Keeps `readiness` and the metrics true: traffic is welcome while there is a certificate that is good.
    pub(crate) async fn watch(self, readiness: Readiness) {
        loop {
            let left =
                self.newest.borrow().as_ref().map(|newest| newest.not_after.saturating_sub(runtime::clock::now()));
            let is_good = left.is_some_and(|left| left > 0) && self.authorities.are_known();
            readiness.set("certificate", is_good);
            // No certificate lives for longer than a float counts seconds exactly.
            #[allow(clippy::cast_precision_loss)]
            self.metrics.expiry.set(left.map_or(f64::NAN, |left| left as f64));
            tokio::time::sleep(if is_good { LOOK } else { LOOK_FOR_FIRST }).await;
        }
    }
}

fn of_files(own: &ServerTls, trust_domain: Arc<str>, metrics: Metrics) -> Result<Identities, TlsError> {
    runtime::tls::follow_certificate(&own.certificate_file, &own.key_file, move |read| {
        let read = read.map_err(|error| error.to_string());
        let identity = read.and_then(|key| Identity::new(key, &trust_domain, runtime::clock::now()));
        metrics.renewed(identity.is_ok());
        identity.map(|identity| Some(Arc::new(identity)))
    })
}

/// Whom a listener talks to: workloads of this trust domain, and clients whose certificate names no workload. A name
/// that is not understood is not taken for none.
fn workloads_of(trust_domain: Arc<str>) -> Rule {
    Arc::new(move |certificate: &CertificateDer<'_>| {
        match spiffe_id_of(certificate).map_err(|error| error.to_string())? {
            Some(id) if id.trust_domain != *trust_domain => Err(format!("{id} is of another trust domain")),
            _ => Ok(()),
        }
    })
}

/// Whom a link is made to: this workload, and no other.
fn exactly(peer: SpiffeId) -> Rule {
    Arc::new(move |certificate: &CertificateDer<'_>| {
        match spiffe_id_of(certificate).map_err(|error| error.to_string())? {
            Some(id) if id == peer => Ok(()),
            Some(id) => Err(format!("this is {id}, not {peer}")),
            None => Err(format!("its certificate names no workload, where {peer} was to be")),
        }
    })
}

/// Shows the pod's newest certificate; as long as there is none, TLS fails.
#[derive(Debug)]
struct Newest(Identities);

impl ResolvesServerCert for Newest {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.borrow().as_ref().map(|newest| newest.key.clone())
    }
}

/// Metrics of the pod's certificates.
#[derive(Clone)]
pub(crate) struct Metrics {
    expiry: Gauge<f64, AtomicU64>,
    renewals: Family<ResultLabel, Counter>,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ResultLabel {
    result: &'static str,
}

impl Metrics {
    pub(crate) fn register(registry: &runtime::metrics::Metrics) -> Metrics {
        let help = "Time until the pod's certificate expires";
        let expiry = registry.register("certificate_expiry_seconds", help, Gauge::default());
        let help = "Certificates of the pod's that were to be renewed, by result";
        let renewals = registry.register("certificate_renewals", help, Family::default());
        Metrics { expiry, renewals }
    }

    fn renewed(&self, ok: bool) {
        let result = if ok { "ok" } else { "error" };
        self.renewals.get_or_create(&ResultLabel { result }).inc();
    }
}

#[cfg(test)]
mod tests;
