//! What a caller enters as: the role, the database and PostgreSQL's own login, and the record of who was refused.
//!
//! Both ways in, the native protocol and `POST /query`, come through here, so that a role is chosen and a login found
//! by one rule. Deliberately absent: bytes on a wire, and statements.

use std::sync::Arc;
use std::time::Instant;

use identity::ServiceName;
use identity::access::AccessToken;
use policy::Role;
use runtime::settings::{Settings, Verify};
use wire::ErrorFields;

use crate::audit::{Audit, Caller, Decision, Needs, new_decision_id};
use crate::config::Postgres;
use crate::link::Peer;
use crate::verify::{Credential, Failure};

/// A refusal: what the client is told, and the label it is counted under.
pub(crate) struct Refusal {
    pub(crate) fields: Box<ErrorFields>,
    pub(crate) reason: &'static str,
    /// The decision's id, once it was recorded.
    pub(crate) decision: Option<String>,
}

impl Refusal {
    pub(crate) fn new(reason: &'static str, fields: ErrorFields) -> Refusal {
        Refusal { fields: Box::new(fields), reason, decision: None }
    }
}

impl From<&Failure> for Refusal {
    fn from(failure: &Failure) -> Refusal {
        let (message, detail, hint) = failure.words();
        Refusal::new(failure.label(), ErrorFields::fatal("28000", message).detail(detail).hint(hint))
    }
}

/// What all logins of a listener depend on.
pub(crate) struct Logins {
    pub(crate) service: ServiceName,
    pub(crate) postgres: Postgres,
    /// Where neither the client nor the role says which database; none: that of the login's name, as PostgreSQL has it.
    pub(crate) database: Option<String>,
    pub(crate) audit: Audit,
}

/// Who a client is, as far as it has shown.
#[derive(Clone, Copy, Default)]
pub(crate) struct Who<'a> {
    pub(crate) credential: Option<&'a Credential>,
    /// By its certificate. That opens nothing, but tells whose the traffic is where nothing is enforced.
    pub(crate) peer: Option<&'a Peer>,
}

/// What a client asks for.
pub(crate) struct Wanted<'a> {
    pub(crate) role: &'a str,
    pub(crate) database: Option<&'a str>,
}

/// What a caller enters as.
pub(crate) struct Login {
    /// `None`: without a valid token, where verification does not enforce.
    pub(crate) role: Option<Arc<Role>>,
    pub(crate) user: String,
    pub(crate) database: String,
    pub(crate) caller: Arc<Caller>,
    /// It is let in only because nothing is enforced.
    pub(crate) tolerated: bool,
}

impl Logins {
    /// Chooses role, database and PostgreSQL's login. A refusal has been recorded, and bears the decision's id.
    ///
    /// # Errors
    /// Why the caller does not get in.
    pub(crate) fn choose(
        &self,
        who: Who<'_>,
        wanted: &Wanted<'_>,
        settings: &Settings,
        started: Instant,
    ) -> Result<Login, Refusal> {
        let (role, failure) = match who.credential.map(|credential| choose_role(credential, wanted.role)) {
            Some(Ok(role)) => (Some(role), None),
            Some(Err(failure)) => (None, Some(failure)),
            None => (None, None),
        };
        let user = match &role {
            Some(role) => self.database_login(role),
            None => self.unverified_login(),
        };
        let database = self.database(wanted.database, role.as_deref(), user.as_deref().unwrap_or_default());
        let caller = self.caller(who, role.as_deref(), user.as_deref().ok(), &database);
        let failure = failure.or_else(|| role.as_deref().and_then(|role| wrong_database(role, &database)));
        let tolerated = role.is_none() || failure.is_some();
        if let Some(failure) = failure {
            let refusal = self.refused(&caller, settings, failure, started);
            if settings.verify == Verify::Enforce {
                return Err(refusal);
            }
        }
        let user = user.map_err(|failure| self.refused(&caller, settings, failure, started))?;
        Ok(Login { role, user, database, caller, tolerated })
    }

    /// The role of a session that goes on with a fresh token: that of the same name, if what the session was begun with
    /// is right for it, too.
    ///
    /// # Errors
    /// Why the session may not go on.
    pub(crate) fn same_role(
        &self,
        credential: &Credential,
        role: &Role,
        login: &Login,
    ) -> Result<Arc<Role>, ErrorFields> {
        let name = role.name();
        let ended = |why: &str| {
            let message = format!("sidegate: the session's role {name} is no longer what it was");
            ErrorFields::fatal("57P01", message).detail(why).hint("Reconnect.")
        };
        let granted = credential.postgres_roles().map_err(|error| ended(&error.to_string()))?;
        let fresh = granted.iter().find(|fresh| fresh.name() == name).ok_or_else(|| ended("It was withdrawn."))?;
        let user = self.database_login(fresh).map_err(|refusal| *refusal.fields)?;
        if user != login.user {
            return Err(ended("Its database login is another one."));
        }
        if wrong_database(fresh, &login.database).is_some() {
            return Err(ended("It does not open this database any more."));
        }
        // Both are pinned in PostgreSQL when a session begins.
        if (fresh.is_read_only(), fresh.is_scoped()) != (role.is_read_only(), role.is_scoped()) {
            return Err(ended("It is of another kind."));
        }
        Ok(fresh.clone())
    }

    /// Records that somebody was let in.
    pub(crate) fn entered(&self, login: &Login, settings: &Settings, started: Instant) {
        if !login.tolerated || login.role.is_none() {
            let reason = if login.role.is_some() { "allowed" } else { "unverified" };
            self.record(&login.caller, settings, (true, reason), started);
        }
    }

    /// Records a refusal, whose detail gets the decision's id.
    pub(crate) fn refused(
        &self,
        caller: &Arc<Caller>,
        settings: &Settings,
        refusal: Refusal,
        started: Instant,
    ) -> Refusal {
        let id = self.record(caller, settings, (false, refusal.reason), started);
        let detail = refusal.fields.detail.clone().map(|detail| detail + " ").unwrap_or_default();
        let fields = Box::new(refusal.fields.detail(format!("{detail}Decision {id}.")));
        Refusal { fields, reason: refusal.reason, decision: Some(id) }
    }

    /// The caller as records name it; an empty database is one that is not known.
    pub(crate) fn caller(&self, who: Who<'_>, role: Option<&Role>, user: Option<&str>, database: &str) -> Arc<Caller> {
        let token = who.credential.map(|credential| &credential.token);
        let by_certificate = || Some(who.peer?.subject()?.to_string());
        Arc::new(Caller {
            subject: token.map(|token| token.subject().to_string()).or_else(by_certificate),
            act: token.and_then(AccessToken::actor).map(ToOwned::to_owned),
            service: self.service.to_string().into(),
            role: role.map(|role| role.name().to_owned()),
            user: user.map(ToOwned::to_owned),
            database: Some(printable(database)).filter(|name| !name.is_empty()),
        })
    }

    /// Records a decision on a login, and gives its id.
    pub(crate) fn record(
        &self,
        caller: &Arc<Caller>,
        settings: &Settings,
        (allowed, reason): (bool, &'static str),
        started: Instant,
    ) -> String {
        let id = new_decision_id();
        let decision = Decision {
            id: &id,
            allowed,
            mode: settings.verify,
            action: "connect",
            reason,
            rule: None,
            role: None,
            needs: Needs::Login,
            started,
        };
        self.audit.record(caller, decision);
        id
    }

    /// The database login of a role: its own, or the one configured here for a built-in role.
    fn database_login(&self, role: &Role) -> Result<String, Refusal> {
        let configured = || self.postgres.users.get(role.name()).map(String::as_str);
        role.user().or_else(configured).map(ToOwned::to_owned).ok_or_else(|| {
            let name = role.name();
            let message = format!("sidegate: no database login is configured for role {name}");
            let fields = ErrorFields::fatal("28000", message)
                .hint(format!("Set postgres.users.{name} in the configuration of the database's sidecar."));
            Refusal::new("no_database_login", fields)
        })
    }

    fn unverified_login(&self) -> Result<String, Refusal> {
        self.postgres.unverified_user.clone().ok_or_else(|| {
            let fields = ErrorFields::fatal("28000", "sidegate: no valid token, and no login for sessions without one")
                .detail("Verification is not enforced here, but the sidecar has no postgres.unverified_user.")
                .hint("Show a token, or set postgres.unverified_user in the sidecar's configuration.");
            Refusal::new("no_unverified_user", fields)
        })
    }

    /// The database asked for; else the role's only one; else the configured one; else, as PostgreSQL has it, that of
    /// the login's name.
    fn database(&self, wanted: Option<&str>, role: Option<&Role>, user: &str) -> String {
        match (wanted.filter(|name| !name.is_empty()), role.map(Role::databases), &self.database) {
            (Some(name), ..) => name.to_owned(),
            (None, Some([only]), _) => only.clone(),
            (None, _, Some(configured)) => configured.clone(),
            _ => user.to_owned(),
        }
    }
}

/// The role that a session runs under: the granted one of the name that the client asks for, or the only one.
///
/// # Errors
/// A role that is not understood here makes the whole token unusable; none or several that fit are refused.
fn choose_role(credential: &Credential, wanted: &str) -> Result<Arc<Role>, Refusal> {
    let roles = credential.postgres_roles().map_err(|error| {
        let fields = ErrorFields::fatal("28000", "sidegate: the token's roles are not understood")
            .detail(error.to_string())
            .hint("The issuer is newer than this sidecar: update the sidecar.");
        Refusal::new("role_not_understood", fields)
    })?;
    let chosen = match roles {
        [only] => Some(only),
        several => several.iter().find(|role| role.name() == wanted),
    };
    chosen.cloned().ok_or_else(|| Refusal::new("role_not_granted", not_granted(credential, wanted, roles)))
}

fn not_granted(credential: &Credential, wanted: &str, roles: &[Arc<Role>]) -> ErrorFields {
    let subject = credential.token.subject();
    let message = format!("sidegate: role \"{}\" is not granted to {subject}", printable(wanted));
    let fields = ErrorFields::fatal("28000", message);
    if roles.is_empty() {
        return fields.detail("No role for PostgreSQL is granted.").hint("Ask for an AccessGrant.");
    }
    let names: Vec<_> = roles.iter().map(|role| role.name()).collect();
    fields.detail(format!("Granted roles: {}.", names.join(", "))).hint("Log in with one of them as the user name.")
}

fn wrong_database(role: &Role, database: &str) -> Option<Refusal> {
    let allowed = role.databases();
    if allowed.is_empty() || allowed.iter().any(|name| name == database) {
        return None;
    }
    let name = printable(database);
    let message = format!("sidegate: {} may not connect to database \"{name}\"", role.name());
    let fields = ErrorFields::fatal("42501", message).hint(format!("The role is for {}.", allowed.join(", ")));
    Some(Refusal::new("database", fields))
}

/// A client's own words, fit for a message.
pub(crate) fn printable(text: &str) -> String {
    text.chars().take(64).map(|c| if c.is_control() { '?' } else { c }).collect()
}
