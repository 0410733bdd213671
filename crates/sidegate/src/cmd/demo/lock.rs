//! One demo a state directory.
//!
//! The lock is inherited by every process the demo starts, so it is free only when the last of them is gone: a demo
//! started right after one that was killed waits until that one's PostgreSQL has let go of its data.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::fs::{FlockOperation, flock};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::{Pid, test_kill_process};

use super::layout::Layout;

/// A guard gives PostgreSQL six seconds in all; beyond that something else is wrong.
const PREDECESSOR_GRACE: Duration = Duration::from_secs(15);
const RETRY: Duration = Duration::from_millis(50);

/// Held as long as it lives, here and in the children.
pub struct Lock(#[expect(dead_code, reason = "held for its lock")] File);

impl Lock {
    /// Take the lock unless a demo that is alive has it; wait only for processes whose demo is gone already. `meanwhile`
    /// runs before that wait.
    pub async fn take<T>(layout: &Layout, meanwhile: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<(Self, T)> {
        let path = layout.lock_file();
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let mut file = file.with_context(|| format!("cannot open {}", path.display()))?;
        let mut locked = lock(&mut file, layout)?;
        let value = meanwhile()?;
        let deadline = tokio::time::Instant::now() + PREDECESSOR_GRACE;
        while !locked {
            if tokio::time::Instant::now() > deadline {
                let (dir, logs) = (layout.dir(), layout.dir().join("logs"));
                bail!("processes of an earlier demo on {} do not end; see {}", dir.display(), logs.display());
            }
            tokio::time::sleep(RETRY).await;
            locked = lock(&mut file, layout)?;
        }
        file.set_len(0)?;
        file.rewind()?;
        write!(file, "{}", std::process::id())?;
        fcntl_setfd(&file, FdFlags::empty())?;
        Ok((Self(file), value))
    }
}

/// Whether it is ours now; an error if a demo that is alive has it.
fn lock(file: &mut File, layout: &Layout) -> anyhow::Result<bool> {
    if flock(&*file, FlockOperation::NonBlockingLockExclusive).is_ok() {
        return Ok(true);
    }
    match holder(file).filter(|pid| is_alive(*pid)) {
        Some(pid) => {
            let pid = pid.as_raw_nonzero();
            bail!("a demo runs already on {} (process {pid}); end it, or choose another --dir", layout.dir().display())
        }
        None => Ok(false),
    }
}

fn holder(file: &mut File) -> Option<Pid> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.read_to_string(&mut text).ok()?;
    Pid::from_raw(text.trim().parse().ok()?)
}

fn is_alive(pid: Pid) -> bool {
    test_kill_process(pid).is_ok()
}
