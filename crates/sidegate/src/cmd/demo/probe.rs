//! A login with PostgreSQL's protocol 3.0, without a password, and one HTTP request: the demo's proof that a listener is
//! really up. Just enough of the protocols for that.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpStream, UnixStream};

/// Protocol 3.0.
const PROTOCOL: u32 = 196_608;
/// A login's answers are short; more than this is no PostgreSQL.
const MESSAGE_MAX: usize = 64 * 1024;
/// Of an HTTP answer, the first line is enough.
const STATUS_LINE_MAX: u64 = 256;
/// One attempt, not the whole wait.
const ATTEMPT: Duration = Duration::from_secs(5);

/// Where to log in.
pub enum Target {
    Tcp(u16),
    Unix(PathBuf),
}

/// How a login ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Login {
    Accepted,
    /// SQLSTATE and message of the refusal.
    Refused {
        code: String,
        message: String,
    },
}

/// Log in once. An `Err` means nobody there speaks PostgreSQL yet.
pub async fn login(target: &Target, user: &str, database: &str) -> io::Result<Login> {
    let attempt = async {
        match target {
            Target::Tcp(port) => converse(TcpStream::connect(("127.0.0.1", *port)).await?, user, database).await,
            Target::Unix(path) => converse(UnixStream::connect(path).await?, user, database).await,
        }
    };
    tokio::time::timeout(ATTEMPT, attempt).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

/// Send one request to `path` on a port of this machine, a POST if it has a body; its status. An `Err` means nobody there
/// speaks HTTP yet.
pub async fn http(port: u16, path: &str, body: Option<&str>) -> io::Result<u16> {
    let attempt = async { request(TcpStream::connect(("127.0.0.1", port)).await?, path, body).await };
    tokio::time::timeout(ATTEMPT, attempt).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

async fn request(mut stream: impl AsyncRead + AsyncWrite + Unpin, path: &str, body: Option<&str>) -> io::Result<u16> {
    let method = if body.is_some() { "POST" } else { "GET" };
    let body = body.unwrap_or_default();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(format!("{head}{body}").as_bytes()).await?;
    let mut line = String::new();
    BufReader::new(stream.take(STATUS_LINE_MAX)).read_line(&mut line).await?;
    let status =
        line.strip_prefix("HTTP/1.").and_then(|rest| rest.split(' ').nth(1)).and_then(|code| code.parse().ok());
    status.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

async fn converse(mut stream: impl AsyncRead + AsyncWrite + Unpin, user: &str, database: &str) -> io::Result<Login> {
    stream.write_all(&startup(user, database)).await?;
    loop {
        let (kind, body) = read_message(&mut stream).await?;
        match (kind, body.get(..4)) {
            (b'Z', _) => {
                stream.write_all(b"X\0\0\0\x04").await?;
                return Ok(Login::Accepted);
            }
            (b'E', _) => return Ok(Login::Refused { code: field(&body, b'C'), message: field(&body, b'M') }),
            (b'R', Some(method)) if method != [0, 0, 0, 0] => {
                return Ok(Login::Refused { code: "28000".into(), message: "a password or token is asked for".into() });
            }
            _ => {}
        }
    }
}

fn startup(user: &str, database: &str) -> Vec<u8> {
    let mut body = PROTOCOL.to_be_bytes().to_vec();
    for text in ["user", user, "database", database, "application_name", "sidegate demo", ""] {
        body.extend_from_slice(text.as_bytes());
        body.push(0);
    }
    let length = u32::try_from(body.len() + 4).unwrap_or(u32::MAX);
    [length.to_be_bytes().to_vec(), body].concat()
}

async fn read_message(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<(u8, Vec<u8>)> {
    let kind = stream.read_u8().await?;
    let length = stream.read_u32().await? as usize;
    if !(4..=MESSAGE_MAX).contains(&length) {
        return Err(io::Error::from(io::ErrorKind::InvalidData));
    }
    let mut body = vec![0; length - 4];
    stream.read_exact(&mut body).await?;
    Ok((kind, body))
}

/// One field of an ErrorResponse: a letter, text, NUL.
fn field(body: &[u8], wanted: u8) -> String {
    body.split(|byte| *byte == 0)
        .find_map(|field| field.strip_prefix(&[wanted]))
        .map_or_else(String::new, |text| String::from_utf8_lossy(text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn tells_a_refusal_from_a_login() {
        let (client, mut server) = tokio::io::duplex(1024);
        let refused = tokio::spawn(converse(client, "reader", "shop"));
        server.write_all(b"E\0\0\0\x17SFATAL\0C28000\0Mno\0\0").await.unwrap();
        let Login::Refused { code, message } = refused.await.unwrap().unwrap() else { panic!("accepted") };
        assert_eq!((code.as_str(), message.as_str()), ("28000", "no"));

        let (client, mut server) = tokio::io::duplex(1024);
        let accepted = tokio::spawn(converse(client, "reader", "shop"));
        server.write_all(b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I").await.unwrap();
        assert_eq!(accepted.await.unwrap().unwrap(), Login::Accepted);
    }

    #[tokio::test]
    async fn a_length_that_lies_is_no_postgresql() {
        let (client, mut server) = tokio::io::duplex(1024);
        let login = tokio::spawn(converse(client, "reader", "shop"));
        server.write_all(b"HTTP/1.1 400 Bad Request\r\n").await.unwrap();
        assert!(login.await.unwrap().is_err());
    }

    #[tokio::test]
    async fn only_http_has_a_status() {
        for (answer, status) in
            [("HTTP/1.1 403 Forbidden\r\nServer: x\r\n\r\n", Some(403)), ("220 smtp\r\n", None), ("", None)]
        {
            let (client, mut server) = tokio::io::duplex(1024);
            let asked = tokio::spawn(request(client, "/query", Some("{}")));
            server.write_all(answer.as_bytes()).await.unwrap();
            server.shutdown().await.unwrap();
            assert_eq!(asked.await.unwrap().ok(), status, "{answer:?}");
        }
    }
}
