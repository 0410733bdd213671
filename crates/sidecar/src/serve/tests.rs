//! Two whole sidecars with certificates from an issuer, and a thief between them.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use identity::certificate::SpiffeId;
use parking_lot::Mutex;
use runtime::drain::Drain;
use runtime::listen::Stream;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::*;
use crate::config::{CertificateSource, Certificates as Wanted, Issuer as IssuerConfig};
use crate::testing::{Authority, Issuer, PATIENCE};

const DB: &str = "spiffe://cluster.local/ns/b/sa/db";

/// The subject tokens of three pods, and whose they are.
const PODS: [(&str, &str); 3] =
    [("app", "spiffe://cluster.local/ns/a/sa/app"), ("db", DB), ("thief", "spiffe://cluster.local/ns/a/sa/thief")];

/// Signs certificates for the pods and bound tokens for the app; the last of these is noted. `/hello` is the service,
/// which repeats what it hears.
async fn issuer(noted: Arc<Mutex<String>>) -> Arc<Issuer> {
    let authority = Authority::new();
    let issuer = Arc::new(Issuer::start().await);
    let bundle = authority.pem();
    issuer.serve("/trust-bundle", move |_, _| Some(("", bundle.clone().into_bytes())));
    issuer.serve("/certificates", move |head, body| {
        let (_, uri) = PODS.into_iter().find(|(token, _)| head.contains(&format!("Bearer {token}\r\n")))?;
        Some(("", authority.sign_request(body, uri, Duration::from_secs(3600))?.into_bytes()))
    });
    issuer.serve("/hello", |head, _| Some(("", head.as_bytes().to_vec())));
    let signer = Arc::downgrade(&issuer);
    issuer.serve("/token", move |_, body| {
        let form: Vec<_> = form_urlencoded::parse(body).into_owned().collect();
        let field = |name: &str| form.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str());
        assert_eq!(field("subject_token"), Some("app"));
        let binding: serde_json::Value = serde_json::from_str(field("req_cnf")?).ok()?;
        let rules = json!([{"methods": ["GET"], "paths": ["/hello"]}]);
        let details = json!([{"type": "sidegate_http", "role": "guest", "rules": rules}]);
        let token = signer.upgrade()?.token(&json!({"cnf": binding, "authorization_details": details}));
        noted.lock().clone_from(&token);
        Some(("", json!({"access_token": token, "expires_in": 600}).to_string().into_bytes()))
    });
    issuer
}

fn start(config: &str, drain: &DrainWatch) {
    let config = Config::parse(config).unwrap();
    let drain = drain.clone();
    tokio::spawn(async move { serve(config, drain).await.map(drop).unwrap() });
}

async fn get(mut link: impl AsyncRead + AsyncWrite + Unpin, token: &str) -> String {
    let request = format!("GET /hello HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{token}\r\n");
    link.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // A TLS connection that is closed without a goodbye has said all the same what it had to.
    let _ = link.read_to_end(&mut answer).await;
    String::from_utf8(answer).unwrap()
}

/// Asks through the app's sidecar until it is let through.
async fn through(socket: &Path) -> String {
    let address = Address::Unix(socket.to_owned());
    let asking = async {
        loop {
            if let Ok(stream) = Stream::connect(&address).await {
                let answer = get(stream, "").await;
                if answer.starts_with("HTTP/1.1 200") {
                    return answer;
                }
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(PATIENCE, asking).await.expect("the app gets through")
}

#[tokio::test]
async fn a_token_that_was_stolen_is_worth_nothing_to_another_pod() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    for (token, _) in PODS {
        fs::write(path(token), token).unwrap();
    }
    let stolen = Arc::new(Mutex::new(String::new()));
    let issuer = issuer(stolen.clone()).await;
    let (url, upstream) = (&issuer.url, issuer.url.trim_start_matches("http://"));
    let (_drain, watch) = Drain::new();
    let at = dir.path().display();
    start(
        &format!(
            "service: b/db\nissuer: {{url: '{url}', subject_token_file: {at}/db}}\ncertificates: {{from: issuer}}\n\
             inbound: [{{protocol: http, listen: 'unix:{at}/in', tls: {{}}, upstream: '{upstream}'}}]\n"
        ),
        &watch,
    );
    start(
        &format!(
            "service: a/app\nissuer: {{url: '{url}', subject_token_file: {at}/app}}\ncertificates: {{from: issuer}}\n\
             outbound: [{{protocol: http, listen: 'unix:{at}/out', target: b/db, connect: 'unix:{at}/in', tls: {{}}}}]\n"
        ),
        &watch,
    );
    let answer = through(&path("out")).await.to_ascii_lowercase();
    assert!(answer.contains("x-sidegate-subject: system:serviceaccount:a:app"), "{answer}");

    let thief = IssuerConfig { url: url.clone(), subject_token_file: Some(path("thief")), ca_file: None };
    let wanted = Wanted { trust_domain: "cluster.local".to_owned(), source: CertificateSource::Issuer };
    let metrics = certificates::Metrics::register(&runtime::metrics::Metrics::new());
    let thiefs = Certificates::start(&wanted, &thief, issuer.client(), metrics).unwrap();
    let mut identities = thiefs.identities();
    let own = tokio::time::timeout(PATIENCE, identities.wait_for(Option::is_some)).await.unwrap().unwrap().clone();
    let config = thiefs.client_config(&DB.parse::<SpiffeId>().unwrap(), &[b"http/1.1"]).unwrap();
    let dialer = Dialer { address: Address::Unix(path("in")), tls: Some((config, "localhost".try_into().unwrap())) };
    let shown = format!("Authorization: Bearer {}\r\n", stolen.lock());
    for identity in [None, own.as_ref()] {
        let answer = get(dialer.with_identity(identity).dial().await.unwrap(), &shown).await;
        assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
        assert!(answer.contains("bound to a certificate"), "{answer}");
    }
}
