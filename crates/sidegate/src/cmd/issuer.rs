//! `sidegate issuer`: runs the issuer until SIGTERM or SIGINT, then goes on for as long as others need to hear of it, and
//! lets the requests under way finish; `rotate` gives its keys a successor.
//!
//! Deliberately absent: what the issuer does (`control::issuer`).

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Subcommand, ValueEnum};
use control::issuer::{self, Config, Rotation};
use runtime::drain::Drain;

use super::life::Signals;

/// An exchange takes milliseconds; what is not done after this will not be.
const DRAIN_LIMIT: Duration = Duration::from_secs(10);

/// An hour: longer than anybody caches where a service is.
const MAX_DELAY: u64 = 60 * 60;

/// Arguments of `sidegate issuer`.
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct IssuerArgs {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: Option<ServeArgs>,
}

#[derive(Args)]
struct ServeArgs {
    /// The configuration file (YAML).
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// What to log: error, warn, info, debug, trace, or a filter like info,control=debug.
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    log_level: String,
    /// After SIGTERM: how long requests are still taken, while /readyz says that none are welcome. A second signal ends
    /// it at once.
    #[arg(long, value_name = "SECONDS", default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=MAX_DELAY))]
    drain_delay: u64,
}

#[derive(Subcommand)]
enum Command {
    /// Give the keys a successor now, without waiting for their schedule.
    ///
    /// It is published at once and signs when everybody has had the time to fetch it; the old one stays published until
    /// all that it signed has ended. Issuers that share the keys, in a file or a Secret, follow within a second, and need no
    /// restart. While a successor waits already, nothing is done.
    Rotate(RotateArgs),
}

#[derive(Args)]
struct RotateArgs {
    /// The configuration file (YAML) of the issuer.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// What is to be rotated.
    #[arg(value_enum, default_value_t)]
    keys: Keys,
}

#[derive(Clone, Copy, Default, ValueEnum)]
enum Keys {
    /// What access tokens are signed with.
    #[default]
    SigningKeys,
    /// What the certificates of workloads are signed with.
    Authority,
}

/// Run the issuer until it is told to end, or rotate its keys.
pub fn run(args: IssuerArgs) -> anyhow::Result<ExitCode> {
    runtime::tls::install_crypto_provider();
    match (args.command, args.serve) {
        (Some(Command::Rotate(args)), _) => rotate(&args),
        (None, Some(args)) => run_server(&args),
        (None, None) => anyhow::bail!("give --config FILE"),
    }
}

fn run_server(args: &ServeArgs) -> anyhow::Result<ExitCode> {
    runtime::log::init(runtime::log::Format::Auto, &args.log_level)?;
    let config = load(&args.config)?;
    let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    tokio.block_on(serve(config, Duration::from_secs(args.drain_delay)))?;
    Ok(ExitCode::SUCCESS)
}

fn rotate(args: &RotateArgs) -> anyhow::Result<ExitCode> {
    let config = load(&args.config)?;
    let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let rotation = tokio.block_on(async {
        match args.keys {
            Keys::SigningKeys => issuer::rotate_signing_keys(&config).await,
            Keys::Authority => issuer::rotate_authority(&config).await,
        }
    })?;
    let seconds = |activation: i64| activation.saturating_sub(runtime::clock::now()).max(0);
    match rotation {
        Rotation::Done(at) => println!("rotated: the new key is published now and signs in {} s", seconds(at)),
        Rotation::Pending(at) => {
            println!("nothing done: a new key is published already and signs in {} s", seconds(at))
        }
        Rotation::NotDue => println!("nothing done: another issuer rotated just now"),
    }
    Ok(ExitCode::SUCCESS)
}

fn load(file: &Path) -> anyhow::Result<Config> {
    Config::load(file).with_context(|| format!("in {}", file.display()))
}

async fn serve(config: Config, delay: Duration) -> anyhow::Result<()> {
    let (drain, watch) = Drain::new();
    let mut signals = Signals::new()?;
    tokio::select! {
        served = issuer::serve(config, watch) => served?,
        () = signals.end(&drain, delay, DRAIN_LIMIT) => tracing::warn!("requests may still have been under way at the end"),
    }
    Ok(())
}
