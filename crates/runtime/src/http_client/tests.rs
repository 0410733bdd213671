//! The client against real sockets: slow, oversized and redirecting servers, other statuses, strangers behind TLS.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;

fn client() -> HttpClient {
    HttpClient::new(None).unwrap()
}

/// Reads one request as far as its head and what of the body came with it.
async fn read_request(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut text = Vec::new();
    loop {
        let mut part = [0; 4096];
        let length = stream.read(&mut part).await.unwrap();
        text.extend_from_slice(&part[..length]);
        let seen = String::from_utf8_lossy(&text);
        let body_came = !seen.starts_with("POST") || seen.ends_with("a=b");
        if length == 0 || (seen.contains("\r\n\r\n") && body_came) {
            return seen.into_owned();
        }
    }
}

/// Answers every connection with `head` and `body`; gives the base URL, the number of connections and the last request.
async fn server(head: &'static str, body: Vec<u8>) -> (String, Arc<AtomicUsize>, tokio::sync::watch::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let count = Arc::new(AtomicUsize::new(0));
    let (sender, last) = tokio::sync::watch::channel(String::new());
    let counted = count.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::SeqCst);
            sender.send_replace(read_request(&mut stream).await);
            // Errors are the client's hanging up, which some of the tests are about.
            let _ = stream.write_all(format!("HTTP/1.1 {head}\r\n\r\n").as_bytes()).await;
            let _ = stream.write_all(&body).await;
        }
    });
    (url, count, last)
}

#[tokio::test]
async fn status_and_body_come_back_as_sent() {
    let (url, _, last) = server("200 OK\r\nContent-Length: 2", b"{}".to_vec()).await;
    let answer = client().get(&format!("{url}/a?b=c")).await.unwrap();
    assert_eq!(answer, Answer { status: 200, body: Bytes::from_static(b"{}") });
    let request = last.borrow().to_ascii_lowercase();
    assert!(request.starts_with("get /a?b=c http/1.1\r\n"), "{request}");
    assert!(request.contains(&format!("host: {}\r\n", url.trim_start_matches("http://"))), "{request}");
}

#[tokio::test]
async fn a_form_is_posted_as_one() {
    let (url, _, last) = server("200 OK\r\nContent-Length: 0", vec![]).await;
    assert_eq!(client().post_form(&url, "a=b".to_owned()).await.unwrap().status, 200);
    let request = last.borrow().to_ascii_lowercase();
    assert!(request.starts_with("post / http/1.1\r\n") && request.ends_with("\r\n\r\na=b"), "{request}");
    assert!(request.contains("content-type: application/x-www-form-urlencoded\r\n"), "{request}");
}

#[tokio::test]
async fn another_status_is_returned_and_is_no_document() {
    let (url, ..) = server("400 Bad Request\r\nContent-Length: 3", b"why".to_vec()).await;
    let answer = client().post_form(&url, "a=b".to_owned()).await.unwrap();
    assert_eq!(answer, Answer { status: 400, body: Bytes::from_static(b"why") });
    let error = client().document(&url).await.unwrap_err();
    assert!(matches!(error, HttpError::Status(_, 400)), "{error}");
}

#[tokio::test]
async fn how_long_a_document_is_good_and_when_it_was_sent() {
    for (headers, max_age, date) in [
        ("Date: Sun, 06 Nov 1994 08:49:37 GMT\r\nCache-Control: public, Max-Age=60", Some(60), Some(784_111_777)),
        ("Date: Sun, 06 Nov 1994 08:49:37 GMT\r\nCache-Control: max-age=60\r\nAge: 7", Some(53), Some(784_111_784)),
        ("Cache-Control: max-age=9\r\nCache-Control: max-age=\"5\"\r\nAge: 7\r\nDate: yesterday", Some(0), None),
        ("Cache-Control: no-store, max-age=60", Some(0), None),
        ("Cache-Control: max-age=-1, s-maxage=5", None, None),
        ("Cache-Control: max-age=99999999999999999999999\r\nAge: x\r\nDate: 784111777", None, None),
        ("Cache-Control:", None, None),
        ("Age: 18446744073709551615\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT", None, None),
    ] {
        let head = format!("200 OK\r\n{headers}\r\nContent-Length: 2");
        let (url, ..) = server(head.leak(), b"{}".to_vec()).await;
        let document = client().document(&url).await.unwrap();
        assert_eq!(document.max_age, max_age.map(Duration::from_secs), "{headers}");
        assert_eq!(document.date, date, "{headers}");
    }
}

#[tokio::test]
async fn half_an_answer_is_none() {
    for (head, body) in [("200 OK\r\nContent-Length: 3", "{}"), ("200 OK\r\nTransfer-Encoding: chunked", "2\r\n{}\r\n")]
    {
        let (url, ..) = server(head, body.into()).await;
        let error = client().get(&url).await.unwrap_err();
        assert!(matches!(error, HttpError::Answer(..)), "{error}");
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let (elsewhere, visits, _) = server("200 OK\r\nContent-Length: 0", vec![]).await;
    let head = format!("307 Temporary Redirect\r\nLocation: {elsewhere}/\r\nContent-Length: 0");
    let (url, ..) = server(head.leak(), vec![]).await;
    assert_eq!(client().post_form(&url, "a=b".to_owned()).await.unwrap().status, 307);
    assert!(matches!(client().document(&url).await, Err(HttpError::Status(_, 307))));
    assert_eq!(visits.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn an_oversized_body_is_refused_and_the_largest_is_not() {
    // Without a declared length it ends with the connection: what counts is what comes.
    let (url, ..) = server("200 OK\r\nConnection: close", vec![b' '; ANSWER_LIMIT]).await;
    assert_eq!(client().get(&url).await.unwrap().body.len(), ANSWER_LIMIT);
    let (url, ..) = server("200 OK\r\nConnection: close", vec![b' '; ANSWER_LIMIT + 1]).await;
    let error = client().get(&url).await.unwrap_err();
    assert!(matches!(error, HttpError::Answer(..)), "{error}");
}

#[tokio::test]
async fn a_slow_answer_is_cut_by_the_time_limit() {
    let timeout = Duration::from_millis(300);
    let client = HttpClient { tls: None, timeout };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    // A byte now and then: a limit on silence alone would never end this.
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_request(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n").await.unwrap();
        while stream.write_all(b" ").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let started = Instant::now();
    let error = client.get(&url).await.unwrap_err();
    assert!(matches!(error, HttpError::Timeout(..)), "{error}");
    assert!(started.elapsed() >= timeout && started.elapsed() < 10 * timeout, "{:?}", started.elapsed());
}

#[tokio::test]
async fn only_http_urls_are_asked_and_nobody_home_is_an_error() {
    for url in ["", "/jwks", "ftp://127.0.0.1/", "unix:/tmp/x", "http://"] {
        assert!(matches!(client().get(url).await, Err(HttpError::Connect(..))), "{url}");
    }
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    assert!(matches!(client().get(&format!("http://{free}")).await, Err(HttpError::Connect(..))));
}

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

#[tokio::test]
async fn https_is_spoken_with_whom_the_authorities_vouch_for_only() {
    let (ours, other) = (authority(), authority());
    let directory = tempfile::tempdir().unwrap();
    let [ours_file, other_file, certificate, key_file] =
        ["ours.pem", "other.pem", "tls.crt", "tls.key"].map(|name| directory.path().join(name));
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().signed_by(&key, &ours).unwrap();
    std::fs::write(&ours_file, ours.pem()).unwrap();
    std::fs::write(&other_file, other.pem()).unwrap();
    std::fs::write(&certificate, leaf.pem()).unwrap();
    crate::secret::write(&key_file, key.serialize_pem().as_bytes()).unwrap();
    let acceptor = TlsAcceptor::from(tls::server_config(&certificate, &key_file, &[]).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let request = read_request(&mut stream).await;
            let framing = if request.starts_with("GET /cut") { "Connection: close" } else { "Content-Length: 2" };
            // Then TLS ends without a word (no close_notify), as it does with an attacker who cuts the line.
            let _ = stream.write_all(format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n{{}}").as_bytes()).await;
        }
    });
    let ask = async |ca_file: Option<&Path>| HttpClient::new(ca_file).unwrap().document(&url).await;
    let cut = HttpClient::new(Some(&ours_file)).unwrap().document(&format!("{url}/cut")).await;
    assert!(matches!(cut, Err(HttpError::Answer(..))), "what is not known to be whole is no answer: {cut:?}");
    assert_eq!(ask(Some(&ours_file)).await.unwrap().body, Bytes::from_static(b"{}"));
    assert!(matches!(ask(Some(&other_file)).await, Err(HttpError::Connect(..))));
    assert!(matches!(ask(None).await, Err(HttpError::Connect(..))));
}
