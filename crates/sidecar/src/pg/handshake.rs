//! From a fresh connection to a start-up packet: TLS by request or direct, GSSAPI declined, cancellation told apart.

use std::sync::Arc;

use runtime::listen::Stream;
use rustls::ServerConfig;
use tokio::io::AsyncWriteExt;
use wire::startup::{CancelKey, Initial, Startup};
use wire::{ErrorFields, WireError, backend, renewal};

use super::messages::LinkError;
use crate::link::Link;

/// ALPN of PostgreSQL's direct TLS (`sslnegotiation=direct`).
pub(crate) const ALPN: &[u8] = b"postgresql";

/// First byte of a TLS record that carries a handshake.
const TLS_HANDSHAKE: u8 = 0x16;

/// What a client wants.
pub(super) enum Opened {
    Session(Link, Startup),
    Cancel(CancelKey),
    /// It left without asking for anything, as load balancers' checks do.
    Gone,
}

/// Leads a connection up to its start-up packet. Not cancel safe.
///
/// # Errors
/// The peer broke off or broke the protocol. Where it can still be told why, it was.
pub(super) async fn open(stream: Stream, tls: Option<&Arc<ServerConfig>>) -> Result<Opened, LinkError> {
    let mut link = match first_byte(&stream).await? {
        None => return Ok(Opened::Gone),
        Some(TLS_HANDSHAKE) => direct_tls(stream, tls).await?,
        Some(_) => Link::Plain(stream),
    };
    let mut declined_gss = false;
    loop {
        match link.read_initial().await {
            Ok(Initial::Ssl) if !link.is_encrypted() => link = answer_ssl(link, tls).await?,
            Ok(Initial::GssEnc) if !link.is_encrypted() && !declined_gss => {
                declined_gss = true;
                link.send(b"N").await?;
            }
            Ok(Initial::Cancel(key)) => return Ok(Opened::Cancel(key)),
            Ok(Initial::Startup(startup)) => return Ok(Opened::Session(link, startup)),
            Ok(Initial::Ssl | Initial::GssEnc) => {
                let place = "where encryption was settled already";
                return refuse(link, WireError::Unexpected { tag: 0, place }).await;
            }
            Err(LinkError::Wire(error)) => return refuse(link, error).await,
            Err(error) => return Err(error),
        }
    }
}

/// Looks at a connection's first byte and leaves it there. Unix sockets carry no TLS.
async fn first_byte(stream: &Stream) -> Result<Option<u8>, LinkError> {
    let Stream::Tcp(tcp) = stream else {
        return Ok(Some(0));
    };
    let mut byte = [0];
    let read = tcp.peek(&mut byte).await?;
    Ok(byte.first().copied().filter(|_| read > 0))
}

async fn direct_tls(stream: Stream, tls: Option<&Arc<ServerConfig>>) -> Result<Link, LinkError> {
    let Some(tls) = tls else {
        return Err(WireError::Unexpected { tag: TLS_HANDSHAKE, place: "as this listener has no certificate" }.into());
    };
    let link = Link::accept(stream, tls).await?;
    // Without this a cross-protocol attack could make a browser speak here (PostgreSQL demands it, too).
    if !matches!(link.alpn(), Some(ALPN | renewal::ALPN)) {
        return Err(WireError::Malformed("direct TLS connection: ALPN postgresql is required").into());
    }
    Ok(link)
}

async fn answer_ssl(link: Link, tls: Option<&Arc<ServerConfig>>) -> Result<Link, LinkError> {
    match (link, tls) {
        (Link::Plain(mut stream), Some(tls)) => {
            stream.write_all(b"S").await?;
            // The request's eight bytes were read and no more, so whatever was sent behind it in the clear reaches
            // the TLS handshake and fails it.
            Ok(Link::accept(stream, tls).await?)
        }
        (mut link, _) => {
            link.send(b"N").await?;
            Ok(link)
        }
    }
}

/// Tells the peer what was wrong (08P01) and ends.
async fn refuse(mut link: Link, error: WireError) -> Result<Opened, LinkError> {
    let mut out = Vec::new();
    backend::error_response(&mut out, &ErrorFields::fatal("08P01", format!("sidegate: {error}")));
    link.send(&out).await?;
    Err(error.into())
}
