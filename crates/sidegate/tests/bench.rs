//! `sidegate bench` with tiny numbers: that every mode is measured or refused as it should be, and nothing is left behind.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use testkit::{Demo, processes_naming, psql, within};

const PROGRAM: &str = env!("CARGO_BIN_EXE_sidegate");
/// A demo of its own, started on a machine that is busy with other tests.
const START_LIMIT: Duration = Duration::from_secs(120);
/// The guard's time for a demo, and some.
const END_LIMIT: Duration = Duration::from_secs(20);

#[test]
fn alone_it_measures_every_mode_and_leaves_nothing() {
    let files = tempfile::tempdir().unwrap();
    let (csv, svg) = (files.path().join("runs.csv"), files.path().join("chart.svg"));
    let numbers =
        ["--requests", "20", "--heavy-requests", "3", "--connections", "2", "--repeat", "2", "--rows", "2000"];
    let mut bench = start(&[&numbers[..], &["--wide"]].concat(), &[("--csv", &csv), ("--chart", &svg)]);
    let state = own_state(&mut bench);
    let output = bench.wait_with_output().unwrap();
    let (said, complained) = words(&output);
    assert!(output.status.success(), "{said}\n{complained}");
    assert_eq!((processes_naming(&state), Path::new(&state).exists()), (vec![], false));

    let rows = rows(&csv);
    let counted = count(&rows, |row| (row["mode"].clone(), row["protocol"].clone()));
    // A row for each light, select and heavy run and three for each mixed one, twice.
    let modes =
        ["off/off", "on/off", "off/on", "on/on"].into_iter().flat_map(|mode| [(mode, "http"), (mode, "native")]);
    let expected = modes.chain([("direct", "native")]).map(|(mode, protocol)| ((mode.into(), protocol.into()), 12));
    assert_eq!(counted, expected.collect());
    for row in &rows {
        let switched = match row["mode"].split_once('/') {
            Some((sign, verify)) => [sign, verify].map(|word| (word == "on").to_string()),
            None => Default::default(),
        };
        assert_eq!([row["sign_enabled"].clone(), row["verify_enabled"].clone()], switched, "{row:?}");
        let requests = match (row["mode"].as_str(), row["load"].as_str(), row["operation"].as_str()) {
            ("off/on", ..) => 0,
            (_, "mixed", "heavy") => 1,
            (_, "mixed", "read") => 10,
            (_, "mixed", _) => 9,
            (_, _, "heavy") => 3,
            _ => 20,
        };
        assert_eq!(number(row, "requests"), f64::from(requests), "{row:?}");
        let outcome = if requests == 0 { "refused" } else { "measured" };
        assert_eq!(row["outcome"], outcome, "{row:?}");
        assert_eq!(row["time_ms"].is_empty(), requests == 0, "{row:?}");
        if requests > 0 {
            assert!(number(row, "time_ms") > 0.0 && number(row, "p50_us") <= number(row, "max_us"), "{row:?}");
            assert_eq!(row["inbound_rss_bytes"].is_empty(), row["mode"] == "direct", "{row:?}");
        }
    }

    assert!(
        said.contains("off/on, native: refused, as it should be") && said.contains("off/on, http: refused"),
        "{said}"
    );
    assert!(said.contains("on/on : off/off") && said.contains("[too few]"), "two repetitions have no interval: {said}");
    assert!(complained.contains("not an optimised build") || !cfg!(debug_assertions), "{complained}");
    let svg = fs::read_to_string(svg).unwrap();
    let chart = roxmltree::Document::parse(&svg).unwrap();
    let bars = chart.descendants().filter(|node| node.attribute("class") == Some("on") && node.has_tag_name("rect"));
    // Light, select, heavy and the mixture's three, by two protocols; and one in the legend.
    assert_eq!(bars.count(), 13);
}

#[test]
fn killed_hard_it_leaves_no_process() {
    let mut bench = start(&["--requests", "100000", "--rows", "1000", "--operations", "light"], &[]);
    let state = own_state(&mut bench);
    bench.kill().unwrap();
    bench.wait().unwrap();
    let gone = within(END_LIMIT, || processes_naming(&state).is_empty().then_some(()));
    assert!(gone.is_some(), "{:?}", processes_naming(&state));
    fs::remove_dir_all(&state).unwrap();
}

#[test]
fn interrupted_it_reports_what_there_is_and_puts_back_what_was_set() {
    let files = tempfile::tempdir().unwrap();
    let csv = files.path().join("runs.csv");
    let demo = Demo::start_without_prometheus(PROGRAM);
    demo.set("postgres-a", "VERIFY_AUTH_ENABLED", "observe\n");
    let ready = demo.dir().parent().unwrap().join("ready.json");
    let numbers = ["--requests", "200", "--repeat", "100", "--rows", "1000", "--operations", "light"];
    let bench = start(&numbers, &[("--demo", &ready), ("--csv", &csv)]);
    let runs = || fs::read_to_string(&csv).ok().filter(|text| text.lines().count() > 10);
    assert!(within(START_LIMIT, runs).is_some(), "runs are written as they end");
    kill_process(Pid::from_raw(bench.id().try_into().unwrap()).unwrap(), Signal::INT).unwrap();
    let output = bench.wait_with_output().unwrap();
    let (said, complained) = words(&output);
    assert!(output.status.success(), "{complained}");
    assert!(complained.contains("ended early, after") && said.contains("Time of one request"), "{said}\n{complained}");
    let set =
        |service: &str, key: &str| fs::read_to_string(demo.dir().join("settings").join(service).join(key)).unwrap();
    assert_eq!(set("postgres-a", "VERIFY_AUTH_ENABLED"), "observe\n");
    assert_eq!(set("service-a", "SIGN_AUTH_ENABLED"), "true\n");
    let schemas = psql(&superuser(&demo), "select count(*) from pg_namespace where nspname = 'sidegate_bench'");
    assert_eq!(String::from_utf8_lossy(&schemas.stdout).trim(), "0", "{schemas:?}");
}

#[test]
fn any_target_can_be_measured_as_it_is() {
    let demo = Demo::start_without_prometheus(PROGRAM);
    let native = demo.outbound("service-a", "postgres-a").replacen("://", "://app@", 1);
    let http = demo.http("service-a", "postgres-a");
    let numbers = ["--requests", "10", "--repeat", "1", "--rows", "500", "--operations", "light,select"];
    let targets = ["--native", &native, "--native", &superuser(&demo), "--http", http, "--texts", "new"];
    let arguments = [&numbers[..], &targets].concat();

    let output = start(&arguments, &[]).wait_with_output().unwrap();
    let (said, complained) = words(&output);
    assert!(
        !output.status.success() && complained.contains("sidegate_bench"),
        "without the tables: {said}\n{complained}"
    );
    make_tables(&demo);
    let output = start(&arguments, &[]).wait_with_output().unwrap();
    let (said, complained) = words(&output);
    assert!(output.status.success(), "{said}\n{complained}");
    assert!(said.contains("target 2 : target 1") && said.contains(&format!("target 3 is {http}/query")), "{said}");
    let written = psql(&superuser(&demo), "select count(*) > 30 from sidegate_bench.log");
    assert_eq!(String::from_utf8_lossy(&written.stdout).trim(), "t", "{written:?}");
}

#[test]
fn what_cannot_be_done_is_told_before_anything_is_started() {
    for (arguments, expected) in [
        (["--connections", "5000"], "--connections: want numbers from 1 to 128"),
        (["--chart", "result.png"], "must end with .svg or .html"),
        (["--csv", "/nowhere/at/all.csv"], "cannot write /nowhere/at/all.csv"),
        (["--native", "postgresql://127.0.0.1/shop?sslmode=require"], "no TLS of its own"),
        (["--http", "https://127.0.0.1/query"], "no http:// URL"),
    ] {
        let output = start(&arguments, &[]).wait_with_output().unwrap();
        let (_, complained) = words(&output);
        assert!(!output.status.success() && complained.contains(expected), "{arguments:?}: {complained}");
    }
}

fn start(arguments: &[&str], files: &[(&str, &Path)]) -> Child {
    let mut command = Command::new(PROGRAM);
    command.arg("bench").args(arguments);
    for (name, file) in files {
        command.arg(name).arg(file);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// The directory of the benchmark's own demo: its guard, a child of the benchmark, names it. Waits until the demo is up.
fn own_state(bench: &mut Child) -> String {
    let directory = within(START_LIMIT, || {
        let guard = children(bench.id()).into_iter().find(|line| line.contains("/tmp/sidegate-bench-"))?;
        let place =
            guard.split(' ').find(|word| word.starts_with("/tmp/sidegate-bench-") && word.ends_with("/demo"))?;
        Some(place.trim_end_matches("/demo").to_owned())
    });
    let directory = directory.expect("a demo of its own");
    let ready = PathBuf::from(&directory).join("ready.json");
    assert!(within(START_LIMIT, || ready.exists().then_some(())).is_some(), "{:?}", bench.try_wait());
    directory
}

fn children(pid: u32) -> Vec<String> {
    let of = |child: &i32| {
        let stat = fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1)?.parse().ok()) == Some(pid)
    };
    processes_naming("guard").into_iter().filter(|(child, _)| of(child)).map(|(_, line)| line).collect()
}

fn words(output: &Output) -> (String, String) {
    (String::from_utf8_lossy(&output.stdout).into_owned(), String::from_utf8_lossy(&output.stderr).into_owned())
}

fn rows(csv: &Path) -> Vec<BTreeMap<String, String>> {
    let text = fs::read_to_string(csv).unwrap();
    let mut lines = text.lines().map(|line| line.split(',').map(str::to_owned).collect::<Vec<_>>());
    let columns = lines.next().unwrap();
    assert_eq!(columns[..5].join(","), "requests,time_ms,operation,sign_enabled,verify_enabled");
    lines
        .map(|fields| {
            assert_eq!(fields.len(), columns.len(), "{fields:?}");
            columns.iter().cloned().zip(fields).collect()
        })
        .collect()
}

fn count<K: Ord>(
    rows: &[BTreeMap<String, String>],
    key: impl Fn(&BTreeMap<String, String>) -> K,
) -> BTreeMap<K, usize> {
    rows.iter().fold(BTreeMap::new(), |mut counted, row| {
        *counted.entry(key(row)).or_default() += 1;
        counted
    })
}

fn number(row: &BTreeMap<String, String>, column: &str) -> f64 {
    row[column].parse().unwrap_or_else(|_| panic!("{column} of {row:?}"))
}

fn superuser(demo: &Demo) -> String {
    format!("host={} user=postgres dbname=shop", demo.socket_dir("postgres-a"))
}

fn make_tables(demo: &Demo) {
    let schema = Command::new(PROGRAM).args(["bench", "--print-schema", "--rows", "500"]).output().unwrap();
    let mut psql = Command::new("psql")
        .args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-v", "login=app_writer", "-d", &superuser(demo)])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    psql.stdin.take().unwrap().write_all(&schema.stdout).unwrap();
    assert!(psql.wait().unwrap().success());
}
