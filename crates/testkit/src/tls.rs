//! Connections to what the demo listens on, with TLS as a client without a sidecar has it.

use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

/// How long an answer may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// Connects to `host:port`, whatever path follows, and trusts `ca_file`. The demo's certificates bear the address.
pub fn connect(address: &str, ca_file: &Path, alpn: &[&[u8]]) -> StreamOwned<ClientConnection, TcpStream> {
    let mut authorities = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca_file).expect("the demo's authority") {
        authorities.add(certificate.expect("a certificate")).expect("an authority");
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let mut config = builder.expect("TLS versions").with_root_certificates(authorities).with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    let name = ServerName::try_from("127.0.0.1").expect("an address");
    StreamOwned::new(ClientConnection::new(Arc::new(config), name).expect("TLS"), tcp(address))
}

/// The same without TLS.
pub fn tcp(address: &str) -> TcpStream {
    let address = address.split('/').next().unwrap_or_default();
    let stream = TcpStream::connect(address).unwrap_or_else(|error| panic!("{address}: {error}"));
    stream.set_read_timeout(Some(ANSWER_LIMIT)).expect("a timeout can be set");
    stream.set_nodelay(true).expect("TCP_NODELAY can be set");
    stream
}
