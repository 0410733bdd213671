//! The settings of a service, as a mounted ConfigMap shows them: one file a key, changed while we run.
//!
//! Everything here errs on the side of enforcing: what is missing or not understood signs and verifies, and a
//! `TOKENS_NOT_BEFORE` is never loosened by a mistake. Absent on purpose: what a setting does (the sidecar's).

use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use notify::RecursiveMode;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::sync::watch;

use crate::{follow, secret};

const SIGN: &str = "SIGN_AUTH_ENABLED";
const VERIFY: &str = "VERIFY_AUTH_ENABLED";
const NOT_BEFORE: &str = "TOKENS_NOT_BEFORE";

/// A value is a word or a time; more is a mistake, and not worth reading.
const MAX_VALUE: u64 = 4096;
/// A file found empty may be between truncation and writing, so it is looked at again before it counts: a setting must
/// not flicker because somebody wrote its own value once more. All looks together stay well below 250 ms.
const LOOKS: usize = 8;
const BETWEEN_LOOKS: Duration = Duration::from_millis(10);

/// What verification does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Verify {
    /// Decides and denies.
    #[default]
    Enforce,
    /// Decides and records, denies nothing.
    Observe,
    /// Does nothing.
    Off,
}

/// The settings in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Whether outbound listeners attach a token.
    pub sign: bool,
    /// What inbound listeners do.
    pub verify: Verify,
    /// Tokens issued before this time (seconds since the epoch) are dropped by signers and refused by verifiers.
    pub tokens_not_before: Option<i64>,
    /// Rises by one with each change that has an effect; the first settings are generation 1.
    pub generation: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { sign: true, verify: Verify::Enforce, tokens_not_before: None, generation: 1 }
    }
}

/// The settings cannot be followed.
#[derive(Debug, thiserror::Error)]
#[error("the settings in {directory} cannot be followed: {source}")]
pub struct SettingsError {
    directory: PathBuf,
    #[source]
    source: io::Error,
}

/// Reads the settings now and follows them: a change is there within 250 ms. Without a directory the defaults hold
/// for good. The following ends when all receivers are gone.
pub fn watch(directory: Option<PathBuf>) -> Result<watch::Receiver<Arc<Settings>>, SettingsError> {
    /// Never changes; it is only here because a receiver whose sender is gone reports an end.
    static DEFAULTS: LazyLock<watch::Sender<Arc<Settings>>> = LazyLock::new(|| watch::Sender::new(Arc::default()));

    let Some(directory) = directory else { return Ok(DEFAULTS.subscribe()) };
    let mut reader = Reader::new(directory.clone());
    let (sender, receiver) = watch::channel(Arc::new(reader.read()));
    let look = move || {
        let settings = reader.read();
        sender.send_if_modified(|current| {
            let changed = **current != settings;
            if changed {
                tracing::info!(sign = settings.sign, verify = ?settings.verify, tokens_not_before = settings.tokens_not_before,
                    generation = settings.generation, "settings changed");
                *current = Arc::new(settings);
            }
            changed
        });
        if sender.is_closed() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    follow::follow("settings", directory.clone(), RecursiveMode::NonRecursive, look)
        .map_err(|source| SettingsError { directory, source })?;
    Ok(receiver)
}

/// Reads the directory again and again, remembering what must outlive a bad read.
struct Reader {
    directory: PathBuf,
    last: Settings,
    first: bool,
    /// Said already; said again only after it has changed.
    warnings: Vec<String>,
}

/// One key's file.
enum Value {
    Text(String),
    Missing,
    Unreadable(String),
}

impl Reader {
    fn new(directory: PathBuf) -> Self {
        Self { directory, last: Settings::default(), first: true, warnings: Vec::new() }
    }

    fn read(&mut self) -> Settings {
        let values = values(&self.directory);
        let nothing = values.iter().all(|v| matches!(v, Value::Missing));
        let mut warnings = Vec::new();
        let [sign, verify, not_before] = values;
        let mut settings = Settings {
            sign: switch(SIGN, sign, &mut warnings),
            verify: verification(verify, &mut warnings),
            tokens_not_before: self.not_before(not_before, nothing, &mut warnings),
            generation: self.last.generation,
        };
        if !self.first && settings != self.last {
            settings.generation += 1;
        }
        self.first = false;
        self.last = settings.clone();
        self.warn(warnings);
        settings
    }

    /// Only a directory that has other keys can say that this one is unset: an empty or absent directory is an
    /// accident, and accidents do not revive old tokens. Nor does a value that is no time.
    fn not_before(&self, value: Value, nothing: bool, warnings: &mut Vec<String>) -> Option<i64> {
        let last = self.last.tokens_not_before;
        let wrong = match value {
            Value::Missing => return if nothing { last } else { None },
            Value::Text(text) if text.is_empty() => return None,
            Value::Text(text) => match OffsetDateTime::parse(&text.to_ascii_uppercase(), &Rfc3339) {
                // Tokens tell whole seconds: of the one that has begun, those from before the time cannot be told apart.
                Ok(time) => return Some(time.unix_timestamp() + i64::from(time.nanosecond() > 0)),
                Err(_) => format!("{text:?} is no time like 2026-01-31T12:00:00Z"),
            },
            Value::Unreadable(error) => error,
        };
        warnings.push(format!("{NOT_BEFORE}: {wrong}; the last valid value stays ({last:?})"));
        last
    }

    fn warn(&mut self, warnings: Vec<String>) {
        if self.warnings == warnings {
            return;
        }
        for warning in &warnings {
            tracing::warn!(directory = %self.directory.display(), "{warning}");
        }
        if warnings.is_empty() {
            tracing::info!(directory = %self.directory.display(), "all settings are understood again");
        }
        self.warnings = warnings;
    }
}

fn values(directory: &Path) -> [Value; 3] {
    let look = || [SIGN, VERIFY, NOT_BEFORE].map(|key| read_value(&directory.join(key)));
    let empty = |value: &Value| matches!(value, Value::Text(text) if text.is_empty());
    let mut values = look();
    for _ in 1..LOOKS {
        if !values.iter().any(empty) {
            break;
        }
        std::thread::sleep(BETWEEN_LOOKS);
        values = look();
    }
    values
}

fn read_value(path: &Path) -> Value {
    match secret::read_text(path, MAX_VALUE) {
        Ok(text) => Value::Text(text.trim().to_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Value::Missing,
        // A key's path below a file instead of a directory.
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => Value::Missing,
        Err(error) => Value::Unreadable(error.to_string()),
    }
}

fn switch(key: &str, value: Value, warnings: &mut Vec<String>) -> bool {
    match value {
        Value::Text(text) if text.eq_ignore_ascii_case("true") => true,
        Value::Text(text) if text.eq_ignore_ascii_case("false") => false,
        other => {
            warnings.push(format!("{key} {}; taken as true. It may be true or false", other.complaint()));
            true
        }
    }
}

fn verification(value: Value, warnings: &mut Vec<String>) -> Verify {
    match value {
        Value::Text(text) if text.eq_ignore_ascii_case("true") => Verify::Enforce,
        Value::Text(text) if text.eq_ignore_ascii_case("false") => Verify::Off,
        Value::Text(text) if text.eq_ignore_ascii_case("observe") => Verify::Observe,
        other => {
            let complaint = other.complaint();
            warnings.push(format!("{VERIFY} {complaint}; taken as true. It may be true, false or observe"));
            Verify::Enforce
        }
    }
}

impl Value {
    fn complaint(&self) -> String {
        match self {
            Self::Missing => "is missing".to_owned(),
            Self::Text(text) => format!("is {text:?}, which is not understood"),
            Self::Unreadable(error) => format!("cannot be read ({error})"),
        }
    }
}

#[cfg(test)]
mod tests;
