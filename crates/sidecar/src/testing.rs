//! What the tests of this crate share: an issuer's stand-in on a real socket, which may go away, and what it signs.

use std::collections::HashMap;
use std::sync::Arc;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::Mutex;
use runtime::discovery;
use runtime::http_client::HttpClient;
use runtime::listen::Listener;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// How long a test waits for what must happen.
pub(crate) const PATIENCE: std::time::Duration = std::time::Duration::from_secs(10);

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
