//! `sidegate demo`: everything on this machine, ready to try.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

/// Arguments of `sidegate demo`.
#[derive(Args)]
pub struct DemoArgs {
    /// Where the demo's state lies: keys, settings, documents, logs, data. Made if missing, used again if not.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Write addresses and directories to this file, as JSON, when all is up.
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
    /// Open nothing in a browser: for scripts and tests.
    #[arg(long)]
    no_open: bool,
}

/// Start all of it and wait until told to end.
pub fn run(args: DemoArgs) -> anyhow::Result<ExitCode> {
    anyhow::bail!("{:?} {:?} {}: the demo is not built yet", args.dir, args.ready_file, args.no_open)
}
