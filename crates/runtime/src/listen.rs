//! Listening and connecting, TCP and Unix sockets alike: addresses as people write them, sockets set the way a proxy
//! wants them, and an accept that outlives a lack of file descriptors.
//!
//! Absent on purpose: TLS (`tls`), limits on the number of connections and what is spoken on them (the servers').

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::str::FromStr;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

mod bind;

pub use bind::{BindError, Listener};

/// A silent peer is probed after this time, then every [`KEEPALIVE_INTERVAL`]; with [`KEEPALIVE_PROBES`] lost it is
/// gone: 30 s in all, the longest that a dead host may hold a backend. There is no `TCP_USER_TIMEOUT` besides: it would
/// also end connections whose live peer only does not read for a while.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(15);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_PROBES: u32 = 3;

/// How often a connection with unread bytes is asked whether its peer has left.
const CLOSED_LOOK: Duration = Duration::from_millis(250);

/// Where to listen or to connect: `127.0.0.1:5432`, `db.example:5432`, `[::1]:5432`, `unix:/run/app/.s.PGSQL.5432`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Address {
    /// `host:port`.
    Tcp(String),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

/// A text that is no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no address ({why}); write host:port, like 127.0.0.1:5432, or unix:/path/to/socket")]
pub struct AddressError {
    text: String,
    why: &'static str,
}

impl Address {
    /// Whether only this machine (this pod) can reach it: loopback or a Unix socket.
    #[must_use]
    pub fn is_local(&self) -> bool {
        match self {
            Self::Unix(_) => true,
            Self::Tcp(text) => {
                let host = text.rsplit_once(':').map_or(text.as_str(), |(host, _)| host);
                let bare = host.trim_start_matches('[').trim_end_matches(']');
                let loopback = bare.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback());
                loopback || bare.eq_ignore_ascii_case("localhost")
            }
        }
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let error = |why| AddressError { text: text.to_owned(), why };
        if let Some(path) = text.strip_prefix("unix:") {
            let path = PathBuf::from(path);
            return if path.is_absolute() { Ok(Self::Unix(path)) } else { Err(error("the path must begin with /")) };
        }
        let (host, port) = text.rsplit_once(':').ok_or_else(|| error("the port is missing"))?;
        port.parse::<u16>().map_err(|_| error("the port must be a number from 0 to 65535"))?;
        let bracketed = host.starts_with('[') && host.ends_with(']');
        if host.is_empty() {
            return Err(error("the host is missing"));
        }
        if host.contains(':') && !bracketed {
            return Err(error("an IPv6 address goes in brackets: [::1]:5432"));
        }
        if host.chars().any(|c| c.is_whitespace() || c == '/') {
            return Err(error("the host has a character that no host has"));
        }
        Ok(Self::Tcp(text.to_owned()))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(text) => f.write_str(text),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl serde::Serialize for Address {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Address {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Who is at the other end of an accepted connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// Their address.
    Tcp(SocketAddr),
    /// A process of this machine; its user, as the kernel tells.
    Unix {
        /// The user id.
        uid: Option<u32>,
    },
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix { uid: Some(uid) } => write!(f, "unix:uid={uid}"),
            Self::Unix { uid: None } => f.write_str("unix"),
        }
    }
}

/// A connection over either kind of socket. TCP ones have `TCP_NODELAY` and keepalive set.
#[derive(Debug)]
pub enum Stream {
    /// Over TCP.
    Tcp(TcpStream),
    /// Over a Unix socket.
    Unix(UnixStream),
}

impl Stream {
    /// Connects. No time limit of its own: wrap it. Cancel safe; a cancelled connection is closed.
    pub async fn connect(address: &Address) -> io::Result<Self> {
        match address {
            Address::Tcp(text) => {
                let stream = TcpStream::connect(text.as_str()).await?;
                prepare(&stream);
                Ok(Self::Tcp(stream))
            }
            Address::Unix(path) => UnixStream::connect(path).await.map(Self::Unix),
        }
    }

    /// Reads what is there without waiting; `WouldBlock` if there is nothing.
    pub fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(s) => s.try_read(buffer),
            Self::Unix(s) => s.try_read(buffer),
        }
    }

    /// Waits until the peer has closed its side, whatever there is to read before. Cancel safe.
    pub async fn closed(&self) {
        loop {
            let ready = match self {
                Self::Tcp(s) => s.ready(Interest::READABLE).await,
                Self::Unix(s) => s.ready(Interest::READABLE).await,
            };
            match ready {
                // Bytes that nobody reads now keep it ready, so that nothing wakes us behind them.
                Ok(ready) if !ready.is_read_closed() => tokio::time::sleep(CLOSED_LOOK).await,
                _ => return,
            }
        }
    }

    /// Waits until there is something to read (or the end). Cancel safe.
    pub async fn readable(&self) -> io::Result<()> {
        match self {
            Self::Tcp(s) => s.readable().await,
            Self::Unix(s) => s.readable().await,
        }
    }
}

/// A socket that cannot be tuned still works, so failures here are not the connection's.
fn prepare(stream: &TcpStream) {
    let keepalive =
        TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_INTERVAL).with_retries(KEEPALIVE_PROBES);
    let socket = SockRef::from(stream);
    let tuned = stream.set_nodelay(true).and_then(|()| socket.set_tcp_keepalive(&keepalive));
    if let Err(error) = tuned {
        tracing::debug!(%error, "a socket option could not be set");
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(s) => Pin::new(s).poll_read(cx, buf),
            Self::Unix(s) => Pin::new(s).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(s) => Pin::new(s).poll_write(cx, buf),
            Self::Unix(s) => Pin::new(s).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(s) => Pin::new(s).poll_write_vectored(cx, bufs),
            Self::Unix(s) => Pin::new(s).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(s) => Pin::new(s).poll_flush(cx),
            Self::Unix(s) => Pin::new(s).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(s) => Pin::new(s).poll_shutdown(cx),
            Self::Unix(s) => Pin::new(s).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests;
