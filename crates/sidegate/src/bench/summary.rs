//! What the runs say together: times of each mode, and how modes compare.
//!
//! Ratios are taken repetition by repetition (`stats::Estimate::of_ratios`). Deliberately absent: words and pictures (`report`).

use std::collections::BTreeMap;

use super::plan::{Class, Mode, OFF_OFF, ON_OFF, ON_ON, Operation, Protocol, Run};
use super::run::Measured;
use super::stats::Estimate;
use super::{Outcome, RunResult};

/// What is compared: the same requests in the same numbers, by the same protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// By which protocol.
    pub protocol: Protocol,
    /// Among which requests.
    pub operation: Operation,
    /// Of which kind.
    pub class: Class,
    /// How many in all.
    pub requests: u32,
    /// By how many clients.
    pub connections: u32,
}

/// All repetitions of one mode.
#[derive(Clone, Debug, Default)]
pub struct Series {
    /// Time of one request in milliseconds, averaged over a run, and the repetition that it is of.
    pub times: Vec<(u32, f64)>,
    /// Time to connect and log in, in milliseconds.
    pub connects: Vec<f64>,
    /// Runs without figures.
    pub without: Option<Without>,
}

/// Why there are no figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Without {
    /// As it should be.
    Refused,
    /// It was to be refused and was not.
    NotRefused,
    /// Something went wrong.
    Failed,
}

impl Without {
    /// In a word.
    pub fn label(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::NotRefused => "NOT REFUSED",
            Self::Failed => "failed",
        }
    }
}

/// All of it.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    groups: BTreeMap<Key, BTreeMap<Mode, Series>>,
}

impl Summary {
    /// Of these runs.
    pub fn of(outcomes: &[Outcome]) -> Self {
        let mut summary = Self::default();
        for outcome in outcomes {
            summary.add(outcome);
        }
        summary
    }

    /// What was compared, in order.
    pub fn keys(&self) -> impl Iterator<Item = Key> {
        self.groups.keys().copied()
    }

    /// Every mode that occurs, in order.
    pub fn modes(&self) -> Vec<Mode> {
        let mut modes: Vec<Mode> = self.groups.values().flat_map(|group| group.keys().copied()).collect();
        modes.sort_unstable_by_key(|mode| (mode.must_be_refused(), *mode));
        modes.dedup();
        modes
    }

    /// The series of a mode. PostgreSQL itself, which speaks no HTTP, is compared with by its own protocol.
    pub fn series(&self, key: Key, mode: Mode) -> Option<&Series> {
        let protocol = if mode == Mode::Direct { Protocol::Native } else { key.protocol };
        self.groups.get(&Key { protocol, ..key })?.get(&mode)
    }

    /// The median time of a request in milliseconds.
    pub fn time(&self, key: Key, mode: Mode) -> Option<Estimate> {
        let times = &self.series(key, mode)?.times;
        Estimate::of(&times.iter().map(|(_, time)| *time).collect::<Vec<_>>())
    }

    /// How many times as long as with another mode a request takes.
    pub fn ratio(&self, key: Key, of: Mode, to: Mode) -> Option<Estimate> {
        Estimate::of_ratios(&self.series(key, of)?.times, &self.series(key, to)?.times)
    }

    /// What is worth comparing: a mode, and what it is held against.
    pub fn comparisons(&self) -> Vec<(Mode, Mode)> {
        let modes = self.modes();
        let pairs = [(OFF_OFF, Mode::Direct), (ON_ON, Mode::Direct), (ON_OFF, OFF_OFF), (ON_ON, OFF_OFF)];
        let pairs = pairs.into_iter().filter(|(of, to)| modes.contains(of) && modes.contains(to));
        let targets = modes.iter().filter(|mode| matches!(mode, Mode::Target(1..)));
        pairs.chain(targets.map(|mode| (*mode, Mode::Target(0)))).collect()
    }

    fn add(&mut self, outcome: &Outcome) {
        match &outcome.result {
            RunResult::Measured(measured) => self.add_measured(&outcome.run, measured),
            RunResult::Refused(_) => self.add_without(&outcome.run, Without::Refused),
            RunResult::NotRefused => self.add_without(&outcome.run, Without::NotRefused),
            RunResult::Failed(_) => self.add_without(&outcome.run, Without::Failed),
        }
    }

    fn add_measured(&mut self, run: &Run, measured: &Measured) {
        for (class, times) in &measured.classes {
            let series = self.series_mut(run, *class);
            series.times.push((run.repetition, times.mean.as_secs_f64() * 1e3));
            series.connects.push(measured.connect.as_secs_f64() * 1e3);
        }
    }

    fn add_without(&mut self, run: &Run, why: Without) {
        for class in run.cell.operation.classes() {
            let series = self.series_mut(run, *class);
            // What is wrong is not hidden by what is right.
            if series.without.is_none_or(|without| without == Without::Refused) {
                series.without = Some(why);
            }
        }
    }

    fn series_mut(&mut self, run: &Run, class: Class) -> &mut Series {
        let super::plan::Cell { operation, requests, connections } = run.cell;
        let key = Key { protocol: run.protocol, operation, class, requests, connections };
        self.groups.entry(key).or_default().entry(run.mode).or_default()
    }
}
