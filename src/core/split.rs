//! Which share of the requests each deployment of an endpoint gets.

use super::dice::Dice;

/// Cumulated weights of the deployments, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Split {
    cumulated: Vec<u32>,
}

impl Split {
    /// From the percentages as they are set. A single deployment without one gets everything; among several, one
    /// without gets nothing. A sum other than 100 is shared in proportion.
    pub fn new(percents: &[Option<u8>]) -> Self {
        let lone = percents.len() == 1;
        let mut sum = 0;
        let weights = percents.iter().map(|percent| u32::from(percent.unwrap_or(if lone { 100 } else { 0 })));
        let cumulated = weights
            .map(|weight| {
                sum += weight;
                sum
            })
            .collect();
        Self { cumulated }
    }

    /// The sum of all percentages: 100 or 0 where they are set as they should be.
    pub fn sum(&self) -> u32 {
        self.cumulated.last().copied().unwrap_or(0)
    }

    /// The position of the deployment that gets the next request; `None` when none gets any.
    pub fn choose(&self, dice: &mut Dice) -> Option<usize> {
        let sum = self.sum();
        if sum == 0 {
            return None;
        }
        if self.cumulated.len() == 1 {
            return Some(0);
        }
        let at = dice.below(sum);
        Some(self.cumulated.partition_point(|&bound| bound <= at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(percents: &[Option<u8>]) -> Vec<usize> {
        let (split, mut dice) = (Split::new(percents), Dice::new(11));
        let mut hits = vec![0; percents.len()];
        for _ in 0..10_000 {
            if let Some(position) = split.choose(&mut dice) {
                hits[position] += 1;
            }
        }
        hits
    }

    #[test]
    fn one_alone_gets_everything_unless_it_says_otherwise() {
        assert_eq!(shares(&[None]), [10_000]);
        assert_eq!(shares(&[Some(0)]), [0]);
        assert_eq!(shares(&[Some(30)]), [10_000]);
    }

    #[test]
    fn several_share_by_percentage_and_a_new_one_gets_nothing() {
        let hits = shares(&[Some(90), None, Some(10)]);
        assert_eq!(hits[1], 0);
        assert!((800..1200).contains(&hits[2]), "{hits:?}");
        assert_eq!(hits[0] + hits[2], 10_000);
    }

    #[test]
    fn a_sum_other_than_100_is_shared_in_proportion() {
        let hits = shares(&[Some(20), Some(20)]);
        assert!((4700..5300).contains(&hits[0]), "{hits:?}");
        assert_eq!(shares(&[None, None]), [0, 0]);
        assert_eq!(shares(&[]), [0_usize; 0]);
    }
}
