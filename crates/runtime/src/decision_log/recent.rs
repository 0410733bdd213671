//! The last records, kept in memory: the last of all, and the last denials by themselves.
//!
//! At ten thousand decisions a second the last thousand are a tenth of one; whoever looks for the one denial among them would not find
//! it any more. Deliberately absent: what was recorded before the process began.

use std::collections::VecDeque;
use std::sync::Arc;

use super::Entry;

/// Bytes that the records of a kind may hold, however few they are: what callers send decides how much a record holds.
pub(super) const BYTES_MAX: usize = 2 << 20;

pub(super) struct Recent<T> {
    /// Of either kind at most so many.
    limit: usize,
    /// Of the next record.
    number: u64,
    denials: Kind<T>,
    others: Kind<T>,
}

/// Records with the number that each had, oldest first.
struct Kind<T> {
    entries: VecDeque<(u64, Arc<T>)>,
    bytes: usize,
}

impl<T: Entry> Recent<T> {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, number: 0, denials: Kind::new(), others: Kind::new() }
    }

    pub(super) fn keep(&mut self, entry: T) {
        if self.limit == 0 {
            return;
        }
        let kind = if entry.is_denial() { &mut self.denials } else { &mut self.others };
        kind.keep(self.number, entry, self.limit);
        self.number += 1;
    }

    /// The last `most` that are `wanted`, oldest first.
    pub(super) fn last(&self, most: usize, wanted: impl Fn(&T) -> bool) -> Vec<Arc<T>> {
        let mut chosen: Vec<&(u64, Arc<T>)> = Vec::new();
        for kind in [&self.denials, &self.others] {
            chosen.extend(kind.entries.iter().rev().filter(|(_, entry)| wanted(entry)).take(most));
        }
        chosen.sort_unstable_by_key(|(number, _)| *number);
        chosen.iter().skip(chosen.len().saturating_sub(most)).map(|(_, entry)| entry.clone()).collect()
    }
}

impl<T: Entry> Kind<T> {
    fn new() -> Self {
        Self { entries: VecDeque::new(), bytes: 0 }
    }

    fn keep(&mut self, number: u64, entry: T, limit: usize) {
        self.bytes += entry.weight();
        self.entries.push_back((number, Arc::new(entry)));
        while self.entries.len() > limit || (self.bytes > BYTES_MAX && self.entries.len() > 1) {
            let gone = self.entries.pop_front().map_or(0, |(_, entry)| entry.weight());
            self.bytes = self.bytes.saturating_sub(gone);
        }
    }
}
