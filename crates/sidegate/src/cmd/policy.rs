//! `sidegate policy`: placeholder until its crate arrives.

use std::process::ExitCode;

use clap::Args;

/// Arguments of `sidegate policy`.
#[derive(Args)]
pub struct PolicyArgs {
    /// What to ask.
    #[arg(trailing_var_arg = true)]
    rest: Vec<String>,
}

/// Answer a question about policy.
pub fn run(args: PolicyArgs) -> anyhow::Result<ExitCode> {
    anyhow::bail!("policy {}: not built yet", args.rest.join(" "))
}
