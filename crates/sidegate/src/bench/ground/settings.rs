//! A switch of a running sidecar: one key of its settings' directory, changed as the kubelet changes it, and put back.
//!
//! That a change has taken effect is told by the sidecar's own metric, not by a delay.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};

use super::metrics::Metrics;

/// A change is in force within 250 ms; on a machine under load, later.
const EFFECT_LIMIT: Duration = Duration::from_secs(15);
const RETRY: Duration = Duration::from_millis(5);

/// One key that is `true` or `false`.
pub struct Switch {
    file: PathBuf,
    metrics: Metrics,
    /// What stood there; `None`: nothing.
    original: Option<String>,
}

impl Switch {
    /// The switch of this name, as it is.
    ///
    /// # Errors
    /// When its file cannot be read.
    pub fn at(directory: &Path, key: &str, metrics: Metrics) -> anyhow::Result<Self> {
        let file = directory.join(key);
        let original = read(&file).with_context(|| format!("cannot read {}", file.display()))?;
        Ok(Self { file, metrics, original })
    }

    /// Turn it, and wait until the sidecar goes by it.
    ///
    /// # Errors
    /// When it cannot be written, or has no effect.
    pub async fn turn(&self, on: bool) -> anyhow::Result<()> {
        let place = || format!("cannot switch {}", self.file.display());
        if meaning(read(&self.file).with_context(place)?.as_deref()) == Some(on) {
            return Ok(());
        }
        let before = self.metrics.generation().await?;
        write(&self.file, if on { "true\n" } else { "false\n" }).with_context(place)?;
        let effect = async {
            while self.metrics.generation().await? <= before {
                tokio::time::sleep(RETRY).await;
            }
            anyhow::Ok(())
        };
        match tokio::time::timeout(EFFECT_LIMIT, effect).await {
            Ok(done) => done,
            Err(_) => bail!("{} has no effect after {} s", self.file.display(), EFFECT_LIMIT.as_secs()),
        }
    }

    /// Put back what stood there.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn restore(&self) -> anyhow::Result<()> {
        let restored = match (read(&self.file), &self.original) {
            (Ok(now), original) if now == *original => Ok(()),
            (_, Some(text)) => write(&self.file, text),
            (_, None) => fs::remove_file(&self.file),
        };
        restored.with_context(|| format!("cannot put {} back to {:?}", self.file.display(), self.original))
    }
}

/// However the benchmark ends, what somebody had set is set again.
impl Drop for Switch {
    fn drop(&mut self) {
        // Where all went well, it is so already; and where not, the reason for that is what is told.
        let _ = self.restore();
    }
}

/// What a sidecar makes of it; `None`: neither on nor off (`observe`).
fn meaning(text: Option<&str>) -> Option<bool> {
    match text.map(|text| text.trim().to_ascii_lowercase()).as_deref() {
        Some("false") => Some(false),
        Some("observe") => None,
        _ => Some(true),
    }
}

fn read(file: &Path) -> io::Result<Option<String>> {
    match fs::read_to_string(file) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Nobody sees it half written.
fn write(file: &Path, text: &str) -> io::Result<()> {
    let directory = file.parent().unwrap_or(Path::new("."));
    let mut new = tempfile::Builder::new().prefix(".bench-").tempfile_in(directory)?;
    new.write_all(text.as_bytes())?;
    let readable = fs::Permissions::from_mode(0o644);
    new.as_file().set_permissions(readable)?;
    new.persist(file)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_set_is_set_again() {
        let directory = tempfile::tempdir().unwrap();
        let switch =
            |key| Switch::at(directory.path(), key, Metrics::at("http://127.0.0.1:9/metrics").unwrap()).unwrap();
        let file = directory.path().join("VERIFY");
        fs::write(&file, "observe").unwrap();
        let (set, unset) = (switch("VERIFY"), switch("SIGN"));
        write(&file, "false\n").unwrap();
        write(&unset.file, "false\n").unwrap();
        drop((set, unset));
        assert_eq!(fs::read_to_string(&file).unwrap(), "observe");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "what was not there is gone again");
    }

    #[test]
    fn what_is_not_understood_is_on_as_sidecars_have_it() {
        let meanings = [None, Some("True\n"), Some("nonsense"), Some(" FALSE\n"), Some("observe")].map(meaning);
        assert_eq!(meanings, [Some(true), Some(true), Some(true), Some(false), None]);
    }
}
