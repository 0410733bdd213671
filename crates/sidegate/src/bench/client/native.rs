//! By PostgreSQL's own protocol, with tokio-postgres.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use tokio::task::JoinHandle;
use tokio_postgres::config::Host;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Config, NoTls, SimpleQueryMessage, Statement};

use super::Refused;
use crate::bench::plan::Class;
use crate::bench::statements::{Parameter, Script};

/// SQLSTATEs of who may not log in (class 28, invalid authorization).
const INVALID_AUTHORIZATION: &str = "28";
/// A server that does not close its side is left to itself.
const CLOSE_LIMIT: Duration = Duration::from_secs(2);

/// A session.
pub struct Native {
    client: tokio_postgres::Client,
    /// Reads and writes for the client; ends with it.
    driver: JoinHandle<()>,
    /// One a class, made when it is first needed.
    prepared: [Option<Statement>; 3],
}

impl Native {
    pub(super) async fn connect(config: &Config) -> anyhow::Result<Self> {
        let (client, connection) = config.connect(NoTls).await.map_err(explain)?;
        // What ends the connection is told by the requests that fail of it.
        let driver = tokio::spawn(async move { drop(connection.await) });
        Ok(Self { client, driver, prepared: [const { None }; 3] })
    }

    pub(super) async fn request(&mut self, script: Script, class: Class, index: u32) -> anyhow::Result<Duration> {
        let (taken, rows) = match script.literal(class, index) {
            Some(text) => self.simple(&text).await?,
            None => self.extended(class, &script.parameters(class, index)).await?,
        };
        let expected = script.expected_rows(class);
        ensure!(rows == expected, "{rows} rows came of {}, not {expected}", Script::prepared(class));
        Ok(taken)
    }

    pub(super) async fn login_name(&mut self) -> anyhow::Result<String> {
        let row = self.client.query_one("select current_user::text", &[]).await.map_err(explain)?;
        Ok(row.try_get(0)?)
    }

    pub(super) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    pub(super) async fn close(self) {
        drop(self.client);
        let _ = tokio::time::timeout(CLOSE_LIMIT, self.driver).await;
    }

    async fn simple(&self, text: &str) -> anyhow::Result<(Duration, u64)> {
        let begun = Instant::now();
        let messages = self.client.simple_query(text).await.map_err(explain)?;
        let taken = begun.elapsed();
        let rows = messages.iter().find_map(|message| match message {
            SimpleQueryMessage::CommandComplete(rows) => Some(*rows),
            _ => None,
        });
        Ok((taken, rows.context("an answer without an end")?))
    }

    async fn extended(&mut self, class: Class, parameters: &[Parameter]) -> anyhow::Result<(Duration, u64)> {
        let statement = self.statement(class).await?;
        let parameters: Vec<&(dyn ToSql + Sync)> = parameters.iter().map(to_sql).collect();
        let begun = Instant::now();
        let rows = match class {
            Class::Write => self.client.execute(&statement, &parameters).await.map_err(explain)?,
            Class::Read | Class::Heavy => {
                let rows = self.client.query(&statement, &parameters).await.map_err(explain)?;
                u64::try_from(rows.len())?
            }
        };
        Ok((begun.elapsed(), rows))
    }

    async fn statement(&mut self, class: Class) -> anyhow::Result<Statement> {
        let [write, read, heavy] = &mut self.prepared;
        let place = match class {
            Class::Write => write,
            Class::Read => read,
            Class::Heavy => heavy,
        };
        if let Some(statement) = place {
            return Ok(statement.clone());
        }
        let statement = self.client.prepare(Script::prepared(class)).await.map_err(explain)?;
        Ok(place.insert(statement).clone())
    }
}

fn to_sql(parameter: &Parameter) -> &(dyn ToSql + Sync) {
    match parameter {
        Parameter::Text(text) => text,
        Parameter::Integer(number) => number,
    }
}

/// In PostgreSQL's words, where there are any: the library's own are "db error".
fn explain(error: tokio_postgres::Error) -> anyhow::Error {
    match error.as_db_error() {
        Some(said) if said.code().code().starts_with(INVALID_AUTHORIZATION) => {
            Refused(said.message().to_owned()).into()
        }
        Some(said) => anyhow::anyhow!("{} ({})", said.message(), said.code().code()),
        None => error.into(),
    }
}

/// A DSN as tokio-postgres takes it, a URL or keywords.
///
/// # Errors
/// When it is none, or asks for TLS.
pub fn parse(dsn: &str) -> anyhow::Result<Config> {
    // The text may hold a password and is not said again.
    let mut config: Config =
        dsn.parse().context("--native takes a DSN like postgresql://user@127.0.0.1:5432/database")?;
    if config.get_ssl_mode() == tokio_postgres::config::SslMode::Require {
        bail!("--native speaks no TLS of its own: give the address of a sidecar, or of a server on this machine");
    }
    config.application_name("sidegate bench");
    Ok(config)
}

pub(super) fn describe(config: &Config, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_str("postgresql://")?;
    match config.get_hosts().first() {
        Some(Host::Tcp(host)) => f.write_str(host)?,
        Some(Host::Unix(path)) => write!(f, "{}", path.display())?,
        None => {}
    }
    if let Some(port) = config.get_ports().first() {
        write!(f, ":{port}")?;
    }
    write!(f, "/{}", config.get_dbname().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::client::Target;

    #[test]
    fn a_target_is_described_without_its_password() {
        let config = parse("postgresql://app:hunter2@127.0.0.1:6432/shop").unwrap();
        assert_eq!(Target::Native(Box::new(config)).to_string(), "postgresql://127.0.0.1:6432/shop");
        let error = format!("{:#}", parse("postgresql://app:hunter2@127.0.0.1:x/shop").unwrap_err());
        assert!(error.contains("--native") && !error.contains("hunter2"), "{error}");
        assert!(parse("postgresql://127.0.0.1/shop?sslmode=require").is_err());
    }
}
