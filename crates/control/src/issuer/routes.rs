//! The issuer over HTTP: `/token`, `/jwks`, the discovery documents. Health and metrics are `runtime::admin`'s.
//!
//! Deliberately absent: authorization code and every other flow (there is no browser and no client secret here), CORS.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::FormRejection;
use axum::extract::{DefaultBodyLimit, FromRequest, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Form, Json, Router};
use identity::exchange::{ErrorCode, GRANT_TYPE, OAuthError};
use serde_json::{Value, json};

use super::exchange::Exchange;

/// A token of 16 KiB and the words around it, percent-encoded, fit twice.
const MAX_BODY: usize = 64 * 1024;
/// A request that is not read in this time is given up: it holds a connection.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a key set may be kept by those between: not longer than `identity::jwks` lets it age.
const PUBLIC: HeaderValue = HeaderValue::from_static("public, max-age=300");

/// The routes.
pub(crate) fn router(exchange: Arc<Exchange>) -> Router {
    Router::new()
        .route("/token", post(token))
        .route("/jwks", get(jwks))
        .route("/.well-known/openid-configuration", get(openid_configuration))
        .route("/.well-known/oauth-authorization-server", get(authorization_server))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(exchange)
}

async fn token(State(exchange): State<Arc<Exchange>>, request: Request) -> Response {
    let form = match read_form(request).await {
        Ok(form) => form,
        Err((status, error)) => {
            exchange.refused(&error);
            return refusal(status, &error);
        }
    };
    match exchange.answer(&form).await {
        Ok(response) => unstored(Json(response).into_response()),
        Err(error) => refusal(StatusCode::from_u16(error.status()).unwrap_or(StatusCode::BAD_REQUEST), &error),
    }
}

/// The form's parameters, and nothing of the query: a token in a URL ends in logs.
async fn read_form(request: Request) -> Result<Vec<(String, String)>, (StatusCode, OAuthError)> {
    let invalid = |status, text: &str| (status, OAuthError::new(ErrorCode::InvalidRequest, text));
    let read = tokio::time::timeout(BODY_TIMEOUT, Form::<Vec<(String, String)>>::from_request(request, &()));
    match read.await {
        Ok(Ok(Form(form))) => Ok(form),
        Ok(Err(FormRejection::InvalidFormContentType(_))) => {
            Err(invalid(StatusCode::BAD_REQUEST, "send the parameters as application/x-www-form-urlencoded"))
        }
        Ok(Err(rejection)) if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE => {
            Err(invalid(StatusCode::PAYLOAD_TOO_LARGE, "the request is too large"))
        }
        Ok(Err(_)) => Err(invalid(StatusCode::BAD_REQUEST, "the form cannot be read")),
        Err(_) => Err(invalid(StatusCode::REQUEST_TIMEOUT, "the request took too long to arrive")),
    }
}

fn refusal(status: StatusCode, error: &OAuthError) -> Response {
    unstored((status, Json(error)).into_response())
}

/// RFC 6749 §5.1: answers with tokens, and refusals, are kept nowhere.
fn unstored(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::PRAGMA, HeaderValue::from_static("no-cache"));
    response
}

async fn jwks(State(exchange): State<Arc<Exchange>>) -> Response {
    let json = HeaderValue::from_static("application/jwk-set+json");
    ([(header::CONTENT_TYPE, json), (header::CACHE_CONTROL, PUBLIC)], exchange.signing.jwks().to_string())
        .into_response()
}

async fn authorization_server(State(exchange): State<Arc<Exchange>>) -> Response {
    published(metadata(&exchange.config.url))
}

/// The same, with what OpenID Discovery demands besides. No ID tokens are issued.
async fn openid_configuration(State(exchange): State<Arc<Exchange>>) -> Response {
    let mut document = metadata(&exchange.config.url);
    if let Some(members) = document.as_object_mut() {
        members.insert("subject_types_supported".to_owned(), json!(["public"]));
        members.insert("id_token_signing_alg_values_supported".to_owned(), json!(["ES256"]));
    }
    published(document)
}

fn metadata(url: &str) -> Value {
    json!({
        "issuer": url,
        "token_endpoint": format!("{url}/token"),
        "jwks_uri": format!("{url}/jwks"),
        "grant_types_supported": [GRANT_TYPE],
        "response_types_supported": [],
        "token_endpoint_auth_methods_supported": ["none"],
        "authorization_details_types_supported": [identity::access::POSTGRESQL, identity::access::HTTP],
    })
}

fn published(document: Value) -> Response {
    ([(header::CACHE_CONTROL, PUBLIC)], Json(document)).into_response()
}
