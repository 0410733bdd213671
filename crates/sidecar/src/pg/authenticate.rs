//! Who calls: asking for the token, verifying it, choosing the role.
//!
//! A token comes by SASL `OAUTHBEARER` from another sidecar, or from a client that can speak it, and as the password
//! from everyone else. Where verification does not enforce, a plain client is not asked, as it may have nothing to
//! answer and nobody is to fail who would have got in without Sidegate.

use std::sync::Arc;

use identity::access::{AccessToken, AuthorizationDetail, Expected, PostgresqlDetail};
use identity::{UnixTime, UnverifiedToken};
use policy::Role;
use runtime::settings::{Settings, Verify};
use wire::frame::split_cstr;
use wire::startup::{SIDEGATE_OPTION, Startup};
use wire::{ErrorFields, WireError, backend, frontend, sasl};

use super::inbound::Listening;
use super::link::{Link, LinkError};
use crate::config::Authentication;

/// Why a login ends.
pub(super) enum LoginError {
    /// The client is told `fields`; `reason` is the label it is counted under.
    Refused { fields: ErrorFields, reason: &'static str },
    /// PostgreSQL refused, in its own words: the body of its `ErrorResponse`.
    Upstream(Vec<u8>),
    /// The client is gone or out of step.
    Link(LinkError),
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
    LoginError::Refused { fields, reason }
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
) -> Result<Option<AccessToken>, LoginError> {
    let enforcing = settings.verify == Verify::Enforce;
    let token = match way(startup, listening, enforcing)? {
        Way::OAuthBearer => ask_oauthbearer(link, listening).await?,
        Way::Password => ask_password(link).await?,
        Way::None => None,
    };
    let result = match token {
        Some(token) => verify(listening, settings, &token).await,
        None => Err(no_token()),
    };
    match result {
        Ok(token) => Ok(Some(token)),
        Err(error) if enforcing => Err(error),
        Err(_) => Ok(None),
    }
}

fn no_token() -> LoginError {
    let fields = ErrorFields::fatal("28000", "sidegate: no token")
        .detail("This database is entered with an access token, and none was shown.")
        .hint("Connect through the sidecar of your own service, or give an access token as the password.");
    refused("no_token", fields)
}

fn way(startup: &Startup, listening: &Listening, enforcing: bool) -> Result<Way, LoginError> {
    match startup.get(SIDEGATE_OPTION) {
        Some("oauthbearer") => return Ok(Way::OAuthBearer),
        Some("none") => return Ok(Way::None),
        Some(_) => return Err(WireError::Malformed("start-up packet: _pq_.sidegate").into()),
        None => {}
    }
    // Without a login for the unverified, the only way in is a token, so it is asked for even when nothing is enforced.
    if !enforcing && listening.postgres.unverified_user.is_some() {
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
    let discovery = format!("{}/.well-known/openid-configuration", listening.issuer);
    let mut out = Vec::new();
    backend::authentication_sasl_continue(&mut out, &sasl::error_challenge(&discovery));
    link.send(&out).await?;
    match link.read_message().await? {
        (b'p', body) if body == b"\x01" => Ok(()),
        (tag, _) => Err(WireError::Unexpected { tag, place: "behind a failed SASL exchange" }.into()),
    }
}

async fn verify(listening: &Listening, settings: &Settings, text: &str) -> Result<AccessToken, LoginError> {
    let token = UnverifiedToken::new(text.to_owned());
    let metrics = &listening.audit.metrics;
    let mut result = verify_once(listening, settings, &token);
    if matches!(&result, Err(Failure::NoKeys | Failure::Token(identity::TokenError::UnknownKey { .. }))) {
        listening.keys.refresh().await;
        result = verify_once(listening, settings, &token);
    }
    result.inspect(|_| metrics.verified("ok")).map_err(|failure| {
        metrics.verified(failure.label());
        refused(failure.label(), failure.fields())
    })
}

enum Failure {
    NoKeys,
    Token(identity::TokenError),
}

impl Failure {
    fn label(&self) -> &'static str {
        match self {
            Failure::NoKeys => "no_keys",
            Failure::Token(error) => error.label(),
        }
    }

    fn fields(&self) -> ErrorFields {
        match self {
            Failure::NoKeys => ErrorFields::fatal("28000", "sidegate: the token cannot be verified")
                .detail("The issuer's keys are not known here yet.")
                .hint("The issuer must be within reach of the database's sidecar once; then try again."),
            Failure::Token(error) => ErrorFields::fatal("28000", "sidegate: the token was refused")
                .detail(error.to_string())
                .hint("Obtain a token for this service from its issuer."),
        }
    }
}

fn verify_once(listening: &Listening, settings: &Settings, token: &UnverifiedToken) -> Result<AccessToken, Failure> {
    let fetched = listening.keys.known().ok_or(Failure::NoKeys)?;
    let expected = Expected {
        issuer: &listening.issuer,
        audience: &listening.service,
        not_before: settings.tokens_not_before.map(UnixTime),
    };
    identity::access::verify(token, &fetched.keys, &expected, UnixTime(runtime::clock::now())).map_err(Failure::Token)
}

/// The role that a session runs under: the granted one of the name that the client logs in with, or the only one.
///
/// # Errors
/// A role that is not understood here makes the whole token unusable; none or several that fit are refused.
pub(super) fn choose_role(token: &AccessToken, wanted: &str) -> Result<Arc<Role>, LoginError> {
    let details = token.details().iter().filter_map(|detail| match detail {
        AuthorizationDetail::Postgresql(detail) => Some(detail),
        AuthorizationDetail::Http(_) => None,
    });
    let compile = |detail: &PostgresqlDetail| {
        Role::from_detail(detail).map_err(|error| {
            let fields = ErrorFields::fatal("28000", "sidegate: the token's roles are not understood")
                .detail(error.to_string())
                .hint("The issuer is newer than this sidecar: update the sidecar.");
            refused("role_not_understood", fields)
        })
    };
    let roles = details.map(compile).collect::<Result<Vec<Role>, _>>()?;
    let names: Vec<String> = roles.iter().map(|role| role.name().to_owned()).collect();
    let only = roles.len() == 1;
    let chosen = roles.into_iter().find(|role| only || role.name() == wanted);
    chosen.map(Arc::new).ok_or_else(|| refused("role_not_granted", not_granted(token, wanted, &names)))
}

fn not_granted(token: &AccessToken, wanted: &str, names: &[String]) -> ErrorFields {
    let fields = ErrorFields::fatal(
        "28000",
        format!("sidegate: role \"{}\" is not granted to {}", printable(wanted), token.subject()),
    );
    if names.is_empty() {
        return fields.detail("No role for PostgreSQL is granted.").hint("Ask for an AccessGrant.");
    }
    fields.detail(format!("Granted roles: {}.", names.join(", "))).hint("Log in with one of them as the user name.")
}

/// A client's own words, fit for a message.
pub(super) fn printable(text: &str) -> String {
    text.chars().take(64).map(|c| if c.is_control() { '?' } else { c }).collect()
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
