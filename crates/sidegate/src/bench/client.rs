//! A client of what is measured: one connection, one request at a time, timed from sending to the last byte of the answer.
//!
//! An answer is looked at (behind the clock's back) for the number of its rows, so that nothing fast but wrong is taken
//! for a result. Deliberately absent: TLS of the client's own. An application has its sidecar on the same machine.

use std::fmt;
use std::time::Duration;

use anyhow::Context;
use tokio_postgres::Config;

use super::plan::{Class, Protocol};
use super::statements::Script;

mod http;
mod native;

pub use http::Address;
pub use native::parse as parse_dsn;

/// A login that asks an issuer takes far less; a server that hangs must not hold up the benchmark.
const CONNECT_LIMIT: Duration = Duration::from_secs(15);

/// Where to connect.
#[derive(Clone)]
pub enum Target {
    /// By PostgreSQL's own protocol.
    Native(Box<Config>),
    /// By `POST /query`.
    Http(Address),
}

impl Target {
    /// How it is spoken to.
    pub fn protocol(&self) -> Protocol {
        match self {
            Self::Native(_) => Protocol::Native,
            Self::Http(_) => Protocol::Http,
        }
    }
}

/// Without user and password.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Native(config) => native::describe(config, f),
            Self::Http(address) => write!(f, "{address}"),
        }
    }
}

/// A connection.
pub enum Client {
    /// By PostgreSQL's own protocol.
    Native(native::Native),
    /// By `POST /query`.
    Http(http::Http),
}

impl Client {
    /// Connects and, where the protocol has that, logs in.
    ///
    /// # Errors
    /// When it does not succeed in time; [`refusal`] knows whether it was refused.
    pub async fn connect(target: &Target) -> anyhow::Result<Self> {
        let connect = async {
            match target {
                Target::Native(config) => native::Native::connect(config).await.map(Self::Native),
                Target::Http(address) => http::Http::connect(address).await.map(Self::Http),
            }
        };
        let connected = tokio::time::timeout(CONNECT_LIMIT, connect).await;
        connected.with_context(|| format!("{target} did not let the client in within {} s", CONNECT_LIMIT.as_secs()))?
    }

    /// One request; the time that it took. Cancel safe, but the connection is then to be closed.
    ///
    /// # Errors
    /// When it fails, or the answer has not the rows that it must have.
    pub async fn request(&mut self, script: Script, class: Class, index: u32) -> anyhow::Result<Duration> {
        match self {
            Self::Native(client) => client.request(script, class, index).await,
            Self::Http(client) => client.request(script, class, index).await,
        }
    }

    /// Whom PostgreSQL takes this client for.
    ///
    /// # Errors
    /// When it cannot be asked; [`refusal`] knows whether that was refused.
    pub async fn login_name(&mut self) -> anyhow::Result<String> {
        match self {
            Self::Native(client) => client.login_name().await,
            Self::Http(client) => client.login_name().await,
        }
    }

    /// Whether nothing more can come of it.
    pub fn is_closed(&self) -> bool {
        match self {
            Self::Native(client) => client.is_closed(),
            Self::Http(client) => client.is_closed(),
        }
    }

    /// Ends it, and waits until it has: what is measured next must not meet the last one's end.
    pub async fn close(self) {
        match self {
            Self::Native(client) => client.close().await,
            Self::Http(client) => client.close().await,
        }
    }
}

/// The caller has shown no token, or none that counts.
#[derive(Debug)]
struct Refused(String);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refused {}

/// In which words the caller was refused for who it is; `None`: the error is about something else.
pub fn refusal(error: &anyhow::Error) -> Option<&str> {
    error.downcast_ref::<Refused>().map(|refused| refused.0.as_str())
}
