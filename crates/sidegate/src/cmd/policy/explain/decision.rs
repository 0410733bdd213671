//! `sidegate policy explain --decision`: one decision that was made, from a log or from a sidecar that still has it.

use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;
use policy::explain::{DecisionExplanation, explain_decision};
use policy::record::{Line, Record};
use policy::snapshot::Snapshot;
use runtime::http_client::HttpClient;

use super::super::{DENIED, bad_input, log};

/// Where a decision is looked for.
#[derive(Args)]
pub struct DecisionArgs {
    /// Explain a decision that was made, by the id that the client's error and the log say. With --roles-dir, the
    /// directory of the documents in force, the role is shown as it would be with the missing rules.
    #[arg(long, value_name = "ID", conflicts_with_all = ["role", "sql", "http", "stdin"])]
    pub decision: Option<String>,
    /// Decision logs to look for it in; `-` is standard input.
    #[arg(long = "log", value_name = "FILE", requires = "decision", num_args = 1..)]
    logs: Vec<PathBuf>,
    /// The admin address of the sidecar that decided, from its own machine or through `kubectl port-forward`: it has its
    /// last decisions.
    #[arg(long, value_name = "URL", requires = "decision", conflicts_with = "logs")]
    sidecar: Option<String>,
}

/// Answers.
///
/// # Errors
/// Standard output that cannot be written to.
pub fn run(id: &str, args: &DecisionArgs, documents: Option<&Snapshot>, json: bool) -> anyhow::Result<ExitCode> {
    let found = match &args.sidecar {
        Some(url) => ask(url, id),
        None => look(&args.logs, id),
    };
    let record = match found {
        Ok(record) => record,
        Err(error) => return bad_input(&error),
    };
    let explained = explain_decision(&record, documents);
    let text = if json { serde_json::to_string(&explained)? + "\n" } else { told(&explained)? };
    log::print(&text)?;
    Ok(if record.is_allowed() { ExitCode::SUCCESS } else { ExitCode::from(DENIED) })
}

fn look(logs: &[PathBuf], id: &str) -> anyhow::Result<Record> {
    if logs.is_empty() {
        bail!("where is the decision to be looked for? Say --log FILE, or --sidecar URL");
    }
    let mut found = None;
    let mut read = 0_u64;
    let aside = log::records(logs, |record| {
        read += 1;
        if record.decision == id {
            found = Some(record);
        }
        Ok(())
    })?;
    found.with_context(|| {
        let files: Vec<_> = logs.iter().map(|file| file.display().to_string()).collect();
        format!(
            "no decision {id} among the {read} of {} ({} were lost)\n  to do: see that these are the logs of the sidecar beside \
             the service that was called, and name older files (FILE.1 …), too",
            files.join(", "),
            aside.lost
        )
    })
}

fn ask(url: &str, id: &str) -> anyhow::Result<Record> {
    if !id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
        bail!("{id:?} is no decision's id: it is made of hexadecimal digits and '-'");
    }
    let url = format!("{}/decisions?decision={id}", url.trim_end_matches('/'));
    let client = HttpClient::new(None)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let answer = runtime.block_on(client.get(&url));
    let answer =
        answer.map_err(|error| anyhow::anyhow!("{error}\n  to do: see that this is the sidecar's admin address"))?;
    let said = String::from_utf8_lossy(&answer.body);
    match answer.status {
        200 => {}
        404 if said.contains("decision") => bail!(
            "the sidecar does not have the decision {id} (any more)\n  to do: look in its log, with --log FILE, or ask the \
             sidecar beside the service that was called"
        ),
        status => bail!("{url} answered with status {status}: {}", printable(said.trim())),
    }
    let line = said.lines().next().unwrap_or_default();
    match Line::read(line.as_bytes()).with_context(|| format!("{url} answered what is no decision"))? {
        Line::Record(record) => Ok(*record),
        _ => bail!("{url} answered what is no decision that this version knows"),
    }
}

fn told(explained: &DecisionExplanation<'_>) -> Result<String, std::fmt::Error> {
    let record = explained.record;
    let mut text = String::new();
    let mut say = |label: &str, said: Option<&str>| match said {
        Some(said) => writeln!(text, "{label:<9} {}", printable(said)),
        None => Ok(()),
    };
    say("decision", Some(&record.decision))?;
    say("time", Some(&record.time))?;
    say("subject", Some(record.subject.as_deref().unwrap_or("not known: no token, and no certificate")))?;
    say("acts for", record.act.as_deref())?;
    say("service", Some(&record.service))?;
    say("database", record.database.as_deref())?;
    say("role", Some(record.role.as_deref().unwrap_or("none")))?;
    say("login", record.user.as_deref())?;
    say("mode", Some(&record.mode))?;
    say("verdict", Some(verdict(explained)))?;
    say("reason", Some(&record.reason))?;
    if record.is_allowed() {
        say("rule", record.rule.as_deref())?;
    }
    needs(&mut text, explained)?;
    if let Some(remedy) = &explained.remedy {
        writeln!(text, "\nWhat would allow it: {}", printable(&remedy.what))?;
        let rules = if remedy.yaml.is_some() { &[][..] } else { &remedy.rules };
        rules.iter().try_for_each(|rule| writeln!(text, "  - {}", printable(rule)))?;
        if let Some(yaml) = &remedy.yaml {
            writeln!(text, "\n{yaml}")?;
        }
    }
    Ok(text)
}

fn verdict(explained: &DecisionExplanation<'_>) -> &'static str {
    match (explained.record.is_allowed(), explained.enforced) {
        (true, _) => "allow",
        (false, true) => "deny",
        (false, false) => "deny, but nothing was enforced: it ran",
    }
}

fn needs(text: &mut String, explained: &DecisionExplanation<'_>) -> std::fmt::Result {
    let record = explained.record;
    match (&record.objects, explained.facts.as_slice()) {
        (None, _) => writeln!(text, "{:<9} cannot be told", "needs"),
        (_, []) if record.is_login() => writeln!(text, "{:<9} to log in", "needs"),
        (_, []) => writeln!(text, "{:<9} nothing that is not everyone's", "needs"),
        (_, facts) => {
            for (index, fact) in facts.iter().enumerate() {
                let label = if index == 0 { "needs" } else { "" };
                let allowed = if fact.allowed { "allowed" } else { "denied " };
                writeln!(text, "{label:<9} {allowed} {} {}", fact.action, printable(&fact.object))?;
            }
            match record.objects_omitted {
                0 => Ok(()),
                more => writeln!(text, "{:<9} and {more} more that are not recorded", ""),
            }
        }
    }
}

/// Others' words, fit for a terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{FFFD}' } else { c }).collect()
}
