//! Relations by name: PostgreSQL's own, temporary ones, and the user's, with who may do what to them.
//!
//! Absent: common table expressions, which are no relations (`walker`).

use pg_query::protobuf as pb;

use super::names;
use super::walker::Walker;
use crate::facts::{Action, Object, Opens};
use crate::role::Level;

/// TOAST tables of the catalogs that only admin reads: pg_authid, pg_user_mapping, pg_statistic,
/// pg_statistic_ext_data, pg_subscription.
const SECRET_TOAST: [&str; 5] = ["pg_toast_1260", "pg_toast_1418", "pg_toast_2619", "pg_toast_3429", "pg_toast_6100"];

/// A view that PostgreSQL grants to nobody: it shows the options of user mappings.
const SECRET_VIEW: &str = "_pg_user_mappings";

/// What a relation's name says it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// `pg_catalog`'s or `information_schema`'s, and the level that may read it, if any is needed.
    Catalog(names::Readers),
    /// TOAST: rows of other relations.
    Toast(Level),
    /// Temporary, by its schema.
    Temporary,
    /// Any other. `false` if an unqualified name looks like PostgreSQL's own.
    User(bool),
}

/// The kind of a relation from its schema, empty if unqualified, and name.
pub(super) fn kind(schema: &str, name: &str) -> Kind {
    let toast = if SECRET_TOAST.contains(&name) { Level::Admin } else { Level::Reader };
    match schema {
        "" if SECRET_TOAST.contains(&name) => Kind::Toast(toast),
        "" => match names::relation(name) {
            Some(readers) => Kind::Catalog(readers),
            None if name == SECRET_VIEW => Kind::Catalog(Some(Level::Admin)),
            None => Kind::User(!name.starts_with("pg_")),
        },
        // A name that is not in the list is a later release's: it may hold anything.
        "pg_catalog" => Kind::Catalog(names::relation(name).unwrap_or(Some(Level::Admin))),
        "information_schema" => Kind::Catalog((name == SECRET_VIEW).then_some(Level::Admin)),
        _ if is_temporary(schema) => Kind::Temporary,
        _ if schema.starts_with("pg_toast") => Kind::Toast(toast),
        _ => Kind::User(true),
    }
}

/// Whether a schema holds temporary objects.
pub(super) fn is_temporary(schema: &str) -> bool {
    schema == "pg_temp" || schema.starts_with("pg_temp_")
}

/// Whether a schema is PostgreSQL's own.
pub(super) fn is_system(schema: &str) -> bool {
    matches!(schema, "pg_catalog" | "information_schema") || schema.starts_with("pg_toast")
}

/// Who may do this to a relation of this kind.
fn opens(action: Action, kind: Kind) -> Opens {
    match (action, kind) {
        (Action::Select, Kind::Catalog(None)) => Opens::Everyone,
        (Action::Select, Kind::Catalog(Some(least)) | Kind::Toast(least)) => Opens::Level(least),
        (Action::Select, Kind::Temporary) => Opens::Level(Level::Reader),
        (_, Kind::Catalog(_) | Kind::Toast(_)) => Opens::Level(Level::Admin),
        (_, Kind::Temporary) => Opens::Level(Level::Writer),
        (action, Kind::User(plain)) => {
            let least = match action {
                Action::Select => Level::Reader,
                Action::Truncate => Level::Owner,
                _ => Level::Writer,
            };
            if plain { Opens::Rule(least) } else { Opens::ExactRule(least) }
        }
    }
}

/// Who may do this to a relation that a text names in this way.
pub(crate) fn relation_opens(action: Action, schema: &str, name: &str) -> Opens {
    opens(action, kind(schema, name))
}

/// A relation as facts name it.
pub(super) fn object(relation: &pb::RangeVar) -> Object {
    let schema = match (relation.schemaname.as_str(), kind(&relation.schemaname, &relation.relname)) {
        ("", Kind::Catalog(_)) => Some("pg_catalog"),
        ("", _) => None,
        (schema, _) => Some(schema),
    };
    Object::Named { schema: schema.map(Into::into), name: relation.relname.as_str().into() }
}

impl Walker<'_> {
    /// Adds what doing this to a relation needs.
    pub(super) fn relation(&mut self, action: Action, relation: &pb::RangeVar) {
        let opens = opens(action, kind(&relation.schemaname, &relation.relname));
        self.need(action, object(relation), opens);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds() {
        assert_eq!(kind("", "orders"), Kind::User(true));
        assert_eq!(kind("", "pg_class"), Kind::Catalog(None));
        assert_eq!(kind("public", "pg_class"), Kind::User(true));
        assert_eq!(kind("", "pg_of_a_later_release"), Kind::User(false));
        assert_eq!(kind("pg_catalog", "pg_of_a_later_release"), Kind::Catalog(Some(Level::Admin)));
        assert_eq!(kind("pg_toast", "pg_toast_1260"), Kind::Toast(Level::Admin));
        assert_eq!(kind("pg_temp_3", "orders"), Kind::Temporary);
    }
}
