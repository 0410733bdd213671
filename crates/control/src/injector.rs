//! The injector: the mutating admission webhook that puts the sidecar into pods as they are made.
//!
//! `review` answers one request and is pure; `cluster` keeps what the answers and our certificate depend on. What an injected
//! pod looks like is `inject`'s. Deliberately absent: pods that exist already, and any right on them.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use runtime::admin::{self, Readiness};
use runtime::drain::DrainWatch;
use runtime::http_server;
use runtime::kubernetes::{ClientError, SecretError};
use runtime::listen::{BindError, Listener};
use tokio::sync::Semaphore;

use crate::issuer::{KeysError, OwnTlsError};

mod cluster;
mod config;
mod review;

pub use config::{Config, ConfigError};

use cluster::Cluster;

/// The API server takes no request over 3 MiB, and sends a new pod once.
const BODY_LIMIT: usize = (3 << 20) + (256 << 10);
/// Anybody may knock: the API server shows no certificate. So bodies that arrive have so many places, each for so long, and
/// one after the other is understood, so that all of it fits into what the pod may take.
const BODIES_MAX: usize = 8;
const BODY_TIMEOUT: Duration = Duration::from_secs(5);
/// What has to be true before the API server shall ask.
const CERTIFICATE: &str = "the certificate in the webhook's configuration";

/// Why the injector does not start, or ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InjectorError {
    /// There is no way to the API server.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The Secret cannot be read.
    #[error("{0}; `sidegate install` makes it, and the right to read it")]
    Secret(#[from] SecretError),
    /// The authority of its certificate cannot be used.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// There is no certificate.
    #[error("the injector's certificate: {0}")]
    Tls(#[from] OwnTlsError),
    /// A port cannot be bound.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// A thread ended before its time.
    #[error("the injector was interrupted at its start")]
    Interrupted,
    /// Serving failed.
    #[error("the injector's listener failed: {0}")]
    Serve(#[from] io::Error),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabel {
    result: &'static str,
}

struct Webhook {
    cluster: Arc<Cluster>,
    config: Config,
    answers: Family<ResultLabel, Counter>,
    arriving: Semaphore,
}

/// Starts the injector and serves until the drain starts and the last answer is given.
///
/// # Errors
/// When it cannot start, or a listener fails.
pub async fn serve(config: Config, drain: DrainWatch) -> Result<(), InjectorError> {
    let _guard = drain.guard();
    let (registry, readiness) = (runtime::metrics::Metrics::new(), Readiness::new());
    readiness.set(CERTIFICATE, false);
    let answers = registry.register("injections", "Answers to the API server, by result", Family::default());
    // Health first: while the cluster is away, this waits, and says so.
    let admin = Listener::bind(&config.admin).await?;
    let health = admin::serve(admin, admin::router(registry, readiness.clone(), drain.clone()));
    let main = async {
        let (cluster, tls) = Cluster::open(&config).await?;
        let listener = Listener::bind(&config.listen).await?;
        tracing::info!(listen = %listener.local_address(), "the injector listens");
        let webhook =
            Arc::new(Webhook { cluster: cluster.clone(), config, answers, arriving: Semaphore::new(BODIES_MAX) });
        let tls_config = Some(tls.config.clone());
        tokio::select! {
            served = http_server::serve(listener, tls_config, router(webhook), drain.clone()) => Ok::<_, InjectorError>(served?),
            never = cluster.keep_up(&readiness) => match never {},
            never = tls.keep_up() => match never {},
        }
    };
    let health = async { Ok(health.await?) };
    tokio::try_join!(main, health).map(|_| ())
}

fn router(webhook: Arc<Webhook>) -> Router {
    Router::new().route("/mutate", post(mutate)).with_state(webhook)
}

async fn mutate(State(webhook): State<Arc<Webhook>>, body: Body) -> Response {
    // Held until it is answered. What is done with a body does not wait for anything, so that is one at a time.
    let Ok(_place) = webhook.arriving.acquire().await else { return StatusCode::SERVICE_UNAVAILABLE.into_response() };
    let body = match tokio::time::timeout(BODY_TIMEOUT, to_bytes(body, BODY_LIMIT)).await {
        Ok(Ok(body)) => body,
        Ok(Err(_)) => return (StatusCode::PAYLOAD_TOO_LARGE, "too large, or broken off\n").into_response(),
        Err(_) => return (StatusCode::REQUEST_TIMEOUT, "the body did not come in time\n").into_response(),
    };
    let issuer_ca = webhook.cluster.issuer_ca();
    match review::answer(&body, issuer_ca.as_deref(), &webhook.config.defaults) {
        Ok(answer) => {
            webhook.answers.get_or_create(&ResultLabel { result: answer.result }).inc();
            if let Some(why) = &answer.refusal {
                tracing::info!(pod = answer.pod, %why, "a pod was refused");
            } else {
                tracing::debug!(pod = answer.pod, result = answer.result, "answered");
            }
            ([(header::CONTENT_TYPE, "application/json")], answer.body).into_response()
        }
        Err(why) => {
            webhook.answers.get_or_create(&ResultLabel { result: "malformed" }).inc();
            (StatusCode::BAD_REQUEST, format!("{why}\n")).into_response()
        }
    }
}

/// Work that may block, on a thread for it.
async fn blocking<T: Send + 'static, E: Into<InjectorError> + Send + 'static>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, InjectorError> {
    let done = tokio::task::spawn_blocking(work).await.map_err(|_| InjectorError::Interrupted)?;
    done.map_err(Into::into)
}

/// For loops that end with the process only.
type Never = Infallible;
