//! The short notation for listeners in annotations, one listener a line.
//!
//! Deliberately absent: everything that has a default which fits nearly always; `sidegate.dev/config` takes all of it.

use identity::{ServiceName, Subject};

const POSTGRES: u16 = 5432;
/// Where HTTP services and SQL over HTTP listen for other sidecars.
const HTTPS: u16 = 8443;

const INBOUND: &str = "write `postgres [PORT]`, `query [PORT] [database=NAME]` or `http PORT to 127.0.0.1:PORT`";
const OUTBOUND: &str = "write `postgres PORT to NAMESPACE/SERVICE[:PORT] [account=NAME]` or `http PORT to …`";

/// A listener that verifies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Inbound {
    pub(super) port: u16,
    pub(super) kind: InboundKind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum InboundKind {
    Postgres,
    Query { database: Option<String> },
    Http { upstream: String },
}

impl Inbound {
    /// PostgreSQL is behind it, by its own protocol or by HTTP.
    pub(super) fn is_postgres(&self) -> bool {
        !matches!(self.kind, InboundKind::Http { .. })
    }

    /// Its protocol, as configurations name it.
    pub(super) fn name(&self) -> &'static str {
        match self.kind {
            InboundKind::Postgres => "postgres",
            InboundKind::Query { .. } => "query",
            InboundKind::Http { .. } => "http",
        }
    }
}

/// A listener that signs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Outbound {
    pub(super) protocol: &'static str,
    pub(super) port: u16,
    pub(super) target: ServiceName,
    pub(super) target_port: u16,
    /// The target's service account, where it is not called like the service.
    pub(super) account: Option<String>,
}

pub(super) fn inbound(line: &str) -> Result<Inbound, String> {
    let words: Vec<_> = line.split_whitespace().collect();
    let (port, kind) = match words.as_slice() {
        ["postgres"] => (POSTGRES, InboundKind::Postgres),
        ["postgres", own] => (port(own)?, InboundKind::Postgres),
        ["query"] => (HTTPS, InboundKind::Query { database: None }),
        ["query", database] if database.contains('=') => (HTTPS, query(database)?),
        ["query", own] => (port(own)?, InboundKind::Query { database: None }),
        ["query", own, database] => (port(own)?, query(database)?),
        ["http", own, "to", upstream] => http(port(own)?, upstream)?,
        _ => return Err(INBOUND.to_owned()),
    };
    Ok(Inbound { port, kind })
}

fn query(word: &str) -> Result<InboundKind, String> {
    let database = word.strip_prefix("database=").filter(|name| !name.is_empty()).ok_or(INBOUND)?;
    Ok(InboundKind::Query { database: Some(database.to_owned()) })
}

/// The service is in the same pod: elsewhere, anybody could go past the sidecar.
fn http(own: u16, upstream: &str) -> Result<(u16, InboundKind), String> {
    let behind = upstream.strip_prefix("127.0.0.1:").or_else(|| upstream.strip_prefix("localhost:"));
    let behind = port(behind.ok_or("the service is behind the sidecar in the same pod: `to 127.0.0.1:PORT`")?)?;
    if behind == own {
        return Err(format!("the service has port {behind} itself; the sidecar needs another"));
    }
    Ok((own, InboundKind::Http { upstream: format!("127.0.0.1:{behind}") }))
}

pub(super) fn outbound(line: &str) -> Result<Outbound, String> {
    let words: Vec<_> = line.split_whitespace().collect();
    let [protocol, own, "to", target, rest @ ..] = words.as_slice() else { return Err(OUTBOUND.to_owned()) };
    let (protocol, default) = match *protocol {
        "postgres" => ("postgres", POSTGRES),
        "http" => ("http", HTTPS),
        "query" => return Err("SQL over HTTP is reached as `http PORT to NAMESPACE/SERVICE`".to_owned()),
        _ => return Err(OUTBOUND.to_owned()),
    };
    let (name, target_port) = match target.split_once(':') {
        Some((name, number)) => (name, port(number)?),
        None => (*target, default),
    };
    let target: ServiceName = name.parse().map_err(|error| format!("{error}"))?;
    let account = match rest {
        [] => None,
        [word] => Some(word.strip_prefix("account=").ok_or(OUTBOUND)?),
        _ => return Err(OUTBOUND.to_owned()),
    };
    if let Some(account) = account {
        Subject::new(&target.namespace, account).map_err(|error| format!("account={account}: {error}"))?;
    }
    Ok(Outbound { protocol, port: port(own)?, target, target_port, account: account.map(str::to_owned) })
}

fn port(text: &str) -> Result<u16, String> {
    let number = text.parse().ok().filter(|port| *port != 0 && !text.starts_with('+'));
    number.ok_or_else(|| format!("{text:?} is no port from 1 to 65535"))
}
