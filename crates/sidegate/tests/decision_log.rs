//! The decision log of a whole sidecar: a reader that does not read or is gone, a disk that is full, and what is recorded
//! of callers that nothing was granted to.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::fs;
use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;
use testkit::Demo;
use testkit::http::{Http, request};
use testkit::raw::{Message, Raw};

const PATIENCE: Duration = Duration::from_secs(60);

/// Long enough for a statement that may go on.
const A_WHILE: Duration = Duration::from_millis(1500);

/// Decisions that may not be written yet where none may be lost.
const UNWRITTEN_MAX: usize = 256;

/// More than a pipe and the queue hold.
const FLOOD: usize = 40_000;

fn demo() -> Demo {
    Demo::start_without_prometheus(env!("CARGO_BIN_EXE_sidegate"))
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A sidecar of our own before the demo's `postgres-b`, which takes tokens as passwords.
struct Sidecar<'a> {
    demo: &'a Demo,
    process: Child,
    port: u16,
    admin: u16,
    _dir: tempfile::TempDir,
}

impl<'a> Sidecar<'a> {
    fn start(demo: &'a Demo, decision_log: &str) -> Sidecar<'a> {
        let dir = tempfile::tempdir().unwrap();
        let written = fs::read_to_string(demo.dir().join("config/postgres-b.yaml")).unwrap();
        let head = written.lines().take_while(|line| !line.starts_with("inbound"));
        let head: String = head.filter(|line| !line.starts_with("admin")).map(|line| format!("{line}\n")).collect();
        let (port, admin) = (free_port(), free_port());
        let server = &demo.ready()["postgres"]["postgres-b"];
        let socket = format!("{}/.s.PGSQL.{}", server["socket_dir"].as_str().unwrap(), server["port"]);
        let file = dir.path().join("sidecar.yaml");
        let config = format!(
            "{head}admin: {{listen: '127.0.0.1:{admin}'}}\ndecision_log: {decision_log}\n\
             inbound: [{{protocol: postgres, listen: '127.0.0.1:{port}', upstream: 'unix:{socket}'}}]\n"
        );
        fs::write(&file, config).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_sidegate"));
        command.args(["sidecar", "--config"]).arg(&file).stdin(Stdio::null()).stdout(Stdio::piped());
        let process = command.stderr(Stdio::null()).spawn().unwrap();
        let sidecar = Sidecar { demo, process, port, admin, _dir: dir };
        let up = testkit::within(PATIENCE, || (sidecar.get("/readyz").0 == 200).then_some(()));
        up.expect("it becomes ready");
        sidecar
    }

    fn log_in(&self) -> Raw {
        let mut raw = Raw::tcp(&format!("127.0.0.1:{}", self.port));
        let token = self.demo.access_token("service-a", "postgres-b");
        let seen = raw.log_in("reader", "shop", Some(&token));
        assert_eq!(seen.last().map(Message::outline).as_deref(), Some("ZI"), "{seen:?}");
        raw
    }

    fn get(&self, path: &str) -> (u16, String) {
        self.get_as(path, &[])
    }

    fn get_as(&self, path: &str, headers: &[(&str, &str)]) -> (u16, String) {
        if TcpStream::connect(("127.0.0.1", self.admin)).is_err() {
            return (0, String::new());
        }
        let mut http = Http::connect(&format!("http://127.0.0.1:{}", self.admin), self.demo.ca_file());
        let named = headers.iter().find(|(name, _)| *name == "Host").map_or("127.0.0.1", |(_, host)| host);
        let others: Vec<_> = headers.iter().filter(|(name, _)| *name != "Host").copied().collect();
        let head = String::from_utf8(request("GET", path, &others, b"")).unwrap();
        http.send(head.replace("Host: 127.0.0.1", &format!("Host: {named}")).as_bytes());
        let answer = http.answer().unwrap();
        (answer.status, answer.text())
    }

    /// Ends it as Kubernetes does; what is recorded is written.
    fn end(mut self) {
        let pid = rustix::process::Pid::from_raw(i32::try_from(self.process.id()).unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.process.wait().unwrap();
    }

    /// A counter or gauge.
    fn metric(&self, name: &str) -> u64 {
        let text = self.get("/metrics").1;
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{name} in {text}")).parse::<f64>().unwrap() as u64
    }
}

impl Drop for Sidecar<'_> {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Runs statements one behind the other on a thread of their own, and gives the session back.
fn run(mut raw: Raw, statements: usize) -> JoinHandle<Raw> {
    std::thread::spawn(move || {
        for sent in (0..statements).step_by(500) {
            let mut out = Vec::new();
            let together = 500.min(statements - sent);
            (0..together).for_each(|_| wire::frontend::query(&mut out, "select 1"));
            raw.send(&out);
            let seen = raw.read_until(b'Z', together);
            assert!(seen.iter().all(|message| message.tag != b'E'), "{:?}", seen.last());
            assert_eq!(seen.iter().filter(|message| message.tag == b'Z').count(), together, "{:?}", seen.last());
        }
        raw
    })
}

/// Reads lines until the writer has closed.
fn lines(mut from: impl Read + Send + 'static) -> JoinHandle<Vec<Value>> {
    std::thread::spawn(move || {
        let mut text = String::new();
        from.read_to_string(&mut text).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    })
}

#[test]
fn a_reader_that_does_not_read_costs_records_and_no_statement() {
    let demo = demo();
    let mut sidecar = Sidecar::start(&demo, "{on_full: drop}");
    let session = run(sidecar.log_in(), FLOOD).join().unwrap();
    let lost = sidecar.metric("sidegate_decision_log_lost_total");
    assert!(lost > 0, "the pipe and the queue hold less than {FLOOD} records");
    let reading = lines(sidecar.process.stdout.take().unwrap());
    // What is lost is said ahead of the next one that is not.
    let lost_now = || sidecar.metric("sidegate_decision_log_lost_total");
    let recorded = || {
        let before = lost_now();
        run(sidecar.log_in(), 1).join().unwrap();
        (lost_now() == before).then_some(before)
    };
    let lost = testkit::within(PATIENCE, recorded).expect("it records again");
    // Who is told to end writes what waits, but not for longer than a moment: it should not be thousands.
    let last = || sidecar.get("/decisions?limit=1").1;
    let at_rest = || {
        let before = last();
        std::thread::sleep(A_WHILE / 5);
        (last() == before).then_some(())
    };
    testkit::within(PATIENCE, at_rest).expect("all is written");
    drop(session);
    sidecar.end();
    let lines = reading.join().unwrap();
    let said: u64 = lines.iter().filter(|line| line["event"] == "lost").filter_map(|line| line["count"].as_u64()).sum();
    let kept = lines.iter().filter(|line| line["action"] == "none").count() as u64;
    assert_eq!(lines[0]["event"], "started");
    assert_eq!(said, lost);
    assert!(kept + said > FLOOD as u64, "{kept} records and {said} lost of more than {FLOOD}");
}

#[test]
fn a_log_that_may_lose_nothing_holds_statements_until_it_is_read() {
    let demo = demo();
    let mut sidecar = Sidecar::start(&demo, "{on_full: block}");
    let running = run(sidecar.log_in(), FLOOD);
    std::thread::sleep(A_WHILE * 2);
    assert!(!running.is_finished(), "nothing goes on unrecorded");
    assert_eq!(sidecar.get("/healthz").0, 200, "it is not the process that hangs");
    let reading = lines(sidecar.process.stdout.take().unwrap());
    let _session = running.join().unwrap();
    // Killed hard, so that it can write nothing more.
    drop(sidecar);
    let lines = reading.join().unwrap();
    let kept = lines.iter().filter(|line| line["action"] == "none").count();
    assert!((FLOOD - UNWRITTEN_MAX..=FLOOD).contains(&kept), "{kept} of {FLOOD}");
}

#[test]
fn a_full_disk_stops_statements_only_where_so_configured() {
    let demo = demo();
    let sidecar = Sidecar::start(&demo, "{file: /dev/full, on_full: drop}");
    run(sidecar.log_in(), 1000).join().unwrap();
    let lost = testkit::within(PATIENCE, || {
        Some(sidecar.metric("sidegate_decision_log_lost_total")).filter(|lost| *lost >= 1000)
    });
    assert!(lost.is_some(), "what cannot be written is counted");
    drop(sidecar);

    let mut sidecar = Sidecar::start(&demo, "{file: /dev/full, on_full: block}");
    // Its first line, that it has started, could not be written.
    std::thread::sleep(A_WHILE);
    let mut raw = Raw::tcp(&format!("127.0.0.1:{}", sidecar.port));
    let logging_in = std::thread::spawn(move || {
        let seen = raw.log_in("reader", "shop", Some("no token at all"));
        seen.iter().any(|message| message.tag == b'Z')
    });
    std::thread::sleep(A_WHILE);
    assert!(!logging_in.is_finished(), "no decision is made that cannot be recorded");
    assert_eq!(sidecar.get("/healthz").0, 200);
    sidecar.process.kill().unwrap();
    assert!(!logging_in.join().unwrap());
}

#[test]
fn a_reader_that_is_gone_is_survived() {
    let demo = demo();
    let mut sidecar = Sidecar::start(&demo, "{}");
    drop(sidecar.process.stdout.take());
    run(sidecar.log_in(), 2000).join().unwrap();
    let lost = testkit::within(PATIENCE, || {
        Some(sidecar.metric("sidegate_decision_log_lost_total")).filter(|lost| *lost >= 2000)
    });
    assert!(lost.is_some());
}

#[test]
fn the_last_decisions_are_shown_to_this_machine_only() {
    let demo = demo();
    let sidecar = Sidecar::start(&demo, "{to: nowhere, recent: 5}");
    let mut raw = sidecar.log_in();
    let denied = raw.query("delete from public.orders");
    let detail = denied.iter().find(|message| message.tag == b'E').unwrap().field(b'D');
    let id = detail.strip_prefix("Decision ").unwrap().split(' ').next().unwrap().to_owned();
    let shown =
        testkit::within(PATIENCE, || Some(sidecar.get(&format!("/decisions?decision={id}"))).filter(|a| a.0 == 200));
    let record: Value = serde_json::from_str(&shown.expect("it is kept").1).unwrap();
    assert_eq!((&record["decision"], &record["verdict"]), (&id.clone().into(), &"deny".into()));
    assert_eq!((&record["role"], &record["user"]), (&"reader".into(), &"app_reader".into()));
    assert_eq!(
        record["objects"],
        serde_json::json!([
            {"action": "delete", "schema": "public", "name": "orders", "opens": "rule:writer", "denied": true}
        ])
    );
    run(raw, 20).join().unwrap();
    let last = testkit::within(PATIENCE, || {
        let (_, text) = sidecar.get("/decisions?verdict=allow");
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        (lines.len() == 5 && lines.iter().all(|line| line["verdict"] == "allow")).then_some(())
    });
    assert!(last.is_some(), "the last five, and no more");
    let all = sidecar.get("/decisions").1;
    assert!(all.lines().count() == 6 && all.lines().next().unwrap().contains(&id), "denials stay by themselves: {all}");
    assert_eq!(sidecar.get("/decisions?verdict=deny").1.lines().count(), 1);
    assert_eq!(sidecar.get("/decisions?verdict=maybe").0, 400);
    assert_eq!(sidecar.get("/decisions?limit=2").1.lines().count(), 2);
    assert_eq!(sidecar.get("/decisions?decision=none").0, 404);
    assert_eq!(sidecar.get("/decisions?what=this").0, 400);
    let host = ("Host", "rebound.example");
    assert_eq!(sidecar.get_as("/decisions", &[host]).0, 403, "a page whose name leads here");
    assert_eq!(sidecar.get_as("/decisions", &[("Origin", "http://localhost")]).0, 403);
}

/// Asks `postgres-a` as `service-b`, which has no grant for it: what it is told, and whether it gets in.
fn ask_ungranted(demo: &Demo, statement: &str) -> (bool, String) {
    let mut raw = Raw::tcp(demo.outbound("service-b", "postgres-a"));
    let seen = raw.log_in("whoever", "shop", None);
    let last = seen.last().unwrap();
    if last.tag == b'E' {
        return (false, last.field(b'M') + " " + &last.field(b'D'));
    }
    (raw.query(statement).iter().all(|message| message.tag != b'E'), String::new())
}

/// A record that names no database would be one that nothing suggested covers, and that is denied whatever the draft.
fn over_http_it_is_known_as_well(demo: &Demo, log: &str) {
    let url = demo.http("service-b", "postgres-a");
    let answer = demo.ask("POST", url, "/query", &[], br#"{"query": "select count(*) from public.items"}"#);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let recorded = testkit::within(PATIENCE, || {
        let text = fs::read_to_string(log).unwrap();
        let records: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        records.iter().any(|record| record["objects"][0]["name"] == "items").then_some(records)
    });
    let of_login = |record: &&Value| record["reason"] == "no_token" && record["mode"] == "observe";
    let records = recorded.expect("it is recorded");
    let record = records.iter().find(of_login).expect("who would fail is recorded");
    assert_eq!((&record["action"], &record["database"]), (&"connect".into(), &"shop".into()), "{record}");
    let policy = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sidegate"));
        String::from_utf8(command.arg("policy").args(arguments).output().unwrap().stdout).unwrap()
    };
    // What was refused before it was observed needs not be known whole.
    let draft = tempfile::tempdir().unwrap();
    let observed = draft.path().join("observed.jsonl");
    let is_observed = |line: &&str| line.contains("\"mode\":\"observe\"");
    let text = fs::read_to_string(log).unwrap();
    fs::write(&observed, text.lines().filter(is_observed).collect::<Vec<_>>().join("\n")).unwrap();
    let log = observed.to_str().unwrap();
    let suggested = policy(&["suggest", "--log", log]);
    assert!(suggested.contains("public.items") && !suggested.contains("NOT COVERED"), "{suggested}");
    fs::write(draft.path().join("draft.yaml"), suggested).unwrap();
    let said = policy(&["replay", "--log", log, "--roles", draft.path().to_str().unwrap()]);
    assert!(said.contains(" 0 newly denied") && said.contains(" 0 denied still, 0 not to be"), "{said}");
}

#[test]
fn whoever_was_granted_nothing_gets_in_while_it_is_observed_and_is_known() {
    let demo = demo();
    let (entered, said) = ask_ungranted(&demo, "select 1");
    assert!(!entered && said.contains("invalid_target"), "{said}");
    demo.set("postgres-a", "VERIFY_AUTH_ENABLED", "observe");
    let statement = "select * from public.orders where id = 4711";
    let entered = testkit::within(PATIENCE, || ask_ungranted(&demo, statement).0.then_some(()));
    assert!(entered.is_some(), "nobody fails who would have got in without Sidegate");
    let log = demo.ready()["decision_logs"]["postgres-a"].as_str().unwrap().to_owned();
    let recorded = testkit::within(PATIENCE, || {
        let text = fs::read_to_string(&log).unwrap();
        let records: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        records.into_iter().find(|record| record["action"] == "select")
    });
    let record = recorded.expect("it is recorded");
    assert_eq!(record["subject"], "system:serviceaccount:service-b:service-b", "by its certificate: {record}");
    assert_eq!((&record["verdict"], &record["reason"]), (&"deny".into(), &"unverified".into()));
    assert_eq!((&record["role"], &record["mode"]), (&Value::Null, &"observe".into()));
    assert_eq!(record["objects"][0]["name"], "orders", "{record}");
    assert!(!record.to_string().contains("4711"), "no values: {record}");
    over_http_it_is_known_as_well(&demo, &log);
    demo.set("postgres-a", "VERIFY_AUTH_ENABLED", "true");
    let refused = testkit::within(PATIENCE, || Some(ask_ungranted(&demo, "select 1")).filter(|(entered, _)| !entered));
    assert!(refused.expect("enforced again").1.contains("no token for this connection"));
}
