//! One end of a connection, with or without TLS, and how one to another sidecar is made.
//!
//! Deliberately absent: what is spoken on it, which is `pg`'s and `http`'s.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use runtime::listen::{Address, Stream};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::{TlsConnector, TlsStream};

/// Time for the other side to take a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// One end of a connection.
pub(crate) enum Link {
    Plain(Stream),
    Tls(Box<TlsStream<Stream>>),
}

impl Link {
    pub(crate) fn is_encrypted(&self) -> bool {
        matches!(self, Link::Tls(_))
    }
}

/// Where connections go, and how the other side proves itself.
#[derive(Clone)]
pub(crate) struct Dialer {
    pub(crate) address: Address,
    pub(crate) tls: Option<(Arc<rustls::ClientConfig>, ServerName<'static>)>,
}

impl Dialer {
    /// Connects, TLS and all. Cancel safe: the connection is dropped.
    pub(crate) async fn dial(&self) -> io::Result<Link> {
        let dialling = async {
            let stream = Stream::connect(&self.address).await?;
            match &self.tls {
                None => Ok(Link::Plain(stream)),
                Some((config, name)) => {
                    let tls = TlsConnector::from(config.clone()).connect(name.clone(), stream).await?;
                    Ok(Link::Tls(Box::new(tls.into())))
                }
            }
        };
        tokio::time::timeout(CONNECT_TIMEOUT, dialling).await.unwrap_or_else(|_| {
            let why = format!("no answer in {} s", CONNECT_TIMEOUT.as_secs());
            Err(io::Error::new(io::ErrorKind::TimedOut, why))
        })
    }
}

impl AsyncRead for Link {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Link::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Link::Tls(stream) => Pin::new(stream.as_mut()).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Link {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Link::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Link::Tls(stream) => Pin::new(stream.as_mut()).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Link::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Link::Tls(stream) => Pin::new(stream.as_mut()).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Link::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Link::Tls(stream) => Pin::new(stream.as_mut()).poll_shutdown(cx),
        }
    }
}
