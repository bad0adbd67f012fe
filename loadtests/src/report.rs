//! Numbers to judge by: means, medians, percentiles, and the verdict.

use serde::Serialize;

/// How a scenario ended when it could be carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Within every bar, or not judged.
    Passed,
    /// Over a bar, or requests failed.
    Failed,
}

/// Waits of one contender at one load.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Waits {
    /// Requests measured.
    pub count: usize,
    /// Mean, ms.
    pub mean_ms: f64,
    /// The 99th percentile, ms.
    pub p99_ms: f64,
}

impl Waits {
    /// Of no requests there is nothing to say.
    pub fn of(mut waits_ms: Vec<f64>) -> Option<Self> {
        waits_ms.sort_by(f64::total_cmp);
        let count = waits_ms.len();
        let p99_ms = quantile(&waits_ms, 0.99)?;
        Some(Self { count, mean_ms: waits_ms.iter().sum::<f64>() / count as f64, p99_ms })
    }
}

/// Median and spread of a few rounds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Rounds {
    /// The middle.
    pub median: f64,
    /// The least.
    pub least: f64,
    /// The most.
    pub most: f64,
}

impl Rounds {
    /// Of no rounds there is nothing to say.
    pub fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        let upper = *values.get(middle)?;
        let median = if values.len() % 2 == 1 { upper } else { (upper + values.get(middle.checked_sub(1)?)?) / 2.0 };
        Some(Self { median, least: *values.first()?, most: *values.last()? })
    }
}

/// The smallest value that at least this share of the sorted values does not exceed.
fn quantile(sorted: &[f64], share: f64) -> Option<f64> {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.checked_sub(1)?).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_p99_of_a_hundred_values_is_the_ninety_ninth() {
        let waits = Waits::of((1..=100).rev().map(f64::from).collect()).unwrap();
        assert_eq!((waits.count, waits.mean_ms, waits.p99_ms), (100, 50.5, 99.0));
    }

    #[test]
    fn a_median_is_the_middle_or_half_way_between_the_two_in_the_middle() {
        let odd = Rounds::of(vec![3.0, 1.0, 2.0]).unwrap();
        assert_eq!((odd.least, odd.median, odd.most), (1.0, 2.0, 3.0));
        assert_eq!(Rounds::of(vec![4.0, 1.0, 2.0, 3.0]).unwrap().median, 2.5);
    }

    #[test]
    fn nothing_measured_is_nothing_said() {
        assert!(Waits::of(Vec::new()).is_none());
        assert!(Rounds::of(Vec::new()).is_none());
    }
}
