//! `sidegate sidecar`: runs a sidecar until it is told to end, and then lets its sessions finish.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use runtime::drain::Drain;
use runtime::traces::Options;

use super::life::{Signals, Told};

/// Time for the decision log to be written out at the end.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// Arguments of `sidegate sidecar`.
#[derive(Args)]
#[command(after_help = "The configuration names the service, its issuer and any number of inbound and outbound \
                        listeners; docs/CONFIGURATION.md shows every field. Decisions are written to standard output, \
                        one JSON object a line; everything else goes to standard error. Traces go where \
                        OTEL_EXPORTER_OTLP_ENDPOINT (a collector's HTTP port) or the configuration says.\n\n\
                        SIGTERM or SIGINT: /readyz turns to 503 at once; for `drain.delay` seconds connections are still \
                        taken; then sessions end between statements, with SQLSTATE 57P01, for at most `drain.timeout` \
                        seconds. A second signal ends it at once.")]
pub struct SidecarArgs {
    /// The configuration file (YAML)
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Check the configuration and end
    #[arg(long)]
    check: bool,
    /// Let each line of the decision log seal those before it, for `sidegate policy verify-log`; the same as
    /// `decision_log: {chain: true}`
    #[arg(long)]
    audit_chain: bool,
    /// How much to log: error, warn, info, debug or trace
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    log: String,
}

/// Runs the sidecar until SIGTERM or SIGINT.
pub fn run(args: SidecarArgs) -> anyhow::Result<ExitCode> {
    let mut config = read(&args.config)?;
    config.decision_log.chain |= args.audit_chain;
    if args.check {
        println!("{}: ok", args.config.display());
        return Ok(ExitCode::SUCCESS);
    }
    runtime::log::init(runtime::log::Format::Auto, &args.log)?;
    config.traces = traces(config.traces.take());
    // One thread: what costs is system calls, and waking another core for them costs more than it gives.
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(serve(config))
}

fn read(file: &Path) -> anyhow::Result<sidecar::Config> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    sidecar::Config::parse(&text).with_context(|| format!("{} is not a valid sidecar configuration", file.display()))
}

/// Traces are an extra: variables that make no sense switch them off, and keep nobody from serving.
fn traces(configured: Option<Options>) -> Option<Options> {
    let read = Options::from_variables(configured, |name| std::env::var(name).ok());
    read.unwrap_or_else(|error| {
        tracing::warn!(%error, "there are no traces");
        None
    })
}

async fn serve(config: sidecar::Config) -> anyhow::Result<ExitCode> {
    let (drain, watch) = Drain::new();
    let mut signals = Signals::new()?;
    let times = config.drain.clone();
    let serving = sidecar::serve(config, watch);
    tokio::pin!(serving);
    let told = tokio::select! {
        // It serves until told, so an end before that is its failure to start.
        ended = &mut serving => return ended.map(|_| ExitCode::SUCCESS).map_err(Into::into),
        told = signals.start(&drain, times.delay) => told,
    };
    let finished = async {
        let decisions = serving.await?;
        if let Err(open) = drain.finished(times.timeout).await {
            tracing::warn!(%open, "ending all the same");
        }
        Ok::<_, sidecar::ServeError>(decisions)
    };
    if told == Told::Twice {
        return Ok(at_once());
    }
    let decisions = tokio::select! {
        finished = finished => finished?,
        () = signals.received() => return Ok(at_once()),
    };
    decisions.send_spans(FLUSH_TIMEOUT).await;
    if !decisions.flush(FLUSH_TIMEOUT) {
        tracing::warn!("the decision log could not be written out");
    }
    Ok(ExitCode::SUCCESS)
}

/// Whoever asks twice does not want to wait.
fn at_once() -> ExitCode {
    tracing::warn!("told to end again: sessions under way break off");
    ExitCode::SUCCESS
}
