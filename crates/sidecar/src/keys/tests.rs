//! Keys found by discovery at a small issuer on a real socket, which may go away or turn into another.

use std::collections::HashMap;

use runtime::listen::Listener;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

/// RFC 8037 appendix A.2.
const KEY: &str =
    r#""kty":"OKP","crv":"Ed25519","alg":"EdDSA","use":"sig","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo""#;

/// How long a test waits for what must happen.
const PATIENCE: Duration = Duration::from_secs(10);

type Documents = Arc<Mutex<HashMap<String, String>>>;

/// Serves the documents as they are at the moment; whatever is not there is a 503.
async fn issuer() -> (String, Documents) {
    let listener = Listener::bind(&"127.0.0.1:0".parse().unwrap()).await.unwrap();
    let url = format!("http://{}", listener.local_address());
    let documents = Documents::default();
    let served = documents.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = vec![0; 4096];
            let length = stream.read(&mut request).await.unwrap_or(0);
            let request = String::from_utf8_lossy(&request[..length]).into_owned();
            let path = request.split(' ').nth(1).unwrap_or_default();
            let found = served.lock().get(path).cloned();
            let (status, body) = found.map_or(("503 Service Unavailable", String::new()), |body| ("200 OK", body));
            let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    (url, documents)
}

fn publish(documents: &Documents, issuer: &str, base: &str, path: &str, kid: &str) {
    let document = serde_json::json!({"issuer": issuer, "jwks_uri": format!("{base}{path}")}).to_string();
    let keys = format!(r#"{{"keys":[{{{KEY},"kid":"{kid}"}}]}}"#);
    *documents.lock() = HashMap::from([(discovery::PATH.to_owned(), document), (path.to_owned(), keys)]);
}

fn start(url: &str) -> Keys {
    Keys::start(HttpClient::new(None).unwrap(), url)
}

async fn first(keys: &Keys) {
    tokio::time::timeout(PATIENCE, keys.first()).await.expect("the issuer is reached");
}

#[tokio::test]
async fn keys_are_where_the_discovery_document_says_and_stay_while_the_issuer_is_away() {
    let (url, documents) = issuer().await;
    publish(&documents, &url, &url, "/somewhere/keys", "one");
    let keys = start(&url);
    first(&keys).await;
    assert!(keys.known().unwrap().keys.contains("one"));

    documents.lock().clear();
    let started = tokio::time::Instant::now();
    keys.refresh().await;
    assert!(started.elapsed() < UNKNOWN_KEY_WAIT + Duration::from_secs(1), "{:?}", started.elapsed());
    assert!(keys.known().unwrap().keys.contains("one"));

    // Back, elsewhere, with another key: the retry finds it, asked or not.
    publish(&documents, &url, &url, "/moved", "two");
    let mut known = keys.known.clone();
    let back = known.wait_for(|fetched| fetched.as_ref().is_some_and(|fetched| fetched.keys.contains("two")));
    assert!(tokio::time::timeout(PATIENCE, back).await.is_ok());
}

#[tokio::test]
async fn an_unknown_key_refreshes_but_not_often() {
    let (url, documents) = issuer().await;
    publish(&documents, &url, &url, "/jwks", "one");
    let keys = start(&url);
    first(&keys).await;
    publish(&documents, &url, &url, "/jwks", "two");
    keys.refresh().await;
    assert!(keys.known().unwrap().keys.contains("two"));
    publish(&documents, &url, &url, "/jwks", "three");
    let before = keys.known().unwrap().at;
    keys.refresh().await;
    assert_eq!(keys.known().unwrap().at, before, "a second refresh came at once");
}

#[tokio::test]
async fn the_document_of_another_issuer_gives_no_keys() {
    let (url, documents) = issuer().await;
    publish(&documents, &format!("{url}/"), &url, "/jwks", "one");
    let error = fetch(&HttpClient::new(None).unwrap(), &url).await.unwrap_err();
    assert!(error.contains("another issuer"), "{error}");
}
