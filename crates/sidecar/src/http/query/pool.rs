//! Sessions of PostgreSQL's that are kept: one pool for each login, database and caller.
//!
//! The caller is part of it because a session says from its start to its end whose it is (`sidegate.sub`,
//! `application_name`): a setting made later could be reset by a statement. Deliberately absent: what runs in a session.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use deadpool::Runtime;
use deadpool::managed::{self, Object, PoolError, RecycleError, RecycleResult, Timeouts};
use identity::access::AccessToken;
use parking_lot::Mutex;
use runtime::drain::DrainWatch;
use runtime::listen::Address;
use wire::startup::Startup;

use super::super::problem::{Kind, Problem};
use super::error;
use super::session::Session;
use crate::config;
use crate::login::Login;
use crate::pg::authenticate::LoginError;
use crate::pg::upstream::{self, Identity};

/// Time to look at a session that was kept.
const RECYCLE_TIMEOUT: Duration = Duration::from_secs(10);

/// A session out of its pool, to which it goes back when this is dropped, if it is clean then.
pub(super) type Pooled = Object<Logins>;

/// All pools of a listener.
pub(crate) struct Pools {
    address: Address,
    limits: config::Pool,
    /// In milliseconds, as PostgreSQL takes it.
    statement_timeout: u128,
    upstream_timeout: Duration,
    drain: DrainWatch,
    pools: Arc<Mutex<HashMap<Key, managed::Pool<Logins>>>>,
}

/// What sessions must have in common to stand for each other.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    user: String,
    database: String,
    subject: String,
    /// Both are pinned when a session begins.
    read_only: bool,
    scoped: bool,
}

impl Pools {
    /// No sessions yet. Starts the task that ends those that nobody uses; it ends with the pools.
    pub(crate) fn new(address: Address, query: &config::Query, drain: DrainWatch) -> Pools {
        let pools = Arc::default();
        tokio::spawn(end_idle(Arc::downgrade(&pools), query.pool.idle));
        Pools {
            address,
            limits: query.pool.clone(),
            statement_timeout: query.statement_timeout.as_millis(),
            upstream_timeout: query.upstream_timeout,
            drain,
            pools,
        }
    }

    /// A session for a login, waiting for one if need be. Cancel safe.
    ///
    /// # Errors
    /// A problem for the client: no room, or PostgreSQL does not let it in.
    pub(super) async fn get(&self, login: &Login, token: Option<&AccessToken>) -> Result<Pooled, Problem> {
        let (key, pool) = self.pool(login, token)?;
        let status = pool.status();
        // Those that hold a session, wait for one, or for theirs to be made.
        let users = (status.size + status.waiting).saturating_sub(status.available);
        if users >= status.max_size + self.limits.queue {
            return Err(no_room(&format!("{} requests wait already.", self.limits.queue)));
        }
        pool.get().await.map_err(|error| match error {
            PoolError::Timeout(_) => no_room(&format!("None was free in {} s.", self.limits.wait.as_secs())),
            PoolError::Backend(error) => {
                // Names of databases come from clients, and those that do not exist are many.
                self.pools.lock().retain(|other, pool| *other != key || pool.status().size > 0);
                error::of_login(error)
            }
            // Neither is a pool closed here, nor are there hooks.
            _ => no_room("The pool is closed."),
        })
    }

    fn pool(&self, login: &Login, token: Option<&AccessToken>) -> Result<(Key, managed::Pool<Logins>), Problem> {
        let subject = token.map(AccessToken::subject);
        let key = Key {
            user: login.user.clone(),
            database: login.database.clone(),
            subject: subject.map(ToString::to_string).unwrap_or_default(),
            read_only: login.role.as_ref().is_some_and(|role| role.is_read_only()),
            scoped: login.role.as_ref().is_some_and(|role| role.is_scoped()),
        };
        if let Some(pool) = self.pools.lock().get(&key) {
            return Ok((key, pool.clone()));
        }
        let identity = Identity {
            role: login.role.as_deref(),
            subject: key.subject.clone(),
            short_name: subject.map(|s| format!("{}/{}", s.namespace, s.service_account)).unwrap_or_default(),
            user: &login.user,
            database: &login.database,
        };
        let client = Startup { minor: 0, parameters: Vec::new() };
        let mut packet = upstream::startup_packet(&client, &identity).map_err(error::of_login)?;
        packet.parameters.push(("statement_timeout".to_owned(), self.statement_timeout.to_string()));
        let (address, drain) = (self.address.clone(), self.drain.clone());
        let logins = Logins { address, packet, upstream_timeout: self.upstream_timeout, drain };
        let pool = managed::Pool::builder(logins)
            .max_size(self.limits.size)
            .timeouts(Timeouts {
                wait: Some(self.limits.wait),
                // Bounded by itself.
                create: None,
                recycle: Some(RECYCLE_TIMEOUT),
            })
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|error| Problem::new(Kind::Unavailable, "sidegate: no pool").detail(error.to_string()))?;
        self.pools.lock().insert(key.clone(), pool.clone());
        Ok((key, pool))
    }
}

fn no_room(why: &str) -> Problem {
    Problem::new(Kind::Unavailable, "sidegate: all sessions of this role are busy")
        .code("53300")
        .detail(why)
        .hint("Try again, or let the sidecar have more of them (`pool.size`).")
}

/// Ends sessions that nobody has used for a while, and forgets pools without any.
async fn end_idle(pools: std::sync::Weak<Mutex<HashMap<Key, managed::Pool<Logins>>>>, idle: Duration) {
    loop {
        tokio::time::sleep(idle.div_f64(2.0)).await;
        let Some(pools) = pools.upgrade() else { return };
        pools.lock().retain(|_, pool| {
            pool.retain(|_, metrics| metrics.last_used() < idle);
            let status = pool.status();
            status.size > 0 || status.waiting > 0
        });
    }
}

/// Makes sessions.
pub(super) struct Logins {
    address: Address,
    packet: Startup,
    upstream_timeout: Duration,
    drain: DrainWatch,
}

impl managed::Manager for Logins {
    type Type = Session;
    type Error = LoginError;

    async fn create(&self) -> Result<Session, LoginError> {
        let logged_in = upstream::enter(&self.address, &self.packet, self.upstream_timeout, &self.drain).await?;
        Ok(Session::new(logged_in, self.address.clone()))
    }

    async fn recycle(&self, session: &mut Session, _: &managed::Metrics) -> RecycleResult<LoginError> {
        if session.is_fit() { Ok(()) } else { Err(RecycleError::message("the session is over")) }
    }
}
