//! A listener that signs: takes the application's connection without credentials, logs in to the other side with the
//! service's own token, couples the two (`relay`), and shows the other side fresh tokens as long as the session lasts.
//! Where the other side cannot be reached, the application's login waits a while.
//!
//! Deliberately absent: any look into statements. They are judged where the database is.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use runtime::drain::DrainWatch;
use runtime::listen::Stream;
use runtime::settings::Settings;
use tokio::sync::watch;
use tokio::time::Instant;
use wire::error::field_of;
use wire::startup::{CancelKey, Startup};
use wire::{ErrorFields, backend, renewal};

use super::authenticate::{LoginError, refused};
use super::cancel::{self, Cancels};
use super::entry::{SIGNING_IS_OFF, enter, read_greeting};
use super::forward::{Pump, Stop};
use super::handshake::{self, Opened};
use super::messages::LinkError;
use super::relay::{Ending, Relay};
use super::session::{PATIENCE, TRANSACTIONS_PART, shutting_down};
use super::upstream;
use crate::audit::Metrics;
use crate::exchange::{Token, TokenError};
use crate::link::{Dialer, Link};
use crate::login::Refusal;
use crate::renewals::Renewals;
use crate::retry::{Retry, may_pass, may_pass_by_itself};
use crate::signer::Signer;
use crate::tokens::TokenSource;

/// Time for what an application does up to its first statement.
const OPENING_TIMEOUT: Duration = Duration::from_secs(10);

/// The same, once the drain has started: for what was accepted just before.
const OPENING_MOMENT: Duration = Duration::from_millis(500);

/// Time for the login on the other side, or `connect_timeout` if that is longer: so long that its answer arrives where
/// it waits for its PostgreSQL.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(20);

/// Why a login is refused for which there is no token now, but may be one a moment later.
const NO_TOKEN_YET: &str = "token_unavailable";

/// What every connection of a listener shares.
pub(crate) struct Signing {
    pub(crate) target: String,
    pub(crate) dialer: Dialer,
    pub(crate) signer: Signer,
    pub(crate) settings: watch::Receiver<Arc<Settings>>,
    pub(crate) cancels: OutboundCancels,
    /// How long a login waits for a target that cannot be reached, or a token that is not there yet.
    pub(crate) connect_timeout: Duration,
    pub(crate) drain: DrainWatch,
    /// How long the drain lets sessions finish.
    pub(crate) drain_timeout: Duration,
    pub(crate) metrics: Metrics,
}

/// The sessions of one outbound listener that can be cancelled: whoever holds a key of another's gets nowhere.
#[derive(Clone, Default)]
pub(crate) struct OutboundCancels(Cancels<()>);

/// A session that has logged in on both sides.
struct Session {
    pump: Pump,
    relay: Relay,
    /// `None`: it goes by no token, or the other side takes no other.
    renewals: Option<Renewals>,
    _cancel: Option<cancel::Registered<()>>,
}

/// Serves one connection to its end. Nothing of it outlives the call.
pub(crate) async fn serve(stream: Stream, signing: Arc<Signing>) {
    match open(stream, &signing).await {
        Ok(Some(session)) => {
            signing.metrics.sessions.inc();
            session.run(&signing).await;
            signing.metrics.sessions.dec();
        }
        Ok(None) => {}
        Err(error) => tracing::debug!(%error, "a connection ended before its session"),
    }
}

impl Session {
    /// Runs it to its end. The other side ends sessions between statements, and this one, too, when the sidecar is to
    /// end and sees where statements do; else it waits for the other side or the client.
    async fn run(mut self, signing: &Signing) {
        let draining = signing.drain.draining();
        let timer = tokio::time::sleep(Duration::ZERO);
        tokio::pin!(draining, timer);
        let may_end = self.relay.sees_statements();
        let reason = loop {
            let ending = self.relay.ending;
            tokio::select! {
                biased;
                () = &mut draining, if may_end && ending == Ending::No => {
                    self.relay.ending = Ending::Finishing;
                    timer.as_mut().reset(Instant::now() + signing.drain_timeout.mul_f64(TRANSACTIONS_PART));
                }
                () = &mut timer, if matches!(ending, Ending::Finishing | Ending::Overdue) => {
                    self.relay.ending = if ending == Ending::Finishing { Ending::Overdue } else { Ending::Cut };
                    timer.as_mut().reset(Instant::now() + PATIENCE);
                }
                token = next(self.renewals.as_mut()) => {
                    if token.is_some() {
                        signing.metrics.tokens_signed.inc();
                    }
                    self.relay.show(token.as_deref());
                }
                stop = self.pump.run(&mut self.relay) => match stop {
                    Stop::TokenWanted => self.renewals.iter_mut().for_each(Renewals::want),
                    Stop::Ended => return self.pump.finish(Some(&shutting_down())).await,
                    Stop::Client(error) => break Some(ErrorFields::fatal("08P01", format!("sidegate: {error}"))),
                    Stop::ServerLeft { .. } => {
                        tracing::debug!(target_service = signing.target, "the other side closed a session");
                        break None;
                    }
                    stop => {
                        tracing::trace!(?stop, "a session ended");
                        break None;
                    }
                },
            }
        };
        // No goodbye in the client's name: where its last message ended is not known on every link.
        self.pump.close(reason.as_ref()).await;
    }
}

/// What is to be shown next, if ever. Cancel safe.
async fn next(renewals: Option<&mut Renewals>) -> Option<Arc<Token>> {
    match renewals {
        Some(renewals) => renewals.next().await,
        None => std::future::pending().await,
    }
}

async fn open(stream: Stream, signing: &Signing) -> Result<Option<Session>, LinkError> {
    let opened = tokio::select! {
        opened = tokio::time::timeout(OPENING_TIMEOUT, handshake::open(stream, None)) => opened,
        () = signing.drain.draining_for(OPENING_MOMENT) => return Ok(None),
    };
    let (mut link, startup) = match opened.map_err(|_| too_slow())?? {
        Opened::Session(link, startup) => (link, startup),
        Opened::Cancel(key) => {
            cancel_remote(signing, &key).await;
            return Ok(None);
        }
        Opened::Gone => return Ok(None),
    };
    negotiate(&mut link, &startup).await?;
    let established = tokio::select! {
        biased;
        () = link.closed() => return Ok(None),
        established = establish(&startup, signing) => established,
    };
    let mut out = Vec::new();
    let session = match established {
        Ok(mut established) => {
            out.append(&mut established.greeting);
            Some(established)
        }
        Err(error) => {
            tell(error, signing, &mut out);
            None
        }
    };
    tokio::time::timeout(OPENING_TIMEOUT, link.send(&out)).await.map_err(|_| too_slow())??;
    Ok(session.map(|established| established.into_session(link, signing)))
}

fn too_slow() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, format!("no login in {} s", OPENING_TIMEOUT.as_secs()))
}

async fn negotiate(link: &mut Link, startup: &Startup) -> Result<(), LinkError> {
    if startup.needs_negotiation() {
        let mut out = Vec::new();
        backend::negotiate_protocol_version(&mut out, startup.negotiated_minor(), &startup.unknown_options());
        link.send(&out).await?;
    }
    Ok(())
}

/// What an application is told that does not get in.
fn tell(error: LoginError, signing: &Signing, out: &mut Vec<u8>) {
    let fields = match error {
        LoginError::Refused(Refusal { fields, reason, .. }) => {
            tracing::info!(reason, message = fields.message, detail = fields.detail, "no session");
            *fields
        }
        LoginError::Upstream(body) => {
            return wire::frame::put(out, b'E', |out| out.extend_from_slice(&body));
        }
        LoginError::Link(error) => {
            tracing::info!(reason = "upstream", target_service = signing.target, %error, "no session");
            unreachable(signing, &error.to_string())
        }
    };
    backend::error_response(out, &fields);
}

fn unreachable(signing: &Signing, why: &str) -> ErrorFields {
    ErrorFields::fatal("08006", format!("sidegate: cannot reach {}", signing.target))
        .detail(why)
        .hint("The sidecar of that service may be starting or stopped; its log says.")
}

async fn cancel_remote(signing: &Signing, key: &CancelKey) {
    if signing.cancels.0.find(key).is_some()
        && let Ok(source) = signing.signer.source().await
        && let Ok(link) = signing.dialer.with_identity(source.identity()).dial().await
    {
        let _ = cancel::forward(link, key).await;
    }
}

/// A login that succeeded on the other side.
struct Established {
    server: Link,
    /// What it said from `AuthenticationOk` to its first `ReadyForQuery`, for the client as it is.
    greeting: Vec<u8>,
    key: Option<CancelKey>,
    shown: Option<(Arc<TokenSource>, Arc<Token>)>,
}

impl Established {
    fn into_session(self, client: Link, signing: &Signing) -> Session {
        let renews = self.server.alpn() == Some(renewal::ALPN);
        let renewals = self.shown.filter(|_| renews);
        Session {
            pump: Pump::new(client, self.server),
            relay: Relay::new(renews),
            renewals: renewals.map(|(source, token)| Renewals::new(source, token, signing.settings.clone())),
            _cancel: self.key.map(|key| signing.cancels.0.register(key, ())),
        }
    }
}

/// Logs in on the other side, trying for a while. Cancel safe: the connection is dropped.
async fn establish(startup: &Startup, signing: &Signing) -> Result<Established, LoginError> {
    let limit = signing.connect_timeout.max(LOGIN_TIMEOUT);
    let mut last = None;
    let established = tokio::select! {
        biased;
        () = signing.drain.draining() => return Err(upstream::shutting_down()),
        established = tokio::time::timeout(limit, persist(startup, signing, &mut last)) => established,
    };
    established.unwrap_or_else(|_| {
        let why = format!("no answer in {} s", limit.as_secs());
        Err(last.unwrap_or_else(|| broke_off(signing, &why)))
    })
}

/// Tries until it is in, refused or out of time; `last` is why the last try failed.
async fn persist(
    startup: &Startup,
    signing: &Signing,
    last: &mut Option<LoginError>,
) -> Result<Established, LoginError> {
    let mut retry = Retry::within(signing.connect_timeout);
    loop {
        let error = match try_to_log_in(startup, signing).await {
            Err(error) if is_passing(&error) => error,
            done => return done,
        };
        let lacks_token = matches!(&error, LoginError::Refused(refusal) if refusal.reason == NO_TOKEN_YET);
        *last = Some(error);
        if !retry.again().await {
            let without = if lacks_token { log_in_without_token(startup, signing).await.ok() } else { None };
            // There is an error: it was put there just now.
            return without.ok_or_else(|| last.take().unwrap_or_else(|| broke_off(signing, &"no answer")));
        }
    }
}

/// Whether there may be a login a moment later: nobody refused it, or only somebody who is not up.
fn is_passing(error: &LoginError) -> bool {
    match error {
        LoginError::Refused(refusal) => refusal.reason == NO_TOKEN_YET,
        LoginError::Upstream(body) => may_pass_by_itself(field_of(body, b'C')),
        LoginError::Link(LinkError::Io(error)) => may_pass(error),
        LoginError::Link(LinkError::Wire(_)) => false,
    }
}

/// Gets a token, dials and logs in.
async fn try_to_log_in(startup: &Startup, signing: &Signing) -> Result<Established, LoginError> {
    let settings = signing.settings.borrow().clone();
    let source = signing.signer.source().await.map_err(|error| no_token(&error))?;
    if !settings.sign {
        return log_in(startup, source, None, signing).await;
    }
    match source.token(settings.tokens_not_before).await {
        Ok(token) => log_in(startup, source, Some(token), signing).await,
        Err(error) if error.is_passing() => Err(no_token(&error)),
        // Where nothing is enforced, nothing needs to be granted; elsewhere the other side is told who was refused.
        Err(error) => log_in(startup, source, None, signing).await.map_err(|refused| explained(refused, &error)),
    }
}

/// The last try where there is no token to be had: where nothing is enforced, none is needed.
async fn log_in_without_token(startup: &Startup, signing: &Signing) -> Result<Established, LoginError> {
    let source = signing.signer.source().await.map_err(|error| no_token(&error))?;
    log_in(startup, source, None, signing).await
}

/// To a side that wants a token there is the reason to be told why there is none.
fn explained(refused: LoginError, why: &TokenError) -> LoginError {
    match &refused {
        LoginError::Upstream(body) if field_of(body, b'C') == Some(b"28000") => no_token(why),
        LoginError::Refused(refusal) if refusal.reason == SIGNING_IS_OFF => no_token(why),
        _ => refused,
    }
}

async fn log_in(
    startup: &Startup,
    source: Arc<TokenSource>,
    token: Option<Arc<Token>>,
    signing: &Signing,
) -> Result<Established, LoginError> {
    let (mut server, token) = enter(startup, &source, token, signing).await?;
    let mut greeting = Vec::new();
    backend::authentication(&mut greeting, backend::auth::OK);
    let key = read_greeting(&mut server, &mut greeting, signing).await?;
    Ok(Established { server, greeting, key, shown: token.map(|token| (source, token)) })
}

fn no_token(error: &TokenError) -> LoginError {
    let reason = if error.is_passing() { NO_TOKEN_YET } else { "token_refused" };
    let hint = match error {
        TokenError::Refused { .. } => "Ask for an AccessGrant for this service.",
        TokenError::Unavailable { .. } => "The issuer must be within reach of this sidecar.",
    };
    let fields = ErrorFields::fatal("28000", "sidegate: no token for this connection");
    refused(reason, fields.detail(error.to_string()).hint(hint))
}

pub(super) fn broke_off(signing: &Signing, error: &dyn std::fmt::Display) -> LoginError {
    refused("upstream", unreachable(signing, &error.to_string()))
}
