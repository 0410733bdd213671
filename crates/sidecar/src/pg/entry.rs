//! The login on the other side: dialled with the pod's certificate, with the service's token shown in whichever way the
//! other side asks.
//!
//! Deliberately absent: a second try where the other side is not there (`outbound`).

use std::sync::Arc;

use runtime::secret::Secret;
use wire::error::field_of;
use wire::startup::{CancelKey, SIDEGATE_OPTION, Startup};
use wire::{ErrorFields, backend, frontend, sasl};

use super::authenticate::{LoginError, offers_oauthbearer, refused};
use super::outbound::{Signing, broke_off};
use super::upstream::GREETING_LIMIT;
use crate::exchange::Token;
use crate::link::Link;
use crate::tokens::{RETRIES, TokenSource};
use crate::verify::TOKEN_REFUSED;

/// Why a login is refused where the other side wants a token and none is shown.
pub(super) const SIGNING_IS_OFF: &str = "sign_off";

/// Dials and authenticates; again, a few times, if the other side takes the token no longer: where tokens are refreshed
/// it knows so first, and one that was issued in that same second is too old, too.
pub(super) async fn enter(
    startup: &Startup,
    source: &TokenSource,
    mut token: Option<Arc<Token>>,
    signing: &Signing,
) -> Result<(Link, Option<Arc<Token>>), LoginError> {
    let mut tries_left = RETRIES;
    loop {
        let mut server = signing.dialer.with_identity(source.identity()).dial().await?;
        let mut out = Vec::new();
        server_startup(startup, token.is_some()).write(&mut out);
        server.send(&out).await?;
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
        let (tag, body) = server.read_message().await?;
        let mut out = Vec::new();
        match (tag, backend::read_authentication(&body), token) {
            (b'R', Some((backend::auth::OK, _)), _) => return Ok(()),
            (b'E', ..) => return Err(LoginError::Upstream(body)),
            (b'v' | b'N', ..) => continue,
            (b'R', Some((backend::auth::SASL, mechanisms)), Some(token)) if offers_oauthbearer(mechanisms) => {
                let response = sasl::initial_response(token.expose());
                frontend::sasl_initial_response(&mut out, sasl::MECHANISM, &response);
                signing.metrics.tokens_signed.inc();
            }
            // The server's reason comes as an error behind this acknowledgement (RFC 7628 §3.2.3).
            (b'R', Some((backend::auth::SASL_CONTINUE, _)), Some(_)) => frontend::sasl_response(&mut out, b"\x01"),
            (b'R', Some((backend::auth::SASL_FINAL, _)), _) => continue,
            (b'R', Some((backend::auth::CLEARTEXT, _)), Some(token)) => {
                frontend::password(&mut out, token.expose());
                signing.metrics.tokens_signed.inc();
            }
            (_, _, None) => return Err(refused(SIGNING_IS_OFF, signing_is_off(signing))),
            _ => return Err(broke_off(signing, &"it asks for a login that a token cannot answer")),
        }
        server.send(&out).await?;
    }
    Err(broke_off(signing, &"its login does not end"))
}

fn signing_is_off(signing: &Signing) -> ErrorFields {
    ErrorFields::fatal("28000", format!("sidegate: {} asks for a token", signing.target))
        .detail("Signing is switched off for this service (SIGN_AUTH_ENABLED).")
        .hint("Switch signing on.")
}

/// Reads up to the first `ReadyForQuery`; the cancel key is noted on the way.
pub(super) async fn read_greeting(
    server: &mut Link,
    greeting: &mut Vec<u8>,
    signing: &Signing,
) -> Result<Option<CancelKey>, LoginError> {
    let mut key = None;
    loop {
        let (tag, body) = server.read_message().await?;
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
