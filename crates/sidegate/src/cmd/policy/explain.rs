//! `sidegate policy explain`: what a role may do, asked without a database; and why a decision was made.

use std::io::{BufRead, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use policy::explain::{Explanation, HttpExplanation, explain, explain_http, http_role, role};
use policy::snapshot::Snapshot;
use serde::{Deserialize, Serialize};

use super::{BAD_INPUT, DENIED, bad_input, documents};

mod decision;

/// Arguments of `sidegate policy explain`.
#[derive(Args)]
pub struct ExplainArgs {
    /// The role: reader, writer, owner, admin, or an AccessRole as NAME or NAMESPACE/NAME.
    #[arg(long, required_unless_present_any = ["stdin", "decision"])]
    role: Option<String>,
    /// The directory with the YAML documents of AccessRoles.
    #[arg(long, value_name = "DIR")]
    roles_dir: Option<PathBuf>,
    /// Answer as one JSON object: {"verdict", "facts": [{"action", "object"}], "reason"}; of a request
    /// {"verdict", "method", "path", "reason"}; of a decision its record, with {"enforced", "facts", "remedy"}.
    #[arg(long)]
    json: bool,
    /// Read one JSON object a line, {"role": R, "sql": S} or {"role": R, "http": "METHOD PATH"}, and answer one a line,
    /// in order.
    #[arg(long, conflicts_with_all = ["role", "sql", "http"])]
    stdin: bool,
    /// The HTTP request to explain, instead of a text: method, space, path.
    #[arg(long, value_name = "METHOD PATH", conflicts_with = "sql")]
    http: Option<String>,
    /// The text to explain, one or more statements.
    #[arg(required_unless_present_any = ["stdin", "http", "decision"])]
    sql: Option<String>,
    #[command(flatten)]
    decided: decision::DecisionArgs,
}

/// Answers.
///
/// # Errors
/// Standard output that cannot be written to.
pub fn run(args: ExplainArgs) -> anyhow::Result<ExitCode> {
    let snapshot = match documents::read(args.roles_dir.as_deref()) {
        Ok(snapshot) => snapshot,
        Err(error) => return bad_input(&error),
    };
    if let Some(id) = &args.decided.decision {
        let documents = args.roles_dir.is_some().then_some(&snapshot);
        return decision::run(id, &args.decided, documents, args.json);
    }
    if args.stdin {
        return answer_lines(&snapshot);
    }
    let name = args.role.unwrap_or_default();
    match ask(&snapshot, &name, args.sql.as_deref(), args.http.as_deref()) {
        Ok(explained) => answer(&name, &explained, args.json),
        Err(error) => bad_input(&error),
    }
}

/// Either kind of explanation, written as itself.
#[derive(Serialize)]
#[serde(untagged)]
enum Explained {
    Sql(Explanation),
    Http(HttpExplanation),
}

impl Explained {
    fn verdict(&self) -> &'static str {
        match self {
            Self::Sql(explanation) => explanation.verdict,
            Self::Http(explanation) => explanation.verdict,
        }
    }
}

/// Exactly one of a text and a request is explained.
fn ask(snapshot: &Snapshot, name: &str, sql: Option<&str>, http: Option<&str>) -> anyhow::Result<Explained> {
    match (sql, http) {
        (Some(sql), None) => Ok(Explained::Sql(explain(&role(snapshot, name)?, sql.as_bytes()))),
        (None, Some(request)) => {
            let (method, target) = request
                .split_once(' ')
                .with_context(|| format!("`{request}` is no request: want a method and a path, like `GET /metrics`"))?;
            Ok(Explained::Http(explain_http(http_role(snapshot, name)?, method, target)))
        }
        _ => anyhow::bail!("want either `sql` or `http`"),
    }
}

fn answer(role: &str, explained: &Explained, json: bool) -> anyhow::Result<ExitCode> {
    let mut out = std::io::stdout().lock();
    if json {
        serde_json::to_writer(&mut out, explained)?;
        writeln!(out)?;
    } else {
        match explained {
            Explained::Sql(explanation) => print(&mut out, role, explanation)?,
            Explained::Http(explanation) => print_http(&mut out, role, explanation)?,
        }
    }
    Ok(match explained.verdict() {
        "allow" => ExitCode::SUCCESS,
        _ => ExitCode::from(DENIED),
    })
}

fn print(out: &mut impl Write, role: &str, explanation: &Explanation) -> std::io::Result<()> {
    writeln!(out, "role     {role}")?;
    writeln!(out, "verdict  {}", explanation.verdict)?;
    match explanation.facts.as_slice() {
        [] => writeln!(out, "needs    nothing that is not everyone's")?,
        facts => {
            for (index, fact) in facts.iter().enumerate() {
                let label = if index == 0 { "needs  " } else { "       " };
                writeln!(out, "{label}  {} {}", fact.action, fact.object)?;
            }
        }
    }
    writeln!(out, "reason   {}", explanation.reason)?;
    print_words(out, [&explanation.message, &explanation.hint, &explanation.rule])
}

fn print_http(out: &mut impl Write, role: &str, explanation: &HttpExplanation) -> std::io::Result<()> {
    writeln!(out, "role     {role}")?;
    writeln!(out, "verdict  {}", explanation.verdict)?;
    let path = explanation.path.as_deref().unwrap_or("(a path that is refused)");
    writeln!(out, "needs    {} {path}", explanation.method)?;
    writeln!(out, "reason   {}", explanation.reason)?;
    print_words(out, [&explanation.message, &explanation.hint, &explanation.rule])
}

/// Message, hint and rule, those that are there.
fn print_words(out: &mut impl Write, words: [&Option<String>; 3]) -> std::io::Result<()> {
    for (label, text) in ["message", "hint   ", "rule   "].into_iter().zip(words) {
        if let Some(text) = text {
            writeln!(out, "{label}  {text}")?;
        }
    }
    Ok(())
}

/// A line of `--stdin`. Other fields are the asker's own: the corpus' cases can be asked as they are.
#[derive(Deserialize)]
struct Asked {
    role: String,
    sql: Option<String>,
    http: Option<String>,
}

/// What a line that is no question gets: whoever reads only the verdict must not take it for leave.
#[derive(Serialize)]
struct Unanswered {
    verdict: &'static str,
    facts: [(); 0],
    reason: &'static str,
    error: String,
}

/// One answer a line, whatever the line; a bad one is answered too, and told by the exit status.
fn answer_lines(snapshot: &Snapshot) -> anyhow::Result<ExitCode> {
    let mut input = std::io::stdin().lock();
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let mut status = ExitCode::SUCCESS;
    let mut line = Vec::new();
    loop {
        line.clear();
        if input.read_until(b'\n', &mut line)? == 0 {
            break;
        }
        match answer_line(snapshot, &line) {
            Ok(explanation) => serde_json::to_writer(&mut out, &explanation)?,
            Err(error) => {
                status = ExitCode::from(BAD_INPUT);
                serde_json::to_writer(&mut out, &unanswered(&error))?;
            }
        }
        out.write_all(b"\n")?;
        // Whoever asks line by line waits for each answer.
        out.flush()?;
    }
    Ok(status)
}

fn unanswered(error: &anyhow::Error) -> Unanswered {
    Unanswered { verdict: "deny", facts: [], reason: "bad_input", error: format!("{error:#}") }
}

fn answer_line(snapshot: &Snapshot, line: &[u8]) -> anyhow::Result<Explained> {
    let asked: Asked = serde_json::from_slice(line).context("want {\"role\": R, \"sql\": S}")?;
    ask(snapshot, &asked.role, asked.sql.as_deref(), asked.http.as_deref())
}
