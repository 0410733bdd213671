//! Handshakes with certificates on both sides, good and bad; authorities that change; sessions that are not resumed.

use std::fs;
use std::io;
use std::time::{Duration, Instant};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose as Purpose, IsCa, KeyPair,
    date_time_ymd,
};
use rustls::HandshakeKind;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::sync::watch;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::*;
use crate::tls::certified_key;

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Authority {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn leaf(authority: &Authority, name: &str, change: impl Fn(&mut CertificateParams)) -> Arc<CertifiedKey> {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    change(&mut params);
    let certificate = params.signed_by(&key, authority).unwrap();
    certified_key(certificate.pem().as_bytes(), PrivateKeyDer::Pkcs8(key.serialize_der().into())).unwrap()
}

fn knowing(authority: &Authority) -> Authorities {
    let authorities = Authorities::none();
    authorities.replace(authority.pem().as_bytes()).unwrap();
    authorities
}

/// Talks to those alone whose certificate has this text in it.
fn only(name: &'static str) -> Rule {
    Arc::new(move |certificate| {
        let found = certificate.windows(name.len()).any(|bytes| bytes == name.as_bytes());
        if found { Ok(()) } else { Err(format!("this is not {name}")) }
    })
}

#[derive(Debug)]
struct One(Arc<CertifiedKey>);

impl ResolvesServerCert for One {
    fn resolve(&self, _: rustls::server::ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }
}

fn server(own: Arc<CertifiedKey>, authorities: &Authorities) -> Arc<ServerConfig> {
    mutual_server_config(Arc::new(One(own)), authorities, only("client.test"), &[b"a/1"]).unwrap()
}

fn client(authorities: &Authorities) -> Arc<ClientConfig> {
    mutual_client_config(authorities, only("server.test"), &[b"a/1"]).unwrap()
}

/// One handshake and a byte in each direction; whether it was a full one, and the client's certificate.
async fn talk(server: &Arc<ServerConfig>, client: &Arc<ClientConfig>) -> io::Result<Option<Vec<u8>>> {
    let (near, far) = duplex(64 * 1024);
    let serve = async {
        let mut stream = TlsAcceptor::from(server.clone()).accept(far).await?;
        stream.read_u8().await?;
        stream.write_u8(1).await?;
        assert_eq!(stream.get_ref().1.handshake_kind(), Some(HandshakeKind::Full));
        let shown = stream.get_ref().1.peer_certificates().map(|chain| chain[0].to_vec());
        stream.shutdown().await?;
        io::Result::Ok(shown)
    };
    let connect = async {
        let name = ServerName::try_from("dialled.test").unwrap();
        let mut stream = TlsConnector::from(client.clone()).connect(name, near).await?;
        stream.write_u8(1).await?;
        stream.read_u8().await?;
        io::Result::Ok(())
    };
    let (served, connected) = tokio::join!(serve, connect);
    connected?;
    served
}

#[tokio::test]
async fn a_certificate_is_asked_for_and_not_required() {
    let authority = authority();
    let known = knowing(&authority);
    let server = server(leaf(&authority, "server.test", |_| {}), &known);
    assert_eq!(talk(&server, &client(&known)).await.unwrap(), None);
    let own = leaf(&authority, "client.test", |_| {});
    let shown = talk(&server, &presenting(&client(&known), &own)).await.unwrap();
    assert_eq!(shown.as_deref(), Some(own.cert[0].as_ref()));
    // Again, with the same configurations: a session that could be resumed would be.
    assert!(talk(&server, &presenting(&client(&known), &own)).await.unwrap().is_some());
}

#[tokio::test]
async fn bad_certificates_of_clients_are_refused() {
    let (authority, stranger) = (authority(), authority());
    let known = knowing(&authority);
    let server = server(leaf(&authority, "server.test", |_| {}), &known);
    let client = client(&known);
    for (what, own) in bad(&authority, &stranger, "client.test", Purpose::ServerAuth) {
        assert!(talk(&server, &presenting(&client, &own)).await.is_err(), "{what}");
    }
}

#[tokio::test]
async fn bad_certificates_of_servers_are_refused() {
    let (authority, stranger) = (authority(), authority());
    let known = knowing(&authority);
    for (what, own) in bad(&authority, &stranger, "server.test", Purpose::ClientAuth) {
        assert!(talk(&server(own, &known), &client(&known)).await.is_err(), "{what}");
    }
}

fn bad(
    authority: &Authority,
    stranger: &Authority,
    name: &str,
    purpose: Purpose,
) -> Vec<(&'static str, Arc<CertifiedKey>)> {
    let ends = |params: &mut CertificateParams| params.not_after = date_time_ymd(2020, 1, 1);
    let begins = |params: &mut CertificateParams| params.not_before = date_time_ymd(2100, 1, 1);
    let is_for = |params: &mut CertificateParams| params.extended_key_usages = vec![purpose.clone()];
    let signs = |params: &mut CertificateParams| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    vec![
        ("another authority's", leaf(stranger, name, |_| {})),
        ("expired", leaf(authority, name, ends)),
        ("not valid yet", leaf(authority, name, begins)),
        ("for the other side", leaf(authority, name, is_for)),
        ("an authority's own", leaf(authority, name, signs)),
        ("another's by the rule", leaf(authority, "other.test", |_| {})),
    ]
}

#[tokio::test]
async fn authorities_are_exchanged_under_configurations_in_use() {
    let (old, new) = (authority(), authority());
    let known = knowing(&old);
    let (sender, newest) = watch::channel(leaf(&old, "server.test", |_| {}));
    #[derive(Debug)]
    struct Shows(watch::Receiver<Arc<CertifiedKey>>);
    impl ResolvesServerCert for Shows {
        fn resolve(&self, _: rustls::server::ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
            Some(self.0.borrow().clone())
        }
    }
    let server = mutual_server_config(Arc::new(Shows(newest)), &known, only("client.test"), &[]).unwrap();
    let client = client(&known);
    let (of_old, of_new) = (leaf(&old, "client.test", |_| {}), leaf(&new, "client.test", |_| {}));
    talk(&server, &presenting(&client, &of_old)).await.unwrap();
    assert!(talk(&server, &presenting(&client, &of_new)).await.is_err());

    assert!(known.replace(b"broken").is_err());
    talk(&server, &presenting(&client, &of_old)).await.expect("those known until now stay");

    known.replace(format!("{}{}", old.pem(), new.pem()).as_bytes()).unwrap();
    talk(&server, &presenting(&client, &of_old)).await.unwrap();
    talk(&server, &presenting(&client, &of_new)).await.unwrap();

    known.replace(new.pem().as_bytes()).unwrap();
    sender.send_replace(leaf(&new, "server.test", |_| {}));
    talk(&server, &presenting(&client, &of_new)).await.unwrap();
    assert!(talk(&server, &presenting(&client, &of_old)).await.is_err(), "the old authority is gone");
}

#[tokio::test]
async fn without_authorities_nobody_is_asked_and_no_server_believed() {
    let authority = authority();
    let (none, known) = (Authorities::none(), knowing(&authority));
    let server = server(leaf(&authority, "server.test", |_| {}), &none);
    let own = leaf(&authority, "client.test", |_| {});
    assert_eq!(talk(&server, &presenting(&client(&known), &own)).await.unwrap(), None);
    assert!(talk(&server, &client(&none)).await.is_err());
}

#[tokio::test]
async fn a_bundle_follows_its_file() {
    let (old, new) = (authority(), authority());
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("bundle.pem");
    fs::write(&file, old.pem()).unwrap();
    let known = Authorities::of_file(&file).unwrap();
    let server = server(leaf(&old, "server.test", |_| {}), &known);
    let client = presenting(&client(&knowing(&old)), &leaf(&new, "client.test", |_| {}));
    assert!(talk(&server, &client).await.is_err());
    fs::write(&file, new.pem()).unwrap();
    let begin = Instant::now();
    while talk(&server, &client).await.is_err() {
        assert!(begin.elapsed() < Duration::from_secs(10), "the new bundle was not seen");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(Authorities::of_file(&dir.path().join("absent")).unwrap_err().to_string().contains("absent"));
}

#[tokio::test]
async fn files_that_are_exchanged_one_after_the_other_never_leave_a_wrong_pair() {
    let authority = authority();
    let dir = tempfile::tempdir().unwrap();
    let [certificate, key] = ["tls.crt", "tls.key"].map(|name| dir.path().join(name));
    let issue = || {
        let pair = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(vec!["a.test".to_owned()]).unwrap().signed_by(&pair, &authority).unwrap();
        (leaf, pair)
    };
    let (first, pair) = issue();
    fs::write(&certificate, first.pem()).unwrap();
    fs::write(&key, pair.serialize_pem()).unwrap();
    let newest =
        crate::tls::follow_certificate(&certificate, &key, |read| read.map_err(|error| error.to_string())).unwrap();

    let (second, pair) = issue();
    fs::write(&certificate, second.pem()).unwrap();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(newest.borrow().cert[0], *first.der(), "the last good pair stays");
    fs::write(&key, pair.serialize_pem()).unwrap();
    let mut newest = newest;
    let renewed = newest.wait_for(|newest| newest.cert[0] == *second.der());
    assert!(tokio::time::timeout(Duration::from_secs(10), renewed).await.is_ok());
}
