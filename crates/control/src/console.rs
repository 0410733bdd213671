//! The console: web pages on which people see what every sidecar does, and steer it.
//!
//! Pages are made here, on the server, and work without scripts; small scripts keep up to date what is live. A change goes to where
//! settings and documents are kept (`platform`), and from there to sidecars and issuer as if somebody had edited it there: the console
//! has no other way into them, so that one which is stopped or broken touches no traffic. Deliberately absent: deciding anything.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

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
use runtime::kubernetes::Client;
use runtime::listen::{BindError, Listener};
use runtime::tls::TlsError;
use tokio::task::JoinSet;
use tokio::time::timeout;

mod access;
mod benchmark;
mod changes;
mod config;
mod decisions;
mod failure;
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
use config::{Local, Steered};
use fleet::Fleet;
use page::{Frame, message};
use platform::{Cluster, Directories, Platform};
use session::{Sessions, Viewer};
use sign_in::Pending;
use words::Language;

/// So long the first page waits for what is in a cluster; what is not there then comes later.
const FIRST_LISTS: Duration = Duration::from_secs(5);
/// Between two looks at sessions that are over.
const FORGET: Duration = Duration::from_secs(10);

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

/// What one person's pages are made of: what they may see and do.
struct Console {
    platform: Platform,
    fleet: Arc<Fleet>,
    common: Arc<Common>,
    /// Ends with it.
    _looking: JoinSet<()>,
}

/// What all people have in common.
struct Common {
    /// All sidecars, if everybody sees the same.
    fleet: Option<Arc<Fleet>>,
    sessions: Sessions<Arc<Console>>,
    pending: Pending,
    changes: Changes,
    benchmarks: Benchmarks,
    config: Config,
    drain: DrainWatch,
}

impl Console {
    /// Directories of this machine, for whoever has the link.
    fn of_machine(common: &Arc<Common>, local: &Local) -> Option<Arc<Self>> {
        let fleet = common.fleet.clone()?;
        let platform = Platform::Directories(Directories::new(local.settings.clone(), local.documents.clone()));
        Some(Arc::new(Self { platform, fleet, common: common.clone(), _looking: JoinSet::new() }))
    }

    /// A cluster as the client's owner sees it, in these namespaces or all; its settings with the rights of `own`, if that is there.
    async fn of_person(common: &Arc<Common>, client: Client, own: Option<Client>, namespaces: &[String]) -> Arc<Self> {
        let cluster = Cluster::follow(client.clone(), own, namespaces);
        let _ = timeout(FIRST_LISTS, cluster.known()).await;
        let fleet = Fleet::of_pods(client);
        let mut looking = JoinSet::new();
        let (own, pods) = (fleet.clone(), cluster.clone());
        looking.spawn(async move { match own.keep_looking_at_pods(&pods).await {} });
        Arc::new(Self {
            platform: Platform::Cluster(Box::new(cluster)),
            fleet,
            common: common.clone(),
            _looking: looking,
        })
    }
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
    let (fleet, link_file) = match &config.steered {
        Steered::Local(local) => {
            let fleet = Fleet::new(HttpClient::new(None)?, local.sidecars.clone());
            (Some(fleet), Some(local.link_file.clone()))
        }
        Steered::Cluster(_) => (None, None),
    };
    let common = Arc::new(Common {
        fleet: fleet.clone(),
        sessions: Sessions::open(link_file, origin).map_err(ConsoleError::State)?,
        pending: Pending::default(),
        changes: Changes::open(&config.state)?,
        benchmarks: Benchmarks::new(&config),
        drain: drain.clone(),
        config,
    });
    tracing::info!(listen = %listener.local_address(), "the console listens");
    let admin = serve_admin(&common.config, drain.clone());
    let looking = async {
        match fleet {
            Some(fleet) => match fleet.keep_looking().await {},
            None => std::future::pending::<()>().await,
        }
    };
    tokio::select! {
        served = http_server::serve(listener, None, router(common.clone()), drain) => Ok(served?),
        () = looking => Ok(()),
        () = forget_sessions(&common) => Ok(()),
        failed = admin => Err(failed?),
    }
}

/// What belongs to a session that nobody uses is let go of, also if nobody comes any more.
async fn forget_sessions(common: &Common) {
    loop {
        tokio::time::sleep(FORGET).await;
        common.sessions.forget_ended(Instant::now());
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

fn router(common: Arc<Common>) -> Router {
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
        .layer(from_fn_with_state(common.clone(), only_viewers));
    let open = Router::new()
        .route("/sign-in", get(sign_in::show).post(sign_in::enter))
        .route("/sign-in/provider", get(sign_in::begin))
        .route("/sign-in/back", get(sign_in::back))
        .route("/language", post(sign_in::language))
        .route("/static/{file}", get(statics::file));
    pages
        .merge(open)
        .fallback(not_found)
        .layer(DefaultBodyLimit::max(FORM_LIMIT))
        .layer(from_fn(guard))
        .with_state(common)
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
async fn only_viewers(State(common): State<Arc<Common>>, mut request: Request, next: Next) -> Response {
    let Some((viewer, console)) = common.sessions.viewer(request.headers(), Instant::now()) else {
        if request.method() == Method::GET && !request.uri().path().starts_with("/events") {
            return page::see_other("/sign-in");
        }
        return StatusCode::UNAUTHORIZED.into_response();
    };
    request.extensions_mut().insert(viewer);
    request.extensions_mut().insert(console);
    next.run(request).await
}

/// The console of whoever is signed in.
struct Signed(Arc<Console>);

impl<S: Send + Sync> FromRequestParts<S> for Signed {
    type Rejection = StatusCode;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        parts.extensions.get::<Arc<Console>>().cloned().map(Self).ok_or(StatusCode::UNAUTHORIZED)
    }
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
