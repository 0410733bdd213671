//! Certificates for workloads, asked for over HTTP as a sidecar does, and judged as TLS judges them.

use std::collections::BTreeMap;

use identity::certificate::{Thumbprint, spiffe_id_of};
use rcgen::{
    CertificateParams, DnType, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, SanType,
};
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime as Moment};
use rustls::server::WebPkiClientVerifier;

use super::*;

const TTL: i64 = 600;

fn with_certificates(prepared: (tempfile::TempDir, Cluster, Config)) -> (tempfile::TempDir, Cluster, Config) {
    let (directory, cluster, mut config) = prepared;
    config.platform = local(&directory);
    config.certificates = Some(config::Certificates {
        trust_domain: "cluster.local".to_owned(),
        cluster_domain: "cluster.local".to_owned(),
        ttl: TTL,
        rotation: Rotate { period: 86400, lead: 1 },
        names: BTreeMap::from([(
            "system:serviceaccount:service-b:service-b".parse().unwrap(),
            vec!["127.0.0.1".to_owned(), "localhost".to_owned()],
        )]),
    });
    (directory, cluster, config)
}

async fn start() -> Running {
    let running = Running::start_as(with_certificates(prepare("jwks_file: DIR/jwks.json"))).await;
    running.ready().await;
    running
}

async fn ask_for(running: &Running, authorization: &str, kind: &str, body: &[u8]) -> Answer {
    let head = format!(
        "POST /certificates HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{authorization}Content-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    ask_bytes(&running.address, &[head.as_bytes(), body].concat()).await
}

async fn sign(running: &Running, token: &str, body: &[u8]) -> Answer {
    ask_for(running, &format!("Authorization: Bearer {token}\r\n"), "application/pkcs10", body).await
}

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}

fn request(key: &KeyPair) -> Vec<u8> {
    CertificateParams::default().serialize_request(key).unwrap().der().to_vec()
}

fn der(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
}

fn roots(bundle: &str) -> Arc<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for authority in CertificateDer::pem_slice_iter(bundle.as_bytes()) {
        roots.add(authority.unwrap()).unwrap();
    }
    Arc::new(roots)
}

/// Whether a client that trusts the bundle takes the certificate for that of `name`, at a time from now.
fn serves(pem: &str, bundle: &str, name: &str, seconds: i64) -> bool {
    let verifier =
        WebPkiServerVerifier::builder_with_provider(roots(bundle), runtime::tls::provider()).build().unwrap();
    let at = Moment::since_unix_epoch(Duration::from_secs((runtime::clock::now() + seconds) as u64));
    verifier.verify_server_cert(&der(pem), &[], &ServerName::try_from(name.to_owned()).unwrap(), &[], at).is_ok()
}

/// Whether a server that trusts the bundle takes it for a client's.
fn calls(pem: &str, bundle: &str) -> bool {
    let verifier =
        WebPkiClientVerifier::builder_with_provider(roots(bundle), runtime::tls::provider()).build().unwrap();
    verifier.verify_client_cert(&der(pem), &[], Moment::now()).is_ok()
}

#[tokio::test]
async fn a_service_account_gets_a_certificate_in_its_own_name() {
    let issuer = start().await;
    let bundle = issuer.get("/trust-bundle").await;
    assert!(bundle.head.contains("application/x-pem-file") && bundle.head.contains("cache-control: public, max-age=0"));
    for algorithm in [&PKCS_ECDSA_P256_SHA256, &PKCS_ED25519] {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let answer = sign(&issuer, &issuer.cluster.token("service-b"), &request(&key)).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert!(answer.head.contains("application/pem-certificate-chain") && answer.head.contains("no-store"));
        let spiffe = spiffe_id_of(&der(&answer.body)).unwrap().unwrap();
        assert_eq!(spiffe.to_string(), "spiffe://cluster.local/ns/service-b/sa/service-b");
        let good = ["service-b.service-b", "service-b.service-b.svc", "service-b.service-b.svc.cluster.local"];
        for name in good.into_iter().chain(["127.0.0.1", "localhost"]) {
            assert!(serves(&answer.body, &bundle.body, name, 0), "{name}");
        }
        for name in ["service-b", "postgres-b.postgres-b.svc", "127.0.0.2"] {
            assert!(!serves(&answer.body, &bundle.body, name, 0), "{name}");
        }
        assert!(calls(&answer.body, &bundle.body));
        let at = |seconds| serves(&answer.body, &bundle.body, good[0], seconds);
        assert!(at(-290) && at(TTL - 5) && !at(-320) && !at(TTL + 5));
        assert!(answer.body.contains("BEGIN CERTIFICATE") && !answer.body.contains("PRIVATE"));
    }
    let pem = CertificateParams::default().serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap();
    assert_eq!(sign(&issuer, &issuer.cluster.token("service-a"), pem.as_bytes()).await.status, 200);
    assert_eq!(issuer.metric("certificates_signed_total{result=\"ok\"}").await, Some(3.0));
    assert_eq!(fs::read_to_string(issuer.file("bundle.pem")).unwrap(), bundle.body);
    use std::os::unix::fs::PermissionsExt;
    let mode = |name: &str| fs::metadata(issuer.file(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("authority.json"), mode("bundle.pem")), (0o600, 0o644));
}

#[tokio::test]
async fn names_in_the_request_are_passed_over() {
    let issuer = start().await;
    let mut params = CertificateParams::new(["postgres-b.postgres-b.svc".to_owned(), "10.0.0.1".to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, "postgres-b.postgres-b.svc");
    let other = "spiffe://cluster.local/ns/postgres-b/sa/postgres-b";
    params.subject_alt_names.push(SanType::URI(other.try_into().unwrap()));
    params.extended_key_usages.push(rcgen::ExtendedKeyUsagePurpose::CodeSigning);
    params.key_usages.push(rcgen::KeyUsagePurpose::KeyCertSign);
    let key = KeyPair::generate().unwrap();
    let body = params.serialize_request(&key).unwrap().der().to_vec();
    let answer = sign(&issuer, &issuer.cluster.token("service-a"), &body).await;
    let bundle = issuer.get("/trust-bundle").await.body;
    assert_eq!(spiffe_id_of(&der(&answer.body)).unwrap().unwrap().service_account, "service-a");
    assert!(serves(&answer.body, &bundle, "service-a.service-a.svc", 0));
    assert!(
        !serves(&answer.body, &bundle, "postgres-b.postgres-b.svc", 0) && !serves(&answer.body, &bundle, "10.0.0.1", 0)
    );
    let bytes = der(&answer.body);
    for foreign in [&b"postgres-b"[..], b"10.0.0.1"] {
        assert!(!bytes.windows(foreign.len()).any(|window| window == foreign));
    }
}

/// Service accounts may have dots in their names; services may not, and nobody becomes one by being called like one.
#[tokio::test]
async fn a_service_account_called_like_a_service_is_not_taken_for_it() {
    let issuer = start().await;
    let name = "postgres-b.postgres-b";
    let changes = json!({
        "sub": format!("system:serviceaccount:svc:{name}"),
        "kubernetes.io": {"namespace": "svc", "serviceaccount": {"name": name, "uid": "2"}},
    });
    let token = issuer.cluster.token_with("svc", &changes);
    let answer = sign(&issuer, &token, &request(&KeyPair::generate().unwrap())).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let bundle = issuer.get("/trust-bundle").await.body;
    assert_eq!(spiffe_id_of(&der(&answer.body)).unwrap().unwrap().service_account, name);
    for target in [name, "postgres-b.postgres-b.svc", "postgres-b.postgres-b.svc.svc"] {
        assert!(!serves(&answer.body, &bundle, target, 0), "{target}");
    }
}

#[tokio::test]
async fn requests_that_prove_nothing_are_refused() {
    let issuer = start().await;
    let token = issuer.cluster.token("service-b");
    let good = request(&KeyPair::generate().unwrap());
    let mut forged = good.clone();
    *forged.last_mut().unwrap() ^= 1;
    // Another's public key under one's own signature.
    let (mine, theirs) =
        (request(&KeyPair::generate_for(&PKCS_ED25519).unwrap()), KeyPair::generate_for(&PKCS_ED25519).unwrap());
    let at = mine.windows(2).position(|window| window == [0x03, 0x21]).unwrap() + 3;
    let mut stolen = mine.clone();
    stolen[at..at + 32].copy_from_slice(theirs.public_key_raw());
    let strong = request(&KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap());
    for (body, what) in [
        (forged, "a forged signature"),
        (stolen, "another's key"),
        (strong, "a curve that nobody uses"),
        (weak_rsa(), "a weak key"),
        (good[..good.len() - 1].to_vec(), "half a request"),
        ([good.clone(), vec![0]].concat(), "something behind it"),
        (vec![0xff; 1000], "garbage"),
        (vec![], "nothing"),
        (vec![0x30; 10_000], "nesting"),
        (b"-----BEGIN CERTIFICATE REQUEST-----\n????\n-----END CERTIFICATE REQUEST-----\n".to_vec(), "damaged PEM"),
    ] {
        let answer = sign(&issuer, &token, &body).await;
        assert_eq!(answer.status, 400, "{what}: {}", answer.body);
        assert!(answer.head.contains("application/problem+json") && answer.json()["detail"].is_string(), "{what}");
    }
    assert_eq!(sign(&issuer, &token, &vec![0x30; 10 << 20]).await.status, 413);
    assert_eq!(ask_for(&issuer, &bearer(&token), "application/json", &good).await.status, 415);
    assert_eq!(issuer.metric("certificates_signed_total{result=\"bad_request\"}").await, Some(10.0));
    assert_eq!(issuer.metric("certificates_signed_total{result=\"ok\"}").await, None);
    assert_eq!(sign(&issuer, &token, &good).await.status, 200);
}

/// RSA of 1024 bits: made with `openssl req -new -newkey rsa:1024`, since no library here makes such a key.
fn weak_rsa() -> Vec<u8> {
    include_bytes!("weak.csr").to_vec()
}

#[tokio::test]
async fn only_who_shows_a_service_account_token_gets_a_certificate() {
    let issuer = start().await;
    let (cluster, now, body) = (&issuer.cluster, runtime::clock::now(), request(&KeyPair::generate().unwrap()));
    let good = cluster.token("service-b");
    let access = issuer.exchange(&good, "").await.json()["access_token"].as_str().unwrap().to_owned();
    for token in [
        cluster.token_with("service-b", &json!({"exp": now - 60})),
        cluster.token_with("service-b", &json!({"aud": ["https://kubernetes.default.svc"]})),
        cluster.token_with("service-b", &json!({"sub": 1})),
        cluster.token_with("service-b", &json!({"sub": "system:serviceaccount:service-a:service-a"})),
        Cluster { kid: "cluster-1", ..Cluster::new("x") }.token("service-b"),
        format!("{good}x"),
        access,
    ] {
        let answer = sign(&issuer, &token, &body).await;
        assert_eq!(answer.status, 401, "{}", answer.body);
        let challenge =
            answer.head.lines().find(|line| line.starts_with("www-authenticate: bearer error=\"invalid_token\""));
        assert_eq!(challenge.unwrap().matches('"').count(), 4, "{}", answer.head);
        assert!(!answer.body.contains(&token));
    }
    for authorization in ["", "Authorization: Basic eDp5\r\n", "Authorization: Bearer\r\n", &bearer(&good).repeat(2)] {
        let answer = ask_for(&issuer, authorization, "application/pkcs10", &body).await;
        assert!(
            answer.status == 401 && answer.head.contains("www-authenticate: bearer"),
            "{authorization}: {}",
            answer.head
        );
    }
    let unknown = Running::start_as(with_certificates(prepare("jwks_file: DIR/later.json"))).await;
    assert_eq!(sign(&unknown, &unknown.cluster.token("service-b"), &body).await.status, 503);
}

#[tokio::test]
async fn without_an_authority_there_are_no_certificates() {
    let issuer = Running::start().await;
    let answer = sign(&issuer, &issuer.cluster.token("service-b"), &request(&KeyPair::generate().unwrap())).await;
    assert_eq!((answer.status, issuer.get("/trust-bundle").await.status), (404, 404));
    assert!(matches!(rotate_authority(&issuer.config).await, Err(IssuerError::NoCertificates)));
}

#[tokio::test]
async fn an_authority_is_known_before_it_signs_and_until_what_it_signed_has_ended() {
    let issuer = start().await;
    let (token, key) = (issuer.cluster.token("service-b"), KeyPair::generate().unwrap());
    let certificate = async || sign(&issuer, &token, &request(&key)).await.body;
    let (old, before) = (certificate().await, issuer.get("/trust-bundle").await.body);
    assert!(matches!(rotate_authority(&issuer.config).await.unwrap(), Rotation::Done(_)));
    wait_for(async || issuer.get("/trust-bundle").await.body.matches("BEGIN").count() == 2).await;
    let both = issuer.get("/trust-bundle").await.body;
    let name = "service-b.service-b.svc";
    wait_for(async || !serves(&certificate().await, &before, name, 0)).await;
    let new = certificate().await;
    assert!(serves(&old, &both, name, 0) && serves(&new, &both, name, 0));
    let after = issuer.get("/trust-bundle").await.body;
    assert!(serves(&old, &after, name, 0) && serves(&new, &after, name, 0));
    // The active one comes first, so the order has changed.
    wait_for(async || fs::read_to_string(issuer.file("bundle.pem")).unwrap() == after).await;
    wait_for(async || issuer.metric("authorities{state=\"old\"}").await == Some(1.0)).await;
}

#[tokio::test]
async fn a_token_can_be_bound_to_a_certificate() {
    let issuer = start().await;
    let pem = sign(&issuer, &issuer.cluster.token("service-b"), &request(&KeyPair::generate().unwrap())).await.body;
    let thumbprint = Thumbprint::of(&der(&pem));
    let confirmation = format!("&req_cnf=%7B%22x5t%23S256%22%3A%22{thumbprint}%22%7D");
    let body = issuer.exchange(&issuer.cluster.token("service-b"), &confirmation).await.json();
    let (token, jwks) = (body["access_token"].as_str().unwrap(), issuer.get("/jwks").await.body);
    let (keys, audience) = (KeySet::parse(jwks.as_bytes()).unwrap(), "postgres-b/postgres-b".parse().unwrap());
    let shown_over = |certificate| {
        let expected = access::Expected { issuer: URL, audience: &audience, not_before: None, certificate };
        access::verify(&UnverifiedToken::new(token), &keys, &expected, UnixTime(runtime::clock::now()))
    };
    assert_eq!(shown_over(Some(thumbprint)).unwrap().confirmation(), Some(thumbprint));
    assert_eq!(shown_over(None), Err(TokenError::Binding));
    assert_eq!(shown_over(Some(Thumbprint::of(b"another"))), Err(TokenError::Binding));
    let wrong = issuer.exchange(&issuer.cluster.token("service-b"), "&req_cnf=%7B%7D").await;
    assert_eq!(wrong.error(), (400, "invalid_request".to_owned()));
}
