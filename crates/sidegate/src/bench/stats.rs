//! Statistics: percentiles of a run, medians over repetitions, confidence intervals by bootstrap.
//!
//! Deliberately absent: averages over repetitions, and intervals that suppose a normal distribution. Times of requests have
//! a long tail, and one disturbed run must not move the result.

use std::time::Duration;

/// How often repetitions are drawn anew for an interval.
const RESAMPLES: usize = 10_000;
/// With fewer values their whole range covers the true median less than 95 times of 100 (1 - 2 * 0.5^n), so no interval from
/// them can.
const INTERVAL_LEAST: usize = 6;
/// Any: the same figures are to give the same interval.
const SEED: u64 = 0x5349_4445_4741_5445;

/// How long requests took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// How many.
    pub count: u32,
    /// Their average.
    pub mean: Duration,
    /// Half of them took at most this.
    pub p50: Duration,
    /// 90 of 100 took at most this.
    pub p90: Duration,
    /// 99 of 100 took at most this.
    pub p99: Duration,
    /// The longest.
    pub max: Duration,
}

impl Times {
    /// Of these; `None` if there are none.
    pub fn of(mut all: Vec<Duration>) -> Option<Self> {
        all.sort_unstable();
        let max = *all.last()?;
        let count = u32::try_from(all.len()).ok()?;
        let percentile = |hundredths| percentile(&all, hundredths).unwrap_or(max);
        let mean = all.iter().sum::<Duration>() / count;
        Some(Self { count, mean, p50: percentile(50), p90: percentile(90), p99: percentile(99), max })
    }
}

/// By nearest rank: the least value that so many hundredths of all do not exceed.
fn percentile(sorted: &[Duration], hundredths: usize) -> Option<Duration> {
    let rank = (sorted.len() * hundredths).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied()
}

/// A value and the interval that covers the true one 95 times of 100.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// The median.
    pub median: f64,
    /// From and to; `None`: too few values to tell.
    pub interval: Option<(f64, f64)>,
    /// From how many values.
    pub count: usize,
}

impl Estimate {
    /// The median of these, with a percentile bootstrap's interval: as many values are drawn, with replacement, 10,000 times;
    /// 95 of 100 medians of those lie within. `None` without values.
    pub fn of(values: &[f64]) -> Option<Self> {
        let median = median(&mut values.to_vec())?;
        Some(Self { median, interval: interval(values), count: values.len() })
    }

    /// The same of `these` to `those`, repetition by repetition: what disturbed both alike cancels out. Repetitions that only
    /// one of them has do not count.
    pub fn of_ratios(these: &[(u32, f64)], those: &[(u32, f64)]) -> Option<Self> {
        let partner = |repetition| those.iter().find(|(other, _)| *other == repetition).map(|(_, value)| *value);
        let ratios = these.iter().filter_map(|(repetition, value)| Some(value / partner(*repetition)?));
        Self::of(&ratios.filter(|ratio| ratio.is_finite()).collect::<Vec<_>>())
    }
}

fn median(values: &mut [f64]) -> Option<f64> {
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.len() / 2;
    let upper = *values.get(middle)?;
    match values.len() % 2 {
        0 => Some(f64::midpoint(*values.get(middle.checked_sub(1)?)?, upper)),
        _ => Some(upper),
    }
}

fn interval(values: &[f64]) -> Option<(f64, f64)> {
    if values.len() < INTERVAL_LEAST {
        return None;
    }
    let mut random = fastrand::Rng::with_seed(SEED);
    let mut draw = Vec::with_capacity(values.len());
    let mut medians: Vec<f64> = (0..RESAMPLES)
        .filter_map(|_| {
            draw.clear();
            draw.extend((0..values.len()).filter_map(|_| values.get(random.usize(0..values.len()))));
            median(&mut draw)
        })
        .collect();
    medians.sort_unstable_by(f64::total_cmp);
    let beyond = RESAMPLES / 40;
    Some((*medians.get(beyond)?, *medians.get(medians.len().checked_sub(beyond + 1)?)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn milliseconds(numbers: impl IntoIterator<Item = u64>) -> Vec<Duration> {
        numbers.into_iter().map(Duration::from_millis).collect()
    }

    #[test]
    fn percentiles_are_values_that_occurred() {
        let times = Times::of(milliseconds((1..=100).rev())).unwrap();
        let all = (times.p50, times.p90, times.p99, times.max);
        let [p50, p90, p99, max] = [50, 90, 99, 100].map(Duration::from_millis);
        assert_eq!(all, (p50, p90, p99, max));
        assert_eq!((times.count, times.mean), (100, Duration::from_micros(50_500)));
        let one = Times::of(milliseconds([7])).unwrap();
        assert_eq!((one.p50, one.p99, one.mean), (one.max, one.max, one.max));
        assert_eq!(Times::of(Vec::new()), None);
    }

    #[test]
    fn one_disturbed_repetition_moves_neither_median_nor_ratio() {
        let quiet: Vec<(u32, f64)> = (1..=9).map(|n| (n, 2.0)).collect();
        let mut disturbed: Vec<(u32, f64)> = (1..=9).map(|n| (n, 3.0)).collect();
        disturbed[4].1 = 900.0;
        let ratio = Estimate::of_ratios(&disturbed, &quiet).unwrap();
        assert_eq!((ratio.median, ratio.interval, ratio.count), (1.5, Some((1.5, 1.5)), 9));
    }

    #[test]
    fn drift_that_hits_both_cancels_out() {
        let slower: Vec<(u32, f64)> = (1..=8).map(|n| (n, f64::from(n) * 1.1)).collect();
        let other: Vec<(u32, f64)> = (1..=8).map(|n| (n, f64::from(n))).collect();
        let ratio = Estimate::of_ratios(&slower, &other).unwrap();
        let (low, high) = ratio.interval.unwrap();
        assert!(
            (ratio.median - 1.1).abs() < 1e-9 && (low - 1.1).abs() < 1e-9 && (high - 1.1).abs() < 1e-9,
            "{ratio:?}"
        );
    }

    #[test]
    fn repetitions_without_a_partner_do_not_count() {
        assert_eq!(
            Estimate::of_ratios(&[(1, 2.0), (2, 8.0)], &[(2, 4.0), (3, 1.0)]).map(|it| (it.median, it.count)),
            Some((2.0, 1))
        );
        assert_eq!(Estimate::of_ratios(&[(1, 2.0)], &[]), None);
        assert_eq!(Estimate::of_ratios(&[(1, 2.0)], &[(1, 0.0)]), None, "not to be divided by");
    }

    #[test]
    fn intervals_are_of_known_width_and_repeatable() {
        assert_eq!(Estimate::of(&[1.0, 2.0, 3.0, 4.0, 5.0]).unwrap().interval, None, "five cover 94 of 100 at best");
        let values: Vec<f64> = (1..=25).map(f64::from).collect();
        let estimate = Estimate::of(&values).unwrap();
        assert_eq!(estimate.median, 13.0);
        // The exact interval, by the binomial distribution, is from the 8th to the 18th.
        let (low, high) = estimate.interval.unwrap();
        assert!((7.0..=10.0).contains(&low) && (16.0..=19.0).contains(&high), "{estimate:?}");
        assert_eq!(Estimate::of(&values), Some(estimate));
    }

    #[test]
    fn intervals_cover_what_they_promise() {
        // Of 400 samples of 10 from a skewed distribution with median 1, some 95 of 100 intervals have it.
        let mut random = fastrand::Rng::with_seed(1);
        let covered = (0..400).filter(|_| {
            let values: Vec<f64> = (0..10).map(|_| (random.f64() * 2.0 - 1.0).tan().exp()).collect();
            let (low, high) = Estimate::of(&values).unwrap().interval.unwrap();
            (low..=high).contains(&1.0)
        });
        let covered = covered.count();
        assert!((360..=398).contains(&covered), "{covered} of 400");
    }
}
