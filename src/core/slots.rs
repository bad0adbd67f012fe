//! The slots of one replica: how many there are, how many are taken and whether they may be, in one atomic word.
//!
//! Limit, count and standing live in the same word, so "is there a free slot that may be had, and take it" is one
//! compare-and-swap: nothing is ever half taken, and a request that still holds an older snapshot can never overrun a
//! limit that was lowered since. A replica that gets no new requests has the limit 0; what is taken just runs down.
//!
//! Ordering: all operations are sequentially consistent, because [`super::gate`] pairs them with its count of
//! waiters ("I free a slot, then look for waiters" against "I wait, then look for slots").

use super::sync::{AtomicU64, Ordering};

/// Stands for "as many as come".
pub const UNLIMITED: u32 = u32::MAX;

/// The word: limit (32 bits), standing (2 bits), taken (30 bits).
const STANDING_SHIFT: u32 = 30;
const TAKEN_MAX: u32 = (1 << STANDING_SHIFT) - 1;

/// Whether a replica is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Every request may take a slot.
    In,
    /// Left out after connect failures; nobody may take a slot until its time has come.
    Out,
    /// Left out, and its time has come: one request may try it.
    Due,
    /// One request is trying it. Success brings it in, failure leaves it out again; a slot given back without either
    /// makes it due for the next request, because the one that tried may have gone away before it connected.
    Tried,
}

/// How many slots there are, how many are taken, and whether they may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level {
    /// The most that may be taken.
    pub limit: u32,
    /// How many are taken; above the limit for a while after the limit was lowered.
    pub taken: u32,
    /// Whether the replica is used.
    pub standing: Standing,
}

impl Level {
    fn unpack(word: u64) -> Self {
        let standing = match (word as u32) >> STANDING_SHIFT {
            0 => Standing::In,
            1 => Standing::Out,
            2 => Standing::Due,
            _ => Standing::Tried,
        };
        Self { limit: (word >> 32) as u32, taken: word as u32 & TAKEN_MAX, standing }
    }

    fn pack(self) -> u64 {
        u64::from(self.limit) << 32 | u64::from((self.standing as u32) << STANDING_SHIFT | self.taken)
    }

    /// Whether one more fits, by number alone.
    pub fn has_room(self) -> bool {
        self.taken < self.limit.min(TAKEN_MAX)
    }
}

/// The slots of one replica.
#[derive(Debug)]
pub struct Slots(AtomicU64);

impl Slots {
    /// None taken, and in use.
    pub fn new(limit: u32) -> Self {
        Self(AtomicU64::new(Level { limit, taken: 0, standing: Standing::In }.pack()))
    }

    /// A glance: may be out of date as soon as it returns.
    pub fn level(&self) -> Level {
        Level::unpack(self.0.load(Ordering::SeqCst))
    }

    /// Takes one if there is room, and the replica is in use.
    pub fn try_take(&self) -> bool {
        self.change(|level| {
            let usable = level.has_room() && level.standing == Standing::In;
            usable.then(|| Level { taken: level.taken + 1, ..level })
        })
    }

    /// Takes one of a replica that is left out, to try it: nobody else can after that.
    pub fn try_take_to_try(&self) -> bool {
        self.change(|level| {
            let usable = level.has_room() && matches!(level.standing, Standing::Out | Standing::Due);
            usable.then(|| Level { taken: level.taken + 1, standing: Standing::Tried, ..level })
        })
    }

    /// Gives one back.
    pub fn give_back(&self) {
        let before = Level::unpack(self.0.fetch_sub(1, Ordering::SeqCst));
        debug_assert!(before.taken > 0, "a slot was given back twice");
        if before.standing == Standing::Tried {
            self.turn(Standing::Tried, Standing::Due);
        }
    }

    /// Sets the limit; what is taken stays taken.
    pub fn set_limit(&self, limit: u32) {
        self.change(|level| Some(Level { limit, ..level }));
    }

    /// Sets the standing. Says whether it was another.
    pub fn stand(&self, standing: Standing) -> bool {
        self.change(|level| (level.standing != standing).then_some(Level { standing, ..level }))
    }

    /// Sets the standing if it is `from`.
    pub fn turn(&self, from: Standing, to: Standing) -> bool {
        self.change(|level| (level.standing == from).then_some(Level { standing: to, ..level }))
    }

    /// Changes the word in one step, unless `next` declines what it is shown. Says whether it did.
    fn change(&self, next: impl Fn(Level) -> Option<Level>) -> bool {
        let mut word = self.0.load(Ordering::SeqCst);
        while let Some(level) = next(Level::unpack(word)) {
            match self.0.compare_exchange_weak(word, level.pack(), Ordering::SeqCst, Ordering::SeqCst) {
                Ok(_) => return true,
                Err(seen) => word = seen,
            }
        }
        false
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    #[test]
    fn takes_up_to_the_limit_and_no_further() {
        let slots = Slots::new(2);
        assert!(slots.try_take() && slots.try_take());
        assert!(!slots.try_take());
        slots.give_back();
        assert!(slots.try_take());
    }

    #[test]
    fn a_lowered_limit_drains_down() {
        let slots = Slots::new(3);
        assert!(slots.try_take() && slots.try_take() && slots.try_take());
        slots.set_limit(1);
        assert_eq!(slots.level(), Level { limit: 1, taken: 3, standing: Standing::In });
        slots.give_back();
        slots.give_back();
        assert!(!slots.try_take());
        slots.give_back();
        assert!(slots.try_take());
    }

    #[test]
    fn limit_zero_takes_nobody() {
        let slots = Slots::new(0);
        assert!(!slots.try_take());
    }
    #[test]
    fn the_word_keeps_its_three_parts_apart() {
        for limit in [0, 1, TAKEN_MAX, UNLIMITED] {
            for taken in [0, 1, TAKEN_MAX] {
                for standing in [Standing::In, Standing::Out, Standing::Due, Standing::Tried] {
                    let level = Level { limit, taken, standing };
                    assert_eq!(Level::unpack(level.pack()), level);
                    assert!(!level.has_room() || taken < TAKEN_MAX);
                }
            }
        }
    }

    #[test]
    fn one_left_out_is_taken_by_one_that_tries_it_and_by_nobody_else() {
        let slots = Slots::new(2);
        assert!(slots.stand(Standing::Out) && !slots.stand(Standing::Out));
        assert!(!slots.try_take());
        assert!(slots.try_take_to_try());
        assert!(!slots.try_take_to_try() && !slots.try_take());
        slots.give_back();
        assert_eq!(slots.level(), Level { limit: 2, taken: 0, standing: Standing::Due });
        assert!(slots.try_take_to_try() && slots.stand(Standing::In));
        slots.give_back();
        assert_eq!(slots.level(), Level { limit: 2, taken: 0, standing: Standing::In });
    }

    #[test]
    fn a_full_one_is_not_tried() {
        let slots = Slots::new(1);
        assert!(slots.try_take() && slots.stand(Standing::Due));
        assert!(!slots.try_take_to_try());
        assert_eq!(slots.level(), Level { limit: 1, taken: 1, standing: Standing::Due });
    }
}
