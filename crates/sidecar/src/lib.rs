//! The data plane: one process, any number of listeners.
//!
//! An *inbound* listener verifies who calls, decides every statement and forwards what is allowed. An *outbound*
//! listener signs: it logs in to the other side with a token of its own. Read `pg/` in the order of a connection's way:
//! `inbound`, `handshake`, `authenticate`, `upstream`, `session`, `authorize`, `forward`, `cancel`; `http/` has the same
//! stages. What both share stands beside them: `verify` (who calls), `login` (what they enter as), `standing` (whether
//! they may stay), `audit` (the record), `retry` (what is tried again); and for those who sign, `certificates`, `signer`, `tokens`, `exchange` (what is
//! shown) and `renewals` (what open sessions are shown later).
//!
//! Deliberately absent: policy documents and the issuing of tokens. All that this side knows of rights stands in the
//! token that a caller shows.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

mod analysis;
mod audit;
mod certificates;
pub mod config;
mod exchange;
mod http;
mod keys;
mod link;
mod login;
mod neighbours;
mod pg;
mod renewals;
mod retry;
mod serve;
mod signer;
mod standing;
#[cfg(test)]
mod testing;
mod tokens;
mod traces;
mod verify;

pub use config::Config;
pub use http::query::openapi as query_openapi;
pub use serve::{Decisions, ServeError, serve};
