//! May they: SQL text becomes facts, facts and a role become a verdict; an HTTP request likewise. Pure.
//!
//! The way through: [`sql::analyze`] turns a text into [`Facts`], every (action, object) it needs;
//! [`decide`] holds them against a [`Role`] and answers with a [`Verdict`]. Only `decide` and its two
//! sisters make a [`Permit`], so whoever asks for one knows that it was decided.
//! [`http`] does the same for a method and a path, with a verdict and a permit of its own.
//! Absent on purpose: sockets, clocks, randomness, and any look at the database: what a text means
//! is told from the text alone, and what cannot be told is denied.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

mod decide;
mod detail;
pub mod documents;
pub mod explain;
mod facts;
pub mod grants;
pub mod http;
mod least;
pub mod lint;
pub mod record;
pub mod replay;
mod role;
pub mod snapshot;
pub mod sql;
pub mod suggest;

pub use decide::{Denial, FUNCTION_CALL, Permit, Verdict, decide, decide_function_call, decide_setting, opened_by};
pub use facts::{Action, Fact, Facts, Object, Opens};
pub use role::{Level, Role, RoleError};
pub use sql::{NotUnderstood, analyze};
