//! The login to PostgreSQL itself, as the role's database user, with what is pinned for the session.
//!
//! Deliberately absent: a strong login that steps down by `SET ROLE`. The session *is* the role's user, so that
//! PostgreSQL's own GRANTs and row-level security stand behind every decision as the second lock.

use std::io;
use std::time::Duration;

use policy::Role;
use runtime::drain::DrainWatch;
use runtime::listen::{Address, Stream};
use wire::error::field_of;
use wire::startup::{CancelKey, Startup};
use wire::{ErrorFields, backend, session::ServerAction, session::Session};

use super::authenticate::{LoginError, refused};
use super::messages::LinkError;
use crate::link::Link;
use crate::login::printable;
use crate::retry::{Retry, may_pass, may_pass_by_itself};

/// Time for PostgreSQL to take a connection, and to let a session in.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const LOGIN_TIMEOUT: Duration = Duration::from_secs(10);

/// Start-up parameters that a client may set, besides an application's own (with a dot in the name). Everything else
/// is refused: some of them change the user or the reading of SQL, and a list of the bad ones is never complete.
const ALLOWED_PARAMETERS: [&str; 21] = [
    "bytea_output",
    "check_function_bodies",
    "datestyle",
    "default_transaction_deferrable",
    "default_transaction_isolation",
    "default_transaction_read_only",
    "extra_float_digits",
    "geqo",
    "idle_in_transaction_session_timeout",
    "idle_session_timeout",
    "intervalstyle",
    "jit",
    "lc_messages",
    "lock_timeout",
    "plan_cache_mode",
    "search_path",
    "statement_timeout",
    "timezone",
    "transaction_timeout",
    "work_mem",
    "xmlbinary",
];

/// Where a role with rules looks for unqualified names; the policy reads them so.
const SCOPED_SEARCH_PATH: &str = "pg_catalog, public";

/// The longest greeting that is read, in bytes: some dozens of parameter reports and notices.
pub(super) const GREETING_LIMIT: usize = 256 << 10;

/// Longest `application_name`, in bytes (`NAMEDATALEN - 1`).
const APPLICATION_NAME_LIMIT: usize = 63;

/// Whom and what a session is for.
pub(crate) struct Identity<'a> {
    /// `None`: a session without a valid token, where verification does not enforce.
    pub(crate) role: Option<&'a Role>,
    /// The token's subject; empty without one.
    pub(crate) subject: String,
    /// `namespace/name` of the subject, for people.
    pub(crate) short_name: String,
    pub(crate) user: &'a str,
    pub(crate) database: &'a str,
}

/// A session of PostgreSQL's, ready for its first statement.
pub(crate) struct LoggedIn {
    pub(crate) link: Link,
    /// What PostgreSQL sent behind its `AuthenticationOk`, but for the cancel key: parameter reports, notices.
    pub(crate) greeting: Vec<u8>,
    pub(crate) key: CancelKey,
}

/// The start-up packet for PostgreSQL.
///
/// # Errors
/// The client asked for something that its role may not set.
pub(crate) fn startup_packet(client: &Startup, identity: &Identity<'_>) -> Result<Startup, LoginError> {
    let mut parameters = vec![
        ("user".to_owned(), identity.user.to_owned()),
        ("database".to_owned(), identity.database.to_owned()),
        ("application_name".to_owned(), application_name(client.get("application_name"), &identity.short_name)),
        ("client_encoding".to_owned(), "UTF8".to_owned()),
        ("standard_conforming_strings".to_owned(), "on".to_owned()),
        ("sidegate.sub".to_owned(), identity.subject.clone()),
    ];
    for (name, value) in &client.parameters {
        if let Some(parameter) = passed_on(name, value, identity)? {
            parameters.push(parameter);
        }
    }
    let mut pin = |pinned: &str, value: &str| {
        parameters.retain(|(name, _)| !name.eq_ignore_ascii_case(pinned));
        parameters.push((pinned.to_owned(), value.to_owned()));
    };
    if identity.role.is_some_and(Role::is_read_only) {
        pin("default_transaction_read_only", "on");
    }
    // A start-up value outranks those of roles and databases: an unqualified name means what was decided.
    if identity.role.is_some_and(Role::is_scoped) {
        pin("search_path", SCOPED_SEARCH_PATH);
    }
    Ok(Startup { minor: 0, parameters })
}

/// One of the client's parameters as PostgreSQL is to see it; `None` where it is dealt with here.
fn passed_on(name: &str, value: &str, identity: &Identity<'_>) -> Result<Option<(String, String)>, LoginError> {
    let folded = name.to_ascii_lowercase();
    match folded.as_str() {
        "user" | "database" | "application_name" => Ok(None),
        "client_encoding" => encoding(value).map(|()| None),
        "standard_conforming_strings" if value.eq_ignore_ascii_case("on") => Ok(None),
        "options" if value.trim().is_empty() => Ok(None),
        "replication" if matches!(value, "false" | "off" | "no" | "0") => Ok(None),
        folded if folded.starts_with("_pq_.") => Ok(None),
        folded if is_allowed(folded, value, identity) => Ok(Some((name.to_owned(), value.to_owned()))),
        _ => Err(refused("startup_parameter", parameter_refused(name))),
    }
}

fn is_allowed(folded: &str, value: &str, identity: &Identity<'_>) -> bool {
    let is_own = folded.contains('.') && !folded.starts_with("sidegate.");
    if !is_own && !ALLOWED_PARAMETERS.contains(&folded) {
        return false;
    }
    identity.role.is_none_or(|role| matches!(policy::decide_setting(role, folded, value), policy::Verdict::Allow(_)))
}

fn parameter_refused(name: &str) -> ErrorFields {
    let name = printable(name);
    ErrorFields::fatal("42501", format!("sidegate: the start-up parameter \"{name}\" is not allowed"))
        .detail("Start-up parameters can change who a session is or how its SQL is read, so only known ones pass.")
        .hint("Remove it from the connection settings, or SET it after connecting.")
}

/// The session's encoding is UTF8. `SQL_ASCII` is what clients in the C locale ask for: they want bytes as they are.
fn encoding(value: &str) -> Result<(), LoginError> {
    let plain: String = value.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase();
    if matches!(plain.as_str(), "utf8" | "unicode" | "sqlascii" | "") {
        return Ok(());
    }
    let fields =
        ErrorFields::fatal("0A000", format!("sidegate: client_encoding \"{}\" is not supported", printable(value)))
            .detail("The encoding is UTF8 for the whole session, so that Sidegate and PostgreSQL read the same text.")
            .hint("Set PGCLIENTENCODING=UTF8, or the driver's equivalent.");
    Err(refused("startup_parameter", fields))
}

/// The caller's name, then what the application calls itself.
fn application_name(own: Option<&str>, caller: &str) -> String {
    let name = match own.filter(|own| !own.is_empty()) {
        Some(own) if caller.is_empty() => own.to_owned(),
        Some(own) => format!("{caller} {own}"),
        None => caller.to_owned(),
    };
    let end = (0..=APPLICATION_NAME_LIMIT).rev().find(|&end| name.is_char_boundary(end)).unwrap_or(0);
    name.get(..end).unwrap_or_default().to_owned()
}

/// Connects to PostgreSQL. Cancel safe: the connection is dropped.
pub(crate) async fn connect(address: &Address) -> io::Result<Stream> {
    tokio::time::timeout(CONNECT_TIMEOUT, Stream::connect(address))
        .await
        .unwrap_or_else(|_| Err(too_slow(CONNECT_TIMEOUT)))
}

fn too_slow(limit: Duration) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, format!("no answer in {} s", limit.as_secs()))
}

/// Why there is no session of PostgreSQL's.
enum Failure {
    Unreachable(io::Error),
    BrokeOff(LinkError),
    Refused(LoginError),
}

impl From<LoginError> for Failure {
    fn from(error: LoginError) -> Self {
        Failure::Refused(error)
    }
}

impl Failure {
    fn may_pass(&self) -> bool {
        match self {
            Failure::Unreachable(error) | Failure::BrokeOff(LinkError::Io(error)) => may_pass(error),
            Failure::Refused(LoginError::Upstream(body)) => may_pass_by_itself(field_of(body, b'C')),
            Failure::BrokeOff(LinkError::Wire(_)) | Failure::Refused(_) => false,
        }
    }

    fn told(self) -> LoginError {
        let fields = match self {
            Failure::Refused(error) => return error,
            Failure::Unreachable(error) => ErrorFields::fatal("08006", "sidegate: cannot reach PostgreSQL")
                .detail(error.to_string())
                .hint("PostgreSQL may be starting or stopped; its own log says."),
            Failure::BrokeOff(error) => {
                ErrorFields::fatal("08006", "sidegate: PostgreSQL closed the connection during the login")
                    .detail(error.to_string())
            }
        };
        refused("upstream", fields)
    }
}

/// Connects and logs in. As long as PostgreSQL is starting, stopping or not there, it is waited for, but for no longer than
/// `patience`, and not by a sidecar that is to end. Cancel safe: the connection is dropped.
///
/// # Errors
/// PostgreSQL refused, in its own words; it is not there; or it wants what a sidecar has not.
pub(crate) async fn enter(
    address: &Address,
    startup: &Startup,
    patience: Duration,
    drain: &DrainWatch,
) -> Result<LoggedIn, LoginError> {
    let mut retry = Retry::within(patience);
    loop {
        let entered = tokio::time::timeout(LOGIN_TIMEOUT, try_to_enter(address, startup)).await;
        let failure = match entered.unwrap_or_else(|_| Err(Failure::Unreachable(too_slow(LOGIN_TIMEOUT)))) {
            Ok(logged_in) => return Ok(logged_in),
            Err(failure) => failure,
        };
        let is_waited_for = failure.may_pass()
            && tokio::select! {
                biased;
                () = drain.draining() => return Err(shutting_down()),
                again = retry.again() => again,
            };
        if !is_waited_for {
            return Err(failure.told());
        }
    }
}

/// What is said to whoever comes too late.
pub(super) fn shutting_down() -> LoginError {
    refused("draining", ErrorFields::fatal("57P03", "sidegate: the sidecar is shutting down"))
}

/// Connects, logs in and reads up to PostgreSQL's first `ReadyForQuery`.
async fn try_to_enter(address: &Address, startup: &Startup) -> Result<LoggedIn, Failure> {
    let mut link = Link::Plain(connect(address).await.map_err(Failure::Unreachable)?);
    let mut out = Vec::new();
    startup.write(&mut out);
    link.send(&out).await.map_err(|error| Failure::BrokeOff(error.into()))?;
    let mut greeting = Vec::new();
    let mut key = None;
    loop {
        let (tag, body) = link.read_message().await.map_err(Failure::BrokeOff)?;
        match tag {
            b'R' => check_authentication(&body)?,
            b'E' => return Err(LoginError::Upstream(body).into()),
            b'K' => key = backend::read_backend_key_data(&body),
            b'S' => {
                check_parameter(&body)?;
                wire::frame::put(&mut greeting, tag, |out| out.extend_from_slice(&body));
            }
            b'N' => wire::frame::put(&mut greeting, tag, |out| out.extend_from_slice(&body)),
            b'v' => {}
            b'Z' => break,
            _ => return Err(unexpected(&format!("a message of type {tag:#04x}")).into()),
        }
        if greeting.len() > GREETING_LIMIT {
            return Err(unexpected("a greeting without end").into());
        }
    }
    let key = key.ok_or_else(|| unexpected("no cancel key"))?;
    Ok(LoggedIn { link, greeting, key })
}

fn check_authentication(body: &[u8]) -> Result<(), LoginError> {
    match backend::read_authentication(body) {
        Some((backend::auth::OK, _)) => Ok(()),
        _ => {
            let fields = ErrorFields::fatal("28000", "sidegate: PostgreSQL asks its sidecar for a password")
                .detail("Sidegate logs in over the Unix socket as the role's user and has no passwords.")
                .hint("Give that user `trust` or `peer` (with a map) for local connections in pg_hba.conf.");
            Err(refused("upstream", fields))
        }
    }
}

fn check_parameter(body: &[u8]) -> Result<(), LoginError> {
    let header = wire::frame::Header { tag: b'S', body: body.len() };
    match Session::<()>::default().received(header, body)? {
        // Nothing that passes by itself, as a shutdown would.
        ServerAction::UnsafeSetting { name } => {
            Err(refused("unsafe_setting", ErrorFields { code: "55000", ..unsafe_setting(name) }))
        }
        _ => Ok(()),
    }
}

/// Why a session ends when PostgreSQL reports that its text may be read otherwise than Sidegate reads it.
pub(super) fn unsafe_setting(name: &str) -> ErrorFields {
    ErrorFields::fatal("57P01", format!("sidegate: the session's {name} has changed"))
        .detail("Sidegate and PostgreSQL would no longer read the same text, so the session ends.")
        .hint(format!("Leave {name} as it is; look for ALTER ROLE, ALTER DATABASE or a function that sets it."))
}

fn unexpected(what: &str) -> LoginError {
    refused("upstream", ErrorFields::fatal("08P01", format!("sidegate: PostgreSQL answered the login with {what}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(role: &str, parameters: &[(&str, &str)]) -> Result<Startup, LoginError> {
        let role = Role::built_in(role);
        let parameters = parameters.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        let identity = Identity {
            role: role.as_ref(),
            subject: "system:serviceaccount:a:a".to_owned(),
            short_name: "a/a".to_owned(),
            user: "u",
            database: "d",
        };
        startup_packet(&Startup { minor: 0, parameters }, &identity)
    }

    #[test]
    fn harmful_parameters_are_refused() {
        for (name, value) in [
            ("options", "-c role=postgres"),
            ("replication", "database"),
            ("replication", "true"),
            ("role", "postgres"),
            ("session_authorization", "postgres"),
            ("sidegate.sub", "me"),
            ("SIDEGATE.Sub", "me"),
            ("standard_conforming_strings", "off"),
            ("client_encoding", "SJIS"),
            ("session_preload_libraries", "x"),
            ("default_transaction_read_only", "off"),
        ] {
            assert!(packet("reader", &[(name, value)]).is_err(), "{name}={value}");
        }
    }

    #[test]
    fn drivers_parameters_pass() {
        for (name, value) in [
            ("DateStyle", "ISO"),
            ("TimeZone", "Europe/Berlin"),
            ("extra_float_digits", "2"),
            ("client_encoding", "'utf-8'"),
            ("application_name", "psql"),
            ("app.tenant", "acme"),
            ("_pq_.something", "1"),
            ("options", ""),
        ] {
            assert!(packet("reader", &[(name, value)]).is_ok(), "{name}={value}");
        }
    }

    #[test]
    fn a_reader_is_read_only_and_named() {
        let Ok(packet) = packet("reader", &[("application_name", "psql"), ("user", "x")]) else { panic!() };
        assert_eq!(packet.get("default_transaction_read_only"), Some("on"));
        assert_eq!(packet.get("application_name"), Some("a/a psql"));
        assert_eq!(packet.get("user"), Some("u"));
        assert_eq!(packet.get("sidegate.sub"), Some("system:serviceaccount:a:a"));
    }
}
