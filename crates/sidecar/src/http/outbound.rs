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
use hyper::body::Incoming;
use parking_lot::Mutex;
use runtime::drain::DrainWatch;
use runtime::listen::Stream;
use runtime::settings::Settings;
use tokio::sync::watch;

use super::problem::{Kind, Problem};
use super::tunnel::Wish;
use super::upstream::{self, Upstream};
use super::{Body, Peer, discard, headers};
use crate::audit::Metrics;
use crate::exchange::TokenError;
use crate::link::Dialer;
use crate::signer::Signer;
use crate::tokens::TokenSource;

/// What every request of a listener shares.
pub(crate) struct Signing {
    pub(crate) leads: Leads,
    /// Names that it goes by, besides the local ones; `None`: any, as no browser gets to a Unix socket.
    pub(crate) hosts: Option<Vec<String>>,
    pub(crate) settings: watch::Receiver<Arc<Settings>>,
    pub(crate) metrics: Metrics,
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
    pub(crate) http2: Dialer,
    /// For websockets, which are HTTP/1.1's.
    pub(crate) http1: Dialer,
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
        let upstream = |dialer: &Dialer, http2| {
            let dialer = dialer.with_identity(source.identity());
            Upstream::new(dialer, http2, self.authority.clone())
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
    async fn sign_and_forward(&self, mut request: Request<Incoming>) -> Result<Response<Body>, Problem> {
        let signed = self.sign(&request).await;
        let (route, path, token) = match signed {
            Ok(signed) => signed,
            Err(problem) => {
                discard(request.into_body()).await;
                return Err(problem);
            }
        };
        let wish = Wish::of(&mut request);
        headers::for_next_hop(request.headers_mut());
        // What the application calls the other side is this listener's address, which says nothing there.
        request.headers_mut().remove(http::header::HOST);
        if let Some(token) = token {
            request.headers_mut().insert(http::header::AUTHORIZATION, token);
        }
        wish.repeat(&mut request);
        let upstream = if wish.is_there() { &route.http1 } else { &route.http2 };
        let response = upstream.send(request, path, Duration::MAX).await?;
        let draining = self.drain.draining();
        let over = async {
            draining.await;
            "the sidecar is shutting down"
        };
        wish.answer(response, over, self.drain.guard())
    }

    /// Where a request goes, as what, and with which token.
    async fn sign(
        &self,
        request: &Request<Incoming>,
    ) -> Result<(Arc<Route>, PathAndQuery, Option<HeaderValue>), Problem> {
        refuse_pages(request.headers())?;
        if let Some(names) = &self.hosts {
            refuse_strange_names(request, names)?;
        }
        let (target, path) = self.leads.find(request.uri())?;
        let route = target.route().await.map_err(|error| no_token(&error))?;
        let token = self.token(&route.source).await?;
        Ok((route, path, token))
    }

    /// The value of `Authorization`; `None` where signing is switched off.
    async fn token(&self, source: &TokenSource) -> Result<Option<HeaderValue>, Problem> {
        let settings = self.settings.borrow().clone();
        if !settings.sign {
            return Ok(None);
        }
        let token = source.token(settings.tokens_not_before).await.map_err(|error| no_token(&error))?;
        let mut value = HeaderValue::try_from(format!("Bearer {}", token.text().expose()))
            .map_err(|_| Problem::new(Kind::Unavailable, "sidegate: the issuer's token cannot be sent"))?;
        value.set_sensitive(true);
        Ok(Some(value))
    }
}

fn no_token(error: &TokenError) -> Problem {
    let (kind, hint) = match error {
        TokenError::Refused { .. } => (Kind::Denied, "Ask for an AccessGrant for this service."),
        TokenError::Unavailable { .. } => (Kind::Unavailable, "The issuer must be within reach of this sidecar."),
    };
    Problem::new(kind, "sidegate: no token for this request").code("28000").detail(error.to_string()).hint(hint)
}

/// A page in a browser on this machine could otherwise speak as this service, as it can reach loopback. To a local name
/// a browser says in a header which site a page is of, and no page can make it leave that out (Fetch Metadata); programs
/// do not send it.
fn refuse_pages(headers: &HeaderMap) -> Result<(), Problem> {
    match headers.get("sec-fetch-site") {
        None => Ok(()),
        Some(site) if site.as_bytes() == b"none" => Ok(()),
        Some(_) => Err(Problem::new(Kind::Denied, "sidegate: a web page may not send requests through this sidecar")
            .hint("Send it from the application itself.")),
    }
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
