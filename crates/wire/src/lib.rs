//! PostgreSQL's frontend/backend protocol 3.0 to 3.2, without I/O: bytes to messages to session state.
//!
//! Deliberately absent: sockets, clocks, randomness, and any opinion on what a statement may do. Whoever reads bytes
//! hands them in; what comes out says what to forward, what to ask the policy about, and what to say to the client.
//!
//! The specification is the chapter "Frontend/Backend Protocol" of PostgreSQL's manual; RFC 7628 for `OAUTHBEARER`.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

pub mod backend;
pub mod error;
pub mod frame;
pub mod frontend;
pub mod renewal;
pub mod sasl;
pub mod session;
pub mod startup;

pub use error::{ErrorFields, Severity, WireError};
