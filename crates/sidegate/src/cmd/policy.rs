//! `sidegate policy`: questions about what may be done and what was done. One file a question.
//!
//! The answers are the `policy` crate's; here are files, printing and exit status.

use std::process::ExitCode;

use clap::{Args, Subcommand};

mod documents;
mod explain;

/// It is denied, or would be.
const DENIED: u8 = 3;

/// The question cannot be answered: no such role, broken documents, bad arguments.
const BAD_INPUT: u8 = 2;

/// Arguments of `sidegate policy`.
#[derive(Args)]
pub struct PolicyArgs {
    #[command(subcommand)]
    question: Question,
}

#[derive(Subcommand)]
enum Question {
    /// Say what a statement or an HTTP request needs, whether a role may run it, and which rule would allow it.
    ///
    /// Exit status: 0 allowed, 3 denied, 2 bad input.
    Explain(explain::ExplainArgs),
}

/// Answer a question about policy.
///
/// # Errors
/// Standard output that cannot be written to.
pub fn run(args: PolicyArgs) -> anyhow::Result<ExitCode> {
    match args.question {
        Question::Explain(args) => explain::run(args),
    }
}

fn bad_input(error: &anyhow::Error) -> anyhow::Result<ExitCode> {
    eprintln!("sidegate: {error:#}");
    Ok(ExitCode::from(BAD_INPUT))
}
