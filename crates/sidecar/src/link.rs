//! One end of a connection, with or without TLS: how one to another sidecar is made and how one is taken, and who is at
//! its other end.
//!
//! Deliberately absent: what is spoken on it, which is `pg`'s and `http`'s.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use identity::Subject;
use identity::certificate::{SpiffeId, Thumbprint, spiffe_id_of};
use runtime::listen::{Address, Stream};
use rustls::ProtocolVersion;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};
use wire::renewal;

use crate::certificates::Identity;

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

    /// Takes a client's TLS handshake. Cancel safe: the connection is dropped.
    pub(crate) async fn accept(stream: Stream, config: &Arc<rustls::ServerConfig>) -> io::Result<Link> {
        let stream = TlsAcceptor::from(config.clone()).accept(stream).await?;
        let link = Link::Tls(Box::new(stream.into()));
        match link.is_between_sidecars() && link.version() != Some(ProtocolVersion::TLSv1_3) {
            // Plain clients may have nothing better; a sidecar that speaks less than the best is none.
            true => Err(io::Error::new(io::ErrorKind::InvalidData, "sidegate/1 is spoken over TLS 1.3 only")),
            false => Ok(link),
        }
    }

    /// Who is at the other end of a link that was taken; none, if no certificate was shown there.
    pub(crate) fn peer(&self) -> Option<Peer> {
        let Link::Tls(stream) = self else { return None };
        let TlsStream::Server(stream) = stream.as_ref() else { return None };
        let certificate = stream.get_ref().1.peer_certificates()?.first()?;
        // TLS has refused names that are not understood; were one to come through, it would be nobody's.
        let spiffe = spiffe_id_of(certificate).ok()?;
        Some(Peer { thumbprint: Thumbprint::of(certificate), spiffe })
    }

    /// Waits until the other end has closed, without reading. Cancel safe.
    pub(crate) async fn closed(&self) {
        match self {
            Link::Plain(stream) => stream.closed().await,
            Link::Tls(stream) => stream.get_ref().0.closed().await,
        }
    }

    /// What both ends agreed to speak.
    pub(crate) fn alpn(&self) -> Option<&[u8]> {
        match self {
            Link::Plain(_) => None,
            Link::Tls(stream) => stream.get_ref().1.alpn_protocol(),
        }
    }

    fn is_between_sidecars(&self) -> bool {
        self.alpn() == Some(renewal::ALPN)
    }

    fn version(&self) -> Option<ProtocolVersion> {
        match self {
            Link::Plain(_) => None,
            Link::Tls(stream) => stream.get_ref().1.protocol_version(),
        }
    }
}

/// Who is at the other end of a link, by the certificate that TLS verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Peer {
    pub(crate) thumbprint: Thumbprint,
    /// The workload that the certificate names; that of a plain client may name none.
    pub(crate) spiffe: Option<SpiffeId>,
}

impl Peer {
    /// The workload that the certificate names.
    pub(crate) fn subject(&self) -> Option<Subject> {
        self.spiffe.as_ref().map(SpiffeId::subject)
    }
}

/// Where connections go, and how the other side proves itself.
#[derive(Clone)]
pub(crate) struct Dialer {
    pub(crate) address: Address,
    pub(crate) tls: Option<(Arc<rustls::ClientConfig>, ServerName<'static>)>,
}

impl Dialer {
    /// The same, showing this certificate of the pod's.
    pub(crate) fn with_identity(&self, identity: Option<&Arc<Identity>>) -> Dialer {
        let mut dialer = self.clone();
        if let (Some(identity), Some((config, _))) = (identity, &mut dialer.tls) {
            *config = identity.presented_by(config);
        }
        dialer
    }

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
