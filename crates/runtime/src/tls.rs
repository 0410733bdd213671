//! TLS by rustls with aws-lc: configurations from PEM files, followed when the files change (cert-manager renews them
//! in place), and errors that name the file.
//!
//! Between workloads both sides show certificates (`mutual`), and who the other is, is the caller's rule.
//!
//! Absent on purpose: the choice of what is served behind it, where certificates come from, and what names in them mean.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::ResolvesServerCert;
use rustls::sign::{CertifiedKey, SigningKey};
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use crate::secret;

mod mutual;
mod renew;

pub use mutual::{Authorities, Rule, mutual_client_config, mutual_server_config, presenting};
pub use renew::{certificate_of_files, follow_certificate};

/// The largest PEM file: a bundle of all public authorities is a quarter of it.
const MAX_PEM: u64 = 1024 * 1024;

/// What is wrong with which file.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{0}")]
    Read(#[from] io::Error),
    /// A file is not what it should be.
    #[error("{}: {why}", file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// What is wrong and what would be right.
        why: String,
    },
    /// A certificate, key or authority that came from elsewhere than a file is not what it should be.
    #[error("{0}")]
    Unusable(String),
    /// Certificate and key do not belong together.
    #[error("the key in {} is not that of the certificate in {}", key.display(), certificate.display())]
    Mismatch {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// rustls refused the configuration.
    #[error("TLS cannot be set up: {0}")]
    Rustls(#[from] rustls::Error),
}

/// The cryptography of every configuration here.
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// Makes it the process's default, for libraries that ask for one. Fine to call again.
pub fn install_crypto_provider() {
    // An error means that one is installed already.
    let _ = aws_lc_rs::default_provider().install_default();
}

/// For listeners: TLS 1.3, and 1.2 for plain clients that have no better. Certificate and key are read again when the
/// files change, as long as the configuration is in use.
pub fn server_config(certificate: &Path, key: &Path, alpn: &[&[u8]]) -> Result<Arc<ServerConfig>, TlsError> {
    server_config_showing(certificate_of_files(certificate, key)?, alpn)
}

/// The same, with a certificate that comes from elsewhere.
///
/// # Errors
/// None that is known.
pub fn server_config_showing(own: Arc<dyn ResolvesServerCert>, alpn: &[&[u8]]) -> Result<Arc<ServerConfig>, TlsError> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .with_no_client_auth()
        .with_cert_resolver(own);
    config.alpn_protocols = names(alpn);
    Ok(Arc::new(config))
}

/// For connections to other sidecars and the issuer: TLS 1.3 only, trusting exactly the authorities in `authorities`;
/// these too are read again when the file changes, which is why sessions are not resumed (`mutual` says more).
pub fn client_config(authorities: &Path, alpn: &[&[u8]]) -> Result<Arc<ClientConfig>, TlsError> {
    let verifier = renew::Vouchers::follow(authorities)?;
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.alpn_protocols = names(alpn);
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// A certificate (PEM, leaf first) and its key, ready to be shown.
///
/// # Errors
/// When one of them cannot be used, or they do not belong together.
pub fn certified_key(certificate: &[u8], key: PrivateKeyDer<'static>) -> Result<Arc<CertifiedKey>, TlsError> {
    let chain = certificates(certificate).map_err(TlsError::Unusable)?;
    Ok(matched(chain, provider().key_provider.load_private_key(key)?)?)
}

fn certified_key_of_files(certificate: &Path, key: &Path) -> Result<Arc<CertifiedKey>, TlsError> {
    let chain = certificates(&secret::read_bytes(certificate, MAX_PEM)?).map_err(|why| wrong(certificate, why))?;
    let private = PrivateKeyDer::from_pem_slice(&secret::read_bytes(key, MAX_PEM)?)
        .map_err(|e| wrong(key, format!("no private key in PEM found ({e}); expected -----BEGIN PRIVATE KEY-----")))?;
    let signer = provider().key_provider.load_private_key(private);
    let signer = signer.map_err(|e| wrong(key, format!("this private key is not usable: {e}")))?;
    matched(chain, signer).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => {
            TlsError::Mismatch { certificate: certificate.to_owned(), key: key.to_owned() }
        }
        e => wrong(certificate, format!("this certificate is not usable: {e}")),
    })
}

/// A certificate with its own key, not another's.
fn matched(
    chain: Vec<CertificateDer<'static>>,
    signer: Arc<dyn SigningKey>,
) -> Result<Arc<CertifiedKey>, rustls::Error> {
    let certified = CertifiedKey::new(chain, signer);
    match certified.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => Ok(Arc::new(certified)),
        Err(error) => Err(error),
    }
}

fn roots_of_file(file: &Path) -> Result<RootCertStore, TlsError> {
    roots(&secret::read_bytes(file, MAX_PEM)?).map_err(|why| wrong(file, why))
}

fn roots(pem: &[u8]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem)? {
        roots.add(certificate).map_err(|e| format!("this authority is not usable: {e}"))?;
    }
    Ok(roots)
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let chain = chain.map_err(|e| format!("damaged PEM: {e}"))?;
    match chain.is_empty() {
        true => Err("no certificate in PEM found; expected -----BEGIN CERTIFICATE-----".to_owned()),
        false => Ok(chain),
    }
}

fn names(alpn: &[&[u8]]) -> Vec<Vec<u8>> {
    alpn.iter().map(|name| name.to_vec()).collect()
}

fn wrong(file: &Path, why: String) -> TlsError {
    TlsError::File { file: file.to_owned(), why }
}

#[cfg(test)]
mod tests;
