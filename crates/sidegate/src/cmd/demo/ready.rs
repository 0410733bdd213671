//! What is told when all is up: a JSON file for scripts, and lines to try for people.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::files;
use super::layout::Layout;
use super::ports::Ports;
use super::postgres::{DATABASE, PORT, SUPERUSER, Server};
use super::world::{self, APPS, DATABASES};

/// Addresses and directories of the running demo, in the shape that the ready file has.
pub fn description(layout: &Layout, ports: &Ports, servers: &[Server]) -> anyhow::Result<Value> {
    let each_outbound =
        |app: &str| object(DATABASES, |database| Ok(url(ports.get(&world::outbound(app, database))?).into()));
    let server = |server: &Server| json!({"socket_dir": path(&server.socket), "port": PORT, "admin": SUPERUSER});
    let postgres: Map<_, _> = DATABASES.iter().zip(servers).map(|(name, one)| ((*name).into(), server(one))).collect();
    Ok(json!({
        "issuer": world::issuer_url(ports)?,
        "dir": path(layout.dir()),
        "outbound": object(APPS, each_outbound)?,
        "inbound": object(DATABASES, |database| Ok(url(ports.get(&world::inbound(database))?).into()))?,
        "postgres": postgres,
        "settings": object(DATABASES.into_iter().chain(APPS), |service| Ok(path(&layout.settings(service))))?,
        "subject_tokens": object(APPS, |app| Ok(path(&layout.subject_token(app))))?,
    }))
}

/// Put the ready file in its place, whole.
pub fn write(file: &Path, description: &Value) -> anyhow::Result<()> {
    files::replace(file, format!("{description:#}\n").as_bytes(), files::PUBLIC)
}

/// The ready file, gone when the demo is: a stale one would send a script to ports that nobody serves.
pub struct ReadyFile(Option<PathBuf>);

impl ReadyFile {
    /// Remove what an earlier demo left, and see now, not when all is up, that it can be written.
    pub fn claim(file: Option<PathBuf>) -> anyhow::Result<Self> {
        let file = file.map(std::path::absolute).transpose()?;
        if let Some(parent) = file.as_deref().and_then(Path::parent) {
            files::directory(parent, 0o755)?;
        }
        let claimed = Self(file);
        claimed.remove();
        Ok(claimed)
    }

    pub fn path(&self) -> Option<&Path> {
        self.0.as_deref()
    }

    fn remove(&self) {
        if let Some(file) = &self.0 {
            let _ = std::fs::remove_file(file);
        }
    }
}

impl Drop for ReadyFile {
    fn drop(&mut self) {
        self.remove();
    }
}

/// One statement to try and the start of what psql then shows.
struct Try {
    app: &'static str,
    database: &'static str,
    sql: &'static str,
    shows: &'static str,
}

/// Allowed and denied, pair by pair. A test runs every line and holds it to what is promised.
const TRIES: [Try; 7] = [
    Try { app: "service-a", database: "postgres-b", sql: "select count(*) from customers", shows: "count" },
    Try {
        app: "service-a",
        database: "postgres-b",
        sql: "delete from orders",
        shows: "ERROR:  sidegate: reader may not delete orders",
    },
    Try {
        app: "service-a",
        database: "postgres-a",
        sql: "update orders set status = 'paid' where id = 1",
        shows: "UPDATE 1",
    },
    Try {
        app: "service-a",
        database: "postgres-a",
        sql: "truncate orders",
        shows: "ERROR:  sidegate: writer may not truncate orders",
    },
    Try {
        app: "service-b",
        database: "postgres-b",
        sql: "insert into orders (customer_id) values (1)",
        shows: "INSERT 0 1",
    },
    Try {
        app: "service-b",
        database: "postgres-b",
        sql: "select email from customers",
        shows: "ERROR:  sidegate: orders-writer may not select public.customers",
    },
    Try {
        app: "service-b",
        database: "postgres-a",
        sql: "select 1",
        shows: "FATAL:  sidegate: no token for this connection",
    },
];

/// As the documents say.
fn granted(pair: (&str, &str)) -> &'static str {
    match pair {
        ("service-a", "postgres-a") => "writer",
        ("service-a", "postgres-b") => "reader",
        ("service-b", "postgres-b") => "orders-writer, which may select and insert on two tables",
        _ => "no grant",
    }
}

/// Lines for people.
pub fn lines(layout: &Layout, ports: &Ports, psql: &str) -> anyhow::Result<String> {
    let mut text = String::from("\nSidegate is up. No password anywhere: each line logs in by who the service is.\n\n");
    let mut pair = ("", "");
    for one in &TRIES {
        let port = ports.get(&world::outbound(one.app, one.database))?;
        if pair != (one.app, one.database) {
            pair = (one.app, one.database);
            writeln!(text, "  # {} on {}: {}", one.app, one.database, granted(pair))?;
        }
        writeln!(text, "  {psql} {} -c \"{}\"", url(port), one.sql)?;
        writeln!(text, "      {}", one.shows)?;
    }
    let watched = layout.settings("postgres-b").join("VERIFY_AUTH_ENABLED");
    writeln!(text, "\n  record, but deny nothing  echo observe > {}", watched.display())?;
    writeln!(text, "  enforce again             echo true > {}", watched.display())?;
    writeln!(text, "  roles and grants          {}", layout.documents().display())?;
    writeln!(text, "  decisions                 {}", layout.decisions("postgres-b").display())?;
    writeln!(text, "  logs                      {}", layout.dir().join("logs").display())?;
    writeln!(text, "  issuer                    {}", world::issuer_url(ports)?)?;
    for service in DATABASES.into_iter().chain(APPS) {
        let label = format!("metrics of {service}");
        writeln!(text, "  {label:<25} http://127.0.0.1:{}/metrics", ports.get(&world::admin(service))?)?;
    }
    writeln!(text, "\nCtrl-C ends all of it.")?;
    Ok(text)
}

fn url(port: u16) -> String {
    format!("postgresql://127.0.0.1:{port}/{DATABASE}")
}

fn path(path: &Path) -> Value {
    path.to_string_lossy().into()
}

fn object<'a>(
    names: impl IntoIterator<Item = &'a str>,
    value: impl Fn(&str) -> anyhow::Result<Value>,
) -> anyhow::Result<Value> {
    names
        .into_iter()
        .map(|name| Ok((name.to_owned(), value(name)?)))
        .collect::<anyhow::Result<Map<_, _>>>()
        .map(Value::Object)
}
