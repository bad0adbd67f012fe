//! The slots of one replica: how many there are and how many are taken, in one atomic word.
//!
//! Limit and count live in the same word, so "is there a free slot, and take it" is one compare-and-swap, and a
//! request that still holds an older snapshot can never overrun a limit that was lowered since. A replica that gets
//! no new requests has the limit 0; what is taken then just runs down.
//!
//! Ordering: all operations are sequentially consistent, because [`super::gate`] pairs them with its count of
//! waiters ("I free a slot, then look for waiters" against "I wait, then look for slots").

use super::sync::{AtomicU64, Ordering};

/// Stands for "as many as come".
pub const UNLIMITED: u32 = u32::MAX;

/// How many slots there are, and how many are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level {
    /// The most that may be taken.
    pub limit: u32,
    /// How many are taken; above the limit for a while after the limit was lowered.
    pub taken: u32,
}

impl Level {
    fn unpack(word: u64) -> Self {
        Self { limit: (word >> 32) as u32, taken: word as u32 }
    }

    fn pack(self) -> u64 {
        u64::from(self.limit) << 32 | u64::from(self.taken)
    }

    /// Whether one more may be taken.
    pub fn has_room(self) -> bool {
        self.taken < self.limit
    }
}

/// The slots of one replica.
#[derive(Debug)]
pub struct Slots(AtomicU64);

impl Slots {
    /// None taken.
    pub fn new(limit: u32) -> Self {
        Self(AtomicU64::new(Level { limit, taken: 0 }.pack()))
    }

    /// A glance: may be out of date as soon as it returns.
    pub fn level(&self) -> Level {
        Level::unpack(self.0.load(Ordering::SeqCst))
    }

    /// Takes one if there is room.
    pub fn try_take(&self) -> bool {
        let mut word = self.0.load(Ordering::SeqCst);
        while Level::unpack(word).has_room() {
            match self.0.compare_exchange_weak(word, word + 1, Ordering::SeqCst, Ordering::SeqCst) {
                Ok(_) => return true,
                Err(seen) => word = seen,
            }
        }
        false
    }

    /// Gives one back.
    pub fn give_back(&self) {
        let before = Level::unpack(self.0.fetch_sub(1, Ordering::SeqCst));
        debug_assert!(before.taken > 0, "a slot was given back twice");
    }

    /// Sets the limit; what is taken stays taken.
    pub fn set_limit(&self, limit: u32) {
        let mut word = self.0.load(Ordering::SeqCst);
        loop {
            let next = Level { limit, ..Level::unpack(word) }.pack();
            match self.0.compare_exchange_weak(word, next, Ordering::SeqCst, Ordering::SeqCst) {
                Ok(_) => return,
                Err(seen) => word = seen,
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
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
        assert_eq!(slots.level(), Level { limit: 1, taken: 3 });
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
}
