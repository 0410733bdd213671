//! The control plane: the issuer, which turns service-account tokens into access tokens, what brings Sidegate into a cluster, and
//! the console, by which people see and steer.
//!
//! Deliberately absent: anything of PostgreSQL's protocol or of the sidecars.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

pub mod check;
pub mod console;
pub mod crds;
pub mod inject;
pub mod injector;
pub mod install;
pub mod issuer;
