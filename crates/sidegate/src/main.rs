//! The `sidegate` binary: parses the command line and dispatches. One file a subcommand, in `cmd/`.
//! What a subcommand does lives in the library crates; only the demo and the benchmark live here.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod bench;
mod cmd;

/// Who may run which statement on which database, decided by who the caller is.
#[derive(Parser)]
#[command(name = "sidegate", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start everything on this machine and print what to try.
    Demo(cmd::demo::DemoArgs),
    /// Run the issuer: service-account tokens in, short-lived access tokens out (RFC 8693).
    Issuer(cmd::issuer::IssuerArgs),
    /// Run a sidecar: sign outbound connections, verify and authorize inbound ones.
    Sidecar(cmd::sidecar::SidecarArgs),
    /// Add the sidecar to the workloads of manifests that ask for it.
    Inject(cmd::inject::InjectArgs),
    /// Take the sidecar out of manifests again.
    Uninject(cmd::inject::UninjectArgs),
    /// Run the webhook that adds the sidecar to pods as they are made.
    Injector(cmd::injector::InjectorArgs),
    /// Ask what a role may do.
    Policy(cmd::policy::PolicyArgs),
    /// Get an access token, for scripts and clients without a sidecar; or explain one.
    Token(cmd::token::TokenArgs),
    /// Print what a Kubernetes cluster needs, for `kubectl apply -f -`.
    Install(cmd::install::InstallArgs),
    /// Say whether an installation in Kubernetes works and protects, and what to do where it does not.
    Check(cmd::check::CheckArgs),
    /// Measure what authorization costs, on a demo of its own or any other target.
    Bench(cmd::bench::BenchArgs),
    /// Run the web console: see what every sidecar does, and steer it.
    Console(cmd::console::ConsoleArgs),
    /// Print the OpenAPI document of what Sidegate serves.
    Openapi(cmd::openapi::OpenapiArgs),
    /// Hold one child process of the demo and end it when the demo is gone.
    #[command(hide = true)]
    Guard(cmd::guard::GuardArgs),
    /// Be the demo's HTTP service.
    #[command(hide = true)]
    Inventory(cmd::inventory::InventoryArgs),
}

fn main() -> ExitCode {
    match dispatch(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("sidegate: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Demo(args) => cmd::demo::run(args),
        Command::Issuer(args) => cmd::issuer::run(args),
        Command::Sidecar(args) => cmd::sidecar::run(args),
        Command::Inject(args) => cmd::inject::run(args),
        Command::Uninject(args) => cmd::inject::run_uninject(args),
        Command::Injector(args) => cmd::injector::run(args),
        Command::Policy(args) => cmd::policy::run(args),
        Command::Token(args) => cmd::token::run(args),
        Command::Install(args) => cmd::install::run(args),
        Command::Check(args) => cmd::check::run(args),
        Command::Bench(args) => cmd::bench::run(args),
        Command::Console(args) => cmd::console::run(args),
        Command::Openapi(args) => cmd::openapi::run(&args),
        Command::Guard(args) => cmd::guard::run(args),
        Command::Inventory(args) => cmd::inventory::run(args),
    }
}
