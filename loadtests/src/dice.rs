//! Seeded chance: the same seed gives every contender the same arrivals and the same work.

use std::time::Duration;

/// SplitMix64.
pub struct Dice(u64);

impl Dice {
    /// A sequence of its own for each seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Uniform in 0..bound; 0 where that is empty.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.roll().checked_rem(bound).unwrap_or(0)
    }

    /// Uniform in (0, 1]: its logarithm is finite.
    fn share(&mut self) -> f64 {
        ((self.roll() >> 11) + 1) as f64 / (1_u64 << 53) as f64
    }

    /// Exponential with this mean: gaps of a Poisson stream, or service times.
    pub fn exponential(&mut self, mean: Duration) -> Duration {
        mean.mul_f64(-self.share().ln())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_gives_one_sequence() {
        let draw = |seed| {
            let mut dice = Dice::new(seed);
            (0..8).map(|_| dice.exponential(Duration::from_millis(20))).collect::<Vec<_>>()
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }

    #[test]
    fn the_mean_and_the_spread_of_an_exponential_are_its_mean() {
        let mut dice = Dice::new(1);
        let draws: Vec<f64> =
            (0..100_000).map(|_| dice.exponential(Duration::from_millis(20)).as_secs_f64() * 1e3).collect();
        let mean = draws.iter().sum::<f64>() / draws.len() as f64;
        let deviation = (draws.iter().map(|draw| (draw - mean).powi(2)).sum::<f64>() / draws.len() as f64).sqrt();
        assert!((mean - 20.0).abs() < 0.3, "mean {mean}");
        assert!((deviation - 20.0).abs() < 0.5, "deviation {deviation}");
    }
}
