//! `GET /decisions`: the last decisions that a process keeps in memory, as lines of the decision log.
//!
//! They tell who calls whom, so only those who are on this machine, or in this pod, are answered: `kubectl port-forward`
//! leads there with the rights of whoever runs it. Absent on purpose: decisions that are not in memory any more, which
//! the log has.

use axum::extract::{Extension, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Router, body::Body};
use serde::Deserialize;

use crate::decision_log::{DecisionLog, Entry};
use crate::listen::{Address, Peer};

/// How many are shown if nobody says.
const USUAL_LIMIT: usize = 100;

const LINES: &str = "application/jsonl";

/// What is asked for.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    /// At most so many, the last ones.
    limit: Option<usize>,
    /// The one with this id.
    decision: Option<String>,
    /// Only those with this verdict.
    verdict: Option<Verdict>,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Allow,
    Deny,
}

impl Wanted {
    fn takes<T: Entry>(&self, entry: &T) -> bool {
        self.decision.as_deref().is_none_or(|id| entry.has_id(id))
            && self.verdict.is_none_or(|verdict| entry.is_denial() == (verdict == Verdict::Deny))
    }
}

/// The route.
pub fn router<T: Entry>(log: DecisionLog<T>) -> Router {
    Router::new().route("/decisions", get(show::<T>)).with_state(log)
}

async fn show<T: Entry>(
    State(log): State<DecisionLog<T>>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    wanted: Result<Query<Wanted>, axum::extract::rejection::QueryRejection>,
) -> Response {
    if !is_near(peer, &headers) {
        let why =
            "decisions are shown on this machine only: ask from inside the pod, or through `kubectl port-forward`\n";
        return (StatusCode::FORBIDDEN, why).into_response();
    }
    let Ok(Query(wanted)) = wanted else {
        let why = "want ?limit=N, ?verdict=allow or ?verdict=deny, or ?decision=ID, or nothing\n";
        return (StatusCode::BAD_REQUEST, why).into_response();
    };
    let limit = wanted.limit.unwrap_or(USUAL_LIMIT);
    let records = log.recent(limit, |entry| wanted.takes(entry));
    if records.is_empty() && wanted.decision.is_some() {
        let why = "no such decision is kept here: it may be older than the last ones, or another process's\n";
        return (StatusCode::NOT_FOUND, why).into_response();
    }
    // Beside the thread that moves bytes, as there may be many.
    let Ok(lines) = tokio::task::spawn_blocking(move || DecisionLog::lines(&records)).await else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    ([(header::CONTENT_TYPE, LINES), (header::CACHE_CONTROL, "no-store")], Body::from(lines)).into_response()
}

/// Whether the caller is on this machine, and no web page that a browser here was lured into asking for.
fn is_near(peer: Peer, headers: &HeaderMap) -> bool {
    let here = match peer {
        Peer::Tcp(address) => address.ip().to_canonical().is_loopback(),
        Peer::Unix { .. } => true,
    };
    let mut hosts = headers.get_all(header::HOST).iter().map(|host| host.to_str().unwrap_or_default());
    let (Some(host), None) = (hosts.next(), hosts.next()) else { return false };
    let host = if host.contains(':') && !host.ends_with(']') { host.to_owned() } else { format!("{host}:80") };
    let by_our_name = host.parse::<Address>().is_ok_and(|address| address.is_local());
    here && by_our_name && !headers.contains_key(header::ORIGIN)
}
