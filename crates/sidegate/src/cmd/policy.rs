//! `sidegate policy`: questions about what may be done and what was done. One file a question.
//!
//! The answers are the `policy` crate's; here are files, printing and exit status.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use identity::{NameError, ServiceName};

mod check;
mod database;
mod documents;
mod explain;
mod grants;
mod log;
mod replay;
mod suggest;
mod verify_log;

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
    /// Say what a statement or an HTTP request needs, whether a role may run it, and which rule would allow it; or, with
    /// --decision, why a decision was made and the YAML that would allow exactly this.
    ///
    /// Exit status: 0 allowed, 3 denied, 2 bad input.
    Explain(explain::ExplainArgs),
    /// Look for documents that are broken, and for those that are right but can hardly be meant: rules that never match,
    /// roles that nobody has, grants that open too much, names that the database does not have.
    ///
    /// Exit status: 0 no errors (with --strict: and no warnings), 3 otherwise, 2 something cannot be read.
    Check(check::CheckArgs),
    /// Print the CREATE ROLE, GRANT and REVOKE statements that make PostgreSQL's own rights match the policy: the second lock,
    /// behind the sidecar. Or, with --diff, show where a database and the policy disagree, and why.
    ///
    /// Exit status: 0 printed, or no difference, 3 they differ, 2 something cannot be read.
    Grants(grants::GrantsArgs),
    /// Print the least AccessRoles and AccessGrants that cover the traffic which decision logs have seen.
    ///
    /// One role for each service and subject, which covers all that the subject did there. Counts are comments; so is
    /// what cannot be covered. Record with VERIFY_AUTH_ENABLED=observe first: nothing is denied then, and all is seen.
    Suggest(suggest::SuggestArgs),
    /// Print what draft documents would have denied, or newly allowed, of what decision logs have recorded.
    ///
    /// Exit status: 0 nothing is newly denied, 3 something is, 2 bad input.
    Replay(replay::ReplayArgs),
    /// Check that no line of a decision log was changed, removed or inserted (`decision_log: {chain: true}`).
    ///
    /// A chain has no key. Whoever may write the files can write a whole new chain, cut off the end of the log, or
    /// remove its oldest files. To find that, keep the head that this prints elsewhere, and ask with --head whether a later
    /// log still contains it.
    ///
    /// Exit status: 0 intact, 3 broken, 2 unreadable or without a chain.
    VerifyLog(verify_log::VerifyArgs),
}

/// Answer a question about policy.
///
/// # Errors
/// Standard output that cannot be written to.
pub fn run(args: PolicyArgs) -> anyhow::Result<ExitCode> {
    match args.question {
        Question::Explain(args) => explain::run(args),
        Question::Check(args) => check::run(args),
        Question::Grants(args) => grants::run(args),
        Question::Suggest(args) => suggest::run(args),
        Question::Replay(args) => replay::run(args),
        Question::VerifyLog(args) => verify_log::run(args),
    }
}

/// A service as people name it: NAMESPACE/NAME, and NAME alone where both are the same.
fn service(text: &str) -> Result<ServiceName, String> {
    let whole = if text.contains('/') { text.to_owned() } else { format!("{text}/{text}") };
    whole.parse().map_err(|error: NameError| error.to_string())
}

fn bad_input(error: &anyhow::Error) -> anyhow::Result<ExitCode> {
    eprintln!("sidegate: {error:#}");
    Ok(ExitCode::from(BAD_INPUT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_alone_is_in_a_namespace_of_its_name() {
        assert_eq!(service("postgres-b").unwrap(), service("postgres-b/postgres-b").unwrap());
        assert!(service("A B").is_err() && service("").is_err() && service("a/b/c").is_err());
    }
}
