//! A file of mode 0600, written whole, and a lock beside it.
//!
//! Deliberately absent: network file systems without locks.

use std::any::Any;
use std::fs::OpenOptions;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};

use super::{Store, StoreError, Written};

/// What others may not have: any right to the file.
const OTHERS: u32 = 0o077;
/// A rotation takes milliseconds: who holds the lock longer hangs.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);
const LOCK_RETRY: Duration = Duration::from_millis(20);

/// A file that issuers of one machine share.
pub(crate) struct FileStore(PathBuf);

impl FileStore {
    pub(crate) fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }
}

impl Store for FileStore {
    fn place(&self) -> String {
        self.0.display().to_string()
    }

    fn read(&self) -> Result<Option<String>, StoreError> {
        let metadata = match std::fs::metadata(&self.0) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            metadata => metadata?,
        };
        let mode = metadata.permissions().mode() & 0o777;
        if mode & OTHERS != 0 {
            return Err(StoreError::Exposed { path: self.0.clone(), mode });
        }
        Ok(Some(runtime::secret::read(&self.0)?.expose().to_owned()))
    }

    fn create(&self, text: &[u8]) -> Result<Written, StoreError> {
        let made = runtime::secret::create(&self.0, text)?;
        Ok(if made { Written::Done } else { Written::Conflict })
    }

    fn write(&self, text: &[u8]) -> Result<Written, StoreError> {
        runtime::secret::write(&self.0, text)?;
        Ok(Written::Done)
    }

    /// Held by whoever rotates. It lies beside the keys, since their own file is another one after each rotation.
    fn lock(&self) -> Result<Box<dyn Any>, StoreError> {
        let mut name = self.0.as_os_str().to_owned();
        name.push(".lock");
        let open = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(PathBuf::from(name));
        let file = open?;
        let begun = Instant::now();
        while let Err(error) = flock(&file, FlockOperation::NonBlockingLockExclusive) {
            if error != rustix::io::Errno::WOULDBLOCK {
                return Err(StoreError::Io(error.into()));
            }
            if begun.elapsed() > LOCK_PATIENCE {
                return Err(StoreError::Locked);
            }
            std::thread::sleep(LOCK_RETRY);
        }
        Ok(Box::new(file))
    }

    fn is_in_charge(&self) -> bool {
        true
    }
}
