//! A listener that signs: takes the application's requests without credentials, and sends them to the other side with
//! the service's own token.
//!
//! Deliberately absent: any judgement of paths, which is the other side's, and credentials of the application's own:
//! its `Authorization` ends here, so that it is never taken for the service's.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, HeaderValue, Request, Response, Uri};
use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};
use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use runtime::drain::DrainWatch;
use runtime::listen::Stream;
use runtime::settings::Settings;
use tokio::sync::watch;

use super::authenticate::challenge;
use super::problem::{Kind, Problem};
use super::tunnel::Wish;
use super::upstream::{self, Dials, Upstream};
use super::{Body, Peer, discard, headers};
use crate::audit::Metrics;
use crate::exchange::{Token, TokenError};
use crate::retry::Retry;
use crate::signer::Signer;
use crate::tokens::{RETRIES, TokenSource};

/// The longest body of a request, in bytes, that is kept so that the request can be sent again.
const KEPT_BODY: u64 = 64 << 10;

/// Time for such a body to arrive.
const BODY_WAIT: Duration = Duration::from_secs(30);

/// What every request of a listener shares.
pub(crate) struct Signing {
    pub(crate) leads: Leads,
    /// Names that it goes by, besides the local ones; `None`: any, as no browser gets to a Unix socket.
    pub(crate) hosts: Option<Vec<String>>,
    pub(crate) settings: watch::Receiver<Arc<Settings>>,
    pub(crate) metrics: Metrics,
    /// How long a request waits for a token that is not there yet.
    pub(crate) connect_timeout: Duration,
    pub(crate) drain: DrainWatch,
}

/// Where a listener leads.
pub(crate) enum Leads {
    /// To one service.
    To(Box<Target>),
    /// To the one that the first segment of the path names.
    ByName(BTreeMap<String, Target>),
}

/// One service.
pub(crate) struct Target {
    /// Its name, for messages.
    pub(crate) service: String,
    pub(crate) signer: Signer,
    pub(crate) http2: Dials,
    /// For websockets, which are HTTP/1.1's.
    pub(crate) http1: Dials,
    /// What HTTP calls it.
    pub(crate) authority: Authority,
    /// The connections that are kept: all of one certificate.
    pub(crate) kept: Mutex<Option<Arc<Route>>>,
}

/// Connections to a service that are made with one certificate, and the tokens that may be shown on them.
pub(crate) struct Route {
    source: Arc<TokenSource>,
    http2: Upstream,
    http1: Upstream,
}

impl Target {
    /// The way to the service with the pod's newest certificate.
    async fn route(&self) -> Result<Arc<Route>, TokenError> {
        let source = self.signer.source().await?;
        let mut kept = self.kept.lock();
        if let Some(route) = kept.as_ref().filter(|route| Arc::ptr_eq(&route.source, &source)) {
            return Ok(route.clone());
        }
        let upstream = |dials: &Dials, http2| {
            let dialer = dials.dialer.with_identity(source.identity());
            Upstream::new(Dials { dialer, ..dials.clone() }, http2, self.authority.clone())
        };
        let (http2, http1) = (upstream(&self.http2, true), upstream(&self.http1, false));
        Ok(kept.insert(Arc::new(Route { source, http2, http1 })).clone())
    }
}

/// Serves one connection to its end.
pub(crate) async fn serve(stream: Stream, signing: Arc<Signing>) {
    let drain = signing.drain.clone();
    super::serve(stream, None, drain, Peer::Local, move |request| answer(request, signing.clone())).await;
}

async fn answer(request: Request<Incoming>, signing: Arc<Signing>) -> Response<Body> {
    let started = Instant::now();
    let answer = signing.sign_and_forward(request).await.unwrap_or_else(Problem::response);
    signing.metrics.requested("http", started.elapsed());
    answer
}

impl Signing {
    async fn sign_and_forward(&self, request: Request<Incoming>) -> Result<Response<Body>, Problem> {
        let signed = self.sign(&request).await;
        let (way, token) = match signed {
            Ok((way, shown)) => (way, shown),
            Err(problem) => {
                discard(request.into_body()).await;
                return Err(problem);
            }
        };
        let mut request = request;
        let wish = Wish::of(&mut request);
        headers::for_next_hop(request.headers_mut());
        // What the application calls the other side is this listener's address, which says nothing there.
        request.headers_mut().remove(http::header::HOST);
        wish.repeat(&mut request);
        let response = match token {
            Shown::Token(token) if !wish.is_there() && is_short(&request) => way.send_again(request, token).await?,
            Shown::Token(token) => {
                let request = way.with_token(request, &token)?;
                way.upstream(wish.is_there()).send(request, way.path.clone(), Duration::MAX).await?
            }
            Shown::Nothing => way.upstream(wish.is_there()).send(request, way.path.clone(), Duration::MAX).await?,
            Shown::NothingAs(why) => {
                let sent = way.upstream(wish.is_there()).send(request, way.path.clone(), Duration::MAX).await?;
                if way.wants_token(&sent) { Err(no_token(&why)) } else { Ok(sent) }?
            }
        };
        let draining = self.drain.draining();
        let over = async {
            draining.await;
            "the sidecar is shutting down"
        };
        wish.answer(response, over, self.drain.guard())
    }

    /// Which way a request goes, and what is shown.
    async fn sign(&self, request: &Request<Incoming>) -> Result<(Way, Shown), Problem> {
        refuse_pages(request.headers())?;
        if let Some(names) = &self.hosts {
            refuse_strange_names(request, names)?;
        }
        let (target, path) = self.leads.find(request.uri())?;
        let (route, shown) = self.route_and_token(target).await.map_err(|error| no_token(&error))?;
        let signed = self.metrics.tokens_signed.clone();
        Ok((Way { route, path, service: target.service.clone(), signed }, shown))
    }

    /// Waits for what the issuer has not given yet, but not for what it refuses.
    async fn route_and_token(&self, target: &Target) -> Result<(Arc<Route>, Shown), TokenError> {
        let mut retry = Retry::within(self.connect_timeout);
        loop {
            let error = match self.try_route_and_token(target).await {
                Ok(found) => return Ok(found),
                Err(error) => error,
            };
            if self.drain.is_draining() {
                return Err(error);
            }
            if !error.is_passing() || !retry.again().await {
                return Ok((target.route().await?, Shown::NothingAs(error)));
            }
        }
    }

    async fn try_route_and_token(&self, target: &Target) -> Result<(Arc<Route>, Shown), TokenError> {
        let route = target.route().await?;
        let settings = self.settings.borrow().clone();
        let shown = match settings.sign {
            true => Shown::Token(route.source.token(settings.tokens_not_before).await?),
            false => Shown::Nothing,
        };
        Ok((route, shown))
    }
}

/// What the other side is shown.
enum Shown {
    Token(Arc<Token>),
    /// Signing is switched off.
    Nothing,
    /// There is no token to be had. Where nothing is enforced, none is needed.
    NothingAs(TokenError),
}

/// Which way a request goes.
struct Way {
    route: Arc<Route>,
    path: PathAndQuery,
    service: String,
    /// Counts the tokens that are attached.
    signed: Counter,
}

impl Way {
    fn upstream(&self, is_upgrade: bool) -> &Upstream {
        if is_upgrade { &self.route.http1 } else { &self.route.http2 }
    }

    /// Sends a short request, and again, a few times, if the other side takes the token no longer: where tokens are
    /// refreshed it knows so first, and one that was issued in that same second is too old, too.
    async fn send_again(&self, request: Request<Incoming>, token: Arc<Token>) -> Result<Response<Incoming>, Problem> {
        let (head, body) = request.into_parts();
        let broke_off = |why: String| Problem::new(Kind::BadRequest, "sidegate: the request broke off").detail(why);
        let body = tokio::time::timeout(BODY_WAIT, body.collect()).await;
        let body = body.map_err(|_| broke_off(format!("Its body did not come in {} s.", BODY_WAIT.as_secs())))?;
        let body = body.map_err(|error| broke_off(error.to_string()))?;
        let body = body.to_bytes();
        let mut token = token;
        let mut tries_left = RETRIES;
        loop {
            let request = Request::from_parts(head.clone(), super::full(body.clone()));
            let request = self.with_token(request, &token)?;
            let response = self.upstream(false).send(request, self.path.clone(), Duration::MAX).await?;
            if tries_left == 0 || !self.refuses_token(&response) {
                return Ok(response);
            }
            match self.route.source.newer(&token).await {
                Some(newer) => token = newer,
                None => return Ok(response),
            }
            tries_left -= 1;
        }
    }

    fn with_token<B>(&self, mut request: Request<B>, token: &Token) -> Result<Request<B>, Problem> {
        let mut value = HeaderValue::try_from(format!("Bearer {}", token.text().expose()))
            .map_err(|_| Problem::new(Kind::Unavailable, "sidegate: the issuer's token cannot be sent"))?;
        value.set_sensitive(true);
        request.headers_mut().insert(http::header::AUTHORIZATION, value);
        self.signed.inc();
        Ok(request)
    }

    /// Whether it is the other sidecar that answers, and that the token is none any more (RFC 6750 §3.1).
    fn refuses_token(&self, response: &Response<Incoming>) -> bool {
        self.challenges(response, ", error=\"invalid_token\"")
    }

    /// Whether it is the other sidecar that answers, and that it wants a token (RFC 6750 §3).
    fn wants_token(&self, response: &Response<Incoming>) -> bool {
        self.challenges(response, "")
    }

    fn challenges(&self, response: &Response<Incoming>, behind: &str) -> bool {
        let expected = challenge(&self.service) + behind;
        let challenges = response.headers().get_all(http::header::WWW_AUTHENTICATE);
        response.status() == http::StatusCode::UNAUTHORIZED
            && challenges.iter().any(|challenge| challenge.as_bytes().starts_with(expected.as_bytes()))
    }
}

/// Whether a request's body is so short that it is kept, to be sent again.
fn is_short(request: &Request<Incoming>) -> bool {
    request.body().size_hint().exact().is_some_and(|bytes| bytes <= KEPT_BODY)
}

fn no_token(error: &TokenError) -> Problem {
    let (kind, hint) = match error {
        TokenError::Refused { .. } => (Kind::Denied, "Ask for an AccessGrant for this service."),
        TokenError::Unavailable { .. } => (Kind::Unavailable, "The issuer must be within reach of this sidecar."),
    };
    Problem::new(kind, "sidegate: no token for this request").code("28000").detail(error.to_string()).hint(hint)
}

/// A page in a browser on this machine could otherwise speak as this service, as it can reach loopback. A browser says in
/// a header which site a page is of (Fetch Metadata), or, with a websocket and wherever something is sent across sites,
/// its origin; no page can make it leave out both. Programs send neither.
fn refuse_pages(headers: &HeaderMap) -> Result<(), Problem> {
    let is_of_site = headers.get("sec-fetch-site").is_some_and(|site| site.as_bytes() != b"none");
    if is_of_site || headers.contains_key(http::header::ORIGIN) {
        return Err(Problem::new(Kind::Denied, "sidegate: a web page may not send requests through this sidecar")
            .hint("Send it from the application itself, without `Origin`."));
    }
    Ok(())
}

/// By another name it does not say so: that of the page's own site, which its owner lets lead here (DNS rebinding).
fn refuse_strange_names(request: &Request<Incoming>, names: &[String]) -> Result<(), Problem> {
    let host = request.headers().get(http::header::HOST).map(|host| host.to_str().unwrap_or("?"));
    let Some(host) = request.uri().host().or(host) else {
        return Ok(());
    };
    let bare =
        host.rsplit_once(':').filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit())).map_or(host, |(h, _)| h);
    let bare = bare.trim_start_matches('[').trim_end_matches(']');
    let is_local = bare.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback());
    let is_known = |name: &str| bare.eq_ignore_ascii_case(name);
    if is_local || is_known("localhost") || names.iter().any(|name| is_known(name)) {
        return Ok(());
    }
    Err(Problem::new(Kind::Denied, "sidegate: this listener does not go by that name")
        .detail("Only local names are taken, so that no web page can lead a browser here by its own.")
        .hint("Call it 127.0.0.1 or localhost, or add the name to the listener's `hosts`."))
}

impl Leads {
    /// The target of a request, and the path and query for it.
    fn find(&self, uri: &Uri) -> Result<(&Target, PathAndQuery), Problem> {
        let targets = match self {
            Leads::To(target) => return Ok((target, upstream::target(uri.path(), uri.query())?)),
            Leads::ByName(targets) => targets,
        };
        let path = uri.path().strip_prefix('/').unwrap_or_default();
        let (name, behind) = match path.find('/') {
            Some(at) => path.split_at(at),
            None => (path, "/"),
        };
        let Some(target) = targets.get(name) else {
            let names: Vec<_> = targets.values().map(|target| target.service.as_str()).collect();
            return Err(Problem::new(Kind::NotFound, "sidegate: the path names no service")
                .detail(format!("This listener leads to {}.", names.join(", ")))
                .hint(format!(
                    "Begin the path with one of {}.",
                    targets.keys().map(|name| format!("/{name}/")).collect::<Vec<_>>().join(", ")
                )));
        };
        Ok((target, upstream::target(behind, uri.query())?))
    }
}
