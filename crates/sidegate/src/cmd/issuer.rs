//! `sidegate issuer`: placeholder until its crate arrives.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

/// Arguments of `sidegate issuer`.
#[derive(Args)]
pub struct IssuerArgs {
    /// The configuration file (YAML).
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

/// Run the issuer until it is told to end.
pub fn run(args: IssuerArgs) -> anyhow::Result<ExitCode> {
    anyhow::bail!("{}: the issuer is not built yet", args.config.display())
}
