//! Sidecars of the tests' own beside a demo's issuer and PostgreSQL, which they may end as they like.

use std::fs::{self, File};
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use testkit::Demo;
use testkit::http::{Http, request};
use testkit::raw::{Message, Raw};

/// What a machine that is busy with other tests may add to a time.
pub const SLACK: Duration = Duration::from_secs(3);
pub const NOW: Duration = Duration::from_secs(1);

/// Sidecars of our own beside a demo's issuer and PostgreSQL: one before `postgres-b`, and one that leads to it.
pub struct World {
    pub demo: Demo,
    dir: tempfile::TempDir,
    inbound: u16,
    pub outbound: u16,
    pub http: u16,
    admin: u16,
}

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl World {
    pub fn new() -> World {
        let demo = Demo::start_without_prometheus(env!("CARGO_BIN_EXE_sidegate"));
        let dir = testkit::state_directory();
        let ports = [free_port(), free_port(), free_port(), free_port()];
        let [inbound, outbound, http, admin] = ports;
        let world = World { demo, dir, inbound, outbound, http, admin };
        world.postgres_comes();
        world
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.path().join(".s.PGSQL.5432")
    }

    pub fn postgres_comes(&self) {
        let directory = self.demo.socket_dir("postgres-b");
        let real = fs::read_dir(directory).unwrap().flatten().map(|entry| entry.path());
        let real = real
            .into_iter()
            .find(|path| path.to_string_lossy().contains(".s.PGSQL") && path.extension().is_none_or(|e| e != "lock"));
        symlink(real.unwrap(), self.socket()).unwrap();
    }

    pub fn postgres_leaves(&self) {
        fs::remove_file(self.socket()).unwrap();
    }

    /// What the demo wrote for its own sidecar of this name, up to its listeners.
    pub fn head(&self, name: &str) -> String {
        let written = fs::read_to_string(self.demo.dir().join(format!("config/{name}.yaml"))).unwrap();
        let lines = written.lines().take_while(|line| !line.starts_with("inbound") && !line.starts_with("outbound"));
        lines.filter(|line| !line.starts_with("admin")).map(|line| format!("{line}\n")).collect()
    }

    pub fn start(&self, name: &str, config: &str) -> Sidecar {
        let file = self.dir.path().join(format!("{name}.yaml"));
        fs::write(&file, config).unwrap();
        let log = File::options().append(true).create(true).open(self.dir.path().join(format!("{name}.log"))).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_sidegate"));
        command.args(["sidecar", "--config"]).arg(&file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        Sidecar(command.spawn().unwrap())
    }

    pub fn start_inbound(&self, more: &str) -> Sidecar {
        let (head, port, socket) = (self.head("postgres-b"), self.inbound, self.socket());
        let socket = socket.display();
        let sidecar = self.start(
            "inbound",
            &format!(
                "{head}drain: {{timeout: 10}}\ninbound:\n- {{protocol: postgres, listen: '127.0.0.1:{port}', tls: {{}}, \
                 upstream: 'unix:{socket}'{more}}}\n"
            ),
        );
        // Not yet listening is another reason to fail than the one that is looked for.
        let begun = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(begun.elapsed() < Duration::from_secs(10), "the inbound sidecar does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        sidecar
    }

    pub fn start_outbound(&self, drain: &str, more: &str) -> Sidecar {
        let head = self.head("service-a");
        self.start_outbound_with(&head, drain, more)
    }

    pub fn start_outbound_with(&self, head: &str, drain: &str, more: &str) -> Sidecar {
        let World { inbound, outbound, http, admin, .. } = self;
        let to = format!("target: postgres-b/postgres-b, connect: '127.0.0.1:{inbound}', tls: {{}}{more}");
        self.start(
            "outbound",
            &format!(
                "{head}admin: {{listen: '127.0.0.1:{admin}'}}\ndrain: {drain}\noutbound:\n\
                 - {{protocol: postgres, listen: '127.0.0.1:{outbound}', {to}}}\n\
                 - {{protocol: http, listen: '127.0.0.1:{http}', {to}}}\n"
            ),
        )
    }

    pub fn raw(&self) -> Raw {
        let address = format!("127.0.0.1:{}", self.outbound);
        // A sidecar that has just been started listens in a moment.
        let up = testkit::within(SLACK, || std::net::TcpStream::connect(&address).ok());
        assert!(up.is_some(), "nothing listens on {address}");
        Raw::tcp(&address)
    }

    pub fn log_in(&self) -> Raw {
        let mut raw = self.raw();
        let seen = raw.log_in("reader", "shop", None);
        assert_eq!(last(&seen), "ZI", "{seen:?}");
        raw
    }

    /// How a login ends, and after what time.
    pub fn try_to_log_in(&self) -> (String, Duration) {
        let mut raw = self.raw();
        let started = Instant::now();
        (last(&raw.log_in("reader", "shop", None)), started.elapsed())
    }

    /// PostgreSQL itself, where nobody checks anything.
    pub fn admin(&self) -> Raw {
        let server = &self.demo.ready()["postgres"]["postgres-b"];
        let mut raw = Raw::unix(self.demo.socket_dir("postgres-b"), server["port"].as_u64().unwrap());
        assert_eq!(last(&raw.log_in(server["admin"].as_str().unwrap(), "shop", None)), "ZI");
        raw
    }

    pub fn ready(&self) -> Option<u16> {
        std::net::TcpStream::connect(("127.0.0.1", self.admin)).ok()?;
        let mut http = Http::connect(&format!("http://127.0.0.1:{}", self.admin), self.demo.ca_file());
        http.send(&request("GET", "/readyz", &[], b""));
        Some(http.answer()?.status)
    }
}

pub struct Sidecar(pub Child);

impl Sidecar {
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.0.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    pub fn ends_within(&mut self, limit: Duration) -> Duration {
        let started = Instant::now();
        let ended: Option<ExitStatus> = testkit::within(limit, || self.0.try_wait().unwrap());
        assert!(ended.is_some(), "it goes on after {limit:?}");
        started.elapsed()
    }

    pub fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub fn last(seen: &[Message]) -> String {
    seen.last().map(Message::outline).unwrap_or_default()
}

pub fn outlines(seen: &[Message]) -> String {
    seen.iter().map(Message::outline).collect::<Vec<_>>().join(" ")
}

/// Sends a query without waiting for its answer.
pub fn ask(raw: &mut Raw, text: &str) {
    let mut out = Vec::new();
    wire::frontend::query(&mut out, text);
    raw.send(&out);
}
