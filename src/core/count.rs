//! Counters and histograms as plain atomics, to be read by whoever scrapes.
//!
//! No registry and no labels here: the thing in hand owns its counters (an add costs about a nanosecond, a look-up
//! by label some hundreds). Each worker writes to a shard of its own, so adds never fight over a cache line.

use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A duration as it is counted: whole microseconds, at most as many as fit.
pub fn micros(duration: Duration) -> u64 {
    // Not by way of the 128 bits of `as_micros`: this is done a dozen times for each exchange.
    let whole = duration.as_secs().checked_mul(1_000_000);
    whole.and_then(|whole| whole.checked_add(u64::from(duration.subsec_micros()))).unwrap_or(u64::MAX)
}

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one.
    pub fn bump(&self) {
        self.add(1);
    }

    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// The count so far.
    pub fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Something that many threads write to, alone on its cache line (two, because processors fetch them in pairs): whoever
/// reads what would lie beside it does not wait for them.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Apart<T>(T);

impl<T> Apart<T> {
    /// Puts it apart.
    pub const fn new(value: T) -> Self {
        Self(value)
    }
}

impl<T> Deref for Apart<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// A number that only grows, with a shard for each worker.
#[derive(Debug)]
pub struct ShardedCounter(Box<[Apart<Counter>]>);

impl ShardedCounter {
    /// For so many workers.
    pub fn new(workers: usize) -> Self {
        Self((0..workers.max(1)).map(|_| Apart::default()).collect())
    }

    /// Adds one, on behalf of a worker.
    pub fn bump(&self, worker: usize) {
        if let Some(shard) = self.0.get(worker % self.0.len()) {
            shard.bump();
        }
    }

    /// The count so far.
    pub fn read(&self) -> u64 {
        self.0.iter().map(|shard| shard.read()).sum()
    }
}

/// Upper bounds of the time buckets in microseconds: 100 µs to 300 s.
pub const TIME_BOUNDS: &[u64] = &[
    100,
    250,
    500,
    1_000,
    2_500,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    30_000_000,
    60_000_000,
    120_000_000,
    300_000_000,
];

/// Upper bounds of the size buckets in bytes: 256 B to 256 MiB.
pub const SIZE_BOUNDS: &[u64] =
    &[256, 1 << 10, 4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20, 4 << 20, 16 << 20, 64 << 20, 256 << 20];

/// Counts of values by bucket, with their sum.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [u64],
    buckets: Box<[AtomicU64]>,
    sum: AtomicU64,
}

impl Histogram {
    /// For microseconds.
    pub fn of_times() -> Self {
        Self::new(TIME_BOUNDS)
    }

    /// For bytes.
    pub fn of_sizes() -> Self {
        Self::new(SIZE_BOUNDS)
    }

    fn new(bounds: &'static [u64]) -> Self {
        let buckets = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self { bounds, buckets, sum: AtomicU64::new(0) }
    }

    /// Counts one value.
    pub fn observe(&self, value: u64) {
        let position = self.bounds.partition_point(|&bound| bound < value);
        if let Some(bucket) = self.buckets.get(position) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    /// Adds what was counted to `tally`, which must be of the same bounds.
    pub fn read_into(&self, tally: &mut Tally) {
        debug_assert_eq!(self.bounds.len(), tally.bounds.len());
        for (total, bucket) in tally.buckets.iter_mut().zip(&self.buckets) {
            *total += bucket.load(Ordering::Relaxed);
        }
        tally.sum += self.sum.load(Ordering::Relaxed);
    }
}

/// The sum of the same histogram over several shards.
#[derive(Clone, Debug)]
pub struct Tally {
    /// Upper bounds, without the last one (infinity).
    pub bounds: &'static [u64],
    /// Count of each bucket, not cumulated; one more than there are bounds.
    pub buckets: Vec<u64>,
    /// Sum of all values.
    pub sum: u64,
}

impl Tally {
    /// An empty one for microseconds.
    pub fn of_times() -> Self {
        Self::new(TIME_BOUNDS)
    }

    /// An empty one for bytes.
    pub fn of_sizes() -> Self {
        Self::new(SIZE_BOUNDS)
    }

    fn new(bounds: &'static [u64]) -> Self {
        Self { bounds, buckets: vec![0; bounds.len() + 1], sum: 0 }
    }

    /// How many values were counted.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

/// Counts by status code: one cell for each code that a replica is likely to send, one for all others.
#[derive(Debug)]
pub struct StatusCounts {
    cells: Box<[AtomicU64]>,
}

/// The codes with a cell of their own (the registered ones), ascending.
pub const STATUS_CODES: &[u16] = &[
    101, 200, 201, 202, 203, 204, 205, 206, 207, 208, 226, 300, 301, 302, 303, 304, 305, 307, 308, 400, 401, 402, 403,
    404, 405, 406, 407, 408, 409, 410, 411, 412, 413, 414, 415, 416, 417, 418, 421, 422, 423, 424, 425, 426, 428, 429,
    431, 451, 499, 500, 501, 502, 503, 504, 505, 506, 507, 508, 510, 511,
];

impl Default for StatusCounts {
    fn default() -> Self {
        Self { cells: (0..=STATUS_CODES.len()).map(|_| AtomicU64::new(0)).collect() }
    }
}

impl StatusCounts {
    /// Counts one answer of this status.
    pub fn bump(&self, status: u16) {
        let position = STATUS_CODES.binary_search(&status).unwrap_or(STATUS_CODES.len());
        if let Some(cell) = self.cells.get(position) {
            cell.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The codes counted so far with their counts; 0 stands for all codes without a cell.
    pub fn read(&self) -> impl Iterator<Item = (u16, u64)> + '_ {
        let codes = STATUS_CODES.iter().copied().chain(std::iter::once(0));
        codes.zip(&self.cells).map(|(code, cell)| (code, cell.load(Ordering::Relaxed))).filter(|&(_, n)| n > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_whole_microseconds_as_far_as_they_fit() {
        for duration in [Duration::ZERO, Duration::from_nanos(1_999), Duration::new(300, 999_999_999)] {
            assert_eq!(u128::from(micros(duration)), duration.as_micros());
        }
        assert_eq!(micros(Duration::MAX), u64::MAX);
        assert_eq!(micros(Duration::from_secs(u64::MAX / 1_000_000)), u64::MAX / 1_000_000 * 1_000_000);
    }

    #[test]
    fn what_all_workers_counted_is_read_as_one_number() {
        let counter = ShardedCounter::new(2);
        for worker in [0, 1, 1, 7] {
            counter.bump(worker);
        }
        assert_eq!(counter.read(), 4);
        assert_eq!(align_of::<Apart<Counter>>(), 128);
    }

    #[test]
    fn a_value_falls_into_the_first_bucket_that_holds_it() {
        let histogram = Histogram::of_times();
        for value in [0, 100, 101, 300_000_000, 300_000_001] {
            histogram.observe(value);
        }
        let mut tally = Tally::of_times();
        histogram.read_into(&mut tally);
        assert_eq!(tally.buckets[0], 2);
        assert_eq!(tally.buckets[1], 1);
        assert_eq!(tally.buckets[TIME_BOUNDS.len() - 1], 1);
        assert_eq!(tally.buckets[TIME_BOUNDS.len()], 1);
        assert_eq!(tally.count(), 5);
        assert_eq!(tally.sum, 600_000_202);
    }

    #[test]
    fn status_codes_are_counted_apart_and_strange_ones_together() {
        assert!(STATUS_CODES.is_sorted());
        let counts = StatusCounts::default();
        for status in [200, 200, 503, 299, 999] {
            counts.bump(status);
        }
        assert_eq!(counts.read().collect::<Vec<_>>(), [(200, 2), (503, 1), (0, 2)]);
    }
}
