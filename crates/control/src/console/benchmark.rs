//! Benchmarks: started, watched and stopped from a page, as the program that they are (`sidegate bench`), with their results kept.
//!
//! A process of its own: it switches settings and puts them back itself, even if the console ends meanwhile. Deliberately absent: measuring.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use askama::Template;
use axum::extract::Path as UrlPath;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process};
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

use super::changes::Change;
use super::config::{Config, Steered};
use super::page::{Frame, html, message, see_other};
use super::{Console, Posted, Signed};

const DIRECTORY: &str = "benchmarks";
/// Results on the page; older ones stay in the directory.
const SHOWN: usize = 10;
/// Lines of complaint that are kept.
const COMPLAINTS: usize = 20;
/// Names that sort by time.
const NAME: &[BorrowedFormatItem] = format_description!("[year][month][day]T[hour][minute][second]Z");
const OPERATIONS: [&str; 4] = ["light", "heavy", "select", "mixed"];
const SERVICES: [&str; 2] = ["postgres-a", "postgres-b"];

/// What runs, and what was run.
pub(super) struct Benchmarks {
    /// The ready file of the demo that is measured.
    ground: Option<PathBuf>,
    directory: PathBuf,
    running: Arc<Mutex<Option<Running>>>,
}

#[derive(Clone)]
struct Running {
    name: String,
    what: String,
    pid: u32,
    done: u32,
    total: u32,
    stopping: bool,
    complaints: Vec<String>,
}

/// A finished one.
struct Result_ {
    name: String,
    /// The picture, for the page itself.
    chart: Option<String>,
    /// Tables.
    text: String,
}

/// What somebody asks for, checked.
struct Wanted {
    service: &'static str,
    operation: &'static str,
    requests: u32,
    connections: u32,
    repeat: u32,
}

impl Wanted {
    fn of(posted: &Posted) -> Option<Self> {
        let one_of = |name: &str, known: &[&'static str]| known.iter().find(|one| **one == posted.field(name)).copied();
        let number = |name: &str, most: u32| posted.field(name).parse::<u32>().ok().filter(|n| (1..=most).contains(n));
        Some(Self {
            service: one_of("service", &SERVICES)?,
            operation: one_of("operation", &OPERATIONS)?,
            requests: number("requests", 100_000)?,
            connections: number("connections", 64)?,
            repeat: number("repeat", 100)?,
        })
    }

    fn words(&self) -> String {
        let Self { service, operation, requests, connections, repeat } = self;
        format!("{service}, {operation}, {requests} × {connections} × {repeat}")
    }
}

impl Benchmarks {
    pub(super) fn new(config: &Config) -> Self {
        let ground = match &config.steered {
            Steered::Local(local) => local.benchmark.clone(),
            Steered::Cluster(_) => None,
        };
        Self { ground, directory: config.state.join(DIRECTORY), running: Arc::new(Mutex::new(None)) }
    }

    /// Begins one, unless one runs.
    fn start(&self, wanted: &Wanted) -> std::io::Result<bool> {
        let Some(ground) = &self.ground else { return Ok(false) };
        let mut running = self.running.lock();
        if running.as_ref().is_some_and(|one| one.pid != 0) {
            return Ok(false);
        }
        std::fs::create_dir_all(&self.directory)?;
        let name = OffsetDateTime::now_utc().format(NAME).map_err(std::io::Error::other)?;
        let file = |end: &str| self.directory.join(format!("{name}.{end}"));
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("bench").arg("--demo").arg(ground).arg("--progress-lines");
        command.args(["--service", wanted.service, "--operations", wanted.operation, "--protocol", "native"]);
        command.arg("--requests").arg(wanted.requests.to_string());
        command.arg("--connections").arg(wanted.connections.to_string());
        command.arg("--repeat").arg(wanted.repeat.to_string());
        command.arg("--wide").arg("--csv").arg(file("csv")).arg("--chart").arg(file("svg"));
        command.stdin(Stdio::null()).stdout(std::fs::File::create(file("txt"))?).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let stderr = child.stderr.take();
        let one = Running {
            name,
            what: wanted.words(),
            pid: child.id(),
            done: 0,
            total: 0,
            stopping: false,
            complaints: Vec::new(),
        };
        *running = Some(one);
        let shared = self.running.clone();
        std::thread::Builder::new().name("benchmark".to_owned()).spawn(move || {
            for line in stderr.into_iter().flat_map(|stderr| BufReader::new(stderr).lines()).map_while(Result::ok) {
                if let Some(running) = shared.lock().as_mut() {
                    running.hear(&line);
                }
            }
            let _ = child.wait();
            if let Some(running) = shared.lock().as_mut() {
                running.pid = 0;
            }
        })?;
        Ok(true)
    }

    /// Tells the one that runs to end; what it has measured so far is reported.
    fn stop(&self) {
        let mut running = self.running.lock();
        if let Some(one) = running.as_mut().filter(|one| one.pid != 0) {
            one.stopping = true;
            if let Some(pid) = i32::try_from(one.pid).ok().and_then(Pid::from_raw) {
                let _ = kill_process(pid, Signal::INT);
            }
        }
    }

    fn now(&self) -> Option<Running> {
        self.running.lock().clone()
    }

    /// The newest first; not the one that runs.
    fn results(&self) -> Vec<Result_> {
        let running = self.now().filter(|one| one.pid != 0).map(|one| one.name);
        let names = std::fs::read_dir(&self.directory).into_iter().flatten().flatten();
        let mut names: Vec<String> = names
            .filter_map(|entry| Some(entry.file_name().to_str()?.strip_suffix(".csv")?.to_owned()))
            .filter(|name| is_name(name) && Some(name) != running.as_ref())
            .collect();
        names.sort_unstable_by(|a, b| b.cmp(a));
        names.truncate(SHOWN);
        names.into_iter().map(|name| self.result(name)).collect()
    }

    fn result(&self, name: String) -> Result_ {
        let read = |end: &str| std::fs::read_to_string(self.directory.join(format!("{name}.{end}")));
        Result_ { chart: read("svg").ok().and_then(|svg| inline(&svg)), text: read("txt").unwrap_or_default(), name }
    }
}

impl Running {
    /// `done/total`, or a complaint.
    fn hear(&mut self, line: &str) {
        let pair = line.split_once('/').and_then(|(done, total)| Some((done.parse().ok()?, total.parse().ok()?)));
        match pair {
            Some(progress) => (self.done, self.total) = progress,
            None if self.complaints.len() < COMPLAINTS => self.complaints.push(line.to_owned()),
            None => {}
        }
    }

    fn runs(&self) -> bool {
        self.pid != 0
    }
}

/// An SVG as a part of a page, whose own style sheet has its colours: a style within would be blocked.
fn inline(svg: &str) -> Option<String> {
    let (before, rest) = svg.split_once("<style>")?;
    let (_, after) = rest.split_once("</style>")?;
    let whole = [before, after].concat();
    let at = whole.find("<svg")?;
    let text = whole.get(at..)?.to_owned();
    // Ours has none; a file that somebody put there must not.
    let is_plain = !["<script", "<foreignObject", "javascript:", " on", "<!"].iter().any(|bad| has_markup(&text, bad));
    is_plain.then_some(text)
}

/// Whether something stands in markup; what is between tags is text.
fn has_markup(text: &str, what: &str) -> bool {
    let tags = text.split('<').skip(1).filter_map(|piece| piece.split_once('>')).map(|(tag, _)| format!("<{tag}>"));
    let attribute = what.starts_with(' ');
    tags.into_iter().any(|tag| {
        let tag = if attribute { strip_values(&tag) } else { tag };
        tag.contains(what)
    })
}

/// A tag without the values of its attributes.
fn strip_values(tag: &str) -> String {
    tag.split('"').step_by(2).collect::<Vec<_>>().join("")
}

fn is_name(name: &str) -> bool {
    name.len() == 16 && name.chars().all(|c| c.is_ascii_digit() || c == 'T' || c == 'Z')
}

#[derive(Template)]
#[template(path = "console/benchmark.html")]
struct Show<'a> {
    frame: &'a Frame,
    possible: bool,
    services: [&'static str; 2],
    operations: [&'static str; 4],
    running: Option<Running>,
    results: Vec<Result_>,
}

/// The part that is kept up to date.
#[derive(Template)]
#[template(path = "console/_benchmark.html")]
struct ProgressPart<'a> {
    frame: &'a Frame,
    running: Option<Running>,
}

pub(super) fn progress(console: &Console, frame: &Frame) -> String {
    ProgressPart { frame, running: console.common.benchmarks.now() }.render().unwrap_or_default()
}

pub(super) async fn show(Signed(console): Signed, frame: Frame) -> Response {
    let frame = frame.at("benchmark");
    let page = Show {
        frame: &frame,
        possible: console.common.benchmarks.ground.is_some(),
        services: SERVICES,
        operations: OPERATIONS,
        running: console.common.benchmarks.now(),
        results: console.common.benchmarks.results(),
    };
    html(StatusCode::OK, &page)
}

pub(super) async fn start(Signed(console): Signed, posted: Posted) -> Response {
    let frame = &posted.frame;
    let refuse =
        |why: String| message(frame, StatusCode::UNPROCESSABLE_ENTITY, frame.t("failed"), &[why], "/benchmark");
    let Some(wanted) = Wanted::of(&posted) else {
        return refuse("1–100000 requests, 1–64 connections, 1–100 repetitions".to_owned());
    };
    if !console.common.changes.record(Change::new(&posted.viewer.who, "benchmark", "", &wanted.words())) {
        return refuse(frame.t("refuse-record").to_owned());
    }
    match console.common.benchmarks.start(&wanted) {
        Ok(_) => see_other("/benchmark"),
        Err(error) => refuse(error.to_string()),
    }
}

pub(super) async fn stop(Signed(console): Signed, _posted: Posted) -> Response {
    console.common.benchmarks.stop();
    see_other("/benchmark")
}

/// A result as CSV.
pub(super) async fn result(Signed(console): Signed, UrlPath(file): UrlPath<String>) -> Response {
    let Some(name) = file.strip_suffix(".csv").filter(|name| is_name(name)) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let path: &Path = &console.common.benchmarks.directory.join(format!("{name}.csv"));
    let Ok(text) = std::fs::read(path) else { return StatusCode::NOT_FOUND.into_response() };
    let disposition = format!("attachment; filename=\"sidegate-{name}.csv\"");
    ([(header::CONTENT_TYPE, "text/csv".to_owned()), (header::CONTENT_DISPOSITION, disposition)], text).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_comes_without_its_style_and_never_with_a_script() {
        let svg = "<?xml?><svg role=\"img\"><title>Time on off</title><style>.a{}</style><text class=\"a\">1 on 2</text></svg>";
        assert_eq!(
            inline(svg).unwrap(),
            "<svg role=\"img\"><title>Time on off</title><text class=\"a\">1 on 2</text></svg>"
        );
        for bad in ["<script>x</script>", "<g onclick=\"x\"/>", "<a href=\"javascript:x\"/>", "<foreignObject/>"] {
            assert!(inline(&svg.replace("</svg>", &format!("{bad}</svg>"))).is_none(), "{bad}");
        }
    }

    #[test]
    fn names_lead_nowhere_else() {
        assert!(is_name("20261123T171500Z"));
        for name in ["../../etc/passwd", "20261123T17150", "20261123T17150/Z"] {
            assert!(!is_name(name), "{name}");
        }
    }
}
