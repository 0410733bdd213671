//! A listener that signs: takes the application's connection without credentials, logs in to the other side with the
//! service's own token, couples the two (`relay`), and shows the other side fresh tokens as long as the session lasts.
//!
//! Deliberately absent: any look into statements. They are judged where the database is.

use std::sync::Arc;
use std::time::Duration;

use runtime::drain::DrainWatch;
use runtime::listen::Stream;
use runtime::secret::Secret;
use runtime::settings::Settings;
use tokio::sync::watch;
use wire::error::field_of;
use wire::startup::{CancelKey, SIDEGATE_OPTION, Startup};
use wire::{ErrorFields, backend, frontend, renewal, sasl};

use super::authenticate::{LoginError, offers_oauthbearer, refused};
use super::cancel::{self, Cancels};
use super::forward::{Pump, Stop};
use super::handshake::{self, Opened};
use super::messages::LinkError;
use super::relay::Relay;
use super::upstream::GREETING_LIMIT;
use crate::exchange::{Token, TokenError};
use crate::link::{Dialer, Link};
use crate::login::Refusal;
use crate::renewals::Renewals;
use crate::signer::Signer;
use crate::tokens::{RETRIES, TokenSource};
use crate::verify::TOKEN_REFUSED;

/// Time from the first byte to the first statement: longer than the other side's, so that its answer arrives.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(20);

/// What every connection of a listener shares.
pub(crate) struct Signing {
    pub(crate) target: String,
    pub(crate) dialer: Dialer,
    pub(crate) signer: Signer,
    pub(crate) settings: watch::Receiver<Arc<Settings>>,
    pub(crate) cancels: OutboundCancels,
    pub(crate) drain: DrainWatch,
    pub(crate) sessions: prometheus_client::metrics::gauge::Gauge,
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
    match tokio::time::timeout(LOGIN_TIMEOUT, log_in(stream, &signing)).await {
        Ok(Ok(Some(session))) => {
            signing.sessions.inc();
            session.run(&signing).await;
            signing.sessions.dec();
        }
        Ok(Ok(None)) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a connection ended before its session"),
        Err(_) => tracing::debug!("a connection was cut: no login in {} s", LOGIN_TIMEOUT.as_secs()),
    }
}

impl Session {
    /// Runs it to its end. The other side ends sessions between statements; this one waits for it or for the client.
    async fn run(mut self, signing: &Signing) {
        let reason = loop {
            tokio::select! {
                biased;
                token = next(self.renewals.as_mut()) => self.relay.show(token.as_deref()),
                stop = self.pump.run(&mut self.relay) => match stop {
                    Stop::TokenWanted => self.renewals.iter_mut().for_each(Renewals::want),
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

async fn log_in(stream: Stream, signing: &Signing) -> Result<Option<Session>, LinkError> {
    let (mut link, startup) = match handshake::open(stream, None).await? {
        Opened::Session(link, startup) => (link, startup),
        Opened::Cancel(key) => {
            cancel_remote(signing, &key).await;
            return Ok(None);
        }
        Opened::Gone => return Ok(None),
    };
    match establish(&mut link, &startup, signing).await {
        Ok(established) => Ok(Some(established.into_session(link, signing))),
        Err(error) => {
            let fields = match error {
                LoginError::Refused(Refusal { fields, reason, .. }) => {
                    tracing::info!(reason, message = fields.message, detail = fields.detail, "no session");
                    *fields
                }
                LoginError::Upstream(body) => {
                    let mut out = Vec::new();
                    wire::frame::put(&mut out, b'E', |out| out.extend_from_slice(&body));
                    link.send(&out).await?;
                    return Ok(None);
                }
                LoginError::Link(error) => unreachable(signing, &error.to_string()),
            };
            let mut out = Vec::new();
            backend::error_response(&mut out, &fields);
            link.send(&out).await?;
            Ok(None)
        }
    }
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

/// Gets a token, dials and logs in. What the server says from `AuthenticationOk` to its first `ReadyForQuery` goes to
/// the client as it is.
async fn establish(client: &mut Link, startup: &Startup, signing: &Signing) -> Result<Established, LoginError> {
    if signing.drain.is_draining() {
        return Err(refused("draining", ErrorFields::fatal("57P03", "sidegate: the sidecar is shutting down")));
    }
    if startup.needs_negotiation() {
        let mut out = Vec::new();
        backend::negotiate_protocol_version(&mut out, startup.negotiated_minor(), &startup.unknown_options());
        client.send(&out).await?;
    }
    let settings = signing.settings.borrow().clone();
    let source = signing.signer.source().await.map_err(no_token)?;
    let token = match settings.sign {
        true => Some(source.token(settings.tokens_not_before).await.map_err(no_token)?),
        false => None,
    };
    let (mut server, token) = enter(startup, &source, token, signing).await?;
    let mut greeting = Vec::new();
    backend::authentication(&mut greeting, backend::auth::OK);
    let key = read_greeting(&mut server, &mut greeting, signing).await?;
    client.send(&greeting).await?;
    Ok(Established { server, key, shown: token.map(|token| (source, token)) })
}

/// Dials and authenticates; again, a few times, if the other side takes the token no longer: where tokens are refreshed
/// it knows so first, and one that was issued in that same second is too old, too.
async fn enter(
    startup: &Startup,
    source: &TokenSource,
    mut token: Option<Arc<Token>>,
    signing: &Signing,
) -> Result<(Link, Option<Arc<Token>>), LoginError> {
    let mut tries_left = RETRIES;
    loop {
        let dialled = signing.dialer.with_identity(source.identity()).dial().await;
        let mut server = dialled.map_err(|error| broke_off(signing, &error))?;
        let mut out = Vec::new();
        server_startup(startup, token.is_some()).write(&mut out);
        server.send(&out).await.map_err(|error| broke_off(signing, &error))?;
        let refusal = match authenticate(&mut server, token.as_deref().map(Token::text), signing).await {
            Err(LoginError::Upstream(body)) if tries_left > 0 && is_token_refused(&body) => body,
            authenticated => return authenticated.map(|()| (server, token)),
        };
        let newer = match &token {
            Some(token) => source.newer(token).await,
            None => None,
        };
        token = Some(newer.ok_or(LoginError::Upstream(refusal))?);
        tries_left -= 1;
    }
}

fn is_token_refused(body: &[u8]) -> bool {
    field_of(body, b'M') == Some(TOKEN_REFUSED.as_bytes())
}

fn no_token(error: TokenError) -> LoginError {
    let (hint, reason) = match &error {
        TokenError::Refused { .. } => ("Ask for an AccessGrant for this service.", "token_refused"),
        TokenError::Unavailable { .. } => ("The issuer must be within reach of this sidecar.", "token_unavailable"),
    };
    let fields = ErrorFields::fatal("28000", "sidegate: no token for this connection");
    refused(reason, fields.detail(error.to_string()).hint(hint))
}

fn broke_off(signing: &Signing, error: &dyn std::fmt::Display) -> LoginError {
    refused("upstream", unreachable(signing, &error.to_string()))
}

/// The client's packet as the other side gets it: without protocol options, which were settled here, and with ours.
fn server_startup(client: &Startup, signs: bool) -> Startup {
    let mut parameters = client.parameters.clone();
    parameters.retain(|(name, _)| !name.starts_with("_pq_."));
    let way = if signs { "oauthbearer" } else { "none" };
    parameters.push((SIDEGATE_OPTION.to_owned(), way.to_owned()));
    Startup { minor: client.negotiated_minor(), parameters }
}

/// Shows the token in whichever way the server asks, up to `AuthenticationOk`.
async fn authenticate(server: &mut Link, token: Option<&Secret>, signing: &Signing) -> Result<(), LoginError> {
    // Each server message moves the exchange on or ends it; a handful is all that any method here takes.
    for _ in 0..8 {
        let (tag, body) = server.read_message().await.map_err(|error| broke_off(signing, &error))?;
        let mut out = Vec::new();
        match (tag, backend::read_authentication(&body), token) {
            (b'R', Some((backend::auth::OK, _)), _) => return Ok(()),
            (b'E', ..) => return Err(LoginError::Upstream(body)),
            (b'v' | b'N', ..) => continue,
            (b'R', Some((backend::auth::SASL, mechanisms)), Some(token)) if offers_oauthbearer(mechanisms) => {
                let response = sasl::initial_response(token.expose());
                frontend::sasl_initial_response(&mut out, sasl::MECHANISM, &response);
            }
            // The server's reason comes as an error behind this acknowledgement (RFC 7628 §3.2.3).
            (b'R', Some((backend::auth::SASL_CONTINUE, _)), Some(_)) => frontend::sasl_response(&mut out, b"\x01"),
            (b'R', Some((backend::auth::SASL_FINAL, _)), _) => continue,
            (b'R', Some((backend::auth::CLEARTEXT, _)), Some(token)) => frontend::password(&mut out, token.expose()),
            (_, _, None) => return Err(refused("sign_off", signing_is_off(signing))),
            _ => return Err(broke_off(signing, &"it asks for a login that a token cannot answer")),
        }
        server.send(&out).await.map_err(|error| broke_off(signing, &error))?;
    }
    Err(broke_off(signing, &"its login does not end"))
}

fn signing_is_off(signing: &Signing) -> ErrorFields {
    ErrorFields::fatal("28000", format!("sidegate: {} asks for a token", signing.target))
        .detail("Signing is switched off for this service (SIGN_AUTH_ENABLED).")
        .hint("Switch signing on.")
}

/// Reads up to the first `ReadyForQuery`; the cancel key is noted on the way.
async fn read_greeting(
    server: &mut Link,
    greeting: &mut Vec<u8>,
    signing: &Signing,
) -> Result<Option<CancelKey>, LoginError> {
    let mut key = None;
    loop {
        let (tag, body) = server.read_message().await.map_err(|error| broke_off(signing, &error))?;
        match tag {
            b'E' => return Err(LoginError::Upstream(body)),
            b'K' => key = backend::read_backend_key_data(&body),
            b'S' | b'N' | b'Z' => {}
            _ => return Err(broke_off(signing, &"it answers the login with what cannot be")),
        }
        wire::frame::put(greeting, tag, |out| out.extend_from_slice(&body));
        if greeting.len() > GREETING_LIMIT {
            return Err(broke_off(signing, &"its greeting does not end"));
        }
        if tag == b'Z' {
            return Ok(key);
        }
    }
}
