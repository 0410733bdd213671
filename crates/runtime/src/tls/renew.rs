//! Certificates and authorities that follow their files. A change that cannot be used leaves the last good one in
//! force, loudly. The thread that looks ends with the configuration it serves.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::RwLock;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{DigitallySignedStruct, Error, SignatureScheme};

use super::{MAX_PEM, TlsError, certified_key, provider, roots};
use crate::secret;

/// Renewals come long before the old certificate expires: looking this often is plenty, and needs no events.
const LOOK: Duration = Duration::from_secs(1);

/// A listener's certificate.
#[derive(Debug)]
pub(super) struct Certificate(RwLock<Arc<CertifiedKey>>);

impl Certificate {
    pub(super) fn follow(certificate: &Path, key: &Path) -> Result<Arc<Self>, TlsError> {
        let files = [certificate.to_owned(), key.to_owned()];
        let stamp = stamp(&files);
        let this = Arc::new(Self(RwLock::new(Arc::new(certified_key(certificate, key)?))));
        follow(&this, files, stamp, |this, [certificate, key]| {
            *this.0.write() = Arc::new(certified_key(certificate, key)?);
            Ok(())
        })?;
        Ok(this)
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.read().clone())
    }
}

/// The authorities that a client trusts: rustls's own verifier, exchanged as a whole when the file changes.
#[derive(Debug)]
pub(super) struct Authorities(RwLock<Arc<WebPkiServerVerifier>>);

impl Authorities {
    pub(super) fn follow(file: &Path) -> Result<Arc<Self>, TlsError> {
        let files = [file.to_owned()];
        let stamp = stamp(&files);
        let this = Arc::new(Self(RwLock::new(verifier(file)?)));
        follow(&this, files, stamp, |this, [file]| {
            *this.0.write() = verifier(file)?;
            Ok(())
        })?;
        Ok(this)
    }

    fn current(&self) -> Arc<WebPkiServerVerifier> {
        self.0.read().clone()
    }
}

fn verifier(file: &Path) -> Result<Arc<WebPkiServerVerifier>, TlsError> {
    let builder = WebPkiServerVerifier::builder_with_provider(Arc::new(roots(file)?), provider());
    builder.build().map_err(|e| super::wrong(file, e.to_string()))
}

impl ServerCertVerifier for Authorities {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.current().verify_server_cert(end_entity, intermediates, name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.current().verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.current().verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.current().supported_verify_schemes()
    }
}

/// The bytes themselves: a few kilobytes a second are cheaper than being wrong about time stamps.
fn stamp<const N: usize>(files: &[PathBuf; N]) -> [Option<Vec<u8>>; N] {
    std::array::from_fn(|i| files.get(i).and_then(|file| secret::read_bytes(file, MAX_PEM).ok()))
}

fn follow<T: Send + Sync + 'static, const N: usize>(
    this: &Arc<T>,
    files: [PathBuf; N],
    mut last: [Option<Vec<u8>>; N],
    renew: impl Fn(&T, &[PathBuf; N]) -> Result<(), TlsError> + Send + 'static,
) -> Result<(), TlsError> {
    let weak: Weak<T> = Arc::downgrade(this);
    let look = move || {
        while let Some(this) = {
            std::thread::sleep(LOOK);
            weak.upgrade()
        } {
            let now = stamp(&files);
            if now != last {
                match renew(&this, &files) {
                    Ok(()) => tracing::info!(?files, "renewed"),
                    Err(error) => tracing::error!(%error, "a changed TLS file cannot be used, the last good one stays"),
                }
                last = now;
            }
        }
    };
    std::thread::Builder::new().name("tls-files".into()).spawn(look)?;
    Ok(())
}
