//! Where a ring of keys is kept, shared by several issuers: a file of this machine's (`file`) or a Secret of the cluster's
//! (`secret`).
//!
//! Deliberately absent: what is kept (`stored_ring`) and when it changes (`ring`).

use std::path::PathBuf;

pub(crate) mod file;
pub(crate) mod secret;

/// Why keys cannot be used, and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeysError {
    /// They cannot be read or written.
    #[error("the {what} ({place}): {error}")]
    Store {
        /// Which keys.
        what: &'static str,
        /// Where they are.
        place: String,
        /// What the system says.
        error: StoreError,
    },
    /// They hold no keys.
    #[error(
        "the {what} ({place}) are damaged ({why}): restore them, or delete them and restart the issuer for new ones; what was signed with the old ones is then refused"
    )]
    Damaged {
        /// Which keys.
        what: &'static str,
        /// Where they are.
        place: String,
        /// What is wrong.
        why: &'static str,
    },
    /// Rotations came faster than what they leave behind runs out.
    #[error(
        "the {what} ({place}) hold {limit} keys that are still in use: wait until some of what they signed has ended"
    )]
    TooMany {
        /// Which keys.
        what: &'static str,
        /// Where they are.
        place: String,
        /// How many there may be.
        limit: usize,
    },
    /// No key could be made.
    #[error("a key could not be made: {0}")]
    Making(&'static str),
}

/// Why a store does not give or take a text.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The system's answer.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// There is nothing.
    #[error("not there")]
    Missing,
    /// Others may read the file.
    #[error(
        "mode {mode:03o}: others could read them and sign in the issuer's name; chmod 600 {}, or, if someone may have read them, delete the file and restart the issuer for new ones", path.display()
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// Another process does not give the lock back.
    #[error("locked by another process; if it hangs, end it")]
    Locked,
    /// Others write again and again.
    #[error("changed by others at every try to write")]
    Busy,
    /// The cluster's answer.
    #[error(transparent)]
    Cluster(#[from] runtime::kubernetes::SecretError),
}

/// What several writers at once leave behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Written {
    /// It is written.
    Done,
    /// Somebody else wrote since this one last read: read again.
    Conflict,
}

/// A text that several issuers share. All methods may block.
pub(crate) trait Store: Send + Sync {
    /// What it is called in messages.
    fn place(&self) -> String;

    /// The text; `None` where there is none yet.
    fn read(&self) -> Result<Option<String>, StoreError>;

    /// Writes where there is nothing; a conflict if there is something.
    fn create(&self, text: &[u8]) -> Result<Written, StoreError>;

    /// Writes over what was read since the lock was taken.
    fn write(&self, text: &[u8]) -> Result<Written, StoreError>;

    /// Keeps others from writing, where that can be, until it is dropped.
    fn lock(&self) -> Result<Box<dyn std::any::Any>, StoreError>;

    /// Whether this process rotates what is due; some other one does where it is not.
    fn is_in_charge(&self) -> bool;
}
