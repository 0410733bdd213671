//! The console: web pages on which people see what every sidecar does, and steer it.
//!
//! Pages are made here, on the server, and work without scripts; small scripts keep up to date what is live. A change goes to where
//! settings and documents are kept (`platform`), and from there to sidecars and issuer as if somebody had edited it there: the console
//! has no other way into them, so that one which is stopped or broken touches no traffic. Deliberately absent: deciding anything.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::{DefaultBodyLimit, Form, FromRequest, FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};
use runtime::admin::{self, Readiness};
use runtime::decision_log::LogError;
use runtime::drain::DrainWatch;
use runtime::http_client::HttpClient;
use runtime::http_server;
use runtime::listen::{BindError, Listener};
use runtime::tls::TlsError;

mod access;
mod benchmark;
mod changes;
mod config;
mod decisions;
mod fleet;
mod issuer;
mod live;
mod page;
mod platform;
mod services;
mod session;
mod sign_in;
mod statics;
mod words;

pub use config::{Config, ConfigError};

use benchmark::Benchmarks;
use changes::Changes;
use fleet::Fleet;
use page::{Frame, message};
use platform::Platform;
use session::{Sessions, Viewer};
use words::Language;

/// A document may be that long; etcd takes 1.5 MiB of an object.
const FORM_LIMIT: usize = 2 << 20;

/// What every answer says to browsers: nothing but our own styles, scripts and pictures, in no other site's frame.
const HEADERS: [(HeaderName, &str); 6] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; \
         base-uri 'none'; frame-ancestors 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    // Without any, browsers would not say where a form comes from either.
    (header::REFERRER_POLICY, "same-origin"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// Why the console does not start, or ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConsoleError {
    /// A port cannot be bound.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// Changes cannot be recorded.
    #[error("state: {0}")]
    Changes(#[from] LogError),
    /// There is no client for sidecars and issuer.
    #[error(transparent)]
    Client(#[from] TlsError),
    /// A directory or the link's file cannot be made.
    #[error("{0}")]
    State(io::Error),
    /// Serving failed.
    #[error("the console's listener failed: {0}")]
    Serve(#[from] io::Error),
}

/// What the pages are made of.
struct Console {
    platform: Platform,
    fleet: Arc<Fleet>,
    sessions: Sessions,
    changes: Changes,
    benchmarks: Benchmarks,
    config: Config,
    drain: DrainWatch,
}

/// Serves until the drain starts and the last answer is given.
///
/// # Errors
/// When it cannot start, or a listener fails.
pub async fn serve(config: Config, drain: DrainWatch) -> Result<(), ConsoleError> {
    let _guard = drain.guard();
    std::fs::create_dir_all(&config.state).map_err(ConsoleError::State)?;
    let listener = Listener::bind(&config.listen).await?;
    let origin = format!("http://{}", listener.local_address());
    let console = Arc::new(Console {
        platform: Platform::new(config.local.settings.clone(), config.local.documents.clone()),
        fleet: Fleet::new(HttpClient::new(None)?, config.local.sidecars.clone()),
        sessions: Sessions::open(&config.link_file, origin).map_err(ConsoleError::State)?,
        changes: Changes::open(&config.state)?,
        benchmarks: Benchmarks::new(&config),
        drain: drain.clone(),
        config,
    });
    tracing::info!(listen = %listener.local_address(), link = %console.config.link_file.display(), "the console listens");
    let admin = serve_admin(&console.config, drain.clone());
    tokio::select! {
        served = http_server::serve(listener, None, router(console.clone()), drain) => Ok(served?),
        never = console.fleet.keep_looking() => match never {},
        failed = admin => Err(failed?),
    }
}

/// Health and metrics, if they are wanted; comes back only if that fails.
async fn serve_admin(config: &Config, drain: DrainWatch) -> Result<ConsoleError, ConsoleError> {
    let Some(address) = &config.admin else { return std::future::pending().await };
    let listener = Listener::bind(address).await?;
    let routes = admin::router(runtime::metrics::Metrics::new(), Readiness::new(), drain);
    admin::serve(listener, routes).await?;
    std::future::pending().await
}

fn router(console: Arc<Console>) -> Router {
    let pages = Router::new()
        .route("/", get(services::list))
        .route("/services", get(services::chosen))
        .route("/services/{namespace}", get(services::show))
        .route("/services/{namespace}/settings", post(services::set))
        .route("/services/{namespace}/refresh-tokens", post(services::refresh_tokens))
        .route("/all/verification", post(services::verify_everywhere))
        .route("/access", get(access::list))
        .route("/access/new", get(access::new))
        .route("/access/check", post(access::check))
        .route("/access/save", post(access::save))
        .route("/access/{namespace}/{kind}/{name}", get(access::show))
        .route("/decisions", get(decisions::list))
        .route("/decisions/{id}", get(decisions::show))
        .route("/issuer", get(issuer::show))
        .route("/benchmark", get(benchmark::show).post(benchmark::start))
        .route("/benchmark/stop", post(benchmark::stop))
        .route("/benchmark/results/{file}", get(benchmark::result))
        .route("/events/services", get(live::services))
        .route("/events/services/{namespace}", get(live::service))
        .route("/events/decisions", get(live::decisions))
        .route("/events/benchmark", get(live::benchmark))
        .route("/sign-out", post(sign_in::leave))
        .layer(from_fn_with_state(console.clone(), only_viewers));
    let open = Router::new()
        .route("/sign-in", get(sign_in::show).post(sign_in::enter))
        .route("/language", post(sign_in::language))
        .route("/static/{file}", get(statics::file));
    pages
        .merge(open)
        .fallback(not_found)
        .layer(DefaultBodyLimit::max(FORM_LIMIT))
        .layer(from_fn(guard))
        .with_state(console)
}

/// For requests to this machine only, and every answer with the headers.
async fn guard(request: Request, next: Next) -> Response {
    let headers = request.headers();
    if !session::is_for_us(headers) {
        return (StatusCode::MISDIRECTED_REQUEST, "this console is at a loopback address only\n").into_response();
    }
    let is_change = !matches!(*request.method(), Method::GET | Method::HEAD);
    if is_change && !session::is_from_us(headers) {
        let frame = Frame { language: Language::of(headers), viewer: None, here: "" };
        return with_headers(message(
            &frame,
            StatusCode::FORBIDDEN,
            frame.t("failed"),
            &[frame.t("forbidden-form").to_owned()],
            "/",
        ));
    }
    with_headers(next.run(request).await)
}

fn with_headers(mut answer: Response) -> Response {
    for (name, value) in HEADERS {
        answer.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    answer.headers_mut().entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    answer
}

/// Whoever is not signed in is led to where that is done, and sees nothing else.
async fn only_viewers(State(console): State<Arc<Console>>, mut request: Request, next: Next) -> Response {
    let Some(viewer) = console.sessions.viewer(request.headers(), Instant::now()) else {
        if request.method() == Method::GET && !request.uri().path().starts_with("/events") {
            return page::see_other("/sign-in");
        }
        return StatusCode::UNAUTHORIZED.into_response();
    };
    request.extensions_mut().insert(viewer);
    next.run(request).await
}

async fn not_found(frame: Frame) -> Response {
    message(&frame, StatusCode::NOT_FOUND, frame.t("failed"), &[frame.t("not-found").to_owned()], "/")
}

impl<S: Send + Sync> FromRequestParts<S> for Frame {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        let viewer = parts.extensions.get::<Viewer>().cloned();
        Ok(Frame { language: Language::of(&parts.headers), viewer, here: "" })
    }
}

/// The fields of a form that this session's own pages have made; any other form is refused before it is looked at.
struct Posted {
    frame: Frame,
    viewer: Viewer,
    fields: HashMap<String, String>,
}

impl Posted {
    /// A field; one that is missing is empty.
    fn field(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", String::as_str)
    }
}

impl<S: Send + Sync> FromRequest<S> for Posted {
    type Rejection = Response;

    async fn from_request(request: Request, state: &S) -> Result<Self, Response> {
        let (mut parts, body) = request.into_parts();
        let Ok(frame) = Frame::from_request_parts(&mut parts, state).await;
        let viewer = Extension::<Viewer>::from_request_parts(&mut parts, state).await;
        let form = Form::<HashMap<String, String>>::from_request(Request::from_parts(parts, body), state).await;
        let refuse = |frame: &Frame| {
            let lines = [frame.t("forbidden-form").to_owned()];
            message(frame, StatusCode::FORBIDDEN, frame.t("failed"), &lines, "/")
        };
        let (Ok(Extension(viewer)), Ok(Form(fields))) = (viewer, form) else { return Err(refuse(&frame)) };
        match fields.get("csrf").is_some_and(|csrf| viewer.made(csrf)) {
            true => Ok(Self { frame, viewer, fields }),
            false => Err(refuse(&frame)),
        }
    }
}

/// Work that waits for a disk or a lock, on a thread for it.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, io::Error> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)
}
