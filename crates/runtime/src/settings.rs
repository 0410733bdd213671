//! The settings of a service, changed while we run: the ConfigMap `auth-settings`, as it is mounted (`mounted`: one file a
//! key) or as the cluster's API has it (`cluster`).
//!
//! Everything here errs on the side of enforcing: what is missing or not understood signs and verifies, and a
//! `TOKENS_NOT_BEFORE` is never loosened by a mistake. Absent on purpose: what a setting does (the sidecar's).

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

use parking_lot::Mutex;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::sync::watch;

mod cluster;
mod mounted;
mod review;

pub use cluster::ConfigMapRef;
pub use review::review;

const SIGN: &str = "SIGN_AUTH_ENABLED";
const VERIFY: &str = "VERIFY_AUTH_ENABLED";
const NOT_BEFORE: &str = "TOKENS_NOT_BEFORE";
/// All of them.
const KEYS: [&str; 3] = [SIGN, VERIFY, NOT_BEFORE];

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

/// Where the settings are. With neither, the defaults hold for good.
#[derive(Clone, Default)]
pub struct Sources {
    /// The directory that the ConfigMap is mounted at.
    pub directory: Option<PathBuf>,
    /// The ConfigMap itself: a change is seen at once, while a mounted one comes when the kubelet looks, a minute later.
    pub cluster: Option<ConfigMapRef>,
}

/// Reads the settings now and follows them: a change of a directory is there within 250 ms. Of a directory and the cluster's
/// API, the API counts once it has answered, unless it says that we may not ask, or nothing for minutes. The following ends when all receivers are
/// gone. With `cluster`, it is called within tokio.
///
/// # Errors
/// When the directory cannot be followed.
pub fn watch(sources: Sources) -> Result<watch::Receiver<Arc<Settings>>, SettingsError> {
    /// Never changes; it is only here because a receiver whose sender is gone reports an end.
    static DEFAULTS: LazyLock<watch::Sender<Arc<Settings>>> = LazyLock::new(|| watch::Sender::new(Arc::default()));

    if sources.directory.is_none() && sources.cluster.is_none() {
        return Ok(DEFAULTS.subscribe());
    }
    let mut reader = Reader::new();
    // Without a directory nothing is known yet, which is no reason to warn of missing keys.
    let mounted = |directory| reader.read(mounted::values(directory), &Place::Directory(directory));
    let first = sources.directory.as_deref().map(mounted);
    let (sender, receiver) = watch::channel(Arc::new(first.unwrap_or_default()));
    let followed = Arc::new(Followed { reader: Mutex::new(reader), sender });
    if let Some(config_map) = sources.cluster {
        tokio::spawn(cluster::follow(config_map, followed.clone()));
    }
    if let Some(directory) = sources.directory {
        mounted::follow(directory.clone(), followed).map_err(|source| SettingsError { directory, source })?;
    }
    Ok(receiver)
}

/// Settings that come from one place or another.
struct Followed {
    reader: Mutex<Reader>,
    sender: watch::Sender<Arc<Settings>>,
}

impl Followed {
    /// What a place says now. The directory is not listened to while the API is.
    fn heard(&self, values: [Value; 3], place: &Place) {
        let mut reader = self.reader.lock();
        if reader.api && matches!(place, Place::Directory(_)) {
            return;
        }
        reader.api = matches!(place, Place::ConfigMap(..));
        self.publish(reader.read(values, place));
    }

    /// The API says nothing any more, and will not: the directory counts again.
    fn api_refuses(&self) {
        self.reader.lock().api = false;
    }

    /// Nor has it said anything for long.
    fn api_is_silent(&self, config_map: &ConfigMapRef) {
        let mut reader = self.reader.lock();
        if std::mem::take(&mut reader.api) {
            tracing::warn!(settings = %config_map, "the API has said nothing for minutes; the mounted settings, if there are any, count");
        }
    }

    fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    fn publish(&self, settings: Settings) {
        self.sender.send_if_modified(|current| {
            let changed = **current != settings;
            if changed {
                tracing::info!(sign = settings.sign, verify = ?settings.verify, tokens_not_before = settings.tokens_not_before,
                    generation = settings.generation, "settings changed");
                *current = Arc::new(settings);
            }
            changed
        });
    }
}

/// Where values come from, for messages.
enum Place<'a> {
    Directory(&'a std::path::Path),
    ConfigMap(&'a ConfigMapRef),
}

impl std::fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Directory(path) => write!(f, "{}", path.display()),
            Self::ConfigMap(config_map) => write!(f, "{config_map}"),
        }
    }
}

/// Reads values again and again, remembering what must outlive a bad read.
struct Reader {
    /// Whether the API counts, and not the directory.
    api: bool,
    last: Settings,
    first: bool,
    /// Said already; said again only after it has changed.
    warnings: Vec<String>,
}

/// What stands under one key.
enum Value {
    Text(String),
    Missing,
    Unreadable(String),
}

impl Reader {
    fn new() -> Self {
        Self { api: false, last: Settings::default(), first: true, warnings: Vec::new() }
    }

    fn read(&mut self, values: [Value; 3], place: &Place) -> Settings {
        let (mut settings, warnings) = self.understand(values);
        if !self.first && settings != self.last {
            settings.generation += 1;
        }
        self.first = false;
        self.last = settings.clone();
        self.warn(warnings, place);
        settings
    }

    /// What the values mean after what was before, and what is wrong with them.
    fn understand(&self, values: [Value; 3]) -> (Settings, Vec<String>) {
        let nothing = values.iter().all(|v| matches!(v, Value::Missing));
        let mut warnings = Vec::new();
        let [sign, verify, not_before] = values;
        let settings = Settings {
            sign: switch(SIGN, sign, &mut warnings),
            verify: verification(verify, &mut warnings),
            tokens_not_before: self.not_before(not_before, nothing, &mut warnings),
            generation: self.last.generation,
        };
        (settings, warnings)
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

    fn warn(&mut self, warnings: Vec<String>, place: &Place) {
        if self.warnings == warnings {
            return;
        }
        for warning in &warnings {
            tracing::warn!(settings = %place, "{warning}");
        }
        if warnings.is_empty() {
            tracing::info!(settings = %place, "all settings are understood again");
        }
        self.warnings = warnings;
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
