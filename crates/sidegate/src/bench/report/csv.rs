//! Results as CSV (RFC 4180, with line feeds): a row for each run and kind of request.
//!
//! No field needs quoting: all are numbers and words of ours.

use std::fmt::Display;
use std::time::Duration;

use crate::bench::ground::metrics::Usage;
use crate::bench::plan::{Class, Mode, Run};
use crate::bench::run::Measured;
use crate::bench::stats::Times;
use crate::bench::{Outcome, RunResult};

const COLUMNS: &str = "requests,time_ms,operation,sign_enabled,verify_enabled";
const WIDE_COLUMNS: &str = "protocol,mode,load,connections,repetition,outcome,p50_us,p90_us,p99_us,max_us,throughput_per_s,\
    connect_ms,errors,outbound_cpu_s,inbound_cpu_s,outbound_rss_bytes,inbound_rss_bytes";
/// In the columns of what a run without figures would have measured: from `p50_us` on.
const NOTHING_MEASURED: &str = ",,,,,,,,,,";

/// The first line.
pub fn head(wide: bool) -> String {
    if wide { format!("{COLUMNS},{WIDE_COLUMNS}\n") } else { format!("{COLUMNS}\n") }
}

/// The lines of one run: one for each kind of request. A run without figures has no requests and no time.
pub fn rows(outcome: &Outcome, wide: bool) -> String {
    let Outcome { run, result } = outcome;
    if let RunResult::Measured(measured) = result {
        return measured
            .classes
            .iter()
            .map(|(class, times)| measured_row(run, measured, *class, times, wide))
            .collect();
    }
    let label = match result {
        RunResult::Refused(_) => "refused",
        RunResult::NotRefused => "not_refused",
        _ => "failed",
    };
    let row = |class: &Class| {
        let start = narrow(run, 0, "", *class);
        if wide { format!("{start},{},{label},{NOTHING_MEASURED}\n", place(run)) } else { format!("{start}\n") }
    };
    run.cell.operation.classes().iter().map(row).collect()
}

fn measured_row(run: &Run, measured: &Measured, class: Class, times: &Times, wide: bool) -> String {
    let start = narrow(run, times.count, format!("{:.6}", times.mean.as_secs_f64() * 1e3), class);
    if !wide {
        return format!("{start}\n");
    }
    let [p50, p90, p99, max] = [times.p50, times.p90, times.p99, times.max].map(microseconds);
    format!(
        "{start},{},{},{p50},{p90},{p99},{max},{:.1},{:.3},{},{}\n",
        place(run),
        if measured.cut { "cut" } else { "measured" },
        f64::from(times.count) / measured.wall.as_secs_f64(),
        measured.connect.as_secs_f64() * 1e3,
        measured.errors.as_ref().map_or(0, |(count, _)| *count),
        usage(measured.usage),
    )
}

fn narrow(run: &Run, requests: u32, time: impl Display, class: Class) -> String {
    let (sign, verify) = match run.mode {
        Mode::Pair { sign, verify } => (sign.to_string(), verify.to_string()),
        // Without sidecars there is nothing to be switched; "false" would make it one with a pair that is switched off.
        Mode::Direct | Mode::Target(_) => Default::default(),
    };
    format!("{requests},{time},{},{sign},{verify}", class.label())
}

fn place(run: &Run) -> String {
    let mode = run.mode.to_string().replace(' ', "_");
    let (protocol, load) = (run.protocol.label(), run.cell.operation.load());
    format!("{protocol},{mode},{load},{},{}", run.cell.connections, run.repetition)
}

fn usage(usage: Option<[Usage; 2]>) -> String {
    let Some([outbound, inbound]) = usage else { return ",,,".into() };
    format!(
        "{:.2},{:.2},{:.0},{:.0}",
        outbound.cpu_seconds, inbound.cpu_seconds, outbound.resident_bytes, inbound.resident_bytes
    )
}

fn microseconds(time: Duration) -> String {
    format!("{:.1}", time.as_secs_f64() * 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::plan::{OFF_ON, ON_ON, Operation, Protocol};
    use crate::bench::report::testing::{measured, run};

    #[test]
    fn the_columns_are_those_promised() {
        assert_eq!(head(false), "requests,time_ms,operation,sign_enabled,verify_enabled\n");
        assert!(head(true).starts_with("requests,time_ms,operation,sign_enabled,verify_enabled,protocol,mode,"));
        let on_on = measured(run(Operation::Light, ON_ON, Protocol::Http, 1), 1.5);
        let direct = measured(run(Operation::Select, Mode::Direct, Protocol::Native, 1), 0.25);
        assert_eq!(rows(&on_on, false), "100,1.500000,write,true,true\n");
        assert_eq!(rows(&direct, false), "100,0.250000,read,,\n", "no sidecar, nothing switched");
    }

    #[test]
    fn what_was_refused_is_there_without_figures() {
        let refused = run(Operation::Mixed, OFF_ON, Protocol::Native, 1);
        let refused = Outcome { run: refused, result: RunResult::Refused("no".into()) };
        let expected = "0,,write,false,true\n0,,read,false,true\n0,,heavy,false,true\n";
        assert_eq!(rows(&refused, false), expected);
        assert!(rows(&refused, true).starts_with("0,,write,false,true,native,off/on,mixed,4,1,refused,"));
    }

    #[test]
    fn every_row_has_a_field_for_every_column() {
        let columns = head(true).matches(',').count();
        for mode in [ON_ON, Mode::Direct, Mode::Target(0)] {
            let good = measured(run(Operation::Mixed, mode, Protocol::Native, 2), 1.0);
            let bad = Outcome { result: RunResult::Failed("x".into()), ..good.clone() };
            for outcome in [good, bad] {
                for row in rows(&outcome, true).lines() {
                    assert_eq!(row.matches(',').count(), columns, "{row}");
                }
            }
        }
    }
}
