//! Connections to what the demo listens on, with TLS as a client without a sidecar has it.

use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

/// How long an answer may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// A certificate of a workload's and its key, both PEM.
pub struct ClientCertificate {
    /// Leaf first.
    pub certificate: String,
    /// PKCS #8.
    pub key: String,
}

/// Connects to `host:port`, whatever path follows, trusts `ca_file`, and shows a certificate if it has one. The demo's
/// certificates bear the address.
pub fn connect(
    address: &str,
    ca_file: &Path,
    alpn: &[&[u8]],
    shown: Option<&ClientCertificate>,
) -> StreamOwned<ClientConnection, TcpStream> {
    let mut authorities = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca_file).expect("the demo's authority") {
        authorities.add(certificate.expect("a certificate")).expect("an authority");
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.expect("TLS versions").with_root_certificates(authorities);
    let mut config = match shown {
        None => builder.with_no_client_auth(),
        Some(ClientCertificate { certificate, key }) => {
            let chain = CertificateDer::pem_slice_iter(certificate.as_bytes()).collect::<Result<_, _>>();
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("a key");
            builder.with_client_auth_cert(chain.expect("certificates"), key).expect("a certificate and its key")
        }
    };
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
