//! What operators and Kubernetes ask of a process: `GET /metrics`, `/healthz`, `/readyz`, and of a sidecar `/decisions`, `/settings`.
//!
//! Absent on purpose: anything that changes state. There is no authentication here, so there is nothing to do, and
//! nothing to read from elsewhere that is anybody's secret.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use parking_lot::Mutex;

use crate::drain::{Drain, DrainWatch};
use crate::http_server;
use crate::listen::Listener;
use crate::metrics::{Format, Metrics};

pub mod decisions;
pub mod settings;

/// What has to be true before traffic is welcome. Clones share the state.
#[derive(Debug, Clone, Default)]
pub struct Readiness(Arc<Mutex<BTreeMap<&'static str, bool>>>);

impl Readiness {
    /// Not waiting for anything: ready.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Says whether `condition` holds. One that was named once with `false` is waited for.
    pub fn set(&self, condition: &'static str, holds: bool) {
        self.0.lock().insert(condition, holds);
    }

    /// The conditions that do not hold.
    #[must_use]
    pub fn missing(&self) -> Vec<&'static str> {
        self.0.lock().iter().filter(|(_, holds)| !**holds).map(|(name, _)| *name).collect()
    }
}

/// The routes, for servers that have them on their main listener.
pub fn router(metrics: Metrics, readiness: Readiness, drain: DrainWatch) -> Router {
    Router::new()
        .route("/metrics", get(show_metrics))
        .with_state(metrics)
        .route("/healthz", get(async || "ok\n"))
        .merge(Router::new().route("/readyz", get(ready)).with_state((readiness, drain)))
}

/// Serves the routes, through the drain and beyond, as that is where it shows. Cancel safe: dropping it closes the
/// listener, which nothing else does.
///
/// # Errors
/// When the listener will never accept again.
pub async fn serve(listener: Listener, routes: Router) -> io::Result<()> {
    let (_never_started, own) = Drain::new();
    http_server::serve(listener, None, routes, own).await
}

async fn show_metrics(State(metrics): State<Metrics>, headers: HeaderMap) -> Response {
    let accepted: Vec<_> = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
    let format = Format::accepted(&accepted.join(","));
    // Some are looked up in /proc when they are read, which takes milliseconds that no session is to wait for.
    match tokio::task::spawn_blocking(move || metrics.encode(format)).await {
        Ok(text) => ([(header::CONTENT_TYPE, format.content_type()), (header::VARY, "Accept")], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn ready(State((readiness, drain)): State<(Readiness, DrainWatch)>) -> Response {
    let mut missing = readiness.missing();
    if drain.is_leaving() {
        missing.push("not draining");
    }
    if missing.is_empty() {
        return "ready\n".into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, format!("waiting for: {}\n", missing.join(", "))).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listen::{Address, Stream};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn ask(address: &Address, path: &str) -> String {
        let mut stream = Stream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn answers_as_long_as_there_is_somebody_to_ask() {
        let (drain, watch) = Drain::new();
        let readiness = Readiness::new();
        readiness.set("jwks", false);
        let listener = Listener::bind(&"127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_address().clone();
        let server = tokio::spawn(serve(listener, router(Metrics::new(), readiness.clone(), watch)));
        assert!(ask(&address, "/healthz").await.starts_with("HTTP/1.1 200"));
        assert!(ask(&address, "/metrics").await.contains("\r\ncontent-type: text/plain; version=0.0.4"));
        let not_ready = ask(&address, "/readyz").await;
        assert!(not_ready.starts_with("HTTP/1.1 503") && not_ready.contains("jwks"), "{not_ready}");
        readiness.set("jwks", true);
        assert!(ask(&address, "/readyz").await.starts_with("HTTP/1.1 200"));
        for step in [Drain::leave, Drain::start] {
            step(&drain);
            let not_ready = ask(&address, "/readyz").await;
            assert!(not_ready.starts_with("HTTP/1.1 503") && not_ready.contains("draining"), "{not_ready}");
            assert!(ask(&address, "/healthz").await.starts_with("HTTP/1.1 200"));
        }
        server.abort();
    }
}
