//! `GET /settings`: the settings that a process goes by now, so that whoever changed them sees it take them up.
//!
//! They are switches and no secret. Absent on purpose: changing them, which is done where they are kept.

use std::sync::Arc;

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::settings::{Settings, Verify};

/// The settings in force, as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InForce {
    /// The service whose settings they are, `namespace/name`.
    pub service: String,
    /// The version of the process.
    pub version: String,
    /// Whether outbound listeners attach tokens.
    pub sign: bool,
    /// `true`, `observe` or `false`, as the setting is written.
    pub verify: String,
    /// Tokens issued before this time (seconds since the epoch) are void.
    pub tokens_not_before: Option<i64>,
    /// Rises by one with each change that had an effect on this process.
    pub generation: u64,
}

impl InForce {
    fn new(service: String, now: &Settings) -> Self {
        let verify = match now.verify {
            Verify::Enforce => "true",
            Verify::Observe => "observe",
            Verify::Off => "false",
        };
        Self {
            service,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            sign: now.sign,
            verify: verify.to_owned(),
            tokens_not_before: now.tokens_not_before,
            generation: now.generation,
        }
    }
}

/// The route. `service` is `namespace/name`.
pub fn router(service: String, settings: watch::Receiver<Arc<Settings>>) -> Router {
    Router::new().route("/settings", get(show)).with_state((service, settings))
}

async fn show(State((service, settings)): State<(String, watch::Receiver<Arc<Settings>>)>) -> Json<InForce> {
    let now = settings.borrow().clone();
    Json(InForce::new(service, &now))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_shown_as_they_are_written() {
        let shown = |verify| {
            let settings = Settings { verify, sign: false, tokens_not_before: Some(5), generation: 3 };
            InForce::new("ns/name".to_owned(), &settings)
        };
        let all = [Verify::Enforce, Verify::Observe, Verify::Off].map(|verify| shown(verify).verify);
        assert_eq!(all, ["true", "observe", "false"]);
        let text = serde_json::to_string(&shown(Verify::Off)).unwrap();
        let rest = r#","sign":false,"verify":"false","tokens_not_before":5,"generation":3}"#;
        assert!(text.starts_with(r#"{"service":"ns/name","version":""#) && text.ends_with(rest), "{text}");
    }
}
