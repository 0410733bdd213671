//! What people are told when something did not work.
//!
//! Deliberately absent: conflicts and documents that do not compile, which have pages of their own.

use std::error::Error;
use std::io;

use axum::http::StatusCode;
use axum::response::Response;

use super::page::{Frame, message};
use super::platform::WriteError;

/// The page for an error, with the status that fits it.
pub(super) fn failed(frame: &Frame, error: &(dyn Error + 'static), back: &str) -> Response {
    let line = match error.downcast_ref::<WriteError>() {
        Some(WriteError::Unrecorded) => frame.t("refuse-record").to_owned(),
        Some(WriteError::DoneUnrecorded) => frame.t("done-unrecorded").to_owned(),
        _ => error.to_string(),
    };
    let io = |error: &io::Error| match error.kind() {
        io::ErrorKind::PermissionDenied => StatusCode::FORBIDDEN,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    let status = match error.downcast_ref::<WriteError>() {
        Some(WriteError::Refused(_) | WriteError::Partly { .. }) => StatusCode::FORBIDDEN,
        Some(WriteError::Missing) => StatusCode::NOT_FOUND,
        Some(WriteError::Io(error)) => io(error),
        _ => error.downcast_ref().map_or(StatusCode::INTERNAL_SERVER_ERROR, io),
    };
    message(frame, status, frame.t("failed"), &[line], back)
}
