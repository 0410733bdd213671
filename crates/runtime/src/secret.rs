//! Secrets in memory and on disk: a text that no log can show, and files that appear whole and with mode 0600.
//!
//! Absent on purpose: encryption at rest, and wiping of memory (the allocator and TLS buffers hold copies anyway;
//! what counts is that nothing is ever printed).

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// The largest secret file that is read. Tokens and key sets are some kilobytes; the cap keeps a wrong path (a disk,
/// a log) from filling memory.
pub const MAX_SECRET_FILE: u64 = 1024 * 1024;

/// A secret text. `Debug` does not show it and there is no `Display`: whoever needs it says [`Secret::expose`].
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes a text as a secret.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Reads a secret file; white space around it (the newline an editor adds) is dropped. The error names the file.
pub fn read(path: &Path) -> io::Result<Secret> {
    let text = read_text(path, MAX_SECRET_FILE)?;
    Ok(Secret(text.trim().to_owned()))
}

/// Writes a file of mode 0600 so that readers see the old content or the new one, never a part, and so that it
/// survives a crash: temporary file, fsync, rename, fsync of the directory.
pub fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    replace(path, content, 0o600)
}

/// Like [`write`], but for everybody to read: what belongs to a secret and is none, such as its certificate.
pub fn write_public(path: &Path, content: &[u8]) -> io::Result<()> {
    replace(path, content, 0o644)
}

fn replace(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let temporary = Temporary::write(path, content, mode)?;
    std::fs::rename(&temporary.0, path).map_err(|e| named(path, "cannot be replaced", &e))?;
    sync_directory(path)
}

/// Like [`write`], but only if there is no such file: of several processes that try at once exactly one gets `true`,
/// and the others then read what it wrote.
pub fn create(path: &Path, content: &[u8]) -> io::Result<bool> {
    let temporary = Temporary::write(path, content, 0o600)?;
    match std::fs::hard_link(&temporary.0, path) {
        Ok(()) => sync_directory(path).map(|()| true),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(e) => Err(named(path, "cannot be created", &e)),
    }
}

/// Warns when others than the owner and its group may read a file that holds a key.
pub fn warn_if_exposed(path: &Path) {
    let Ok(metadata) = std::fs::metadata(path) else { return };
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o007 != 0 {
        tracing::warn!(file = %path.display(), mode = format!("{mode:o}"), "everyone on this machine may read this private key; chmod 600 it");
    }
}

/// Reads a text file of bounded size; every error names the file and says what is wrong.
pub fn read_text(path: &Path, limit: u64) -> io::Result<String> {
    let bytes = read_bytes(path, limit)?;
    String::from_utf8(bytes)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, format!("{} is not a text in UTF-8", path.display())))
}

/// Reads a file of bounded size.
pub(crate) fn read_bytes(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let file = File::open(path).map_err(|e| named(path, "cannot be opened", &e))?;
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes).map_err(|e| named(path, "cannot be read", &e))?;
    if bytes.len() as u64 > limit {
        let text = format!("{} is larger than {limit} bytes: is it the right file?", path.display());
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    Ok(bytes)
}

/// A temporary file beside the target; removed on drop if it is still there.
struct Temporary(PathBuf);

impl Temporary {
    fn write(target: &Path, content: &[u8], mode: u32) -> io::Result<Self> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let unique = format!(".tmp-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let mut name = std::ffi::OsString::from(".");
        name.push(target.file_name().unwrap_or_default());
        name.push(unique);
        let path = target.with_file_name(name);
        let open = OpenOptions::new().write(true).create_new(true).mode(mode).open(&path);
        let mut file = open.map_err(|e| named(&path, "cannot be created", &e))?;
        let this = Self(path);
        let written = file.write_all(content).and_then(|()| file.sync_all());
        written.map_err(|e| named(target, "cannot be written", &e))?;
        Ok(this)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // After a rename there is nothing left to remove, and that is no error.
        let _ = std::fs::remove_file(&self.0);
    }
}

fn sync_directory(path: &Path) -> io::Result<()> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    File::open(directory).and_then(|d| d.sync_all()).map_err(|e| named(directory, "cannot be synced", &e))
}

fn named(path: &Path, what: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{} {what}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_nothing() {
        assert!(!format!("{:?}", Secret::new("hunter2")).contains("hunter2"));
    }

    #[test]
    fn writes_whole_files_with_mode_0600_and_leaves_nothing_beside() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        write(&path, b"one\n").unwrap();
        write(&path, b"two\n").unwrap();
        assert_eq!(read(&path).unwrap().expose(), "two");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn only_one_creator_wins() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let wins: Vec<bool> = std::thread::scope(|s| {
            let threads: Vec<_> = (0..8)
                .map(|i| {
                    let p = &path;
                    s.spawn(move || create(p, format!("{i}").as_bytes()).unwrap())
                })
                .collect();
            threads.into_iter().map(|t| t.join().unwrap()).collect()
        });
        assert_eq!(wins.iter().filter(|w| **w).count(), 1);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn errors_name_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("absent");
        assert!(read(&path).unwrap_err().to_string().contains("absent"));
        let large = dir.path().join("large");
        std::fs::write(&large, vec![b'x'; MAX_SECRET_FILE as usize + 1]).unwrap();
        assert!(read(&large).unwrap_err().to_string().contains("larger than"));
    }
}
