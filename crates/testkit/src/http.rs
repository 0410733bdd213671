//! A client of bare HTTP/1.1, plain or over TLS: requests by hand, so that wrong ones can be sent, answers read one by one.
//!
//! Absent on purpose: HTTP/2, redirects, retries, and any care for what a request should look like.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;

use serde_json::Value;

use crate::tls;

trait Socket: Read + Write + Send {}
impl<S: Read + Write + Send> Socket for S {}

/// A connection.
pub struct Http {
    socket: BufReader<Box<dyn Socket>>,
}

impl Http {
    /// Connects to where a URL points; an `https` one needs the demo's `ca_file`.
    pub fn connect(url: &str, ca_file: &Path) -> Http {
        Http::connect_as(url, ca_file, None)
    }

    /// The same, showing a certificate.
    pub fn connect_as(url: &str, ca_file: &Path, shown: Option<&tls::ClientCertificate>) -> Http {
        match url.strip_prefix("https://") {
            Some(rest) => Http::new(Box::new(tls::connect(rest, ca_file, &[], shown))),
            None => Http::new(Box::new(tls::tcp(url.strip_prefix("http://").unwrap_or(url)))),
        }
    }

    fn new(socket: Box<dyn Socket>) -> Http {
        Http { socket: BufReader::new(socket) }
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) {
        // A peer that has closed is noticed by what it answers.
        let _ = self.socket.get_mut().write_all(bytes);
        let _ = self.socket.get_mut().flush();
    }

    /// Reads one answer; nothing if the other side closes first.
    pub fn answer(&mut self) -> Option<Answer> {
        let status = self.line()?.split(' ').nth(1)?.parse().ok()?;
        let mut headers = Vec::new();
        loop {
            let line = self.line()?;
            let Some((name, value)) = line.split_once(':') else { break };
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let mut answer = Answer { status, headers, body: Vec::new() };
        answer.body = self.body(&answer)?;
        Some(answer)
    }

    /// What follows, to the end or to where it breaks off.
    pub fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        let _ = self.socket.read_to_end(&mut rest);
        rest
    }

    /// Exactly so many bytes, as after a change of protocol.
    pub fn take(&mut self, length: usize) -> Option<Vec<u8>> {
        let mut bytes = vec![0; length];
        self.socket.read_exact(&mut bytes).ok()?;
        Some(bytes)
    }

    fn body(&mut self, answer: &Answer) -> Option<Vec<u8>> {
        if answer.status < 200 || answer.status == 204 || answer.status == 304 {
            return Some(Vec::new());
        }
        if answer.header("transfer-encoding").is_some() {
            return self.chunks();
        }
        match answer.header("content-length") {
            Some(length) => self.take(length.parse().ok()?),
            None => Some(self.rest()),
        }
    }

    fn chunks(&mut self) -> Option<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let length = usize::from_str_radix(self.line()?.split(';').next()?, 16).ok()?;
            body.extend(self.take(length)?);
            // The end of a chunk's line, or of the trailers, of which there are none.
            self.line()?;
            if length == 0 {
                return Some(body);
            }
        }
    }

    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        match self.socket.read_line(&mut line) {
            Ok(1..) => Some(line.trim_end().to_owned()),
            _ => None,
        }
    }
}

/// What came back.
#[derive(Clone)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// Names in lower case, in the order they came.
    pub headers: Vec<(String, String)>,
    /// All of it, without its framing.
    pub body: Vec<u8>,
}

impl Answer {
    /// A header's first value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {:?} {}", self.status, self.headers, self.text())
    }
}

/// The bytes of a request as it should be: `Host` and `Content-Length` are added.
pub fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let length = body.len();
    let head = format!("{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {length}\r\n{headers}\r\n");
    [head.as_bytes(), body].concat()
}

/// A path below a URL, as it stands in a request: what the URL says after its host, and `path`.
pub fn path_of(url: &str, path: &str) -> String {
    let host_and_path = url.split_once("://").map_or(url, |(_, rest)| rest);
    host_and_path.split_once('/').map_or_else(|| path.to_owned(), |(_, base)| format!("/{base}{path}"))
}
