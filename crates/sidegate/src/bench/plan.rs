//! Which runs are made, and in which order.
//!
//! What drifts (a warm processor, a neighbour on the machine, a growing table) must hit all modes alike: every repetition has
//! one run of each, close together, and the order changes with it. Deliberately absent: anything that takes time.

use std::fmt;

use anyhow::ensure;
use clap::ValueEnum;

/// More requests a run tell no more, and take minutes.
const REQUESTS_MAX: u32 = 1_000_000;
/// The demo's PostgreSQL takes 200 connections, of which the sidecars and the benchmark itself need some.
const CONNECTIONS_MAX: u32 = 128;
/// A hundred repetitions make intervals that are narrower than what else is uncertain.
const REPEAT_MAX: u32 = 100;
/// A heavy request takes as long as a hundred light ones, or more: so many fewer are made, unless it is said how many.
const HEAVY_SHARE: u32 = 50;
/// Fewer have no average worth the name.
const HEAVY_LEAST: u32 = 5;

/// How a client talks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Protocol {
    /// PostgreSQL's own.
    Native,
    /// `POST /query`.
    Http,
}

impl Protocol {
    /// Its name.
    pub fn label(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Http => "http",
        }
    }
}

/// What the requests of a run are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Operation {
    /// `INSERT INTO log`: one row.
    Light,
    /// An aggregate over all rows of a large table.
    Heavy,
    /// One row by its key.
    Select,
    /// Of 50 requests, 24 light, 25 select and one heavy.
    Mixed,
}

/// The kinds of requests that are told apart in results.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Light requests.
    Write,
    /// One row by its key.
    Read,
    /// Aggregates.
    Heavy,
}

impl Class {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Write, Self::Read, Self::Heavy];

    /// Its name in the CSV file.
    pub fn label(self) -> &'static str {
        match self {
            Self::Write => "write",
            Self::Read => "read",
            Self::Heavy => "heavy",
        }
    }
}

impl Operation {
    /// What the request of this number is, counted from 0.
    pub fn class(self, index: u32) -> Class {
        match self {
            Self::Light => Class::Write,
            Self::Heavy => Class::Heavy,
            Self::Select => Class::Read,
            Self::Mixed => match index % 50 {
                0 => Class::Heavy,
                odd if odd % 2 == 1 => Class::Read,
                _ => Class::Write,
            },
        }
    }

    /// The kinds of requests in it.
    pub fn classes(self) -> &'static [Class] {
        match self {
            Self::Light => &[Class::Write],
            Self::Heavy => &[Class::Heavy],
            Self::Select => &[Class::Read],
            Self::Mixed => &Class::ALL,
        }
    }

    /// Whether its requests are of several kinds.
    pub fn load(self) -> &'static str {
        if self == Self::Mixed { "mixed" } else { "pure" }
    }
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    /// PostgreSQL itself, without a sidecar.
    Direct,
    /// A pair of sidecars.
    Pair {
        /// Whether the outbound one attaches a token.
        sign: bool,
        /// Whether the inbound one asks for it and enforces.
        verify: bool,
    },
    /// An address that was given, by its place on the command line, from 0.
    Target(usize),
}

/// The modes of a pair, by their names in results: sign, then verify.
pub const OFF_OFF: Mode = Mode::Pair { sign: false, verify: false };
/// Tokens are shown, decisions made and recorded, nothing is denied.
pub const ON_OFF: Mode = Mode::Pair { sign: true, verify: false };
/// No token where one is asked for.
pub const OFF_ON: Mode = Mode::Pair { sign: false, verify: true };
/// All of it.
pub const ON_ON: Mode = Mode::Pair { sign: true, verify: true };

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = |on: bool| if on { "on" } else { "off" };
        match self {
            Self::Direct => f.write_str("direct"),
            Self::Pair { sign, verify } => write!(f, "{}/{}", word(*sign), word(*verify)),
            Self::Target(index) => write!(f, "target {}", index + 1),
        }
    }
}

/// One combination that all modes are measured at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cell {
    /// What is asked for.
    pub operation: Operation,
    /// How often, over all connections.
    pub requests: u32,
    /// By how many clients at once.
    pub connections: u32,
}

/// One run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// What is asked for.
    pub cell: Cell,
    /// Of what.
    pub mode: Mode,
    /// By which protocol.
    pub protocol: Protocol,
    /// Which time, from 1.
    pub repetition: u32,
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Cell { operation, requests, connections } = self.cell;
        let operation = format!("{operation:?}").to_lowercase();
        write!(
            f,
            "{operation}, {}, {}, {requests} requests, {connections} connections, repetition {}",
            self.protocol.label(),
            self.mode,
            self.repetition
        )
    }
}

/// What somebody wants measured.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Of what, each with the protocols it can be reached by.
    pub contenders: Vec<(Mode, Vec<Protocol>)>,
    /// What is asked for.
    pub operations: Vec<Operation>,
    /// How often.
    pub requests: Vec<u32>,
    /// The same for heavy requests; empty: a share of the others.
    pub heavy_requests: Vec<u32>,
    /// By how many clients at once.
    pub connections: Vec<u32>,
    /// How many times all of it.
    pub repeat: u32,
}

impl Wanted {
    /// Whether its numbers are sensible.
    ///
    /// # Errors
    /// Which are not.
    pub fn check(&self) -> anyhow::Result<()> {
        within("--requests", &self.requests, REQUESTS_MAX)?;
        within("--heavy-requests", &self.heavy_requests, REQUESTS_MAX)?;
        within("--connections", &self.connections, CONNECTIONS_MAX)?;
        within("--repeat", &[self.repeat], REPEAT_MAX)
    }
}

fn within(what: &str, numbers: &[u32], most: u32) -> anyhow::Result<()> {
    ensure!(numbers.iter().all(|number| (1..=most).contains(number)), "{what}: want numbers from 1 to {most}");
    Ok(())
}

/// All runs, in order.
#[derive(Clone, Debug)]
pub struct Plan {
    runs: Vec<Run>,
}

impl Plan {
    /// Every mode at every cell, once a repetition.
    ///
    /// # Errors
    /// When it asks for nothing, or for more than is sensible.
    pub fn new(wanted: &Wanted) -> anyhow::Result<Self> {
        wanted.check()?;
        ensure!(!wanted.contenders.is_empty(), "there is nothing to measure");
        let cells = cells(wanted);
        let runs = (0..wanted.repeat).flat_map(|repetition| {
            let contenders = in_turn(&wanted.contenders, repetition);
            cells.iter().flat_map(move |&cell| {
                let run = move |(mode, protocol)| Run { cell, mode, protocol, repetition: repetition + 1 };
                contenders.clone().into_iter().map(run)
            })
        });
        Ok(Self { runs: runs.collect() })
    }

    /// The runs, in order.
    pub fn runs(&self) -> &[Run] {
        &self.runs
    }
}

fn cells(wanted: &Wanted) -> Vec<Cell> {
    let mut cells = Vec::new();
    for &operation in &wanted.operations {
        for requests in requests(wanted, operation) {
            for &connections in &wanted.connections {
                let cell = Cell { operation, requests, connections };
                if !cells.contains(&cell) {
                    cells.push(cell);
                }
            }
        }
    }
    cells
}

fn requests(wanted: &Wanted, operation: Operation) -> Vec<u32> {
    match operation {
        Operation::Heavy if wanted.heavy_requests.is_empty() => {
            wanted.requests.iter().map(|&requests| (requests / HEAVY_SHARE).max(HEAVY_LEAST).min(requests)).collect()
        }
        Operation::Heavy => wanted.heavy_requests.clone(),
        _ => wanted.requests.clone(),
    }
}

/// The order of a repetition. Protocols of a mode stand together, as switching costs time. What must be refused puts no
/// load on anything and comes last.
fn in_turn(contenders: &[(Mode, Vec<Protocol>)], repetition: u32) -> Vec<(Mode, Protocol)> {
    let (refused, measured): (Vec<_>, Vec<_>) = contenders.iter().partition(|(mode, _)| mode.must_be_refused());
    let turn = usize::try_from(repetition).unwrap_or(0);
    let ordered = williams(measured.len(), turn).into_iter().filter_map(|index| measured.get(index).copied());
    ordered
        .chain(refused)
        .flat_map(|(mode, protocols)| {
            let mut protocols = protocols.clone();
            if turn % 2 == 1 {
                protocols.reverse();
            }
            protocols.into_iter().map(move |protocol| (*mode, protocol))
        })
        .collect()
}

/// A row of E. J. Williams' square: over `count` rows each number stands once in each place, and, if `count` is even, comes
/// once behind each other number, so that what a run leaves behind for the next one cancels out, too.
fn williams(count: usize, row: usize) -> Vec<usize> {
    let first = (0..count).map(|place| match place {
        0 => 0,
        odd if odd % 2 == 1 => odd.div_ceil(2),
        even => count - even / 2,
    });
    first.map(|number| (number + row) % count).collect()
}

#[cfg(test)]
mod tests;
