//! Every change that somebody makes here, as lines of a decision log: who, what, from what, to what.
//!
//! Written before the answer is given, and nothing is changed while it cannot be written. Deliberately absent: undoing.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use runtime::decision_log::{DecisionLog, Destination, LogError, OnFull, Options, Rotation};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// A file of the log; some thousand changes.
const SIZE: u64 = 8 << 20;
const KEEP: u32 = 4;
/// Changes that wait to be written; people make them one by one.
const CAPACITY: usize = 64;
/// A disk that takes longer is not there.
const PATIENCE: Duration = Duration::from_secs(5);
/// So much of the end of the file is read for a history.
const HISTORY: u64 = 1 << 20;
const FILE: &str = "changes.jsonl";

/// One change.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Change {
    schema: u32,
    pub(super) time: String,
    event: String,
    /// Who made it.
    pub(super) by: String,
    /// What was changed: `settings/NAMESPACE` or `KIND/NAMESPACE/NAME`.
    pub(super) what: String,
    /// What it was; empty where there was nothing.
    pub(super) from: String,
    /// What it is; empty where there is nothing any more.
    pub(super) to: String,
}

impl runtime::decision_log::Entry for Change {
    fn lost(count: u64) -> Self {
        Self::new("", "lost", "", &count.to_string())
    }

    fn has_id(&self, _: &str) -> bool {
        false
    }

    fn weight(&self) -> usize {
        self.from.len() + self.to.len()
    }
}

impl Change {
    pub(super) fn new(by: &str, what: &str, from: &str, to: &str) -> Self {
        let time = OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default();
        let texts = [by, what, from, to].map(str::to_owned);
        let [by, what, from, to] = texts;
        Self { schema: 1, time, event: "change".to_owned(), by, what, from, to }
    }
}

/// The record of changes.
pub(super) struct Changes {
    log: DecisionLog<Change>,
    file: PathBuf,
}

impl Changes {
    pub(super) fn open(state: &Path) -> Result<Self, LogError> {
        let file = state.join(FILE);
        let rotation = Some(Rotation { size: SIZE, keep: KEEP });
        let options = Options { capacity: CAPACITY, on_full: OnFull::Block, chained: true, recent: 0 };
        let log = DecisionLog::start(&Destination::File { path: file.clone(), rotation }, options)?;
        Ok(Self { log, file })
    }

    /// Writes it. Blocks the thread.
    #[must_use]
    pub(super) fn record(&self, change: Change) -> bool {
        if !self.log.has_room() {
            return false;
        }
        self.log.record(change);
        self.log.flush(PATIENCE)
    }

    /// Whether a change could be recorded now.
    pub(super) fn can_record(&self) -> bool {
        self.log.has_room()
    }

    /// The last changes of one thing, newest first.
    pub(super) fn of(&self, what: &str, limit: usize) -> Vec<Change> {
        let text = tail(&self.file).unwrap_or_default();
        let lines = text.split(|byte| *byte == b'\n').rev();
        let changes = lines.filter_map(|line| serde_json::from_slice::<Change>(line).ok());
        changes.filter(|change| change.what == what).take(limit).collect()
    }
}

fn tail(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let size = file.seek(SeekFrom::End(0))?;
    file.seek(SeekFrom::Start(size.saturating_sub(HISTORY)))?;
    let mut bytes = Vec::new();
    file.take(HISTORY).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_written_and_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let changes = Changes::open(dir.path()).unwrap();
        for (what, to) in [("settings/a", "1"), ("settings/b", "2"), ("settings/a", "3")] {
            assert!(changes.record(Change::new("link:1", what, "0", to)));
        }
        let found: Vec<String> = changes.of("settings/a", 10).into_iter().map(|change| change.to).collect();
        assert_eq!(found, ["3", "1"]);
        assert_eq!(changes.of("settings/a", 1).len(), 1);
    }
}
