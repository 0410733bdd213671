//! `sidegate guard`, hidden: runs one program and ends it when standard input closes.
//!
//! The demo starts every child through a guard and keeps the other end of its standard input. However the demo ends,
//! SIGKILL included, the kernel closes that pipe and the guard stops its program: no orphan is left. The guard leads a
//! process group of its own, so a Ctrl-C in the terminal reaches the demo alone, which then ends its children in order.
//! Deliberately absent: restarting. A child that dies is the demo's to report.

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitCode, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::Context;
use clap::{Args, ValueEnum};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};

/// A sidecar or an issuer drains in this time or is cut: the demo is to end within seconds, not to drain for real.
const TERM_GRACE: Duration = Duration::from_secs(2);
/// PostgreSQL's fast shutdown writes a checkpoint; the demo's data is small.
const FAST_SHUTDOWN_GRACE: Duration = Duration::from_secs(4);
/// Immediate shutdown leaves recovery to the next start and hardly takes time.
const IMMEDIATE_SHUTDOWN_GRACE: Duration = Duration::from_secs(2);

/// A whole demo promises to end in this time.
const DEMO_GRACE: Duration = Duration::from_secs(10);

/// Arguments of `sidegate guard`.
#[derive(Args)]
pub struct GuardArgs {
    /// How the program wants to be ended.
    #[arg(long, value_enum, default_value = "term")]
    stop: Stop,
    /// Run the program as this user id.
    #[arg(long, requires = "gid")]
    uid: Option<u32>,
    /// Run the program as this group id.
    #[arg(long, requires = "uid")]
    gid: Option<u32>,
    /// The program and its arguments.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    program: Vec<OsString>,
}

/// The signals that end a program, the polite one first.
#[derive(Clone, Copy, ValueEnum)]
enum Stop {
    /// SIGTERM, then SIGKILL.
    Term,
    /// As PostgreSQL wants it: SIGINT (fast), SIGQUIT (immediate), then SIGKILL.
    Postgres,
    /// SIGTERM and time to end all children in order, then SIGKILL.
    Demo,
}

impl Stop {
    fn steps(self) -> &'static [(Signal, Duration)] {
        match self {
            Self::Term => &[(Signal::TERM, TERM_GRACE)],
            Self::Demo => &[(Signal::TERM, DEMO_GRACE)],
            Self::Postgres => &[(Signal::INT, FAST_SHUTDOWN_GRACE), (Signal::QUIT, IMMEDIATE_SHUTDOWN_GRACE)],
        }
    }
}

/// Run the program; end it when standard input closes or a signal asks for it; exit as the program did.
pub fn run(args: GuardArgs) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let status = runtime.block_on(hold(args))?;
    Ok(exit_code(status))
}

async fn hold(args: GuardArgs) -> anyhow::Result<ExitStatus> {
    // Handlers first: a signal between spawn and handler would end the guard alone and orphan the program.
    let asked_to_end = end_requested()?;
    let mut child = spawn(&args)?;
    tokio::select! {
        status = child.wait() => return Ok(status?),
        () = asked_to_end => {}
    }
    stop(&mut child, args.stop).await
}

fn spawn(args: &GuardArgs) -> anyhow::Result<Child> {
    let (program, rest) = args.program.split_first().context("no program given")?;
    let mut command = Command::new(program);
    command.args(rest).stdin(Stdio::null());
    // With a uid, the standard library also drops the supplementary groups.
    if let (Some(uid), Some(gid)) = (args.uid, args.gid) {
        command.uid(uid).gid(gid);
    }
    command.spawn().with_context(|| format!("cannot start {}", program.to_string_lossy()))
}

/// Completes when the demo is gone (standard input ends) or somebody signals the guard itself.
fn end_requested() -> anyhow::Result<impl Future<Output = ()>> {
    let mut term = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    Ok(async move {
        tokio::select! {
            () = input_closed() => {}
            _ = term.recv() => {}
            _ = interrupt.recv() => {}
            _ = hangup.recv() => {}
        }
    })
}

/// A thread of its own blocks in read(2); it ends with the process.
async fn input_closed() {
    let (closed, wait) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        let _ = closed.send(());
    });
    let _ = wait.await;
}

async fn stop(child: &mut Child, how: Stop) -> anyhow::Result<ExitStatus> {
    for (signal, grace) in how.steps() {
        send(child, *signal);
        if let Ok(status) = tokio::time::timeout(*grace, child.wait()).await {
            return Ok(status?);
        }
    }
    child.kill().await?;
    Ok(child.wait().await?)
}

/// Safe against a recycled process id: `id` is `Some` only while the child has not been waited for.
fn send(child: &Child, signal: Signal) {
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    if let Some(pid) = pid {
        // It may have ended in between; the wait that follows tells.
        let _ = kill_process(pid, signal);
    }
}

/// The program's own code, or 128 + signal as a shell would say it.
fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}
