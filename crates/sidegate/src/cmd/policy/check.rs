//! `sidegate policy check`: documents that are broken, or right and hardly meant.
//!
//! What is looked for is `policy::lint`'s; here are files, the database's catalogue, printing and exit status.

use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;
use identity::ServiceName;
use policy::lint::{Catalogue, Finding, Login, Severity, lint, lint_database};
use policy::snapshot::Snapshot;
use serde::Serialize;
use tokio_postgres::Client;

use super::{DENIED, bad_input, database, documents, log, service};

/// Arguments of `sidegate policy check`.
#[derive(Args)]
pub struct CheckArgs {
    /// The directory with the YAML documents of AccessRoles and AccessGrants.
    #[arg(value_name = "DIR", required_unless_present = "roles_dir")]
    directory: Option<PathBuf>,
    /// The same.
    #[arg(long, value_name = "DIR", conflicts_with = "directory")]
    roles_dir: Option<PathBuf>,
    /// Look, too, whether this database has the tables, functions and logins that the documents name. It is only read:
    /// a URL like postgresql://127.0.0.1:6432/shop, or `host=/run/postgresql dbname=shop`.
    #[arg(long, value_name = "DSN")]
    database: Option<String>,
    /// The service whose database that is, as NAMESPACE/NAME, or NAME alone where both are the same; not needed where the
    /// documents speak of one only.
    #[arg(long, requires = "database", value_name = "SERVICE", value_parser = service)]
    service: Option<ServiceName>,
    /// Let warnings count as errors.
    #[arg(long)]
    strict: bool,
    /// Answer as JSON, one object a line.
    #[arg(long)]
    json: bool,
}

/// Answers.
///
/// # Errors
/// Standard output that cannot be written to.
pub fn run(args: CheckArgs) -> anyhow::Result<ExitCode> {
    let found = match find(&args) {
        Ok(found) => found,
        Err(error) => return bad_input(&error),
    };
    let text = if args.json { as_json(&found)? } else { as_text(&found) };
    log::print(&text)?;
    let least = if args.strict { Severity::Warning } else { Severity::Error };
    let fails = found.iter().any(|finding| finding.severity >= least);
    Ok(if fails { ExitCode::from(DENIED) } else { ExitCode::SUCCESS })
}

fn find(args: &CheckArgs) -> anyhow::Result<Vec<Finding>> {
    let directory = args.directory.as_ref().or(args.roles_dir.as_ref()).context("which directory?")?;
    let sources = documents::sources(directory)?;
    if sources.is_empty() {
        bail!("{}: no *.yaml, *.yml or *.json in it", directory.display());
    }
    let snapshot = match Snapshot::compile(&sources) {
        Ok(snapshot) => snapshot,
        Err(errors) => return Ok(errors.into_iter().map(broken).collect()),
    };
    let mut found = lint(&snapshot);
    if let Some(dsn) = &args.database {
        let service = its_service(&snapshot, args.service.as_ref())?;
        let catalogue = database::look(dsn, |client| async move { read(&client).await })?;
        found.extend(lint_database(&snapshot, &service, &catalogue));
    }
    Ok(found)
}

fn broken(error: policy::snapshot::DocumentError) -> Finding {
    Finding { place: error.place, severity: Severity::Error, code: "document", what: error.what }
}

/// The service whose database is looked at.
fn its_service(snapshot: &Snapshot, named: Option<&ServiceName>) -> anyhow::Result<ServiceName> {
    if let Some(named) = named {
        let known = snapshot.knows(named);
        return known.then(|| named.clone()).with_context(|| format!("no document speaks of the service {named}"));
    }
    let mut with_database: Vec<&ServiceName> =
        snapshot.roles().filter(|role| role.postgres.is_some()).map(|role| &role.service).collect();
    with_database.sort();
    with_database.dedup();
    match with_database.as_slice() {
        [only] => Ok((*only).clone()),
        [] => bail!("no AccessRole opens a database, so there is nothing to look up in one"),
        several => {
            let names: Vec<String> = several.iter().map(ToString::to_string).collect();
            bail!(
                "the documents speak of several databases: say whose this is, --service {}",
                names.join(" or --service ")
            )
        }
    }
}

/// What there is, but for PostgreSQL's own.
async fn read(client: &Client) -> anyhow::Result<Catalogue> {
    const RELATIONS: &str = "select n.nspname || '.' || c.relname from pg_class c join pg_namespace n on n.oid = c.relnamespace \
                             where c.relkind in ('r', 'v', 'm', 'f', 'p', 'S') and n.nspname !~ '^pg_toast'";
    const FUNCTIONS: &str =
        "select distinct n.nspname || '.' || p.proname from pg_proc p join pg_namespace n on n.oid = p.pronamespace";
    const LOGINS: &str = "select r.rolname, r.rolcanlogin, r.rolsuper, r.rolbypassrls, \
                          (select min(c.oid::regclass::text) from pg_class c where c.relowner = r.oid and c.relkind in ('r', 'p') \
                          and c.relnamespace not in ('pg_catalog'::regnamespace, 'information_schema'::regnamespace)) \
                          from pg_roles r";
    let names = |rows: Vec<tokio_postgres::Row>| rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>();
    let database = client.query_one("select current_database()::text", &[]).await?.try_get(0)?;
    let mut logins = std::collections::BTreeMap::new();
    for row in client.query(LOGINS, &[]).await? {
        let login = Login {
            can_log_in: row.try_get(1)?,
            is_superuser: row.try_get(2)?,
            bypasses_rls: row.try_get(3)?,
            owns: row.try_get(4)?,
        };
        logins.insert(row.try_get(0)?, login);
    }
    Ok(Catalogue {
        database,
        relations: names(client.query(RELATIONS, &[]).await?)?,
        functions: names(client.query(FUNCTIONS, &[]).await?)?,
        logins,
    })
}

#[derive(Serialize)]
struct Line<'a> {
    path: &'a str,
    line: u64,
    column: u64,
    severity: Severity,
    code: &'a str,
    what: &'a str,
}

fn as_json(found: &[Finding]) -> anyhow::Result<String> {
    let mut text = String::new();
    for Finding { place, severity, code, what } in found {
        let line = Line { path: &place.path, line: place.line, column: place.column, severity: *severity, code, what };
        writeln!(text, "{}", serde_json::to_string(&line)?)?;
    }
    Ok(text)
}

fn as_text(found: &[Finding]) -> String {
    let lines: String = found.iter().map(|finding| format!("{finding}\n")).collect();
    let count = |severity| found.iter().filter(|finding| finding.severity == severity).count();
    let counts = [(Severity::Error, "errors"), (Severity::Warning, "warnings"), (Severity::Note, "notes")];
    let counts: Vec<String> = counts.iter().map(|(severity, word)| format!("{word}: {}", count(*severity))).collect();
    format!("{lines}{}\n", counts.join(", "))
}
