//! A ring of keys in a store that several issuers share: made on the first start, followed as it changes, rotated by whichever
//! issuer finds it due first and is in charge, or by command.
//!
//! What becomes broken or exposed while we run leaves the last good ring in force, loudly; a start on it is refused.
//! Deliberately absent: when something is due (`ring`), what a key is (`keys`, `authority`), where all that is (`store`).

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::metrics::RingMetrics;
use super::ring::{Dated, Ring, State, Timing};
use super::store::{KeysError, Store, StoreError, Written};

/// The version that is written. Version 1 had the same members and no rotation: its first key signed.
const VERSION: u32 = 2;
/// More keys than are ever of use; verifiers refuse sets beyond some hundred.
const MAX_ENTRIES: usize = 64;
/// How often the store is looked at. Others see a new key that late; they count on less than a second.
const TICK: Duration = Duration::from_millis(500);
/// Where there is no lock, others may write first; each of them writes once.
const TRIES: usize = 8;

/// What a ring is made of, as it is stored.
pub(crate) trait Entry: Dated + Sized + Send + Sync + 'static {
    /// As the store holds it. It has no `Debug`: there is nothing in it that a log may show.
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

/// A ring and the store that it follows.
pub(crate) struct StoredRing<E: Entry> {
    store: Box<dyn Store>,
    timing: Timing,
    make: Box<Make<E>>,
    ring: RwLock<Arc<Ring<E>>>,
    /// The text of the ring in force, and what was last said to be wrong.
    seen: Mutex<(String, Option<String>)>,
}

#[derive(Serialize)]
struct Document<'a, S> {
    version: u32,
    keys: Vec<&'a S>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Read<S> {
    version: u32,
    keys: Vec<S>,
}

impl<E: Entry> StoredRing<E> {
    /// Opens the store, or fills it. Of several issuers that start at once on the same one, one makes the key and the
    /// others use it. Blocks.
    pub(crate) fn open(
        store: Box<dyn Store>,
        timing: Timing,
        make: impl Fn(i64) -> Result<E::Stored, KeysError> + Send + Sync + 'static,
    ) -> Result<Self, KeysError> {
        fill::<E>(store.as_ref(), &make)?;
        let this = Self::existing(store, timing, make)?;
        // What ended while no issuer ran gets a successor before anything is signed with it.
        this.tick(runtime::clock::now());
        Ok(this)
    }

    /// Opens a store that must be filled. Blocks.
    pub(crate) fn existing(
        store: Box<dyn Store>,
        timing: Timing,
        make: impl Fn(i64) -> Result<E::Stored, KeysError> + Send + Sync + 'static,
    ) -> Result<Self, KeysError> {
        let text = text_of::<E>(store.as_ref())?;
        let ring = RwLock::new(Arc::new(parse(store.as_ref(), &text, timing)?));
        Ok(Self { store, timing, make: Box::new(make), ring, seen: Mutex::new((text, None)) })
    }

    /// The ring in force.
    pub(crate) fn ring(&self) -> Arc<Ring<E>> {
        self.ring.read().clone()
    }

    /// Takes over what the store holds now, and rotates if that is due; whether all of that went well. Blocks.
    pub(crate) fn tick(&self, now: i64) -> bool {
        let done = self.follow().and_then(|()| {
            let rotates = self.ring().is_due(now) && self.store.is_in_charge();
            if rotates { self.rotate(now, true).map(drop) } else { Ok(()) }
        });
        let complaint = done.err().map(|error| error.to_string());
        let mut seen = self.seen.lock();
        // Once, not twice a second for as long as it is so.
        match &complaint {
            Some(error) if seen.1 != complaint => {
                tracing::error!(%error, "the {} cannot be followed or rotated; the last good ones stay in force", E::WHAT);
            }
            None if seen.1.is_some() => tracing::info!(place = self.store.place(), "the {} are well again", E::WHAT),
            _ => {}
        }
        let well = complaint.is_none();
        seen.1 = complaint;
        well
    }

    /// Adds a key, unless one is on its way already, or (`if_due`) somebody else was quicker. Blocks.
    pub(crate) fn rotate(&self, now: i64, if_due: bool) -> Result<Rotation, KeysError> {
        let _lock = self.store.lock().map_err(|error| self.failed(error))?;
        for _ in 0..TRIES {
            // Another issuer may have rotated since we looked.
            self.follow()?;
            let ring = self.ring();
            if let Some(activation) = ring.pending(now) {
                return Ok(Rotation::Pending(activation));
            }
            if if_due && !ring.is_due(now) {
                return Ok(Rotation::NotDue);
            }
            if let Some(new) = self.add(&ring, now)? {
                tracing::info!(place = self.store.place(), signs_from = new, "the {} were rotated", E::WHAT);
                return Ok(Rotation::Done(new));
            }
        }
        Err(self.failed(StoreError::Busy))
    }

    /// Writes the ring with one more key, and without those that are of no use any more; says from when on it signs. `None` if
    /// somebody else wrote first.
    fn add(&self, ring: &Ring<E>, now: i64) -> Result<Option<i64>, KeysError> {
        let kept: Vec<&E> = ring.worth_keeping(now).collect();
        if kept.len() >= MAX_ENTRIES {
            return Err(KeysError::TooMany { what: E::WHAT, place: self.store.place(), limit: MAX_ENTRIES });
        }
        // Rounded up, so that its lead is never a part of a second short.
        let new = (self.make)(now.saturating_add(1))?;
        let mut stored: Vec<&E::Stored> = kept.iter().map(|entry| entry.stored()).collect();
        stored.push(&new);
        let text = write(&stored).map_err(|error| self.failed(error.into()))?;
        if self.store.write(&text).map_err(|error| self.failed(error))? == Written::Conflict {
            return Ok(None);
        }
        self.follow()?;
        Ok(Some(self.ring().pending(now).unwrap_or(now)))
    }

    fn follow(&self) -> Result<(), KeysError> {
        let text = text_of::<E>(self.store.as_ref())?;
        let mut seen = self.seen.lock();
        if text == seen.0 {
            return Ok(());
        }
        let ring = Arc::new(parse::<E>(self.store.as_ref(), &text, self.timing)?);
        let now = runtime::clock::now();
        tracing::info!(
            place = self.store.place(),
            active = ring.active(now).id(),
            published = ring.published(now).count(),
            "changed {} are in force",
            E::WHAT
        );
        *self.ring.write() = ring;
        seen.0 = text;
        Ok(())
    }

    fn failed(&self, error: StoreError) -> KeysError {
        failed::<E>(self.store.as_ref(), error)
    }
}

/// Makes the first key where there is none.
fn fill<E: Entry>(store: &dyn Store, make: &Make<E>) -> Result<(), KeysError> {
    for _ in 0..TRIES {
        if store.read().map_err(|error| failed::<E>(store, error))?.is_some() {
            return Ok(());
        }
        let text = write(&[&make(runtime::clock::now())?]).map_err(|error| failed::<E>(store, error.into()))?;
        if store.create(&text).map_err(|error| failed::<E>(store, error))? == Written::Done {
            tracing::info!(place = store.place(), "{} were made", E::WHAT);
        }
    }
    Err(failed::<E>(store, StoreError::Busy))
}

/// Follows and rotates a ring for ever. On a thread of its own, for disks and networks may be slow.
pub(crate) async fn keep_ring<E: Entry>(stored: Arc<StoredRing<E>>, metrics: RingMetrics) -> Infallible {
    loop {
        let ring = stored.clone();
        let well = tokio::task::spawn_blocking(move || ring.tick(runtime::clock::now())).await;
        metrics.show(&stored.ring(), runtime::clock::now(), well.unwrap_or(false));
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

fn failed<E: Entry>(store: &dyn Store, error: StoreError) -> KeysError {
    KeysError::Store { what: E::WHAT, place: store.place(), error }
}

fn text_of<E: Entry>(store: &dyn Store) -> Result<String, KeysError> {
    let text = store.read().and_then(|text| text.ok_or(StoreError::Missing));
    text.map_err(|error| failed::<E>(store, error))
}

fn parse<E: Entry>(store: &dyn Store, text: &str, timing: Timing) -> Result<Ring<E>, KeysError> {
    entries(text)
        .and_then(|entries| Ring::new(entries, timing).ok_or("no key in it"))
        .map_err(|why| KeysError::Damaged { what: E::WHAT, place: store.place(), why })
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
    Ok(serde_json::to_vec_pretty(&Document { version: VERSION, keys: stored.to_vec() })?)
}
