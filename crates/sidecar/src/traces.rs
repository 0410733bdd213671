//! Spans of requests, as OpenTelemetry's semantic conventions for databases and HTTP have them.
//!
//! `runtime::traces` sends them. Deliberately absent: text of statements, values, queries of URLs, and names that a caller
//! makes up, but for those that the decision log has, too: objects of statements, and paths.

use std::sync::Arc;
use std::time::Instant;

use http::{HeaderValue, Request, Response};
use parking_lot::Mutex;
use policy::{Action, Facts, Object};
use runtime::listen::Address;
use runtime::traces::{Span, TRACEPARENT, TRACESTATE, TraceContext, Tracer};

use crate::analysis::Analysis;
use crate::audit::{Caller, Decision, Needs, mode_label};

/// Methods that a span names; others are `_OTHER` (semantic conventions for HTTP).
const METHODS: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"];

/// The span of a request under way. Clones share it.
#[derive(Clone)]
pub(crate) struct Traced(Arc<Mutex<State>>);

struct State {
    span: Option<Span>,
    /// What its attributes tell of a decision: the first, or the first that denies.
    decided: Option<bool>,
}

impl Traced {
    fn new(span: Span) -> Traced {
        Traced(Arc::new(Mutex::new(State { span: Some(span), decided: None })))
    }

    fn with(&self, change: impl FnOnce(&mut Span)) {
        if let Some(span) = &mut self.0.lock().span {
            change(span);
        }
    }

    /// A decision of the request's was made. Of several, one that denies says more.
    pub(crate) fn decided(&self, caller: &Caller, decision: &Decision<'_>) {
        let mut state = self.0.lock();
        if state.decided.is_some_and(|allowed| !allowed || decision.allowed) {
            return;
        }
        state.decided = Some(decision.allowed);
        let Some(span) = &mut state.span else { return };
        span.set("sidegate.decision.id", decision.id.to_owned());
        span.set("sidegate.verdict", if decision.allowed { "allow" } else { "deny" });
        span.set("sidegate.reason", decision.reason);
        span.set("sidegate.mode", mode_label(decision.mode));
        name_caller(span, caller);
        match &decision.needs {
            Needs::Text(analysis) => name_objects(span, analysis),
            Needs::Request { path: Some(path), .. } => span.set("url.path", path.clone()),
            _ => {}
        }
    }

    /// A statement runs that was decided on earlier.
    pub(crate) fn runs_again(&self, analysis: &Analysis) {
        self.with(|span| name_objects(span, analysis));
    }

    /// The database, or we in its place, answered with an error.
    pub(crate) fn failed(&self, sqlstate: &str) {
        self.with(|span| {
            span.set("db.response.status_code", sqlstate.to_owned());
            span.set("error.type", sqlstate.to_owned());
            span.fail();
        });
    }

    /// The request is over.
    pub(crate) fn end(&self, tracer: &Tracer) {
        if let Some(span) = self.0.lock().span.take() {
            tracer.end(span);
        }
    }
}

fn name_caller(span: &mut Span, caller: &Caller) {
    if let Some(subject) = &caller.subject {
        span.set("sidegate.subject", subject.to_string());
    }
    if let Some(role) = &caller.role {
        span.set("sidegate.role", role.clone());
    }
}

fn name_objects(span: &mut Span, analysis: &Analysis) {
    let Ok(facts) = &analysis.facts else { return };
    let Some(first) = facts.needs().first() else { return };
    let operation = first.action.label().to_ascii_uppercase();
    let collection = collection(facts);
    span.rename(collection.as_ref().map_or(operation.clone(), |name| format!("{operation} {name}")));
    span.set("db.operation.name", operation);
    if let Some(name) = collection {
        span.set("db.collection.name", name);
    }
}

/// The relation that a text is about, where it is one.
fn collection(facts: &Facts) -> Option<String> {
    let mut named = facts.needs().iter().filter(|fact| fact.action != Action::Execute);
    let of = |object: &Object| matches!(object, Object::Named { .. }).then(|| object.to_string());
    let only = of(&named.next()?.object)?;
    named.all(|fact| of(&fact.object).as_ref() == Some(&only)).then_some(only)
}

/// A session of PostgreSQL's protocol, whose batches are traced.
pub(crate) struct SessionTraces {
    pub(crate) tracer: Tracer,
    caller: Arc<Caller>,
    upstream: (String, Option<i64>),
    /// The trace that the application says it works for.
    named: Option<TraceContext>,
}

impl SessionTraces {
    pub(crate) fn new(tracer: Tracer, caller: Arc<Caller>, upstream: &Address, name: Option<&str>) -> SessionTraces {
        let upstream = match upstream {
            Address::Tcp(address) => match address.rsplit_once(':') {
                Some((host, port)) => (host.to_owned(), port.parse().ok()),
                None => (address.clone(), None),
            },
            Address::Unix(path) => (path.display().to_string(), None),
        };
        SessionTraces { tracer, caller, upstream, named: name.and_then(TraceContext::in_name) }
    }

    /// The application has another name now.
    pub(crate) fn renamed(&mut self, name: &[u8]) {
        self.named = std::str::from_utf8(name).ok().and_then(TraceContext::in_name);
    }

    /// A batch begins, with this text if it begins with one. None, if it is not to be kept.
    pub(crate) fn begin(&self, text: Option<&[u8]>, started: Instant) -> Option<Traced> {
        // A statement's own word is more precise than the session's.
        let parent = text.and_then(TraceContext::in_comment).or(self.named);
        let mut span = self.tracer.begin(parent, started)?.span?;
        span.set("db.system.name", "postgresql");
        if let Some(database) = &self.caller.database {
            span.set("db.namespace", database.clone());
            span.rename(database.clone());
        }
        span.set("server.address", self.upstream.0.clone());
        if let Some(port) = self.upstream.1 {
            span.set("server.port", port);
        }
        name_caller(&mut span, &self.caller);
        Some(Traced::new(span))
    }
}

/// Begins the span of an HTTP request, which holds it from now on, and puts it between the caller's and what comes.
pub(crate) fn begin_request<B>(tracer: &Tracer, request: &mut Request<B>, started: Instant) -> Option<Traced> {
    let parent = parent_of(request);
    let begun = tracer.begin(parent, started)?;
    if parent.is_none() {
        request.headers_mut().remove(TRACESTATE);
    }
    if let Ok(value) = HeaderValue::try_from(begun.context.to_traceparent()) {
        request.headers_mut().insert(TRACEPARENT, value);
    }
    let mut span = begun.span?;
    let method = METHODS.into_iter().find(|method| *method == request.method().as_str()).unwrap_or("_OTHER");
    span.set("http.request.method", method);
    span.rename(if method == "_OTHER" { "HTTP" } else { method });
    let traced = Traced::new(span);
    request.extensions_mut().insert(traced.clone());
    Some(traced)
}

/// Several are none (Trace Context §4.3).
fn parent_of<B>(request: &Request<B>) -> Option<TraceContext> {
    let mut all = request.headers().get_all(TRACEPARENT).iter();
    let only = all.next().filter(|_| all.next().is_none())?;
    TraceContext::parse(only.to_str().ok()?.trim())
}

/// The head of the answer is here: the request's span ends.
pub(crate) fn end_request<B>(tracer: &Tracer, traced: &Traced, response: &Response<B>) {
    let status = response.status();
    traced.with(|span| {
        span.set("http.response.status_code", i64::from(status.as_u16()));
        if status.is_server_error() {
            span.set("error.type", status.as_u16().to_string());
            span.fail();
        }
    });
    traced.end(tracer);
}

/// The request is for SQL.
pub(crate) fn is_query(traced: &Traced, database: &str) {
    traced.with(|span| {
        span.set("db.system.name", "postgresql");
        span.set("db.namespace", database.to_owned());
    });
}
