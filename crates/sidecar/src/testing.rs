//! What the tests of this crate share: an issuer's stand-in on a real socket, which may go away, and what it signs; an
//! authority and certificates of workloads, good and bad.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::Mutex;
use rcgen::{BasicConstraints, Certificate, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};
use runtime::discovery;
use runtime::http_client::HttpClient;
use runtime::listen::Listener;
use rustls::pki_types::PrivateKeyDer;
use rustls::sign::CertifiedKey;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::audit::Metrics;
use crate::keys::{KeyMetrics, Keys};
use crate::verify::Verifier;

/// How long a test waits for what must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// An authority of certificates.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(crate) fn new() -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        Authority(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    /// Signs what was asked for in a request (PKCS#10), but for the names.
    pub(crate) fn sign_request(&self, request: &[u8], uri: &str, life: Duration) -> Option<String> {
        let asked = rcgen::CertificateSigningRequestParams::from_der(&request.into()).ok()?;
        let mut params = workload(&[uri]);
        params.not_after = (std::time::SystemTime::now() + life).into();
        Some(params.signed_by(&asked.public_key, &self.0).unwrap().pem())
    }

    pub(crate) fn sign(&self, key: &KeyPair, params: &CertificateParams) -> Certificate {
        params.signed_by(key, &self.0).unwrap()
    }

    /// A certificate, with a key of its own.
    pub(crate) fn issue(&self, params: &CertificateParams) -> Arc<CertifiedKey> {
        let key = KeyPair::generate().unwrap();
        certified(&self.sign(&key, params), &key)
    }
}

/// What a certificate with these URIs holds.
pub(crate) fn workload(uris: &[&str]) -> CertificateParams {
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.subject_alt_names.extend(uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())));
    params
}

pub(crate) fn certified(certificate: &Certificate, key: &KeyPair) -> Arc<CertifiedKey> {
    let private = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    runtime::tls::certified_key(certificate.pem().as_bytes(), private).unwrap()
}

/// An answer: its header fields but the length, and its body.
pub(crate) type Page = (&'static str, Vec<u8>);

/// Makes an answer of a request's head and body.
type Handler = Box<dyn Fn(&str, &[u8]) -> Option<Page> + Send>;

/// An issuer's stand-in. What it has no answer for is a 503.
pub(crate) struct Issuer {
    pub(crate) url: String,
    key: Ed25519KeyPair,
    handlers: Arc<Mutex<HashMap<&'static str, Handler>>>,
}

impl Issuer {
    pub(crate) async fn start() -> Issuer {
        let listener = Listener::bind(&"127.0.0.1:0".parse().unwrap()).await.unwrap();
        let url = format!("http://{}", listener.local_address());
        let handlers: Arc<Mutex<HashMap<&'static str, Handler>>> = Arc::default();
        let served = handlers.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (head, body) = read(&mut stream).await;
                let path = head.split(' ').nth(1).unwrap_or_default();
                let page = served.lock().get(path).and_then(|handler| handler(&head, &body));
                let (status, (fields, body)) = page.map_or(("503 Away", ("", Vec::new())), |page| ("200 OK", page));
                let start = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n{fields}\r\n", body.len());
                let _ = stream.write_all(&[start.as_bytes(), &body].concat()).await;
            }
        });
        let issuer = Issuer { url, key: Ed25519KeyPair::generate().unwrap(), handlers };
        issuer.publish_keys();
        issuer
    }

    /// Answers requests for `path`.
    pub(crate) fn serve(&self, path: &'static str, handler: impl Fn(&str, &[u8]) -> Option<Page> + Send + 'static) {
        self.handlers.lock().insert(path, Box::new(handler));
    }

    pub(crate) fn client(&self) -> HttpClient {
        HttpClient::new(None).unwrap()
    }

    /// Stops to answer requests for `path`.
    pub(crate) fn away(&self, path: &'static str) {
        self.handlers.lock().remove(path);
    }

    /// Verifies tokens for the service `b/db`.
    pub(crate) async fn verifier(&self) -> Verifier {
        let keys = Keys::start(self.client(), &self.url, KeyMetrics::default());
        tokio::time::timeout(PATIENCE, keys.first()).await.expect("the keys are fetched");
        let metrics = Metrics::register(&runtime::metrics::Metrics::new());
        Verifier::new("b/db".parse().unwrap(), &self.url, keys, metrics)
    }

    /// A token of these claims, completed by all that a good one needs.
    pub(crate) fn token(&self, claims: &Value) -> String {
        let now = runtime::clock::now();
        let mut all = json!({
            "iss": self.url, "sub": "system:serviceaccount:a:app", "aud": "b/db", "iat": now, "exp": now + 600,
            "jti": "id", "client_id": "app", "authorization_details": [],
        });
        all.as_object_mut().unwrap().extend(claims.as_object().unwrap().clone());
        let header = json!({"alg": "EdDSA", "kid": "one", "typ": "at+jwt"});
        let signed = format!("{}.{}", base64url(header.to_string()), base64url(all.to_string()));
        let signature = self.key.sign(signed.as_bytes());
        format!("{signed}.{}", base64url(signature))
    }

    fn publish_keys(&self) {
        let x = base64url(self.key.public_key());
        let keys = json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "kid": "one", "x": x}]});
        let document = json!({"issuer": self.url, "jwks_uri": format!("{}/jwks", self.url)});
        self.serve(discovery::PATH, move |_, _| Some(("", document.to_string().into_bytes())));
        self.serve("/jwks", move |_, _| Some(("", keys.to_string().into_bytes())));
    }
}

async fn read(stream: &mut (impl AsyncReadExt + Unpin)) -> (String, Vec<u8>) {
    let mut bytes = Vec::new();
    loop {
        let more = stream.read_buf(&mut bytes).await.unwrap_or(0);
        let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
            if more == 0 {
                return (String::new(), Vec::new());
            }
            continue;
        };
        let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let whole = end + 4 + length.map_or(0, |length| length.parse::<usize>().unwrap());
        if bytes.len() >= whole || more == 0 {
            return (String::from_utf8_lossy(&bytes[..end]).into_owned(), bytes[end + 4..].to_vec());
        }
    }
}

fn base64url(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}
