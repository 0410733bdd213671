//! The issuer's OpenAPI document: what its routes take and answer, generated from them.
//!
//! The types of `identity` know nothing of OpenAPI, so the shapes of requests and answers are described here, and a test
//! holds them against what is sent. Deliberately absent: the routes (`routes`).

use identity::exchange::GRANT_TYPE;
use serde::Serialize;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::{OpenApi, ToSchema};

/// The document, as JSON text.
///
/// # Errors
/// Never, in truth: it is what the serializer of the description may say.
pub fn document() -> Result<String, serde_json::Error> {
    super::routes::described().1.to_pretty_json()
}

/// What is said of the whole, and of the routes that are not the issuer's own.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Sidegate issuer",
        description = "Turns Kubernetes service-account tokens into short-lived access tokens (RFC 8693, RFC 9068).",
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0"),
        contact(),
    ),
    paths(healthz, readyz, metrics, openapi_json),
    modifiers(&Security)
)]
pub(super) struct Described;

/// How a caller shows who it is.
struct Security;

impl utoipa::Modify for Security {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let token = Http::builder().scheme(HttpAuthScheme::Bearer).bearer_format("JWT");
        let token =
            token.description(Some("The caller's Kubernetes service-account token, with the issuer as its audience."));
        let components = document.components.get_or_insert_with(Default::default);
        components.add_security_scheme("serviceAccountToken", SecurityScheme::Http(token.build()));
    }
}

/// Whether the process lives
#[utoipa::path(
    get,
    path = "/healthz",
    responses((status = 200, description = "It does.", body = String, content_type = "text/plain")),
)]
#[expect(dead_code, reason = "the handler is runtime's; this is its description")]
fn healthz() {}

/// Whether it is ready
#[utoipa::path(
    get,
    path = "/readyz",
    responses(
        (status = 200, description = "Requests are welcome.", body = String, content_type = "text/plain"),
        (status = 503, description = "Not yet, or no more; says what is waited for.", body = String, content_type = "text/plain"),
    ),
)]
#[expect(dead_code, reason = "the handler is runtime's; this is its description")]
fn readyz() {}

/// Metrics
///
/// In Prometheus' text format 0.0.4, or in that of OpenMetrics for those who ask for it.
#[utoipa::path(
    get,
    path = "/metrics",
    responses((
        status = 200,
        description = "The metrics.",
        content((String = "text/plain"), (String = "application/openmetrics-text")),
    )),
)]
#[expect(dead_code, reason = "the handler is runtime's; this is its description")]
fn metrics() {}

/// This document
#[utoipa::path(get, path = "/openapi.json", responses((status = 200, description = "This document.", body = Object)))]
#[expect(dead_code, reason = "the handler holds the finished document, which this is a part of")]
fn openapi_json() {}

/// The parameters of a token exchange (RFC 8693 §2.1). A parameter without a value counts as absent.
#[derive(ToSchema)]
#[expect(dead_code, reason = "identity::exchange reads the form; this is its description")]
pub(super) struct TokenRequest {
    /// What is asked for.
    #[schema(schema_with = grant_type)]
    grant_type: String,
    /// The service-account token of the caller, with the issuer as its audience.
    subject_token: String,
    /// What the subject token is.
    #[schema(schema_with = jwt_type)]
    subject_token_type: String,
    /// The service to be called: `namespace/name`.
    #[schema(example = "postgres-b/postgres-b", pattern = "^[a-z0-9-]+/[a-z0-9-]+$")]
    audience: String,
    /// The roles that are wanted, with one space between them; left out, all that are granted.
    #[schema(nullable = false, example = "reader")]
    scope: Option<String>,
    /// What is asked for: an access token, which is also what comes when it is left out.
    #[schema(schema_with = access_token_type, required = false)]
    requested_token_type: Option<String>,
    /// The certificate that the token shall be bound to, as JSON: `{"x5t#S256": "…"}` (RFC 7800, RFC 8705). Shown over
    /// another one, the token is refused.
    #[schema(nullable = false)]
    req_cnf: Option<String>,
}

/// A granted token (RFC 8693 §2.2.1).
#[derive(ToSchema)]
#[expect(dead_code, reason = "identity::exchange::Response is what is sent; this is its description")]
pub(super) struct TokenAnswer {
    /// The access token: a JWT as RFC 9068 has it.
    access_token: String,
    /// What the token is.
    #[schema(schema_with = access_token_type)]
    issued_token_type: String,
    /// How it is shown.
    #[schema(schema_with = bearer)]
    token_type: String,
    /// Its life in seconds.
    #[schema(minimum = 1)]
    expires_in: i64,
    /// The roles it holds, with one space between them.
    scope: String,
}

/// A refusal (RFC 6749 §5.2).
#[derive(ToSchema)]
#[expect(dead_code, reason = "identity::exchange::OAuthError is what is sent; this is its description")]
pub(super) struct Refusal {
    /// What kind of refusal.
    error: RefusalCode,
    /// What to do about it.
    error_description: String,
}

/// What went wrong (RFC 9457).
#[derive(ToSchema)]
#[expect(dead_code, reason = "the routes write it; this is its description")]
pub(super) struct Problem {
    /// `about:blank`: the status says what kind it is.
    r#type: String,
    /// The status in words.
    title: String,
    /// The status.
    status: u16,
    /// What to do about it.
    #[schema(nullable = false)]
    detail: Option<String>,
}

/// The kinds of refusal (RFC 6749 §5.2, RFC 8693 §2.2.2).
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
#[expect(dead_code, reason = "identity::exchange::ErrorCode is what is sent; this is its description")]
pub(super) enum RefusalCode {
    InvalidRequest,
    InvalidTarget,
    InvalidScope,
    UnsupportedGrantType,
    TemporarilyUnavailable,
    ServerError,
}

/// A key set (RFC 7517 §5).
#[derive(ToSchema)]
#[expect(dead_code, reason = "the signing keys publish themselves; this is their description")]
pub(super) struct KeySet {
    /// The keys; that which signs is the first.
    keys: Vec<Key>,
}

/// A public key.
#[derive(ToSchema)]
#[expect(dead_code, reason = "the signing keys publish themselves; this is their description")]
pub(super) struct Key {
    /// Its family: `EC`.
    kty: String,
    /// Its name.
    kid: String,
    /// The algorithm that it is for: `ES256`.
    alg: String,
}

/// Authorization server metadata (RFC 8414 §2, RFC 9396 §10).
#[derive(Serialize, ToSchema)]
pub(super) struct AuthorizationServer {
    /// The issuer's name: the `iss` of its tokens.
    issuer: String,
    /// Where tokens are exchanged.
    token_endpoint: String,
    /// Where the keys are.
    jwks_uri: String,
    /// Token exchange, and nothing else.
    grant_types_supported: [&'static str; 1],
    /// None: there is no authorization endpoint.
    response_types_supported: [&'static str; 0],
    /// `none`: the subject token says who asks.
    token_endpoint_auth_methods_supported: [&'static str; 1],
    /// What tokens speak of.
    authorization_details_types_supported: [&'static str; 2],
}

impl AuthorizationServer {
    pub(super) fn of(url: &str) -> Self {
        Self {
            issuer: url.to_owned(),
            token_endpoint: format!("{url}/token"),
            jwks_uri: format!("{url}/jwks"),
            grant_types_supported: [GRANT_TYPE],
            response_types_supported: [],
            token_endpoint_auth_methods_supported: ["none"],
            authorization_details_types_supported: [identity::access::POSTGRESQL, identity::access::HTTP],
        }
    }
}

/// OpenID provider metadata (OpenID Connect Discovery §3).
#[derive(Serialize, ToSchema)]
pub(super) struct OpenidConfiguration {
    #[serde(flatten)]
    server: AuthorizationServer,
    /// Everybody has the same name everywhere.
    subject_types_supported: [&'static str; 1],
    /// Said because it must be; no ID tokens are issued.
    id_token_signing_alg_values_supported: [&'static str; 1],
}

impl OpenidConfiguration {
    pub(super) fn of(url: &str) -> Self {
        Self {
            server: AuthorizationServer::of(url),
            subject_types_supported: ["public"],
            id_token_signing_alg_values_supported: ["ES256"],
        }
    }
}

fn only(value: &str) -> utoipa::openapi::Object {
    let string = utoipa::openapi::schema::SchemaType::new(utoipa::openapi::schema::Type::String);
    utoipa::openapi::ObjectBuilder::new().schema_type(string).enum_values(Some([value])).build()
}

fn grant_type() -> utoipa::openapi::Object {
    only(GRANT_TYPE)
}

fn jwt_type() -> utoipa::openapi::Object {
    only(identity::exchange::TOKEN_TYPE_JWT)
}

fn access_token_type() -> utoipa::openapi::Object {
    only(identity::exchange::TOKEN_TYPE_ACCESS_TOKEN)
}

fn bearer() -> utoipa::openapi::Object {
    only("Bearer")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use identity::exchange::{ErrorCode, OAuthError, Response};
    use serde_json::{Value, json};

    use super::*;

    fn schemas() -> Value {
        serde_json::from_str::<Value>(&document().unwrap()).unwrap()["components"]["schemas"].clone()
    }

    fn names(list: &Value) -> BTreeSet<String> {
        list.as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()).collect()
    }

    fn members(sent: &impl Serialize) -> BTreeSet<String> {
        serde_json::to_value(sent).unwrap().as_object().unwrap().keys().cloned().collect()
    }

    #[test]
    fn what_is_described_is_what_is_sent() {
        let schemas = schemas();
        assert_eq!(names(&schemas["TokenAnswer"]["required"]), members(&Response::new("t".into(), 1, "r".into())));
        assert_eq!(names(&schemas["Refusal"]["required"]), members(&OAuthError::new(ErrorCode::ServerError, "x")));
        assert_eq!(names(&schemas["AuthorizationServer"]["required"]), members(&AuthorizationServer::of("u")));
        let codes = [
            ErrorCode::InvalidRequest,
            ErrorCode::InvalidTarget,
            ErrorCode::InvalidScope,
            ErrorCode::UnsupportedGrantType,
            ErrorCode::TemporarilyUnavailable,
            ErrorCode::ServerError,
        ];
        assert_eq!(names(&schemas["RefusalCode"]["enum"]), codes.iter().map(|code| code.label().to_owned()).collect());
        let required = json!(["grant_type", "subject_token", "subject_token_type", "audience"]);
        assert_eq!(schemas["TokenRequest"]["required"], required);
    }

    #[test]
    fn every_route_is_described() {
        let document: Value = serde_json::from_str(&document().unwrap()).unwrap();
        let paths: Vec<&str> = document["paths"].as_object().unwrap().keys().map(String::as_str).collect();
        let expected = [
            "/.well-known/oauth-authorization-server",
            "/.well-known/openid-configuration",
            "/certificates",
            "/healthz",
            "/jwks",
            "/metrics",
            "/openapi.json",
            "/readyz",
            "/token",
            "/trust-bundle",
        ];
        assert_eq!(paths, expected);
    }
}
