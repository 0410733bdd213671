//! The issuer over real sockets: a subject token of a test cluster goes in, an access token comes out and is verified.

use std::fs;
use std::path::Path;
use std::time::Duration;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use identity::access;
use identity::exchange::{GRANT_TYPE, TOKEN_TYPE_ACCESS_TOKEN, TOKEN_TYPE_JWT};
use identity::jwks::KeySet;
use identity::{ServiceName, TokenError, UnixTime, UnverifiedToken};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use runtime::drain::Drain;
use runtime::listen::Stream;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;

use super::*;

mod certificates;
mod cluster_keys;
mod serving;

const URL: &str = "http://issuer.test:8080";
const CLUSTER: &str = "https://cluster.test";
/// Long enough for a loaded machine; what is waited for comes in a second or two.
const PATIENCE: Duration = Duration::from_secs(30);

const DOCUMENTS: &str = "\
apiVersion: sidegate.dev/v1alpha1
kind: AccessRole
metadata: {namespace: postgres-b, name: orders-writer}
spec:
  service: postgres-b
  postgres:
    user: app_writer
    rules:
      - {actions: [select, insert], tables: [\"public.orders\", \"public.items\"]}
---
apiVersion: sidegate.dev/v1alpha1
kind: AccessGrant
metadata: {namespace: postgres-b, name: service-b}
spec:
  service: postgres-b
  subjects: [{serviceAccount: service-b, namespace: service-b}]
  roles: [orders-writer, reader]
";

/// The cluster's signing key.
struct Cluster {
    kid: &'static str,
    key: EncodingKey,
    jwk: Value,
}

impl Cluster {
    fn new(kid: &'static str) -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
        let b64 = |bytes| URL_SAFE_NO_PAD.encode(bytes);
        let jwk = json!({"kty": "EC", "crv": "P-256", "alg": "ES256", "kid": kid, "x": b64(x), "y": b64(y)});
        Self { kid, key: EncodingKey::from_ec_der(pair.to_pkcs8v1().unwrap().as_ref()), jwk }
    }

    fn publish(&self, path: &Path) {
        // As a whole, so that the issuer never reads a half-written file.
        let temporary = path.with_extension("new");
        fs::write(&temporary, json!({"keys": [self.jwk]}).to_string()).unwrap();
        fs::rename(temporary, path).unwrap();
    }

    fn token(&self, namespace: &str) -> String {
        self.token_with(namespace, &json!({}))
    }

    fn token_with(&self, namespace: &str, changes: &Value) -> String {
        let now = runtime::clock::now();
        let mut claims = json!({
            "iss": CLUSTER, "aud": [URL], "iat": now, "nbf": now, "exp": now + 3600,
            "sub": format!("system:serviceaccount:{namespace}:{namespace}"),
            "kubernetes.io": {
                "namespace": namespace,
                "pod": {"name": format!("{namespace}-0"), "uid": "1"},
                "serviceaccount": {"name": namespace, "uid": "2"},
            },
        });
        for (name, value) in changes.as_object().unwrap() {
            claims[name] = value.clone();
        }
        let header = Header { kid: Some(self.kid.to_owned()), ..Header::new(Algorithm::ES256) };
        jsonwebtoken::encode(&header, &claims, &self.key).unwrap()
    }
}

struct Running {
    directory: tempfile::TempDir,
    cluster: Cluster,
    config: Config,
    address: Address,
    drain: Drain,
    task: JoinHandle<Result<(), IssuerError>>,
}

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    fn error(&self) -> (u16, String) {
        (self.status, self.json()["error"].as_str().unwrap_or_default().to_owned())
    }
}

fn prepare(source: &str) -> (tempfile::TempDir, Cluster, Config) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().display();
    fs::create_dir(directory.path().join("documents")).unwrap();
    fs::write(directory.path().join("documents/grants.yaml"), DOCUMENTS).unwrap();
    let cluster = Cluster::new("cluster-1");
    cluster.publish(&directory.path().join("jwks.json"));
    let source = source.replace("DIR", &path.to_string());
    let config = Config::parse(&format!(
        "url: {URL}\nlisten: 127.0.0.1:0\nkeys_file: {path}/keys.json\ndocuments: {{directory: {path}/documents}}\n\
         subject_tokens: {{issuer: {CLUSTER}, {source}}}\n"
    ));
    (directory, cluster, config.unwrap())
}

/// As `prepare` has it, with files for certificates.
fn local(directory: &tempfile::TempDir) -> config::Platform {
    let file = |name: &str| directory.path().join(name);
    config::Platform::Local(config::Local {
        keys_file: file("keys.json"),
        documents: file("documents"),
        authority_file: Some(file("authority.json")),
        trust_bundle_file: Some(file("bundle.pem")),
    })
}

impl Running {
    async fn start() -> Self {
        let running = Self::start_with("jwks_file: DIR/jwks.json").await;
        running.ready().await;
        running
    }

    async fn start_with(source: &str) -> Self {
        Self::start_as(prepare(source)).await
    }

    async fn start_as((directory, cluster, config): (tempfile::TempDir, Cluster, Config)) -> Self {
        let (drain, watch) = Drain::new();
        let issuer = Issuer::bind(config.clone(), watch).await.unwrap();
        let address = issuer.local_address().clone();
        Self { directory, cluster, config, address, drain, task: tokio::spawn(issuer.serve()) }
    }

    async fn ready(&self) {
        wait_for(async || self.get("/readyz").await.status == 200).await;
    }

    async fn raw(&self, request: &str) -> Answer {
        ask(&self.address, request).await
    }

    async fn get(&self, path: &str) -> Answer {
        self.raw(&format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")).await
    }

    async fn post(&self, body: &str) -> Answer {
        self.post_as("application/x-www-form-urlencoded", body).await
    }

    async fn post_as(&self, kind: &str, body: &str) -> Answer {
        let length = body.len();
        self.raw(&format!("POST /token HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n{body}"))
            .await
    }

    async fn exchange(&self, token: &str, more: &str) -> Answer {
        self.exchange_for(token, "postgres-b%2Fpostgres-b", more).await
    }

    async fn exchange_for(&self, token: &str, audience: &str, more: &str) -> Answer {
        self.post(&format!(
            "grant_type={GRANT_TYPE}&subject_token={token}&subject_token_type={TOKEN_TYPE_JWT}&audience={audience}{more}"
        ))
        .await
    }

    fn file(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join(name)
    }

    async fn metric(&self, name: &str) -> Option<f64> {
        let text = self.get("/metrics").await.body;
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("sidegate_{name} ")).map(str::to_owned));
        line.map(|value| value.parse().unwrap())
    }
}

async fn ask(address: &Address, request: &str) -> Answer {
    ask_bytes(address, request.as_bytes()).await
}

async fn ask_bytes(address: &Address, request: &[u8]) -> Answer {
    let mut stream = Stream::connect(address).await.unwrap();
    // A request that is too large may be answered and cut before it was sent whole.
    let _ = stream.write_all(request).await;
    let mut bytes = Vec::new();
    // An answer sent before the whole request was read may be followed by a reset.
    let _ = stream.read_to_end(&mut bytes).await;
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
}

async fn wait_for(condition: impl AsyncFn() -> bool) {
    let met = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, met).await.expect("not in time");
}

fn verify(token: &str, jwks: &str, audience: &str) -> Result<access::AccessToken, TokenError> {
    let (keys, audience) = (KeySet::parse(jwks.as_bytes()).unwrap(), audience.parse::<ServiceName>().unwrap());
    let expected = access::Expected { issuer: URL, audience: &audience, not_before: None, certificate: None };
    access::verify(&UnverifiedToken::new(token), &keys, &expected, UnixTime(runtime::clock::now()))
}

fn roles(token: &access::AccessToken) -> Vec<&str> {
    token.details().iter().map(access::AuthorizationDetail::role).collect()
}

#[tokio::test]
async fn a_subject_token_is_exchanged_for_an_access_token_that_verifies() {
    let issuer = Running::start().await;
    let answer = issuer.exchange(&issuer.cluster.token("service-b"), "").await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert!(answer.head.contains("cache-control: no-store") && answer.head.contains("pragma: no-cache"));
    let body = answer.json();
    assert_eq!(body["token_type"], "Bearer");
    assert_eq!(body["issued_token_type"], TOKEN_TYPE_ACCESS_TOKEN);
    assert_eq!((&body["expires_in"], &body["scope"]), (&json!(600), &json!("orders-writer reader")));
    let (token, jwks) = (body["access_token"].as_str().unwrap(), issuer.get("/jwks").await.body);
    let verified = verify(token, &jwks, "postgres-b/postgres-b").unwrap();
    assert_eq!(verified.subject().to_string(), "system:serviceaccount:service-b:service-b");
    assert_eq!(verified.expires_at().since(verified.issued_at()), 600);
    let mut names = roles(&verified);
    names.sort_unstable();
    assert_eq!(names, ["orders-writer", "reader"]);
    assert_eq!(verify(token, &jwks, "postgres-a/postgres-a"), Err(TokenError::WrongAudience));
    assert_eq!(issuer.metric("tokens_signed_total").await, Some(1.0));
    assert_eq!(issuer.metric("token_exchange_total{result=\"ok\"}").await, Some(1.0));
    let again = issuer.exchange(&issuer.cluster.token("service-b"), "").await.json();
    let other = verify(again["access_token"].as_str().unwrap(), &jwks, "postgres-b/postgres-b").unwrap();
    assert_ne!(other.id(), verified.id());
}

#[tokio::test]
async fn scope_narrows_the_token() {
    let issuer = Running::start().await;
    let body = issuer.exchange(&issuer.cluster.token("service-b"), "&scope=reader").await.json();
    let jwks = issuer.get("/jwks").await.body;
    let verified = verify(body["access_token"].as_str().unwrap(), &jwks, "postgres-b/postgres-b").unwrap();
    assert_eq!((roles(&verified), &body["scope"]), (vec!["reader"], &json!("reader")));
    let refused = issuer.exchange(&issuer.cluster.token("service-b"), "&scope=reader+admin").await;
    assert_eq!(refused.error(), (400, "invalid_scope".to_owned()));
}

#[tokio::test]
async fn who_has_no_grant_has_no_target_whether_it_exists_or_not() {
    let issuer = Running::start().await;
    for (namespace, audience) in
        [("service-a", "postgres-b/postgres-b"), ("service-b", "postgres-a/postgres-a"), ("service-b", "no/such")]
    {
        let answer = issuer.exchange_for(&issuer.cluster.token(namespace), audience, "").await;
        assert_eq!(answer.error(), (400, "invalid_target".to_owned()));
        assert!(answer.head.contains("cache-control: no-store"));
        let description = answer.json()["error_description"].as_str().unwrap().replace(audience, "X");
        assert_eq!(
            description,
            format!("no AccessGrant gives system:serviceaccount:{namespace}:{namespace} a role on X")
        );
    }
}

#[tokio::test]
async fn subject_tokens_that_do_not_hold_are_invalid_requests() {
    let issuer = Running::start().await;
    let (cluster, now) = (&issuer.cluster, runtime::clock::now());
    let impostor = Cluster { kid: "cluster-1", ..Cluster::new("x") };
    let good = cluster.token("service-b");
    let access = issuer.exchange(&good, "").await.json()["access_token"].as_str().unwrap().to_owned();
    for token in [
        cluster.token_with("service-b", &json!({"exp": now - 60})),
        cluster.token_with("service-b", &json!({"nbf": now + 60})),
        cluster.token_with("service-b", &json!({"iss": "https://other.test"})),
        cluster.token_with("service-b", &json!({"aud": ["https://kubernetes.default.svc"]})),
        cluster.token_with("service-b", &json!({"sub": "system:serviceaccount:service-a:service-a"})),
        impostor.token("service-b"),
        Cluster::new("unknown").token("service-b"),
        format!("{good}x"),
        format!("{}.", good.rsplit_once('.').unwrap().0),
        "x".to_owned(),
        access,
    ] {
        let answer = issuer.exchange(&token, "").await;
        assert_eq!(answer.error(), (400, "invalid_request".to_owned()), "{}", answer.body);
        assert!(!answer.body.contains(&token) || token == "x");
    }
    assert_eq!(issuer.metric("token_exchange_total{result=\"invalid_request\"}").await, Some(11.0));
}

#[tokio::test]
async fn requests_that_are_no_exchange_are_refused() {
    let issuer = Running::start().await;
    let grant = issuer.post("grant_type=client_credentials").await;
    assert_eq!(grant.error(), (400, "unsupported_grant_type".to_owned()));
    assert_eq!(issuer.post("").await.error(), (400, "invalid_request".to_owned()));
    let json = issuer.post_as("application/json", "{}").await;
    assert_eq!(json.error(), (400, "invalid_request".to_owned()));
    assert!(json.head.contains("no-store") && json.head.contains("application/json"));
    let twice = issuer.exchange(&issuer.cluster.token("service-b"), "&audience=postgres-b%2Fpostgres-b").await;
    assert_eq!(twice.error(), (400, "invalid_target".to_owned()));
    let large = issuer.post(&format!("subject_token={}", "x".repeat(100_000))).await;
    assert_eq!(large.error(), (413, "invalid_request".to_owned()));
    let query = issuer.raw(&format!("POST /token?grant_type={GRANT_TYPE} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 0\r\n\r\n")).await;
    assert_eq!(query.error(), (400, "invalid_request".to_owned()));
    let get = issuer.get("/token").await;
    assert!(get.status == 405 && get.head.contains("allow: post"), "{}", get.head);
    assert!(get.head.contains("application/problem+json") && get.json()["status"] == 405, "{}", get.body);
    let nothing = issuer.get("/nothing").await;
    assert_eq!((nothing.status, &nothing.json()["title"]), (404, &json!("Not Found")));
    assert_eq!(
        issuer.raw("POST /jwks HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n").await.status,
        405
    );
}

#[tokio::test]
async fn discovery_names_what_is_there() {
    let issuer = Running::start().await;
    for path in ["/.well-known/openid-configuration", "/.well-known/oauth-authorization-server"] {
        let answer = issuer.get(path).await;
        let document = answer.json();
        assert_eq!(document["issuer"], URL);
        assert_eq!(document["token_endpoint"], format!("{URL}/token"));
        assert_eq!(document["jwks_uri"], format!("{URL}/jwks"));
        assert_eq!(document["grant_types_supported"], json!([GRANT_TYPE]));
        let details = json!(["sidegate_postgresql", "sidegate_http"]);
        assert_eq!(document["authorization_details_types_supported"], details);
        assert_eq!(document["response_types_supported"], json!([]));
        assert!(answer.head.contains("cache-control: public, max-age=300"), "{}", answer.head);
    }
    let jwks = issuer.get("/jwks").await;
    assert!(jwks.head.contains("application/jwk-set+json") && jwks.head.contains("max-age=60"), "{}", jwks.head);
    assert!(!jwks.body.contains("\"d\""));
    assert_eq!(issuer.get("/healthz").await.status, 200);
    let described = issuer.get("/openapi.json").await;
    assert!(described.head.contains("content-type: application/json"), "{}", described.head);
    assert_eq!(described.json(), serde_json::from_str::<Value>(&openapi().unwrap()).unwrap());
}

#[tokio::test]
async fn broken_documents_leave_the_last_good_ones_in_force() {
    let issuer = Running::start().await;
    let (path, token) = (issuer.file("documents/grants.yaml"), issuer.cluster.token("service-b"));
    fs::write(&path, "kind: AccessGrant\nspec: {broken").unwrap();
    wait_for(async || issuer.metric("documents_valid").await == Some(0.0)).await;
    assert_eq!(issuer.exchange(&token, "").await.status, 200);
    fs::remove_file(&path).unwrap();
    wait_for(async || issuer.metric("documents_valid").await == Some(1.0)).await;
    assert_eq!(issuer.exchange(&token, "").await.error(), (400, "invalid_target".to_owned()));
    fs::write(&path, DOCUMENTS).unwrap();
    wait_for(async || issuer.exchange(&token, "").await.status == 200).await;
}

#[tokio::test]
async fn a_start_on_broken_documents_is_refused() {
    let (directory, _, config) = prepare("jwks_file: DIR/jwks.json");
    fs::write(directory.path().join("documents/grants.yaml"), "kind: AccessGrant\nspec: {broken").unwrap();
    let error = Issuer::bind(config, Drain::new().1).await.err().unwrap();
    assert!(matches!(error, IssuerError::Grants(GrantsError::Broken { .. })), "{error}");
    assert!(error.to_string().contains("grants.yaml"), "{error}");
}

#[tokio::test]
async fn without_the_clusters_keys_it_is_not_ready_and_recovers() {
    let issuer = Running::start_with("jwks_file: DIR/later.json").await;
    assert_eq!(issuer.get("/readyz").await.status, 503);
    assert_eq!(issuer.get("/healthz").await.status, 200);
    let token = issuer.cluster.token("service-b");
    assert_eq!(issuer.exchange(&token, "").await.error(), (503, "temporarily_unavailable".to_owned()));
    issuer.cluster.publish(&issuer.file("later.json"));
    issuer.ready().await;
    assert_eq!(issuer.exchange(&token, "").await.status, 200);
}

#[tokio::test]
async fn a_rotated_cluster_key_is_taken_up_and_a_broken_file_changes_nothing() {
    let issuer = Running::start().await;
    let next = Cluster::new("cluster-2");
    next.publish(&issuer.file("jwks.json"));
    wait_for(async || issuer.exchange(&next.token("service-b"), "").await.status == 200).await;
    assert_eq!(issuer.exchange(&issuer.cluster.token("service-b"), "").await.status, 400);
    fs::write(issuer.file("jwks.json"), "{}").unwrap();
    // Longer than the file's interval: it was read, and refused.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(issuer.exchange(&next.token("service-b"), "").await.status, 200);
    assert_eq!(issuer.get("/readyz").await.status, 200);
}

/// Serves one fixed document a path over HTTP, as a cluster would.
async fn publisher(documents: Vec<(&'static str, String)>) -> (Listener, Vec<(&'static str, String)>) {
    (Listener::bind(&"127.0.0.1:0".parse().unwrap()).await.unwrap(), documents)
}

fn serve_documents(listener: Listener, documents: Vec<(&'static str, String)>) -> JoinHandle<()> {
    let router = documents
        .into_iter()
        .fold(axum::Router::new(), |router, (path, text)| router.route(path, axum::routing::get(async move || text)));
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() })
}

#[tokio::test]
async fn keys_come_over_http_too() {
    let (listener, _) = publisher(vec![]).await;
    let address = listener.local_address().to_string();
    let issuer = Running::start_with(&format!("jwks_url: 'http://{address}/openid/v1/jwks'")).await;
    let jwks = json!({"keys": [issuer.cluster.jwk]}).to_string();
    let server = serve_documents(listener, vec![("/openid/v1/jwks", jwks)]);
    issuer.ready().await;
    server.abort();
    let answer = issuer.exchange(&issuer.cluster.token("service-b"), "").await;
    assert_eq!(answer.status, 200, "the last known keys serve while their source is away: {}", answer.body);
}

#[tokio::test]
async fn keys_are_discovered_and_only_from_the_right_issuer() {
    let (listener, _) = publisher(vec![]).await;
    let base = format!("http://{}", listener.local_address());
    let cluster = Cluster::new("cluster-1");
    let jwks = json!({"keys": [cluster.jwk]}).to_string();
    let document = json!({"issuer": base, "jwks_uri": format!("{base}/openid/v1/jwks")}).to_string();
    let _server =
        serve_documents(listener, vec![("/.well-known/openid-configuration", document), ("/openid/v1/jwks", jwks)]);
    let tokens = |issuer: &str| config::SubjectTokens {
        issuer: Some(issuer.to_owned()),
        audience: URL.to_owned(),
        keys: config::KeySource::Discovery(format!("{base}/.well-known/openid-configuration")),
        ca_file: None,
        token_review: false,
    };
    assert_eq!(fetch::Fetcher::new(&tokens(&base), None).unwrap().fetch().await.unwrap().keys.len(), 1);
    let error = fetch::Fetcher::new(&tokens("https://other.test"), None).unwrap().fetch().await.map(drop).unwrap_err();
    assert!(error.to_string().contains("another issuer"), "{error}");
}

#[tokio::test]
async fn the_drain_ends_the_issuer_and_a_restart_keeps_its_keys() {
    let issuer = Running::start().await;
    let jwks = issuer.get("/jwks").await.body;
    issuer.drain.start();
    issuer.drain.finished(PATIENCE).await.unwrap();
    issuer.task.await.unwrap().unwrap();
    let (drain, watch) = Drain::new();
    let again = Issuer::bind(issuer.config, watch).await.unwrap();
    assert_eq!(again.exchange.signing.jwks(runtime::clock::now()).0.to_string(), jwks);
    drop(drain);
}

/// A second issuer on the files of the first.
async fn replica(of: &Running) -> (Address, Drain) {
    let (drain, watch) = Drain::new();
    let issuer = Issuer::bind(of.config.clone(), watch).await.unwrap();
    let address = issuer.local_address().clone();
    tokio::spawn(issuer.serve());
    wait_for(async || {
        ask(&address, "GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.status == 200
    })
    .await;
    (address, drain)
}

fn kids(jwks: &str) -> Vec<String> {
    let keys: Value = serde_json::from_str(jwks).unwrap();
    keys["keys"].as_array().unwrap().iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
}

fn signed_by(token: &str) -> String {
    jsonwebtoken::decode_header(token).unwrap().kid.unwrap()
}

/// Twenty rotations by schedule, by either of two issuers that share the file; tokens of both verify with whatever key
/// set a verifier may hold, which is one that either of them published up to half the lead ago.
#[tokio::test]
async fn twenty_rotations_leave_every_token_valid() {
    let mut prepared = prepare("jwks_file: DIR/jwks.json");
    prepared.2.signing_keys = Rotate { period: 1, lead: 1 };
    prepared.2.ttl = 2;
    let one = Running::start_as(prepared).await;
    one.ready().await;
    let (two, _drain) = replica(&one).await;
    let jwks =
        async |address: &Address| ask(address, "GET /jwks HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.body;
    let (mut seen, mut held) = (std::collections::BTreeSet::new(), jwks(&two).await);
    let mut fetched = tokio::time::Instant::now();
    let whole = async {
        while seen.len() <= 20 {
            let token = one.exchange(&one.cluster.token("service-b"), "").await.json();
            let token = token["access_token"].as_str().unwrap();
            assert!(verify(token, &held, "postgres-b/postgres-b").is_ok(), "{} in {held}", signed_by(token));
            seen.insert(signed_by(token));
            if fetched.elapsed() >= Duration::from_millis(500) {
                held = jwks(&two).await;
                fetched = tokio::time::Instant::now();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(8 * PATIENCE, whole).await.expect("rotations do not come");
    assert_eq!(one.metric("signing_keys{state=\"active\"}").await, Some(1.0));
    assert_eq!(one.metric("signing_keys_valid").await, Some(1.0));
}

#[tokio::test]
async fn a_rotation_by_command_reaches_every_issuer() {
    let one = Running::start().await;
    let (two, _drain) = replica(&one).await;
    let jwks = async |address: &Address| {
        kids(&ask(address, "GET /jwks HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.body)
    };
    let before = jwks(&one.address).await;
    assert!(matches!(rotate_signing_keys(&one.config).await.unwrap(), Rotation::Done(_)));
    assert!(matches!(rotate_signing_keys(&one.config).await.unwrap(), Rotation::Pending(_)));
    wait_for(async || jwks(&one.address).await.len() == 2 && jwks(&two).await.len() == 2).await;
    assert_eq!(jwks(&one.address).await, jwks(&two).await);
    let token = one.exchange(&one.cluster.token("service-b"), "").await.json();
    assert_eq!(signed_by(token["access_token"].as_str().unwrap()), before[0]);
    wait_for(async || one.metric("signing_keys{state=\"next\"}").await == Some(1.0)).await;
    fs::write(one.file("keys.json"), "{").unwrap();
    wait_for(async || one.metric("signing_keys_valid").await == Some(0.0)).await;
    assert_eq!(one.exchange(&one.cluster.token("service-b"), "").await.status, 200);
    assert!(rotate_signing_keys(&one.config).await.unwrap_err().to_string().contains("damaged"));
}
