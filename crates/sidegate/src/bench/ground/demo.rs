//! A demo as what is measured: service-a to postgres-a, where it may write, or to postgres-b, which it reads.
//!
//! The tables are made on PostgreSQL's own socket, as its superuser, and taken away at the end. Nothing else of the demo
//! is changed but the two settings, which are put back.

use std::fs;
use std::path::Path;

use anyhow::Context;
use serde_json::Value;
use tokio_postgres::{Config, NoTls};

use super::metrics::{Metrics, Usage};
use super::own::OwnDemo;
use super::settings::Switch;
use crate::bench::Cancel;
use crate::bench::client::{self, Address, Target};
use crate::bench::plan::Protocol;
use crate::bench::statements;

const APP: &str = "service-a";
/// Of no role: that leaves the choice to the one role granted.
const LOGIN: &str = "app";
/// PostgreSQL's logins behind the roles that service-a is granted, and where nothing is verified.
const WRITER: &str = "app_writer";
const READER: &str = "app_reader";
const UNVERIFIED: &str = "app_legacy";

/// Whether it is the login of sessions that showed no token.
pub fn is_unverified(login: &str) -> bool {
    login == UNVERIFIED
}

/// A running demo, with the benchmark's tables.
pub struct DemoGround {
    native: Config,
    http: Address,
    direct: Config,
    superuser: tokio_postgres::Client,
    version: String,
    database: String,
    rows: u32,
    sign: Switch,
    verify: Switch,
    outbound: Metrics,
    inbound: Metrics,
    own: Option<OwnDemo>,
}

impl DemoGround {
    /// A demo of the benchmark's own.
    ///
    /// # Errors
    /// When it cannot be had.
    pub async fn start(database: &str, rows: u32, cancel: &Cancel) -> anyhow::Result<Self> {
        let (own, ready) = OwnDemo::start(cancel).await?;
        match Self::prepare(&ready, database, rows).await {
            Ok(ground) => Ok(Self { own: Some(own), ..ground }),
            Err(error) => {
                own.end().await?;
                Err(error)
            }
        }
    }

    /// A demo that runs already, by its ready file.
    ///
    /// # Errors
    /// When there is none, or it cannot be reached.
    pub async fn attach(ready_file: &Path, database: &str, rows: u32) -> anyhow::Result<Self> {
        let text =
            fs::read(ready_file).with_context(|| format!("cannot read {}: is the demo up?", ready_file.display()))?;
        let ready = serde_json::from_slice(&text).with_context(|| format!("{}", ready_file.display()))?;
        Self::prepare(&ready, database, rows).await
    }

    async fn prepare(ready: &Value, database: &str, rows: u32) -> anyhow::Result<Self> {
        let text = |pointer: String| {
            let found = ready.pointer(&pointer).and_then(Value::as_str);
            found.with_context(|| format!("the ready file has no {pointer}: it is of another version"))
        };
        let metrics = |name: &str| Metrics::at(text(format!("/metrics/{name}"))?);
        let switch =
            |name: &str, key: &str| Switch::at(Path::new(text(format!("/settings/{name}"))?), key, metrics(name)?);
        let mut native = client::parse_dsn(text(format!("/outbound/{APP}/{database}"))?)?;
        let mut direct = Config::new();
        direct.host_path(text(format!("/postgres/{database}/socket_dir"))?);
        direct.dbname(native.get_dbname().unwrap_or_default()).application_name("sidegate bench");
        let superuser = superuser(&direct, text(format!("/postgres/{database}/admin"))?).await?;
        let version = superuser.query_one("show server_version", &[]).await?.try_get(0)?;
        make_tables(&superuser, rows).await.context("cannot make the tables of the benchmark")?;
        native.user(LOGIN);
        direct.user(if database == "postgres-b" { READER } else { WRITER });
        Ok(Self {
            http: Address::parse(text(format!("/http/{APP}/{database}"))?)?,
            sign: switch(APP, "SIGN_AUTH_ENABLED")?,
            verify: switch(database, "VERIFY_AUTH_ENABLED")?,
            outbound: metrics(APP)?,
            inbound: metrics(database)?,
            own: None,
            database: database.to_owned(),
            native,
            direct,
            superuser,
            version,
            rows,
        })
    }

    /// Through both sidecars.
    pub fn pair(&self, protocol: Protocol) -> Target {
        match protocol {
            Protocol::Native => Target::Native(Box::new(self.native.clone())),
            Protocol::Http => Target::Http(self.http.clone()),
        }
    }

    /// To PostgreSQL itself, on the socket that the inbound sidecar uses, as the login that it uses.
    pub fn direct(&self) -> Target {
        Target::Native(Box::new(self.direct.clone()))
    }

    /// Rows of the large table.
    pub fn rows(&self) -> u32 {
        self.rows
    }

    /// Turn both switches.
    ///
    /// # Errors
    /// When one of them has no effect.
    pub async fn switch(&self, sign: bool, verify: bool) -> anyhow::Result<()> {
        self.sign.turn(sign).await?;
        self.verify.turn(verify).await
    }

    /// Throws away what was written.
    ///
    /// # Errors
    /// When PostgreSQL cannot be asked.
    pub async fn empty_log(&self) -> anyhow::Result<()> {
        Ok(self.superuser.batch_execute(&format!("truncate {}.log", statements::SCHEMA)).await?)
    }

    /// How many rows were written.
    ///
    /// # Errors
    /// When PostgreSQL cannot be asked.
    pub async fn logged(&self) -> anyhow::Result<u64> {
        let count = format!("select count(*) from {}.log", statements::SCHEMA);
        let count: i64 = self.superuser.query_one(&count, &[]).await?.try_get(0)?;
        Ok(u64::try_from(count)?)
    }

    /// What the sidecars have taken so far, outbound and inbound.
    pub async fn usage(&self) -> Option<[Usage; 2]> {
        Some([self.outbound.usage().await?, self.inbound.usage().await?])
    }

    /// What a reader of the results must know of it.
    pub fn describe(&self) -> Vec<String> {
        let (version, database) = (&self.version, &self.database);
        let whose = if self.own.is_some() { "a demo of its own" } else { "a demo that ran already" };
        vec![
            format!("{whose}: {APP} to {database}, PostgreSQL {version} with fsync off, {} rows in the large table", self.rows),
            "pair: app, TCP, sidecar, mutual TLS, sidecar, Unix socket, PostgreSQL; direct: app, Unix socket, PostgreSQL"
                .into(),
        ]
    }

    /// Takes the tables away, puts the settings back and ends the demo, if it is the benchmark's own.
    ///
    /// # Errors
    /// What could not be put back.
    pub async fn end(self) -> anyhow::Result<()> {
        let Self { own, superuser, sign, verify, .. } = self;
        let restored = sign.restore().and(verify.restore());
        match own {
            Some(own) => own.end().await,
            None => restored
                .and(superuser.batch_execute(&statements::removal()).await.context("the tables cannot be taken away")),
        }
    }
}

async fn superuser(direct: &Config, name: &str) -> anyhow::Result<tokio_postgres::Client> {
    let connected = direct.clone().user(name).connect(NoTls).await;
    let (client, connection) =
        connected.context("cannot reach the demo's PostgreSQL by its socket, which only its user and root may")?;
    // What ends the connection is told by the requests that fail of it.
    tokio::spawn(async move { drop(connection.await) });
    Ok(client)
}

async fn make_tables(superuser: &tokio_postgres::Client, rows: u32) -> anyhow::Result<()> {
    let grants = [READER, WRITER, UNVERIFIED].into_iter().flat_map(statements::grants);
    for statement in statements::preparation(rows).into_iter().chain(grants) {
        superuser.batch_execute(&statement).await.with_context(|| statement.clone())?;
    }
    Ok(())
}
