//! `sidegate issuer`: runs the issuer until SIGTERM or SIGINT, then lets the requests under way finish.
//!
//! Deliberately absent: what the issuer does (`control::issuer`).

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use control::issuer::{self, Config};
use runtime::drain::{Drain, DrainWatch};
use tokio::signal::unix::{SignalKind, signal};

/// An exchange takes milliseconds; what is not done after this will not be.
const DRAIN_LIMIT: Duration = Duration::from_secs(10);

/// Arguments of `sidegate issuer`.
#[derive(Args)]
pub struct IssuerArgs {
    /// The configuration file (YAML).
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// What to log: error, warn, info, debug, trace, or a filter like info,control=debug.
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    log_level: String,
}

/// Run the issuer until it is told to end.
pub fn run(args: IssuerArgs) -> anyhow::Result<ExitCode> {
    runtime::log::init(runtime::log::Format::Auto, &args.log_level)?;
    runtime::tls::install_crypto_provider();
    let config = Config::load(&args.config).with_context(|| format!("in {}", args.config.display()))?;
    let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    tokio.block_on(serve(config))?;
    Ok(ExitCode::SUCCESS)
}

async fn serve(config: Config) -> anyhow::Result<()> {
    let (drain, watch) = Drain::new();
    let end = end_requested()?;
    let cut = cut(watch.clone());
    tokio::select! {
        served = issuer::serve(config, watch) => served?,
        () = cut => tracing::warn!("requests were still under way at the end of the drain"),
        never = async { end.await; drain.start(); std::future::pending::<std::convert::Infallible>().await } => match never {},
    }
    Ok(())
}

/// A client that keeps a request open must not keep the process.
async fn cut(watch: DrainWatch) {
    watch.draining().await;
    tokio::time::sleep(DRAIN_LIMIT).await;
}

fn end_requested() -> anyhow::Result<impl Future<Output = ()>> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
