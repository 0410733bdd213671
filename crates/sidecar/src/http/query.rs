//! SQL over HTTP: `POST /query`, in the shapes of the Neon serverless driver.
//!
//! A request's way: `request` reads it, `login` chooses what it enters as, `pg::authorize` decides each statement, `pool`
//! finds a session of PostgreSQL's, `run` plays the statements there and streams what `answer` makes of the results.
//! Deliberately absent: a decision of its own. All statements of a request are decided before the first is sent.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::{ALLOW, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri};
use hyper::body::Incoming;
use policy::Facts;
use runtime::drain::DrainWatch;
use runtime::listen::Stream;
use runtime::settings::{Settings, Verify};
use tokio::sync::watch;

use super::authenticate::{authenticate, challenge, insufficient_scope};
use super::problem::{Kind, Problem};
use super::{Body, Peer, discard, full, shown_by};
use crate::analysis::{Analyses, INLINE_LIMIT, TEXT_LIMIT};
use crate::audit::Audit;
use crate::config;
use crate::login::{Login, Logins, Refusal, Wanted, Who};
use crate::pg::authorize::{Denied, Gate, Ruling};
use crate::pg::earlier::Named;
use crate::standing::Standing;
use crate::traces::{self, Traced};
use crate::verify::{Credential, Verifier};
use request::{Asked, Statement};
use run::{Decided, Terms};

mod answer;
mod error;
mod openapi;
mod output;
mod pool;
mod request;
mod run;
mod session;

pub use openapi::document as openapi;
pub(crate) use pool::Pools;

/// Time for a request's body to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// What every request of a listener shares.
pub(crate) struct Querying {
    pub(crate) verifier: Verifier,
    pub(crate) logins: Logins,
    pub(crate) tls: Option<Arc<rustls::ServerConfig>>,
    pub(crate) pools: Pools,
    pub(crate) limits: config::Query,
    pub(crate) settings: watch::Receiver<Arc<Settings>>,
    pub(crate) analyses: Analyses,
    pub(crate) audit: Audit,
    pub(crate) drain: DrainWatch,
}

/// Serves one connection to its end.
pub(crate) async fn serve(stream: Stream, querying: Arc<Querying>) {
    let (tls, drain) = (querying.tls.clone(), querying.drain.clone());
    super::serve(stream, tls, drain, Peer::Remote, move |request| answer(request, querying.clone())).await;
}

async fn answer(mut request: Request<Incoming>, querying: Arc<Querying>) -> Response<Body> {
    let started = Instant::now();
    let tracer = querying.audit.tracer.as_ref();
    let traced = tracer.and_then(|tracer| traces::begin_request(tracer, &mut request, started));
    let answer = match (request.uri().path(), request.method()) {
        ("/query", &Method::POST) => querying.query(request, started).await.unwrap_or_else(|problem| {
            if let (Some(traced), Some(sqlstate)) = (&traced, problem.sqlstate()) {
                traced.failed(sqlstate);
            }
            problem.response()
        }),
        ("/openapi.json", &Method::GET | &Method::HEAD) => openapi_document(),
        ("/query", _) => not_allowed("POST"),
        ("/openapi.json", _) => not_allowed("GET, HEAD"),
        _ => Problem::new(Kind::NotFound, "sidegate: there is only /query and /openapi.json here").response(),
    };
    if let (Some(tracer), Some(traced)) = (tracer, traced) {
        traces::end_request(tracer, &traced, &answer);
    }
    querying.audit.metrics.requested("query", started.elapsed());
    answer
}

fn openapi_document() -> Response<Body> {
    let mut response = Response::new(full(openapi().unwrap_or_default()));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn not_allowed(methods: &'static str) -> Response<Body> {
    let problem = Problem::new(Kind::MethodNotAllowed, format!("sidegate: this takes {methods} only"));
    let mut response = problem.response();
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(methods));
    response
}

impl Querying {
    async fn query(&self, request: Request<Incoming>, started: Instant) -> Result<Response<Body>, Problem> {
        // Where nothing may pass unrecorded, a request waits until it can be recorded.
        self.audit.log.room().await;
        let settings = self.settings.borrow().clone();
        let (head, body) = request.into_parts();
        let (credential, unknown) = match self.credential(&head, &settings, started).await {
            Ok(Ok(credential)) => (Some(credential), None),
            Ok(Err(why)) => (None, Some(why)),
            Err(problem) => {
                discard(body).await;
                return Err(problem);
            }
        };
        let (asked, statements) = read(&head.headers, &head.uri, body).await?;
        let who = Who { credential: credential.as_deref(), peer: shown_by(&head.extensions) };
        let login = self.log_in(who, &asked, &settings, started)?;
        if let Some(why) = unknown {
            // Where nothing is enforced, this record says who would fail; now it is known with which database.
            self.logins.record(&login.caller, &settings, (false, why), started);
        }
        let traced = head.extensions.get::<Traced>();
        if let Some(traced) = traced {
            traces::is_query(traced, &login.database);
        }
        let (decided, is_lax) = self.decide(&login, statements, asked.is_batch(), traced).await?;
        let token = credential.as_deref().map(|credential| &credential.token);
        let session = self.pools.get(&login, token).await.map_err(|problem| {
            let decision = decided.first().and_then(|one| one.passage.decision());
            decision.into_iter().fold(problem, Problem::decision)
        })?;
        let terms = Terms {
            limits: self.limits.clone(),
            standing: Standing::new(credential, login.tolerated || is_lax),
            realm: self.realm(),
            settings: self.settings.clone(),
            guard: self.drain.guard(),
        };
        run::start(session, decided, asked, terms).await
    }

    /// Who asks. `Ok(Err(_))`: nobody that is known, and why, where nothing is enforced.
    async fn credential(
        &self,
        head: &Parts,
        settings: &Settings,
        started: Instant,
    ) -> Result<Result<Arc<Credential>, &'static str>, Problem> {
        let peer = shown_by(&head.extensions);
        match authenticate(&head.headers, peer, &self.verifier, settings).await {
            Ok(credential) => Ok(Ok(credential)),
            Err(failure) if settings.verify == Verify::Enforce => {
                let caller = self.logins.caller(Who { credential: None, peer }, None, None, "");
                let id = self.logins.record(&caller, settings, (false, failure.label()), started);
                Err(failure.problem(&self.realm()).decision(id))
            }
            Err(failure) => Ok(Err(failure.label())),
        }
    }

    fn realm(&self) -> String {
        self.logins.service.to_string()
    }

    fn log_in(&self, who: Who<'_>, asked: &Asked, settings: &Settings, started: Instant) -> Result<Login, Problem> {
        let wanted = Wanted { role: asked.role.as_deref().unwrap_or_default(), database: asked.database.as_deref() };
        self.logins.choose(who, &wanted, settings, started).map_err(|Refusal { fields, decision, .. }| {
            let problem = match who.credential {
                None => Problem::of_fields(Kind::Unauthorized, *fields).challenge(challenge(&self.realm())),
                Some(_) => {
                    let challenge = insufficient_scope(&self.realm(), &fields.message);
                    Problem::of_fields(Kind::Denied, *fields).challenge(challenge)
                }
            };
            decision.into_iter().fold(problem, Problem::decision)
        })
    }

    /// Puts every statement to the policy; one that is denied denies all. Says, too, whether one passes only because
    /// nothing is enforced.
    async fn decide(
        &self,
        login: &Login,
        statements: Vec<Statement>,
        is_batch: bool,
        traced: Option<&Traced>,
    ) -> Result<(Vec<Decided>, bool), Problem> {
        let mut gate = Gate {
            role: login.role.clone(),
            caller: login.caller.clone(),
            settings: self.settings.clone(),
            analyses: self.analyses.clone(),
            audit: self.audit.clone(),
            prepared: None,
            lax: None,
            named: Named::default(),
            traced: traced.cloned(),
        };
        // Many texts hold up other connections as one long text does.
        let aside = statements.iter().map(|statement| statement.text.len()).sum::<usize>() > INLINE_LIMIT;
        let mut decided = Vec::with_capacity(statements.len());
        for statement in statements {
            let text = statement.text.as_bytes();
            let known = if aside { None } else { self.analyses.get(text) };
            let analysis = match known {
                None if text.len() <= TEXT_LIMIT => Some(self.analyses.make(text.to_vec()).await.ok_or_else(lost)?),
                known => known,
            };
            gate.prepared.clone_from(&analysis);
            self.audit.log.room().await;
            let passage = match gate.text(text) {
                Ruling::Pass(passage) => passage,
                Ruling::Deny(denied) => return Err(self.denied(denied)),
                Ruling::Analyze(_) | Ruling::LogFull => return Err(lost()),
            };
            // Looked at whoever asks, as it is about HTTP and not about rights.
            if let Some(Ok(facts)) = analysis.as_ref().map(|analysis| &analysis.facts) {
                fits_http(facts, is_batch)
                    .map_err(|problem| passage.decision().into_iter().fold(problem, Problem::decision))?;
            }
            decided.push(Decided { statement, passage });
        }
        Ok((decided, gate.lax.is_some()))
    }

    fn denied(&self, denied: Denied) -> Problem {
        let wire::session::Denied { id, fields } = denied.denied;
        let problem = match denied.reason {
            // A text that does not parse is nobody's to run: it is the text that is wrong, not the caller.
            "syntax" => {
                let why = fields.hint.unwrap_or_default();
                Problem::new(Kind::Sql, format!("sidegate: {why}")).code("42601")
            }
            "too_long" => Problem::of_fields(Kind::TooLarge, fields),
            _ => {
                let challenge = insufficient_scope(&self.realm(), &fields.message);
                Problem::of_fields(Kind::Denied, fields).challenge(challenge)
            }
        };
        problem.decision(id)
    }
}

/// Whether a statement can run in a request. Refused before anything is sent: afterwards it might have happened already.
fn fits_http(facts: &Facts, is_batch: bool) -> Result<(), Problem> {
    if facts.copies() {
        return Err(run::no_copy());
    }
    if is_batch && facts.controls_transaction() {
        return Err(Problem::new(Kind::BadRequest, "sidegate: the batch is one transaction already")
            .code("25001")
            .hint("Leave out BEGIN, COMMIT and ROLLBACK; savepoints are fine."));
    }
    Ok(())
}

fn lost() -> Problem {
    Problem::new(Kind::Unavailable, "sidegate: a statement could not be analysed").code("58000")
}

async fn read(headers: &HeaderMap, uri: &Uri, body: Incoming) -> Result<(Asked, Vec<Statement>), Problem> {
    let reading = request::read(headers, uri, body);
    tokio::time::timeout(BODY_TIMEOUT, reading).await.unwrap_or_else(|_| {
        let why = format!("It was not all there after {} s.", BODY_TIMEOUT.as_secs());
        Err(Problem::new(Kind::Slow, "sidegate: the request took too long to arrive").detail(why))
    })
}
