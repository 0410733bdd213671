//! Roles for PostgreSQL as an access token carries them (RFC 9396 authorization details), compiled for deciding.
//!
//! Strict: a detail that is not understood makes no role at all, as leaving a part of it out could widen it.

use identity::access::{PostgresqlDetail, Rule};

use crate::role::{Role, RoleError};

impl Role {
    /// The role that a detail of type `sidegate_postgresql` grants.
    ///
    /// # Errors
    /// A built-in role with rules of its own, a rule that is not understood.
    pub fn from_detail(detail: &PostgresqlDetail) -> Result<Role, RoleError> {
        let is_plain = detail.user.is_none() && detail.database.is_empty() && detail.rules.is_empty();
        match Role::built_in(&detail.role) {
            Some(role) if is_plain => Ok(role),
            Some(_) => Err(RoleError::BuiltInWithRules(detail.role.clone())),
            None => scoped(detail),
        }
    }
}

fn scoped(detail: &PostgresqlDetail) -> Result<Role, RoleError> {
    let parts = |rule: &'_ Rule| (rule.actions.clone(), rule.tables.clone(), rule.functions.clone());
    let rules: Vec<_> = detail.rules.iter().map(parts).collect();
    let rules: Vec<_> = rules.iter().map(|(a, t, f)| (&a[..], &t[..], &f[..])).collect();
    Role::scoped(&detail.role, detail.user.as_deref(), &detail.database, &rules)
}
