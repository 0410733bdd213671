//! `sidegate bench`: what authorization costs, measured on this machine.
//!
//! Arguments, files, the progress bar and Ctrl-C are here; what is measured and how it is counted is `crate::bench`.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::oneshot;

use files::{ChartFile, CsvFile};

use super::life::EndSignals;

use crate::bench::client::{Address, Target, parse_dsn};
use crate::bench::ground::Ground;
use crate::bench::ground::demo::DemoGround;
use crate::bench::plan::{Mode, Operation, Plan, Protocol, Wanted};
use crate::bench::report::table;
use crate::bench::run::Bounds;
use crate::bench::statements::{self, Texts};
use crate::bench::summary::Summary;
use crate::bench::{Cancel, How, Outcome, RunResult, execute};

mod files;

const NOT_OPTIMISED: &str = "this is not an optimised build";

/// After Ctrl-C, a request that is under way may take so long.
const CANCEL_GRACE: Duration = Duration::from_secs(3);
/// Of complaints of one kind after another, the first ones tell it.
const COMPLAINTS_SHOWN: usize = 10;

/// Arguments of `sidegate bench`.
#[derive(Args)]
pub struct BenchArgs {
    /// Requests of one run, over all its connections; several numbers: each is measured.
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_values_t = [1000])]
    requests: Vec<u32>,
    /// The same for runs of heavy requests only [default: a fiftieth of --requests, at least 5].
    #[arg(long, value_name = "N,…", value_delimiter = ',')]
    heavy_requests: Vec<u32>,
    /// Clients at once; several numbers: each is measured.
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_values_t = [1])]
    connections: Vec<u32>,
    /// How many times all of it; six are the least from which confidence intervals can be told.
    #[arg(long, value_name = "N", default_value_t = 10)]
    repeat: u32,
    /// What is asked for.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Operation::Light, Operation::Select, Operation::Heavy, Operation::Mixed])]
    operations: Vec<Operation>,
    /// How it is asked.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Protocol::Native, Protocol::Http])]
    protocol: Vec<Protocol>,
    /// In which form statements are sent.
    #[arg(long, value_enum, default_value = "prepared")]
    texts: Texts,
    /// Rows of the table that heavy requests read.
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
    rows: u32,
    /// A run begins no request after this time.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3600))]
    run_limit: u64,
    /// Write each run to this file: requests,time_ms,operation,sign_enabled,verify_enabled.
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// More columns behind those: protocol, connections, percentiles, throughput, processor time, memory and others.
    #[arg(long, requires = "csv")]
    wide: bool,
    /// Draw on against off into this file, .svg or .html.
    #[arg(long, value_name = "FILE")]
    chart: Option<PathBuf>,
    /// Measure a demo that runs, by its ready file (`sidegate demo --ready-file FILE`), and put its settings back afterwards.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["native", "http"])]
    demo: Option<PathBuf>,
    /// Which database of the demo. service-a may write to postgres-a, and only read postgres-b: select and heavy.
    #[arg(long, value_name = "NAME", default_value = "postgres-a", value_parser = ["postgres-a", "postgres-b"], conflicts_with_all = ["native", "http"])]
    service: String,
    /// Say how far it is on standard error, a line `DONE/ALL` a run: for programs.
    #[arg(long, hide = true)]
    progress_lines: bool,
    /// Measure this PostgreSQL or sidecar instead of a demo, as it is; the tables must be there (--print-schema). The first of
    /// several is what the others are held against.
    #[arg(long, value_name = "DSN")]
    native: Vec<String>,
    /// The same for a service's `POST /query`.
    #[arg(long, value_name = "URL")]
    http: Vec<String>,
    /// Print the SQL that makes the tables for --native and --http, and end.
    #[arg(long)]
    print_schema: bool,
}

/// Measure, and say what came of it.
pub fn run(args: BenchArgs) -> anyhow::Result<ExitCode> {
    if args.print_schema {
        say(&statements::script(args.rows));
        return Ok(ExitCode::SUCCESS);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(bench(args))
}

async fn bench(args: BenchArgs) -> anyhow::Result<ExitCode> {
    // What is wrong with the arguments is told before anything is started.
    wanted(&args, Vec::new()).check()?;
    only_what_is_allowed(&args)?;
    let targets = targets(&args)?;
    let chart = args.chart.as_deref().map(ChartFile::create).transpose()?;
    let csv = args.csv.as_deref().map(|file| CsvFile::create(file, args.wide)).transpose()?;
    if cfg!(debug_assertions) {
        eprintln!("sidegate: {NOT_OPTIMISED}: its figures say little. Build with cargo build --release.");
    }
    let cancel = Cancel::default();
    let cancelled = on_signal(cancel.clone())?;
    let mut ground = ground(&args, targets, &cancel).await?;
    let notes = notes(&args, &ground);
    let (outcomes, measured) = measure(&args, &mut ground, &cancel, cancelled, csv).await;
    let ended = ground.end().await;
    report(&outcomes, &notes, chart)?;
    let complained = complain(&outcomes);
    measured.and(ended)?;
    Ok(if complained { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// service-a is a reader of postgres-b: what would be denied is not measured.
fn only_what_is_allowed(args: &BenchArgs) -> anyhow::Result<()> {
    let writes = args.operations.iter().any(|operation| matches!(operation, Operation::Light | Operation::Mixed));
    if args.service == "postgres-b" && writes {
        anyhow::bail!("--service postgres-b: service-a only reads there; add --operations select,heavy");
    }
    Ok(())
}

async fn ground(args: &BenchArgs, targets: Vec<Target>, cancel: &Cancel) -> anyhow::Result<Ground> {
    if !targets.is_empty() {
        return Ok(Ground::Targets(targets, args.rows));
    }
    let demo = match &args.demo {
        Some(ready_file) => DemoGround::attach(ready_file, &args.service, args.rows).await?,
        None => DemoGround::start(&args.service, args.rows, cancel).await?,
    };
    Ok(Ground::Demo(Box::new(demo)))
}

fn targets(args: &BenchArgs) -> anyhow::Result<Vec<Target>> {
    let native = args.native.iter().map(|dsn| Ok(Target::Native(Box::new(parse_dsn(dsn)?))));
    native.chain(args.http.iter().map(|url| Ok(Target::Http(Address::parse(url)?)))).collect()
}

fn wanted(args: &BenchArgs, contenders: Vec<(Mode, Vec<Protocol>)>) -> Wanted {
    Wanted {
        contenders,
        operations: args.operations.clone(),
        requests: args.requests.clone(),
        heavy_requests: args.heavy_requests.clone(),
        connections: args.connections.clone(),
        repeat: args.repeat,
    }
}

/// What there is when it ends, and what ended it early, if something did.
async fn measure(
    args: &BenchArgs,
    ground: &mut Ground,
    cancel: &Cancel,
    cancelled: impl Future<Output = ()>,
    mut csv: Option<CsvFile>,
) -> (Vec<Outcome>, anyhow::Result<()>) {
    let mut protocols = args.protocol.clone();
    protocols.sort_unstable();
    protocols.dedup();
    let plan = match Plan::new(&wanted(args, ground.contenders(&protocols))) {
        Ok(plan) => plan,
        Err(error) => return (Vec::new(), Err(error)),
    };
    let bar = progress_bar(&plan);
    let how = How { texts: args.texts, bounds: Bounds { time: Duration::from_secs(args.run_limit) } };
    let (mut outcomes, mut written) = (Vec::new(), Ok(()));
    let runs = execute(&plan, ground, how, cancel, |outcome| {
        bar.inc(1);
        if args.progress_lines {
            eprintln!("{}/{}", bar.position(), plan.runs().len());
        }
        bar.set_message(outcome.run.to_string());
        if let Err(error) = csv.as_mut().map_or(Ok(()), |csv| csv.write(&outcome)) {
            written = Err(error);
            cancel.cancel();
        }
        outcomes.push(outcome);
    });
    let ended = tokio::select! {
        ended = runs => ended,
        () = cancelled => Ok(()),
    };
    bar.finish_and_clear();
    if outcomes.len() < plan.runs().len() {
        eprintln!("sidegate: ended early, after {} of {} runs.", outcomes.len(), plan.runs().len());
    }
    (outcomes, written.and(ended))
}

/// On a terminal only; the time that is left is a guess from the runs so far.
fn progress_bar(plan: &Plan) -> ProgressBar {
    let bar = ProgressBar::new(u64::try_from(plan.runs().len()).unwrap_or(u64::MAX));
    let style = ProgressStyle::with_template("{bar:30} {pos} of {len}, {eta} left: {msg}");
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// Cancels with the first signal. Completes when that has not helped within a grace, or with the second.
fn on_signal(cancel: Cancel) -> anyhow::Result<impl Future<Output = ()>> {
    let mut signals = EndSignals::new()?;
    let (tell, told) = oneshot::channel();
    tokio::spawn(async move {
        signals.received().await;
        cancel.cancel();
        let _ = tokio::time::timeout(CANCEL_GRACE, signals.received()).await;
        let _ = tell.send(());
    });
    Ok(async move { drop(told.await) })
}

/// What a reader of the results must know.
fn notes(args: &BenchArgs, ground: &Ground) -> Vec<String> {
    let build = if cfg!(debug_assertions) { NOT_OPTIMISED } else { "an optimised build" };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let processor = processor().unwrap_or_else(|| std::env::consts::ARCH.into());
    let mut notes = vec![format!("sidegate {}, {build}; {cores} cores, {processor}", env!("CARGO_PKG_VERSION"))];
    notes.extend(ground.describe());
    notes.push(format!("{}; {} repetitions, modes in turn", args.texts.words(), args.repeat));
    notes.push(
        "not counted: requests to warm up (a tenth of each connection's, at most 100) and connecting, which has a table of its own"
            .into(),
    );
    notes
}

/// Linux's name for it.
fn processor() -> Option<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn report(outcomes: &[Outcome], notes: &[String], chart: Option<ChartFile>) -> anyhow::Result<()> {
    let summary = Summary::of(outcomes);
    let tables = table::text(&summary);
    say(&format!("{}\n\n{tables}{}", notes.join("\n"), refusals(outcomes)));
    chart.map_or(Ok(()), |chart| chart.write(&summary, notes, &tables))
}

/// What a caller without a token was told, once for each protocol.
fn refusals(outcomes: &[Outcome]) -> String {
    let mut lines: Vec<String> = outcomes
        .iter()
        .filter_map(|Outcome { run, result }| match result {
            RunResult::Refused(words) => {
                let (mode, protocol) = (run.mode, run.protocol.label());
                Some(format!("{mode}, {protocol}: refused, as it should be, nothing to measure ({words})\n"))
            }
            _ => None,
        })
        .collect();
    lines.sort_unstable();
    lines.dedup();
    lines.concat()
}

/// Whether there was something to complain of.
fn complain(outcomes: &[Outcome]) -> bool {
    let complaints: Vec<String> = outcomes.iter().filter_map(Outcome::complaint).collect();
    for complaint in complaints.iter().take(COMPLAINTS_SHOWN) {
        eprintln!("sidegate: {complaint}");
    }
    if complaints.len() > COMPLAINTS_SHOWN {
        eprintln!("sidegate: and so on, {} runs in all.", complaints.len());
    }
    !complaints.is_empty()
}

/// Standard output may be a pipe that nobody reads any more.
fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
