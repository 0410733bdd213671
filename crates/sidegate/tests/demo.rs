//! The demo itself: what it promises to scripts and to people, and that it leaves nothing behind.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use testkit::{Demo, STOP_LIMIT, processes_naming, psql, state_directory, within};

const PROGRAM: &str = env!("CARGO_BIN_EXE_sidegate");

#[test]
fn every_printed_line_behaves_as_printed() {
    every_line_behaves(&Demo::start(PROGRAM));
}

#[test]
fn without_a_prometheus_there_is_an_inventory() {
    let demo = Demo::start_without_prometheus(PROGRAM);
    assert_eq!(demo.web(), "inventory");
    every_line_behaves(&demo);
}

fn every_line_behaves(demo: &Demo) {
    let output = demo.output();
    let lines: Vec<&str> = output.lines().map(str::trim).collect();
    let tries = |program| lines.windows(2).filter(move |pair| pair[0].starts_with(program));
    assert!(tries("psql ").count() >= 6 && tries("curl ").count() >= 5, "{output}");
    for pair in tries("psql ").chain(tries("curl ")) {
        let shown = Command::new("sh").args(["-c", &format!("{} 2>&1", pair[0])]).output().unwrap();
        let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
        assert!(shown.contains(pair[1]), "{}\nshould show: {}\nshows: {shown}", pair[0], pair[1]);
    }
}

#[test]
fn the_ready_file_has_the_promised_shape() {
    let demo = Demo::start(PROGRAM);
    let ready = demo.ready();
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    let all = ["ca_file", "console", "decision_logs", "dir", "http", "inbound", "inbound_http", "issuer"];
    let rest = ["metrics", "outbound", "postgres", "settings", "subject_tokens", "trust_bundle"];
    assert_eq!(keys(ready), [&all[..], &rest].concat());
    assert!(ready["issuer"].as_str().unwrap().starts_with("http://127.0.0.1:"));
    let link = ready["console"].as_str().unwrap();
    assert!(link.starts_with("http://127.0.0.1:") && link.contains("/sign-in?key="), "{link}");
    assert_eq!(keys(&ready["inbound"]), ["postgres-a", "postgres-b"]);
    let targets: BTreeSet<&str> = ["postgres-a", "postgres-b", demo.web()].into();
    assert_eq!(keys(&ready["inbound_http"]), Vec::from_iter(targets.clone()));
    assert_eq!(keys(&ready["decision_logs"]), Vec::from_iter(targets.clone()));
    for log in ready["decision_logs"].as_object().unwrap().values() {
        let lines = std::fs::read_to_string(log.as_str().unwrap()).unwrap();
        assert!(lines.starts_with("{\"schema\":1,\"time\":") && lines.contains("\"event\":\"started\""), "{lines}");
    }
    assert_eq!(keys(&ready["settings"]), Vec::from_iter(&targets | &["service-a", "service-b"].into()));
    for app in ["service-a", "service-b"] {
        assert_eq!(keys(&ready["outbound"][app]), ["postgres-a", "postgres-b"]);
        for target in &targets {
            assert!(demo.http(app, target).starts_with("http://127.0.0.1:"));
        }
        assert_eq!(demo.subject_token(app).split('.').count(), 3, "a JWT");
    }
    for target in &targets {
        let answer = demo.ask("POST", demo.inbound_http(target), "/query", &[], b"");
        assert_eq!(answer.status, 401, "TLS with the demo's authority, and no token: {answer:?}");
    }
    for database in ["postgres-a", "postgres-b"] {
        let url = demo.inbound(database);
        assert!(url.starts_with("postgresql://127.0.0.1:") && url.ends_with("/shop"), "{url}");
        let server = &ready["postgres"][database];
        let direct = format!(
            "host={} port={} user={} dbname=shop",
            server["socket_dir"].as_str().unwrap(),
            server["port"],
            server["admin"].as_str().unwrap()
        );
        let counted =
            psql(&direct, "select (select count(*) from customers) > 100 and (select count(*) from orders) > 100");
        assert_eq!(String::from_utf8_lossy(&counted.stdout).trim(), "t", "{counted:?}");
    }
}

#[test]
fn a_second_start_keeps_data_and_ports() {
    let dir = state_directory();
    let mut first = Demo::start_in(PROGRAM, dir.path());
    let url = first.outbound("service-a", "postgres-a").to_owned();
    let inserted = psql(&url, "insert into customers (name) values ('kept')");
    assert!(inserted.status.success(), "{inserted:?}");
    assert!(first.end(Signal::INT).success());

    let second = Demo::start_in(PROGRAM, dir.path());
    let kept = psql(second.outbound("service-a", "postgres-a"), "select count(*) from customers where name = 'kept'");
    assert_eq!(String::from_utf8_lossy(&kept.stdout).trim(), "1", "{kept:?}");
    assert_eq!(second.outbound("service-a", "postgres-a"), url);
}

#[test]
fn a_second_demo_on_the_same_directory_is_refused() {
    let dir = state_directory();
    let first = Demo::start_in(PROGRAM, dir.path());
    let second = Command::new(PROGRAM).args(["demo", "--no-open", "--dir"]).arg(first.dir()).output().unwrap();
    let said = String::from_utf8_lossy(&second.stderr);
    assert_eq!(second.status.code(), Some(1));
    assert!(said.contains("a demo runs already") && said.contains(&first.pid().to_string()), "{said}");
    assert_answers(&first);
}

#[test]
fn terminated_it_ends_in_time_and_leaves_nothing() {
    let dir = state_directory();
    let mut demo = Demo::start_in(PROGRAM, dir.path());
    let begun = Instant::now();
    assert!(demo.end(Signal::TERM).success());
    assert!(begun.elapsed() < STOP_LIMIT);
    assert_eq!(running_in(dir.path()), []);
    assert!(!dir.path().join("ready.json").exists(), "a stale ready file would mislead");
}

#[test]
fn killed_hard_it_leaves_no_orphan_and_starts_again() {
    let dir = state_directory();
    let mut demo = Demo::start_in(PROGRAM, dir.path());
    assert_ne!(running_in(dir.path()), []);
    demo.end(Signal::KILL);
    // At once, while PostgreSQL is still shutting down: the new demo waits for it.
    let mut again = Demo::start_in(PROGRAM, dir.path());
    assert_answers(&again);
    again.end(Signal::KILL);
    assert_gone(dir.path());
}

#[test]
fn a_dead_child_is_named_and_replaced() {
    let demo = Demo::start(PROGRAM);
    kill_one(&format!("sidecar --config {}", demo.dir().join("config/postgres-b.yaml").display()));
    assert_named(&demo, "postgres-b ended");
    let url = demo.outbound("service-a", "postgres-b");
    let again = within(Duration::from_secs(30), || psql(url, "select 1").status.success().then_some(()));
    assert!(again.is_some(), "{}", demo.output());
}

#[test]
fn a_dead_http_service_is_named_and_replaced() {
    let demo = Demo::start_without_prometheus(PROGRAM);
    let items = || demo.ask("GET", demo.http("service-a", "inventory"), "/items", &[], b"").status;
    assert_eq!(items(), 200);
    kill_one(&format!("{PROGRAM} inventory --listen 127.0.0.1:{}", port(&demo, "inventory.server")));
    assert_named(&demo, "inventory.server ended");
    let again = within(Duration::from_secs(30), || (items() == 200).then_some(()));
    assert!(again.is_some(), "{}", demo.output());
}

/// From the file that the demo remembers its ports in.
fn port(demo: &Demo, name: &str) -> u16 {
    let ports = std::fs::read(demo.dir().join("ports.json")).unwrap();
    serde_json::from_slice::<Value>(&ports).unwrap()[name].as_u64().unwrap().try_into().unwrap()
}

/// The process itself, not its guard.
fn kill_one(command: &str) {
    let (pid, _) = processes_naming(command).into_iter().find(|(_, line)| !line.contains(" guard ")).unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
}

fn assert_named(demo: &Demo, said: &str) {
    let named = within(STOP_LIMIT, || demo.output().contains(said).then_some(()));
    assert!(named.is_some(), "{}", demo.output());
}

fn assert_answers(demo: &Demo) {
    let answer = psql(demo.outbound("service-a", "postgres-b"), "select 1");
    assert!(answer.status.success(), "{answer:?}");
}

fn assert_gone(dir: &Path) {
    within(Duration::from_secs(15), || running_in(dir).is_empty().then_some(()))
        .unwrap_or_else(|| panic!("left behind: {:?}", running_in(dir)));
}

fn running_in(dir: &Path) -> Vec<(i32, String)> {
    processes_naming(dir.to_str().unwrap())
}
