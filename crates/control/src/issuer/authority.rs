//! Certificate authorities: each a key and a certificate of its own for it, and what they sign.
//!
//! Which of them signs is the ring's to say (`ring`), what holds them `stored_ring`'s, whom a certificate is for `certificates`'.
//! Deliberately absent: revocation lists, for what is signed here ends within hours; intermediate authorities.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use identity::certificate::Thumbprint;
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType, SerialNumber,
};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;

use super::ring::{Dated, Timing};
use super::store::{KeysError, Store};
use super::stored_ring::{Entry, StoredRing};

/// Certificates begin in the past, for those whose clocks are late.
const BACKDATED: i64 = 300;
/// An authority outlives everything that is planned for it by this, so that a rotation which fails is noticed in time.
const SLACK: i64 = 7 * 24 * 3600;
/// Pods are told of the root when they start, and know no other for as long as they live: ten years, with one of overlap.
const ROOT: Timing = Timing { period: 9 * YEAR, lead: YEAR, life: 24 * 3600 };
const YEAR: i64 = 365 * 24 * 3600;
/// RFC 5280 §4.1.2.2 allows 20 bytes; 16 random ones never meet twice.
const SERIAL: usize = 16;

/// The authorities and what holds them.
pub(crate) type Authorities = StoredRing<Authority>;

/// An authority as it is stored.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StoredAuthority {
    name: String,
    created_at: i64,
    /// PEM.
    certificate: String,
    /// PKCS #8 DER in base64.
    private_key: String,
}

/// An authority that was read and is what it says it is.
pub(crate) struct Authority {
    stored: StoredAuthority,
    issuer: Issuer<'static, KeyPair>,
    not_after: i64,
}

/// What a certificate shall say.
pub(crate) struct Leaf {
    pub(crate) names: Vec<SanType>,
    pub(crate) not_after: i64,
    /// Whether its holder may use it as a client, too.
    pub(crate) client: bool,
}

/// A certificate that was signed.
pub(crate) struct Issued {
    pub(crate) pem: String,
    pub(crate) serial: String,
    pub(crate) thumbprint: Thumbprint,
}

impl Authorities {
    /// Opens the authorities, or makes the first.
    pub(crate) fn authorities(store: Box<dyn Store>, timing: Timing) -> Result<Self, KeysError> {
        Self::open(store, timing, maker(timing))
    }

    /// Opens those that are there.
    pub(crate) fn authorities_existing(store: Box<dyn Store>, timing: Timing) -> Result<Self, KeysError> {
        Self::existing(store, timing, maker(timing))
    }

    /// Opens the root of the issuer's own certificate, or makes it.
    pub(crate) fn root(store: Box<dyn Store>) -> Result<Self, KeysError> {
        Self::authorities(store, ROOT)
    }

    /// The certificates of all that may have signed what is in use, in PEM, and how many seconds they may be kept.
    pub(crate) fn bundle(&self, now: i64) -> (String, i64) {
        let ring = self.ring();
        let certificates = ring.published(now).map(|authority| authority.stored.certificate.trim_end());
        let pem = certificates.fold(String::new(), |pem, certificate| pem + certificate + "\n");
        (pem, ring.timing().max_age())
    }
}

impl Authority {
    /// Signs a certificate for a key. It does not outlive the authority.
    pub(crate) fn sign(&self, key: &impl PublicKeyData, leaf: Leaf, now: i64) -> Result<Issued, SignError> {
        let serial = random::<SERIAL>()?;
        let mut params = params(now.saturating_sub(BACKDATED), leaf.not_after.min(self.not_after), &serial)?;
        params.distinguished_name.push(DnType::OrganizationName, "Sidegate");
        params.subject_alt_names = leaf.names;
        params.use_authority_key_identifier_extension = true;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        if leaf.client {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ClientAuth);
        }
        let certificate = params.signed_by(key, &self.issuer).map_err(|_| SignError)?;
        Ok(Issued { pem: certificate.pem(), serial: hex(&serial), thumbprint: Thumbprint::of(certificate.der()) })
    }
}

/// A certificate could not be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the certificate could not be made")]
pub(crate) struct SignError;

impl Dated for Authority {
    fn created_at(&self) -> i64 {
        self.stored.created_at
    }

    fn id(&self) -> &str {
        &self.stored.name
    }

    fn good_until(&self) -> i64 {
        self.not_after
    }
}

impl Entry for Authority {
    type Stored = StoredAuthority;
    const WHAT: &'static str = "certificate authorities";

    /// Certificate, name and key must be one another's: a mix-up would sign what nobody accepts.
    fn read(stored: StoredAuthority) -> Result<Self, &'static str> {
        let key = STANDARD.decode(&stored.private_key).map_err(|_| "a key is no base64")?;
        let key = KeyPair::from_pkcs8_der_and_sign_algo(&PrivatePkcs8KeyDer::from(key), &PKCS_ECDSA_P256_SHA256)
            .map_err(|_| "a key is no P-256 key")?;
        let der = CertificateDer::from_pem_slice(stored.certificate.as_bytes());
        let der = der.map_err(|_| "a certificate is no PEM")?;
        let (_, certificate) = X509Certificate::from_der(&der).map_err(|_| "a certificate is malformed")?;
        if certificate.public_key().subject_public_key.data != key.public_key_raw() {
            return Err("a certificate is not that of its key");
        }
        let names: Vec<_> = certificate.subject().iter_common_name().filter_map(|name| name.as_str().ok()).collect();
        if names != [stored.name.as_str()] || !certificate.is_ca() {
            return Err("a certificate is not that of an authority of its name");
        }
        let not_after = certificate.validity().not_after.timestamp();
        Ok(Self {
            issuer: Issuer::new(of_authority(&stored.name, CertificateParams::default()), key),
            stored,
            not_after,
        })
    }

    fn stored(&self) -> &StoredAuthority {
        &self.stored
    }
}

/// Makes authorities that live as long as they are needed: to their rotation, until the next one signs, until the last of
/// what they signed has ended.
fn maker(timing: Timing) -> impl Fn(i64) -> Result<StoredAuthority, KeysError> {
    let Timing { period, lead, life } = timing;
    move |created_at| {
        let not_after = created_at.saturating_add(period + lead + life + SLACK);
        generate(created_at, not_after)
            .map_err(|_| KeysError::Making("the system gives no randomness, or its clock is far off"))
    }
}

fn generate(created_at: i64, not_after: i64) -> Result<StoredAuthority, SignError> {
    let name = format!("Sidegate authority {}", URL_SAFE_NO_PAD.encode(random::<6>()?));
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|_| SignError)?;
    // An hour back: whoever's clock is later than that will be told so in other ways.
    let params = params(created_at.saturating_sub(3600), not_after, &random::<SERIAL>()?)?;
    let certificate: Certificate = of_authority(&name, params).self_signed(&key).map_err(|_| SignError)?;
    Ok(StoredAuthority {
        name,
        created_at,
        certificate: certificate.pem(),
        private_key: STANDARD.encode(key.serialized_der()),
    })
}

fn of_authority(name: &str, mut params: CertificateParams) -> CertificateParams {
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn params(not_before: i64, not_after: i64, serial: &[u8]) -> Result<CertificateParams, SignError> {
    let time = |seconds| OffsetDateTime::from_unix_timestamp(seconds).map_err(|_| SignError);
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    (params.not_before, params.not_after) = (time(not_before)?, time(not_after)?);
    params.serial_number = Some(SerialNumber::from_slice(serial));
    Ok(params)
}

/// The first bit is clear, so that a serial number is positive as it stands; the second set, so that none begins with zeros.
fn random<const N: usize>() -> Result<[u8; N], SignError> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| SignError)?;
    if let Some(first) = bytes.first_mut() {
        *first = (*first & 0x7f) | 0x40;
    }
    Ok(bytes)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::store::file::FileStore;
    use super::*;

    const TIMING: Timing = Timing { period: 1000, lead: 100, life: 60 };

    fn age(path: &Path, created_at: i64, not_after: i64) {
        let stored = generate(created_at, not_after).unwrap();
        let text = serde_json::json!({"version": 2, "keys": [stored]}).to_string();
        runtime::secret::write(path, text.as_bytes()).unwrap();
    }

    #[test]
    fn an_authority_that_ended_while_nobody_was_there_is_replaced_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let (path, now) = (directory.path().join("authority.json"), runtime::clock::now());
        age(&path, now - 5000, now - 10);
        let authorities = Authorities::authorities(Box::new(FileStore::new(&path)), TIMING).unwrap();
        let ring = authorities.ring();
        assert!(ring.active(now).good_until() > now && ring.published(now).count() == 1);
    }

    #[test]
    fn one_that_will_end_soon_gets_a_successor_though_it_is_young() {
        let directory = tempfile::tempdir().unwrap();
        let (path, now) = (directory.path().join("authority.json"), runtime::clock::now());
        age(&path, now - 10, now + 120);
        let authorities = Authorities::authorities(Box::new(FileStore::new(&path)), TIMING).unwrap();
        let ring = authorities.ring();
        assert!(ring.pending(now).is_some() && ring.active(now).created_at() == now - 10);
        let key = KeyPair::generate().unwrap();
        let leaf = Leaf { names: vec![], not_after: now + 3600, client: true };
        let issued = ring.active(now).sign(&key, leaf, now).unwrap();
        let der = CertificateDer::from_pem_slice(issued.pem.as_bytes()).unwrap();
        let (_, certificate) = X509Certificate::from_der(&der).unwrap();
        assert_eq!(certificate.validity().not_after.timestamp(), now + 120, "nothing outlives its authority");
    }

    #[test]
    fn what_does_not_belong_together_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("authority.json");
        let (one, two) = (generate(1, 1000).unwrap(), generate(1, 1000).unwrap());
        let other_key = StoredAuthority { private_key: two.private_key.clone(), ..generate(1, 1000).unwrap() };
        let other_name = StoredAuthority { name: two.name, ..generate(1, 1000).unwrap() };
        let no_authority = StoredAuthority { certificate: "x".to_owned(), ..one };
        for stored in [other_key, other_name, no_authority] {
            let text = serde_json::json!({"version": 2, "keys": [stored]}).to_string();
            runtime::secret::write(&path, text.as_bytes()).unwrap();
            assert!(matches!(
                Authorities::authorities(Box::new(FileStore::new(&path)), TIMING),
                Err(KeysError::Damaged { .. })
            ));
        }
    }
}
