//! Certificates for workloads: whom one is for, what it says, and the bundle of authorities to check it against.
//!
//! Deliberately absent: HTTP (`routes`), the authorities' own making and their rotation (`authority`, `ring`).

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use identity::Subject;
use identity::certificate::SpiffeId;
use rcgen::SanType;
use rcgen::string::Ia5String;

use super::authority::{Authorities, Issued, Leaf, SignError};
use super::config;
use super::csr::{CsrError, ProvenKey};
use super::metrics::Metrics;
use super::ring::Timing;
use super::store::{KeysError, Store};
use super::stored_ring::keep_ring;

/// How often the bundle's file is compared with what it should be.
const TICK: Duration = Duration::from_millis(500);

/// Why a certificate is not issued.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    #[error(transparent)]
    Request(#[from] CsrError),
    #[error(transparent)]
    Signing(#[from] SignError),
}

/// What certificates are signed with and what they shall say.
pub(crate) struct Certificates {
    pub(crate) authorities: Arc<Authorities>,
    config: config::Certificates,
    bundle_file: Option<PathBuf>,
    metrics: Metrics,
}

impl Certificates {
    /// Opens the authorities and writes the bundle's file, if there is to be one. Blocks.
    pub(crate) fn open(
        config: &config::Certificates,
        store: Box<dyn Store>,
        bundle_file: Option<PathBuf>,
        metrics: Metrics,
    ) -> Result<Self, KeysError> {
        let authorities = Arc::new(Authorities::authorities(store, times(config))?);
        let this = Self { authorities, config: config.clone(), bundle_file, metrics };
        this.write_bundle()?;
        Ok(this)
    }

    /// Signs the key of a request for a service account.
    pub(crate) fn issue(&self, subject: &Subject, request: &[u8], now: i64) -> Result<Issued, Refused> {
        let issued = ProvenKey::of_request(request).map_err(Refused::from).and_then(|key| {
            let leaf =
                Leaf { names: self.names(subject)?, not_after: now.saturating_add(self.config.ttl), client: true };
            Ok(self.authorities.ring().active(now).sign(&key, leaf, now)?)
        });
        self.metrics.certificate(match &issued {
            Ok(_) => "ok",
            Err(Refused::Request(_)) => "bad_request",
            Err(Refused::Signing(_)) => "error",
        });
        issued
    }

    /// The life of a certificate, in seconds.
    pub(crate) fn ttl(&self) -> i64 {
        self.config.ttl
    }

    /// Follows and rotates the authorities, and keeps the bundle's file, for ever.
    pub(crate) async fn keep_up(&self) -> Infallible {
        tokio::select! {
            never = keep_ring(self.authorities.clone(), self.metrics.authorities.clone()) => never,
            never = self.keep_bundle() => never,
        }
    }

    async fn keep_bundle(&self) -> Infallible {
        let mut failing = false;
        loop {
            let written = self.write_bundle();
            if let (Err(error), false) = (&written, failing) {
                tracing::error!(%error, "the trust bundle cannot be written; who reads that file misses a rotation");
            }
            failing = written.is_err();
            tokio::time::sleep(TICK).await;
        }
    }

    /// Only if it is not there already, whole: several issuers may share the file, too.
    fn write_bundle(&self) -> Result<(), KeysError> {
        let Some(path) = &self.bundle_file else { return Ok(()) };
        let (bundle, _) = self.authorities.bundle(runtime::clock::now());
        if std::fs::read(path).is_ok_and(|there| there == bundle.as_bytes()) {
            return Ok(());
        }
        runtime::secret::write_public(path, bundle.as_bytes()).map_err(|error| KeysError::Store {
            what: "trust bundle",
            place: path.display().to_string(),
            error: error.into(),
        })
    }

    /// What a service account is known as: its SPIFFE ID; the names of the service called like it, as DNS has them; and what
    /// else is configured. A bare name would be everybody's who has one in another namespace, and a service account whose
    /// name has dots could imitate another's service: no service is called so.
    fn names(&self, subject: &Subject) -> Result<Vec<SanType>, SignError> {
        let spiffe = SpiffeId::new(&self.config.trust_domain, subject.clone()).map_err(|_| SignError)?;
        let mut names = vec![SanType::URI(text(&spiffe.to_string())?)];
        let Subject { namespace, service_account } = subject;
        if !service_account.contains('.') {
            let short = format!("{service_account}.{namespace}");
            let dns = [short.clone(), format!("{short}.svc"), format!("{short}.svc.{}", self.config.cluster_domain)];
            for name in dns {
                names.push(SanType::DnsName(text(&name)?));
            }
        }
        let further = self.config.names.get(subject).into_iter().flatten();
        let further = further.map(|name| name_of(name)).collect::<Result<Vec<_>, _>>()?;
        names.extend(further);
        Ok(names)
    }
}

/// The leeway is for the clocks of those who check certificates.
pub(crate) fn times(config: &config::Certificates) -> Timing {
    let config::Rotate { period, lead } = config.rotation;
    Timing { period, lead, life: config.ttl + 2 * identity::LEEWAY_SECONDS }
}

/// A DNS name or an IP address.
pub(crate) fn name_of(name: &str) -> Result<SanType, SignError> {
    name.parse().map_or_else(|_| text(name).map(SanType::DnsName), |address| Ok(SanType::IpAddress(address)))
}

fn text(text: &str) -> Result<Ia5String, SignError> {
    Ia5String::try_from(text).map_err(|_| SignError)
}
