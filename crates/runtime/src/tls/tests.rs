//! Handshakes with trusted and other peers, renewal while running, errors that name the file.

use super::*;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::ServerName;
use std::fs;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio_rustls::{TlsAcceptor, TlsConnector};

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Authority {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

struct Files {
    dir: tempfile::TempDir,
    ca: PathBuf,
    cert: PathBuf,
    key: PathBuf,
}

impl Files {
    fn new(authority: &Authority) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let [ca, cert, key] = ["ca.pem", "tls.crt", "tls.key"].map(|n| dir.path().join(n));
        let this = Self { dir, ca, cert, key };
        this.issue(authority);
        fs::write(&this.ca, authority.pem()).unwrap();
        this
    }

    fn issue(&self, authority: &Authority) {
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(vec!["db.test".to_owned()]).unwrap().signed_by(&key, authority).unwrap();
        secret::write(&self.key, key.serialize_pem().as_bytes()).unwrap();
        secret::write(&self.cert, leaf.pem().as_bytes()).unwrap();
    }
}

/// One handshake and five bytes through it; what ALPN agreed on.
async fn talk(server: &Arc<ServerConfig>, client: &Arc<ClientConfig>, name: &str) -> io::Result<Option<Vec<u8>>> {
    let (near, far) = duplex(64 * 1024);
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let serve = async {
        let mut stream = TlsAcceptor::from(server.clone()).accept(far).await?;
        stream.write_all(b"hello").await?;
        stream.shutdown().await
    };
    let connect = async {
        let mut stream = TlsConnector::from(client.clone()).connect(name, near).await?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await?;
        assert_eq!(text, "hello");
        io::Result::Ok(stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec))
    };
    let (served, agreed) = tokio::join!(serve, connect);
    let agreed = agreed?;
    served.map(|()| agreed)
}

#[tokio::test]
async fn talks_with_the_trusted_and_with_nobody_else() {
    let files = Files::new(&authority());
    let server = server_config(&files.cert, &files.key, &[b"postgresql"]).unwrap();
    let client = client_config(&files.ca, &[b"postgresql"]).unwrap();
    assert_eq!(talk(&server, &client, "db.test").await.unwrap().as_deref(), Some(&b"postgresql"[..]));
    assert!(talk(&server, &client, "other.test").await.is_err(), "another name");
    let stranger = Files::new(&authority());
    let client = client_config(&stranger.ca, &[]).unwrap();
    assert!(talk(&server, &client, "db.test").await.is_err(), "another authority");
}

#[tokio::test]
async fn renewed_certificates_and_authorities_are_used_and_broken_ones_are_not() {
    let old = authority();
    let files = Files::new(&old);
    let server = server_config(&files.cert, &files.key, &[]).unwrap();
    let client = client_config(&files.ca, &[]).unwrap();

    fs::write(&files.cert, "broken").unwrap();
    fs::write(&files.ca, "broken").unwrap();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    talk(&server, &client, "db.test").await.expect("the last good ones stay");

    let new = authority();
    files.issue(&new);
    fs::write(&files.ca, new.pem()).unwrap();
    let only_new = client_config(&files.ca, &[]).unwrap();
    let begin = Instant::now();
    while talk(&server, &only_new, "db.test").await.is_err() || talk(&server, &client, "db.test").await.is_err() {
        assert!(begin.elapsed() < Duration::from_secs(10), "the renewal was not seen");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[test]
fn errors_name_the_file_and_what_would_be_right() {
    let files = Files::new(&authority());
    let absent = files.dir.path().join("absent.pem");
    let table = [
        (server_config(&absent, &files.key, &[]).err(), "absent.pem"),
        (server_config(&files.cert, &files.cert, &[]).err(), "BEGIN PRIVATE KEY"),
        (server_config(&files.key, &files.key, &[]).err(), "BEGIN CERTIFICATE"),
        (client_config(&files.key, &[]).err(), "BEGIN CERTIFICATE"),
    ];
    for (error, part) in table {
        let text = error.unwrap().to_string();
        assert!(text.contains(part) && text.contains(files.dir.path().to_str().unwrap()), "{text}");
    }
    let other = Files::new(&authority());
    let error = server_config(&files.cert, &other.key, &[]).unwrap_err().to_string();
    assert!(error.contains("not that of the certificate"), "{error}");
}
