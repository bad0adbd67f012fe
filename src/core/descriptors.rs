//! How many file descriptors there are, and how many of them clients may have.
//!
//! Each client connection needs one, and so does each connection to a replica. Where clients can take all of them, the
//! router would have many clients and could ask no replica for any. So a tenth is kept back.
//!
//! Holds: nothing is counted. The kernel gives the lowest number that is free, so the number of a new descriptor says that
//!        at least as many are open.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::count::Counter;

/// What the router needs besides connections: workers, listeners, logs, the API server, the admin port.
const OWN: usize = 256;
/// The least that is kept back.
const KEPT_MIN: usize = 16;

/// How many are needed for so many client connections with a request each, and one to a replica for each of these, and for
/// so many pipes.
pub fn needed(connections_max: usize, pipes_max: usize) -> usize {
    connections_max.saturating_add(pipes_max).saturating_mul(2).saturating_add(OWN)
}

/// See the head of the file.
#[derive(Debug, Default)]
pub struct Descriptors {
    /// The most that may be open; 0: not known.
    limit: AtomicUsize,
    /// Client connections turned away so that others can be served.
    pub refused: Counter,
}

/// What may be done for a client whose connection has a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// It may be served.
    Enough,
    /// It may be told that it is not.
    Little,
    /// It must go at once.
    None,
}

impl Descriptors {
    /// At most so many may be open.
    pub fn set_limit(&self, limit: usize) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// What may be done for the client with the descriptor of this number.
    pub fn room(&self, number: usize) -> Room {
        let limit = self.limit.load(Ordering::Relaxed);
        let kept = (limit / 10).max(KEPT_MIN).min(limit / 2);
        match limit {
            0 => Room::Enough,
            _ if number < limit - kept => Room::Enough,
            _ if number < limit - kept / 2 => Room::Little,
            _ => Room::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(limit: usize) -> Descriptors {
        let descriptors = Descriptors::default();
        descriptors.set_limit(limit);
        descriptors
    }

    #[test]
    fn a_connection_needs_two_and_so_does_a_pipe() {
        assert_eq!([needed(0, 0), needed(10_000, 0), needed(10_000, 128)], [256, 20_256, 20_512]);
        assert_eq!(needed(usize::MAX, 1), usize::MAX);
    }

    #[test]
    fn a_tenth_is_kept_from_clients_and_half_of_that_from_telling_them() {
        let descriptors = with(1000);
        let rooms = [0, 899, 900, 949, 950, 999].map(|number| descriptors.room(number));
        use Room::{Enough, Little, None};
        assert_eq!(rooms, [Enough, Enough, Little, Little, None, None]);
    }

    #[test]
    fn of_few_some_are_kept_back_and_of_very_few_half() {
        assert_eq!([63, 64, 72].map(|number| with(80).room(number)), [Room::Enough, Room::Little, Room::None]);
        assert_eq!([4, 5].map(|number| with(10).room(number)), [Room::Enough, Room::Little]);
    }

    #[test]
    fn without_a_limit_there_is_always_room() {
        assert_eq!(Descriptors::default().room(1 << 30), Room::Enough);
    }
}
