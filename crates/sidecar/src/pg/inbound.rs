//! A listener that verifies: from a fresh connection to the end of its session.

use std::sync::Arc;
use std::time::{Duration, Instant};

use identity::access::AccessToken;
use identity::{LEEWAY_SECONDS, ServiceName};
use policy::Role;
use runtime::drain::DrainWatch;
use runtime::listen::{Address, Stream};
use runtime::settings::{Settings, Verify};
use tokio::sync::watch;
use wire::startup::{CancelKey, Startup};
use wire::{ErrorFields, backend};

use super::authenticate::{LoginError, authenticate, choose_role, printable, refused};
use super::authorize::Gate;
use super::cancel::{self, Cancels};
use super::forward::{Pump, Stop};
use super::handshake::{self, Opened};
use super::inspect::Watched;
use super::link::{Link, LinkError};
use super::upstream;
use crate::analysis::Analyses;
use crate::audit::{Audit, Caller, Decision, new_decision_id};
use crate::config::{Authentication, Postgres};
use crate::keys::Keys;

/// Time from the first byte to the first statement. Slow and silent peers are cut here.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a session that is to end waits for a client that has begun something and does not go on.
const PATIENCE: Duration = Duration::from_secs(5);

/// What every connection of a listener shares.
pub(crate) struct Listening {
    pub(crate) service: ServiceName,
    pub(crate) issuer: String,
    pub(crate) tls: Option<Arc<rustls::ServerConfig>>,
    /// Whether the listener is a Unix socket or loopback, so that a token may cross it in the clear.
    pub(crate) is_local: bool,
    pub(crate) authentication: Authentication,
    pub(crate) upstream: Address,
    pub(crate) postgres: Postgres,
    pub(crate) keys: Keys,
    pub(crate) settings: watch::Receiver<Arc<Settings>>,
    pub(crate) analyses: Analyses,
    pub(crate) audit: Audit,
    pub(crate) cancels: InboundCancels,
    pub(crate) drain: DrainWatch,
}

/// The sessions of inbound listeners that can be cancelled.
#[derive(Clone, Default)]
pub(crate) struct InboundCancels(Cancels<(Address, CancelKey)>);

/// A session that has logged in.
struct Session {
    pump: Pump,
    watched: Watched,
    token: Option<AccessToken>,
    /// Seconds since the epoch.
    expires_at: Option<i64>,
    /// It is here only because nothing was enforced when it logged in.
    tolerated: bool,
    _cancel: cancel::Registered<(Address, CancelKey)>,
}

/// Serves one connection to its end. Nothing of it outlives the call.
pub(crate) async fn serve(stream: Stream, listening: Arc<Listening>) {
    let login = tokio::time::timeout(LOGIN_TIMEOUT, log_in(stream, &listening)).await;
    match login {
        Ok(Ok(Some(session))) => {
            listening.audit.metrics.sessions.inc();
            run(session, &listening).await;
            listening.audit.metrics.sessions.dec();
        }
        Ok(Ok(None)) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a connection ended before its session"),
        Err(_) => tracing::debug!("a connection was cut: no login in {} s", LOGIN_TIMEOUT.as_secs()),
    }
}

async fn log_in(stream: Stream, listening: &Listening) -> Result<Option<Session>, LinkError> {
    let (mut link, startup) = match handshake::open(stream, listening.tls.as_ref()).await? {
        Opened::Session(link, startup) => (link, startup),
        Opened::Cancel(key) => {
            cancel_upstream(listening, &key).await;
            return Ok(None);
        }
        Opened::Gone => return Ok(None),
    };
    match establish(&mut link, &startup, listening).await {
        Ok(established) => established.into_session(link, listening).await.map(Some),
        Err(LoginError::Refused { fields, reason }) => {
            tracing::info!(reason, message = fields.message, "login refused");
            say(&mut link, &fields).await.map(|()| None)
        }
        Err(LoginError::Upstream(body)) => {
            let said = String::from_utf8_lossy(wire::error::field_of(&body, b'M').unwrap_or_default()).into_owned();
            tracing::info!(message = said, "PostgreSQL refused the login");
            let mut out = Vec::new();
            wire::frame::put(&mut out, b'E', |out| out.extend_from_slice(&body));
            link.send(&out).await?;
            Ok(None)
        }
        Err(LoginError::Link(LinkError::Wire(error))) => {
            say(&mut link, &ErrorFields::fatal("08P01", format!("sidegate: {error}"))).await?;
            Err(error.into())
        }
        Err(LoginError::Link(error)) => Err(error),
    }
}

async fn say(link: &mut Link, fields: &ErrorFields) -> Result<(), LinkError> {
    let mut out = Vec::new();
    backend::error_response(&mut out, fields);
    Ok(link.send(&out).await?)
}

async fn cancel_upstream(listening: &Listening, key: &CancelKey) {
    // Whether a key was right is not told (as PostgreSQL does): the connection just closes.
    if let Some((address, key)) = listening.cancels.0.find(key)
        && let Ok(stream) = upstream::connect(&address).await
    {
        let _ = cancel::forward(stream, &key).await;
    }
}

/// A login that succeeded on both sides, before the client is told.
struct Established {
    upstream: upstream::LoggedIn,
    client_key: CancelKey,
    token: Option<AccessToken>,
    role: Option<Arc<Role>>,
    caller: Arc<Caller>,
    tolerated: bool,
}

async fn establish(link: &mut Link, startup: &Startup, listening: &Listening) -> Result<Established, LoginError> {
    if listening.drain.is_draining() {
        return Err(refused("draining", ErrorFields::fatal("57P03", "sidegate: the sidecar is shutting down")));
    }
    if !link.is_encrypted() && !listening.is_local {
        let fields = ErrorFields::fatal("28000", "sidegate: TLS is required").hint("Set sslmode=verify-full.");
        return Err(refused("no_tls", fields));
    }
    negotiate(link, startup).await?;
    let settings = listening.settings.borrow().clone();
    let started = Instant::now();
    let token = match authenticate(link, startup, listening, &settings).await {
        Ok(token) => token,
        Err(LoginError::Refused { fields, reason }) => {
            let caller = caller(listening, None, None, startup.get("database").unwrap_or_default());
            return Err(refused(reason, record_login(listening, &caller, &settings, reason, Some(fields), started)));
        }
        Err(error) => return Err(error),
    };
    enter(startup, listening, token, &settings, started).await
}

async fn negotiate(link: &mut Link, startup: &Startup) -> Result<(), LoginError> {
    if startup.needs_negotiation() {
        let mut out = Vec::new();
        backend::negotiate_protocol_version(&mut out, startup.negotiated_minor(), &startup.unknown_options());
        link.send(&out).await?;
    }
    Ok(())
}

/// Chooses role, database and login, and logs in to PostgreSQL.
async fn enter(
    startup: &Startup,
    listening: &Listening,
    token: Option<AccessToken>,
    settings: &Settings,
    started: Instant,
) -> Result<Established, LoginError> {
    let wanted = startup.get("user").unwrap_or_default();
    let (role, failure) = match token.as_ref().map(|token| choose_role(token, wanted)) {
        Some(Ok(role)) => (Some(role), None),
        Some(Err(failure)) => (None, Some(failure)),
        None => (None, None),
    };
    let user = match &role {
        Some(role) => database_login(listening, role),
        None => unverified_login(listening),
    };
    let database = database(startup, role.as_deref(), user.as_deref().unwrap_or_default());
    let caller = caller(listening, token.as_ref(), role.as_deref(), &database);
    let failure = failure.or_else(|| role.as_deref().and_then(|role| wrong_database(role, &database)));
    let tolerated = role.is_none() || failure.is_some();
    conclude_login(listening, &caller, settings, role.is_some(), failure, started)?;
    let user = user?;
    let subject = token.as_ref().map(AccessToken::subject);
    let identity = upstream::Identity {
        role: role.as_deref(),
        subject: subject.map(ToString::to_string).unwrap_or_default(),
        short_name: subject.map(|s| format!("{}/{}", s.namespace, s.service_account)).unwrap_or_default(),
        user: &user,
        database: &database,
    };
    let packet = upstream::startup_packet(startup, &identity)?;
    let stream = upstream::connect(&listening.upstream).await?;
    let upstream = upstream::log_in(stream, &packet).await?;
    let client_key = cancel::new_key(upstream.key.pid, startup.negotiated_minor())
        .ok_or_else(|| refused("upstream", ErrorFields::fatal("58000", "sidegate: no randomness for a cancel key")))?;
    Ok(Established { upstream, client_key, token, role, caller, tolerated })
}

/// Records the decision on a login. A failure stands only where verification enforces.
fn conclude_login(
    listening: &Listening,
    caller: &Arc<Caller>,
    settings: &Settings,
    verified: bool,
    failure: Option<LoginError>,
    started: Instant,
) -> Result<(), LoginError> {
    match failure {
        None => {
            let reason = if verified { "allowed" } else { "unverified" };
            record_login(listening, caller, settings, reason, None, started);
            Ok(())
        }
        Some(LoginError::Refused { fields, reason }) => {
            let fields = record_login(listening, caller, settings, reason, Some(fields), started);
            if settings.verify == Verify::Enforce { Err(refused(reason, fields)) } else { Ok(()) }
        }
        Some(error) => Err(error),
    }
}

/// The database login of a role: its own, or the one configured here for a built-in role.
fn database_login(listening: &Listening, role: &Role) -> Result<String, LoginError> {
    let configured = || listening.postgres.users.get(role.name()).map(String::as_str);
    role.user().or_else(configured).map(ToOwned::to_owned).ok_or_else(|| {
        let name = role.name();
        let fields = ErrorFields::fatal("28000", format!("sidegate: no database login is configured for role {name}"))
            .hint(format!("Set postgres.users.{name} in the configuration of the database's sidecar."));
        refused("no_database_login", fields)
    })
}

fn unverified_login(listening: &Listening) -> Result<String, LoginError> {
    listening.postgres.unverified_user.clone().ok_or_else(|| {
        let fields = ErrorFields::fatal("28000", "sidegate: no valid token, and no login for sessions without one")
            .detail("Verification is not enforced here, but the sidecar has no postgres.unverified_user.")
            .hint("Show a token, or set postgres.unverified_user in the sidecar's configuration.");
        refused("no_unverified_user", fields)
    })
}

/// The database asked for; else the role's only one; else, as PostgreSQL has it, the login's name.
fn database(startup: &Startup, role: Option<&Role>, user: &str) -> String {
    match (startup.get("database").filter(|name| !name.is_empty()), role.map(Role::databases)) {
        (Some(name), _) => name.to_owned(),
        (None, Some([only])) => only.clone(),
        _ => user.to_owned(),
    }
}

fn wrong_database(role: &Role, database: &str) -> Option<LoginError> {
    let allowed = role.databases();
    if allowed.is_empty() || allowed.iter().any(|name| name == database) {
        return None;
    }
    let name = printable(database);
    let fields =
        ErrorFields::fatal("42501", format!("sidegate: {} may not connect to database \"{name}\"", role.name()))
            .hint(format!("The role is for {}.", allowed.join(", ")));
    Some(refused("database", fields))
}

fn caller(listening: &Listening, token: Option<&AccessToken>, role: Option<&Role>, database: &str) -> Arc<Caller> {
    Arc::new(Caller {
        subject: token.map(|token| token.subject().to_string()),
        act: token.and_then(AccessToken::actor).map(ToOwned::to_owned),
        service: listening.service.to_string().into(),
        role: role.map(|role| role.name().to_owned()),
        database: printable(database),
    })
}

/// Records the decision on a login; a refusal's detail gets the decision's id.
fn record_login(
    listening: &Listening,
    caller: &Arc<Caller>,
    settings: &Settings,
    reason: &'static str,
    refusal: Option<ErrorFields>,
    started: Instant,
) -> ErrorFields {
    let id = new_decision_id();
    let decision = Decision {
        id: &id,
        allowed: refusal.is_none(),
        mode: settings.verify,
        action: "connect",
        reason,
        rule: None,
        facts: None,
        fingerprint: None,
        started,
    };
    listening.audit.record(caller, &decision);
    let fields = refusal.unwrap_or_else(|| ErrorFields::fatal("28000", ""));
    let detail = fields.detail.clone().map(|detail| detail + " ").unwrap_or_default();
    fields.detail(format!("{detail}Decision {id}."))
}

impl Established {
    /// Tells the client that it is in.
    async fn into_session(self, mut link: Link, listening: &Listening) -> Result<Session, LinkError> {
        let mut out = Vec::new();
        backend::authentication(&mut out, backend::auth::OK);
        out.extend_from_slice(&self.upstream.greeting);
        backend::backend_key_data(&mut out, &self.client_key);
        wire::frame::put(&mut out, b'Z', |body| body.push(b'I'));
        link.send(&out).await?;
        let target = (listening.upstream.clone(), self.upstream.key);
        let gate = Gate {
            role: self.role,
            caller: self.caller,
            settings: listening.settings.clone(),
            analyses: listening.analyses.clone(),
            audit: listening.audit.clone(),
            prepared: None,
            lax: None,
        };
        Ok(Session {
            pump: Pump::new(link, self.upstream.link),
            watched: Watched::new(gate),
            expires_at: self.token.as_ref().map(end_of_life),
            token: self.token,
            tolerated: self.tolerated,
            _cancel: listening.cancels.0.register(self.client_key, target),
        })
    }
}

/// Runs a session to its end, watching what may end it early.
async fn run(mut session: Session, listening: &Listening) {
    let mut settings = listening.settings.clone();
    let mut verdict = still_allowed(&session, &settings.borrow_and_update().clone());
    let expiry = tokio::time::sleep(life_left(&session));
    tokio::pin!(expiry);
    let mut expires = session.expires_at.is_some();
    let patience = tokio::time::sleep(Duration::ZERO);
    tokio::pin!(patience);
    let reason = loop {
        if verdict.is_some() && !session.watched.ending {
            session.watched.ending = true;
            patience.as_mut().reset(tokio::time::Instant::now() + PATIENCE);
        }
        let (ending, overdue) = (session.watched.ending, session.watched.overdue);
        tokio::select! {
            biased;
            Ok(()) = settings.changed(), if !ending => {
                verdict = still_allowed(&session, &settings.borrow_and_update().clone());
            }
            () = &mut expiry, if !ending && expires => {
                // The clock may have been set back since the timer was.
                expires = life_left(&session) > Duration::ZERO;
                expiry.as_mut().reset(tokio::time::Instant::now() + life_left(&session));
                verdict = still_allowed(&session, &settings.borrow().clone());
            }
            () = listening.drain.draining(), if !ending => verdict = Some(shutting_down()),
            () = &mut patience, if ending && !overdue => session.watched.overdue = true,
            stop = session.pump.run(&mut session.watched) => match stop {
                Stop::Analyze(text) => match listening.analyses.make(text).await {
                    Some(analysis) => session.watched.gate.prepared = Some(analysis),
                    None => break Some(ErrorFields::fatal("58000", "sidegate: a statement could not be analysed")),
                },
                stop => break end_reason(stop, verdict),
            },
        }
    };
    if let Some(fields) = &reason {
        tracing::info!(message = fields.message, "session ended by the sidecar");
    }
    session.pump.finish(reason.as_ref()).await;
}

/// What a client is told when its session stops.
fn end_reason(stop: Stop, verdict: Option<ErrorFields>) -> Option<ErrorFields> {
    match stop {
        Stop::ClientLeft | Stop::ServerLeft { told: true } | Stop::Analyze(_) => None,
        Stop::ServerLeft { told: false } => {
            Some(ErrorFields::fatal("08006", "sidegate: PostgreSQL closed the connection without a word"))
        }
        Stop::Client(error) => Some(ErrorFields::fatal("08P01", format!("sidegate: {error}"))),
        Stop::Server(error) => {
            Some(ErrorFields::fatal("08P01", format!("sidegate: PostgreSQL sent what cannot be: {error}")))
        }
        Stop::UnsafeSetting(name) => Some(upstream::unsafe_setting(name)),
        Stop::Ended => verdict,
    }
}

/// Why a session may not go on under these settings; `None` if it may.
fn still_allowed(session: &Session, settings: &Settings) -> Option<ErrorFields> {
    if settings.verify != Verify::Enforce {
        return None;
    }
    let ended = |message: &str, hint: &str| Some(ErrorFields::fatal("57P01", message).hint(hint));
    let Some(token) = session.token.as_ref().filter(|_| !session.tolerated && !session.watched.gate.is_tainted())
    else {
        return ended("sidegate: verification is enforced now, and would have refused this session", "Show a token.");
    };
    if settings.tokens_not_before.is_some_and(|time| token.issued_at().0 < time) {
        return ended("sidegate: the session's token was revoked", "Reconnect with a newer token.");
    }
    if session.expires_at.is_some_and(|time| time <= runtime::clock::now()) {
        return ended("sidegate: the session's token has expired", "Reconnect.");
    }
    None
}

fn shutting_down() -> ErrorFields {
    ErrorFields::fatal("57P01", "sidegate: terminating connection: the sidecar is shutting down").hint("Reconnect.")
}

/// When a session on `token` ends, in seconds since the epoch. One that was let in within the leeway for clocks that
/// differ has the rest of it.
fn end_of_life(token: &AccessToken) -> i64 {
    let expires_at = token.expires_at().0;
    if expires_at > runtime::clock::now() { expires_at } else { expires_at.saturating_add(LEEWAY_SECONDS) }
}

fn life_left(session: &Session) -> Duration {
    let left = session.expires_at.map_or(0, |time| time.saturating_sub(runtime::clock::now()));
    Duration::from_secs(u64::try_from(left).unwrap_or(0))
}
