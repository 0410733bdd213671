//! A database to be looked at: connected to with bounded times, and read only.
//!
//! Absent on purpose: TLS. Who is not on the same machine goes through an outbound sidecar, which has it.

use std::future::Future;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio_postgres::config::SslMode;
use tokio_postgres::{Client, Config, NoTls};

/// Time for a connection, unless the DSN says otherwise.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// What is set first: a look changes nothing, and ends. `search_path` is emptied so that names are shown with schemas.
const SETTINGS: &str =
    "set default_transaction_read_only = on; set statement_timeout = '30s'; set search_path = pg_catalog";

/// Connects to `dsn` and lets `look` read.
///
/// # Errors
/// A DSN that is none or asks for TLS, a server that cannot be reached, and what `look` says.
pub fn look<T, F: Future<Output = anyhow::Result<T>>>(dsn: &str, look: impl FnOnce(Client) -> F) -> anyhow::Result<T> {
    let config = config(dsn)?;
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let (client, connection) =
            config.connect(NoTls).await.with_context(|| format!("cannot connect to {}", place(&config)))?;
        let pumping = tokio::spawn(connection);
        client.batch_execute(SETTINGS).await.context("cannot prepare a session to read with")?;
        let seen = look(client).await;
        pumping.abort();
        seen
    })
}

fn config(dsn: &str) -> anyhow::Result<Config> {
    // The error's own text may repeat a part of the DSN, but never its password.
    let mut config: Config =
        dsn.parse().context("--database: want a URL like postgresql://127.0.0.1:6432/shop, or `host=… dbname=…`")?;
    if config.get_ssl_mode() == SslMode::Require {
        bail!("--database: no TLS here (sslmode=require): go through an outbound sidecar, or PostgreSQL's own socket");
    }
    config.ssl_mode(SslMode::Disable);
    if config.get_connect_timeout().is_none() {
        config.connect_timeout(CONNECT_TIMEOUT);
    }
    if config.get_password().is_none()
        && let Ok(password) = std::env::var("PGPASSWORD")
    {
        config.password(password);
    }
    config.application_name("sidegate policy");
    Ok(config)
}

/// Where it is, without who goes there.
fn place(config: &Config) -> String {
    let hosts: Vec<String> = config.get_hosts().iter().map(|host| format!("{host:?}")).collect();
    let ports: Vec<String> = config.get_ports().iter().map(ToString::to_string).collect();
    format!("{} port {}", hosts.join(", "), if ports.is_empty() { "5432".to_owned() } else { ports.join(", ") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dsn_is_understood_or_told() {
        let bad = |dsn: &str| config(dsn).unwrap_err().to_string();
        assert!(config("postgresql://127.0.0.1:6432/shop").is_ok());
        assert!(config("host=/run/postgresql dbname=shop user=postgres").is_ok());
        assert!(bad("nonsense").contains("want a URL"));
        assert!(bad("postgresql://h/db?sslmode=require").contains("outbound sidecar"));
        assert!(!format!("{:#}", config("postgresql://u:secret@h:x/db").unwrap_err()).contains("secret"));
    }
}
