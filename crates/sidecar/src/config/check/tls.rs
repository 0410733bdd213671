//! Certificates: the pod's own, a listener's, and how a target proves itself.
//!
//! Deliberately absent: a look into the files, which `serve` takes.

use identity::certificate::{SpiffeId, check_trust_domain};
use identity::{ServiceName, Subject};
use runtime::listen::Address;

use super::Check;
use super::raw::{self, Source};
use crate::config::{CertificateSource, Certificates, ClientTls, InboundTls, ServerTls, TargetTls};

/// The trust domain where none is written: the usual name of a cluster.
const TRUST_DOMAIN: &str = "cluster.local";

impl Check {
    pub(super) fn certificates(&mut self, raw: raw::Certificates, issuer: &raw::Issuer) -> Option<Certificates> {
        let trust_domain = raw.trust_domain.clone().unwrap_or_else(|| TRUST_DOMAIN.to_owned());
        if let Err(error) = check_trust_domain(&trust_domain) {
            self.fail(format!("certificates.trust_domain: {error}"));
        }
        self.trust_domain = Some(trust_domain.clone());
        let source = match raw.from {
            Source::Issuer => self.issuer_signed(&raw, issuer),
            Source::Files => self.kept_in_files(raw)?,
        };
        Some(Certificates { trust_domain, source })
    }

    fn issuer_signed(&mut self, raw: &raw::Certificates, issuer: &raw::Issuer) -> CertificateSource {
        let files = [
            ("certificate_file", &raw.certificate_file),
            ("key_file", &raw.key_file),
            ("trust_bundle_file", &raw.trust_bundle_file),
        ];
        for (field, _) in files.into_iter().filter(|(_, file)| file.is_some()) {
            self.fail(format!("certificates.{field}: the issuer gives it; leave it out, or write `from: files`"));
        }
        if issuer.subject_token_file.is_none() {
            self.fail("issuer.subject_token_file: needed to get certificates from the issuer");
        }
        CertificateSource::Issuer
    }

    fn kept_in_files(&mut self, raw: raw::Certificates) -> Option<CertificateSource> {
        let mut needed = |field, file: Option<_>| {
            file.or_else(|| {
                self.fail(format!("certificates.{field}: needed with `from: files`"));
                None
            })
        };
        let certificate_file = needed("certificate_file", raw.certificate_file);
        let key_file = needed("key_file", raw.key_file);
        let trust_bundle_file = needed("trust_bundle_file", raw.trust_bundle_file);
        let own = ServerTls { certificate_file: certificate_file?, key_file: key_file? };
        Some(CertificateSource::Files { own, trust_bundle_file: trust_bundle_file? })
    }

    pub(super) fn inbound_tls(
        &mut self,
        at: &str,
        raw: Option<raw::ServerTls>,
        listen: Option<&Address>,
    ) -> Option<InboundTls> {
        let has_certificates = self.trust_domain.is_some();
        match raw {
            None if listen.is_none_or(Address::is_local) => None,
            None if has_certificates => Some(InboundTls::Pod),
            None => {
                self.fail(format!(
                    "{at}.tls: needed, as the address is neither loopback nor a Unix socket and tokens must not cross a \
                     network in the clear; or let the pod have `certificates`"
                ));
                None
            }
            Some(raw::ServerTls { certificate_file: Some(certificate_file), key_file: Some(key_file) }) => {
                Some(InboundTls::Files(ServerTls { certificate_file, key_file }))
            }
            Some(raw::ServerTls { certificate_file: None, key_file: None }) => {
                if !has_certificates {
                    self.fail(format!("{at}.tls: needs certificate_file and key_file, or `certificates` of the pod"));
                }
                Some(InboundTls::Pod)
            }
            Some(_) => {
                self.fail(format!("{at}.tls: certificate_file and key_file go together"));
                None
            }
        }
    }

    pub(super) fn target_tls(
        &mut self,
        at: &str,
        raw: Option<raw::ClientTls>,
        connect: Option<&Address>,
        service: Option<&ServiceName>,
    ) -> Option<TargetTls> {
        match raw {
            None if connect.is_none_or(Address::is_local) => None,
            None if self.trust_domain.is_some() => self.workload(at, None, service),
            None => {
                self.fail(format!(
                    "{at}.tls: needed, as the address is not on this machine; or let the pod have `certificates`"
                ));
                None
            }
            Some(raw::ClientTls { service_account: None, ca_file: Some(ca_file), server_name: Some(server_name) }) => {
                Some(TargetTls::Server(ClientTls { ca_file, server_name }))
            }
            Some(raw::ClientTls { service_account, ca_file: None, server_name: None }) => {
                if self.trust_domain.is_none() {
                    self.fail(format!("{at}.tls: needs ca_file and server_name, or `certificates` of the pod"));
                }
                self.workload(at, service_account, service)
            }
            Some(_) => {
                self.fail(format!("{at}.tls: takes ca_file and server_name, or at most service_account"));
                None
            }
        }
    }

    /// The workload that stands for a service: by default the service account of the service's own name.
    fn workload(
        &mut self,
        at: &str,
        service_account: Option<String>,
        service: Option<&ServiceName>,
    ) -> Option<TargetTls> {
        let (trust_domain, service) = (self.trust_domain.clone()?, service?);
        let account = service_account.as_ref().unwrap_or(&service.name);
        let subject = Subject::new(&service.namespace, account)
            .map_err(|error| self.fail(format!("{at}.tls.service_account: {error}")))
            .ok()?;
        // That the trust domain is none was said where it is written.
        SpiffeId::new(&trust_domain, subject).ok().map(TargetTls::Workload)
    }
}
