//! `sidegate policy replay`: what documents that are not in force would have changed.

use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use policy::replay::{Change, Count, Draft, Group, Replay, Totals};
use serde::Serialize;

use super::{DENIED, bad_input, documents, log};

/// Arguments of `sidegate policy replay`.
#[derive(Args)]
pub struct ReplayArgs {
    /// Decision logs, oldest first; `-` is standard input.
    #[arg(long = "log", value_name = "FILE", required = true, num_args = 1..)]
    logs: Vec<PathBuf>,
    /// The directory with the draft: YAML documents of AccessRoles and AccessGrants, all that would be in force.
    #[arg(long = "roles", alias = "roles-dir", value_name = "DIR")]
    roles: PathBuf,
    /// Answer as JSON: one object a line for each kind of change, and at the end {"totals": {…}}.
    #[arg(long)]
    json: bool,
}

/// Answers.
///
/// # Errors
/// Standard output that cannot be written to.
pub fn run(args: ReplayArgs) -> anyhow::Result<ExitCode> {
    let mut draft = match documents::read(Some(&args.roles)) {
        Ok(snapshot) => Draft::new(snapshot),
        Err(error) => return bad_input(&error),
    };
    let mut replay = Replay::default();
    let read = log::records(&args.logs, |record| {
        replay.add(&mut draft, &record);
        Ok(())
    });
    let aside = match read {
        Ok(aside) => aside,
        Err(error) => return bad_input(&error),
    };
    replay.add_unreadable(aside.unreadable);
    aside.tell();
    let text = if args.json { as_json(&replay, aside.lost)? } else { as_text(&replay, aside.lost) };
    log::print(&text)?;
    Ok(if replay.totals().newly_denied > 0 { ExitCode::from(DENIED) } else { ExitCode::SUCCESS })
}

#[derive(Serialize)]
struct GroupLine<'a> {
    #[serde(flatten)]
    group: &'a Group,
    #[serde(flatten)]
    count: &'a Count,
}

#[derive(Serialize)]
struct LastLine<'a> {
    totals: TotalsLine<'a>,
}

#[derive(Serialize)]
struct TotalsLine<'a> {
    #[serde(flatten)]
    totals: &'a Totals,
    lost: u64,
}

fn as_json(replay: &Replay, lost: u64) -> anyhow::Result<String> {
    let mut lines = String::new();
    for (group, count) in replay.groups() {
        writeln!(lines, "{}", serde_json::to_string(&GroupLine { group, count })?)?;
    }
    let last = LastLine { totals: TotalsLine { totals: replay.totals(), lost } };
    writeln!(lines, "{}", serde_json::to_string(&last)?)?;
    Ok(lines)
}

fn as_text(replay: &Replay, lost: u64) -> String {
    let mut text = String::new();
    for (change, title) in [
        (Change::NewlyDenied, "Newly denied:"),
        (Change::NewlyAllowed, "Newly allowed:"),
        (Change::StillDenied, "Denied then, and denied still:"),
    ] {
        let mut groups = replay.groups().filter(|(group, _)| group.change == change).peekable();
        if groups.peek().is_some() {
            text += title;
            text.push('\n');
            groups.for_each(|(group, count)| text += &group_line(group, count));
            text.push('\n');
        }
    }
    text + &totals(replay.totals(), lost)
}

fn group_line(group: &Group, count: &Count) -> String {
    let Group { service, subject, role, action, object, reason, .. } = group;
    let role = role.as_deref().unwrap_or("no role");
    let subject = if subject.is_empty() { "nobody known" } else { subject };
    let line = format!(
        "  {:>7}  {action} {object}  ({reason})  {subject} on {service} as {role}  e.g. {}",
        count.count, count.example
    );
    // Names are their callers' own, and this is a terminal.
    line.chars().map(|c| if c.is_control() { '\u{FFFD}' } else { c }).collect::<String>() + "\n"
}

fn totals(totals: &Totals, lost: u64) -> String {
    let unknown: u64 = totals.not_decided.values().sum();
    let mut text = format!(
        "{} decisions: {} allowed as before, {} newly denied, {} newly allowed, {} denied still, {unknown} not to be decided again\n",
        totals.decisions, totals.allowed, totals.newly_denied, totals.newly_allowed, totals.still_denied
    );
    for (why, count) in &totals.not_decided {
        text += &format!("  {count:>7}  not decided again: {why}\n");
    }
    if totals.ungrouped > 0 {
        text += &format!("  {:>7}  changes are counted but not listed: there are too many kinds\n", totals.ungrouped);
    }
    if lost > 0 {
        text += &format!("  {lost:>7}  decisions were lost before they came into the log\n");
    }
    text
}
