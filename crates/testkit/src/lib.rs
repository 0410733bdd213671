//! For tests only: a whole demo as a fixture, with real PostgreSQL servers behind real sidecars.
//!
//! Starting one takes a second or two: share it among the tests of a file where they do not disturb each other.
//! Deliberately absent: mocks. And errors as values: a fixture that cannot be had fails the test, loudly.
#![allow(clippy::expect_used, clippy::panic, reason = "a failing fixture is a failing test")]

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::http::{Answer, Http};

pub mod hostile;
pub mod http;
pub mod raw;
pub mod tls;

/// A cold start with initdb on a machine that is busy with the rest of the tests.
const START_LIMIT: Duration = Duration::from_secs(120);
/// What the demo promises for its end.
pub const STOP_LIMIT: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_millis(20);

/// A directory for a demo's state, removed at the end. PostgreSQL's user may pass through it even when root runs the tests.
pub fn state_directory() -> TempDir {
    let dir = tempfile::Builder::new().prefix("sidegate-test-").tempdir_in("/tmp").expect("a directory under /tmp");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o711)).expect("its mode");
    dir
}

/// A running `sidegate demo`; ended when dropped.
pub struct Demo {
    child: Child,
    ready: Value,
    output: PathBuf,
    own: Option<TempDir>,
}

impl Demo {
    /// Start one in a directory of its own; `program` is `env!("CARGO_BIN_EXE_sidegate")`.
    pub fn start(program: &str) -> Self {
        Self::start_with(program, &[])
    }

    /// The same, with further arguments of `sidegate demo`.
    pub fn start_with(program: &str, arguments: &[&str]) -> Self {
        Self::start_as(program, arguments, &[])
    }

    /// The same, as on a machine that has no Prometheus.
    pub fn start_without_prometheus(program: &str) -> Self {
        Self::start_as(program, &[], &[("SIDEGATE_PROMETHEUS", "")])
    }

    fn start_as(program: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let dir = state_directory();
        let mut demo = Self::start_at(program, dir.path(), arguments, environment);
        demo.own = Some(dir);
        demo
    }

    /// Start one in `dir`, which outlives it.
    pub fn start_in(program: &str, dir: &Path) -> Self {
        Self::start_at(program, dir, &[], &[])
    }

    fn start_at(program: &str, dir: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let (ready_file, output) = (dir.join("ready.json"), dir.join("output"));
        let mut command = Command::new(program);
        command.args(["demo", "--no-open", "--dir"]).arg(dir.join("demo")).arg("--ready-file").arg(&ready_file);
        command.args(arguments).envs(environment.iter().copied());
        let mut child = spawn(command, &ready_file, &output);
        let ready = wait_ready(&mut child, &ready_file, &output);
        Self { child, ready, output, own: None }
    }

    /// What the ready file says.
    pub fn ready(&self) -> &Value {
        &self.ready
    }

    /// All that the demo printed so far.
    pub fn output(&self) -> String {
        fs::read_to_string(&self.output).expect("the demo's output")
    }

    /// The demo's state directory.
    pub fn dir(&self) -> PathBuf {
        self.text("/dir").into()
    }

    /// Where `app` connects to reach `database`: through both sidecars.
    pub fn outbound(&self, app: &str, database: &str) -> &str {
        self.text(&format!("/outbound/{app}/{database}"))
    }

    /// The inbound sidecar of `database`, as another sidecar sees it.
    pub fn inbound(&self, database: &str) -> &str {
        self.text(&format!("/inbound/{database}"))
    }

    /// Where `app` reaches `target` by HTTP, through both sidecars: a URL to which a path is added.
    pub fn http(&self, app: &str, target: &str) -> &str {
        self.text(&format!("/http/{app}/{target}"))
    }

    /// The HTTP listener of the sidecar beside `service`, as another sidecar sees it.
    pub fn inbound_http(&self, service: &str) -> &str {
        self.text(&format!("/inbound_http/{service}"))
    }

    /// The authority that signed the sidecars' certificates.
    pub fn ca_file(&self) -> &Path {
        Path::new(self.text("/ca_file"))
    }

    /// The demo's HTTP service: `prometheus`, or `inventory` on a machine without one.
    pub fn web(&self) -> &'static str {
        if self.ready.pointer("/inbound_http/prometheus").is_some() { "prometheus" } else { "inventory" }
    }

    /// One request below a URL of the demo's, over a connection of its own.
    pub fn ask(&self, method: &str, url: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let mut http = Http::connect(url, self.ca_file());
        http.send(&http::request(method, &http::path_of(url, path), headers, body));
        http.answer().unwrap_or_else(|| panic!("no answer to {method} {path} of {url}"))
    }

    /// An access token of `app` for a service, in exchange for its service-account token.
    pub fn access_token(&self, app: &str, service: &str) -> String {
        self.exchange(app, service, "")
    }

    /// The same, bound to the certificate of this thumbprint (`x5t#S256`).
    pub fn bound_token(&self, app: &str, service: &str, thumbprint: &str) -> String {
        self.exchange(app, service, &format!("&req_cnf=%7B%22x5t%23S256%22%3A%22{thumbprint}%22%7D"))
    }

    fn exchange(&self, app: &str, service: &str, more: &str) -> String {
        let form = format!(
            "grant_type=urn:ietf:params:oauth:grant-type:token-exchange&subject_token={}\
             &subject_token_type=urn:ietf:params:oauth:token-type:jwt&audience={service}/{service}{more}",
            self.subject_token(app).trim()
        );
        let headers = [("Content-Type", "application/x-www-form-urlencoded")];
        let answer = self.ask("POST", self.text("/issuer"), "/token", &headers, form.as_bytes());
        let json = answer.json();
        json.get("access_token").and_then(Value::as_str).unwrap_or_else(|| panic!("{answer:?}")).to_owned()
    }

    /// A certificate for `app`, as its sidecar has one: the issuer signs a fresh key for whoever shows the pod's token.
    pub fn certificate(&self, app: &str) -> tls::ClientCertificate {
        let key = rcgen::KeyPair::generate().expect("a key");
        let request = rcgen::CertificateParams::default().serialize_request(&key).expect("a request");
        let proof = format!("Bearer {}", self.subject_token(app).trim());
        let headers = [("Authorization", proof.as_str()), ("Content-Type", "application/pkcs10")];
        let answer = self.ask("POST", self.text("/issuer"), "/certificates", &headers, request.der());
        assert_eq!(answer.status, 200, "{answer:?}");
        let certificate = String::from_utf8(answer.body).expect("PEM");
        tls::ClientCertificate { certificate, key: key.serialize_pem() }
    }

    /// The directory of PostgreSQL's own socket, where nobody checks anything.
    pub fn socket_dir(&self, database: &str) -> &str {
        self.text(&format!("/postgres/{database}/socket_dir"))
    }

    /// Set `SIGN_AUTH_ENABLED` or the like of a service, as the kubelet does: by an atomic rename.
    pub fn set(&self, service: &str, key: &str, value: &str) {
        let dir = PathBuf::from(self.text(&format!("/settings/{service}")));
        let new = dir.join(format!(".{key}.new"));
        fs::write(&new, value).expect("a new setting");
        fs::rename(&new, dir.join(key)).expect("the setting in its place");
    }

    /// The service-account token that lies in the pod of `app` now.
    pub fn subject_token(&self, app: &str) -> String {
        fs::read_to_string(self.text(&format!("/subject_tokens/{app}"))).expect("a subject token")
    }

    /// The demo's own process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Send a signal to the demo alone and wait for its end.
    pub fn end(&mut self, signal: Signal) -> ExitStatus {
        self.signal(signal);
        self.wait(STOP_LIMIT).expect("the demo ends in time")
    }

    /// The demo's status, if it has ended.
    pub fn try_end(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("the demo's status")
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a process id");
        let _ = kill_process(pid, signal);
    }

    fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        within(limit, || self.try_end())
    }

    fn text(&self, pointer: &str) -> &str {
        self.ready
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_else(|| panic!("{pointer} is not in the ready file"))
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        if self.try_end().is_none() {
            self.signal(Signal::TERM);
            if self.wait(STOP_LIMIT).is_none() {
                let _ = self.child.kill();
                let _ = self.child.wait();
            }
        }
    }
}

/// Ask again until there is an answer or the time is over.
pub fn within<T>(limit: Duration, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + limit;
    loop {
        match ask() {
            None if Instant::now() < deadline => std::thread::sleep(RETRY),
            answer => return answer,
        }
    }
}

/// The time as `TOKENS_NOT_BEFORE` takes it.
pub fn rfc3339_now() -> String {
    let format = &time::format_description::well_known::Rfc3339;
    time::OffsetDateTime::now_utc().format(format).expect("a time")
}

/// `psql` on one statement text, without the configuration of whoever runs the tests.
pub fn psql(url: &str, sql: &str) -> Output {
    let mut command = Command::new("psql");
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"PG")) {
        command.env_remove(name);
    }
    command
        .args(["-X", "-w", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", url, "-c", sql])
        .stdin(Stdio::null())
        .output()
        .expect("psql")
}

/// Processes of this machine whose command line names `text`: process id and command line.
#[cfg(target_os = "linux")]
pub fn processes_naming(text: &str) -> Vec<(i32, String)> {
    let processes = fs::read_dir("/proc").expect("/proc").flatten().filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let line = fs::read(entry.path().join("cmdline")).ok()?;
        Some((pid, String::from_utf8_lossy(&line).replace('\0', " ")))
    });
    processes.filter(|(_, line)| line.contains(text)).collect()
}

fn spawn(mut command: Command, ready_file: &Path, output: &Path) -> Child {
    // One that was killed hard leaves its ready file.
    let _ = fs::remove_file(ready_file);
    let out = File::create(output).expect("a file for the demo's output");
    command.stdin(Stdio::null()).stderr(out.try_clone().expect("the same file again")).stdout(out);
    command.spawn().expect("the demo's process")
}

fn wait_ready(child: &mut Child, ready_file: &Path, output: &Path) -> Value {
    let said = || fs::read_to_string(output).unwrap_or_default();
    let ready = within(START_LIMIT, || {
        if let Some(status) = child.try_wait().expect("the demo's status") {
            panic!("the demo ended ({status}):\n{}", said());
        }
        fs::read(ready_file).ok()
    });
    let Some(ready) = ready else {
        let _ = child.kill();
        panic!("the demo was not ready in time:\n{}", said());
    };
    serde_json::from_slice(&ready).expect("the ready file is JSON")
}
