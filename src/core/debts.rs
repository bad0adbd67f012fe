//! Who owes how much, in a fixed number of places: of each debtor the moment at which nothing will be owed any more.
//!
//! Owner: whoever counts against debtors of whom there may be any number: [`super::failures`], [`super::subjects`].
//! Holds: memory is taken once, on first use, and never grows. Places are in sets of `WAYS`, and a newcomer gets that
//! of whoever of its set will be the first to owe nothing, so those who owe most are the last to be forgotten, and who
//! owes nothing loses nothing by it.

use std::hash::{BuildHasher as _, Hash, RandomState};
use std::sync::OnceLock;

use parking_lot::{MappedMutexGuard, Mutex, MutexGuard};

/// Places of a set.
const WAYS: usize = 8;

/// Room for one debtor.
#[derive(Clone, Copy, Debug)]
pub struct Place<K> {
    /// Whose it is; nobody's at first.
    pub debtor: Option<K>,
    /// When it owes nothing, on whatever clock, always the same. In the past: the place is free.
    pub clear: u64,
}

type Set<K> = Mutex<[Place<K>; WAYS]>;

/// See the head of the file.
#[derive(Debug)]
pub struct Debts<K> {
    /// Random, so that nobody can choose names that all meet in one set.
    hasher: RandomState,
    sets: OnceLock<Box<[Set<K>]>>,
}

impl<K> Default for Debts<K> {
    fn default() -> Self {
        Self { hasher: RandomState::default(), sets: OnceLock::default() }
    }
}

/// How many places there are where so many are asked for.
pub fn places(wanted: usize) -> usize {
    wanted.div_ceil(WAYS).max(1) * WAYS
}

impl<K: Copy + Eq + Hash> Debts<K> {
    /// The place of this debtor, or else the one to be had: what its debtor owes is the least of its set. Whoever takes
    /// it writes down both. The first to ask says how many are wanted.
    pub fn place(&self, wanted: usize, debtor: K) -> Option<MappedMutexGuard<'_, Place<K>>> {
        let sets = self.sets.get_or_init(|| {
            (0..places(wanted) / WAYS).map(|_| Mutex::new([Place { debtor: None, clear: 0 }; WAYS])).collect()
        });
        let at = self.hasher.hash_one(debtor) as usize % sets.len().max(1);
        MutexGuard::try_map(sets.get(at)?.lock(), |set| {
            let known = set.iter().position(|place| place.debtor == Some(debtor));
            match known {
                Some(at) => set.get_mut(at),
                None => set.iter_mut().min_by_key(|place| place.clear),
            }
        })
        .ok()
    }

    /// Debtors who still owe something at `now`.
    pub fn len(&self, now: u64) -> usize {
        let count = |set: &Set<K>| set.lock().iter().filter(|place| place.clear > now).count();
        self.sets.get().map_or(0, |sets| sets.iter().map(count).sum())
    }

    /// Whether anybody ever asked for a place.
    #[cfg(test)]
    pub fn has_memory(&self) -> bool {
        self.sets.get().is_some()
    }
}
