//! Files of the state directory: made private, replaced atomically. No file here is ever seen half written.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::Context;

/// For secrets: keys and tokens.
pub const PRIVATE: u32 = 0o600;
/// For what anybody may read: certificates, documents, addresses.
pub const PUBLIC: u32 = 0o644;

/// Write a temporary file beside `path` and rename it over: a reader sees the old content or the new, nothing between.
pub fn replace(path: &Path, content: &[u8], mode: u32) -> anyhow::Result<()> {
    let name = path.file_name().context("a path without a file name")?.to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}.{}", std::process::id()));
    let write = || {
        // A leftover of a crashed process with the same id would keep its old mode.
        let _ = fs::remove_file(&temporary);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

/// Write `content` unless the file is there: what a person edited stays.
pub fn write_if_missing(path: &Path, content: &str) -> anyhow::Result<()> {
    if path.exists() { Ok(()) } else { replace(path, content.as_bytes(), PUBLIC) }
}

/// No such file any more, whether or not there was one.
pub fn remove(path: &Path) -> anyhow::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// A directory and its parents, all with this mode if made now.
pub fn directory(path: &Path, mode: u32) -> anyhow::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
        .with_context(|| format!("cannot make the directory {}", path.display()))
}

/// Where scripts/setup puts programs that it fetches for this user alone.
pub fn cache() -> Option<PathBuf> {
    let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or(home);
    cache.map(|cache| cache.join("sidegate"))
}
