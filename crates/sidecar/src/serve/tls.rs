//! Which certificates a listener shows and asks for, and which a dialer does.
//!
//! Deliberately absent: which certificate of the pod's a link shows. It is the one that its token is bound to, so whoever
//! has the token says it (`Dialer::with_identity`).

use std::sync::Arc;

use runtime::listen::Address;
use rustls::pki_types::ServerName;

use super::{ServeError, Shared};
use crate::certificates::Certificates;
use crate::config::{Inbound, InboundTls, Target, TargetTls};
use crate::link::Dialer;

impl Shared {
    pub(super) fn server_tls(
        &self,
        inbound: &Inbound,
        alpn: &[&[u8]],
    ) -> Result<Option<Arc<rustls::ServerConfig>>, ServeError> {
        let Some(tls) = &inbound.tls else { return Ok(None) };
        let config = match (tls, &self.certificates) {
            (InboundTls::Pod, _) => self.certificates()?.server_config(None, alpn)?,
            (InboundTls::Files(own), Some(certificates)) => certificates.server_config(Some(own), alpn)?,
            (InboundTls::Files(own), None) => runtime::tls::server_config(&own.certificate_file, &own.key_file, alpn)?,
        };
        Ok(Some(config))
    }

    pub(super) fn dialer(&self, target: &Target, alpn: &[&[u8]]) -> Result<Dialer, ServeError> {
        let tls = match &target.tls {
            None => None,
            Some(TargetTls::Server(tls)) => {
                Some((runtime::tls::client_config(&tls.ca_file, alpn)?, server_name(&tls.server_name)?))
            }
            Some(TargetTls::Workload(peer)) => {
                Some((self.certificates()?.client_config(peer, alpn)?, server_name(host_of(&target.connect))?))
            }
        };
        Ok(Dialer { address: target.connect.clone(), tls })
    }

    fn certificates(&self) -> Result<&Certificates, ServeError> {
        self.certificates.as_ref().ok_or(ServeError::NoCertificates)
    }
}

fn server_name(name: &str) -> Result<ServerName<'static>, ServeError> {
    ServerName::try_from(name.to_owned()).map_err(|_| ServeError::ServerName(name.to_owned()))
}

/// The name that is dialled, for the other side to choose by; nothing here goes by it.
fn host_of(address: &Address) -> &str {
    match address {
        Address::Unix(_) => "localhost",
        Address::Tcp(text) => {
            let host = text.rsplit_once(':').map_or(text.as_str(), |(host, _)| host);
            host.trim_start_matches('[').trim_end_matches(']')
        }
    }
}
