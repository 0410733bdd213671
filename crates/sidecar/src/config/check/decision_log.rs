//! The part of the configuration that says where decisions are recorded.

use std::ops::RangeInclusive;

use runtime::decision_log::{Destination, OnFull, Rotation};

use super::Check;
use crate::config::DecisionLog;
use crate::config::raw::{self, Rotate, To};

/// Kept in memory if nobody says: half a megabyte of them mostly, some minutes of a service that is not busy.
const RECENT: u64 = 1000;
const RECENT_RANGE: RangeInclusive<u64> = 0..=100_000;

/// A file of 64 MiB is some hundred thousand decisions, and can still be looked through.
const ROTATE_SIZE: u64 = 64 << 20;
/// Below that a file would not hold much more than one batch of lines.
const ROTATE_SIZE_RANGE: RangeInclusive<u64> = 1 << 20..=1 << 40;
const ROTATE_KEEP: u64 = 4;
const ROTATE_KEEP_RANGE: RangeInclusive<u64> = 1..=1000;

impl Check {
    pub(super) fn decision_log(&mut self, raw: raw::DecisionLog) -> DecisionLog {
        let recent = self.count("decision_log.recent", raw.recent.unwrap_or(RECENT), RECENT_RANGE);
        let on_full = match raw.on_full {
            raw::OnFull::Drop => OnFull::Drop,
            raw::OnFull::Block => OnFull::Block,
        };
        let is_file = raw.to.map_or(raw.file.is_some(), |to| to == To::File);
        if is_file != raw.file.is_some() {
            self.fail("decision_log: `to: file` and `file: PATH` go together");
        }
        if raw.rotate.is_some() && !is_file {
            self.fail("decision_log.rotate: only a file can be rotated; give `file: PATH`");
        }
        let rotation = raw.rotate.map(|rotate| self.rotation(&rotate));
        let destination = match (raw.file, raw.to) {
            (Some(path), _) => Destination::File { path, rotation },
            (None, Some(To::Nowhere)) => Destination::Nowhere,
            (None, _) => Destination::Stdout,
        };
        if destination == Destination::Nowhere && raw.chain {
            self.fail("decision_log.chain: there is nothing to be chained where decisions go nowhere");
        }
        DecisionLog { destination, on_full, chain: raw.chain, recent }
    }

    fn rotation(&mut self, raw: &Rotate) -> Rotation {
        let size = self.count("decision_log.rotate.size", raw.size.unwrap_or(ROTATE_SIZE), ROTATE_SIZE_RANGE);
        let keep = self.count("decision_log.rotate.keep", raw.keep.unwrap_or(ROTATE_KEEP), ROTATE_KEEP_RANGE);
        Rotation { size: size as u64, keep: u32::try_from(keep).unwrap_or(u32::MAX) }
    }
}
