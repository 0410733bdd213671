//! Serving HTTP/1.1 with or without TLS: each connection on a task of its own from its first byte on, so that one that is
//! slow to shake hands or to send its head holds up nobody, and is cut.
//!
//! Absent on purpose: HTTP/2 and client certificates, which nobody needs who asks an issuer or scrapes metrics, and limits
//! on bodies (the routes').

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::drain::DrainWatch;
use crate::listen::{Listener, Stream};

/// Time for a TLS handshake. Slow and silent peers are cut here.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for the head of a request, from the end of the one before.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest head of a request, in bytes. A token has up to 16 KiB.
const HEAD_LIMIT: usize = 64 << 10;
/// Connections at once; more wait to be accepted. Far below what a process may have of open files, so that those who come
/// in numbers do not keep it from reading its own.
const MAX_CONNECTIONS: usize = 4096;

/// What is offered in TLS.
pub const ALPN: [&[u8]; 1] = [b"http/1.1"];

/// Serves until the drain starts and the last request under way is answered. Cancel safe: dropping it closes everything.
///
/// # Errors
/// When the listener will never accept again.
pub async fn serve(
    listener: Listener,
    tls: Option<Arc<ServerConfig>>,
    router: Router,
    drain: DrainWatch,
) -> io::Result<()> {
    let mut connections = JoinSet::new();
    let draining = drain.draining();
    tokio::pin!(draining);
    loop {
        tokio::select! {
            biased;
            () = &mut draining => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => {
                let (stream, peer) = accepted?;
                let router = router.clone().layer(Extension(peer));
                connections.spawn(connection(stream, tls.clone(), router, drain.clone()));
            }
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
    Ok(())
}

async fn connection(stream: Stream, tls: Option<Arc<ServerConfig>>, router: Router, drain: DrainWatch) {
    let Some(config) = tls else { return speak(stream, router, drain).await };
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, TlsAcceptor::from(config).accept(stream)).await {
        Ok(Ok(stream)) => speak(stream, router, drain).await,
        Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
        Err(_) => tracing::debug!("a connection was cut: no TLS handshake in {} s", HANDSHAKE_TIMEOUT.as_secs()),
    }
}

/// Answers requests; once the drain starts, the one under way.
async fn speak(stream: impl AsyncRead + AsyncWrite + Unpin, router: Router, drain: DrainWatch) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(HEAD_LIMIT);
    let connection = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let draining = drain.draining();
    tokio::pin!(connection, draining);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = draining => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "an HTTP connection broke off");
    }
}
