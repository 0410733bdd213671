//! Traces of a whole sidecar before a real PostgreSQL: what a collector gets of each request, whose trace it belongs to,
//! and that a collector which hangs, refuses or fails costs spans and no traffic.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::Demo;
use testkit::http::{Answer, Http, request};
use testkit::raw::{Message, Raw};

const PATIENCE: Duration = Duration::from_secs(60);
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// What a collector does with a request.
#[derive(Clone, Copy, PartialEq)]
enum Manner {
    Takes,
    Fails,
    Hangs,
}

/// A receiver of OTLP over HTTP.
struct Collector {
    url: String,
    spans: Arc<Mutex<Vec<Value>>>,
}

impl Collector {
    fn start(manner: Manner) -> Collector {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let spans = Arc::new(Mutex::new(Vec::new()));
        let received = spans.clone();
        std::thread::spawn(move || {
            let mut held = Vec::new();
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                if manner == Manner::Hangs {
                    held.push(stream);
                    continue;
                }
                let (head, body) = read(&mut stream);
                assert!(head.starts_with("post /v1/traces ") && head.contains("api-key: a b"), "{head}");
                if manner == Manner::Takes {
                    received.lock().unwrap().extend(spans_of(&serde_json::from_slice(&body).unwrap()));
                }
                let status = if manner == Manner::Takes { "200 OK" } else { "500 Broken" };
                let _ = write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\n{{}}");
            }
        });
        Collector { url, spans }
    }

    /// The next span that fits.
    fn span(&self, fits: impl Fn(&Value) -> bool) -> Value {
        let found = testkit::within(PATIENCE, || self.spans.lock().unwrap().iter().find(|span| fits(span)).cloned());
        found.unwrap_or_else(|| panic!("no such span: {:#?}", self.spans.lock().unwrap()))
    }

    /// The span of a statement on this relation that no other test makes.
    fn of(&self, name: &str, value: &str) -> Value {
        self.span(|span| span["attributes"][name] == value)
    }
}

/// The head in lower case, and the body.
fn read(stream: &mut TcpStream) -> (String, Vec<u8>) {
    let mut bytes = Vec::new();
    let mut piece = [0; 65_536];
    loop {
        let count = stream.read(&mut piece).unwrap_or(0);
        bytes.extend_from_slice(&piece[..count]);
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
        if let Some(end) = end {
            let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if bytes.len() >= end + 4 + length.map_or(0, |length| length.parse::<usize>().unwrap()) || count == 0 {
                return (head, bytes[end + 4..].to_vec());
            }
        } else if count == 0 {
            return (String::new(), Vec::new());
        }
    }
}

/// Spans with their attributes, and those of their process, as objects.
fn spans_of(body: &Value) -> Vec<Value> {
    let object = |attributes: &Value| {
        let value = |value: &Value| match &value["intValue"] {
            Value::String(number) => json!(number.parse::<i64>().unwrap()),
            _ => value["stringValue"].clone(),
        };
        let pairs = attributes.as_array().unwrap().iter();
        Value::Object(pairs.map(|pair| (pair["key"].as_str().unwrap().to_owned(), value(&pair["value"]))).collect())
    };
    let mut all = Vec::new();
    for sent in body["resourceSpans"].as_array().unwrap() {
        for span in sent["scopeSpans"][0]["spans"].as_array().unwrap() {
            let mut span = span.clone();
            span["attributes"] = object(&span["attributes"]);
            span["resource"] = object(&sent["resource"]["attributes"]);
            all.push(span);
        }
    }
    all
}

/// A sidecar of our own in the place of one of the demo's.
struct Sidecar<'a> {
    demo: &'a Demo,
    service: &'static str,
    process: Child,
    port: u16,
    admin: u16,
    _dir: tempfile::TempDir,
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl<'a> Sidecar<'a> {
    fn start(demo: &'a Demo, service: &'static str, protocol: &str, upstream: &str, endpoint: &str) -> Sidecar<'a> {
        let dir = tempfile::tempdir().unwrap();
        let written = fs::read_to_string(demo.dir().join(format!("config/{service}.yaml"))).unwrap();
        let head = written.lines().take_while(|line| !line.starts_with("inbound"));
        let head: String = head.filter(|line| !line.starts_with("admin")).map(|line| format!("{line}\n")).collect();
        let (port, admin) = (free_port(), free_port());
        let file = dir.path().join("sidecar.yaml");
        let config = format!(
            "{head}admin: {{listen: '127.0.0.1:{admin}'}}\ndecision_log: {{to: nowhere}}\n\
             inbound: [{{protocol: {protocol}, listen: '127.0.0.1:{port}', upstream: '{upstream}'}}]\n"
        );
        fs::write(&file, config).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_sidegate"));
        command.args(["sidecar", "--config"]).arg(&file).stdin(Stdio::null()).stdout(Stdio::null());
        command.env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint).env("OTEL_EXPORTER_OTLP_HEADERS", "api-key=a%20b");
        command.env("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test");
        let process = command.stderr(Stdio::null()).spawn().unwrap();
        let sidecar = Sidecar { demo, service, process, port, admin, _dir: dir };
        let ready = || TcpStream::connect(("127.0.0.1", admin)).is_ok() && sidecar.get("/readyz").status == 200;
        testkit::within(PATIENCE, || ready().then_some(())).expect("it becomes ready");
        sidecar
    }

    fn of_database(demo: &'a Demo, protocol: &str, endpoint: &str) -> Sidecar<'a> {
        let server = &demo.ready()["postgres"]["postgres-b"];
        let socket = format!("unix:{}/.s.PGSQL.{}", server["socket_dir"].as_str().unwrap(), server["port"]);
        Sidecar::start(demo, "postgres-b", protocol, &socket, endpoint)
    }

    fn log_in(&self, application_name: &str) -> Raw {
        let mut raw = Raw::tcp(&format!("127.0.0.1:{}", self.port));
        let token = self.demo.access_token("service-a", self.service);
        raw.start(&[("user", "reader"), ("database", "shop"), ("application_name", application_name)]);
        let seen = raw.finish_log_in(Some(&token));
        assert_eq!(seen.last().map(Message::outline).as_deref(), Some("ZI"), "{seen:?}");
        raw
    }

    fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let bearer = format!("Bearer {}", self.demo.access_token("service-a", self.service));
        let headers = [&[("Authorization", bearer.as_str())], headers].concat();
        self.send(self.port, request(method, path, &headers, body.as_bytes()))
    }

    fn get(&self, path: &str) -> Answer {
        self.send(self.admin, request("GET", path, &[], b""))
    }

    fn send(&self, port: u16, request: Vec<u8>) -> Answer {
        let mut http = Http::connect(&format!("http://127.0.0.1:{port}"), self.demo.ca_file());
        http.send(&request);
        http.answer().unwrap()
    }

    fn lost(&self) -> u64 {
        let text = self.get("/metrics").text();
        text.lines().find_map(|line| line.strip_prefix("sidegate_spans_lost_total ")?.parse().ok()).expect(&text)
    }
}

impl Drop for Sidecar<'_> {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn sqlstates(seen: &[Message]) -> Vec<String> {
    seen.iter().filter(|message| message.tag == b'E').map(|message| message.field(b'C')).collect()
}

#[test]
fn statements_are_spans_with_the_parents_that_applications_name() {
    let demo = Demo::start_without_prometheus(env!("CARGO_BIN_EXE_sidegate"));
    let collector = Collector::start(Manner::Takes);
    let sidecar = Sidecar::of_database(&demo, "postgres", &collector.url);

    let mut session = sidecar.log_in("an application");
    assert!(sqlstates(&session.query("select id from orders where 4711 = id")).is_empty());
    let span = collector.of("db.collection.name", "orders");
    let attributes = &span["attributes"];
    let expected = json!({
        "db.system.name": "postgresql", "db.namespace": "shop", "db.operation.name": "SELECT",
        "db.collection.name": "orders", "sidegate.verdict": "allow", "sidegate.reason": "allowed",
        "sidegate.mode": "enforce", "sidegate.role": "reader",
        "sidegate.subject": "system:serviceaccount:service-a:service-a",
    });
    for (name, value) in expected.as_object().unwrap() {
        assert_eq!(&attributes[name], value, "{name} of {span:#}");
    }
    assert_eq!(attributes["sidegate.decision.id"].as_str().map(str::len), Some(36));
    assert!(attributes["server.address"].as_str().unwrap().contains(".s.PGSQL"), "{span:#}");
    assert_eq!((&span["name"], &span["kind"]), (&json!("SELECT orders"), &json!(2)));
    assert_eq!(span["resource"]["service.name"], "postgres-b");
    assert_eq!(span["resource"]["service.namespace"], "postgres-b");
    assert_eq!(span["resource"]["deployment.environment.name"], "test");
    assert!(span["parentSpanId"].is_null() && span["status"]["code"].is_null(), "{span:#}");
    assert!(!span.to_string().contains("4711"), "values are nobody's business: {span:#}");

    // A denial of ours, and an error of PostgreSQL's.
    assert_eq!(sqlstates(&session.query("delete from customers")), ["42501"]);
    let denied = collector.of("sidegate.verdict", "deny");
    assert_eq!(denied["attributes"]["db.operation.name"], "DELETE");
    assert_eq!(denied["attributes"]["db.response.status_code"], "42501");
    assert_eq!((&denied["attributes"]["sidegate.reason"], &denied["status"]["code"]), (&json!("role"), &json!(2)));
    assert_eq!(sqlstates(&session.query("select * from customers where 1 = 1 / 0")), ["22012"]);
    let failed = collector.of("db.response.status_code", "22012");
    assert_eq!((&failed["attributes"]["sidegate.verdict"], &failed["status"]["code"]), (&json!("allow"), &json!(2)));

    // Whose trace it is: by a comment, by the session's name, and by the name it takes later.
    session.query(&format!("select 1 from customers /*traceparent='{PARENT}'*/"));
    let child = collector.span(|span| span["traceId"] == TRACE);
    assert_eq!(child["parentSpanId"], "b7ad6b7169203331");
    session.query("select 1 from customers /*traceparent='00-malformed-01'*/");
    let other = "1".repeat(32);
    session.query(&format!("set application_name to '00-{other}-b7ad6b7169203331-01'"));
    session.query("select 1 from customers");
    assert_eq!(collector.span(|span| span["traceId"] == other.as_str())["parentSpanId"], "b7ad6b7169203331");
    let at_login = "2".repeat(32);
    let mut named = sidecar.log_in(&format!("00-{at_login}-b7ad6b7169203331-01"));
    let unsampled = "3".repeat(32);
    named.query(&format!("select 1 from customers /*traceparent='00-{unsampled}-b7ad6b7169203331-00'*/"));
    prepared_twice(&mut named);
    let of_login = || {
        collector
            .spans
            .lock()
            .unwrap()
            .iter()
            .filter(|span| span["traceId"] == at_login.as_str())
            .cloned()
            .collect::<Vec<_>>()
    };
    let twice = testkit::within(PATIENCE, || Some(of_login()).filter(|spans| spans.len() == 2)).expect("two spans");
    assert!(twice.iter().all(|span| span["name"] == "SELECT orders"), "{twice:#?}");
    assert!(twice[0]["attributes"]["sidegate.decision.id"].is_string());
    assert!(twice[1]["attributes"]["sidegate.decision.id"].is_null(), "nothing was decided anew: {twice:#?}");
    let all = collector.spans.lock().unwrap().clone();
    assert!(all.iter().all(|span| span["traceId"] != unsampled.as_str()), "its parent is not sampled");
    let spans = |span: &Value| span["name"] == "SELECT customers" && span["parentSpanId"].is_null();
    assert_eq!(
        all.iter().filter(|span| spans(span)).count(),
        2,
        "the failed one, and the malformed parent's: {all:#?}"
    );
}

/// One batch that prepares and runs, and one that runs again.
fn prepared_twice(session: &mut Raw) {
    let mut out = Vec::new();
    wire::frontend::parse(&mut out, b"one", "select 1 from orders");
    for _ in 0..2 {
        wire::frame::put(&mut out, b'B', |body| body.extend_from_slice(b"\0one\0\0\0\0\0\0\0"));
        wire::frame::put(&mut out, b'E', |body| body.extend_from_slice(b"\0\0\0\0\0"));
        wire::frame::put(&mut out, b'S', |_| ());
    }
    session.send(&out);
    assert!(sqlstates(&session.read_until(b'Z', 2)).is_empty());
}

#[test]
fn requests_are_spans_between_the_callers_and_the_services() {
    let demo = Demo::start_without_prometheus(env!("CARGO_BIN_EXE_sidegate"));
    let collector = Collector::start(Manner::Takes);
    let heads = Arc::new(Mutex::new(Vec::new()));
    let upstream = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = upstream.local_addr().unwrap().to_string();
    let seen = heads.clone();
    std::thread::spawn(move || {
        for stream in upstream.incoming() {
            let mut stream = stream.unwrap();
            seen.lock().unwrap().push(read(&mut stream).0);
            let _ = write!(stream, "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        }
    });
    let sidecar = Sidecar::start(&demo, "inventory", "http", &address, &collector.url);

    let answer = sidecar.ask("GET", "/items?secret=1", &[("traceparent", PARENT), ("tracestate", "a=1")], "");
    assert_eq!(answer.status, 503);
    let span = collector.of("url.path", "/items");
    assert_eq!((&span["traceId"], &span["parentSpanId"]), (&json!(TRACE), &json!("b7ad6b7169203331")));
    assert_eq!((&span["name"], &span["attributes"]["http.request.method"]), (&json!("GET"), &json!("GET")));
    assert_eq!(span["attributes"]["http.response.status_code"], 503);
    assert_eq!(
        (&span["attributes"]["sidegate.role"], &span["status"]["code"]),
        (&json!("inventory-reader"), &json!(2))
    );
    assert!(!span.to_string().contains("secret"), "{span:#}");
    let passed_on = format!("traceparent: 00-{TRACE}-{}-01", span["spanId"].as_str().unwrap());
    let head = heads.lock().unwrap().pop().unwrap();
    assert!(head.contains(&passed_on) && head.contains("tracestate: a=1"), "{head}");

    // What is malformed, or there twice, is none: a new trace, which the service gets.
    for odd in
        [&[("traceparent", "00-x-01"), ("tracestate", "a=1")][..], &[("traceparent", PARENT), ("traceparent", PARENT)]]
    {
        sidecar.ask("GET", "/items/1", odd, "");
        let head = heads.lock().unwrap().pop().unwrap();
        assert!(head.contains("traceparent: 00-") && !head.contains(TRACE) && !head.contains("tracestate"), "{head}");
        assert_eq!(head.matches("traceparent").count(), 1, "{head}");
    }
    let unsampled = format!("00-{}-b7ad6b7169203331-00", "3".repeat(32));
    sidecar.ask("GET", "/items/2", &[("traceparent", &unsampled)], "");
    let head = heads.lock().unwrap().pop().unwrap();
    assert!(head.contains(&format!("traceparent: 00-{}-", "3".repeat(32))) && head.contains("-00\r\n"), "{head}");

    let denied = sidecar.ask("BREW", "/items", &[], "");
    assert_eq!(denied.status, 403);
    let span = collector.of("http.request.method", "_OTHER");
    assert_eq!((&span["attributes"]["sidegate.verdict"], &span["name"]), (&json!("deny"), &json!("HTTP")));
    assert!(span["status"]["code"].is_null(), "a denial is the caller's fault, not the server's: {span:#}");
    assert!(collector.spans.lock().unwrap().iter().all(|span| span["attributes"]["url.path"] != "/items/2"));

    let query = Sidecar::of_database(&demo, "query, database: shop", &collector.url);
    let answer = query.ask("POST", "/query", &[("traceparent", PARENT)], r#"{"query": "select 1 from customers"}"#);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let span = collector.of("db.collection.name", "customers");
    assert_eq!((&span["traceId"], &span["attributes"]["http.response.status_code"]), (&json!(TRACE), &json!(200)));
    assert_eq!(
        (&span["attributes"]["db.namespace"], &span["attributes"]["sidegate.role"]),
        (&json!("shop"), &json!("reader"))
    );
    let answer = query.ask("POST", "/query", &[], r#"{"query": "delete from orders"}"#);
    assert_eq!(answer.status, 403);
    assert_eq!(collector.of("db.collection.name", "orders")["attributes"]["db.response.status_code"], "42501");
}

#[test]
fn a_collector_that_is_of_no_use_costs_spans_and_no_traffic() {
    let demo = Demo::start_without_prometheus(env!("CARGO_BIN_EXE_sidegate"));
    let collectors = [Manner::Hangs, Manner::Fails].map(Collector::start);
    let nobody = format!("http://127.0.0.1:{}", free_port());
    for endpoint in [&collectors[0].url, &collectors[1].url, &nobody] {
        let sidecar = Sidecar::of_database(&demo, "postgres", endpoint);
        let mut session = sidecar.log_in("psql");
        let mut slowest = Duration::ZERO;
        for _ in 0..5000 {
            let began = Instant::now();
            let seen = session.query("select 1 from orders limit 1");
            assert_eq!(seen.last().map(Message::outline).as_deref(), Some("ZI"), "{endpoint}");
            slowest = slowest.max(began.elapsed());
        }
        // An exchange with a collector is given up after seconds; a statement that had waited for one would show it.
        assert!(slowest < Duration::from_secs(2), "{endpoint}: {slowest:?}");
        let lost = testkit::within(PATIENCE, || Some(sidecar.lost()).filter(|lost| *lost > 0));
        assert!(lost.is_some(), "{endpoint}: losses are counted");
    }
}
