//! Signing in by OpenID Connect: the authorization code flow (OpenID Connect Core 1.0 §3.1) with PKCE (RFC 7636). What comes of it is an
//! ID token, with which somebody signs in as with one that is pasted.
//!
//! Deliberately absent: verifying its signature, which the API server does before anything is shown; and refreshing, as a session ends with it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use askama::Template;
use aws_lc_rs::digest::{SHA256, digest};
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::Mutex;
use runtime::http_client::{HttpClient, HttpError};
use runtime::secret;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::super::Common;
use super::super::config::{Oidc, Steered};
use super::super::page::{Frame, escaped, html};
use super::super::session::{SignInError, cookie_of, random};
use super::{payload, refuse, with_token};

/// Binds what comes back to the browser that went.
const COOKIE: &str = "sidegate_sign_in";
/// So long somebody may take at the provider.
const LIFE: Duration = Duration::from_secs(600);
/// Of those who went there; the oldest is forgotten.
const PENDING_MAX: usize = 64;
const HOW: &str = "sign-in-token-how";

/// Who went to the provider and is not back yet, by `state`.
#[derive(Default)]
pub(in crate::console) struct Pending(Mutex<HashMap<String, Gone>>);

struct Gone {
    at: Instant,
    /// PKCE's `code_verifier`.
    verifier: String,
    nonce: String,
    redirect_uri: String,
    namespaces: String,
}

impl Pending {
    fn put(&self, state: String, gone: Gone) {
        let mut all = self.0.lock();
        all.retain(|_, gone| gone.at.elapsed() < LIFE);
        if all.len() >= PENDING_MAX {
            let oldest = all.iter().min_by_key(|(_, gone)| gone.at).map(|(state, _)| state.clone());
            oldest.and_then(|oldest| all.remove(&oldest));
        }
        all.insert(state, gone);
    }

    fn take(&self, state: &str) -> Option<Gone> {
        self.0.lock().remove(state).filter(|gone| gone.at.elapsed() < LIFE)
    }
}

/// What the provider says of itself (OpenID Connect Discovery 1.0 §3).
#[derive(Deserialize)]
struct Metadata {
    issuer: String,
    authorization_endpoint: String,
    token_endpoint: String,
}

#[derive(Deserialize)]
struct Tokens {
    id_token: String,
}

/// How a token endpoint says no (RFC 6749 §5.2).
#[derive(Deserialize)]
struct Refusal {
    error: String,
    #[serde(default)]
    error_description: String,
}

#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
pub(in crate::console) struct Begin {
    namespaces: String,
}

/// What the provider sends the browser back with (RFC 6749 §4.1.2).
#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
pub(in crate::console) struct Back {
    code: String,
    state: String,
    error: String,
    error_description: String,
}

/// A page of our own that leads on. There, as a form may lead nowhere but here; and back, as a browser sends our cookie to what a page of
/// ours asks for, and not to where another site has led it.
#[derive(Template)]
#[template(path = "console/onward.html")]
struct Onward<'a> {
    frame: &'a Frame,
    url: &'a str,
}

/// To the provider.
pub(in crate::console) async fn begin(
    State(common): State<Arc<Common>>,
    frame: Frame,
    headers: HeaderMap,
    Query(wanted): Query<Begin>,
) -> Response {
    match leave(&common, &headers, wanted).await {
        Ok((url, state)) => {
            let cookie = format!("{COOKIE}={state}; Path=/sign-in; HttpOnly; SameSite=Lax; Max-Age={}", LIFE.as_secs());
            ([(header::SET_COOKIE, cookie)], html(StatusCode::OK, &Onward { frame: &frame, url: &url })).into_response()
        }
        Err(error) => refuse(&frame, &error, HOW),
    }
}

/// And back.
pub(in crate::console) async fn back(
    State(common): State<Arc<Common>>,
    frame: Frame,
    headers: HeaderMap,
    Query(back): Query<Back>,
) -> Response {
    match arrive(&common, &headers, &back).await {
        Ok(cookie) => {
            ([(header::SET_COOKIE, cookie)], html(StatusCode::OK, &Onward { frame: &frame, url: "/" })).into_response()
        }
        Err(error) => refuse(&frame, &error, HOW),
    }
}

fn provider(common: &Common) -> Result<&Oidc, SignInError> {
    let oidc = match &common.config.steered {
        Steered::Cluster(cluster) => cluster.oidc.as_ref(),
        Steered::Local(_) => None,
    };
    oidc.ok_or_else(|| SignInError::Provider("there is none here".to_owned()))
}

async fn leave(common: &Common, headers: &HeaderMap, wanted: Begin) -> Result<(String, String), SignInError> {
    common.sessions.may_try(Instant::now())?;
    let oidc = provider(common)?;
    let metadata = metadata(oidc).await?;
    let (state, verifier, nonce) = (random()?, random()?, random()?);
    // The host was looked at already: it is this machine's.
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let redirect_uri = format!("http://{host}/sign-in/back");
    let challenge = URL_SAFE_NO_PAD.encode(digest(&SHA256, verifier.as_bytes()));
    let scope = ["openid"].into_iter().chain(oidc.scopes.iter().map(String::as_str)).collect::<Vec<_>>().join(" ");
    let query = encoded(&[
        ("response_type", "code"),
        ("client_id", &oidc.client_id),
        ("redirect_uri", &redirect_uri),
        ("scope", &scope),
        ("state", &state),
        ("nonce", &nonce),
        ("code_challenge", &challenge),
        ("code_challenge_method", "S256"),
    ]);
    let separator = if metadata.authorization_endpoint.contains('?') { '&' } else { '?' };
    let url = format!("{}{separator}{query}", metadata.authorization_endpoint);
    let namespaces = wanted.namespaces;
    common.pending.put(state.clone(), Gone { at: Instant::now(), verifier, nonce, redirect_uri, namespaces });
    Ok((url, state))
}

async fn arrive(common: &Arc<Common>, headers: &HeaderMap, back: &Back) -> Result<String, SignInError> {
    common.sessions.may_try(Instant::now())?;
    let stranger = || {
        common.sessions.failed(Instant::now());
        SignInError::Provider("this browser did not go there from here, or too long ago; sign in again".to_owned())
    };
    // Somebody else's way back would sign this browser in as somebody else.
    if back.state.is_empty() || cookie_of(headers, COOKIE) != Some(&back.state) {
        return Err(stranger());
    }
    let gone = common.pending.take(&back.state).ok_or_else(stranger)?;
    if !back.error.is_empty() {
        return Err(SignInError::Provider(said(&back.error, &back.error_description)));
    }
    let oidc = provider(common)?;
    let token = id_token(oidc, &gone, &back.code).await?;
    #[derive(Deserialize)]
    struct Claims {
        nonce: String,
    }
    if payload::<Claims>(&token).is_none_or(|claims| claims.nonce != gone.nonce) {
        return Err(SignInError::Provider("its token is for another sign-in (nonce)".to_owned()));
    }
    let Steered::Cluster(cluster) = &common.config.steered else { return Err(stranger()) };
    with_token(common, cluster, &token, &gone.namespaces).await
}

async fn metadata(oidc: &Oidc) -> Result<Metadata, SignInError> {
    let url = format!("{}/.well-known/openid-configuration", oidc.issuer);
    let answer = client(oidc)?.get(&url).await.map_err(unreachable)?;
    let metadata: Metadata = understood(&url, answer.status, &answer.body)?;
    if metadata.issuer != oidc.issuer {
        let why = format!("{url} says that it is {:?}: configure that as oidc.issuer, if it is", metadata.issuer);
        return Err(SignInError::Provider(why));
    }
    Ok(metadata)
}

async fn id_token(oidc: &Oidc, gone: &Gone, code: &str) -> Result<String, SignInError> {
    let url = metadata(oidc).await?.token_endpoint;
    let secret = oidc.client_secret_file.as_deref().map(secret::read).transpose();
    let secret = secret.map_err(|error| SignInError::Provider(error.to_string()))?;
    let mut fields = vec![
        ("grant_type", "authorization_code"),
        ("code", code),
        ("redirect_uri", &gone.redirect_uri),
        ("client_id", &oidc.client_id),
        ("code_verifier", &gone.verifier),
    ];
    fields.extend(secret.as_ref().map(|secret| ("client_secret", secret.expose())));
    let answer = client(oidc)?.post_form(&url, encoded(&fields)).await.map_err(unreachable)?;
    Ok(understood::<Tokens>(&url, answer.status, &answer.body)?.id_token)
}

fn client(oidc: &Oidc) -> Result<HttpClient, SignInError> {
    HttpClient::new(oidc.ca_file.as_deref()).map_err(|error| SignInError::Provider(error.to_string()))
}

fn understood<T: DeserializeOwned>(url: &str, status: u16, body: &[u8]) -> Result<T, SignInError> {
    if status == 200
        && let Ok(answer) = serde_json::from_slice(body)
    {
        return Ok(answer);
    }
    let refusal = serde_json::from_slice::<Refusal>(body).ok();
    let why = refusal.map_or("not what was expected".to_owned(), |why| said(&why.error, &why.error_description));
    Err(SignInError::Provider(format!("{url} answered {status}: {why}")))
}

fn said(error: &str, description: &str) -> String {
    if description.is_empty() { error.to_owned() } else { format!("{error}: {description}") }
}

fn unreachable(error: HttpError) -> SignInError {
    SignInError::Provider(error.to_string())
}

/// `application/x-www-form-urlencoded`.
fn encoded(fields: &[(&str, &str)]) -> String {
    fields.iter().map(|(name, value)| format!("{name}={}", escaped(value))).collect::<Vec<_>>().join("&")
}

#[cfg(test)]
mod tests;
