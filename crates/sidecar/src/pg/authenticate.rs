//! Who calls: asking for the token and having it verified.
//!
//! A token comes by SASL `OAUTHBEARER` from another sidecar, or from a client that can speak it, and as the password
//! from everyone else. Where verification does not enforce, a plain client is not asked, as it may have nothing to
//! answer and nobody is to fail who would have got in without Sidegate.

use std::sync::Arc;

use runtime::settings::{Settings, Verify};
use wire::frame::split_cstr;
use wire::startup::{SIDEGATE_OPTION, Startup};
use wire::{ErrorFields, WireError, backend, frontend, sasl};

use super::inbound::Listening;
use super::messages::LinkError;
use crate::config::Authentication;
use crate::link::Link;
use crate::login::Refusal;
use crate::verify::Credential;

/// Why a login ends.
pub(crate) enum LoginError {
    /// The client is told.
    Refused(Refusal),
    /// PostgreSQL refused, in its own words: the body of its `ErrorResponse`.
    Upstream(Vec<u8>),
    /// The client is gone or out of step.
    Link(LinkError),
}

impl From<Refusal> for LoginError {
    fn from(refusal: Refusal) -> Self {
        LoginError::Refused(refusal)
    }
}

impl From<LinkError> for LoginError {
    fn from(error: LinkError) -> Self {
        LoginError::Link(error)
    }
}

impl From<std::io::Error> for LoginError {
    fn from(error: std::io::Error) -> Self {
        LoginError::Link(error.into())
    }
}

impl From<WireError> for LoginError {
    fn from(error: WireError) -> Self {
        LoginError::Link(error.into())
    }
}

pub(super) fn refused(reason: &'static str, fields: ErrorFields) -> LoginError {
    Refusal::new(reason, fields).into()
}

/// How this client shows a token.
enum Way {
    OAuthBearer,
    Password,
    /// It has none to show, or is not asked.
    None,
}

/// Asks for a token and verifies it. `Ok(None)`: no valid token, and none is needed. Not cancel safe.
pub(super) async fn authenticate(
    link: &mut Link,
    startup: &Startup,
    listening: &Listening,
    settings: &Settings,
) -> Result<Option<Arc<Credential>>, LoginError> {
    let enforcing = settings.verify == Verify::Enforce;
    let token = match way(startup, listening, enforcing)? {
        Way::OAuthBearer => ask_oauthbearer(link, listening).await?,
        Way::Password => ask_password(link).await?,
        Way::None => None,
    };
    let result = match token {
        Some(token) => {
            let verified = listening.verifier.verify(settings, &token, link.peer().as_ref()).await;
            verified.map_err(|failure| Refusal::from(&failure))
        }
        None => Err(no_token()),
    };
    match result {
        Ok(credential) => Ok(Some(credential)),
        Err(refusal) if enforcing => Err(refusal.into()),
        Err(_) => Ok(None),
    }
}

fn no_token() -> Refusal {
    let fields = ErrorFields::fatal("28000", "sidegate: no token")
        .detail("This database is entered with an access token, and none was shown.")
        .hint("Connect through the sidecar of your own service, or give an access token as the password.");
    Refusal::new("no_token", fields)
}

fn way(startup: &Startup, listening: &Listening, enforcing: bool) -> Result<Way, LoginError> {
    match startup.get(SIDEGATE_OPTION) {
        Some("oauthbearer") => return Ok(Way::OAuthBearer),
        Some("none") => return Ok(Way::None),
        Some(_) => return Err(WireError::Malformed("start-up packet: _pq_.sidegate").into()),
        None => {}
    }
    // Without a login for the unverified, the only way in is a token, so it is asked for even when nothing is enforced.
    if !enforcing && listening.logins.postgres.unverified_user.is_some() {
        return Ok(Way::None);
    }
    Ok(match listening.authentication {
        Authentication::OAuthBearer => Way::OAuthBearer,
        Authentication::Password => Way::Password,
    })
}

async fn ask_password(link: &mut Link) -> Result<Option<String>, LoginError> {
    let mut out = Vec::new();
    backend::authentication(&mut out, backend::auth::CLEARTEXT);
    link.send(&out).await?;
    let (tag, body) = link.read_message().await?;
    if tag != b'p' {
        return Err(WireError::Unexpected { tag, place: "in place of a password" }.into());
    }
    let password = frontend::read_password(&body)?.trim();
    Ok(Some(password).filter(|password| !password.is_empty()).map(ToOwned::to_owned))
}

async fn ask_oauthbearer(link: &mut Link, listening: &Listening) -> Result<Option<String>, LoginError> {
    let mut out = Vec::new();
    backend::authentication_sasl(&mut out, sasl::MECHANISM);
    link.send(&out).await?;
    let (tag, body) = link.read_message().await?;
    if tag != b'p' {
        return Err(WireError::Unexpected { tag, place: "in place of a SASL response" }.into());
    }
    let (mechanism, data) = frontend::read_sasl_initial_response(&body)?;
    if mechanism != sasl::MECHANISM.as_bytes() {
        return Err(WireError::Malformed("SASLInitialResponse message: only OAUTHBEARER was offered").into());
    }
    match sasl::read_initial(data.unwrap_or_default())? {
        sasl::Initial::Token(token) => Ok(Some(token.to_owned())),
        sasl::Initial::Discovery => {
            challenge(link, listening).await?;
            Ok(None)
        }
    }
}

/// Tells the client where tokens come from (RFC 7628 §4.3) and waits for its acknowledgement.
async fn challenge(link: &mut Link, listening: &Listening) -> Result<(), LoginError> {
    let discovery = format!("{}/.well-known/openid-configuration", listening.verifier.issuer());
    let mut out = Vec::new();
    backend::authentication_sasl_continue(&mut out, &sasl::error_challenge(&discovery));
    link.send(&out).await?;
    match link.read_message().await? {
        (b'p', body) if body == b"\x01" => Ok(()),
        (tag, _) => Err(WireError::Unexpected { tag, place: "behind a failed SASL exchange" }.into()),
    }
}

/// The kind of an authentication request and what follows it.
pub(super) fn offers_oauthbearer(mechanisms: &[u8]) -> bool {
    let mut rest = mechanisms;
    while let Some((name, after)) = split_cstr(rest).filter(|(name, _)| !name.is_empty()) {
        if name == sasl::MECHANISM.as_bytes() {
            return true;
        }
        rest = after;
    }
    false
}
