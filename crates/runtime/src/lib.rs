//! What every server of Sidegate needs and nothing of what any one of them does: listening, draining, TLS,
//! settings and documents that change while we run, metrics, logs, and a client for issuers.
//!
//! Absent on purpose: identity, policy, and any protocol that we serve. This crate depends on nothing of ours.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

pub mod admin;
pub mod clock;
pub mod decision_log;
pub mod discovery;
pub mod documents;
pub mod drain;
mod follow;
pub mod http_client;
pub mod http_server;
pub mod kubernetes;
pub mod listen;
pub mod log;
pub mod metrics;
pub mod secret;
pub mod settings;
pub mod tls;
pub mod traces;
