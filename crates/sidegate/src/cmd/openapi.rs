//! `sidegate openapi`: the OpenAPI documents of what Sidegate itself serves, generated from the code that serves it.

use std::io::Write;
use std::process::ExitCode;

use clap::{Args, Subcommand};

/// Arguments of `sidegate openapi`.
#[derive(Args)]
pub struct OpenapiArgs {
    #[command(subcommand)]
    of: Of,
}

#[derive(Subcommand)]
enum Of {
    /// The issuer: token exchange, key set, discovery.
    Issuer,
    /// A sidecar's `query` listener: SQL over HTTP.
    Query,
}

/// Print a document as JSON.
///
/// # Errors
/// Standard output that cannot be written to.
pub fn run(args: &OpenapiArgs) -> anyhow::Result<ExitCode> {
    let document = match args.of {
        Of::Issuer => control::issuer::openapi()?,
        Of::Query => sidecar::query_openapi()?,
    };
    writeln!(std::io::stdout().lock(), "{document}")?;
    Ok(ExitCode::SUCCESS)
}
