//! A log file that is put aside when it is large: `FILE`, before it `FILE.1`, before that `FILE.2`.
//!
//! Absent on purpose: rotation by others. A file that is moved away is written on where it went, until it is
//! large.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::chain::{self, Head};
use super::writer::Sink;
use super::{LogError, Rotation};

/// Who calls whom is nobody else's business than the operators' group.
const MODE: u32 = 0o640;

/// The longest end of a file in which the last line is looked for, in bytes: far more than a record has.
const LONGEST_LINE: u64 = 1 << 20;

pub(super) struct RotatingFile {
    path: PathBuf,
    file: File,
    size: u64,
    rotation: Option<Rotation>,
    /// Not before this is another rotation tried, since the last one failed.
    retry_at: Option<Instant>,
}

/// After a rotation that failed: whatever is wrong, trying with each batch does not make it better.
const RETRY_AFTER: Duration = Duration::from_secs(60);

impl RotatingFile {
    /// Opens it at its end.
    ///
    /// # Errors
    /// It cannot be opened or is written by another process.
    pub(super) fn open(path: &Path, rotation: Option<Rotation>) -> Result<Self, LogError> {
        let failed = |why: String| LogError::File { path: path.to_owned(), why };
        let file = append(path).map_err(|error| failed(error.to_string()))?;
        file.try_lock().map_err(|error| match error {
            std::fs::TryLockError::WouldBlock => failed("another process writes it: give each its own".to_owned()),
            std::fs::TryLockError::Error(error) => failed(error.to_string()),
        })?;
        let size = file.metadata().map_err(|error| failed(error.to_string()))?.len();
        let mut opened = Self { path: path.to_owned(), file, size, rotation, retry_at: None };
        if !opened.ends_a_line() {
            // What was being written when the process before died stays by itself.
            opened.write_all(b"\n").map_err(|error| failed(error.to_string()))?;
        }
        Ok(opened)
    }

    fn ends_a_line(&self) -> bool {
        self.size == 0 || tail(&self.path, 1).is_ok_and(|tail| tail == b"\n")
    }

    /// The digest of the last line, in this file or the one before it; the beginning of a chain if there is none.
    pub(super) fn head(&self) -> Head {
        let before = numbered(&self.path, 1);
        let path = if self.size == 0 { &before } else { &self.path };
        let tail = tail(path, LONGEST_LINE).unwrap_or_default();
        // A torn line bears no digest; the one before it does.
        let mut lines = tail.split(|byte| *byte == b'\n').rev().filter_map(chain::split);
        lines.next().map(|(_, head)| head).unwrap_or_default()
    }

    /// Puts aside what was written without a chain: lines with and without one in a file could not be told from tampering.
    ///
    /// # Errors
    /// Nowhere to put it.
    pub(super) fn begin_chain(&mut self) -> Result<(), LogError> {
        let tail = tail(&self.path, LONGEST_LINE).unwrap_or_default();
        let last = tail.split(|byte| *byte == b'\n').rev().find(|line| !line.is_empty());
        if last.is_none_or(|line| chain::split(line).is_some()) {
            return Ok(());
        }
        let failed = |why: String| LogError::File { path: self.path.clone(), why };
        let Some(Rotation { keep, .. }) = self.rotation else {
            return Err(failed(
                "its last line has no chain: move the file away, or let it be rotated, to begin one".to_owned(),
            ));
        };
        self.rotate(keep).map_err(|error| LogError::File { path: self.path.clone(), why: error.to_string() })
    }

    /// The new file is there before any old one is touched, and old ones make room only for a file that is really ours: one that
    /// somebody has moved away or deleted is not to cost the others.
    fn rotate(&mut self, keep: u32) -> io::Result<()> {
        let mut temporary = self.path.as_os_str().to_owned();
        temporary.push(".new");
        let temporary = PathBuf::from(temporary);
        let _ = std::fs::remove_file(&temporary);
        let file = append(&temporary)?;
        let _ = file.try_lock();
        if self.is_at_its_path() {
            for number in (1..keep).rev() {
                let _ = std::fs::rename(numbered(&self.path, number), numbered(&self.path, number + 1));
            }
            std::fs::rename(&self.path, numbered(&self.path, 1))?;
        }
        std::fs::rename(&temporary, &self.path)?;
        self.file = file;
        self.size = 0;
        Ok(())
    }

    fn is_at_its_path(&self) -> bool {
        let identity = |metadata: std::fs::Metadata| (metadata.dev(), metadata.ino());
        let there = std::fs::metadata(&self.path).map(identity);
        there.is_ok_and(|there| self.file.metadata().is_ok_and(|own| identity(own) == there))
    }
}

impl Sink for RotatingFile {
    fn prepare(&mut self, bytes: usize) -> io::Result<()> {
        if let Some(Rotation { size, keep }) = self.rotation
            && self.size > 0
            && self.size.saturating_add(bytes as u64) > size
            && self.retry_at.is_none_or(|at| Instant::now() >= at)
        {
            self.retry_at = None;
            if let Err(error) = self.rotate(keep) {
                // Better a large file than none.
                tracing::warn!(file = %self.path.display(), %error, "the decision log cannot be rotated");
                self.retry_at = Some(Instant::now() + RETRY_AFTER);
            }
        }
        Ok(())
    }

    fn take_back(&mut self, bytes: usize) -> bool {
        let size = self.size.saturating_sub(bytes as u64);
        let done = self.file.set_len(size).is_ok();
        if done {
            self.size = size;
        }
        done
    }
}

impl Write for RotatingFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(MODE).open(path)
}

fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

/// The last bytes of a file, at most `limit`.
fn tail(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let size = file.seek(SeekFrom::End(0))?;
    file.seek(SeekFrom::Start(size.saturating_sub(limit)))?;
    let mut bytes = Vec::new();
    file.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}
