//! A demo of the benchmark's own: a child process in a temporary directory, ended for certain.
//!
//! It runs under a guard (`cmd::guard`), which ends it when the benchmark is gone, whatever killed that.

use std::ffi::OsString;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::{Child, ChildStdin, Command};

use crate::bench::Cancel;

/// A cold start with initdb on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(120);
/// The guard gives a demo 10 s and then ends it hard.
const STOP_LIMIT: Duration = Duration::from_secs(15);
const RETRY: Duration = Duration::from_millis(50);
/// Of what a demo that does not start has said.
const LAST_LINES: usize = 15;
/// The path of a PostgreSQL socket must be short, and its user must be able to walk there: a place below a home
/// directory may be neither.
const PLACE: &str = "/tmp";

/// The demo.
pub struct OwnDemo {
    guard: Child,
    /// Closing it is how the guard is told to end the demo.
    hold: Option<ChildStdin>,
    directory: TempDir,
}

impl OwnDemo {
    /// Start one and wait until it is up; what its ready file says.
    ///
    /// # Errors
    /// When it does not come up, or the benchmark was cancelled before.
    pub async fn start(cancel: &Cancel) -> anyhow::Result<(Self, Value)> {
        let directory = tempfile::Builder::new().prefix("sidegate-bench-").tempdir_in(PLACE)?;
        fs::set_permissions(directory.path(), Permissions::from_mode(0o711))?;
        let mut guard = command(directory.path())?.spawn().context("cannot start a demo")?;
        let hold = guard.stdin.take();
        let mut demo = Self { guard, hold, directory };
        let up = tokio::time::timeout(START_LIMIT, demo.ready(cancel)).await;
        match up.unwrap_or_else(|_| bail!("the demo is not up after {} s", START_LIMIT.as_secs())) {
            Ok(ready) => Ok((demo, ready)),
            Err(error) => {
                let said = demo.last_lines();
                demo.end().await?;
                Err(error.context(said))
            }
        }
    }

    async fn ready(&mut self, cancel: &Cancel) -> anyhow::Result<Value> {
        loop {
            if let Ok(text) = fs::read(ready_file(self.directory.path())) {
                return serde_json::from_slice(&text).context("the demo's ready file");
            }
            if let Some(status) = self.guard.try_wait()? {
                bail!("the demo ended ({status})");
            }
            if cancel.is_cancelled() {
                bail!("cancelled");
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// End it, wait for that, and remove its directory.
    ///
    /// # Errors
    /// When something of it is left.
    pub async fn end(mut self) -> anyhow::Result<()> {
        drop(self.hold.take());
        if tokio::time::timeout(STOP_LIMIT, self.guard.wait()).await.is_err() {
            // Every process of the demo has a guard of its own, so that none outlives this.
            self.guard.kill().await.context("the demo does not end")?;
        }
        let place = self.directory.path().to_owned();
        self.directory.close().with_context(|| format!("cannot remove {}", place.display()))
    }

    fn last_lines(&self) -> String {
        let said = fs::read_to_string(output_file(self.directory.path())).unwrap_or_default();
        let lines: Vec<&str> = said.lines().collect();
        let skipped = lines.len().saturating_sub(LAST_LINES);
        format!("a demo cannot be had; it said:\n{}", lines.get(skipped..).unwrap_or_default().join("\n"))
    }
}

fn command(directory: &Path) -> anyhow::Result<Command> {
    let own = std::env::current_exe().context("cannot find this program's own file")?;
    let output = File::create(output_file(directory))?;
    let words = |words: &[&str]| words.iter().map(OsString::from).collect::<Vec<_>>();
    let mut command = Command::new(&own);
    command.args(words(&["guard", "--stop", "demo", "--"])).arg(&own).args(words(&["demo", "--no-open", "--dir"]));
    command.arg(directory.join("demo")).arg("--ready-file").arg(ready_file(directory));
    // A Prometheus that scrapes every two seconds would be in the figures.
    command.env("SIDEGATE_PROMETHEUS", "");
    // A group of its own: Ctrl-C in the terminal is the benchmark's, which then ends the demo.
    command.process_group(0).stdin(Stdio::piped()).stdout(output.try_clone()?).stderr(output);
    Ok(command)
}

fn ready_file(directory: &Path) -> std::path::PathBuf {
    directory.join("ready.json")
}

fn output_file(directory: &Path) -> std::path::PathBuf {
    directory.join("output")
}
