//! A ring of keys in one file of mode 0600 that several issuers share: made on the first start, followed as it changes,
//! rotated under a lock by whichever issuer finds it due first, or by command.
//!
//! What becomes broken or exposed while we run leaves the last good ring in force, loudly; a start on it is refused.
//! Deliberately absent: when something is due (`ring`), what a key is (`keys`, `authority`), Kubernetes Secrets.

use std::convert::Infallible;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use rustix::fs::{FlockOperation, flock};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::metrics::RingMetrics;
use super::ring::{Dated, Ring, State, Timing};

/// What others may not have: any right to the file.
const OTHERS: u32 = 0o077;
/// The version that is written. Version 1 had the same members and no rotation: its first key signed.
const VERSION: u32 = 2;
/// More keys than are ever of use; verifiers refuse sets beyond some hundred.
const MAX_ENTRIES: usize = 64;
/// How often the file is looked at. Others see a new key that late; they count on less than a second.
const TICK: Duration = Duration::from_millis(500);
/// A rotation takes milliseconds: who holds the lock longer hangs.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);
const LOCK_RETRY: Duration = Duration::from_millis(20);

/// Why keys cannot be used, and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeysError {
    /// The file cannot be read or written.
    #[error("the {what} {path}: {error}")]
    File {
        /// Which keys.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// Others may read the file.
    #[error(
        "the {what} {path} have mode {mode:03o}: others could read them and sign in the issuer's name; chmod 600 {path}, or, if someone may have read them, delete the file and restart the issuer for new ones"
    )]
    Exposed {
        /// Which keys.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// The file holds no keys.
    #[error(
        "the {what} {path} are damaged ({why}): restore the file, or delete it and restart the issuer for new ones; what was signed with the old ones is then refused"
    )]
    Damaged {
        /// Which keys.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: &'static str,
    },
    /// Another process does not give the lock back.
    #[error("the {what} {path} are locked by another process; if it hangs, end it")]
    Locked {
        /// Which keys.
        what: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// Rotations came faster than what they leave behind runs out.
    #[error(
        "the {what} {path} hold {MAX_ENTRIES} keys that are still in use: wait until some of what they signed has ended"
    )]
    TooMany {
        /// Which keys.
        what: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// No key could be made.
    #[error("a key could not be made: {0}")]
    Making(&'static str),
}

/// What a ring file holds.
pub(crate) trait Entry: Dated + Sized + Send + Sync + 'static {
    /// As the file holds it. It has no `Debug`: there is nothing in it that a log may show.
    type Stored: Serialize + DeserializeOwned;
    /// What they are called.
    const WHAT: &'static str;

    /// Reads one, or says what is wrong with it, never repeating what stands there.
    fn read(stored: Self::Stored) -> Result<Self, &'static str>;

    /// What is to be written.
    fn stored(&self) -> &Self::Stored;
}

/// What came of a rotation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rotation {
    /// There is a new key, which signs from this time on.
    Done(i64),
    /// There was one already that does not sign yet: from this time on it does.
    Pending(i64),
    /// Somebody else rotated just before.
    NotDue,
}

/// Makes a new key, dated so.
type Make<E> = dyn Fn(i64) -> Result<<E as Entry>::Stored, KeysError> + Send + Sync;

/// A ring and the file that it follows.
pub(crate) struct RingFile<E: Entry> {
    path: PathBuf,
    timing: Timing,
    make: Box<Make<E>>,
    ring: RwLock<Arc<Ring<E>>>,
    /// The text of the ring in force, and what was last said to be wrong.
    seen: Mutex<(String, Option<String>)>,
}

#[derive(Serialize)]
struct Written<'a, S> {
    version: u32,
    keys: Vec<&'a S>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Read<S> {
    version: u32,
    keys: Vec<S>,
}

impl<E: Entry> RingFile<E> {
    /// Opens the file, or makes it. Of several issuers that start at once on the same file, one makes the key and the
    /// others use it.
    pub(crate) fn open(
        path: &Path,
        timing: Timing,
        make: impl Fn(i64) -> Result<E::Stored, KeysError> + Send + Sync + 'static,
    ) -> Result<Self, KeysError> {
        if !path.try_exists().map_err(|error| failed::<E>(path, error))? {
            let text = write(&[&make(runtime::clock::now())?]).map_err(|error| failed::<E>(path, error))?;
            if runtime::secret::create(path, &text).map_err(|error| failed::<E>(path, error))? {
                tracing::info!(file = %path.display(), "{} were made", E::WHAT);
            }
        }
        let this = Self::existing(path, timing, make)?;
        // What ended while no issuer ran gets a successor before anything is signed with it.
        this.tick(runtime::clock::now());
        Ok(this)
    }

    /// Opens a file that must be there.
    pub(crate) fn existing(
        path: &Path,
        timing: Timing,
        make: impl Fn(i64) -> Result<E::Stored, KeysError> + Send + Sync + 'static,
    ) -> Result<Self, KeysError> {
        let text = text_of::<E>(path)?;
        let ring = RwLock::new(Arc::new(parse(path, &text, timing)?));
        Ok(Self { path: path.to_owned(), timing, make: Box::new(make), ring, seen: Mutex::new((text, None)) })
    }

    /// The ring in force.
    pub(crate) fn ring(&self) -> Arc<Ring<E>> {
        self.ring.read().clone()
    }

    /// Takes over what the file holds now, and rotates if that is due; whether all of that went well. Blocks.
    pub(crate) fn tick(&self, now: i64) -> bool {
        let done = self
            .follow()
            .and_then(|()| if self.ring().is_due(now) { self.rotate(now, true).map(drop) } else { Ok(()) });
        let complaint = done.err().map(|error| error.to_string());
        let mut seen = self.seen.lock();
        // Once, not twice a second for as long as it is so.
        match &complaint {
            Some(error) if seen.1 != complaint => {
                tracing::error!(%error, "the {} cannot be followed or rotated; the last good ones stay in force", E::WHAT);
            }
            None if seen.1.is_some() => tracing::info!(file = %self.path.display(), "the {} are well again", E::WHAT),
            _ => {}
        }
        let well = complaint.is_none();
        seen.1 = complaint;
        well
    }

    /// Adds a key, unless one is on its way already, or (`if_due`) somebody else was quicker. Blocks.
    pub(crate) fn rotate(&self, now: i64, if_due: bool) -> Result<Rotation, KeysError> {
        let _lock = lock::<E>(&self.path)?;
        // Another issuer may have rotated since we looked.
        self.follow()?;
        let ring = self.ring();
        if let Some(activation) = ring.pending(now) {
            return Ok(Rotation::Pending(activation));
        }
        if if_due && !ring.is_due(now) {
            return Ok(Rotation::NotDue);
        }
        let new = self.add(&ring, now)?;
        tracing::info!(file = %self.path.display(), signs_from = new, "the {} were rotated", E::WHAT);
        Ok(Rotation::Done(new))
    }

    /// Writes the ring with one more key, and without those that are of no use any more; says from when on it signs.
    fn add(&self, ring: &Ring<E>, now: i64) -> Result<i64, KeysError> {
        let failed = |error| failed::<E>(&self.path, error);
        let kept: Vec<&E> = ring.worth_keeping(now).collect();
        if kept.len() >= MAX_ENTRIES {
            return Err(KeysError::TooMany { what: E::WHAT, path: self.path.clone() });
        }
        // Rounded up, so that its lead is never a part of a second short.
        let new = (self.make)(now.saturating_add(1))?;
        let mut stored: Vec<&E::Stored> = kept.iter().map(|entry| entry.stored()).collect();
        stored.push(&new);
        let text = write(&stored).map_err(failed)?;
        runtime::secret::write(&self.path, &text).map_err(failed)?;
        self.follow()?;
        let ring = self.ring();
        Ok(ring.pending(now).unwrap_or(now))
    }

    fn follow(&self) -> Result<(), KeysError> {
        let text = text_of::<E>(&self.path)?;
        let mut seen = self.seen.lock();
        if text == seen.0 {
            return Ok(());
        }
        let ring = Arc::new(parse::<E>(&self.path, &text, self.timing)?);
        let now = runtime::clock::now();
        tracing::info!(
            file = %self.path.display(), active = ring.active(now).id(), published = ring.published(now).count(),
            "changed {} are in force", E::WHAT
        );
        *self.ring.write() = ring;
        seen.0 = text;
        Ok(())
    }
}

/// Follows and rotates a ring for ever. On a thread of its own, for disks may be slow.
pub(crate) async fn keep_ring<E: Entry>(file: Arc<RingFile<E>>, metrics: RingMetrics) -> Infallible {
    loop {
        let ring = file.clone();
        let well = tokio::task::spawn_blocking(move || ring.tick(runtime::clock::now())).await;
        metrics.show(&file.ring(), runtime::clock::now(), well.unwrap_or(false));
        tokio::time::sleep(TICK).await;
    }
}

/// How many entries of a ring are in which state.
pub(crate) fn counts<E: Dated>(ring: &Ring<E>, now: i64) -> [(&'static str, i64); 3] {
    [(State::Next, "next"), (State::Active, "active"), (State::Old, "old")].map(|(wanted, label)| {
        let found = ring.states(now).filter(|(_, state)| *state == wanted).count();
        (label, i64::try_from(found).unwrap_or(i64::MAX))
    })
}

fn failed<E: Entry>(path: &Path, error: io::Error) -> KeysError {
    KeysError::File { what: E::WHAT, path: path.to_owned(), error }
}

fn text_of<E: Entry>(path: &Path) -> Result<String, KeysError> {
    let mode = std::fs::metadata(path).map_err(|error| failed::<E>(path, error))?.permissions().mode() & 0o777;
    if mode & OTHERS != 0 {
        return Err(KeysError::Exposed { what: E::WHAT, path: path.to_owned(), mode });
    }
    let text = runtime::secret::read(path).map_err(|error| failed::<E>(path, error))?;
    Ok(text.expose().to_owned())
}

fn parse<E: Entry>(path: &Path, text: &str, timing: Timing) -> Result<Ring<E>, KeysError> {
    entries(text)
        .and_then(|entries| Ring::new(entries, timing).ok_or("no key in it"))
        .map_err(|why| KeysError::Damaged { what: E::WHAT, path: path.to_owned(), why })
}

fn entries<E: Entry>(text: &str) -> Result<Vec<E>, &'static str> {
    let file: Read<E::Stored> = serde_json::from_str(text).map_err(|_| "not the JSON that the issuer writes")?;
    match file.version {
        1 | VERSION => {}
        _ => return Err("written by a newer version"),
    }
    let entries = file.keys.into_iter().map(E::read).collect::<Result<Vec<E>, _>>()?;
    let distinct: std::collections::BTreeSet<&str> = entries.iter().map(Dated::id).collect();
    if distinct.len() == entries.len() { Ok(entries) } else { Err("a key is in it twice") }
}

fn write<S: Serialize>(stored: &[&S]) -> io::Result<Vec<u8>> {
    Ok(serde_json::to_vec_pretty(&Written { version: VERSION, keys: stored.to_vec() })?)
}

/// Held by whoever rotates. It lies beside the keys, since their own file is another one after each rotation.
fn lock<E: Entry>(path: &Path) -> Result<File, KeysError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let open = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(PathBuf::from(name));
    let file = open.map_err(|error| failed::<E>(path, error))?;
    let begun = Instant::now();
    while let Err(error) = flock(&file, FlockOperation::NonBlockingLockExclusive) {
        if error != rustix::io::Errno::WOULDBLOCK {
            return Err(failed::<E>(path, error.into()));
        }
        if begun.elapsed() > LOCK_PATIENCE {
            return Err(KeysError::Locked { what: E::WHAT, path: path.to_owned() });
        }
        std::thread::sleep(LOCK_RETRY);
    }
    Ok(file)
}
