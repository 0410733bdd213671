//! Signing in by the one-time link, or in a cluster with a token; signing out, and the choice of a language.
//!
//! The link leads to a page with a button: a browser that looks ahead, or a chat that shows a preview, uses up nothing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use askama::Template;
use axum::extract::{Form, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use kube::Api;
use kube::api::PostParams;
use runtime::clock;
use runtime::kubernetes::{self, ApiError, Client, in_time};
use runtime::secret::Secret;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::config::{Cluster, Local, Steered};
use super::page::{Frame, html, message, see_other};
use super::platform::is_namespace;
use super::session::SignInError;
use super::words::{self, Language};
use super::{Common, Console, Posted};

mod oidc;

pub(super) use oidc::{Pending, back, begin};

/// Each is followed by itself.
const NAMESPACES_MAX: usize = 16;
/// Whom the API server takes people for that show nothing.
const ANYBODY: &str = "system:anonymous";

/// What a link or a form says.
#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
pub(super) struct Entry {
    key: String,
    token: String,
    namespaces: String,
}

#[derive(Template)]
#[template(path = "console/sign_in.html")]
struct Page<'a> {
    frame: &'a Frame,
    key: &'a str,
    /// None where people sign in with tokens.
    link_file: Option<String>,
    /// The provider that gives them one.
    provider: Option<String>,
}

pub(super) async fn show(State(common): State<Arc<Common>>, frame: Frame, Query(entry): Query<Entry>) -> Response {
    let (link_file, provider) = match &common.config.steered {
        Steered::Local(local) => (Some(local.link_file.display().to_string()), None),
        Steered::Cluster(cluster) => (None, cluster.oidc.as_ref().map(|oidc| oidc.issuer.clone())),
    };
    html(StatusCode::OK, &Page { frame: &frame, key: &entry.key, link_file, provider })
}

pub(super) async fn enter(State(common): State<Arc<Common>>, frame: Frame, Form(entry): Form<Entry>) -> Response {
    let (entered, how) = match &common.config.steered {
        Steered::Local(local) => (with_link(&common, local, &entry.key), "sign-in-how"),
        Steered::Cluster(cluster) => {
            (with_token(&common, cluster, &entry.token, &entry.namespaces).await, "sign-in-token-how")
        }
    };
    match entered {
        Ok(cookie) => ([(header::SET_COOKIE, cookie)], see_other("/")).into_response(),
        Err(error) => refuse(&frame, &error, how),
    }
}

fn refuse(frame: &Frame, error: &SignInError, how: &str) -> Response {
    tracing::warn!(%error, "somebody did not get in");
    let status = match error {
        SignInError::TooMany => StatusCode::TOO_MANY_REQUESTS,
        SignInError::Random => StatusCode::SERVICE_UNAVAILABLE,
        SignInError::Cluster(_) | SignInError::Provider(_) => StatusCode::BAD_GATEWAY,
        SignInError::Link | SignInError::Token(_) => StatusCode::FORBIDDEN,
    };
    let lines = [error.to_string(), frame.language.text(how).to_owned()];
    message(frame, status, frame.t("failed"), &lines, "/sign-in")
}

fn with_link(common: &Arc<Common>, local: &Local, key: &str) -> Result<String, SignInError> {
    let console = Console::of_machine(common, local).ok_or(SignInError::Link)?;
    common.sessions.sign_in(key, console, Instant::now())
}

/// A session with a token of Kubernetes: its API server says whose it is, and decides all that is done with it.
async fn with_token(
    common: &Arc<Common>,
    cluster: &Cluster,
    token: &str,
    namespaces: &str,
) -> Result<String, SignInError> {
    common.sessions.may_try(Instant::now())?;
    let refused = |why: &str| {
        common.sessions.failed(Instant::now());
        SignInError::Token(why.to_owned())
    };
    let token = token.trim();
    // Without one the API server would take us for somebody, too: anybody.
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(refused("it is none"));
    }
    let namespaces: Vec<String> =
        namespaces.split([',', ' ']).filter(|name| !name.is_empty()).map(str::to_owned).collect();
    if let Some(name) = namespaces.iter().find(|name| !is_namespace(name)) {
        return Err(refused(&format!("{name:?} is no name of a namespace")));
    }
    if namespaces.len() > NAMESPACES_MAX {
        return Err(refused(&format!("name {NAMESPACES_MAX} namespaces at most, or none for all")));
    }
    let client = cluster.server.client_of(&Secret::new(token));
    let client = client.map_err(|error| SignInError::Cluster(error.to_string()))?;
    let who = match who_is(&client).await {
        Ok(who) => who,
        Err(ApiError::Forbidden(why)) => return Err(refused(&why)),
        Err(error) => return Err(SignInError::Cluster(error.to_string())),
    };
    if who.is_empty() || who == ANYBODY {
        return Err(refused("it is nobody's"));
    }
    let life = life(token, clock::now());
    let cluster_error = |error: &dyn std::error::Error| SignInError::Cluster(error.to_string());
    let own = match cluster.own_account
        && may_come_here(&client, &cluster.namespace).await.map_err(|error| cluster_error(&error))?
    {
        true => Some(kubernetes::client().await.map_err(|error| cluster_error(&error))?),
        false => None,
    };
    let console = Console::of_person(common, client, own, &namespaces).await;
    tracing::info!(who, "somebody signed in");
    common.sessions.begin(who, console, Instant::now(), life)
}

/// Whose token a client has.
async fn who_is(client: &Client) -> Result<String, ApiError> {
    let api: Api<SelfSubjectReview> = Api::all(client.clone());
    let answer = in_time(api.create(&PostParams::default(), &SelfSubjectReview::default())).await?;
    Ok(answer.status.and_then(|status| status.user_info?.username).unwrap_or_default())
}

/// Whether whose token a client has may forward ports to pods of the system's namespace, and so to the console: somebody else's token
/// that was found is not enough for the console's own rights.
async fn may_come_here(client: &Client, namespace: &str) -> Result<bool, ApiError> {
    let attributes = ResourceAttributes {
        namespace: Some(namespace.to_owned()),
        verb: Some("create".to_owned()),
        resource: Some("pods".to_owned()),
        subresource: Some("portforward".to_owned()),
        ..ResourceAttributes::default()
    };
    let spec = SelfSubjectAccessReviewSpec { resource_attributes: Some(attributes), ..Default::default() };
    let api: Api<SelfSubjectAccessReview> = Api::all(client.clone());
    let review = SelfSubjectAccessReview { spec, ..Default::default() };
    let answer = in_time(api.create(&PostParams::default(), &review)).await?;
    Ok(answer.status.is_some_and(|status| status.allowed))
}

/// How long a token lasts by its own words (RFC 7519 §4.1.4), which the API server has verified; one that does not say lasts.
fn life(token: &str, now: i64) -> Duration {
    #[derive(Deserialize)]
    struct Claims {
        exp: i64,
    }
    let claims = payload::<Claims>(token);
    claims.map_or(Duration::MAX, |claims| Duration::from_secs(claims.exp.saturating_sub(now).try_into().unwrap_or(0)))
}

/// What a token says (RFC 7519 §3), unverified.
fn payload<T: DeserializeOwned>(token: &str) -> Option<T> {
    let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    serde_json::from_slice(&payload).ok()
}

pub(super) async fn leave(State(common): State<Arc<Common>>, headers: HeaderMap, _posted: Posted) -> Response {
    ([(header::SET_COOKIE, common.sessions.sign_out(&headers))], see_other("/sign-in")).into_response()
}

#[derive(Deserialize)]
pub(super) struct Choice {
    language: String,
    back: String,
}

/// Not a change of anything but how pages look to this browser.
pub(super) async fn language(Form(Choice { language, back }): Form<Choice>) -> Response {
    let Some(language) = Language::of_code(&language) else { return StatusCode::BAD_REQUEST.into_response() };
    let cookie = format!("{}={}; Path=/; SameSite=Strict; Max-Age=31536000", words::COOKIE, language.code());
    // Only to a page of ours.
    let is_ours = back.starts_with('/') && !back.starts_with("//") && !back.contains(['\\', '\r', '\n']);
    ([(header::SET_COOKIE, cookie)], see_other(if is_ours { &back } else { "/" })).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_ends_with_its_token() {
        let token = |claims: &str| format!("e30.{}.sig", URL_SAFE_NO_PAD.encode(claims));
        assert_eq!(life(&token(r#"{"exp": 160}"#), 100), Duration::from_secs(60));
        assert_eq!(life(&token(r#"{"exp": 60}"#), 100), Duration::ZERO);
        for odd in ["abc", "", "a.b.c", &token("{}")] {
            assert_eq!(life(odd, 100), Duration::MAX);
        }
    }
}
