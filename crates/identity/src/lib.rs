//! Who is calling: unverified and verified tokens, key sets, and the rules of token exchange (RFC 8693).
//!
//! Pure: keys and the time are arguments, so everything here can be tested, and fuzzed, without a socket or a clock.
//! Deliberately absent: fetching keys, reading files, making tokens (that needs randomness: `control`), and policy.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

pub mod access;
pub mod certificate;
mod error;
pub mod exchange;
mod json;
pub mod jwks;
mod jws;
mod names;
pub mod subject;
mod time;

#[cfg(test)]
mod testing;

pub use error::TokenError;
pub use jws::{MAX_TOKEN_LENGTH, UnverifiedToken};
pub use names::{NameError, ServiceName, Subject};
pub use time::{LEEWAY_SECONDS, UnixTime};
