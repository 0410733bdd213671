//! Settings from a mounted ConfigMap: a directory with one file a key, swapped as a whole by the kubelet.
//!
//! Absent on purpose: what the values mean.

use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::RecursiveMode;

use super::{Followed, NOT_BEFORE, Place, SIGN, VERIFY, Value};
use crate::{follow as directories, secret};

/// A value is a word or a time; more is a mistake, and not worth reading.
pub(super) const MAX_VALUE: u64 = 4096;
/// A file found empty may be between truncation and writing, so it is looked at again before it counts: a setting must
/// not flicker because somebody wrote its own value once more. All looks together stay well below 250 ms.
const LOOKS: usize = 8;
const BETWEEN_LOOKS: Duration = Duration::from_millis(10);

/// Listens to the directory, until nobody wants to know any more.
pub(super) fn follow(directory: PathBuf, followed: Arc<Followed>) -> io::Result<()> {
    let root = directory.clone();
    let look = move || {
        followed.heard(values(&root), &Place::Directory(&root));
        if followed.is_closed() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    directories::follow("settings", directory, RecursiveMode::NonRecursive, look)
}

pub(super) fn values(directory: &Path) -> [Value; 3] {
    let look = || [SIGN, VERIFY, NOT_BEFORE].map(|key| read_value(&directory.join(key)));
    let empty = |value: &Value| matches!(value, Value::Text(text) if text.is_empty());
    let mut values = look();
    for _ in 1..LOOKS {
        if !values.iter().any(empty) {
            break;
        }
        std::thread::sleep(BETWEEN_LOOKS);
        values = look();
    }
    values
}

fn read_value(path: &Path) -> Value {
    match secret::read_text(path, MAX_VALUE) {
        Ok(text) => Value::Text(text.trim().to_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Value::Missing,
        // A key's path below a file instead of a directory.
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => Value::Missing,
        Err(error) => Value::Unreadable(error.to_string()),
    }
}
