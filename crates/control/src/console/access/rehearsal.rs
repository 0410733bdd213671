//! What a draft would have changed in the last hour, by the decision logs that are files here, and by what other sidecars remember: decisions are held against those that
//! the documents of now would make of the same, so that what is another for another reason is not laid to the draft.
//!
//! Only their ends are read, so that an hour of much traffic costs no more than a second or two. Deliberately absent: logs that went elsewhere;
//! `sidegate policy replay` reads any.

use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use policy::record::{Line, Record, RecordedVerdict};
use policy::replay::{Again, Change, Draft, Replay};
use policy::snapshot::Snapshot;
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};

use super::super::config::Sidecar;

/// The end of each file that is read: some hundred thousand decisions.
const END: u64 = 32 << 20;
/// Groups that are shown.
const GROUPS: usize = 50;

/// The outcome.
pub(in crate::console) struct Rehearsal {
    /// Decisions of the last hour that were decided again.
    pub(in crate::console) decisions: u64,
    /// What would be another.
    pub(in crate::console) groups: Vec<Group>,
}

/// Decisions that would be another, gathered.
pub(in crate::console) struct Group {
    /// Key of the word.
    pub(in crate::console) change: &'static str,
    pub(in crate::console) count: u64,
    pub(in crate::console) service: String,
    pub(in crate::console) subject: String,
    pub(in crate::console) needs: String,
    pub(in crate::console) reason: String,
}

impl Rehearsal {
    /// Blocks the thread.
    pub(in crate::console) fn of(
        now: Snapshot,
        draft: Snapshot,
        sidecars: &[Sidecar],
        remembered: Vec<Record>,
    ) -> Self {
        let since = OffsetDateTime::now_utc() - Duration::HOUR;
        let since = since.format(&Rfc3339).unwrap_or_default();
        let (mut pair, mut replay) = ((Draft::new(now), Draft::new(draft)), Replay::default());
        for file in sidecars.iter().filter_map(|sidecar| sidecar.decision_log.as_deref()).flat_map(files) {
            add(&file, &since, &mut pair, &mut replay);
        }
        for record in remembered.into_iter().filter(|record| record.time.get(..19) >= since.get(..19)) {
            replay.add(&mut pair.1, &as_decided(record, &mut pair.0));
        }
        let group = |(group, count): (&policy::replay::Group, &policy::replay::Count)| {
            let change = match group.change {
                Change::NewlyDenied => "newly-denied",
                Change::NewlyAllowed => "newly-allowed",
                Change::StillDenied => return None,
            };
            Some(Group {
                change,
                count: count.count,
                service: group.service.clone(),
                subject: group.subject.clone(),
                needs: format!("{} {}", group.action, group.object),
                reason: group.reason.clone(),
            })
        };
        let groups = replay.groups().filter_map(group).take(GROUPS).collect();
        Self { decisions: replay.totals().decisions, groups }
    }
}

/// The one before and the one that is written now.
fn files(path: &Path) -> [PathBuf; 2] {
    let mut before = path.as_os_str().to_owned();
    before.push(".1");
    [before.into(), path.to_owned()]
}

/// What cannot be read counts for nothing: the number of decisions tells how much was seen.
fn add(path: &Path, since: &str, (now, draft): &mut (Draft, Draft), replay: &mut Replay) {
    let Ok(mut file) = File::open(path) else { return };
    let size = file.metadata().map_or(0, |metadata| metadata.len());
    if file.seek(SeekFrom::Start(size.saturating_sub(END))).is_err() {
        return;
    }
    for line in BufReader::new(file).split(b'\n').map_while(Result::ok) {
        // Times of one form are in the order of their texts, as far as whole seconds go.
        if let Ok(Line::Record(record)) = Line::read(&line)
            && record.time.get(..19) >= since.get(..19)
        {
            replay.add(draft, &as_decided(*record, now));
        }
    }
}

/// The record as if it had been decided by the documents of now.
fn as_decided(record: Record, now: &mut Draft) -> Record {
    match now.decide(&record) {
        Again::Allow(_) => Record { verdict: RecordedVerdict::Allow, reason: "allowed".into(), ..record },
        Again::Deny(_) => Record { verdict: RecordedVerdict::Deny, ..record },
        Again::Unknown(_) => record,
    }
}
