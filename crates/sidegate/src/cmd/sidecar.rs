//! `sidegate sidecar`: placeholder until its crate arrives.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

/// Arguments of `sidegate sidecar`.
#[derive(Args)]
pub struct SidecarArgs {
    /// The configuration file (YAML).
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

/// Run the sidecar until it is told to end.
pub fn run(args: SidecarArgs) -> anyhow::Result<ExitCode> {
    anyhow::bail!("{}: the sidecar is not built yet", args.config.display())
}
