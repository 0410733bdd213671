//! A client of the bare protocol, for what drivers would not send: frames by hand, answers as they come.
//!
//! Absent on purpose: any help with the protocol's order. The test says what goes out.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use crate::tls;

/// How long an answer may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(15);

/// A message of the server's.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    /// Type byte.
    pub tag: u8,
    /// The body.
    pub body: Vec<u8>,
}

impl Message {
    /// A field of an `ErrorResponse`.
    pub fn field(&self, tag: u8) -> String {
        String::from_utf8_lossy(wire::error::field_of(&self.body, tag).unwrap_or_default()).into_owned()
    }

    /// What of the message does not depend on which server sent it: its type, with the SQLSTATE of an error, the tag of
    /// a command, the status of a transaction.
    pub fn outline(&self) -> String {
        let tag = char::from(self.tag);
        match self.tag {
            b'E' | b'N' => format!("{tag}{}", self.field(b'C')),
            b'C' | b'Z' => format!("{tag}{}", String::from_utf8_lossy(&self.body).trim_end_matches('\0')),
            _ => tag.to_string(),
        }
    }
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.outline(), String::from_utf8_lossy(&self.body).replace('\0', "|"))
    }
}

trait Socket: Read + Write + Send {}
impl<S: Read + Write + Send> Socket for S {}

/// A connection.
pub struct Raw {
    socket: Box<dyn Socket>,
}

impl Raw {
    /// Connects to the address of a `postgresql://host:port/…` URL, or to a `host:port`.
    pub fn tcp(url: &str) -> Raw {
        Raw { socket: Box::new(tls::tcp(address(url))) }
    }

    /// The same with direct TLS, trusting `ca_file`.
    pub fn tls(url: &str, ca_file: &Path) -> Raw {
        Raw::tls_as(url, ca_file, b"postgresql", None)
    }

    /// The same, as one who speaks `alpn` and shows a certificate.
    pub fn tls_as(url: &str, ca_file: &Path, alpn: &[u8], shown: Option<&tls::ClientCertificate>) -> Raw {
        Raw { socket: Box::new(tls::connect(address(url), ca_file, &[alpn], shown)) }
    }

    /// Connects to a PostgreSQL server's Unix socket.
    pub fn unix(directory: &str, port: u64) -> Raw {
        let path = Path::new(directory).join(format!(".s.PGSQL.{port}"));
        let stream = UnixStream::connect(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        stream.set_read_timeout(Some(ANSWER_LIMIT)).expect("a timeout can be set");
        Raw { socket: Box::new(stream) }
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) {
        // A peer that has closed is noticed by what it answers.
        let _ = self.socket.write_all(bytes);
        let _ = self.socket.flush();
    }

    /// Sends a start-up packet.
    pub fn start(&mut self, parameters: &[(&str, &str)]) {
        let parameters = parameters.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        let mut out = Vec::new();
        wire::startup::Startup { minor: 0, parameters }.write(&mut out);
        self.send(&out);
    }

    /// Logs in, with `password` if one is asked for, and gives what came up to the first `ReadyForQuery` or an error.
    pub fn log_in(&mut self, user: &str, database: &str, password: Option<&str>) -> Vec<Message> {
        self.start(&[("user", user), ("database", database)]);
        self.finish_log_in(password)
    }

    /// The rest of a login whose start-up packet is sent.
    pub fn finish_log_in(&mut self, password: Option<&str>) -> Vec<Message> {
        let mut seen = Vec::new();
        while let Ok(message) = self.read() {
            if message.tag == b'R' && message.body == [0, 0, 0, 3] {
                let mut out = Vec::new();
                wire::frontend::password(&mut out, password.unwrap_or_default());
                self.send(&out);
            }
            let last = matches!(message.tag, b'Z' | b'E');
            seen.push(message);
            if last {
                break;
            }
        }
        seen
    }

    /// Reads one message.
    pub fn read(&mut self) -> io::Result<Message> {
        let mut head = [0; 5];
        self.socket.read_exact(&mut head)?;
        let [tag, a, b, c, d] = head;
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        let mut body = vec![0; length.saturating_sub(4)];
        self.socket.read_exact(&mut body)?;
        Ok(Message { tag, body })
    }

    /// Reads until a message of type `last` has come `times` times, or the other side closes.
    pub fn read_until(&mut self, last: u8, times: usize) -> Vec<Message> {
        let mut seen = Vec::new();
        let mut left = times;
        while left > 0
            && let Ok(message) = self.read()
        {
            left -= usize::from(message.tag == last);
            seen.push(message);
        }
        seen
    }

    /// Reads until the other side closes.
    pub fn read_to_end(&mut self) -> Vec<Message> {
        let mut seen = Vec::new();
        while let Ok(message) = self.read() {
            seen.push(message);
        }
        seen
    }

    /// Runs one simple query to its `ReadyForQuery`.
    pub fn query(&mut self, text: &str) -> Vec<Message> {
        let mut out = Vec::new();
        wire::frontend::query(&mut out, text);
        self.send(&out);
        self.read_until(b'Z', 1)
    }
}

fn address(url: &str) -> &str {
    url.strip_prefix("postgresql://").unwrap_or(url).split('/').next().unwrap_or_default()
}
