//! Certificate signing requests (PKCS #10), of which one thing counts: a public key, and that who sent it holds the private
//! one. Names and extensions in it are passed over, since whoever asks has a better name than one of their own making.
//!
//! Deliberately absent: keys of kinds that nobody here uses.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA384_ASN1, ED25519, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384,
    RSA_PKCS1_2048_8192_SHA512, UnparsedPublicKey, VerificationAlgorithm,
};
use rcgen::{PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PKCS_RSA_SHA256, PublicKeyData, SignatureAlgorithm};
use rustls_pki_types::CertificateSigningRequestDer;
use rustls_pki_types::pem::PemObject as _;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::oid_registry::{
    OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_PKCS1_RSAENCRYPTION, OID_PKCS1_SHA256WITHRSA, OID_PKCS1_SHA384WITHRSA,
    OID_PKCS1_SHA512WITHRSA, OID_SIG_ECDSA_WITH_SHA256, OID_SIG_ECDSA_WITH_SHA384, OID_SIG_ED25519, Oid,
};
use x509_parser::prelude::FromDer as _;
use x509_parser::x509::SubjectPublicKeyInfo;

/// How PEM begins; DER begins with a SEQUENCE.
const PEM: &[u8] = b"-----BEGIN ";
/// An uncompressed point of P-256, and how it begins.
const P256_POINT: usize = 65;
const UNCOMPRESSED: u8 = 4;
const ED25519_KEY: usize = 32;

/// Why a request is not signed. It repeats nothing of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CsrError {
    #[error("this is no certificate signing request: send PKCS #10, as DER or PEM")]
    Malformed,
    #[error("the key must be of P-256 or Ed25519, or RSA with 2048 to 8192 bits")]
    Key,
    #[error("the request is not signed with its own key, by ECDSA, Ed25519 or RSA PKCS #1 with SHA-2")]
    Signature,
}

/// A public key whose private half the sender holds.
pub(crate) struct ProvenKey {
    kind: Kind,
    bytes: Vec<u8>,
}

#[derive(Clone, Copy)]
enum Kind {
    P256,
    Ed25519,
    Rsa,
}

impl ProvenKey {
    pub(crate) fn of_request(bytes: &[u8]) -> Result<Self, CsrError> {
        let der = match bytes.trim_ascii_start().starts_with(PEM) {
            true => CertificateSigningRequestDer::from_pem_slice(bytes).map_err(|_| CsrError::Malformed)?,
            false => CertificateSigningRequestDer::from(bytes),
        };
        let (rest, request) = X509CertificationRequest::from_der(&der).map_err(|_| CsrError::Malformed)?;
        if !rest.is_empty() {
            return Err(CsrError::Malformed);
        }
        let info = &request.certification_request_info;
        let key = Self::of(&info.subject_pki).ok_or(CsrError::Key)?;
        let algorithm = key.kind.verification(&request.signature_algorithm.algorithm).ok_or(CsrError::Signature)?;
        UnparsedPublicKey::new(algorithm, &key.bytes)
            .verify(info.raw, &request.signature_value.data)
            .map_err(|_| CsrError::Signature)?;
        Ok(key)
    }

    fn of(info: &SubjectPublicKeyInfo<'_>) -> Option<Self> {
        let (algorithm, bytes) = (&info.algorithm.algorithm, &info.subject_public_key.data);
        let curve = || info.algorithm.parameters.as_ref().and_then(|parameters| parameters.as_oid().ok());
        let kind = if *algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY {
            let sound = bytes.len() == P256_POINT && bytes.first() == Some(&UNCOMPRESSED);
            (sound && curve() == Some(OID_EC_P256)).then_some(Kind::P256)
        } else if *algorithm == OID_SIG_ED25519 {
            (bytes.len() == ED25519_KEY).then_some(Kind::Ed25519)
        } else {
            // Too short and too long ones fail where the signature is checked.
            (*algorithm == OID_PKCS1_RSAENCRYPTION).then_some(Kind::Rsa)
        }?;
        Some(Self { kind, bytes: bytes.to_vec() })
    }
}

impl Kind {
    fn verification(self, signature: &Oid<'_>) -> Option<&'static dyn VerificationAlgorithm> {
        let known: &[(Oid<'_>, &'static dyn VerificationAlgorithm)] = match self {
            Self::P256 => &[
                (OID_SIG_ECDSA_WITH_SHA256, &ECDSA_P256_SHA256_ASN1),
                (OID_SIG_ECDSA_WITH_SHA384, &ECDSA_P256_SHA384_ASN1),
            ],
            Self::Ed25519 => &[(OID_SIG_ED25519, &ED25519)],
            Self::Rsa => &[
                (OID_PKCS1_SHA256WITHRSA, &RSA_PKCS1_2048_8192_SHA256),
                (OID_PKCS1_SHA384WITHRSA, &RSA_PKCS1_2048_8192_SHA384),
                (OID_PKCS1_SHA512WITHRSA, &RSA_PKCS1_2048_8192_SHA512),
            ],
        };
        known.iter().find(|(name, _)| name == signature).map(|(_, algorithm)| *algorithm)
    }
}

impl PublicKeyData for ProvenKey {
    fn der_bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        match self.kind {
            Kind::P256 => &PKCS_ECDSA_P256_SHA256,
            Kind::Ed25519 => &PKCS_ED25519,
            Kind::Rsa => &PKCS_RSA_SHA256,
        }
    }
}
