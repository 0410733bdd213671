//! TLS in which both sides show certificates: chained to authorities that may be exchanged at any time, and of whom the
//! caller's rule says.
//!
//! No session is resumed here, on either side. A resumed one brings along the certificate of its first handshake, which
//! nobody looks at again: it may have expired since, its authority may be gone, or it may be another than the one that
//! tokens are bound to by now. What a full handshake costs more is a fraction of what a login costs.
//!
//! Absent on purpose: revocation lists. Certificates of workloads live for an hour.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, Weak};

use parking_lot::RwLock;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, ParsedCertificate, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore,
    ServerConfig, SignatureScheme,
};

use super::{MAX_PEM, TlsError, names, provider, renew, roots, wrong};
use crate::secret;

/// Whether the other side, of a certificate that is otherwise good, is one to talk to; if not, why.
pub type Rule = Arc<dyn Fn(&CertificateDer<'_>) -> Result<(), String> + Send + Sync>;

/// The authorities that may vouch for workloads, exchanged as a whole while in use. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Authorities(Arc<Shared>);

pub(super) type Shared = RwLock<Option<Known>>;

#[derive(Clone, Debug)]
pub(super) struct Known {
    roots: Arc<RootCertStore>,
    clients: Arc<dyn ClientCertVerifier>,
}

impl Authorities {
    /// None yet: until there are, nobody is asked for a certificate, and no other side is believed.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Those of a file (PEM), which is followed.
    ///
    /// # Errors
    /// When the file cannot be used now.
    pub fn of_file(file: &Path) -> Result<Self, TlsError> {
        let authorities = Self::none();
        renew::follow_authorities(&authorities, file)?;
        Ok(authorities)
    }

    /// Puts these (PEM) in the place of those known until now.
    ///
    /// # Errors
    /// When one of them cannot be used; those known until now stay.
    pub fn replace(&self, pem: &[u8]) -> Result<(), TlsError> {
        self.put(pem).map_err(TlsError::Unusable)
    }

    /// Whether there are any.
    #[must_use]
    pub fn are_known(&self) -> bool {
        self.0.read().is_some()
    }

    pub(super) fn replace_by_file(&self, file: &Path) -> Result<(), TlsError> {
        self.put(&secret::read_bytes(file, MAX_PEM)?).map_err(|why| wrong(file, why))
    }

    pub(super) fn of(shared: Arc<Shared>) -> Self {
        Self(shared)
    }

    pub(super) fn downgrade(&self) -> Weak<Shared> {
        Arc::downgrade(&self.0)
    }

    fn put(&self, pem: &[u8]) -> Result<(), String> {
        let roots = Arc::new(roots(pem)?);
        let clients = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider());
        let clients = clients.build().map_err(|error| error.to_string())?;
        *self.0.write() = Some(Known { roots, clients });
        Ok(())
    }

    fn known(&self) -> Result<Known, Error> {
        let unknown =
            || Error::General("the authorities that may vouch for the other side are not known yet".to_owned());
        self.0.read().clone().ok_or_else(unknown)
    }
}

/// For listeners: clients are asked for a certificate and may have none. One that is shown must be good and within the
/// rule. TLS 1.3, and 1.2 for plain clients that have no better.
///
/// # Errors
/// None that is known.
pub fn mutual_server_config(
    own: Arc<dyn ResolvesServerCert>,
    authorities: &Authorities,
    rule: Rule,
    alpn: &[&[u8]],
) -> Result<Arc<ServerConfig>, TlsError> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .with_client_cert_verifier(Arc::new(Others::new(authorities, rule)))
        .with_cert_resolver(own);
    config.alpn_protocols = names(alpn);
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// For connections to workloads: TLS 1.3 only. Not the name that was dialled counts, but the rule. No certificate is
/// shown; that is [`presenting`]'s.
///
/// # Errors
/// None that is known.
pub fn mutual_client_config(
    authorities: &Authorities,
    rule: Rule,
    alpn: &[&[u8]],
) -> Result<Arc<ClientConfig>, TlsError> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Others::new(authorities, rule)))
        .with_no_client_auth();
    config.alpn_protocols = names(alpn);
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// The same configuration, but showing this certificate and no other to servers that ask for one.
#[must_use]
pub fn presenting(config: &ClientConfig, own: &Arc<CertifiedKey>) -> Arc<ClientConfig> {
    let mut config = config.clone();
    config.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(own.clone()));
    config.resumption = Resumption::disabled();
    Arc::new(config)
}

/// Looks at the other side's certificate, whichever side that is.
struct Others {
    authorities: Authorities,
    rule: Rule,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Others {
    fn new(authorities: &Authorities, rule: Rule) -> Self {
        let algorithms = provider().signature_verification_algorithms;
        Self { authorities: authorities.clone(), rule, algorithms }
    }

    fn check_rule(&self, certificate: &CertificateDer<'_>) -> Result<(), Error> {
        (self.rule)(certificate).map_err(|why| {
            let why: Box<dyn std::error::Error + Send + Sync> = why.into();
            Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::from(why))))
        })
    }
}

impl fmt::Debug for Others {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Others").field("authorities", &self.authorities).finish_non_exhaustive()
    }
}

impl ClientCertVerifier for Others {
    fn offer_client_auth(&self) -> bool {
        self.authorities.are_known()
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    /// None: they may change while they are lent, and a workload has one certificate to show anyway.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.authorities.known()?.clients.verify_client_cert(end_entity, intermediates, now)?;
        self.check_rule(end_entity)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl ServerCertVerifier for Others {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let roots = self.authorities.known()?.roots;
        let parsed = ParsedCertificate::try_from(end_entity)?;
        verify_server_cert_signed_by_trust_anchor(&parsed, &roots, intermediates, now, self.algorithms.all)?;
        self.check_rule(end_entity)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests;
