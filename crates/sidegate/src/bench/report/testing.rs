//! For tests of reports: runs with made-up figures.

use std::time::Duration;

use crate::bench::ground::metrics::Usage;
use crate::bench::plan::{Cell, Mode, Operation, Protocol, Run};
use crate::bench::run::Measured;
use crate::bench::stats::Times;
use crate::bench::{Outcome, RunResult};

/// 100 requests over 4 connections.
pub fn run(operation: Operation, mode: Mode, protocol: Protocol, repetition: u32) -> Run {
    Run { cell: Cell { operation, requests: 100, connections: 4 }, mode, protocol, repetition }
}

/// All requests of it took this time.
pub fn measured(run: Run, milliseconds: f64) -> Outcome {
    let time = Duration::from_secs_f64(milliseconds / 1e3);
    let times = Times { count: 100, mean: time, p50: time, p90: time, p99: time, max: time };
    let usage = Usage { cpu_seconds: 0.5, resident_bytes: 9e6 };
    let pair = matches!(run.mode, Mode::Pair { .. });
    let measured = Measured {
        classes: run.cell.operation.classes().iter().map(|class| (*class, times)).collect(),
        wall: time * 100,
        connect: time * 3,
        errors: None,
        usage: pair.then_some([usage, usage]),
        cut: false,
        lost: 0,
    };
    Outcome { run, result: RunResult::Measured(Box::new(measured)) }
}
