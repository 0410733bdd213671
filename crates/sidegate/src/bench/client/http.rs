//! By `POST /query`, with hyper: HTTP/1.1, one connection that is kept.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::Refused;
use crate::bench::plan::Class;
use crate::bench::statements::{Parameter, Script};

/// Answers here have ten rows at most.
const ANSWER_LIMIT: usize = 1 << 20;
const PATH: &str = "/query";
/// Of an answer that is not as it must be, enough to see why.
const SHOWN: usize = 300;
/// A server that does not close its side is left to itself.
const CLOSE_LIMIT: Duration = Duration::from_secs(2);

/// Where `POST /query` is.
#[derive(Clone)]
pub struct Address {
    /// Host and port.
    authority: String,
    path: String,
}

impl Address {
    /// From a URL, with or without `/query` at its end.
    ///
    /// # Errors
    /// When it is none, or asks for TLS.
    pub fn parse(url: &str) -> anyhow::Result<Self> {
        let uri: Uri = url.parse().with_context(|| format!("{url} is no URL"))?;
        let Some(authority) = uri.authority().filter(|_| uri.scheme_str() == Some("http")) else {
            bail!("{url} is no http:// URL; there is no TLS here: give the address of a sidecar on this machine");
        };
        ensure!(!authority.as_str().contains('@'), "{url} has a user in it, which nothing here asks for");
        let authority = if authority.port().is_some() { authority.to_string() } else { format!("{authority}:80") };
        let base = uri.path().trim_end_matches('/').trim_end_matches(PATH);
        let question = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
        Ok(Self { authority, path: format!("{base}{PATH}{question}") })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.authority, self.path)
    }
}

/// A connection.
pub struct Http {
    address: Address,
    sender: SendRequest<Full<Bytes>>,
    /// Reads and writes for the sender; ends with it.
    driver: JoinHandle<()>,
}

impl Http {
    pub(super) async fn connect(address: &Address) -> anyhow::Result<Self> {
        let socket = TcpStream::connect(&address.authority).await;
        let socket = socket.with_context(|| format!("cannot reach {address}"))?;
        socket.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(socket)).await?;
        // What ends the connection is told by the requests that fail of it.
        let driver = tokio::spawn(async move { drop(connection.await) });
        Ok(Self { address: address.clone(), sender, driver })
    }

    pub(super) async fn request(&mut self, script: Script, class: Class, index: u32) -> anyhow::Result<Duration> {
        let body = match script.literal(class, index) {
            Some(text) => json!({"query": text}),
            None => {
                let parameters: Vec<Value> = script.parameters(class, index).into_iter().map(to_json).collect();
                json!({"query": Script::prepared(class), "params": parameters})
            }
        };
        let request = self.post(&body)?;
        let begun = Instant::now();
        let (status, answer) = self.send(request).await?;
        let taken = begun.elapsed();
        let answer = judge(status, &answer)?;
        let expected = script.expected_rows(class);
        let rows = answer.get("rowCount").and_then(Value::as_u64);
        ensure!(rows == Some(expected), "{rows:?} rows came of {}, not {expected}", Script::prepared(class));
        Ok(taken)
    }

    pub(super) async fn login_name(&mut self) -> anyhow::Result<String> {
        let request = self.post(&json!({"query": "select current_user::text as name"}))?;
        let (status, answer) = self.send(request).await?;
        let answer = judge(status, &answer)?;
        let name = answer.pointer("/rows/0/name").and_then(Value::as_str);
        Ok(name.context("an answer without the row that it must have")?.to_owned())
    }

    pub(super) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    pub(super) async fn close(self) {
        drop(self.sender);
        let _ = tokio::time::timeout(CLOSE_LIMIT, self.driver).await;
    }

    fn post(&self, body: &Value) -> anyhow::Result<Request<Full<Bytes>>> {
        let request =
            Request::builder().method(Method::POST).uri(&self.address.path).header(HOST, &self.address.authority);
        Ok(request.header(CONTENT_TYPE, "application/json").body(Full::new(body.to_string().into()))?)
    }

    async fn send(&mut self, request: Request<Full<Bytes>>) -> anyhow::Result<(StatusCode, Bytes)> {
        self.sender.ready().await?;
        let (head, body) = self.sender.send_request(request).await?.into_parts();
        let body = Limited::new(body, ANSWER_LIMIT).collect().await;
        let body = body.map_err(|error| anyhow::anyhow!("the answer breaks off: {error}"))?;
        Ok((head.status, body.to_bytes()))
    }
}

fn to_json(parameter: Parameter) -> Value {
    match parameter {
        Parameter::Text(text) => text.into(),
        Parameter::Integer(number) => number.into(),
    }
}

fn judge(status: StatusCode, answer: &[u8]) -> anyhow::Result<Value> {
    let shown: String = String::from_utf8_lossy(answer).chars().take(SHOWN).collect();
    let parsed: Option<Value> = serde_json::from_slice(answer).ok();
    match status {
        StatusCode::OK => parsed.with_context(|| format!("an answer that is no JSON: {shown}")),
        StatusCode::UNAUTHORIZED => {
            let words = parsed.as_ref().and_then(|answer| answer.get("message")?.as_str()).unwrap_or("not authorized");
            Err(Refused(words.to_owned()).into())
        }
        _ => bail!("status {status}: {shown}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_the_service_or_its_query() {
        let parsed = |url| Address::parse(url).map(|address| address.to_string()).map_err(|error| error.to_string());
        let address = Ok("http://127.0.0.1:8080/postgres-b/query".to_owned());
        assert_eq!(parsed("http://127.0.0.1:8080/postgres-b"), address);
        assert_eq!(parsed("http://127.0.0.1:8080/postgres-b/query"), address);
        assert_eq!(parsed("http://db/query?role=reader"), Ok("http://db:80/query?role=reader".to_owned()));
        for wrong in ["https://db/query", "db/query", "http://user:secret@db/"] {
            assert!(parsed(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn only_a_missing_token_counts_as_refused() {
        let error = judge(StatusCode::UNAUTHORIZED, br#"{"message": "sidegate: no token"}"#).unwrap_err();
        assert_eq!(super::super::refusal(&error), Some("sidegate: no token"));
        let error = judge(StatusCode::BAD_GATEWAY, b"down").unwrap_err();
        assert_eq!(super::super::refusal(&error), None);
    }
}
