//! What is told when all is up: a JSON file for scripts, and lines to try for people.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde_json::{Map, Value, json};

use super::configuration::Parts;
use super::files;
use super::layout::Layout;
use super::ports::Ports;
use super::postgres::{DATABASE, PORT, SUPERUSER, Server};
use super::world::{self, APPS, DATABASES};

/// Addresses and directories of the running demo, in the shape that the ready file has.
pub fn description(parts: &Parts) -> anyhow::Result<Value> {
    let Parts { layout, ports, servers, web, .. } = parts;
    let native = |app: &str| object(DATABASES, |database| Ok(url(ports.get(&world::outbound(app, database))?).into()));
    let http = |app: &str| object(world::targets(web), |target| Ok(world::http_url(ports, app, target)?.into()));
    let server = |server: &Server| json!({"socket_dir": path(&server.socket), "port": PORT, "admin": SUPERUSER});
    let postgres: Map<_, _> = DATABASES.iter().zip(*servers).map(|(name, one)| ((*name).into(), server(one))).collect();
    Ok(json!({
        "issuer": world::issuer_url(ports)?,
        "console": console_link(layout)?,
        "dir": path(layout.dir()),
        "ca_file": path(&layout.trust_bundle()),
        "trust_bundle": path(&layout.trust_bundle()),
        "outbound": object(APPS, native)?,
        "inbound": object(DATABASES, |database| Ok(url(ports.get(&world::inbound(database))?).into()))?,
        "http": object(APPS, http)?,
        "inbound_http": object(world::targets(web), |target| Ok(inbound_http_url(ports, target)?.into()))?,
        "metrics": metrics(parts)?,
        "decision_logs": object(world::targets(web), |service| Ok(path(&layout.decisions(service))))?,
        "postgres": postgres,
        "settings": object(world::sidecars(web), |service| Ok(path(&layout.settings(service))))?,
        "subject_tokens": object(world::sidecars(web), |name| Ok(path(&layout.subject_token(name))))?,
    }))
}

/// The link that the console has written last; each is good for one browser.
pub fn console_link(layout: &Layout) -> anyhow::Result<String> {
    let file = layout.console_link();
    let link = std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    Ok(link.trim().to_owned())
}

/// Where each process of ours shows its metrics.
fn metrics(parts: &Parts) -> anyhow::Result<Value> {
    let processes = world::sidecars(parts.web).map(|name| (name, world::admin(name)));
    let processes = processes.chain([("issuer", world::issuer()), ("console", world::console_admin())]);
    let url = |port: String| anyhow::Ok(format!("http://127.0.0.1:{}/metrics", parts.ports.get(&port)?));
    processes
        .map(|(name, port)| Ok((name.to_owned(), url(port)?.into())))
        .collect::<anyhow::Result<_>>()
        .map(Value::Object)
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

/// Something to try and a part of what is then shown.
pub struct Try {
    app: &'static str,
    target: &'static str,
    how: How,
    shows: &'static str,
}

enum How {
    /// A statement.
    Psql(&'static str),
    /// Arguments; `{}` stands for the target's address.
    Curl(&'static str),
}

impl Try {
    const fn psql(app: &'static str, target: &'static str, sql: &'static str, shows: &'static str) -> Self {
        Self { app, target, how: How::Psql(sql), shows }
    }

    pub const fn curl(app: &'static str, target: &'static str, arguments: &'static str, shows: &'static str) -> Self {
        Self { app, target, how: How::Curl(arguments), shows }
    }

    fn line(&self, ports: &Ports, psql: &str) -> anyhow::Result<String> {
        Ok(match self.how {
            How::Psql(sql) => {
                format!("{psql} {} -c \"{sql}\"", url(ports.get(&world::outbound(self.app, self.target))?))
            }
            How::Curl(arguments) => {
                format!("curl -s {}", arguments.replace("{}", &world::http_url(ports, self.app, self.target)?))
            }
        })
    }
}

/// Allowed and denied, pair by pair. A test runs every line and holds it to what is promised.
const TRIES: [Try; 9] = [
    Try::psql("service-a", "postgres-b", "select count(*) from customers", "count"),
    Try::psql("service-a", "postgres-b", "delete from orders", "ERROR:  sidegate: reader may not delete orders"),
    Try::curl(
        "service-a",
        "postgres-b",
        r#"{}/query -d '{"query": "select count(*) from customers"}'"#,
        r#""command":"SELECT""#,
    ),
    Try::curl(
        "service-a",
        "postgres-b",
        r#"{}/query -d '{"query": "delete from orders"}'"#,
        "sidegate: reader may not delete orders",
    ),
    Try::psql("service-a", "postgres-a", "update orders set status = 'paid' where id = 1", "UPDATE 1"),
    Try::psql("service-a", "postgres-a", "truncate orders", "ERROR:  sidegate: writer may not truncate orders"),
    Try::psql("service-b", "postgres-b", "insert into orders (customer_id) values (1)", "INSERT 0 1"),
    Try::psql(
        "service-b",
        "postgres-b",
        "select email from customers",
        "ERROR:  sidegate: orders-writer may not select public.customers",
    ),
    Try::psql("service-b", "postgres-a", "select 1", "FATAL:  sidegate: no token for this connection"),
];

/// As the documents say.
fn granted(pair: (&str, &str)) -> &'static str {
    match pair {
        ("service-a", "postgres-a") => "writer",
        ("service-a", "postgres-b") => "reader",
        ("service-b", "postgres-b") => "orders-writer, which may select and insert on two tables",
        ("service-a", "prometheus") => "metrics-reader, which may query",
        ("service-a", "inventory") => "inventory-reader, which may list and get",
        _ => "no grant",
    }
}

/// Lines for people.
pub fn lines(parts: &Parts, psql: &str) -> anyhow::Result<String> {
    let Parts { layout, ports, web, .. } = parts;
    let mut text = String::from("\nSidegate is up. No password anywhere: each line logs in by who the service is.\n\n");
    let mut pair = ("", "");
    for one in TRIES.iter().chain(web.tries()) {
        if pair != (one.app, one.target) {
            pair = (one.app, one.target);
            writeln!(text, "  # {} on {}: {}", one.app, one.target, granted(pair))?;
        }
        writeln!(text, "  {}", one.line(ports, psql)?)?;
        writeln!(text, "      {}", one.shows)?;
    }
    writeln!(text, "\n  console, signs in once    {}", console_link(layout)?)?;
    let watched = layout.settings("postgres-b").join("VERIFY_AUTH_ENABLED");
    writeln!(text, "\n  record, but deny nothing  echo observe > {}", watched.display())?;
    writeln!(text, "  enforce again             echo true > {}", watched.display())?;
    let refreshed = layout.settings("postgres-b").join("TOKENS_NOT_BEFORE");
    writeln!(text, "  refresh tokens            date -u +%FT%TZ > {}", refreshed.display())?;
    writeln!(text, "  the next link to sign in  {}", layout.console_link().display())?;
    writeln!(text, "  roles and grants          {}", layout.documents().display())?;
    writeln!(text, "  decisions                 {}", layout.decisions("postgres-b").display())?;
    writeln!(text, "  logs                      {}", layout.dir().join("logs").display())?;
    writeln!(text, "  issuer                    {}", world::issuer_url(ports)?)?;
    for target in world::targets(web) {
        let label = format!("HTTP at {target}");
        writeln!(text, "  {label:<25} {}", inbound_http_url(ports, target)?)?;
    }
    writeln!(text, "  its authorities           {}", layout.trust_bundle().display())?;
    writeln!(text, "  service-a's own proof     {}", layout.subject_token("service-a").display())?;
    for service in world::sidecars(web) {
        let label = format!("metrics of {service}");
        writeln!(text, "  {label:<25} http://127.0.0.1:{}/metrics", ports.get(&world::admin(service))?)?;
    }
    writeln!(text, "\nCtrl-C ends all of it.")?;
    Ok(text)
}

/// The sidecar beside `target`, for clients without one of their own.
fn inbound_http_url(ports: &Ports, target: &str) -> anyhow::Result<String> {
    Ok(format!("https://127.0.0.1:{}", ports.get(&world::inbound_http(target))?))
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
