//! TLS by rustls with aws-lc: configurations from PEM files, followed when the files change (cert-manager renews them
//! in place), and errors that name the file.
//!
//! Absent on purpose: the choice of what is served behind it, and certificates from the issuer.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use crate::secret;

mod renew;

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
    secret::warn_if_exposed(key);
    let resolver = renew::Certificate::follow(certificate, key)?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .with_no_client_auth()
        .with_cert_resolver(resolver);
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Ok(Arc::new(config))
}

/// For connections to other sidecars and the issuer: TLS 1.3 only, trusting exactly the authorities in `authorities`;
/// these too are read again when the file changes.
pub fn client_config(authorities: &Path, alpn: &[&[u8]]) -> Result<Arc<ClientConfig>, TlsError> {
    let verifier = renew::Authorities::follow(authorities)?;
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Ok(Arc::new(config))
}

fn certified_key(certificate: &Path, key: &Path) -> Result<CertifiedKey, TlsError> {
    let chain = certificates(certificate)?;
    let private = PrivateKeyDer::from_pem_slice(&secret::read_bytes(key, MAX_PEM)?)
        .map_err(|e| wrong(key, format!("no private key in PEM found ({e}); expected -----BEGIN PRIVATE KEY-----")))?;
    let signer = provider().key_provider.load_private_key(private);
    let signer = signer.map_err(|e| wrong(key, format!("this private key is not usable: {e}")))?;
    let certified = CertifiedKey::new(chain, signer);
    match certified.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => Ok(certified),
        Err(rustls::Error::InconsistentKeys(_)) => {
            Err(TlsError::Mismatch { certificate: certificate.to_owned(), key: key.to_owned() })
        }
        Err(e) => Err(wrong(certificate, format!("this certificate is not usable: {e}"))),
    }
}

fn roots(file: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(file)? {
        roots.add(certificate).map_err(|e| wrong(file, format!("this authority is not usable: {e}")))?;
    }
    Ok(roots)
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let bytes = secret::read_bytes(file, MAX_PEM)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let chain = chain.map_err(|e| wrong(file, format!("damaged PEM: {e}")))?;
    if chain.is_empty() {
        return Err(wrong(file, "no certificate in PEM found; expected -----BEGIN CERTIFICATE-----".to_owned()));
    }
    Ok(chain)
}

fn wrong(file: &Path, why: String) -> TlsError {
    TlsError::File { file: file.to_owned(), why }
}

#[cfg(test)]
mod tests;
