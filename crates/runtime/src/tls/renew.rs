//! Certificates and authorities that follow their files. A change that cannot be used leaves the last good one in
//! force, loudly. The thread that looks ends with the configuration it serves.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{DigitallySignedStruct, Error, SignatureScheme};
use tokio::sync::watch;

use super::{Authorities, MAX_PEM, TlsError, certified_key_of_files, provider, roots_of_file};
use crate::secret;

/// Renewals come long before the old certificate expires: looking this often is plenty, and needs no events.
const LOOK: Duration = Duration::from_secs(1);

/// A listener's certificate, read again when its files change, as long as it is in use.
///
/// # Errors
/// When the files cannot be used now.
pub fn certificate_of_files(certificate: &Path, key: &Path) -> Result<Arc<dyn ResolvesServerCert>, TlsError> {
    let newest = follow_certificate(certificate, key, |read| read.map_err(|error| error.to_string()))?;
    Ok(Arc::new(Newest(newest)))
}

/// Follows a certificate and its key: the receiver has what `take` made of the newest that it could use. Between the
/// exchange of one file and of the other they do not belong together, and the last good pair stays.
///
/// # Errors
/// When the files cannot be used now.
pub fn follow_certificate<T: Send + Sync + 'static>(
    certificate: &Path,
    key: &Path,
    take: impl Fn(Result<Arc<CertifiedKey>, TlsError>) -> Result<T, String> + Send + 'static,
) -> Result<watch::Receiver<T>, TlsError> {
    secret::warn_if_exposed(key);
    let files = [certificate.to_owned(), key.to_owned()];
    let stamp = stamp(&files);
    let first = take(Ok(certified_key_of_files(certificate, key)?)).map_err(|why| super::wrong(certificate, why))?;
    let (sender, newest) = watch::channel(first);
    let sender = Arc::new(sender);
    let unused = sender.clone();
    let renew = move |[certificate, key]: &[PathBuf; 2]| {
        let taken = take(certified_key_of_files(certificate, key)).map_err(TlsError::Unusable)?;
        sender.send_replace(taken);
        Ok(())
    };
    follow(files, stamp, move || !unused.is_closed(), renew)?;
    Ok(newest)
}

/// Shows the newest certificate.
#[derive(Debug)]
struct Newest(watch::Receiver<Arc<CertifiedKey>>);

impl ResolvesServerCert for Newest {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.borrow().clone())
    }
}

/// Has the authorities that may vouch for workloads follow a file, as long as they are in use.
pub(super) fn follow_authorities(authorities: &Authorities, file: &Path) -> Result<(), TlsError> {
    let files = [file.to_owned()];
    let stamp = stamp(&files);
    authorities.replace_by_file(file)?;
    let (weak, unused) = (authorities.downgrade(), authorities.downgrade());
    let renew = move |[file]: &[PathBuf; 1]| match weak.upgrade() {
        Some(authorities) => Authorities::of(authorities).replace_by_file(file),
        None => Ok(()),
    };
    follow(files, stamp, move || unused.strong_count() > 0, renew)
}

/// The authorities that a client trusts: rustls's own verifier, exchanged as a whole when the file changes.
#[derive(Debug)]
pub(super) struct Vouchers(RwLock<Arc<WebPkiServerVerifier>>);

impl Vouchers {
    pub(super) fn follow(file: &Path) -> Result<Arc<Self>, TlsError> {
        let files = [file.to_owned()];
        let stamp = stamp(&files);
        let this = Arc::new(Self(RwLock::new(verifier(file)?)));
        let (weak, unused) = (Arc::downgrade(&this), Arc::downgrade(&this));
        let renew = move |[file]: &[PathBuf; 1]| {
            let new = verifier(file)?;
            if let Some(this) = weak.upgrade() {
                *this.0.write() = new;
            }
            Ok(())
        };
        follow(files, stamp, move || unused.strong_count() > 0, renew)?;
        Ok(this)
    }

    fn current(&self) -> Arc<WebPkiServerVerifier> {
        self.0.read().clone()
    }
}

fn verifier(file: &Path) -> Result<Arc<WebPkiServerVerifier>, TlsError> {
    let builder = WebPkiServerVerifier::builder_with_provider(Arc::new(roots_of_file(file)?), provider());
    builder.build().map_err(|e| super::wrong(file, e.to_string()))
}

impl ServerCertVerifier for Vouchers {
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

fn follow<const N: usize>(
    files: [PathBuf; N],
    mut last: [Option<Vec<u8>>; N],
    in_use: impl Fn() -> bool + Send + 'static,
    renew: impl Fn(&[PathBuf; N]) -> Result<(), TlsError> + Send + 'static,
) -> Result<(), TlsError> {
    let look = move || {
        while {
            std::thread::sleep(LOOK);
            in_use()
        } {
            let now = stamp(&files);
            if now != last {
                match renew(&files) {
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
