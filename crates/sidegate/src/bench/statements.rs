//! The statements that are measured, and the tables that they need.
//!
//! Deliberately absent: sending them (`client`), and who may run them (grants of the demo, or of whoever prepares a database).

use std::sync::atomic::{AtomicU64, Ordering};

use clap::ValueEnum;

use super::plan::Class;

/// All tables lie in a schema of their own, so that nothing of anybody else's is touched.
pub const SCHEMA: &str = "sidegate_bench";
/// What the aggregate groups by.
const SENSORS: u32 = 10;

/// In which form statements are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Texts {
    /// Prepared once a connection and run with parameters: decided once, when it is prepared. (By HTTP there is no
    /// preparing: text and parameters go with each request.)
    Prepared,
    /// The same text each time: decided each time, from the sidecar's cache.
    Repeated,
    /// A text that nobody has sent before: parsed and decided each time.
    New,
}

impl Texts {
    /// For the head of a report.
    pub fn words(self) -> &'static str {
        match self {
            Self::Prepared => "prepared statements",
            Self::Repeated => "the same text each time",
            Self::New => "a new text each time",
        }
    }
}

/// What a run sends.
#[derive(Clone, Copy, Debug)]
pub struct Script {
    /// In which form.
    pub texts: Texts,
    /// Rows of the large table: keys are 1 to this.
    pub rows: u32,
}

/// A parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parameter {
    /// Of type `text`.
    Text(&'static str),
    /// Of type `integer`.
    Integer(i32),
}

const LEVEL: &str = "info";
const MESSAGE: &str = "order 4711 looked at";

impl Script {
    /// The text with parameters.
    pub fn prepared(class: Class) -> &'static str {
        match class {
            Class::Write => "insert into sidegate_bench.log (level, message) values ($1, $2)",
            Class::Read => "select id, sensor, value from sidegate_bench.measurements where id = $1",
            Class::Heavy => HEAVY,
        }
    }

    /// Its parameters in the request of this number.
    pub fn parameters(self, class: Class, index: u32) -> Vec<Parameter> {
        match class {
            Class::Write => vec![Parameter::Text(LEVEL), Parameter::Text(MESSAGE)],
            Class::Read => vec![Parameter::Integer(self.key(index))],
            Class::Heavy => Vec::new(),
        }
    }

    /// The text without parameters; `None` where it is to be prepared.
    pub fn literal(self, class: Class, index: u32) -> Option<String> {
        let (key, mark) = match self.texts {
            Texts::Prepared => return None,
            Texts::Repeated => (1, String::new()),
            Texts::New => (self.key(index), format!(" /* {} */", unheard_of())),
        };
        Some(match class {
            Class::Write => {
                format!("insert into sidegate_bench.log (level, message) values ('{LEVEL}', '{MESSAGE}'){mark}")
            }
            Class::Read => format!("select id, sensor, value from sidegate_bench.measurements where id = {key}{mark}"),
            Class::Heavy => format!("{HEAVY}{mark}"),
        })
    }

    /// How many rows must come back, or be written.
    pub fn expected_rows(self, class: Class) -> u64 {
        match class {
            Class::Write | Class::Read => 1,
            Class::Heavy => self.rows.min(SENSORS).into(),
        }
    }

    /// Keys all over the table, the same for each mode.
    fn key(self, index: u32) -> i32 {
        // Knuth's multiplier spreads neighbours far apart.
        let scattered = u64::from(index) * 2_654_435_761 % u64::from(self.rows.max(1));
        i32::try_from(scattered).map_or(1, |key| key + 1)
    }
}

const HEAVY: &str = "select sensor, count(*), avg(value), max(value) from sidegate_bench.measurements group by sensor";

/// A number that no text had before, in this process or an earlier one: a sidecar may remember texts for long.
fn unheard_of() -> String {
    static LAST: AtomicU64 = AtomicU64::new(0);
    static BEGUN: std::sync::LazyLock<u128> = std::sync::LazyLock::new(|| {
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_nanos()
    });
    format!("{}.{}", *BEGUN, LAST.fetch_add(1, Ordering::Relaxed))
}

/// What makes the tables, for a superuser or the database's owner; each statement is sent alone (VACUUM must be).
///
/// Autovacuum is off, and so are parallel workers: both would come in between at moments of their own.
pub fn preparation(rows: u32) -> Vec<String> {
    vec![
        format!("drop schema if exists {SCHEMA} cascade"),
        format!("create schema {SCHEMA}"),
        format!(
            "create table {SCHEMA}.log (id bigint generated always as identity primary key, \
             at timestamptz not null default now(), level text not null, message text not null) \
             with (autovacuum_enabled = false)"
        ),
        format!(
            "create table {SCHEMA}.measurements (id integer primary key, sensor integer not null, \
             at timestamptz not null, value double precision not null) \
             with (autovacuum_enabled = false, parallel_workers = 0)"
        ),
        format!(
            "insert into {SCHEMA}.measurements select n, n % {SENSORS}, \
             timestamptz '2026-01-01 00:00+00' + n * interval '1 second', (n::bigint * 7919 % 10007) / 100.0 \
             from generate_series(1, {rows}) as n"
        ),
        format!("vacuum (freeze, analyze) {SCHEMA}.measurements"),
    ]
}

/// What lets a login run the statements.
pub fn grants(login: &str) -> Vec<String> {
    vec![
        format!("grant usage on schema {SCHEMA} to {login}"),
        format!("grant select, insert on all tables in schema {SCHEMA} to {login}"),
    ]
}

/// Takes the tables away again.
pub fn removal() -> String {
    format!("drop schema if exists {SCHEMA} cascade")
}

/// All of it for `psql`, which is to know the variable `login`.
pub fn script(rows: u32) -> String {
    let head = "-- Tables of `sidegate bench`, for: psql -v login=LOGIN … (whom the benchmark's sessions log in as)";
    let lines = preparation(rows).into_iter().chain(grants(":\"login\""));
    std::iter::once(format!("{head}\n")).chain(lines.map(|line| format!("{line};\n"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_texts_differ_and_repeated_ones_do_not() {
        let texts = |texts| {
            let script = Script { texts, rows: 10 };
            Class::ALL.map(|class| (script.literal(class, 3), script.literal(class, 4)))
        };
        assert!(texts(Texts::New).iter().all(|(one, other)| one != other));
        assert!(texts(Texts::Repeated).iter().all(|(one, other)| one == other && one.is_some()));
        assert!(texts(Texts::Prepared).iter().all(|(one, _)| one.is_none()));
    }

    #[test]
    fn keys_are_in_the_table_and_spread() {
        let script = Script { texts: Texts::Prepared, rows: 1000 };
        let keys: std::collections::BTreeSet<i32> = (0..500).map(|index| script.key(index)).collect();
        assert!(keys.len() > 400 && keys.iter().all(|key| (1..=1000).contains(key)), "{keys:?}");
        assert_eq!(Script { texts: Texts::Prepared, rows: 1 }.key(u32::MAX), 1);
    }
}
