//! Server certificates for the links between sidecars, from an authority that is made anew at every start.

use anyhow::Context;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};

use super::files;
use super::layout::Layout;

/// The file with the authority's certificate.
pub const AUTHORITY: &str = "ca.crt";

/// The name a service's certificate bears, as in a cluster.
pub fn server_name(service: &str) -> String {
    format!("{service}.{service}.svc")
}

/// Of the listeners, for clients without a sidecar: they know an address and no name.
const ADDRESS: &str = "127.0.0.1";

/// Write the authority's certificate, and a certificate and a key for each service. The authority's own key is not kept.
pub fn issue(layout: &Layout, services: &[&str]) -> anyhow::Result<()> {
    let authority = authority().context("cannot make the demo's certificate authority")?;
    files::replace(&layout.tls(AUTHORITY), authority.pem().as_bytes(), files::PUBLIC)?;
    for service in services {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new([server_name(service), ADDRESS.into()])?;
        params.distinguished_name.push(DnType::CommonName, *service);
        params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        let certificate = params.signed_by(&key, &authority)?;
        files::replace(&layout.tls(&format!("{service}.crt")), certificate.pem().as_bytes(), files::PUBLIC)?;
        files::replace(&layout.tls(&format!("{service}.key")), key.serialize_pem().as_bytes(), files::PRIVATE)?;
    }
    Ok(())
}

fn authority() -> Result<CertifiedIssuer<'static, KeyPair>, rcgen::Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "Sidegate demo");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    CertifiedIssuer::self_signed(params, KeyPair::generate()?)
}
