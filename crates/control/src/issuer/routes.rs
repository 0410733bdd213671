//! The issuer over HTTP: `/token`, `/jwks`, `/certificates`, `/trust-bundle`, the discovery documents, and what describes them. Health and metrics are
//! `runtime::admin`'s.
//!
//! Deliberately absent: authorization code and every other flow (there is no browser and no client secret here), CORS.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::FormRejection;
use axum::extract::{DefaultBodyLimit, FromRequest, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Form, Json, Router};
use identity::UnverifiedToken;
use identity::exchange::{ErrorCode, OAuthError};
use identity::subject::SubjectToken;
use serde::Serialize;
use utoipa::OpenApi as _;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::certificates::Refused;
use super::exchange::{CallerError, Exchange};
use super::openapi::{
    AuthorizationServer, Described, KeySet, OpenidConfiguration, Problem, Refusal, TokenAnswer, TokenRequest,
};

/// A token of 16 KiB and the words around it, percent-encoded, fit twice.
const MAX_BODY: usize = 64 * 1024;
/// A request that is not read in this time is given up: it holds a connection.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// The media type of certificate signing requests (RFC 5967).
const PKCS10: &str = "application/pkcs10";
/// How long the discovery documents may be kept.
const PUBLIC: HeaderValue = HeaderValue::from_static("public, max-age=300");
/// What is published about keys is never kept longer, however seldom they rotate: a compromised one must go.
const MAX_AGE: i64 = 300;

/// The routes, those of `health` among them. Whatever is asked for, there is an answer with a body that says what it is.
pub(crate) fn router(exchange: Arc<Exchange>, health: Router) -> Router {
    let (router, document) = described();
    let document = Arc::new(document);
    router
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(exchange)
        .merge(health)
        .route("/openapi.json", get(async move || published(document.as_ref())))
        .fallback(async || problem(StatusCode::NOT_FOUND))
        .method_not_allowed_fallback(async || problem(StatusCode::METHOD_NOT_ALLOWED))
}

/// The issuer's own routes and the description of all.
pub(super) fn described() -> (Router<Arc<Exchange>>, OpenApi) {
    OpenApiRouter::with_openapi(Described::openapi())
        .routes(routes!(token))
        .routes(routes!(jwks))
        .routes(routes!(certificates))
        .routes(routes!(trust_bundle))
        .routes(routes!(openid_configuration))
        .routes(routes!(authorization_server))
        .split_for_parts()
}

/// Exchange a token
///
/// A Kubernetes service-account token goes in, an access token for one service comes out (RFC 8693).
#[utoipa::path(
    post,
    path = "/token",
    request_body(content = TokenRequest, content_type = "application/x-www-form-urlencoded"),
    responses(
        (status = 200, description = "The access token.", body = TokenAnswer, headers(
            ("Cache-Control" = String, description = "`no-store`"),
        )),
        (status = 400, description = "Refused: the request, its subject token, audience or scope.", body = Refusal),
        (status = 408, description = "The request took too long to arrive.", body = Refusal),
        (status = 413, description = "The request is too large.", body = Refusal),
        (status = 500, description = "The issuer failed.", body = Refusal),
        (status = 503, description = "The cluster's keys are not known yet: ask again.", body = Refusal),
    ),
)]
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

/// The key set
///
/// The public keys that access tokens are signed with (RFC 7517), the next one among them before it signs.
#[utoipa::path(
    get,
    path = "/jwks",
    responses((
        status = 200, description = "The keys.", body = KeySet, content_type = "application/jwk-set+json",
        headers(("Cache-Control" = String, description = "For how long they may be kept: short enough to meet every new key before it signs.")),
    )),
)]
async fn jwks(State(exchange): State<Arc<Exchange>>) -> Response {
    let json = HeaderValue::from_static("application/jwk-set+json");
    let (keys, max_age) = exchange.signing.jwks(runtime::clock::now());
    let headers = [(header::CONTENT_TYPE, json), (header::CACHE_CONTROL, kept_for(max_age))];
    (headers, keys.to_string()).into_response()
}

/// What is published about keys may be kept for so many seconds.
fn kept_for(max_age: i64) -> HeaderValue {
    let text = format!("public, max-age={}", max_age.clamp(0, MAX_AGE));
    HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("no-cache"))
}

/// Sign a certificate
///
/// A certificate signing request goes in, with the caller's service-account token; a certificate that names the service
/// account comes out: by its SPIFFE ID, and by the DNS names of the service called like it. Of the request only the public
/// key counts (P-256, Ed25519, or RSA of 2048 bits or more); names in it are passed over.
#[utoipa::path(
    post,
    path = "/certificates",
    security(("serviceAccountToken" = [])),
    request_body(content = String, content_type = "application/pkcs10", description = "PKCS #10, as DER or PEM."),
    responses(
        (status = 200, description = "The certificate, in PEM.", body = String, content_type = "application/pem-certificate-chain", headers(
            ("Cache-Control" = String, description = "`no-store`"),
        )),
        (status = 400, description = "No certificate signing request, a key that is too weak, or not signed with it.", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "No token, or one that is not believed.", body = Problem, content_type = "application/problem+json", headers(
            ("WWW-Authenticate" = String, description = "What is wrong with it (RFC 6750)."),
        )),
        (status = 404, description = "This issuer signs no certificates.", body = Problem, content_type = "application/problem+json"),
        (status = 408, description = "The request took too long to arrive.", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "The request is too large.", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "Not `application/pkcs10`.", body = Problem, content_type = "application/problem+json"),
        (status = 500, description = "The issuer failed.", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The cluster's keys are not known yet: ask again.", body = Problem, content_type = "application/problem+json"),
    ),
)]
async fn certificates(State(exchange): State<Arc<Exchange>>, request: Request) -> Response {
    unstored(signed(&exchange, request).await.unwrap_or_else(|refusal| refusal))
}

async fn signed(exchange: &Exchange, request: Request) -> Result<Response, Response> {
    let signer = exchange.certificates.as_ref().ok_or_else(no_certificates)?;
    // Who asks comes first: strangers are not read.
    let caller = caller(exchange, request.headers()).await?;
    let kind = request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    if !kind.is_some_and(|kind| kind.trim().eq_ignore_ascii_case(PKCS10)) {
        return Err(problem_that(StatusCode::UNSUPPORTED_MEDIA_TYPE, "send the request as application/pkcs10"));
    }
    let body = read_body(request).await?;
    let subject = caller.subject();
    match signer.issue(subject, &body, runtime::clock::now()) {
        Ok(issued) => {
            let pod = caller.pod().map(|pod| pod.name.as_str());
            tracing::info!(%subject, pod, serial = issued.serial, thumbprint = %issued.thumbprint, "a certificate was signed");
            let kind = HeaderValue::from_static("application/pem-certificate-chain");
            Ok(([(header::CONTENT_TYPE, kind)], issued.pem).into_response())
        }
        Err(error) => {
            tracing::info!(%subject, reason = %error, "a certificate was refused");
            let status = match error {
                Refused::Request(_) => StatusCode::BAD_REQUEST,
                Refused::Signing(_) => StatusCode::INTERNAL_SERVER_ERROR,
            };
            Err(problem_that(status, &error.to_string()))
        }
    }
}

async fn caller(exchange: &Exchange, headers: &HeaderMap) -> Result<SubjectToken, Response> {
    let mut given = headers.get_all(header::AUTHORIZATION).iter();
    let token = match (given.next().and_then(|value| value.to_str().ok()), given.next()) {
        (Some(value), None) => value.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")),
        _ => None,
    };
    let Some((_, token)) = token else {
        let detail = "show the service-account token as Authorization: Bearer";
        return Err(unauthenticated(detail, HeaderValue::from_static("Bearer")));
    };
    exchange.caller(&UnverifiedToken::new(token.trim())).await.map_err(|error| refused_caller(&error))
}

fn refused_caller(error: &CallerError) -> Response {
    if error.is_temporary() {
        let mut response = problem_that(StatusCode::SERVICE_UNAVAILABLE, &error.to_string());
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("2"));
        return response;
    }
    tracing::info!(reason = %error, "a certificate was refused");
    let description = error.to_string().replace('"', "'");
    let challenge = format!("Bearer error=\"invalid_token\", error_description=\"{description}\"");
    let plain = HeaderValue::from_static("Bearer error=\"invalid_token\"");
    unauthenticated(&error.to_string(), HeaderValue::from_str(&challenge).unwrap_or(plain))
}

fn unauthenticated(detail: &str, challenge: HeaderValue) -> Response {
    let mut response = problem_that(StatusCode::UNAUTHORIZED, detail);
    response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    response
}

async fn read_body(request: Request) -> Result<Bytes, Response> {
    match tokio::time::timeout(BODY_TIMEOUT, Bytes::from_request(request, &())).await {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(rejection)) if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE => {
            Err(problem_that(StatusCode::PAYLOAD_TOO_LARGE, "no certificate signing request is as large"))
        }
        Ok(Err(_)) => Err(problem_that(StatusCode::BAD_REQUEST, "the request cannot be read")),
        Err(_) => Err(problem_that(StatusCode::REQUEST_TIMEOUT, "the request took too long to arrive")),
    }
}

/// The trust bundle
///
/// The certificates of all authorities that may have signed what is in use, in PEM, and of the next one before it signs.
#[utoipa::path(
    get,
    path = "/trust-bundle",
    responses(
        (status = 200, description = "The certificates.", body = String, content_type = "application/x-pem-file", headers(
            ("Cache-Control" = String, description = "For how long they may be kept: short enough to meet every new authority before it signs."),
        )),
        (status = 404, description = "This issuer signs no certificates.", body = Problem, content_type = "application/problem+json"),
    ),
)]
async fn trust_bundle(State(exchange): State<Arc<Exchange>>) -> Response {
    let Some(signer) = &exchange.certificates else { return no_certificates() };
    let (bundle, max_age) = signer.authorities.bundle(runtime::clock::now());
    let kind = HeaderValue::from_static("application/x-pem-file");
    ([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, kept_for(max_age))], bundle).into_response()
}

fn no_certificates() -> Response {
    problem_that(StatusCode::NOT_FOUND, "this issuer signs no certificates: its configuration has no `certificates`")
}

/// Authorization server metadata
///
/// What the issuer offers and where (RFC 8414).
#[utoipa::path(
    get,
    path = "/.well-known/oauth-authorization-server",
    responses((status = 200, description = "The metadata.", body = AuthorizationServer)),
)]
async fn authorization_server(State(exchange): State<Arc<Exchange>>) -> Response {
    published(&AuthorizationServer::of(&exchange.config.url))
}

/// OpenID discovery
///
/// The same, with what OpenID Discovery demands besides. No ID tokens are issued.
#[utoipa::path(
    get,
    path = "/.well-known/openid-configuration",
    responses((status = 200, description = "The metadata.", body = OpenidConfiguration)),
)]
async fn openid_configuration(State(exchange): State<Arc<Exchange>>) -> Response {
    published(&OpenidConfiguration::of(&exchange.config.url))
}

fn published(document: &impl Serialize) -> Response {
    ([(header::CACHE_CONTROL, PUBLIC)], Json(document)).into_response()
}

/// An answer about HTTP itself (RFC 9457).
fn problem(status: StatusCode) -> Response {
    described_problem(status, None)
}

fn problem_that(status: StatusCode, detail: &str) -> Response {
    described_problem(status, Some(detail))
}

fn described_problem(status: StatusCode, detail: Option<&str>) -> Response {
    let kind = HeaderValue::from_static("application/problem+json");
    let title = status.canonical_reason().unwrap_or_default();
    let mut body = serde_json::json!({"type": "about:blank", "title": title, "status": status.as_u16()});
    if let (Some(detail), Some(members)) = (detail, body.as_object_mut()) {
        members.insert("detail".to_owned(), detail.into());
    }
    (status, [(header::CONTENT_TYPE, kind)], body.to_string()).into_response()
}
