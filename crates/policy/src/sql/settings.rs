//! Who may set what: the few settings that guard the session, and the many that do not.
//!
//! Absent: what a `SET` looks like in a tree (`utility`).

use super::names;
use crate::facts::Opens;
use crate::role::Level;

/// Settings of ours; the caller's identity is among them, so none is the client's to change.
const OURS: &str = "sidegate.";

/// Names that PostgreSQL lets any session set, and that lead out of a role all the same.
const GUARDED: [&str; 8] = [
    "backslash_quote",
    "createrole_self_grant",
    "local_preload_libraries",
    "role",
    "row_security",
    "session_authorization",
    "session_preload_libraries",
    "session_replication_role",
];

/// The name of a setting as PostgreSQL compares it: ASCII letters have no case. Clipped for messages.
pub(crate) fn setting_name(name: &str) -> Box<str> {
    /// PostgreSQL's identifiers are no longer.
    const SHOWN: usize = 63;
    name.chars().take(SHOWN).map(|c| c.to_ascii_lowercase()).collect()
}

/// Who may set this to that; `None` is a value that the text does not tell, such as the default.
pub(crate) fn setting_opens(name: &str, value: Option<&str>) -> Opens {
    let name = name.to_ascii_lowercase();
    match name.as_str() {
        "standard_conforming_strings" if value.is_some_and(is_on) => Opens::Everyone,
        "client_encoding" if value.is_some_and(is_utf8) => Opens::Everyone,
        "standard_conforming_strings" | "client_encoding" => Opens::Nobody,
        "search_path" => Opens::Level(Level::Reader),
        "transaction_read_only" | "default_transaction_read_only" if value.is_some_and(is_on) => Opens::Everyone,
        "transaction_read_only" | "default_transaction_read_only" => Opens::NotReader,
        name if name.starts_with(OURS) => Opens::Nobody,
        name if GUARDED.contains(&name) => Opens::Level(Level::Admin),
        name if name.contains('.') || names::is_free_setting(name) => Opens::Everyone,
        _ => Opens::Level(Level::Admin),
    }
}

/// Whether a setting is fixed for every role, whatever its value.
pub(super) fn is_fixed(name: &str) -> bool {
    setting_opens(name, None) == Opens::Nobody
}

/// What PostgreSQL's `parse_bool` takes for true: beginnings of words, without case.
fn is_on(value: &str) -> bool {
    let value = value.to_ascii_lowercase();
    match value.as_str() {
        "" => false,
        "1" | "on" => true,
        word => "true".starts_with(word) || "yes".starts_with(word),
    }
}

/// PostgreSQL compares names of encodings by their letters and digits alone.
fn is_utf8(value: &str) -> bool {
    let letters: String = value.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect();
    value.is_ascii() && matches!(letters.as_str(), "utf8" | "unicode")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values() {
        for on in ["on", "ON", "t", "tr", "True", "y", "yes", "1"] {
            assert!(is_on(on), "{on}");
        }
        for off in ["", "o", "of", "off", "0", "f", "no", "11", " on", "yess"] {
            assert!(!is_on(off), "{off}");
        }
        assert!(is_utf8("UTF8") && is_utf8("utf-8") && is_utf8("Unicode"));
        assert!(!is_utf8("LATIN1") && !is_utf8("") && !is_utf8("sql_ascii"));
    }

    #[test]
    fn names_have_no_case() {
        assert_eq!(setting_opens("SIDEGATE.sub", None), Opens::Nobody);
        assert_eq!(setting_opens("Role", Some("x")), Opens::Level(Level::Admin));
        assert_eq!(setting_opens("TimeZone", Some("UTC")), Opens::Everyone);
        assert_eq!(setting_opens("app.tenant", None), Opens::Everyone);
        assert_eq!(setting_opens("from_a_later_release", None), Opens::Level(Level::Admin));
    }
}
