//! What PostgreSQL's catalog holds by name: functions, relations, operators, types, settings, from data files.
//!
//! All of these are allow lists: a name that is missing is a user's, or, said to be `pg_catalog`'s,
//! admin's. Absent: what a name in a text resolves to, which is `functions` and `relations`.

use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;

use crate::role::Level;

/// Who may call a built-in function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// Everyone.
    Safe,
    /// This built-in role and those after it, or a rule.
    From(Level),
    /// Admin; no rule opens it.
    Admin,
    /// `set_config`, which is judged as a SET.
    Setting,
}

/// A built-in function: who may call it, and whether its result surely has no fields.
#[derive(Clone, Copy, Debug)]
pub(super) struct Function {
    pub(super) class: Class,
    pub(super) scalar: bool,
}

/// Who may read a relation of `pg_catalog`; `None` is everyone.
pub(super) type Readers = Option<Level>;

/// The built-in function of this name.
pub(super) fn function(name: &str) -> Option<Function> {
    FUNCTIONS.get(name).copied()
}

/// The relation of `pg_catalog` of this name.
pub(super) fn relation(name: &str) -> Option<Readers> {
    RELATIONS.get(name).copied()
}

/// Whether `pg_catalog` has an operator of this name.
pub(super) fn is_operator(name: &str) -> bool {
    OPERATORS.contains(name)
}

/// Whether this is a type of `pg_catalog` that has no fields.
pub(super) fn is_scalar_type(name: &str) -> bool {
    TYPES.contains(name)
}

/// Whether every role may set this; the name in lower case.
pub(super) fn is_free_setting(name: &str) -> bool {
    SETTINGS.contains(name)
}

/// Whether PostgreSQL marks this extension as trusted.
pub(super) fn is_trusted_extension(name: &str) -> bool {
    EXTENSIONS.contains(name)
}

static FUNCTIONS: LazyLock<HashMap<&str, Function>> = LazyLock::new(|| {
    words(include_str!("../data/functions.txt"))
        .map(|(name, class)| {
            let (class, scalar) = class.split_once(' ').unwrap_or((class, ""));
            (name, Function { class: class_of(class), scalar: scalar == "scalar" })
        })
        .collect()
});

static RELATIONS: LazyLock<HashMap<&str, Readers>> = LazyLock::new(|| {
    words(include_str!("../data/relations.txt"))
        .map(|(name, readers)| match class_of(readers) {
            Class::Safe => (name, None),
            Class::From(level) => (name, Some(level)),
            Class::Admin | Class::Setting => (name, Some(Level::Admin)),
        })
        .collect()
});

static OPERATORS: LazyLock<HashSet<&str>> = LazyLock::new(|| names(include_str!("../data/operators.txt")));
static TYPES: LazyLock<HashSet<&str>> = LazyLock::new(|| names(include_str!("../data/types.txt")));
static SETTINGS: LazyLock<HashSet<&str>> = LazyLock::new(|| names(include_str!("../data/settings.txt")));
static EXTENSIONS: LazyLock<HashSet<&str>> = LazyLock::new(|| names(include_str!("../data/extensions.txt")));

/// A class that is misspelt in the data file is admin's.
fn class_of(word: &str) -> Class {
    match word {
        "safe" => Class::Safe,
        "reader" => Class::From(Level::Reader),
        "writer" => Class::From(Level::Writer),
        "owner" => Class::From(Level::Owner),
        "setting" => Class::Setting,
        _ => Class::Admin,
    }
}

fn names(file: &'static str) -> HashSet<&'static str> {
    words(file).map(|(name, _)| name).collect()
}

/// The lines of a data file as a name and the rest; comments begin with a hash and a space.
fn words(file: &'static str) -> impl Iterator<Item = (&'static str, &'static str)> {
    file.lines()
        .filter(|line| !line.starts_with("# ") && !line.is_empty())
        .map(|line| line.split_once(' ').unwrap_or((line, "")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lists_say_what_matters() {
        assert_eq!(function("pg_read_file").unwrap().class, Class::Admin);
        assert_eq!(function("lower").unwrap().class, Class::Safe);
        assert_eq!(function("set_config").unwrap().class, Class::Setting);
        assert!(function("initcap").unwrap().scalar);
        assert!(!function("pg_stat_file").unwrap().scalar);
        assert_eq!(relation("pg_class"), Some(None));
        assert_eq!(relation("pg_authid"), Some(Some(Level::Admin)));
        assert_eq!(relation("orders"), None);
        assert!(is_operator("#") && is_operator("##") && !is_operator("==="));
        assert!(is_scalar_type("text") && !is_scalar_type("pg_class"));
        assert!(is_free_setting("statement_timeout") && !is_free_setting("role"));
    }

    #[test]
    fn every_line_of_the_functions_has_a_class() {
        for (name, class) in words(include_str!("../data/functions.txt")) {
            let class = class.split(' ').next().unwrap();
            assert!(["safe", "reader", "writer", "owner", "admin", "setting"].contains(&class), "{name} {class}");
        }
    }
}
