//! The subcommands, one file each: `Args` for clap and `run`.

pub mod bench;
pub mod check;
pub mod console;
pub mod demo;
pub mod guard;
pub mod inject;
pub mod injector;
pub mod install;
pub mod inventory;
pub mod issuer;
pub mod life;
pub mod openapi;
pub mod policy;
pub mod sidecar;
pub mod token;
