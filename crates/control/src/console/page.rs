//! What all pages have in common: who looks, in which language, and how an answer is made of a template.

use askama::Template;
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};

use super::session::Viewer;
use super::words::Language;

/// The pages in the order of the navigation: path and key of the name.
const PAGES: [(&str, &str); 5] = [
    ("/", "services"),
    ("/access", "access"),
    ("/decisions", "decisions"),
    ("/issuer", "issuer"),
    ("/benchmark", "benchmark"),
];

/// What every page is framed by.
#[derive(Debug, Clone)]
pub(super) struct Frame {
    pub(super) language: Language,
    /// None before signing in.
    pub(super) viewer: Option<Viewer>,
    /// The page of the navigation that this belongs to.
    pub(super) here: &'static str,
}

impl Frame {
    /// The text of a key.
    pub(super) fn t(&self, key: &str) -> &'static str {
        self.language.text(key)
    }

    pub(super) fn pages(&self) -> [(&'static str, &'static str); 5] {
        PAGES
    }

    /// The other language, as code and in its own words.
    pub(super) fn other(&self) -> (&'static str, &'static str) {
        match self.language {
            Language::English => ("ru", "Русский"),
            Language::Russian => ("en", "English"),
        }
    }

    /// What forms bring along; nothing before signing in.
    pub(super) fn csrf(&self) -> &str {
        self.viewer.as_ref().map_or("", |viewer| &viewer.csrf)
    }

    pub(super) fn who(&self) -> &str {
        self.viewer.as_ref().map_or("", |viewer| &viewer.who)
    }

    pub(super) fn at(mut self, here: &'static str) -> Self {
        self.here = here;
        self
    }
}

/// A page that says one thing.
#[derive(Template)]
#[template(path = "console/message.html")]
struct Message<'a> {
    frame: &'a Frame,
    title: &'a str,
    lines: &'a [String],
    back: &'a str,
}

/// An answer of a template; one that cannot be made is a defect, and told as such.
pub(super) fn html(status: StatusCode, template: &impl Template) -> Response {
    match template.render() {
        Ok(text) => (status, Html(text)).into_response(),
        Err(error) => {
            tracing::error!(%error, "a page cannot be made");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// A page that says why not, and leads back.
pub(super) fn message(frame: &Frame, status: StatusCode, title: &str, lines: &[String], back: &str) -> Response {
    html(status, &Message { frame, title, lines, back })
}

/// To another page, after something was done.
pub(super) fn see_other(path: &str) -> Response {
    (StatusCode::SEE_OTHER, [(header::LOCATION, path.to_owned())]).into_response()
}

/// A figure with as many digits as it is worth.
pub(super) fn figure(value: f64) -> String {
    // The sum of nothing is a zero below nothing.
    let value = value.abs();
    if value == 0.0 || value >= 100.0 { format!("{value:.0}") } else { format!("{value:.1}") }
}

/// A part of a path or a query, with everything escaped that is not plain.
pub(super) fn escaped(text: &str) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~".contains(byte);
    text.bytes().map(|byte| if plain(&byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}
