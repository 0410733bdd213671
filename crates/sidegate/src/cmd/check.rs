//! `sidegate check`: whether a cluster can have an installation, or whether the one it has works and protects.
//!
//! What is checked is `control::check`'s; here are arguments, printing, waiting and exit status.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use control::check::{FetchError, Report, Scope, Style, check, check_before_install, fetch, fetch_preflight};
use runtime::kubernetes::Client;

/// Nothing can be asked: no kubeconfig, no API server.
const CANNOT_ASK: u8 = 2;

/// Time between two looks while waiting: pods take seconds, and a look is some dozens of requests.
const BETWEEN_LOOKS: Duration = Duration::from_secs(2);

/// Arguments of `sidegate check`.
#[derive(Args)]
#[command(
    after_help = "It reads and changes nothing. The cluster is the one of KUBECONFIG, or of ~/.kube/config. Every check \
                        has an id, which docs/KUBERNETES.md explains.\n\nExit status: 0 all is well or there are only \
                        warnings, 1 something failed, 2 something could not be asked."
)]
pub struct CheckArgs {
    /// Check a cluster before the installation
    #[arg(long, conflicts_with = "services")]
    pre: bool,
    /// The namespace of the issuer and the injector
    #[arg(short, long, default_value = "sidegate-system")]
    namespace: String,
    /// Check the pods of this service only; may be given several times
    #[arg(long = "service", value_name = "NAMESPACE/NAME", value_parser = service)]
    services: Vec<(String, String)>,
    /// How to print what was found
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
    /// Look again until all is well, for this long at most
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    wait: u64,
}

#[derive(Clone, Copy, ValueEnum)]
enum Output {
    Text,
    Json,
}

fn service(text: &str) -> Result<(String, String), String> {
    let name: identity::ServiceName =
        text.parse().map_err(|_| format!("{text:?} is no service like shop/postgres-a"))?;
    Ok((name.namespace, name.name))
}

/// Checks, and prints what was found.
///
/// # Errors
/// Standard output that cannot be written to.
pub fn run(args: CheckArgs) -> anyhow::Result<ExitCode> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(answer(args))
}

async fn answer(args: CheckArgs) -> anyhow::Result<ExitCode> {
    let client = match runtime::kubernetes::client().await {
        Ok(client) => client,
        Err(error) => return cannot_ask(&error),
    };
    match look_until_well(&client, &args).await {
        Ok(report) => {
            print(&report, args.output)?;
            Ok(ExitCode::from(report.exit_code()))
        }
        Err(error) => cannot_ask(&error),
    }
}

fn cannot_ask(error: &dyn std::error::Error) -> anyhow::Result<ExitCode> {
    eprintln!("sidegate: {error}");
    Ok(ExitCode::from(CANNOT_ASK))
}

async fn look_until_well(client: &Client, args: &CheckArgs) -> Result<Report, FetchError> {
    let started = Instant::now();
    loop {
        let looked = look(client, args).await;
        let is_well = looked.as_ref().is_ok_and(|report| report.exit_code() == 0);
        if is_well || started.elapsed() >= Duration::from_secs(args.wait) {
            return looked;
        }
        tokio::time::sleep(BETWEEN_LOOKS).await;
    }
}

async fn look(client: &Client, args: &CheckArgs) -> Result<Report, FetchError> {
    if args.pre {
        return Ok(check_before_install(&fetch_preflight(client, &args.namespace).await?));
    }
    let scope = Scope { system: args.namespace.clone(), services: args.services.clone() };
    Ok(check(&fetch(client, &scope, validate).await?))
}

/// As the sidecar itself reads it.
fn validate(configuration: &str) -> Result<(), String> {
    sidecar::Config::parse(configuration).map(drop).map_err(|error| error.to_string())
}

fn print(report: &Report, output: Output) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match output {
        Output::Json => {
            serde_json::to_writer_pretty(&mut out, report)?;
            writeln!(out)?;
        }
        Output::Text => {
            let style = if out.is_terminal() { Style::Coloured } else { Style::Plain };
            out.write_all(report.text(style).as_bytes())?;
        }
    }
    Ok(())
}
