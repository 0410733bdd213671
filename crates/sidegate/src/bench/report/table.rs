//! Results as tables of text: times, ratios, connecting.

use crate::bench::plan::Mode;
use crate::bench::stats::Estimate;
use crate::bench::summary::{Key, Summary};

/// All tables.
pub fn text(summary: &Summary) -> String {
    let modes = summary.modes();
    let times = Table::new("Time of one request in ms, median of all repetitions", &names(&modes), |key| {
        modes.iter().map(|mode| time(summary, key, *mode)).collect()
    });
    let comparisons = summary.comparisons();
    let titles: Vec<String> = comparisons.iter().map(|(of, to)| format!("{of} : {to}")).collect();
    let ratios = Table::new("Times as long, median over repetitions [95 % confidence interval]", &titles, |key| {
        comparisons.iter().map(|(of, to)| summary.ratio(key, *of, *to).map_or_else(absent, ratio)).collect()
    });
    let connects = Table::new("To connect and log in, ms; by HTTP, only to connect", &names(&modes), |key| {
        modes.iter().map(|mode| connect(summary, key, *mode)).collect()
    });
    [times, ratios, connects].into_iter().flatten().map(|table| table.text(summary)).collect()
}

struct Table<'a> {
    title: &'static str,
    columns: Vec<String>,
    row: Box<dyn Fn(Key) -> Vec<String> + 'a>,
}

impl<'a> Table<'a> {
    /// `None` without columns.
    fn new(title: &'static str, columns: &[String], row: impl Fn(Key) -> Vec<String> + 'a) -> Option<Self> {
        (!columns.is_empty()).then(|| Self { title, columns: columns.to_vec(), row: Box::new(row) })
    }

    fn text(&self, summary: &Summary) -> String {
        let what = ["operation", "load", "protocol", "requests", "connections"].map(str::to_owned);
        let head: Vec<String> = what.into_iter().chain(self.columns.iter().cloned()).collect();
        let rows = summary.keys().map(|key| {
            let Key { protocol, operation, class, requests, connections } = key;
            let place = [class.label(), operation.load(), protocol.label()].map(str::to_owned);
            let numbers = [requests.to_string(), connections.to_string()];
            place.into_iter().chain(numbers).chain((self.row)(key)).collect()
        });
        format!("{}\n{}\n", self.title, aligned(&std::iter::once(head).chain(rows).collect::<Vec<_>>()))
    }
}

/// The first three columns are words.
fn aligned(rows: &[Vec<String>]) -> String {
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let line = |row: &Vec<String>| {
        let cells = row.iter().enumerate().map(|(column, cell)| {
            let width = width(column).unwrap_or(0);
            if column < 3 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        format!("  {}\n", cells.collect::<Vec<_>>().join("  "))
    };
    rows.iter().map(line).collect()
}

fn names(modes: &[Mode]) -> Vec<String> {
    modes.iter().map(ToString::to_string).collect()
}

fn time(summary: &Summary, key: Key, mode: Mode) -> String {
    let Some(series) = summary.series(key, mode) else { return absent() };
    // What failed now and then must not pass for a result.
    match (summary.time(key, mode), series.without) {
        (Some(time), None) => milliseconds(time.median),
        (Some(time), Some(without)) => format!("{} ({})", milliseconds(time.median), without.label()),
        (None, Some(without)) => without.label().into(),
        (None, None) => absent(),
    }
}

fn connect(summary: &Summary, key: Key, mode: Mode) -> String {
    let median = summary.series(key, mode).and_then(|series| Estimate::of(&series.connects));
    median.map_or_else(absent, |estimate| milliseconds(estimate.median))
}

fn ratio(ratio: Estimate) -> String {
    match ratio.interval {
        Some((low, high)) => format!("{:.3} [{low:.3}, {high:.3}]", ratio.median),
        None => format!("{:.3} [too few]", ratio.median),
    }
}

fn milliseconds(time: f64) -> String {
    if time < 10.0 { format!("{time:.3}") } else { format!("{time:.2}") }
}

fn absent() -> String {
    "-".into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::plan::{OFF_OFF, OFF_ON, ON_ON, Operation, Protocol};
    use crate::bench::report::testing::{measured, run};
    use crate::bench::{Outcome, RunResult};

    #[test]
    fn medians_ratios_and_refusals_are_told() {
        let mut outcomes = Vec::new();
        for repetition in 1..=6 {
            let time = f64::from(repetition);
            for (mode, factor) in [(Mode::Direct, 0.5), (OFF_OFF, 1.0), (ON_ON, 1.25)] {
                let protocol = Protocol::Native;
                outcomes.push(measured(run(Operation::Light, mode, protocol, repetition), time * factor));
            }
            let refused = run(Operation::Light, OFF_ON, Protocol::Native, repetition);
            outcomes.push(Outcome { run: refused, result: RunResult::Refused("no".into()) });
        }
        let text = text(&Summary::of(&outcomes));
        let line = |table: &str| {
            let lines = text.lines().skip_while(|line| !line.starts_with(table));
            lines.skip(2).map(str::split_whitespace).map(Iterator::collect::<Vec<_>>).next().unwrap()
        };
        assert_eq!(line("Time"), ["write", "pure", "native", "100", "4", "1.750", "3.500", "4.375", "refused"]);
        let ratios = ["2.000", "[2.000,", "2.000]", "2.500", "[2.500,", "2.500]", "1.250", "[1.250,", "1.250]"];
        assert_eq!(line("Times as")[5..], ratios);
    }

    #[test]
    fn by_http_a_pair_is_held_against_the_native_protocol() {
        let direct = measured(run(Operation::Select, Mode::Direct, Protocol::Native, 1), 1.0);
        let pair = measured(run(Operation::Select, ON_ON, Protocol::Http, 1), 3.0);
        let summary = Summary::of(&[direct, pair]);
        let key = summary.keys().find(|key| key.protocol == Protocol::Http).unwrap();
        assert_eq!(summary.ratio(key, ON_ON, Mode::Direct).map(|ratio| ratio.median), Some(3.0));
    }

    #[test]
    fn targets_are_held_against_the_first() {
        let outcomes = [0, 1].map(|target: u8| {
            let run = run(Operation::Select, Mode::Target(target.into()), Protocol::Native, 1);
            measured(run, f64::from(target) + 1.0)
        });
        assert!(text(&Summary::of(&outcomes)).contains("target 2 : target 1"));
    }

    #[test]
    fn what_failed_at_times_is_marked() {
        let good = measured(run(Operation::Light, ON_ON, Protocol::Native, 1), 1.0);
        let bad = run(Operation::Light, ON_ON, Protocol::Native, 2);
        let bad = Outcome { run: bad, result: RunResult::Failed("down".into()) };
        assert!(text(&Summary::of(&[good, bad])).contains("1.000 (failed)"));
    }
}
