//! The demo's child processes: each under a guard (`cmd::guard`), each with its own log file, ended in order.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{ChildStdin, Command};
use tokio::sync::{mpsc, watch};

use super::files;
use super::user::User;

/// A guard ends its program by itself in less than this; the rest is for a guard that cannot.
const STOP_LIMIT: Duration = Duration::from_secs(7);
/// A child that ends more often than this within the time is not started again: something is wrong with it.
const RESTARTS: usize = 5;
const RESTARTS_WITHIN: Duration = Duration::from_secs(30);
const RESTART_PAUSE: Duration = Duration::from_millis(500);
/// Of a dead child's log: enough to see why.
const LAST_LINES: usize = 12;
const LAST_BYTES: u64 = 8 * 1024;

/// In which order to end: what serves others goes last.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    Console,
    Sidecar,
    Issuer,
    /// The HTTP service; ended together with PostgreSQL, but as other programs are.
    Web,
    Postgres,
}

/// What to start.
#[derive(Clone)]
pub struct Spec {
    pub name: String,
    pub stage: Stage,
    pub program: PathBuf,
    pub args: Vec<OsString>,
    pub user: Option<User>,
    /// Where stderr goes, and stdout too unless `stdout` says otherwise.
    pub log: PathBuf,
    pub stdout: Option<PathBuf>,
}

/// One child that ended though nobody asked it to.
struct Ended {
    spec: Spec,
    status: std::io::Result<ExitStatus>,
}

impl Ended {
    fn why(&self) -> String {
        let Spec { name, log, .. } = &self.spec;
        format!("{name} ended ({}); the end of {}:\n{}", describe(&self.status), log.display(), last_lines(log))
    }
}

struct Running {
    stage: Stage,
    /// Closing it is how the guard is told to end its program.
    hold: ChildStdin,
    group: Option<Pid>,
    ended: watch::Receiver<bool>,
}

/// All of them.
pub struct Children {
    guard: PathBuf,
    running: Vec<Running>,
    report: mpsc::UnboundedSender<Ended>,
    ended: mpsc::UnboundedReceiver<Ended>,
}

impl Children {
    /// None yet. The guard is this very binary.
    pub fn new() -> anyhow::Result<Self> {
        let guard = std::env::current_exe().context("cannot find this program's own file")?;
        let (report, ended) = mpsc::unbounded_channel();
        Ok(Self { guard, running: Vec::new(), report, ended })
    }

    /// Start one, to run until `stop`.
    pub fn start(&mut self, spec: &Spec) -> anyhow::Result<()> {
        let mut child = self.command(spec)?.spawn().with_context(|| format!("cannot start {}", spec.name))?;
        let hold = child.stdin.take().context("a child without standard input")?;
        let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        let (tell, ended) = watch::channel(false);
        let (report, spec_again) = (self.report.clone(), spec.clone());
        tokio::spawn(async move {
            let status = child.wait().await;
            let _ = tell.send(true);
            let _ = report.send(Ended { spec: spec_again, status });
        });
        self.running.push(Running { stage: spec.stage, hold, group, ended });
        Ok(())
    }

    /// Run one to its end, within a time. Dropping the future ends the program, too: the pipe goes with it.
    pub async fn run(&self, spec: &Spec, limit: Duration) -> anyhow::Result<()> {
        let mut child = self.command(spec)?.spawn().with_context(|| format!("cannot start {}", spec.name))?;
        let hold = child.stdin.take();
        let status = tokio::time::timeout(limit, child.wait()).await;
        drop(hold);
        match status {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(status) => bail!("{} failed ({}):\n{}", spec.name, describe(&status), last_lines(&spec.log)),
            Err(_) => bail!("{} took more than {} s:\n{}", spec.name, limit.as_secs(), last_lines(&spec.log)),
        }
    }

    /// Wait for `work`, but not longer than all children live.
    pub async fn while_alive<T>(&mut self, work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
        tokio::select! {
            result = work => result,
            error = self.death() => Err(error),
        }
    }

    /// Completes when a child ended by itself, and says which and why.
    pub async fn death(&mut self) -> anyhow::Error {
        match self.ended.recv().await {
            Some(ended) => anyhow!(ended.why()),
            None => anyhow!("the demo lost sight of its processes"),
        }
    }

    /// Starts whatever ends by itself anew, as a cluster would, and tells `say`. Completes with the reason when one of
    /// them cannot be kept up.
    pub async fn keep_up(&mut self, say: impl Fn(&str)) -> anyhow::Error {
        let mut ends: Vec<(String, Instant)> = Vec::new();
        while let Some(ended) = self.ended.recv().await {
            let name = ended.spec.name.clone();
            ends.retain(|(_, at)| at.elapsed() < RESTARTS_WITHIN);
            ends.push((name.clone(), Instant::now()));
            if ends.iter().filter(|(other, _)| *other == name).count() > RESTARTS {
                return anyhow!(ended.why());
            }
            say(&format!("{name} ended ({}) and is started again.", describe(&ended.status)));
            tokio::time::sleep(RESTART_PAUSE).await;
            self.running.retain(|running| !*running.ended.borrow());
            if let Err(error) = self.start(&ended.spec) {
                return error;
            }
        }
        anyhow!("the demo lost sight of its processes")
    }

    /// End all of them, stage by stage, those of one stage together.
    pub async fn stop(&mut self) {
        for stages in [&[Stage::Console, Stage::Sidecar][..], &[Stage::Issuer], &[Stage::Web, Stage::Postgres]] {
            let (now, later) =
                std::mem::take(&mut self.running).into_iter().partition(|running| stages.contains(&running.stage));
            self.running = later;
            end_together(now).await;
        }
        while self.ended.try_recv().is_ok() {}
    }

    fn command(&self, spec: &Spec) -> anyhow::Result<Command> {
        let log = append(&spec.log)?;
        let stdout = spec.stdout.as_ref().map_or_else(|| Ok(log.try_clone()?), |path| append(path))?;
        let mut command = Command::new(&self.guard);
        command.arg("guard").args(["--stop", if spec.stage == Stage::Postgres { "postgres" } else { "term" }]);
        if let Some(user) = spec.user {
            command.args(["--uid", &user.uid.to_string(), "--gid", &user.gid.to_string()]);
        }
        command.arg("--").arg(&spec.program).args(&spec.args);
        // libpq's and initdb's variables of whoever starts the demo must not lead it to another server.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"PG")) {
            command.env_remove(name);
        }
        // "/" because PostgreSQL's user may not see the directory that the demo was started in.
        command.env("LC_ALL", "C").current_dir("/");
        command.stdin(Stdio::piped()).stdout(stdout).stderr(log).process_group(0);
        Ok(command)
    }
}

async fn end_together(children: Vec<Running>) {
    let (held, waiting): (Vec<_>, Vec<_>) =
        children.into_iter().map(|running| (running.hold, (running.ended, running.group))).unzip();
    drop(held);
    let deadline = tokio::time::Instant::now() + STOP_LIMIT;
    for (mut ended, group) in waiting {
        if tokio::time::timeout_at(deadline, ended.wait_for(|ended| *ended)).await.is_err() {
            kill(group);
        }
    }
}

fn kill(group: Option<Pid>) {
    if let Some(group) = group {
        let _ = kill_process_group(group, Signal::KILL);
    }
}

fn append(path: &Path) -> anyhow::Result<File> {
    if let Some(parent) = path.parent() {
        files::directory(parent, 0o700)?;
    }
    let file = OpenOptions::new().append(true).create(true).mode(files::PRIVATE).open(path);
    file.with_context(|| format!("cannot open the log {}", path.display()))
}

fn describe(status: &std::io::Result<ExitStatus>) -> String {
    status.as_ref().map_or_else(ToString::to_string, ToString::to_string)
}

fn last_lines(path: &Path) -> String {
    let text = tail(path).unwrap_or_else(|error| format!("(cannot be read: {error})"));
    let lines: Vec<&str> = text.lines().collect();
    let skipped = lines.len().saturating_sub(LAST_LINES);
    lines.iter().skip(skipped).map(|line| format!("    {line}\n")).collect()
}

fn tail(path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let start = file.metadata()?.len().saturating_sub(LAST_BYTES);
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
