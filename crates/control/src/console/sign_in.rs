//! Signing in by the one-time link, signing out, and the choice of a language.
//!
//! The link leads to a page with a button: a browser that looks ahead, or a chat that shows a preview, uses up nothing.

use std::sync::Arc;
use std::time::Instant;

use askama::Template;
use axum::extract::{Form, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use super::page::{Frame, html, message, see_other};
use super::session::SignInError;
use super::words::{self, Language};
use super::{Console, Posted};

#[derive(Deserialize)]
pub(super) struct Key {
    #[serde(default)]
    key: String,
}

#[derive(Template)]
#[template(path = "console/sign_in.html")]
struct Page<'a> {
    frame: &'a Frame,
    key: &'a str,
    link_file: &'a str,
}

pub(super) async fn show(
    State(console): State<Arc<Console>>,
    frame: Frame,
    Query(Key { key }): Query<Key>,
) -> Response {
    let link_file = console.config.link_file.display().to_string();
    html(StatusCode::OK, &Page { frame: &frame, key: &key, link_file: &link_file })
}

pub(super) async fn enter(State(console): State<Arc<Console>>, frame: Frame, Form(Key { key }): Form<Key>) -> Response {
    match console.sessions.sign_in(&key, Instant::now()) {
        Ok(cookie) => ([(header::SET_COOKIE, cookie)], see_other("/")).into_response(),
        Err(error) => {
            tracing::warn!(%error, "somebody did not get in");
            let status = match error {
                SignInError::TooMany => StatusCode::TOO_MANY_REQUESTS,
                SignInError::Random => StatusCode::SERVICE_UNAVAILABLE,
                SignInError::Link => StatusCode::FORBIDDEN,
            };
            message(
                &frame,
                status,
                frame.t("failed"),
                &[error.to_string(), frame.t("sign-in-how").to_owned()],
                "/sign-in",
            )
        }
    }
}

pub(super) async fn leave(State(console): State<Arc<Console>>, headers: HeaderMap, _posted: Posted) -> Response {
    ([(header::SET_COOKIE, console.sessions.sign_out(&headers))], see_other("/sign-in")).into_response()
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
