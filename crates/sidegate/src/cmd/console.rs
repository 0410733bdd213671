//! `sidegate console`: serves the web console until SIGTERM or SIGINT, then lets the answers under way finish.
//!
//! Deliberately absent: what its pages do (`control::console`).

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use control::console::{self, Config};
use runtime::drain::Drain;

use super::life::Signals;

/// A page takes milliseconds; what is not done after this will not be.
const DRAIN_LIMIT: Duration = Duration::from_secs(5);

/// Arguments of `sidegate console`.
#[derive(Args)]
#[command(after_help = "\
The console listens on loopback only. On one machine it writes a one-time link to sign in to the file that its configuration names; each
link signs one browser in, and another one is written then. In a cluster people come by kubectl port-forward and sign in with a token of
their own, with whose rights all is done. docs/CONSOLE.md has the pages, docs/CONFIGURATION.md the file.")]
pub struct ConsoleArgs {
    /// The configuration file (YAML)
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// What to log: error, warn, info, debug, trace, or a filter like info,control=debug
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    log_level: String,
}

/// Serves until it is told to end.
pub fn run(args: ConsoleArgs) -> anyhow::Result<ExitCode> {
    runtime::tls::install_crypto_provider();
    runtime::log::init(runtime::log::Format::Auto, &args.log_level)?;
    let config = Config::load(&args.config).with_context(|| format!("in {}", args.config.display()))?;
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(serve(config))?;
    Ok(ExitCode::SUCCESS)
}

async fn serve(config: Config) -> anyhow::Result<()> {
    let (drain, watch) = Drain::new();
    let mut signals = Signals::new()?;
    tokio::select! {
        served = console::serve(config, watch) => served?,
        () = signals.end(&drain, Duration::ZERO, DRAIN_LIMIT) => {}
    }
    Ok(())
}
