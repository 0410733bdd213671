//! `sidegate policy suggest`: documents for the traffic that a decision log has seen.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use identity::ServiceName;
use policy::suggest::{Options, Suggestion};

use super::{bad_input, log};

/// Arguments of `sidegate policy suggest`.
#[derive(Args)]
pub struct SuggestArgs {
    /// Decision logs, oldest first; `-` is standard input.
    #[arg(long = "log", value_name = "FILE", required = true, num_args = 1..)]
    logs: Vec<PathBuf>,
    /// Only for this service.
    #[arg(long, value_name = "NAMESPACE/NAME")]
    service: Option<ServiceName>,
    /// PostgreSQL's login of all roles, instead of the logins seen.
    #[arg(long, value_name = "LOGIN")]
    user: Option<String>,
}

/// Prints the documents.
///
/// # Errors
/// Standard output that cannot be written to.
pub fn run(args: SuggestArgs) -> anyhow::Result<ExitCode> {
    if let Some(user) = args.user.as_deref().filter(|user| !policy::documents::is_identifier(user)) {
        return bad_input(&anyhow::anyhow!("--user {user:?} is no name in PostgreSQL: it has 1 to 63 bytes"));
    }
    let mut suggestion = Suggestion::new(Options { service: args.service, user: args.user });
    let read = log::records(&args.logs, |record| {
        suggestion.add(&record);
        Ok(())
    });
    let aside = match read {
        Ok(aside) => aside,
        Err(error) => return bad_input(&error),
    };
    suggestion.add_lost(aside.lost);
    suggestion.add_unreadable(aside.unreadable);
    aside.tell();
    log::print(&suggestion.to_yaml())?;
    Ok(ExitCode::SUCCESS)
}
