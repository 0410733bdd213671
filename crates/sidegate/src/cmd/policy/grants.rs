//! `sidegate policy grants`: PostgreSQL's own rights as the policy has them, to be applied or compared.
//!
//! What the rights are, as SQL and against a server's, is `policy::grants`'; here are files, the server (`held`), printing and
//! exit status.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;
use identity::ServiceName;
use policy::Level;
use policy::grants::{Difference, Login, is_compared, logins, script};
use policy::snapshot::Snapshot;
use serde::Serialize;

use super::{DENIED, bad_input, database, documents, log, service};

mod held;

/// Arguments of `sidegate policy grants`.
#[derive(Args)]
pub struct GrantsArgs {
    /// The service whose logins they are, as NAMESPACE/NAME, or NAME alone where both are the same.
    #[arg(long, value_name = "SERVICE", value_parser = service)]
    service: ServiceName,
    /// The directory with the YAML documents of AccessRoles and AccessGrants.
    #[arg(long, value_name = "DIR")]
    roles_dir: PathBuf,
    /// The logins of the built-in roles, as the sidecar's configuration has them under postgres.users:
    /// reader=app_reader,writer=app_writer.
    #[arg(long, value_name = "ROLE=LOGIN,…", value_delimiter = ',', value_parser = user)]
    users: Vec<(Level, String)>,
    /// Take those logins from this configuration of the service's sidecar.
    #[arg(long, value_name = "FILE", conflicts_with = "users")]
    config: Option<PathBuf>,
    /// Instead of statements, show where this database's rights and the policy disagree. It is only read: a URL like
    /// postgresql://127.0.0.1:6432/shop, or `host=/run/postgresql dbname=shop`.
    #[arg(long, requires = "database")]
    diff: bool,
    /// The database to compare with.
    #[arg(long, value_name = "DSN", requires = "diff")]
    database: Option<String>,
    /// Answer as JSON, one difference a line.
    #[arg(long, requires = "diff")]
    json: bool,
}

fn user(text: &str) -> Result<(Level, String), String> {
    let pair = text.split_once('=').filter(|(_, login)| !login.is_empty());
    let (role, login) = pair.ok_or("want ROLE=LOGIN, like reader=app_reader")?;
    let names = Level::ALL.map(Level::name).join(", ");
    let level = Level::ALL.into_iter().find(|level| level.name() == role);
    Ok((level.ok_or_else(|| format!("`{role}` is no built-in role: there are {names}"))?, login.to_owned()))
}

/// Answers.
///
/// # Errors
/// Standard output that cannot be written to.
pub fn run(args: GrantsArgs) -> anyhow::Result<ExitCode> {
    let (text, agrees) = match answer(&args) {
        Ok(answer) => answer,
        Err(error) => return bad_input(&error),
    };
    log::print(&text)?;
    Ok(if agrees { ExitCode::SUCCESS } else { ExitCode::from(DENIED) })
}

fn answer(args: &GrantsArgs) -> anyhow::Result<(String, bool)> {
    let snapshot = documents::read(Some(&args.roles_dir))?;
    let logins = all_logins(args, &snapshot)?;
    let Some(dsn) = &args.database else { return Ok((script(&args.service, &logins), true)) };
    let compared: Vec<&Login> = logins.iter().filter(|login| is_compared(login)).collect();
    let found = database::look(dsn, async |client| held::differences(&client, &compared).await)?;
    let text = if args.json { as_json(&found)? } else { as_text(&found, &logins) };
    Ok((text, found.is_empty()))
}

fn all_logins(args: &GrantsArgs, snapshot: &Snapshot) -> anyhow::Result<Vec<Login>> {
    let users = match &args.config {
        Some(file) => configured(file, &args.service)?,
        None => unambiguous(&args.users)?,
    };
    let logins = logins(snapshot, &args.service, &users)?;
    if logins.is_empty() {
        bail!(
            "no AccessRole of {} opens a database, and no login of a built-in role is given: --config FILE or --users ROLE=LOGIN",
            args.service
        );
    }
    Ok(logins)
}

fn unambiguous(users: &[(Level, String)]) -> anyhow::Result<BTreeMap<Level, String>> {
    let map: BTreeMap<Level, String> = users.iter().cloned().collect();
    if map.len() < users.len() {
        bail!("--users: a role is named twice");
    }
    Ok(map)
}

fn configured(file: &Path, service: &ServiceName) -> anyhow::Result<BTreeMap<Level, String>> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let config = sidecar::Config::parse(&text)
        .with_context(|| format!("{} is not a valid sidecar configuration", file.display()))?;
    if config.service != *service {
        bail!("{} is of the sidecar of {}, not of {service}", file.display(), config.service);
    }
    let level = |role: &str| Level::ALL.into_iter().find(|level| level.name() == role);
    let users = config.postgres.users.iter();
    users.map(|(role, login)| Ok((level(role).with_context(|| format!("no role {role}"))?, login.clone()))).collect()
}

fn as_json(found: &[Found]) -> anyhow::Result<String> {
    let lines = found.iter().map(|one| Ok(serde_json::to_string(one)? + "\n"));
    lines.collect()
}

/// A difference and where it is.
#[derive(Serialize)]
struct Found {
    database: String,
    #[serde(flatten)]
    difference: Difference,
}

fn as_text(found: &[Found], logins: &[Login]) -> String {
    let mut text = String::new();
    for Found { database, difference: Difference { login, way, privilege, object, why } } in found {
        let may = if *way == "more" { "PostgreSQL alone lets it" } else { "the policy alone lets it" };
        let what = [privilege.as_str(), object.as_str()].join(" ");
        let what = if object == login { "be" } else { what.trim() };
        let _ = writeln!(text, "{login} in {database}: {may} {what}: {why}");
    }
    for login in logins {
        if let Some(level) = login.beyond() {
            let _ = writeln!(text, "{}: not compared, as what {level} may do is not a matter of GRANT", login.name);
        }
    }
    let _ = writeln!(text, "differences: {}", found.len());
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_understood_or_told() {
        assert_eq!(user("reader=app_reader").unwrap(), (Level::Reader, "app_reader".to_owned()));
        assert!(user("root=x").unwrap_err().contains("there are reader, writer, owner, admin"));
        assert!(user("reader=").is_err() && user("reader").is_err());
        assert!(unambiguous(&[(Level::Reader, "a".to_owned()), (Level::Reader, "b".to_owned())]).is_err());
    }
}
