//! An issuer that can be told to misbehave: it publishes a discovery document and a key set, or something else.
//!
//! Absent on purpose: HTTP beyond what is asked of it, and tokens. What it sends is written by hand, so that it can be wrong.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Where the discovery document lies.
pub const DISCOVERY: &str = "/.well-known/openid-configuration";
/// Where the discovery document says that the keys lie.
pub const KEYS: &str = "/jwks";
/// What [`Misbehaviour::Huge`] would send if it were let.
pub const HUGE: u64 = 50 << 20;

/// RFC 8037 appendix A.2.
const KEY: &str =
    r#""kty":"OKP","crv":"Ed25519","alg":"EdDSA","use":"sig","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo""#;

/// What a server may do wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misbehaviour {
    /// Accepts and says nothing.
    Hang,
    /// Says half of its answer.
    HangMidBody,
    /// A byte a second.
    Dribble,
    /// 500.
    Broken,
    /// Bytes that are no HTTP.
    Garbage,
    /// 200, and a page for people.
    Html,
    /// A key set without keys; for a discovery document, one without members.
    Empty,
    /// A key set with keys that nobody can use.
    Unusable,
    /// 50 MB, announced.
    Huge,
    /// 50 MB, not announced.
    HugeChunked,
    /// A discovery document that is another issuer's.
    WrongIssuer,
    /// 302, to where good keys lie.
    Redirect,
    /// Closes hard, before a word.
    Reset,
    /// Names keys at an https URL, where plain HTTP is spoken.
    TlsOnPlain,
}

/// All of them.
pub const ALL: [Misbehaviour; 14] = [
    Misbehaviour::Hang,
    Misbehaviour::HangMidBody,
    Misbehaviour::Dribble,
    Misbehaviour::Broken,
    Misbehaviour::Garbage,
    Misbehaviour::Html,
    Misbehaviour::Empty,
    Misbehaviour::Unusable,
    Misbehaviour::Huge,
    Misbehaviour::HugeChunked,
    Misbehaviour::WrongIssuer,
    Misbehaviour::Redirect,
    Misbehaviour::Reset,
    Misbehaviour::TlsOnPlain,
];

#[derive(Default)]
struct Script {
    wrong: HashMap<&'static str, Misbehaviour>,
    issuer: String,
    keys: String,
    headers: String,
}

/// The server; it ends with the runtime that it was started on.
#[derive(Clone)]
pub struct Issuer {
    url: String,
    script: Arc<Mutex<Script>>,
    sent: Arc<AtomicU64>,
    asked: Arc<AtomicU64>,
}

impl Issuer {
    /// Starts one that behaves, with one key of this name.
    pub async fn start(kid: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("its address"));
        let issuer = Self { url, script: Arc::default(), sent: Arc::default(), asked: Arc::default() };
        issuer.named(&issuer.url);
        issuer.publish(kid);
        let serving = issuer.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let serving = serving.clone();
                tokio::spawn(async move { serving.serve(stream).await });
            }
        });
        issuer
    }

    /// Its base URL.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// From now on it calls itself so, and not by its URL.
    pub fn named(&self, issuer: &str) {
        self.change(|script| issuer.clone_into(&mut script.issuer));
    }

    /// From now on it publishes one Ed25519 key, of this name.
    pub fn publish(&self, kid: &str) {
        self.publish_set(&format!(r#"{{"keys":[{{{KEY},"kid":"{kid}"}}]}}"#));
    }

    /// From now on this is its key set.
    pub fn publish_set(&self, keys: &str) {
        self.change(|script| keys.clone_into(&mut script.keys));
    }

    /// Header lines of its answers that go well, each with its line end.
    pub fn headers(&self, headers: &str) {
        self.change(|script| headers.clone_into(&mut script.headers));
    }

    /// From now on what lies at `path` ([`DISCOVERY`] or [`KEYS`]) is served like this, or properly again.
    pub fn misbehave(&self, path: &'static str, how: Option<Misbehaviour>) {
        self.change(|script| match how {
            Some(how) => drop(script.wrong.insert(path, how)),
            None => drop(script.wrong.remove(path)),
        });
    }

    /// Bytes of bodies that its sockets took so far.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::SeqCst)
    }

    /// Requests for the discovery document so far.
    pub fn asked(&self) -> u64 {
        self.asked.load(Ordering::SeqCst)
    }

    fn change(&self, change: impl FnOnce(&mut Script)) {
        change(&mut self.script.lock().expect("the script"));
    }

    async fn serve(&self, mut stream: TcpStream) {
        let mut request = vec![0; 8192];
        let length = stream.read(&mut request).await.unwrap_or(0);
        let request = String::from_utf8_lossy(request.get(..length).unwrap_or_default()).into_owned();
        // A TLS handshake, say.
        let Some(path) = request.split(' ').nth(1).filter(|_| request.starts_with("GET ")) else { return };
        let path = [DISCOVERY, KEYS].into_iter().find(|known| *known == path).unwrap_or("/elsewhere");
        if path == DISCOVERY {
            self.asked.fetch_add(1, Ordering::SeqCst);
        }
        let (wrong, good) = {
            let script = self.script.lock().expect("the script");
            let wrong = script.wrong.get(path).copied();
            (wrong, format!("HTTP/1.1 200 OK\r\n{}{}", script.headers, framed(&self.document(path, &script, wrong))))
        };
        // Errors are the client's hanging up, which is what most of this is about.
        let _ = self.answer(&mut stream, path, wrong, &good).await;
    }

    /// What lies there; some misbehave by that alone.
    fn document(&self, path: &str, script: &Script, wrong: Option<Misbehaviour>) -> String {
        let jwks_uri = match wrong {
            Some(Misbehaviour::TlsOnPlain) => format!("{}{KEYS}", self.url.replace("http:", "https:")),
            _ => format!("{}{KEYS}", self.url),
        };
        match wrong {
            Some(Misbehaviour::Empty) if path == KEYS => r#"{"keys":[]}"#.to_owned(),
            Some(Misbehaviour::Empty) => "{}".to_owned(),
            Some(Misbehaviour::Unusable) => {
                r#"{"keys":[{"kty":"RSA","kid":"x","n":"AQAB","e":"AQAB"},{"kty":"EC","crv":"P-521","kid":"y"}]}"#
                    .to_owned()
            }
            Some(Misbehaviour::Html) => "<!doctype html><title>Sign in</title>".to_owned(),
            Some(Misbehaviour::WrongIssuer) => {
                format!(r#"{{"issuer":"https://elsewhere.test","jwks_uri":"{jwks_uri}"}}"#)
            }
            _ if path == DISCOVERY => format!(r#"{{"issuer":"{}","jwks_uri":"{jwks_uri}"}}"#, script.issuer),
            _ => script.keys.clone(),
        }
    }

    async fn answer(
        &self,
        stream: &mut TcpStream,
        path: &str,
        wrong: Option<Misbehaviour>,
        good: &str,
    ) -> std::io::Result<()> {
        let half = good.get(..good.len().saturating_sub(10)).unwrap_or_default();
        match wrong {
            Some(Misbehaviour::Hang) => wait_for_the_end(stream).await,
            Some(Misbehaviour::HangMidBody) => {
                stream.write_all(half.as_bytes()).await?;
                wait_for_the_end(stream).await
            }
            Some(Misbehaviour::Dribble) => dribble(stream, good).await,
            Some(Misbehaviour::Broken) => {
                let answer = format!("HTTP/1.1 500 Internal Server Error\r\n{}", framed("panic"));
                stream.write_all(answer.as_bytes()).await
            }
            Some(Misbehaviour::Garbage) => stream.write_all(&[0x80, 0, 13, 10, 0xff, 0].repeat(400)).await,
            Some(Misbehaviour::Huge) => {
                stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {HUGE}\r\n\r\n").as_bytes()).await?;
                self.flood(stream, "").await
            }
            Some(Misbehaviour::HugeChunked) => {
                stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await?;
                self.flood(stream, "10000\r\n").await
            }
            Some(Misbehaviour::Redirect) => {
                let answer = format!("HTTP/1.1 302 Found\r\nLocation: {path}?good\r\n{}", framed(""));
                stream.write_all(answer.as_bytes()).await
            }
            Some(Misbehaviour::Reset) => stream.set_zero_linger(),
            _ => stream.write_all(good.as_bytes()).await,
        }
    }

    /// 50 MB in pieces of 64 KiB, each behind `head` and, then, before a line end.
    async fn flood(&self, stream: &mut TcpStream, head: &str) -> std::io::Result<()> {
        let piece = vec![b' '; 1 << 16];
        for _ in 0..HUGE >> 16 {
            stream.write_all(head.as_bytes()).await?;
            stream.write_all(&piece).await?;
            self.sent.fetch_add(1 << 16, Ordering::SeqCst);
            if !head.is_empty() {
                stream.write_all(b"\r\n").await?;
            }
        }
        wait_for_the_end(stream).await
    }
}

fn framed(body: &str) -> String {
    format!("Content-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
}

async fn dribble(stream: &mut TcpStream, text: &str) -> std::io::Result<()> {
    for byte in text.bytes() {
        stream.write_all(&[byte]).await?;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    Ok(())
}

/// The client must be the one that gives up.
async fn wait_for_the_end(stream: &mut TcpStream) -> std::io::Result<()> {
    let mut byte = [0; 1];
    while stream.read(&mut byte).await? > 0 {}
    Ok(())
}
