//! What SQL texts need, remembered by exact text: a repeated text costs a lookup.
//!
//! Only the exact text is a key. Anything looser (a fingerprint, a text without its literals) is shared by texts that
//! need different rights.

use std::sync::{Arc, OnceLock};

use policy::record::Touched;
use policy::{Facts, NotUnderstood};
use quick_cache::sync::Cache;
use quick_cache::{Equivalent, Weighter};
use serde_json::value::RawValue;

/// Bytes of texts and facts that are remembered.
const CACHE_BYTES: u64 = 16 << 20;

/// A text longer than this is not remembered: it is likely to be bulk data, and would push out many others.
const REMEMBERED_LIMIT: usize = 64 << 10;

/// A text longer than this is analysed on another thread: its parse would hold up other connections' bytes.
pub(crate) const INLINE_LIMIT: usize = 32 << 10;

/// The longest SQL text that is looked at, in bytes; a longer one is denied. Bulk data goes by `COPY` or parameters.
pub(crate) const TEXT_LIMIT: usize = 4 << 20;

/// An analysed text.
#[derive(Debug)]
pub(crate) struct Analysis {
    /// What it needs, or why that cannot be told.
    pub(crate) facts: Result<Facts, NotUnderstood>,
    /// The first half of the text's SHA-256, hexadecimal: names a text in the decision log without showing it.
    pub(crate) fingerprint: String,
    /// What it needs in the words of the decision log, once somebody asked.
    words: OnceLock<Option<Box<RawValue>>>,
}

impl Analysis {
    pub(crate) fn of(text: &[u8]) -> Analysis {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text);
        let fingerprint = digest.as_ref().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        Analysis { facts: policy::sql::analyze(text), fingerprint, words: OnceLock::new() }
    }

    /// What it needs in the words of the decision log, for whoever may have all of it.
    pub(crate) fn in_words(&self) -> Option<&RawValue> {
        let put = || {
            let needs = self.facts.as_ref().ok()?.needs();
            let touched: Vec<_> = needs.iter().map(|fact| Touched::of_fact(fact, None)).collect();
            serde_json::value::to_raw_value(&touched).ok()
        };
        self.words.get_or_init(put).as_deref()
    }
}

/// All analyses of this process.
#[derive(Clone)]
pub(crate) struct Analyses {
    cache: Arc<Cache<Key, Arc<Analysis>, Weight>>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Key(Box<[u8]>);

/// A borrowed [`Key`], so that a lookup allocates nothing.
#[derive(Hash)]
struct Lookup<'a>(&'a [u8]);

impl Equivalent<Key> for Lookup<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        *self.0 == *key.0
    }
}

#[derive(Clone)]
struct Weight;

impl Weighter<Key, Arc<Analysis>> for Weight {
    fn weight(&self, key: &Key, analysis: &Arc<Analysis>) -> u64 {
        // Twice, for the words that may be made of them.
        let facts = 2 * analysis.facts.as_ref().map_or(0, Facts::size_hint);
        (key.0.len() + facts + size_of::<Analysis>()) as u64
    }
}

impl Default for Analyses {
    fn default() -> Self {
        let items = 4096;
        Analyses { cache: Arc::new(Cache::with_weighter(items, CACHE_BYTES, Weight)) }
    }
}

impl Analyses {
    /// The analysis of `text`, at once; `None` where it is to be made by [`Analyses::make`] first.
    pub(crate) fn get(&self, text: &[u8]) -> Option<Arc<Analysis>> {
        if let Some(known) = self.cache.get(&Lookup(text)) {
            return Some(known);
        }
        if text.len() > INLINE_LIMIT {
            return None;
        }
        let made = Arc::new(Analysis::of(text));
        self.cache.insert(Key(text.into()), made.clone());
        Some(made)
    }

    /// Analyses a text on a thread where nobody waits, unless it is known. Cancel safe: the work is finished and dropped.
    pub(crate) async fn make(&self, text: Vec<u8>) -> Option<Arc<Analysis>> {
        if let Some(known) = self.cache.get(&Lookup(&text)) {
            return Some(known);
        }
        let cache = self.cache.clone();
        let work = tokio::task::spawn_blocking(move || {
            let made = Arc::new(Analysis::of(&text));
            if text.len() <= REMEMBERED_LIMIT {
                cache.insert(Key(text.into()), made.clone());
            }
            made
        });
        work.await.ok()
    }
}
