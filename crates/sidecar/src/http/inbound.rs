//! A listener that verifies, before any HTTP service: each request is decided by method and path, and passed on with the
//! caller's identity.
//!
//! What is decided on is what is sent: the path in its normal form. Deliberately absent: a look into bodies, which
//! stream through, and rules by host, query or header.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::{Body as _, Incoming};
use identity::access::AccessToken;
use policy::http::{HttpVerdict, Path, PathError, Permit};
use runtime::drain::DrainWatch;
use runtime::listen::Stream;
use runtime::settings::{Settings, Verify};
use tokio::sync::watch;

use super::authenticate::{Unauthenticated, authenticate, insufficient_scope};
use super::problem::{Kind, Problem};
use super::tunnel::Wish;
use super::upstream::{self, Upstream};
use super::{Body, Peer, discard, headers, shown_by};
use crate::audit::{Audit, Caller, Decision, Needs, new_decision_id};
use crate::link;
use crate::standing::Standing;
use crate::traces::{self, Traced};
use crate::verify::{Credential, Verifier};

/// What every request of a listener shares.
pub(crate) struct Guarding {
    /// The service, as records and challenges name it.
    pub(crate) service: Arc<str>,
    pub(crate) tls: Option<Arc<rustls::ServerConfig>>,
    pub(crate) verifier: Verifier,
    pub(crate) upstream: Upstream,
    pub(crate) response_timeout: Duration,
    pub(crate) settings: watch::Receiver<Arc<Settings>>,
    pub(crate) audit: Audit,
    pub(crate) drain: DrainWatch,
}

/// Serves one connection to its end.
pub(crate) async fn serve(stream: Stream, guarding: Arc<Guarding>) {
    let (tls, drain) = (guarding.tls.clone(), guarding.drain.clone());
    super::serve(stream, tls, drain, Peer::Remote, move |request| answer(request, guarding.clone())).await;
}

async fn answer(mut request: Request<Incoming>, guarding: Arc<Guarding>) -> Response<Body> {
    let started = Instant::now();
    let tracer = guarding.audit.tracer.as_ref();
    let traced = tracer.and_then(|tracer| traces::begin_request(tracer, &mut request, started));
    let answer = guarding.decide_and_forward(request, started).await.unwrap_or_else(Problem::response);
    if let (Some(tracer), Some(traced)) = (tracer, traced) {
        traces::end_request(tracer, &traced, &answer);
    }
    guarding.audit.metrics.requested("http", started.elapsed());
    answer
}

/// A request that may pass.
struct Passage {
    /// The path to send, which is the one that was decided on.
    path: String,
    decision: String,
    /// Who calls, if that is known: where nothing is enforced, nobody may be.
    credential: Option<Arc<Credential>>,
    /// The role that allowed it; none, where it passes only because nothing is enforced.
    role: Option<String>,
}

/// Whom a role allowed a request.
struct Allowed {
    credential: Arc<Credential>,
    role: String,
    rule: String,
}

impl Allowed {
    /// The permit is the policy's own proof.
    fn new(credential: Arc<Credential>, permit: &Permit<'_>) -> Allowed {
        Allowed { credential, role: permit.role().to_owned(), rule: permit.rule() }
    }
}

impl Guarding {
    async fn decide_and_forward(
        self: &Arc<Self>,
        request: Request<Incoming>,
        started: Instant,
    ) -> Result<Response<Body>, Problem> {
        one_host(&request)?;
        // Where nothing may pass unrecorded, a request waits until it can be recorded.
        self.audit.log.room().await;
        let settings = self.settings.borrow().clone();
        let shown = authenticate(request.headers(), shown_by(request.extensions()), &self.verifier, &settings).await;
        match self.decide(&request, shown, &settings, started) {
            Ok(passage) => self.forward(request, passage).await,
            Err(problem) => {
                discard(request.into_body()).await;
                Err(problem)
            }
        }
    }

    /// Decides, and records it.
    ///
    /// # Errors
    /// What the client is told, where verification enforces.
    fn decide(
        &self,
        request: &Request<Incoming>,
        shown: Result<Arc<Credential>, Unauthenticated>,
        settings: &Settings,
        started: Instant,
    ) -> Result<Passage, Problem> {
        let (method, uri) = (request.method(), request.uri());
        let path = Path::normalize(uri.path());
        let id = new_decision_id();
        let ruling = rule(request, &path, shown, &self.service);
        let said = path.as_ref().map_or("", Path::as_str);
        let (allowed, reason, by) = match &ruling {
            Ok(allowed) => (true, "allowed", Some(allowed.rule.clone())),
            Err(denied) => (false, denied.reason, denied.rule.clone()),
        };
        let credential = match &ruling {
            Ok(allowed) => Some(&allowed.credential),
            Err(denied) => denied.credential.as_ref(),
        };
        let decision = Decision {
            id: &id,
            allowed,
            mode: settings.verify,
            action: policy::http::method_label(method.as_str()),
            reason,
            rule: by,
            role: None,
            needs: Needs::Request {
                method: method.as_str().to_owned(),
                path: path.as_ref().ok().map(|path| path.as_str().to_owned()),
            },
            started,
        };
        let role = ruling.as_ref().ok().map(|allowed| allowed.role.as_str());
        let token = credential.map(|credential| &credential.token);
        let caller = self.caller(token, shown_by(request.extensions()), role);
        if let Some(traced) = request.extensions().get::<Traced>() {
            traced.decided(&caller, &decision);
        }
        self.audit.record(&caller, decision);
        let passage =
            |path: &str, credential, role| Passage { path: path.to_owned(), decision: id.clone(), credential, role };
        match ruling {
            Ok(Allowed { credential, role, .. }) => Ok(passage(said, Some(credential), Some(role))),
            Err(denied) if settings.verify == Verify::Enforce => Err(denied.problem.decision(id)),
            // Nobody fails who would have got in without us, so even a path that makes no sense goes as it came.
            Err(denied) => Ok(passage(uri.path(), denied.credential, None)),
        }
    }

    /// Without a token that is believed, the caller's certificate tells who it is.
    fn caller(&self, token: Option<&AccessToken>, peer: Option<&link::Peer>, role: Option<&str>) -> Arc<Caller> {
        let by_certificate = || Some(peer?.subject()?.to_string());
        Arc::new(Caller {
            subject: token.map(|token| token.subject().to_string()).or_else(by_certificate),
            act: token.and_then(AccessToken::actor).map(ToOwned::to_owned),
            service: self.service.clone(),
            role: role.map(ToOwned::to_owned),
            user: None,
            database: None,
        })
    }

    async fn forward(
        self: &Arc<Self>,
        mut request: Request<Incoming>,
        passage: Passage,
    ) -> Result<Response<Body>, Problem> {
        let target = upstream::target(&passage.path, request.uri().query())?;
        let wish = Wish::of(&mut request);
        name_host(&mut request);
        headers::for_next_hop(request.headers_mut());
        introduce(request.headers_mut(), &passage);
        wish.repeat(&mut request);
        let response = self.upstream.send(request, target, self.response_timeout).await?;
        let standing = Standing::new(passage.credential, passage.role.is_none());
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let over = self.clone().until_over_or_draining(standing);
            return wish.answer(response, over, self.drain.guard());
        }
        let size = response.body().size_hint();
        let response = upstream::passed_on(response);
        // What is here as good as whole needs no watch.
        if size.upper().is_some_and(|bytes| bytes <= SHORT_ANSWER) {
            return Ok(response);
        }
        let standing = if size.exact().is_some() { standing.without_expiry() } else { standing };
        Ok(upstream::for_as_long_as(response, self.clone().until_over(standing)))
    }

    /// The same as [`Guarding::until_over`] for what has no end of its own, which the drain's is then.
    async fn until_over_or_draining(self: Arc<Self>, standing: Standing) -> &'static str {
        let draining = self.drain.draining();
        tokio::select! {
            () = draining => "the sidecar is shutting down",
            over = self.clone().until_over(standing) => over,
        }
    }

    /// Ends when a caller may not go on with what a request of its began; says why.
    async fn until_over(self: Arc<Self>, standing: Standing) -> &'static str {
        let mut settings = self.settings.clone();
        loop {
            let now = settings.borrow_and_update().clone();
            if standing.ended(&now).is_some() {
                return "its caller's token has ended, or verification is enforced now";
            }
            // The clock counts whole seconds, and where nothing is enforced, an end does not end it.
            let look = standing.life_left().max(SHORTEST_LOOK);
            tokio::select! {
                changed = settings.changed() => if changed.is_err() {
                    return "the settings are not known any more";
                },
                () = tokio::time::sleep(look), if standing.expires() => {}
            }
        }
    }
}

/// The longest answer, in bytes, that is passed on without a look at whether its caller may still have it.
const SHORT_ANSWER: u64 = 64 << 10;

/// Between two looks at what is over by the clock.
const SHORTEST_LOOK: Duration = Duration::from_secs(1);

/// Why a request does not pass where verification enforces.
struct Denied {
    problem: Problem,
    reason: &'static str,
    rule: Option<String>,
    credential: Option<Arc<Credential>>,
}

/// May it: the token, then the path, then the rules. Recorded is first what nobody may, so that no record of it looks as
/// if a token or a rule could open it; the client is told first that it has to show a token.
fn rule(
    request: &Request<Incoming>,
    path: &Result<Path, PathError>,
    shown: Result<Arc<Credential>, Unauthenticated>,
    service: &str,
) -> Result<Allowed, Denied> {
    let clear = clear(request, path);
    let credential = shown.map_err(|failure| Denied {
        problem: failure.problem(service),
        reason: clear.as_ref().err().map_or(failure.label(), |(_, reason)| *reason),
        rule: None,
        credential: None,
    })?;
    let denied = |problem, reason, rule| Denied { problem, reason, rule, credential: Some(credential.clone()) };
    let path = clear.map_err(|(problem, reason)| denied(problem, reason, None))?;
    let roles = credential.http_roles().map_err(|error| {
        let problem = Problem::new(Kind::Denied, "sidegate: the token's roles are not understood")
            .detail(error.to_string())
            .hint("The issuer is newer than this sidecar: update the sidecar.")
            .challenge(insufficient_scope(service, "the token's roles are not understood"));
        denied(problem, "role_not_understood", None)
    })?;
    match policy::http::decide(roles, request.method().as_str(), path) {
        HttpVerdict::Allow(permit) => Ok(Allowed::new(credential.clone(), &permit)),
        HttpVerdict::Deny(denial) => {
            let problem = Problem::new(Kind::Denied, denial.message())
                .code("42501")
                .detail(format!("The caller is {}.", credential.token.subject()))
                .hint(denial.hint())
                .challenge(insufficient_scope(service, denial.message()));
            Err(denied(problem, denial.reason(), denial.rule()))
        }
    }
}

/// The path, if nobody can read two requests.
fn clear<'a>(
    request: &Request<Incoming>,
    path: &'a Result<Path, PathError>,
) -> Result<&'a Path, (Problem, &'static str)> {
    let path = path.as_ref().map_err(|error| {
        let problem = Problem::new(Kind::BadRequest, "sidegate: the request's path is not accepted")
            .detail(error.to_string())
            .hint("Two servers could read it as two paths, so nobody gets it.");
        (problem, "path")
    })?;
    ambiguous(request).map_or(Ok(path), Err)
}

/// What makes two servers read two requests.
fn ambiguous(request: &Request<Incoming>) -> Option<(Problem, &'static str)> {
    if request.method() == Method::CONNECT {
        let problem = Problem::new(Kind::BadRequest, "sidegate: CONNECT is not passed on");
        return Some((problem.detail("It asks for a tunnel, in which nothing could be decided."), "method"));
    }
    if request.uri().authority().is_some_and(|authority| authority.as_str().contains('@')) {
        let problem = Problem::new(Kind::BadRequest, "sidegate: the request's target holds a user name");
        return Some((problem.hint("Leave out what stands before the @."), "target"));
    }
    headers::has_override(request.headers()).then(|| {
        let problem = Problem::new(Kind::BadRequest, "sidegate: a header field asks for another method or path")
            .detail("What the service would do is not what was decided on.")
            .hint("Send the request as what it is, without X-HTTP-Method-Override, X-Original-URL and the like.");
        (problem, "override")
    })
}

/// A request of HTTP/1.1 names exactly one host (RFC 9112 §3.2): of two, two servers could pick different ones.
fn one_host(request: &Request<Incoming>) -> Result<(), Problem> {
    let named = request.headers().get_all(http::header::HOST).iter().count();
    let needed = usize::from(request.version() == http::Version::HTTP_11);
    match (needed..=1).contains(&named) {
        true => Ok(()),
        false => Err(Problem::new(Kind::BadRequest, "sidegate: a request names one host")
            .detail(format!("There are {named} header fields `Host`."))),
    }
}

/// Gives the service the name that the caller used for it. One in the request's target outranks `Host` (RFC 9112
/// §3.2.2).
fn name_host(request: &mut Request<Incoming>) {
    let named = request.uri().authority().and_then(|authority| HeaderValue::from_str(authority.as_str()).ok());
    if let Some(host) = named {
        request.headers_mut().insert(http::header::HOST, host);
    }
}

/// Tells the service who calls.
fn introduce(headers: &mut HeaderMap, passage: &Passage) {
    let mut tell = |name, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    };
    tell(headers::DECISION, &passage.decision);
    if let Some(credential) = &passage.credential {
        tell(headers::SUBJECT, &credential.token.subject().to_string());
    }
    if let Some(role) = &passage.role {
        tell(headers::ROLE, role);
    }
}
