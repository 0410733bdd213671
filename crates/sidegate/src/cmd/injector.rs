//! `sidegate injector`: runs the admission webhook until SIGTERM or SIGINT, then lets the answers under way finish.
//!
//! Deliberately absent: what it does to pods (`control::inject`).

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use control::injector::{self, Config};
use runtime::drain::Drain;

use super::life::Signals;

/// Longer would be taken for a mistake: pods are killed after 30 s.
const MAX_DELAY: u64 = 25;
/// An answer takes milliseconds; what is not done after this will not be.
const DRAIN_LIMIT: Duration = Duration::from_secs(5);

/// Arguments of `sidegate injector`.
#[derive(Args)]
#[command(after_help = "\
It is a part of what `sidegate install` sets up, and needs the objects and rights that come with it. Namespaces with the
label sidegate.dev/inject=enabled have their new pods pass through it; docs/KUBERNETES.md has the annotations by which a
pod asks for a sidecar.")]
pub struct InjectorArgs {
    /// The configuration file (YAML)
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// What to log: error, warn, info, debug, trace, or a filter like info,control=debug
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    log_level: String,
    /// After SIGTERM: how long pods are still taken, while /readyz says that none are welcome. The API server goes on asking
    /// until it has heard of that. A second signal ends it at once
    #[arg(long, value_name = "SECONDS", default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=MAX_DELAY))]
    drain_delay: u64,
}

/// Runs the webhook until it is told to end.
pub fn run(args: InjectorArgs) -> anyhow::Result<ExitCode> {
    runtime::tls::install_crypto_provider();
    runtime::log::init(runtime::log::Format::Auto, &args.log_level)?;
    let config = Config::load(&args.config).with_context(|| format!("in {}", args.config.display()))?;
    let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    tokio.block_on(serve(config, Duration::from_secs(args.drain_delay)))?;
    Ok(ExitCode::SUCCESS)
}

async fn serve(config: Config, delay: Duration) -> anyhow::Result<()> {
    let (drain, watch) = Drain::new();
    let mut signals = Signals::new()?;
    tokio::select! {
        served = injector::serve(config, watch) => served?,
        () = signals.end(&drain, delay, DRAIN_LIMIT) => tracing::warn!("answers may still have been under way at the end"),
    }
    Ok(())
}
