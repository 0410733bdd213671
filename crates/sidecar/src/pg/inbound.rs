//! A listener that verifies: from a fresh connection to a session, which `session` then runs.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use runtime::drain::DrainWatch;
use runtime::listen::{Address, Stream};
use runtime::settings::Settings;
use tokio::sync::watch;
use wire::startup::{CancelKey, Startup};
use wire::{ErrorFields, backend, renewal};

use super::authenticate::{LoginError, authenticate, refused};
use super::authorize::Gate;
use super::cancel::{self, Cancels};
use super::earlier::Named;
use super::forward::Pump;
use super::handshake::{self, Opened};
use super::inspect::Watched;
use super::messages::LinkError;
use super::session::Session;
use super::upstream;
use crate::analysis::Analyses;
use crate::audit::Audit;
use crate::config::Authentication;
use crate::link::{Link, Peer};
use crate::login::{Login, Logins, Refusal, Wanted, Who};
use crate::standing::Standing;
use crate::traces::SessionTraces;
use crate::verify::{Credential, Verifier};

/// Time for what a client does up to its first statement. Slow and silent peers are cut here.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(10);

/// The same, once the drain has started: for what was accepted just before.
const LOGIN_MOMENT: Duration = Duration::from_millis(500);

/// What every connection of a listener shares.
pub(crate) struct Listening {
    pub(crate) verifier: Verifier,
    pub(crate) logins: Logins,
    pub(crate) tls: Option<Arc<rustls::ServerConfig>>,
    /// Whether the listener is a Unix socket or loopback, so that a token may cross it in the clear.
    pub(crate) is_local: bool,
    pub(crate) authentication: Authentication,
    /// How long a session goes on after its token's end.
    pub(crate) expiry_grace: Duration,
    pub(crate) upstream: Address,
    /// How long a login waits for a PostgreSQL that is not up.
    pub(crate) upstream_timeout: Duration,
    pub(crate) settings: watch::Receiver<Arc<Settings>>,
    pub(crate) analyses: Analyses,
    pub(crate) audit: Audit,
    pub(crate) cancels: InboundCancels,
    pub(crate) drain: DrainWatch,
    /// How long the drain lets sessions finish.
    pub(crate) drain_timeout: Duration,
}

impl Listening {
    /// Where nothing may pass unrecorded, a login waits until it can be recorded.
    async fn loggable(&self) -> Result<(), LoginError> {
        self.audit.log.room().await;
        Ok(())
    }
}

/// The sessions of inbound listeners that can be cancelled.
#[derive(Clone, Default)]
pub(crate) struct InboundCancels(Cancels<(Address, CancelKey)>);

/// Serves one connection to its end. Nothing of it outlives the call.
pub(crate) async fn serve(stream: Stream, listening: Arc<Listening>) {
    match log_in(stream, &listening).await {
        Ok(Some(session)) => {
            listening.audit.metrics.sessions.inc();
            session.run(&listening).await;
            listening.audit.metrics.sessions.dec();
        }
        Ok(None) => {}
        Err(error) => tracing::debug!(%error, "a connection ended before its session"),
    }
}

/// What a client does to log in, as long as it is quick.
async fn quick<T, E: From<LinkError>>(step: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    let slow = || io::Error::new(io::ErrorKind::TimedOut, format!("no login in {} s", LOGIN_TIMEOUT.as_secs()));
    tokio::time::timeout(LOGIN_TIMEOUT, step).await.unwrap_or_else(|_| Err(LinkError::Io(slow()).into()))
}

async fn log_in(stream: Stream, listening: &Listening) -> Result<Option<Session>, LinkError> {
    let opened = tokio::select! {
        opened = quick(handshake::open(stream, listening.tls.as_ref())) => opened?,
        () = listening.drain.draining_for(LOGIN_MOMENT) => return Ok(None),
    };
    let (mut link, startup) = match opened {
        Opened::Session(link, startup) => (link, startup),
        Opened::Cancel(key) => {
            cancel_upstream(listening, &key).await;
            return Ok(None);
        }
        Opened::Gone => return Ok(None),
    };
    match establish(&mut link, &startup, listening).await {
        Ok(established) => quick(established.into_session(link, &startup, listening)).await.map(Some),
        Err(LoginError::Refused(Refusal { fields, reason, .. })) => {
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
    credential: Option<Arc<Credential>>,
    login: Login,
}

async fn establish(link: &mut Link, startup: &Startup, listening: &Listening) -> Result<Established, LoginError> {
    if listening.drain.is_draining() {
        return Err(upstream::shutting_down());
    }
    if !link.is_encrypted() && !listening.is_local {
        let fields = ErrorFields::fatal("28000", "sidegate: TLS is required").hint("Set sslmode=verify-full.");
        return Err(refused("no_tls", fields));
    }
    negotiate(link, startup).await?;
    quick(listening.loggable()).await?;
    let settings = listening.settings.borrow().clone();
    let started = Instant::now();
    let peer = link.peer();
    let credential = match quick(authenticate(link, startup, listening, &settings)).await {
        Ok(credential) => credential,
        Err(LoginError::Refused(refusal)) => {
            let who = Who { credential: None, peer: peer.as_ref() };
            let caller = listening.logins.caller(who, None, None, startup.get("database").unwrap_or_default());
            return Err(listening.logins.refused(&caller, &settings, refusal, started).into());
        }
        Err(error) => return Err(error),
    };
    tokio::select! {
        entered = enter(startup, listening, (credential, peer), &settings, started) => entered,
        () = link.closed() => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
    }
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
    (credential, peer): (Option<Arc<Credential>>, Option<Peer>),
    settings: &Settings,
    started: Instant,
) -> Result<Established, LoginError> {
    let wanted = Wanted { role: startup.get("user").unwrap_or_default(), database: startup.get("database") };
    let who = Who { credential: credential.as_deref(), peer: peer.as_ref() };
    let login = listening.logins.choose(who, &wanted, settings, started)?;
    listening.logins.entered(&login, settings, started);
    let subject = credential.as_ref().map(|credential| credential.token.subject());
    let identity = upstream::Identity {
        role: login.role.as_deref(),
        subject: subject.map(ToString::to_string).unwrap_or_default(),
        short_name: subject.map(|s| format!("{}/{}", s.namespace, s.service_account)).unwrap_or_default(),
        user: &login.user,
        database: &login.database,
    };
    let packet = upstream::startup_packet(startup, &identity)?;
    let upstream = upstream::enter(&listening.upstream, &packet, listening.upstream_timeout, &listening.drain).await?;
    let client_key = cancel::new_key(upstream.key.pid, startup.negotiated_minor())
        .ok_or_else(|| refused("upstream", ErrorFields::fatal("58000", "sidegate: no randomness for a cancel key")))?;
    Ok(Established { upstream, client_key, credential, login })
}

impl Established {
    /// Tells the client that it is in.
    async fn into_session(
        self,
        mut link: Link,
        startup: &Startup,
        listening: &Listening,
    ) -> Result<Session, LinkError> {
        let mut out = Vec::new();
        backend::authentication(&mut out, backend::auth::OK);
        out.extend_from_slice(&self.upstream.greeting);
        backend::backend_key_data(&mut out, &self.client_key);
        wire::frame::put(&mut out, b'Z', |body| body.push(b'I'));
        link.send(&out).await?;
        let target = (listening.upstream.clone(), self.upstream.key);
        let renews = link.alpn() == Some(renewal::ALPN);
        let gate = Gate {
            role: self.login.role.clone(),
            caller: self.login.caller.clone(),
            settings: listening.settings.clone(),
            analyses: listening.analyses.clone(),
            audit: listening.audit.clone(),
            prepared: None,
            lax: None,
            named: Named::default(),
            traced: None,
        };
        let traces = listening.audit.tracer.clone().map(|tracer| {
            let name = startup.get("application_name");
            SessionTraces::new(tracer, self.login.caller.clone(), &listening.upstream, name)
        });
        Ok(Session::new(
            Pump::new(link, self.upstream.link),
            Watched::new(gate, renews, traces),
            Standing::new(self.credential, self.login.tolerated).with_grace(listening.expiry_grace),
            self.login,
            listening.cancels.0.register(self.client_key, target),
        ))
    }
}
