//! The waiters of one deployment, in order of arrival.
//!
//! Owner: [`super::gate`], behind its one mutex.
//! Holds: a grant goes to exactly one waiter, the one at the head; whoever leaves gives back what it was granted;
//!        memory is bounded by the number of waiters that have not left.
//! Does not: read clocks, choose replicas, know HTTP, lock anything.

use std::collections::BTreeMap;
use std::task::Waker;

/// A place in the line: first those who came to the front, then those who came to the back, both in order of arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket {
    is_back: bool,
    arrival: u64,
}

/// How waiting stands.
#[derive(Debug)]
pub enum Turn<G> {
    /// Still in line.
    Waiting,
    /// It is this waiter's turn, and this is what it gets.
    Granted(G),
    /// The line was dissolved.
    Dissolved,
}

/// The line. `G` is what is handed out at its head.
#[derive(Debug)]
pub struct Queue<G> {
    waiting: BTreeMap<Ticket, Waker>,
    granted: BTreeMap<Ticket, G>,
    pushed: u64,
    popped: u64,
}

impl<G> Default for Queue<G> {
    fn default() -> Self {
        Self { waiting: BTreeMap::new(), granted: BTreeMap::new(), pushed: 0, popped: 0 }
    }
}

impl<G> Queue<G> {
    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// How many ever joined the line, and how many left it for whatever reason.
    pub fn totals(&self) -> (u64, u64) {
        (self.pushed, self.popped)
    }

    /// Joins at the back.
    pub fn enter(&mut self, waker: Waker) -> Ticket {
        self.insert(true, waker)
    }

    /// Joins before all those who came to the back: for a request that had its turn once and must choose again.
    pub fn enter_front(&mut self, waker: Waker) -> Ticket {
        self.insert(false, waker)
    }

    fn insert(&mut self, is_back: bool, waker: Waker) -> Ticket {
        let ticket = Ticket { is_back, arrival: self.pushed };
        self.waiting.insert(ticket, waker);
        self.pushed += 1;
        ticket
    }

    /// How many wait before this one.
    pub fn ahead_of(&self, ticket: Ticket) -> usize {
        self.waiting.range(..ticket).count()
    }

    /// Grants `grant` to the head of the line and says whom to wake, or returns the grant when nobody waits.
    /// The caller wakes after it has let go of its lock.
    pub fn grant(&mut self, grant: G) -> Result<Waker, G> {
        let Some((ticket, waker)) = self.waiting.pop_first() else { return Err(grant) };
        self.popped += 1;
        self.granted.insert(ticket, grant);
        Ok(waker)
    }

    /// Looks whether it is this waiter's turn; remembers whom to wake if not. A granted waiter is done afterwards
    /// and its ticket means nothing any more.
    pub fn poll(&mut self, ticket: Ticket, waker: &Waker) -> Turn<G> {
        if let Some(grant) = self.granted.remove(&ticket) {
            return Turn::Granted(grant);
        }
        match self.waiting.get_mut(&ticket) {
            Some(known) => {
                known.clone_from(waker);
                Turn::Waiting
            }
            None => Turn::Dissolved,
        }
    }

    /// Leaves the line. What had been granted already comes back, for the caller to pass on.
    pub fn leave(&mut self, ticket: Ticket) -> Option<G> {
        if self.waiting.remove(&ticket).is_some() {
            self.popped += 1;
        }
        self.granted.remove(&ticket)
    }

    /// Sends everybody who waits away; grants not yet taken stay valid. The caller wakes them.
    pub fn dissolve(&mut self) -> Vec<Waker> {
        self.popped += self.waiting.len() as u64;
        std::mem::take(&mut self.waiting).into_values().collect()
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    fn waker() -> Waker {
        Waker::noop().clone()
    }

    fn granted<G>(turn: Turn<G>) -> Option<G> {
        match turn {
            Turn::Granted(grant) => Some(grant),
            Turn::Waiting | Turn::Dissolved => None,
        }
    }

    #[test]
    fn grants_go_out_in_order_of_arrival() {
        let mut queue = Queue::default();
        let (a, b) = (queue.enter(waker()), queue.enter(waker()));
        assert!(queue.grant(1).is_ok());
        assert_eq!(granted(queue.poll(b, &waker())), None);
        assert_eq!(granted(queue.poll(a, &waker())), Some(1));
        assert!(queue.grant(2).is_ok());
        assert_eq!(granted(queue.poll(b, &waker())), Some(2));
        assert_eq!(queue.grant(3).unwrap_err(), 3);
        assert_eq!(queue.totals(), (2, 2));
    }

    #[test]
    fn whoever_comes_to_the_front_is_served_first() {
        let mut queue = Queue::default();
        let back = queue.enter(waker());
        let front = queue.enter_front(waker());
        assert!(queue.grant(1).is_ok());
        assert_eq!(granted(queue.poll(back, &waker())), None);
        assert_eq!(granted(queue.poll(front, &waker())), Some(1));
    }

    #[test]
    fn a_waiter_that_leaves_gives_its_grant_back() {
        let mut queue = Queue::default();
        let (a, b) = (queue.enter(waker()), queue.enter(waker()));
        assert!(queue.grant(1).is_ok());
        assert_eq!(queue.leave(a), Some(1));
        assert_eq!(queue.leave(b), None);
        assert!(queue.is_empty());
        assert_eq!(queue.totals(), (2, 2));
    }

    #[test]
    fn a_dissolved_line_tells_everybody_but_keeps_grants() {
        let mut queue = Queue::default();
        let (a, b) = (queue.enter(waker()), queue.enter(waker()));
        assert!(queue.grant(1).is_ok());
        assert_eq!(queue.dissolve().len(), 1);
        assert_eq!(granted(queue.poll(a, &waker())), Some(1));
        assert!(matches!(queue.poll(b, &waker()), Turn::Dissolved));
    }
}
