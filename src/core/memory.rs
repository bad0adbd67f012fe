//! Memory as a whole: how much the process has, how much it may have, and whether it is short of it.
//!
//! Owner: [`super::vitals::Vitals`]. A sampler in `ops` observes; the data path asks [`Memory::is_short`], one relaxed
//! load, and turns new work away while it is.
//! Holds: shortage begins above the limit and ends at nine tenths of it, so that it does not flicker; without a limit
//!        there is none.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::count::Counter;

/// Requests that are let in however short memory is: a door that is shut altogether would stay shut where what takes
/// the memory is not the requests.
pub const REQUESTS_ALWAYS: usize = 16;

/// See the head of the file.
#[derive(Debug, Default)]
pub struct Memory {
    /// In bytes; 0: no limit.
    limit: AtomicU64,
    /// As it was last observed, in bytes.
    resident: AtomicU64,
    short: AtomicBool,
    /// Requests turned away.
    pub refused_requests: Counter,
    /// Connections turned away.
    pub refused_connections: Counter,
}

/// What an observation changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Memory is short from now on.
    Short,
    /// It is enough again.
    Enough,
}

impl Memory {
    /// From now on it may be so many bytes; 0: any number.
    pub fn set_limit(&self, bytes: u64) {
        self.limit.store(bytes, Ordering::Relaxed);
    }

    /// How many bytes it may be; 0: any number.
    pub fn limit(&self) -> u64 {
        self.limit.load(Ordering::Relaxed)
    }

    /// How many it was at the last look.
    pub fn resident(&self) -> u64 {
        self.resident.load(Ordering::Relaxed)
    }

    /// Whether new work is to be turned away.
    pub fn is_short(&self) -> bool {
        self.short.load(Ordering::Relaxed)
    }

    /// Takes a look; `resident` is what the process has now, in bytes.
    pub fn observe(&self, resident: u64) -> Option<Turn> {
        self.resident.store(resident, Ordering::Relaxed);
        let (limit, was_short) = (self.limit(), self.is_short());
        let is_short = limit != 0 && resident > if was_short { limit / 10 * 9 } else { limit };
        if is_short == was_short {
            return None;
        }
        self.short.store(is_short, Ordering::Relaxed);
        Some(if is_short { Turn::Short } else { Turn::Enough })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shortage_begins_above_the_limit_and_ends_at_nine_tenths_of_it() {
        let memory = Memory::default();
        memory.set_limit(1000);
        let looks = [(1000, None), (1001, Some(Turn::Short)), (950, None), (901, None), (900, Some(Turn::Enough))];
        for (resident, turn) in looks {
            assert_eq!(memory.observe(resident), turn, "{resident}");
            assert_eq!(memory.resident(), resident);
        }
        assert_eq!((memory.observe(1000), memory.is_short()), (None, false));
    }

    #[test]
    fn without_a_limit_it_is_never_short() {
        let memory = Memory::default();
        assert_eq!((memory.observe(u64::MAX), memory.is_short()), (None, false));
        memory.set_limit(1);
        assert_eq!(memory.observe(2), Some(Turn::Short));
        memory.set_limit(0);
        assert_eq!(memory.observe(2), Some(Turn::Enough));
    }
}
