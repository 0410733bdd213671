//! Attacks on links between workloads, over real TLS; certificates that renew themselves.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

use rcgen::{CertificateParams, ExtendedKeyUsagePurpose as Purpose, KeyPair, date_time_ymd};
use runtime::listen::Listener;
use runtime::settings::Settings;
use rustls::pki_types::pem::PemObject;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::link::{Dialer, Link};
use crate::testing::{Authority, Issuer, PATIENCE, certified, workload};

const APP: &str = "spiffe://cluster.local/ns/a/sa/app";
const DB: &str = "spiffe://cluster.local/ns/b/sa/db";
const ALPN: &[&[u8]] = &[wire::renewal::ALPN, b"postgresql"];

/// A pod whose certificates are in files.
struct Pod {
    _dir: tempfile::TempDir,
    files: [PathBuf; 3],
    certificates: Certificates,
}

impl Pod {
    fn of(authority: &Authority, uri: &str) -> Pod {
        let dir = tempfile::tempdir().unwrap();
        let files = ["tls.crt", "tls.key", "bundle.pem"].map(|name| dir.path().join(name));
        let key = KeyPair::generate().unwrap();
        fs::write(&files[0], authority.sign(&key, &workload(&[uri])).pem()).unwrap();
        fs::write(&files[1], key.serialize_pem()).unwrap();
        fs::write(&files[2], authority.pem()).unwrap();
        let [certificate_file, key_file, trust_bundle_file] = files.clone();
        let own = ServerTls { certificate_file, key_file };
        let certificates = start(CertificateSource::Files { own, trust_bundle_file }, "http://127.0.0.1:1", None);
        Pod { _dir: dir, files, certificates: certificates.unwrap() }
    }

    fn server(&self) -> Arc<rustls::ServerConfig> {
        self.certificates.server_config(None, ALPN).unwrap()
    }

    /// For links to `peer`, without a certificate of its own.
    fn client(&self, peer: &str) -> Arc<rustls::ClientConfig> {
        self.certificates.client_config(&peer.parse().unwrap(), ALPN).unwrap()
    }

    fn identity(&self) -> Arc<Identity> {
        self.certificates.identities().borrow().clone().unwrap()
    }
}

fn start(source: CertificateSource, issuer: &str, token: Option<PathBuf>) -> Result<Certificates, TlsError> {
    let config = config::Certificates { trust_domain: "cluster.local".to_owned(), source };
    let issuer = config::Issuer { url: issuer.to_owned(), subject_token_file: token, ca_file: None };
    let metrics = Metrics::register(&runtime::metrics::Metrics::new());
    Certificates::start(&config, &issuer, HttpClient::new(None).unwrap(), metrics)
}

fn shows(key: Arc<CertifiedKey>) -> Arc<dyn ResolvesServerCert> {
    #[derive(Debug)]
    struct One(Arc<CertifiedKey>);
    impl ResolvesServerCert for One {
        fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
            Some(self.0.clone())
        }
    }
    Arc::new(One(key))
}

/// Both ends of a link, as each of them sees it after a byte has come and gone.
async fn link(
    server: &Arc<rustls::ServerConfig>,
    client: Arc<rustls::ClientConfig>,
) -> (io::Result<Link>, io::Result<Link>) {
    let listener = Listener::bind(&"127.0.0.1:0".parse().unwrap()).await.unwrap();
    let name = "localhost".try_into().unwrap();
    let dialer = Dialer { address: listener.local_address().clone(), tls: Some((client, name)) };
    let accept = async {
        let mut link = Link::accept(listener.accept().await?.0, server).await?;
        link.write_u8(1).await?;
        link.read_u8().await?;
        Ok(link)
    };
    let dial = async {
        let mut link = dialer.dial().await?;
        link.write_u8(1).await?;
        link.read_u8().await?;
        Ok(link)
    };
    tokio::join!(accept, dial)
}

/// The accepting end of a link that both ends agreed to; else why not.
async fn accepted(server: &Arc<rustls::ServerConfig>, client: Arc<rustls::ClientConfig>) -> Result<Link, String> {
    let (accepted, dialled) = link(server, client).await;
    let accepted = accepted.map_err(|error| error.to_string())?;
    dialled.map(|_| accepted).map_err(|error| error.to_string())
}

#[tokio::test]
async fn two_workloads_know_each_other_and_a_bound_token_goes_with_its_link_alone() {
    let authority = Authority::new();
    let (app, other, db) = (
        Pod::of(&authority, APP),
        Pod::of(&authority, "spiffe://cluster.local/ns/a/sa/other"),
        Pod::of(&authority, DB),
    );
    let issuer = Issuer::start().await;
    let verifier = issuer.verifier().await;
    let (server, client) = (db.server(), app.client(DB));
    let bound_to = app.identity();
    let token = issuer.token(&json!({"cnf": {"x5t#S256": bound_to.thumbprint.to_string()}}));

    // The same key and the same name, but signed once more: other bytes.
    let key = KeyPair::from_pem(&fs::read_to_string(&app.files[1]).unwrap()).unwrap();
    let again = certified(&authority.sign(&key, &workload(&[APP])), &key);
    let unnamed = authority.issue(&workload(&[]));
    let table = [
        ("its own", bound_to.presented_by(&client), "ok"),
        ("none", client.clone(), "binding"),
        ("another pod's", other.identity().presented_by(&client), "binding"),
        ("the same key's", runtime::tls::presenting(&client, &again), "binding"),
        ("one without a workload", runtime::tls::presenting(&client, &unnamed), "binding"),
        ("its own, again", bound_to.presented_by(&client), "ok"),
    ];
    for (what, client, expected) in table {
        let link = accepted(&server, client).await.expect(what);
        let shown = verifier.verify(&Settings::default(), &token, link.peer().as_ref()).await;
        assert_eq!(shown.map_or_else(|failure| failure.label(), |_| "ok"), expected, "{what}");
        assert_eq!(link.alpn(), Some(wire::renewal::ALPN), "{what}");
    }
}

#[tokio::test]
async fn who_is_at_the_other_end_is_what_the_verified_certificate_says() {
    let authority = Authority::new();
    let (app, db) = (Pod::of(&authority, APP), Pod::of(&authority, DB));
    let (server, client) = (db.server(), app.client(DB));
    let (accepted, dialled) = link(&server, app.identity().presented_by(&client)).await;
    let peer = accepted.unwrap().peer().unwrap();
    assert_eq!((peer.thumbprint, peer.spiffe), (app.identity().thumbprint, Some(APP.parse().unwrap())));
    assert!(dialled.unwrap().peer().is_none(), "the dialling end has asked for one workload alone");
    let plain = accepted_by(&server, client.clone()).await;
    assert!(plain.peer().is_none());
    let unnamed = authority.issue(&workload(&[]));
    let peer = accepted_by(&server, runtime::tls::presenting(&client, &unnamed)).await.peer().unwrap();
    assert_eq!(peer.spiffe, None);
}

async fn accepted_by(server: &Arc<rustls::ServerConfig>, client: Arc<rustls::ClientConfig>) -> Link {
    accepted(server, client).await.unwrap()
}

/// Certificates that nobody is to believe who was to meet `good`.
fn bad(authority: &Authority, good: &str, purpose: Purpose) -> Vec<(&'static str, Arc<CertifiedKey>)> {
    let with = |change: fn(&mut CertificateParams)| {
        let mut params = workload(&[good]);
        change(&mut params);
        authority.issue(&params)
    };
    let mut is_for = workload(&[good]);
    is_for.extended_key_usages = vec![purpose];
    let elsewhere = good.replace("cluster.local", "other.local");
    vec![
        ("two workloads", authority.issue(&workload(&[good, "spiffe://cluster.local/ns/x/sa/y"]))),
        ("the same workload twice", authority.issue(&workload(&[good, good]))),
        ("a workload and a page", authority.issue(&workload(&["https://a.test", good]))),
        ("no workload's URI", authority.issue(&workload(&["https://a.test"]))),
        ("a malformed name", authority.issue(&workload(&[&format!("{good}/")]))),
        ("a name in other letters", authority.issue(&workload(&[&good.replace("spiffe", "SPIFFE")]))),
        ("another trust domain", authority.issue(&workload(&[&elsewhere]))),
        ("expired", with(|params| params.not_after = date_time_ymd(2020, 1, 1))),
        ("not valid yet", with(|params| params.not_before = date_time_ymd(2200, 1, 1))),
        ("for the other side alone", authority.issue(&is_for)),
        ("another authority's", Authority::new().issue(&workload(&[good]))),
    ]
}

#[tokio::test]
async fn bad_certificates_of_callers_are_refused() {
    let authority = Authority::new();
    let (app, db) = (Pod::of(&authority, APP), Pod::of(&authority, DB));
    let (server, client) = (db.server(), app.client(DB));
    for (what, key) in bad(&authority, APP, Purpose::ServerAuth) {
        let (accepted, _) = link(&server, runtime::tls::presenting(&client, &key)).await;
        assert!(accepted.is_err(), "{what}");
    }
}

#[tokio::test]
async fn nobody_but_the_workload_that_was_dialled_is_believed() {
    let authority = Authority::new();
    let app = Pod::of(&authority, APP);
    let client = app.identity().presented_by(&app.client(DB));
    let mut impostors = bad(&authority, DB, Purpose::ClientAuth);
    for other in [APP, "spiffe://cluster.local/ns/b/sa/db2", "spiffe://cluster.local/ns/a/sa/db"] {
        impostors.push((other, authority.issue(&workload(&[other]))));
    }
    impostors.push(("no workload, but the name that was dialled", authority.issue(&workload(&[]))));
    let known = Authorities::none();
    known.replace(authority.pem().as_bytes()).unwrap();
    let all: Rule = Arc::new(|_| Ok(()));
    for (what, key) in impostors {
        let server = runtime::tls::mutual_server_config(shows(key), &known, all.clone(), ALPN).unwrap();
        assert!(link(&server, client.clone()).await.1.is_err(), "{what}");
    }
    let right = shows(authority.issue(&workload(&[DB])));
    let server = runtime::tls::mutual_server_config(right, &known, all, ALPN).unwrap();
    accepted(&server, client).await.expect("the workload itself");
}

#[tokio::test]
async fn sidegate_is_spoken_over_tls_1_3_only() {
    let authority = Authority::new();
    let server = Pod::of(&authority, DB).server();
    let client = |alpn: &[u8]| {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority.pem().as_bytes()).unwrap()).unwrap();
        let mut config = rustls::ClientConfig::builder_with_provider(runtime::tls::provider())
            .with_protocol_versions(&[&rustls::version::TLS12])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![alpn.to_vec()];
        Arc::new(config)
    };
    accepted(&server, client(b"postgresql")).await.expect("a plain client");
    let error = accepted(&server, client(wire::renewal::ALPN)).await.err().unwrap();
    assert!(error.contains("TLS 1.3"), "{error}");
}

#[tokio::test]
async fn an_authority_is_exchanged_while_listening() {
    let (old, new) = (Authority::new(), Authority::new());
    let (app, db) = (Pod::of(&old, APP), Pod::of(&old, DB));
    let (server, client) = (db.server(), app.client(DB));
    let renewed = new.issue(&workload(&[APP]));
    let [of_old, of_new] = [app.identity().presented_by(&client), runtime::tls::presenting(&client, &renewed)];
    accepted(&server, of_old.clone()).await.unwrap();
    assert!(accepted(&server, of_new.clone()).await.is_err());

    fs::write(&db.files[2], format!("{}{}", old.pem(), new.pem())).unwrap();
    until(async || accepted(&server, of_new.clone()).await.is_ok()).await;
    accepted(&server, of_old.clone()).await.expect("both are good meanwhile");

    fs::write(&db.files[2], new.pem()).unwrap();
    until(async || accepted(&server, of_old.clone()).await.is_err()).await;
    accepted(&server, of_new).await.expect("the new one stays good");
}

async fn until(condition: impl AsyncFn() -> bool) {
    let met = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, met).await.expect("not in time");
}

#[tokio::test]
async fn files_are_followed_through_every_wrong_pair() {
    let authority = Authority::new();
    let pod = Pod::of(&authority, APP);
    let first = pod.identity().thumbprint;
    let mut identities = pod.certificates.identities();
    let write = |uris: &[&str]| {
        let key = KeyPair::generate().unwrap();
        fs::write(&pod.files[0], authority.sign(&key, &workload(uris)).pem()).unwrap();
        key
    };
    for uris in [&["spiffe://other.local/ns/a/sa/app"][..], &[], &[APP, DB]] {
        let key = write(uris);
        fs::write(&pod.files[1], key.serialize_pem()).unwrap();
        tokio::time::sleep(Duration::from_millis(1200)).await;
        assert_eq!(pod.identity().thumbprint, first, "{uris:?} cannot be used");
    }
    let key = write(&[APP]);
    tokio::time::sleep(Duration::from_millis(1200)).await;
    assert_eq!(pod.identity().thumbprint, first, "without its key it cannot be used");
    fs::write(&pod.files[1], key.serialize_pem()).unwrap();
    let renewed = identities.wait_for(|newest| newest.as_ref().is_some_and(|newest| newest.thumbprint != first));
    assert!(tokio::time::timeout(PATIENCE, renewed).await.is_ok());
}

/// An issuer that signs certificates that live for a little while, for one token.
async fn signing_issuer(authority: &Arc<Authority>) -> Issuer {
    let issuer = Issuer::start().await;
    let bundle = authority.clone();
    issuer.serve("/trust-bundle", move |_, _| Some(("Cache-Control: max-age=1\r\n", bundle.pem().into_bytes())));
    sign_certificates(&issuer, authority);
    issuer
}

fn sign_certificates(issuer: &Issuer, authority: &Arc<Authority>) {
    let authority = authority.clone();
    issuer.serve("/certificates", move |head, body| {
        let head = head.to_ascii_lowercase();
        let asked = head.starts_with("post") && head.contains("\r\ncontent-type: application/pkcs10\r\n");
        let known = head.contains("\r\nauthorization: bearer the-token\r\n");
        let signed = authority.sign_request(body, APP, Duration::from_secs(4)).filter(|_| asked && known)?;
        Some(("", signed.into_bytes()))
    });
}

#[tokio::test]
async fn the_issuers_certificates_renew_themselves_and_outlast_its_absence() {
    let authority = Arc::new(Authority::new());
    let issuer = signing_issuer(&authority).await;
    issuer.away("/trust-bundle");
    let dir = tempfile::tempdir().unwrap();
    let token = dir.path().join("token");
    fs::write(&token, "the-token\n").unwrap();
    let app = start(CertificateSource::Issuer, &issuer.url, Some(token)).unwrap();
    let readiness = Readiness::new();
    tokio::spawn(app.clone().watch(readiness.clone()));
    let mut identities = app.identities();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(identities.borrow().is_none(), "no certificate is shown before the authorities are known");
    assert_eq!(readiness.missing(), ["certificate"]);

    let bundle = authority.clone();
    issuer.serve("/trust-bundle", move |_, _| Some(("Cache-Control: max-age=1\r\n", bundle.pem().into_bytes())));
    let first = next(&mut identities, None).await;
    assert_eq!(first.spiffe.to_string(), APP);
    until(async || readiness.missing().is_empty()).await;

    let db = Pod::of(&authority, DB);
    let client = app.client_config(&DB.parse().unwrap(), ALPN).unwrap();
    let link = accepted_by(&db.server(), first.presented_by(&client)).await;
    assert_eq!(link.peer().unwrap().thumbprint, first.thumbprint);

    let second = next(&mut identities, Some(&first)).await;
    assert!(second.not_after > first.not_after);
    let (asked, counted) = counter();
    issuer.serve("/certificates", move |_, _| {
        asked.fetch_add(1, Relaxed);
        None
    });
    until(async || counted.load(Relaxed) >= 2).await;
    assert_eq!(identities.borrow().as_ref().unwrap().thumbprint, second.thumbprint, "it stays in use");
    sign_certificates(&issuer, &authority);
    next(&mut identities, Some(&second)).await;
}

fn counter() -> (Arc<AtomicUsize>, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    (count.clone(), count)
}

async fn next(identities: &mut Identities, last: Option<&Identity>) -> Arc<Identity> {
    let last = last.map(|last| last.thumbprint);
    let newer = identities.wait_for(|newest| newest.as_ref().map(|newest| newest.thumbprint) != last);
    tokio::time::timeout(PATIENCE, newer).await.expect("not in time").unwrap().clone().unwrap()
}

/// What an issuer makes of a request.
type Signing = Box<dyn Fn(&[u8]) -> Option<String> + Send>;

#[tokio::test]
async fn what_an_issuer_should_not_have_signed_is_not_shown() {
    let (authority, dir) = (Arc::new(Authority::new()), tempfile::tempdir().unwrap());
    let token = dir.path().join("token");
    fs::write(&token, "the-token").unwrap();
    let others = authority.sign(&KeyPair::generate().unwrap(), &workload(&[APP])).pem();
    let sign = |uri: &'static str, life: u64| -> Signing {
        let authority = authority.clone();
        Box::new(move |body| authority.sign_request(body, uri, Duration::from_secs(life)))
    };
    let answers: [(_, Signing, _); 5] = [
        ("good", sign(APP, 60), true),
        ("of another trust domain", sign("spiffe://other.local/ns/a/sa/app", 60), false),
        ("expired", sign(APP, 0), false),
        ("for another key", Box::new(move |_| Some(others.clone())), false),
        ("garbage", Box::new(|_| Some("garbage".to_owned())), false),
    ];
    for (what, answer, good) in answers {
        let issuer = signing_issuer(&authority).await;
        let (asked, counted) = counter();
        issuer.serve("/certificates", move |_, body| {
            asked.fetch_add(1, Relaxed);
            Some(("", answer(body)?.into_bytes()))
        });
        let app = start(CertificateSource::Issuer, &issuer.url, Some(token.clone())).unwrap();
        // The second question comes behind the first one's answer, and there is none if that was good.
        until(async || counted.load(Relaxed) >= 2 || app.identities().borrow().is_some()).await;
        assert_eq!(app.identities().borrow().is_some(), good, "{what}");
    }
}
