//! Whatever bytes a caller sends: the service behind an `http` listener sees the requests that were decided, and no other.
#![cfg(target_os = "linux")]
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use testkit::http::{Answer, Http};
use testkit::{Demo, state_directory, within};

const PROGRAM: &str = env!("CARGO_BIN_EXE_sidegate");

/// What `service-b` may do on `postgres-a`, of which it has no other role.
const DOCUMENT: &str = "
kind: AccessRole
metadata: {namespace: postgres-a, name: web}
spec:
  service: postgres-a
  http: {rules: [{methods: [GET, POST], paths: [/open*]}]}
---
kind: AccessGrant
metadata: {namespace: postgres-a, name: web}
spec:
  service: postgres-a
  subjects: [{serviceAccount: service-b, namespace: service-b}]
  roles: [web]
";

/// A request as the service behind read it.
#[derive(Clone, Debug)]
struct Seen {
    line: String,
    headers: Vec<String>,
    /// Trailers, too.
    body: String,
}

/// A service that reads requests by the book and answers each with 200.
struct Service {
    port: u16,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Service {
    fn start() -> Service {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (port, seen) = (listener.local_addr().unwrap().port(), Arc::default());
        let service = Service { port, seen: Arc::clone(&seen) };
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let seen = Arc::clone(&seen);
                std::thread::spawn(move || serve(stream, &seen));
            }
        });
        service
    }

    fn take(&self) -> Vec<Seen> {
        std::mem::take(&mut self.seen.lock().unwrap())
    }
}

fn serve(mut stream: TcpStream, seen: &Mutex<Vec<Seen>>) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    loop {
        let head = lines(&mut reader)?;
        let field = |name: &str| {
            let found =
                head.iter().find_map(|line| line.to_ascii_lowercase().strip_prefix(name).map(ToOwned::to_owned));
            found.map(|value| value.trim().to_owned())
        };
        assert!(field("content-length:").is_none() || field("transfer-encoding:").is_none(), "{head:?}");
        let mut body = String::new();
        if field("transfer-encoding:").is_some() {
            loop {
                let mut length = String::new();
                reader.read_line(&mut length).ok()?;
                let length = usize::from_str_radix(length.trim(), 16).ok()?;
                if length == 0 {
                    body += &lines(&mut reader)?.join("\n");
                    break;
                }
                body += &text(&mut reader, length)?;
                text(&mut reader, 2)?;
            }
        } else if let Some(length) = field("content-length:") {
            body = text(&mut reader, length.parse().ok()?)?;
        }
        let (line, headers) = head.split_first()?;
        seen.lock().unwrap().push(Seen { line: line.clone(), headers: headers.to_vec(), body });
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").ok()?;
    }
}

fn lines(reader: &mut impl BufRead) -> Option<Vec<String>> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        match line.trim_end() {
            "" => return Some(lines),
            line => lines.push(line.to_owned()),
        }
    }
}

fn text(reader: &mut impl Read, length: usize) -> Option<String> {
    let mut bytes = vec![0; length];
    reader.read_exact(&mut bytes).ok()?;
    String::from_utf8(bytes).ok()
}

/// A sidecar before the service, ended when dropped.
struct Sidecar {
    child: Child,
    port: u16,
}

impl Sidecar {
    fn start(demo: &Demo, dir: &Path, upstream: u16) -> Sidecar {
        // Freed for the sidecar; nobody else takes it in between, or the test says so.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = dir.join("web.yaml");
        let issuer = demo.ready()["issuer"].as_str().unwrap();
        let text = format!(
            "service: postgres-a/postgres-a\nissuer: {{url: \"{issuer}\"}}\n\
             inbound: [{{protocol: http, listen: \"127.0.0.1:{port}\", upstream: \"127.0.0.1:{upstream}\"}}]\n\
             decision_log: {{file: \"{}\"}}\n",
            dir.join("decisions.jsonl").display()
        );
        std::fs::write(&config, text).unwrap();
        let mut command = Command::new(PROGRAM);
        command.args(["sidecar", "--config"]).arg(&config).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().unwrap();
        within(Duration::from_secs(10), || TcpStream::connect(("127.0.0.1", port)).ok()).expect("the sidecar");
        Sidecar { child, port }
    }

    fn ask(&self, bytes: &str) -> Option<Answer> {
        let mut http = Http::connect(&format!("http://127.0.0.1:{}", self.port), Path::new(""));
        http.send(bytes.as_bytes());
        http.answer()
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn nothing_reaches_what_was_not_decided() {
    let dir = state_directory();
    std::fs::create_dir_all(dir.path().join("demo/documents")).unwrap();
    std::fs::write(dir.path().join("demo/documents/web.yaml"), DOCUMENT).unwrap();
    let demo = Demo::start_in(PROGRAM, dir.path());
    let service = Service::start();
    let sidecar = Sidecar::start(&demo, dir.path(), service.port);
    let bearer = format!("Authorization: Bearer {}\r\n", demo.access_token("service-b", "postgres-a"));
    let host = "Host: web\r\n";

    // First that the way is open at all, and what the service is told.
    let forged =
        "X-Sidegate-Subject: evil\r\nx_sidegate_role: evil\r\nConnection: X-Sidegate-Role, X-Gone\r\nX-Gone: 1\r\n";
    let open = sidecar.ask(&format!("GET /open?a=/closed HTTP/1.1\r\n{host}{bearer}{forged}\r\n")).unwrap();
    assert_eq!(open.status, 200, "{open:?}");
    let seen = service.take();
    assert_eq!(seen[0].line, "GET /open?a=/closed HTTP/1.1");
    let told = seen[0].headers.join("\n").to_ascii_lowercase();
    assert!(told.contains("x-sidegate-subject: system:serviceaccount:service-b:service-b"), "{told}");
    assert!(told.contains("x-sidegate-role: web") && told.contains("x-sidegate-decision: "), "{told}");
    for word in ["evil", "authorization", "bearer", "x-gone"] {
        assert!(!told.contains(word), "{word}: {told}");
    }

    let chunked = "Transfer-Encoding: chunked\r\n";
    let next = format!("GET /closed HTTP/1.1\r\n{host}{bearer}\r\n");
    let attacks = [
        // Two lengths, or a length and chunks: where does the body end?
        format!("POST /open HTTP/1.1\r\n{host}{bearer}Content-Length: 6\r\n{chunked}\r\n0\r\n\r\n{next}"),
        format!("POST /open HTTP/1.1\r\n{host}{bearer}{chunked}Content-Length: 5\r\n\r\n0\r\n\r\n{next}"),
        format!("POST /open HTTP/1.1\r\n{host}{bearer}Content-Length: 4\r\nContent-Length: 0\r\n\r\nabcd{next}"),
        format!("POST /open HTTP/1.1\r\n{host}{bearer}Content-Length: 0, 4\r\n\r\nabcd{next}"),
        format!("POST /open HTTP/1.1\r\n{host}{bearer}Content-Length: +0\r\n\r\n{next}"),
        format!("POST /open HTTP/1.1\r\n{host}{bearer}Content-Length : 0\r\n\r\n{next}"),
        format!("POST /open HTTP/1.1\r\n{host}{bearer}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n{next}"),
        format!("POST /open HTTP/1.1\r\n{host}{bearer}Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n{next}"),
        format!("POST /open HTTP/1.1\r\n{host}{bearer}Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n{next}"),
        format!("POST /open HTTP/1.1\r\n{host}{bearer}Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n{next}"),
        format!("POST /open HTTP/1.1\r\n{host}{bearer}X: 1\r\n Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n{next}"),
        format!("POST /open HTTP/1.0\r\n{host}{bearer}{chunked}\r\n0\r\n\r\n{next}"),
        // Chunks that two readers count differently.
        format!("POST /open HTTP/1.1\r\n{host}{bearer}{chunked}\r\n0x0\r\n\r\n{next}"),
        format!("POST /open HTTP/1.1\r\n{host}{bearer}{chunked}\r\n10000000000000000\r\n\r\n{next}"),
        format!("POST /open HTTP/1.1\r\n{host}{bearer}{chunked}\r\n1;a=\"\n\"\r\nx\r\n0\r\n\r\n{next}"),
        format!("POST /open HTTP/1.1\r\n{host}{bearer}{chunked}\r\n0\r\nX: y\r\n\r\n{next}"),
        // A second request in the same bytes is decided by itself.
        format!("GET /open HTTP/1.1\r\n{host}{bearer}\r\n{next}"),
        format!("GET /open HTTP/1.1\r\n{host}{bearer}Content-Length: 0\r\n\r\n{next}"),
        // Line ends and bytes that some servers see as line ends.
        format!("GET /open HTTP/1.1\r\n{host}{bearer}X: a\rGET /closed HTTP/1.1\r\n\r\n"),
        format!("GET /open HTTP/1.1\r\n{host}{bearer}X: a\0b\r\n\r\n"),
        format!("GET /open\u{b}HTTP/1.1 /closed HTTP/1.1\r\n{host}{bearer}\r\n"),
        format!("GET /open HTTP/1.1 /closed HTTP/1.1\r\n{host}{bearer}\r\n"),
        format!("GET /open%0d%0a%0d%0aGET%20/closed%20HTTP/1.1 HTTP/1.1\r\n{host}{bearer}\r\n"),
        // Other forms of the request's target.
        format!("GET http://web/closed HTTP/1.1\r\n{host}{bearer}\r\n"),
        format!("GET http://web/open/../closed HTTP/1.1\r\n{host}{bearer}\r\n"),
        format!("GET //open/../closed HTTP/1.1\r\n{host}{bearer}\r\n"),
        format!("GET open HTTP/1.1\r\n{host}{bearer}\r\n"),
        format!("OPTIONS * HTTP/1.1\r\n{host}{bearer}\r\n"),
        format!("CONNECT web:80 HTTP/1.1\r\n{host}{bearer}\r\n{next}"),
        format!("GET /open/..%2fclosed HTTP/1.1\r\n{host}{bearer}\r\n"),
        format!("GET /open/..;/closed HTTP/1.1\r\n{host}{bearer}\r\n"),
        format!("GET /open/%252e%252e/closed HTTP/1.1\r\n{host}{bearer}\r\n"),
        format!("GET /open\\..\\closed HTTP/1.1\r\n{host}{bearer}\r\n"),
        // Methods, by whichever header field a framework may take one.
        format!("DELETE /open HTTP/1.1\r\n{host}{bearer}\r\n"),
        format!("get /open HTTP/1.1\r\n{host}{bearer}\r\n"),
        format!("GET /closed HTTP/1.1\r\n{host}{bearer}X-Original-URL: /open\r\nX-Rewrite-URL: /open\r\n\r\n"),
        // What is allowed, with the wish to be taken for what is not.
        format!("POST /open HTTP/1.1\r\n{host}{bearer}X-HTTP-Method-Override: DELETE\r\nContent-Length: 0\r\n\r\n"),
        format!("GET /open HTTP/1.1\r\n{host}{bearer}X-Original-URL: /closed\r\n\r\n"),
        format!("GET /open HTTP/1.1\r\n{host}{bearer}X_Rewrite_URL: /closed\r\n\r\n"),
        format!("GET http://u:p@web/open HTTP/1.1\r\n{host}{bearer}\r\n"),
        // Two hosts, none, two tokens.
        format!("GET /open HTTP/1.1\r\n{host}Host: other\r\n{bearer}\r\n"),
        format!("GET /open HTTP/1.1\r\n{bearer}\r\n"),
        format!("GET /open HTTP/1.1\r\n{host}{bearer}Authorization: Bearer x\r\n\r\n"),
        // Another protocol on the same connection.
        format!("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n{next}"),
    ];
    for attack in &attacks {
        let answer = sidecar.ask(attack);
        let shown = attack.replace(&bearer, "…");
        for seen in service.take() {
            let path = seen.line.split(' ').nth(1).unwrap();
            assert!(path == "/open" || path.starts_with("/open/"), "{shown:?}\nreached {seen:?}");
            assert!(["GET", "POST"].contains(&seen.line.split(' ').next().unwrap()), "{shown:?}\nreached {seen:?}");
            let asks_otherwise = ["override", "original", "rewrite", "u:p@"];
            let all = seen.headers.join("\n").to_ascii_lowercase();
            let is_closed = seen.line.contains("/closed") || asks_otherwise.iter().any(|word| all.contains(word));
            assert!(!is_closed, "{shown:?}\nreached {seen:?}");
        }
        if let Some(answer) = answer {
            assert!(answer.status < 500, "{shown:?}\n{answer:?}");
        }
    }

    // An upgrade to anything but a websocket is not passed on, and neither are trailers in our name.
    let h2c = format!(
        "GET /open HTTP/1.1\r\n{host}{bearer}Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"
    );
    assert_eq!(sidecar.ask(&h2c).unwrap().status, 200);
    let late = format!(
        "POST /open HTTP/1.1\r\n{host}{bearer}{chunked}Trailer: X-Sidegate-Subject, X-Sum\r\n\r\n1\r\nx\r\n0\r\nX-Sidegate-Subject: evil\r\nX-Sum: 1\r\n\r\n"
    );
    assert_eq!(sidecar.ask(&late).unwrap().status, 200);
    let [h2c, late] = service.take().try_into().unwrap();
    assert!(!h2c.headers.iter().any(|line| line.to_ascii_lowercase().starts_with("upgrade")), "{h2c:?}");
    assert!(!late.body.contains("evil"), "{late:?}");
    nobody_is_told_of_a_rule(&sidecar, &dir.path().join("decisions.jsonl"));
}

/// What is refused whatever the rules is recorded as that, even where there is no token either: no rule is made of it.
fn nobody_is_told_of_a_rule(sidecar: &Sidecar, log: &Path) {
    for (path, field, reason) in [
        ("/unclear%00/a", "", "path"),
        ("/unclear/b", "X-Original-URL: /closed\r\n", "override"),
        ("/unclear/c", "", "no_token"),
    ] {
        let answer = sidecar.ask(&format!("GET {path} HTTP/1.1\r\nHost: web\r\n{field}\r\n")).unwrap();
        assert_eq!(answer.status, 401, "{path}: {answer:?}");
        let problem: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        let id = problem["decision_id"].as_str().unwrap().to_owned();
        let written =
            || std::fs::read_to_string(log).unwrap().lines().find(|line| line.contains(&id)).map(str::to_owned);
        let line = within(Duration::from_secs(10), written).expect("it is recorded");
        assert!(line.contains(&format!("\"reason\":\"{reason}\"")), "{path}: {line}");
    }
}
