//! The API server itself: its version and its clock.

use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::header::DATE;
use axum::http::{HeaderMap, Request, Response};
use kube::Client;
use serde::Deserialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

use super::FetchError;
use crate::check::facts::{Asked, Cluster};

/// A pod's metrics are some ten kilobytes.
const ANSWER_MAX: usize = 4 << 20;
/// The proxy waits for a pod that is away for longer than somebody before a terminal does.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// An answer, whatever its status is.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) text: String,
    /// The clock of whoever answered less this machine's.
    pub(super) offset: Option<i64>,
}

/// What is at a path of the API server. Cancel safe.
pub(super) async fn get(client: &Client, path: &str) -> Asked<Answer> {
    let request = Request::get(path).body(kube::client::Body::empty()).map_err(|error| error.to_string())?;
    let asked = async {
        let response = client.send(request).await.map_err(|error| whole(&error))?;
        // As of when the head came: the body may take its time.
        let offset = offset(response.headers());
        let status = response.status().as_u16();
        Ok(Answer { status, text: text(response).await?, offset })
    };
    let late = |_| format!("no answer in {} s", ANSWER_TIMEOUT.as_secs());
    tokio::time::timeout(ANSWER_TIMEOUT, asked).await.map_err(late)?
}

/// An error with what is behind it: that a connection failed says little.
fn whole(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(behind) = source {
        let more = behind.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = behind.source();
    }
    text
}

async fn text(response: Response<kube::client::Body>) -> Asked<String> {
    let bytes = to_bytes(Body::new(response.into_body()), ANSWER_MAX).await.map_err(|error| error.to_string())?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn offset(headers: &HeaderMap) -> Option<i64> {
    let date = OffsetDateTime::parse(headers.get(DATE)?.to_str().ok()?, &Rfc2822).ok()?;
    Some(date.unix_timestamp().saturating_sub(runtime::clock::now()))
}

#[derive(Deserialize)]
struct Version {
    major: String,
    minor: String,
    #[serde(rename = "gitVersion")]
    git_version: String,
}

pub(super) async fn cluster(client: &Client) -> Result<Cluster, FetchError> {
    let answer = get(client, "/version").await.map_err(FetchError)?;
    if answer.status != 200 {
        return Err(FetchError(format!("its answer to /version is {}: {}", answer.status, answer.text.trim())));
    }
    Ok(Cluster { version: version(&answer.text), offset: answer.offset })
}

/// Some clusters write `29+` for the minor version.
fn version(text: &str) -> Asked<(u32, u32, String)> {
    let version: Version =
        serde_json::from_str(text).map_err(|error| format!("its version is not understood: {error}"))?;
    let number = |text: &str| text.trim_end_matches(|last: char| !last.is_ascii_digit()).parse::<u32>();
    match (number(&version.major), number(&version.minor)) {
        (Ok(major), Ok(minor)) => Ok((major, minor, version.git_version)),
        _ => Err(format!("its version is not understood: {}", version.git_version)),
    }
}
