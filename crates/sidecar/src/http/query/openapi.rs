//! `POST /query` as an OpenAPI document.
//!
//! Deliberately absent: the issuer's own, which `control` has.

use serde_json::{Map, Value};
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::{Modify, OpenApi, ToSchema};

use super::super::problem::Members;
use super::answer::Field;

/// The document of what a `query` listener serves, as JSON.
///
/// # Errors
/// A document that cannot be written as JSON; tests see that it can.
pub fn document() -> Result<String, serde_json::Error> {
    Document::openapi().to_pretty_json()
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Sidegate: SQL over HTTP",
        description = "What an inbound `query` listener of the sidecar serves: SQL statements, decided by the roles \
                       of the caller's access token, run as the role's own database login. The shapes are those of \
                       the Neon serverless driver.",
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0"),
        contact()
    ),
    paths(query, openapi),
    components(schemas(IsolationLevel)),
    modifiers(&BearerToken)
)]
struct Document;

struct BearerToken;

impl Modify for BearerToken {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let mut scheme = Http::new(HttpAuthScheme::Bearer);
        scheme.bearer_format = Some("JWT".to_owned());
        scheme.description =
            Some("An access token of Sidegate's issuer, for this service (RFC 6750, RFC 9068).".into());
        document
            .components
            .get_or_insert_default()
            .security_schemes
            .insert("access_token".to_owned(), SecurityScheme::Http(scheme).into());
    }
}

/// One statement. Its text may be under `query` or `sql`.
#[derive(ToSchema)]
#[schema(example = json!({"query": "select $1::int as n", "params": [1]}))]
#[allow(dead_code, reason = "describes what `request` reads")]
struct Statement {
    /// One SQL statement; parameters are `$1`, `$2` …
    query: String,
    /// The parameters. Numbers and strings are read by PostgreSQL as the type that it finds for them; arrays become
    /// arrays, objects become JSON.
    #[schema(required = false)]
    params: Vec<Value>,
    /// Rows as arrays; else as the header field `Neon-Array-Mode` says.
    #[schema(rename = "arrayMode", required = false)]
    array_mode: Option<bool>,
}

/// Statements that run as one transaction.
#[derive(ToSchema)]
#[allow(dead_code, reason = "describes what `request` reads")]
struct Batch {
    queries: Vec<Statement>,
}

/// One statement, or several as one transaction.
#[derive(ToSchema)]
#[allow(dead_code, reason = "describes what `request` reads")]
#[serde(untagged)]
enum Request {
    Statement(Statement),
    Batch(Batch),
    Array(Vec<Statement>),
}

/// The result of a statement.
#[derive(ToSchema)]
#[allow(dead_code, reason = "describes what `answer` writes")]
#[schema(rename_all = "camelCase")]
struct QueryResult {
    /// The columns.
    fields: Vec<Field>,
    /// Whether rows are arrays.
    row_as_array: bool,
    /// The rows: objects by column name, or arrays of values.
    rows: Vec<Row>,
    /// The first word of PostgreSQL's command tag: `SELECT`, `INSERT`, `CREATE` …
    command: String,
    /// How many rows were read or changed.
    #[schema(required = true)]
    row_count: Option<u64>,
}

/// A row.
#[derive(ToSchema)]
#[allow(dead_code, reason = "describes what `answer` writes")]
#[serde(untagged)]
enum Row {
    Object(Map<String, Value>),
    Array(Vec<Value>),
}

/// The results of a batch, in the order of its statements.
#[derive(ToSchema)]
#[allow(dead_code, reason = "describes what `answer` writes")]
struct BatchResult {
    results: Vec<QueryResult>,
}

/// The result of one statement, or those of a batch.
#[derive(ToSchema)]
#[allow(dead_code, reason = "describes what `answer` writes")]
#[serde(untagged)]
enum Answer {
    Statement(QueryResult),
    Batch(BatchResult),
}

/// Run SQL
///
/// One statement, or a batch that runs as one transaction. All statements are decided before the first runs.
#[utoipa::path(
    post,
    path = "/query",
    params(
        ("role" = Option<String>, Query, description = "The role to run as, where several are granted."),
        ("database" = Option<String>, Query, description = "The database."),
        ("Neon-Connection-String" = Option<String>, Header, description = "`postgresql://role@host/database`: another \
         way to name the two."),
        ("Neon-Array-Mode" = Option<bool>, Header, description = "Rows as arrays of values."),
        ("Neon-Raw-Text-Output" = Option<bool>, Header, description = "All values as PostgreSQL writes them."),
        ("Neon-Batch-Isolation-Level" = Option<IsolationLevel>, Header, description = "Of a batch's transaction."),
        ("Neon-Batch-Read-Only" = Option<bool>, Header, description = "Whether a batch's transaction is read only."),
        ("Neon-Batch-Deferrable" = Option<bool>, Header, description = "Whether a batch's transaction is deferrable."),
    ),
    request_body = Request,
    responses(
        (status = 200, description = "The result.", body = Answer),
        (status = 400, description = "The request is malformed, or PostgreSQL refused the statement: `code` is its \
         SQLSTATE.", body = Members, content_type = "application/problem+json"),
        (status = 401, description = "No access token, or one that is not believed (RFC 6750).", body = Members,
         content_type = "application/problem+json"),
        (status = 403, description = "The role may not run it.", body = Members,
         content_type = "application/problem+json"),
        (status = 408, description = "The request did not arrive in time.", body = Members,
         content_type = "application/problem+json"),
        (status = 413, description = "The request is too large.", body = Members,
         content_type = "application/problem+json"),
        (status = 502, description = "PostgreSQL is not there, or broke off.", body = Members,
         content_type = "application/problem+json"),
        (status = 503, description = "No session of PostgreSQL's is free; try again.", body = Members,
         content_type = "application/problem+json"),
        (status = 504, description = "PostgreSQL did not answer.", body = Members,
         content_type = "application/problem+json"),
    ),
    security(("access_token" = []))
)]
#[allow(dead_code, reason = "describes `super::Querying::query`")]
fn query() {}

/// How much of other transactions a transaction sees.
#[derive(ToSchema)]
#[allow(dead_code, reason = "describes what `request` reads")]
enum IsolationLevel {
    ReadUncommitted,
    ReadCommitted,
    RepeatableRead,
    Serializable,
}

/// This document
#[utoipa::path(get, path = "/openapi.json", responses((status = 200, description = "The document.", body = Value)))]
#[allow(dead_code, reason = "describes `super::answer`")]
fn openapi() {}
