//! Which of several keys signs, which are published and which are gone: a function of their ages and of the time alone,
//! so that all issuers that share the keys agree without a word between them.
//!
//! A key is published from its creation, signs from `lead` later, when everybody has fetched it, until its successor does,
//! and stays published until the last of what it signed has ended. Deliberately absent: files, clocks, and cryptography.

/// An entry dated further ahead was made by a clock that was wrong: no rotation waits for it.
const AHEAD: i64 = 3600;

/// What a ring is made of.
pub(crate) trait Dated {
    /// When it was made, in seconds since the epoch.
    fn created_at(&self) -> i64;

    /// Its name: decides between two that were made in the same second.
    fn id(&self) -> &str;

    /// From when on nobody accepts it any more, whoever publishes it.
    fn good_until(&self) -> i64 {
        i64::MAX
    }
}

/// The times of a ring, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Timing {
    /// The age at which the active entry shall have a successor.
    pub(crate) period: i64,
    /// From an entry's creation to its first use: longer than any cache keeps what is published.
    pub(crate) lead: i64,
    /// How long what was signed may still be shown, wrong clocks included.
    pub(crate) life: i64,
}

impl Timing {
    /// How many seconds others may keep what is published: they ask twice before a new entry signs.
    pub(crate) fn max_age(&self) -> i64 {
        self.lead / 2
    }
}

/// What an entry is for at a given time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// Published, and will sign.
    Next,
    /// Signs.
    Active,
    /// Has signed; what it signed is still in use.
    Old,
    /// Neither signs nor is published.
    Gone,
}

/// One entry or more, in the order of their creation.
#[derive(Debug, Clone)]
pub(crate) struct Ring<E> {
    oldest: E,
    later: Vec<E>,
    timing: Timing,
}

impl<E: Dated> Ring<E> {
    /// `None` without entries: then nothing can sign. Their order does not matter.
    pub(crate) fn new(mut entries: Vec<E>, timing: Timing) -> Option<Self> {
        entries.sort_by(|a, b| (a.created_at(), a.id()).cmp(&(b.created_at(), b.id())));
        let mut entries = entries.into_iter();
        Some(Self { oldest: entries.next()?, later: entries.collect(), timing })
    }

    /// The newest that was published long enough; the oldest where none was, for it has no predecessor to wait for.
    pub(crate) fn active(&self, now: i64) -> &E {
        self.later.iter().rev().find(|entry| self.activation(entry) <= now).unwrap_or(&self.oldest)
    }

    /// All that are not gone, the active one first.
    pub(crate) fn published(&self, now: i64) -> impl Iterator<Item = &E> {
        let with = move |wanted: fn(State) -> bool| {
            self.states(now).filter(move |(_, state)| wanted(*state)).map(|(entry, _)| entry)
        };
        with(|state| state == State::Active).chain(with(|state| matches!(state, State::Next | State::Old)))
    }

    /// Every entry with what it is for, the oldest first.
    pub(crate) fn states(&self, now: i64) -> impl Iterator<Item = (&E, State)> {
        let successors = self.later.iter().map(Some).chain([None]);
        let active = self.active(now).id();
        self.entries().zip(successors).map(move |(entry, successor)| {
            let state = match successor {
                _ if entry.id() == active => State::Active,
                Some(successor) if self.end_of_life(successor) < now => State::Gone,
                Some(successor) if self.activation(successor) <= now => State::Old,
                _ => State::Next,
            };
            (entry, state)
        })
    }

    /// When the newest begins to sign, if it does not yet.
    pub(crate) fn pending(&self, now: i64) -> Option<i64> {
        let newest = self.later.iter().rev().find(|entry| entry.created_at() <= now.saturating_add(AHEAD))?;
        Some(self.activation(newest)).filter(|activation| *activation > now)
    }

    /// Whether the active entry is old enough for a successor, and there is none yet. One that others will soon not accept
    /// any more is old enough, whatever its age.
    pub(crate) fn is_due(&self, now: i64) -> bool {
        let active = self.active(now);
        let old = now.saturating_sub(active.created_at()) >= self.timing.period;
        let needed_until = now.saturating_add(self.timing.lead).saturating_add(self.timing.life);
        self.pending(now).is_none() && (old || active.good_until() < needed_until)
    }

    /// What is worth keeping: whatever is published and not past its own end.
    pub(crate) fn worth_keeping(&self, now: i64) -> impl Iterator<Item = &E> {
        let published = self.states(now).filter(|(_, state)| *state != State::Gone);
        published.map(|(entry, _)| entry).filter(move |entry| entry.good_until() > now)
    }

    /// When an entry begins to sign.
    pub(crate) fn activation(&self, entry: &E) -> i64 {
        entry.created_at().saturating_add(self.timing.lead)
    }

    /// Its times.
    pub(crate) fn timing(&self) -> Timing {
        self.timing
    }

    /// When the last of what its predecessor signed has ended.
    fn end_of_life(&self, successor: &E) -> i64 {
        self.activation(successor).saturating_add(self.timing.life)
    }

    fn entries(&self) -> impl Iterator<Item = &E> {
        std::iter::once(&self.oldest).chain(&self.later)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone, PartialEq)]
    struct Made(i64, String);

    impl Dated for Made {
        fn created_at(&self) -> i64 {
            self.0
        }

        fn id(&self) -> &str {
            &self.1
        }
    }

    const TIMING: Timing = Timing { period: 1000, lead: 100, life: 600 };

    fn ring(created: &[i64], timing: Timing) -> Ring<Made> {
        let entries = created.iter().enumerate().map(|(index, at)| Made(*at, format!("{index:03}"))).collect();
        Ring::new(entries, timing).unwrap()
    }

    fn published(ring: &Ring<Made>, now: i64) -> BTreeSet<String> {
        ring.published(now).map(|entry| entry.1.clone()).collect()
    }

    #[test]
    fn a_first_entry_signs_at_once_and_a_second_after_the_lead() {
        let ring = ring(&[0, 2000], TIMING);
        for (now, active, shown) in [(0, 0, 2), (2099, 0, 2), (2100, 2000, 2), (2700, 2000, 2), (2701, 2000, 1)] {
            assert_eq!((ring.active(now).0, ring.published(now).count()), (active, shown), "at {now}");
        }
        assert_eq!((ring.pending(2099), ring.pending(2100)), (Some(2100), None));
        assert_eq!(ring.published(2100).next().unwrap().0, 2000, "the active one comes first");
    }

    #[test]
    fn a_rotation_is_due_by_age_but_never_twice() {
        let due = |created: &[i64], now| ring(created, TIMING).is_due(now);
        assert!(!due(&[0], 999) && due(&[0], 1000));
        assert!(!due(&[0, 1000], 1000) && !due(&[0, 1000], 1999) && due(&[0, 1000], 2000));
        assert!(due(&[0, 1_000_000], 1000), "one that a wrong clock dated far ahead is not waited for");
    }

    #[test]
    fn nothing_overflows() {
        for created in [i64::MIN, -1, 0, i64::MAX] {
            for now in [i64::MIN, 0, i64::MAX] {
                let ring = ring(&[created, 0, i64::MAX], TIMING);
                assert!(ring.published(now).any(|entry| entry.1 == ring.active(now).1));
                let _ = (ring.is_due(now), ring.pending(now), ring.worth_keeping(now).count());
            }
        }
    }

    fn timing() -> impl Strategy<Value = Timing> {
        (1i64..3000, 1i64..400, 1i64..4000).prop_map(|(period, lead, life)| Timing { period, lead, life })
    }

    proptest! {
        /// Whatever the times in the file: what is signed now was published for as long as its entry exists, and stays so for
        /// as long as anybody may show it; what was superseded long ago is not shown; the order in the file means nothing.
        #[test]
        fn what_signs_is_published_before_and_after(
            created in proptest::collection::vec(-500i64..10_000, 1..8), now in -1000i64..20_000, timing in timing(),
            before in 0i64..5000, after in 0.0f64..=1.0,
        ) {
            let whole = ring(&created, timing);
            let active = whole.active(now).clone();
            let later = now + (timing.life as f64 * after) as i64;
            prop_assert!(published(&whole, now - before).contains(&active.1));
            prop_assert!(published(&whole, later).contains(&active.1));
            prop_assert_eq!(whole.states(now).filter(|(_, state)| *state == State::Active).count(), 1);
            let mut shuffled: Vec<Made> = whole.entries().cloned().collect();
            shuffled.reverse();
            let other = Ring::new(shuffled, timing).unwrap();
            prop_assert_eq!(other.active(now), &active);
            prop_assert_eq!(published(&other, now), published(&whole, now));
            let end = created.iter().max().unwrap() + timing.lead + timing.life + 1;
            prop_assert_eq!(published(&whole, end).len(), 1);
        }

        /// A life of rotations with files that forget what is gone: every token verifies with every key set that a verifier
        /// may hold at any time of the token's life, though it was fetched from a replica that was late to follow.
        #[test]
        fn rotation_never_invalidates_a_token(
            steps in proptest::collection::vec((1i64..300, any::<bool>()), 1..80), mut timing in timing(),
        ) {
            timing.lead = timing.lead.max(4);
            let mut history = vec![(0, ring(&[0], timing))];
            let (mut now, mut made) = (0, 1);
            for (wait, asked) in steps {
                now += wait;
                let current = &history.last().unwrap().1;
                if current.pending(now).is_none() && (asked || current.is_due(now)) {
                    let mut entries: Vec<Made> = current.worth_keeping(now).cloned().collect();
                    entries.push(Made(now, format!("{made:03}")));
                    made += 1;
                    history.push((now, Ring::new(entries, timing).unwrap()));
                }
            }
            let at = |time: i64| &history.iter().rev().find(|(since, _)| *since <= time).unwrap_or(&history[0]).1;
            for signed in (0..=now).step_by(17) {
                let by = &at(signed).active(signed).1;
                // Half a second is the slowest replica's delay, rounded up to one.
                let oldest_cache = signed - timing.max_age() - 1;
                for fetched in [oldest_cache, signed, signed + timing.life / 2, signed + timing.life] {
                    prop_assert!(published(at(fetched), fetched).contains(by), "signed {signed}, fetched {fetched}");
                }
                prop_assert!(at(signed).published(signed).count() as i64 <= timing.life / timing.lead + 3);
            }
        }
    }
}
