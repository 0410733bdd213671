//! Certificates as names: what a token is bound to (RFC 8705 §3.1), and who a workload says it is (SPIFFE).
//!
//! Deliberately absent: whether a certificate is to be believed. Its chain, times and purposes are TLS's to check
//! (`runtime`), before anything here is asked.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::oid_registry::OID_X509_EXT_SUBJECT_ALT_NAME;
use x509_parser::prelude::FromDer as _;

use crate::names::{NameError, Subject, is_dns_name, serde_as_text};
use crate::time::UnixTime;

/// How every SPIFFE ID begins.
const SPIFFE_SCHEME: &str = "spiffe://";
/// The tag of a URI among a certificate's names (RFC 5280 §4.2.1.6).
const URI_TAG: u32 = 6;

/// The SHA-256 of a whole certificate, its signature included: another certificate for the same key has another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Thumbprint([u8; 32]);

impl Thumbprint {
    /// That of a certificate in DER.
    #[must_use]
    pub fn of(der: &[u8]) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest(&SHA256, der).as_ref());
        Self(bytes)
    }
}

impl fmt::Display for Thumbprint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl FromStr for Thumbprint {
    type Err = ThumbprintError;

    fn from_str(text: &str) -> Result<Self, ThumbprintError> {
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| ThumbprintError)?;
        bytes.try_into().map(Self).map_err(|_| ThumbprintError)
    }
}

serde_as_text!(Thumbprint);

/// A text is no thumbprint. It does not repeat the text: that may come from anyone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a certificate's thumbprint is 32 bytes, written in 43 characters of base64url without padding")]
pub struct ThumbprintError;

/// A workload's name: `spiffe://{trust domain}/ns/{namespace}/sa/{service account}`, and no other spelling of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpiffeId {
    /// The authority under which the name means something.
    pub trust_domain: String,
    /// The Kubernetes namespace.
    pub namespace: String,
    /// The service account's name within it.
    pub service_account: String,
}

/// Why a text is no SPIFFE ID of a service account. It does not repeat the text: that may come from anyone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SpiffeError {
    /// Not of the form `spiffe://trust.domain/ns/namespace/sa/name`.
    #[error("a workload is written spiffe://trust.domain/ns/namespace/sa/service-account")]
    Shape,
    /// The trust domain is no DNS name in lower case.
    #[error("a trust domain is a DNS name in lower case, like cluster.local")]
    TrustDomain,
    /// Its namespace or service account is none.
    #[error(transparent)]
    Name(#[from] NameError),
}

impl SpiffeId {
    /// The name of a service account in a trust domain.
    ///
    /// # Errors
    /// When the trust domain is no DNS name in lower case.
    pub fn new(trust_domain: &str, subject: Subject) -> Result<Self, SpiffeError> {
        check_trust_domain(trust_domain)?;
        let Subject { namespace, service_account } = subject;
        Ok(Self { trust_domain: trust_domain.to_owned(), namespace, service_account })
    }

    /// The service account.
    #[must_use]
    pub fn subject(&self) -> Subject {
        Subject { namespace: self.namespace.clone(), service_account: self.service_account.clone() }
    }
}

/// Whether a text can be a trust domain.
///
/// # Errors
/// When it is no DNS name in lower case.
pub fn check_trust_domain(text: &str) -> Result<(), SpiffeError> {
    if is_dns_name(text) { Ok(()) } else { Err(SpiffeError::TrustDomain) }
}

impl FromStr for SpiffeId {
    type Err = SpiffeError;

    fn from_str(text: &str) -> Result<Self, SpiffeError> {
        let rest = text.strip_prefix(SPIFFE_SCHEME).ok_or(SpiffeError::Shape)?;
        let parts: Vec<&str> = rest.split('/').collect();
        match parts.as_slice() {
            [trust_domain, "ns", namespace, "sa", account] => {
                Self::new(trust_domain, Subject::new(namespace, account)?)
            }
            _ => Err(SpiffeError::Shape),
        }
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { trust_domain, namespace, service_account } = self;
        write!(formatter, "{SPIFFE_SCHEME}{trust_domain}/ns/{namespace}/sa/{service_account}")
    }
}

serde_as_text!(SpiffeId);

/// Why a certificate names no workload that could be understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// Not X.509, or its names are damaged.
    #[error("the certificate is malformed")]
    Malformed,
    /// It has several URIs: by which is it to be known? (SPIFFE X.509-SVID §2 allows one.)
    #[error("the certificate names more than one URI")]
    Ambiguous,
    /// Its one URI is no name of a service account.
    #[error("the certificate's URI is not understood: {0}")]
    Uri(#[from] SpiffeError),
}

/// The last second of a certificate's life.
///
/// # Errors
/// When it is no certificate.
pub fn not_after_of(der: &[u8]) -> Result<UnixTime, CertificateError> {
    Ok(UnixTime(read(der)?.validity().not_after.timestamp()))
}

/// The workload that a certificate names; none, if it has no URI among its names.
///
/// # Errors
/// When its names are damaged, ambiguous, or of a form that is not understood: what is not understood is not taken for
/// absent.
pub fn spiffe_id_of(der: &[u8]) -> Result<Option<SpiffeId>, CertificateError> {
    let certificate = read(der)?;
    let names = certificate.get_extension_unique(&OID_X509_EXT_SUBJECT_ALT_NAME);
    let names = match names.map_err(|_| CertificateError::Malformed)?.map(|extension| extension.parsed_extension()) {
        None => return Ok(None),
        Some(ParsedExtension::SubjectAlternativeName(names)) => names,
        Some(_) => return Err(CertificateError::Malformed),
    };
    let uris = names.general_names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some(Ok(*uri)),
        GeneralName::Invalid(tag, _) if tag.0 == URI_TAG => Some(Err(CertificateError::Malformed)),
        _ => None,
    });
    let uris: Vec<&str> = uris.collect::<Result<_, _>>()?;
    match uris.as_slice() {
        [] => Ok(None),
        [uri] => Ok(Some(uri.parse()?)),
        _ => Err(CertificateError::Ambiguous),
    }
}

/// One certificate and nothing behind it.
fn read(der: &[u8]) -> Result<X509Certificate<'_>, CertificateError> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        _ => Err(CertificateError::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, SanType};

    use super::*;

    fn certificate(names: &[SanType]) -> Vec<u8> {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.subject_alt_names = names.to_vec();
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    fn uri(text: &str) -> SanType {
        SanType::URI(text.try_into().unwrap())
    }

    #[test]
    fn a_thumbprint_reads_back_as_written_and_in_no_other_spelling() {
        // That of the empty text, which every implementation of SHA-256 names in its tests.
        let text = "47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU";
        assert_eq!(Thumbprint::of(b"").to_string(), text);
        assert_eq!(text.parse(), Ok(Thumbprint::of(b"")));
        let json = serde_json::to_string(&Thumbprint::of(b"")).unwrap();
        assert_eq!(serde_json::from_str::<Thumbprint>(&json).unwrap(), Thumbprint::of(b""));
        for other in [
            "",
            "47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU=",
            "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU",
            "47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFV",
            "47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuF",
            "47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFUAA",
            " 47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU",
        ] {
            assert_eq!(other.parse::<Thumbprint>(), Err(ThumbprintError), "{other}");
        }
    }

    #[test]
    fn a_workload_reads_back_as_written() {
        let text = "spiffe://cluster.local/ns/postgres-b/sa/my.account";
        let id: SpiffeId = text.parse().unwrap();
        assert_eq!((id.trust_domain.as_str(), id.to_string().as_str()), ("cluster.local", text));
        assert_eq!(id.subject().to_string(), "system:serviceaccount:postgres-b:my.account");
    }

    const NOT_OURS: [&str; 20] = [
        "spiffe://cluster.local",
        "spiffe://cluster.local/",
        "spiffe://cluster.local/ns/a/sa",
        "spiffe://cluster.local/ns/a/sa/",
        "spiffe://cluster.local/ns/a/sa/b/",
        "spiffe://cluster.local/ns/a/sa/b/c",
        "spiffe://cluster.local//ns/a/sa/b",
        "spiffe://cluster.local/sa/b/ns/a",
        "spiffe://cluster.local/ns/a/sa/b?x",
        "spiffe://cluster.local/ns/a/sa/b#x",
        "spiffe://cluster.local/ns/a/sa/%62",
        "spiffe://cluster.local/ns/a/../sa/b",
        "spiffe://cluster.local/ns/A/sa/b",
        "spiffe://Cluster.local/ns/a/sa/b",
        "spiffe://user@cluster.local/ns/a/sa/b",
        "spiffe://cluster.local:1/ns/a/sa/b",
        "spiffe:///ns/a/sa/b",
        "SPIFFE://cluster.local/ns/a/sa/b",
        "https://cluster.local/ns/a/sa/b",
        "",
    ];

    #[test]
    fn other_spellings_are_no_workload_neither_as_text_nor_in_a_certificate() {
        for text in NOT_OURS {
            assert!(text.parse::<SpiffeId>().is_err(), "{text}");
            let found = spiffe_id_of(&certificate(&[uri(text)]));
            assert!(matches!(found, Err(CertificateError::Uri(_))), "{text}: {found:?}");
        }
    }

    #[test]
    fn a_certificate_names_one_workload_or_none() {
        let (one, dns) = ("spiffe://cluster.local/ns/a/sa/b", SanType::DnsName("b.a".try_into().unwrap()));
        assert_eq!(spiffe_id_of(&certificate(&[dns.clone(), uri(one)])), Ok(Some(one.parse().unwrap())));
        assert_eq!(spiffe_id_of(&certificate(&[dns])), Ok(None));
        assert_eq!(spiffe_id_of(&certificate(&[])), Ok(None));
        for second in [one, "spiffe://cluster.local/ns/a/sa/c", "https://a.test"] {
            assert_eq!(spiffe_id_of(&certificate(&[uri(one), uri(second)])), Err(CertificateError::Ambiguous));
        }
    }

    #[test]
    fn a_certificate_says_when_its_life_ends() {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.not_after = rcgen::date_time_ymd(2030, 1, 2);
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        assert_eq!(not_after_of(certificate.der()), Ok(UnixTime(1_893_542_400)));
    }

    #[test]
    fn what_is_no_certificate_names_nobody() {
        let good = certificate(&[uri("spiffe://cluster.local/ns/a/sa/b")]);
        let longer = [good.as_slice(), b"x"].concat();
        let mut damaged = good.clone();
        let place = damaged.windows(9).position(|bytes| bytes == b"spiffe://").unwrap();
        damaged[place] = 0xff;
        for bytes in [&b""[..], b"x", &good[..good.len() - 1], &longer, &damaged] {
            assert_eq!(spiffe_id_of(bytes), Err(CertificateError::Malformed));
        }
        for bytes in [&b""[..], &longer] {
            assert_eq!(not_after_of(bytes), Err(CertificateError::Malformed));
        }
    }
}
